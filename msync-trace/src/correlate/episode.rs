//! Episodes: what ranges that failed together have in common, kept once for all of them.

use std::{collections::BTreeMap, sync::Arc};

use super::interval::tree_memory;
use crate::model::{
    Call, Errno, FileView, IncidentId, MonoTime, ProcessId, Task,
    keep::{Keep, keep},
};

/// Number of an episode within its inode, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EpisodeId(u64);

/// All that the interval map keeps per failed range. Ranges with equal cells are one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) episode: EpisodeId,
    pub(super) memory: Memory,
}

/// Whether memory still holds the bytes of one range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    Held,
    Evicted,
    /// Nobody watched for evictions when the write failed.
    Unknown,
}

/// What kind of promise a call makes. A process that was given a false answer of one kind has
/// not been given the other: `MS_ASYNC` promises nothing, so it never hides a false `MS_SYNC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Promise {
    Durable,
    Nothing,
}

/// Who was lied to, for "one incident per process".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LiedTo {
    process: ProcessId,
    promise: Promise,
}

impl LiedTo {
    pub(super) fn new(task: &Task, call: Call) -> Self {
        Self {
            process: task.process,
            promise: match call {
                Call::MsyncAsync => Promise::Nothing,
                _ => Promise::Durable,
            },
        }
    }
}

/// A write failure as the episodes see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure<'a> {
    pub(super) at: MonoTime,
    pub(super) errno: Errno,
    pub(super) writer: Option<&'a Task>,
    pub(super) file: &'a FileView,
}

/// What a set of failed ranges has in common.
///
/// Times are those of the whole episode: a range of it may have failed a little later than
/// `first`. Nothing that matters to a verdict (a sync, an error handed out, another error
/// number) lies between the two: see `Stretch`.
#[derive(Clone, Debug)]
pub(super) struct Episode {
    /// Number of the newest stretch of failures that it took part in: the higher, the newer.
    pub(super) stretch: u64,
    /// Dirty again: the kernel will write these bytes once more, and until then nothing is known.
    pub(super) dirty: bool,
    /// Bytes of all its ranges.
    pub(super) bytes: u64,
    pub(super) first: MonoTime,
    pub(super) last: MonoTime,
    pub(super) errno: Errno,
    /// Shared with the episodes that come from this one, as `file` is.
    pub(super) writer: Option<Arc<Task>>,
    pub(super) file: Arc<FileView>,
    /// Who was given a false success over exactly these ranges since they failed, and in which
    /// incident; sorted.
    pub(super) reports: Vec<(LiedTo, IncidentId)>,
    /// Incidents about an earlier failure of the same ranges: they are still told when these
    /// bytes reach the disk, but nobody counts as lied to because of them.
    pub(super) earlier: Vec<IncidentId>,
    /// Stands for the set of incidents in `reports` and `earlier`: episodes with equal numbers
    /// have equal sets. 0 is the empty set.
    pub(super) history: u64,
    /// The episode that ranges of this one go to when they are dirty again.
    pub(super) twin: Option<EpisodeId>,
}

impl Episode {
    /// What failed in this stretch and not before.
    pub(super) fn new(failure: &Failure<'_>, stretch: &mut Stretch) -> Self {
        let (writer, file) = stretch.shared(failure);
        Self {
            stretch: stretch.id,
            dirty: false,
            bytes: 0,
            first: failure.at,
            last: failure.at,
            errno: failure.errno,
            writer,
            file,
            reports: Vec::new(),
            earlier: Vec::new(),
            history: 0,
            twin: None,
        }
    }

    /// One more failure of the same stretch.
    pub(super) fn add(&mut self, failure: &Failure<'_>) {
        self.first = self.first.min(failure.at);
        self.last = self.last.max(failure.at);
        self.errno = failure.errno;
        if self.writer.as_deref() != failure.writer {
            self.writer = failure.writer.cloned().map(Arc::new);
        }
        if failure.file.path.is_some() && self.file.path != failure.file.path {
            self.file = Arc::new(failure.file.clone());
        }
    }

    /// The incident in which `who` was lied to about these ranges.
    pub(super) fn report_to(&self, who: LiedTo) -> Option<IncidentId> {
        let found = self.reports.binary_search_by_key(&who, |(who, _)| *who);
        found.ok().map(|i| self.reports[i].1)
    }

