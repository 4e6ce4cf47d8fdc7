//! Kernel modules for the capture initramfs: which, in which order, as plain `.ko` bytes.
//!
//! [`Tree`] is a `/lib/modules/<release>` directory; [`Tree::closure`] turns module names and
//! aliases into files in load order, [`Tree::wanted`] with the reason for each; [`Tree::read_decompressed`]
//! gives what finit_module(2) takes from every kernel, whether or not it can unpack modules itself. Which drivers
//! stand between a directory and its disk is found by [`devices`], which firmware they ask for by [`firmware`].
//! Nothing here loads a module.
//!
//! Source: modules.dep(5), modprobe.d(5) for softdep and alias.

mod compress;
pub mod devices;
pub mod firmware;
mod text;
mod wanted;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{fs, io};

pub use compress::MAX_MODULE_BYTES;
pub use text::{normalize, wildcard_match};
pub use wanted::{FoundBy, Reason, Wanted};

/// What stands between a name and its module's bytes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory has no modules.dep.
    #[error(
        "no kernel modules: {path} cannot be read; --modules names the module directory, depmod fills it",
        path = path.display()
    )]
    NoTree {
        /// The file that was looked for.
        path: PathBuf,
        /// Why it could not be read.
        #[source]
        source: io::Error,
    },
    /// A file that is listed could not be read.
    #[error("module file {path} cannot be read", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No module has this name or alias, and the kernel has none built in.
    #[error("no module in {dir} is called {name}, and none is built in by that name", dir = dir.display())]
    NotFound {
        /// The module or alias asked for.
        name: String,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// A driver that is in use now is no module of this kernel, nor built in.
    #[error(
        "the disk needs the driver {module} (of {device}), but the modules in {dir} do not have it, nor is it \
         built in there: the capture kernel would not find the disk", device = device.display(), dir = dir.display()
    )]
    NoDriver {
        /// The module that drives it now.
        module: String,
        /// The device.
        device: PathBuf,
        /// Where the module was looked for.
        dir: PathBuf,
    },
    /// modules.dep names a dependency it does not list.
    #[error("modules.dep lists {needed} as needed by {by}, but has no line for it")]
    Dangling {
        /// The path without a line of its own.
        needed: String,
        /// The module that needs it.
        by: String,
    },
    /// The module file does not decompress.
    #[error("module file {path} does not decompress", path = path.display())]
    Decompress {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        #[source]
        source: io::Error,
    },
    /// The module is larger than any real one.
    #[error("module file {path} unpacks to more than {MAX_MODULE_BYTES} bytes", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

/// A kernel's module directory and its text indexes.
#[derive(Debug)]
pub struct Tree {
    dir: PathBuf,
    /// Module name to file and its direct and indirect dependencies, as modules.dep has them.
    files: HashMap<String, text::DepLine>,
    builtin: HashSet<String>,
    softdeps: HashMap<String, text::Softdep>,
    /// modules.alias is the longest, and the drivers in use are known by their names: it is read when one is not.
    aliases: OnceLock<Vec<(String, String)>>,
}

