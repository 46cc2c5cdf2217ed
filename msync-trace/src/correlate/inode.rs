//! What is known about one inode: its failed ranges, who was told, which syncs returned success.
//! Here are the rules of what a fact changes and which sync is a false success.

use super::{
    episode::{Cell, Episode, EpisodeId, Episodes, Failure, LiedTo, Memory, Origin, Stretch},
    followed::{Followed, FollowedIncidents, Saved},
    interval::IntervalMap,
    recent::{RecentSyncs, Success},
    tally::Tally,
    told::ToldFiles,
};
use crate::model::{
    ByteRange, Coverage, Errno, Evidence, FileId, FileView, InMemory, Incident, IncidentId,
    InodeKey, MonoTime, SyncReturn, ToldWho, WriteFailed, keep::keep,
};

/// The state of one inode.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) key: InodeKey,
    /// Which bytes are outstanding.
    cells: IntervalMap<Cell>,
    episodes: Episodes,
    /// The stretch that the next failure may join.
    stretch: Stretch,
    /// A failure of unknown range (evidence `inode`), and whether memory holds those pages.
    whole: Option<(Episode, Memory)>,
    told: ToldFiles,
    recent: RecentSyncs,
    incidents: FollowedIncidents,
}

impl Inode {
    /// An inode that nothing is known about. Successes up to `forgotten` may have been forgotten.
    pub(super) fn new(key: InodeKey, forgotten: Option<MonoTime>) -> Self {
        Self {
            key,
            cells: IntervalMap::default(),
            episodes: Episodes::default(),
            stretch: Stretch::default(),
            whole: None,
            told: ToldFiles::default(),
            recent: RecentSyncs::new(forgotten),
            incidents: FollowedIncidents::default(),
        }
    }

    /// Whether some failure is neither recovered nor discarded.
    pub(super) fn outstanding(&self) -> bool {
        !self.cells.is_empty() || self.whole.is_some()
    }

    /// Whether everything outstanding was reported to somebody.
    pub(super) fn all_reported(&self) -> bool {
        let whole = self.whole.iter().map(|(episode, _)| episode);
        let mut episodes = self
            .episodes
            .iter()
            .map(|(_, episode)| episode)
            .chain(whole);
        episodes.all(Episode::was_reported)
    }

    /// Failed ranges, one of unknown range included.
    pub(super) fn ranges(&self) -> usize {
        self.cells.len() + usize::from(self.whole.is_some())
    }

    /// Whether nothing is remembered about it.
    pub(super) fn is_empty(&self) -> bool {
        !self.outstanding() && self.told.is_empty() && self.recent.is_empty()
    }

    /// Memory that it takes, bytes, about.
    pub(super) fn memory(&self) -> usize {
        let whole = self.whole.as_ref();
        size_of::<Self>()
            + self.cells.memory()
            + self.episodes.memory()
            + whole.map_or(0, |(episode, _)| episode.memory())
            + self.told.memory()
            + self.recent.memory()
            + self.incidents.memory()
    }

    /// Up to when successes are forgotten if this inode is.
    pub(super) fn forgotten_with_it(&self) -> Option<MonoTime> {
        self.recent.forgotten_with_all()
    }

    /// The kernel failed to write.
    pub(super) fn write_failed(
        &mut self,
        at: MonoTime,
        failed: &WriteFailed,
        tally: &mut Tally<'_>,
    ) {
        if self.recent.may_have_forgotten(at, failed) {
            tally.give_up(at, 1);
        }
        let lied = self.recent.proven_false(at, failed);
        // Ranges that are reported for an earlier sync must not share an episode with others.
        if !lied.is_empty() {
            self.stretch.end();
        }
        let failure = Failure {
            at,
            errno: failed.errno,
            writer: failed.writer.as_ref(),
            file: &failed.file,
        };
        let memory = match failed.eviction_watched {
            true => Memory::Held,
            false => Memory::Unknown,
        };
        match failed.range {
            Some(range) => self.fail(range, &failure, memory),
            None => self.fail_somewhere(&failure, memory),
        }
        self.say_changes(at, tally);
        if lied.is_empty() {
            return;
        }
        self.stretch.end();
        let members = self.stretch.members.iter();
        let mut episodes: Vec<EpisodeId> = members.map(|(_, id)| *id).collect();
        episodes.sort_unstable();
        for success in &lied {
            match failed.range {
                Some(range) => self.report_late(range, &episodes, success, tally),
                None => self.report_whole(success.at, success.who, &success.sync, tally),
            }
        }
    }

