//! The correlator against a second model that is too naive to be wrong: an array with one entry
//! per byte, and lists of everything that was ever said. It shares no code with the correlator.
//!
//! `PROPTEST_CASES` sets the number of cases.

use std::collections::{BTreeMap, BTreeSet};

use msync_trace::{
    correlate::{Config, Correlator, Distinct},
    model::*,
};
use proptest::prelude::*;

/// Bytes of each file.
const SIZE: u64 = 48;

/// What a verdict says, as far as the naive model can say it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Incident {
        id: u64,
        ino: u64,
        bytes: Vec<u64>,
        errno: Errno,
        synced_at: u64,
        call: Call,
        pid: u32,
        told: ToldWho,
        coverage: Coverage,
        evidence: Evidence,
        in_memory: InMemory,
    },
    Change(u64, ChangeKind),
    Settled(u64),
}

/// One byte that could not be written.
#[derive(Clone, Debug)]
struct LostByte {
    first: u64,
    last: u64,
    /// Which failure was the newest: number of the fact, then offset.
    order: (usize, u64),
    errno: Errno,
    dirty: bool,
    /// `None`: not known.
    in_memory: Option<bool>,
    /// Who was lied to about this failure, and in which incident.
    lied_to: BTreeMap<(ProcessId, bool), u64>,
    /// Every incident that ever named this byte and was not forgotten by its recovery.
    named_in: BTreeSet<u64>,
}

/// Some byte, nobody knows which, could not be written.
#[derive(Clone, Debug)]
struct LostSomewhere {
    first: u64,
    errno: Errno,
    in_memory: Option<bool>,
    lied_to: BTreeMap<(ProcessId, bool), u64>,
}

#[derive(Clone, Debug, Default)]
struct File {
    bytes: BTreeMap<u64, LostByte>,
    somewhere: Option<LostSomewhere>,
    /// (description, when, whether that description still exists)
    told: Vec<(FileId, u64, bool)>,
    successes: Vec<(u64, SyncReturn)>,
}

impl File {
    fn outstanding(&self) -> bool {
        !self.bytes.is_empty() || self.somewhere.is_some()
    }
}

#[derive(Clone, Debug, Default)]
struct Past {
    ino: u64,
    stands_for_somewhere: bool,
    recovered: bool,
    evicted_said: bool,
    over: bool,
    repeats: u64,
}

#[derive(Debug, Default)]
struct Naive {
    include_async: bool,
    facts: usize,
    files: BTreeMap<u64, File>,
    incidents: BTreeMap<u64, Past>,
    ever_named: BTreeSet<(u64, u64)>,
    ever_ino: BTreeSet<u64>,
    /// Oldest and newest failure of each incident, exactly.
    times: BTreeMap<u64, (u64, u64)>,
}

fn offsets(range: ByteRange) -> impl Iterator<Item = u64> {
    range.start()..range.end().min(SIZE)
}

fn kind_of(sync: &SyncReturn) -> (ProcessId, bool) {
    (sync.task.process, sync.call == Call::MsyncAsync)
}

