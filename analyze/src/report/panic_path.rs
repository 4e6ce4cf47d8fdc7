//! The panic path as the report has it: what was checked, rebuilt and reported on the way to the capture kernel.

use std::fmt::Write as _;

use kdump_arch_x86::VirtAddr;
use kdump_vmcore::record::{EXCEPTION_WORDS, PanicRecord};
use serde::Serialize;

use super::{Section, fold::printable, hex};
use crate::panic_path::PanicPath;

/// What ran between the crashed kernel and the capture kernel.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PanicPathInfo {
    /// Whether the record's own digest is right.
    pub intact: bool,
    /// Whether the record was written right before the jump.
    pub complete: bool,
    /// APIC id of the CPU.
    pub apic_id: u32,
    /// What was to be done about damage: reset, boot or halt.
    pub policy: Option<&'static str>,
    /// Physical address of the program.
    pub image: String,
    /// The second copy of the program ran, because the first was damaged.
    pub from_copy: bool,
    /// The second copy of the handoff block was used.
    pub handoff_from_copy: bool,
    /// The capture kernel was entered in spite of damage.
    pub booted_damaged: bool,
    /// The program ran on page tables of its own.
    pub own_page_tables: bool,
    /// Console: none, 8250, 8250-mmio, vga.
    pub console: Option<&'static str>,
    /// What hashed: portable or sha-ni.
    pub sha256: &'static str,
    /// Physical address that was entered.
    pub entry: String,
    /// 64, or 32 for protected mode.
    pub entry_bits: u32,
    /// Pages moved or swapped before the jump.
    pub relocated_pages: u32,
    /// When it was entered, in seconds after boot, by the clock of the kernel's log.
    pub entered: Option<f64>,
    /// Milliseconds from the panic's message to the entry.
    pub after_message_ms: Option<f64>,
    /// Milliseconds from entry to jump.
    pub duration_ms: Option<f64>,
    /// Points that were reached.
    pub phases: Vec<PhaseInfo>,
    /// What was checked, in order.
    pub regions: Vec<RegionInfo>,
    /// Pages found damaged.
    pub damaged_pages: u32,
    /// Pages rebuilt.
    pub repaired_pages: u32,
    /// Physical addresses of the first pages rebuilt.
    pub repaired: Vec<String>,
    /// Exceptions that the program met.
    pub exceptions_seen: u32,
    /// The first of them.
    pub exceptions: Vec<ExceptionInfo>,
}

/// A point that was reached.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PhaseInfo {
    /// Its name.
    pub name: &'static str,
    /// Milliseconds from entry.
    pub ms: Option<f64>,
    /// Pages rebuilt, regions damaged, levels of the page tables: depends on the phase.
    pub detail: u32,
}

/// A region that was checked.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct RegionInfo {
    /// Its name.
    pub tag: String,
    /// Physical address.
    pub start: String,
    /// Bytes.
    pub bytes: u64,
    /// ok, damaged, repaired or unreadable.
    pub outcome: &'static str,
    /// Pages found damaged.
    pub damaged_pages: u32,
    /// Pages rebuilt.
    pub repaired_pages: u32,
}

/// An exception.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ExceptionInfo {
    /// Its number.
    pub vector: u64,
    /// Bytes from the program's start, where it happened in there.
    pub image_offset: Option<u64>,
    /// Registers and what else the CPU said, by name.
    pub registers: Vec<(&'static str, String)>,
}

/// More than the program takes in memory.
const IMAGE_SPAN: u64 = 128 << 10;

pub(super) fn section(
    found: Result<PanicPath, kdump_vmcore::record::Error>,
    message_ns: Option<u64>,
) -> Section<PanicPathInfo> {
    let path = match found {
        Ok(path) => path,
        Err(error) => return Section::absent(error),
    };
    let mut reasons = Vec::new();
    let entered_ns = path.entered_ns.map_err(|gap| reasons.push(format!("the time of entry: {gap}"))).ok();
    if !path.record.is_intact {
        reasons.push("the record's own digest is wrong: nothing of it is certain".into());
    }
    Section::of(info(&path.record, entered_ns, message_ns), reasons)
}