    /// `range` failed: it is outstanding from now on. Which episode each part belongs to is
    /// decided by where it comes from, see [`Origin`].
    fn fail(&mut self, range: ByteRange, failure: &Failure<'_>, memory: Memory) {
        self.stretch.join(failure, self.told.newest());
        let Self {
            cells,
            episodes,
            stretch,
            incidents,
            ..
        } = self;
        cells.update(range, |piece, cell| {
            let mut add = |episode| {
                episodes.change(episode, |e| {
                    e.add(failure);
                    e.bytes += piece.len();
                })
            };
            // What a storm consists of.
            if cell.is_none()
                && let Some(episode) = stretch.member(Origin::Fresh)
                && add(episode).is_some()
            {
                return Some(Cell { episode, memory });
            }
            let episode = episode_for(cell, stretch, episodes, failure);
            match cell {
                None => {
                    episodes.change(episode, |e| {
                        e.add(failure);
                        e.bytes += piece.len();
                    });
                }
                Some(before) => {
                    if let Some(source) = episodes.get(before.episode) {
                        incidents.moved(source, piece.len(), before.memory, memory);
                    }
                    episodes.change(episode, |e| {
                        e.add(failure);
                        e.bytes += piece.len();
                    });
                    episodes.change(before.episode, |e| e.bytes -= piece.len());
                }
            }
            Some(Cell { episode, memory })
        });
    }

    /// Some page failed, and no hook can tell which. Outstanding until the whole file is written
    /// or given up; another such failure meanwhile is the same one, seen once more.
    fn fail_somewhere(&mut self, failure: &Failure<'_>, memory: Memory) {
        match &mut self.whole {
            Some((episode, before)) => {
                episode.add(failure);
                *before = memory;
            }
            whole @ None => *whole = Some((Episode::new(failure, &mut self.stretch), memory)),
        }
    }

    /// Bytes reached the disk.
    pub(super) fn write_ok(&mut self, at: MonoTime, range: ByteRange, tally: &mut Tally<'_>) {
        self.save(range, Saved::Recovered);
        self.say_changes(at, tally);
    }

    /// Bytes were given up on purpose.
    pub(super) fn discarded(&mut self, at: MonoTime, range: ByteRange, tally: &mut Tally<'_>) {
        self.save(range, Saved::Discarded);
        self.say_changes(at, tally);
    }

    /// Whatever of `range` was outstanding is so no more. A failure of unknown range only goes
    /// with the whole file.
    fn save(&mut self, range: ByteRange, how: Saved) {
        let Self {
            cells,
            episodes,
            incidents,
            ..
        } = self;
        cells.update(range, |piece, cell| {
            let cell = cell?;
            episodes.change(cell.episode, |episode| {
                incidents.saved(episode, piece.len(), cell.memory, how);
                episode.bytes -= piece.len();
            });
            None
        });
        if range == ByteRange::ALL
            && let Some((whole, _)) = self.whole.take()
        {
            self.incidents.whole_saved(&whole, how);
        }
    }

    /// Bytes became dirty again: the kernel will write them, and the outcome decides. Until then
    /// they make no incident.
    ///
    /// A fact that is older than the failure itself (they came out of order) changes nothing: it
    /// is the store whose write failed.
    pub(super) fn redirtied(&mut self, at: MonoTime, range: ByteRange, tally: &mut Tally<'_>) {
        let Self {
            cells,
            episodes,
            incidents,
            ..
        } = self;
        cells.update(range, |piece, cell| {
            let cell = cell?;
            let Some(source) = episodes.get(cell.episode) else {
                return Some(cell);
            };
            if source.dirty || at < source.last {
                return Some(cell);
            }
            incidents.moved(source, piece.len(), cell.memory, Memory::Held);
            let twin = match source.twin.filter(|twin| episodes.get(*twin).is_some()) {
                Some(twin) => twin,
                None => {
                    let twin = episodes.insert(Episode {
                        dirty: true,
                        bytes: 0,
                        ..source.clone()
                    });
                    episodes.change(cell.episode, |e| e.twin = Some(twin));
                    twin
                }
            };
            grow(episodes, twin, piece.len());
            episodes.change(cell.episode, |e| e.bytes -= piece.len());
            Some(Cell {
                episode: twin,
                memory: Memory::Held,
            })
        });
        self.say_changes(at, tally);
    }

