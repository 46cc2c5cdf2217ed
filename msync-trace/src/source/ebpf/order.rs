//! Records in the order of their times. Pure: records and the time in, facts out.
//!
//! A record that is still being filled hides those behind it in its ring, for as long as its CPU is
//! kept from its work: microseconds, or as long as a hypervisor pleases. So time passes here only
//! when the rings have been emptied of all that had a place in them. A failure is stamped even
//! before it has its place. A sync record carries the kernel's count of its inode's failures; when
//! more were counted than have come, it waits for them.

use std::{collections::BTreeMap, time::Duration};

use msync_trace_ebpf as abi;

use super::decode::{Joiner, Record};
use crate::model::{CallId, Fact, FactKind, LossCause, Lost, MonoTime, keep::keep};

/// How long a record may stay behind others of earlier times.
pub const REORDER: Duration = Duration::from_millis(10);

/// How long a sync waits for a failure that the kernel counted and that has not come, ns: its CPU
/// was stopped in the middle of the hook. Then it is taken for lost.
const LATE_NS: u64 = 1_000_000_000;

/// For so long after a ring was full, a failure that has not come is taken for dropped at once, ns.
const DROPPING_NS: u64 = 10_000_000_000;

/// From so many records that wait, none more are taken than let time pass, and no sync waits for a
/// failure: an incident without its bytes is better than memory without a limit.
const CROWDED: usize = 8_192;

/// Records that were taken from the rings and not handed on yet.
#[derive(Debug, Default)]
pub struct Order {
    /// By time, then by arrival.
    records: BTreeMap<(u64, u64), Record>,
    /// Number of the next record.
    next: u64,
    /// Everything that had a place in a ring at this time has been taken, `CLOCK_MONOTONIC` ns. Not
    /// the time of the release: between two rings this thread may have waited for a processor while
    /// a failure went into the first and its sync into the second.
    drained_at: u64,
    /// When the ring of failures was last seen to have dropped something.
    dropped_at: Option<u64>,
    /// What is not later than this was told by the copy of the object that is gone.
    taken_over: u64,
    joiner: Joiner,
}

impl Order {
    /// The rings were emptied of all that had a place in them at this time.
    pub fn drained(&mut self, began: u64) {
        self.drained_at = began;
    }

    /// Takes a record from a ring.
    pub fn push(&mut self, record: Record) {
        match record {
            // Paths need no order: they are kept until their sync record comes.
            Record::Path(call, view) => self.joiner.path(call, view),
            Record::Name(key, view) => self.joiner.name(key, view),
            record => {
                self.joiner.arrived(&record);
                if record.at() > self.taken_over {
                    self.insert(record);
                } else if let Some(record) = in_both(record) {
                    self.insert(record);
                }
            }
        }
    }

    /// The records of one copy of the object are all here, those of the next one follow. Both saw
    /// what happened around `at`: until then the first one is believed, and later the second. Hands
    /// on everything, and failures that the first one counted and that did not come; what the second
    /// one counts of these inodes begins at one.
    pub fn hand_over(
        &mut self,
        at: u64,
        followed: &[(abi::InodeKey, abi::InodeState)],
        into: &mut Vec<Fact>,
    ) {
        let is_loss = |record: &Record| matches!(record, Record::Fact(fact, _) if matches!(fact.kind, FactKind::Lost(_)));
        self.records
            .retain(|(time, _), record| *time <= at || is_loss(record));
        self.release_all(into);
        let joiner = &mut self.joiner;
        let summaries = followed.iter();
        into.extend(summaries.filter_map(|(key, state)| joiner.summary(key, state)));
        self.taken_over = at;
        self.joiner.count_anew(followed.iter().map(|(key, _)| *key));
    }

    /// Something could not be seen.
    pub fn lose(&mut self, cause: LossCause, count: u64, now: u64) {
        if cause == LossCause::ErrorRingFull {
            self.dropped_at = Some(now);
        }
        let fact = Fact {
            at: MonoTime(now),
            kind: FactKind::Lost(Lost { cause, count }),
        };
        self.insert(Record::Fact(fact, abi::InodeKey::ZERO));
    }

    fn insert(&mut self, record: Record) {
        self.records.insert((record.at(), self.next), record);
        self.next += 1;
    }

    /// Hands on what is older than [`REORDER`] and need not wait.
    pub fn release(&mut self, into: &mut Vec<Fact>) {
        let reorder = u64::try_from(REORDER.as_nanos()).unwrap_or(u64::MAX);
        let horizon = self.drained_at.saturating_sub(reorder);
        while let Some(entry) = self.records.first_entry() {
            let at = entry.key().0;
            if at > horizon || (self.joiner.misses(entry.get()) && self.may_come(at)) {
                break;
            }
            self.hand_on(into);
        }
    }

