//! Stores while others trace: a queue, a thread, and patience with the disk.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    Limits, RunHeader, StoreError,
    error::While,
    file,
    lock::WriterLock,
    queue::{Batch, Dropped, Entry, Queue},
    retention::Retention,
    write::{GapRow, Numbers, Writing, next_fact},
};
use crate::{
    model::{Fact, InodeKey, MonoTime},
    schema::{Record, WallTime},
};

/// How much is kept in memory while it cannot be stored, bytes.
const MEMORY: usize = 64 << 20;
/// How long facts wait for others before they are stored.
const GATHER: Duration = Duration::from_millis(500);
/// Between two attempts to write, at first and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A disk that has not answered for so long is said to hang.
const HANGS: Duration = Duration::from_secs(5);
/// At the end, how long to go on while nothing can be stored.
const LAST_ATTEMPTS: Duration = Duration::from_secs(5);
/// And how long to wait for a disk that does not answer.
const LAST_ANSWER: Duration = Duration::from_secs(30);
/// And how often.
const LAST_PACE: Duration = Duration::from_millis(500);

/// Says something about the record, at once.
pub type Say = Box<dyn Fn(&str) + Send + Sync>;

/// Both clocks.
pub type LookAtClocks = fn() -> (MonoTime, WallTime);

/// Writes one run into a record. Nothing here waits for the disk but [`Recorder::open`] and
/// [`Recorder::finish`].
pub struct Recorder {
    shared: Arc<Shared>,
    path: PathBuf,
    limits: Limits,
    next_fact: i64,
    /// Not handed over yet.
    pending: Vec<Entry>,
    writer: Option<JoinHandle<()>>,
    look: LookAtClocks,
    lock: Option<WriterLock>,
}

/// What became of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Facts on the disk.
    pub facts: u64,
    /// Incidents on the disk.
    pub incidents: u64,
    /// Facts that were given up, or could not be stored at the end.
    pub lost_facts: u64,
    /// The same of incidents.
    pub lost_incidents: u64,
    /// Whether something could still not be stored at the end.
    pub failed: bool,
}

/// How the writing goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// Failed attempts to write.
    pub errors: u64,
    /// What became of the run so far.
    pub kept: Kept,
}

impl Kept {
    fn add(&mut self, (facts, incidents): (u64, u64)) {
        self.facts += facts;
        self.incidents += incidents;
    }
}

struct Shared {
    state: Mutex<State>,
    /// Something to do for the writer.
    work: Condvar,
    /// Something was done by it.
    done: Condvar,
    say: Say,
}

struct State {
    queue: Queue,
    /// What is there is to be stored now.
    closing: bool,
    /// No more will come.
    ending: bool,
    /// The writer gives up what is left.
    give_up: bool,
    ended: bool,
    kept: Kept,
    /// Since when the writer waits for the disk.
    busy_since: Option<Instant>,
    said_to_hang: bool,
    said_full: bool,
    trouble: bool,
    errors: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, message: &str) {
        (self.say)(message);
    }
}

impl Recorder {
    /// Opens a record, or makes it, and sees that it can be written.
    ///
    /// # Errors
    /// If somebody else writes it, it is no record, a newer one, or cannot be written. Then it is as
    /// it was.
    pub fn open(
        path: &Path,
        limits: Limits,
        look: LookAtClocks,
        say: Say,
    ) -> Result<Self, StoreError> {
        Self::with_memory(path, limits, look, say, MEMORY)
    }

