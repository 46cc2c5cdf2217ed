//! `msync-trace serve`: what `trace` does, for months: outputs that cannot hold each other up, metrics,
//! and a service manager that is told the truth.

mod config;
mod http;
mod mounted;
mod notify;
mod outputs;
mod signals;
mod textfile;

use std::{
    error::Error as StdError,
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at},
};

use super::{
    Exit, chain, complain, log_to_stderr,
    trace::{End, Filter, Io, Keeping, Plan, after, in_runtime, memory::Calm, session::Session},
};
use crate::{
    check,
    cli::{Form, serve::ServeArgs},
    enrich::{Enricher, look_at_clocks, mapped_name},
    model::Fact,
    output::{
        Say, Tone, Verbosity, escape,
        metrics::{Condition, Meters},
    },
    schema::StopReason,
    source::{FactSource, Health, Options, Progress},
    store::Recorder,
};
use config::{Config, Values};
use http::Http;
use notify::Notify;
use outputs::Outputs;
use signals::Signal;
use textfile::TextFile;

/// How often the kernel side's counters are read, and the rings are emptied though nothing came.
const PULSE: Duration = Duration::from_secs(5);

/// The whole command, from its arguments to the exit status. `attach` is that of `trace`.
pub fn main<S, E>(args: &ServeArgs, attach: impl FnOnce(Options) -> Result<S, E>) -> Exit
where
    S: FactSource,
    E: StdError + Send + Sync + 'static,
{
    log_to_stderr(args.quiet, args.verbose);
    try_main(args, attach).unwrap_or_else(|error| {
        complain(&error);
        Exit::Error
    })
}

fn try_main<S, E>(
    args: &ServeArgs,
    attach: impl FnOnce(Options) -> Result<S, E>,
) -> anyhow::Result<Exit>
where
    S: FactSource,
    E: StdError + Send + Sync + 'static,
{
    let values = Values::new(args)?;
    let config = values.config()?;
    for unknown in config::unknown_variables() {
        say(&format!("warning: {unknown}"));
    }
    if args.print_config {
        write!(io::stdout(), "{}", values.print()).context("cannot write to standard output")?;
        return Ok(Exit::Nothing);
    }
    if let Some(obstacle) = check::obstacle() {
        anyhow::bail!("{obstacle}");
    }
    let notify = Notify::new(args.ready_fd)?;
    in_runtime(async {
        let service = Service::open(args, &config, notify)?;
        let signals = signals::watch().context("cannot watch for signals")?;
        let source = attach(options(&config))
            .context("cannot trace (`msync-trace check --attach` says what is missing)")?;
        service.run(source, &config, signals).await
    })
}

fn options(config: &Config) -> Options {
    Options {
        tier: config.tier,
        include_async: config.include_async,
        ring_bytes: Some(config.ring_bytes),
        pin: config.pin,
    }
}

/// From any thread, at once.
fn say(message: &str) {
    // Nobody to tell if standard error is closed.
    let _ = writeln!(io::stderr(), "msync-trace: {}", escape(message.as_bytes()));
}

/// What is open around a trace.
struct Service {
    plan: Plan,
    meters: Meters,
    outputs: Outputs,
    keeping: Option<Keeping>,
    textfile: Option<TextFile>,
    notify: Notify,
    quiet: bool,
    /// Of the rings, when the service manager was told last that we are alive.
    drains_told: u64,
}

