//! Records that wait for the verdict of a comparison, and those behind them: what is shown keeps its
//! order.

use std::{collections::VecDeque, time::Instant};

use super::verify::{HELD, Verdict, unknown};
use crate::{
    model::{IncidentId, InodeKey, Verified},
    schema::{Body, IncidentRecord, Record},
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Held(VecDeque<Waiting>);

#[derive(Debug)]
struct Waiting {
    record: Record,
    /// Until when at most; `None`: only for those before it.
    until: Option<Instant>,
    /// Pages of its file left memory after the false success.
    left_memory: bool,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An incident that a verdict will come for.
    pub(super) fn incident(&mut self, record: Record) {
        self.0.push_back(Waiting {
            record,
            until: Some(Instant::now() + HELD),
            left_memory: false,
        });
    }

    /// A record that waits for those before it.
    pub(super) fn behind(&mut self, record: Record) {
        self.0.push_back(Waiting {
            record,
            until: None,
            left_memory: false,
        });
    }

    /// Pages of this file left memory: what is there from now on can have been read back.
    pub(super) fn left_memory(&mut self, file: &InodeKey) {
        for waiting in &mut self.0 {
            if let Body::Incident(incident) = &waiting.record.body
                && incident.file.inode == *file
            {
                waiting.left_memory = true;
            }
        }
    }

    /// The next record, if its time has come; `verdict` gives what is known of an incident.
    pub(super) fn next(
        &mut self,
        verdict: impl FnOnce(IncidentId) -> Option<Verdict>,
    ) -> Option<Record> {
        let first = self.0.front_mut()?;
        if let (Some(until), Body::Incident(incident)) = (first.until, &mut first.record.body) {
            let is_late = Instant::now() >= until;
            let found = verdict(incident.incident)
                .or_else(|| is_late.then(|| unknown("the comparison took too long")))?;
            verify(incident, found, first.left_memory);
        }
        self.0.pop_front().map(|first| first.record)
    }
}

/// Bytes that are the same in memory and on the disk prove that nothing was lost, unless they left
/// memory and were read back.
fn verify(incident: &mut IncidentRecord, found: Verdict, left_memory: bool) {
    use crate::model::InMemory;

    let (mut verified, mut comparison) = found;
    let stayed = incident.in_memory == InMemory::Yes && !left_memory;
    if verified == Verified::Same && !stayed {
        verified = Verified::Unknown;
        comparison.reason = Some(
            "memory and the disk are the same, but these bytes may have left memory and been read \
             back"
                .to_owned(),
        );
    }
    let compared = comparison.same_bytes + comparison.differing_bytes + comparison.unknown_bytes;
    if compared == 0 {
        comparison.unknown_bytes = incident.bytes.unwrap_or(0);
    }
    incident.verified = Some(verified);
    incident.comparison = Some(comparison);
}
