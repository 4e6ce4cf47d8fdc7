//! Images in images.

use super::packed::tests::gzip;
use super::uki::tests::uki;
use super::*;
use crate::bzimage::tests::image;

fn bzimage() -> Vec<u8> {
    image(4096, |_| {})
}

fn found(file: Vec<u8>) -> Found {
    recognise(file, Purpose::Crash).unwrap()
}

fn error(file: &[u8]) -> String {
    recognise(file.to_vec(), Purpose::Crash).unwrap_err().to_string()
}

#[test]
fn a_bzimage_is_found_in_whatever_it_is() {
    let packed = gzip(&bzimage());
    let unified = uki(&[(".cmdline", b"quiet"), (".linux", &packed), (".initrd", b"cpio")]);
    let gz = Wrapping::Packed(Packing::Gzip);
    for (file, wrappings) in [
        (bzimage(), vec![]),
        (packed.clone(), vec![gz]),
        (unified.clone(), vec![Wrapping::Uki, gz]),
        (gzip(&unified), vec![gz, Wrapping::Uki, gz]),
    ] {
        let is_unified = wrappings.contains(&Wrapping::Uki);
        let digest = sha256(file.clone());
        let found = found(file);
        assert_eq!(found.wrappings, wrappings);
        let Image::Linux(image) = found.image else { panic!("{:?}", found.image) };
        assert_eq!(image.file(), Some(bzimage().as_slice()));
        assert_eq!(digest, Some(image.kernel_sha256()));
        let cmdline = found.bundle.as_ref().and_then(|bundle| bundle.cmdline.as_deref());
        assert_eq!(cmdline, is_unified.then_some("quiet"));
        assert_eq!(found.bundle.map(|bundle| bundle.initramfs), is_unified.then(|| b"cpio".to_vec()));
    }
}

/// What firmware starts is a PE file and a bzImage in one.
#[test]
fn a_pe_file_with_a_boot_header_is_a_bzimage() {
    let mut file = bzimage();
    file[..2].copy_from_slice(b"MZ");
    assert_eq!(found(file).wrappings, []);
}

#[test]
fn an_ordinary_kexec_takes_what_a_crash_cannot() {
    let file = image(4096, |header| header.relocatable_kernel = 0);
    assert!(error(&gzip(&file)).contains("relocatable_kernel is 0x0"));
    assert!(recognise(gzip(&file), Purpose::Normal).is_ok());
}

#[test]
fn what_is_wrong_inside_is_named() {
    assert!(error(&uki(&[(".linux", b"no kernel at all")])).starts_with("its first bytes are [6e, 6f, 20"));
    assert!(error(&gzip(b"")).contains("its first bytes are []"));
    assert!(error(&uki(&[(".text", b"shell")])).contains("no section .linux"));
    assert!(error(b"BZh9").contains("compressed with bzip2"));
    let mut deep = bzimage();
    for _ in 0..5 {
        deep = gzip(&deep);
    }
    assert!(error(&deep).contains("4 deep"));
    let mut cut = uki(&[(".linux", &bzimage())]);
    cut.truncate(3000);
    assert!(error(&cut).starts_with("section .linux has 0x1400 bytes"), "{}", error(&cut));
}
