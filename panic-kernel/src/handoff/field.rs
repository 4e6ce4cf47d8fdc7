//! Little-endian fields at the offsets of the block and of the record.
//!
//! Offsets are constants of the modules that call this, within pages of a fixed size: what lies outside
//! reads as zero and is not written, so that no check of the compiler is left in the panic path.

pub(crate) fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    if let Some(slot) = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..field.len())) {
        slot.copy_from_slice(field);
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}
