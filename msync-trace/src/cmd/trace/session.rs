//! One trace, without its waiting: facts go in, records and messages come out, and at the end the
//! verdict on the whole run.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    time::{Duration, Instant},
};

use anyhow::Context;

use super::{
    End, Filter, Plan,
    held::Held,
    keeping::Keeping,
    repeats::{PACE, Repeat, Repeats},
    tally::Tally,
    verify::{Verifier, VerifyPlan},
};
use crate::{
    cmd::Exit,
    correlate::{Config, Correlator},
    enrich::{Enricher, Machine, machine},
    model::{
        Change, ChangeKind, Discarded, Evicted, Fact, FactKind, Gone, Incident, IncidentId,
        InodeKey, Lost, MonoTime, Redirtied, Release, StorageError, Verdict, WriteOk,
    },
    output::{self, Output, Tone, Verbosity},
    schema::{
        Body, ChangeRecord, Clock, Explanation, Head, HookRecord, HooksRecord, KernelRecord,
        Record, Start, Stop, StopReason, WallTime,
    },
    source::{HookState, HookStatus, Origin},
    store::{RunHeader, StoreHealth},
};

/// Where a trace writes, and what it looks at besides its facts.
pub struct Io {
    /// Findings.
    pub out: Box<dyn Output>,
    /// Everything else.
    pub messages: Box<dyn Write>,
    /// How messages look.
    pub tone: Tone,
    /// Adds names to incidents.
    pub enricher: Enricher,
    /// Reads both clocks of this machine.
    pub look_at_clocks: fn() -> (MonoTime, WallTime),
    /// Where everything is kept for later, shown or not.
    pub keeping: Option<Keeping>,
    /// How the program ends, by what was found.
    pub exit: fn(StopReason, u64, bool) -> Exit,
}

/// What time it is in the facts.
#[derive(Clone, Copy, Debug)]
enum Now {
    /// They are on our clocks.
    Ours(fn() -> (MonoTime, WallTime)),
    /// As far as they have come. Wall time is what it was when they began, and so much later.
    OfFacts(MonoTime),
}

/// So many incidents are remembered as left out.
const HIDDEN_KEPT: usize = 65_536;

/// How long a filesystem may take to draw its consequences from an error, and to say so on a slow
/// console, before the mount table is asked.
const CONSEQUENCES: Duration = Duration::from_secs(1);

/// One trace.
pub(in crate::cmd) struct Session {
    io: Io,
    clock: Clock,
    now: Now,
    origin: Option<Origin>,
    correlator: Correlator,
    filter: Filter,
    stop_after: Option<u64>,
    verbosity: Verbosity,
    began: MonoTime,
    /// As they were shown last.
    hooks: Vec<HookStatus>,
    tally: Tally,
    /// Incidents that the filter left out: their changes are left out as well.
    hidden: BTreeSet<IncidentId>,
    repeats: Repeats,
    /// What befell disks and filesystems, and is not shown yet.
    storage_errors: Vec<(MonoTime, StorageError)>,
    facts: u64,
    verdicts: Vec<Verdict>,
    /// Compares lost bytes with the disk.
    verifier: Option<Verifier>,
    /// What is not shown before that is done.
    held: Held,
    /// Nobody reads the output any more.
    muted: bool,
    output_error: Option<io::Error>,
}

/// How often is looked for verdicts that are waited for.
const SOON: Duration = Duration::from_millis(5);

impl Session {
    /// `origin`: whose facts, if they are not of this kernel and on its clock.
    pub(in crate::cmd) fn new(plan: &Plan, io: Io, origin: Option<Origin>) -> Self {
        let ((mono, wall), now) = match &origin {
            None => ((io.look_at_clocks)(), Now::Ours(io.look_at_clocks)),
            Some(origin) => (origin.began, Now::OfFacts(origin.began.0)),
        };
        Self {
            io,
            clock: Clock::new(mono, wall),
            now,
            origin,
            correlator: Correlator::new(Config {
                calls: plan.calls.iter().copied().collect(),
                include_async: plan.options.include_async,
                ..Config::default()
            }),
            filter: plan.filter.clone(),
            stop_after: plan.stop_after,
            verbosity: plan.verbosity,
            began: mono,
            hooks: Vec::new(),
            tally: Tally::default(),
            hidden: BTreeSet::new(),
            repeats: Repeats::default(),
            storage_errors: Vec::new(),
            facts: 0,
            verdicts: Vec::new(),
            verifier: None,
            held: Held::default(),
            muted: false,
            output_error: None,
        }
    }

