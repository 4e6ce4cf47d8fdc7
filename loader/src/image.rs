//! Recognising a kernel image in whatever form it comes: a bzImage, a vmlinux, another static ELF executable, a
//! Multiboot image; any of these compressed, or in a unified kernel image.
//!
//! What a file is, its magic numbers decide, never its name: docs/formats/kernel-images.md has the table.

pub mod packed;
pub mod uki;

use std::fmt;
use std::path::Path;

use kdump_arch_x86::bootparam::HEADER_MAGIC;

use crate::bzimage::{self, BzImage};
use crate::program::{self, Program};
use crate::vmlinux;
use packed::Packing;
use uki::Uki;

/// Files in files that are followed: a compressed UKI with a compressed kernel is two already.
const MAX_DEPTH: usize = 4;
/// Where a bzImage has "HdrS".
const HEADER_AT: usize = 0x202;

/// An image by its kind.
#[derive(Debug)]
pub enum Image {
    /// Linux: a bzImage or a vmlinux.
    Linux(BzImage),
    /// A static ELF executable or a Multiboot image.
    Program(Program),
}

/// What the image is for, which decides what is asked of a bzImage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To run in crashkernel memory, wherever that lies.
    Crash,
    /// An ordinary kexec.
    Normal,
}

/// A file that was recognised.
#[derive(Debug)]
pub struct Found {
    /// What it is.
    pub image: Image,
    /// What it was in, outermost first; empty where the file itself is the image.
    pub wrappings: Vec<Wrapping>,
    /// What came with the kernel in a UKI.
    pub bundle: Option<Bundle>,
}

/// What an image can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// A compressed file.
    Packed(Packing),
    /// A unified kernel image.
    Uki,
}

/// What a UKI has besides its kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    /// Its initramfs; empty for none.
    pub initramfs: Vec<u8>,
    /// Its command line.
    pub cmdline: Option<String>,
    /// What its system calls itself.
    pub system: Option<String>,
    /// Its kernel's release.
    pub uname: Option<String>,
}

/// What is wrong with an image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A compressed file.
    #[error(transparent)]
    Packed(#[from] packed::Error),
    /// A unified kernel image.
    #[error(transparent)]
    Uki(#[from] uki::Error),
    /// A bzImage.
    #[error(transparent)]
    BzImage(#[from] bzimage::Error),
    /// A vmlinux.
    #[error(transparent)]
    Vmlinux(#[from] vmlinux::Error),
    /// Another program.
    #[error(transparent)]
    Program(#[from] program::Error),
    /// Too many files in files.
    #[error("it is a file in a file in a file, {depth} deep")]
    TooDeep {
        /// How deep.
        depth: usize,
    },
    /// None of all these.
    #[error(
        "its first bytes are {first:02x?}, which begin no image that is known: bzImage, vmlinux, static ELF, Multiboot, \
         unified kernel image, or one of these compressed with gzip, xz, zstd or lz4"
    )]
    Unknown {
        /// Up to 8 bytes.
        first: Vec<u8>,
    },
}

/// Recognises a file.
///
/// # Errors
/// [`Error`].
pub fn recognise(file: Vec<u8>, purpose: Purpose) -> Result<Found, Error> {
    let (mut file, mut wrappings, mut bundle) = (file, Vec::new(), None);
    while wrappings.len() < MAX_DEPTH {
        if let Some(packing) = Packing::of(&file) {
            file = packing.unpack(&file)?;
            wrappings.push(Wrapping::Packed(packing));
        } else if Uki::is_pe(&file) && !has_boot_header(&file) {
            let uki = Uki::parse(&file)?;
            let text = |text: Option<&str>| text.map(str::to_owned);
            bundle.get_or_insert(Bundle {
                initramfs: uki.initramfs(),
                cmdline: text(uki.cmdline),
                system: text(uki.pretty_name()),
                uname: text(uki.uname),
            });
            file = uki.linux.to_vec();
            wrappings.push(Wrapping::Uki);
        } else {
            return Ok(Found { image: bare(file, purpose)?, wrappings, bundle });
        }
    }
    Err(Error::TooDeep { depth: wrappings.len() })
}

/// A bzImage for firmware is a PE file, too.
fn has_boot_header(file: &[u8]) -> bool {
    file.get(HEADER_AT..).is_some_and(|rest| rest.starts_with(&HEADER_MAGIC.to_le_bytes()))
}

/// An image that is in nothing else.
fn bare(file: Vec<u8>, purpose: Purpose) -> Result<Image, Error> {
    let parse = |file: Vec<u8>| match purpose {
        Purpose::Crash => BzImage::parse(file),
        Purpose::Normal => BzImage::parse_any(file),
    };
    if has_boot_header(&file) {
        return Ok(Image::Linux(parse(file)?));
    }
    if file.starts_with(b"\x7fELF") {
        match vmlinux::parse(&file) {
            Ok(image) => return Ok(Image::Linux(image)),
            // Another kind of ELF file.
            Err(vmlinux::Error::NoKernel | vmlinux::Error::Field { .. } | vmlinux::Error::Elf(_)) => {}
            Err(error) => return Err(error.into()),
        }
        return Ok(Image::Program(Program::parse(&file)?));
    }
    // A Multiboot header may be in a file that is no ELF file.
    match Program::parse(&file) {
        Ok(program) => Ok(Image::Program(program)),
        Err(program::Error::Elf(_)) => Err(Error::Unknown { first: file.get(..8).unwrap_or(&file).to_vec() }),
        Err(error) => Err(error.into()),
    }
}

/// The file's path for people, with what the image was in there: `/boot/system.efi (unified kernel image, zstd)`.
#[must_use]
pub fn origin(path: &Path, wrappings: &[Wrapping]) -> String {
    let wrappings: Vec<_> = wrappings.iter().map(ToString::to_string).collect();
    match wrappings.as_slice() {
        [] => path.display().to_string(),
        wrappings => format!("{} ({})", path.display(), wrappings.join(", ")),
    }
}

/// Digest of what would be loaded from a file, for `status`.
#[must_use]
pub fn sha256(file: Vec<u8>) -> Option<[u8; 32]> {
    Some(match recognise(file, Purpose::Crash).ok()?.image {
        Image::Linux(image) => image.kernel_sha256(),
        Image::Program(program) => vmlinux::stand_in(&program).kernel_sha256(),
    })
}

impl fmt::Display for Wrapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packed(packing) => packing.fmt(f),
            Self::Uki => f.write_str("unified kernel image"),
        }
    }
}

#[cfg(test)]
mod tests;