    /// Pages left the page cache.
    ///
    /// Bytes that were dirty again and left without a write are lost again: a new failure, at
    /// this moment, with the error of the old one.
    pub(super) fn evicted(&mut self, at: MonoTime, range: ByteRange, tally: &mut Tally<'_>) {
        let Self {
            cells,
            episodes,
            incidents,
            ..
        } = self;
        let mut dropped = Vec::new();
        cells.update(range, |piece, cell| {
            let cell = cell?;
            let episode = episodes.get(cell.episode)?;
            if episode.dirty {
                dropped.push((piece, cell.episode));
                return Some(cell);
            }
            incidents.moved(episode, piece.len(), cell.memory, Memory::Evicted);
            let memory = Memory::Evicted;
            Some(Cell { memory, ..cell })
        });
        for (piece, episode) in dropped {
            self.lose_dirty(at, piece, episode);
        }
        if let Some((whole, memory)) = &mut self.whole {
            // Which pages failed is unknown, so one that left may have been among them.
            *memory = match *memory {
                _ if range == ByteRange::ALL => Memory::Evicted,
                Memory::Held => Memory::Unknown,
                memory => memory,
            };
            self.incidents.whole_moved(whole);
        }
        self.say_changes(at, tally);
    }

    fn lose_dirty(&mut self, at: MonoTime, range: ByteRange, episode: EpisodeId) {
        let Some(source) = self.episodes.get(episode) else {
            return;
        };
        let (errno, writer, file) = (source.errno, source.writer.clone(), source.file.clone());
        let failure = Failure {
            at,
            errno,
            writer: writer.as_deref(),
            file: &file,
        };
        self.fail(range, &failure, Memory::Evicted);
    }

    /// The inode left memory, all its pages with it. Its failures stay; no description of it is
    /// left that could have been told.
    pub(super) fn left_memory(&mut self, at: MonoTime, tally: &mut Tally<'_>) {
        self.evicted(at, ByteRange::ALL, tally);
        self.told.forget_all();
    }

    /// The file was deleted: everything about it is given up, and its number may come back as
    /// another file.
    pub(super) fn deleted(&mut self, at: MonoTime, tally: &mut Tally<'_>) {
        self.discarded(at, ByteRange::ALL, tally);
        *self = Self::new(self.key, None);
    }

    /// An open file description was given the error.
    pub(super) fn told(&mut self, at: MonoTime, file: FileId, tally: &mut Tally<'_>) {
        let limit = tally.limits.told_files_per_inode;
        let forgotten = self.told.tell(file, at, limit);
        // Forgetting one who was told about earlier failures only loses nothing.
        if forgotten.is_some_and(|told| self.oldest_failure().is_some_and(|f| f <= told)) {
            tally.give_up(at, 1);
        }
    }

    fn oldest_failure(&self) -> Option<MonoTime> {
        let whole = self.whole.iter().map(|(episode, _)| episode.first);
        self.episodes
            .iter()
            .map(|(_, e)| e.first)
            .chain(whole)
            .min()
    }

    /// The address of this description belongs to a new one.
    pub(super) fn opened(&mut self, file: FileId) {
        self.told.forget(file);
    }

    /// A sync that promised something returned success.
    ///
    /// What is outstanding and was not reported to this process yet makes one incident. If there
    /// are page-exact ranges among it, a failure of unknown range is taken to be among them;
    /// alone it makes an incident with evidence `inode`. What was reported to this process before
    /// is a repeat of that incident.
    pub(super) fn false_success(&mut self, at: MonoTime, sync: &SyncReturn, tally: &mut Tally<'_>) {
        if self.outstanding() {
            let who = LiedTo::new(&sync.task, sync.call);
            let mut unreported = Vec::new();
            let mut reported = Vec::new();
            for (id, episode) in self.episodes.iter().filter(|(_, e)| !e.dirty) {
                match episode.report_to(who) {
                    Some(incident) => reported.push(incident),
                    None => unreported.push(id),
                }
            }
            reported.extend(self.whole.as_ref().and_then(|(e, _)| e.report_to(who)));
            if !unreported.is_empty() {
                let id = self.report_pages(ByteRange::ALL, &unreported, at, who, sync, tally);
                self.mark_whole(who, id, at, tally);
            } else {
                self.report_whole(at, who, sync, tally);
            }
            reported.sort_unstable();
            reported.dedup();
            for id in reported {
                self.incidents.repeat(id, at, tally.out);
            }
        }
        self.recent
            .push(at, sync, tally.limits.recent_syncs_per_inode);
    }