    /// From now on lost bytes are compared with the disk, and saved if that was asked for.
    ///
    /// # Errors
    /// If the process that does so cannot be started.
    pub(in crate::cmd) fn verify(&mut self, plan: &VerifyPlan) -> io::Result<()> {
        self.verifier = Some(Verifier::new(plan.clone())?);
        Ok(())
    }

    /// What another process has to know to go on from here.
    pub(in crate::cmd) fn state(&self) -> Vec<u8> {
        let mut bytes = (self.hidden.len() as u64).to_le_bytes().to_vec();
        for IncidentId(id) in &self.hidden {
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes.extend_from_slice(&self.correlator.keep());
        bytes
    }

    /// Goes on from where [`Self::state`] was asked in an earlier process.
    pub(in crate::cmd) fn resume(&mut self, kept: &[u8]) {
        let config = self.correlator.config().clone();
        let parse = || {
            let (hidden, rest) = kept.split_first_chunk()?;
            let len = usize::try_from(u64::from_le_bytes(*hidden)).ok()?;
            let (hidden, rest) = rest.split_at_checked(len.checked_mul(8)?)?;
            let (hidden, _) = hidden.as_chunks();
            let hidden = hidden.iter().map(|id| IncidentId(u64::from_le_bytes(*id)));
            Some((hidden.collect(), Correlator::resumed(config, rest)?))
        };
        match parse() {
            Some((hidden, correlator)) => {
                self.hidden = hidden;
                self.correlator = correlator;
            }
            None => self.say("warning: what an earlier msync-trace had found cannot be read"),
        }
    }

    /// Says that tracing has begun.
    pub(in crate::cmd) fn start(
        &mut self,
        plan: &Plan,
        tier: &str,
        hooks: &[HookStatus],
    ) -> io::Result<()> {
        let machine = match &self.origin {
            None => machine(),
            Some(origin) => machine_of(origin),
        };
        let start = Start {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            kernel: machine.kernel,
            boot_id: machine.boot_id,
            host: machine.host,
            tier: tier.to_owned(),
            hooks: hooks.iter().map(HookRecord::from).collect(),
            wall_minus_mono_ns: self.clock.offset_now(),
            calls: plan.calls.clone(),
            filters: self.filter.asked().clone(),
            command: (!plan.command.is_empty()).then(|| {
                plan.command
                    .iter()
                    .map(|word| word.to_string_lossy().into_owned())
                    .collect()
            }),
        };
        if self.verbosity > Verbosity::Quiet {
            self.say(&match &plan.input {
                None => output::started(&start),
                Some(input) => output::reading(&start, input, self.clock.wall(self.began)),
            });
        }
        let missing = missing_hooks(hooks);
        if !missing.is_empty() {
            let what = match &missing[..] {
                [one] => format!("{}: {}", one.name, one.reason),
                all => {
                    let names: Vec<_> = all.iter().map(|hook| hook.name.as_str()).collect();
                    let names = names.join(", ");
                    format!("{names} (`msync-trace check --attach` says why)")
                }
            };
            let what = output::escape(what.as_bytes());
            self.say(&format!(
                "warning: incomplete from the start, hooks are missing: {what}"
            ));
        }
        self.hooks = hooks.to_vec();
        self.begin_keeping(plan, &start)?;
        let shown = self.show(self.began, Body::Start(Box::new(start)));
        shown.and(self.output_error())
    }

    fn begin_keeping(&mut self, plan: &Plan, start: &Start) -> io::Result<()> {
        let Some(keeping) = &mut self.io.keeping else {
            return Ok(());
        };
        let header = RunHeader {
            began: self.began,
            began_wall: self.clock.wall(self.began),
            start: start.clone(),
            include_async: plan.options.include_async,
            input: plan.input.clone(),
        };
        keeping.begin(header).map_err(io::Error::other)
    }

    /// Shows the hooks again if they are not those that were shown last.
    pub(in crate::cmd) fn hooks(&mut self, hooks: &[HookStatus]) -> io::Result<()> {
        if self.hooks == hooks {
            return Ok(());
        }
        let attached = |hook: &&HookStatus| {
            let before = self.hooks.iter().find(|before| before.name == hook.name);
            matches!(hook.state, HookState::Attached(_) | HookState::OnDemand(_))
                && before.is_some_and(|before| before.state != hook.state)
        };
        let names: Vec<&str> = hooks
            .iter()
            .filter(attached)
            .map(|hook| hook.name)
            .collect();
        if self.verbosity > Verbosity::Quiet && !names.is_empty() {
            let names = names.join(", ");
            self.say(&format!(
                "a filesystem's module was loaded, attached: {names}"
            ));
        }
        self.hooks = hooks.to_vec();
        let now = self.now();
        let hooks = hooks.iter().map(HookRecord::from).collect();
        let shown = self.show(now, Body::Hooks(HooksRecord { hooks }));
        self.hand_over();
        shown.and(self.output_error())
    }

    /// Takes in facts, in the order of their times, and shows what follows from them. Tells
    /// `released` of which inodes nothing is held any more.
    pub(in crate::cmd) fn take(
        &mut self,
        facts: &mut Vec<Fact>,
        released: impl FnMut(&InodeKey, Release),
    ) -> io::Result<()> {
        if facts.is_empty() {
            return Ok(());
        }
        self.look_at_clocks();
        let mut verdicts = std::mem::take(&mut self.verdicts);
        let taken = self.take_each(facts, &mut verdicts, released);
        self.verdicts = verdicts;
        self.hand_over();
        taken.and(self.output_error())
    }

    fn look_at_clocks(&mut self) {
        let Now::Ours(look) = self.now else {
            return;
        };
        let (mono, wall) = look();
        let before = self.clock.offset_now();
        self.clock.observe(mono, wall);
        if let Some(keeping) = &mut self.io.keeping
            && self.clock.offset_now() != before
        {
            keeping.clock(mono, self.clock.offset_now());
        }
    }

    fn take_each(
        &mut self,
        facts: &mut Vec<Fact>,
        verdicts: &mut Vec<Verdict>,
        mut released: impl FnMut(&InodeKey, Release),
    ) -> io::Result<()> {
        for fact in facts.drain(..) {
            self.facts += 1;
            self.reached(Some(fact.at));
            self.io.out.saw(&fact, &self.clock);
            match &fact.kind {
                FactKind::Evicted(Evicted { inode, .. }) | FactKind::Gone(Gone { inode, .. }) => {
                    self.held.left_memory(inode);
                }
                FactKind::WriteOk(WriteOk { inode, .. })
                | FactKind::Redirtied(Redirtied { inode, .. })
                | FactKind::Discarded(Discarded { inode, .. }) => self.held.written_again(inode),
                _ => {}
            }
            if let FactKind::StorageError(error) = &fact.kind {
                self.storage_errors.push((fact.at, error.clone()));
            } else {
                self.correlator.apply(&fact, verdicts);
            }
            self.keep(fact);
            for verdict in verdicts.drain(..) {
                match verdict {
                    Verdict::Incident(incident) => self.incident(&incident)?,
                    Verdict::Change(change) => self.change(&change)?,
                    Verdict::Incomplete { at, loss } => self.lost(at, loss)?,
                    Verdict::Released { inode, why } => {
                        if let (Some(keeping), Release::Settled) = (&mut self.io.keeping, why) {
                            keeping.settled(&inode);
                        }
                        released(&inode, why);
                    }
                }
            }
        }
        Ok(())
    }

    /// Before the verdicts that follow from it.
    fn keep(&mut self, fact: Fact) {
        let Some(keeping) = &mut self.io.keeping else {
            return;
        };
        let warning = keeping.fact(fact);
        if let Some(warning) = warning {
            self.say(&warning);
        }
    }

    /// What came since the last time goes to where it is kept.
    fn hand_over(&mut self) {
        if let Some(keeping) = &mut self.io.keeping {
            keeping.flush();
        }
    }

    /// Within which time [`Self::tick`] should be called.
    pub(in crate::cmd) fn wants_tick(&self) -> Option<Duration> {
        let slow = self.repeats.is_waiting() || !self.storage_errors.is_empty();
        match self.is_comparing() {
            true => Some(SOON),
            false => slow.then_some(PACE),
        }
    }

    fn is_comparing(&self) -> bool {
        !self.held.is_empty() || self.verifier.as_ref().is_some_and(Verifier::is_busy)
    }

    /// Shows what has waited long enough.
    pub(in crate::cmd) fn tick(&mut self) -> io::Result<()> {
        if self.wants_tick().is_none() {
            return Ok(());
        }
        self.show_verified()?;
        let now = self.now();
        self.show_storage_errors(Some(now))?;
        let due = self.repeats.due(now);
        let shown = due.into_iter().try_for_each(|held| self.show_repeat(held));
        self.hand_over();
        shown.and(self.output_error())
    }

    /// Shows records that need not wait any longer.
    fn show_verified(&mut self) -> io::Result<()> {
        let Some(verifier) = &mut self.verifier else {
            return Ok(());
        };
        verifier.turn();
        let messages = verifier.messages();
        let mut ready = Vec::new();
        while let Some(record) = self.held.next(|incident| verifier.verdict(incident)) {
            ready.push(record);
        }
        ready
            .iter()
            .try_for_each(|record| self.keep_and_display(record))?;
        messages.iter().for_each(|message| self.say(message));
        Ok(())
    }

    /// Waits for all verdicts, which takes no longer than an incident is held, and until all is
    /// saved. (A signal ends that at once: it was the second one, or the trace had ended by itself.)
    fn finish_comparing(&mut self) -> io::Result<()> {
        let began = Instant::now();
        let mut told = false;
        while self.is_comparing() {
            self.show_verified()?;
            if !told && self.held.is_empty() && began.elapsed() > PACE {
                told = true;
                self.say("waiting until lost bytes are saved");
            }
            std::thread::sleep(SOON);
        }
        self.show_verified()
    }

    /// Shows what befell disks and filesystems, up to a little before `now` (`None`: all).
    fn show_storage_errors(&mut self, now: Option<MonoTime>) -> io::Result<()> {
        let is_due = |at: MonoTime| now.is_none_or(|now| now.since(at) >= CONSEQUENCES);
        let due = self
            .storage_errors
            .iter()
            .take_while(|(at, _)| is_due(*at))
            .count();
        let due: Vec<_> = self.storage_errors.drain(..due).collect();
        for (at, error) in due {
            let record = self.io.enricher.storage_error(error);
            if self.verbosity > Verbosity::Quiet {
                self.say(&output::storage_error(&record));
            }
            self.show(at, Body::StorageError(record))?;
        }
        Ok(())
    }

    fn show_repeat(&mut self, repeat: Repeat) -> io::Result<()> {
        let Repeat { at, id, repeats } = repeat;
        let kind = ChangeKind::Repeated { repeats };
        self.show_change(&Change { at, id, kind })
    }

    /// Whether as many incidents were reported as were asked for.
    pub(in crate::cmd) fn has_enough(&self) -> bool {
        self.stop_after
            .is_some_and(|enough| self.tally.totals().incidents >= enough)
    }

    fn now(&self) -> MonoTime {
        match self.now {
            Now::Ours(look) => look().0,
            Now::OfFacts(now) => now,
        }
    }

    /// Time has come this far in facts that are not on our clock.
    pub(in crate::cmd) fn reached(&mut self, at: Option<MonoTime>) {
        if let (Now::OfFacts(now), Some(at)) = (&mut self.now, at) {
            *now = at.max(*now);
        }
    }

    /// Inodes with outstanding failures, and whether all was seen.
    pub(in crate::cmd) fn outstanding(&self) -> (u64, bool) {
        let complete = self.correlator.complete() && missing_hooks(&self.hooks).is_empty();
        (self.correlator.totals().outstanding, complete)
    }

    /// How it goes with what is kept.
    pub(in crate::cmd) fn keeping(&self) -> Option<StoreHealth> {
        self.io.keeping.as_ref().map(Keeping::health)
    }

    /// Messages of the source.
    pub(in crate::cmd) fn say_all(&mut self, messages: Vec<String>) {
        for message in messages {
            self.say(&output::escape(message.as_bytes()));
        }
    }

    /// A message on standard error. Nobody to tell if it is closed.
    pub(in crate::cmd) fn say(&mut self, message: &str) {
        let _ = writeln!(self.io.messages, "msync-trace: {message}");
    }

    /// Whether what comes after nobody reads the output any more is of use.
    pub(in crate::cmd) fn keeps(&self) -> bool {
        self.io.keeping.is_some()
    }

    /// Says what was found, and whether everything was seen.
    pub(in crate::cmd) fn stop(
        mut self,
        mut end: End,
        hooks: &[HookStatus],
    ) -> anyhow::Result<Exit> {
        self.muted |= end.reason == StopReason::ReaderGone;
        let saves = self.verifier.as_ref().is_some_and(Verifier::saves);
        let compared = match self.muted && !self.keeps() && !saves {
            true => Ok(()),
            false => self.finish_comparing(),
        };
        let unkept = self.unkept();
        if let Some(unkept) = &unkept {
            end.error.get_or_insert_with(|| unkept.clone());
        }
        let now = self.now();
        let missing_hooks = missing_hooks(hooks);
        let complete = self.correlator.complete()
            && missing_hooks.is_empty()
            && end.reason != StopReason::Error;
        let exit = match unkept {
            Some(_) => Exit::Error,
            None => (self.io.exit)(end.reason, self.tally.totals().incidents, complete),
        };
        let seen = self.correlator.totals();
        let stop = Stop {
            reason: end.reason,
            duration_ns: now.0.saturating_sub(self.began.0),
            totals: self.tally.totals(),
            facts: self.facts,
            outstanding_inodes: seen.outstanding,
            complete,
            lost: seen
                .losses
                .iter()
                .map(|(&cause, &count)| Lost { cause, count })
                .collect(),
            missing_hooks,
            command: end.command,
            error: end.error,
            exit_status: exit as u8,
        };
        if self.verbosity > Verbosity::Quiet {
            let summary = output::summary(&stop, self.io.tone);
            let _ = self.io.messages.write_all(summary.as_bytes());
        } else if let Some(error) = &stop.error {
            self.say(error);
        }
        let held = self.repeats.take_all();
        let mut shown = compared.and_then(|()| self.show_storage_errors(None));
        for repeat in held {
            shown = shown.and_then(|()| self.show_repeat(repeat));
        }
        if shown.is_ok() {
            shown = self.show(now, Body::Stop(Box::new(stop)));
        }
        let kept = self.end_keeping();
        match shown.and(self.output_error()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(error).context("cannot write to standard output")
            }
            _ if !kept => Ok(Exit::Error),
            _ => Ok(exit),
        }
    }