    /// [`Self::open`], with so many bytes of memory for what cannot be stored.
    ///
    /// # Errors
    /// As there.
    pub fn with_memory(
        path: &Path,
        limits: Limits,
        look: LookAtClocks,
        say: Say,
        memory: usize,
    ) -> Result<Self, StoreError> {
        let path = file::resolve(path)?;
        file::can_be(&path)?;
        let lock = WriterLock::take(&path)?;
        if !file::is_there(&path)? {
            file::create(&path)?;
        }
        let connection = file::open(&path)?;
        // As good as nothing, but a full or read-only disk refuses it now.
        super::layout::sign(&connection).during("write", &path)?;
        let next_fact = next_fact(&connection).during("read", &path)?;
        let state = State {
            queue: Queue::new(memory),
            closing: false,
            ending: false,
            give_up: false,
            ended: false,
            kept: Kept::default(),
            busy_since: None,
            said_to_hang: false,
            said_full: false,
            trouble: false,
            errors: 0,
        };
        Ok(Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                work: Condvar::new(),
                done: Condvar::new(),
                say,
            }),
            path,
            limits,
            next_fact,
            pending: Vec::new(),
            writer: None,
            look,
            lock: Some(lock),
        })
    }

    /// The file, without symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run begins: from here on things are stored. To be called once, and before any fact.
    ///
    /// # Errors
    /// If there can be no thread for it.
    pub fn begin(&mut self, header: RunHeader) -> Result<(), StoreError> {
        self.begin_with(header, Retention::new(self.limits))
    }

    fn begin_with(&mut self, header: RunHeader, retention: Retention) -> Result<(), StoreError> {
        let writer = Writer {
            shared: Arc::clone(&self.shared),
            path: self.path.clone(),
            seen: (header.began, header.began_wall),
            header,
            numbers: Numbers::from(self.next_fact),
            mounted_at: file::mounted_at(&self.path),
            lock: self.lock.take(),
            look: self.look,
            writing: None,
            retention,
            trouble: None,
        };
        let thread = thread::Builder::new().name("record".to_owned());
        let thread = thread.spawn(move || writer.run());
        self.writer = Some(thread.during("start a thread for", &self.path)?);
        Ok(())
    }

    /// A fact, in the order of their times.
    pub fn fact(&mut self, fact: Fact) {
        self.pending.push(Entry::Fact(self.next_fact, fact));
        self.next_fact += 1;
    }

    /// A record that was published, or was left out by a filter (`shown` is false).
    pub fn record(&mut self, record: &Record, shown: bool) {
        let record = Box::new(record.clone());
        self.pending.push(Entry::Record(record, shown));
    }

    /// Wall time minus kernel time is this, nanoseconds, from a moment on.
    pub fn clock(&mut self, since: MonoTime, wall_minus_mono_ns: i64) {
        self.pending.push(Entry::Clock(since, wall_minus_mono_ns));
    }

    /// Nothing of this inode is outstanding any more.
    pub fn settled(&mut self, inode: &InodeKey) {
        self.pending.push(Entry::Settled(*inode));
    }

    /// Something to be remembered with the record.
    pub fn note(&mut self, text: String) {
        let (_, wall) = (self.look)();
        self.pending.push(Entry::Note(wall, text));
    }

    /// Hands over what came since the last time.
    pub fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let mut state = self.shared.lock();
        for entry in self.pending.drain(..) {
            state.queue.push(entry);
        }
        let hangs = state
            .busy_since
            .is_some_and(|since| since.elapsed() > HANGS);
        let say_it = hangs && !state.said_to_hang;
        state.said_to_hang |= hangs;
        let full = state.trouble && !state.queue.dropped().is_none();
        let say_full = full && !state.said_full;
        state.said_full |= full;
        drop(state);
        self.shared.work.notify_one();
        if say_full {
            self.shared.say(&format!(
                "warning: {} still cannot be written and the memory for that is full: from now on \
                 the oldest facts are lost, incidents last",
                super::error::spell(&self.path)
            ));
        }
        if say_it {
            self.shared.say(&format!(
                "warning: the disk of {} has not answered for {} s: tracing goes on, what is found \
                 is kept in memory until it does",
                super::error::spell(&self.path),
                HANGS.as_secs()
            ));
        }
    }

    /// Waits while much is waiting to be stored, as long as the disk answers: for whoever can. Facts
    /// of a file would otherwise come faster than any disk takes them, and the oldest be lost.
    pub fn wait_for_room(&self) {
        let mut state = self.shared.lock();
        let began = Instant::now();
        while state.queue.is_half_full() && !state.trouble && began.elapsed() < HANGS {
            state = match self.shared.done.wait_timeout(state, GATHER) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Facts and incidents that are on the disk by now.
    #[must_use]
    pub fn stored(&self) -> (u64, u64) {
        let kept = self.shared.lock().kept;
        (kept.facts, kept.incidents)
    }

    /// How the writing goes.
    #[must_use]
    pub fn health(&self) -> StoreHealth {
        let state = self.shared.lock();
        StoreHealth {
            errors: state.errors,
            kept: state.kept,
        }
    }

    /// Waits until all that came is stored. Goes on for some seconds if the disk refuses.
    ///
    /// # Errors
    /// How many facts and incidents still are not.
    pub fn settle(&mut self) -> Result<(), (u64, u64)> {
        self.flush();
        let mut state = self.shared.lock();
        state.closing = true;
        let state = self.patiently(state, |state| {
            state.ended || (state.queue.is_idle() && !state.trouble)
        });
        match state.queue.is_idle() && !state.trouble {
            true => Ok(()),
            false => Err(state.queue.counts()),
        }
    }

    /// Waits until it is so, as long as the disk makes progress.
    fn patiently<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        is_so: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        self.shared.work.notify_one();
        let mut progress = Instant::now();
        let mut before = state.kept;
        loop {
            let patience = match state.trouble {
                true => LAST_ATTEMPTS,
                false => LAST_ANSWER,
            };
            let wait = patience.saturating_sub(progress.elapsed());
            if is_so(&state) || wait.is_zero() {
                return state;
            }
            state = match self.shared.done.wait_timeout(state, wait) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
            if state.kept != before {
                before = state.kept;
                progress = Instant::now();
            }
        }
    }

    /// Stores what is left and closes the record. Goes on for some seconds if the disk refuses.
    #[must_use]
    pub fn finish(mut self) -> Kept {
        self.close()
    }

    fn close(&mut self) -> Kept {
        self.flush();
        let Some(writer) = self.writer.take() else {
            return Kept::default();
        };
        let mut state = self.shared.lock();
        state.closing = true;
        state.ending = true;
        let mut state = self.patiently(state, |state| state.ended);
        state.give_up = true;
        let ended = state.ended;
        let kept = state.kept;
        let (facts, incidents) = state.queue.counts();
        drop(state);
        if ended {
            // It has nothing left to do.
            let _ = writer.join();
            return kept;
        }
        self.shared.work.notify_one();
        // The disk may hold it up for ever: it goes with the program, and so does its lock.
        Kept {
            lost_facts: kept.lost_facts + facts,
            lost_incidents: kept.lost_incidents + incidents,
            failed: true,
            ..kept
        }
    }
}

