//! Reading what an ordinary kexec is to load.

use std::path::{Path, PathBuf};

use crate::arm::Error;
use crate::arm::read_file;
use crate::bzimage::BzImage;
use crate::program::{self, Program};
use crate::vmlinux;

/// An image by its kind.
#[derive(Debug)]
pub enum Kernel {
    /// Linux: a bzImage or a vmlinux.
    Linux(BzImage),
    /// A static ELF executable or a Multiboot image.
    Program(Program),
}

/// Reads a file and recognises it.
///
/// # Errors
/// [`Error::File`], and for what is no image or a damaged one, what is wrong with it.
pub fn read(path: &Path) -> Result<Kernel, Error> {
    recognise(read_file("kernel image", path)?, path)
}

fn recognise(bytes: Vec<u8>, path: &Path) -> Result<Kernel, Error> {
    let path = || PathBuf::from(path);
    let is_elf = bytes.starts_with(b"\x7fELF");
    if !is_elf {
        // A Multiboot header may be in a file that is no ELF file.
        return match (BzImage::parse_any(bytes.as_slice()), Program::parse(&bytes)) {
            (Ok(image), _) => Ok(Kernel::Linux(image)),
            (Err(_), Ok(program)) => Ok(Kernel::Program(program)),
            (Err(source), Err(program::Error::Elf(_))) => Err(Error::Image { path: path(), source }),
            (Err(_), Err(source)) => Err(Error::Program { path: path(), source }),
        };
    }
    match vmlinux::parse(&bytes) {
        Ok(image) => return Ok(Kernel::Linux(image)),
        Err(vmlinux::Error::NoKernel | vmlinux::Error::Field { .. } | vmlinux::Error::Elf(_)) => {}
        Err(source) => return Err(Error::Vmlinux { path: path(), source }),
    }
    Program::parse(&bytes).map(Kernel::Program).map_err(|source| Error::Program { path: path(), source })
}
