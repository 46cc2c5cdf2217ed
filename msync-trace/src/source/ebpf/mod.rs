//! Facts from this kernel, through eBPF programs.
//!
//! `hooks` is the table of what is attached and how, `layout` finds the kernel's offsets in its
//! BTF, `instance` loads and attaches, `decode` turns ring records into facts, `order` puts them into
//! the order of their times; here they are handed on.

pub mod btf;
mod canary;
mod decode;
mod fill;
pub mod hooks;
mod instance;
mod kept;
mod kernel;
pub mod layout;
mod object;
mod order;
pub mod pins;
mod resumed;
mod shared;
mod skipped;
mod unconverted;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    time::{Duration, Instant},
};

use aya::{EbpfError, programs::ProgramError};
use log::{debug, warn};
use msync_trace_ebpf as abi;
use thiserror::Error;
use tokio::io::unix::AsyncFd;
use zerocopy::FromZeros;

use self::{
    decode::{Record, decode, kernel_key},
    fill::Fill,
    hooks::{HOOKS, Way},
    instance::{Instance, Pod, Rings},
    order::{Order, REORDER},
    resumed::Pinned,
    skipped::Skipped,
};
use crate::{
    model::{Errno, Fact, FactKind, InodeKey, LossCause, Release},
    schema::StopReason,
    source::{FactSource, Health, HookState, HookStatus, Method, Progress, RingHealth, Tier},
};

/// What is wanted of the tracer.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only this tier; otherwise the best that the kernel allows.
    pub tier: Option<Tier>,
    /// `msync` without `MS_SYNC` is followed as well.
    pub include_async: bool,
    /// Size of each ring, bytes, a power of two; otherwise as built.
    pub ring_bytes: Option<u32>,
    /// Hooks and maps outlive this process, and those of an earlier one are taken over.
    pub pin: bool,
}

/// Why the kernel cannot be traced: a sentence with the remedy.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The kernel has no BTF.
    #[error(
        "the kernel has no BTF (/sys/kernel/btf/vmlinux): use a kernel built with \
         CONFIG_DEBUG_INFO_BTF=y"
    )]
    NoBtf,
    /// bpf() is not allowed.
    #[error(
        "bpf() is refused ({0}): run as root, or with CAP_BPF, CAP_PERFMON and CAP_SYS_RESOURCE \
         (sudo msync-trace); in a container these must be granted"
    )]
    NotAllowed(io::Error),
    /// The kernel has no bpf().
    #[error("this kernel has no bpf() system call: use a kernel built with CONFIG_BPF_SYSCALL=y")]
    NoBpf,
    /// The object is of another version.
    #[error("the embedded eBPF object has another ABI than this program: build it again")]
    AbiMismatch,
    /// A field that everything depends on.
    #[error("this kernel is not known: {reason} (needed for {field}); please report its version")]
    Layout {
        /// Field of the layout.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A forced tier cannot be had.
    #[error(
        "tier {} cannot be had here ({reason}): leave out --tier, or use --tier {}",
        wanted.name(),
        possible.name()
    )]
    Tier {
        /// What was asked for.
        wanted: Tier,
        /// What can be had.
        possible: Tier,
        /// Why.
        reason: String,
    },
    /// Nothing could be attached.
    #[error("no hook could be attached; msync-trace check says more.\n{0}")]
    Refused(String),
    /// A map could not be made or used.
    #[error("an eBPF map cannot be used: {0}")]
    Map(String),
    /// The object could not be loaded.
    #[error("the eBPF object cannot be loaded: {0}")]
    Load(String),
    /// Hooks and maps cannot be pinned.
    #[error("hooks cannot be pinned: {0}")]
    Pins(String),
}

impl AttachError {
    fn from_load(error: EbpfError) -> Self {
        let mut text = error.to_string();
        for cause in causes(&error) {
            text.push_str(": ");
            text.push_str(&cause.to_string());
        }
        match io_cause(&error) {
            Some(error) => Self::from_io(error, text),
            None => Self::Load(text),
        }
    }

    fn from_program(error: &ProgramError, way: &Way) -> Self {
        match error {
            ProgramError::LoadError { io_error, .. } => {
                Self::from_io(io_error, format!("{}: {io_error}", way.program))
            }
            other => Self::Refused(format!("{} {}: {other}", way.method.name(), way.target)),
        }
    }