impl Drop for Recorder {
    /// A run that is broken off is kept as far as it came.
    fn drop(&mut self) {
        let _ = self.close();
    }
}

/// Why nothing can be written, and since when.
struct Trouble {
    since: WallTime,
    began: Instant,
    error: String,
    tried: Instant,
    /// Until the next attempt.
    wait: Duration,
}

impl Trouble {
    fn next_attempt(&self, closing: bool) -> Instant {
        match closing {
            true => self.tried + self.wait.min(LAST_PACE),
            false => self.tried + self.wait,
        }
    }
}

/// What the thread has to do next.
enum Work {
    /// Store this, and say that so much was given up before it.
    Batch(Batch, Dropped),
    /// Delete what has become too old.
    Age,
    /// All is stored, or given up.
    End,
}

/// What the thread does.
struct Writer {
    shared: Arc<Shared>,
    path: PathBuf,
    header: RunHeader,
    numbers: Numbers,
    mounted_at: Option<PathBuf>,
    /// Held while the record is open, and no longer: its file lies beside it.
    lock: Option<WriterLock>,
    look: LookAtClocks,
    /// How far time has come in what was read from elsewhere.
    seen: (MonoTime, WallTime),
    writing: Option<Writing>,
    retention: Retention,
    trouble: Option<Trouble>,
}

