//! Unified kernel images: a PE program that boots the kernel among its sections, with the initramfs and the command
//! line that are there too.
//!
//! Only the sections are looked at; the program before them (systemd-stub) is for firmware. Behind the first
//! `.profile` come the sections of the first profile, which take the place of those before; further profiles are for
//! boot menus.
//!
//! Source: Microsoft PE Format, "COFF File Header", "Section Table"; UAPI.5 Unified Kernel Image.

/// IMAGE_FILE_MACHINE_AMD64.
const MACHINE_X86_64: u16 = 0x8664;
/// Where a PE file says where its header is.
const E_LFANEW: usize = 0x3c;
const PE_MAGIC: &[u8; 4] = b"PE\0\0";
/// Bytes of the COFF file header.
const COFF_HEADER: usize = 20;
/// Bytes of a section header.
const SECTION_HEADER: usize = 40;

/// What is wrong with a PE file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// It ends inside a header.
    #[error("the PE file has {have} bytes, its {what} reaches to {need}: it is cut")]
    Truncated {
        /// Which header.
        what: &'static str,
        /// Where that ends.
        need: usize,
        /// Bytes in the file.
        have: usize,
    },
    /// A header field has another value.
    #[error("PE header field {field} is {value:#x}, not {expected:#x}: {problem}")]
    Field {
        /// Its name in the specification.
        field: &'static str,
        /// What it holds.
        value: u64,
        /// What it must hold.
        expected: u64,
        /// What that means.
        problem: &'static str,
    },
    /// A section's content lies beyond the end of the file.
    #[error(
        "section {name} has {size:#x} bytes at PointerToRawData {start:#x}, the file has {have:#x}: it is cut"
    )]
    Beyond {
        /// The section.
        name: &'static str,
        /// Its PointerToRawData.
        start: u32,
        /// Bytes of its content.
        size: u32,
        /// Bytes in the file.
        have: usize,
    },
    /// A PE file of another kind.
    #[error(
        "the PE file has no section .linux, so it is no unified kernel image, and no Linux boot header (HdrS at 0x202)"
    )]
    NoLinux,
    /// There can be one.
    #[error("the PE file has {count} sections {name} in its first profile, and only one can be meant")]
    Twice {
        /// The section.
        name: &'static str,
        /// How many there are.
        count: usize,
    },
    /// It is not text.
    #[error("section {name} is no UTF-8 text after its first {valid} bytes")]
    NoText {
        /// The section.
        name: &'static str,
        /// Bytes that are text.
        valid: usize,
    },
}

/// The sections that a loader is interested in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uki<'a> {
    /// `.linux`: the kernel, in any form that is recognised.
    pub linux: &'a [u8],
    /// `.initrd`.
    pub initrd: Option<&'a [u8]>,
    /// `.ucode`: microcode, an archive that comes before the initramfs.
    pub ucode: Option<&'a [u8]>,
    /// `.cmdline`.
    pub cmdline: Option<&'a str>,
    /// `.osrel`: the text of an os-release(5).
    pub osrel: Option<&'a str>,
    /// `.uname`: the kernel's release.
    pub uname: Option<&'a str>,
}

impl<'a> Uki<'a> {
    /// Whether a file is a PE program (or a DOS program, which no kernel is).
    #[must_use]
    pub fn is_pe(file: &[u8]) -> bool {
        file.starts_with(b"MZ")
    }

    /// Reads the sections of a PE file.
    ///
    /// # Errors
    /// [`Error`].
    pub fn parse(file: &'a [u8]) -> Result<Self, Error> {
        let sections = Sections::parse(file)?;
        let linux = sections.content(".linux")?.ok_or(Error::NoLinux)?;
        Ok(Self {
            linux,
            initrd: sections.content(".initrd")?,
            ucode: sections.content(".ucode")?,
            cmdline: sections.text(".cmdline")?,
            osrel: sections.text(".osrel")?,
            uname: sections.text(".uname")?,
        })
    }

    /// What the kernel gets as its initramfs, as systemd-stub puts it together; empty if there is none.
    #[must_use]
    pub fn initramfs(&self) -> Vec<u8> {
        let mut all = self.ucode.unwrap_or_default().to_vec();
        // An archive begins at a multiple of 4.
        all.resize(all.len().next_multiple_of(4), 0);
        all.extend_from_slice(self.initrd.unwrap_or_default());
        all
    }