impl Service {
    /// Opens everything that is not the kernel's. What cannot be opened now is an error.
    fn open(args: &ServeArgs, config: &Config, notify: Notify) -> anyhow::Result<Self> {
        let say: Say = Arc::new(say);
        let meters = Meters::new(msync_trace_ebpf::ABI_VERSION, mapped_name);
        for (fs_type, device) in mounted::filesystems() {
            meters.expect(&fs_type, &device);
        }
        let http = Http::bind(config.listen.as_deref())?;
        if let Some(warning) = http.warning() {
            say(&warning);
        }
        http.start(meters.clone())?;
        let textfile = match &config.metrics_textfile {
            None => None,
            Some((path, interval)) => Some(
                TextFile::start(path.clone(), *interval, meters.clone(), Arc::clone(&say))
                    .context("cannot start a thread for the metrics")?,
            ),
        };
        Ok(Self {
            plan: plan(args, config),
            outputs: Outputs::open(config, &meters, &say)?,
            keeping: keeping(config, &say)?,
            meters,
            textfile,
            notify,
            quiet: args.quiet,
            drains_told: 0,
        })
    }

    /// From attached hooks to the end.
    async fn run<S: FactSource>(
        mut self,
        mut source: S,
        config: &Config,
        mut signals: mpsc::Receiver<Signal>,
    ) -> anyhow::Result<Exit> {
        if config.has_no_output() && !self.quiet {
            say("warning: no output is on: what is found is counted and goes nowhere");
        }
        let io = Io {
            out: Box::new(self.outputs.clone()),
            messages: Box::new(io::stderr()),
            tone: Tone::Plain,
            enricher: Enricher::default(),
            look_at_clocks,
            keeping: self.keeping.take(),
            exit,
        };
        let mut session = Session::new(&self.plan, io, source.origin().cloned());
        if let Some(kept) = source.resume() {
            session.resume(&kept);
        }
        session.start(&self.plan, source.tier(), source.hooks())?;
        let mut facts = Vec::new();
        let mut end = match source.self_check(&mut facts).await {
            Ok(()) => {
                // Everything is open and attached. What is left of privileges is in confine.rs.
                check::confine::confine(false).context("cannot give up privileges")?;
                session.take(&mut facts, |inode, why| source.released(inode, why))?;
                source.taken(&mut || session.state());
                self.ready(&mut source, &session)?;
                self.watch(&mut source, &mut session, &mut facts, &mut signals)
                    .await?
            }
            Err(why) => error(why),
        };
        self.notify.stopping("ending: the last facts are taken in");
        let hooks = source.hooks().to_vec();
        let messages = source.finish(end.reason, &mut facts).await;
        session.say_all(messages);
        match session.take(&mut facts, |inode, why| source.released(inode, why)) {
            Ok(()) => source.taken(&mut || session.state()),
            Err(error) => _ = end.error.get_or_insert(error.to_string()),
        }
        let exit = session.stop(end, &hooks)?;
        self.finish();
        Ok(exit)
    }

    /// Attached and checked: everybody is told.
    fn ready<S: FactSource>(&mut self, source: &mut S, session: &Session) -> anyhow::Result<()> {
        self.update(source.health(), session);
        self.notify
            .ready(&self.status())
            .context("cannot write to --ready-fd")?;
        if !self.quiet {
            say("ready: the hooks are attached, and a sync call made for them was seen");
        }
        Ok(())
    }

    /// The loop: facts in, until a signal or an error ends it.
    async fn watch<S: FactSource>(
        &mut self,
        source: &mut S,
        session: &mut Session,
        facts: &mut Vec<Fact>,
        signals: &mut mpsc::Receiver<Signal>,
    ) -> anyhow::Result<End> {
        let pace = self.notify.watchdog.map_or(PULSE, |it| PULSE.min(it / 3));
        let mut pulse = interval_at(Instant::now() + pace, pace);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut calm = Calm::default();
        loop {
            let mut beat = false;
            let ended = tokio::select! {
                biased;
                Some(signal) = signals.recv() => self.on_signal(signal),
                _ = pulse.tick() => {
                    beat = true;
                    None
                }
                () = after(session.wants_tick()) => None,
                result = source.next_facts(facts) => match result {
                    Ok(Progress::More) => None,
                    Ok(Progress::Ended) => Some(End::because(StopReason::EndOfInput)),
                    Err(why) => Some(error(chain(&why))),
                },
            };
            session.say_all(source.messages());
            calm.ends(!facts.is_empty());
            session.take(facts, |inode, why| source.released(inode, why))?;
            session.tick()?;
            session.hooks(source.hooks())?;
            source.taken(&mut || session.state());
            if beat {
                self.beat(source.health(), session);
                calm.beat();
            }
            if let Some(end) = ended {
                return Ok(end);
            }
        }
    }

