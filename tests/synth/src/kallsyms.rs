//! Writes the kallsyms tables of vmlinux: compressed names and the encodings of addresses.
//!
//! Source: `scripts/kallsyms.c`, `kernel/kallsyms.c`.

use crate::token_table::TokenTable;

/// One symbol: name, nm(1) type letter, run-time address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Name without the type letter.
    pub name: String,
    /// Type letter as /proc/kallsyms shows it; it is the first character of the compressed string.
    pub kind: char,
    /// Address as the running kernel has it (KASLR included).
    pub address: u64,
}

impl Symbol {
    /// Returns a symbol.
    pub fn new(name: &str, kind: char, address: u64) -> Self {
        Self { name: name.to_owned(), kind, address }
    }
}

/// Returns a name of at most 676 letters in which no pair of letters comes twice, so that it compresses badly: from
/// about 300 letters on it needs a length of two bytes.
pub fn incompressible_name(len: usize) -> String {
    // The Lyndon words of one and two letters in order make a de Bruijn sequence.
    let words =
        |first| std::iter::once(first).chain((first + 1..=b'z').flat_map(move |second| [first, second]));
    (b'a'..=b'z').flat_map(words).take(len).map(char::from).collect()
}

/// How `kallsyms_offsets` encodes addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetEncoding {
    /// Up to 6.14: not negative: the address itself (per-CPU); negative: `relative_base - 1 - offset`.
    AbsolutePercpu,
    /// 6.15 to 6.19: `relative_base + offset` (unsigned).
    BaseRelative,
    /// 7.0 and later: the entry's own address plus the signed offset.
    PlaceRelative,
}

/// Which of the historical layouts to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KallsymsFormat {
    /// Encoding of addresses.
    pub encoding: OffsetEncoding,
    /// 6.4 and later: names first, offsets last. Before: offsets first. The later order also lists the
    /// `kallsyms_*` tables as symbols; the earlier one hides them.
    pub names_first: bool,
    /// 6.1 and later: a length above 127 takes two bytes.
    pub big_lengths: bool,
    /// 6.2 and later (and 6.1.y): `kallsyms_seqs_of_names`.
    pub has_seqs: bool,
    /// Alignment of each table: 8, from 7.0 on 4.
    pub align: u64,
}

impl KallsymsFormat {
    /// 5.10 to 6.0.
    pub const LINUX_5_10: Self = Self {
        encoding: OffsetEncoding::AbsolutePercpu,
        names_first: false,
        big_lengths: false,
        has_seqs: false,
        align: 8,
    };
    /// 6.1 to 6.2.
    pub const LINUX_6_1: Self = Self { big_lengths: true, has_seqs: true, ..Self::LINUX_5_10 };
    /// 6.4 to 6.14.
    pub const LINUX_6_4: Self = Self { names_first: true, ..Self::LINUX_6_1 };
    /// 6.15 to 6.19.
    pub const LINUX_6_15: Self = Self { encoding: OffsetEncoding::BaseRelative, ..Self::LINUX_6_4 };
    /// 7.0 and later.
    pub const LINUX_7_0: Self = Self { encoding: OffsetEncoding::PlaceRelative, align: 4, ..Self::LINUX_6_4 };
}

/// The finished tables.
#[derive(Clone, Debug)]
pub struct Kallsyms {
    /// Address of the first byte of `bytes`.
    pub base: u64,
    /// All tables, to be written at `base`.
    pub bytes: Vec<u8>,
    /// Name and address of each table, `kallsyms_num_syms` and so on.
    pub tables: Vec<(&'static str, u64)>,
    /// What the tables contain, in their order (ascending address); includes the tables' own names if they list them.
    pub symbols: Vec<Symbol>,
}

impl Kallsyms {
    /// Compresses `symbols` into tables that will lie at `base`.
    pub fn build(format: KallsymsFormat, base: u64, symbols: &[Symbol]) -> Self {
        let mut symbols = symbols.to_vec();
        let order = table_order(format);
        if format.names_first {
            symbols.extend(order.iter().map(|name| Symbol::new(name, 'D', 0)));
        }
        let tokens = TokenTable::train(symbols.iter().map(string_of));

        // Sizes do not depend on addresses, so places first, then the tables' own addresses, then the order.
        let mut place = base;
        let mut tables = Vec::new();
        for &name in &order {
            place = place.next_multiple_of(format.align);
            tables.push((name, place));
            place += size_of_table(name, &symbols, &tokens, format);
        }
        for (name, address) in &tables {
            if let Some(symbol) = symbols.iter_mut().find(|symbol| symbol.name == *name) {
                symbol.address = *address;
            }
        }
        symbols.sort_by_key(|symbol| symbol.address);

        let mut bytes = Vec::new();
        for &(name, address) in &tables {
            bytes.resize((address - base) as usize, 0);
            bytes.extend(table(name, address, &symbols, &tokens, format));
        }
        Self { base, bytes, tables, symbols }
    }

