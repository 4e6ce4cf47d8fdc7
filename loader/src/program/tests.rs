//! Programs put together by hand: of each kind, and broken in each way.

use super::*;
use crate::boot_params::MemoryMapEntry;
use kdump_arch_x86::PhysRange;
use kdump_arch_x86::bootparam::E820Type;

/// A 32-bit executable with one segment, its bytes at 0x1000 of the file.
fn elf32(code: &[u8], change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut file = vec![0u8; 0x1000];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x01\x01\x01");
    put(0x10, &[2, 0, 3, 0, 1]);
    put(0x18, &0x20_0010u32.to_le_bytes());
    put(0x1c, &52u32.to_le_bytes());
    put(0x28, &[52, 0, 32, 0, 1, 0]);
    let segment = [1u32, 0x1000, 0x20_0000, 0x20_0000, code.len() as u32, 0x3000, 7, 0x1000];
    put(52, &segment.map(u32::to_le_bytes).concat());
    file.extend_from_slice(code);
    change(&mut file);
    file
}

fn multiboot1_header(flags: u32, addresses: &[u32]) -> Vec<u8> {
    let mut words = vec![0x1bad_b002, flags, 0u32.wrapping_sub(0x1bad_b002).wrapping_sub(flags)];
    words.extend_from_slice(addresses);
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

fn multiboot2_header(tags: &[u8]) -> Vec<u8> {
    let len = 16 + tags.len() as u32;
    let sum = 0u32.wrapping_sub(0xe852_50d6).wrapping_sub(len);
    let mut out = [0xe852_50d6, 0, len, sum].map(u32::to_le_bytes).concat();
    out.extend_from_slice(tags);
    out
}

#[test]
fn a_static_executable_is_the_memory_it_takes() {
    let program = Program::parse(&elf32(&[0x90; 64], |_| ())).unwrap();
    assert_eq!(program.protocol, Protocol::Elf { is_64_bit: false });
    assert_eq!((program.start, program.size, program.entry), (0x20_0000, 0x3000, 0x20_0010));
    assert_eq!(program.memory, [0x90; 64]);
}

#[test]
fn a_multiboot_header_in_an_executable_makes_it_one() {
    let mut code = vec![0x90; 32];
    code.extend(multiboot1_header(3, &[]));
    assert_eq!(Program::parse(&elf32(&code, |_| ())).unwrap().protocol, Protocol::Multiboot1);
    let mut code = vec![0x90; 32];
    let entry = [3u32 | 1 << 16, 12, 0x20_0004, 0, 0, 8].map(u32::to_le_bytes).concat();
    code.extend(multiboot2_header(&entry));
    let program = Program::parse(&elf32(&code, |_| ())).unwrap();
    assert_eq!((program.protocol, program.entry), (Protocol::Multiboot2, 0x20_0004));
}

#[test]
fn a_multiboot_image_may_say_itself_where_it_lies() {
    let header = multiboot1_header(1 << 16, &[0x10_0010, 0x10_0000, 0x10_0200, 0x10_8000, 0x10_0100]);
    let mut file = vec![0xcc; 0x10];
    file.extend(header);
    file.resize(0x400, 0x90);
    let program = Program::parse(&file).unwrap();
    assert_eq!((program.start, program.size, program.entry), (0x10_0000, 0x8000, 0x10_0100));
    assert_eq!(program.memory.len(), 0x200);
}

#[test]
fn what_cannot_be_provided_is_named() {
    let text = |file: &[u8]| Program::parse(file).unwrap_err().to_string();
    let video = elf32(&multiboot1_header(4, &[]), |_| ());
    assert!(text(&video).starts_with("header field flags is 0x4: "), "{}", text(&video));
    let frame = [5u32, 20, 0, 0, 0, 0, 0, 8].map(u32::to_le_bytes).concat();
    let frame = elf32(&multiboot2_header(&frame), |_| ());
    assert!(text(&frame).contains("demands tag 5"), "{}", text(&frame));
    let dynamic = elf32(&[0x90; 64], |file| file[0x10] = 3);
    assert!(text(&dynamic).contains("e_type is 0x3"));
    let arm = elf32(&[0x90; 64], |file| file[0x12] = 40);
    assert!(text(&arm).contains("e_machine is 0x28"));
    let astray = elf32(&[0x90; 64], |file| file[0x1b] = 0x40);
    assert!(text(&astray).contains("the entry 0x40200010"));
    let huge = elf32(&[0x90; 64], |file| file[52 + 23] = 0xff);
    assert!(text(&huge).contains("cannot be loaded"), "{}", text(&huge));
}

/// Check that no cut and no changed byte makes the reader fail otherwise than by an error.
#[test]
fn hostile_files_are_refused_or_read() {
    let mut code = multiboot1_header(1 << 16, &[0x20_0000, 0x20_0000, 0, 0, 0x20_0000]);
    code.extend(multiboot2_header(
        &[2u32, 24, 0x20_0000, u32::MAX, 0, 0, 0, 8].map(u32::to_le_bytes).concat(),
    ));
    let good = elf32(&code, |_| ());
    for len in 0..good.len() {
        let _ = Program::parse(&good[..len]);
    }
    for at in (0..84).chain(0x1000..good.len()) {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut file = good.clone();
            file[at] = value;
            let _ = Program::parse(&file);
        }
    }
}

#[test]
fn information_says_where_memory_and_module_are() {
    let entry = |start, end, kind| MemoryMapEntry { range: PhysRange::new(start, end), kind };
    let map = [
        entry(0, 0x9_fc00, E820Type::RAM),
        entry(0x9_fc00, 0xa_0000, E820Type::RESERVED),
        entry(0x10_0000, 0x40_0000, E820Type::RAM),
    ];
    let module = PhysRange::new(0x30_0000, 0x30_1234);
    let info = Info { cmdline: "hello world", map: &map, module };
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap());
    let one = multiboot1(&info, 0x20_0000);
    assert_eq!((word(&one, 4), word(&one, 8)), (639, 3072));
    let text = |at: usize| &one[word(&one, at) as usize - 0x20_0000..];
    assert!(text(16).starts_with(b"hello world\0") && text(64).starts_with(b"kdump-rs\0"));
    assert_eq!((word(text(24), 0), word(text(24), 4)), (0x30_0000, 0x30_1234));
    assert_eq!((word(&one, 44), word(text(48), 0), word(text(48), 20)), (72, 20, 1));

    let two = multiboot2(&info);
    assert_eq!(word(&two, 0) as usize, two.len());
    let mut tags = Vec::new();
    let mut at = 8;
    while at < two.len() {
        tags.push((word(&two, at), at));
        at = (at + word(&two, at + 4) as usize).next_multiple_of(8);
    }
    assert_eq!(tags.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 2, 3, 4, 6, 0]);
    assert!(two[tags[0].1 + 8..].starts_with(b"hello world\0"));
    assert_eq!(word(&two, tags[4].1 + 16 + 24 + 16), 2);
}
