//! Parsing the small control files of kexec under /sys and /proc: one function per file's text.
//!
//! Source: kernel/ksysfs.c, drivers/base/cpu.c, drivers/firmware/memmap.c, security/lockdown/lockdown.c.

use kdump_arch_x86::bootparam::E820Type;
use kdump_arch_x86::{PhysAddr, PhysRange};

use crate::iomem;

/// What the kernel's lockdown forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Lockdown {
    /// Nothing.
    None,
    /// Changing the running kernel: kexec_load(2) is refused.
    Integrity,
    /// That, and reading its secrets: /proc/kcore is refused too.
    Confidentiality,
}

/// `0x12345000 1024`: where the VMCOREINFO note is, size in hex.
#[must_use]
pub fn parse_vmcoreinfo(text: &str) -> Option<PhysRange> {
    let mut words = text.split_whitespace();
    let start = parse_hex(words.next()?)?;
    let size = parse_hex(words.next()?)?;
    (start != 0 && size != 0).then(|| PhysRange::from_len(start, size))?
}

/// A CPU's note buffer: `crash_notes` is its address in hex, `crash_notes_size` decimal.
#[must_use]
pub fn parse_crash_notes(address: &str, size: &str) -> Option<PhysRange> {
    let start = parse_hex(address)?;
    (start != 0).then(|| PhysRange::from_len(start, parse_decimal(size)?))?
}

/// `none [integrity] confidentiality`: the bracketed word holds.
#[must_use]
pub fn parse_lockdown(text: &str) -> Option<Lockdown> {
    let word = text.split_once('[')?.1.split_once(']')?.0;
    Some(match word {
        "none" => Lockdown::None,
        "integrity" => Lockdown::Integrity,
        "confidentiality" => Lockdown::Confidentiality,
        _ => return None,
    })
}

/// An entry of /sys/firmware/memmap; `None` for types this program does not know.
#[must_use]
pub fn parse_memmap_entry(start: &str, end: &str, kind: &str) -> Option<(PhysRange, E820Type)> {
    let range = PhysRange::try_new(parse_hex(start)?, parse_hex(end)?.checked_add(1)?)?;
    let kind = match kind.trim() {
        "System RAM" => E820Type::RAM,
        other => iomem::firmware_type(other)?,
    };
    Some((range, kind))
}

/// `crash_cma_ranges`: one `start-last` per line, in hex.
#[must_use]
pub fn parse_cma_ranges(text: &str) -> Vec<PhysRange> {
    let mut ranges: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let (first, last) = line.trim().split_once('-')?;
            PhysRange::try_new(parse_hex(first)?, parse_hex(last)?.checked_add(1)?)
        })
        .collect();
    ranges.sort_unstable();
    ranges
}

/// `ACPI20=0x7f9fe014` of /sys/firmware/efi/systab; ACPI 2.0 before 1.0.
#[must_use]
pub fn parse_efi_systab(text: &str) -> Option<PhysAddr> {
    let find = |key: &str| text.lines().find_map(|l| parse_hex(l.strip_prefix(key)?));
    find("ACPI20=").or_else(|| find("ACPI=")).map(PhysAddr)
}

/// `acpi_rsdp=0x7f9fe014` of a kernel command line.
#[must_use]
pub fn parse_rsdp_word(cmdline: &str) -> Option<PhysAddr> {
    let mut words = cmdline.split_whitespace().filter_map(|word| word.strip_prefix("acpi_rsdp="));
    words.next_back().and_then(parse_hex).filter(|&at| at != 0).map(PhysAddr)
}

/// APIC ID of CPU 0, the boot CPU, from /proc/cpuinfo.
#[must_use]
pub fn parse_boot_apic_id(cpuinfo: &str) -> Option<u32> {
    let field = cpuinfo.lines().find_map(|l| l.strip_prefix("initial apicid"))?;
    field.trim_start().strip_prefix(':')?.trim().parse().ok()
}

/// Flags of the first CPU, from /proc/cpuinfo.
#[must_use]
pub fn parse_cpu_flags(cpuinfo: &str) -> Vec<String> {
    let line = cpuinfo.lines().find(|l| l.split(':').next().is_some_and(|key| key.trim_end() == "flags"));
    let flags = line.and_then(|l| l.split_once(':')).map_or("", |(_, flags)| flags);
    flags.split_whitespace().map(str::to_owned).collect()
}

/// A decimal number alone in its file.
#[must_use]
pub fn parse_decimal(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// A hexadecimal number, with or without 0x.
#[must_use]
pub fn parse_hex(text: &str) -> Option<u64> {
    let text = text.trim();
    u64::from_str_radix(text.strip_prefix("0x").or(text.strip_prefix("0X")).unwrap_or(text), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vmcoreinfo_size_is_hexadecimal() {
        let range = parse_vmcoreinfo("0x000000000487a000 1024\n").unwrap();
        assert_eq!((range.start(), range.len()), (PhysAddr(0x487_a000), 0x1024));
        assert_eq!(parse_vmcoreinfo("0x0 0\n"), None);
        assert_eq!(parse_vmcoreinfo(""), None);
    }

    #[test]
    fn crash_notes_size_is_decimal() {
        let range = parse_crash_notes("1f62d5c0\n", "368\n").unwrap();
        assert_eq!((range.start(), range.len()), (PhysAddr(0x1f62_d5c0), 368));
    }

    #[test]
    fn the_bracketed_lockdown_level_holds() {
        assert_eq!(parse_lockdown("[none] integrity confidentiality\n"), Some(Lockdown::None));
        assert_eq!(parse_lockdown("none [integrity] confidentiality\n"), Some(Lockdown::Integrity));
        assert_eq!(parse_lockdown("none\n"), None);
    }

    #[test]
    fn cpu_flags_are_not_those_of_vmx() {
        let cpuinfo = "processor\t: 0\nflags\t\t: fpu la57\nvmx flags\t: vnmi\nflags\t\t: other\n";
        assert_eq!(parse_cpu_flags(cpuinfo), ["fpu", "la57"]);
        assert!(parse_cpu_flags("").is_empty());
    }

    #[test]
    fn ram_is_no_firmware_range() {
        assert_eq!(
            parse_memmap_entry("0x100000", "0x1ffdefff", "System RAM\n"),
            Some((PhysRange::new(0x10_0000, 0x1ffd_f000), E820Type::RAM))
        );
        assert_eq!(parse_memmap_entry("0x100000", "0x1ffdefff", "Cheese\n"), None);
        assert_eq!(
            parse_memmap_entry("0x1ffdf000", "0x1fffffff", "Reserved\n"),
            Some((PhysRange::new(0x1ffd_f000, 0x2000_0000), E820Type::RESERVED))
        );
    }

    #[test]
    fn small_files_parse() {
        assert_eq!(parse_cma_ranges("03c000000-03fffffff\n"), [PhysRange::new(0x3c00_0000, 0x4000_0000)]);
        assert_eq!(parse_efi_systab("ACPI20=0x7f9fe014\nACPI=0x7f9fe000\n"), Some(PhysAddr(0x7f9f_e014)));
        assert_eq!(parse_boot_apic_id("processor\t: 0\napicid\t\t: 0\ninitial apicid\t: 4\n"), Some(4));
    }
}
