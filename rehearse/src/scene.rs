//! What a rehearsal can be given beyond the usual: a certain CPU, patterns in memory, a pause between arming and
//! the crash in which the guest's memory can be damaged from outside.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The unusual circumstances; none by default.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// The guest's memory is a file, and the guest waits, armed, until [`Progress::held`](crate::Progress::held)
    /// returns.
    pub is_held: bool,
    /// No crash: `kdump-rs kexec load` with these arguments, and `kexec exec`.
    pub kexec: Vec<String>,
    /// How often the guest boots itself anew by an ordinary kexec before anything else.
    pub reboots: u32,
    /// Arguments of a second `arm`, which must fail and leave the guest armed.
    pub failing_arm: Vec<String>,
    /// A command that loads the capture kernel in place of `kdump-rs arm`.
    pub loader: Vec<String>,
    /// A command that loads another capture kernel once a held guest was let go; then it is held again.
    pub second_loader: Vec<String>,
    /// The guest calls EFI runtime services and says how many variables firmware has.
    pub is_efi: bool,
    /// A CPU that is taken offline and back after arming; newer kernels rewrite elfcorehdr for it.
    pub toggled_cpu: Option<u32>,
    /// Command lines of `kdump-rs` that are run once it is armed, their output on the console between two lines that
    /// [`answer`] finds.
    pub asked: Vec<String>,
    /// What the host adds while it holds the guest, through [`Held::monitor`].
    pub added: Added,
    /// Modules that it loads besides, for devices that [`Scene::qemu`] adds.
    pub modules: Vec<String>,
    /// Address of its network device, which [`Scene::qemu`] adds and a module drives.
    pub address: Option<Ipv4Addr>,
    /// Disks that are mounted before it is armed; they are attached by [`Scene::qemu`].
    pub mounts: Vec<Mount>,
    /// The CPU that the crash is asked for on.
    pub panic_cpu: Option<u32>,
    /// Bytes of anonymous memory that hold [pattern pages](pattern).
    pub pattern_bytes: u64,
    /// Files of this machine that fill the guest's memory.
    pub load: Option<Load>,
    /// A text on the console that ends the rehearsal with an error, a moment later: for guests that halt.
    pub stop_at: Option<String>,
    /// More for the production kernel's command line.
    pub cmdline: String,
    /// More arguments of QEMU.
    pub qemu: Vec<String>,
    /// More files, with the permissions that they have here: where in the guest, and where here.
    pub files: Vec<(String, PathBuf)>,
}

/// Memory in use as on a machine that has been up for a while: half page cache, a quarter tmpfs, a quarter anonymous,
/// filled with what files hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Load {
    /// A directory here, whose files are put on the guest's disk.
    pub files: PathBuf,
    /// Bytes of memory to fill.
    pub bytes: u64,
}

/// A file system that the guest mounts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// Its device in the guest.
    pub device: String,
    /// Its type.
    pub fstype: String,
    /// Where it is mounted.
    pub directory: String,
}

/// Devices that come to a running guest. It waits for them, puts them to use, and fills its patterns then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Added {
    /// CPUs.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Whether the guest is armed again, as the udev rule does it where the kernel does not keep elfcorehdr up to date.
    pub is_armed_again: bool,
}

/// The emulator's prompt.
const PROMPT: &str = "(qemu) ";

/// How long the emulator may take to answer; it is a matter of milliseconds.
const ANSWER: Duration = Duration::from_secs(20);

/// An armed guest that waits.
#[derive(Debug)]
pub struct Held<'a> {
    memory: &'a Path,
    monitor: &'a Path,
    /// What was staged in the crashkernel memory.
    pub staged: &'a [Staged],
}

/// Something staged for the capture kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Staged {
    /// Its name in the plan of `arm`.
    pub tag: String,
    /// Physical address.
    pub start: u64,
    /// Bytes that are not zero fill.
    pub len: u64,
}

impl<'a> Held<'a> {
    /// The guest whose memory is the file `memory`, and whose monitor listens at `monitor`.
    #[must_use]
    pub fn new(memory: &'a Path, monitor: &'a Path, staged: &'a [Staged]) -> Self {
        Self { memory, monitor, staged }
    }

    /// Gives a command to the emulator's monitor, and its answer.
    ///
    /// # Errors
    /// What the socket says, and what the monitor calls an error.
    pub fn monitor(&self, command: &str) -> io::Result<String> {
        tell_monitor(self.monitor, command)
    }

    /// What was staged under a name.
    #[must_use]
    pub fn staged(&self, tag: &str) -> Option<&Staged> {
        self.staged.iter().find(|staged| staged.tag == tag)
    }

    /// Reads the guest's physical memory. Guests of up to 3 GiB have all of it below 4 GiB, in one piece.
    ///
    /// # Errors
    /// What reading the file says.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> io::Result<()> {
        File::open(self.memory)?.read_exact_at(bytes, address)
    }

    /// Writes the guest's physical memory.
    ///
    /// # Errors
    /// What writing the file says.
    pub fn write(&self, address: u64, bytes: &[u8]) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.memory)?.write_all_at(bytes, address)
    }
}

