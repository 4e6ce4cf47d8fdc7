//! Files of a receiver: `NAME.partial` while they grow, `NAME` when they are whole and on the disk.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};

use super::super::protocol::{ACK_EVERY, SESSION};
use super::{Owners, lock, nonsense};

/// In the directory of each dump: whose it is.
const SESSION_FILE: &str = ".session";
const BUFFER: usize = 256 << 10;

/// Which opening of a path's file was the last.
#[derive(Debug, Default)]
pub(super) struct Claims {
    openings: u64,
    last: HashMap<PathBuf, u64>,
}

impl Claims {
    fn open(&mut self, path: &Path) -> u64 {
        self.openings += 1;
        self.last.insert(path.to_owned(), self.openings);
        self.openings
    }
}

/// The directory for dumps.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    owners: Owners,
}

/// A whole file.
pub(super) struct Whole {
    pub length: u64,
    pub digest: Vec<u8>,
}

impl Store {
    pub fn open(dir: &Path) -> io::Result<Self> {
        let describe = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", dir.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(describe)?;
        let dir = dir.canonicalize().map_err(describe)?;
        Ok(Self { dir, owners: Arc::new(Mutex::new(Claims::default())) })
    }

    /// The directory that `path` is in, made if need be, if it is this session's.
    fn directory_for(&self, path: &str, session: &[u8; SESSION]) -> io::Result<PathBuf> {
        let (below, _) =
            path.rsplit_once('/').ok_or_else(|| nonsense("a dump has a directory of its own"))?;
        let mut dir = self.dir.clone();
        for part in below.split('/') {
            let parent = dir.clone();
            dir.push(part);
            match DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => sync_dir(&parent)?,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
        self.claim(&dir, below, session)?;
        Ok(dir)
    }

    /// Makes the directory this session's, unless it is another's.
    fn claim(&self, dir: &Path, below: &str, session: &[u8; SESSION]) -> io::Result<()> {
        let owner = dir.join(SESSION_FILE);
        let id: String = session.iter().map(|b| format!("{b:02x}")).collect();
        match std::fs::read_to_string(&owner) {
            Ok(other) if other == id => return Ok(()),
            // A receiver that lost its power as it wrote it leaves an empty one.
            Ok(other) if !other.is_empty() => return Err(not_yours(below)),
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            // Files that nobody of ours wrote are not given away.
            Err(_) if std::fs::read_dir(dir)?.next().is_some() => return Err(not_yours(below)),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&owner)?;
        file.write_all(id.as_bytes())?;
        file.sync_all()?;
        sync_dir(dir)
    }

    /// The file of that name, if it is whole.
    pub fn whole(&self, path: &str, session: &[u8; SESSION]) -> io::Result<Option<Whole>> {
        let whole = self.directory_for(path, session)?.join(file_name(path));
        match open_existing(&whole, false) {
            Ok(file) => {
                let length = file.metadata()?.len();
                let digest = digest_of(&file, length)?.finalize().to_vec();
                Ok(Some(Whole { length, digest }))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Opens a file that is to go on at `offset`; at 0 it begins anew.
    pub fn open_file(&self, path: &str, session: &[u8; SESSION], offset: u64) -> io::Result<Growing> {
        let whole = self.directory_for(path, session)?.join(file_name(path));
        let mut partial = whole.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let number = lock(&self.owners).open(&partial);
        let (file, digest) = if offset == 0 {
            match std::fs::remove_file(&partial) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let open = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&partial);
            (open?, Sha256::new())
        } else {
            let file = open_existing(&partial, true)
                .map_err(|e| nonsense(&format!("{path} cannot go on at {offset}: {e}")))?;
            let length = file.metadata()?.len();
            if length < offset {
                return Err(nonsense(&format!("{path} cannot go on at {offset}: there are {length} bytes")));
            }
            // What lies behind was never called durable.
            file.set_len(offset)?;
            let digest = digest_of(&file, offset)?;
            (file, digest)
        };
        let owners = self.owners.clone();
        Ok(Growing { file, partial, whole, digest, length: offset, durable: offset, number, owners })
    }
}

/// Brings a directory's entries to the disk.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn not_yours(below: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("the directory {below:?} is another dump's"))
}

fn file_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

fn open_existing(path: &Path, write: bool) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new().read(true).write(write).custom_flags(flags).open(path)
}

/// Digests the first `length` bytes of a file.
fn digest_of(file: &File, length: u64) -> io::Result<Sha256> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    let mut offset = 0;
    while offset < length {
        let want = usize::try_from(length - offset).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact_at(&mut buffer[..want], offset)?;
        digest.update(&buffer[..want]);
        offset += want as u64;
    }
    Ok(digest)
}

/// A file that grows.
pub(super) struct Growing {
    file: File,
    partial: PathBuf,
    whole: PathBuf,
    digest: Sha256,
    length: u64,
    durable: u64,
    /// Its owner's, as long as no other connection has opened the file.
    number: u64,
    owners: Owners,
}

impl Growing {
    /// Bytes so far.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Writes the bytes that follow; gives the offset up to which the file is durable, if that has moved.
    pub fn append(&mut self, offset: u64, bytes: &[u8]) -> io::Result<Option<u64>> {
        if offset != self.length {
            return Err(nonsense(&format!("data for {offset}, where {} is next", self.length)));
        }
        self.check_owner(&lock(&self.owners))?;
        // Should another connection open the file just now: a file that goes on gets the same bytes at this place from
        // it, and one that begins anew is another file.
        self.file.write_all_at(bytes, offset)?;
        self.digest.update(bytes);
        self.length += bytes.len() as u64;
        if self.length - self.durable < ACK_EVERY {
            return Ok(None);
        }
        self.file.sync_data()?;
        self.durable = self.length;
        Ok(Some(self.durable))
    }

    fn check_owner(&self, owners: &Claims) -> io::Result<()> {
        if owners.last.get(&self.partial) == Some(&self.number) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the file goes on by another connection"))
    }

    /// Brings the file to the disk, gives it its name, and brings that to the disk.
    pub fn commit(mut self, length: u64, digest: &[u8]) -> io::Result<u64> {
        if length != self.length {
            return Err(nonsense(&format!("the end at {length}, where {} bytes arrived", self.length)));
        }
        if std::mem::take(&mut self.digest).finalize().as_slice() != digest {
            return Err(nonsense("the file does not have the digest that the sender computed"));
        }
        self.file.sync_all()?;
        let mut owners = lock(&self.owners);
        self.check_owner(&owners)?;
        std::fs::rename(&self.partial, &self.whole)?;
        owners.last.remove(&self.partial);
        drop(owners);
        self.whole.parent().map_or(Ok(()), sync_dir)?;
        Ok(length)
    }
}