impl Naive {
    fn apply(&mut self, fact: &Fact) -> Vec<Said> {
        self.facts += 1;
        let mut said = Vec::new();
        let at = fact.at.0;
        let ino = match &fact.kind {
            FactKind::WriteFailed(f) => f.inode.ino,
            FactKind::WriteOk(f) => f.inode.ino,
            FactKind::Redirtied(f) => f.inode.ino,
            FactKind::SyncReturn(f) => f.inode.ino,
            FactKind::Told(f) => f.inode.ino,
            FactKind::Opened(f) => f.inode.ino,
            FactKind::Discarded(f) => f.inode.ino,
            FactKind::Evicted(f) => f.inode.ino,
            FactKind::Gone(f) => f.inode.ino,
            FactKind::Lost(_) | FactKind::StorageError(_) => return said,
        };
        let was_outstanding = self.files.entry(ino).or_default().outstanding();
        match &fact.kind {
            FactKind::WriteFailed(f) => self.write_failed(ino, at, f, &mut said),
            FactKind::WriteOk(f) => self.save(ino, f.range, true),
            FactKind::Discarded(f) => self.save(ino, f.range, false),
            FactKind::Redirtied(f) => {
                for offset in offsets(f.range) {
                    if let Some(byte) = self.file(ino).bytes.get_mut(&offset) {
                        byte.dirty = true;
                        byte.in_memory = Some(true);
                    }
                }
            }
            FactKind::Evicted(f) => self.evict(ino, at, f.range),
            FactKind::SyncReturn(f) => self.sync_return(ino, at, f, &mut said),
            FactKind::Told(f) => self.file(ino).told.push((f.file, at, true)),
            FactKind::Opened(f) => {
                for told in &mut self.file(ino).told {
                    told.2 &= told.0 != f.file;
                }
            }
            FactKind::Gone(f) if f.deleted => {
                self.save(ino, ByteRange::ALL, false);
            }
            FactKind::Gone(_) => {
                self.evict(ino, at, ByteRange::ALL);
                for told in &mut self.file(ino).told {
                    told.2 = false;
                }
            }
            FactKind::Lost(_) | FactKind::StorageError(_) => {}
        }
        self.changes(ino, &mut said);
        if matches!(&fact.kind, FactKind::Gone(f) if f.deleted) {
            *self.file(ino) = File::default();
        }
        let file = self.file(ino);
        if !file.outstanding() {
            if was_outstanding {
                said.push(Said::Settled(ino));
            }
            let file = self.file(ino);
            if !file.told.iter().any(|told| told.2) {
                file.told.clear();
            }
        }
        said
    }

    fn file(&mut self, ino: u64) -> &mut File {
        self.files.get_mut(&ino).unwrap()
    }

    fn write_failed(&mut self, ino: u64, at: u64, failed: &WriteFailed, said: &mut Vec<Said>) {
        let number = self.facts;
        let in_memory = failed.eviction_watched.then_some(true);
        let file = self.file(ino);
        match failed.range {
            None => match &mut file.somewhere {
                Some(lost) => {
                    lost.first = lost.first.min(at);
                    lost.errno = failed.errno;
                    lost.in_memory = in_memory;
                }
                none => {
                    *none = Some(LostSomewhere {
                        first: at,
                        errno: failed.errno,
                        in_memory,
                        lied_to: BTreeMap::new(),
                    });
                }
            },
            Some(range) => {
                for offset in offsets(range) {
                    let before = file.bytes.remove(&offset);
                    let mut byte = LostByte {
                        first: at,
                        last: at,
                        order: (number, offset),
                        errno: failed.errno,
                        dirty: false,
                        in_memory,
                        lied_to: BTreeMap::new(),
                        named_in: BTreeSet::new(),
                    };
                    if let Some(before) = before {
                        if !before.dirty {
                            byte.first = at.min(before.first);
                            byte.last = at.max(before.last);
                            byte.lied_to = before.lied_to;
                        }
                        byte.named_in = before.named_in;
                    }
                    file.bytes.insert(offset, byte);
                }
            }
        }
        // The successes that this proves false: of each process the last one.
        let mut lies: Vec<(u64, SyncReturn)> = Vec::new();
        for (returned, sync) in self.file(ino).successes.clone() {
            let out_of_order = at < returned;
            let overlaps = failed.range.is_none_or(|r| r.overlaps(sync.range));
            let too_early = failed.submitted.is_some_and(|s| s.0 <= returned) && overlaps;
            if out_of_order || too_early {
                lies.retain(|(_, other)| kind_of(other) != kind_of(&sync));
                lies.push((returned, sync));
            }
        }
        for (returned, sync) in lies {
            let who = kind_of(&sync);
            match failed.range {
                Some(range) => {
                    let file = self.file(ino);
                    let unreported = offsets(range)
                        .filter(|o| !file.bytes[o].lied_to.contains_key(&who))
                        .collect();
                    self.report_bytes(ino, returned, &sync, unreported, said);
                }
                None => self.report_somewhere(ino, returned, &sync, said),
            }
        }
    }

    fn save(&mut self, ino: u64, range: ByteRange, recovered: bool) {
        let mut ids = BTreeSet::new();
        for offset in offsets(range) {
            if let Some(byte) = self.file(ino).bytes.remove(&offset) {
                ids.extend(byte.named_in);
            }
        }
        if range == ByteRange::ALL && self.file(ino).somewhere.take().is_some() {
            for (id, past) in &mut self.incidents {
                if past.ino == ino && past.stands_for_somewhere {
                    past.stands_for_somewhere = false;
                    ids.insert(*id);
                }
            }
        }
        for id in ids {
            self.incidents.get_mut(&id).unwrap().recovered |= recovered;
        }
    }