    /// What the system in it calls itself.
    #[must_use]
    pub fn pretty_name(&self) -> Option<&'a str> {
        let value = self.osrel?.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
        Some(value.trim().trim_matches(['"', '\'']))
    }
}

/// The headers of the sections.
struct Sections<'a> {
    file: &'a [u8],
    headers: &'a [[u8; SECTION_HEADER]],
}

impl<'a> Sections<'a> {
    fn parse(file: &'a [u8]) -> Result<Self, Error> {
        let part = |what, start: usize, len: usize| {
            let need = start.saturating_add(len);
            file.get(start..need).ok_or(Error::Truncated { what, need, have: file.len() })
        };
        let check = |field, value: u64, expected: u64, problem| {
            if value == expected { Ok(()) } else { Err(Error::Field { field, value, expected, problem }) }
        };
        let lfanew = u32_at(part("DOS header", 0, E_LFANEW + 4)?, E_LFANEW) as usize;
        let magic = part("PE signature", lfanew, 4)?;
        let wanted = u32_at(PE_MAGIC, 0).into();
        check("Signature", u32_at(magic, 0).into(), wanted, "a DOS program, or a damaged e_lfanew")?;
        let at = lfanew + 4;
        let coff = part("COFF file header", at, COFF_HEADER)?;
        check("Machine", u16_at(coff, 0).into(), MACHINE_X86_64.into(), "not for x86-64")?;
        let (count, optional) = (usize::from(u16_at(coff, 2)), usize::from(u16_at(coff, 16)));
        let table = part("section table", at + COFF_HEADER + optional, count * SECTION_HEADER)?;
        Ok(Self { file, headers: table.as_chunks().0 })
    }

