//! What msync-trace has to say about an msync that gave 0, told from the disk alone. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::faults::Fate;

/// One page of a file and what was stored into it since it was given up last.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The stores; the last one is what the disk owes.
    pub generations: Vec<u64>,
    /// What became of each of them at the device; nothing if it was never asked to write it.
    pub fates: Vec<Option<Fate>>,
    /// The page may have left memory since the last store.
    pub cache_dropped: bool,
    /// And something of the file was stored after that: the old bytes may have been read, and
    /// written with their neighbours.
    pub read_again: bool,
    /// It was to be given up, by a call that failed.
    pub in_doubt: bool,
}

/// What the disk had.
#[derive(Clone, Debug)]
pub enum Disk {
    /// The file had no name any more: nobody can say, or cares.
    Unknown,
    /// These pages, as they were stored last.
    Has(BTreeSet<u64>),
}

/// An msync that gave 0 after some write had failed.
#[derive(Clone, Debug)]
pub struct Point {
    /// Who called.
    pub pid: i32,
    /// Kernel time around the call.
    pub time: Range<u64>,
    /// Number of the file within its run: names and inode numbers come again.
    pub file: usize,
    /// Inode number.
    pub ino: u64,
    /// Pages that the call was asked for.
    pub requested: Range<u64>,
    /// Everything stored.
    pub pages: BTreeMap<u64, Page>,
    /// Pages of the file.
    pub size: u64,
    /// Requests that failed and also held blocks that nobody stored: zeros, which a file system
    /// writes with their neighbours.
    pub mixed: BTreeSet<u64>,
    /// What the disk had then.
    pub disk: Disk,
}

/// Why a page that the disk does not have need not be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Excuse {
    /// Another page of the file waits to be written, and the kernel may take this one along.
    DirtyWithNeighbour,
    /// The page left memory, was read again, and its old bytes were written with a neighbour's:
    /// to the kernel that is a write of this page that succeeded.
    ReadAgain,
    /// It was not asked for, and the device took it: the file system may not have said yet where
    /// it is.
    NotAskedFor,
    /// It was to be given up, and the call that should have done it failed half-way.
    InDoubt,
    /// The same store was named to this process before, and the kernel tried once more.
    TriedAgain,
}

impl Excuse {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Excuse::DirtyWithNeighbour => "dirty again with a neighbour",
            Excuse::ReadAgain => "old bytes written with a neighbour",
            Excuse::NotAskedFor => "outside the range and taken by the device",
            Excuse::InDoubt => "given up by a call that failed",
            Excuse::TriedAgain => "named before and tried again",
        }
    }
}

/// What may be said of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It is lost: it must be named.
    Must,
    /// It is lost, but need not be named.
    May(Excuse),
    /// The disk has it, or nobody stored it, and its request failed.
    Torn,
    /// There is nothing to say.
    MustNot,
}

impl Point {
    /// What may be said of a page.
    pub fn word(&self, number: u64) -> Word {
        let Some(page) = self.pages.get(&number) else {
            return match number < self.size && self.any_mixed() {
                true => Word::Torn,
                false => Word::MustNot,
            };
        };
        let fate = page.fates.last().copied().flatten();
        let refused = matches!(fate, Some(Fate::Refused(_)));
        let Disk::Has(kept) = &self.disk else {
            // Deleted: whatever was refused may be named, nothing is owed.
            return match refused || self.any_refused() {
                true => Word::Torn,
                false => Word::MustNot,
            };
        };
        match (kept.contains(&number), fate) {
            (false, Some(_)) if page.in_doubt => Word::May(Excuse::InDoubt),
            (false, None) if page.in_doubt => Word::MustNot,
            (true, Some(Fate::Refused(_))) => Word::Torn,
            (true, _) => Word::MustNot,
            (false, Some(Fate::Refused(_))) if page.overtaken() => Word::May(Excuse::ReadAgain),
            (false, Some(Fate::Refused(_))) if self.any_waits() => {
                Word::May(Excuse::DirtyWithNeighbour)
            }
            (false, Some(Fate::Refused(_))) => Word::Must,
            (false, Some(Fate::Written(_)) | None) if self.requested.contains(&number) => {
                Word::Must
            }
            (false, Some(Fate::Written(_))) => Word::May(Excuse::NotAskedFor),
            // Dirty: nobody promised anything yet.
            (false, None) => Word::MustNot,
        }
    }

    /// A store that the device has not seen.
    fn any_waits(&self) -> bool {
        self.pages
            .values()
            .any(|page| page.fates.last().is_some_and(Option::is_none))
    }

