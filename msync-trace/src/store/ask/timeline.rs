//! What happened to one file, in the order of the times: several of a kind in a row are one entry,
//! and of very many entries the first and the last are kept.

use std::collections::VecDeque;

use crate::{
    model::{ByteRange, Call, Errno, ToldWho},
    schema::TimelineKind,
};

/// Things of a kind no further apart than this, nanoseconds, are one entry.
const ROW: u64 = 10_000_000_000;

/// One thing that happened, or several of a kind in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Index of its run among the runs of the report.
    pub(super) run: usize,
    /// Kernel time, nanoseconds; of several, the first.
    pub(super) at: u64,
    pub(super) what: TimelineKind,
    pub(super) range: Option<ByteRange>,
    pub(super) errno: Option<Errno>,
    pub(super) call: Option<Call>,
    /// Its row in `tasks` of the record of its run.
    pub(super) task: Option<i64>,
    pub(super) told: Option<ToldWho>,
    /// The incident, by its place among those that were found.
    pub(super) incident: Option<usize>,
    pub(super) count: u64,
    /// When the last of several happened.
    pub(super) until: u64,
}

impl Entry {
    /// Whether `next` is one more of the same.
    fn goes_on(&self, next: &Self) -> bool {
        // An incident is never merged, and whoever noticed a failure is a hint at best.
        let alone = self.what == TimelineKind::Incident;
        let is_sync = matches!(self.what, TimelineKind::SyncOk | TimelineKind::SyncFailed);
        !alone
            && (
                self.run,
                self.what,
                self.errno,
                self.call,
                self.told,
                self.incident,
            ) == (
                next.run,
                next.what,
                next.errno,
                next.call,
                next.told,
                next.incident,
            )
            && (!is_sync || self.task == next.task)
            && next.at.saturating_sub(self.until) <= ROW
    }

    fn take_in(&mut self, next: &Self) {
        self.count += next.count;
        self.until = self.until.max(next.until);
        self.range = match (self.range, next.range) {
            (Some(a), Some(b)) => ByteRange::new(a.start().min(b.start()), a.end().max(b.end())),
            _ => None,
        };
    }
}

/// Collects the entries of one file.
#[derive(Debug)]
pub(super) struct Timeline {
    /// Half of the entries that are kept at most.
    half: usize,
    first: Vec<Entry>,
    last: VecDeque<Entry>,
    left_out: u64,
}

impl Timeline {
    /// Keeps at most so many entries.
    pub(super) fn within(limit: usize) -> Self {
        Self {
            half: (limit / 2).max(1),
            first: Vec::new(),
            last: VecDeque::new(),
            left_out: 0,
        }
    }

    /// One more thing, not earlier than those of the same run before.
    pub(super) fn add(&mut self, entry: Entry) {
        let newest = self.last.back_mut().or(self.first.last_mut());
        if let Some(newest) = newest
            && newest.goes_on(&entry)
        {
            newest.take_in(&entry);
            return;
        }
        if self.first.len() < self.half {
            self.first.push(entry);
            return;
        }
        if self.last.len() == self.half {
            self.last.pop_front();
            self.left_out += 1;
        }
        self.last.push_back(entry);
    }

    /// The entries, and how many were left out.
    pub(super) fn finish(self) -> (Vec<Entry>, u64) {
        let mut all = self.first;
        all.extend(self.last);
        (all, self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn failed(at: u64, page: u64) -> Entry {
        Entry {
            run: 0,
            at,
            what: TimelineKind::WriteFailed,
            range: ByteRange::with_len(page * 4096, 4096),
            errno: Some(Errno::EIO),
            call: None,
            task: Some(i64::try_from(page).unwrap()),
            told: None,
            incident: None,
            count: 1,
            until: at,
        }
    }

    #[test]
    fn a_storm_is_one_entry_that_says_how_many() {
        let mut timeline = Timeline::within(10);
        for page in 0..100_000 {
            timeline.add(failed(page * S / 1000, page));
        }
        let (entries, left_out) = timeline.finish();
        assert_eq!((entries.len(), left_out), (1, 0));
        assert_eq!(entries[0].count, 100_000);
        assert_eq!(entries[0].range, ByteRange::new(0, 100_000 * 4096));
        assert_eq!((entries[0].at, entries[0].until), (0, 99_999 * S / 1000));
    }

    #[test]
    fn of_very_many_the_first_and_the_last_are_kept_and_the_rest_is_counted() {
        let mut timeline = Timeline::within(4);
        for hour in 0..10 {
            timeline.add(failed(hour * 3600 * S, hour));
        }
        let (entries, left_out) = timeline.finish();
        let hours: Vec<u64> = entries.iter().map(|e| e.at / (3600 * S)).collect();
        assert_eq!((hours, left_out), (vec![0, 1, 8, 9], 6));
    }
}
