//! The report, from recorded files: what was lost, in which files, and what became of it.
//!
//! Counted is over everything; listed is so much as fits. Facts are read once, in their order, and
//! never kept: of each inode only the ranges that failed and their stories stay, of the files that
//! are listed also a timeline of limited length.

mod build;
mod found;
mod runs;
mod scan;
mod story;
mod timeline;
mod wanted;

use std::{
    array,
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
};

use rusqlite::Connection;

use self::{
    found::{Files, Found, Lost, Now},
    runs::Run,
    scan::{Kind, Row, SHARDS},
    story::{Event, Stories},
    timeline::{Entry, Timeline},
};
use super::{Reader, StoreError, read};
use crate::{
    correlate::interval::IntervalMap,
    model::{ByteRange, Errno, InMemory, InodeKey, ToldWho},
    schema::{self, BytesNow, LossState, Name, Report, TimelineKind, Totals, WallTime},
};

pub(super) use wanted::Names;
pub use wanted::{Limits, Question};

/// A report, and what could not be read.
#[derive(Debug)]
pub struct Answer {
    /// From everything that could be read.
    pub report: Report,
    /// Records that could not be read to their end. What was read until then is in the report.
    pub troubles: Vec<StoreError>,
}

/// How far the facts have been read.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Facts so far.
    pub facts: u64,
    /// All of them, about.
    pub of: u64,
}

/// Stories that are told of all inodes of a shard together, about, before those that end alike become
/// one.
const STORIES: usize = 200_000 / SHARDS;
/// So many are told of one inode at least, and at most.
const STORIES_OF_INODE: (usize, usize) = (16, 4096);
/// From so many inodes of a shard on, those that came to nothing are forgotten now and then.
const INODES: usize = (1 << 15) / SHARDS;

/// Answers from these records. `made` is when; `progress` is told how far it is, now and then.
pub fn ask(
    records: &[Reader],
    question: &Question,
    made: WallTime,
    progress: &mut dyn FnMut(Progress),
) -> Answer {
    let mut asking = Asking::new(records, question);
    asking.read_headers();
    asking.read_incidents();
    asking.choose_files();
    asking.read_facts(progress);
    asking.read_storage_errors();
    let troubles = std::mem::take(&mut asking.troubles);
    Answer {
        report: asking.build(made),
        troubles,
    }
}

/// What is known so far.
struct Asking<'a> {
    records: &'a [Reader],
    question: &'a Question,
    troubles: Vec<StoreError>,
    /// Runs of one record are side by side, see `runs_of`.
    runs: Vec<Run>,
    /// Of each record: where its runs are among all.
    runs_of: Vec<(usize, usize)>,
    files: Files,
    /// What is known of each file.
    known: Vec<Known>,
    /// Incidents of one record are side by side, sorted by run and number.
    found: Vec<Found>,
    /// Repeats, by inode of a run, in the order of their times.
    repeated: HashMap<(usize, i64), Vec<Repeated>>,
    storage_errors: Vec<schema::StorageErrorReport>,
    /// Inodes (by record) of files with incidents.
    by_inode: HashMap<(usize, i64), usize>,
    /// Inodes (by record) without an incident whose failures are outstanding, beyond those listed.
    more_files: HashSet<(usize, i64)>,
}

/// A false success was given again.
#[derive(Clone, Copy, Debug)]
struct Repeated {
    at: u64,
    found: usize,
    times: u64,
}

/// What is known of one file.
#[derive(Debug, Default)]
struct Known {
    /// Its incidents, by their places in `found`.
    incidents: Vec<usize>,
    /// Its lost bytes, by run.
    lost: BTreeMap<usize, Lost>,
    /// What became of all of its lost bytes, the newest run last.
    now: IntervalMap<Now>,
    incidents_without_range: u64,
    failures_without_range: u64,
    /// Whether it is listed.
    chosen: bool,
    /// Its last failure that is known.
    last_failed: Option<WallTime>,
    ranges: Vec<schema::RangeReport>,
    ranges_left_out: u64,
    timeline: Option<Timeline>,
    /// Where its names are: index of a run, and its row in `inodes` of that record.
    seen_as: Option<(usize, i64)>,
}

impl Known {
    /// Lost bytes, each counted once.
    fn bytes(&self) -> u64 {
        self.now.iter().map(|(range, _)| range.len()).sum()
    }
}

