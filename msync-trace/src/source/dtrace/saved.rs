//! Facts of a run that was saved in a file, or that comes through a pipe.

use std::{
    io::{self, Read},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{Complaint, Reader, Refusal};
use crate::{
    model::{Fact, InodeKey, MonoTime, Release},
    schema::StopReason,
    source::{FactSource, HookStatus, Origin, Progress},
};

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;
/// Chunks that may wait.
const CHUNKS: usize = 4;
/// Complaints about lines that are shown, unless all are asked for.
const SHOWN: u64 = 20;
/// How long to wait for the last lines when a signal ended us: it may have ended the other side of
/// the pipe too, which has things to say on its way out.
const LAST_LINES: Duration = Duration::from_secs(5);
/// When the reading of a file is told of first, and how often then.
const FIRST_PROGRESS: Duration = Duration::from_secs(2);
const NEXT_PROGRESS: Duration = Duration::from_secs(10);

/// Why there are no facts, or no more.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// It cannot be read.
    #[error("cannot read on after line {line}")]
    Io {
        /// The last line that was read.
        line: u64,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// It is none of ours.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Bytes that a thread reads: a file, a pipe, a terminal are all the same here.
#[derive(Debug)]
pub struct Input {
    chunks: mpsc::Receiver<io::Result<Vec<u8>>>,
    /// Its length, if it is a file: all of it is there, and nobody waits for what it tells.
    length: Option<u64>,
}

impl Input {
    /// Begins to read. `length`: of a file; `None` if bytes come as they are made.
    pub fn new(mut from: impl Read + Send + 'static, length: Option<u64>) -> Self {
        let (sender, chunks) = mpsc::channel(CHUNKS);
        std::thread::spawn(move || {
            loop {
                let mut chunk = vec![0; CHUNK];
                let read = match from.read(&mut chunk) {
                    Ok(0) => return,
                    Ok(length) => {
                        chunk.truncate(length);
                        Ok(chunk)
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let is_over = read.is_err();
                if sender.blocking_send(read).is_err() || is_over {
                    return;
                }
            }
        });
        Self { chunks, length }
    }
}

/// Complaints on their way to be shown: very many say no more than some.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    all: bool,
    shown: u64,
    hidden: u64,
}

impl Complaints {
    /// `all`: show every one.
    pub(super) fn new(all: bool) -> Self {
        Self {
            all,
            ..Self::default()
        }
    }

    /// Those that are to be shown.
    pub(super) fn show(&mut self, complaints: Vec<Complaint>) -> Vec<String> {
        let text = |Complaint { line, text }| format!("warning: line {line}: {text}");
        let texts = complaints.into_iter().map(text);
        texts.filter_map(|text| self.show_one(text)).collect()
    }

    /// One of another kind, if it is to be shown.
    pub(super) fn show_one(&mut self, text: String) -> Option<String> {
        if self.all || self.shown < SHOWN {
            self.shown += 1;
            return Some(text);
        }
        self.hidden += 1;
        None
    }

    /// How many were not.
    pub(super) fn rest(&self) -> Option<String> {
        (self.hidden > 0)
            .then(|| format!("warning: {} more like these, which -v shows", self.hidden))
    }
}

/// A run that was saved.
#[derive(Debug)]
pub struct Saved {
    input: Input,
    reader: Reader,
    chunk: Vec<u8>,
    /// So much of it was taken.
    taken: usize,
    /// Bytes of the chunks before.
    before: u64,
    /// Facts of the lines around the start line.
    early: Vec<Fact>,
    hooks: Vec<HookStatus>,
    complaints: Complaints,
    is_over: bool,
    /// When to tell of progress next.
    progress: Option<Instant>,
    began: Instant,
}

impl Saved {
    /// Reads up to the line that starts the run.
    ///
    /// # Errors
    /// If there is none, or if the input cannot be read.
    pub async fn open(
        input: Input,
        all_complaints: bool,
        show_progress: bool,
    ) -> Result<Self, SavedError> {
        let began = Instant::now();
        let mut saved = Self {
            progress: show_progress.then(|| began + FIRST_PROGRESS),
            input,
            reader: Reader::default(),
            chunk: Vec::new(),
            taken: 0,
            before: 0,
            early: Vec::new(),
            hooks: Vec::new(),
            complaints: Complaints::new(all_complaints),
            is_over: false,
            began,
        };
        let mut early = Vec::new();
        while saved.reader.origin().is_none() && !saved.is_over {
            saved.advance(&mut early).await?;
        }
        saved.early = early;
        saved.hooks = saved.reader.hooks();
        Ok(saved)
    }

    /// Takes what there is of a chunk up to the end of a batch, or fetches the next chunk. Whether a
    /// batch ended.
    async fn advance(&mut self, into: &mut Vec<Fact>) -> Result<bool, SavedError> {
        if self.taken < self.chunk.len() {
            let taken = self.reader.take(&self.chunk[self.taken..], into)?;
            self.taken += taken.bytes;
            return Ok(taken.is_batch);
        }
        match self.input.chunks.recv().await {
            Some(Ok(chunk)) => {
                self.before += self.chunk.len() as u64;
                (self.chunk, self.taken) = (chunk, 0);
                Ok(false)
            }
            Some(Err(error)) => {
                let line = self.reader.lines();
                Err(SavedError::Io { line, error })
            }
            None => {
                self.is_over = true;
                self.reader.end(into)?;
                Ok(true)
            }
        }
    }

    /// Whether somebody may wait for what has been read, and nothing more is there.
    fn is_live_and_quiet(&self) -> bool {
        self.input.length.is_none()
            && self.taken == self.chunk.len()
            && self.input.chunks.is_empty()
    }

    fn progress(&mut self) -> Option<String> {
        let now = Instant::now();
        if self.is_over || self.progress.is_none_or(|next| now < next) {
            return None;
        }
        self.progress = Some(now + NEXT_PROGRESS);
        let (read, seconds) = (
            self.before + self.taken as u64,
            self.began.elapsed().as_secs(),
        );
        let length = self.input.length.filter(|length| *length > 0)?;
        let percent = read.saturating_mul(100) / length;
        Some(format!(
            "{percent} % read in {seconds} s, {} lines",
            self.reader.lines()
        ))
    }

    fn said(&mut self) -> Vec<String> {
        let complaints = self.reader.take_complaints();
        self.complaints.show(complaints)
    }
}

impl FactSource for Saved {
    type Error = SavedError;

    fn hooks(&self) -> &[HookStatus] {
        &self.hooks
    }

    fn tier(&self) -> &'static str {
        super::TIER
    }

    fn origin(&self) -> Option<&Origin> {
        self.reader.origin()
    }

    fn now(&self) -> Option<MonoTime> {
        self.reader.now()
    }

    fn messages(&mut self) -> Vec<String> {
        let mut said = self.said();
        said.extend(self.progress());
        said
    }

    async fn next_facts(&mut self, into: &mut Vec<Fact>) -> Result<Progress, SavedError> {
        into.append(&mut self.early);
        loop {
            let is_batch = self.advance(into).await?;
            if self.is_over {
                return Ok(Progress::Ended);
            }
            let is_ready = !into.is_empty() || self.reader.complains();
            if is_ready && (is_batch || self.is_live_and_quiet()) {
                return Ok(Progress::More);
            }
            if is_batch {
                // A file is always ready: signals want their turn.
                tokio::task::yield_now().await;
            }
        }
    }

    async fn finish(&mut self, why: StopReason, into: &mut Vec<Fact>) -> Vec<String> {
        let mut said = Vec::new();
        if why == StopReason::Signal && self.input.length.is_none() {
            let last_lines = async { while !self.is_over && self.advance(into).await.is_ok() {} };
            // What has not come by then is missing, and will be said to be.
            let _ = tokio::time::timeout(LAST_LINES, last_lines).await;
        }
        // Who has seen enough did not want the rest.
        if !self.is_over && why != StopReason::StopAfter {
            // There was a start line, so there is nothing to refuse.
            let _ = self.reader.end(into);
        }
        said.extend(self.said());
        said.extend(self.complaints.rest());
        said
    }

    fn released(&mut self, _inode: &InodeKey, _why: Release) {}
}