    /// Waits until everything so far is kept; otherwise says what is not.
    fn unkept(&mut self) -> Option<String> {
        self.io.keeping.as_mut()?.settle().err()
    }

    /// Whether everything was kept.
    fn end_keeping(&mut self) -> bool {
        let Some(keeping) = self.io.keeping.take() else {
            return true;
        };
        let (said, all) = keeping.finish();
        if self.verbosity > Verbosity::Quiet || !all {
            self.say(&said);
        }
        all
    }

    fn incident(&mut self, incident: &Incident) -> io::Result<()> {
        let record = self.io.enricher.incident(incident, &self.clock);
        let wanted = match &record.body {
            Body::Incident(described) => self.filter.wants(described),
            _ => true,
        };
        if !wanted || self.has_enough() {
            self.hide(incident.id);
            self.keep_record(&record, false);
            return Ok(());
        }
        self.tally.incident(incident);
        match (&mut self.verifier, &record.body) {
            (Some(verifier), Body::Incident(described)) => {
                verifier.ask(described);
                self.held.incident(record);
                Ok(())
            }
            _ => self.emit(record),
        }
    }

    /// Shows a record, after those that are held.
    fn emit(&mut self, record: Record) -> io::Result<()> {
        match self.held.is_empty() {
            true => self.keep_and_display(&record),
            false => {
                self.held.behind(record);
                Ok(())
            }
        }
    }

