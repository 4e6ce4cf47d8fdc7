//! The capture kernel's command line: what the running one keeps, what a capture needs.
//!
//! Kept are consoles and what the hardware needs to come up (`acpi=`, `pci=`, `intel_iommu=` ...);
//! dropped is what concerns the production system: its root, its memory sizes, its init. Words are
//! split as the kernel splits them, double quotes included.
//!
//! Source: Documentation/admin-guide/kdump/kdump.rst, lib/cmdline.c (`next_arg`).

use kdump_arch_x86::PhysAddr;

/// Tells kdump-init where the panic record is. The kernel leaves words with a dot to modules.
pub const RECORD_PARAMETER: &str = "kdump-rs.record";

/// Words that a capture kernel is better off with, unless the user said otherwise.
///
/// One CPU, because the crashing one need not be the boot CPU and an INIT to that resets the
/// machine; no memory controllers, NUMA or huge pages, to live in little memory; no machine-check
/// handling, since bad memory is what may be read. Without `nokmem` the kernel keeps a pointer to a memory
/// controller for every four bytes of per-CPU memory, 4 MiB of them for one CPU (mm/percpu.c,
/// `pcpu_alloc_chunk`), controller or not.
const DEFAULTS: [&str; 11] = [
    "nr_cpus=1",
    "irqpoll",
    "reset_devices",
    "cgroup_disable=memory",
    "cgroup.memory=nokmem",
    "mce=off",
    "numa=off",
    "acpi_no_memhotplug",
    "transparent_hugepage=never",
    "panic=10",
    "novmcoredd",
];

/// Parameters of the production system that would hurt or mean nothing in the capture kernel.
const DROPPED: [&str; 49] = [
    "kdump_rs.record",
    "BOOT_IMAGE",
    "initrd",
    "crashkernel",
    "elfcorehdr",
    "root",
    "rootfstype",
    "rootflags",
    "rootdelay",
    "rootwait",
    "ro",
    "rw",
    "resume",
    "resume_offset",
    "init",
    "rdinit",
    "quiet",
    "splash",
    "mem",
    "memmap",
    "hugepages",
    "hugepagesz",
    "default_hugepagesz",
    "hugetlb_cma",
    "cma",
    "kvm_cma_resv_ratio",
    "kernelcore",
    "movablecore",
    "movable_node",
    "isolcpus",
    "nohz_full",
    "rcu_nocbs",
    "swiotlb",
    "log_buf_len",
    "trace_buf_size",
    "oops",
    "crash_kexec_post_notifiers",
    // Would leave kdump-init out, or wait for a debugger.
    "noinitrd",
    "kgdbwait",
    "kgdboc",
    // Take memory or time that there is little of.
    "reserve_mem",
    "memtest",
    "dhash_entries",
    "ihash_entries",
    "thash_entries",
    "page_owner",
    "slub_debug",
    "slab_debug",
    "debug_pagealloc",
];

/// Prefixes of such parameters: most are for user space, `sysctl.` sets what fits another machine size.
const DROPPED_PREFIXES: [&str; 7] = ["rd.", "systemd.", "luks.", "ds=", "cloud-init", "sysctl.", "sysctl/"];

/// A command line that does not fit the image.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the capture kernel's command line has {len} bytes, the image takes {max}: shorten --append. It is: {text}"
)]
pub struct TooLong {
    /// Its length, without NUL.
    pub len: usize,
    /// `cmdline_size` of the image.
    pub max: usize,
    /// The command line.
    pub text: String,
}

/// What goes onto the command line besides the running kernel's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Additions<'a> {
    /// Where elfcorehdr is; none where the kernel puts that word before ours itself.
    pub elfcorehdr: Option<PhysAddr>,
    /// Where the panic record is: in elfcorehdr too, unless the kernel has rewritten that.
    pub record: Option<PhysAddr>,
    /// APIC ID of the boot CPU, which a capture kernel on several CPUs must leave alone.
    pub boot_apic_id: Option<u32>,
    /// The user's words, last and therefore strongest.
    pub append: &'a str,
    /// These words are all: nothing of the running kernel's, nothing of ours.
    pub is_all: bool,
}

/// Builds the command line, without NUL.
///
/// # Errors
/// [`TooLong`]: the kernel would cut it silently.
pub fn build(running: &str, additions: &Additions<'_>, max: usize) -> Result<String, TooLong> {
    let appended = split_words(additions.append);
    let is_appended = |word: &str| appended.iter().any(|a| name(a) == name(word));

    // First, so that no cut loses it.
    let mut words = Vec::new();
    words.extend(additions.elfcorehdr.map(|at| format!("elfcorehdr={at:#x}")));
    words.extend(additions.record.map(|at| format!("{RECORD_PARAMETER}={at:#x}")));
    if additions.is_all {
        words.push(additions.append.trim().to_owned());
        return fits(words.join(" "), max);
    }
    // What follows " -- " is for init.
    let kernel_words = split_words(running).into_iter().take_while(|w| *w != "--");
    let defaults = |word: &str| DEFAULTS.iter().any(|d| name(d) == name(word));
    words.extend(
        kernel_words
            .filter(|w| !is_dropped(w) && !defaults(w))
            // Several consoles may be wanted; of everything else the user's word replaces ours.
            .filter(|w| name(w) == "console" || !is_appended(w))
            .map(str::to_owned),
    );
    words.extend(DEFAULTS.iter().filter(|w| !is_appended(w)).map(|&w| w.to_owned()));
    if let Some(id) = additions.boot_apic_id
        && !is_appended("disable_cpu_apicid")
    {
        words.push(format!("disable_cpu_apicid={id}"));
    }
    words.extend(appended.iter().map(|&w| w.to_owned()));

    fits(words.join(" "), max)
}

