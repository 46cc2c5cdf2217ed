//! Recorded facts judged again, and where that differs from what was recorded: a newer version may
//! know better.
//!
//! An incident is the same one if it is about the same file, the same call of the same thread and the
//! same moment, whatever its number.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::{Question, Reader, RunRow, StoreError, ask::Names, export};
use crate::{
    correlate::{Config, Correlator},
    model::{
        ByteRange, Call, Change, ChangeKind, Coverage, Errno, Evidence, InMemory, Incident,
        IncidentId, InodeKey, MonoTime, Task, ToldWho, Verdict,
    },
    schema::{
        Body, Clock, Difference, DifferenceKind, IncidentRecord, Moment, Name, PathFrom,
        Recomputed, spell_dev,
    },
};

/// What tells incidents apart: file, time of the false success, thread, call.
type Key = (InodeKey, MonoTime, u32, Call);

/// An incident and what became of it, as far as two answers can be compared.
#[derive(Clone, Debug)]
struct Judged {
    id: IncidentId,
    path: Option<Name>,
    path_from: Option<PathFrom>,
    device: Option<String>,
    dev: Option<u32>,
    task: Task,
    ranges: Vec<ByteRange>,
    errno: Errno,
    first_failed: MonoTime,
    last_failed: MonoTime,
    requested: ByteRange,
    told: ToldWho,
    coverage: Coverage,
    evidence: Evidence,
    in_memory: InMemory,
    later: Later,
}

/// What became of an incident.
#[derive(Clone, Copy, Debug, Default)]
struct Later {
    recovered: Option<MonoTime>,
    discarded: Option<MonoTime>,
    evicted: Option<MonoTime>,
    repeats: u64,
}

impl Judged {
    fn recorded(it: IncidentRecord) -> Self {
        Self {
            id: it.incident,
            path: it.file.path,
            path_from: it.file.path_from,
            device: it.file.device,
            dev: it.file.dev,
            task: it.process.task,
            ranges: it.ranges,
            errno: it.error,
            first_failed: it.first_failed.mono_ns,
            last_failed: it.last_failed.mono_ns,
            requested: it.requested,
            told: it.told,
            coverage: it.coverage,
            evidence: it.evidence,
            in_memory: it.in_memory,
            later: Later::default(),
        }
    }

    fn again(it: Incident) -> Self {
        Self {
            id: it.id,
            path: it.file.path.map(Name),
            path_from: Some(match it.file.from_root {
                true => PathFrom::Caller,
                false => PathFrom::Filesystem,
            }),
            device: it.file.dev_name,
            dev: it.file.dev,
            task: it.task,
            ranges: it.ranges,
            errno: it.errno,
            first_failed: it.failed_at,
            last_failed: it.last_failed_at,
            requested: it.requested,
            told: it.told,
            coverage: it.coverage,
            evidence: it.evidence,
            in_memory: it.in_memory,
            later: Later::default(),
        }
    }

    fn change(&mut self, at: MonoTime, kind: ChangeKind) {
        let later = &mut self.later;
        match kind {
            ChangeKind::Repeated { repeats } => later.repeats = later.repeats.max(repeats),
            ChangeKind::Recovered => later.recovered = Some(at),
            ChangeKind::Discarded => later.discarded = Some(at),
            ChangeKind::Evicted => later.evicted = Some(at),
        }
    }

    /// The members in which two answers differ, by their names in JSON. Of a run that was killed the
    /// last repeats may not have been recorded.
    fn differs(&self, other: &Self, ended: bool) -> Vec<String> {
        let (mine, theirs) = (&self.later, &other.later);
        let members = [
            (self.ranges != other.ranges, "ranges"),
            (self.errno != other.errno, "error"),
            (self.first_failed != other.first_failed, "first_failed"),
            (self.last_failed != other.last_failed, "last_failed"),
            (self.requested != other.requested, "requested"),
            (self.told != other.told, "told"),
            (self.coverage != other.coverage, "coverage"),
            (self.evidence != other.evidence, "evidence"),
            (self.in_memory != other.in_memory, "in_memory"),
            (mine.recovered != theirs.recovered, "recovered"),
            (mine.discarded != theirs.discarded, "discarded"),
            (mine.evicted != theirs.evicted, "evicted"),
            (ended && mine.repeats != theirs.repeats, "repeats"),
        ];
        let different = members.iter().filter(|(differs, _)| *differs);
        different.map(|(_, name)| (*name).to_owned()).collect()
    }
}

/// All incidents of one answer.
#[derive(Debug, Default)]
struct Judgement {
    all: BTreeMap<Key, VecDeque<Judged>>,
    keys: HashMap<IncidentId, Key>,
}

impl Judgement {
    fn add(&mut self, key: Key, it: Judged) {
        self.keys.insert(it.id, key);
        self.all.entry(key).or_default().push_back(it);
    }

