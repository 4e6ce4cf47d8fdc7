//! Reading a bzImage: where its protected-mode part is, what it asks of its loader.
//!
//! [`BzImage::parse`] believes nothing: each field that a crash load depends on is checked, and an
//! error names field and value. Decompressing the kernel inside is not done here.
//!
//! Source: Documentation/arch/x86/boot.rst.

use std::sync::OnceLock;

use kdump_arch_x86::bootparam::{
    BOOT_FLAG, ENTRY_32_OFFSET, ENTRY_64_OFFSET, HEADER_MAGIC, LOADED_HIGH, SETUP_HEADER_OFFSET, SetupHeader,
    XLF_5LEVEL, XLF_CAN_BE_LOADED_ABOVE_4G, XLF_EFI_KEXEC, XLF_KERNEL_64,
};
use kdump_arch_x86::{PAGE_SIZE, PhysAddr};
use kdump_panic_kernel::sha256;
use zerocopy::{FromZeros as _, IntoBytes as _};

/// Boot protocol 2.12 (Linux 3.8): the first with `xloadflags`.
const MIN_VERSION: u16 = 0x020c;
/// Boot protocol 2.10 (Linux 2.6.31): the first with `init_size` and `pref_address`; for an ordinary kexec.
const MIN_VERSION_ANY: u16 = 0x020a;
const SECTOR: usize = 512;

/// Why an image cannot be loaded as a capture kernel.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The file ends inside its header.
    #[error("the image has {have} bytes, its header needs {need}: not a bzImage, or a cut one")]
    Truncated {
        /// Bytes in the file.
        have: usize,
        /// Bytes that the header reaches.
        need: usize,
    },
    /// An ELF file, where the compressed kernel is wanted.
    #[error(
        "this is an ELF file (a vmlinux?); the capture kernel must be a bzImage, usually /boot/vmlinuz-*"
    )]
    Elf,
    /// A PE file without the Linux boot header.
    #[error(
        "this is a PE file without a Linux boot header (a unified kernel image?): pass the vmlinuz inside it"
    )]
    Pe,
    /// A magic number is another one.
    #[error("header field {field} is {value:#x}, not {expected:#x}: not a bzImage")]
    Magic {
        /// The field's name in `struct setup_header`.
        field: &'static str,
        /// What it holds.
        value: u64,
        /// What it must hold.
        expected: u64,
    },
    /// A field's value rules out a 64-bit crash load.
    #[error("header field {field} is {value:#x}: {problem}")]
    Unsupported {
        /// The field's name in `struct setup_header`.
        field: &'static str,
        /// What it holds.
        value: u64,
        /// What is wrong with that.
        problem: &'static str,
    },
    /// The file is shorter than its header says.
    #[error("header field syssize says {need} bytes of kernel follow the setup code, the file has {have}")]
    KernelCut {
        /// Bytes behind the setup sectors.
        have: u64,
        /// syssize in bytes.
        need: u64,
    },
}

/// A checked bzImage.
#[derive(Clone)]
pub struct BzImage {
    /// As in the file, with all that is past the image's own header zeroed.
    header: SetupHeader,
    file: Vec<u8>,
    kernel_start: usize,
    version: Option<String>,
    sha256: OnceLock<[u8; 32]>,
    fixed: Option<Fixed>,
}

/// A kernel that is linked for one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// Where its first byte has to lie.
    pub start: PhysAddr,
    /// Its first instruction, entered by the 64-bit protocol.
    pub entry: PhysAddr,
}

impl BzImage {
    /// Parses a whole file, and keeps it. What it takes to run in crashkernel memory, wherever that lies, is
    /// asked for: a 64-bit entry, relocatable, above 4 GiB.
    ///
    /// # Errors
    /// [`Error`].
    pub fn parse(file: impl Into<Vec<u8>>) -> Result<Self, Error> {
        Self::parse_with(file.into(), true)
    }

    /// Parses a whole file for an ordinary kexec, which takes 32-bit kernels and such that are linked for one
    /// place too (memtest86+ is one).
    ///
    /// # Errors
    /// [`Error`].
    pub fn parse_any(file: impl Into<Vec<u8>>) -> Result<Self, Error> {
        Self::parse_with(file.into(), false)
    }

