//! `status`: what the kernel has loaded, what the state file says of it, and whether it still fits.

use std::io::{self, Write as _};
use std::path::Path;

use kdump_loader::arm::Call;
use kdump_loader::machine;
use kdump_loader::plan::size_text;
use kdump_loader::rehearsed::{REHEARSED_PATH, Rehearsed};
use kdump_loader::state::{self, State};
use serde::Serialize;
use serde_json::json;

use super::arm::{ladder_lines, panic_test_text};
use crate::exit::Exit;

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "The kernel tells whether an image is loaded, not which or who loaded it. What was armed is read \
from /run/kdump-rs/armed.json, which another program that loads an image since leaves as it is.

Exit code: 0 armed, 1 not armed or no longer fitting its files, 2 failed."
)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs it: 0 if a capture kernel is loaded and its files are what they were, 1 if not.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let root = Path::new("/");
    let loaded = machine::is_crash_loaded(root);
    let is_armed = loaded == Some(true);
    let state = match State::read(root) {
        // A state of something that is not loaded any more says nothing.
        Ok(state) => state.filter(|_| is_armed).filter(|state| {
            let is_ours = is_of_this_boot(&state.boot_id, machine::boot_id(root).as_deref());
            if !is_ours {
                eprintln!(
                    "kdump-rs: {} is of another boot, and tells nothing about this one",
                    state::STATE_PATH
                );
            }
            is_ours
        }),
        Err(error) => {
            eprintln!("kdump-rs: {} cannot be used: {error}", state::STATE_PATH);
            None
        }
    };
    let changes = state.as_ref().map(State::changes).unwrap_or_default();
    let rehearsed = Rehearsed::read(root).unwrap_or_else(|error| {
        eprintln!("kdump-rs: {REHEARSED_PATH} cannot be used: {error}");
        None
    });
    let hotplug = Hotplug::read(root);
    let text = if args.json {
        let report = json!({
            "is_armed": is_armed,
            "has_crash_kexec": loaded.is_some(),
            "age_s": state.as_ref().map(|s| state::now().saturating_sub(s.armed_at)),
            "changes": changes,
            "rehearsed": rehearsed,
            "hotplug": hotplug,
            "load": state,
        });
        serde_json::to_string_pretty(&report)?
    } else {
        match (loaded, &state) {
            (None, _) => {
                "not armed: this kernel has no crash kexec (no /sys/kernel/kexec_crash_loaded)".to_owned()
            }
            (Some(false), _) => "not armed: no capture kernel is loaded".to_owned(),
            (Some(true), None) => {
                "armed, but not by this program in this boot: a capture kernel is loaded".to_owned()
            }
            (Some(true), Some(state)) => {
                let release = rustix::system::uname().release().to_string_lossy().into_owned();
                let more = [hotplug.text(), rehearsed_text(rehearsed.as_ref(), &release)];
                describe(state, &more, &changes)
            }
        }
    };
    writeln!(io::stdout(), "{text}")?;
    Ok(if is_armed && changes.is_empty() { Exit::Complete } else { Exit::Gaps })
}

/// Whether the kernel keeps a loaded elfcorehdr up to date; `None` where it does not tell.
#[derive(Serialize)]
struct Hotplug {
    cpus: Option<bool>,
    memory: Option<bool>,
}

impl Hotplug {
    fn read(root: &Path) -> Self {
        let [cpus, memory] = machine::crash_hotplug(root);
        Self { cpus, memory }
    }

    fn text(&self) -> String {
        // With a file for one kind, none for the other means that the other cannot change at all.
        let text = match (self.cpus, self.memory) {
            (Some(true), Some(true) | None) | (None, Some(true)) => "the kernel keeps elfcorehdr up to date",
            (Some(true), Some(false)) => {
                "the kernel keeps elfcorehdr up to date for CPUs: arm again when memory changes"
            }
            (Some(false), Some(true)) => {
                "the kernel keeps elfcorehdr up to date for memory: arm again when CPUs change"
            }
            _ => "arm again when CPUs or memory change",
        };
        format!("hotplug    {text}")
    }
}

