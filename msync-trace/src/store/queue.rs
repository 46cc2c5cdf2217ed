//! What waits to be stored: bounded in bytes, the newest kept.

use std::collections::VecDeque;

use crate::{
    model::{Fact, FactKind, FileView, InodeKey, MonoTime, Task},
    schema::{Body, Record, WallTime},
};

/// Something to be stored.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are facts, and a box for each would cost more"
)]
pub(super) enum Entry {
    /// A fact and its number in the record.
    Fact(i64, Fact),
    /// A record, and whether it was shown.
    Record(Box<Record>, bool),
    /// Wall time minus kernel time, from a moment on.
    Clock(MonoTime, i64),
    /// Nothing of this inode is outstanding any more.
    Settled(InodeKey),
    /// What was said about the record.
    Note(WallTime, String),
}

/// How much it matters: what matters least is given up first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    Fact,
    Other,
    Incident,
}

const RANKS: usize = 3;

impl Entry {
    fn rank(&self) -> Rank {
        match self {
            Self::Fact(..) => Rank::Fact,
            Self::Settled(_) | Self::Note(..) => Rank::Other,
            // Without it times are wrong.
            Self::Clock(..) => Rank::Incident,
            Self::Record(record, _) => match record.body {
                Body::Incident(_) | Body::Stop(_) => Rank::Incident,
                _ => Rank::Other,
            },
        }
    }

    /// Whether it is to be stored at once, not with the facts of the next moments.
    fn is_urgent(&self) -> bool {
        self.rank() == Rank::Incident
    }

    fn is_incident(&self) -> bool {
        matches!(self, Self::Record(record, _) if matches!(record.body, Body::Incident(_)))
    }

    /// Bytes of memory that it takes, with what it points to.
    fn size(&self) -> usize {
        let behind = match self {
            Self::Fact(_, fact) => behind_fact(fact),
            Self::Record(record, _) => size_of::<Record>() + behind_record(record),
            Self::Clock(..) | Self::Settled(_) => 0,
            Self::Note(_, text) => text.capacity(),
        };
        size_of::<Ordered>() + behind
    }
}

fn behind_fact(fact: &Fact) -> usize {
    match &fact.kind {
        FactKind::WriteFailed(it) => {
            behind_view(&it.file) + it.writer.as_ref().map_or(0, behind_task)
        }
        FactKind::SyncReturn(it) => behind_view(&it.file_view) + behind_task(&it.task),
        FactKind::Told(it) => behind_task(&it.task),
        FactKind::StorageError(_) => 64,
        _ => 0,
    }
}

/// What an allocation costs besides its bytes.
const ALLOCATION: usize = 16;

fn behind_view(view: &FileView) -> usize {
    let names = [&view.path, &view.mount].map(|name| name.as_ref().map_or(0, Vec::capacity));
    let words = [&view.fs_type, &view.dev_name].map(|it| it.as_ref().map_or(0, String::capacity));
    names.into_iter().chain(words).sum::<usize>() + 4 * ALLOCATION
}

fn behind_task(task: &Task) -> usize {
    task.comm.capacity() + ALLOCATION
}

/// At least: names are as long as they are, the rest is about this much.
fn behind_record(record: &Record) -> usize {
    match &record.body {
        Body::Incident(it) => {
            let names = [&it.file.path, &it.file.path_when_failed, &it.file.mount];
            let processes = [&it.process.exe, &it.process.cgroup];
            let names = names.into_iter().chain(processes).flatten();
            1024 + names.map(|name| name.0.len()).sum::<usize>() + size_of_val(it.ranges.as_slice())
        }
        Body::Hooks(it) => it.hooks.len() * 512,
        Body::Stop(_) => 4096,
        _ => 256,
    }
}

#[derive(Debug)]
struct Ordered {
    /// How many entries came before it.
    order: u64,
    entry: Entry,
}

