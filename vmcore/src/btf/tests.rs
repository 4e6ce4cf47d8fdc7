//! A blob written by hand, in both header lengths.

use super::*;
use alloc::vec;

struct Blob {
    types: Vec<u8>,
    strings: Vec<u8>,
}

impl Blob {
    fn new() -> Self {
        Self { types: Vec::new(), strings: vec![0] }
    }
    fn name(&mut self, s: &str) -> u32 {
        if s.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(s.as_bytes());
        self.strings.push(0);
        at
    }
    fn add(&mut self, name: &str, kind: Kind, flag: bool, vlen: u32, size: u32, rest: &[u32]) {
        let words = [self.name(name), u32::from(kind.0) << 24 | vlen | u32::from(flag) << 31, size];
        for w in words.iter().chain(rest) {
            self.types.extend_from_slice(&w.to_le_bytes());
        }
    }
    fn bytes(&self, header: u32) -> Vec<u8> {
        let mut out = vec![0x9f, 0xeb, 1, 0];
        for w in [header, 0, self.types.len() as u32, self.types.len() as u32, self.strings.len() as u32] {
            out.extend_from_slice(&w.to_le_bytes());
        }
        out.resize(header as usize, 0);
        out.extend_from_slice(&self.types);
        out.extend_from_slice(&self.strings);
        out
    }
}

fn blob() -> Blob {
    let mut b = Blob::new();
    b.add("int", Kind::INT, false, 0, 4, &[32]); // 1
    let cpu = b.name("cpu");
    b.add("thread_info", Kind::STRUCT, false, 1, 8, &[cpu, 1, 32]); // 2
    b.add("ti_t", Kind::TYPEDEF, false, 0, 2, &[]); // 3
    let (x, y) = (b.name("x"), b.name("y"));
    b.add("", Kind::UNION, false, 1, 8, &[x, 1, 0]); // 4: anonymous
    let (ti, flag) = (b.name("ti"), b.name("flag"));
    // 5: ti @0, anonymous union @64, bitfield flag @ 128 of 3 bits, y @ 160
    b.add("task", Kind::STRUCT, true, 4, 24, &[ti, 3, 0, 0, 4, 64, flag, 1, 3 << 24 | 128, y, 1, 160]);
    b.add("", Kind::ARRAY, false, 0, 0, &[5, 1, 7]); // 6
    b.add("tasks_t", Kind::TYPEDEF, false, 0, 6, &[]); // 7
    let (a, m) = (b.name("PIDTYPE_PID"), b.name("MINUS"));
    b.add("pid_type", Kind::ENUM, true, 2, 4, &[a, 3, m, u32::MAX]); // 8
    let big = b.name("BIG");
    b.add("huge", Kind::ENUM64, false, 1, 8, &[big, 1, 2]); // 9
    b.add("loop", Kind::TYPEDEF, false, 0, 10, &[]); // 10: names itself
    b
}

#[test]
fn members_are_found_through_typedefs_and_anonymous_unions() {
    for header in [24, 32] {
        let btf = Btf::parse(blob().bytes(header)).unwrap();
        assert_eq!(btf.len(), 11);
        assert_eq!(btf.offset_of("task", "ti.cpu"), Some(4));
        assert_eq!(btf.offset_of("task", "x"), Some(8));
        assert_eq!(btf.offset_of("task", "y"), Some(20));
        let flag = btf.member("task", "flag").unwrap();
        assert_eq!((flag.bit_offset, flag.bit_size), (128, Some(3)));
        assert_eq!(btf.member("task", "none"), None);
        assert_eq!(btf.size_of("task"), Some(24));
        assert_eq!(btf.size_of("tasks_t"), Some(7 * 24));
    }
}

#[test]
fn enumerators_have_their_sign_and_width() {
    let btf = Btf::parse(blob().bytes(24)).unwrap();
    assert_eq!(btf.enumerator("PIDTYPE_PID"), Some(3));
    assert_eq!(btf.enumerator("MINUS"), Some(-1));
    assert_eq!(btf.enumerator("BIG"), Some(1 << 33 | 1));
}

#[test]
fn a_type_that_names_itself_ends() {
    let btf = Btf::parse(blob().bytes(24)).unwrap();
    assert_eq!(btf.size_of("loop"), None);
    assert_eq!(btf.member("loop", "x"), None);
}

/// Check that a struct that holds itself sixteen times, anonymously, is given up.
#[test]
fn a_struct_full_of_itself_ends() {
    let mut b = Blob::new();
    let members: Vec<u32> = (0..16).flat_map(|_| [0, 1, 0]).collect();
    b.add("task_struct", Kind::STRUCT, false, 16, 8, &members);
    let btf = Btf::parse(b.bytes(24)).unwrap();
    assert_eq!(btf.member("task_struct", "pid"), None);
}

/// Check that every cut of the blob, and every changed byte, is an error or an answer, no panic.
#[test]
fn damage_is_an_error_or_an_answer() {
    let good = blob().bytes(24);
    for cut in 0..good.len() {
        let _ = Btf::parse(good[..cut].to_vec());
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        if let Ok(btf) = Btf::parse(bad) {
            let _ = (btf.offset_of("task", "ti.cpu"), btf.size_of("tasks_t"), btf.enumerator("BIG"));
        }
    }
}