    /// Every incident that named these ranges.
    pub(super) fn incidents(&self) -> impl Iterator<Item = IncidentId> {
        let reported = self.reports.iter().map(|(_, id)| *id);
        reported.chain(self.earlier.iter().copied())
    }

    /// Whether any incident named these ranges.
    pub(super) fn was_reported(&self) -> bool {
        !(self.reports.is_empty() && self.earlier.is_empty())
    }

    /// Remembers that `who` was lied to in incident `id`. If more than `limit` incidents would be
    /// remembered it forgets the oldest, those about an earlier failure first, and says which.
    pub(super) fn add_report(
        &mut self,
        who: LiedTo,
        id: IncidentId,
        limit: usize,
    ) -> Option<IncidentId> {
        let forgotten = match self.incidents_len() < limit.max(1) {
            true => None,
            false => self.forget_oldest(),
        };
        let place = self.reports.partition_point(|(other, _)| *other < who);
        self.reports.insert(place, (who, id));
        self.twin = None;
        forgotten
    }

    fn forget_oldest(&mut self) -> Option<IncidentId> {
        let earlier = (0..self.earlier.len()).min_by_key(|i| self.earlier[*i]);
        let report = (0..self.reports.len()).min_by_key(|i| self.reports[*i].1);
        match (earlier, report) {
            (Some(place), _) => Some(self.earlier.remove(place)),
            (None, Some(place)) => Some(self.reports.remove(place).1),
            (None, None) => None,
        }
    }

    fn incidents_len(&self) -> usize {
        self.reports.len() + self.earlier.len()
    }

    /// Memory that it takes, bytes, about. What it shares with others counts in full.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>()
            + self.reports.len() * size_of::<(LiedTo, IncidentId)>()
            + self.earlier.len() * size_of::<IncidentId>()
            + self.writer.as_ref().map_or(0, |_| size_of::<Task>())
            + memory_of_names(&self.file)
    }
}

/// Memory that names take, bytes, about.
pub(super) fn memory_of_names(names: &FileView) -> usize {
    /// The type of the filesystem and its device.
    const SHORT_NAMES: usize = 64;
    size_of::<FileView>()
        + SHORT_NAMES
        + names.path.as_ref().map_or(0, Vec::len)
        + names.mount.as_ref().map_or(0, Vec::len)
}

/// The episodes of one inode, by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Episodes {
    by_id: BTreeMap<EpisodeId, Box<Episode>>,
    created: u64,
    /// Numbers given to histories so far.
    histories: u64,
    /// Memory that all of them take, bytes, about.
    memory: usize,
}

impl Episodes {
    pub(super) fn insert(&mut self, episode: Episode) -> EpisodeId {
        self.created += 1;
        let id = EpisodeId(self.created);
        self.memory += episode.memory();
        self.by_id.insert(id, Box::new(episode));
        id
    }

    pub(super) fn get(&self, id: EpisodeId) -> Option<&Episode> {
        self.by_id.get(&id).map(|episode| &**episode)
    }

    /// Changes an episode; one without bytes afterwards is forgotten.
    pub(super) fn change<R>(
        &mut self,
        id: EpisodeId,
        change: impl FnOnce(&mut Episode) -> R,
    ) -> Option<R> {
        let episode = self.by_id.get_mut(&id)?;
        let before = episode.memory();
        let result = change(episode);
        let after = episode.memory();
        self.memory = self.memory - before + after;
        if episode.bytes == 0 {
            self.memory -= after;
            self.by_id.remove(&id);
        }
        Some(result)
    }

