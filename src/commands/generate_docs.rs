//! `generate-docs`: man pages and shell completions, from the types of the command line. `make package` runs it.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;

use crate::cli::Cli;
use crate::exit::Exit;

/// The section of the pages: commands for administrators.
const SECTION: &str = "8";

/// Arguments.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Directory to write to: `man/` and the completions
    dir: PathBuf,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let man = args.dir.join("man");
    fs::create_dir_all(&man).with_context(|| format!("{} cannot be made", man.display()))?;
    let mut command = shown(&Cli::command());
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command, "kdump-rs", &args.dir)
            .with_context(|| format!("completions for {shell} cannot be written"))?;
    }
    command.build();
    let commands = commands(&command);
    let names: Vec<_> = commands.iter().map(|command| name(command)).collect();
    for command in &commands {
        let path = man.join(format!("{}.{SECTION}", name(command)));
        page(command, &names)
            .and_then(|page| fs::write(&path, page))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(Exit::Complete)
}

/// Without hidden subcommands, which completions would name.
fn shown(command: &clap::Command) -> clap::Command {
    let mut new = clap::Command::new("kdump-rs")
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommands(command.get_subcommands().filter(|c| !c.is_hide_set()).map(without_help));
    if let Some(about) = command.get_about() {
        new = new.about(about.clone());
    }
    new
}

/// `help` has no page.
fn without_help(command: &clap::Command) -> clap::Command {
    command.clone().disable_help_subcommand(true)
}

/// A command and those below it that have a page.
fn commands(command: &clap::Command) -> Vec<&clap::Command> {
    let below = command.get_subcommands().filter(|c| !c.is_hide_set());
    std::iter::once(command).chain(below.flat_map(commands)).collect()
}

/// The page's name: `kdump-rs`, `kdump-rs-arm`, `kdump-rs-kexec-load`.
fn name(command: &clap::Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

/// One page: what clap knows, and what is common to all.
fn page(command: &clap::Command, names: &[&str]) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .section(SECTION)
        .source(concat!("kdump-rs ", env!("CARGO_PKG_VERSION")))
        .manual("kdump-rs");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    if command.get_after_help().is_some() || command.get_after_long_help().is_some() {
        man.render_extra_section(&mut page)?;
    }
    write!(page, ".SH \"EXIT STATUS\"\n0: complete. 1: answered with gaps, or nothing armed. 2: failed.\n")?;
    writeln!(page, ".SH FILES")?;
    for (file, what) in FILES {
        write!(page, ".TP\n{}\n{what}\n", file.replace('-', "\\-"))?;
    }
    let others = names.iter().filter(|other| **other != name(command));
    let others: Vec<_> =
        others.map(|other| format!("\\fB{}\\fR({SECTION})", other.replace('-', "\\-"))).collect();
    write!(page, ".SH \"SEE ALSO\"\n{}\n", others.join(", "))?;
    Ok(page)
}

/// What every page names.
const FILES: [(&str, &str); 4] = [
    ("/etc/kdump-rs/config.toml", "what the service arms with"),
    ("/usr/lib/kdump-rs/kdump-init", "first program of the capture kernel"),
    ("/run/kdump-rs/armed.json", "what is armed"),
    ("/var/crash", "dumps, unless configured otherwise"),
];
