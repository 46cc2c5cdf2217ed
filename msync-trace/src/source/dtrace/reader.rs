//! The whole protocol: bytes in, facts and complaints out. Pure: no clock, no input or output, and
//! the same bytes give the same facts, however they are cut into pieces.

use super::{
    facts::Mapping,
    line::{self, Event, Fault, Line, NO_STREAM, Start, Stream},
    order::{Order, Place, Sequences},
};
use crate::{
    model::{ErrnoNumbers, Fact, FactKind, LossCause, Lost, MonoTime},
    schema::WallTime,
    source::{HookState, HookStatus, Origin},
};

/// A batch ends after so many lines, or after a `tick`.
const BATCH_LINES: usize = 512;
/// So many lines may come before the one that starts the run: those of other CPUs.
const MOST_EARLY: usize = 4096;

/// Something is wrong with a line, or with the whole run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Its number in the input, from 1; the last one if it is about the whole run.
    pub line: u64,
    /// What.
    pub text: String,
}

/// The input cannot be read at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing in it.
    #[error(
        "the input is empty: start the D script with the argument `facts` \
         (dtrace/README.md), and read its standard output"
    )]
    Empty,
    /// No run begins in it.
    #[error(
        "no start line in {lines} lines (the first: {first}): not what a D script of msync-trace \
         prints. Start it with the argument `facts` (dtrace/README.md), and keep its output from \
         the first line on"
    )]
    NoStart {
        /// Lines that were read.
        lines: u64,
        /// Why the first of them was none.
        first: String,
    },
    /// The script is of another version.
    #[error(
        "line {line} is of version {word} of the line protocol, and this msync-trace reads {}: \
         take the D script and msync-trace from the same version",
        line::WORD
    )]
    OtherVersion {
        /// Number of the line.
        line: u64,
        /// Its first word.
        word: String,
    },
    /// The facts are of a system whose words are not known here.
    #[error("facts of {os}: only those of FreeBSD and Linux are understood")]
    OtherSystem {
        /// Its name.
        os: String,
    },
}

/// What became of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// So many were taken; the rest is to be given again.
    pub bytes: usize,
    /// Whether a batch of lines is over: where it ends does not depend on how the input was cut.
    pub is_batch: bool,
}

/// Reads the lines of one run.
#[derive(Debug)]
pub struct Reader {
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
    /// The rest of this line is passed over: it was too long.
    skipping: bool,
    /// Number of the last line.
    number: u64,
    /// Lines of this batch.
    batch: usize,
    state: State,
    complaints: Vec<Complaint>,
    /// Lines that could not be read, and were not counted as lost yet.
    bad: u64,
    first_fault: Option<String>,
    /// What was lost before the run began, as far as lines go.
    lost_before: Vec<Lost>,
}

#[derive(Debug)]
enum State {
    /// Lines of other CPUs can come before the start line.
    Waiting(Vec<Numbered>),
    Running(Box<Run>),
}

/// A line with its number in the input and its bytes.
type Numbered = (u64, Line, Vec<u8>);

/// What waits for its turn.
#[derive(Debug)]
enum Item {
    Event(Box<Event>),
    Lost(Lost),
}

/// A run that has begun.
#[derive(Debug)]
struct Run {
    origin: Origin,
    script: String,
    sequences: Sequences,
    order: Order<Item>,
    mapping: Mapping,
    /// Whether its start line was taken.
    begun: bool,
    /// The stream of the line that ended the run.
    stopped: Option<Stream>,
    /// Another run follows, and is not read.
    over: bool,
    ended: bool,
    scratch: Vec<FactKind>,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            partial: Vec::new(),
            skipping: false,
            number: 0,
            batch: 0,
            state: State::Waiting(Vec::new()),
            complaints: Vec::new(),
            bad: 0,
            first_fault: None,
            lost_before: Vec::new(),
        }
    }
}

impl Reader {
    /// Takes bytes, up to the end of a batch, and appends the facts that are ready.
    ///
    /// # Errors
    /// If the input cannot be read at all; then nothing more is to be given.
    pub fn take(&mut self, bytes: &[u8], into: &mut Vec<Fact>) -> Result<Taken, Refusal> {
        let mut taken = 0;
        while let Some(length) = bytes[taken..].iter().position(|b| *b == b'\n') {
            let end = taken + length;
            let is_batch = self.line_ends(&bytes[taken..end], into)?;
            taken = end + 1;
            if is_batch {
                return Ok(Taken {
                    bytes: taken,
                    is_batch,
                });
            }
        }
        self.keep(&bytes[taken..]);
        Ok(Taken {
            bytes: bytes.len(),
            is_batch: false,
        })
    }