/// One inode in the run that is read.
#[derive(Debug, Default)]
struct Slot {
    inode: i64,
    /// Its first fact.
    since: i64,
    stories: Stories,
    /// Its file, if that has incidents.
    file: Option<usize>,
    /// Of that file, while this run is read; if it is listed.
    timeline: Option<Timeline>,
    /// Incidents and repeats that its timeline has not come to yet.
    pending: VecDeque<Entry>,
}

impl<'a> Asking<'a> {
    fn new(records: &'a [Reader], question: &'a Question) -> Self {
        Self {
            records,
            question,
            troubles: Vec::new(),
            runs: Vec::new(),
            runs_of: Vec::new(),
            files: Files::default(),
            known: Vec::new(),
            found: Vec::new(),
            repeated: HashMap::new(),
            storage_errors: Vec::new(),
            by_inode: HashMap::new(),
            more_files: HashSet::new(),
        }
    }

    /// A record could not be read to its end: whatever its runs say of themselves, they are
    /// incomplete.
    fn give_up(&mut self, record: usize, error: rusqlite::Error) {
        self.troubles.push(self.records[record].unreadable(error));
        for run in self.runs.iter_mut().filter(|run| run.record == record) {
            run.report.complete = false;
        }
    }

    fn read_headers(&mut self) {
        for (record, reader) in self.records.iter().enumerate() {
            let source = Name::from(reader.path().as_os_str().as_encoded_bytes());
            let base = self.runs.len();
            match runs::load(reader.connection(), (record, &source), self.question) {
                Ok(runs) => self.runs.extend(runs),
                Err(error) => self.give_up(record, error),
            }
            self.runs_of.push((base, self.runs.len()));
        }
    }

    fn read_incidents(&mut self) {
        for record in 0..self.records.len() {
            if let Err(error) = self.read_incidents_of(record) {
                self.give_up(record, error);
            }
        }
        self.known.resize_with(self.files.ids.len(), Known::default);
        for (place, it) in self.found.iter().enumerate() {
            let known = &mut self.known[it.file];
            let record = self.runs[it.run].record;
            self.by_inode.insert((record, it.inode), it.file);
            known.incidents.push(place);
            known.seen_as = Some((it.run, it.inode));
            known.last_failed = known.last_failed.max(Some(it.last_failed));
            known.incidents_without_range += u64::from(!it.has_ranges);
        }
    }

    fn read_incidents_of(&mut self, record: usize) -> rusqlite::Result<()> {
        let connection = self.records[record].connection();
        let (base, end) = self.runs_of[record];
        let runs = (base, &self.runs[base..end]);
        let begin = self.found.len();
        let Self { found, files, .. } = self;
        found::incidents(connection, runs, self.question, files, |it| found.push(it))?;
        self.known.resize_with(self.files.ids.len(), Known::default);
        let repeated = &mut self.repeated;
        let mut all: Vec<(usize, u64, u64)> = Vec::new();
        found::changes(
            connection,
            runs,
            self.question,
            &mut self.found[begin..],
            |place, at, times| all.push((place, at, times)),
        )?;
        for (place, at, times) in all {
            let found = begin + place;
            let it = &self.found[found];
            let of_inode = repeated.entry((it.run, it.inode)).or_default();
            of_inode.push(Repeated { at, found, times });
        }
        let known = &mut self.known;
        found::ranges(connection, runs, &self.found[begin..], |it, range| {
            known[it.file]
                .lost
                .entry(it.run)
                .or_default()
                .add(it, range);
        })
    }

    /// The files that lost most are listed; which those without an incident are is known later.
    fn choose_files(&mut self) {
        for known in &mut self.known {
            for lost in known.lost.values() {
                for (range, now) in lost.0.iter() {
                    known.now.update(range, |_, _| Some(now));
                }
            }
        }
        let mut order: Vec<usize> = (0..self.known.len()).collect();
        order.sort_by_key(|&file| {
            let known = &self.known[file];
            std::cmp::Reverse((known.bytes(), known.incidents.len()))
        });
        for file in order.into_iter().take(self.question.limits.files) {
            self.known[file].chosen = true;
            self.known[file].timeline = Some(Timeline::within(self.question.limits.timeline));
        }
    }

