//! An order for pages that lie somewhere already, where a source may be the destination of another.
//!
//! Seen as a graph of pages, each has one way in at most (its content comes from one page), so it consists
//! of chains, trees and circles. Copying, a page is written when all that read it are done: from the ends
//! backwards, and a circle is opened by saving one of its pages on a spare one. Swapping, a circle of n pages
//! is n - 1 swaps and needs nothing; the plan follows where each content has gone meanwhile.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{KimagePlan, Move, Pages, PlanError, Transfer, Width, encode, normalise_free};
use crate::PAGE_SIZE;

/// Plans moves whose sources are given. `spare` pages must hold nothing and be no source or destination;
/// list, control page and detours take them.
///
/// The placement of the plan is what was asked for; its moves are what brings it about.
///
/// # Errors
/// [`PlanError::Overlap`] if two contents go to one page, or when swapping one content goes to two;
/// [`PlanError::TooFewPages`] with the number of spare pages needed; [`PlanError::OutOfReach`].
pub fn order(
    moves: &[Move],
    spare: &[Pages],
    transfer: Transfer,
    width: Width,
) -> Result<KimagePlan, PlanError> {
    let mut placement = moves.to_vec();
    placement.retain(|m| m.nr > 0);
    placement.sort_unstable_by_key(|m| m.destination);
    let mut pages: Vec<(u64, u64)> = Vec::new();
    for m in &placement {
        pages.extend((0..m.nr).map(|i| (m.destination + i * PAGE_SIZE, m.source + i * PAGE_SIZE)));
    }
    for pair in pages.windows(2) {
        if let [(a, _), (b, _)] = pair
            && a >= b
        {
            return Err(PlanError::Overlap { address: *b });
        }
    }
    let limit = width.limit();
    if let Some(&(d, s)) = pages.iter().find(|(d, s)| *d >= limit || *s >= limit) {
        return Err(PlanError::OutOfReach { address: d.max(s) });
    }
    let spare = normalise_free(spare, width)?;
    let mut used: Vec<u64> = pages.iter().flat_map(|&(d, s)| [d, s]).collect();
    used.sort_unstable();
    let is_used = |page: u64| used.binary_search(&page).is_ok();
    let mut free = spare.iter().flat_map(|r| r.addresses()).filter(|&page| !is_used(page));

    pages.retain(|(d, s)| d != s);
    let steps = match transfer {
        Transfer::Copy => copies(&pages, &mut free)?,
        Transfer::Swap => swaps(&pages)?,
    };
    let moves = join(&steps);
    let nr_list = encode::nr_list_pages(moves.iter(), width);
    let list: Vec<u64> = free.by_ref().take(nr_list as usize).collect();
    let Some(control_page) = free.next() else {
        let have = spare.iter().flat_map(|r| r.addresses()).filter(|&page| !is_used(page)).count() as u64;
        return Err(PlanError::TooFewPages { need: have + nr_list + 1 - list.len() as u64, have });
    };
    Ok(KimagePlan { placement, ordered: Some(moves), list, control_page, width })
}

/// Steps of copies as (source, destination).
fn copies(pages: &[(u64, u64)], free: &mut impl Iterator<Item = u64>) -> Result<Vec<(u64, u64)>, PlanError> {
    let place = |page: u64| pages.binary_search_by_key(&page, |&(d, _)| d).ok();
    // How many moves still read each destination.
    let mut readers: Vec<u32> = pages.iter().map(|_| 0).collect();
    let sources: Vec<Option<usize>> = pages.iter().map(|&(_, s)| place(s)).collect();
    for source in sources.iter().flatten() {
        readers[*source] += 1;
    }
    let mut ready: Vec<usize> = (0..pages.len()).filter(|&i| readers[i] == 0).rev().collect();
    let mut is_done: Vec<bool> = pages.iter().map(|_| false).collect();
    let mut steps = Vec::with_capacity(pages.len());
    let mut detour: Option<(u64, u64)> = None;
    let mut spare: Option<u64> = None;
    for start in 0..=pages.len() {
        while let Some(i) = ready.pop() {
            let (destination, source) = pages[i];
            // The page that was saved is read where it was saved.
            let source = detour.filter(|(saved, _)| *saved == source).map_or(source, |(_, at)| at);
            steps.push((source, destination));
            is_done[i] = true;
            if let Some(read) = sources[i].filter(|&read| !is_done[read]) {
                readers[read] -= 1;
                if readers[read] == 0 {
                    ready.push(read);
                }
            }
        }
        // What is left are circles: everything that hung on them is done. One spare page serves all.
        if start < pages.len() && !is_done[start] {
            let at = match spare {
                Some(page) => page,
                None => free.next().ok_or(PlanError::TooFewPages { need: 1, have: 0 })?,
            };
            spare = Some(at);
            let (saved, _) = pages[start];
            steps.push((saved, at));
            detour = Some((saved, at));
            // It may be overwritten now; whoever reads it comes last.
            ready.push(start);
            readers[start] = 0;
        }
    }
    Ok(steps)
}

/// Steps of swaps as (source, destination).
fn swaps(pages: &[(u64, u64)]) -> Result<Vec<(u64, u64)>, PlanError> {
    let mut sources: Vec<u64> = pages.iter().map(|&(_, s)| s).collect();
    sources.sort_unstable();
    if let Some(pair) = sources.windows(2).find(|pair| pair.first() == pair.last()) {
        return Err(PlanError::Overlap { address: pair.first().copied().unwrap_or_default() });
    }
    // Where a content lies that has been displaced, and whose content lies on a page instead of its own.
    let (mut at, mut holds) = (BTreeMap::new(), BTreeMap::new());
    let mut steps = Vec::with_capacity(pages.len());
    for &(destination, source) in pages {
        let from = at.get(&source).copied().unwrap_or(source);
        if from == destination {
            continue;
        }
        steps.push((from, destination));
        let displaced = holds.get(&destination).copied().unwrap_or(destination);
        at.insert(displaced, from);
        holds.insert(from, displaced);
        at.insert(source, destination);
        holds.insert(destination, source);
    }
    Ok(steps)
}

/// Joins steps that go on where the one before ended.
fn join(steps: &[(u64, u64)]) -> Vec<Move> {
    let mut moves: Vec<Move> = Vec::new();
    for &(source, destination) in steps {
        match moves.last_mut() {
            Some(last)
                if last.destination + last.nr * PAGE_SIZE == destination
                    && last.source + last.nr * PAGE_SIZE == source =>
            {
                last.nr += 1
            }
            _ => moves.push(Move { source, destination, nr: 1 }),
        }
    }
    moves
}
