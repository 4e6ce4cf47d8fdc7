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
    let (mut in_place, mut in_use) = (Vec::new(), Vec::new());
    split(&destinations, &free, &mut in_place, &mut in_use);
    let mut outside = Vec::new();
    split(&free, &destinations, &mut Vec::new(), &mut outside);

    let nr_in_use: u64 = in_use.iter().map(|r| r.nr).sum();
    let have: u64 = outside.iter().map(|r| r.nr).sum();
    // Sources are taken from below, so a move is one run of sources and one of destinations.
    let mut supply = Supply { ranges: outside.into_iter(), rest: None };
    let mut moves = Vec::new();
    for range in &in_use {
        let mut destination = range.start;
        while destination < range.end() {
            let wanted = (range.end() - destination) / PAGE_SIZE;
            let Some(source) = supply.take(wanted) else { return Err(too_few(nr_in_use, 1, have)) };
            moves.push(Move { source: source.start, destination, nr: source.nr });
            destination += source.nr * PAGE_SIZE;
        }
    }
    let nr_list = encode::nr_list_pages(&moves, width);
    let list: Vec<u64> = (0..nr_list).map_while(|_| supply.take(1)).map(|page| page.start).collect();
    let control_page = supply.take(1).filter(|_| list.len() as u64 == nr_list);
    let Some(control_page) = control_page else { return Err(too_few(nr_in_use, nr_list, have)) };

    let mut placement = moves.clone();
    placement.extend(in_place.iter().map(|r| Move { source: r.start, destination: r.start, nr: r.nr }));
    placement.sort_unstable_by_key(|m| m.destination);
    Ok(KimagePlan { placement, moves, list, control_page: control_page.start, width })
}

fn too_few(nr_in_use: u64, nr_list: u64, have: u64) -> PlanError {
    PlanError::TooFewPages { need: nr_in_use + nr_list + 1, have }
}

/// Splits sorted ranges into what they share with other sorted ranges and what they do not.
pub(super) fn split(ranges: &[Pages], others: &[Pages], shared: &mut Vec<Pages>, rest: &mut Vec<Pages>) {
    let mut others = others.iter().copied().peekable();
    for range in ranges {
        let mut at = range.start;
        while at < range.end() {
            while others.next_if(|other| other.end() <= at).is_some() {}
            let (start, end) = match others.peek() {
                Some(other) if other.start < range.end() => {
                    (other.start.max(at), other.end().min(range.end()))
                }
                _ => (range.end(), range.end()),
            };
            rest.extend(Pages::between(at, start));
            shared.extend(Pages::between(start, end));
            at = end;
        }
    }
}

/// Free pages, handed out from below.
struct Supply {
    ranges: alloc::vec::IntoIter<Pages>,
    rest: Option<Pages>,
}

impl Supply {
    /// Takes up to `wanted` pages in a row.
    fn take(&mut self, wanted: u64) -> Option<Pages> {
        let range = self.rest.take().or_else(|| self.ranges.next())?;
        let taken = Pages::new(range.start, wanted.min(range.nr))?;
        self.rest = Pages::between(taken.end(), range.end());
        Some(taken)
    }
}
