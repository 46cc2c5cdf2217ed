//! `msync-trace trace`: a source, the correlator, enrichment and an output, until something ends
//! it.

mod child;
pub(super) mod events;
mod filter;
mod held;
mod keeping;
pub(super) mod memory;
pub(super) mod plan;
mod repeats;
pub(super) mod session;
mod tally;
#[cfg(target_os = "linux")]
mod verify;
#[cfg(not(target_os = "linux"))]
#[path = "trace/verify_absent.rs"]
mod verify;

use std::{
    convert::Infallible, error::Error as StdError, io, pin::pin, process::ExitStatus,
    time::Duration,
};

use anyhow::Context;
use jiff::tz::TimeZone;
use tokio::sync::mpsc;

pub use events::Event;
pub use filter::Filter;
pub use keeping::Keeping;
pub use plan::Plan;
pub use session::Io;
pub use verify::VerifyPlan;

use super::{Exit, chain, colour, complain, log_to_stderr, tone};
use crate::{
    check,
    cli::{Form, ReportArgs, SourceName, TraceArgs},
    enrich::{Enricher, look_at_clocks},
    model::Fact,
    output::{JsonLines, Output, Style, Text, escape},
    schema::{CommandEnd, StopReason},
    source::{
        FactSource, Options, Progress,
        dtrace::{Dtrace, DtraceOptions},
    },
};
use session::Session;

/// The whole command, from its arguments to the exit status. `attach` makes the source; it runs
/// inside the runtime.
pub fn main<S, E>(args: &TraceArgs, attach: impl FnOnce(Options) -> Result<S, E>) -> Exit
where
    S: FactSource,
    E: StdError + Send + Sync + 'static,
{
    log_to_stderr(args.report.quiet, args.report.verbose);
    try_main(args, None, attach).unwrap_or_else(|error| {
        complain(&error);
        Exit::Error
    })
}

/// Traces, and keeps what it is told to.
pub(super) fn try_main<S, E>(
    args: &TraceArgs,
    keeping: Option<Keeping>,
    attach: impl FnOnce(Options) -> Result<S, E>,
) -> anyhow::Result<Exit>
where
    S: FactSource,
    E: StdError + Send + Sync + 'static,
{
    let plan = Plan::new(args);
    ready_to_rescue(&plan)?;
    let io = Io {
        keeping,
        ..standard_streams(&args.report, Enricher::default())
    };
    match args.source {
        SourceName::Ebpf => {
            let of_dtrace = [
                (args.dtrace_path.is_some(), "--dtrace-path"),
                (!args.dtrace_option.is_empty(), "--dtrace-option"),
            ];
            refuse(
                of_dtrace,
                "is for dtrace, and this is eBPF: add --source dtrace",
            )?;
            if let Some(obstacle) = check::obstacle() {
                anyhow::bail!("{obstacle}");
            }
            in_runtime(async {
                // Until hooks are attached, a signal may simply end the program.
                let source = attach(plan.options)
                    .context("cannot trace (`msync-trace check --attach` says what is missing)")?;
                let events = events::watch().context("cannot watch for signals")?;
                if plan.options.pin && plan.command.is_empty() {
                    give_up_privileges(&plan)?;
                }
                run(source, plan, io, events).await
            })
        }
        SourceName::Dtrace => {
            let of_ebpf = [
                (plan.options.tier.is_some(), "--tier"),
                (plan.options.ring_bytes.is_some(), "--ring-size"),
                (plan.options.pin, "--pin"),
            ];
            refuse(
                of_ebpf,
                "is for eBPF, and this is dtrace: see --dtrace-option",
            )?;
            // Elsewhere it judges what eBPF needs.
            if cfg!(target_os = "freebsd")
                && args.dtrace_path.is_none()
                && let Some(obstacle) = check::obstacle()
            {
                anyhow::bail!("{obstacle}");
            }
            let options = DtraceOptions {
                program: args.dtrace_path.clone(),
                options: args.dtrace_option.clone(),
            };
            in_runtime(async {
                // Already while dtrace starts: a signal must not leave it or its script behind.
                let mut events = events::watch().context("cannot watch for signals")?;
                let source = tokio::select! {
                    biased;
                    Some(_) = events.recv() => anyhow::bail!("ended before tracing began"),
                    source = Dtrace::start(&options, args.report.verbose > 0) => source,
                    never = say_that_it_takes_long(args.report.quiet) => match never {},
                };
                let source = source.context("cannot trace with dtrace")?;
                run(source, plan, io, events).await
            })
        }
    }
}

