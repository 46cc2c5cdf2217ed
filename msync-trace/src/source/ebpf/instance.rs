//! One loaded copy of the eBPF object: its maps, its links, and what became of each hook.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    mem::offset_of,
    num::NonZero,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    sync::{Mutex, atomic::Ordering::Relaxed},
    thread::{self, JoinHandle},
};

use aya::{
    Btf as AyaBtf, Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{HashMap, Map, MapData, MapError, RingBuf},
    programs::{
        Program, ProgramError,
        fentry::FEntryLinkId,
        fexit::FExitLinkId,
        kprobe::KProbeLinkId,
        links::{FdLink, PinnedLink},
        raw_trace_point::RawTracePointLinkId,
        trace_point::TracePointLinkId,
    },
};
use aya_log::EbpfLogger;
use log::debug;
use msync_trace_ebpf as abi;
use zerocopy::FromZeros;

use super::{
    AttachError, Options,
    btf::Btf,
    hooks::{self, HOOKS, Hook, PREEMPTED, Way, When},
    kernel,
    layout::{self, ESSENTIAL, Resolved, Types},
    object,
    pins::link_path,
    shared::Shared,
    skipped::Skipped,
};
use crate::source::{HookState, HookStatus, Method, Tier};

/// The maps that outlive a process, by name.
pub const MAPS: [&str; 6] = ["ERRORS", "SYNCS", "PAGES", "FAILED", "CONTROL", "COUNTERS"];

/// The first kernel whose links of kprobes and classic tracepoints can be pinned
/// (`BPF_LINK_TYPE_PERF_EVENT`).
const PERF_LINKS: (u32, u32) = (5, 15);

/// Programs that take the verifier longest.
const BIG_PROGRAMS: [&str; 4] = [
    "block_rq_complete",
    "block_bio_complete",
    "sys_exit",
    "sys_exit_classic",
];

/// `aya_log::Level::Debug` as the programs have it.
const LOG_DEBUG: u8 = 4;

/// An ABI type as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Pod<T>(pub T);

// SAFETY: a Wire type is plain bytes without padding, and every bit pattern of it is valid.
unsafe impl<T: abi::Wire> aya::Pod for Pod<T> {}

/// The three rings.
pub struct Rings {
    /// Failures, successes, discards, who was told.
    pub errors: RingBuf<MapData>,
    /// Sync calls.
    pub syncs: RingBuf<MapData>,
    /// States of pages.
    pub pages: RingBuf<MapData>,
}

/// The inodes with failures, as the kernel side knows them.
pub type Failed = HashMap<MapData, Pod<abi::InodeKey>, Pod<abi::InodeState>>;

