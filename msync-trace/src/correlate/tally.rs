//! What is counted over all inodes: incidents, losses of information.

use std::collections::BTreeMap;

use super::Limits;
use crate::model::{Incident, IncidentId, LossCause, Lost, MonoTime, Verdict};

/// What a run found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Incidents.
    pub incidents: u64,
    /// What was not seen or had to be forgotten, by cause.
    pub losses: BTreeMap<LossCause, u64>,
    /// Inodes with outstanding failures now.
    pub outstanding: u64,
}

/// The running totals.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) totals: Totals,
}

impl Ledger {
    /// Something was not seen.
    pub(super) fn lose(&mut self, at: MonoTime, loss: Lost, out: &mut Vec<Verdict>) {
        let count = self.totals.losses.entry(loss.cause).or_default();
        *count = count.saturating_add(loss.count);
        out.push(Verdict::Incomplete { at, loss });
    }
}

/// Where the rules of one inode put what they find.
#[derive(Debug)]
pub(super) struct Tally<'a> {
    pub(super) limits: &'a Limits,
    pub(super) ledger: &'a mut Ledger,
    pub(super) out: &'a mut Vec<Verdict>,
}

impl Tally<'_> {
    /// The number of the next incident.
    pub(super) fn next_id(&self) -> IncidentId {
        IncidentId(self.ledger.totals.incidents + 1)
    }

    /// A new incident, with the number that [`Self::next_id`] gave.
    pub(super) fn incident(&mut self, incident: Incident) {
        self.ledger.totals.incidents += 1;
        self.out.push(Verdict::Incident(Box::new(incident)));
    }

    /// State was forgotten at a memory limit.
    pub(super) fn give_up(&mut self, at: MonoTime, count: u64) {
        if count > 0 {
            let cause = LossCause::MemoryLimit;
            self.ledger.lose(at, Lost { cause, count }, self.out);
        }
    }
}