impl Writer {
    fn run(mut self) {
        loop {
            match self.wait() {
                Work::Batch(batch, dropped) => self.take(batch, dropped),
                Work::Age => {
                    self.delete_old();
                    self.shared.lock().busy_since = None;
                }
                Work::End => break,
            }
        }
        self.close();
    }

    fn take(&mut self, mut batch: Batch, dropped: Dropped) {
        let now = self.now(&batch);
        let gap = self.gap(dropped, now.1);
        match self.store(&mut batch, gap.as_ref(), now) {
            Ok(()) => self.succeeded(&batch, gap),
            Err(error) => self.failed(batch, error, now.1),
        }
    }

    /// Both clocks, those of the facts if they were read from elsewhere.
    fn now(&mut self, batch: &Batch) -> (MonoTime, WallTime) {
        if self.header.input.is_none() {
            return (self.look)();
        }
        if let Some(at) = batch.last_fact() {
            let offset = self.header.start.wall_minus_mono_ns;
            let wall = at.0.cast_signed().saturating_add(offset);
            self.seen = (at, WallTime(wall));
        }
        self.seen
    }

    /// Waits until there is something to do. While nothing comes that is a matter of hours.
    fn wait(&self) -> Work {
        let mut state = self.shared.lock();
        let mut oldest: Option<Instant> = None;
        // The header of the run is written at once.
        let begins = self.writing.is_none() && self.trouble.is_none();
        loop {
            let nothing = state.queue.is_empty() && state.queue.dropped().is_none();
            let idle = nothing && !begins && self.trouble.is_none();
            if state.give_up || (state.ending && idle) {
                return Work::End;
            }
            let until = match &self.trouble {
                Some(trouble) => Some(trouble.next_attempt(state.closing)),
                None if begins || (!nothing && (state.closing || state.queue.is_urgent())) => {
                    Some(Instant::now())
                }
                None if nothing => self.retention.next_look(),
                None => Some(*oldest.get_or_insert_with(Instant::now) + GATHER),
            };
            if until.is_some_and(|until| until <= Instant::now()) {
                state.busy_since = Some(Instant::now());
                if idle {
                    return Work::Age;
                }
                let dropped = state.queue.dropped();
                return Work::Batch(state.queue.take(self.retention.batch()), dropped);
            }
            state = self.sleep(state, until);
        }
    }

