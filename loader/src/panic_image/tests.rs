//! The embedded program, placed and paired; files that are none.

use super::*;
use kdump_panic_kernel::selfcheck;

const BASE: u64 = 0x2b00_0000;

#[test]
fn the_embedded_program_is_readable() {
    let image = PanicImage::embedded().unwrap();
    assert!(image.mem_size().is_multiple_of(PAGE_SIZE));
    assert!(!image.relocations.is_empty());
}

#[test]
fn the_handoff_block_takes_the_last_page() {
    let image = PanicImage::embedded().unwrap();
    let placed = image.place(BASE).unwrap();
    assert_eq!(placed.handoff, BASE + placed.bytes.len() as u64);
    assert_eq!(placed.handoff + HANDOFF_SIZE as u64, BASE + image.mem_size());
    assert!(placed.entry >= BASE && placed.entry < BASE + placed.constant_len);
    assert!(placed.constant_len < placed.bytes.len() as u64);
}

/// Check that two placements differ exactly where relocations stand, and there by the distance.
#[test]
fn relocated_words_move_with_the_base() {
    let image = PanicImage::embedded().unwrap();
    let (low, high) = (image.place(BASE).unwrap(), image.place(BASE + 0x1_2345_6000).unwrap());
    let word = |placed: &Placed, at: usize| u64::from_le_bytes(*placed.bytes[at..].first_chunk().unwrap());
    let (mut low_rest, mut high_rest) = (low.clone(), high.clone());
    for &(at, addend) in &image.relocations {
        assert_eq!(word(&low, at), BASE + addend);
        assert_eq!(word(&high, at) - word(&low, at), 0x1_2345_6000);
        low_rest.bytes[at..at + 8].fill(0);
        high_rest.bytes[at..at + 8].fill(0);
    }
    assert_eq!(low_rest.bytes, high_rest.bytes);
    assert!(image.relocations.iter().all(|&(at, _)| (at as u64) < low.constant_len));
}

#[test]
fn bases_it_cannot_run_at_are_refused() {
    let image = PanicImage::embedded().unwrap();
    for base in [0, BASE + 1, BASE + 0x800, 1 << 52, !0xfff] {
        assert!(matches!(image.place(base), Err(Error::BadBase { base: bad }) if bad == base), "{base:#x}");
    }
}

#[test]
fn a_foreign_relocation_is_refused_by_its_type() {
    let mut file = kdump_panic_kernel::IMAGE.to_vec();
    let elf = Elf::parse(&file).unwrap();
    let section =
        elf.section_headers.iter().find(|s| s.sh_type == goblin::elf::section_header::SHT_RELA).unwrap();
    let r_info = section.sh_offset as usize + 8;
    file[r_info] = 6; // R_X86_64_GLOB_DAT
    assert!(matches!(PanicImage::parse(&file), Err(Error::UnexpectedRelocation { r_type: 6, .. })));
}

#[test]
fn a_file_of_another_kind_is_refused() {
    assert!(matches!(PanicImage::parse(b"no ELF file"), Err(Error::Elf(_))));
    let mut file = kdump_panic_kernel::IMAGE.to_vec();
    file[0x10] = 2; // ET_EXEC
    assert!(matches!(PanicImage::parse(&file), Err(Error::WrongKind { e_type: 2, .. })));
}

/// Check that no cut of the file is taken for a program, and none makes the reader panic.
#[test]
fn a_truncated_file_is_refused() {
    for len in (0..kdump_panic_kernel::IMAGE.len()).step_by(97) {
        assert!(PanicImage::parse(&kdump_panic_kernel::IMAGE[..len]).is_err(), "{len} bytes");
    }
}

/// Check that each of two knows its sum, which any changed bit breaks, and the other's addresses.
#[test]
fn paired_programs_know_their_sum_and_each_other() {
    let image = PanicImage::embedded().unwrap();
    let (mut low, mut high) = (image.place(BASE).unwrap(), image.place(BASE + 0x1_2345_6000).unwrap());
    let unpaired = low.clone();
    Placed::pair(&mut low, &mut high, 0x2f8);
    let word = |placed: &Placed, at: usize| u64::from_le_bytes(*placed.bytes[at..].first_chunk().unwrap());
    for (this, other) in [(&low, &high), (&high, &low)] {
        let words = this.words;
        let constant = &this.bytes[..this.constant_len as usize];
        assert_eq!(word(this, words.sum), selfcheck::sum(constant, words.sum));
        assert_ne!(word(this, words.sum), 0);
        assert_eq!(word(this, words.copy_handoff), other.handoff);
        let takeover = word(this, words.copy_entry);
        assert!((other.entry..other.entry + 0x100).contains(&takeover), "{takeover:#x}");
        assert_eq!(word(this, words.early_port), 0x2f8);
    }
    let changed: Vec<_> = (0..low.bytes.len()).filter(|&i| low.bytes[i] != unpaired.bytes[i]).collect();
    let words = low.words;
    let of_words = |at: &usize| {
        [words.sum, words.copy_entry, words.copy_handoff, words.early_port]
            .iter()
            .any(|w| (*w..w + 8).contains(at))
    };
    assert!(changed.iter().all(of_words), "{changed:?}");
}