    /// The input has ended, or nothing more of it is wanted: appends what is left.
    ///
    /// # Errors
    /// If there was no run in it.
    pub fn end(&mut self, into: &mut Vec<Fact>) -> Result<(), Refusal> {
        if !self.partial.is_empty() || self.skipping {
            self.line_ends(&[], into)?;
        }
        let State::Running(run) = &mut self.state else {
            return Err(self.no_start());
        };
        if run.ended {
            return Ok(());
        }
        run.ended = true;
        let complain = &mut Complainer {
            complaints: &mut self.complaints,
            line: self.number,
        };
        run.lose(LossCause::BadLine, std::mem::take(&mut self.bad));
        run.end(complain, into);
        Ok(())
    }

    /// Something was lost that no line tells of.
    pub fn lose(&mut self, cause: LossCause, count: u64) {
        match &mut self.state {
            State::Running(run) => run.lose(cause, count),
            State::Waiting(_) => self.lost_before.push(Lost { cause, count }),
        }
    }

    /// Where the run was started; `None` until its start line was read.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        match &self.state {
            State::Waiting(_) => None,
            State::Running(run) => Some(&run.origin),
        }
    }

    /// What is known from the start not to be seen.
    #[must_use]
    pub(super) fn hooks(&self) -> Vec<HookStatus> {
        // `dt_cg_tramp_prologue_act` in DTrace 2: its probes share memory of their processor. Those of
        // FreeBSD run with interrupts off.
        let leaves_out = self.origin().is_some_and(|origin| origin.os == "Linux");
        let probes = HookStatus {
            name: "dtrace.probes",
            purpose: "every probe of the script, each time",
            target: "dtrace".to_owned(),
            state: HookState::Unavailable(
                "dtrace on Linux leaves out a probe that fires while another one runs on the same \
                 processor, and does not count it: no all-clear"
                    .to_owned(),
            ),
        };
        Vec::from_iter(leaves_out.then_some(probes))
    }

    /// Version of the script; empty until the start line was read.
    #[must_use]
    pub fn script(&self) -> &str {
        match &self.state {
            State::Waiting(_) => "",
            State::Running(run) => &run.script,
        }
    }

    /// How far time has come in the facts that were handed on, and may come without any.
    #[must_use]
    pub fn now(&self) -> Option<MonoTime> {
        match &self.state {
            State::Waiting(_) => None,
            State::Running(run) => match run.ended {
                true => Some(MonoTime(run.order.newest())),
                false => Some(MonoTime(run.order.horizon())),
            },
        }
    }

    /// Whether the line that ends a run was read.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        matches!(&self.state, State::Running(run) if run.stopped.is_some())
    }

    /// Lines so far.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.number
    }

    /// Whether something was wrong since this was asked last.
    #[must_use]
    pub fn complains(&self) -> bool {
        !self.complaints.is_empty()
    }

    /// What was wrong since this was asked last.
    pub fn take_complaints(&mut self) -> Vec<Complaint> {
        std::mem::take(&mut self.complaints)
    }

    /// Keeps the beginning of a line until the rest comes.
    fn keep(&mut self, bytes: &[u8]) {
        if self.skipping {
            return;
        }
        // One more for a carriage return, and the newline is not in it.
        if self.partial.len() + bytes.len() > line::LONGEST {
            self.skipping = true;
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    /// A line is whole with these bytes. Whether it ends a batch.
    fn line_ends(&mut self, rest: &[u8], into: &mut Vec<Fact>) -> Result<bool, Refusal> {
        self.number += 1;
        self.batch += 1;
        let mut is_tick = false;
        if self.partial.is_empty() && !self.skipping && rest.len() <= line::LONGEST {
            is_tick = self.line(rest, into)?;
        } else {
            self.keep(rest);
            if std::mem::take(&mut self.skipping) {
                let text = format!("skipped: longer than {} bytes", line::LONGEST);
                self.complain(text);
                self.bad += 1;
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                is_tick = self.line(&whole, into)?;
                whole.clear();
                self.partial = whole;
            }
        }
        let is_batch = is_tick || self.batch >= BATCH_LINES;
        if is_batch {
            self.batch = 0;
        }
        Ok(is_batch)
    }

    /// A whole line. Whether it is a tick.
    fn line(&mut self, bytes: &[u8], into: &mut Vec<Fact>) -> Result<bool, Refusal> {
        // A file can have been on a system that ends lines so; no string has a bare one.
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        // DTrace prints an empty line when it is interrupted.
        if bytes.is_empty() {
            return Ok(false);
        }
        let line = match line::parse(bytes) {
            Ok(line) => line,
            Err(fault) => {
                self.faulty(fault)?;
                return Ok(false);
            }
        };
        let is_tick = line.event == Event::Tick;
        match (&mut self.state, &line.event) {
            (State::Waiting(early), Event::Start(start)) => {
                let early = std::mem::take(early);
                let mut run = Box::new(Run::new(start, line.ts)?);
                for Lost { cause, count } in self.lost_before.drain(..) {
                    run.lose(cause, count);
                }
                self.state = State::Running(run);
                self.number(line, bytes, into);
                let now = self.number;
                for (number, line, bytes) in early {
                    self.number = number;
                    self.number(line, &bytes, into);
                }
                self.number = now;
            }
            (State::Waiting(early), _) if early.len() < MOST_EARLY => {
                early.push((self.number, line, bytes.to_vec()));
            }
            (State::Waiting(_), _) => return Err(self.no_start()),
            (State::Running(_), _) => self.number(line, bytes, into),
        }
        Ok(is_tick)
    }

    /// A line of the run.
    fn number(&mut self, line: Line, bytes: &[u8], into: &mut Vec<Fact>) {
        let State::Running(run) = &mut self.state else {
            return;
        };
        let complain = &mut Complainer {
            complaints: &mut self.complaints,
            line: self.number,
        };
        match run.line(line, bytes, complain) {
            Read::Good => run.lose(LossCause::BadLine, std::mem::take(&mut self.bad)),
            Read::Skipped(why) => {
                complain.say(format!("skipped: {why}"));
                self.bad += 1;
            }
            Read::OfAnotherRun => {}
        }
        run.hand_on(into);
    }

    fn faulty(&mut self, fault: Fault) -> Result<(), Refusal> {
        if let (Fault::OtherVersion(word), State::Waiting(_)) = (&fault, &self.state) {
            return Err(Refusal::OtherVersion {
                line: self.number,
                word: word.clone(),
            });
        }
        if self.first_fault.is_none() {
            self.first_fault = Some(fault.to_string());
        }
        self.complain(format!("skipped: {fault}"));
        self.bad += 1;
        Ok(())
    }

    fn complain(&mut self, text: String) {
        let line = self.number;
        self.complaints.push(Complaint { line, text });
    }

    fn no_start(&self) -> Refusal {
        if self.number == 0 {
            return Refusal::Empty;
        }
        Refusal::NoStart {
            lines: self.number,
            first: self
                .first_fault
                .clone()
                .unwrap_or_else(|| "a line of a run that began before".to_owned()),
        }
    }
}

/// Where complaints about one line go.
struct Complainer<'a> {
    complaints: &'a mut Vec<Complaint>,
    line: u64,
}

