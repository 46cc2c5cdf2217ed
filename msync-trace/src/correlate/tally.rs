//! What is counted over all inodes: incidents, distinct files and bytes, losses of information.

use std::collections::BTreeMap;

use super::{Limits, interval::IntervalMap};
use crate::model::{Incident, IncidentId, InodeKey, LossCause, Lost, MonoTime, Verdict};

/// What a run found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Incidents.
    pub incidents: u64,
    /// Distinct inodes that incidents name.
    pub files: u64,
    /// Distinct bytes that incidents name; a byte counts once, however often it was lost and
    /// whoever was lied to. (Beyond [`Limits::inodes`] files or [`Limits::entries`] ranges some
    /// are forgotten here, and count again if they come back.)
    pub bytes: u64,
    /// What was not seen or had to be forgotten, by cause.
    pub losses: BTreeMap<LossCause, u64>,
    /// Inodes with outstanding failures now.
    pub outstanding: u64,
}

/// The running totals, and what is needed to keep them distinct.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) totals: Totals,
    lost: BTreeMap<InodeKey, IntervalMap<()>>,
    /// Entries of all of them.
    lost_ranges: usize,
}

impl Ledger {
    /// Something was not seen.
    pub(super) fn lose(&mut self, at: MonoTime, loss: Lost, out: &mut Vec<Verdict>) {
        let count = self.totals.losses.entry(loss.cause).or_default();
        *count = count.saturating_add(loss.count);
        out.push(Verdict::Incomplete { at, loss });
    }

    fn count(&mut self, incident: &Incident, limits: &Limits) {
        if !self.lost.contains_key(&incident.inode) {
            self.totals.files += 1;
        }
        let lost = self.lost.entry(incident.inode).or_default();
        self.lost_ranges -= lost.len();
        for range in &incident.ranges {
            let mut new = 0;
            lost.update(*range, |piece, before| {
                if before.is_none() {
                    new += piece.len();
                }
                Some(())
            });
            self.totals.bytes = self.totals.bytes.saturating_add(new);
        }
        self.lost_ranges += lost.len();
        while self.lost.len() > limits.inodes.max(1) || self.lost_ranges > limits.entries.max(1) {
            let Some((_, forgotten)) = self.lost.pop_first() else {
                break;
            };
            self.lost_ranges -= forgotten.len();
        }
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
        self.ledger.count(&incident, self.limits);
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
