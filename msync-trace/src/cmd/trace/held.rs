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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Comparison, from_line};

    const INCIDENT: &str = r#"{"schema":1,"time":"2026-11-20T12:00:02.000000000Z","mono_ns":2,
        "type":"incident","incident":1,"error":{"number":5,"name":"EIO"},
        "file":{"path":null,"path_from":null,"path_when_failed":null,"deleted":false,"mount":null,
        "fs_type":null,"device":null,"dev":"8:17","inode":{"fs_uuid":null,"dev":"8:17","ino":12,
        "generation":1,"subvolume":null}},"ranges":[{"start":0,"end":4096}],"bytes":4096,
        "evidence":"page","told":"nobody","coverage":"inside","in_memory":"yes",
        "first_failed":{"time":"2026-11-20T12:00:01.000000000Z","mono_ns":1},
        "last_failed":{"time":"2026-11-20T12:00:01.000000000Z","mono_ns":1},
        "writer":null,"call":"msync","requested":{"start":0,"end":4096},
        "process":{"pid":1,"start_ns":1,"tid":1,"uid":0,"comm":"a","cgroup_id":null,
        "kernel_thread":false,"exe":null,"cgroup":null,"container":null}}"#;
    const CHANGE: &str = r#"{"schema":1,"time":"2026-11-20T12:00:04.000000000Z","mono_ns":4,
        "type":"change","incident":1,"change":"recovered"}"#;

    fn record(text: &str) -> Record {
        from_line(text.replace('\n', "").as_bytes()).unwrap()
    }

    fn incident(record: Option<Record>) -> IncidentRecord {
        match record.unwrap().body {
            Body::Incident(incident) => *incident,
            other => panic!("{other:?}"),
        }
    }

    fn same() -> Verdict {
        let comparison = Comparison {
            same_bytes: 4096,
            ..Comparison::default()
        };
        (Verified::Same, comparison)
    }

    #[test]
    fn what_follows_an_incident_is_not_shown_before_it() {
        let mut held = Held::default();
        held.incident(record(INCIDENT));
        held.behind(record(CHANGE));
        assert_eq!(held.next(|_| None), None);
        let first = incident(held.next(|_| Some(same())));
        assert_eq!(first.verified, Some(Verified::Same));
        let second = held.next(|_| None).unwrap();
        assert!(matches!(second.body, Body::Change(_)));
        assert!(held.is_empty());
    }

    #[test]
    fn equal_bytes_that_may_have_been_read_back_prove_nothing() {
        let mut held = Held::default();
        held.incident(record(INCIDENT));
        held.left_memory(&incident(Some(record(INCIDENT))).file.inode);
        assert_eq!(
            incident(held.next(|_| Some(same()))).verified,
            Some(Verified::Unknown)
        );
        held.incident(record(
            &INCIDENT.replace("\"in_memory\":\"yes\"", "\"in_memory\":\"unknown\""),
        ));
        assert_eq!(
            incident(held.next(|_| Some(same()))).verified,
            Some(Verified::Unknown)
        );
    }

    #[test]
    fn an_incident_is_shown_without_a_verdict_when_it_takes_too_long() {
        let mut held = Held::default();
        held.incident(record(INCIDENT));
        held.0[0].until = Some(Instant::now());
        let shown = incident(held.next(|_| None));
        assert_eq!(shown.verified, Some(Verified::Unknown));
        let comparison = shown.comparison.unwrap();
        assert_eq!(comparison.unknown_bytes, 4096);
        assert!(comparison.reason.is_some());
    }
}
