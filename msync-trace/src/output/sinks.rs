//! Several outputs at once, none of which can hold up another or the tracing.
//!
//! Each [`Sink`] has a thread of its own behind a bounded queue. What it refuses is tried again
//! until it takes it; what finds its queue full is dropped there and nowhere else, incidents last.
//! All of it is counted.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{Output, failures::Failures};
use crate::{
    model::Fact,
    schema::{Body, Clock, Record},
};

/// Somewhere that records go. Used by one thread only, which may wait in it.
pub trait Sink: Send {
    /// Whether it wants this record at all.
    fn wants(&self, _record: &Record) -> bool {
        true
    }

    /// Takes a record.
    ///
    /// # Errors
    /// [`Refused`]: whether the same record is to be offered again.
    fn put(&mut self, record: &Record) -> Result<(), Refused>;

    /// Opens anew what it writes to: somebody moved the file away.
    ///
    /// # Errors
    /// If it cannot be opened.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Ends what is still going on, until then at the latest.
    fn finish(&mut self, _deadline: Instant) {}
}

/// Why a sink did not take a record.
#[derive(Debug)]
pub enum Refused {
    /// It may take it later.
    ForNow(io::Error),
    /// It never will: this record is lost to it.
    ForGood(io::Error),
    /// It takes no more of them now, as it was told: this record is left out.
    LeftOut,
}

/// What became of the records that an output was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Records that it took.
    pub delivered: u64,
    /// Records that it will never get: its queue was full, or it refused them for good.
    pub dropped: u64,
    /// Of these, incidents.
    pub dropped_incidents: u64,
    /// Failed attempts.
    pub errors: u64,
    /// Attempts after the first with the same record.
    pub retries: u64,
    /// Records that wait.
    pub waiting: usize,
    /// Whether its last attempt failed.
    pub failing: bool,
}

/// Says something on standard error, at once and from any thread.
pub type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// Between two attempts, at first and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Several outputs.
#[derive(Default)]
pub struct Sinks {
    sinks: Vec<Running>,
    watchers: Vec<Box<dyn Output>>,
    failures: Failures,
}

struct Running {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    name: &'static str,
    state: Mutex<State>,
    /// Something to do for the thread.
    work: Condvar,
    /// The thread ended.
    ended: Condvar,
    say: Say,
}

struct State {
    queue: VecDeque<Arc<Record>>,
    limit: usize,
    /// One more is being delivered.
    in_hand: bool,
    reopen: bool,
    /// No more will come; give up then.
    deadline: Option<Instant>,
    ended: bool,
    said_full: bool,
    delivery: Delivery,
}

/// Reads what became of the records of one output.
#[derive(Clone)]
pub struct DeliveryView(Arc<Shared>);

impl DeliveryView {
    /// Name of the output.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// What became of its records so far.
    #[must_use]
    pub fn look(&self) -> Delivery {
        let state = self.0.lock();
        Delivery {
            waiting: state.queue.len() + usize::from(state.in_hand),
            ..state.delivery
        }
    }
}

/// Through it a sink tells what became of a record that it took, later and from any thread.
#[derive(Clone)]
pub struct Reporter(Arc<Shared>);

impl Reporter {
    /// It came to nothing.
    pub fn failed(&self, error: &io::Error) {
        self.0.failed(error);
    }

    /// It worked.
    pub fn succeeded(&self) {
        self.0.succeeded(0);
    }
}

impl Sinks {
    /// Adds an output that waits for nobody: it is told of every fact as well.
    pub fn watch(&mut self, watcher: Box<dyn Output>) {
        self.watchers.push(watcher);
    }