/// A place for rescued bytes that cannot be used is to be known before bytes are lost.
#[cfg(target_os = "linux")]
fn ready_to_rescue(plan: &Plan) -> anyhow::Result<()> {
    let rescue = plan
        .verify
        .as_ref()
        .and_then(|verify| verify.rescue.as_ref());
    if let Some((directory, _)) = rescue {
        crate::rescue::Vault::at(directory)?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn ready_to_rescue(plan: &Plan) -> anyhow::Result<()> {
    anyhow::ensure!(plan.verify.is_none(), "--verify and --rescue need Linux");
    Ok(())
}

/// The hooks are attached: what a run needs from here on is little. (A command of the user's keeps
/// what it was to have.)
#[cfg(target_os = "linux")]
fn give_up_privileges(plan: &Plan) -> anyhow::Result<()> {
    check::confine::confine(plan.verify.is_some()).context("cannot give up privileges")
}

#[cfg(not(target_os = "linux"))]
fn give_up_privileges(_plan: &Plan) -> anyhow::Result<()> {
    Ok(())
}

/// On Linux the kernel verifies a program for each probe of the script.
async fn say_that_it_takes_long(quiet: bool) -> Infallible {
    tokio::time::sleep(Duration::from_secs(2)).await;
    if !quiet {
        eprintln!("msync-trace: waiting for dtrace to begin");
    }
    std::future::pending().await
}

/// Options that would change nothing are an error: who gave them expects something of them.
fn refuse<const N: usize>(given: [(bool, &str); N], why: &str) -> anyhow::Result<()> {
    match given.iter().find(|(is_given, _)| *is_given) {
        Some((_, option)) => anyhow::bail!("{option} {why}"),
        None => Ok(()),
    }
}

/// Runs it to its end.
pub(super) fn in_runtime<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    memory::keep_little();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let result = runtime.block_on(work);
    // A blocked read of some library thread must not hold up the end.
    runtime.shutdown_background();
    result
}

pub(super) fn standard_streams(args: &ReportArgs, enricher: Enricher) -> Io {
    let stdout = io::stdout();
    let out: Box<dyn Output> = match args.output {
        Form::Json => Box::new(JsonLines::new(stdout)),
        Form::Text => {
            let style = Style {
                colour: colour(args.color, &stdout),
                zone: TimeZone::system(),
                verbosity: plan::verbosity(args),
            };
            Box::new(Text::new(stdout, style))
        }
    };
    Io {
        out,
        messages: Box::new(io::stderr()),
        tone: tone(args.color),
        enricher,
        look_at_clocks,
        keeping: None,
        exit: session::exit,
    }
}

/// Traces until something ends it, and says what was found.
///
/// # Errors
/// If the command cannot be started, or an output cannot be written. A source that fails on the
/// way still gives a summary, and [`Exit::Error`].
pub async fn run<S: FactSource>(
    mut source: S,
    plan: Plan,
    io: Io,
    mut events: mpsc::Receiver<Event>,
) -> anyhow::Result<Exit> {
    let mut session = Session::new(&plan, io, source.origin().cloned());
    if let Some(verify) = &plan.verify {
        session
            .verify(verify)
            .context("cannot start the process that compares (--verify, --rescue)")?;
    }
    if let Some(kept) = source.resume() {
        session.resume(&kept);
    }
    let mut facts = Vec::new();
    let begun = session.start(&plan, source.tier(), source.hooks());
    let mut end = match begun {
        Ok(()) => watch(&mut source, &plan, &mut session, &mut facts, &mut events).await?,
        Err(error) => End::output(error)?,
    };
    let hooks = source.hooks().to_vec();
    session.reached(source.now());
    let messages = source.finish(end.reason, &mut facts).await;
    session.say_all(messages);
    if end.reason != StopReason::ReaderGone || session.keeps() {
        let taken = session.take(&mut facts, |inode, why| source.released(inode, why));
        match taken {
            Ok(()) => source.taken(&mut || session.state()),
            Err(error) => end.reason = End::output(error)?.reason,
        }
    }
    session.stop(end, &hooks)
}

/// Why a trace ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) reason: StopReason,
    command: Option<CommandEnd>,
    pub(super) error: Option<String>,
}