    fn evict(&mut self, ino: u64, at: u64, range: ByteRange) {
        let number = self.facts;
        let file = self.file(ino);
        for offset in offsets(range) {
            let Some(byte) = file.bytes.get_mut(&offset) else {
                continue;
            };
            byte.in_memory = Some(false);
            if byte.dirty {
                byte.dirty = false;
                byte.first = at;
                byte.last = at;
                byte.order = (number, offset);
                byte.lied_to.clear();
            }
        }
        if let Some(lost) = &mut file.somewhere {
            if range == ByteRange::ALL {
                lost.in_memory = Some(false);
            } else if lost.in_memory == Some(true) {
                lost.in_memory = None;
            }
        }
    }

    fn sync_return(&mut self, ino: u64, at: u64, sync: &SyncReturn, said: &mut Vec<Said>) {
        let chosen =
            sync.call == Call::Msync || (self.include_async && sync.call == Call::MsyncAsync);
        if sync.error.is_some() || !chosen {
            return;
        }
        let who = kind_of(sync);
        let file = self.file(ino);
        let mut unreported = Vec::new();
        let mut repeated = BTreeSet::new();
        for (offset, byte) in file.bytes.iter().filter(|(_, byte)| !byte.dirty) {
            match byte.lied_to.get(&who) {
                Some(id) => {
                    repeated.insert(*id);
                }
                None => unreported.push(*offset),
            }
        }
        if let Some(lost) = &file.somewhere {
            repeated.extend(lost.lied_to.get(&who));
        }
        file.successes.push((at, sync.clone()));
        if unreported.is_empty() {
            self.report_somewhere(ino, at, sync, said);
        } else {
            self.report_bytes(ino, at, sync, unreported, said);
            let id = self.incidents.len() as u64;
            if let Some(lost) = &mut self.file(ino).somewhere
                && !lost.lied_to.contains_key(&who)
            {
                lost.lied_to.insert(who, id);
                self.incidents.get_mut(&id).unwrap().stands_for_somewhere = true;
            }
        }
        for id in repeated {
            let past = self.incidents.get_mut(&id).unwrap();
            past.repeats += 1;
            let repeats = past.repeats;
            said.push(Said::Change(id, ChangeKind::Repeated { repeats }));
        }
    }

    fn told(&self, ino: u64, first: u64, sync: &SyncReturn) -> ToldWho {
        let since: Vec<_> = self.files[&ino]
            .told
            .iter()
            .filter(|told| told.1 >= first)
            .collect();
        if sync.pending {
            ToldWho::Pending
        } else if since.iter().any(|t| t.2 && Some(t.0) == sync.file) {
            ToldWho::Caller
        } else if !since.is_empty() {
            ToldWho::Other
        } else {
            ToldWho::Nobody
        }
    }

    fn report_bytes(
        &mut self,
        ino: u64,
        at: u64,
        sync: &SyncReturn,
        bytes: Vec<u64>,
        said: &mut Vec<Said>,
    ) {
        if bytes.is_empty() {
            return;
        }
        let id = self.incidents.len() as u64 + 1;
        let file = self.files.get_mut(&ino).unwrap();
        for offset in &bytes {
            let byte = file.bytes.get_mut(offset).unwrap();
            byte.lied_to.insert(kind_of(sync), id);
            byte.named_in.insert(id);
            self.ever_named.insert((ino, *offset));
        }
        self.ever_ino.insert(ino);
        let file = &self.files[&ino];
        let lost: Vec<&LostByte> = bytes.iter().map(|o| &file.bytes[o]).collect();
        let first = lost.iter().map(|b| b.first).min().unwrap();
        let last = lost.iter().map(|b| b.last).max().unwrap();
        self.times.insert(id, (first, last));
        let inside = |o: &&u64| sync.range.start() <= **o && **o < sync.range.end();
        let covered = bytes.iter().filter(inside).count();
        let all = |state| lost.iter().all(|b| b.in_memory == state);
        let in_memory = if all(Some(true)) {
            InMemory::Yes
        } else if all(Some(false)) {
            InMemory::No
        } else if lost.iter().any(|b| b.in_memory == Some(true)) {
            InMemory::Partly
        } else {
            InMemory::Unknown
        };
        let past = Past {
            ino,
            evicted_said: in_memory == InMemory::No,
            ..Past::default()
        };
        said.push(Said::Incident {
            id,
            ino,
            errno: lost.iter().max_by_key(|b| b.order).unwrap().errno,
            synced_at: at,
            call: sync.call,
            pid: sync.task.process.pid,
            told: self.told(ino, first, sync),
            coverage: match covered {
                0 => Coverage::Outside,
                n if n == bytes.len() => Coverage::Inside,
                _ => Coverage::Partly,
            },
            evidence: Evidence::Page,
            in_memory,
            bytes,
        });
        self.incidents.insert(id, past);
    }