    /// Adds an output that may be slow; at most `limit` records wait for it.
    ///
    /// # Errors
    /// If there can be no thread for it.
    pub fn add(
        &mut self,
        name: &'static str,
        limit: usize,
        say: Say,
        make: impl FnOnce(Reporter) -> Box<dyn Sink>,
    ) -> io::Result<()> {
        let shared = Arc::new(Shared {
            name,
            state: Mutex::new(State {
                queue: VecDeque::new(),
                limit,
                in_hand: false,
                reopen: false,
                deadline: None,
                ended: false,
                said_full: false,
                delivery: Delivery::default(),
            }),
            work: Condvar::new(),
            ended: Condvar::new(),
            say,
        });
        let worker = Worker {
            shared: Arc::clone(&shared),
            sink: make(Reporter(Arc::clone(&shared))),
        };
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || worker.run())?;
        self.sinks.push(Running {
            shared,
            thread: Some(thread),
        });
        Ok(())
    }

    /// One for each output that was added.
    #[must_use]
    pub fn views(&self) -> Vec<DeliveryView> {
        let view = |running: &Running| DeliveryView(Arc::clone(&running.shared));
        self.sinks.iter().map(view).collect()
    }

    /// Opens files anew, each on its own thread.
    pub fn reopen(&self) {
        for running in &self.sinks {
            running.shared.lock().reopen = true;
            running.shared.work.notify_one();
        }
    }

    /// Waits until everything is delivered, for so long at the most: all outputs at the same time.
    pub fn finish(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        for running in &self.sinks {
            running.shared.lock().deadline = Some(deadline);
            running.shared.work.notify_one();
        }
        for running in &mut self.sinks {
            if running.shared.wait_for_end(deadline)
                && let Some(thread) = running.thread.take()
            {
                // A panic there was told on standard error already.
                let _ = thread.join();
            }
        }
    }
}

impl Output for Sinks {
    fn show(&mut self, record: &Record) -> io::Result<()> {
        for watcher in &mut self.watchers {
            watcher.show(record)?;
        }
        let mut common = None;
        for running in &self.sinks {
            let record = common.get_or_insert_with(|| Arc::new(record.clone()));
            running.shared.push(Arc::clone(record));
        }
        Ok(())
    }

    fn saw(&mut self, fact: &Fact, clock: &Clock) {
        for watcher in &mut self.watchers {
            watcher.saw(fact, clock);
        }
        if let Some(record) = self.failures.told(fact, clock) {
            let record = Arc::new(record);
            for running in &self.sinks {
                running.shared.push(Arc::clone(&record));
            }
        }
    }
}

impl Shared {
    fn succeeded(&self, records: u64) {
        let mut state = self.lock();
        state.delivery.delivered += records;
        let was_failing = std::mem::take(&mut state.delivery.failing);
        if state.queue.is_empty() {
            state.said_full = false;
        }
        let delivery = state.delivery;
        drop(state);
        if was_failing {
            (self.say)(&format!(
                "the output {} works again after {} failed attempts; {} records are missing in it",
                self.name, delivery.errors, delivery.dropped
            ));
        }
    }

    /// Says it once, not at every attempt.
    fn failed(&self, error: &io::Error) {
        let mut state = self.lock();
        state.delivery.errors += 1;
        let was_failing = std::mem::replace(&mut state.delivery.failing, true);
        drop(state);
        if !was_failing {
            (self.say)(&format!(
                "warning: the output {} fails: {error}; it is tried again, and the other outputs \
                 go on",
                self.name
            ));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, record: Arc<Record>) {
        let mut state = self.lock();
        state.push(record);
        let full = state.delivery.dropped > 0 && state.queue.len() >= state.limit;
        let say_it = full && !state.said_full;
        state.said_full |= full;
        drop(state);
        self.work.notify_one();
        if say_it {
            (self.say)(&format!(
                "warning: the output {} does not keep up and its queue is full: from now on it \
                 misses records; the other outputs do not",
                self.name
            ));
        }
    }

    /// Whether it ended in time.
    fn wait_for_end(&self, deadline: Instant) -> bool {
        // A little more: the thread looks at the same clock.
        let deadline = deadline + Duration::from_millis(500);
        let mut state = self.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return state.ended;
            }
            state = match self.ended.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

fn is_incident(record: &Record) -> bool {
    matches!(record.body, Body::Incident(_))
}

impl State {
    /// The newest is let in as long as there is one that matters less; of incidents the first stay.
    fn push(&mut self, record: Arc<Record>) {
        if self.queue.len() >= self.limit {
            let lesser = self.queue.iter().position(|waiting| !is_incident(waiting));
            let dropped = match lesser.and_then(|at| self.queue.remove(at)) {
                Some(lesser) => {
                    self.queue.push_back(record);
                    lesser
                }
                None => record,
            };
            self.drop_one(&dropped);
        } else {
            self.queue.push_back(record);
        }
    }

    fn drop_one(&mut self, record: &Record) {
        self.delivery.dropped += 1;
        self.delivery.dropped_incidents += u64::from(is_incident(record));
    }

    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|end| end <= Instant::now())
    }
}

