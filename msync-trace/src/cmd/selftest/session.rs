//! One selftest: the worker loses data, the real source watches, the correlator says what it
//! makes of it.

use std::{
    error::Error as StdError,
    io::{self, Write},
    os::unix::net::UnixStream as StdUnixStream,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::{
    net::UnixStream,
    signal::unix::{Signal, SignalKind, signal},
};

use super::{
    judge::{invented, judge, words},
    worker::{Message, Worker},
};
use crate::{
    check::{
        self,
        scratch::{Loss, LossKind, ScratchFs},
    },
    cli::{FsName, SelftestArgs},
    cmd::{Exit, chain},
    correlate::{Config, Correlator},
    enrich::look_at_clocks,
    model::{Fact, FactKind, Incident, InodeKey, Release, Verdict},
    output::{escape, loss_sentence},
    schema::{Clock, HookRecord, Record, StopReason, to_line},
    source::{FactSource, HookState, HookStatus, Options},
};

/// No step may take longer. All together must stay below 20 seconds.
const STEP: Duration = Duration::from_secs(10);
/// How long after a loss its incident may come.
const REPORT: Duration = Duration::from_secs(2);
/// How long more to listen for what should not be reported.
const SILENCE: Duration = Duration::from_millis(100);
/// `PROC_PID_INIT_INO` of linux/proc_ns.h: the pid namespace whose numbers the hooks see.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

impl From<FsName> for ScratchFs {
    fn from(name: FsName) -> Self {
        match name {
            FsName::Ext4 => Self::Ext4,
            FsName::Xfs => Self::Xfs,
            FsName::Btrfs => Self::Btrfs,
        }
    }
}

/// All of it.
pub(super) fn run<S, E>(
    args: &SelftestArgs,
    attach: impl FnOnce(Options) -> Result<S, E>,
) -> anyhow::Result<Exit>
where
    S: FactSource,
    E: StdError + Send + Sync + 'static,
{
    let began = Instant::now();
    let fs = ScratchFs::from(args.fs);
    if !rustix::process::geteuid().is_root() {
        bail!("a scratch disk needs root: sudo msync-trace selftest");
    }
    if let Some(obstacle) = check::obstacle() {
        bail!("{obstacle}");
    }
    let namespace = std::fs::read_link("/proc/self/ns/pid");
    if namespace.is_ok_and(|name| name.as_os_str() != FIRST_PID_NAMESPACE) {
        bail!(
            "process numbers of this container cannot be compared with the kernel's: run it on \
             the host, or in its pid namespace (--pid=host)"
        );
    }
    let worker = Worker::start(fs).context("cannot start a process that loses data")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let exit = runtime.block_on(async {
        let talk = Talk::new(worker).context("cannot talk to the process that loses data")?;
        let steps = Steps {
            began,
            last: began,
            verbose: args.verbose > 0,
        };
        test(fs, args.tier.tier(), attach, talk, steps).await
    });
    runtime.shutdown_background();
    exit
}

async fn test<S, E>(
    fs: ScratchFs,
    tier: Option<crate::source::Tier>,
    attach: impl FnOnce(Options) -> Result<S, E>,
    mut talk: Talk,
    mut steps: Steps,
) -> anyhow::Result<Exit>
where
    S: FactSource,
    E: StdError + Send + Sync + 'static,
{
    let device = match talk.answer().await? {
        Message::Ready {
            device,
            mount_point,
        } => {
            steps.done(&format!(
                "scratch {} on {}, mounted at {} for itself alone",
                fs.name(),
                device.display(),
                mount_point.display()
            ));
            let name = device.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        }
        other => bail!("{}", talk.unexpected(other)),
    };
    let options = Options {
        tier,
        ..Options::default()
    };
    // After the disk is made: the file system's module is there by now.
    let mut source = attach(options)
        .context("cannot trace (`msync-trace check --attach` says what is missing)")?;
    steps.done(&format!("hooks attached, tier {}", source.tier()));
    steps.hooks(source.hooks());
    let mut watch = Watch::new(steps.verbose);
    let mut losses = Vec::new();
    for (number, kind) in LossKind::ALL.into_iter().enumerate() {
        talk.worker.lose(number).context("the worker is gone")?;
        let answer = watch.until(&mut source, talk.answer()).await??;
        let loss = match answer {
            Message::Lost(message) => message.loss().context("the worker says nonsense")?,
            other => bail!("{}", talk.unexpected(other)),
        };
        steps.done(&format!("{}: data lost", kind.name()));
        watch.until_reported(&mut source, &loss, &mut talk).await?;
        losses.push(loss);
    }
    watch
        .until(&mut source, tokio::time::sleep(SILENCE))
        .await?;
    let missing = missing(source.hooks());
    source.finish(StopReason::Command, &mut watch.facts).await;
    watch.take(|_, _| {});
    steps.done(&format!("hooks detached, {} facts seen", watch.seen));
    if !talk.worker.end() {
        bail!("the scratch disk could not be taken down in time");
    }
    steps.done("scratch disk taken down");
    for hook in missing {
        steps.say(&format!("incomplete: hook {hook} is missing"));
    }
    for loss in &watch.lost {
        steps.say(&format!("incomplete: {loss}"));
    }
    Ok(conclude(fs, &device, &losses, &watch.incidents, &mut steps))
}

/// Says what was found, loss by loss.
fn conclude(
    fs: ScratchFs,
    device: &str,
    losses: &[Loss],
    incidents: &[Incident],
    steps: &mut Steps,
) -> Exit {
    let mut good = 0;
    let mut wrong = Vec::new();
    for loss in losses {
        let finding = judge(fs, loss, incidents);
        steps.say(&finding.line);
        if finding.differences.is_empty() {
            good += 1;
        }
        for difference in finding.differences {
            wrong.push(format!("{}: {difference}", loss.kind.name()));
        }
    }
    for incident in invented(losses, device, incidents) {
        wrong.push(format!("reported, but not lost: {}", words(incident)));
    }
    if wrong.is_empty() {
        steps.say(&format!(
            "selftest passed: {} losses made, {good} reported",
            losses.len()
        ));
        return Exit::Nothing;
    }
    for difference in &wrong {
        steps.say(&format!("differs: {difference}"));
    }
    steps.say(&format!(
        "selftest FAILED: {} losses made, {good} reported as they were",
        losses.len()
    ));
    Exit::Found
}

fn missing(hooks: &[HookStatus]) -> Vec<String> {
    hooks
        .iter()
        .filter_map(|hook| match &hook.state {
            HookState::Unavailable(reason) => Some(format!("{}: {reason}", hook.name)),
            _ => None,
        })
        .collect()
}

/// The conversation with the worker, and the signals that end it.
struct Talk {
    worker: Worker,
    socket: UnixStream,
    heard: Vec<u8>,
    signals: [Signal; 3],
}

impl Talk {
    fn new(worker: Worker) -> io::Result<Self> {
        let socket: StdUnixStream = worker.messages()?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: UnixStream::from_std(socket)?,
            worker,
            heard: Vec::new(),
            signals: [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            ],
        })
    }

    /// The next message. An error if it takes too long, or a signal comes first: the scratch disk
    /// is taken down when the worker is dropped.
    async fn answer(&mut self) -> anyhow::Result<Message> {
        let Self {
            socket,
            heard,
            signals,
            ..
        } = self;
        tokio::select! {
            message = next_message(socket, heard) => message,
            () = any(signals) => bail!("interrupted; the scratch disk is taken down"),
            () = tokio::time::sleep(STEP) => bail!("no answer within {} s", STEP.as_secs()),
        }
    }

    fn unexpected(&self, message: Message) -> String {
        match message {
            Message::Failed(why) => escape(why.as_bytes()),
            other => format!("unexpected answer {other:?}"),
        }
    }
}

