//! Counts and predictions of machines made of a few pages.

use std::os::unix::fs::FileExt;

use kdump_arch_x86::PhysRange;

use super::live::estimate;
use super::*;

/// Words of frames 0 on.
struct Words(Vec<u64>);

impl FileExt for Words {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
    fn write_at(&self, _: &[u8], _: u64) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

/// Half of the pages are zero-filled, the others do not shrink.
struct Halves;

impl kdump_vmcore::PhysMem for Halves {
    fn read(&self, at: kdump_arch_x86::PhysAddr, buf: &mut [u8]) -> Result<(), kdump_vmcore::ReadError> {
        let mut seed = at.0 as u32 | 1;
        for byte in buf.iter_mut() {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = if (at.0 / PAGE_SIZE).is_multiple_of(2) { 0 } else { (seed >> 24) as u8 };
        }
        Ok(())
    }
}

const FREE: u64 = 1 << 10;
const ANON: u64 = 1 << 12;

fn machine() -> (Vec<PhysRange>, Words) {
    let mut words = vec![0; 64];
    words.extend([FREE; 128]);
    words.extend([ANON; 64]);
    (vec![PhysRange::new(0, 16 * PAGE_SIZE), PhysRange::new(32 * PAGE_SIZE, 256 * PAGE_SIZE)], Words(words))
}

#[test]
fn a_live_machine_is_counted_by_class_and_predicted_by_level() {
    let (ram, words) = machine();
    let seen = estimate(&ram, &words, Some(&Halves), &Options::default()).unwrap();
    let at = |bits| seen.predict(DumpLevel::new(bits).unwrap().into());
    assert_eq!(at(0).pages, 16 + 32 + 128 + 64);
    assert_eq!((at(31).pages, at(31).zero), (48, 24));
    assert_eq!(at(16).pages, 112);
    assert_eq!(seen.page_bytes(PageClass::Anon), 4096.0);
    // Zero-filled pages share one at level 1, and are packed one by one at level 0.
    let head = head_bytes(8192, 256);
    assert_eq!(at(31).bytes, head + 48 * DESCRIPTOR + 24 * PAGE_SIZE);
    assert_eq!(at(30).bytes, at(31).bytes + 24 * seen.packed_zero);
}

#[test]
fn what_cannot_be_read_is_guessed_and_said() {
    let (ram, words) = machine();
    let seen = estimate(&ram, &words, None, &Options::default()).unwrap();
    assert!(seen.troubles[0].contains("no page was read"));
    assert_eq!(seen.predict(DumpLevel::MAX.into()).zero, 0);
    let beyond = [PhysRange::new(0, 1 << 30)];
    assert!(estimate(&beyond, &words, None, &Options::default()).is_err());
}
