//! Where facts come from. Every source gives the same facts, in the order of their times.

pub mod absent;
pub mod dtrace;
#[cfg(target_os = "linux")]
pub mod ebpf;

use crate::{
    model::{Fact, InodeKey, MonoTime, Release},
    schema::{HookRecord, StopReason, WallTime},
};

/// A place in the kernel that a source listens at, and what became of it on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookStatus {
    /// Our name for it, stable across kernels: `sync.msync`, `ext4.end_bio` ...
    pub name: &'static str,
    /// What it is for, in a few words.
    pub purpose: &'static str,
    /// The kernel function or tracepoint that was chosen, or the first choice if none was.
    pub target: String,
    /// What became of it.
    pub state: HookState,
}

/// What became of a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookState {
    /// Can be attached, as far as looking can tell (`check` without `--attach`).
    Possible(Method),
    /// Attached.
    Attached(Method),
    /// Loaded, and attached once the first write failure appears.
    OnDemand(Method),
    /// Waits for a kernel module (named) to be loaded.
    WaitsForModule(String),
    /// Another hook already sees what this one would.
    NotNeeded(String),
    /// Cannot be had here: the sentence says why and what it costs.
    Unavailable(String),
}

/// How a hook is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// BPF trampoline at function entry (`BPF_TRACE_FENTRY`).
    Fentry,
    /// BPF trampoline at function return (`BPF_TRACE_FEXIT`).
    Fexit,
    /// Kprobe at function entry.
    Kprobe,
    /// Raw tracepoint (`BPF_RAW_TRACEPOINT_OPEN`).
    RawTracepoint,
    /// Classic tracepoint (`perf_event_open`), which runs its programs with preemption off.
    Tracepoint,
}

impl Method {
    /// Its name in outputs and documentation.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Fexit => "fexit",
            Self::Kprobe => "kprobe",
            Self::RawTracepoint => "raw_tracepoint",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// Which hooks may be used (design: hook tiers).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// fentry/fexit where the kernel has them, then kprobes and raw tracepoints.
    Fentry,
    /// Kprobes and raw tracepoints.
    Kprobe,
    /// Raw tracepoints only.
    Tracepoint,
}

impl Tier {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// What a source is asked to watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Only these hooks; `None`: the best that the kernel allows.
    pub tier: Option<Tier>,
    /// Follow `msync` without `MS_SYNC` too.
    pub include_async: bool,
    /// Size of each ring of records between kernel and user space, bytes, a power of two from 4096
    /// on; otherwise 1 MiB.
    pub ring_bytes: Option<u32>,
    /// Hooks and maps outlive this process, and those of an earlier one are taken over.
    pub pin: bool,
}

/// Facts of a kernel whose clock is not ours, or of another machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `FreeBSD`, `Linux`.
    pub os: String,
    /// Its release; empty if it is not known.
    pub release: String,
    /// Whether it is this machine.
    pub here: bool,
    /// When the facts begin, on both clocks of that machine.
    pub began: (MonoTime, WallTime),
}

/// Whether there will be more facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Yes.
    More,
    /// No: the input was read to its end.
    Ended,
}

/// How a source fares. Counts are since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// How often it looked for facts, and took all that were there.
    pub drains: u64,
    /// Rings between the kernel side and us.
    pub rings: Vec<RingHealth>,
    /// How often a map of the kernel side was full, by its name.
    pub maps_full: Vec<(&'static str, u64)>,
    /// How often the kernel skipped a program that sees failures.
    pub skipped_failures: u64,
    /// The same of those that see more.
    pub skipped_more: u64,
    /// Inodes that the kernel side follows.
    pub tracked_inodes: u64,
    /// How many it can follow.
    pub tracked_inodes_limit: u64,
}

/// How a ring fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingHealth {
    /// Its name.
    pub name: &'static str,
    /// Records that arrived through it.
    pub sent: u64,
    /// Records that found it full.
    pub dropped: u64,
}

/// Where facts come from.
pub trait FactSource: Sized {
    /// Why it cannot go on.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Every hook and what became of it; changes when a kernel module is loaded.
    fn hooks(&self) -> &[HookStatus];

    /// The best hooks in use, as the start record names them.
    fn tier(&self) -> &'static str;

    /// Whose facts these are, if they are not of this kernel and on its clock.
    fn origin(&self) -> Option<&Origin> {
        None
    }

    /// How far time has come in the facts, where that does not follow our clock.
    fn now(&self) -> Option<MonoTime> {
        None
    }

    /// How it fares. Looks at the counters of the kernel side; what was dropped comes as facts
    /// afterwards.
    fn health(&mut self) -> Health {
        Health::default()
    }

    /// Makes something happen that the hooks have to see, and waits for it. Facts that come
    /// meanwhile are appended.
    ///
    /// # Errors
    /// A sentence: what was not seen, or could not be made to happen.
    fn self_check(&mut self, _into: &mut Vec<Fact>) -> impl Future<Output = Result<(), String>> {
        std::future::ready(Ok(()))
    }

    /// What is to be told on standard error since this was asked last. May hold any bytes.
    fn messages(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Waits until facts are ready and appends them, in the order of their times, or until
    /// [`Self::hooks`] or [`Self::messages`] changed. May be dropped
    /// while it waits: what it appended until then counts, and nothing is lost.
    fn next_facts(
        &mut self,
        into: &mut Vec<Fact>,
    ) -> impl Future<Output = Result<Progress, Self::Error>>;

    /// What [`Self::taken`] was given last, in an earlier process, if the facts go on where that one
    /// ended. Asked once, before the first facts.
    fn resume(&mut self) -> Option<Vec<u8>> {
        None
    }

    /// All facts handed on so far were taken in, and what follows from them was shown. `state` is
    /// what the taker has to know to go on in another process; it is not asked each time.
    fn taken(&mut self, _state: &mut dyn FnMut() -> Vec<u8>) {}

    /// Appends what was still on its way, and detaches every hook that is not to outlive this
    /// process. Gives the last messages. Only [`Self::taken`] may follow.
    fn finish(
        &mut self,
        why: StopReason,
        into: &mut Vec<Fact>,
    ) -> impl Future<Output = Vec<String>>;

    /// The correlator holds nothing outstanding of this inode any more; what to do is said at
    /// [`Release`].
    fn released(&mut self, inode: &InodeKey, why: Release);
}

impl From<&HookStatus> for HookRecord {
    fn from(hook: &HookStatus) -> Self {
        let (state, method, detail) = match &hook.state {
            HookState::Possible(method) => ("possible", Some(method), None),
            HookState::Attached(method) => ("attached", Some(method), None),
            HookState::OnDemand(method) => ("on_demand", Some(method), None),
            HookState::WaitsForModule(module) => ("waits_for_module", None, Some(module)),
            HookState::NotNeeded(by) => ("not_needed", None, Some(by)),
            HookState::Unavailable(why) => ("unavailable", None, Some(why)),
        };
        Self {
            name: hook.name.to_owned(),
            purpose: hook.purpose.to_owned(),
            target: hook.target.clone(),
            state: state.to_owned(),
            method: method.map(|method| method.name().to_owned()),
            detail: detail.cloned(),
        }
    }
}
