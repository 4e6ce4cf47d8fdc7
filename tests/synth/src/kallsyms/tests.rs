//! Decodes the tables with the kernel's own algorithm, written again here.

use super::*;

const TEXT: u64 = 0xffff_ffff_8100_0000;

fn symbols(count: usize) -> Vec<Symbol> {
    let mut symbols = vec![Symbol::new("_text", 'T', TEXT), Symbol::new("_stext", 'T', TEXT)];
    symbols.extend(
        (0..count).map(|n| Symbol::new(&format!("ext4_inode_{n}_read"), 't', TEXT + 16 * n as u64 + 16)),
    );
    symbols
}

fn u32_at(k: &Kallsyms, address: u64) -> u32 {
    let at = (address - k.base) as usize;
    u32::from_le_bytes(k.bytes[at..at + 4].try_into().unwrap())
}

fn decode(k: &Kallsyms, format: KallsymsFormat) -> Vec<Symbol> {
    let at = |name| k.table(name).unwrap();
    let byte = |address: u64| k.bytes[(address - k.base) as usize];
    let token = |t: u8| {
        let index = at("kallsyms_token_index") + 2 * u64::from(t);
        let start = u64::from(byte(index)) | u64::from(byte(index + 1)) << 8;
        let mut place = at("kallsyms_token_table") + start;
        let mut out = Vec::new();
        while byte(place) != 0 {
            out.push(byte(place));
            place += 1;
        }
        out
    };
    let base = k.table("kallsyms_relative_base");
    let base = base.map_or(0, |b| u64::from(u32_at(k, b)) | u64::from(u32_at(k, b + 4)) << 32);
    let mut place = at("kallsyms_names");
    let mut out = Vec::new();
    for index in 0..u64::from(u32_at(k, at("kallsyms_num_syms"))) {
        if index % 256 == 0 {
            assert_eq!(
                u64::from(u32_at(k, at("kallsyms_markers") + index / 64)),
                place - at("kallsyms_names")
            );
        }
        let mut len = u64::from(byte(place));
        place += 1;
        if format.big_lengths && len & 0x80 != 0 {
            len = len & 0x7f | u64::from(byte(place)) << 7;
            place += 1;
        }
        let text: Vec<u8> = (0..len).flat_map(|i| token(byte(place + i))).collect();
        place += len;
        let entry = at("kallsyms_offsets") + 4 * index;
        let offset = u32_at(k, entry);
        let signed = offset as i32 as i64 as u64;
        let address = match format.encoding {
            OffsetEncoding::AbsolutePercpu if (offset as i32) >= 0 => u64::from(offset),
            OffsetEncoding::AbsolutePercpu => base.wrapping_sub(1).wrapping_sub(signed),
            OffsetEncoding::BaseRelative => base + u64::from(offset),
            OffsetEncoding::PlaceRelative => entry.wrapping_add(signed),
        };
        out.push(Symbol::new(std::str::from_utf8(&text[1..]).unwrap(), text[0] as char, address));
    }
    out
}

#[test]
fn every_format_decodes_to_what_went_in() {
    for format in [
        KallsymsFormat::LINUX_5_10,
        KallsymsFormat::LINUX_6_1,
        KallsymsFormat::LINUX_6_4,
        KallsymsFormat::LINUX_6_15,
        KallsymsFormat::LINUX_7_0,
    ] {
        let k = Kallsyms::build(format, TEXT + 0x20_0000, &symbols(600));
        let decoded = decode(&k, format);
        assert_eq!(decoded, k.symbols, "{format:?}");
        assert!(decoded.contains(&Symbol::new("ext4_inode_599_read", 't', TEXT + 16 * 600)));
        let own = decoded.iter().filter(|s| s.name.starts_with("kallsyms_")).count();
        assert_eq!(own, if format.names_first { k.tables.len() } else { 0 });
    }
}

#[test]
fn num_syms_stands_one_alignment_before_names() {
    for format in [KallsymsFormat::LINUX_5_10, KallsymsFormat::LINUX_6_4, KallsymsFormat::LINUX_7_0] {
        let k = Kallsyms::build(format, TEXT + 0x1000, &symbols(3));
        assert_eq!(k.table("kallsyms_names").unwrap() - k.table("kallsyms_num_syms").unwrap(), format.align);
    }
}

#[test]
fn percpu_symbols_keep_their_small_addresses() {
    let mut all = symbols(3);
    all.push(Symbol::new("runqueues", 'A', 0x35e80));
    let k = Kallsyms::build(KallsymsFormat::LINUX_6_4, TEXT + 0x1000, &all);
    assert_eq!(decode(&k, KallsymsFormat::LINUX_6_4)[0], Symbol::new("runqueues", 'A', 0x35e80));
}

#[test]
fn a_name_of_128_tokens_takes_a_length_of_two_bytes() {
    let name = incompressible_name(400);
    let format = KallsymsFormat::LINUX_7_0;
    let mut all = symbols(2);
    all.push(Symbol::new(&name, 't', TEXT + 0x900));
    let tokens = TokenTable::train(all.iter().map(string_of));
    assert!(tokens.compress(name.as_bytes()).len() > 127);
    let k = Kallsyms::build(format, TEXT + 0x1000, &all);
    assert!(decode(&k, format).iter().any(|s| s.name == name));
}

#[test]
fn the_ten_digits_are_their_own_tokens() {
    let k = Kallsyms::build(KallsymsFormat::LINUX_5_10, TEXT + 0x1000, &symbols(50));
    let digits = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\0";
    assert_eq!(k.bytes.windows(20).filter(|window| window == digits).count(), 1);
}
