//! Firmware that modules ask for: which, from their `.modinfo`, and where the kernel would find it.
//!
//! A module names what it may ask for with `MODULE_FIRMWARE`: more than one device needs, since it knows many
//! devices. Only what is installed goes along; the kernel of today runs on no more.
//!
//! Source: include/linux/module.h (`MODULE_FIRMWARE`), drivers/base/firmware_loader/main.c (`fw_path`,
//! `fw_get_filesystem_firmware`): the order of directories, and `.zst` and `.xz` after the name itself.

use std::fs;
use std::path::{Component, Path, PathBuf};

use goblin::elf::Elf;

use super::compress::unpack;
use super::text::wildcard_match;

/// Bytes of firmware, unpacked, that an initramfs holds at most: all of it lies in crashkernel memory, and what
/// disk controllers are fed with is a tenth of it.
pub const MAX_FIRMWARE_BYTES: u64 = 32 << 20;

/// Names that one module may give; GPU drivers, which are no disk's, give some hundred.
const MAX_NAMES: usize = 1024;

/// Where it goes in the initramfs.
pub const FIRMWARE_DIR: &str = "lib/firmware";

/// A firmware file, unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firmware {
    /// As the module names it.
    pub name: String,
    /// The file it was read from.
    pub path: PathBuf,
    /// Its bytes, unpacked.
    pub bytes: Vec<u8>,
}

/// What a module asks for, as far as it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Files, by name.
    pub files: Vec<Firmware>,
    /// Names without a file.
    pub missing: Vec<String>,
    /// Files that cannot be used, and why.
    pub unusable: Vec<String>,
}

/// Names in the `firmware=` lines of a module's `.modinfo`; `None` if the bytes are no module with one.
#[must_use]
pub fn names(module: &[u8]) -> Option<Vec<String>> {
    let elf = Elf::parse(module).ok()?;
    let is_modinfo = |name| elf.shdr_strtab.get_at(name) == Some(".modinfo");
    let section = elf.section_headers.iter().find(|section| is_modinfo(section.sh_name))?;
    let lines = module.get(section.file_range()?)?.split(|&byte| byte == 0);
    let names = lines.filter_map(|line| std::str::from_utf8(line).ok()?.strip_prefix("firmware="));
    let mut names: Vec<_> = names.take(MAX_NAMES).map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    Some(names)
}

/// Directories in which a kernel of this release looks, in its order. `root` is the system's.
#[must_use]
pub fn directories(root: &Path, release: &str) -> Vec<PathBuf> {
    let custom = fs::read_to_string(root.join("sys/module/firmware_class/parameters/path"));
    let custom = custom.unwrap_or_default().trim().trim_start_matches('/').to_owned();
    let base = root.join(FIRMWARE_DIR);
    let usual = [base.join("updates").join(release), base.join("updates"), base.join(release), base];
    Some(custom)
        .filter(|path| !path.is_empty())
        .map(|path| root.join(path))
        .into_iter()
        .chain(usual)
        .collect()
}

/// Reads what `names` stand for, at most `max` bytes of it.
#[must_use]
pub fn find(directories: &[PathBuf], names: &[String], max: u64) -> Found {
    let mut found = Found::default();
    let mut left = max;
    for name in names {
        let expanded = expand(directories, name);
        if expanded.is_empty() {
            found.missing.push(name.clone());
        }
        for (name, path) in expanded {
            match fs::read(&path).and_then(|bytes| unpack(bytes, left)) {
                Ok(Some(bytes)) => {
                    left -= bytes.len() as u64;
                    found.files.push(Firmware { name, path, bytes });
                }
                Ok(None) => found.unusable.push(format!(
                    "{} is left out: the initramfs holds at most {} MiB of firmware",
                    path.display(),
                    MAX_FIRMWARE_BYTES >> 20
                )),
                Err(error) => found.unusable.push(format!("{} cannot be used: {error}", path.display())),
            }
        }
    }
    found
}