    /// Whether a failure that a sync at this time misses may still come.
    fn may_come(&self, at: u64) -> bool {
        let dropping = self
            .dropped_at
            .is_some_and(|dropped| self.drained_at.saturating_sub(dropped) < DROPPING_NS);
        !self.is_crowded() && !dropping && self.drained_at.saturating_sub(at) < LATE_NS
    }

    /// Hands on everything.
    pub fn release_all(&mut self, into: &mut Vec<Fact>) {
        while !self.records.is_empty() {
            self.hand_on(into);
        }
    }

    fn hand_on(&mut self, into: &mut Vec<Fact>) {
        if let Some((_, record)) = self.records.pop_first() {
            self.joiner.push(record, self.dropped_at.is_some(), into);
        }
    }

    /// How many records ever came, without the paths.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.next
    }

    /// Whether too many records wait: see [`CROWDED`].
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.records.len() >= CROWDED
    }

    /// Whether nothing waits to be handed on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Failures of the inode that came.
    #[must_use]
    pub fn failures_of(&self, key: &abi::InodeKey) -> u64 {
        self.joiner.failures_of(key)
    }

    /// See [`Joiner::give_up`].
    pub fn give_up(&mut self, key: abi::InodeKey) {
        self.joiner.give_up(key);
    }

    /// See [`Joiner::was_given_up`].
    #[must_use]
    pub fn was_given_up(&self, key: &abi::InodeKey) -> bool {
        self.joiner.was_given_up(key)
    }

    /// See [`Joiner::oldest_given_up`].
    #[must_use]
    pub fn oldest_given_up(&self, most: usize) -> Vec<abi::InodeKey> {
        self.joiner.oldest_given_up(most)
    }

    /// The inode is no longer followed by the kernel side.
    pub fn forget(&mut self, key: &abi::InodeKey) {
        self.joiner.forget(key);
    }
}

/// What is left of a record that another copy of the object has told too. Of a call that is still
/// running, both copies keep the files: only the one that sees its end tells.
fn in_both(record: Record) -> Option<Record> {
    match record {
        Record::SyncFile(file) if file.flags & abi::SYNC_ALONE == 0 => Some(Record::SyncFile(file)),
        Record::SyncEnd(end) => {
            let at = MonoTime(end.header.at);
            Some(Record::SyncTold(at, CallId(end.call_id)))
        }
        _ => None,
    }
}

keep!(struct Order { records, next, drained_at, dropped_at, taken_over, joiner });

#[cfg(test)]
mod tests {
    use zerocopy::{FromZeros, IntoBytes};

    use super::*;
    use crate::model::{WriteFailed, keep::Keep};
    use crate::source::ebpf::decode::decode;

    const SECOND: u64 = 1_000_000_000;

    fn failure(at: u64) -> Record {
        failure_of(11, at)
    }

    fn failure_of(ino: u64, at: u64) -> Record {
        let mut record = abi::WriteFailed::new_zeroed();
        record.header.kind = abi::KIND_WRITE_FAILED;
        record.header.at = at;
        record.inode.ino = ino;
        record.end = 4096;
        record.errno = 5;
        decode(record.as_bytes()).unwrap()
    }

    /// A sync that read the kernel's count of failures.
    fn sync(at: u64, failures: u64) -> Record {
        let mut record = abi::SyncFile::new_zeroed();
        record.header.kind = abi::KIND_SYNC_FILE;
        record.header.at = at;
        record.inode.ino = 11;
        record.call = abi::CALL_FSYNC;
        record.flags = abi::SYNC_ALONE;
        record.end = u64::MAX;
        record.size = 4096;
        record.state.failures = failures;
        record.state.errno = 5;
        record.state.last_at = at;
        decode(record.as_bytes()).unwrap()
    }

    fn released(order: &mut Order, now: u64) -> Vec<FactKind> {
        let mut facts = Vec::new();
        order.drained(now);
        order.release(&mut facts);
        facts.into_iter().map(|fact| fact.kind).collect()
    }

    #[test]
    fn records_come_out_by_time_not_by_arrival() {
        let mut order = Order::default();
        order.push(sync(200, 1));
        order.push(failure(100));
        let facts = released(&mut order, SECOND);
        assert!(matches!(
            &facts[..],
            [FactKind::WriteFailed(_), FactKind::SyncReturn(_)]
        ));
    }

    #[test]
    fn nothing_is_handed_on_within_the_reorder_window() {
        let mut order = Order::default();
        order.push(failure(SECOND));
        assert!(released(&mut order, SECOND + 5_000_000).is_empty());
        assert_eq!(released(&mut order, SECOND + 10_000_000).len(), 1);
    }