    fn read_facts(&mut self, progress: &mut dyn FnMut(Progress)) {
        let of = self.runs.iter().map(|run| {
            let (first, last) = run.facts;
            u64::try_from(last - first + 1).unwrap_or(0)
        });
        let mut progressed = Progress {
            facts: 0,
            of: of.sum(),
        };
        // In the order of time, whatever the order of the files on the command line.
        let mut order: Vec<usize> = (0..self.runs.len()).collect();
        order.sort_by_key(|&run| (self.runs[run].report.began, run));
        for run in order {
            let record = self.runs[run].record;
            if let Err(error) = self.read_facts_of(run, &mut progressed, progress) {
                self.give_up(record, error);
            }
        }
    }

    fn read_facts_of(
        &mut self,
        run: usize,
        progressed: &mut Progress,
        progress: &mut dyn FnMut(Progress),
    ) -> rusqlite::Result<()> {
        let path = self.records[self.runs[run].record].path().to_owned();
        let open = move || read::shared_or_alone(&path);
        let facts = self.runs[run].facts;
        let wanted = self.wanted_inodes(run)?;
        let replays = self.replays(run, wanted.as_deref());
        let mut seen = 0;
        let (replays, read) = scan::all(&open, facts, replays, |facts| {
            seen += facts;
            progressed.facts += facts;
            progress(*progressed);
        });
        // What was read before an error counts.
        let mut slots: Vec<Slot> = replays.into_iter().flat_map(Replay::finish).collect();
        slots.sort_unstable_by_key(|slot| (slot.since, slot.inode));
        self.runs[run].report.facts = seen;
        self.end_of_run(run, slots)?;
        read
    }

    /// The inodes whose facts are wanted in a run; `None`: all.
    fn wanted_inodes(&self, run: usize) -> rusqlite::Result<Option<Vec<bool>>> {
        let question = self.question;
        if !question.narrows_files() && !question.narrows_incidents() {
            return Ok(None);
        }
        let mut wanted = Vec::new();
        let mut want = |inode: i64| {
            if let Ok(inode) = usize::try_from(inode) {
                wanted.resize(wanted.len().max(inode + 1), false);
                wanted[inode] = true;
            }
        };
        let of_run = self.found.iter().filter(|it| it.run == run);
        of_run.for_each(|it| want(it.inode));
        if question.narrows_incidents() {
            return Ok(Some(wanted));
        }
        let connection = self.records[self.runs[run].record].connection();
        let mut statement =
            connection.prepare("SELECT inode, path, device, fs_kind, fs FROM inodes")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let path: Option<String> = row.get(1)?;
            let path = path.and_then(|path| schema::unescape(&path).ok());
            let device: Option<String> = row.get(2)?;
            let kind: String = row.get(3)?;
            let dev: Option<String> = (kind == "dev").then(|| row.get(4)).transpose()?;
            let names = Names {
                path: path.as_deref(),
                path_from: None,
                device: device.as_deref(),
                dev: dev.as_deref(),
            };
            if question.wants_file(names) {
                want(row.get(0)?);
            }
        }
        Ok(Some(wanted))
    }

    /// Takes over what the facts of a run say about its files.
    fn end_of_run(&mut self, run: usize, slots: Vec<Slot>) -> rusqlite::Result<()> {
        let mut listed = self.known.iter().filter(|known| known.chosen).count();
        for mut slot in slots {
            if let Some(file) = slot.file {
                if let Some(timeline) = slot.timeline.take() {
                    self.known[file].timeline = Some(timeline);
                }
                self.take_over(run, file, &slot);
            } else if self.is_trouble(run, &slot.stories) {
                if listed >= self.question.limits.files {
                    let record = self.runs[run].record;
                    self.more_files.insert((record, slot.inode));
                } else if let Some(file) = self.choose_late(run, slot.inode)? {
                    self.take_over(run, file, &slot);
                    listed = self.known.iter().filter(|known| known.chosen).count();
                }
            }
        }
        Ok(())
    }

    /// Whether a file without an incident is to be reported: its failures are outstanding, and not
    /// all of them older than what was asked for.
    fn is_trouble(&self, run: usize, stories: &Stories) -> bool {
        let last = self.runs[run].clock.wall(stories.last_failed);
        !self.question.narrows_incidents()
            && self.question.asked.since.is_none_or(|since| since <= last)
            && stories.outstanding()
    }

    /// A file whose failures are outstanding and that nobody was lied to about is listed after all.
    fn choose_late(&mut self, run: usize, inode: i64) -> rusqlite::Result<Option<usize>> {
        let connection = self.records[self.runs[run].record].connection();
        let Some(key) = key_of(connection, inode)? else {
            return Ok(None);
        };
        let file = self.files.of(&self.runs[run], key);
        self.known.resize_with(self.files.ids.len(), Known::default);
        let known = &mut self.known[file];
        known.chosen = true;
        known.seen_as = Some((run, inode));
        let limit = self.question.limits.timeline;
        let mut timeline = known
            .timeline
            .take()
            .unwrap_or_else(|| Timeline::within(limit));
        let (number, clock) = (self.runs[run].number, &self.runs[run].clock);
        scan::of_inode(connection, inode, |row| {
            let in_window = self.question.in_window(clock.wall(row.at));
            if row.run == number
                && in_window
                && let Some(entry) = entry_of(run, &row)
            {
                timeline.add(entry);
            }
        })?;
        self.known[file].timeline = Some(timeline);
        Ok(Some(file))
    }

    fn take_over(&mut self, run: usize, file: usize, slot: &Slot) {
        let clock = &self.runs[run].clock;
        let known = &mut self.known[file];
        known.failures_without_range += slot.stories.without_range;
        if slot.stories.last_failed > 0 {
            let last = clock.wall(slot.stories.last_failed);
            known.last_failed = known.last_failed.max(Some(last));
        }
        if let Some(lost) = known.lost.get(&run) {
            for (lost, _) in lost.0.iter() {
                for (range, story) in slot.stories.within(lost) {
                    let now = Now {
                        state: story.state,
                        memory: story.memory,
                    };
                    known.now.update(range, |_, _| Some(now));
                }
            }
        }
        if known.chosen {
            self.list_ranges(run, file, &slot.stories);
        }
    }

    /// The range map of a file in a run. What was over before the window began is none of its
    /// business.
    fn list_ranges(&mut self, run: usize, file: usize, stories: &Stories) {
        let clock = &self.runs[run].clock;
        let known = &mut self.known[file];
        let none = IntervalMap::default();
        let lost = known.lost.get(&run).map_or(&none, |lost| &lost.0);
        for (range, story) in stories.iter() {
            let ended = story.ended.map(|at| clock.moment(at));
            let over = ended.zip(self.question.asked.since);
            if over.is_some_and(|(ended, since)| ended.time < since) {
                continue;
            }
            for (range, reported) in pieces(range, lost) {
                if known.ranges.len() >= self.question.limits.ranges {
                    known.ranges_left_out += 1;
                    continue;
                }
                known.ranges.push(schema::RangeReport {
                    run,
                    range,
                    state: story.state,
                    in_memory: story.memory,
                    error: story.errno,
                    failures: u64::from(story.failures),
                    first_failed: clock.moment(story.first),
                    last_failed: clock.moment(story.last),
                    ended,
                    evicted: story.evicted.map(|at| clock.moment(at)),
                    reported,
                });
            }
        }
    }

    fn read_storage_errors(&mut self) {
        for record in 0..self.records.len() {
            let (base, end) = self.runs_of[record];
            let connection = self.records[record].connection();
            match build::storage_errors(connection, (base, &self.runs[base..end]), self.question) {
                Ok(errors) => self.storage_errors.extend(errors),
                Err(error) => self.give_up(record, error),
            }
        }
        self.storage_errors.sort_by_key(|error| error.at.time);
    }
}