fn rehearsed_text(rehearsed: Option<&Rehearsed>, release: &str) -> String {
    let Some(last) = rehearsed else { return "rehearsed  never on this machine".to_owned() };
    let other = if last.release == release { String::new() } else { format!(" with {}", last.release) };
    let age = age_text(state::now().saturating_sub(last.at));
    let failed = match last.failed.as_slice() {
        [] => String::new(),
        failed => format!("; failed {}", failed.join(" ")),
    };
    format!("rehearsed  {age}{other}: passed {}{failed}", last.passed.join(" "))
}

/// A loaded image does not outlive its boot; a file in /run might, where /run is no tmpfs or was copied.
fn is_of_this_boot(armed_in: &str, boot_id: Option<&str>) -> bool {
    // Without /proc, on either side, nothing can be said.
    armed_in.is_empty() || boot_id.is_none_or(|id| id == armed_in)
}

fn describe(state: &State, more: &[String], changes: &[String]) -> String {
    let kernel = state.kernel_version.as_deref().and_then(|v| v.split_whitespace().next());
    let mut lines = vec![
        format!("armed {}", age_text(state::now().saturating_sub(state.armed_at))),
        format!("  kernel     {} ({})", kernel.unwrap_or("unknown"), state.kernel.path.display()),
        format!("  initramfs  {}, {} modules", size_text(state.initramfs_bytes), state.modules.len()),
    ];
    if let Some(init) = &state.init {
        lines.insert(2, format!("  init       {}", init.path.display()));
    }
    if !state.targets.is_empty() {
        lines.extend(ladder_lines(&state.targets).iter().map(|line| format!("  {line}")));
        let (level, format, compression, end) = (state.level, &state.format, &state.compression, &state.end);
        lines.push(format!("  dump       level {level}, {format}, {compression}, then {end}"));
    }
    lines.push(format!("  loaded by  {}", state.via));
    if state.via == Call::KexecLoad.name() {
        lines.push(format!("  console    {}", state.console));
    }
    if !state.parity.is_empty() {
        lines.push(format!("  parity     {}", state.parity));
    }
    lines.extend(more.iter().map(|line| format!("  {line}")));
    if let Some(kind) = &state.panic_test {
        lines.push(format!("  WARNING    {}", panic_test_text(kind)));
    }
    lines.extend(changes.iter().map(|change| format!("  changed    {change}: arm again")));
    lines.join("\n")
}

fn age_text(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rehearsal_is_told_with_its_kernel_and_its_failures() {
        let last = Rehearsed {
            at: state::now() - 3 * 86_400,
            release: "6.1".into(),
            kernel: "/boot/vmlinuz".into(),
            passed: vec!["sysrq".into(), "bug".into()],
            failed: vec!["nmi".into()],
            version: "0.1.0".into(),
        };
        let text = rehearsed_text(Some(&last), "6.12");
        assert_eq!(text, "rehearsed  3 days ago with 6.1: passed sysrq bug; failed nmi");
        let text = rehearsed_text(Some(&Rehearsed { failed: vec![], ..last }), "6.1");
        assert_eq!(text, "rehearsed  3 days ago: passed sysrq bug");
        assert_eq!(rehearsed_text(None, "6.1"), "rehearsed  never on this machine");
    }

    #[test]
    fn who_keeps_elfcorehdr_up_to_date_is_told() {
        let text = |cpus, memory| Hotplug { cpus, memory }.text();
        assert_eq!(text(Some(true), Some(true)), "hotplug    the kernel keeps elfcorehdr up to date");
        assert_eq!(text(Some(true), None), "hotplug    the kernel keeps elfcorehdr up to date");
        assert!(text(Some(true), Some(false)).ends_with("arm again when memory changes"));
        assert_eq!(text(None, None), "hotplug    arm again when CPUs or memory change");
    }

    #[test]
    fn a_state_of_another_boot_is_told_from_ours() {
        assert!(is_of_this_boot("b4bb3a2f", Some("b4bb3a2f")));
        assert!(!is_of_this_boot("b4bb3a2f", Some("3a2fb4bb")));
        assert!(is_of_this_boot("b4bb3a2f", None) && is_of_this_boot("", Some("b4bb3a2f")));
    }
}