    /// The CPU of the failure was stopped after it had been counted, longer than any window.
    #[test]
    fn a_sync_waits_for_a_failure_that_was_counted_and_has_not_come() {
        let mut order = Order::default();
        order.push(sync(SECOND, 1));
        assert!(released(&mut order, SECOND + 900_000_000).is_empty());
        order.push(failure(SECOND - 1));
        let facts = released(&mut order, SECOND + 900_000_001);
        assert!(matches!(
            &facts[..],
            [FactKind::WriteFailed(failed), FactKind::SyncReturn(_)] if failed.range.is_some()
        ));
    }

    /// Its CPU was stopped in a storm.
    #[test]
    fn no_sync_waits_while_too_many_records_do() {
        let mut order = Order::default();
        order.push(sync(SECOND, 1));
        for n in 1..CROWDED as u64 {
            order.push(failure_of(12, SECOND + n));
        }
        assert!(order.is_crowded());
        let facts = released(&mut order, SECOND + 900_000_000);
        let [
            FactKind::WriteFailed(failed),
            FactKind::Lost(lost),
            FactKind::SyncReturn(_),
            ..,
        ] = &facts[..]
        else {
            panic!("{:?}", facts.get(..4))
        };
        assert_eq!(failed.range, None);
        assert_eq!((lost.cause, lost.count), (LossCause::RecordLate, 1));
        assert!(!order.is_crowded());
    }

    /// An interrupt came between the time stamp of the sync and its look at the count.
    #[test]
    fn a_failure_right_after_the_time_of_a_sync_that_counted_it_is_not_missed() {
        let mut order = Order::default();
        order.push(sync(SECOND, 1));
        order.push(failure(SECOND + 20_000_000));
        let facts = released(&mut order, SECOND + 20_000_000);
        assert!(matches!(&facts[..], [FactKind::SyncReturn(_)]));
        let facts = released(&mut order, 2 * SECOND);
        assert!(matches!(&facts[..], [FactKind::WriteFailed(_)]));
    }

    #[test]
    fn a_failure_that_never_comes_is_made_good_without_its_bytes_and_told() {
        let mut order = Order::default();
        order.push(sync(SECOND, 2));
        let facts = released(&mut order, 2 * SECOND);
        let [
            FactKind::WriteFailed(failed),
            FactKind::Lost(lost),
            FactKind::SyncReturn(_),
        ] = &facts[..]
        else {
            panic!("{facts:?}")
        };
        assert_eq!(failed.range, None);
        assert_eq!((lost.cause, lost.count), (LossCause::RecordLate, 2));
    }

    /// In a storm nothing waits, and what the kernel side counted is not counted twice.
    #[test]
    fn a_ring_that_was_full_explains_what_did_not_come() {
        let mut order = Order::default();
        order.lose(LossCause::ErrorRingFull, 2, SECOND - 1);
        order.push(sync(SECOND, 2));
        let facts = released(&mut order, SECOND + 10_000_000);
        assert!(matches!(
            &facts[..],
            [
                FactKind::Lost(Lost {
                    cause: LossCause::ErrorRingFull,
                    count: 2
                }),
                FactKind::WriteFailed(WriteFailed { range: None, .. }),
                FactKind::SyncReturn(_)
            ]
        ));
    }

    /// Nobody further on remembers it, and the kernel side still does.
    #[test]
    fn an_inode_that_was_given_up_fails_again_before_its_next_sync() {
        let mut order = Order::default();
        let failed = failure(100);
        let Record::Fact(_, key) = &failed else {
            panic!("{failed:?}")
        };
        let key = *key;
        order.push(failed);
        assert_eq!(released(&mut order, SECOND).len(), 1);
        order.give_up(key);
        assert_eq!(order.oldest_given_up(8), [key]);
        order.push(sync(SECOND, 1));
        order.push(sync(SECOND + 1, 1));
        let facts = released(&mut order, 2 * SECOND);
        assert!(
            matches!(
                &facts[..],
                [
                    FactKind::WriteFailed(WriteFailed { range: None, .. }),
                    FactKind::SyncReturn(_),
                    FactKind::SyncReturn(_)
                ]
            ),
            "{facts:?}"
        );
        assert!(!order.was_given_up(&key));
    }

    #[test]
    fn at_the_end_nothing_waits() {
        let mut order = Order::default();
        order.push(sync(SECOND, 1));
        let mut facts = Vec::new();
        order.drained(SECOND);
        order.release_all(&mut facts);
        assert_eq!(facts.len(), 3);
        assert!(order.is_empty());
    }

