//! Text: where code lies, and whether an address in it can be a return address.

use std::ops::Range;

use kdump_arch_x86::VirtAddr;
use kdump_vmcore::KernelMem;
use kdump_vmcore::space::KERNEL_IMAGE_BASE;

/// End of the modules' address range.
///
/// Source: arch/x86/include/asm/pgtable_64_types.h, `MODULES_END`.
const MODULES_END: u64 = 0xffff_ffff_ff00_0000;

/// Whose code an address is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The kernel image's.
    Kernel,
    /// The kernel image's, thrown away after boot.
    Init,
    /// A module's; the index is that of its range.
    Module(usize),
    /// In the range of modules but in none that is known: BPF programs, trampolines, modules in
    /// the course of loading.
    Generated,
}

/// Ranges of code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Text {
    /// `_stext` to `_etext`.
    pub kernel: Range<u64>,
    /// `_sinittext` to `_einittext`.
    pub init: Range<u64>,
    /// Each module's; not sorted, the index is the module.
    pub modules: Vec<Range<u64>>,
    /// Indices into `modules` by ascending start.
    by_start: Vec<usize>,
    generated: Range<u64>,
}

impl Text {
    /// Puts the ranges together. `image_size` is that of the kernel image's mapping.
    #[must_use]
    pub fn new(kernel: Range<u64>, init: Range<u64>, modules: Vec<Range<u64>>, image_size: u64) -> Self {
        let mut by_start: Vec<usize> = (0..modules.len()).collect();
        by_start.sort_by_key(|&i| modules[i].start);
        let generated = KERNEL_IMAGE_BASE.saturating_add(image_size)..MODULES_END;
        Self { kernel, init, modules, by_start, generated }
    }

    /// Whose code `ip` is, if any.
    #[must_use]
    pub fn place(&self, ip: u64) -> Option<Place> {
        if self.kernel.contains(&ip) {
            return Some(Place::Kernel);
        }
        if self.init.contains(&ip) {
            return Some(Place::Init);
        }
        let n = self.by_start.partition_point(|&i| self.modules[i].start <= ip);
        if let Some(&i) = n.checked_sub(1).and_then(|n| self.by_start.get(n))
            && self.modules[i].contains(&ip)
        {
            return Some(Place::Module(i));
        }
        self.generated.contains(&ip).then_some(Place::Generated)
    }

    /// Whether `ip` can be a return address: it is in text and the bytes before it are a call.
    #[must_use]
    pub fn is_return_address(&self, mem: &KernelMem<'_>, ip: u64) -> bool {
        // The call itself must be in text too: `ip` may be one past the end.
        let Some(call) = ip.checked_sub(1) else { return false };
        self.place(call).is_some() && follows_call(mem, ip)
    }
}

/// Where the call before return address `ip` goes, if it is a direct one.
#[must_use]
pub fn direct_call_target(mem: &KernelMem<'_>, ip: u64) -> Option<u64> {
    let [opcode, displacement @ ..] = mem.read_array::<5>(VirtAddr(ip.wrapping_sub(5))).ok()?;
    (opcode == 0xe8).then(|| ip.wrapping_add_signed(i32::from_le_bytes(displacement).into()))
}

/// Whether the bytes before `ip` are a call instruction.
fn follows_call(mem: &KernelMem<'_>, ip: u64) -> bool {
    let mut before = [0; 7];
    for len in [7, 5, 3, 2] {
        let at = VirtAddr(ip.wrapping_sub(len as u64));
        // The longest window may begin on a page that is not mapped.
        if mem.read(at, &mut before[7 - len..]).is_ok() {
            return ends_in_call(&before[7 - len..]);
        }
    }
    false
}

/// Whether `code` ends in a near call: `e8 rel32`, or `ff /2` with any memory or register operand.
/// Prefixes come before these bytes and need no check.
///
/// Source: Intel SDM volume 2, "CALL—Call Procedure", and chapter 2, "ModR/M and SIB bytes".
#[must_use]
pub fn ends_in_call(code: &[u8]) -> bool {
    let n = code.len();
    let ends = |len: usize| n.checked_sub(len).and_then(|at| code.get(at..));
    if ends(5).is_some_and(|c| c[0] == 0xe8) {
        return true;
    }
    [2, 3, 4, 6, 7].into_iter().any(|len| {
        ends(len).is_some_and(|c| c[0] == 0xff && c[1] >> 3 & 7 == 2 && indirect_len(c[1], c.get(2)) == len)
    })
}

/// Bytes of an `ff /2` instruction, from its ModR/M and SIB bytes.
fn indirect_len(modrm: u8, sib: Option<&u8>) -> usize {
    let (mode, rm) = (modrm >> 6, modrm & 7);
    let has_sib = mode != 3 && rm == 4;
    let displacement = match mode {
        0 if rm == 5 => 4,
        0 if has_sib && sib.is_some_and(|s| s & 7 == 5) => 4,
        1 => 1,
        2 => 4,
        _ => 0,
    };
    2 + usize::from(has_sib) + displacement
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_near_call_is_known() {
        let calls: [&[u8]; 10] = [
            &[0xe8, 1, 2, 3, 4],
            &[0xff, 0xd0],                               // call *%rax
            &[0x41, 0xff, 0xd3],                         // call *%r11
            &[0xff, 0x10],                               // call *(%rax)
            &[0xff, 0x50, 0x18],                         // call *0x18(%rax)
            &[0xff, 0x90, 1, 0, 0, 0],                   // call *0x1(%rax)
            &[0xff, 0x15, 1, 2, 3, 4],                   // call *0x4030201(%rip)
            &[0xff, 0x14, 0xc0],                         // call *(%rax,%rax,8)
            &[0xff, 0x54, 0x24, 0x08],                   // call *0x8(%rsp)
            &[0xff, 0x14, 0xc5, 0x00, 0x01, 0x02, 0x03], // call *0x3020100(,%rax,8)
        ];
        for call in calls {
            assert!(ends_in_call(call), "{call:02x?}");
            let mut prefixed = vec![0x90; 3];
            prefixed.extend_from_slice(call);
            assert!(ends_in_call(&prefixed), "{prefixed:02x?}");
        }
    }

    #[test]
    fn what_only_resembles_a_call_is_none() {
        let others: [&[u8]; 5] = [
            &[0xff, 0xe0],       // jmp *%rax
            &[0xff, 0x50],       // a displacement byte is missing
            &[0xe9, 1, 2, 3, 4], // jmp
            &[0x90, 0x90, 0x90, 0x90, 0xc3],
            &[],
        ];
        for other in others {
            assert!(!ends_in_call(other), "{other:02x?}");
        }
    }

    #[test]
    fn an_address_belongs_to_image_module_or_generated_code() {
        let base = 0xffff_ffff_c000_0000;
        let text = Text::new(
            KERNEL_IMAGE_BASE + 0x1000..KERNEL_IMAGE_BASE + 0x2000,
            0..0,
            vec![base + 0x9000..base + 0xa000, base + 0x1000..base + 0x3000],
            1 << 30,
        );
        assert_eq!(text.place(KERNEL_IMAGE_BASE + 0x1000), Some(Place::Kernel));
        assert_eq!(text.place(KERNEL_IMAGE_BASE + 0x2000), None);
        assert_eq!(text.place(base + 0x1800), Some(Place::Module(1)));
        assert_eq!(text.place(base + 0x9fff), Some(Place::Module(0)));
        assert_eq!(text.place(base + 0x4000), Some(Place::Generated));
        assert_eq!(text.place(0xffff_8880_0000_1000), None);
    }
}
