//! One trace, without its waiting: facts go in, records and messages come out, and at the end the
//! verdict on the whole run.

mod ending;
mod showing;

use std::{
    collections::BTreeSet,
    io::{self, Write},
    time::Duration,
};

use super::{
    Filter, Plan,
    held::Held,
    keeping::Keeping,
    repeats::{PACE, Repeats},
    tally::Tally,
    verify::{Verifier, VerifyPlan},
};
use crate::{
    cmd::Exit,
    correlate::{Config, Correlator},
    enrich::{Enricher, Machine, machine},
    model::{
        Discarded, Evicted, Fact, FactKind, Gone, IncidentId, InodeKey, MonoTime, Redirtied,
        Release, StorageError, Verdict, WriteOk,
    },
    output::{self, Output, Tone, Verbosity},
    schema::{
        Body, Clock, Explanation, HookRecord, HooksRecord, KernelRecord, Start, StopReason,
        WallTime,
    },
    source::{HookState, HookStatus, Origin},
    store::RunHeader,
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
    #[cfg(target_os = "linux")]
    pub(in crate::cmd) fn outstanding(&self) -> (u64, bool) {
        let complete = self.correlator.complete() && missing_hooks(&self.hooks).is_empty();
        (self.correlator.totals().outstanding, complete)
    }

    /// How it goes with what is kept.
    #[cfg(target_os = "linux")]
    pub(in crate::cmd) fn keeping(&self) -> Option<crate::store::StoreHealth> {
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
