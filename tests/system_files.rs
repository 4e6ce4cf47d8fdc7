//! The files in `system/` agree with the program that they install.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use kdump_capture::remote::RemoteSettings;
use kdump_loader::config::{self, ArmConfig};

const CONFIG: &str = include_str!("../system/config.toml");

/// Every key is there, with a value that is taken; a key that the program learns must be explained here, too.
#[test]
fn the_configuration_file_names_every_key_and_sets_none() {
    assert_eq!(config::parse(CONFIG).unwrap(), ArmConfig::default());
    let uncommented: String = CONFIG
        .lines()
        // `#key = value`, where explanations are `# text`.
        .map(|line| line.strip_prefix('#').filter(|l| !l.starts_with(' ') && !l.is_empty()).unwrap_or(line))
        .map(|line| format!("{line}\n"))
        .collect();
    let all = config::parse(&uncommented).unwrap();
    let text = format!("{all:?}");
    assert!(!text.contains("None"), "a key is not in system/config.toml: {text}");
    let url = all.targets.iter().find(|target| !target.url.is_empty()).unwrap();
    let settings: RemoteSettings = url.remote.clone().try_into().unwrap();
    let text = format!("{settings:?}");
    assert!(!text.contains("None"), "a key is not in system/config.toml: {text}");
    let ladder = all.targets.iter().map(|target| target.wish().unwrap().place);
    assert_eq!(ladder.map(|place| std::mem::discriminant(&place)).collect::<HashSet<_>>().len(), 4);
}

/// What has a default in the help has the same in the file.
#[test]
fn the_configuration_file_shows_the_defaults() {
    let help = Command::new(env!("CARGO_BIN_EXE_kdump-rs")).args(["arm", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    // Options wrap: one line each.
    let help = help
        .split("\n      --")
        .map(|o| o.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>();
    let mut checked = 0;
    // Behind [arm] come sections whose keys are no options.
    for line in CONFIG.lines().take_while(|line| !line.starts_with("#[")) {
        let Some((key, value)) = line.strip_prefix('#').and_then(|line| line.split_once(" = ")) else {
            continue;
        };
        let option = key;
        let Some(text) = help.iter().find(|text| text.split([' ', '=']).next() == Some(option)) else {
            assert!(key.starts_with(' '), "{key} is no option of arm");
            continue;
        };
        // A default that is a value, not a description.
        let default =
            text.split_once("[default: ").and_then(|(_, rest)| rest.split_once(']')).map(|(word, _)| word);
        if let Some(default) = default.filter(|default| !default.contains(' ')) {
            assert_eq!(value.trim_matches('"'), default, "{key}");
            checked += 1;
        }
    }
    assert!(checked >= 9, "{checked} defaults were found in the help: {help:?}");
}

/// A page for each command that is not hidden, and completions that know its options.
#[test]
fn every_command_has_a_page_and_completions() {
    let dir = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_kdump-rs");
    assert!(Command::new(program).arg("generate-docs").arg(dir.path()).status().unwrap().success());
    let help = String::from_utf8(Command::new(program).arg("--help").output().unwrap().stdout).unwrap();
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    // `  NAME  TEXT`; a text that wraps goes on further in.
    let names = commands
        .lines()
        .take_while(|line| line.starts_with("  "))
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next());
    let names: Vec<_> = names.filter(|name| *name != "help").collect();
    assert!(names.contains(&"arm") && names.contains(&"analyze"), "{help}");
    let bash = fs::read_to_string(dir.path().join("kdump-rs.bash")).unwrap();
    for name in &names {
        let page = fs::read_to_string(dir.path().join(format!("man/kdump-rs-{name}.8"))).unwrap();
        assert!(
            page.starts_with(".ie") && page.contains(".SH NAME") && page.contains(".SH \"SEE ALSO\""),
            "{page}"
        );
        for shell in ["kdump-rs.bash", "_kdump-rs", "kdump-rs.fish"] {
            assert!(fs::read_to_string(dir.path().join(shell)).unwrap().contains(name), "{shell}: {name}");
        }
    }
    assert!(bash.contains("--on-corruption") && !bash.contains("rehearse-guest"));
    assert!(dir.path().join("man/kdump-rs-kexec-load.8").exists());
    assert!(!dir.path().join("man/kdump-rs-generate-docs.8").exists());
}

/// The package's paths and the programs' own are the same.
#[test]
fn units_and_hooks_call_what_is_installed() {
    let system = Path::new(env!("CARGO_MANIFEST_DIR")).join("system");
    let package = fs::read_to_string(system.join("../scripts/package.sh")).unwrap();
    for (file, named) in [
        ("systemd/kdump-rs.service", "usr/sbin/kdump-rs"),
        ("kernel/postinst.d", "usr/lib/kdump-rs/kernel-changed"),
        ("kernel/postrm.d", "usr/lib/kdump-rs/kernel-changed"),
        ("kernel/90-kdump-rs.install", "usr/lib/kdump-rs/kernel-changed"),
        ("config.toml", "usr/lib/kdump-rs/kdump-init"),
    ] {
        assert!(fs::read_to_string(system.join(file)).unwrap().contains(&format!("/{named}")), "{file}");
        assert!(package.contains(&format!(" {named}\n")), "{named}");
    }
    let rules = fs::read_to_string(system.join("udev/98-kdump-rs.rules")).unwrap();
    assert!(rules.contains(&format!("/{}", kdump_loader::state::STATE_PATH)));
}
