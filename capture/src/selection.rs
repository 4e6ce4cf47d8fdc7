//! Which kinds of pages a dump is to hold: a dump level, and classes by name.

use core::fmt;

use crate::classify::PageClass;

/// What to leave out: bits as makedumpfile(8) numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DumpLevel(u32);

impl DumpLevel {
    /// Zero-filled pages.
    pub const ZERO: u32 = 1;
    /// Page cache without private data.
    pub const CACHE: u32 = 2;
    /// All page cache.
    pub const CACHE_PRIVATE: u32 = 4;
    /// Memory of processes.
    pub const USER: u32 = 8;
    /// Free pages.
    pub const FREE: u32 = 16;
    /// Everything that can be left out.
    pub const MAX: Self = Self(31);

    /// A level from its number, 0 to 31.
    #[must_use]
    pub const fn new(bits: u32) -> Option<Self> {
        if bits <= 31 { Some(Self(bits)) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether zero-filled pages are left out.
    #[must_use]
    pub const fn excludes_zero(self) -> bool {
        self.0 & Self::ZERO != 0
    }

    /// Whether pages of `class` are left out. Broken and offline ones always are: reading the former
    /// may stop the machine, the latter have nothing behind them.
    #[must_use]
    pub const fn excludes(self, class: PageClass) -> bool {
        let bits = match class {
            PageClass::Kernel | PageClass::PageTables | PageClass::Slab | PageClass::Unsure => return false,
            PageClass::HwPoison | PageClass::Offline => return true,
            PageClass::Cache | PageClass::DirtyCache => Self::CACHE | Self::CACHE_PRIVATE,
            PageClass::CachePrivate | PageClass::DirtyCachePrivate => Self::CACHE_PRIVATE,
            PageClass::Anon | PageClass::Hugetlb => Self::USER,
            PageClass::Free | PageClass::Unaccepted => Self::FREE,
        };
        self.0 & bits != 0
    }
}

/// Kinds of pages that a person can name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Kinds(u16);

/// Names, and the classes each stands for. The first is not told by class: it takes reading the page.
const NAMES: [(&str, &[PageClass]); 8] = [
    ("zero", &[]),
    ("free", &[PageClass::Free, PageClass::Unaccepted]),
    (
        "file-cache",
        &[PageClass::Cache, PageClass::CachePrivate, PageClass::DirtyCache, PageClass::DirtyCachePrivate],
    ),
    ("dirty-cache", &[PageClass::DirtyCache, PageClass::DirtyCachePrivate]),
    ("anon", &[PageClass::Anon]),
    ("hugetlb", &[PageClass::Hugetlb]),
    ("slab", &[PageClass::Slab]),
    ("page-tables", &[PageClass::PageTables]),
];

/// A name that stands for no kind of pages.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{name:?} is no kind of pages; there are {}", kinds())]
pub struct UnknownKind {
    /// The name.
    pub name: String,
}

fn kinds() -> String {
    NAMES.map(|(name, _)| name).join(", ")
}

impl Kinds {
    /// None.
    pub const NONE: Self = Self(0);

    /// Adds a kind by its name.
    ///
    /// # Errors
    /// [`UnknownKind`].
    pub fn add(&mut self, name: &str) -> Result<(), UnknownKind> {
        let at = NAMES
            .iter()
            .position(|(n, _)| *n == name)
            .ok_or_else(|| UnknownKind { name: name.to_string() })?;
        self.0 |= 1 << at;
        Ok(())
    }

    /// The kinds of those names.
    ///
    /// # Errors
    /// [`UnknownKind`] for the first that is none.
    pub fn parse<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Result<Self, UnknownKind> {
        let mut kinds = Self::NONE;
        names.into_iter().try_for_each(|name| kinds.add(name.as_ref()))?;
        Ok(kinds)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    const fn has(self, at: usize) -> bool {
        self.0 >> at & 1 == 1
    }

    /// Names, in a fixed order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().enumerate().filter(move |(i, _)| self.has(*i)).map(|(_, (name, _))| *name)
    }

    /// How closely the kinds name `class`: the number of classes that the narrowest of them stands for.
    fn closeness(self, class: PageClass) -> Option<usize> {
        let named =
            NAMES.iter().enumerate().filter(|(i, (_, classes))| self.has(*i) && classes.contains(&class));
        named.map(|(_, (_, classes))| classes.len()).min()
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.names().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

/// A level, and what is kept or left out in spite of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Selection {
    /// The level.
    pub level: DumpLevel,
    /// Kept, whatever the level says.
    pub keep: Kinds,
    /// Left out, whatever the level says.
    pub drop: Kinds,
}

/// A kind that is to be kept and left out at once.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} is to be kept and left out at once: name it in one of the two")]
pub struct Contradiction(pub &'static str);

impl From<DumpLevel> for Selection {
    fn from(level: DumpLevel) -> Self {
        Self { level, ..Self::default() }
    }
}

impl Selection {
    /// Checks that no kind is named on both sides.
    ///
    /// # Errors
    /// [`Contradiction`].
    pub fn check(self) -> Result<Self, Contradiction> {
        match self.keep.names().find(|name| self.drop.names().any(|other| other == *name)) {
            Some(name) => Err(Contradiction(name)),
            None => Ok(self),
        }
    }

    /// Whether pages of `class` are left out. The narrower name wins: `drop = file-cache, keep = dirty-cache` leaves
    /// clean cache out. Of two that are as narrow, the one that keeps does.
    #[must_use]
    pub fn excludes(self, class: PageClass) -> bool {
        if matches!(class, PageClass::HwPoison | PageClass::Offline) {
            return true;
        }
        match (self.keep.closeness(class), self.drop.closeness(class)) {
            (None, None) => self.level.excludes(class),
            (Some(keep), Some(drop)) => drop < keep,
            (keep, _) => keep.is_none(),
        }
    }

    /// Whether zero-filled pages are left out.
    #[must_use]
    pub fn excludes_zero(self) -> bool {
        const ZERO: usize = 0;
        match (self.keep.has(ZERO), self.drop.has(ZERO)) {
            (true, _) => false,
            (_, true) => true,
            _ => self.level.excludes_zero(),
        }
    }

    /// Whether a fact that VMCOREINFO lacks and BTF may have, how dirty pages and page tables are told, matters.
    #[must_use]
    pub fn needs_types(self) -> bool {
        self.keep.names().chain(self.drop.names()).any(|name| matches!(name, "dirty-cache" | "page-tables"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_exclude_what_makedumpfile_says() {
        use PageClass::*;
        let excluded = |bits| -> Vec<PageClass> {
            let level = DumpLevel::new(bits).unwrap();
            PageClass::ALL.into_iter().filter(|c| level.excludes(*c)).collect()
        };
        assert_eq!(excluded(0), [Offline, HwPoison]);
        assert_eq!(excluded(1), excluded(0));
        assert_eq!(excluded(2), [Cache, DirtyCache, Offline, HwPoison]);
        assert_eq!(excluded(4), [Cache, CachePrivate, DirtyCache, DirtyCachePrivate, Offline, HwPoison]);
        assert_eq!(excluded(8), [Anon, Hugetlb, Offline, HwPoison]);
        assert_eq!(excluded(16), [Free, Unaccepted, Offline, HwPoison]);
        assert_eq!(excluded(31).len(), 10);
        assert_eq!(DumpLevel::new(32), None);
    }

    fn selection(level: u32, keep: &[&str], drop: &[&str]) -> Selection {
        let level = DumpLevel::new(level).unwrap();
        Selection { level, keep: Kinds::parse(keep).unwrap(), drop: Kinds::parse(drop).unwrap() }
    }

    #[test]
    fn names_win_over_the_level_and_the_narrower_over_the_wider() {
        let s = selection(31, &["anon", "dirty-cache"], &["slab", "file-cache"]);
        assert!(!s.excludes(PageClass::Anon) && s.excludes(PageClass::Hugetlb));
        assert!(s.excludes(PageClass::Slab) && s.excludes(PageClass::Cache));
        assert!(!s.excludes(PageClass::DirtyCachePrivate) && s.excludes(PageClass::CachePrivate));
        let s = selection(0, &["file-cache"], &["dirty-cache", "zero"]);
        assert!(s.excludes(PageClass::DirtyCache) && !s.excludes(PageClass::Cache) && s.excludes_zero());
        assert!(!selection(1, &["zero"], &[]).excludes_zero());
        assert!(s.excludes(PageClass::HwPoison), "broken memory is never read");
    }

    #[test]
    fn a_kind_on_both_sides_is_a_contradiction_and_a_wrong_name_lists_the_right_ones() {
        assert_eq!(selection(0, &["slab"], &["slab"]).check(), Err(Contradiction("slab")));
        assert!(selection(0, &["slab"], &["anon"]).check().is_ok());
        let e = Kinds::parse(["cache"]).unwrap_err().to_string();
        assert!(e.contains("\"cache\"") && e.contains("file-cache, dirty-cache"), "{e}");
    }

    #[test]
    fn names_that_only_types_tell_need_them() {
        assert!(selection(0, &["page-tables"], &[]).needs_types());
        assert!(selection(0, &[], &["dirty-cache"]).needs_types());
        assert!(!selection(31, &["anon"], &["file-cache"]).needs_types());
    }
}
