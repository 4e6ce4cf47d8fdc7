//! Writing dumps, at one level after the other while the disk is full.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use kdump_arch_x86::VirtAddr;
use kdump_capture::{Error, Options, Output, OutputFormat, Plan, Summary, Wanted};
use kdump_vmcore::Dump;
use kdump_vmcore::notes::append_note;
use kdump_vmcore::vmcoreinfo::VmcoreInfo;

use super::message::{Copying, Voice};
use super::options::{Asked, To};
use super::{WrongRelease, explain, report};

/// Writes a dump of `from`.
pub fn create(asked: &Asked, from: &Path, to: &To) -> anyhow::Result<()> {
    let voice = asked.voice;
    let paths: Vec<&Path> = match to {
        To::Stdout => vec![],
        To::File(path) => vec![path],
        To::Split(paths) => paths.iter().map(PathBuf::as_path).collect(),
    };
    check_outputs(asked, &paths)?;
    let mut dump = open_memory(asked, from)?;
    dump.read_in_pieces();
    if let Some(virt) = asked.vtop {
        translate(voice, &dump, virt)?;
    }
    let outputs = Outputs::open(asked, to)?;
    for (nr, level) in asked.levels.iter().enumerate() {
        if nr > 0 {
            voice.common(&format!("Retry to create a dumpfile by dump_level({}).", level.bits()));
            outputs.empty()?;
        }
        let options = Options {
            wanted: Wanted { selection: (*level).into(), workers: asked.threads, ..Wanted::default() },
            format: if asked.is_elf { OutputFormat::Elf } else { OutputFormat::Kdump },
            compression: asked.compression,
            ..Options::default()
        };
        let written = match write_once(voice, &dump, &options, &outputs) {
            Ok(written) => written,
            Err(error) if outputs.can_try_again(&error) => {
                voice.error(&format!("Can't write the dump file({}). {error:#}", names(&paths)));
                continue;
            }
            Err(error) => return Err(error),
        };
        voice.report(&report::text(&dump, &written.0));
        written.check(voice)?;
        voice.common(&match to {
            To::Stdout => "\nThe dumpfile is saved to STDOUT.".to_owned(),
            To::File(path) => format!("\nThe dumpfile is saved to {}.", path.display()),
            To::Split(_) => format!("\nThe dumpfiles are saved to {}.", and(&paths)),
        });
        return Ok(());
    }
    voice.common("This is an incomplete dumpfile, but might analyzable.");
    bail!("{}: there is no room for the dump", names(&paths));
}

/// `a, b, and c`.
fn and(paths: &[&Path]) -> String {
    match paths {
        [first @ .., last] => format!("{}, and {}", names(first), last.display()),
        [] => String::new(),
    }
}