    fn from_io(error: &io::Error, text: String) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NotAllowed(copy_of(error)),
            Some(libc::ENOSYS) => Self::NoBpf,
            Some(libc::ENOMEM) => Self::Load(format!(
                "{text}: raise the memory limit of its service (MemoryMax=) or cgroup"
            )),
            _ => Self::Load(text),
        }
    }
}

/// What an error came from, nearest first.
fn causes(error: &EbpfError) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(error), |cause| cause.source())
}

/// The refusal of the kernel behind an error.
fn io_cause(error: &EbpfError) -> Option<&io::Error> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

fn copy_of(error: &io::Error) -> io::Error {
    let code = error.raw_os_error();
    code.map_or_else(
        || io::Error::other(error.to_string()),
        io::Error::from_raw_os_error,
    )
}

/// Why tracing cannot go on.
#[derive(Debug, Error)]
pub enum TracerError {
    /// The rings cannot be waited for.
    #[error("cannot wait for the kernel's rings: {0}")]
    Wait(#[from] io::Error),
}

/// How often inodes with nothing outstanding are looked at while there are any.
const HOUSEKEEPING: Duration = Duration::from_millis(500);

/// From so many records at once on the rings are polled.
const MANY: u64 = 16;

/// So many empty looks in a row end that.
const MOST_EMPTY: u32 = 50;

/// An inode is forgotten when nothing happened to it for so long.
const QUIET_NS: u64 = 2_000_000_000;

/// So many inodes are forgotten when the kernel's map of them is full, and so many more fit into one
/// that is not: a sixteenth.
const ROOM: usize = INODES / 16;

/// Size of the kernel's map of inodes (`FAILED`).
const INODES: usize = 65_536;

/// Kernel modules whose arrival changes what can be hooked.
const WATCHED_MODULES: &[&str] = &["ext4", "xfs", "btrfs", "f2fs", "nfs", "fuse", "netfs"];

/// Facts from this kernel.
pub struct Tracer {
    options: Options,
    instance: Instance,
    rings: AsyncRings,
    order: Order,
    /// Losses that have been told.
    told: abi::Counters,
    /// How often the kernel's map of inodes had been full when room was made in it last.
    full_before_room: u64,
    /// Skipped programs that have been told, or are of no account.
    told_skipped: Skipped,
    /// Inodes with nothing outstanding.
    settled: BTreeSet<InodeKey>,
    /// Inodes that failed in the facts handed on last: the verdict that one of them is settled may
    /// be older than its failure.
    failed_again: BTreeSet<InodeKey>,
    /// When the kernel's entry of an inode was looked at last, `CLOCK_MONOTONIC` ns.
    looked_at: HashMap<abi::InodeKey, u64>,
    /// Inodes that were forgotten the last time.
    forgotten: BTreeMap<InodeKey, abi::InodeKey>,
    /// Failures are being followed.
    following: bool,
    /// So many records came that the rings are looked at every [`REORDER`]; how often there were
    /// none since.
    polled: Option<u32>,
    kept_house: Instant,
    reload: bool,
    /// What outlives this process.
    pinned: Option<Pinned>,
    /// Facts of an earlier process that are to be handed on first.
    first: Vec<Fact>,
    drains: u64,
    /// Inodes that the kernel side followed when house was kept last.
    tracked: usize,
    /// Of instances that were replaced.
    before: Totals,
}

/// Counts of the kernel side, as [`Health`] shows them.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    /// Records through the rings of failures, syncs, pages.
    sent: [u64; 3],
    dropped: [u64; 3],
    inode_map_full: u64,
    call_map_full: u64,
    skipped: Skipped,
}

/// The rings, to be waited for.
struct AsyncRings {
    errors: AsyncRing,
    syncs: AsyncRing,
    pages: AsyncRing,
    /// When the drain began that is not over yet, `CLOCK_MONOTONIC` ns: a ring still holds a record
    /// that had a place in it then.
    draining_since: Option<u64>,
}

struct AsyncRing {
    ring: AsyncFd<aya::maps::RingBuf<aya::maps::MapData>>,
    fill: Fill,
    /// Up to where places had been taken in it when the drain began.
    wanted: usize,
    /// Records that were read from it.
    records: u64,
}