fn info(r: &PanicRecord, entered_ns: Option<u64>, message_ns: Option<u64>) -> PanicPathInfo {
    let address = |at: u64| hex(VirtAddr(at));
    let after = entered_ns.zip(message_ns).and_then(|(entered, message)| entered.checked_sub(message));
    PanicPathInfo {
        intact: r.is_intact,
        complete: r.is_complete,
        apic_id: r.apic_id,
        policy: ["reset", "boot", "halt"].get(r.policy as usize).copied(),
        image: address(r.image),
        from_copy: r.from_copy,
        handoff_from_copy: r.handoff_from_copy,
        booted_damaged: r.booted_damaged,
        own_page_tables: !r.old_page_tables,
        console: ["none", "8250", "8250-mmio", "vga"].get(r.console as usize).copied(),
        sha256: if r.sha_ni { "sha-ni" } else { "portable" },
        entry: address(r.entry),
        entry_bits: r.entry_bits,
        relocated_pages: r.relocated_pages,
        entered: entered_ns.map(|ns| ns as f64 / 1e9),
        after_message_ms: after.map(|ns| round(ns as f64 / 1e6)),
        duration_ms: r.tsc_of(7).and_then(|tsc| r.millis_since_entry(tsc)).map(round),
        phases: r
            .phases
            .iter()
            .map(|p| PhaseInfo {
                name: p.name(),
                ms: r.millis_since_entry(p.tsc).map(round),
                detail: p.detail,
            })
            .collect(),
        regions: r
            .regions
            .iter()
            .map(|region| RegionInfo {
                tag: region.tag.clone(),
                start: address(region.start),
                bytes: region.len,
                outcome: region.outcome(),
                damaged_pages: region.damaged_pages,
                repaired_pages: region.repaired_pages,
            })
            .collect(),
        damaged_pages: r.damaged_pages,
        repaired_pages: r.repaired_pages,
        repaired: r.repaired.iter().map(|&at| address(at)).collect(),
        exceptions_seen: r.nr_exceptions,
        exceptions: r.exceptions.iter().map(|words| exception(words, r.image)).collect(),
    }
}

fn exception(words: &[u64; EXCEPTION_WORDS.len()], image: u64) -> ExceptionInfo {
    let [vector, _, rip, ..] = *words;
    ExceptionInfo {
        vector,
        image_offset: rip.checked_sub(image).filter(|offset| *offset < IMAGE_SPAN),
        registers: EXCEPTION_WORDS
            .iter()
            .zip(words)
            .skip(1)
            .map(|(name, word)| (*name, hex(VirtAddr(*word))))
            .collect(),
    }
}

/// Microseconds are as fine as anybody needs.
fn round(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}

fn ms(value: Option<f64>) -> String {
    value.map_or_else(|| "at an unknown time".into(), |ms| format!("{ms:.1} ms"))
}

fn pages(nr: u32) -> String {
    if nr == 1 { "1 page".into() } else { format!("{nr} pages") }
}

impl PanicPathInfo {
    /// One sentence for the page: how it went.
    pub(super) fn summary(&self) -> String {
        let mut out = format!("{} regions", self.regions.len());
        let whole = self.regions.iter().filter(|r| matches!(r.outcome, "ok" | "repaired")).count();
        if whole == self.regions.len() {
            let _ = write!(out, " verified");
        } else {
            let _ = write!(out, ", {} DAMAGED", self.regions.len() - whole);
        }
        if let Some(ms) = self.duration_ms {
            let _ = write!(out, " in {ms:.0} ms");
        }
        let _ = match self.repaired_pages {
            0 => write!(out, ", nothing repaired"),
            nr => write!(out, ", {} repaired ({})", pages(nr), self.repaired_tags()),
        };
        if let Some(ms) = self.after_message_ms {
            let _ = write!(out, ", begun {ms:.0} ms after the message");
        }
        out
    }

    fn repaired_tags(&self) -> String {
        let tags: Vec<_> =
            self.regions.iter().filter(|r| r.repaired_pages > 0).map(|r| r.tag.as_str()).collect();
        tags.join(", ")
    }

