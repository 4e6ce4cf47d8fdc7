//! VMCOREINFO: the kernel's own note about where its things are.
//!
//! Lines `KEY=value`; which keys exist depends on version and configuration, so every one of them
//! is optional here.
//!
//! Source: kernel/vmcore_info.c (before 6.9 kernel/crash_core.c), arch/x86/kernel/vmcore_info_64.c,
//! kernel/printk/printk.c, `log_buf_vmcoreinfo_setup`.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};

/// The parsed note.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct VmcoreInfo {
    text: String,
    keys: BTreeMap<String, String>,
}

impl VmcoreInfo {
    /// Parses the note's descriptor. Bytes after the first NUL are not text; lines without `=`
    /// are ignored, as is what is not UTF-8. The first of two equal keys wins.
    #[must_use]
    pub fn parse(desc: &[u8]) -> Self {
        let end = desc.iter().position(|&b| b == 0).unwrap_or(desc.len());
        let text = String::from_utf8_lossy(&desc[..end]).into_owned();
        let mut keys = BTreeMap::new();
        for (key, value) in text.lines().filter_map(|l| l.split_once('=')) {
            keys.entry(key.to_string()).or_insert_with(|| value.to_string());
        }
        Self { text, keys }
    }

    /// The note as the kernel wrote it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A value by its whole key, `NUMBER(phys_base)`, say.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(String::as_str)
    }

    /// `SYMBOL(name)`: an address, in some cases (`mem_section`, `vmemmap`) a variable's value.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<u64> {
        u64::from_str_radix(self.get(&format!("SYMBOL({name})"))?, 16).ok()
    }

    /// `NUMBER(name)`: signed decimal, except for `VMALLOC_START` and the like, which are hexadecimal
    /// with a prefix.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        let v = self.get(&format!("NUMBER({name})"))?;
        match v.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok().map(|v| v as i64),
            None => v.parse().ok(),
        }
    }

    /// `OFFSET(member)`: bytes.
    #[must_use]
    pub fn offset(&self, member: &str) -> Option<u64> {
        self.get(&format!("OFFSET({member})"))?.parse().ok()
    }

    /// `SIZE(type)`: bytes.
    #[must_use]
    pub fn size(&self, type_name: &str) -> Option<u64> {
        self.get(&format!("SIZE({type_name})"))?.parse().ok()
    }

    /// `LENGTH(array)`: elements.
    #[must_use]
    pub fn length(&self, array: &str) -> Option<u64> {
        self.get(&format!("LENGTH({array})"))?.parse().ok()
    }

    /// The kernel's release, as `uname -r` prints it.
    #[must_use]
    pub fn osrelease(&self) -> Option<&str> {
        self.get("OSRELEASE")
    }

    /// `BUILD-ID` in hexadecimal. Some stable kernels of 2024 print garbage here
    /// (5.15.168+, 6.1.113–118, 6.6.55–62, 6.11.3–9): what is not 40 hex digits counts as absent.
    #[must_use]
    pub fn build_id(&self) -> Option<&str> {
        self.get("BUILD-ID").filter(|id| id.len() == 40 && id.bytes().all(|b| b.is_ascii_hexdigit()))
    }

    /// `KERNELOFFSET`: how far KASLR moved the kernel text.
    #[must_use]
    pub fn kernel_offset(&self) -> Option<u64> {
        u64::from_str_radix(self.get("KERNELOFFSET")?, 16).ok()
    }

    /// `CRASHTIME`: seconds since 1970; there only if the kernel crashed.
    #[must_use]
    pub fn crash_time(&self) -> Option<i64> {
        self.get("CRASHTIME")?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"OSRELEASE=6.12.107\nBUILD-ID=0123456789abcdef0123456789abcdef01234567\nPAGESIZE=4096\n\
        SYMBOL(swapper_pg_dir)=ffffffff82a10000\nOFFSET(page.flags)=0\nSIZE(page)=64\nLENGTH(mem_section)=2048\n\
        NUMBER(phys_base)=-16777216\nNUMBER(VMALLOC_START)=0xffffa00000000000\nKERNELOFFSET=1a00000\nCRASHTIME=1700000000\n\0\0junk=1";

    #[test]
    fn each_kind_of_key_has_its_radix() {
        let v = VmcoreInfo::parse(TEXT);
        assert_eq!(v.symbol("swapper_pg_dir"), Some(0xffff_ffff_82a1_0000));
        assert_eq!(v.number("phys_base"), Some(-16_777_216));
        assert_eq!(v.number("VMALLOC_START"), Some(0xffff_a000_0000_0000_u64 as i64));
        assert_eq!(v.kernel_offset(), Some(0x1a0_0000));
        assert_eq!(
            (v.offset("page.flags"), v.size("page"), v.length("mem_section")),
            (Some(0), Some(64), Some(2048))
        );
        assert_eq!(v.crash_time(), Some(1_700_000_000));
        assert_eq!(v.get("junk"), None);
    }

    /// Folklore: 6.1.113 to 6.1.118 shipped a build ID that is not one.
    #[test]
    fn a_garbage_build_id_is_absent() {
        assert_eq!(VmcoreInfo::parse(b"BUILD-ID=\xb0\x07zz\n").build_id(), None);
        assert!(VmcoreInfo::parse(TEXT).build_id().is_some());
    }
}
