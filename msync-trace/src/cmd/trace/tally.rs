//! Counts of what was reported.

use std::collections::BTreeMap;

use crate::{
    model::{ByteRange, ChangeKind, Evidence, Incident, InodeKey, ToldWho},
    schema::Totals,
};

/// Counts incidents and changes; bytes that several processes were lied to about count once.
#[derive(Debug, Default)]
pub(super) struct Tally {
    totals: Totals,
    lost: BTreeMap<InodeKey, Union>,
}

impl Tally {
    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    pub(super) fn incident(&mut self, incident: &Incident) {
        let totals = &mut self.totals;
        totals.incidents += 1;
        *match incident.told {
            ToldWho::Nobody => &mut totals.told_nobody,
            ToldWho::Other => &mut totals.told_other,
            ToldWho::Caller => &mut totals.told_caller,
            ToldWho::Pending => &mut totals.told_pending,
        } += 1;
        if incident.evidence == Evidence::Inode {
            totals.incidents_without_range += 1;
        }
        let lost = self.lost.entry(incident.inode).or_insert_with(|| {
            totals.files += 1;
            Union::default()
        });
        for range in &incident.ranges {
            totals.bytes = totals.bytes.saturating_add(lost.add(*range));
        }
    }

    pub(super) fn change(&mut self, change: ChangeKind) {
        let totals = &mut self.totals;
        *match change {
            ChangeKind::Repeated { .. } => &mut totals.repeats,
            ChangeKind::Recovered => &mut totals.recovered,
            ChangeKind::Discarded => &mut totals.discarded,
            ChangeKind::Evicted => &mut totals.evicted,
        } += 1;
    }
}

/// A set of bytes: start and end of ranges that neither overlap nor touch.
#[derive(Debug, Default)]
struct Union(BTreeMap<u64, u64>);

impl Union {
    /// Adds a range and says how many of its bytes are new.
    fn add(&mut self, range: ByteRange) -> u64 {
        let (mut start, mut end) = (range.start(), range.end());
        let mut known = 0;
        // From the last range that begins at or before our end, backwards.
        while let Some((&at, &until)) = self.0.range(..=end).next_back() {
            if until < start {
                break;
            }
            known += until.min(range.end()).saturating_sub(at.max(range.start()));
            start = start.min(at);
            end = end.max(until);
            self.0.remove(&at);
        }
        self.0.insert(start, end);
        range.len() - known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_byte_counts_once(ranges in proptest::collection::vec((0_u64..60, 1_u64..20), 0..12)) {
            let mut union = Union::default();
            let mut naive = std::collections::BTreeSet::new();
            for (start, len) in ranges {
                let before = naive.len();
                naive.extend(start..start + len);
                let added = union.add(ByteRange::with_len(start, len).unwrap());
                prop_assert_eq!(added, (naive.len() - before) as u64);
            }
        }
    }
}