    /// What a reader of the page must not miss.
    pub(super) fn alarms(&self) -> Vec<String> {
        let mut out = Vec::new();
        let mut alarm = |is_so: bool, text: &str| {
            if is_so {
                out.push(text.to_owned());
            }
        };
        alarm(self.booted_damaged, "the capture kernel was entered although it was damaged, by policy");
        alarm(self.from_copy, "the panic-path program was damaged; its second copy ran");
        alarm(self.handoff_from_copy, "the handoff block was damaged; its second copy was used");
        alarm(
            self.exceptions_seen > 0,
            "the panic-path program met exceptions: `analyze … panic-path` shows them",
        );
        out
    }

    /// The view: everything.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        let mut fact = |name: &str, value: String| {
            let _ = writeln!(out, "{name:<12}  {}", printable(&value));
        };
        fact(
            "record",
            format!(
                "{}, digest {}",
                if self.complete { "complete" } else { "not finished" },
                if self.intact { "right" } else { "WRONG" }
            ),
        );
        fact("CPU", format!("apic id {}", self.apic_id));
        fact(
            "program",
            format!("at {}{}", self.image, if self.from_copy { ", the second copy" } else { "" }),
        );
        fact("policy", self.policy.unwrap_or("unknown").into());
        fact("console", self.console.unwrap_or("unknown").into());
        fact("sha256", self.sha256.into());
        fact("page tables", if self.own_page_tables { "its own" } else { "the crashed kernel's" }.into());
        if self.handoff_from_copy {
            fact("handoff", "taken from the second copy".into());
        }
        fact(
            "entered",
            match (self.entered, self.after_message_ms) {
                (Some(at), Some(after)) => format!("[{at:12.6}], {after:.1} ms after the message"),
                (Some(at), None) => format!("[{at:12.6}]"),
                _ => "unknown on the kernel's clock".into(),
            },
        );
        fact(
            "jump",
            format!(
                "{} after entry, to {} in {}-bit mode",
                ms(self.duration_ms),
                self.entry,
                self.entry_bits
            ),
        );
        if self.relocated_pages > 0 {
            fact("moved", pages(self.relocated_pages));
        }
        if self.booted_damaged {
            fact("damaged", "entered all the same, by policy".into());
        }
        let _ = writeln!(out, "\n{:>12}  {:<12}  DETAIL", "MS", "PHASE");
        for p in &self.phases {
            let at = p.ms.map_or("-".into(), |ms| format!("{ms:.3}"));
            let _ = writeln!(out, "{at:>12}  {:<12}  {}", p.name, p.detail);
        }
        let _ = writeln!(out, "\n{:<18}  {:>10}  {:<12}  {:<10}  PAGES", "REGION", "BYTES", "NAME", "SHA256");
        for r in &self.regions {
            let pages = match r.damaged_pages {
                0 => String::new(),
                nr => format!("{nr} damaged, {} rebuilt", r.repaired_pages),
            };
            let line = format!(
                "{}  {:>10}  {:<12}  {:<10}  {pages}",
                r.start,
                r.bytes,
                printable(&r.tag),
                r.outcome
            );
            let _ = writeln!(out, "{}", line.trim_end());
        }
        for (i, page) in self.repaired.iter().enumerate() {
            let _ = write!(out, "{}{page}", if i == 0 { "\nrebuilt: " } else { ", " });
        }
        if !self.repaired.is_empty() {
            let more = self.repaired_pages as usize - self.repaired.len().min(self.repaired_pages as usize);
            let _ = writeln!(out, "{}", if more > 0 { format!(" and {more} more") } else { String::new() });
        }
        for e in &self.exceptions {
            let place = e.image_offset.map_or(String::new(), |o| format!(" at panic-kernel+{o:#x}"));
            let _ = writeln!(out, "\nexception {}{place}", e.vector);
            for row in e.registers.chunks(4) {
                let row: Vec<_> = row.iter().map(|(name, value)| format!("{name:>6} {value}")).collect();
                let _ = writeln!(out, "  {}", row.join(" "));
            }
        }
        out
    }
}
