//! `status`: what the kernel has loaded, what the state file says of it, and whether it still fits.

use std::io::{self, Write as _};
use std::path::Path;

use kdump_loader::arm::Call;
use kdump_loader::machine;
use kdump_loader::plan::size_text;
use kdump_loader::state::{self, State};
use serde_json::json;

use super::arm::panic_test_text;
use crate::exit::Exit;

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "The kernel tells whether an image is loaded, not which or who loaded it. What was armed is read \
from /run/kdump-rs/armed.json, which another program that loads an image since leaves as it is."
)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs it: 0 if a capture kernel is loaded, 1 if not.
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
    let text = if args.json {
        let report = json!({
            "is_armed": is_armed,
            "has_crash_kexec": loaded.is_some(),
            "age_s": state.as_ref().map(|s| state::now().saturating_sub(s.armed_at)),
            "changes": changes,
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
            (Some(true), Some(state)) => describe(state, &changes),
        }
    };
    writeln!(io::stdout(), "{text}")?;
    Ok(if is_armed { Exit::Complete } else { Exit::Gaps })
}

/// A loaded image does not outlive its boot; a file in /run might, where /run is no tmpfs or was copied.
fn is_of_this_boot(armed_in: &str, boot_id: Option<&str>) -> bool {
    // Without /proc, on either side, nothing can be said.
    armed_in.is_empty() || boot_id.is_none_or(|id| id == armed_in)
}

fn describe(state: &State, changes: &[String]) -> String {
    let kernel = state.kernel_version.as_deref().and_then(|v| v.split_whitespace().next());
    let mut lines = vec![
        format!("armed {}", age_text(state::now().saturating_sub(state.armed_at))),
        format!("  kernel     {} ({})", kernel.unwrap_or("unknown"), state.kernel.path.display()),
        format!("  initramfs  {}, {} modules", size_text(state.initramfs_bytes), state.modules.len()),
    ];
    if let Some(init) = &state.init {
        lines.insert(2, format!("  init       {}", init.path.display()));
    }
    if let Some(target) = &state.target {
        let (directory, fstype, uuid) = (target.directory.display(), &target.fstype, &target.uuid);
        let (level, format, compression, end) = (state.level, &state.format, &state.compression, &state.end);
        lines.push(format!("  target     {directory} ({fstype}, UUID {uuid})"));
        lines.push(format!("  dump       level {level}, {format}, {compression}, then {end}"));
    }
    lines.push(format!("  loaded by  {}", state.via));
    if state.via == Call::KexecLoad.name() {
        lines.push(format!("  console    {}", state.console));
    }
    if !state.parity.is_empty() {
        lines.push(format!("  parity     {}", state.parity));
    }
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
    fn a_state_of_another_boot_is_told_from_ours() {
        assert!(is_of_this_boot("b4bb3a2f", Some("b4bb3a2f")));
        assert!(!is_of_this_boot("b4bb3a2f", Some("3a2fb4bb")));
        assert!(is_of_this_boot("b4bb3a2f", None) && is_of_this_boot("", Some("b4bb3a2f")));
    }
}
