//! What the plan itself stages beside the payload: the panic path's pieces.

use std::borrow::Cow;

use kdump_arch_x86::{PAGE_SIZE, PhysRange};

use super::Segment;
use super::staging::{Piece, Place};

/// The panic-path program.
pub(super) const PRIMARY_TAG: &str = "panic-kernel";
/// Its copy.
pub(super) const COPY_TAG: &str = "panic-copy";

/// Sizes in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sizes {
    pub(super) parity: u64,
    pub(super) digests: u64,
    pub(super) elfcorehdr: u64,
    pub(super) page_tables: u64,
    pub(super) panic_image: u64,
}

/// Something staged by the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    Parity,
    Elfcorehdr,
    Record,
    Digests,
    Copy,
    PageTables,
    ControlPage,
    Primary,
}

/// How many stand before the payload's pieces.
const NR_BEFORE: usize = Own::PageTables as usize;

/// All pieces of a plan, and where they lie once that is known.
pub(super) struct Pieces {
    pub(super) all: Vec<Piece>,
    pub(super) ranges: Vec<PhysRange>,
    nr_payload: usize,
}

impl Pieces {
    /// In the order in which they are placed: high ones from the top down, so that the parity lies above
    /// all that it protects, and the record beside elfcorehdr; the program's copy low, with the payload
    /// between it and the program itself.
    pub(super) fn new(sizes: &Sizes, payload: &[Piece]) -> Self {
        let piece = |tag, purpose, size, place| Piece { tag, purpose, size, content: size, place };
        let high = |tag, purpose, size| piece(tag, purpose, size, Place::High);
        let low = Place::Low { align: PAGE_SIZE, min: 0 };
        let mut all = vec![
            high("parity", "rebuilds damaged pages", sizes.parity),
            high("elfcorehdr", "where /proc/vmcore finds memory", sizes.elfcorehdr),
            high("record", "what the panic path did, for the dump", PAGE_SIZE),
            high("digests", "page digests, to find damaged pages", sizes.digests),
            piece(COPY_TAG, "runs if the first copy is damaged", sizes.panic_image, low),
        ];
        all.extend(payload);
        all.extend([
            high("page-tables", "identity map of all this", sizes.page_tables),
            high("control-page", "moves pages, enters the payload", PAGE_SIZE),
            high(PRIMARY_TAG, "runs first: checks, repairs, reports", sizes.panic_image),
        ]);
        Self { all, ranges: Vec::new(), nr_payload: payload.len() }
    }

    fn index(&self, own: Own) -> usize {
        let index = own as usize;
        if index < NR_BEFORE { index } else { index + self.nr_payload }
    }

    /// Where one of ours lies.
    pub(super) fn at(&self, own: Own) -> PhysRange {
        self.ranges.get(self.index(own)).copied().unwrap_or(PhysRange::new(0, 0))
    }

    /// Where the payload's lie.
    pub(super) fn payload(&self) -> &[PhysRange] {
        self.ranges.get(NR_BEFORE..NR_BEFORE + self.nr_payload).unwrap_or_default()
    }

    /// One of ours as a segment that nobody checks.
    pub(super) fn segment(&self, own: Own, bytes: Vec<u8>) -> Segment<'static> {
        self.segment_at(self.index(own), bytes.into())
    }

    /// The payload's piece `nr` as a segment that nobody checks.
    pub(super) fn payload_segment<'a>(&self, nr: usize, bytes: Cow<'a, [u8]>) -> Segment<'a> {
        self.segment_at(NR_BEFORE + nr, bytes)
    }

    fn segment_at<'a>(&self, index: usize, bytes: Cow<'a, [u8]>) -> Segment<'a> {
        let (tag, purpose) = self.all.get(index).map_or(("", ""), |piece| (piece.tag, piece.purpose));
        let range = self.ranges.get(index).copied().unwrap_or(PhysRange::new(0, 0));
        Segment { tag, purpose, range, bytes, checked: 0, sha256: None, is_protected: false }
    }
}