/// A loaded object.
pub struct Instance {
    ebpf: Ebpf,
    /// When loading began, `CLOCK_MONOTONIC` ns: modules that were loaded before are known.
    pub began: u64,
    /// Best tier that the hooks of the sync calls allow.
    pub tier: Tier,
    /// What became of each hook, in the order of the table.
    pub hooks: Vec<HookStatus>,
    /// See [`Failed`].
    pub failed: Failed,
    control: Shared<abi::Control>,
    counters: Shared<abi::Counters>,
    /// Hooks to attach once a failure appears: index in the table, and the way.
    on_demand: Vec<(usize, &'static Way)>,
    /// They are attached.
    page_hooks: bool,
    attached_on_demand: Vec<(&'static Way, Link)>,
    /// Attached from the start.
    attached: Vec<(&'static Way, Link)>,
    /// Where everything is pinned.
    pins: Option<PathBuf>,
    /// How `vfs_fsync_range` was hooked when the tier was found out.
    sync_range: Option<&'static Way>,
    /// See [`Options`].
    include_async: bool,
    /// Kernel version, (major, minor).
    version: (u32, u32),
    /// Programs may be preempted: see [`PREEMPTED`].
    preempted: bool,
    /// Diagnostics of the programs; only with `-vv`.
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
}

/// The functions at the end of bios, being looked up.
type Symbols = JoinHandle<io::Result<Vec<(u64, u32)>>>;

/// What the kernel's types tell about it.
struct Known {
    resolved: Resolved,
    /// The types once more, as aya wants them for functions; not for lower tiers.
    btf: Option<AyaBtf>,
    /// Those of the table's tracepoints that have types.
    tracepoints: BTreeSet<&'static str>,
}

impl Known {
    fn of(types: &Types, vmlinux: &Btf, resolved: Resolved, btf: Option<AyaBtf>) -> Self {
        let known = |way: &&Way| {
            let module = types.modules.get(way.module);
            vmlinux.has_tracepoint(way.target)
                || module.is_some_and(|btf| btf.has_tracepoint(way.target))
        };
        let ways = HOOKS.iter().flat_map(|hook| hook.ways);
        Self {
            resolved,
            btf,
            tracepoints: ways
                .filter(|way| way.method == Method::RawTracepoint)
                .filter(known)
                .map(|way| way.target)
                .collect(),
        }
    }
}

/// Why a way of attaching a hook is not open.
enum Unusable {
    /// Its module is not loaded yet.
    NoModule,
    /// A sentence.
    Because(String),
}

/// A link that may be taken back.
enum Link {
    Fentry(FEntryLinkId),
    Fexit(FExitLinkId),
    Kprobe(KProbeLinkId),
    RawTracepoint(RawTracePointLinkId),
    Tracepoint(TracePointLinkId),
    Pinned(PinnedLink),
}

impl Instance {
    /// Loads the object for the running kernel and attaches what can be attached.
    ///
    /// # Errors
    /// A sentence with the remedy, where nothing useful can be attached. In `pins` maps and links
    /// are pinned, in a folder of the BPF filesystem.
    pub fn load(options: &Options, pins: Option<&Path>) -> Result<(Self, Rings), AttachError> {
        if !object::OBJECT
            .windows(abi::ABI_MARK.len())
            .any(|window| window == abi::ABI_MARK)
        {
            return Err(AttachError::AbiMismatch);
        }
        let began = super::now();
        // Each takes tens of milliseconds: side by side, and the symbols are waited for last.
        let symbols = thread::spawn(kernel::end_io_owners);
        let aya = {
            let wants_functions = options.tier.unwrap_or(Tier::Fentry) == Tier::Fentry;
            thread::spawn(move || loader_and_types(wants_functions))
        };
        let types = kernel::types();
        let (mut loader, btf) = joined(aya);
        let Some(vmlinux) = types.vmlinux.clone() else {
            return Err(AttachError::NoBtf);
        };
        let resolved = layout::resolve(&types);
        for field in ESSENTIAL {
            if let Some(reason) = resolved.missing.get(field) {
                return Err(AttachError::Layout {
                    field,
                    reason: reason.clone(),
                });
            }
        }
        let layout = Pod(resolved.layout);
        let config = Pod(config(options, types.version, &vmlinux));
        // The reason of a refusal and the statistics, without the trace of every instruction.
        loader.verifier_log_level(VerifierLogLevel::STATS);
        loader.override_global("LAYOUT", &layout, true);
        loader.override_global("CONFIG", &config, true);
        // The programs' own diagnostics: nothing is compiled to run unless they are wanted.
        let log_level = if log::log_enabled!(log::Level::Debug) {
            LOG_DEBUG
        } else {
            0u8
        };
        loader.override_global(aya_log::LEVEL, &log_level, false);
        let processors = aya::util::nr_cpus()
            .map_err(|(what, error)| AttachError::Map(format!("{what}: {error}")))?;
        loader.map_max_entries("COUNTERS", u32::try_from(processors).unwrap_or(u32::MAX));
        if let Some(bytes) = options.ring_bytes {
            for ring in ["ERRORS", "SYNCS", "PAGES"] {
                loader.map_max_entries(ring, bytes);
            }
        }
        let mut ebpf = object::load(&mut loader).map_err(AttachError::from_load)?;
        if let Some(folder) = pins {
            pin_maps(&mut ebpf, folder)?;
        }
        let rings = Rings {
            errors: ring(&mut ebpf, "ERRORS")?,
            syncs: ring(&mut ebpf, "SYNCS")?,
            pages: ring(&mut ebpf, "PAGES")?,
        };
        let failed = take(&mut ebpf, "FAILED")?;
        let control = shared(&mut ebpf, "CONTROL", 1)?;
        let counters = shared(&mut ebpf, "COUNTERS", processors)?;
        let mut instance = Self {
            ebpf,
            began,
            tier: Tier::Tracepoint,
            hooks: Vec::new(),
            failed,
            control,
            counters,
            on_demand: Vec::new(),
            page_hooks: false,
            attached_on_demand: Vec::new(),
            attached: Vec::new(),
            pins: None,
            sync_range: None,
            include_async: options.include_async,
            version: types.version,
            preempted: types.version >= PREEMPTED,
            logger: None,
        };
        if log_level != 0 {
            instance.logger = EbpfLogger::init(&mut instance.ebpf).ok();
        }
        let known = Known::of(&types, &vmlinux, resolved, btf);
        // 30 MiB that are not needed while the programs are loaded.
        drop((types, vmlinux));
        instance.attach(options, &known, symbols)?;
        if let Some(folder) = pins {
            instance.pin_links(folder)?;
        }
        Ok((instance, rings))
    }

    /// Walks the table: errors first, so that a sync is never seen without its failure.
    fn attach(
        &mut self,
        options: &Options,
        known: &Known,
        symbols: Symbols,
    ) -> Result<(), AttachError> {
        let best = options.tier.unwrap_or(Tier::Fentry);
        let (tier, refused) = self.detect(best, known);
        if options.tier.is_some_and(|wanted| wanted != tier) {
            return Err(AttachError::Tier {
                wanted: best,
                possible: tier,
                reason: refused,
            });
        }
        self.tier = tier;
        let include_async = options.include_async;
        self.tell_exit_hook(include_async);
        self.calibrate()?;
        self.load_side_by_side(options, known);
        self.note_end_io(symbols)?;
        for (index, hook) in HOOKS.iter().enumerate() {
            let state = self.attach_hook(index, hook, options, known);
            self.hooks.push(state);
        }
        let essential = |name: &str| {
            self.hooks
                .iter()
                .find(|hook| hook.name == name)
                .is_some_and(|hook| matches!(hook.state, HookState::Attached(_)))
        };
        if !essential("errseq.recorded") {
            return Err(AttachError::Refused(self.reasons()));
        }
        Ok(())
    }

    /// Tells the programs on the block layer whose a bio is.
    fn note_end_io(&mut self, symbols: Symbols) -> Result<(), AttachError> {
        let failed = |error: MapError| AttachError::Map(format!("END_IO: {error}"));
        let map = self.ebpf.map_mut("END_IO");
        let map = map.ok_or_else(|| AttachError::Map("no map END_IO".to_owned()))?;
        let mut owners: HashMap<_, u64, u32> = HashMap::try_from(map).map_err(failed)?;
        for (address, owner) in joined(symbols).unwrap_or_default() {
            owners.insert(address, owner, 0).map_err(failed)?;
        }
        Ok(())
    }

    /// The best tier whose hook of `vfs_fsync_range` can be attached, and why a better one
    /// cannot.
    fn detect(&mut self, best: Tier, known: &Known) -> (Tier, String) {
        let mut refused = String::new();
        let ways = HOOKS
            .iter()
            .find(|hook| hook.name == "sync.range")
            .map_or(&[][..], |h| h.ways);
        for way in ways {
            let tier = if way.method == Method::Kprobe {
                Tier::Kprobe
            } else {
                Tier::Fentry
            };
            if tier < best {
                continue;
            }
            match self.attach_way(way, known.btf.as_ref()) {
                Ok(link) => {
                    // It stays: before 5.13 a trampoline program cannot be attached twice.
                    self.attached.push((way, link));
                    self.sync_range = Some(way);
                    return (tier, refused);
                }
                Err(error) if refused.is_empty() => refused = explain_tier(&error, way),
                Err(_) => {}
            }
        }
        (Tier::Tracepoint, refused)
    }

    fn attach_hook(
        &mut self,
        index: usize,
        hook: &'static Hook,
        options: &Options,
        known: &Known,
    ) -> HookStatus {
        let first = hook.ways.first().map_or("", |way| way.target);
        let status = |target: &str, state| HookStatus {
            name: hook.name,
            purpose: hook.purpose,
            target: target.to_owned(),
            state,
        };
        if hook.name == "sync.range"
            && let Some(way) = self.sync_range
        {
            return status(way.target, HookState::Attached(way.method));
        }
        if let Some(reason) = self.not_needed(hook, options) {
            return status(first, HookState::NotNeeded(reason));
        }
        let on_demand = self.is_on_demand(hook);
        let mut reasons = Vec::new();
        let mut waits = None;
        let mut done: Option<(&'static Way, HookState)> = None;
        for way in self.ways(hook) {
            match self.unusable(way, known) {
                None => {}
                Some(Unusable::NoModule) => {
                    waits = Some(way.module);
                    continue;
                }
                Some(Unusable::Because(reason)) => {
                    reasons.push(reason);
                    continue;
                }
            }
            if on_demand {
                match self.try_way(way, known) {
                    Ok(()) => {
                        self.on_demand.push((index, way));
                        done = Some((way, HookState::OnDemand(way.method)));
                    }
                    Err(error) => reasons.push(explain(&error, way)),
                }
            } else {
                match self.attach_way(way, known.btf.as_ref()) {
                    Ok(link) => {
                        self.attached.push((way, link));
                        done = Some((way, HookState::Attached(way.method)));
                    }
                    Err(error) => reasons.push(explain(&error, way)),
                }
            }
            if done.is_some() && !hook.all_ways {
                break;
            }
        }
        if let Some((way, state)) = done {
            return status(way.target, state);
        }
        if let Some(module) = waits.filter(|_| !kernel::has_modules()) {
            let reason = format!("this kernel was built without {module}");
            return status(first, HookState::NotNeeded(reason));
        }
        if let Some(module) = waits {
            return status(first, HookState::WaitsForModule(module.to_owned()));
        }
        reasons.dedup();
        let mut reason = reasons.join("; ");
        debug!("{}: {reason}", hook.name);
        let Some(without) = hook.without else {
            return status(first, HookState::NotNeeded(reason));
        };
        reason.push_str(". Not seen without it: ");
        reason.push_str(without);
        status(first, HookState::Unavailable(reason))
    }

    /// The ways to attach a hook, best first: where programs may be preempted, those come last that
    /// are.
    fn ways(&self, hook: &'static Hook) -> Vec<&'static Way> {
        let mut ways: Vec<_> = hook.ways.iter().collect();
        if self.preempted {
            ways.sort_by_key(|way| way.method == Method::Fentry);
        }
        ways
    }

    /// Why a way cannot be taken, as far as that is known without trying.
    fn unusable(&self, way: &Way, known: &Known) -> Option<Unusable> {
        let because = |reason| Some(Unusable::Because(reason));
        if !way.allowed(self.tier) {
            return because(format!("{} is not of this tier", way.method.name()));
        }
        if !way.module.is_empty() && !kernel::has_module(way.module) {
            return Some(Unusable::NoModule);
        }
        if way.method == Method::Tracepoint && !self.preempted {
            return because(format!(
                "{}: this kernel does not preempt raw tracepoints",
                way.target
            ));
        }
        let resolved = &known.resolved;
        let missing = |field: &&&str| resolved.missing.contains_key(**field);
        if let Some(field) = way.needs.iter().find(missing) {
            return because(format!("{}: {}", way.target, resolved.missing[*field]));
        }
        let absent = |field: &&&str| is_absent(&resolved.layout, field);
        let field = way.needs.iter().find(absent)?;
        because(format!("{}: this kernel has no {field}", way.target))
    }

    /// Loads the programs that will be attached on all processors: the kernel's verifier takes most
    /// of the time of a start. What fails here is tried again, and explained, one by one.
    fn load_side_by_side(&mut self, options: &Options, known: &Known) {
        let ways: BTreeMap<&str, &Way> = HOOKS
            .iter()
            .filter(|hook| self.not_needed(hook, options).is_none())
            .filter(|hook| hook.when != When::BlockLayer || self.tier == Tier::Tracepoint)
            .filter_map(|hook| {
                let mut ways = self.ways(hook).into_iter();
                ways.find(|way| self.unusable(way, known).is_none())
            })
            .map(|way| (way.program, way))
            .collect();
        let programs = self.ebpf.programs_mut();
        let mut jobs: Vec<(&Way, &mut Program)> = programs
            .filter_map(|(name, program)| Some((*ways.get(name)?, program)))
            .collect();
        // The biggest is taken first.
        jobs.sort_by_key(|(way, _)| BIG_PROGRAMS.contains(&way.program));
        let jobs = Mutex::new(jobs);
        let work = || {
            let next = || jobs.lock().ok()?.pop();
            while let Some((way, program)) = next() {
                if let Err(error) = load(program, way, known.btf.as_ref()) {
                    debug!("{}: {error}", way.program);
                }
            }
        };
        let others = thread::available_parallelism().map_or(1, NonZero::get) - 1;
        thread::scope(|scope| {
            for _ in 0..others.min(3) {
                scope.spawn(work);
            }
            work();
        });
    }

    /// Why a hook is not wanted, if it is not.
    fn not_needed(&self, hook: &Hook, options: &Options) -> Option<String> {
        let tier_3 = self.tier == Tier::Tracepoint;
        match hook.when {
            When::BlockLayer if !tier_3 && self.functions_cover_writes() => {
                Some("the filesystems' own functions are hooked".to_owned())
            }
            When::SyscallExit
                if self.tier == Tier::Fentry && !options.include_async && !self.preempted =>
            {
                Some("fexit sees the return values".to_owned())
            }
            _ if hook.name == "module.loaded" && !kernel::has_modules() => {
                Some("this kernel was built without modules".to_owned())
            }
            _ if self.tier == Tier::Kprobe && hook.ways.iter().all(is_fexit) => {
                Some("sync.exit sees the return values".to_owned())
            }
            _ if self.tier == Tier::Fentry && matches!(hook.name, "sync.errseq" | "sync.wait") => {
                Some("fexit sees the return values".to_owned())
            }
            _ if tier_3 && hook.ways.iter().all(|way| !way.allowed(Tier::Tracepoint)) => {
                Some(tier_3_substitute(hook.name).to_owned())
            }
            _ if !tier_3 && hook.name == "inode.gone.fs" => {
                Some("inode.gone sees every filesystem".to_owned())
            }
            _ => None,
        }
    }

    /// Whether ext4 and iomap writes are seen at their functions.
    fn functions_cover_writes(&self) -> bool {
        ["ext4.write", "iomap.write"].iter().all(|name| {
            self.hooks.iter().any(|hook| {
                hook.name == *name
                    && matches!(
                        hook.state,
                        HookState::Attached(_) | HookState::WaitsForModule(_)
                    )
            })
        })
    }

    fn is_on_demand(&self, hook: &Hook) -> bool {
        match hook.when {
            When::OnDemand => true,
            // An msync without MS_SYNC asks no filesystem: only the exit hook sees it.
            When::SyscallExit => self.tier != Tier::Tracepoint && !self.include_async,
            When::Always | When::BlockLayer => false,
        }
    }

    /// Attaches what lies on hot paths: a failure has appeared. `false` if it is attached already.
    pub fn attach_on_demand(&mut self) -> bool {
        if self.page_hooks {
            return false;
        }
        self.page_hooks = true;
        let mut exit_hook = self.include_async;
        for (index, way) in self.on_demand.clone() {
            if self
                .attached_on_demand
                .iter()
                .any(|(attached, _)| std::ptr::eq(*attached, way))
            {
                continue;
            }
            match self.link(way).and_then(|link| self.pin(way, link)) {
                Ok(link) => {
                    exit_hook |= HOOKS[index].when == When::SyscallExit;
                    self.attached_on_demand.push((way, link));
                }
                Err(error) => {
                    if !HOOKS[index].all_ways {
                        self.hooks[index].state = HookState::Unavailable(explain(&error, way));
                    }
                }
            }
        }
        self.set(offset_of!(abi::Control, page_hooks), true);
        self.tell_exit_hook(exit_hook);
        true
    }

    /// Takes them back: nothing is outstanding any more.
    pub fn detach_on_demand(&mut self) {
        self.page_hooks = false;
        self.set(offset_of!(abi::Control, page_hooks), false);
        self.tell_exit_hook(self.include_async);
        for (way, link) in std::mem::take(&mut self.attached_on_demand) {
            if way.method == Method::Fentry && self.version < (5, 13) {
                // Could not be attached again; it costs one comparison as long as it stays.
                self.attached_on_demand.push((way, link));
            } else {
                self.detach(way.program, link);
            }
        }
    }

    /// Hands on what the programs logged.
    pub fn flush_log(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }

    /// Follows the inodes that another copy of the object follows, each with a count of one failure
    /// more than this copy saw; gives them as the other one knows them, and how many found no room.
    pub fn take_over_failed(
        &mut self,
        other: &Failed,
    ) -> (Vec<(abi::InodeKey, abi::InodeState)>, u64) {
        let mut followed = Vec::new();
        let mut refused = 0;
        for (Pod(key), Pod(mut state)) in other.iter().flatten() {
            let theirs = state;
            let seen = self.failed.get(&Pod(key), 0);
            state.failures = 1;
            if let Ok(Pod(own)) = seen {
                state.failures += own.failures;
                state.last_at = state.last_at.max(own.last_at);
                state.lowest = state.lowest.min(own.lowest);
                state.highest = state.highest.max(own.highest);
                state.page_exact_at = state.page_exact_at.max(own.page_exact_at);
                state.recorded |= own.recorded;
            }
            match self.failed.insert(Pod(key), Pod(state), 0) {
                Ok(()) => followed.push((key, theirs)),
                Err(_) => refused += 1,
            }
        }
        (followed, refused)
    }

    /// Pins what is attached.
    fn pin_links(&mut self, folder: &Path) -> Result<(), AttachError> {
        self.pins = Some(folder.to_owned());
        for (way, link) in std::mem::take(&mut self.attached) {
            let link = self.pin(way, link).map_err(|error| {
                let text = format!("cannot pin the hook at {}: {error}", way.target);
                AttachError::Pins(text)
            })?;
            self.attached.push((way, link));
        }
        Ok(())
    }

    /// Pins a link if that is wanted and this kernel can.
    fn pin(&mut self, way: &'static Way, link: Link) -> Result<Link, ProgramError> {
        let Some(folder) = self.pins.clone().filter(|_| self.can_pin(way)) else {
            return Ok(link);
        };
        let program = self.ebpf.program_mut(way.program);
        let link: FdLink = match (program, link) {
            (Some(Program::FEntry(program)), Link::Fentry(link)) => program.take_link(link)?.into(),
            (Some(Program::FExit(program)), Link::Fexit(link)) => program.take_link(link)?.into(),
            (Some(Program::RawTracePoint(program)), Link::RawTracepoint(link)) => {
                program.take_link(link)?.into()
            }
            (Some(Program::KProbe(program)), Link::Kprobe(link)) => {
                program.take_link(link)?.try_into().map_err(not_pinned)?
            }
            (Some(Program::TracePoint(program)), Link::Tracepoint(link)) => {
                program.take_link(link)?.try_into().map_err(not_pinned)?
            }
            (_, link) => return Ok(link),
        };
        let path = link_path(&folder, way.program, way.target);
        link.pin(path).map(Link::Pinned).map_err(not_pinned)
    }

    fn can_pin(&self, way: &Way) -> bool {
        match way.method {
            Method::Fentry | Method::Fexit | Method::RawTracepoint => true,
            Method::Kprobe | Method::Tracepoint => self.version >= PERF_LINKS,
        }
    }

    /// Hooks that see nothing while no process traces: this kernel cannot pin them.
    #[must_use]
    pub fn unpinned(&self) -> Vec<&'static str> {
        let attached = self.attached.iter().map(|(way, _)| *way);
        let on_demand = self.on_demand.iter().map(|(_, way)| *way);
        let mut names: Vec<_> = attached
            .chain(on_demand)
            .filter(|way| !self.can_pin(way))
            .filter_map(|way| Some(hooks::find(way.program)?.0.name))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Takes every hook back; the rings stay.
    pub fn detach_all(&mut self) {
        let attached = std::mem::take(&mut self.attached);
        let on_demand = std::mem::take(&mut self.attached_on_demand);
        for (way, link) in attached.into_iter().chain(on_demand) {
            if matches!(link, Link::Pinned(_)) {
                self.detach(way.program, link);
            }
        }
        for (name, program) in self.ebpf.programs_mut() {
            if program.fd().is_err() {
                continue;
            }
            let result = match program {
                Program::FEntry(program) => program.unload(),
                Program::FExit(program) => program.unload(),
                Program::KProbe(program) => program.unload(),
                Program::RawTracePoint(program) => program.unload(),
                Program::TracePoint(program) => program.unload(),
                _ => Ok(()),
            };
            if let Err(error) = result {
                debug!("cannot unload {name}: {error}");
            }
        }
    }

    /// Where the kernel keeps the registers of a system call: see the program `calibrate`.
    fn calibrate(&mut self) -> Result<(), AttachError> {
        let way = Way {
            program: "calibrate",
            method: Method::RawTracepoint,
            target: "sys_exit",
            module: "",
            needs: &[],
        };
        match self.attach_way(&way, None) {
            Ok(link) => {
                // Any system call will do.
                let _ = rustix::process::getppid();
                self.detach(way.program, link);
                let offset = offset_of!(abi::Control, regs_offset);
                let offset = self.control.word(offset).load(Relaxed);
                debug!("pt_regs of a system call: {offset} bytes into the stack");
                Ok(())
            }
            Err(error) => Err(AttachError::from_program(&error, &way)),
        }
    }

    fn load_way(&mut self, way: &Way, btf: Option<&AyaBtf>) -> Result<(), ProgramError> {
        let program = self
            .ebpf
            .program_mut(way.program)
            .ok_or(ProgramError::UnexpectedProgramType)?;
        load(program, way, btf)
    }

    /// Loads, and finds out whether it can be attached where nothing else tells: attaching and
    /// detaching a tracepoint takes the kernel 10 to 30 ms.
    fn try_way(&mut self, way: &Way, known: &Known) -> Result<(), ProgramError> {
        let btf = known.btf.as_ref();
        if way.method != Method::RawTracepoint || known.tracepoints.contains(way.target) {
            return self.load_way(way, btf);
        }
        let link = self.attach_way(way, btf)?;
        self.detach(way.program, link);
        Ok(())
    }

    fn link(&mut self, way: &Way) -> Result<Link, ProgramError> {
        let program = self
            .ebpf
            .program_mut(way.program)
            .ok_or(ProgramError::UnexpectedProgramType)?;
        match program {
            Program::FEntry(program) => program.attach().map(Link::Fentry),
            Program::FExit(program) => program.attach().map(Link::Fexit),
            Program::KProbe(program) => program.attach(way.target, 0).map(Link::Kprobe),
            Program::RawTracePoint(program) => program.attach(way.target).map(Link::RawTracepoint),
            Program::TracePoint(program) => {
                let (category, name) = way.target.split_once(':').unwrap_or_default();
                program.attach(category, name).map(Link::Tracepoint)
            }
            _ => Err(ProgramError::UnexpectedProgramType),
        }
    }

    fn attach_way(&mut self, way: &Way, btf: Option<&AyaBtf>) -> Result<Link, ProgramError> {
        self.load_way(way, btf)?;
        self.link(way)
    }

    fn detach(&mut self, program: &str, link: Link) {
        let link = match link {
            // It is detached when the last descriptor is closed, here.
            Link::Pinned(link) => {
                if let Err(error) = link.unpin() {
                    debug!("cannot unpin {program}: {error}");
                }
                return;
            }
            link => link,
        };
        let Some(program) = self.ebpf.program_mut(program) else {
            return;
        };
        let result = match (program, link) {
            (Program::FEntry(program), Link::Fentry(link)) => program.detach(link),
            (Program::FExit(program), Link::Fexit(link)) => program.detach(link),
            (Program::KProbe(program), Link::Kprobe(link)) => program.detach(link),
            (Program::RawTracePoint(program), Link::RawTracepoint(link)) => program.detach(link),
            (Program::TracePoint(program), Link::Tracepoint(link)) => program.detach(link),
            _ => Ok(()),
        };
        if let Err(error) = result {
            debug!("cannot detach: {error}");
        }
    }

    fn set(&self, flag: usize, value: bool) {
        self.control.word(flag).store(u32::from(value), Relaxed);
    }

    /// Whether any inode is followed. A program that meets the first failure sets it by itself, after
    /// it put the inode into the map.
    pub fn set_tracked(&self, value: bool) {
        self.set(offset_of!(abi::Control, tracked), value);
    }

    /// Whether the rings are looked at without being asked to.
    pub fn set_polled(&self, value: bool) {
        self.set(offset_of!(abi::Control, polled), value);
    }

    /// Whether the hook at the exit of system calls is attached. While both kinds of hooks are, a call
    /// may be told twice, but none is told by neither.
    fn tell_exit_hook(&self, attached: bool) {
        let preempted = attached && self.preempted;
        let sync_at_exit = self.tier != Tier::Fentry || preempted;
        self.set(offset_of!(abi::Control, exit_hook), attached);
        self.set(offset_of!(abi::Control, sync_at_exit), sync_at_exit);
    }

    /// The counters, summed over all CPUs.
    #[must_use]
    pub fn counters(&self) -> abi::Counters {
        sum(&self.counters)
    }

    /// How often the kernel skipped programs since they were loaded.
    #[must_use]
    pub fn skipped(&self) -> Skipped {
        // What these see of system calls is seen at their exit.
        let told_at_exit = self.preempted && self.page_hooks;
        let programs = self.ebpf.programs().filter_map(|(name, program)| {
            let descriptor = program.fd().ok()?.as_fd().as_raw_fd();
            let (hook, way) = hooks::find(name)?;
            let ignored = told_at_exit && is_fexit(way);
            (!ignored).then_some((descriptor, hook.sees()))
        });
        Skipped::read(&programs.collect())
    }

    fn reasons(&self) -> String {
        let mut reasons: Vec<String> = Vec::new();
        for hook in &self.hooks {
            if let HookState::Unavailable(reason) = &hook.state {
                reasons.push(format!("{}: {reason}", hook.name));
            }
        }
        reasons.join("\n")
    }
}

/// Counters, summed over all CPUs.
pub fn sum(counters: &Shared<abi::Counters>) -> abi::Counters {
    let mut sum = [0; size_of::<abi::Counters>() / 8];
    for cpu in counters.words() {
        for (sum, word) in sum.iter_mut().zip(cpu) {
            *sum += word;
        }
    }
    zerocopy::transmute!(sum)
}

/// Loads a program, once.
fn load(program: &mut Program, way: &Way, btf: Option<&AyaBtf>) -> Result<(), ProgramError> {
    if program.fd().is_ok() {
        return Ok(());
    }
    match program {
        Program::FEntry(program) => program.load(way.target, btf.ok_or(ProgramError::NotLoaded)?),
        Program::FExit(program) => program.load(way.target, btf.ok_or(ProgramError::NotLoaded)?),
        Program::KProbe(program) => program.load(),
        Program::RawTracePoint(program) => program.load(),
        Program::TracePoint(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Both have the kernel's types, of 15 MiB, in aya's form: the loader, which needs none, gives its
/// own back before those for functions are read.
fn loader_and_types(wants_functions: bool) -> (EbpfLoader<'static>, Option<AyaBtf>) {
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    let types = wants_functions.then(AyaBtf::from_sys_fs);
    (loader, types.and_then(Result::ok))
}

/// What a thread came back with; its panic goes on here.
fn joined<T>(thread: JoinHandle<T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn not_pinned(error: impl std::error::Error + Send + Sync + 'static) -> ProgramError {
    ProgramError::IOError(io::Error::other(error))
}

fn pin_maps(ebpf: &mut Ebpf, folder: &Path) -> Result<(), AttachError> {
    for name in MAPS {
        let map = ebpf.map(name);
        let map = map.ok_or_else(|| AttachError::Map(format!("no map {name}")))?;
        map.pin(folder.join(name)).map_err(|error| {
            let text = format!("cannot pin {name} in {}: {error}", folder.display());
            AttachError::Pins(text)
        })?;
    }
    Ok(())
}

fn is_fexit(way: &Way) -> bool {
    way.method == Method::Fexit
}

/// What sees in tier 3 what a function hook would see.
pub fn tier_3_substitute(hook: &str) -> &'static str {
    match hook {
        "ext4.write" | "iomap.write" | "mpage.write" | "f2fs.write" | "buffer.write"
        | "btrfs.bio" => "block.request and block.bio see the writes",
        "inode.gone" => "inode.gone.fs sees ext4, XFS and btrfs",
        "xfs.map" => "errseq.recorded sees the inode, not the bytes",
        "direct.write" => "O_DIRECT writes are not seen in tier 3",
        _ => "sync.exit sees it at the exit of the system call",
    }
}

/// Whether a field of the layout is absent without being missed.
fn is_absent(layout: &abi::Layout, field: &str) -> bool {
    let value = match field {
        "ioend_error" => layout.ioend_error,
        "mm_rb" => layout.mm_rb,
        "vma_rb" => layout.vma_rb,
        "mm_root" => layout.mm_root,
        "range_pivots" => layout.range_pivots,
        "range_slots" => layout.range_slots,
        "range_end" => layout.range_end,
        "arange_pivots" => layout.arange_pivots,
        "arange_slots" => layout.arange_slots,
        "arange_end" => layout.arange_end,
        "mpage_start" => layout.mpage_start,
        "mpage_next" => layout.mpage_next,
        "xfs_inode_vnode" => layout.xfs_inode_vnode,
        "oe_inode" => layout.oe_inode,
        "nfs_inode_first" => layout.nfs_inode_first,
        "nfs_request_first" => layout.nfs_request_first,
        "fuse_req_args" => layout.fuse_req_args,
        "fuse_conn_connected" => layout.fuse_conn_connected,
        _ => return false,
    };
    value == abi::ABSENT
}

/// Why a tier cannot be had, as a sentence about the kernel.
fn explain_tier(error: &ProgramError, way: &Way) -> String {
    if way.method == Method::Kprobe && !kernel::has_kprobes() {
        return "this kernel was built without kprobes (CONFIG_KPROBE_EVENTS)".to_owned();
    }
    explain(error, way)
}

/// A load or attach error as a sentence; the verifier's log goes to the diagnostics.
fn explain(error: &ProgramError, way: &Way) -> String {
    let method = way.method.name();
    let target = way.target;
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            debug!("{}: {io_error}: {verifier_log}", way.program);
            format!("{method} {target}: the kernel refuses the program ({io_error})")
        }
        ProgramError::NotLoaded => format!("{method} {target}: no BTF"),
        other => {
            let mut text = format!("{method} {target}: {other}");
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                text.push_str(": ");
                text.push_str(&cause.to_string());
                source = cause.source();
            }
            text
        }
    }
}

fn take<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, AttachError>
where
    T: TryFrom<Map>,
    T::Error: std::fmt::Display,
{
    let map = ebpf
        .take_map(name)
        .ok_or_else(|| AttachError::Map(format!("no map {name}")))?;
    T::try_from(map).map_err(|error| AttachError::Map(format!("{name}: {error}")))
}

fn shared<T: abi::Wire>(
    ebpf: &mut Ebpf,
    name: &'static str,
    entries: usize,
) -> Result<Shared<T>, AttachError> {
    let failed = |error: &dyn std::fmt::Display| AttachError::Map(format!("{name}: {error}"));
    let Some(Map::Array(map)) = ebpf.map(name) else {
        return Err(failed(&"no such array"));
    };
    Shared::new(map.fd(), entries).map_err(|error| failed(&error))
}

fn ring(ebpf: &mut Ebpf, name: &'static str) -> Result<RingBuf<MapData>, AttachError> {
    take(ebpf, name)
}

/// The read-only choices of user space.
fn config(options: &Options, version: (u32, u32), vmlinux: &Btf) -> abi::Config {
    let mut config = abi::Config::new_zeroed();
    config.include_async = u32::from(options.include_async);
    config.own_pid = std::process::id();
    // include/linux/sched.h: moved in 5.12.
    config.pf_io_worker = if version >= (5, 12) {
        0x10
    } else {
        0x2000_0000
    };
    // ext4_finish_bio records EIO for every page of a failed bio, over the device's own error
    // (seen on 5.10 and 6.1, no longer on 6.12).
    config.ext4_errno = if version < (6, 9) { 5 } else { 0 };
    // include/linux/fs.h: moved in 6.14, together with this function, which came to 6.12.y too.
    let moved = version >= (6, 14) || vmlinux.has_func("file_set_fsnotify_mode");
    config.fmode_backing = 1 << if moved { 24 } else { 25 };
    config.rq_error_is_status = u32::from(version >= (5, 16));
    config
}