    /// The content of a section: of the first profile, else of what all profiles share.
    fn content(&self, name: &'static str) -> Result<Option<&'a [u8]>, Error> {
        let is = |header: &[u8; SECTION_HEADER], name: &str| {
            header[..8].strip_prefix(name.as_bytes()).is_some_and(|rest| rest.iter().all(|b| *b == 0))
        };
        let mut parts = self.headers.split(|header| is(header, ".profile"));
        let (shared, first) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        for part in [first, shared] {
            let mut found = part.iter().filter(|header| is(header, name));
            let Some(header) = found.next() else { continue };
            return match found.count() {
                0 => self.bytes(name, header).map(Some),
                more => Err(Error::Twice { name, count: more + 1 }),
            };
        }
        Ok(None)
    }

    fn bytes(&self, name: &'static str, header: &[u8]) -> Result<&'a [u8], Error> {
        let (virtual_size, raw_size, start) = (u32_at(header, 8), u32_at(header, 16), u32_at(header, 20));
        // In the file it is padded; some linkers leave the other one out.
        let size = if virtual_size == 0 { raw_size } else { virtual_size.min(raw_size) };
        let beyond = Error::Beyond { name, start, size, have: self.file.len() };
        let end = (start as usize).saturating_add(size as usize);
        self.file.get(start as usize..end).ok_or(beyond)
    }

    /// The same for text, without the NULs and line ends behind it.
    fn text(&self, name: &'static str) -> Result<Option<&'a str>, Error> {
        let Some(bytes) = self.content(name)? else { return Ok(None) };
        let text = std::str::from_utf8(bytes);
        let text = text.map_err(|error| Error::NoText { name, valid: error.valid_up_to() })?;
        Ok(Some(text.trim_matches(|c: char| c == '\0' || c.is_whitespace())))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A PE file with these sections, each at a multiple of 512 bytes.
    pub(crate) fn uki(sections: &[(&str, &[u8])]) -> Vec<u8> {
        const LFANEW: usize = 0x80;
        const OPTIONAL: usize = 240;
        let table = LFANEW + 4 + COFF_HEADER + OPTIONAL;
        let mut file = vec![0; (table + sections.len() * SECTION_HEADER).next_multiple_of(512)];
        file[..2].copy_from_slice(b"MZ");
        file[E_LFANEW] = LFANEW as u8;
        file[LFANEW..LFANEW + 4].copy_from_slice(PE_MAGIC);
        file[LFANEW + 4..LFANEW + 6].copy_from_slice(&MACHINE_X86_64.to_le_bytes());
        file[LFANEW + 6] = sections.len() as u8;
        file[LFANEW + 20] = OPTIONAL as u8;
        for (i, (name, content)) in sections.iter().enumerate() {
            let start = file.len() as u32;
            let header = &mut file[table + i * SECTION_HEADER..][..SECTION_HEADER];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[8..12].copy_from_slice(&(content.len() as u32).to_le_bytes());
            header[16..20].copy_from_slice(&(content.len().next_multiple_of(512) as u32).to_le_bytes());
            header[20..24].copy_from_slice(&start.to_le_bytes());
            file.extend_from_slice(content);
            file.resize(file.len().next_multiple_of(512), 0);
        }
        file
    }

    const SECTIONS: [(&str, &[u8]); 6] = [
        (".text", b"stub"),
        (".osrel", b"ID=debian\nPRETTY_NAME=\"Debian 13\"\n"),
        (".uname", b"6.12.1\0"),
        (".cmdline", b"root=/dev/vda quiet\n\0"),
        (".linux", b"kernel"),
        (".initrd", b"initrd"),
    ];

    #[test]
    fn the_sections_are_found_without_their_padding() {
        let file = uki(&SECTIONS);
        let uki = Uki::parse(&file).unwrap();
        assert_eq!((uki.linux, uki.initrd), (&b"kernel"[..], Some(&b"initrd"[..])));
        assert_eq!(uki.cmdline, Some("root=/dev/vda quiet"));
        assert_eq!((uki.uname, uki.pretty_name()), (Some("6.12.1"), Some("Debian 13")));
        assert_eq!(uki.initramfs(), b"initrd");
    }

    #[test]
    fn microcode_comes_before_the_initramfs() {
        let file = uki(&[(".linux", b"kernel"), (".initrd", b"initrd"), (".ucode", b"ucode")]);
        assert_eq!(Uki::parse(&file).unwrap().initramfs(), b"ucode\0\0\0initrd");
        assert_eq!(Uki::parse(&uki(&[(".linux", b"kernel")])).unwrap().initramfs(), b"");
    }

    #[test]
    fn of_several_profiles_the_first_counts() {
        let file = uki(&[
            (".linux", b"kernel"),
            (".cmdline", b"shared"),
            (".profile", b"ID=main"),
            (".cmdline", b"first"),
            (".profile", b"ID=rescue"),
            (".cmdline", b"second"),
            (".linux", b"other"),
        ]);
        let uki = Uki::parse(&file).unwrap();
        assert_eq!((uki.linux, uki.cmdline), (&b"kernel"[..], Some("first")));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_value() {
        let good = uki(&SECTIONS);
        let error = |edit: &dyn Fn(&mut Vec<u8>)| {
            let mut file = good.clone();
            edit(&mut file);
            Uki::parse(&file).unwrap_err().to_string()
        };
        let machine = error(&|file| file[0x84..0x86].copy_from_slice(&0xaa64u16.to_le_bytes()));
        assert_eq!(machine, "PE header field Machine is 0xaa64, not 0x8664: not for x86-64");
        assert!(error(&|file| file[0x80] = b'N').contains("Signature is 0x454e"));
        assert!(error(&|file| file[0x3d] = 0xff).contains("PE signature reaches to"));
        assert!(error(&|file| file.truncate(0x200)).contains("section table reaches to"));
        let cut = error(&|file| file.truncate(file.len() - 512));
        assert!(cut.starts_with("section .initrd has 0x6 bytes at PointerToRawData 0x"), "{cut}");
        let name = |bytes: &[u8], name: &str| bytes.windows(name.len()).position(|w| w == name.as_bytes());
        let none = error(&|file| {
            let at = name(file, ".linux").unwrap();
            file[at + 1] = b'L';
        });
        assert!(none.contains("no section .linux"), "{none}");
        let two = Uki::parse(&uki(&[(".linux", b"a"), (".linux", b"b")])).unwrap_err().to_string();
        assert!(two.contains("2 sections .linux"), "{two}");
        let text = Uki::parse(&uki(&[(".linux", b"a"), (".cmdline", b"ro \xff")])).unwrap_err();
        assert_eq!(text, Error::NoText { name: ".cmdline", valid: 3 });
    }

    /// Check that no cut and no changed byte of the headers makes the reader fail otherwise than by an error.
    #[test]
    fn hostile_files_are_refused_or_read() {
        let good = uki(&SECTIONS);
        for len in 0..good.len() {
            let _ = Uki::parse(&good[..len]);
        }
        for at in 0..0x400 {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut file = good.clone();
                file[at] = value;
                let _ = Uki::parse(&file);
            }
        }
    }
}
