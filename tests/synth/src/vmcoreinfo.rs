//! The VMCOREINFO text, in the formats the kernel really prints.
//!
//! Source: `kernel/vmcore_info.c` (before 6.9 `kernel/crash_core.c`), `include/linux/vmcore_info.h`.

/// Builds VMCOREINFO line by line; the order of calls is the order of lines.
#[derive(Clone, Debug, Default)]
pub struct Vmcoreinfo {
    text: String,
}

impl Vmcoreinfo {
    /// Starts with `OSRELEASE`, optionally `BUILD-ID` (absent before 5.9), and `PAGESIZE=4096`.
    pub fn new(osrelease: &str, build_id: Option<&str>) -> Self {
        let mut info = Self::default();
        info.line("OSRELEASE", osrelease);
        if let Some(build_id) = build_id {
            info.line("BUILD-ID", build_id);
        }
        info.line("PAGESIZE", "4096");
        info
    }

    /// Appends `KEY=value`. The kernel formats each line in a buffer of 80 bytes, so a longer one is cut,
    /// loses its newline, and the next key follows on the same line; so it is here.
    pub fn line(&mut self, key: &str, value: &str) -> &mut Self {
        let line = format!("{key}={value}\n");
        self.text.push_str(&line[..line.len().min(0x50 - 1)]);
        self
    }

    /// Appends `SYMBOL(name)`, hexadecimal without a prefix.
    pub fn symbol(&mut self, name: &str, address: u64) -> &mut Self {
        self.line(&format!("SYMBOL({name})"), &format!("{address:x}"))
    }

    /// Appends `SIZE(name)`, decimal.
    pub fn size(&mut self, name: &str, bytes: usize) -> &mut Self {
        self.line(&format!("SIZE({name})"), &bytes.to_string())
    }

    /// Appends `OFFSET(struct.member)`, decimal.
    pub fn offset(&mut self, member: &str, offset: usize) -> &mut Self {
        self.line(&format!("OFFSET({member})"), &offset.to_string())
    }

    /// Appends `LENGTH(name)`, decimal.
    pub fn length(&mut self, name: &str, len: usize) -> &mut Self {
        self.line(&format!("LENGTH({name})"), &len.to_string())
    }

    /// Appends `NUMBER(name)`, signed decimal.
    pub fn number(&mut self, name: &str, value: i64) -> &mut Self {
        self.line(&format!("NUMBER({name})"), &value.to_string())
    }

    /// Appends `NUMBER(VMALLOC_START)`, the one NUMBER in hexadecimal with a prefix (6.9 and later).
    pub fn vmalloc_start(&mut self, address: u64) -> &mut Self {
        self.line("NUMBER(VMALLOC_START)", &format!("0x{address:x}"))
    }

    /// Appends `KERNELOFFSET`, hexadecimal without a prefix.
    pub fn kernel_offset(&mut self, offset: u64) -> &mut Self {
        self.line("KERNELOFFSET", &format!("{offset:x}"))
    }

    /// Appends `CRASHTIME` in seconds since the epoch; only a kernel that crashed has it.
    pub fn crash_time(&mut self, seconds: u64) -> &mut Self {
        self.line("CRASHTIME", &seconds.to_string())
    }

    /// Returns the text as the note carries it: at most 4096 bytes, cut silently, not NUL-terminated.
    pub fn text(&self) -> &[u8] {
        &self.text.as_bytes()[..self.text.len().min(4096)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_line_has_its_own_number_format() {
        let mut info = Vmcoreinfo::new("6.12.0-test", None);
        info.symbol("_stext", 0xffff_ffff_8100_0000)
            .number("phys_base", -4096)
            .vmalloc_start(0xffff_c900_0000_0000);
        info.kernel_offset(0x1c00_0000).crash_time(1_700_000_000);
        assert_eq!(
            info.text(),
            b"OSRELEASE=6.12.0-test\nPAGESIZE=4096\nSYMBOL(_stext)=ffffffff81000000\nNUMBER(phys_base)=-4096\n\
              NUMBER(VMALLOC_START)=0xffffc90000000000\nKERNELOFFSET=1c000000\nCRASHTIME=1700000000\n"
        );
    }

    #[test]
    fn an_overlong_release_loses_its_newline() {
        let info = Vmcoreinfo::new(&"x".repeat(100), None);
        assert_eq!(info.text().iter().position(|&b| b == b'\n'), Some(79 + "PAGESIZE=4096".len()));
    }
}
