//! The virtual machine: its command line, and its process.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::Error;
use crate::accel::Accel;

/// The emulator.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// What is to be booted, and on what machine.
#[derive(Debug)]
pub struct Machine<'a> {
    /// How the CPU is provided.
    pub accel: Accel,
    /// `-cpu`; the accelerator's own choice when not given.
    pub cpu: Option<&'a str>,
    /// Number of CPUs.
    pub cpus: u32,
    /// RAM in bytes.
    pub memory: u64,
    /// bzImage.
    pub kernel: &'a Path,
    /// Initramfs.
    pub initramfs: &'a Path,
    /// Kernel command line.
    pub cmdline: &'a str,
    /// Raw disk, as virtio-blk.
    pub disk: &'a Path,
    /// Where COM1 goes.
    pub serial: &'a Path,
    /// A file to hold the RAM, and a pair of pipes (`.in`, `.out`) as COM2.
    pub held: Option<(&'a Path, &'a Path)>,
    /// More arguments.
    pub more: &'a [String],
}

impl Machine<'_> {
    /// The emulator's arguments.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        let mut push = |parts: &[&str]| args.extend(parts.iter().map(OsString::from));
        push(&["-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc"]);
        match self.accel {
            Accel::Kvm => push(&["-accel", "kvm", "-cpu", self.cpu.unwrap_or("host")]),
            // With cmpxchg16b emulated, a 6.12 guest died in its page allocator and another hung
            // early; the kernel uses it only where the CPU has it.
            Accel::Tcg => push(&["-accel", "tcg,thread=multi", "-cpu", self.cpu.unwrap_or("max,-cx16")]),
        }
        push(&["-smp", &self.cpus.to_string(), "-m", &format!("{}K", self.memory >> 10)]);
        push(&["-no-reboot", "-append", self.cmdline]);
        push(&["-device", "virtio-blk-pci,drive=crash"]);
        let with_path = |before: &str, path: &Path, after: &str| {
            let mut arg = OsString::from(before);
            arg.push(doubled_commas(path));
            arg.push(after);
            arg
        };
        args.push("-drive".into());
        // The disk need not outlive the host's power: no flush reaches the host's own disk.
        args.push(with_path("id=crash,if=none,format=raw,cache=unsafe,file=", self.disk, ""));
        args.push("-kernel".into());
        args.push(self.kernel.into());
        args.push("-initrd".into());
        args.push(self.initramfs.into());
        args.push("-chardev".into());
        args.push(with_path("file,id=com1,path=", self.serial, ""));
        args.push("-serial".into());
        args.push("chardev:com1".into());
        if let Some((memory, door)) = self.held {
            args.push("-chardev".into());
            args.push(with_path("pipe,id=com2,path=", door, ""));
            args.push("-serial".into());
            args.push("chardev:com2".into());
            args.push("-object".into());
            let size = format!("memory-backend-file,id=ram,share=on,size={}K,mem-path=", self.memory >> 10);
            args.push(with_path(&size, memory, ""));
            args.push("-machine".into());
            args.push("memory-backend=ram".into());
        }
        args.extend(self.more.iter().map(OsString::from));
        args
    }
}

/// QEMU splits options at commas; a doubled one stands for itself.
pub(crate) fn doubled_commas(path: &Path) -> OsString {
    match path.to_str() {
        Some(text) => text.replace(',', ",,").into(),
        None => path.into(),
    }
}

/// A running emulator; killed when dropped.
#[derive(Debug)]
pub struct Emulator {
    child: Child,
}

impl Emulator {
    /// Starts it, what it says itself going to the file `log`.
    ///
    /// # Errors
    /// [`Error::NoProgram`], [`Error::File`].
    pub fn start(arguments: &[OsString], log: &Path) -> Result<Self, Error> {
        let out = File::create(log).map_err(Error::file("create", log))?;
        let err = out.try_clone().map_err(Error::file("create", log))?;
        let child = Command::new(PROGRAM)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|source| Error::NoProgram { program: PROGRAM, package: "qemu-system-x86", source })?;
        Ok(Self { child })
    }

    /// Its exit status, when it has ended.
    ///
    /// # Errors
    /// What waitpid(2) says.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // Both fail only when it has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Follows a file that another process appends to, line by line.
