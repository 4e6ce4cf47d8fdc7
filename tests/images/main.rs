//! Kernel images in other files, with real kernels: compressed, and in unified kernel images, by both system calls.
//!
//! Needs QEMU and the kernels; `make test` runs these tests, a plain `cargo test` lists them as ignored.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../common/mod.rs"]
mod common;

use kdump_loader::bzimage::BzImage;
use kdump_loader::image::packed::Packing;
use kdump_loader::image::{Image, Purpose, Wrapping, recognise};
use kdump_rehearse::{Error, Outcome, Plan, Scene};
use serde_json::Value;

use common::{KDUMP_RS, Quiet, Turn, scratch};

/// Runs a 6.12 guest that has an image as /boot/image.
fn run(name: &str, image: &[u8], arm: &[&str], mut scene: Scene) -> (Result<Outcome, Error>, String) {
    let _turn = Turn::wait();
    let out = scratch(&format!("images-{name}"));
    let path = out.with_extension("image");
    std::fs::write(&path, image).unwrap();
    scene.files.push(("boot/image".to_owned(), path));
    let arm = arm.iter().map(|&word| word.to_owned()).collect();
    let plan = Plan { arm, scene, ..Plan::new(common::kernel("6.12"), common::programs(), out.clone()) };
    let result = plan.run(&mut Quiet);
    (result, common::serial_of(&out))
}

/// The report of the dump that a guest's capture kernel wrote.
fn report((result, serial): (Result<Outcome, Error>, String)) -> (Value, String) {
    let outcome = result.unwrap_or_else(|error| panic!("{error}\n{serial}"));
    let report = std::fs::read(outcome.dump_dir.join("report.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["panic"]["data"]["message"], "sysrq triggered crash", "{serial}");
    assert_eq!(report["complete"], true, "{:#}", report["warnings"]);
    (report, serial)
}

fn vmlinuz() -> Vec<u8> {
    std::fs::read(common::kernel("6.12")).unwrap()
}

/// What a bzImage has inside is a vmlinux that the kernel's own build compressed: lz4 with a legacy frame in Debian's 6.1,
/// zstd later, each with the unpacked size behind it.
#[test]
#[ignore = "reads the kernels that are fetched; `make test` runs it"]
fn the_kernels_own_compressed_vmlinux_is_recognised() {
    for (version, packing) in [("6.1", Packing::Lz4Legacy), ("6.12", Packing::Zstd), ("7.3", Packing::Zstd)] {
        let image = BzImage::parse(std::fs::read(common::kernel(version)).unwrap()).unwrap();
        let header = image.header();
        let start = header.payload_offset.get() as usize;
        let payload = &image.kernel()[start..start + header.payload_length.get() as usize];
        let found = recognise(payload.to_vec(), Purpose::Normal).unwrap();
        assert_eq!(found.wrappings, [Wrapping::Packed(packing)], "{version}");
        let Image::Linux(vmlinux) = found.image else { panic!("{version}: {:?}", found.image) };
        let release = |image: &BzImage| image.version().unwrap().split(' ').next().unwrap().to_owned();
        assert_eq!(release(&vmlinux), release(&image));
        assert!(vmlinux.fixed().is_some() && vmlinux.file().is_none());
        // Cut, it is damaged, and no smaller kernel.
        let error = recognise(payload[..payload.len() / 2].to_vec(), Purpose::Normal).unwrap_err();
        assert!(error.to_string().contains("damaged after"), "{error}");
    }
}

#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn a_compressed_kernel_is_armed_and_captures() {
    let image = zstd::bulk::compress(&vmlinuz(), 1).unwrap();
    let (report, serial) = report(run("zstd", &image, &["--kernel=/boot/image"], Scene::default()));
    assert!(serial.contains("kernel     6.12.") && serial.contains(" from /boot/image (zstd)"), "{serial}");
    assert_eq!(report["panic_path"]["data"]["complete"], true);
}

/// The kernel's own loader takes a bzImage alone, so it is given one in memory; initramfs and words are ours.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn the_kernel_of_a_uki_is_armed_by_kexec_file_load() {
    let image = uki(&[(".cmdline", b"of=the-uki\n"), (".linux", &vmlinuz()), (".initrd", b"not looked at")]);
    let arm = ["--kernel=/boot/image", "--syscall=file"];
    let (_, serial) = report(run("uki-file", &image, &arm, Scene::default()));
    assert!(serial.contains("loaded by  kexec_file_load"), "{serial}");
    assert!(!serial.contains("of=the-uki"), "{serial}");
}

/// An ordinary kexec takes all three from it: kernel, initramfs and command line.
#[test]
#[ignore = "boots a kernel in QEMU; `make test` runs it"]
fn a_uki_is_booted_by_kexec_as_a_whole() {
    let packed = zstd::bulk::compress(&vmlinuz(), 1).unwrap();
    let mut archive = kdump_loader::cpio::Archive::new();
    archive.dir("dev").unwrap();
    archive.node("dev/console", 0o600, 5, 1).unwrap();
    archive.node("dev/null", 0o666, 1, 3).unwrap();
    archive.file("init", 0o755, &std::fs::read(KDUMP_RS).unwrap()).unwrap();
    let image = uki(&[
        (".osrel", b"PRETTY_NAME=\"A system\"\n"),
        (".cmdline", b"console=ttyS0,115200 of=the-uki panic=1 -- --version\n"),
        (".linux", &packed),
        (".initrd", &archive.finish()),
    ]);
    let version = format!("kdump-rs {}", env!("CARGO_PKG_VERSION"));
    let scene =
        Scene { kexec: vec!["/boot/image".to_owned()], stop_at: Some(version.clone()), ..Scene::default() };
    let (result, serial) = run("uki", &image, &[], scene);
    assert!(result.is_err(), "it was stopped");
    let (before, after) = serial.split_once("entering the image").expect(&serial);
    assert!(
        before.contains("loaded /boot/image (unified kernel image, zstd) with its own initramfs"),
        "{serial}"
    );
    assert!(before.contains("system   A system"), "{serial}");
    assert!(after.contains("Command line: console=ttyS0,115200 of=the-uki panic=1"), "{serial}");
    assert!(after.contains(&version), "{serial}");
}

/// A PE file with these sections: as little of one as there can be.
fn uki(sections: &[(&str, &[u8])]) -> Vec<u8> {
    const TABLE: usize = 0x40 + 4 + 20;
    let mut file = vec![0; 0x1000];
    file[..2].copy_from_slice(b"MZ");
    file[0x3c] = 0x40;
    file[0x40..0x46].copy_from_slice(b"PE\0\0\x64\x86");
    file[0x46] = sections.len() as u8;
    for (i, (name, content)) in sections.iter().enumerate() {
        let (start, len) = (file.len() as u32, content.len() as u32);
        let header = &mut file[TABLE + i * 40..][..40];
        header[..name.len()].copy_from_slice(name.as_bytes());
        for (at, value) in [(8, len), (16, len.next_multiple_of(512)), (20, start)] {
            header[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        file.extend_from_slice(content);
        file.resize(file.len().next_multiple_of(512), 0);
    }
    file
}