/// What the thread of an output does.
struct Worker {
    shared: Arc<Shared>,
    sink: Box<dyn Sink>,
}

enum Work {
    Reopen,
    Put(Arc<Record>),
    End(Instant),
}

impl Worker {
    fn run(mut self) {
        loop {
            match self.wait() {
                Work::Reopen => self.reopen(),
                Work::Put(record) => {
                    self.deliver(&record);
                    self.shared.lock().in_hand = false;
                }
                Work::End(deadline) => {
                    self.sink.finish(deadline);
                    break;
                }
            }
        }
        let mut state = self.shared.lock();
        while let Some(record) = state.queue.pop_front() {
            state.drop_one(&record);
        }
        state.ended = true;
        drop(state);
        self.shared.ended.notify_all();
    }

    fn wait(&self) -> Work {
        let mut state = self.shared.lock();
        loop {
            if std::mem::take(&mut state.reopen) {
                return Work::Reopen;
            }
            if let Some(deadline) = state.deadline
                && (state.queue.is_empty() || state.is_over())
            {
                return Work::End(deadline);
            }
            if let Some(record) = state.queue.pop_front() {
                state.in_hand = true;
                return Work::Put(record);
            }
            let woken = self.shared.work.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn reopen(&mut self) {
        let reopened = self.sink.reopen();
        match reopened {
            Ok(()) => self.shared.succeeded(0),
            Err(error) => self.shared.failed(&error),
        }
    }

    /// Until it is taken, refused for good, or there is no more time.
    fn deliver(&mut self, record: &Arc<Record>) {
        if !self.sink.wants(record) {
            return;
        }
        let mut pause = BACK_OFF.0;
        loop {
            match self.sink.put(record) {
                Ok(()) => return self.shared.succeeded(1),
                Err(Refused::LeftOut) => return self.shared.lock().drop_one(record),
                Err(Refused::ForGood(error)) => {
                    self.shared.failed(&error);
                    return self.shared.lock().drop_one(record);
                }
                Err(Refused::ForNow(error)) => self.shared.failed(&error),
            }
            if !self.pause(pause) {
                return self.shared.lock().drop_one(record);
            }
            self.shared.lock().delivery.retries += 1;
            pause = (pause * 2).min(BACK_OFF.1);
        }
    }

    /// Waits before the next attempt, shorter at the end. Whether there is to be one.
    fn pause(&mut self, pause: Duration) -> bool {
        let began = Instant::now();
        let mut state = self.shared.lock();
        loop {
            if state.is_over() {
                return false;
            }
            if std::mem::take(&mut state.reopen) {
                drop(state);
                self.reopen();
                return true;
            }
            let pause = match state.deadline {
                Some(_) => pause.min(BACK_OFF.0),
                None => pause,
            };
            let left = pause.saturating_sub(began.elapsed());
            if left.is_zero() {
                return true;
            }
            let woken = self.shared.work.wait_timeout(state, left);
            state = woken.map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
    }
}

#[cfg(test)]
mod tests;