/// The parts of a range that incidents name, and those that none does.
fn pieces(range: ByteRange, lost: &IntervalMap<Now>) -> Vec<(ByteRange, bool)> {
    let mut pieces: Vec<(ByteRange, bool)> = Vec::new();
    let mut push = |piece: Option<ByteRange>, reported| {
        let Some(piece) = piece else {
            return;
        };
        match pieces.last_mut() {
            Some((last, before)) if *before == reported && last.end() == piece.start() => {
                *last = ByteRange::new(last.start(), piece.end()).unwrap_or(*last);
            }
            _ => pieces.push((piece, reported)),
        }
    };
    let mut cursor = range.start();
    for (piece, _) in lost.within(range) {
        push(ByteRange::new(cursor, piece.start()), false);
        push(Some(piece), true);
        cursor = piece.end();
    }
    push(ByteRange::new(cursor, range.end()), false);
    pieces
}

/// The facts of some inodes in one run, taken in one after the other.
struct Replay<'r> {
    run: usize,
    /// Facts from this kernel time on are after the window; those before `since` only show what
    /// was outstanding when it began.
    until: u64,
    since: u64,
    wanted: Option<&'r [bool]>,
    /// What is known before the first fact of an inode.
    prepared: HashMap<i64, Slot>,
    /// Where the slot of an inode is, plus one; 0: none.
    index: Vec<u32>,
    slots: Vec<Slot>,
    /// Stories that are told of each of them.
    stories: usize,
    /// When to look next for slots that are not needed.
    sweep_at: usize,
}

