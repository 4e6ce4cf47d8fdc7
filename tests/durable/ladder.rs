//! Five targets in a row, of which only the last takes the dump.

use std::path::{Path, PathBuf};

use kdump_rehearse::{Held, Mount, Plan, Progress, Scene};

use crate::common::{self, Turn, scratch};
use crate::{disks, promise};

/// `s_feature_ro_compat` in an ext superblock, and the feature that makes it read-only.
const RO_COMPAT_AT: u64 = 1024 + 0x64;
const READ_ONLY: u8 = 0x10;
const MIB: u64 = 1 << 20;

/// Makes one disk vanish and another read-only, when the guest is armed.
struct Saboteur {
    missing: PathBuf,
    read_only: PathBuf,
}

impl Progress for Saboteur {
    fn held(&mut self, _: &Held<'_>) {
        disks::patch(&self.missing, 0, &[0; 4096]);
        disks::patch(&self.read_only, RO_COMPAT_AT + 1, &[READ_ONLY]);
    }
}

pub fn climb() {
    let turn = Turn::wait();
    let out = turn.directory("ladder");
    std::fs::create_dir_all(&out).unwrap();
    let disk = |name: &str| out.join(format!("{name}.img"));
    let [missing, read_only, small, broken] = ["missing", "read-only", "small", "broken"].map(disk);
    disks::formatted(&missing, 64, &["mkfs.ext2", "-q", "-F", "-b", "4096"]);
    // Neither journal nor checksums would let it be changed from outside.
    let plain = ["mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "^has_journal,^metadata_csum"];
    disks::formatted(&read_only, 64, &plain);
    disks::formatted(&small, 16, &["mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0"]);
    disks::formatted(&broken, 256, &["mkfs.ext4", "-q", "-F", "-b", "4096"]);
    // Between what mkfs has put at the beginning and the journal in the middle.
    let bad = (20..120).map(|mib| (mib * MIB + MIB / 2) / 512);
    let qemu = [
        disks::drive("missing", &missing),
        disks::drive("readonly", &read_only),
        disks::drive("small", &small),
        failing_drive("broken", &broken, bad),
    ];
    let mounts = [("/dev/vdb", "ext2"), ("/dev/vdc", "ext4"), ("/dev/vdd", "ext4"), ("/dev/vde", "ext4")];
    let mounts = mounts.map(|(device, fstype)| Mount {
        device: device.to_owned(),
        fstype: fstype.to_owned(),
        directory: device.replace("dev", "mnt"),
    });
    let arm = [
        "--target=/mnt/vdb,budget=8",
        "--target=/mnt/vdc",
        "--target=/mnt/vdd",
        "--target=/mnt/vde",
        "--target=/var/crash,budget=2m",
        "--total-budget=4m",
    ];
    let plan = Plan {
        arm: arm.map(str::to_owned).to_vec(),
        scene: Scene {
            is_held: true,
            mounts: mounts.to_vec(),
            qemu: qemu.into_iter().flatten().collect(),
            asked: vec!["status".to_owned()],
            ..Scene::default()
        },
        ..Plan::new(common::kernel("6.12"), common::programs(), out.clone())
    };
    let mut saboteur = Saboteur { missing, read_only };
    let outcome = plan.run(&mut saboteur);
    let serial = common::serial_of(&out);
    let outcome = outcome.unwrap_or_else(|e| panic!("{e}\n{serial}"));

    let (status, _) = kdump_rehearse::scene::answer(&serial, "status").unwrap();
    assert_eq!(status.lines().filter(|line| line.starts_with("  then ")).count(), 4, "{status}");
    // The log beside the dump tells of those before.
    let log = std::fs::read_to_string(outcome.dump_dir.join("capture.log")).unwrap();
    for said in [
        "target 1 of 5",
        "its 8 s are over",
        "Read-only file system",
        "even at level 31",
        "No space left on device",
        "Input/output error",
        "target 5 of 5",
        "vmcore is complete",
    ] {
        assert!(log.contains(said), "{said:?} is not in\n{log}\n\n{serial}");
    }
    let whole = promise::read(&outcome.dump_dir.join("vmcore")).unwrap();
    assert!(!whole.is_incomplete && whole.pages.len() == whole.wanted);

    // The full disk keeps what found room on it, the broken one is not believed.
    disks::assert_clean(&small);
    let taken = disks::directories(&disks::take_ext(&small, "/", &scratch("ladder-small")));
    let [dir] = taken.as_slice() else { panic!("{taken:?}") };
    assert!(
        dir.join("report.txt").exists()
            && !dir.join("vmcore").exists()
            && !dir.join("manifest.json").exists()
    );
    let partial = promise::read(&dir.join("vmcore.partial")).unwrap();
    assert_eq!(partial.broken(&whole), (0, vec![]));
    assert!(
        partial.is_incomplete && partial.pages.len() > whole.wanted / 10,
        "{} pages",
        partial.pages.len()
    );
    let taken = disks::directories(&disks::take_ext(&broken, "/", &scratch("ladder-broken")));
    assert!(taken.iter().all(|dir| !dir.join("vmcore").exists()), "{taken:?}");
    eprintln!("ladder: {} of {} pages on the disk that is too small", partial.pages.len(), whole.wanted);
}

/// QEMU arguments for a raw disk on virtio where writes to certain sectors fail.
fn failing_drive(id: &str, image: &Path, sectors: impl Iterator<Item = u64>) -> [String; 4] {
    let rules: Vec<_> = sectors
        .map(|sector| {
            format!(
                "{{\"event\":\"none\",\"iotype\":\"write\",\"errno\":5,\"once\":false,\"sector\":{sector}}}"
            )
        })
        .collect();
    [
        "-blockdev".to_owned(),
        format!(
            "{{\"driver\":\"raw\",\"node-name\":\"{id}\",\"file\":{{\"driver\":\"blkdebug\",\"image\":\
             {{\"driver\":\"file\",\"filename\":\"{}\"}},\"inject-error\":[{}]}}}}",
            image.display(),
            rules.join(",")
        ),
        "-device".to_owned(),
        format!("virtio-blk-pci,drive={id}"),
    ]
}
