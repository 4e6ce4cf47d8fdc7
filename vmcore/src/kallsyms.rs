//! kallsyms: the kernel's own symbol table, read from the dump.
//!
//! Names are stored compressed: each is a run of bytes, and each byte stands for a string of the
//! token table (256 strings, found by `token_index`). The first character of the expanded text is
//! the type letter, the rest the name. Lengths are counted in tokens; since 6.1 a length byte with
//! bit 7 set carries on in the next byte.
//!
//! Addresses are 32-bit offsets in one of three encodings, which one is not written anywhere. It
//! is found by trying each on two symbols whose addresses VMCOREINFO gives; two, since `_text` and
//! `_stext` share an address and a table misread by one slot would pass with one.
//!
//! Source: kernel/kallsyms.c, scripts/kallsyms.c. VMCOREINFO names the tables since 6.0.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use kdump_arch_x86::VirtAddr;

use crate::mem::ReadError;
use crate::space::{KERNEL_IMAGE_BASE, KernelMem};
use crate::vmcoreinfo::VmcoreInfo;

mod names;

use names::Names;

/// More symbols than any kernel has; a larger count is damage.
const SYMBOLS_MAX: usize = 4 << 20;
/// No kernel's compressed names come near this.
const NAMES_MAX: u64 = 64 << 20;

/// Slots of a hash table that a search looks at. The tables are two thirds full at most, so honest names need a few.
pub(crate) const PROBES_MAX: usize = 1024;

/// Why there are no symbols.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// VMCOREINFO does not say where a table is.
    #[error("VMCOREINFO has no SYMBOL({0}): kallsyms cannot be located")]
    MissingKey(&'static str),
    /// A table cannot be read.
    #[error("{table} cannot be read: {source}")]
    Read {
        /// Its name.
        table: &'static str,
        /// Why.
        source: ReadError,
    },
    /// A table contradicts itself.
    #[error("{table} is damaged: {what}")]
    Damaged {
        /// Its name.
        table: &'static str,
        /// The contradiction.
        what: &'static str,
    },
}

/// One symbol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Symbol {
    /// Its name.
    pub name: String,
    /// Type letter as in nm(1). It does not tell text from data: from 6.14 on `.data` may be
    /// executable by its section flags, and its symbols then print as 'T'.
    pub kind: u8,
    /// Its address in the running kernel.
    pub addr: VirtAddr,
}

/// Small, since there are hundreds of thousands and the capture kernel has little memory.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The address's low half: the other is all ones in the kernel image, zero in per-CPU offsets, which are below
    /// 2 GiB.
    low: u32,
    /// Where its name is.
    name: u32,
}

impl Entry {
    fn new(addr: u64, name: u32) -> Option<Self> {
        let entry = Self { low: addr as u32, name };
        (entry.addr() == addr).then_some(entry)
    }

    const fn addr(self) -> u64 {
        self.low.cast_signed() as i64 as u64
    }
}

/// All symbols of the kernel image.
#[derive(Debug, Default)]
pub struct Symbols<'a> {
    /// Sorted by address; aliases keep the order of the kernel's table, which puts the best first.
    entries: Vec<Entry>,
    names: Names<'a>,
    /// Open-addressing hash of names to entry number + 1, of equal names the first; a power of two long.
    by_name: Vec<u32>,
}

/// How a 32-bit offset becomes an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Encoding {
    /// Negative: relative to a base; positive: the value itself, a per-CPU offset (to 6.14).
    AbsPercpu { base: u64 },
    /// Unsigned, relative to a base (6.15 to 6.19).
    BaseRelative { base: u64 },
    /// Signed, relative to the offset's own address (from 7.0).
    PlaceRelative { table: u64 },
}

impl Encoding {
    fn address(self, index: usize, offset: i32) -> u64 {
        match self {
            Self::AbsPercpu { .. } if offset >= 0 => u64::from(offset.unsigned_abs()),
            Self::AbsPercpu { base } => base.wrapping_sub(1).wrapping_sub(i64::from(offset) as u64),
            Self::BaseRelative { base } => base.wrapping_add(u64::from(offset as u32)),
            Self::PlaceRelative { table } => {
                table.wrapping_add(index as u64 * 4).wrapping_add(i64::from(offset) as u64)
            }
        }
    }
}

impl<'a> Symbols<'a> {
    /// Reads the tables that VMCOREINFO names.
    ///
    /// # Errors
    /// If a table is missing, unreadable or damaged.
    pub fn from_dump(mem: &KernelMem<'a>, info: &VmcoreInfo) -> Result<Self, Error> {
        let key = |name: &'static str| info.symbol(name).ok_or(Error::MissingKey(name));
        let names_at = key("kallsyms_names")?;
        let count_at = key("kallsyms_num_syms")?;
        let token_table_at = key("kallsyms_token_table")?;
        let token_index_at = key("kallsyms_token_index")?;
        let offsets_at = key("kallsyms_offsets")?;
        let stext = key("_stext")?;
        let read = |table: &'static str, at: u64, len: u64, max: u64| {
            // The bound keeps a hostile length from allocating; it is far below usize::MAX.
            mem.read_piece(VirtAddr(at), len, max as usize).map_err(|source| Error::Read { table, source })
        };