impl AsyncRing {
    fn new(ring: aya::maps::RingBuf<aya::maps::MapData>) -> io::Result<Self> {
        let fill = Fill::of(&ring)?;
        // SAFETY: the ring owns its map's descriptor and is never replaced within the AsyncFd:
        // the descriptor stays open and the same as long as it is registered.
        let ring = unsafe { AsyncFd::register(ring) }.map_err(io::Error::from)?;
        Ok(Self {
            ring,
            fill,
            wanted: 0,
            records: 0,
        })
    }

    /// Whether a record is still being filled that had its place when the drain began.
    fn is_held_up(&self) -> bool {
        self.fill.read() < self.wanted
    }
}

impl AsyncRings {
    fn new(rings: Rings) -> io::Result<Self> {
        Ok(Self {
            errors: AsyncRing::new(rings.errors)?,
            syncs: AsyncRing::new(rings.syncs)?,
            pages: AsyncRing::new(rings.pages)?,
            draining_since: None,
        })
    }

    async fn readable(&self) -> io::Result<()> {
        let mut guard = tokio::select! {
            guard = self.errors.ring.readable() => guard,
            guard = self.syncs.ring.readable() => guard,
            guard = self.pages.ring.readable() => guard,
        }?;
        guard.clear_ready();
        Ok(())
    }

    /// Takes records that are complete: all, or while `order` is crowded only what lets time pass,
    /// so that the other rings fill up and say what they drop. Gives the time of which everything
    /// that had a place in a ring has been taken, if there is a new one.
    fn drain(&mut self, order: &mut Order, mut each: impl FnMut(&mut Order, &[u8])) -> Option<u64> {
        let rings = [&mut self.errors, &mut self.syncs, &mut self.pages];
        let is_new = self.draining_since.is_none();
        let since = *self.draining_since.get_or_insert_with(now);
        let mut all = true;
        for ring in rings {
            if is_new {
                ring.wanted = ring.fill.taken();
            }
            while (ring.is_held_up() || !order.is_crowded())
                && let Some(item) = ring.ring.get_mut().next()
            {
                each(order, &item);
                drop(item);
                ring.records += 1;
            }
            all &= !ring.is_held_up();
        }
        all.then(|| {
            self.draining_since = None;
            since
        })
    }
}

fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// What the kernel side could not deliver between two looks at its counters.
fn losses(
    seen: &abi::Counters,
    told: &abi::Counters,
) -> impl Iterator<Item = (LossCause, u64)> + use<> {
    let causes = [
        (
            LossCause::ErrorRingFull,
            seen.ring_full[0],
            told.ring_full[0],
        ),
        (
            LossCause::SyncRingFull,
            seen.ring_full[1],
            told.ring_full[1],
        ),
        (
            LossCause::PageRingFull,
            seen.ring_full[2],
            told.ring_full[2],
        ),
        (
            LossCause::InodeMapFull,
            seen.inode_map_full,
            told.inode_map_full,
        ),
        (
            LossCause::CallMapFull,
            seen.call_map_full,
            told.call_map_full,
        ),
        (
            LossCause::MappingsBusy,
            seen.mappings_busy,
            told.mappings_busy,
        ),
        (LossCause::WalkLimit, seen.walk_limit, told.walk_limit),
    ];
    let more = causes.map(|(cause, seen, told)| (cause, seen.saturating_sub(told)));
    more.into_iter().filter(|(_, count)| *count > 0)
}