    /// One file of an msync, and its end.
    fn msync(call_id: u64, at: u64, end: u64) -> [Record; 2] {
        let mut file = abi::SyncFile::new_zeroed();
        file.header.kind = abi::KIND_SYNC_FILE;
        file.header.at = at;
        file.inode.ino = 11;
        file.call = abi::CALL_MSYNC;
        file.call_id = call_id;
        file.end = u64::MAX;
        let mut back = abi::SyncEnd::new_zeroed();
        back.header.kind = abi::KIND_SYNC_END;
        back.header.at = end;
        back.call_id = call_id;
        [file.as_bytes(), back.as_bytes()].map(|bytes| decode(bytes).unwrap())
    }

    /// What two copies of the object saw, of which the second took over at 1000.
    fn handed_over(first: Vec<Record>, second: Vec<Record>) -> Vec<FactKind> {
        let mut facts = Vec::new();
        let mut order = Order::default();
        first.into_iter().for_each(|record| order.push(record));
        order.hand_over(1000, &[], &mut facts);
        second.into_iter().for_each(|record| order.push(record));
        order.release_all(&mut facts);
        facts.into_iter().map(|fact| fact.kind).collect()
    }

    #[test]
    fn losses_of_the_first_copy_are_told_however_late_they_are_noticed() {
        let mut facts = Vec::new();
        let mut order = Order::default();
        order.lose(LossCause::SyncRingFull, 3, 1100);
        order.hand_over(1000, &[], &mut facts);
        assert!(matches!(facts[0].kind, FactKind::Lost(_)));
    }

    #[test]
    fn what_two_copies_saw_is_told_once() {
        let first = vec![failure(900), sync(950, 1), failure(1100)];
        let second = vec![failure(901), sync(951, 1), failure(1101), sync(1200, 2)];
        let facts = handed_over(first, second);
        assert!(matches!(
            &facts[..],
            [
                FactKind::WriteFailed(_),
                FactKind::SyncReturn(_),
                FactKind::WriteFailed(_),
                FactKind::SyncReturn(_)
            ]
        ));
    }

    #[test]
    fn an_msync_is_told_by_the_copy_that_sees_its_end_in_time() {
        for end in [990, 1010] {
            let first = Vec::from(msync(1, 900, end));
            let second = Vec::from(msync(2, 901, end + 1));
            let facts = handed_over(first, second);
            assert!(
                matches!(&facts[..], [FactKind::SyncReturn(_)]),
                "{end}: {facts:?}"
            );
        }
    }

    /// Nobody read the rings, and they were full.
    #[test]
    fn what_the_first_copy_counted_and_did_not_tell_is_known_without_its_bytes() {
        let mut facts = Vec::new();
        let mut order = Order::default();
        let mut key = abi::InodeKey::ZERO;
        key.ino = 11;
        let mut state = abi::InodeState::new_zeroed();
        (state.failures, state.last_at, state.errno) = (3, 700, 28);
        order.hand_over(1000, &[(key, state)], &mut facts);
        let [fact] = &facts[..] else {
            panic!("{facts:?}")
        };
        assert_eq!(fact.at, MonoTime(700));
        let FactKind::WriteFailed(failed) = &fact.kind else {
            panic!("{fact:?}")
        };
        assert_eq!((failed.range, failed.errno.number()), (None, 28));
    }

    /// What waits for its turn, and what the joiner knows, is the same after a restart.
    #[test]
    fn a_restart_in_the_middle_of_a_call_changes_nothing() {
        let mut order = Order::default();
        order.push(failure(100));
        let [file, end] = msync(7, 200, 300);
        order.push(file);
        assert_eq!(released(&mut order, SECOND).len(), 1);
        order.push(end);
        let mut bytes = Vec::new();
        order.keep(&mut bytes);
        let mut anew = Order::kept(&mut &bytes[..]).unwrap();
        let facts = released(&mut anew, SECOND);
        assert_eq!(facts, released(&mut order, SECOND));
        assert!(matches!(&facts[..], [FactKind::SyncReturn(_)]), "{facts:?}");
    }

    /// The second copy counts from one for what the first one saw.
    #[test]
    fn a_sync_after_a_hand_over_does_not_wait_for_what_the_first_copy_told() {
        let mut facts = Vec::new();
        let mut order = Order::default();
        let failed = failure(900);
        let Record::Fact(_, key) = &failed else {
            panic!("{failed:?}")
        };
        let key = *key;
        order.push(failed);
        let mut state = abi::InodeState::new_zeroed();
        state.failures = 1;
        order.hand_over(1000, &[(key, state)], &mut facts);
        order.push(failure(901));
        order.push(sync(1100, 2));
        let facts = released(&mut order, SECOND / 2);
        assert!(matches!(&facts[..], [FactKind::SyncReturn(_)]), "{facts:?}");
    }
}
