//! Digests and parity of what is staged, computed on all CPUs.
//!
//! Which page goes into which parity page, and where its digest stands, is defined in
//! `kdump_panic_kernel::parity`; the panic path's repair is the other half.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use kdump_panic_kernel::PAGE_SIZE;
use kdump_panic_kernel::parity::{DIGESTS_PER_PAGE, Geometry, Page, PageDigest, page_digest, xor_into};
use kdump_panic_kernel::sha256;

/// Pages whose digests one task computes: 2 MiB.
const PAGES_PER_TASK: usize = 512;
/// Parity pages that one task computes.
const STRIPES_PER_TASK: usize = 32;

/// A region to be sealed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'s> {
    /// Its bytes; zeros follow up to the end of the last page.
    pub(super) bytes: &'s [u8],
    /// Its digest, if it is known already.
    pub(super) sha256: Option<[u8; 32]>,
    /// Whether its pages have digests and take part in the parity.
    pub(super) is_protected: bool,
}

/// Digests and parity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    /// One for each part.
    pub(super) sha256: Vec<[u8; 32]>,
    /// The digest table, whole pages; empty without parity.
    pub(super) table: Vec<u8>,
    /// Digests of the table's pages.
    pub(super) table_digests: Vec<PageDigest>,
    /// The parity pages.
    pub(super) parity: Vec<u8>,
}

/// What is done by one thread at a time.
enum Task {
    Sha256 { part: usize },
    Digests { first: usize, past: usize },
    Parity { first: usize, past: usize },
}

enum Done {
    Sha256 { part: usize, digest: [u8; 32] },
    Digests { first: usize, digests: Vec<PageDigest> },
    Parity { first: usize, pages: Vec<Page> },
}

/// Seals the parts, which are in ascending order. `table` is the place among them of the digest table, whose
/// bytes are ignored; without it (parity 0) there are only digests of the parts.
pub(super) fn seal(parts: &[Part<'_>], table: Option<usize>, geometry: &Geometry) -> Sealed {
    let nr_threads = thread::available_parallelism().map_or(1, NonZero::get);
    seal_on(nr_threads, parts, table, geometry)
}

fn seal_on(nr_threads: usize, parts: &[Part<'_>], table: Option<usize>, geometry: &Geometry) -> Sealed {
    let mut sealed = Sealed {
        sha256: parts.iter().map(|part| part.sha256.unwrap_or_default()).collect(),
        table: vec![0; geometry.nr_table as usize * PAGE_SIZE as usize],
        table_digests: Vec::new(),
        parity: vec![0; geometry.nr_parity as usize * PAGE_SIZE as usize],
    };
    // Pages in the order of their numbers. Those of the table are empty: neither digest nor parity.
    let table_pages = sealed.table.len() / PAGE_SIZE as usize;
    let mut pages: Vec<&[u8]> = Vec::new();
    let mut table_at = 0;
    if table.is_some() {
        for (i, part) in parts.iter().enumerate().filter(|(_, part)| part.is_protected) {
            if Some(i) == table {
                table_at = pages.len();
                pages.extend(std::iter::repeat_n(&[][..], table_pages));
            } else {
                pages.extend(part.bytes.chunks(PAGE_SIZE as usize));
            }
        }
    }

    for done in run(nr_threads, &tasks(parts, table, pages.len(), geometry), |task| match *task {
        Task::Sha256 { part } => {
            Done::Sha256 { part, digest: sha256::digest(parts.get(part).map_or(&[][..], |p| p.bytes)) }
        }
        Task::Digests { first, past } => {
            let digests = pages.get(first..past).unwrap_or_default().iter().map(|page| digest_of(page));
            Done::Digests { first, digests: digests.collect() }
        }
        Task::Parity { first, past } => {
            Done::Parity { first, pages: sum_stripes(&pages, geometry, first, past) }
        }
    }) {
        match done {
            Done::Sha256 { part, digest } => put(&mut sealed.sha256, part, &[digest]),
            Done::Digests { first, digests } => {
                put(&mut sealed.table, first * size_of::<PageDigest>(), digests.as_flattened());
            }
            Done::Parity { first, pages } => {
                put(&mut sealed.parity, first * PAGE_SIZE as usize, pages.as_flattened());
            }
        }
    }

    // The table is done, and its own pages can join.
    for (i, page) in sealed.table.as_chunks::<{ PAGE_SIZE as usize }>().0.iter().enumerate() {
        sealed.table_digests.push(digest_of(page));
        let parity = geometry.parity_page((table_at + i) as u32).unwrap_or(0) as usize;
        if let Some(sum) = sealed.parity.as_chunks_mut().0.get_mut(parity) {
            xor_into(sum, page);
        }
    }
    if let Some(table) = table {
        put(&mut sealed.sha256, table, &[sha256::digest(&sealed.table)]);
    }
    sealed
}

/// The longest tasks first, so that no thread is left with one at the end.
fn tasks(parts: &[Part<'_>], table: Option<usize>, nr_pages: usize, geometry: &Geometry) -> Vec<Task> {
    let chunks = |len: usize, step: usize| (0..len).step_by(step).map(move |at| (at, (at + step).min(len)));
    let mut unhashed: Vec<_> =
        (0..parts.len()).filter(|&i| Some(i) != table && parts[i].sha256.is_none()).collect();
    unhashed.sort_by_key(|&i| std::cmp::Reverse(parts[i].bytes.len()));
    let sha256 = unhashed.into_iter().map(|part| Task::Sha256 { part });
    let digests = chunks(nr_pages, PAGES_PER_TASK).map(|(first, past)| Task::Digests { first, past });
    let parity = chunks(geometry.nr_parity as usize, STRIPES_PER_TASK)
        .map(|(first, past)| Task::Parity { first, past });
    sha256.chain(digests).chain(parity).collect()
}

/// Does all tasks on so many threads.
fn run(nr_threads: usize, tasks: &[Task], work: impl Fn(&Task) -> Done + Sync) -> Vec<Done> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push(work(task));
        }
        done
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..nr_threads.min(tasks.len()).max(1)).map(|_| scope.spawn(worker)).collect();
        let mut done = worker();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    })
}