    fn parse_with(file: Vec<u8>, is_for_crash: bool) -> Result<Self, Error> {
        let bytes = file.as_slice();
        if bytes.starts_with(b"\x7fELF") {
            return Err(Error::Elf);
        }
        let need = SETUP_HEADER_OFFSET + size_of::<SetupHeader>();
        let raw = bytes.get(SETUP_HEADER_OFFSET..need).ok_or(Error::Truncated { have: bytes.len(), need })?;
        let header = own_header(raw);

        let magic = |field, value: u64, expected: u64| {
            if value == expected { Ok(()) } else { Err(Error::Magic { field, value, expected }) }
        };
        if bytes.starts_with(b"MZ") && header.header.get() != HEADER_MAGIC {
            return Err(Error::Pe);
        }
        magic("boot_flag", header.boot_flag.get().into(), BOOT_FLAG.into())?;
        magic("header", header.header.get().into(), HEADER_MAGIC.into())?;

        let unless = |ok: bool, field, value: u64, problem| {
            if ok { Ok(()) } else { Err(Error::Unsupported { field, value, problem }) }
        };
        let (version, flags) = (header.version.get(), header.xloadflags.get());
        if is_for_crash {
            unless(version >= MIN_VERSION, "version", version.into(), "boot protocol older than 2.12")?;
        }
        unless(version >= MIN_VERSION_ANY, "version", version.into(), "boot protocol older than 2.10")?;
        unless(
            header.loadflags & LOADED_HIGH != 0,
            "loadflags",
            header.loadflags.into(),
            "not a big kernel",
        )?;
        if is_for_crash {
            unless(
                flags & XLF_KERNEL_64 != 0,
                "xloadflags",
                flags.into(),
                "no 64-bit entry: a 32-bit kernel?",
            )?;
            unless(
                flags & XLF_CAN_BE_LOADED_ABOVE_4G != 0,
                "xloadflags",
                flags.into(),
                "kernel and initramfs cannot lie above 4 GiB",
            )?;
            unless(
                header.relocatable_kernel != 0,
                "relocatable_kernel",
                header.relocatable_kernel.into(),
                "the kernel is not relocatable (CONFIG_RELOCATABLE)",
            )?;
        }
        let align = header.kernel_alignment.get();
        unless(
            align.is_power_of_two() && u64::from(align) >= PAGE_SIZE && align <= 1 << 30,
            "kernel_alignment",
            align.into(),
            "no power of two between a page and 1 GiB",
        )?;
        let init_size = header.init_size.get();
        unless(
            init_size != 0,
            "init_size",
            init_size.into(),
            "the kernel does not say how much memory it needs",
        )?;
        let pref = header.pref_address.get();
        unless(pref < 1 << 40, "pref_address", pref, "beyond any memory")?;

        // 0 stands for 4, from the days of the floppy.
        let setup_sects = if header.setup_sects == 0 { 4 } else { usize::from(header.setup_sects) };
        let start = (setup_sects + 1) * SECTOR;
        let kernel = bytes.get(start..).ok_or(Error::Truncated { have: bytes.len(), need: start })?;
        // syssize counts 16-byte units; a signature may follow, so the file may be longer.
        let need = u64::from(header.syssize.get()) * 16;
        let have = kernel.len() as u64;
        // The last unit may be partial.
        if need == 0 || have.next_multiple_of(16) < need {
            return Err(Error::KernelCut { have, need });
        }
        unless(
            have <= u64::from(init_size),
            "init_size",
            init_size.into(),
            "smaller than the compressed kernel itself",
        )?;
        let offset = if flags & XLF_KERNEL_64 != 0 { ENTRY_64_OFFSET } else { ENTRY_32_OFFSET };
        let fixed = (header.relocatable_kernel == 0)
            .then_some(Fixed { start: PhysAddr(pref), entry: PhysAddr(pref + offset) });
        let version = version_string(bytes, &header);
        Ok(Self { header, file, kernel_start: start, version, sha256: OnceLock::new(), fixed })
    }

    /// A kernel that is linked for one place, from its bytes as they lie there.
    pub(crate) fn linked(
        header: SetupHeader,
        memory: Vec<u8>,
        version: Option<String>,
        fixed: Fixed,
    ) -> Self {
        let sha256 = OnceLock::new();
        Self { header, file: memory, kernel_start: 0, version, sha256, fixed: Some(fixed) }
    }

    /// Where it has to lie, if it is linked for one place.
    #[must_use]
    pub fn fixed(&self) -> Option<Fixed> {
        self.fixed
    }