fn names(paths: &[&Path]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// A dump that was written.
pub struct Written(pub Summary);

impl Written {
    /// Says what it lacks.
    ///
    /// # Errors
    /// If pages could not be read. The file is there, and marked.
    pub fn check(&self, voice: Voice) -> anyhow::Result<()> {
        let Summary { census, nr_lost, lost, .. } = &self.0;
        for fact in &census.missing {
            voice.common(&format!("VMCOREINFO has no {}: {}", fact.fact, fact.effect));
        }
        for trouble in &census.troubles {
            voice.common(trouble);
        }
        if let Some((pfn, why)) = lost.first() {
            bail!(
                "{nr_lost} pages cannot be read, and are marked as lost in the dump; the first is {pfn:#x}: {why}"
            );
        }
        Ok(())
    }
}

/// Decides, and writes.
pub fn write_once(
    voice: Voice,
    dump: &Dump,
    options: &Options,
    outputs: &Outputs,
) -> anyhow::Result<Written> {
    let plan = Plan::new(dump, &options.wanted)?;
    voice.done("Checking for memory holes");
    voice.done("Excluding unnecessary pages");
    let mut copying = Copying::new(voice);
    let mut tell = |progress| copying.tell(progress);
    let summary = match outputs {
        Outputs::Stdout => {
            let mut out = io::BufWriter::with_capacity(1 << 20, io::stdout().lock());
            let summary = kdump_capture::write(plan, options, Output::Stream(&mut out), &mut tell)?;
            out.flush().map_err(|source| Error::Write { written: summary.bytes, source })?;
            summary
        }
        Outputs::One(file) => {
            let summary = kdump_capture::write(plan, options, Output::File(file), &mut tell)?;
            sync(file).map_err(|source| Error::Write { written: summary.bytes, source })?;
            summary
        }
        Outputs::Parts(files) => {
            let files: Vec<&File> = files.iter().collect();
            let summary = kdump_capture::write_split(plan, options, &files, &mut tell)?;
            files
                .iter()
                .try_for_each(|file| sync(file))
                .map_err(|source| Error::Write { written: summary.bytes, source })?;
            summary
        }
    };
    copying.done();
    Ok(Written(summary))
}

/// A disk that is full may say so only now.
fn sync(file: &File) -> io::Result<()> {
    match file.sync_all() {
        // A device that keeps nothing: /dev/null.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}

/// Open files.
pub enum Outputs {
    /// Standard output.
    Stdout,
    /// A file.
    One(File),
    /// The files of a split dump.
    Parts(Vec<File>),
}

impl Outputs {
    /// Creates them; those of a dry run keep nothing.
    pub fn open(asked: &Asked, to: &To) -> anyhow::Result<Self> {
        let open = |path: &PathBuf| match asked.is_dry {
            true => OpenOptions::new().read(true).write(true).open("/dev/null").context("/dev/null"),
            false => open_output(asked, path),
        };
        Ok(match to {
            To::Stdout if asked.is_dry => Self::One(open(&PathBuf::new())?),
            To::Stdout => Self::Stdout,
            To::File(path) => Self::One(open(path)?),
            To::Split(paths) => Self::Parts(paths.iter().map(open).collect::<anyhow::Result<_>>()?),
        })
    }

    fn files(&self) -> &[File] {
        match self {
            Self::Stdout => &[],
            Self::One(file) => std::slice::from_ref(file),
            Self::Parts(files) => files,
        }
    }

    /// Whether a smaller dump may do what failed: it did for lack of room, and what was written can be taken back.
    fn can_try_again(&self, error: &anyhow::Error) -> bool {
        let Some(Error::Write { source, .. }) = error.downcast_ref() else { return false };
        let is_full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        is_full && !matches!(self, Self::Stdout)
    }

    fn empty(&self) -> anyhow::Result<()> {
        for file in self.files() {
            file.set_len(0).context("the dump file cannot be emptied")?;
        }
        Ok(())
    }
}

/// Checks that nothing is overwritten that is not to be, before anything is done.
pub fn check_outputs(asked: &Asked, paths: &[&Path]) -> anyhow::Result<()> {
    for path in paths {
        if !asked.is_forced && path.symlink_metadata().is_ok() {
            bail!("Can't open the dump file ({}). File exists", path.display());
        }
    }
    Ok(())
}

/// Creates a file that only its owner reads.
pub fn open_output(asked: &Asked, path: &Path) -> anyhow::Result<File> {
    let mut how = OpenOptions::new();
    how.read(true).write(true).mode(0o600);
    if asked.is_forced {
        how.create(true).truncate(true)
    } else {
        how.create_new(true)
    };
    how.open(path).with_context(|| format!("Can't open the dump file({})", path.display()))
}

/// Opens the dump to read, with what it lacks.
pub fn open_memory(asked: &Asked, path: &Path) -> anyhow::Result<Dump> {
    let voice = asked.voice;
    let given = asked.vmcoreinfo.as_ref().map(|file| {
        let text = std::fs::read(file)
            .with_context(|| format!("Can't open the vmcoreinfo file({})", file.display()))?;
        Ok::<_, anyhow::Error>((file, text))
    });
    let given = given.transpose()?;
    if let Some(kernel) = &asked.vmlinux {
        File::open(kernel).with_context(|| format!("Can't open the kernel file({})", kernel.display()))?;
        explain(voice, "-x", "not needed: what it would say is read from the dump itself");
    }
    let mut dump =
        Dump::open(path).with_context(|| format!("Can't open the dump memory({})", path.display()))?;
    if let Some((file, text)) = given {
        check_release(&dump, &text)
            .map_err(|()| WrongRelease(format!("{} and {} don't match.", file.display(), path.display())))?;
        if dump.vmcoreinfo().is_some() {
            explain(voice, "-i", "not needed: the dump has its own");
        } else {
            let mut note = Vec::new();
            append_note(&mut note, "VMCOREINFO", 0, &text);
            dump.add_notes(&note);
        }
    }
    if dump.vmcoreinfo().is_none() && dump.find_vmcoreinfo() {
        explain(voice, "VMCOREINFO", "the dump has no such note; it was found in the dumped memory");
    }
    Ok(dump)
}

/// Whether a VMCOREINFO file is of the dump's kernel, as far as the dump says what that is.
fn check_release(dump: &Dump, text: &[u8]) -> Result<(), ()> {
    let given = VmcoreInfo::parse(text);
    let Some(release) = given.get("OSRELEASE") else { return Err(()) };
    let own = dump.vmcoreinfo().and_then(|info| info.get("OSRELEASE").map(str::to_owned));
    let own = own.or_else(|| dump.kdump().map(|kdump| kdump.info().release()));
    if own.is_none_or(|own| own == release) { Ok(()) } else { Err(()) }
}

/// `--vtop`.
fn translate(voice: Voice, dump: &Dump, virt: u64) -> anyhow::Result<()> {
    let phys = dump.kernel()?.translate(VirtAddr(virt))?;
    voice.common(&format!("\nTranslating virtual address {virt:x} to physical address."));
    voice.common(&format!("VIRTUAL           PHYSICAL\n{virt:16x}  {:x}\n", phys.0));
    Ok(())
}