#[derive(Debug)]
pub struct Tail {
    file: Option<File>,
    pending: Vec<u8>,
}

impl Tail {
    /// Begins at the start of `path`, which need not exist yet.
    #[must_use]
    pub fn new() -> Self {
        Self { file: None, pending: Vec::new() }
    }

    /// Gives the lines that were completed since the last call; with `all`, an unfinished last
    /// line too. Carriage returns go, and bytes that are no UTF-8 are replaced.
    ///
    /// # Errors
    /// What reading says; that the file does not exist yet is none.
    pub fn read_lines(&mut self, path: &Path, all: bool) -> io::Result<Vec<String>> {
        if self.file.is_none() {
            match File::open(path) {
                Ok(file) => self.file = Some(file),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
                Err(e) => return Err(e),
            }
        }
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut self.pending)?;
        }
        let mut lines = Vec::new();
        while let Some(end) = self.pending.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            lines.push(clean(&line));
        }
        if all && !self.pending.is_empty() {
            lines.push(clean(&std::mem::take(&mut self.pending)));
        }
        Ok(lines)
    }
}

impl Default for Tail {
    fn default() -> Self {
        Self::new()
    }
}

fn clean(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end_matches(['\r', '\n']).replace('\r', "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn arguments(accel: Accel, cpu: Option<&str>) -> Vec<String> {
        Machine {
            accel,
            cpu,
            cpus: 2,
            memory: 1 << 30,
            kernel: Path::new("/k/vmlinuz"),
            initramfs: Path::new("/o/initramfs"),
            cmdline: "console=ttyS0 -- rehearse-guest",
            disk: Path::new("/o,ut/disk.img"),
            serial: Path::new("/o/serial.log"),
            held: None,
            more: &[],
        }
        .arguments()
        .into_iter()
        .map(|a| a.into_string().unwrap())
        .collect()
    }

    fn has(args: &[String], pair: [&str; 2]) -> bool {
        args.windows(2).any(|w| w == pair)
    }

    #[test]
    fn emulated_cpus_have_no_cmpxchg16b() {
        let args = arguments(Accel::Tcg, None);
        assert!(has(&args, ["-cpu", "max,-cx16"]) && has(&args, ["-accel", "tcg,thread=multi"]));
        assert!(has(&arguments(Accel::Kvm, None), ["-cpu", "host"]));
        assert!(has(&arguments(Accel::Tcg, Some("qemu64")), ["-cpu", "qemu64"]));
    }

    #[test]
    fn the_machine_is_as_planned() {
        let args = arguments(Accel::Tcg, None);
        assert!(has(&args, ["-m", "1048576K"]) && has(&args, ["-smp", "2"]));
        assert!(has(&args, ["-append", "console=ttyS0 -- rehearse-guest"]));
        assert!(args.contains(&"-no-reboot".to_owned()));
    }

    #[test]
    fn a_comma_in_a_path_is_not_an_option() {
        let args = arguments(Accel::Tcg, None);
        assert!(args.iter().any(|a| a.ends_with("file=/o,,ut/disk.img")), "{args:?}");
    }

    #[test]
    fn only_finished_lines_are_read_until_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serial");
        let mut tail = Tail::new();
        assert!(tail.read_lines(&path, false).unwrap().is_empty());
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\r\ntw").unwrap();
        assert_eq!(tail.read_lines(&path, false).unwrap(), ["one"]);
        file.write_all(b"o\n\xff").unwrap();
        assert_eq!(tail.read_lines(&path, false).unwrap(), ["two"]);
        assert_eq!(tail.read_lines(&path, true).unwrap(), ["\u{fffd}"]);
    }
}
