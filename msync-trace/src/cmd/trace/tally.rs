//! Counts of what was reported.

use crate::{
    correlate::Distinct,
    model::{ChangeKind, Evidence, Incident, ToldWho},
    schema::Totals,
};

/// Counts incidents and changes; bytes that several processes were lied to about count once.
#[derive(Debug, Default)]
pub(super) struct Tally {
    totals: Totals,
    distinct: Distinct,
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
        self.distinct.add(incident);
        (totals.files, totals.bytes) = (self.distinct.files, self.distinct.bytes);
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
