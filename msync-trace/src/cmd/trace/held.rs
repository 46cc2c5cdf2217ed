//! Records that wait for the verdict of a comparison, and those behind them: what is shown keeps its
//! order.

use std::{collections::VecDeque, time::Instant};

use super::verify::{HELD, Verdict, unknown};
use crate::{
    model::{InMemory, IncidentId, InodeKey, Verified},
    schema::{Body, Record},
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
    /// Bytes of its file were written again, or given up, after the false success.
    written_again: bool,
    /// What the comparison said.
    verdict: Option<Verdict>,
}

impl Waiting {
    fn new(record: Record, until: Option<Instant>) -> Self {
        Self {
            record,
            until,
            left_memory: false,
            written_again: false,
            verdict: None,
        }
    }

    /// That all is the same is not relied on before the time is up: what made it so may not have
    /// been heard of yet.
    fn is_ready(&self) -> bool {
        let is_late = self.until.is_none_or(|until| Instant::now() >= until);
        let found = self.verdict.as_ref();
        is_late || found.is_some_and(|(verified, _)| *verified != Verified::Same)
    }
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An incident that a verdict will come for.
    pub(super) fn incident(&mut self, record: Record) {
        let until = Instant::now() + HELD;
        self.0.push_back(Waiting::new(record, Some(until)));
    }

    /// A record that waits for those before it.
    pub(super) fn behind(&mut self, record: Record) {
        self.0.push_back(Waiting::new(record, None));
    }

    /// Pages of this file left memory: what is there from now on can have been read back.
    pub(super) fn left_memory(&mut self, file: &InodeKey) {
        self.of_file(file)
            .for_each(|waiting| waiting.left_memory = true);
    }

    /// Bytes of this file were written again, or given up: what memory and the disk have from now on
    /// says nothing of what was lost before.
    pub(super) fn written_again(&mut self, file: &InodeKey) {
        self.of_file(file)
            .for_each(|waiting| waiting.written_again = true);
    }

    fn of_file(&mut self, file: &InodeKey) -> impl Iterator<Item = &mut Waiting> {
        self.0.iter_mut().filter(move |waiting| {
            matches!(&waiting.record.body, Body::Incident(one) if one.file.inode == *file)
        })
    }

    /// The next record, if its time has come; `verdict` gives what is known of an incident.
    pub(super) fn next(
        &mut self,
        verdict: impl FnOnce(IncidentId) -> Option<Verdict>,
    ) -> Option<Record> {
        let first = self.0.front_mut()?;
        if let (Some(_), Body::Incident(incident)) = (first.until, &first.record.body) {
            let id = incident.incident;
            first.verdict = first.verdict.take().or_else(|| verdict(id));
            if !first.is_ready() {
                return None;
            }
            verify(first);
        }
        self.0.pop_front().map(|first| first.record)
    }
}

/// Bytes that are the same in memory and on the disk prove that nothing was lost, unless they left
/// memory and were read back, or were written after the false success.
fn verify(waiting: &mut Waiting) {
    let found = waiting.verdict.take();
    let Body::Incident(incident) = &mut waiting.record.body else {
        return;
    };
    let (mut verified, mut comparison) =
        found.unwrap_or_else(|| unknown("the comparison took too long"));
    let stayed = incident.in_memory == InMemory::Yes && !waiting.left_memory;
    let doubt = match (waiting.written_again, stayed) {
        (true, _) => Some("memory and the disk are the same, but the file was written again"),
        (_, false) => Some(
            "memory and the disk are the same, but these bytes may have left memory and been read \
             back",
        ),
        (false, true) => None,
    };
    if let (Verified::Same, Some(doubt)) = (verified, doubt) {
        verified = Verified::Unknown;
        comparison.reason = Some(doubt.to_owned());
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
    use crate::schema::{Comparison, IncidentRecord, from_line};

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

    /// When its time is up.
    fn shown(held: &mut Held, verdict: Verdict) -> Option<Record> {
        held.0[0].until = Some(Instant::now());
        held.next(|_| Some(verdict))
    }

    #[test]
    fn equal_bytes_that_were_written_again_prove_nothing() {
        let mut held = Held::default();
        held.incident(record(INCIDENT));
        assert_eq!(held.next(|_| Some(same())), None, "the fact may follow");
        held.written_again(&incident(Some(record(INCIDENT))).file.inode);
        held.0[0].until = Some(Instant::now());
        let shown = incident(held.next(|_| None));
        assert_eq!(shown.verified, Some(Verified::Unknown));
        assert_eq!(shown.comparison.unwrap().same_bytes, 4096);
    }

    #[test]
    fn what_follows_an_incident_is_not_shown_before_it() {
        let mut held = Held::default();
        held.incident(record(INCIDENT));
        held.behind(record(CHANGE));
        assert_eq!(held.next(|_| None), None);
        let first = incident(shown(&mut held, same()));
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
            incident(shown(&mut held, same())).verified,
            Some(Verified::Unknown)
        );
        held.incident(record(
            &INCIDENT.replace("\"in_memory\":\"yes\"", "\"in_memory\":\"unknown\""),
        ));
        assert_eq!(
            incident(shown(&mut held, same())).verified,
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
