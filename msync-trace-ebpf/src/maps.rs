//! Maps and read-only globals: all that the programs share with user space.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::bpf_get_smp_processor_id,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use msync_trace_ebpf::{
    Config, Control, Counters, InodeKey, InodeState, Layout, PATH_BYTES, PathHeader,
};

use crate::emit::Scratch;

/// Inodes with failures. User space deletes an entry once nothing is outstanding.
#[map]
pub static FAILED: HashMap<InodeKey, InodeState> = HashMap::with_max_entries(65_536, 0);

/// Sync calls in flight: thread (`pid_tgid`) to call id in tier 1, to the range asked for in tier 2.
/// Calls that never come back (the thread was killed) make room for newer ones.
#[map]
pub static CALLS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(8_192, 0);

/// ext4: the thread is writing pages of an inode, and what it
/// discarded, or was about to write.
#[map]
pub static EXT4_DISCARDS: LruHashMap<u64, Ext4Discard> = LruHashMap::with_max_entries(4_096, 0);

/// When an error of a disk or filesystem was told last, `CLOCK_MONOTONIC` ns, by its `STORAGE_`
/// constant (upper half) and device number.
#[map]
pub static STORAGE_ERRORS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(256, 0);

/// Errors that were recorded on a file and whose bytes no hook knew, by thread (`pid_tgid`): it may
/// yet say what kind of failure that was.
#[map]
pub static RECORDED: LruHashMap<u64, Recorded> = LruHashMap::with_max_entries(256, 0);

/// Whose a bio is: address of its `bi_end_io` to one of the ABI's `OWNER_` numbers. What is not in
/// it is no write of the page cache: `O_DIRECT`, a clone of a stacked device, metadata ...
#[map]
pub static END_IO: HashMap<u64, u32> = HashMap::with_max_entries(32, 0);

/// Failures, successes, discards, who was told.
#[map]
pub static ERRORS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Sync calls.
#[map]
pub static SYNCS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// States of pages: dirty again, evicted.
#[map]
pub static PAGES: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// See [`Control`].
#[map]
pub static CONTROL: Array<Control> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// See [`Counters`]. User space makes room for each CPU.
#[map]
pub static COUNTERS: Array<Counters> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Room for a path while it is put together, for each [`Scratch`]; too large for the
/// stack.
#[map]
pub static PATHS: PerCpuArray<PathScratch> = PerCpuArray::with_max_entries(Scratch::COUNT, 0);

/// A path record under construction. The slack takes the last name whole.
#[repr(C)]
pub struct PathScratch {
    /// Where the walk is.
    pub dentry: u64,
    pub mount: u64,
    pub root: u64,
    pub used: u64,
    /// 1: in use. Only for [`Scratch::Name`].
    pub busy: u64,
    /// The record.
    pub header: PathHeader,
    pub names: [u8; PATH_BYTES + 256],
}

/// See [`EXT4_DISCARDS`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Ext4Discard {
    pub inode: u64,
    pub start: u64,
    pub end: u64,
    pub at: u64,
    /// 1: the pages are gone; 0: they were about to be written.
    pub given_up: u64,
}

/// See [`RECORDED`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Recorded {
    pub inode: u64,
    /// `CLOCK_MONOTONIC`, ns.
    pub at: u64,
}

/// Offsets of the running kernel; user space fills it before loading.
#[unsafe(no_mangle)]
pub static LAYOUT: Layout = zerocopy::transmute!([0u8; size_of::<Layout>()]);

/// Choices of user space, filled before loading.
#[unsafe(no_mangle)]
pub static CONFIG: Config = zerocopy::transmute!([0u8; size_of::<Config>()]);

/// A field of [`LAYOUT`]. Volatile: the compiler must not believe the zeros above.
macro_rules! layout {
    ($field:ident) => {
        // SAFETY: LAYOUT is a plain static; reading it is always sound.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::LAYOUT.$field) }
    };
}
pub(crate) use layout;

/// A field of [`CONFIG`].
macro_rules! config {
    ($($field:tt)+) => {
        // SAFETY: CONFIG is a plain static; reading it is always sound.
        unsafe { core::ptr::read_volatile(&raw const $crate::maps::CONFIG.$($field)+) }
    };
}
pub(crate) use config;

/// The control entry; an array's entry always exists.
#[inline(always)]
pub fn control() -> Option<&'static Control> {
    CONTROL.get(0)
}

/// Whether any inode has failures: the one comparison on a healthy machine.
#[inline(always)]
pub fn any_tracked() -> bool {
    control().is_some_and(|control| control.tracked != 0)
}

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(field: impl FnOnce(&mut Counters) -> &mut u64) {
    // SAFETY: no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if let Some(counters) = COUNTERS.get_ptr_mut(cpu) {
        // SAFETY: the entry is this CPU's own; an interrupted increment can lose one count of the
        // same field at worst.
        let counter = field(unsafe { &mut *counters });
        *counter += 1;
    }
}