    /// Checks that the image's 64-bit entry can be reached with 5-level page tables in force: without the
    /// flag it would take them for 4-level ones.
    ///
    /// # Errors
    /// [`Error::Unsupported`]. Source: arch/x86/kernel/kexec-bzimage64.c (`bzImage64_probe`).
    pub fn check_5_level_paging(&self) -> Result<(), Error> {
        let flags = self.header.xloadflags.get();
        // A vmlinux, which has no decompressor and no setup code before it, looks at CR4 itself.
        if flags & XLF_5LEVEL != 0 || self.kernel_start == 0 {
            return Ok(());
        }
        Err(Error::Unsupported {
            field: "xloadflags",
            value: flags.into(),
            problem: "the running kernel uses 5-level page tables, this one cannot be entered with them by its 64-bit entry (--entry 32)",
        })
    }

    /// Whether it has an entry for 64-bit mode; every kernel but a vmlinux has one for 32-bit mode.
    #[must_use]
    pub fn has_64_bit_entry(&self) -> bool {
        self.header.xloadflags.get() & XLF_KERNEL_64 != 0
    }

    /// Whether kernel, initramfs, command line and boot_params may lie above 4 GiB.
    #[must_use]
    pub fn can_be_above_4g(&self) -> bool {
        self.header.xloadflags.get() & XLF_CAN_BE_LOADED_ABOVE_4G != 0
    }

    /// Whether it can use EFI runtime services that another kernel has moved to virtual addresses.
    #[must_use]
    pub fn can_take_efi(&self) -> bool {
        self.header.xloadflags.get() & XLF_EFI_KEXEC != 0
    }

    /// The image's setup header, to be copied into boot_params.
    #[must_use]
    pub fn header(&self) -> &SetupHeader {
        &self.header
    }

    /// The protected-mode part, with what may follow it (a signature).
    #[must_use]
    pub fn kernel(&self) -> &[u8] {
        &self.file[self.kernel_start..]
    }

    /// The whole bzImage, signature included; `None` for a kernel that was in no such file.
    #[must_use]
    pub fn file(&self) -> Option<&[u8]> {
        (self.kernel_start != 0).then_some(&*self.file)
    }

    /// Digest of [`Self::kernel`], computed once.
    #[must_use]
    pub fn kernel_sha256(&self) -> [u8; 32] {
        *self.sha256.get_or_init(|| sha256::digest(self.kernel()))
    }

    /// `uname -r` and build line, as the image carries them.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Bytes that must be free from the load address on while the kernel unpacks itself.
    #[must_use]
    pub fn init_size(&self) -> u64 {
        u64::from(self.header.init_size.get()).next_multiple_of(PAGE_SIZE)
    }

    /// A multiple of this is the load address.
    #[must_use]
    pub fn alignment(&self) -> u64 {
        self.header.kernel_alignment.get().into()
    }

    /// The lowest load address: a kernel below it moves itself up to it, out of the reserved memory.
    #[must_use]
    pub fn pref_address(&self) -> PhysAddr {
        PhysAddr(self.header.pref_address.get())
    }

    /// The longest command line, without its NUL.
    #[must_use]
    pub fn cmdline_size(&self) -> usize {
        self.header.cmdline_size.get() as usize
    }
}

/// Copies the header only as far as the image says it reaches: 0x202 + the byte at 0x201, which is
/// the displacement of the jump over it. What follows in the file is code.
fn own_header(raw: &[u8]) -> SetupHeader {
    let end = raw.get(0x201 - SETUP_HEADER_OFFSET).map_or(0, |&d| 0x202 + usize::from(d));
    let len = end.saturating_sub(SETUP_HEADER_OFFSET).min(raw.len());
    let mut header = SetupHeader::new_zeroed();
    header.as_mut_bytes()[..len].copy_from_slice(&raw[..len]);
    header
}

/// The NUL-terminated text at 0x200 + kernel_version.
fn version_string(bytes: &[u8], header: &SetupHeader) -> Option<String> {
    let offset = usize::from(header.kernel_version.get());
    if offset == 0 {
        return None;
    }
    let text = bytes.get(offset + 0x200..)?;
    let text = &text[..text.iter().take(256).position(|&b| b == 0)?];
    text.iter().all(|b| (b' '..0x7f).contains(b)).then(|| String::from_utf8_lossy(text).into_owned())
}

