//! Recent successes: syncs that returned 0 before a failure of the same bytes was recorded.

use std::collections::VecDeque;

use super::episode::{LiedTo, memory_of_names};
use crate::model::{ByteRange, FileView, MonoTime, SyncReturn, WriteFailed, keep::keep};

/// A sync that returned success.
#[derive(Clone, Debug)]
pub(super) struct Success {
    pub(super) at: MonoTime,
    pub(super) who: LiedTo,
    pub(super) sync: SyncReturn,
}

impl Success {
    /// Memory that it takes, bytes, about.
    fn memory(&self) -> usize {
        size_of::<Self>() + self.sync.task.comm.len() + memory_of_names(&self.sync.file_view)
            - size_of::<FileView>()
    }
}

/// The successes of one inode, oldest first in the order they were seen.
#[derive(Clone, Debug, Default)]
pub(super) struct RecentSyncs {
    successes: VecDeque<Box<Success>>,
    /// Memory that they take, bytes, about.
    memory: usize,
    /// Newest time among them.
    newest: Option<MonoTime>,
    /// Newest time of a success that had to be forgotten.
    forgotten: Option<MonoTime>,
}

impl RecentSyncs {
    /// For an inode some of whose successes, up to `forgotten`, may not be remembered.
    pub(super) fn new(forgotten: Option<MonoTime>) -> Self {
        Self {
            forgotten,
            ..Self::default()
        }
    }

    /// Remembers a success. One of the same process is replaced if the new one promises at least
    /// as much: whatever failure makes the older one false makes the newer one false too, and one
    /// incident per process is enough.
    pub(super) fn push(&mut self, at: MonoTime, sync: &SyncReturn, limit: usize) {
        let who = LiedTo::new(&sync.task, sync.call);
        self.newest = self.newest.max(Some(at));
        let covered =
            |old: &Success| old.who == who && old.at <= at && sync.range.contains(old.sync.range);
        // Nearly always there is one, and the same process on the same file has the same names:
        // nothing to allocate.
        if let Some(place) = self.successes.iter().rposition(|old| covered(old))
            && let Some(mut replaced) = self.successes.remove(place)
        {
            self.memory -= replaced.memory();
            let memory = &mut self.memory;
            self.successes.retain(|old| {
                let keep = !covered(old);
                if !keep {
                    *memory -= old.memory();
                }
                keep
            });
            replaced.at = at;
            copy(&mut replaced.sync, sync);
            self.memory += replaced.memory();
            self.successes.push_back(replaced);
            return;
        }
        if self.successes.len() >= limit.max(1)
            && let Some(oldest) = self.successes.pop_front()
        {
            self.memory -= oldest.memory();
            self.forgotten = self.forgotten.max(Some(oldest.at));
        }
        let sync = sync.clone();
        let success = Box::new(Success { at, who, sync });
        self.memory += success.memory();
        self.successes.push_back(success);
    }

    /// The successes that this failure, recorded at `at`, proves false; of each process the one
    /// seen last.
    ///
    /// - Bytes that were dirty or under write-back when a sync of them returned success: it had
    ///   waited for nothing (btrfs 7.2 and CIFS end write-back before they record the error).
    /// - A failure recorded before a sync that was seen first: the facts came out of order, and
    ///   the sync is judged as if they had not.
    pub(super) fn proven_false(&self, at: MonoTime, failure: &WriteFailed) -> Vec<Success> {
        let mut found: Vec<Success> = Vec::new();
        let newest = self.newest;
        if !newest.is_some_and(|newest| could_be_false(newest, at, failure.submitted)) {
            return found;
        }
        for success in self.successes.iter().rev() {
            if is_false(success, at, failure) && !found.iter().any(|f| f.who == success.who) {
                found.push(Success::clone(success));
            }
        }
        found.reverse();
        found
    }

    /// Whether a success that was forgotten could have been proven false by this failure. Says so
    /// once for what was forgotten so far.
    pub(super) fn may_have_forgotten(&mut self, at: MonoTime, failure: &WriteFailed) -> bool {
        let forgotten = self.forgotten;
        let missed = forgotten.is_some_and(|sync| could_be_false(sync, at, failure.submitted));
        if missed {
            self.forgotten = None;
        }
        missed
    }

    /// Up to when successes are forgotten if all of these are.
    pub(super) fn forgotten_with_all(&self) -> Option<MonoTime> {
        self.forgotten
            .max(self.newest.filter(|_| !self.successes.is_empty()))
    }

    /// Whether none is remembered.
    pub(super) fn is_empty(&self) -> bool {
        self.successes.is_empty()
    }

    /// Memory that they take, bytes, about.
    pub(super) fn memory(&self) -> usize {
        self.memory + self.successes.capacity() * size_of::<Box<Success>>()
    }
}

fn could_be_false(sync: MonoTime, failed: MonoTime, submitted: Option<MonoTime>) -> bool {
    failed < sync || submitted.is_some_and(|submitted| submitted <= sync)
}

fn is_false(success: &Success, failed: MonoTime, failure: &WriteFailed) -> bool {
    if failed < success.at {
        return true;
    }
    let overlaps = |range: ByteRange| range.overlaps(success.sync.range);
    could_be_false(success.at, failed, failure.submitted) && failure.range.is_none_or(overlaps)
}

/// `to.clone_from(from)` that allocates only for what differs.
fn copy(to: &mut SyncReturn, from: &SyncReturn) {
    let SyncReturn {
        inode,
        file,
        call,
        id,
        range,
        error,
        pending,
        task,
        file_view,
    } = from;
    to.inode = *inode;
    to.file = *file;
    to.call = *call;
    to.id = *id;
    to.range = *range;
    to.error = *error;
    to.pending = *pending;
    if to.task != *task {
        to.task.clone_from(task);
    }
    if to.file_view != *file_view {
        to.file_view.clone_from(file_view);
    }
}

keep!(struct Success { at, who, sync });
keep!(struct RecentSyncs { successes, memory, newest, forgotten });