impl Tracer {
    /// Loads the programs and attaches the hooks. Must run within a tokio runtime.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach(options: Options) -> Result<Self, AttachError> {
        raise_memlock();
        match options.pin {
            true => Self::attach_pinned(options),
            false => {
                let (instance, rings) = Instance::load(&options, None)?;
                Self::new(options, instance, rings)
            }
        }
    }

    fn new(options: Options, instance: Instance, rings: Rings) -> Result<Self, AttachError> {
        let rings = AsyncRings::new(rings).map_err(|error| AttachError::Map(error.to_string()))?;
        give_back_memory();
        Ok(Self {
            options,
            instance,
            rings,
            order: Order::default(),
            told: abi::Counters::new_zeroed(),
            full_before_room: 0,
            told_skipped: Skipped::default(),
            settled: BTreeSet::new(),
            failed_again: BTreeSet::new(),
            looked_at: HashMap::new(),
            forgotten: BTreeMap::new(),
            following: false,
            polled: None,
            kept_house: Instant::now(),
            reload: false,
            drains: 0,
            tracked: 0,
            before: Totals::default(),
            pinned: None,
            first: Vec::new(),
        })
    }

    /// Since the tracer began.
    fn totals(&self) -> Totals {
        let counters = self.instance.counters();
        let skipped = self.instance.skipped();
        let rings = [&self.rings.errors, &self.rings.syncs, &self.rings.pages];
        let before = &self.before;
        Totals {
            sent: std::array::from_fn(|ring| before.sent[ring] + rings[ring].records),
            dropped: std::array::from_fn(|ring| before.dropped[ring] + counters.ring_full[ring]),
            inode_map_full: before.inode_map_full + counters.inode_map_full,
            call_map_full: before.call_map_full + counters.call_map_full,
            skipped: Skipped {
                failures: before.skipped.failures + skipped.failures,
                more: before.skipped.more + skipped.more,
            },
        }
    }

    /// Empties the rings into the order of times.
    fn drain(&mut self) {
        self.drains += 1;
        self.instance.flush_log();
        let Self {
            instance,
            rings,
            order,
            following,
            reload,
            ..
        } = self;
        let mut bad = 0;
        let drained = rings.drain(order, |order, bytes| match decode(bytes) {
            Some(Record::Module(at, name)) => {
                *reload |= at.0 >= instance.began && WATCHED_MODULES.contains(&name.as_str());
            }
            Some(record) => {
                *following |= record.is_of_a_file();
                order.push(record);
            }
            None => bad += 1,
        });
        match drained {
            Some(at) => order.drained(at),
            None => debug!("a record is still being filled: those behind it are waited for"),
        }
        if bad > 0 {
            order.lose(LossCause::BadRecord, bad, now());
        }
    }

    /// Tells of what the kernel side could not deliver since the last time.
    fn count_losses(&mut self) {
        let counters = self.instance.counters();
        let lost = losses(&counters, &self.told);
        if counters.inode_map_full > self.full_before_room {
            self.make_room(ROOM);
            // What found it full until now needs no more room than this.
            self.full_before_room = self.instance.counters().inode_map_full;
        }
        for (cause, count) in lost {
            self.order.lose(cause, count, now());
        }
        self.told = counters;
    }

    /// Tells of programs that the kernel skipped since the last time.
    fn count_skipped(&mut self) {
        let skipped = self.instance.skipped();
        let mut count = skipped.failures.saturating_sub(self.told_skipped.failures);
        if self.following {
            count += skipped.more.saturating_sub(self.told_skipped.more);
        }
        if count > 0 {
            self.order.lose(LossCause::ProgramSkipped, count, now());
        }
        self.told_skipped = skipped;
    }

    /// Facts whose turn has come, as `release` says.
    fn hand_on(&mut self, into: &mut Vec<Fact>, release: impl FnOnce(&mut Order, &mut Vec<Fact>)) {
        let before = into.len();
        release(&mut self.order, into);
        for fact in &into[before..] {
            match &fact.kind {
                FactKind::WriteFailed(failure) => {
                    self.settled.remove(&failure.inode);
                    self.failed_again.insert(failure.inode);
                    if let Some(key) = self.forgotten.remove(&failure.inode) {
                        self.follow_again(key, fact.at.0, failure.errno);
                    }
                }
                // Nobody else remembers that it failed.
                FactKind::Gone(gone)
                    if gone.deleted && self.order.was_given_up(&kernel_key(&gone.inode)) =>
                {
                    self.settled.insert(gone.inode);
                }
                _ => {}
            }
        }
    }

    /// The kernel's map of inodes is full, or nearly: so many of those whose failures were given up go,
    /// the oldest first.
    fn make_room(&mut self, inodes: usize) {
        for key in self.order.oldest_given_up(inodes) {
            self.stop_following(&key);
        }
    }

    /// The kernel side need not follow an inode any more.
    fn stop_following(&mut self, key: &abi::InodeKey) {
        let _ = self.instance.failed.remove(&Pod(*key));
        self.looked_at.remove(key);
        self.order.forget(key);
        self.settled.remove(&decode::inode_key(key));
    }

    /// An inode failed in the moment in which it was being forgotten: the kernel side counted that
    /// in an entry that is no longer there.
    fn follow_again(&mut self, key: abi::InodeKey, at: u64, errno: Errno) {
        let failed = &mut self.instance.failed;
        if failed.get(&Pod(key), 0).is_ok() {
            return;
        }
        let state = abi::InodeState {
            failures: self.order.failures_of(&key),
            first_at: at,
            last_at: at,
            lowest: 0,
            highest: u64::MAX,
            page_exact_at: at,
            named_at: 0,
            errno: errno.number().into(),
            recorded: 0,
        };
        if failed.insert(Pod(key), Pod(state), 0).is_err() {
            self.order.lose(LossCause::InodeMapFull, 1, now());
        }
        self.instance.set_tracked(true);
        self.following = true;
    }

    /// Forgets inodes with nothing outstanding; at the end of them, the hooks on hot paths.
    fn keep_house(&mut self) {
        self.count_skipped();
        let at = now();
        let horizon = at.saturating_sub(QUIET_NS);
        let failed = &mut self.instance.failed;
        let mut forget = Vec::new();
        let mut left = 0usize;
        for key in failed.keys() {
            let Ok(Pod(key)) = key else {
                break;
            };
            left += 1;
            let settled = self.settled.contains(&decode::inode_key(&key));
            if (self.order.failures_of(&key) > 0 && !settled)
                || self.looked_at.get(&key).is_some_and(|at| *at > horizon)
            {
                continue;
            }
            // Rarely: while a value is copied, no kprobe runs on that processor.
            self.looked_at.insert(key, at);
            let Ok(Pod(state)) = failed.get(&Pod(key), 0) else {
                continue;
            };
            let quiet = state.last_at < horizon && state.page_exact_at < horizon;
            let nothing =
                state.failures == 0 || (settled && self.order.failures_of(&key) >= state.failures);
            if quiet && nothing {
                forget.push(key);
                left -= 1;
            }
        }
        self.tracked = left;
        // Those of the last time have had time to fail once more.
        self.forgotten.clear();
        for key in forget {
            self.stop_following(&key);
            self.forgotten.insert(decode::inode_key(&key), key);
        }
        self.make_room(left.saturating_sub(INODES - ROOM));
        if left > 0 {
            return;
        }
        // Nothing is followed: back to one comparison per sync call, unless a failure arrives in
        // this moment.
        self.instance.set_tracked(false);
        if self.instance.failed.keys().next().is_some() {
            self.instance.set_tracked(true);
            return;
        }
        self.instance.detach_on_demand();
        self.following = false;
        debug!("nothing is outstanding: the hooks on hot paths are detached");
    }

    /// A filesystem module was loaded: a second copy of the object, made for it, takes over.
    fn hand_over(&mut self, into: &mut Vec<Fact>) {
        self.reload = false;
        let generation = match self.next_generation() {
            Ok(generation) => generation,
            Err(error) => {
                warn!("a filesystem module was loaded and cannot be hooked: {error}");
                self.order.lose(LossCause::HookMissing, 1, now());
                return;
            }
        };
        let folder = generation.as_ref().map(|one| one.folder.as_path());
        let (mut instance, rings) = match Instance::load(&self.options, folder) {
            Ok(loaded) => loaded,
            Err(error) => {
                warn!("a filesystem module was loaded and cannot be hooked: {error}");
                self.order.lose(LossCause::HookMissing, 1, now());
                return;
            }
        };
        let rings = match AsyncRings::new(rings) {
            Ok(rings) => rings,
            Err(error) => {
                warn!("a filesystem module was loaded and cannot be hooked: {error}");
                self.order.lose(LossCause::HookMissing, 1, now());
                return;
            }
        };
        let (followed, refused) = instance.take_over_failed(&self.instance.failed);
        if refused > 0 {
            self.order.lose(LossCause::InodeMapFull, refused, now());
        }
        if !followed.is_empty() {
            instance.set_tracked(true);
            instance.attach_on_demand();
        }
        let at = now();
        self.count_skipped();
        // Until the programs that were running at that time have sent what they saw.
        std::thread::sleep(REORDER);
        self.drain();
        self.instance.detach_all();
        self.drain();
        self.count_losses();
        self.hand_on(into, |order, into| order.hand_over(at, &followed, into));
        self.before = self.totals();
        self.instance = instance;
        self.rings = rings;
        self.polled = None;
        self.told = abi::Counters::new_zeroed();
        self.full_before_room = 0;
        self.told_skipped = Skipped::default();
        self.move_to(generation, into);
        give_back_memory();
    }

    /// Begins or ends to poll, by how many records came just now.
    fn pace(&mut self, records: u64) {
        let polled = match (self.polled, records) {
            (None, MANY..) => Some(0),
            (Some(empty), 0) if empty >= MOST_EMPTY => None,
            (Some(empty), 0) => Some(empty + 1),
            (Some(_), _) => Some(0),
            (None, _) => None,
        };
        if polled.is_some() != self.polled.is_some() {
            self.instance.set_polled(polled.is_some());
            if polled.is_none() {
                // What was sent before the programs knew.
                self.drain();
            }
        }
        self.polled = polled;
    }

    fn follow(&mut self) {
        if self.following && self.instance.attach_on_demand() {
            self.told_skipped.more = self.instance.skipped().more;
            debug!("a failure appeared: the hooks on hot paths are attached");
        }
    }
}