/// The parity pages `first..past`.
fn sum_stripes(pages: &[&[u8]], geometry: &Geometry, first: usize, past: usize) -> Vec<Page> {
    let mut sums = vec![[0; PAGE_SIZE as usize]; past - first];
    let (k, n) = (geometry.nr_parity as usize, geometry.nr_protected as usize);
    for (j, sum) in (first..past).zip(&mut sums) {
        for page in pages.iter().skip((n + j) % k).step_by(k) {
            match page.first_chunk::<{ PAGE_SIZE as usize }>() {
                Some(page) => xor_into(sum, page),
                None => sum.iter_mut().zip(*page).for_each(|(sum, byte)| *sum ^= byte),
            }
        }
    }
    sums
}

/// The digest of a page that ends in zeros; none of an empty one.
fn digest_of(page: &[u8]) -> PageDigest {
    if page.is_empty() {
        return PageDigest::default();
    }
    match page.first_chunk() {
        Some(page) => page_digest(page),
        None => {
            let mut padded: Page = [0; PAGE_SIZE as usize];
            padded[..page.len()].copy_from_slice(page);
            page_digest(&padded)
        }
    }
}

fn put<T: Copy>(target: &mut [T], at: usize, values: &[T]) {
    if let Some(slots) = target.get_mut(at..at + values.len()) {
        slots.copy_from_slice(values);
    }
}

/// Pages of a table for so many other pages and itself.
pub(super) fn table_pages_for(nr_others: u64) -> u64 {
    // Each table page has room for all its entries but its own.
    nr_others.div_ceil(u64::from(DIGESTS_PER_PAGE) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_threads_gives_the_same() {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i ^ (i >> 8)) as u8).collect();
        let part = |bytes| Part { bytes, sha256: None, is_protected: true };
        let unprotected = Part { is_protected: false, ..part(&bytes[..5000]) };
        let parts = [part(&bytes[..1_500_001]), part(&[][..]), unprotected, part(&bytes[1_700_000..])];
        let others = 1_500_001u64.div_ceil(PAGE_SIZE) + 1_300_000u64.div_ceil(PAGE_SIZE);
        let nr_table = table_pages_for(others);
        let geometry = Geometry {
            nr_parity: 37,
            nr_protected: (others + nr_table) as u32,
            nr_table: nr_table as u32,
            ..Geometry::default()
        };
        let one = seal_on(1, &parts, Some(1), &geometry);
        assert_eq!(one.table_digests.len(), nr_table as usize);
        assert!(one.parity.as_chunks::<4096>().0.iter().all(|page| page.iter().any(|&b| b != 0)));
        for nr_threads in [2, 3, 64] {
            assert!(seal_on(nr_threads, &parts, Some(1), &geometry) == one, "{nr_threads}");
        }
    }
}