async fn any(signals: &mut [Signal; 3]) {
    let [interrupt, terminate, hangup] = signals;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

async fn next_message(socket: &UnixStream, heard: &mut Vec<u8>) -> anyhow::Result<Message> {
    loop {
        if let Some(end) = heard.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = heard.drain(..=end).collect();
            return serde_json::from_slice(&line).context("the worker says nonsense");
        }
        socket.readable().await?;
        let mut bytes = [0; 4096];
        match socket.try_read(&mut bytes) {
            Ok(0) => bail!("the process that loses data died"),
            Ok(count) => heard.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Facts, and what the correlator makes of them.
struct Watch {
    correlator: Correlator,
    facts: Vec<Fact>,
    verdicts: Vec<Verdict>,
    incidents: Vec<Incident>,
    /// Sentences about what was not seen.
    lost: Vec<String>,
    seen: u64,
    /// To show every fact.
    clock: Option<Clock>,
}

impl Watch {
    fn new(verbose: bool) -> Self {
        let (mono, wall) = look_at_clocks();
        Self {
            correlator: Correlator::new(Config::default()),
            facts: Vec::new(),
            verdicts: Vec::new(),
            incidents: Vec::new(),
            lost: Vec::new(),
            seen: 0,
            clock: verbose.then(|| Clock::new(mono, wall)),
        }
    }

    /// Takes in facts until something else is done.
    async fn until<S: FactSource, T>(
        &mut self,
        source: &mut S,
        other: impl Future<Output = T>,
    ) -> anyhow::Result<T> {
        let mut other = std::pin::pin!(other);
        loop {
            let (done, ended) = tokio::select! {
                biased;
                done = &mut other => (Some(done), Ok(())),
                ended = source.next_facts(&mut self.facts) => (None, ended.map(|_| ())),
            };
            // Whatever a wait that was given up had already delivered counts as well.
            self.take(|inode, why| source.released(inode, why));
            if let Err(error) = ended {
                bail!("tracing broke off: {}", chain(&error));
            }
            if let Some(done) = done {
                return Ok(done);
            }
        }
    }

    /// Until there is an incident of this process, or it is too late.
    async fn until_reported<S: FactSource>(
        &mut self,
        source: &mut S,
        loss: &Loss,
        talk: &mut Talk,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + REPORT;
        let is_reported = |incident: &Incident| incident.task.process.pid == loss.pid;
        while !self.incidents.iter().any(is_reported) && Instant::now() < deadline {
            let pause = async {
                tokio::select! {
                    () = any(&mut talk.signals) => true,
                    () = tokio::time::sleep(Duration::from_millis(5)) => false,
                }
            };
            if self.until(source, pause).await? {
                bail!("interrupted; the scratch disk is taken down");
            }
        }
        Ok(())
    }

    fn take(&mut self, mut released: impl FnMut(&InodeKey, Release)) {
        for fact in self.facts.drain(..) {
            self.seen += 1;
            if let Some(clock) = &self.clock {
                show(&Record::of_fact(fact.clone(), clock));
            }
            if let FactKind::Lost(lost) = &fact.kind {
                let why = loss_sentence(lost.cause);
                self.lost.push(format!("{why} ({}x)", lost.count));
            }
            self.correlator.apply(&fact, &mut self.verdicts);
            for verdict in self.verdicts.drain(..) {
                match verdict {
                    Verdict::Incident(incident) => self.incidents.push(*incident),
                    Verdict::Released { inode, why } => released(&inode, why),
                    Verdict::Change(_) | Verdict::Incomplete { .. } => {}
                }
            }
        }
    }
}

fn show(record: &Record) {
    let mut line = b"           ".to_vec();
    line.extend(to_line(record));
    let _ = io::stdout().write_all(&line);
}

/// What is said on standard output. Nobody to tell if it is closed: the exit status stands.
struct Steps {
    began: Instant,
    last: Instant,
    verbose: bool,
}

impl Steps {
    /// A step is done: when, and how long it took.
    fn done(&mut self, what: &str) {
        let now = Instant::now();
        let took = (now - self.last).as_secs_f64();
        let at = (now - self.began).as_secs_f64();
        self.last = now;
        self.say(&format!("{at:7.3} s  {what} ({took:.3} s)"));
    }

    fn hooks(&self, hooks: &[HookStatus]) {
        if !self.verbose {
            return;
        }
        for hook in hooks.iter().map(HookRecord::from) {
            let how = hook.method.as_deref().unwrap_or_default();
            let why = hook.detail.as_deref().unwrap_or_default();
            let words = [&hook.name, &hook.target, &hook.state, how, why].join(" ");
            self.say(&format!(
                "           {}",
                escape(words.trim_end().as_bytes())
            ));
        }
    }

    fn say(&self, text: &str) {
        let mut out = io::stdout();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}