    fn sleep<'a>(
        &self,
        state: MutexGuard<'a, State>,
        until: Option<Instant>,
    ) -> MutexGuard<'a, State> {
        let Some(until) = until else {
            let woken = self.shared.work.wait(state);
            return woken.unwrap_or_else(PoisonError::into_inner);
        };
        let wait = until.saturating_duration_since(Instant::now());
        let woken = self.shared.work.wait_timeout(state, wait);
        woken.map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state)
    }

    /// What is to be said in the record about the time before this batch.
    fn gap(&self, dropped: Dropped, now: WallTime) -> Option<GapRow> {
        let (from, error) = match &self.trouble {
            Some(trouble) => (trouble.since, trouble.error.clone()),
            None if dropped.is_none() => return None,
            None => (now, "more came than could be written in time".to_owned()),
        };
        Some(GapRow {
            from,
            to: now,
            dropped,
            error,
        })
    }

    /// Leaves in the batch what had to be stored by this attempt.
    fn store(
        &mut self,
        batch: &mut Batch,
        gap: Option<&GapRow>,
        now: (MonoTime, WallTime),
    ) -> Result<(), StoreError> {
        let last = batch.last_number().max(gap.and_then(GapRow::last));
        self.hold_lock()?;
        let writing = match &mut self.writing {
            Some(writing) => writing,
            none => {
                let opened = Writing::open(&self.path, &self.header, &mut self.numbers)?;
                // Of an attempt that seemed to fail.
                let there = batch.forget(opened.stored());
                self.shared.lock().kept.add(there);
                none.insert(opened)
            }
        };
        writing.store(batch, gap, now)?;
        self.numbers.reached(last);
        self.delete_old();
        Ok(())
    }

    /// Nothing is written without the lock. If its file has gone, with its folder or by itself, someone
    /// else may have written meanwhile.
    fn hold_lock(&mut self) -> Result<(), StoreError> {
        if self.lock.as_ref().is_some_and(WriterLock::is_in_place) {
            return Ok(());
        }
        self.writing = None;
        self.let_go();
        self.is_mounted()?;
        self.lock = Some(WriterLock::take(&self.path)?);
        Ok(())
    }

    /// In the bare mount point nobody would ever find what is stored.
    fn is_mounted(&self) -> Result<(), StoreError> {
        let now = file::mounted_at(&self.path);
        match now.as_ref().zip(self.mounted_at.as_ref()) {
            Some((now, before)) if now != before && before.starts_with(now) => {
                let error = io::Error::other("its filesystem is not mounted any more");
                Err(error).during("open", &self.path)
            }
            _ => Ok(()),
        }
    }

    fn let_go(&mut self) {
        if let Some(lock) = self.lock.take() {
            lock.let_go();
        }
    }

    fn delete_old(&mut self) {
        let now = (self.look)().1;
        let Some(writing) = &mut self.writing else {
            return;
        };
        match self.retention.look(writing, now) {
            Ok(None) => {}
            Ok(Some(message)) => self.shared.say(&message),
            // What came is stored all the same; the next batch opens the record anew.
            Err(error) => {
                log::warn!("{error}");
                self.writing = None;
            }
        }
    }

    fn succeeded(&mut self, batch: &Batch, gap: Option<GapRow>) {
        let dropped = gap.map(|gap| gap.dropped).unwrap_or_default();
        let mut state = self.shared.lock();
        state.busy_since = None;
        state.said_to_hang = false;
        state.trouble = false;
        state.said_full = false;
        state.queue.stored();
        state.queue.forget_dropped(dropped);
        state.kept.add(batch.counts());
        state.kept.lost_facts += dropped.facts;
        state.kept.lost_incidents += dropped.incidents;
        drop(state);
        self.shared.done.notify_all();
        let path = super::error::spell(&self.path);
        let lost = lost_in_words(dropped);
        match self.trouble.take() {
            Some(trouble) => self.shared.say(&format!(
                "{path} can be written again, after {:.1} s: {lost}",
                trouble.began.elapsed().as_secs_f64()
            )),
            None if dropped.is_none() => {}
            None => self.shared.say(&format!(
                "warning: more came than could be written to {path} in time: {lost}"
            )),
        }
    }

    fn failed(&mut self, batch: Batch, error: StoreError, now: WallTime) {
        // Said before anything else touches that disk.
        if self.trouble.is_none() {
            self.shared.say(&format!(
                "warning: {error}: tracing goes on, what is found is kept in memory (the newest \
                 {} MiB) and stored as soon as that is possible",
                MEMORY >> 20
            ));
        }
        let mut state = self.shared.lock();
        state.busy_since = None;
        state.trouble = true;
        state.errors += 1;
        state.queue.give_back(batch);
        drop(state);
        self.shared.done.notify_all();
        let tried = Instant::now();
        match &mut self.trouble {
            Some(trouble) => {
                trouble.tried = tried;
                trouble.wait = (trouble.wait * 2).min(BACK_OFF.1);
                trouble.error = error.to_string();
            }
            None => {
                self.trouble = Some(Trouble {
                    since: now,
                    began: tried,
                    error: error.to_string(),
                    tried,
                    wait: BACK_OFF.0,
                });
            }
        }
        // Whatever it holds of the file may not be what is on the disk. And nothing is left open there:
        // its filesystem may have to be mounted anew.
        self.writing = None;
        self.let_go();
    }

    fn close(mut self) {
        let now = (self.look)().1;
        if let Some(writing) = &mut self.writing
            && let Err(error) = self.retention.at_the_end(writing, now)
        {
            log::warn!("{error}");
        }
        let closed = self.writing.take().map_or(Ok(()), Writing::close);
        if let Err(error) = closed {
            // Nothing is lost by that: the log stays beside the record.
            log::warn!("{error}");
        }
        let mut state = self.shared.lock();
        state.ended = true;
        drop(state);
        self.shared.done.notify_all();
    }
}