impl std::fmt::Debug for BzImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BzImage")
            .field("version", &self.version)
            .field("kernel_len", &self.kernel().len())
            .field("init_size", &self.init_size())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The smallest image that parses: one setup sector, `kernel_len` bytes of kernel.
    pub(crate) fn image(kernel_len: usize, edit: impl FnOnce(&mut SetupHeader)) -> Vec<u8> {
        let mut header = SetupHeader::new_zeroed();
        header.setup_sects = 1;
        header.syssize = ((kernel_len / 16) as u32).into();
        header.boot_flag = BOOT_FLAG.into();
        header.jump = 0x6aeb.into(); // the displacement in real images
        header.header = HEADER_MAGIC.into();
        header.version = 0x020f.into();
        header.kernel_version = 0x100.into();
        header.loadflags = LOADED_HIGH;
        header.kernel_alignment = 0x20_0000.into();
        header.relocatable_kernel = 1;
        header.min_alignment = 21;
        header.xloadflags = 0x7f.into();
        header.cmdline_size = 2047.into();
        header.pref_address = 0x100_0000.into();
        header.init_size = 0x300_0000.into();
        edit(&mut header);
        let mut bytes = vec![0xff; SETUP_HEADER_OFFSET];
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(0x300, 0);
        bytes.extend_from_slice(b"6.12.0-test (builder) #1 SMP\0");
        bytes.resize(0x400, 0);
        bytes.extend((0..kernel_len).map(|i| i as u8));
        bytes
    }

    #[test]
    fn a_good_image_gives_its_kernel_and_demands() {
        let image = BzImage::parse(image(4096, |_| {})).unwrap();
        assert_eq!(image.kernel().len(), 4096);
        assert_eq!(image.init_size(), 0x300_0000);
        assert_eq!(image.pref_address(), PhysAddr(0x100_0000));
        assert_eq!(image.version(), Some("6.12.0-test (builder) #1 SMP"));
        assert_eq!(image.header().kernel_info_offset.get(), 0);
    }

    #[test]
    fn a_wrong_field_is_named_with_its_value() {
        let no_64 = BzImage::parse(image(4096, |h| h.xloadflags = 0x7e.into())).unwrap_err();
        assert!(matches!(no_64, Error::Unsupported { field: "xloadflags", value: 0x7e, .. }), "{no_64}");
        let fixed = BzImage::parse(image(4096, |h| h.relocatable_kernel = 0)).unwrap_err();
        assert!(matches!(fixed, Error::Unsupported { field: "relocatable_kernel", value: 0, .. }));
        let magic = BzImage::parse(image(4096, |h| h.header = 0.into())).unwrap_err();
        assert!(matches!(magic, Error::Magic { field: "header", value: 0, .. }));
    }

    #[test]
    fn a_kernel_that_knows_only_4_levels_says_so() {
        assert_eq!(BzImage::parse(image(4096, |_| {})).unwrap().check_5_level_paging(), Ok(()));
        let old = BzImage::parse(image(4096, |h| h.xloadflags = 0x1f.into())).unwrap();
        let error = old.check_5_level_paging().unwrap_err();
        assert!(matches!(error, Error::Unsupported { field: "xloadflags", value: 0x1f, .. }), "{error}");
    }

    #[test]
    fn a_cut_image_says_how_much_is_missing() {
        let mut bytes = image(4096, |_| {});
        bytes.truncate(0x400 + 1000);
        assert_eq!(
            BzImage::parse(bytes.as_slice()).unwrap_err(),
            Error::KernelCut { have: 1000, need: 4096 }
        );
        bytes.truncate(0x210);
        assert!(matches!(BzImage::parse(bytes.as_slice()), Err(Error::Truncated { have: 0x210, .. })));
    }

    /// Check that no length of any prefix makes the parser panic.
    #[test]
    fn every_prefix_is_an_error_or_an_image() {
        let bytes = image(64, |_| {});
        for len in 0..bytes.len() {
            let _ = BzImage::parse(&bytes[..len]);
        }
    }

    #[test]
    fn other_files_are_recognized() {
        assert_eq!(BzImage::parse(*b"\x7fELF").unwrap_err(), Error::Elf);
        let mut pe = vec![0; 4096];
        pe[..2].copy_from_slice(b"MZ");
        assert_eq!(BzImage::parse(pe).unwrap_err(), Error::Pe);
    }
}
