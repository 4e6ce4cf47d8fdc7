//! ELF notes of a vmcore: registers per CPU, and VMCOREINFO.
//!
//! Source: `include/linux/elfcore.h` (`struct elf_prstatus`), `kernel/crash_core.c`.

/// The registers of one CPU or of a system call's user side, as `struct pt_regs` names them, and the segment bases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the registers they are named after")]
pub struct Regs {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub bp: u64,
    pub bx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub ax: u64,
    pub cx: u64,
    pub dx: u64,
    pub si: u64,
    pub di: u64,
    pub orig_ax: u64,
    pub ip: u64,
    pub cs: u64,
    pub flags: u64,
    pub sp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
}

impl Regs {
    /// Returns the 168 bytes of a `struct pt_regs`.
    pub fn pt_regs(&self) -> Vec<u8> {
        let r = self;
        [
            r.r15, r.r14, r.r13, r.r12, r.bp, r.bx, r.r11, r.r10, r.r9, r.r8, r.ax, r.cx, r.dx, r.si, r.di,
            r.orig_ax, r.ip, r.cs, r.flags, r.sp, r.ss,
        ]
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
    }

    /// Returns the 336 bytes of a `struct elf_prstatus` as the kernel fills it.
    pub fn elf_prstatus(&self, pid: u32) -> Vec<u8> {
        let mut desc = vec![0; 112];
        desc[32..36].copy_from_slice(&pid.to_le_bytes());
        desc.extend(self.pt_regs());
        for value in [self.fs_base, self.gs_base, 0, 0, 0, 0] {
            desc.extend(value.to_le_bytes());
        }
        desc.extend([0; 8]); // pr_fpvalid and padding
        desc
    }
}

/// A run of ELF notes, as it stands in PT_NOTE and in the sub-header of a kdump file.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    bytes: Vec<u8>,
    vmcoreinfo: Option<(usize, usize)>,
}

impl Notes {
    /// Returns an empty run.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a note of any kind; name (NUL-terminated) and descriptor are padded to 4 bytes.
    pub fn note(&mut self, name: &str, n_type: u32, desc: &[u8]) -> &mut Self {
        self.bytes.extend((name.len() as u32 + 1).to_le_bytes());
        self.bytes.extend((desc.len() as u32).to_le_bytes());
        self.bytes.extend(n_type.to_le_bytes());
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.bytes.extend(desc);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// Appends the NT_PRSTATUS note of a CPU on which the task `pid` ran. A CPU that never answered has no note.
    pub fn prstatus(&mut self, pid: u32, regs: &Regs) -> &mut Self {
        self.note("CORE", 1, &regs.elf_prstatus(pid))
    }

    /// Appends the VMCOREINFO note.
    pub fn vmcoreinfo(&mut self, text: &[u8]) -> &mut Self {
        self.note("VMCOREINFO", 0, text);
        self.vmcoreinfo = Some((self.bytes.len() - text.len().next_multiple_of(4), text.len()));
        self
    }

    /// Returns offset and length of the VMCOREINFO text within the run.
    pub fn vmcoreinfo_range(&self) -> Option<(usize, usize)> {
        self.vmcoreinfo
    }

    /// Returns the bytes of the run.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_note_is_356_bytes_and_pr_reg_starts_at_112() {
        let mut notes = Notes::new();
        notes.prstatus(77, &Regs { r15: 15, sp: 19, ip: 16, gs_base: 22, ..Regs::default() });
        let bytes = notes.bytes();
        assert_eq!(bytes.len(), 356);
        let desc = &bytes[20..];
        let reg = |index: usize| u64::from_le_bytes(desc[112 + 8 * index..][..8].try_into().unwrap());
        assert_eq!((reg(0), reg(16), reg(19), reg(22)), (15, 16, 19, 22));
        assert_eq!(desc[32], 77);
    }

    #[test]
    fn the_vmcoreinfo_range_is_the_text() {
        let mut notes = Notes::new();
        notes.prstatus(0, &Regs::default()).vmcoreinfo(b"OSRELEASE=x\nA");
        let (offset, len) = notes.vmcoreinfo_range().unwrap();
        assert_eq!(&notes.bytes()[offset..offset + len], b"OSRELEASE=x\nA");
    }
}