impl Asking<'_> {
    /// Those who take in the facts of a run.
    fn replays<'r>(&mut self, run: usize, wanted: Option<&'r [bool]>) -> [Replay<'r>; SHARDS] {
        let (question, clock) = (self.question, &self.runs[run].clock);
        let bound =
            |time: Option<WallTime>, none| time.map_or(none, |time| clock.kernel_time(time));
        let (since, until) = (
            bound(question.asked.since, 0),
            bound(question.asked.until, u64::MAX),
        );
        let mut prepared: [HashMap<i64, Slot>; SHARDS] = array::from_fn(|_| HashMap::new());
        for (inode, slot) in prepare(self, run) {
            prepared[scan::shard(inode)].insert(inode, slot);
        }
        prepared.map(|prepared| Replay {
            run,
            until,
            since,
            wanted,
            prepared,
            index: Vec::new(),
            slots: Vec::new(),
            stories: STORIES_OF_INODE.1,
            sweep_at: INODES,
        })
    }
}

impl scan::Take for Replay<'_> {
    fn take(&mut self, row: &Row) {
        if row.at >= self.until {
            return;
        }
        let Some(place) = self.slot(row) else {
            return;
        };
        let slot = &mut self.slots[place];
        if let Some(timeline) = &mut slot.timeline
            && self.since <= row.at
        {
            show(timeline, &mut slot.pending, self.run, row);
        }
        tell(&mut slot.stories, row, self.stories);
    }
}

impl Replay<'_> {
    fn slot(&mut self, row: &Row) -> Option<usize> {
        let inode = row.inode;
        let nth = usize::try_from(inode).ok()?;
        if let Some(wanted) = self.wanted
            && wanted.get(nth) != Some(&true)
        {
            return None;
        }
        if self.index.len() <= nth {
            self.index.resize(nth + 1, 0);
        }
        if self.index[nth] == 0 {
            if self.slots.len() >= self.sweep_at {
                self.sweep();
            }
            let slot = self.prepared.remove(&inode).unwrap_or_else(|| Slot {
                inode,
                ..Slot::default()
            });
            self.slots.push(Slot {
                since: row.fact,
                ..slot
            });
            self.stories =
                (STORIES / self.slots.len()).clamp(STORIES_OF_INODE.0, STORIES_OF_INODE.1);
            self.index[nth] = u32::try_from(self.slots.len()).ok()?;
        }
        Some(self.index[nth] as usize - 1)
    }

    /// Forgets inodes without an incident of which nothing is outstanding.
    fn sweep(&mut self) {
        self.slots
            .retain(|slot| slot.file.is_some() || slot.stories.outstanding());
        self.index.fill(0);
        for (place, slot) in self.slots.iter().enumerate() {
            if let (Ok(nth), Ok(place)) = (usize::try_from(slot.inode), u32::try_from(place + 1)) {
                self.index[nth] = place;
            }
        }
        self.sweep_at = (self.slots.len() * 2).max(INODES);
    }

    /// All inodes, those without a fact too.
    fn finish(self) -> Vec<Slot> {
        let Self {
            mut slots,
            prepared,
            ..
        } = self;
        slots.extend(prepared.into_values());
        for slot in &mut slots {
            if let Some(timeline) = &mut slot.timeline {
                slot.pending.drain(..).for_each(|entry| timeline.add(entry));
            }
        }
        slots
    }
}

/// The slots of the files that have incidents in any run.
fn prepare(asking: &mut Asking<'_>, run: usize) -> HashMap<i64, Slot> {
    let mut slots: HashMap<i64, Slot> = HashMap::new();
    let this = &asking.runs[run];
    for (&(record, inode), &file) in &asking.by_inode {
        if record == this.record && asking.files.ids[file].is_of(this) {
            let slot = slots.entry(inode).or_default();
            (slot.inode, slot.since, slot.file) = (inode, i64::MAX, Some(file));
            slot.timeline = asking.known[file].timeline.take();
        }
    }
    for (place, it) in asking.found.iter().enumerate() {
        if it.run == run
            && asking.known[it.file].chosen
            && let Some(slot) = slots.get_mut(&it.inode)
        {
            slot.pending.push_back(incident_entry(place, it));
        }
    }
    for (inode, slot) in &mut slots {
        let chosen = slot.file.is_some_and(|file| asking.known[file].chosen);
        let repeated = asking.repeated.remove(&(run, *inode)).unwrap_or_default();
        if chosen {
            let entries = repeated.iter().map(|it| repeat_entry(run, it));
            slot.pending.extend(entries);
            slot.pending.make_contiguous().sort_by_key(|entry| entry.at);
        }
    }
    slots
}