        let count =
            mem.read_u32(VirtAddr(count_at))
                .map_err(|source| Error::Read { table: "kallsyms_num_syms", source })? as usize;
        // In every layout the names end before the token table.
        let names_len = token_table_at
            .checked_sub(names_at)
            .ok_or(Error::Damaged { table: "kallsyms_names", what: "it lies behind the token table" })?;
        // The shortest entry is one length byte and one token.
        if count == 0 || count > SYMBOLS_MAX || count as u64 * 2 > names_len {
            return Err(Error::Damaged { table: "kallsyms_num_syms", what: "count out of all proportion" });
        }
        let names = read("kallsyms_names", names_at, names_len, NAMES_MAX)?;
        let index = read("kallsyms_token_index", token_index_at, 512, 512)?;
        let tokens_len = token_index_at.checked_sub(token_table_at).filter(|&n| n <= 64 << 10);
        let tokens_len = tokens_len
            .ok_or(Error::Damaged { table: "kallsyms_token_table", what: "its index does not follow it" })?;
        let tokens = read("kallsyms_token_table", token_table_at, tokens_len, 64 << 10)?;
        let offsets = read("kallsyms_offsets", offsets_at, count as u64 * 4, NAMES_MAX)?;

        let names = Names::new(names, tokens.into_owned(), &index)?;
        let places = names.places(count)?;
        let offset_of =
            |i: usize| i32::from_le_bytes(offsets[i * 4..i * 4 + 4].try_into().unwrap_or_default());
        let base = match info.symbol("kallsyms_relative_base") {
            Some(at) => Some(
                mem.read_u64(VirtAddr(at))
                    .map_err(|source| Error::Read { table: "kallsyms_relative_base", source })?,
            ),
            None => None,
        };
        let known = [("_stext", stext), ("kallsyms_token_table", token_table_at)];
        let known = known.map(|(name, addr)| (places.iter().position(|&at| names.is(at, name)), addr));
        let mut candidates: Vec<Encoding> = Vec::new();
        candidates.extend(base.map(|base| Encoding::AbsPercpu { base }));
        candidates.extend(base.map(|base| Encoding::BaseRelative { base }));
        candidates.push(Encoding::PlaceRelative { table: offsets_at });
        let encoding = candidates
            .into_iter()
            .find(|e| {
                let right = |(i, addr): (Option<usize>, u64)| i.map(|i| e.address(i, offset_of(i)) == addr);
                // `kallsyms_token_table` may be left out of kallsyms; `_stext` never is.
                right(known[0]) == Some(true) && right(known[1]) != Some(false)
            })
            .ok_or(Error::Damaged {
                table: "kallsyms_offsets",
                what: "no known encoding puts _stext where VMCOREINFO says",
            })?;