    fn report_somewhere(&mut self, ino: u64, at: u64, sync: &SyncReturn, said: &mut Vec<Said>) {
        let id = self.incidents.len() as u64 + 1;
        let Some(lost) = &mut self.files.get_mut(&ino).unwrap().somewhere else {
            return;
        };
        if lost.lied_to.contains_key(&kind_of(sync)) {
            return;
        }
        lost.lied_to.insert(kind_of(sync), id);
        let lost = lost.clone();
        self.ever_ino.insert(ino);
        self.incidents.insert(
            id,
            Past {
                ino,
                stands_for_somewhere: true,
                evicted_said: lost.in_memory == Some(false),
                ..Past::default()
            },
        );
        said.push(Said::Incident {
            id,
            ino,
            bytes: Vec::new(),
            errno: lost.errno,
            synced_at: at,
            call: sync.call,
            pid: sync.task.process.pid,
            told: self.told(ino, lost.first, sync),
            coverage: match sync.range == ByteRange::ALL {
                true => Coverage::Inside,
                false => Coverage::Partly,
            },
            evidence: Evidence::Inode,
            in_memory: match lost.in_memory {
                Some(true) => InMemory::Yes,
                Some(false) => InMemory::No,
                None => InMemory::Unknown,
            },
        });
    }

    /// Looks at every incident of the file again.
    fn changes(&mut self, ino: u64, said: &mut Vec<Said>) {
        let file = &self.files[&ino];
        for (id, past) in &mut self.incidents {
            if past.ino != ino || past.over {
                continue;
            }
            let left: Vec<_> = file
                .bytes
                .values()
                .filter(|b| b.named_in.contains(id))
                .collect();
            let somewhere = past.stands_for_somewhere.then_some(&file.somewhere);
            let somewhere = somewhere.and_then(Option::as_ref);
            if left.is_empty() && somewhere.is_none() {
                past.over = true;
                said.push(Said::Change(
                    *id,
                    match past.recovered {
                        true => ChangeKind::Recovered,
                        false => ChangeKind::Discarded,
                    },
                ));
            } else if !past.evicted_said
                && left.iter().all(|b| b.in_memory == Some(false))
                && somewhere.is_none_or(|s| s.in_memory == Some(false))
            {
                past.evicted_said = true;
                said.push(Said::Change(*id, ChangeKind::Evicted));
            }
        }
    }
}

/// What the correlator said, in the naive model's words. `exact` are the times of each incident's
/// failures: the correlator may widen them to those of failures that came in one go.
fn said(verdicts: &[Verdict], exact: &BTreeMap<u64, (u64, u64)>) -> Vec<Said> {
    let said = |verdict: &Verdict| match verdict {
        Verdict::Incident(i) => {
            for pair in i.ranges.windows(2) {
                assert!(pair[0].end() < pair[1].start(), "sorted and apart");
            }
            if let Some((first, last)) = exact.get(&i.id.0) {
                assert!(i.failed_at.0 <= *first && *last <= i.last_failed_at.0);
            }
            Said::Incident {
                id: i.id.0,
                ino: i.inode.ino,
                bytes: i.ranges.iter().flat_map(|r| r.start()..r.end()).collect(),
                errno: i.errno,
                synced_at: i.synced_at.0,
                call: i.call,
                pid: i.task.process.pid,
                told: i.told,
                coverage: i.coverage,
                evidence: i.evidence,
                in_memory: i.in_memory,
            }
        }
        Verdict::Change(change) => Said::Change(change.id.0, change.kind),
        Verdict::Released {
            inode,
            why: Release::Settled,
        } => Said::Settled(inode.ino),
        Verdict::Released { inode, why } => panic!("{inode} was forgotten: {why:?}"),
        Verdict::Incomplete { .. } => panic!("no limit is near: {verdict:?}"),
    };
    verdicts.iter().map(said).collect()
}

