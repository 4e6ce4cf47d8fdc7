//! Targets of every kind, each read without the driver that wrote it.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use kdump_rehearse::{Error, Held, Mount, Outcome, Phase, Plan, Progress, Scene};

use crate::common::{self, Quiet, Turn, scratch};
use crate::{cuts, disks, promise};

const MIB: u64 = 1 << 20;

/// Lets a guest dump to its second disk, mounted as `fstype`, and gives the console.
fn dump(out: &Path, image: &Path, fstype: &str, arm: &[&str]) -> (Result<Outcome, Error>, String) {
    let device = "/dev/vdb".to_owned();
    let mounts = vec![Mount { device, fstype: fstype.to_owned(), directory: "/mnt/dumps".to_owned() }];
    let plan = Plan {
        arm: arm.iter().map(|&a| a.to_owned()).collect(),
        scene: Scene {
            mounts: if fstype.is_empty() { vec![] } else { mounts },
            qemu: disks::drive("target", image).to_vec(),
            ..Scene::default()
        },
        ..Plan::new(common::kernel("6.12"), common::programs(), out.to_owned())
    };
    let outcome = plan.run(&mut Quiet);
    (outcome, common::serial_of(out))
}

/// The same where the dump is not on the guest's own disk, which a rehearsal takes for a failure at its very end.
fn dump_elsewhere(name: &str, image: &Path, fstype: &str, target: &str) -> String {
    let (outcome, serial) = dump(&scratch(name), image, fstype, &[target]);
    assert!(matches!(&outcome, Err(Error::Phase { phase: Phase::Collect, .. })), "{outcome:?}\n{serial}");
    assert!(serial.contains("vmcore is complete"), "{serial}");
    serial
}

/// A dump directory that was taken out of a disk is complete.
fn assert_whole(dir: &Path) {
    let whole = promise::read(&dir.join("vmcore")).unwrap();
    assert!(!whole.is_incomplete && whole.pages.len() == whole.wanted && whole.wanted > 1000);
    assert!(whole.pages.values().all(Result::is_ok));
    for name in ["report.txt", "report.json", "dmesg.txt", "capture.log", "manifest.json"] {
        assert!(dir.join(name).metadata().unwrap().len() > 0, "{name}");
    }
    cuts::manifest_agrees(dir);
}

/// The dump directory among what was taken out of a disk.
fn only_dump(above: &Path) -> PathBuf {
    let dirs = disks::directories(above);
    let [dir] = dirs.as_slice() else { panic!("{dirs:?} in {}", above.display()) };
    dir.clone()
}

pub fn btrfs() {
    let _turn = Turn::wait();
    let image = scratch("btrfs.img");
    disks::formatted(&image, 512, &["mkfs.btrfs", "-q", "-f"]);
    dump_elsewhere("durable-btrfs", &image, "btrfs", "--target=/mnt/dumps");
    disks::run(disks::tool("btrfs").args(["check", "--readonly"]).arg(&image));
    let out = scratch("btrfs-found");
    let _ = std::fs::remove_dir_all(&out);
    std::fs::create_dir_all(&out).unwrap();
    disks::run(disks::tool("btrfs").arg("restore").args([&image, &out]));
    assert_whole(&only_dump(&out));
}

pub fn fat() {
    let _turn = Turn::wait();
    let image = scratch("fat.img");
    disks::formatted(&image, 512, &["mkfs.vfat", "-F", "32"]);
    dump_elsewhere("durable-fat", &image, "vfat", "--target=/mnt/dumps");
    disks::run(disks::tool("fsck.vfat").arg("-n").arg(&image));
    let out = scratch("fat-found");
    let _ = std::fs::remove_dir_all(&out);
    std::fs::create_dir_all(&out).unwrap();
    disks::run(disks::tool("mcopy").args(["-s", "-n", "-i"]).arg(&image).arg("::/").arg(&out));
    assert_whole(&only_dump(&out));
}