        // What is neither in the image nor a per-CPU offset is no symbol of this kernel's.
        let entry = |(i, place): (usize, u32)| Entry::new(encoding.address(i, offset_of(i)), place);
        let entries = places.into_iter().enumerate().filter_map(entry).collect();
        Ok(Self::index(entries, names))
    }

    fn index(mut entries: Vec<Entry>, names: Names<'a>) -> Self {
        // By names second: in the order of the kernel's table. A stable sort would want memory of its own.
        entries.sort_unstable_by_key(|e| (e.low, e.name));
        let slots = (entries.len() + entries.len() / 2).next_power_of_two().max(2);
        let mut by_name = vec![0; slots];
        for (i, entry) in entries.iter().enumerate() {
            let mut slot = names.hash(entry.name) as usize & (slots - 1);
            // Static functions share names by the hundred: the first stands for all. A hostile table may
            // make all names collide: after some probes a name is left out.
            for _ in 0..PROBES_MAX {
                match (by_name[slot] as usize).checked_sub(1) {
                    // At most SYMBOLS_MAX entries, so the number fits.
                    None => by_name[slot] = i as u32 + 1,
                    Some(other) if names.are_equal(entries[other].name, entry.name) => {}
                    Some(_) => {
                        slot = (slot + 1) & (slots - 1);
                        continue;
                    }
                }
                break;
            }
        }
        Self { entries, names, by_name }
    }

    fn symbol(&self, e: Entry) -> Symbol {
        Symbol { name: self.names.text(e.name), kind: self.names.kind(e.name), addr: VirtAddr(e.addr()) }
    }

    /// The address of the symbol of that name; of several (static functions), the lowest.
    #[must_use]
    pub fn address(&self, name: &str) -> Option<VirtAddr> {
        let mask = self.by_name.len().checked_sub(1)?;
        let mut slot = hash(name.as_bytes()) as usize & mask;
        for _ in 0..PROBES_MAX {
            let i = (self.by_name[slot] as usize).checked_sub(1)?;
            if self.names.is(self.entries[i].name, name) {
                return Some(VirtAddr(self.entries[i].addr()));
            }
            slot = (slot + 1) & mask;
        }
        None
    }

    /// The symbol at or below `addr` and the distance to it. Of aliases, the one that the kernel
    /// itself would print. Whether the address still belongs to it is the caller's question: see
    /// [`Self::next_address`].
    #[must_use]
    pub fn lookup(&self, addr: VirtAddr) -> Option<(Symbol, u64)> {
        // Up to 6.14 per-CPU symbols are small numbers; a user address is not behind the last of them.
        if addr.0 < KERNEL_IMAGE_BASE {
            return None;
        }
        let past = self.entries.partition_point(|e| e.addr() <= addr.0);
        let found = self.entries[..past].last()?.addr();
        let first = self.entries[..past].partition_point(|e| e.addr() < found);
        let e = *self.entries.get(first)?;
        Some((self.symbol(e), addr.0 - e.addr()))
    }

    /// The lowest symbol address above `addr`: where the symbol before it ends at the latest.
    #[must_use]
    pub fn next_address(&self, addr: VirtAddr) -> Option<VirtAddr> {
        let past = self.entries.partition_point(|e| e.addr() <= addr.0);
        self.entries.get(past).map(|e| VirtAddr(e.addr()))
    }

    /// Number of symbols.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All symbols by ascending address.
    pub fn iter(&self) -> impl Iterator<Item = Symbol> {
        self.entries.iter().map(|&e| self.symbol(e))
    }
}

/// FNV-1a.
pub(crate) fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().copied().fold(HASH_START, hash_more)
}

const HASH_START: u32 = 0x811c_9dc5;

const fn hash_more(hash: u32, byte: u8) -> u32 {
    (hash ^ byte as u32).wrapping_mul(0x0100_0193)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::Cow;

    fn symbols(list: &[(u64, &str)]) -> Symbols<'static> {
        let (tokens, index) = names::tests::tokens();
        let (mut packed, mut entries) = (Vec::new(), Vec::new());
        for &(addr, name) in list {
            entries.push(Entry::new(addr, packed.len() as u32).unwrap());
            packed.extend_from_slice(&[name.len() as u8 + 1, b'T']);
            packed.extend_from_slice(name.as_bytes());
        }
        Symbols::index(entries, Names::new(Cow::Owned(packed), tokens, &index).unwrap())
    }

    #[test]
    fn lookup_takes_the_first_alias_and_the_distance() {
        let at = |offset| VirtAddr(KERNEL_IMAGE_BASE + offset);
        let list =
            [(at(0x30).0, "c"), (at(0x10).0, "a"), (at(0x20).0, "first"), (at(0x20).0, "alias"), (8, "pcpu")];
        let s = symbols(&list);
        assert_eq!(s.lookup(at(0x2f)).map(|(s, d)| (s.name, d)), Some(("first".into(), 0xf)));
        assert_eq!(s.lookup(VirtAddr(0x40_0000)), None, "a user address");
        assert_eq!(s.address("alias"), Some(at(0x20)));
        assert_eq!(s.address("none"), None);
        assert_eq!(s.next_address(at(0x20)), Some(at(0x30)));
        assert_eq!(Symbols::default().address("a"), None);
    }

    #[test]
    fn addresses_are_of_the_image_or_per_cpu_offsets() {
        for addr in [0, 0x1_2345, 0x7fff_ffff, KERNEL_IMAGE_BASE, u64::MAX] {
            assert_eq!(Entry::new(addr, 7).map(Entry::addr), Some(addr));
        }
        for addr in [0x8000_0000, 0xffff_8880_0000_0000, KERNEL_IMAGE_BASE - 1] {
            assert!(Entry::new(addr, 7).is_none(), "{addr:#x}");
        }
    }

    #[test]
    fn the_three_encodings() {
        let base = 0xffff_ffff_8100_0000;
        assert_eq!(Encoding::AbsPercpu { base }.address(5, 0x1_2345), 0x1_2345);
        assert_eq!(Encoding::AbsPercpu { base }.address(5, -1), base);
        assert_eq!(Encoding::AbsPercpu { base }.address(5, -0x101), base + 0x100);
        assert_eq!(Encoding::BaseRelative { base }.address(5, 0x7000_0000), base + 0x7000_0000);
        assert_eq!(Encoding::PlaceRelative { table: base + 0x1000 }.address(2, -0x1008), base);
    }
}