/// What was given up for want of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Facts.
    pub facts: u64,
    /// Incidents.
    pub incidents: u64,
    /// Changes of incidents, losses, storage errors and the like.
    pub others: u64,
    /// Number of the first and of the last fact among them.
    pub numbers: Option<(i64, i64)>,
}

impl Dropped {
    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    fn add(&mut self, entry: &Entry) {
        match entry {
            Entry::Fact(number, _) => {
                self.facts += 1;
                let (first, last) = self.numbers.unwrap_or((*number, *number));
                self.numbers = Some((first.min(*number), last.max(*number)));
            }
            entry if entry.is_incident() => self.incidents += 1,
            _ => self.others += 1,
        }
    }
}

/// Entries that go into one transaction.
#[derive(Debug, Default)]
pub(super) struct Batch {
    entries: Vec<Ordered>,
    bytes: usize,
}

impl Batch {
    /// In the order in which they came, each with the number of entries up to and with it.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries.iter().map(|it| (it.order + 1, &it.entry))
    }

    /// Leaves out the entries up to this number, and counts the facts and incidents among them.
    pub(super) fn forget(&mut self, stored: u64) -> (u64, u64) {
        let rest = self.entries.partition_point(|it| it.order < stored);
        let rest = self.entries.split_off(rest);
        let there = self.counts();
        self.entries = rest;
        there
    }

    /// When the last fact in it happened.
    pub(super) fn last_fact(&self) -> Option<MonoTime> {
        self.entries.iter().rev().find_map(|it| match &it.entry {
            Entry::Fact(_, fact) => Some(fact.at),
            _ => None,
        })
    }

    /// Number of the last fact in it.
    pub(super) fn last_number(&self) -> Option<i64> {
        self.entries.iter().rev().find_map(|it| match it.entry {
            Entry::Fact(number, _) => Some(number),
            _ => None,
        })
    }

    /// Facts and incidents in it.
    pub(super) fn counts(&self) -> (u64, u64) {
        let mut counts = (0, 0);
        for it in &self.entries {
            counts.0 += u64::from(matches!(it.entry, Entry::Fact(..)));
            counts.1 += u64::from(it.entry.is_incident());
        }
        counts
    }
}

/// Entries in the order in which they came, by rank.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: [VecDeque<Ordered>; RANKS],
    next: u64,
    bytes: usize,
    /// In a transaction that is not over yet.
    in_flight: usize,
    /// Facts and incidents in it.
    flying: (u64, u64),
    limit: usize,
    urgent: bool,
    dropped: Dropped,
}