impl FactSource for Tracer {
    type Error = TracerError;

    fn hooks(&self) -> &[HookStatus] {
        &self.instance.hooks
    }

    fn tier(&self) -> &'static str {
        self.instance.tier.name()
    }

    async fn next_facts(&mut self, into: &mut Vec<Fact>) -> Result<Progress, TracerError> {
        let before = into.len();
        if !self.first.is_empty() {
            into.append(&mut self.first);
            self.handed_on();
            return Ok(Progress::More);
        }
        self.failed_again.clear();
        loop {
            let seen = self.order.taken();
            self.drain();
            if self.keep_drained(self.order.taken() > seen) {
                return Ok(Progress::More);
            }
            self.pace(self.order.taken() - seen);
            self.follow();
            if self.reload {
                self.hand_over(into);
                return Ok(Progress::More);
            }
            if self.following {
                self.count_losses();
            }
            self.hand_on(into, Order::release);
            if into.len() > before {
                self.handed_on();
                return Ok(Progress::More);
            }
            if self.order.is_empty() && !self.following && self.polled.is_none() {
                self.rings.readable().await?;
                continue;
            }
            let pause = if self.order.is_empty() && self.polled.is_none() {
                HOUSEKEEPING
            } else {
                REORDER
            };
            tokio::select! {
                ready = self.rings.readable() => ready?,
                () = tokio::time::sleep(pause) => {
                    if self.order.is_empty() && self.kept_house.elapsed() >= HOUSEKEEPING {
                        self.kept_house = Instant::now();
                        self.keep_house();
                    }
                }
            }
        }
    }

    fn resume(&mut self) -> Option<Vec<u8>> {
        self.pinned.as_mut()?.resumed.take()
    }

    fn taken(&mut self, state: &mut dyn FnMut() -> Vec<u8>) {
        self.keep_taken(state);
    }

    async fn finish(&mut self, _why: StopReason, into: &mut Vec<Fact>) -> Vec<String> {
        self.count_losses();
        self.count_skipped();
        if self.pinned.is_some() {
            into.append(&mut self.first);
            tokio::time::sleep(REORDER).await;
            self.drain();
            self.hand_on(into, Order::release);
            self.keep_at_last();
            return Vec::new();
        }
        self.drain();
        self.instance.detach_all();
        self.drain();
        self.count_losses();
        self.hand_on(into, Order::release_all);
        Vec::new()
    }

    fn health(&mut self) -> Health {
        self.count_losses();
        self.count_skipped();
        let totals = self.totals();
        let names = ["failures", "syncs", "pages"];
        let ring = |at: usize| RingHealth {
            name: names[at],
            sent: totals.sent[at],
            dropped: totals.dropped[at],
        };
        Health {
            drains: self.drains,
            rings: (0..names.len()).map(ring).collect(),
            maps_full: vec![
                ("inodes", totals.inode_map_full),
                ("calls", totals.call_map_full),
            ],
            skipped_failures: totals.skipped.failures,
            skipped_more: totals.skipped.more,
            tracked_inodes: self.tracked as u64,
            tracked_inodes_limit: INODES as u64,
        }
    }

    async fn self_check(&mut self, into: &mut Vec<Fact>) -> Result<(), String> {
        self.see_a_canary(into).await
    }

    fn released(&mut self, inode: &InodeKey, why: Release) {
        let key = kernel_key(inode);
        let failed_again = self.failed_again.contains(inode);
        match why {
            Release::Settled if failed_again => {}
            Release::Settled => {
                self.settled.insert(*inode);
            }
            Release::Reported if !failed_again => {
                self.stop_following(&key);
                self.forgotten.insert(*inode, key);
            }
            Release::Reported | Release::Unreported => {
                self.order.give_up(key);
            }
        }
    }
}