    fn any_refused(&self) -> bool {
        self.refusals().next().is_some()
    }

    /// Whether zeros were refused together with pages of this file.
    fn any_mixed(&self) -> bool {
        self.refusals().any(|request| self.mixed.contains(&request))
    }

    /// Requests that failed.
    fn refusals(&self) -> impl Iterator<Item = u64> {
        let fates = self.pages.values().flat_map(|page| &page.fates).flatten();
        fates.filter_map(|fate| match fate {
            Fate::Refused(request) => Some(*request),
            Fate::Written(_) => None,
        })
    }
}

impl Page {
    /// Bytes older than the refused ones may have been written after them.
    fn overtaken(&self) -> bool {
        let number = |fate: &Option<Fate>| match fate {
            Some(Fate::Written(number) | Fate::Refused(number)) => *number,
            None => 0,
        };
        let last = self.fates.last().map_or(0, number);
        let older = &self.fates[..self.fates.len().saturating_sub(1)];
        self.read_again || older.iter().any(|fate| number(fate) > last)
    }

    /// An earlier store was refused.
    fn refused_before(&self) -> bool {
        let older = &self.fates[..self.fates.len().saturating_sub(1)];
        older
            .iter()
            .any(|fate| matches!(fate, Some(Fate::Refused(_))))
    }

    /// It was refused and stored again, and the device has not seen the new bytes yet.
    pub fn dirty_again(&self) -> bool {
        self.fates.last().is_some_and(Option::is_none) && self.refused_before()
    }

    /// What was stored last and what became of it: equal values, the same failure.
    pub fn newest(&self) -> Option<(u64, Option<Fate>)> {
        Some((*self.generations.last()?, *self.fates.last()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: Option<Fate> = Some(Fate::Written(1));
    const REFUSED: Option<Fate> = Some(Fate::Refused(2));

    fn point(fates: &[Option<Fate>], kept: &[u64], requested: Range<u64>) -> Point {
        let page = |fate: &Option<Fate>| Page {
            generations: vec![1],
            fates: vec![*fate],
            ..Page::default()
        };
        Point {
            pid: 1,
            time: 0..1,
            file: 0,
            ino: 1,
            requested,
            pages: (0..).zip(fates.iter().map(page)).collect(),
            size: 48,
            mixed: BTreeSet::new(),
            disk: Disk::Has(kept.iter().copied().collect()),
        }
    }

    #[test]
    fn what_was_refused_and_is_not_there_must_be_named_wherever_it_is() {
        let point = point(&[WRITTEN, REFUSED], &[0], 0..1);
        assert_eq!(point.word(0), Word::MustNot);
        assert_eq!(point.word(1), Word::Must);
        assert_eq!(point.word(2), Word::MustNot, "never stored");
    }

    #[test]
    fn what_was_refused_and_is_there_was_torn() {
        assert_eq!(point(&[REFUSED], &[0], 0..1).word(0), Word::Torn);
    }

    #[test]
    fn zeros_that_were_refused_with_their_neighbours_may_be_named() {
        let mut point = point(&[REFUSED], &[], 0..1);
        assert_eq!(point.word(1), Word::MustNot);
        point.mixed.insert(2);
        assert_eq!(point.word(1), Word::Torn);
        assert_eq!(point.word(48), Word::MustNot, "past the end");
    }

    #[test]
    fn what_waits_is_no_loss_and_may_take_others_along() {
        let waits = point(&[REFUSED, None], &[], 0..1);
        assert_eq!(waits.word(0), Word::May(Excuse::DirtyWithNeighbour));
        assert_eq!(waits.word(1), Word::MustNot);
        let asked = point(&[None], &[], 0..1);
        assert_eq!(asked.word(0), Word::Must, "msync did not even write it");
    }

    #[test]
    fn what_the_device_took_and_the_file_does_not_have_is_lost_if_it_was_asked_for() {
        assert_eq!(point(&[WRITTEN], &[], 0..1).word(0), Word::Must);
        let outside = point(&[WRITTEN], &[], 3..4);
        assert_eq!(outside.word(0), Word::May(Excuse::NotAskedFor));
    }

    #[test]
    fn old_bytes_written_over_a_lost_page_excuse_it() {
        let mut point = point(&[REFUSED], &[], 0..1);
        let page = point.pages.get_mut(&0).unwrap();
        page.generations.insert(0, 0);
        page.fates.insert(0, Some(Fate::Written(3)));
        assert_eq!(point.word(0), Word::May(Excuse::ReadAgain));
    }
}