/// The name's file, or those of all names that it is a pattern of: name and path of each.
fn expand(directories: &[PathBuf], name: &str) -> Vec<(String, PathBuf)> {
    // It becomes a path in the initramfs, and is looked for below these directories only.
    if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
        return Vec::new();
    }
    if !name.contains(['*', '?', '[']) {
        return file(directories, name).map(|path| (name.to_owned(), path)).into_iter().collect();
    }
    let (parent, pattern) = name.rsplit_once('/').unwrap_or(("", name));
    let entries = directories.iter().flat_map(|dir| fs::read_dir(dir.join(parent)).into_iter().flatten());
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let file = entry.ok()?.file_name().into_string().ok()?;
            let plain = file.strip_suffix(".zst").or(file.strip_suffix(".xz")).unwrap_or(&file);
            let joined = if parent.is_empty() { plain.to_owned() } else { format!("{parent}/{plain}") };
            wildcard_match(pattern, plain).then_some(joined)
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().filter_map(|name| file(directories, &name).map(|path| (name, path))).collect()
}

/// Plain before packed, in each directory in turn for plain ones first: the order of the kernel.
fn file(directories: &[PathBuf], name: &str) -> Option<PathBuf> {
    let candidates = ["", ".zst", ".xz"].map(|suffix| format!("{name}{suffix}"));
    candidates
        .iter()
        .find_map(|name| directories.iter().map(|dir| dir.join(name)).find(|path| path.is_file()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A relocatable ELF file with nothing but a .modinfo of these lines.
    pub(crate) fn module(lines: &[&str]) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let info: Vec<u8> = lines.iter().flat_map(|line| line.bytes().chain([0])).collect();
        let mut elf = vec![0; 64];
        elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        elf[16..24].copy_from_slice(&[1, 0, 62, 0, 1, 0, 0, 0]);
        let info_at = elf.len() as u64;
        elf.extend(&info);
        let names_at = elf.len() as u64;
        elf.extend(names);
        let headers_at = elf.len() as u64;
        elf[40..48].copy_from_slice(&headers_at.to_le_bytes());
        elf[52..64].copy_from_slice(&[64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
        elf.extend([0; 64]);
        for (name, kind, at, len) in [(1_u32, 1_u32, info_at, info.len()), (10, 3, names_at, names.len())] {
            elf.extend(name.to_le_bytes());
            elf.extend(kind.to_le_bytes());
            elf.extend([0; 16]);
            elf.extend(at.to_le_bytes());
            elf.extend((len as u64).to_le_bytes());
            elf.extend([0; 24]);
        }
        elf
    }

    #[test]
    fn firmware_names_are_read_from_modinfo() {
        let bytes = module(&["license=GPL", "firmware=ql2500_fw.bin", "depends=", "firmware=a/b.fw"]);
        assert_eq!(names(&bytes).unwrap(), ["a/b.fw", "ql2500_fw.bin"]);
        assert_eq!(names(&module(&["license=GPL"])).unwrap(), [""; 0]);
        assert_eq!(names(b"\x7fELF and no more"), None);
        assert_eq!(names(&bytes[..bytes.len() - 70]), None, "a cut file");
    }

    #[test]
    fn updates_come_before_the_rest_and_packed_files_are_unpacked() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, bytes: &[u8]| {
            let path = root.path().join("lib/firmware").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        write("a/b.fw", b"of the distribution");
        write("updates/a/b.fw", b"of the administrator");
        write("6.1.0/c.bin.zst", &zstd::bulk::compress(b"packed", 1).unwrap());
        write("d-1.bin", b"one");
        write("d-2.bin.xz", b"two, which is not packed");
        write("e.bin.xz", b"\xfd7zXZ\0 and garbage");
        let directories = directories(root.path(), "6.1.0");
        let names = ["a/b.fw", "c.bin", "d-*.bin", "e.bin", "gone.bin", "../../etc/shadow", "/etc/shadow"];
        let found = find(&directories, &names.map(str::to_owned), 1000);
        let read: Vec<_> = found.files.iter().map(|f| (f.name.as_str(), f.bytes.as_slice())).collect();
        assert_eq!(
            read,
            [
                ("a/b.fw", b"of the administrator".as_slice()),
                ("c.bin", b"packed"),
                ("d-1.bin", b"one"),
                ("d-2.bin", b"two, which is not packed"),
            ]
        );
        assert_eq!(found.missing, ["gone.bin", "../../etc/shadow", "/etc/shadow"]);
        assert_eq!(found.unusable.len(), 1);
        assert!(found.unusable[0].contains("e.bin.xz cannot be used"), "{:?}", found.unusable);

        let bounded = find(&directories, &["a/b.fw".to_owned(), "d-1.bin".to_owned()], 21);
        assert_eq!(bounded.files.len(), 1);
        assert!(bounded.unusable[0].contains("d-1.bin is left out"), "{:?}", bounded.unusable);
    }
}