    /// A failure of `range`, now in these episodes (sorted), proved an earlier success false: an
    /// incident with what of it was not reported to that process yet. Other failures are none of
    /// that sync's business.
    fn report_late(
        &mut self,
        range: ByteRange,
        episodes: &[EpisodeId],
        success: &Success,
        tally: &mut Tally<'_>,
    ) {
        let Success { at, who, sync } = success;
        let unreported = |id: &EpisodeId| {
            let episode = self.episodes.get(*id);
            episode.is_some_and(|e| e.report_to(*who).is_none())
        };
        let unreported: Vec<EpisodeId> = episodes.iter().copied().filter(unreported).collect();
        if !unreported.is_empty() {
            self.report_pages(range, &unreported, *at, *who, sync, tally);
        }
    }

    /// One incident over the ranges of these episodes (sorted), all of them within `range`.
    fn report_pages(
        &mut self,
        range: ByteRange,
        unreported: &[EpisodeId],
        at: MonoTime,
        who: LiedTo,
        sync: &SyncReturn,
        tally: &mut Tally<'_>,
    ) -> IncidentId {
        let cells = self.cells.within(range);
        let lost = cells.filter(|(_, cell)| unreported.binary_search(&cell.episode).is_ok());
        let LostRanges {
            ranges,
            memory,
            bytes,
            evicted,
        } = LostRanges::sum(lost);
        let coverage = coverage(&ranges, sync.range);
        let failures = unreported.iter().filter_map(|id| self.episodes.get(*id));
        let (oldest, last, newest) = summarise(failures);
        let incident = Incident {
            id: tally.next_id(),
            inode: self.key,
            ranges,
            errno: newest.map_or(Errno::EIO, |e| e.errno),
            failed_at: oldest,
            last_failed_at: last,
            writer: newest.and_then(|e| e.writer.as_deref().cloned()),
            synced_at: at,
            call: sync.call,
            requested: sync.range,
            task: sync.task.clone(),
            told: self.told_who(sync, oldest),
            coverage,
            evidence: Evidence::Page,
            in_memory: memory,
            file: names(&sync.file_view, newest.map(|e| &*e.file)),
            path_when_failed: newest.and_then(|e| path_in_filesystem(&e.file)),
        };
        let id = incident.id;
        let followed = Followed {
            bytes,
            evicted,
            evicted_said: incident.in_memory == InMemory::No,
            ..Followed::default()
        };
        self.incidents.follow(id, followed);
        let limit = tally.limits.processes_per_range;
        for forgotten in self.episodes.add_report(unreported, who, id, limit) {
            self.forget_incident(Some(forgotten), at, tally);
        }
        // What fails from now on was not in this incident.
        self.stretch.end();
        tally.incident(incident);
        id
    }

    /// An incident over the failure of unknown range, unless there is none or it was reported.
    ///
    /// `coverage` is `inside` if the call was asked for the whole file, else `partly`: some of
    /// the file is all that is known.
    fn report_whole(
        &mut self,
        at: MonoTime,
        who: LiedTo,
        sync: &SyncReturn,
        tally: &mut Tally<'_>,
    ) {
        let Some((whole, memory)) = &self.whole else {
            return;
        };
        if whole.report_to(who).is_some() {
            return;
        }
        let incident = Incident {
            id: tally.next_id(),
            inode: self.key,
            ranges: Vec::new(),
            errno: whole.errno,
            failed_at: whole.first,
            last_failed_at: whole.last,
            writer: whole.writer.as_deref().cloned(),
            synced_at: at,
            call: sync.call,
            requested: sync.range,
            task: sync.task.clone(),
            told: self.told_who(sync, whole.first),
            coverage: match sync.range == ByteRange::ALL {
                true => Coverage::Inside,
                false => Coverage::Partly,
            },
            evidence: Evidence::Inode,
            in_memory: match memory {
                Memory::Held => InMemory::Yes,
                Memory::Evicted => InMemory::No,
                Memory::Unknown => InMemory::Unknown,
            },
            file: names(&sync.file_view, Some(&whole.file)),
            path_when_failed: path_in_filesystem(&whole.file),
        };
        let (id, evicted_said) = (incident.id, incident.in_memory == InMemory::No);
        let followed = Followed {
            evicted_said,
            ..Followed::default()
        };
        self.incidents.follow(id, followed);
        tally.incident(incident);
        self.mark_whole(who, id, at, tally);
    }