fn fits(text: String, max: usize) -> Result<String, TooLong> {
    if text.len() > max { Err(TooLong { len: text.len(), max, text }) } else { Ok(text) }
}

/// The running kernel's command line for a kernel that takes its place: without what a boot loader added, and without
/// `dropped`.
#[must_use]
pub fn reuse(running: &str, dropped: &[&str]) -> String {
    let is_kept = |word: &&str| {
        !["BOOT_IMAGE", "initrd"].contains(&name(word).as_str()) && !dropped.contains(&name(word).as_str())
    };
    split_words(running).into_iter().filter(is_kept).collect::<Vec<_>>().join(" ")
}

/// The values of a parameter, in order.
#[must_use]
pub fn values<'a>(cmdline: &'a str, parameter: &str) -> Vec<&'a str> {
    let value = |word: &'a str| word.strip_prefix(parameter)?.strip_prefix('=');
    split_words(cmdline).into_iter().filter_map(value).collect()
}

fn is_dropped(word: &str) -> bool {
    let plain = word.trim_matches('"');
    DROPPED.contains(&name(word).as_str()) || DROPPED_PREFIXES.iter().any(|p| plain.starts_with(p))
}

/// The part before `=`, with `-` as `_`: the kernel takes the two for equal in names.
fn name(word: &str) -> String {
    word.trim_matches('"').split('=').next().unwrap_or(word).replace('-', "_")
}

fn split_words(text: &str) -> Vec<&str> {
    let mut in_quotes = false;
    text.split(move |c: char| {
        if c == '"' {
            in_quotes = !in_quotes;
        }
        c.is_ascii_whitespace() && !in_quotes
    })
    .filter(|w| !w.is_empty())
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_line_is_without_the_boot_loaders_words() {
        let running =
            "BOOT_IMAGE=/vmlinuz initrd=\\x.img root=UUID=1 ro dyndbg=\"file a.c +p\" crashkernel=256M quiet";
        assert_eq!(reuse(running, &[]), "root=UUID=1 ro dyndbg=\"file a.c +p\" crashkernel=256M quiet");
        assert_eq!(reuse(running, &["crashkernel"]), "root=UUID=1 ro dyndbg=\"file a.c +p\" quiet");
    }

    fn additions(append: &str) -> Additions<'_> {
        Additions {
            elfcorehdr: Some(PhysAddr(0x17f0_0000)),
            record: Some(PhysAddr(0x17ef_f000)),
            boot_apic_id: Some(0),
            append,
            is_all: false,
        }
    }

    #[test]
    fn consoles_stay_and_the_root_goes() {
        let running = "kdump-rs.record=0x1000 BOOT_IMAGE=/vmlinuz root=UUID=1 ro quiet console=tty0 console=ttyS0,115200n8 \
                       crashkernel=256M,high crashkernel=64M,low pci=nomsi mem=4G rd.luks.uuid=3 nr_cpus=8 -- x=y";
        let text = build(running, &additions(""), 2047).unwrap();
        assert!(
            text.starts_with("elfcorehdr=0x17f00000 kdump-rs.record=0x17eff000 console=tty0 console=ttyS0,115200n8 pci=nomsi nr_cpus=1")
        );
        for gone in ["0x1000", "root=", "quiet", "crashkernel", "mem=4G", "luks", "nr_cpus=8", "x=y", " ro "]
        {
            assert!(!text.contains(gone), "{gone} in {text}");
        }
        assert!(text.ends_with("disable_cpu_apicid=0"));
        assert_eq!(values(running, "console"), ["tty0", "ttyS0,115200n8"]);
    }

    #[test]
    fn the_users_words_replace_ours() {
        let text = build("pci=nomsi", &additions("nr_cpus=4 pci=off"), 2047).unwrap();
        assert!(!text.contains("nr_cpus=1") && !text.contains("nomsi"), "{text}");
        assert!(text.ends_with("nr_cpus=4 pci=off"), "{text}");
    }

    #[test]
    fn what_takes_memory_or_waits_for_a_person_goes() {
        let gone = "noinitrd kgdbwait kgdboc=ttyS0 reserve_mem=12M:4096:trace memtest=4 dhash_entries=1 \
                    ihash_entries=1 thash_entries=1 page_owner=on slub_debug=FZ slab-debug debug_pagealloc=on \
                    sysctl.vm.min_free_kbytes=900000 \"sysctl.kernel.core_pattern=|/x y\"";
        let text = build(gone, &additions("sysctl.kernel.printk=7"), 2047).unwrap();
        for word in split_words(gone) {
            assert!(!text.contains(word), "{word} in {text}");
        }
        assert!(text.ends_with(" sysctl.kernel.printk=7"), "{text}");
    }

    #[test]
    fn quoted_words_stay_whole() {
        let text =
            build("dyndbg=\"file a.c +p\" root=\"LABEL=a b\" console=ttyS0", &additions(""), 2047).unwrap();
        assert!(text.contains("dyndbg=\"file a.c +p\" console=ttyS0"), "{text}");
        assert!(!text.contains("LABEL"), "{text}");
    }

    #[test]
    fn a_line_the_kernel_would_cut_is_refused() {
        let error = build("", &additions(&"x".repeat(300)), 255).unwrap_err();
        assert_eq!(error.max, 255);
        assert!(error.len > 300);
    }
}