impl Queue {
    /// That holds so many bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            waiting: Default::default(),
            next: 0,
            bytes: 0,
            in_flight: 0,
            flying: (0, 0),
            limit,
            urgent: false,
            dropped: Dropped::default(),
        }
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.urgent |= entry.is_urgent();
        self.bytes += entry.size();
        let order = self.next;
        self.next += 1;
        self.waiting[entry.rank() as usize].push_back(Ordered { order, entry });
        self.make_room();
    }

    /// Gives up the oldest of what matters least.
    fn make_room(&mut self) {
        while self.bytes + self.in_flight > self.limit {
            let Some(given_up) = self.waiting.iter_mut().find_map(VecDeque::pop_front) else {
                return;
            };
            self.bytes -= given_up.entry.size();
            self.dropped.add(&given_up.entry);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.iter().all(VecDeque::is_empty)
    }

    /// Whether nothing waits and nothing is on its way to the disk.
    pub(super) fn is_idle(&self) -> bool {
        self.is_empty() && self.dropped.is_none() && self.in_flight == 0
    }

    /// Whether something in it should not wait.
    pub(super) fn is_urgent(&self) -> bool {
        self.urgent || self.bytes > self.limit / 8
    }

    /// Whether half of what it can hold is taken.
    pub(super) fn is_half_full(&self) -> bool {
        self.bytes + self.in_flight > self.limit / 2
    }

    /// What was given up and not yet forgotten.
    pub(super) fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// What was given up stands in the record.
    pub(super) fn forget_dropped(&mut self, told: Dropped) {
        let now = &mut self.dropped;
        now.facts -= told.facts;
        now.incidents -= told.incidents;
        now.others -= told.others;
        if now.facts == 0 {
            now.numbers = None;
        }
    }

    /// The oldest, up to about so many bytes.
    pub(super) fn take(&mut self, most: usize) -> Batch {
        let mut batch = Batch::default();
        while batch.bytes < most {
            let oldest = self
                .waiting
                .iter_mut()
                .filter(|waiting| !waiting.is_empty())
                .min_by_key(|waiting| waiting.front().map(|it| it.order));
            let Some(it) = oldest.and_then(VecDeque::pop_front) else {
                break;
            };
            let size = it.entry.size();
            batch.bytes += size;
            self.bytes -= size;
            batch.entries.push(it);
        }
        self.in_flight = batch.bytes;
        self.flying = batch.counts();
        self.urgent = self.waiting[Rank::Incident as usize].front().is_some();
        batch
    }

    /// The batch is on the disk.
    pub(super) fn stored(&mut self) {
        self.in_flight = 0;
        self.flying = (0, 0);
    }

    /// The batch could not be stored and waits again.
    pub(super) fn give_back(&mut self, batch: Batch) {
        self.in_flight = 0;
        self.flying = (0, 0);
        for it in batch.entries.into_iter().rev() {
            self.bytes += it.entry.size();
            self.waiting[it.entry.rank() as usize].push_front(it);
        }
        self.make_room();
    }

    /// Facts and incidents that are not stored yet.
    pub(super) fn counts(&self) -> (u64, u64) {
        let [facts, _, incidents] = &self.waiting;
        let incidents = incidents.iter().filter(|it| it.entry.is_incident());
        (
            facts.len() as u64 + self.flying.0,
            incidents.count() as u64 + self.flying.1,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Lost;

    fn fact(number: i64) -> Entry {
        let lost = Lost {
            cause: crate::model::LossCause::BadLine,
            count: 1,
        };
        let fact = Fact {
            at: MonoTime(number.unsigned_abs()),
            kind: FactKind::Lost(lost),
        };
        Entry::Fact(number, fact)
    }

    fn orders(batch: &Batch) -> Vec<u64> {
        batch.iter().map(|(order, _)| order).collect()
    }

    #[test]
    fn the_order_is_kept_across_ranks_and_attempts() {
        let mut queue = Queue::new(1 << 20);
        queue.push(fact(1));
        queue.push(Entry::Clock(MonoTime(1), 5));
        queue.push(fact(2));
        assert!(queue.is_urgent());
        let mut batch = queue.take(usize::MAX);
        assert_eq!(orders(&batch), [1, 2, 3]);
        queue.push(fact(3));
        assert_eq!(batch.forget(1), (1, 0));
        queue.give_back(batch);
        assert_eq!(orders(&queue.take(usize::MAX)), [2, 3, 4]);
        queue.stored();
        assert!(queue.is_empty());
    }

    #[test]
    fn the_oldest_facts_go_first_and_what_went_is_counted() {
        let size = fact(1).size();
        let mut queue = Queue::new(4 * size);
        queue.push(Entry::Clock(MonoTime(1), 5));
        for number in 1..=6 {
            queue.push(fact(number));
        }
        let dropped = queue.dropped();
        assert_eq!((dropped.facts, dropped.incidents), (3, 0));
        assert_eq!(dropped.numbers, Some((1, 3)));
        let batch = queue.take(usize::MAX);
        assert_eq!(orders(&batch), [1, 5, 6, 7]);
        // What is being written takes room as well.
        queue.push(fact(7));
        assert_eq!(queue.dropped().numbers, Some((1, 7)));
        queue.stored();
        queue.forget_dropped(queue.dropped());
        assert!(queue.dropped().is_none());
    }
}