    fn on_signal(&self, signal: Signal) -> Option<End> {
        match signal {
            Signal::End => Some(End::because(StopReason::Signal)),
            Signal::Reopen => {
                self.notify.reloading();
                self.outputs.reopen();
                self.notify.reloaded(&self.status());
                None
            }
        }
    }

    /// Everybody is told how it goes. That we are alive only if the rings were really emptied since
    /// the last time.
    fn beat(&mut self, health: Health, session: &Session) {
        let drained = health.drains > self.drains_told;
        self.drains_told = health.drains;
        self.update(health, session);
        let alive = drained && self.notify.watchdog.is_some();
        self.notify.status(&self.status(), alive);
    }

    fn update(&self, health: Health, session: &Session) {
        let (outstanding_inodes, complete) = session.outstanding();
        let store = session.keeping().unwrap_or_default();
        let rings = health.rings.iter();
        self.meters.update(Condition {
            rings: rings.map(|it| (it.name, it.sent, it.dropped)).collect(),
            maps_full: health.maps_full,
            probe_misses: (health.skipped_failures, health.skipped_more),
            tracked_inodes: health.tracked_inodes,
            tracked_inodes_limit: health.tracked_inodes_limit,
            outstanding_inodes,
            complete,
            store: (
                store.errors,
                store.kept.lost_facts,
                store.kept.lost_incidents,
            ),
            drains: health.drains,
            last_drain: look_at_clocks().1.seconds(),
            ready: true,
        });
    }

    /// For people who ask the service manager.
    fn status(&self) -> String {
        let (incidents, missing) = self.meters.in_short();
        let seen = match (self.meters.is_complete(), missing) {
            (true, _) => "everything is seen".to_owned(),
            (false, 0) => "something was not seen: no all-clear".to_owned(),
            (false, missing) => format!("{missing} hooks are missing: no all-clear"),
        };
        format!("{incidents} incidents; {seen}")
    }

    /// The stop record was shown: it goes out with all that still waits.
    fn finish(&mut self) {
        for said in self.outputs.finish() {
            if !self.quiet {
                say(&said);
            }
        }
        self.meters.end();
        if let Some(textfile) = &mut self.textfile {
            textfile.finish();
        }
    }
}

fn error(why: String) -> End {
    let mut end = End::because(StopReason::Error);
    end.error = Some(escape(why.as_bytes()));
    end
}

/// A service that was told to end has done its work, whatever it found.
fn exit(reason: StopReason, _incidents: u64, _complete: bool) -> Exit {
    match reason {
        StopReason::Error => Exit::Error,
        _ => Exit::Nothing,
    }
}

fn plan(args: &ServeArgs, config: &Config) -> Plan {
    Plan {
        form: Form::Json,
        filter: Filter::default(),
        duration: None,
        stop_after: None,
        calls: config.calls.clone(),
        verbosity: match args.quiet {
            true => Verbosity::Quiet,
            false => Verbosity::Normal,
        },
        input: None,
        command: Vec::new(),
        options: options(config),
        verify: None,
    }
}

fn keeping(config: &Config, say: &Say) -> anyhow::Result<Option<Keeping>> {
    let Some((path, limits)) = &config.store else {
        return Ok(None);
    };
    check::trusted::is_own_place(path)?;
    let say = Arc::clone(say);
    let say = Box::new(move |message: &str| say(message));
    let recorder = Recorder::open(path, *limits, look_at_clocks, say)?;
    Ok(Some(Keeping::new(recorder)))
}
