//! `--mem-usage`: how many pages of the running machine a dump would hold.
//!
//! Source: makedumpfile `print_mem_usage`.

use std::path::Path;

use anyhow::{Context as _, ensure};
use kdump_capture::classify::PageClass;
use kdump_capture::estimate::Estimate;
use kdump_capture::{DumpLevel, Options};

use super::message::Voice;
use crate::commands::capture::estimate::live;

/// Prints the table.
pub fn show(voice: Voice, core: &Path) -> anyhow::Result<()> {
    ensure!(
        core.file_name().is_some_and(|name| name == "kcore"),
        "{}: only the running machine's memory, /proc/kcore, can be asked for",
        core.display()
    );
    let estimate = live(&Options::default()).context("the running machine's pages cannot be counted")?;
    for trouble in &estimate.troubles {
        voice.debug(trouble);
    }
    voice.common(&text(&estimate));
    Ok(())
}

/// Every page is in one row: a zero-filled one in the first, whatever else it is.
fn text(estimate: &Estimate) -> String {
    let of = |classes: &[PageClass]| -> u64 {
        classes.iter().map(|class| estimate.found[*class as usize] - estimate.zero(*class)).sum()
    };
    let total: u64 = estimate.found.iter().sum();
    let kept = estimate.predict(DumpLevel::MAX.into());
    // Those that another row has anyway are not counted there.
    let zero: u64 = PageClass::ALL.into_iter().map(|class| estimate.zero(class)).sum();
    let rows = [
        ("ZERO\t", zero, "yes", "Pages filled with zero"),
        (
            "NON_PRI_CACHE",
            of(&[PageClass::Cache, PageClass::DirtyCache]),
            "yes",
            "Cache pages without private flag",
        ),
        (
            "PRI_CACHE",
            of(&[PageClass::CachePrivate, PageClass::DirtyCachePrivate]),
            "yes",
            "Cache pages with private flag",
        ),
        ("USER\t", of(&[PageClass::Anon, PageClass::Hugetlb]), "yes", "User process pages"),
        ("FREE\t", of(&[PageClass::Free, PageClass::Unaccepted]), "yes", "Free pages"),
        ("KERN_DATA", kept.pages - kept.zero, "no", "Dumpable kernel data "),
    ];
    let mut out = format!("\nTYPE\t\tPAGES\t\t\tEXCLUDABLE\tDESCRIPTION\n{}\n", "-".repeat(70));
    for (name, pages, excludable, what) in rows {
        out.push_str(&format!("{name}\t{pages:<16}\t{excludable}\t\t{what}\n"));
    }
    out + &format!(
        "\npage size:\t\t{:<16}\nTotal pages on system:\t{total:<16}\nTotal size on system:\t{:<16} Byte",
        4096,
        total * 4096
    )
}