    /// Leaves the changes of an incident out as well. Of very many, those of the oldest are shown.
    fn hide(&mut self, incident: IncidentId) {
        self.hidden.insert(incident);
        if self.hidden.len() > HIDDEN_KEPT {
            self.hidden.pop_first();
        }
    }

    fn change(&mut self, change: &Change) -> io::Result<()> {
        let hidden = self.hidden.contains(&change.id);
        if hidden && !self.keeps() {
            return Ok(());
        }
        if !hidden {
            self.tally.change(change.kind);
        }
        let Change { at, id, kind } = *change;
        if let ChangeKind::Repeated { repeats } = kind {
            return match self.repeats.show_now(Repeat { at, id, repeats }) {
                true => self.show_change(change),
                false => Ok(()),
            };
        }
        if let Some(held) = self.repeats.of(id) {
            self.show_repeat(held)?;
        }
        self.show_change(change)
    }

    fn show_change(&mut self, change: &Change) -> io::Result<()> {
        let body = Body::Change(ChangeRecord {
            incident: change.id,
            change: change.kind,
        });
        if self.hidden.contains(&change.id) {
            let head = Head::at(change.at, &self.clock);
            self.keep_record(&Record { head, body }, false);
            return Ok(());
        }
        self.show(change.at, body)
    }

