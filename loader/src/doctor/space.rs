//! How large a dump would be if the machine crashed now.

use std::path::Path;

use procfs::FromRead as _;

/// Pages of the kernel shrink to a third or less with zstd; a quarter is what a small target is measured by.
pub(super) const COMPRESSION: u64 = 4;

/// The most that is left out.
pub(super) const MAX_LEVEL: u8 = 31;

/// What RAM is used for, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// RAM that the kernel manages.
    pub total: u64,
    /// Free pages.
    pub free: u64,
    /// Page cache, tmpfs and swap cache included.
    pub cache: u64,
    /// Pages of processes, huge ones included.
    pub user: u64,
}

impl Memory {
    /// Reads /proc/meminfo.
    #[must_use]
    pub fn read(path: &Path) -> Option<Self> {
        let info = procfs::Meminfo::from_file(path).ok()?;
        let huge = info.hugepages_total.unwrap_or(0).saturating_sub(info.hugepages_free.unwrap_or(0));
        Some(Self {
            total: info.mem_total,
            free: info.mem_free,
            cache: info.cached + info.buffers + info.swap_cached,
            user: info.anon_pages.unwrap_or(0) + huge * info.hugepagesize.unwrap_or(0),
        })
    }

    /// Bytes of pages that a dump of `ram` bytes at this level holds, before compression: at most, since zero
    /// pages are not counted, and cache only if both of its classes are left out.
    #[must_use]
    pub fn predicted(&self, ram: u64, level: u8) -> u64 {
        let left_out = |bits: u8, bytes: u64| if level & bits == bits { bytes } else { 0 };
        let gone = left_out(2 | 4, self.cache) + left_out(8, self.user) + left_out(16, self.free);
        ram.max(self.total).saturating_sub(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_predicts_what_each_level_leaves_out() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "MemTotal: 1000 kB\nMemFree: 400 kB\nBuffers: 10 kB\nCached: 200 kB\nSwapCached: 5 kB\n\
                    Active: 1 kB\nInactive: 1 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\nDirty: 0 kB\nWriteback: 0 kB\n\
                    AnonPages: 150 kB\nMapped: 0 kB\nSlab: 0 kB\nCommitted_AS: 0 kB\nVmallocTotal: 0 kB\n\
                    VmallocUsed: 0 kB\nVmallocChunk: 0 kB\n";
        std::fs::write(file.path(), text).unwrap();
        let memory = Memory::read(file.path()).unwrap();
        let kib = |bytes: u64| bytes / 1024;
        assert_eq!(kib(memory.predicted(1100 << 10, 31)), 1100 - 400 - 215 - 150);
        assert_eq!(kib(memory.predicted(1100 << 10, 16)), 700);
        assert_eq!(kib(memory.predicted(1100 << 10, 2)), 1100, "private cache stays in");
        assert_eq!(kib(memory.predicted(0, 0)), 1000);
    }
}