impl Complainer<'_> {
    fn say(&mut self, text: impl Into<String>) {
        self.complaints.push(Complaint {
            line: self.line,
            text: text.into(),
        });
    }
}

impl Run {
    fn new(start: &Start, ts: u64) -> Result<Self, Refusal> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let numbers = match &start.os[..] {
            b"FreeBSD" => ErrnoNumbers::FreeBsd,
            b"Linux" => ErrnoNumbers::Linux,
            other => {
                return Err(Refusal::OtherSystem {
                    os: line::excerpt(other),
                });
            }
        };
        let wall = i64::try_from(start.wall_ns).unwrap_or(i64::MAX);
        let mut order = Order::new(start.window_ns);
        order.reached(ts);
        Ok(Self {
            origin: Origin {
                os: text(&start.os),
                release: text(&start.release),
                here: false,
                began: (MonoTime(ts), WallTime(wall)),
            },
            script: text(&start.script),
            sequences: Sequences::default(),
            order,
            mapping: Mapping::new(numbers),
            begun: false,
            stopped: None,
            over: false,
            ended: false,
            scratch: Vec::new(),
        })
    }

    /// Takes a line.
    fn line(&mut self, line: Line, bytes: &[u8], complain: &mut Complainer<'_>) -> Read {
        let too_many = || Read::Skipped("there are too many streams".to_owned());
        if self.over {
            return Read::OfAnotherRun;
        }
        let Line {
            stream,
            n,
            ts,
            event,
        } = line;
        if self.stopped.is_some() && !matches!(event, Event::Start(_)) {
            return Read::Skipped("it comes after the line that ends the run".to_owned());
        }
        if let Event::Lines { stream, count } = event {
            return match self.sequences.count(stream, count) {
                true => Read::Good,
                false => too_many(),
            };
        }
        if let Err(field) = self.mapping.check(&event) {
            return Read::Skipped(format!("{field} is none of {}", self.origin.os));
        }
        let is_numbered = !(stream.is_none() && event == Event::Stop);
        let place = match is_numbered {
            true => self.sequences.place(stream, n, bytes),
            false => Place::Next,
        };
        if place == Place::Repeated {
            return Read::Skipped(format!("line {n} of stream {stream} once more"));
        }
        if matches!(event, Event::Start(_)) && std::mem::replace(&mut self.begun, true) {
            self.over = true;
            return Read::Skipped(
                "another run starts here; one input is one run, and nothing more is read"
                    .to_owned(),
            );
        }
        match place {
            Place::Next | Place::Repeated => {}
            Place::After(missing) => {
                complain.say(format!(
                    "{missing} of the lines of stream {stream} before this one did not come"
                ));
                self.lose_at(ts, stream, LossCause::LineLost, missing);
            }
            Place::Back => {
                let why = format!("line {n} of stream {stream} comes after later ones");
                return Read::Skipped(why);
            }
            Place::NoStream => return too_many(),
        }
        match event {
            Event::Start(_) | Event::Tick => self.order.reached(ts),
            Event::Stop => {
                self.order.reached(ts);
                self.stopped = Some(stream);
            }
            event => {
                if self
                    .order
                    .push(ts, stream, bytes.len(), Item::Event(Box::new(event)))
                {
                    complain.say("came so late that its place had passed");
                    self.lose_at(ts, stream, LossCause::LineLate, 1);
                }
            }
        }
        Read::Good
    }

    /// Something was lost until now.
    fn lose(&mut self, cause: LossCause, count: u64) {
        self.lose_at(self.order.newest(), NO_STREAM, cause, count);
    }

    fn lose_at(&mut self, ts: u64, stream: Stream, cause: LossCause, count: u64) {
        if count > 0 {
            let lost = Item::Lost(Lost { cause, count });
            self.order.push(ts, stream, 0, lost);
        }
    }

    /// Appends what need not wait any longer.
    fn hand_on(&mut self, into: &mut Vec<Fact>) {
        while let Some((ts, item)) = self.order.next() {
            self.make_facts(ts, item, into);
        }
    }

    fn make_facts(&mut self, ts: u64, item: Item, into: &mut Vec<Fact>) {
        let at = MonoTime(ts);
        match item {
            Item::Event(event) => self.mapping.facts(*event, &mut self.scratch),
            Item::Lost(lost) => self.scratch.push(FactKind::Lost(lost)),
        }
        into.extend(self.scratch.drain(..).map(|kind| Fact { at, kind }));
    }

    /// The input has ended.
    fn end(&mut self, complain: &mut Complainer<'_>, into: &mut Vec<Fact>) {
        match self.stopped {
            Some(stream) => {
                for (stream, count) in self.sequences.missing(stream) {
                    complain.say(match count {
                        Some(count) => format!(
                            "the script printed another number of lines of stream {stream} than                              came: {count} more or less"
                        ),
                        None => format!("how many lines of stream {stream} there were is not said"),
                    });
                    self.lose(LossCause::LineLost, count.unwrap_or(1));
                }
            }
            None => self.is_cut(complain),
        }
        while let Some((ts, item)) = self.order.pop() {
            self.make_facts(ts, item, into);
        }
    }

    /// The line that ends a run did not come. Something that would have come before what still
    /// waits may be missing, a success that clears a failure for instance: that is no ground for a
    /// verdict.
    fn is_cut(&mut self, complain: &mut Complainer<'_>) {
        let mut dropped = 0;
        let mut kept = Vec::new();
        while let Some((ts, item)) = self.order.pop() {
            match item {
                Item::Event(_) => dropped += 1,
                Item::Lost(lost) => kept.push((ts, lost)),
            }
        }
        for (ts, Lost { cause, count }) in kept {
            self.lose_at(ts, NO_STREAM, cause, count);
        }
        let unjudged = match dropped {
            0 => String::new(),
            n => format!("; {n} of the last lines are not judged, because others may be missing"),
        };
        complain.say(format!("the line that ends the run did not come{unjudged}"));
        self.lose(LossCause::InputCut, dropped.max(1));
    }
}

/// What became of a line.
enum Read {
    Good,
    /// It says nothing; why.
    Skipped(String),
    /// Another run began before it.
    OfAnotherRun,
}

#[cfg(test)]
mod tests;