fn lost_in_words(dropped: Dropped) -> String {
    if dropped.is_none() {
        return "nothing was lost".to_owned();
    }
    format!(
        "{} facts, {} incidents and {} other things are not in the record",
        dropped.facts, dropped.incidents, dropped.others
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::{
        model::{FactKind, LossCause, Lost},
        schema::{Filters, KernelRecord, Start},
        store::Reader,
    };

    const DAY: Duration = Duration::from_secs(86_400);
    static DAYS: AtomicI64 = AtomicI64::new(0);

    fn clocks() -> (MonoTime, WallTime) {
        let days = DAYS.load(Ordering::Relaxed) * DAY.as_nanos() as i64;
        let began = 1_763_640_000_000_000_000;
        (MonoTime(days as u64), WallTime(began + days))
    }

    fn header() -> RunHeader {
        let (began, began_wall) = clocks();
        RunHeader {
            began,
            began_wall,
            start: Start {
                version: "0.1.0".to_owned(),
                pid: 7,
                kernel: KernelRecord {
                    name: "Linux".to_owned(),
                    release: "6.12".to_owned(),
                    machine: "x86_64".to_owned(),
                },
                boot_id: None,
                host: None,
                tier: "fentry".to_owned(),
                hooks: Vec::new(),
                wall_minus_mono_ns: began_wall.0,
                calls: Vec::new(),
                filters: Filters::default(),
                command: None,
            },
            include_async: false,
            input: None,
        }
    }

    /// A machine on which nothing is lost any more: what it lost long ago still goes in time.
    #[test]
    fn what_becomes_too_old_goes_though_nothing_comes() {
        // In memory where that is possible: a machine that compiles takes seconds for a flush.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let folder = folder.unwrap();
        let path = folder.path().join("a.db");
        let limits = Limits {
            keep: Some(30 * DAY),
            max_size: None,
        };
        let say = |message: &str| eprintln!("{message}");
        let mut recorder = Recorder::open(&path, limits, clocks, Box::new(say)).unwrap();
        let retention = Retention::new(limits).with_pace(Duration::from_millis(10));
        recorder.begin_with(header(), retention).unwrap();
        let lost = Lost {
            cause: LossCause::BadLine,
            count: 1,
        };
        recorder.fact(Fact {
            at: MonoTime(1),
            kind: FactKind::Lost(lost),
        });
        recorder.flush();
        let facts = || -> i64 {
            let reader = Reader::open(&path).unwrap();
            let sql = "SELECT count(*) FROM facts";
            let count = reader.connection().query_row(sql, [], |row| row.get(0));
            count.unwrap()
        };
        wait_until(|| facts() == 1);
        DAYS.store(29, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(50));
        assert_eq!(facts(), 1, "it is not too old yet");
        DAYS.store(31, Ordering::Relaxed);
        wait_until(|| facts() == 0);
        assert!(!recorder.finish().failed);
    }

    fn wait_until(mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < deadline, "it never came");
            thread::sleep(Duration::from_millis(10));
        }
    }
}