/// What a command of [`Scene::asked`] printed, of the text of a console, and the code that it ended with.
#[must_use]
pub fn answer<'a>(console: &'a str, asked: &str) -> Option<(&'a str, i32)> {
    let (_, after) = console.split_once(&format!("asked: {asked}\n"))?;
    let (text, end) = after.split_once(ANSWERED)?;
    // The line of the kernel log that ends it begins before the mark.
    let text = text.rsplit_once('\n').map_or("", |(text, _)| text);
    Some((text, end.split_whitespace().next()?.parse().ok()?))
}

/// Before the code that a command ended with.
pub(crate) const ANSWERED: &str = "answered: ";

/// Gives a command to the monitor behind a socket, and its answer.
pub(crate) fn tell_monitor(socket: &Path, command: &str) -> io::Result<String> {
    let mut socket = UnixStream::connect(socket)?;
    socket.set_read_timeout(Some(ANSWER))?;
    until_prompt(&mut socket)?;
    socket.write_all(format!("{command}\n").as_bytes())?;
    let answer = until_prompt(&mut socket)?;
    if answer.contains("Error: ") { Err(io::Error::other(answer)) } else { Ok(answer) }
}

/// Reads from the monitor until it is ready for a command.
fn until_prompt(socket: &mut UnixStream) -> io::Result<String> {
    let mut text = Vec::new();
    while !text.ends_with(PROMPT.as_bytes()) {
        let mut byte = [0];
        socket.read_exact(&mut byte)?;
        text.extend(byte);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Lets a waiting guest go on.
pub(crate) fn release(door: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).open(door)?.write_all(b"go\n")
}

/// Bytes of a pattern page.
pub const PATTERN_PAGE: usize = 4096;

const PATTERN_MAGIC: &[u8; 16] = b"kdump-rs pattern";

/// Page `number` of the pattern: its magic and its number, all over.
#[must_use]
pub fn pattern(number: u64) -> [u8; PATTERN_PAGE] {
    let mut page = [0; PATTERN_PAGE];
    for (i, line) in page.chunks_exact_mut(32).enumerate() {
        line[..16].copy_from_slice(PATTERN_MAGIC);
        line[16..24].copy_from_slice(&number.to_le_bytes());
        line[24..].copy_from_slice(&(i as u64).to_le_bytes());
    }
    page
}

/// The number of a pattern page, if it is one, whole.
#[must_use]
pub fn pattern_number(page: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(*page.get(16..)?.first_chunk()?);
    (page == pattern(number)).then_some(number)
}

/// Reads `staged TAG START LENGTH`, as the guest says it.
pub(crate) fn read_staged(text: &str) -> Option<Staged> {
    let mut words = text.strip_prefix("staged ")?.split_whitespace();
    let tag = words.next()?.to_owned();
    let start = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
    Some(Staged { tag, start, len: words.next()?.parse().ok()? })
}

/// The files below a directory, as [`Scene::files`] takes them.
///
/// # Errors
/// What reading a directory says.
pub fn files_below(root: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if let Ok(name) = path.strip_prefix(root) {
                found.push((name.to_string_lossy().into_owned(), path.clone()));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_page_knows_itself_and_no_other() {
        let page = pattern(77);
        assert_eq!(pattern_number(&page), Some(77));
        for at in [0, 20, 31, 4095] {
            let mut other = page;
            other[at] ^= 1;
            assert_eq!(pattern_number(&other), None, "byte {at}");
        }
        assert_eq!(pattern_number(&[0; 4096]), None);
        assert_eq!(pattern_number(&page[..4000]), None);
    }

    #[test]
    fn an_answer_stands_between_its_marks() {
        let console = "[ 1.0] kdump-rs-rehearse: asked: doctor\npass  a\nWARN  b\n[ 1.1] kdump-rs-rehearse: answered: 1\n";
        assert_eq!(answer(console, "doctor"), Some(("pass  a\nWARN  b", 1)));
        assert_eq!(answer(console, "status"), None);
    }

    #[test]
    fn the_monitors_answer_ends_at_its_prompt() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"QEMU 7.2\r\n(qemu) device_add\r\nError: no\r\n(qemu) ").unwrap();
        assert_eq!(until_prompt(&mut ours).unwrap(), "QEMU 7.2\r\n(qemu) ");
        assert!(until_prompt(&mut ours).unwrap().contains("Error: no"));
        drop(theirs);
        assert!(until_prompt(&mut ours).is_err());
    }

    #[test]
    fn what_was_staged_is_read_from_the_console() {
        let staged = Staged { tag: "bzImage".to_owned(), start: 0x3220_0000, len: 11_716_544 };
        assert_eq!(read_staged("staged bzImage 0x0000000032200000 11716544"), Some(staged));
        assert_eq!(read_staged("staged bzImage 32200000 1"), None);
    }
}