    fn lost(&mut self, at: MonoTime, loss: Lost) -> io::Result<()> {
        let first = self.correlator.totals().losses.get(&loss.cause) == Some(&loss.count);
        if first || self.verbosity == Verbosity::Verbose {
            let why = output::loss_sentence(loss.cause);
            self.say(&format!(
                "warning: something was not seen from here on: {why} ({}x)",
                loss.count
            ));
        }
        self.show(at, Body::Lost(loss))
    }

    fn show(&mut self, at: MonoTime, body: Body) -> io::Result<()> {
        let head = Head::at(at, &self.clock);
        self.emit(Record { head, body })
    }

    fn keep_and_display(&mut self, record: &Record) -> io::Result<()> {
        self.keep_record(record, true);
        self.display(record)
    }

    fn keep_record(&mut self, record: &Record, shown: bool) {
        let Some(keeping) = &mut self.io.keeping else {
            return;
        };
        if let Some(warning) = keeping.record(record, shown) {
            self.say(&warning);
        }
    }

    /// What is kept besides does not suffer from an output that is gone: the error comes later.
    fn display(&mut self, record: &Record) -> io::Result<()> {
        if self.muted {
            return Ok(());
        }
        let shown = self.io.out.show(record);
        if !self.keeps() {
            return shown;
        }
        if let Err(error) = shown {
            self.muted = true;
            self.output_error = Some(error);
        }
        Ok(())
    }