    fn change(&mut self, change: &Change) {
        let key = self.keys.get(&change.id);
        let same = key.and_then(|key| self.all.get_mut(key));
        if let Some(it) = same.and_then(|same| same.iter_mut().find(|it| it.id == change.id)) {
            it.change(change.at, change.kind);
        }
    }
}

/// Judges the facts of a run again, with the calls that it was made with, and compares what was asked
/// for. `index` is that of the run in
/// a report; `seen` is told of each fact.
///
/// # Errors
/// If the record cannot be read.
pub fn recompute(
    (reader, run): (&Reader, &RunRow),
    question: &Question,
    calls: &[Call],
    index: usize,
    mut seen: impl FnMut(),
) -> Result<Recomputed, StoreError> {
    let recorded = recorded(reader, run)?;
    let mut correlator = Correlator::new(Config {
        calls: calls.iter().copied().collect(),
        include_async: run.include_async,
        ..Config::default()
    });
    let mut again = Judgement::default();
    let mut verdicts = Vec::new();
    reader.facts(run, |_, fact| {
        seen();
        correlator.apply(&fact, &mut verdicts);
        for verdict in verdicts.drain(..) {
            match verdict {
                Verdict::Incident(it) => {
                    let key = (it.inode, it.synced_at, it.task.tid, it.call);
                    again.add(key, Judged::again(*it));
                }
                Verdict::Change(change) => again.change(&change),
                Verdict::Incomplete { .. } | Verdict::Released { .. } => {}
            }
        }
        Ok::<_, StoreError>(())
    })?;
    let clock = export::clock_of(reader, run)?;
    let comparison = Comparison {
        question,
        clock: &clock,
        ended: run.ended.is_some(),
    };
    let (same, differences) = comparison.of(recorded, again);
    Ok(Recomputed {
        run: index,
        same,
        differences,
    })
}

fn recorded(reader: &Reader, run: &RunRow) -> Result<Judgement, StoreError> {
    let mut judgement = Judgement::default();
    export::records(reader, export::Lines::Incidents, |of, record| {
        if of.run != run.run {
            return Ok(());
        }
        let at = record.head.mono_ns;
        match record.body {
            Body::Incident(it) => {
                let key = (it.file.inode, at, it.process.task.tid, it.call);
                judgement.add(key, Judged::recorded(*it));
            }
            Body::Change(it) => judgement.change(&Change {
                at,
                id: it.incident,
                kind: it.change,
            }),
            _ => {}
        }
        Ok::<_, StoreError>(())
    })?;
    Ok(judgement)
}

/// What two answers are compared by.
struct Comparison<'a> {
    question: &'a Question,
    clock: &'a Clock,
    /// Whether the run came to its end.
    ended: bool,
}

impl Comparison<'_> {
    /// How many of the incidents that were asked for are the same, and the others in the order of
    /// their times.
    fn of(&self, recorded: Judgement, mut again: Judgement) -> (u64, Vec<Difference>) {
        let mut same = 0;
        let mut differences = Vec::new();
        for (key, all) in recorded.all {
            for before in all {
                let now = again.all.get_mut(&key).and_then(VecDeque::pop_front);
                let both = [Some(&before), now.as_ref()];
                if !both.iter().flatten().any(|it| self.wants(key, it, &before)) {
                    continue;
                }
                match now.map(|now| before.differs(&now, self.ended)) {
                    None => {
                        let missing = DifferenceKind::Missing;
                        differences.push(self.difference(missing, key, before, Vec::new()));
                    }
                    Some(members) if members.is_empty() => same += 1,
                    Some(members) => {
                        let changed = DifferenceKind::Changed;
                        differences.push(self.difference(changed, key, before, members));
                    }
                }
            }
        }
        for (key, all) in again.all {
            for it in all.into_iter().filter(|it| self.wants(key, it, it)) {
                differences.push(self.difference(DifferenceKind::New, key, it, Vec::new()));
            }
        }
        differences.sort_by_key(|difference| (difference.at.mono_ns, difference.incident));
        (same, differences)
    }

    /// Whether an incident was asked for; `named` is the same one with the names that are known.
    fn wants(&self, key: Key, it: &Judged, named: &Judged) -> bool {
        let dev = named.dev.map(spell_dev);
        self.question.in_window(self.clock.wall(key.1))
            && self.question.wants_verdict(it.errno, it.told)
            && self
                .question
                .wants_process(it.task.process.pid, &it.task.comm)
            && self.question.wants_file(Names {
                path: named.path.as_ref().map(|path| &*path.0),
                path_from: named.path_from,
                device: named.device.as_deref(),
                dev: dev.as_deref(),
            })
    }

    fn difference(
        &self,
        kind: DifferenceKind,
        key: Key,
        it: Judged,
        members: Vec<String>,
    ) -> Difference {
        Difference {
            kind,
            incident: it.id,
            at: Moment::at(key.1, self.clock),
            inode: key.0,
            path: it.path,
            process: it.task,
            members,
        }
    }
}
