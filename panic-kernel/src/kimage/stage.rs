//! Where the pages of an image are staged.
//!
//! A destination page that is free takes its content at once. The rest waits on free pages outside every
//! destination, so no source is ever written before it is read, in whatever order. That is also the best
//! there is: of the free pages inside, each serves one destination, itself; a plan exists whenever the pages
//! suffice at all.

use alloc::vec::Vec;

use super::{KimagePlan, Move, Pages, PlanError, Width, encode, normalise, normalise_free};
use crate::PAGE_SIZE;

/// Plans an image whose pages may be staged on any free page.
///
/// # Errors
/// [`PlanError::TooFewPages`]; [`PlanError::Overlap`] and [`PlanError::OutOfReach`] for ranges that contradict
/// each other or the width.
pub fn stage(destinations: &[Pages], free: &[Pages], width: Width) -> Result<KimagePlan, PlanError> {
    let destinations = normalise(destinations, width)?;
    let free = normalise_free(free, width)?;
    let mut supply = Supply { pieces: Pieces::new(&free, &destinations), rest: None, nr_taken: 0 };
    let mut placement = Vec::with_capacity(destinations.len());
    let mut need = 0;
    for (piece, is_free) in Pieces::new(&destinations, &free) {
        if is_free {
            placement.push(Move { source: piece.start, destination: piece.start, nr: piece.nr });
            continue;
        }
        need += piece.nr;
        // Sources are taken from below, so a move is one run of sources and one of destinations.
        let mut destination = piece.start;
        while destination < piece.end() {
            let wanted = (piece.end() - destination) / PAGE_SIZE;
            // What is missing is counted at the end.
            let Some(source) = supply.take(wanted) else { break };
            placement.push(Move { source: source.start, destination, nr: source.nr });
            destination += source.nr * PAGE_SIZE;
        }
    }
    let nr_list = encode::nr_list_pages(placement.iter().filter(|m| m.source != m.destination), width);
    let list: Vec<u64> = (0..nr_list).map_while(|_| supply.take(1)).map(|page| page.start).collect();
    let control_page = supply.take(1);
    match control_page {
        Some(control_page) if need + nr_list + 1 == supply.nr_taken => {
            let control_page = control_page.start;
            Ok(KimagePlan { placement, ordered: None, list, control_page, width })
        }
        _ => {
            let have = supply.nr_taken + supply.remaining();
            // At least a page of list, where there is anything to be moved at all.
            Err(PlanError::TooFewPages { need: need + nr_list.max(u64::from(need > 0)) + 1, have })
        }
    }
}

/// Sorted ranges, cut at the borders of other sorted ranges, each piece with whether those share it.
struct Pieces<'a> {
    ranges: &'a [Pages],
    others: &'a [Pages],
    at: u64,
}

impl<'a> Pieces<'a> {
    fn new(ranges: &'a [Pages], others: &'a [Pages]) -> Self {
        Self { ranges, others, at: 0 }
    }
}

impl Iterator for Pieces<'_> {
    type Item = (Pages, bool);

    fn next(&mut self) -> Option<(Pages, bool)> {
        let (range, rest) = self.ranges.split_first()?;
        let start = self.at.max(range.start);
        while let Some((other, others)) = self.others.split_first()
            && other.end() <= start
        {
            self.others = others;
        }
        let (end, is_shared) = match self.others.first() {
            Some(other) if other.start <= start => (other.end().min(range.end()), true),
            Some(other) => (other.start.min(range.end()), false),
            None => (range.end(), false),
        };
        self.at = end;
        if end == range.end() {
            self.ranges = rest;
        }
        Some((Pages::between(start, end)?, is_shared))
    }
}

/// Free pages outside the destinations, handed out from below.
struct Supply<'a> {
    pieces: Pieces<'a>,
    rest: Option<Pages>,
    nr_taken: u64,
}

impl Supply<'_> {
    /// Takes up to `wanted` pages in a row.
    fn take(&mut self, wanted: u64) -> Option<Pages> {
        let next = || self.pieces.find(|(_, is_shared)| !is_shared).map(|(piece, _)| piece);
        let range = self.rest.take().or_else(next)?;
        let taken = Pages::new(range.start, wanted.min(range.nr))?;
        self.rest = Pages::between(taken.end(), range.end());
        self.nr_taken += taken.nr;
        Some(taken)
    }

    fn remaining(self) -> u64 {
        let pieces = self.pieces.filter(|(_, is_shared)| !is_shared).map(|(piece, _)| piece);
        self.rest.into_iter().chain(pieces).map(|piece| piece.nr).sum()
    }
}