fn key(ino: u64) -> InodeKey {
    InodeKey {
        fs: FileSystemId::Device(1),
        ino,
        generation: 0,
        subvolume: 0,
    }
}

fn task(pid: u32) -> Task {
    Task {
        process: ProcessId { pid, start_time: 0 },
        tid: pid,
        uid: 0,
        comm: b"p".to_vec(),
        cgroup: 0,
        kernel_thread: false,
    }
}

/// Part of a file, most often small.
fn part() -> impl Strategy<Value = ByteRange> {
    let small = (0..SIZE, 1..9_u64);
    let large = (0..SIZE, 1..=SIZE);
    prop_oneof![3 => small, 1 => large]
        .prop_map(|(start, len)| ByteRange::new(start, (start + len).min(SIZE)).unwrap())
}

/// Part of a file, or all of it wherever it ends.
fn part_or_all() -> impl Strategy<Value = ByteRange> {
    prop_oneof![4 => part(), 1 => Just(ByteRange::ALL)]
}

fn file() -> impl Strategy<Value = FileId> {
    (1..4_u64).prop_map(FileId)
}

fn ino() -> impl Strategy<Value = InodeKey> {
    prop_oneof![3 => Just(key(1)), 1 => Just(key(2))]
}

fn errno() -> impl Strategy<Value = Errno> {
    prop_oneof![3 => Just(Errno::EIO), 1 => Just(Errno::ENOSPC)]
}

/// A write failure; its `submitted` counts back from the fact's time.
fn write_failed() -> impl Strategy<Value = WriteFailed> {
    let range = prop_oneof![9 => part().prop_map(Some), 1 => Just(None)];
    let submitted = prop_oneof![4 => Just(None), 1 => (0..20_u64).prop_map(Some)];
    let fields = (ino(), range, errno(), submitted, any::<bool>());
    fields.prop_map(
        |(inode, range, errno, submitted, eviction_watched)| WriteFailed {
            inode,
            range,
            errno,
            submitted: submitted.map(MonoTime),
            eviction_watched,
            writer: None,
            file: FileView::default(),
        },
    )
}

fn sync_return() -> impl Strategy<Value = SyncReturn> {
    let call =
        prop_oneof![5 => Just(Call::Msync), 1 => Just(Call::MsyncAsync), 1 => Just(Call::Fsync)];
    let error = prop_oneof![5 => Just(None), 1 => Just(Some(Errno::EIO))];
    let file = proptest::option::weighted(0.9, file());
    let fields = (
        (ino(), file, call, part_or_all()),
        (error, proptest::bool::weighted(0.1), 1..4_u32),
    );
    fields.prop_map(
        |((inode, file, call, range), (error, pending, pid))| SyncReturn {
            inode,
            file,
            call,
            id: CallId(0),
            range,
            error,
            pending,
            task: task(pid),
            file_view: FileView::default(),
        },
    )
}

fn fact_kind() -> impl Strategy<Value = FactKind> {
    let ranged = || (ino(), part_or_all());
    prop_oneof![
        30 => write_failed().prop_map(FactKind::WriteFailed),
        25 => sync_return().prop_map(FactKind::SyncReturn),
        10 => ranged().prop_map(|(inode, range)| FactKind::WriteOk(WriteOk { inode, range })),
        10 => (ino(), part()).prop_map(|(inode, range)| {
            FactKind::Redirtied(Redirtied { inode, range })
        }),
        10 => ranged().prop_map(|(inode, range)| FactKind::Evicted(Evicted { inode, range })),
        5 => ranged().prop_map(|(inode, range)| FactKind::Discarded(Discarded { inode, range })),
        6 => (ino(), file(), errno()).prop_map(|(inode, file, errno)| {
            FactKind::Told(Told { inode, file, errno, task: task(9) })
        }),
        3 => (ino(), file()).prop_map(|(inode, file)| FactKind::Opened(Opened { inode, file })),
        2 => (ino(), any::<bool>()).prop_map(|(inode, deleted)| {
            FactKind::Gone(Gone { inode, deleted })
        }),
    ]
}