    /// Incident `id` stands for the failure of unknown range too, unless `who` has one already.
    fn mark_whole(&mut self, who: LiedTo, id: IncidentId, at: MonoTime, tally: &mut Tally<'_>) {
        let limit = tally.limits.processes_per_range;
        let Some((whole, _)) = &mut self.whole else {
            return;
        };
        if whole.report_to(who).is_none() {
            let forgotten = whole.add_report(who, id, limit);
            self.incidents.stands_for_whole(id);
            self.forget_incident(forgotten, at, tally);
        }
    }

    /// An incident that can no longer be told changes of, because of the memory limit.
    fn forget_incident(&mut self, id: Option<IncidentId>, at: MonoTime, tally: &mut Tally<'_>) {
        if let Some(id) = id {
            self.incidents.forget(id);
            tally.give_up(at, 1);
        }
    }

    fn told_who(&self, sync: &SyncReturn, since: MonoTime) -> ToldWho {
        match sync.pending {
            true => ToldWho::Pending,
            false => self.told.since(since, sync.file),
        }
    }

    fn say_changes(&mut self, at: MonoTime, tally: &mut Tally<'_>) {
        let memory = self.whole.as_ref().map(|(_, memory)| *memory);
        self.incidents.say_changes(at, memory, tally.out);
    }

    /// Forgets what no later fact can ask for.
    pub(super) fn tidy(&mut self) {
        if !self.outstanding() {
            self.stretch.forget_members();
            self.told.nothing_outstanding();
        }
    }

    /// Forgets some failed ranges if there are more than `limit`: a sixteenth of them at a time,
    /// so that the search for them costs little per range. Those that were reported go first,
    /// then the oldest. Returns how many went.
    pub(super) fn shrink(&mut self, limit: usize) -> u64 {
        let limit = limit.max(1);
        if self.cells.len() <= limit {
            return 0;
        }
        let surplus = self.cells.len() - limit + limit / 16;
        let mut all: Vec<(bool, EpisodeId, ByteRange)> = self
            .cells
            .iter()
            .map(|(range, cell)| {
                let episode = self.episodes.get(cell.episode);
                let reported = episode.is_some_and(Episode::was_reported);
                (!reported, cell.episode, range)
            })
            .collect();
        all.sort_unstable();
        all.truncate(surplus);
        for (_, episode, range) in &all {
            self.cells.update(*range, |_, _| None);
            let incidents = &mut self.incidents;
            self.episodes.change(*episode, |e| {
                e.incidents().for_each(|id| incidents.forget(id));
                e.bytes -= range.len();
            });
        }
        all.len() as u64
    }
}

/// The episode that a range which fails now belongs to.
fn episode_for(
    cell: Option<Cell>,
    stretch: &mut Stretch,
    episodes: &mut Episodes,
    failure: &Failure<'_>,
) -> EpisodeId {
    let before = cell.and_then(|c| Some((c.episode, episodes.get(c.episode)?)));
    let origin = match before {
        None => Origin::Fresh,
        Some((_, e)) if e.dirty && !e.was_reported() => Origin::Fresh,
        Some((_, e)) if e.dirty => Origin::FailedAgain { history: e.history },
        Some((id, e)) if e.stretch == stretch.id => return id,
        Some((id, _)) => Origin::StillFailed(id),
    };
    let member = stretch.members.iter().position(|(from, _)| *from == origin);
    if let Some(place) = member {
        let id = stretch.members[place].1;
        if episodes.get(id).is_some() {
            return id;
        }
        stretch.members.swap_remove(place);
    }
    let episode = match (origin, before) {
        (Origin::FailedAgain { history }, Some((_, source))) => Episode {
            earlier: source.incidents().collect(),
            history,
            ..Episode::new(failure, stretch)
        },
        (Origin::StillFailed(_), Some((_, source))) => Episode {
            stretch: stretch.id,
            bytes: 0,
            twin: None,
            ..source.clone()
        },
        _ => Episode::new(failure, stretch),
    };
    let id = episodes.insert(episode);
    stretch.members.push((origin, id));
    id
}