    /// An output that is gone, once.
    fn output_error(&mut self) -> io::Result<()> {
        self.output_error.take().map_or(Ok(()), Err)
    }
}

/// The machine that the facts are of, as far as they say it.
fn machine_of(origin: &Origin) -> Machine {
    match origin.here {
        true => machine(),
        false => Machine {
            kernel: KernelRecord {
                name: origin.os.clone(),
                release: origin.release.clone(),
                machine: String::new(),
            },
            boot_id: None,
            host: None,
        },
    }
}

/// Hooks that cannot be had here and that nothing else makes up for.
fn missing_hooks(hooks: &[HookStatus]) -> Vec<Explanation> {
    hooks
        .iter()
        .filter_map(|hook| match &hook.state {
            HookState::Unavailable(reason) => Some(Explanation {
                name: hook.name.to_owned(),
                reason: reason.clone(),
            }),
            _ => None,
        })
        .collect()
}

/// The contract with scripts.
#[must_use]
pub fn exit(reason: StopReason, incidents: u64, complete: bool) -> Exit {
    match (reason, incidents, complete) {
        (StopReason::Error, _, _) => Exit::Error,
        (_, 1.., _) => Exit::Found,
        (_, 0, true) => Exit::Nothing,
        (_, 0, false) => Exit::Incomplete,
    }
}
