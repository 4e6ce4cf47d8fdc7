//! A guest that is armed as an administrator would, with a configuration file, and crashes.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use kdump_rehearse::{Error, Outcome, Plan, Scene};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::common::{self, KDUMP_RS, Quiet, Turn};

/// What a guest has besides its disk.
#[derive(Default)]
pub struct Armed {
    /// Its configuration file.
    pub config: String,
    /// Files beside that: name, text and mode.
    pub files: Vec<(&'static str, String, u32)>,
    /// Modules of the running kernel for them.
    pub modules: Vec<String>,
}

/// What became of it.
pub struct Crashed {
    /// Its console.
    pub console: String,
    /// The dump on its own disk, if there is one.
    pub outcome: Result<Outcome, Error>,
}

impl Armed {
    /// Lets it crash.
    pub fn crash(&self, name: &str, kernel: &str) -> Crashed {
        let turn = Turn::wait();
        let out = turn.directory(&format!("targets-{name}"));
        fs::create_dir_all(&out).unwrap();
        let config = ("config.toml", self.config.clone(), 0o600);
        let files = self.files.iter().chain([&config]).map(|(name, text, mode)| {
            let path = out.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
            (format!("etc/kdump-rs/{name}"), path)
        });
        let plan = Plan {
            scene: Scene {
                files: files.collect(),
                // Without the device's boot program, which comes in a package of its own.
                qemu: ["-netdev", "user,id=u0", "-device", "virtio-net-pci,netdev=u0,romfile="]
                    .map(str::to_owned)
                    .to_vec(),
                modules: [vec!["virtio_net".to_owned()], self.modules.clone()].concat(),
                address: Some(Ipv4Addr::new(10, 0, 2, 15)),
                asked: ["status", "doctor", "arm --explain"].map(str::to_owned).to_vec(),
                ..Scene::default()
            },
            ..Plan::new(common::kernel(kernel), common::programs(), out.clone())
        };
        let outcome = plan.run(&mut Quiet);
        Crashed { console: common::serial_of(&out), outcome }
    }
}

impl Crashed {
    /// What a command said in the guest.
    pub fn answer(&self, asked: &str) -> &str {
        let (text, _) = kdump_rehearse::scene::answer(&self.console, asked).unwrap();
        text
    }

    /// The directory of the last dump that was tried, as kdump-init has named it.
    pub fn directory(&self) -> &str {
        let (_, after) =
            self.console.rsplit_once("the dump goes to ").unwrap_or_else(|| panic!("{}", self.console));
        let last = after.lines().next().and_then(|line| line.split(' ').next_back());
        last.and_then(|path| path.split('/').next_back()).unwrap()
    }

    /// Check that the whole dump went to a server, and that no secret was told on the way.
    pub fn assert_sent(&self, secrets: &[&str]) {
        assert!(self.console.contains("wrote manifest.json"), "{}", self.console);
        assert!(self.console.contains("the network is up"), "{}", self.console);
        for secret in secrets {
            assert!(!self.console.contains(secret), "{secret} is on the console: {}", self.console);
        }
    }
}

/// Where a guest finds what listens on this machine.
pub fn seen_by_the_guest(address: SocketAddr) -> String {
    format!("10.0.2.2:{}", address.port())
}

/// Check that the manifest is that of the file, to the byte, and gives it.
pub fn assert_manifest(manifest: &Path, name: &str, dump: &Path) -> Value {
    let manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    assert_eq!((&manifest["file"], &manifest["complete"]), (&name.into(), &true.into()), "{manifest:#}");
    let bytes = fs::read(dump).unwrap();
    assert_eq!(manifest["bytes"], bytes.len(), "{manifest:#}");
    let mut at = 0;
    for piece in manifest["digests"].as_array().unwrap() {
        assert_eq!(piece["offset"], at);
        let end = at + piece["length"].as_u64().unwrap() as usize;
        let digest = Sha256::digest(&bytes[at..end]);
        let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(piece["sha256"], hex, "{at}");
        at = end;
    }
    assert_eq!(at, bytes.len());
    manifest
}

/// Check that the dump opens and tells of its crash; gives number and digest of its pages.
pub fn assert_opens(dump: &Path) -> String {
    // An older kernel's dump is one with gaps, which the exit code tells.
    let out = Command::new(KDUMP_RS).arg("analyze").arg(dump).output().unwrap();
    let analyzed = String::from_utf8_lossy(&out.stdout);
    assert!(matches!(out.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(analyzed.contains("sysrq triggered crash"), "{analyzed}");
    run(Command::new(KDUMP_RS).arg("capture").arg("--digest").arg(dump))
}

/// A command's output.
pub fn run(command: &mut Command) -> String {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Makes a key; gives its public half.
pub fn key(path: &Path) -> String {
    let out = Command::new("age-keygen").arg("-o").arg(path).output();
    let out = out.expect("age is missing: run scripts/setup-servers.sh");
    assert!(out.status.success());
    let text = fs::read_to_string(path).unwrap();
    text.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap().to_owned()
}

/// Opens a file by age(1).
pub fn open_by_age(key: &Path, sealed: &Path) -> PathBuf {
    let plain = sealed.with_extension("opened");
    run(Command::new("age").arg("-d").arg("-i").arg(key).arg("-o").arg(&plain).arg(sealed));
    plain
}
