//! The panic record, where elfcorehdr does not name it any more: a kernel that keeps elfcorehdr up to date itself
//! rewrites it without the note. The page is still where the loader put it, and the command line says where.
//!
//! Source: kernel/kexec_file.c `crash_prepare_elf64_headers`, drivers/char/mem.c.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use kdump_loader::cmdline::RECORD_PARAMETER;
use kdump_vmcore::notes::{Notes, append_note};
use kdump_vmcore::record::{NOTE_NAME, NOTE_TYPE};
use kdump_vmcore::{Dump, OpenError};

use crate::console::say;

/// The memory of the kernel that crashed.
pub const SOURCE: &str = "/proc/vmcore";

const PAGE: usize = 4096;

/// Opens [`SOURCE`], with the panic record among its notes if there is one anywhere.
pub fn open_source() -> Result<Dump, OpenError> {
    let mut dump = Dump::open(Path::new(SOURCE))?;
    if !has_record(dump.notes()) {
        match read_page() {
            Ok(Some(note)) => {
                say!("elfcorehdr names no panic record: taken from its page");
                dump.add_notes(&note);
            }
            Ok(None) => {}
            Err(e) => say!("no panic record: {e}"),
        }
    }
    Ok(dump)
}

fn has_record(notes: &[u8]) -> bool {
    Notes::new(notes).any(|note| note.name == NOTE_NAME && note.kind == NOTE_TYPE)
}

/// The note in the page that the command line names; none if it names none.
fn read_page() -> Result<Option<Vec<u8>>, String> {
    let cmdline = std::fs::read_to_string("/proc/cmdline").map_err(|e| format!("/proc/cmdline: {e}"))?;
    let Some(address) = address(&cmdline)? else { return Ok(None) };
    let mut page = [0; PAGE];
    File::open("/dev/mem")
        .and_then(|mem| mem.read_exact_at(&mut page, address))
        .map_err(|e| format!("/dev/mem at {address:#x}: {e}"))?;
    note_in(&page).map(Some).ok_or_else(|| format!("the page at {address:#x} holds none"))
}

/// What the last of the parameters says, as the kernel would understand it.
fn address(cmdline: &str) -> Result<Option<u64>, String> {
    let mut words = cmdline.split_whitespace();
    let Some(value) = words
        .rfind(|word| word.starts_with(RECORD_PARAMETER))
        .and_then(|word| word.split_once('='))
        .map(|(_, v)| v)
    else {
        return Ok(None);
    };
    let digits = value.strip_prefix("0x").unwrap_or_default();
    match u64::from_str_radix(digits, 16) {
        Ok(address) if address.is_multiple_of(PAGE as u64) => Ok(Some(address)),
        _ => Err(format!("{RECORD_PARAMETER}={value} is no page's address")),
    }
}

/// The note that a page begins with, if it is the record.
fn note_in(page: &[u8]) -> Option<Vec<u8>> {
    let first = Notes::new(page).next()?;
    (first.name == NOTE_NAME && first.kind == NOTE_TYPE).then(|| {
        let mut note = Vec::new();
        append_note(&mut note, &String::from_utf8_lossy(NOTE_NAME), NOTE_TYPE, first.desc);
        note
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kdump_panic_kernel::record::{DESC_OFFSET, DESC_SIZE, empty_note};

    #[test]
    fn the_last_parameter_counts_and_must_be_a_page() {
        assert_eq!(address("quiet elfcorehdr=0x17f00000"), Ok(None));
        assert_eq!(address("kdump-rs.record=0x1000 quiet kdump-rs.record=0x17eff000"), Ok(Some(0x17ef_f000)));
        for bad in
            ["kdump-rs.record=", "kdump-rs.record=4096", "kdump-rs.record=0x1001", "kdump-rs.record=0x"]
        {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_page_that_the_loader_made_holds_the_record() {
        let mut page = empty_note();
        page[DESC_OFFSET] = 0x4b;
        let note = note_in(&page).unwrap();
        assert_eq!(note, page[..DESC_OFFSET + DESC_SIZE]);
        assert!(has_record(&note));
        assert_eq!(note_in(&[0; PAGE]), None);
        assert_eq!(note_in(&page[..100]), None);
    }
}