pub fn xfs() {
    let _turn = Turn::wait();
    let image = scratch("xfs.img");
    disks::formatted(&image, 512, &["mkfs.xfs", "-q", "-f"]);
    let serial = dump_elsewhere("durable-xfs", &image, "xfs", "--target=/mnt/dumps");
    disks::run(disks::tool("xfs_repair").arg("-n").arg(&image));
    let (_, name) = serial.split_once("the dump goes to ").unwrap();
    let name = name.lines().next().unwrap();
    let out = scratch("xfs-found");
    let _ = std::fs::remove_dir_all(&out);
    std::fs::create_dir_all(&out).unwrap();
    for file in ["vmcore", "report.txt", "report.json", "dmesg.txt", "capture.log", "manifest.json"] {
        let bytes = read_xfs(&image, &format!("/{name}/{file}"));
        std::fs::write(out.join(file), bytes).unwrap();
    }
    assert_whole(&out);
}

/// Reads a file's extents where xfs_db says that they are.
fn read_xfs(image: &Path, path: &str) -> Vec<u8> {
    let ask = |commands: &[&str]| {
        let mut xfs_db = disks::tool("xfs_db");
        xfs_db.arg("-r");
        commands.iter().for_each(|command| {
            xfs_db.args(["-c", command]);
        });
        disks::run(xfs_db.arg(image))
    };
    let goto = format!("path {path}");
    let number = |text: &str| text.split('=').nth(1).unwrap().trim().parse::<u64>().unwrap();
    let (size, block) =
        (number(&ask(&[&goto, "print core.size"])), number(&ask(&["sb 0", "print blocksize"])));
    let file = std::fs::File::open(image).unwrap();
    let mut bytes = vec![0; size as usize];
    // data offset 0 startblock 24 (0/24) count 7 flag 0
    for line in ask(&[&goto, "bmap"]).lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let after = |word: &str| words.iter().position(|w| *w == word).map(|at| words[at + 1]);
        let (offset, at, count) =
            (after("offset").unwrap(), after("startblock").unwrap(), after("count").unwrap());
        let [offset, count] = [offset, count].map(|n| n.parse::<u64>().unwrap() * block);
        let fsblock = ask(&[&format!("convert fsblock {at} byte")]);
        let (_, hex) = fsblock.split_once("0x").unwrap_or(("", "0"));
        let at = u64::from_str_radix(hex.split([' ', ')']).next().unwrap().trim(), 16).unwrap();
        let end = (offset + count).min(size);
        if offset < end {
            file.read_exact_at(&mut bytes[offset as usize..end as usize], at).unwrap();
        }
    }
    bytes
}

/// A disk with two partitions: the second takes the dump, the first is somebody's.
pub fn partition() {
    let _turn = Turn::wait();
    let image = scratch("partition.img");
    disks::blank(&image, 320);
    let (first, second) = (MIB, 64 * MIB);
    let mut mbr = [0; 512];
    mbr[440..444].copy_from_slice(b"kdmp");
    for (i, (start, end)) in [(first, second), (second, 320 * MIB)].into_iter().enumerate() {
        let entry = &mut mbr[446 + 16 * i..462 + 16 * i];
        entry[4] = 0x83;
        entry[8..12].copy_from_slice(&((start / 512) as u32).to_le_bytes());
        entry[12..16].copy_from_slice(&(((end - start) / 512) as u32).to_le_bytes());
    }
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    disks::patch(&image, 0, &mbr);
    let precious: Vec<u8> = (0..second - first).map(|i| (i % 251) as u8).collect();
    disks::patch(&image, first, &precious);

    let serial = dump_elsewhere("durable-partition", &image, "", "--target=raw:/dev/vdb2,overwrite");
    assert!(serial.contains("PARTUUID 706d646b-02"), "{serial}");
    let bytes = std::fs::read(&image).unwrap();
    assert!(bytes[..512] == mbr && bytes[first as usize..second as usize] == precious[..]);
    let taken = scratch("partition.vmcore");
    std::fs::write(&taken, &bytes[second as usize..]).unwrap();
    assert!(bytes[second as usize..].starts_with(b"makedumpfile\0"));
    // A stream: our own command makes a file of it.
    let plain = scratch("partition.plain");
    let mut capture = std::process::Command::new(common::KDUMP_RS);
    disks::run(capture.arg("capture").arg(&taken).arg("-o").arg(&plain).arg("--force"));
    let whole = promise::read(&plain).unwrap();
    assert!(
        !whole.is_incomplete && whole.pages.len() == whole.wanted && whole.pages.values().all(Result::is_ok)
    );
    let mut analyze = std::process::Command::new(common::KDUMP_RS);
    let text = disks::run(analyze.arg("analyze").arg(&taken));
    assert!(text.contains("sysrq triggered crash"), "{text}");
}