impl End {
    pub(super) fn because(reason: StopReason) -> Self {
        Self {
            reason,
            command: None,
            error: None,
        }
    }

    /// A closed pipe ends a trace quietly; anything else is an error.
    fn output(error: io::Error) -> anyhow::Result<Self> {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Ok(Self::because(StopReason::ReaderGone))
        } else {
            Err(error).context("cannot write to standard output")
        }
    }
}

/// The loop: facts in, until something ends it.
async fn watch<S: FactSource>(
    source: &mut S,
    plan: &Plan,
    session: &mut Session,
    facts: &mut Vec<Fact>,
    events: &mut mpsc::Receiver<Event>,
) -> anyhow::Result<End> {
    let mut child = match plan.command.is_empty() {
        true => None,
        false => Some(child::spawn(&plan.command)?),
    };
    let pid = child.as_ref().and_then(tokio::process::Child::id);
    let mut command = pin!(async {
        match &mut child {
            Some(child) => child.wait().await,
            None => std::future::pending().await,
        }
    });
    let mut deadline = pin!(after(plan.duration));
    let mut begun = pin!(after(Some(memory::BEGUN)));
    let mut begins = true;
    let mut end = loop {
        let ended = tokio::select! {
            biased;
            Some(event) = events.recv() => on_event(event, pid, session),
            status = &mut command => Some(on_command_end(status)),
            () = &mut deadline => Some(End::because(StopReason::Duration)),
            () = &mut begun, if begins => {
                begins = false;
                memory::give_back();
                None
            }
            () = after(session.wants_tick()) => None,
            result = source.next_facts(facts) => match result {
                Ok(Progress::More) => None,
                Ok(Progress::Ended) => Some(End::because(StopReason::EndOfInput)),
                Err(error) => Some(End {
                    error: Some(escape(chain(&error).as_bytes())),
                    ..End::because(StopReason::Error)
                }),
            },
        };
        session.say_all(source.messages());
        // Whatever a wait that was given up had already delivered counts as well.
        let shown = session
            .take(facts, |inode, why| source.released(inode, why))
            .and_then(|()| {
                session.reached(source.now());
                session.tick()
            })
            .and_then(|()| session.hooks(source.hooks()));
        if let Err(error) = shown {
            break End::output(error)?;
        }
        source.taken(&mut || session.state());
        if let Some(end) = ended {
            break end;
        }
        if session.has_enough() {
            break End::because(StopReason::StopAfter);
        }
    };
    if pid.is_some() && end.command.is_none() {
        end.command = Some(CommandEnd {
            status: None,
            signal: None,
        });
    }
    Ok(end)
}

/// That long; without an end if it is not said how long.
pub(super) async fn after(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

/// A signal ends the trace; but while a command runs, the command is what ends it: its last syncs
/// on the way out matter most.
fn on_event(event: Event, command: Option<u32>, session: &mut Session) -> Option<End> {
    match (event, command) {
        (Event::ReaderGone, _) => Some(End::because(StopReason::ReaderGone)),
        (_, None) => Some(End::because(StopReason::Signal)),
        (event, Some(pid)) => {
            // From the terminal it got SIGINT itself.
            if event == Event::Terminate {
                terminate(pid);
            }
            session.say("waiting for the command to end; once more ends now");
            None
        }
    }
}

fn terminate(pid: u32) {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended by itself in this moment.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

fn on_command_end(status: io::Result<ExitStatus>) -> End {
    match status {
        Ok(status) => End {
            command: Some(child::end(status)),
            ..End::because(StopReason::Command)
        },
        Err(error) => End {
            error: Some(format!("cannot wait for the command: {error}")),
            ..End::because(StopReason::Error)
        },
    }
}

#[cfg(test)]
mod tests;