    /// Returns the address of one of the tables.
    pub fn table(&self, name: &str) -> Option<u64> {
        self.tables.iter().find(|(table, _)| *table == name).map(|(_, address)| *address)
    }
}

fn table_order(format: KallsymsFormat) -> Vec<&'static str> {
    let all: &[&'static str] = if format.names_first {
        &[
            "kallsyms_num_syms",
            "kallsyms_names",
            "kallsyms_markers",
            "kallsyms_token_table",
            "kallsyms_token_index",
            "kallsyms_offsets",
            "kallsyms_relative_base",
            "kallsyms_seqs_of_names",
        ]
    } else {
        &[
            "kallsyms_offsets",
            "kallsyms_relative_base",
            "kallsyms_num_syms",
            "kallsyms_names",
            "kallsyms_markers",
            "kallsyms_seqs_of_names",
            "kallsyms_token_table",
            "kallsyms_token_index",
        ]
    };
    let exists = |name: &str| match name {
        "kallsyms_relative_base" => format.encoding != OffsetEncoding::PlaceRelative,
        "kallsyms_seqs_of_names" => format.has_seqs,
        _ => true,
    };
    all.iter().copied().filter(|name| exists(name)).collect()
}

fn string_of(symbol: &Symbol) -> Vec<u8> {
    format!("{}{}", symbol.kind, symbol.name).into_bytes()
}

fn size_of_table(name: &str, symbols: &[Symbol], tokens: &TokenTable, format: KallsymsFormat) -> u64 {
    table(name, 0, symbols, tokens, format).len() as u64
}

fn table(
    name: &str,
    address: u64,
    symbols: &[Symbol],
    tokens: &TokenTable,
    format: KallsymsFormat,
) -> Vec<u8> {
    match name {
        "kallsyms_num_syms" => (symbols.len() as u32).to_le_bytes().to_vec(),
        "kallsyms_names" => names(symbols, tokens, format).0,
        "kallsyms_markers" => names(symbols, tokens, format).1,
        "kallsyms_token_table" => tokens.table(),
        "kallsyms_token_index" => tokens.index(),
        "kallsyms_offsets" => offsets(address, symbols, format.encoding),
        "kallsyms_relative_base" => relative_base(symbols).to_le_bytes().to_vec(),
        "kallsyms_seqs_of_names" => seqs_of_names(symbols),
        other => unreachable!("{other} is not a kallsyms table"),
    }
}

/// Returns names and markers: a marker per 256 symbols is the offset of its first name.
fn names(symbols: &[Symbol], tokens: &TokenTable, format: KallsymsFormat) -> (Vec<u8>, Vec<u8>) {
    let mut names: Vec<u8> = Vec::new();
    let mut markers = Vec::new();
    for (index, symbol) in symbols.iter().enumerate() {
        if index % 256 == 0 {
            markers.extend((names.len() as u32).to_le_bytes());
        }
        let compressed = tokens.compress(&string_of(symbol));
        let len = compressed.len();
        if len <= 127 || (!format.big_lengths && len <= 255) {
            names.push(len as u8);
        } else {
            assert!(format.big_lengths && len <= 0x3fff, "{} takes {len} tokens", symbol.name);
            names.extend([(len & 0x7f) as u8 | 0x80, (len >> 7) as u8]);
        }
        names.extend(compressed);
    }
    (names, markers)
}

/// Returns the lowest address that is not per-CPU (those are below every kernel address).
fn relative_base(symbols: &[Symbol]) -> u64 {
    symbols.iter().map(|symbol| symbol.address).filter(|address| address >> 63 == 1).min().unwrap_or(0)
}

fn offsets(address: u64, symbols: &[Symbol], encoding: OffsetEncoding) -> Vec<u8> {
    let base = relative_base(symbols);
    let mut out = Vec::new();
    for (index, symbol) in symbols.iter().enumerate() {
        let offset = match encoding {
            OffsetEncoding::AbsolutePercpu if symbol.address >> 63 == 0 => symbol.address,
            OffsetEncoding::AbsolutePercpu => base.wrapping_sub(1).wrapping_sub(symbol.address),
            OffsetEncoding::BaseRelative => symbol.address.wrapping_sub(base),
            OffsetEncoding::PlaceRelative => symbol.address.wrapping_sub(address + 4 * index as u64),
        };
        out.extend((offset as u32).to_le_bytes());
    }
    out
}

/// Returns, for each rank by name, the index by address, as three big-endian bytes.
fn seqs_of_names(symbols: &[Symbol]) -> Vec<u8> {
    let mut by_name: Vec<usize> = (0..symbols.len()).collect();
    by_name.sort_by(|&a, &b| symbols[a].name.cmp(&symbols[b].name).then(a.cmp(&b)));
    by_name.iter().flat_map(|&index| (index as u32).to_be_bytes()[1..].to_vec()).collect()
}

#[cfg(test)]
mod tests;