fn grow(episodes: &mut Episodes, id: EpisodeId, bytes: u64) {
    episodes.change(id, |e| e.bytes += bytes);
}

keep!(struct Inode { key, cells, episodes, stretch, whole, told, recent, incidents });

/// The lost ranges of one incident.
#[derive(Debug)]
struct LostRanges {
    /// Sorted, apart from each other.
    ranges: Vec<ByteRange>,
    memory: InMemory,
    bytes: u64,
    evicted: u64,
}

impl LostRanges {
    fn sum(lost: impl Iterator<Item = (ByteRange, Cell)>) -> Self {
        let mut ranges: Vec<ByteRange> = Vec::new();
        let (mut held, mut evicted, mut unknown) = (0, 0, 0);
        for (range, cell) in lost {
            match cell.memory {
                Memory::Held => held += range.len(),
                Memory::Evicted => evicted += range.len(),
                Memory::Unknown => unknown += range.len(),
            }
            match ranges.last_mut() {
                Some(last) if last.end() == range.start() => {
                    *last = ByteRange::new(last.start(), range.end()).unwrap_or(*last);
                }
                _ => ranges.push(range),
            }
        }
        Self {
            ranges,
            memory: in_memory(held, evicted, unknown),
            bytes: held + evicted + unknown,
            evicted,
        }
    }
}

/// Sums up: `partly` says that some of the bytes are certainly there, though not certainly all;
/// nothing certain is `unknown`.
fn in_memory(held: u64, evicted: u64, unknown: u64) -> InMemory {
    match (held > 0, evicted > 0, unknown > 0) {
        (true, false, false) => InMemory::Yes,
        (false, true, false) => InMemory::No,
        (true, _, _) => InMemory::Partly,
        (false, _, _) => InMemory::Unknown,
    }
}

fn coverage(ranges: &[ByteRange], requested: ByteRange) -> Coverage {
    if ranges.iter().all(|range| requested.contains(*range)) {
        Coverage::Inside
    } else if ranges.iter().any(|range| requested.overlaps(*range)) {
        Coverage::Partly
    } else {
        Coverage::Outside
    }
}

/// Oldest failure, newest failure, and the episode that was seen failing last.
fn summarise<'a>(
    episodes: impl Iterator<Item = &'a Episode>,
) -> (MonoTime, MonoTime, Option<&'a Episode>) {
    let mut newest: Option<&Episode> = None;
    let (mut oldest, mut last) = (MonoTime(u64::MAX), MonoTime(0));
    for episode in episodes {
        oldest = oldest.min(episode.first);
        last = last.max(episode.last);
        if newest.is_none_or(|n| (n.stretch, n.last) <= (episode.stretch, episode.last)) {
            newest = Some(episode);
        }
    }
    (oldest, last, newest)
}

/// What the file was called in its filesystem.
fn path_in_filesystem(view: &FileView) -> Option<Vec<u8>> {
    view.path.clone().filter(|_| !view.from_root)
}

/// The names as the caller sees them; what he does not know, as they were when the write failed.
fn names(caller: &FileView, failure: Option<&FileView>) -> FileView {
    let mut view = caller.clone();
    let Some(failure) = failure else {
        return view;
    };
    if view.path.is_none() {
        view.path.clone_from(&failure.path);
        view.from_root = failure.from_root;
    }
    if view.mount.is_none() {
        view.mount.clone_from(&failure.mount);
    }
    if view.fs_type.is_none() {
        view.fs_type.clone_from(&failure.fs_type);
    }
    if view.dev.is_none() {
        view.dev = failure.dev;
    }
    if view.dev_name.is_none() {
        view.dev_name.clone_from(&failure.dev_name);
    }
    view.deleted |= failure.deleted;
    view
}