/// Adds a fact to a timeline, and before it the incidents and repeats that came earlier. A sync that
/// made an incident is told as such.
fn show(timeline: &mut Timeline, pending: &mut VecDeque<Entry>, run: usize, row: &Row) {
    while let Some(entry) = pending.pop_front_if(|entry| entry.at < row.at) {
        timeline.add(entry);
    }
    if row.kind == Kind::SyncReturn && row.errno.is_none() {
        let mut told = false;
        while let Some(entry) = pending.pop_front_if(|entry| entry.at == row.at) {
            timeline.add(entry);
            told = true;
        }
        if told {
            return;
        }
    }
    if let Some(entry) = entry_of(run, row) {
        timeline.add(entry);
    }
}

/// A fact as an entry of a timeline; `None` for what is of no file.
fn entry_of(run: usize, row: &Row) -> Option<Entry> {
    let what = match row.kind {
        Kind::WriteFailed => TimelineKind::WriteFailed,
        Kind::WriteOk => TimelineKind::WriteOk,
        Kind::Redirtied => TimelineKind::Redirtied,
        Kind::SyncReturn if row.errno.is_some() => TimelineKind::SyncFailed,
        Kind::SyncReturn => TimelineKind::SyncOk,
        Kind::Told => TimelineKind::Told,
        Kind::Opened => TimelineKind::Opened,
        Kind::Discarded => TimelineKind::Discarded,
        Kind::Evicted => TimelineKind::Evicted,
        Kind::Gone if row.flag => TimelineKind::Deleted,
        Kind::Gone => TimelineKind::Gone,
        Kind::Other => return None,
    };
    Some(Entry {
        run,
        at: row.at,
        what,
        range: row.range,
        errno: row.errno,
        call: row.call,
        task: row.task,
        told: None,
        incident: None,
        count: 1,
        until: row.at,
    })
}

/// Tells the stories of an inode what a fact says.
fn tell(stories: &mut Stories, row: &Row, limit: usize) {
    let event = match row.kind {
        Kind::WriteFailed => {
            let errno = row.errno.unwrap_or(Errno::EIO);
            let watched = row.flag;
            match row.range {
                Some(range) => {
                    stories.tell(range, Event::Failed { errno, watched }, row.at, limit);
                }
                None => stories.tell_of_unknown(row.at),
            }
            return;
        }
        Kind::WriteOk => Event::Written,
        Kind::Redirtied => Event::Redirtied,
        Kind::Discarded => Event::Discarded,
        Kind::Evicted => Event::Evicted,
        Kind::Gone if row.flag => Event::Discarded,
        Kind::Gone => Event::Evicted,
        Kind::SyncReturn | Kind::Told | Kind::Opened | Kind::Other => return,
    };
    let range = match row.kind {
        Kind::Gone => ByteRange::ALL,
        _ => match row.range {
            Some(range) => range,
            None => return,
        },
    };
    stories.tell(range, event, row.at, limit);
}

/// The identity of an inode of a record.
fn key_of(connection: &Connection, inode: i64) -> rusqlite::Result<Option<InodeKey>> {
    let mut statement = connection.prepare_cached(
        "SELECT fs_kind, fs, ino, generation, subvolume FROM inodes WHERE inode = ?1",
    )?;
    let mut rows = statement.query([inode])?;
    match rows.next()? {
        Some(row) => found::key(row, 0),
        None => Ok(None),
    }
}

fn incident_entry(place: usize, it: &Found) -> Entry {
    Entry {
        run: it.run,
        at: it.at,
        what: TimelineKind::Incident,
        range: None,
        errno: Some(it.errno),
        call: None,
        task: None,
        told: Some(it.told),
        incident: Some(place),
        count: 1,
        until: it.at,
    }
}

fn repeat_entry(run: usize, it: &Repeated) -> Entry {
    Entry {
        run,
        at: it.at,
        what: TimelineKind::Repeated,
        range: None,
        errno: None,
        call: None,
        task: None,
        told: None,
        incident: Some(it.found),
        count: it.times.max(1),
        until: it.at,
    }
}