/// The kernel's BTF was 20 MiB of heap while the hooks were attached; glibc keeps it otherwise.
fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no arguments that could be wrong.
    unsafe {
        libc::malloc_trim(0);
    }
    object::give_back();
}

/// Kernels before 5.11 charge maps to RLIMIT_MEMLOCK.
fn raise_memlock() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
        debug!("RLIMIT_MEMLOCK stays as it is: {error}");
    }
}

/// What can be attached on this machine: loads, attaches and detaches everything. Must run within
/// a tokio runtime.
///
/// # Errors
/// [`AttachError`].
pub fn probe_hooks(tier: Option<Tier>) -> Result<(Tier, Vec<HookStatus>), AttachError> {
    raise_memlock();
    let options = Options {
        tier,
        ..Options::default()
    };
    let (mut instance, _rings) = Instance::load(&options, None)?;
    instance.attach_on_demand();
    instance.detach_on_demand();
    let hooks = std::mem::take(&mut instance.hooks);
    Ok((instance.tier, hooks))
}

/// How each hook could be attached, as far as the kernel's BTF and symbols tell: nothing is loaded,
/// no privilege is needed. What the kernel then allows, only [`probe_hooks`] finds out.
#[must_use]
pub fn possible_hooks() -> Vec<HookStatus> {
    let types = kernel::types();
    let Some(vmlinux) = types.vmlinux.as_deref() else {
        return Vec::new();
    };
    let wanted = HOOKS
        .iter()
        .flat_map(|hook| hook.ways)
        .map(|way| way.target)
        .collect();
    let functions = kernel::functions(&wanted);
    let possible = |way: &Way| match way.method {
        Method::Fentry | Method::Fexit => vmlinux.has_func(way.target),
        Method::Kprobe => kernel::has_kprobes() && functions.contains(way.target),
        Method::Tracepoint => types.version >= hooks::PREEMPTED,
        Method::RawTracepoint => {
            vmlinux.has_tracepoint(way.target)
                || types
                    .modules
                    .get(way.module)
                    .is_some_and(|btf| btf.has_tracepoint(way.target))
                || types.version < (5, 11) && kernel::has_module(way.module)
        }
    };
    HOOKS
        .iter()
        .map(|hook| {
            let first = hook.ways.first().map_or("", |way| way.target);
            let waits = hook
                .ways
                .iter()
                .map(|way| way.module)
                .find(|module| !module.is_empty() && !kernel::has_module(module));
            let (target, state) = match (hook.ways.iter().find(|way| possible(way)), waits) {
                (Some(way), _) => (way.target, HookState::Possible(way.method)),
                (None, Some(module)) => (first, HookState::WaitsForModule(module.to_owned())),
                (None, None) if functions.contains(first) && !kernel::has_kprobes() => (
                    first,
                    HookState::NotNeeded(format!(
                        "without kprobes, {}",
                        instance::tier_3_substitute(hook.name)
                    )),
                ),
                (None, None) => (
                    first,
                    HookState::NotNeeded("this kernel does not have it".to_owned()),
                ),
            };
            HookStatus {
                name: hook.name,
                purpose: hook.purpose,
                target: target.to_owned(),
                state,
            }
        })
        .collect()
}
