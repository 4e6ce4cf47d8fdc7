//! File systems in files, made, checked and read without mounting them, so without root.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A command that an administrator's PATH has.
pub fn tool(program: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C");
    command
}

/// Runs a command that must succeed, and gives what it prints.
pub fn run(command: &mut Command) -> String {
    let out = output(command);
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {}: {stderr}", out.status);
    String::from_utf8_lossy(&out.stdout).into_owned()
}

pub fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|e| panic!("{command:?}: {e}: run scripts/setup.sh"))
}

/// An empty disk in a file, in place of what is there.
pub fn blank(path: &Path, mib: u64) {
    let _ = fs::remove_file(path);
    File::create(path).unwrap().set_len(mib << 20).unwrap();
}

/// A disk with a file system: `mkfs` with its options.
pub fn formatted(path: &Path, mib: u64, mkfs: &[&str]) {
    blank(path, mib);
    run(tool(mkfs[0]).args(&mkfs[1..]).arg(path));
}

/// A QEMU argument for a raw disk on virtio.
pub fn drive(id: &str, image: &Path) -> [String; 4] {
    [
        "-drive".to_owned(),
        format!("id={id},if=none,format=raw,cache=unsafe,file={}", image.display()),
        "-device".to_owned(),
        format!("virtio-blk-pci,drive={id}"),
    ]
}

/// Whether an ext file system is whole as it is.
pub fn assert_clean(image: &Path) {
    run(tool("e2fsck").args(["-f", "-n"]).arg(image));
}

/// Has e2fsck do what a boot does, and gives what it mended beyond replaying the journal and
/// counting.
pub fn mended(image: &Path) -> Vec<String> {
    let out = output(tool("e2fsck").args(["-f", "-y"]).arg(image));
    assert!(
        matches!(out.status.code(), Some(0 | 1)),
        "{}: {}",
        out.status,
        String::from_utf8_lossy(&out.stdout)
    );
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let is_usual = |line: &str| {
        line.is_empty()
            || ["e2fsck ", "Pass ", "Fix? yes"].iter().any(|start| line.starts_with(start))
            || ["recovering journal", "FILE SYSTEM WAS MODIFIED", "% non-contiguous"].iter().any(|part| line.contains(part))
            // The sums in the superblock are not in the journal: a mount counts anew, too, without a word.
            // Source: fs/ext4/super.c (`ext4_percpu_param_init`)
            || ["Free blocks count wrong (", "Free inodes count wrong ("].iter().any(|start| line.starts_with(start))
    };
    text.lines().filter(|line| !is_usual(line)).map(str::to_owned).collect()
}

/// Takes a directory out of an ext file system.
pub fn take_ext(image: &Path, directory: &str, out: &Path) -> PathBuf {
    let _ = fs::remove_dir_all(out);
    fs::create_dir_all(out).unwrap();
    run(tool("debugfs").arg("-R").arg(format!("rdump {directory} {}", out.display())).arg(image));
    out.join(Path::new(directory).file_name().unwrap_or_default())
}

/// Directories in a directory, in the order of their names; none if it is not there.
pub fn directories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<_> = entries.filter(|path| path.is_dir() && !path.ends_with("lost+found")).collect();
    found.sort();
    found
}

/// Changes bytes of a disk.
pub fn patch(image: &Path, at: u64, bytes: &[u8]) {
    File::options().write(true).open(image).unwrap().write_all_at(bytes, at).unwrap();
}

/// Copies a disk, holes and all.
pub fn copy(from: &Path, to: &Path) {
    run(tool("cp").arg("--sparse=always").args([from, to]));
}