    /// Incident `id` told `who` a lie about all these episodes. Returns the incidents that had to
    /// be forgotten for it.
    pub(super) fn add_report(
        &mut self,
        episodes: &[EpisodeId],
        who: LiedTo,
        id: IncidentId,
        limit: usize,
    ) -> Vec<IncidentId> {
        // Equal sets of incidents stay equal: what was one history is one afterwards.
        let mut histories = BTreeMap::new();
        let mut forgotten = Vec::new();
        for episode in episodes {
            let fresh = self.histories + 1;
            let outcome = self.change(*episode, |e| {
                e.history = *histories.entry(e.history).or_insert(fresh);
                (e.history, e.add_report(who, id, limit))
            });
            if let Some((history, dropped)) = outcome {
                self.histories = self.histories.max(history);
                forgotten.extend(dropped);
            }
        }
        forgotten
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (EpisodeId, &Episode)> {
        self.by_id.iter().map(|(id, episode)| (*id, &**episode))
    }

    /// Memory that they take, bytes, about.
    pub(super) fn memory(&self) -> usize {
        self.memory + tree_memory::<EpisodeId, Box<Episode>>(self.by_id.len())
    }
}

/// A run of write failures of one inode that no verdict can tell apart: the same error, no sync
/// that reported some of them and no error handed out in between. Failures of one stretch share
/// episodes, so a storm of them merges into few ranges.
#[derive(Clone, Debug, Default)]
pub(super) struct Stretch {
    /// Number of this stretch within its inode.
    pub(super) id: u64,
    /// Error and oldest time of its failures; `None` once it has ended.
    open: Option<(Errno, MonoTime)>,
    /// Which episode takes ranges that came from where.
    pub(super) members: Vec<(Origin, EpisodeId)>,
    /// Writer and names of the newest episode: the next one most often has the same.
    writer: Option<Arc<Task>>,
    file: Option<Arc<FileView>>,
}

impl Stretch {
    /// The episode that takes ranges from there.
    pub(super) fn member(&self, origin: Origin) -> Option<EpisodeId> {
        let found = self.members.iter().find(|(from, _)| *from == origin);
        found.map(|(_, id)| *id)
    }

    fn shared(&mut self, failure: &Failure<'_>) -> (Option<Arc<Task>>, Arc<FileView>) {
        if self.writer.as_deref() != failure.writer {
            self.writer = failure.writer.cloned().map(Arc::new);
        }
        let file = match self.file.take() {
            Some(file) if *file == *failure.file => file,
            _ => Arc::new(failure.file.clone()),
        };
        self.file = Some(Arc::clone(&file));
        (self.writer.clone(), file)
    }

    /// What fails from now on has nothing to do with what failed before.
    pub(super) fn end(&mut self) {
        self.open = None;
    }

    /// Ends it and lets go of what only the next failure could have used.
    pub(super) fn forget_members(&mut self) {
        let id = self.id;
        *self = Self {
            id,
            ..Self::default()
        };
    }

    /// Lets a failure in, or begins the next stretch with it. An error that was handed out since
    /// the oldest failure (the facts came out of order) lies between it and the others.
    pub(super) fn join(&mut self, failure: &Failure<'_>, newest_told: Option<MonoTime>) {
        if let Some((errno, first)) = &mut self.open {
            let oldest = failure.at.min(*first);
            if *errno == failure.errno && newest_told.is_none_or(|told| told < oldest) {
                *first = oldest;
                return;
            }
        }
        self.id += 1;
        self.open = Some((failure.errno, failure.at));
        self.members.clear();
    }
}

/// Where the ranges of an episode came from when they failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// They were not outstanding.
    Fresh,
    /// They were dirty again, and incidents with this history had named them before: what was
    /// stored since is lost as well. A new failure for everybody.
    FailedAgain { history: u64 },
    /// They were outstanding in this episode and are still: the same failure, seen once more.
    StillFailed(EpisodeId),
}

keep!(number EpisodeId);
keep!(words Memory { Held, Evicted, Unknown });
keep!(words Promise { Durable, Nothing });
keep!(struct Cell { episode, memory });
keep!(struct LiedTo { process, promise });
keep!(struct Episode {
    stretch, dirty, bytes, first, last, errno, writer, file, reports, earlier, history, twin,
});
keep!(struct Episodes { by_id, created, histories, memory });

/// What failed before a restart shares no episode with what fails after it.
impl Keep for Stretch {
    fn keep(&self, into: &mut Vec<u8>) {
        self.id.keep(into);
    }

    fn kept(from: &mut &[u8]) -> Option<Self> {
        let id = u64::kept(from)?;
        Some(Self {
            id,
            ..Self::default()
        })
    }
}