impl Tree {
    /// Reads the indexes of `dir`, that of aliases when it is asked for. modules.dep must be there; the others may
    /// be missing.
    ///
    /// # Errors
    /// [`Error::NoTree`].
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let dep = dir.join("modules.dep");
        let deps = fs::read_to_string(&dep).map_err(|source| Error::NoTree { path: dep, source })?;
        let optional = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
        Ok(Self {
            dir: dir.to_owned(),
            files: text::parse_dep(&deps),
            builtin: text::parse_builtin(&optional("modules.builtin")),
            softdeps: text::parse_softdep(&optional("modules.softdep")),
            aliases: OnceLock::new(),
        })
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the kernel has `name` built in.
    #[must_use]
    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(&normalize(name))
    }

    /// Names of the modules that serve `alias`, a modalias of a device or a plain alias such as
    /// `crc32c`. A module's own name is its alias too.
    #[must_use]
    pub fn find_alias(&self, alias: &str) -> Vec<&str> {
        let wanted = normalize(alias);
        if let Some((name, _)) = self.files.get_key_value(&wanted) {
            return vec![name];
        }
        let mut found: Vec<&str> = Vec::new();
        for (pattern, name) in self.aliases() {
            if wildcard_match(pattern, &wanted) && !found.contains(&name.as_str()) {
                found.push(name);
            }
        }
        found
    }

    fn aliases(&self) -> &[(String, String)] {
        self.aliases.get_or_init(|| {
            let text = fs::read_to_string(self.dir.join("modules.alias")).unwrap_or_default();
            text::parse_alias(&text)
        })
    }

    /// Files, relative to the directory, of `names` and all they need, in the order in which they
    /// can be loaded. Built-in modules are left out, aliases followed; soft dependencies come
    /// where the kernel has them and are no error where it has not.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a name that is neither module nor alias nor built in;
    /// [`Error::Dangling`].
    pub fn closure<S: AsRef<str>>(&self, names: &[S]) -> Result<Vec<String>, Error> {
        let named: Vec<_> = names.iter().map(|name| (name.as_ref().to_owned(), Reason::Named)).collect();
        Ok(self.wanted(&named)?.into_iter().map(|module| module.path).collect())
    }

    /// The same, with the reason for each: that of the caller for what it names, and whose dependency it is for
    /// the others.
    ///
    /// # Errors
    /// Those of [`Self::closure`].
    pub fn wanted(&self, names: &[(String, Reason)]) -> Result<Vec<Wanted>, Error> {
        let mut order = Order::default();
        let mut own: HashMap<&str, &Reason> = HashMap::new();
        for (name, reason) in names {
            let found = self.find_alias(name);
            if found.is_empty() && !self.is_builtin(name) {
                return Err(Error::NotFound { name: name.clone(), dir: self.dir.clone() });
            }
            for module in found {
                own.entry(module).or_insert(reason);
                self.visit(module, reason, &mut order)?;
            }
        }
        // One that came earlier as another's dependency has a reason of its own.
        for module in &mut order.modules {
            if let Some(&reason) = own.get(module.name.as_str()) {
                module.reason = reason.clone();
            }
        }
        Ok(order.modules)
    }

    /// Depth first: softdeps that come before, dependencies, the module, softdeps that come after.
    /// A module is marked on entry, so a circle among softdeps ends.
    fn visit(&self, name: &str, reason: &Reason, order: &mut Order) -> Result<(), Error> {
        let Some(line) = self.files.get(name) else { return Ok(()) };
        if !order.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let softdep = self.softdeps.get(name);
        let wish = Reason::SoftDependency { of: name.to_owned() };
        for before in softdep.iter().flat_map(|s| &s.pre) {
            self.visit_alias(before, &wish, order)?;
        }
        // modules.dep has the deepest dependency last.
        for path in line.needs.iter().rev() {
            let needed = text::module_name(path);
            if !self.files.contains_key(&needed) {
                return Err(Error::Dangling { needed: path.clone(), by: name.to_owned() });
            }
            self.visit(&needed, &Reason::Dependency { of: name.to_owned() }, order)?;
        }
        let (name, path, reason) = (name.to_owned(), line.path.clone(), reason.clone());
        order.modules.push(Wanted { name, path, reason });
        for after in softdep.iter().flat_map(|s| &s.post) {
            self.visit_alias(after, &wish, order)?;
        }
        Ok(())
    }

    fn visit_alias(&self, alias: &str, reason: &Reason, order: &mut Order) -> Result<(), Error> {
        self.find_alias(alias).into_iter().try_for_each(|name| self.visit(name, reason, order))
    }

    /// The module's ELF bytes; `path` is relative to the directory, as [`Self::closure`] gives it.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Decompress`], [`Error::TooLarge`].
    pub fn read_decompressed(&self, path: &str) -> Result<Vec<u8>, Error> {
        let path = self.dir.join(path);
        let bytes = fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        compress::decompress(&path, bytes)
    }
}

/// The file name a module has once it is decompressed: `drivers/x/foo.ko.xz` gives `foo.ko`.
#[must_use]
pub fn plain_file_name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.find(".ko").and_then(|at| file.get(..at + 3)).unwrap_or(file)
}