/// Facts by time, but for some failures that arrive up to `lateness` too late.
fn facts(lateness: u64) -> impl Strategy<Value = Vec<Fact>> {
    let step = (fact_kind(), 0..4_u64, 0..=lateness, 0..4_u8);
    proptest::collection::vec(step, 1..60).prop_map(|steps| {
        let mut now = 100;
        let mut facts = Vec::new();
        for (mut kind, pause, late, dice) in steps {
            now += pause;
            let mut at = now;
            if let FactKind::WriteFailed(failed) = &mut kind {
                if dice == 0 {
                    at -= late;
                }
                failed.submitted = failed.submitted.map(|back| MonoTime(at - back.0));
            }
            facts.push(Fact {
                at: MonoTime(at),
                kind,
            });
        }
        facts
    })
}

fn verdicts(facts: &[Fact]) -> Vec<Verdict> {
    let mut correlator = Correlator::new(Config::default());
    let mut out = Vec::new();
    for fact in facts {
        correlator.apply(fact, &mut out);
    }
    out
}

fn cases(default: u32) -> u32 {
    let wanted = std::env::var("PROPTEST_CASES").ok();
    wanted.and_then(|n| n.parse().ok()).unwrap_or(default)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(2000),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_correlator_says_what_an_array_of_bytes_says(
        facts in facts(6),
        include_async in any::<bool>(),
        restarts in proptest::collection::btree_set(0..60_usize, 0..4),
    ) {
        let mut naive = Naive { include_async, ..Naive::default() };
        let mut correlator = Correlator::new(Config { include_async, ..Config::default() });
        let (mut out, mut distinct) = (Vec::new(), Distinct::default());
        for (number, fact) in facts.iter().enumerate() {
            out.clear();
            if restarts.contains(&number) {
                let config = Config { include_async, ..Config::default() };
                correlator = Correlator::resumed(config, &correlator.keep()).unwrap();
            }
            correlator.apply(fact, &mut out);
            for verdict in &out {
                if let Verdict::Incident(incident) = verdict {
                    distinct.add(incident);
                }
            }
            let expected = naive.apply(fact);
            prop_assert_eq!(said(&out, &naive.times), expected, "fact {}: {:?}", number, fact);
        }
        let totals = correlator.totals();
        prop_assert_eq!(totals.incidents, naive.incidents.len() as u64);
        prop_assert_eq!(distinct.bytes, naive.ever_named.len() as u64);
        prop_assert_eq!(distinct.files, naive.ever_ino.len() as u64);
        let outstanding = naive.files.values().filter(|file| file.outstanding()).count();
        prop_assert_eq!(totals.outstanding, outstanding as u64);
        prop_assert!(correlator.complete());
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(500),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn one_failure_or_its_pieces_give_the_same_verdicts(
        mut facts in facts(0),
        cuts in proptest::collection::vec(1..SIZE, 1..5),
    ) {
        // A late failure proves a sync false piece by piece; these here are on time.
        for fact in &mut facts {
            if let FactKind::WriteFailed(failed) = &mut fact.kind {
                failed.submitted = None;
            }
        }
        let mut pieces = Vec::new();
        for fact in &facts {
            let mut rest = fact.clone();
            for cut in cuts.iter().collect::<BTreeSet<_>>() {
                let FactKind::WriteFailed(WriteFailed { range: Some(range), .. }) = &mut rest.kind
                else {
                    break;
                };
                let (before, after) =
                    (ByteRange::new(range.start(), *cut), ByteRange::new(*cut, range.end()));
                if let (Some(before), Some(after)) = (before, after) {
                    *range = before;
                    pieces.push(rest.clone());
                    if let FactKind::WriteFailed(failed) = &mut rest.kind {
                        failed.range = Some(after);
                    }
                }
            }
            pieces.push(rest);
        }
        prop_assert_eq!(verdicts(&facts), verdicts(&pieces));
        prop_assert_eq!(verdicts(&facts), verdicts(&facts), "and so do the same facts again");
    }
}