/// A disk that level 0 does not fit on, with older dumps: two go for the count, a note keeps a third, and the level is
/// raised.
pub fn small() {
    let _turn = Turn::wait();
    let (image, out) = (scratch("few.img"), scratch("durable-few"));
    disks::formatted(&image, 160, &["mkfs.ext4", "-q", "-F", "-m", "0"]);
    let old: Vec<_> = (1..=6).map(|day| format!("2026010{day}T000000Z-0000000{day}")).collect();
    let file = scratch("few.file");
    std::fs::write(&file, "x").unwrap();
    let mut requests = String::new();
    for (i, name) in old.iter().enumerate() {
        requests.push_str(&format!("mkdir {name}\n"));
        let files: &[&str] =
            if i == 0 { &["vmcore", "manifest.json", "ticket"] } else { &["vmcore", "manifest.json"] };
        for inside in files {
            requests.push_str(&format!("write {} {name}/{inside}\n", file.display()));
        }
    }
    let script = scratch("few.debugfs");
    std::fs::write(&script, requests).unwrap();
    disks::run(disks::tool("debugfs").arg("-w").arg("-f").arg(&script).arg(&image));

    let (outcome, serial) = dump(&out, &image, "ext4", &["--target=/mnt/dumps", "--level=0"]);
    assert!(matches!(&outcome, Err(Error::Phase { phase: Phase::Collect, .. })), "{outcome:?}\n{serial}");
    assert!(serial.contains("and a dump at level 0 may take "), "{serial}");
    disks::assert_clean(&image);
    let left = disks::directories(&disks::take_ext(&image, "/", &scratch("few-found")));
    let names: Vec<_> = left.iter().map(|dir| dir.file_name().unwrap().to_str().unwrap()).collect();
    // Five of those that may go, the new one among them, and the one with a ticket.
    assert_eq!(names[..5], [&old[0], &old[2], &old[3], &old[4], &old[5]], "{serial}");
    assert_eq!(names.len(), 6, "{names:?}");
    assert_whole(&left[5]);
}

/// A watchdog of 30 seconds, and a capture that waits longer than that for a disk that is not there.
pub fn watchdog() {
    let _turn = Turn::wait();
    let (image, out) = (scratch("gone.img"), scratch("durable-watchdog"));
    disks::formatted(&image, 64, &["mkfs.ext2", "-q", "-F"]);
    let device = "/dev/vdb".to_owned();
    let plan = Plan {
        arm: ["--target=/mnt/dumps,budget=40", "--target=/var/crash"].map(str::to_owned).to_vec(),
        scene: Scene {
            is_held: true,
            modules: vec!["i6300esb".to_owned()],
            mounts: vec![Mount { device, fstype: "ext2".to_owned(), directory: "/mnt/dumps".to_owned() }],
            qemu: disks::drive("gone", &image)
                .into_iter()
                .chain(["-device", "i6300esb"].map(str::to_owned))
                .collect(),
            ..Scene::default()
        },
        ..Plan::new(common::kernel("6.12"), common::programs(), out.clone())
    };
    let outcome = plan.run(&mut Wiper(&image));
    let serial = common::serial_of(&out);
    // Its bite would have reset the guest, and there would be no dump.
    let outcome = outcome.unwrap_or_else(|e| panic!("{e}\n{serial}"));
    assert!(serial.contains("feeding watchdog0 (i6300ESB timer, 30 s)"), "{serial}");
    assert!(serial.contains("its 40 s are over"), "{serial}");
    assert_whole(&outcome.dump_dir);
}

/// Takes the file system off a disk when the guest is armed.
struct Wiper<'a>(&'a Path);

impl Progress for Wiper<'_> {
    fn held(&mut self, _: &Held<'_>) {
        disks::patch(self.0, 0, &[0; 4096]);
    }
}