#[derive(Default)]
struct Order {
    seen: HashSet<String>,
    modules: Vec<Wanted>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write(
            "modules.dep",
            "kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/fs/mbcache.ko\n\
             kernel/fs/jbd2/jbd2.ko:\n\
             kernel/fs/mbcache.ko:\n\
             kernel/arch/x86/crypto/crc32c-intel.ko:\n\
             kernel/drivers/block/virtio_blk.ko.xz: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko\n\
             kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko\n\
             kernel/drivers/virtio/virtio.ko:\n",
        );
        write("modules.builtin", "kernel/drivers/virtio/virtio_pci.ko\n");
        write(
            "modules.softdep",
            "# comment\nsoftdep ext4 pre: crc32c\nsoftdep crc32c_intel post: ext4 nothere\n",
        );
        write(
            "modules.alias",
            "alias crypto-crc32c crc32c_intel\nalias crc32c crc32c_intel\nalias virtio:d00000002v* virtio_blk\n",
        );
        let tree = Tree::open(dir.path()).unwrap();
        (dir, tree)
    }

    #[test]
    fn dependencies_come_before_the_module() {
        let (_dir, tree) = tree();
        assert_eq!(
            tree.closure(&["virtio_blk", "virtio-pci"]).unwrap(),
            [
                "kernel/drivers/virtio/virtio.ko",
                "kernel/drivers/virtio/virtio_ring.ko",
                "kernel/drivers/block/virtio_blk.ko.xz"
            ]
        );
    }

    #[test]
    fn softdeps_are_followed_through_aliases_and_circles_end() {
        let (_dir, tree) = tree();
        assert_eq!(
            tree.closure(&["ext4"]).unwrap(),
            [
                "kernel/arch/x86/crypto/crc32c-intel.ko",
                "kernel/fs/mbcache.ko",
                "kernel/fs/jbd2/jbd2.ko",
                "kernel/fs/ext4/ext4.ko"
            ]
        );
    }

    #[test]
    fn each_module_says_why_it_is_there() {
        let (_dir, tree) = tree();
        let fstype = Reason::FileSystem { fstype: "ext4".into() };
        let driver = Reason::Driver { device: "/sys/devices/pci0/virtio0".into(), by: FoundBy::Sysfs };
        let wanted = tree.wanted(&[
            ("virtio_blk".to_owned(), driver.clone()),
            ("virtio".to_owned(), Reason::Named),
            ("ext4".to_owned(), fstype.clone()),
        ]);
        let wanted = wanted.unwrap();
        let of = |name: &str| wanted.iter().find(|m| m.name == name).unwrap().reason.clone();
        assert_eq!(of("virtio_blk"), driver);
        assert_eq!(of("virtio_ring"), Reason::Dependency { of: "virtio_blk".into() });
        assert_eq!(of("virtio"), Reason::Named, "its own reason comes before another's need");
        assert_eq!(of("crc32c_intel"), Reason::SoftDependency { of: "ext4".into() });
        assert_eq!(of("jbd2").to_string(), "dependency of ext4");
        assert_eq!(of("ext4").to_string(), "file system of the target (ext4)");
        assert_eq!(of("virtio_blk").to_string(), "driver of /sys/devices/pci0/virtio0 (sysfs: in use now)");
    }

    #[test]
    fn a_modalias_finds_its_driver() {
        let (_dir, tree) = tree();
        assert_eq!(tree.find_alias("virtio:d00000002v00001AF4"), ["virtio_blk"]);
        assert!(tree.find_alias("virtio:d00000003v00001AF4").is_empty());
    }

    #[test]
    fn an_unknown_module_is_named_in_the_error() {
        let (_dir, tree) = tree();
        let error = tree.closure(&["zfs"]).unwrap_err();
        assert!(matches!(&error, Error::NotFound { name, .. } if name == "zfs"), "{error}");
    }

    #[test]
    fn the_plain_file_name_has_no_compression_suffix() {
        assert_eq!(plain_file_name("kernel/drivers/block/virtio_blk.ko.xz"), "virtio_blk.ko");
        assert_eq!(plain_file_name("virtio.ko"), "virtio.ko");
    }
}
