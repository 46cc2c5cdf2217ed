//! Filling the rings. A record that finds its ring full is counted.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    helpers::generated,
    maps::RingBuf,
};
use msync_trace_ebpf::{
    ABSENT, FAILED_EVICTION_WATCHED, FileEvent, Header, InodeKey, KIND_MODULE, KIND_NAME,
    KIND_PATH, KIND_STORAGE_ERROR, KIND_SYNC_END, KIND_SYNC_FILE, KIND_WRITE_FAILED, ModuleLoaded,
    PATH_BYTES, PathHeader, RING_ERRORS, RING_PAGES, RING_SYNCS, Range, SYNC_ANEW, SYNC_PENDING,
    StorageError, SyncEnd, SyncFile, TaskInfo, WriteFailed,
};

use crate::{
    inode::{
        describe, describe_super, host_of, may_touch, note_named, remember_failure, state_of,
        tracked,
    },
    kread::{Addr, current, now, pid_tgid, read, read_bytes, read_ptr},
    maps::{
        ERRORS, PAGES, PATHS, PathScratch, STORAGE_ERRORS, SYNCS, config, control, count, layout,
    },
};

/// Zeroes `words` words, without a call of `memset`, which would cost 32 bytes of stack.
///
/// # Safety
/// `at` points at so many words.
#[inline(always)]
unsafe fn zero(at: *mut u64, words: usize) {
    for i in 0..words {
        // SAFETY: within what the caller promises.
        unsafe { core::ptr::write_volatile(at.add(i), 0) };
    }
}

/// Sends one record of type `$record` that the block fills in place. A macro, because a closure
/// that the compiler does not inline costs stack, of which all nested calls together have 512
/// bytes.
macro_rules! send {
    ($ring:expr, $index:expr, |$name:ident: &mut $record:ty| $fill:block) => {
        match $ring.reserve::<$record>(0) {
            Some(mut entry) => {
                // SAFETY: the memory is zeroed before anything is read, and all bit patterns of
                // the ABI's types are valid.
                let $name: &mut $record = unsafe {
                    zero(entry.as_mut_ptr().cast(), size_of::<$record>() / 8);
                    &mut *entry.as_mut_ptr()
                };
                $fill
                entry.submit(announcement(&$ring));
                count(|counters| &mut counters.sent[$index]);
            }
            None => count(|counters| &mut counters.ring_full[$index]),
        }
    };
}

/// Whether user space is to be woken for a record: the flags of `bpf_ringbuf_submit`. While it polls
/// it is not, so that many syncs in a row do not each cost a switch to it and back; unless half of
/// the ring is used.
#[inline(always)]
fn announcement(ring: &RingBuf) -> u64 {
    if control().is_none_or(|control| control.polled == 0) {
        return 0;
    }
    let used = ring.query(u64::from(BPF_RB_AVAIL_DATA));
    if used > ring.query(u64::from(BPF_RB_RING_SIZE)) / 2 {
        u64::from(BPF_RB_FORCE_WAKEUP)
    } else {
        u64::from(BPF_RB_NO_WAKEUP)
    }
}

#[inline(always)]
fn header(kind: u32, hook: u32, at: u64) -> Header {
    Header { kind, hook, at }
}

/// The running thread. A function of its own: its stack ends with it.
#[inline(never)]
pub fn fill_task(into: &mut TaskInfo) {
    let ids = pid_tgid();
    let task = current();
    into.pid = (ids >> 32) as u32;
    into.tid = ids as u32;
    into.uid = aya_ebpf::helpers::bpf_get_current_uid_gid() as u32;
    into.flags = read(task, layout!(task_flags)).unwrap_or(0);
    into.start_time = read_ptr(task, layout!(task_leader))
        .and_then(|leader| read(leader, layout!(task_start_time)))
        .unwrap_or(0);
    // SAFETY: no arguments; comm is 16 bytes long.
    unsafe {
        into.cgroup = generated::bpf_get_current_cgroup_id();
        generated::bpf_get_current_comm(into.comm.as_mut_ptr().cast(), 16);
    }
}

/// A write failure as a hook saw it.
#[derive(Clone, Copy)]
pub struct Failure {
    pub inode: Addr,
    pub start: u64,
    /// 0: range unknown.
    pub end: u64,
    pub errno: u32,
    pub submitted: u64,
    pub flags: u32,
    pub at: u64,
}

/// Remembers and reports a write failure. One that finds no room is counted, and not reported:
/// nothing would be seen of the syncs of its inode.
#[inline(always)]
pub fn write_failed(hook: u32, key: &InodeKey, failure: &Failure) {
    let Some(names_due) =
        remember_failure(key, failure.start, failure.end, failure.errno, failure.at)
    else {
        return;
    };
    if names_due && tell_names(failure.inode, key) {
        note_named(key);
    }
    let watched = control().is_some_and(|control| control.page_hooks != 0);
    send!(&ERRORS, RING_ERRORS, |record: &mut WriteFailed| {
        record.header = header(KIND_WRITE_FAILED, hook, failure.at);
        record.inode = *key;
        record.start = failure.start;
        record.end = failure.end;
        record.submitted = failure.submitted;
        record.errno = failure.errno;
        record.flags = failure.flags | if watched { FAILED_EVICTION_WATCHED } else { 0 };
        fill_task(&mut record.task);
        describe(failure.inode, &mut record.fs);
    });
}

#[inline(always)]
fn range(
    ring: &RingBuf,
    index: usize,
    kind: u32,
    hook: u32,
    key: &InodeKey,
    start: u64,
    end: u64,
    nlink: u64,
) {
    send!(ring, index, |record: &mut Range| {
        record.header = header(kind, hook, now());
        record.inode = *key;
        record.start = start;
        record.end = end;
        record.nlink = nlink;
    });
}

/// Reports a range on the ring of errors, if failures of the inode may lie in it.
#[inline(always)]
pub fn range_event(kind: u32, hook: u32, key: &InodeKey, start: u64, end: u64) {
    if let Some(state) = state_of(key)
        && may_touch(state, start, end)
    {
        range(&ERRORS, RING_ERRORS, kind, hook, key, start, end, 0);
    }
}

/// The same on the ring of page states.
#[inline(always)]
pub fn page_event(kind: u32, hook: u32, key: &InodeKey, start: u64, end: u64) {
    if let Some(state) = state_of(key)
        && may_touch(state, start, end)
    {
        range(&PAGES, RING_PAGES, kind, hook, key, start, end, 0);
    }
}

/// The inode left the cache.
#[inline(always)]
pub fn gone(kind: u32, hook: u32, key: &InodeKey, nlink: u64) {
    range(&ERRORS, RING_ERRORS, kind, hook, key, 0, u64::MAX, nlink);
}

/// An open file description was told an error, or was opened.
#[inline(always)]
pub fn file_event(kind: u32, hook: u32, key: &InodeKey, file: Addr, errno: u32) {
    send!(&ERRORS, RING_ERRORS, |record: &mut FileEvent| {
        record.header = header(kind, hook, now());
        record.inode = *key;
        record.file = file;
        record.errno = errno;
        fill_task(&mut record.task);
    });
}

/// Whose entry of [`PATHS`] a path is put together in: each program has its own. Programs can be
/// preempted (those of trampolines from 5.12 on, of raw tracepoints in recent kernels), and then
/// another thread may run another of them on the same CPU, but never the same one.
#[derive(Clone, Copy)]
pub enum Scratch {
    Range,
    Fsync,
    FsyncCompat,
    Fdatasync,
    FdatasyncCompat,
    Exit,
    Kprobe,
    /// Of all that see failures. An interrupt can come in the middle, and see one too: it then goes
    /// without a name.
    Name,
}

impl Scratch {
    /// How many there are.
    pub const COUNT: u32 = Self::Name as u32 + 1;
}

/// A disk or a filesystem is in trouble: `sb` is its `struct super_block`, 0 for a disk. Said once a
/// second at most.
#[inline(always)]
pub fn storage_error(hook: u32, what: u32, sb: Addr, dev: u32, errno: u32) {
    const AGAIN: u64 = 1_000_000_000;
    let at = now();
    let which = u64::from(what) << 32 | u64::from(dev);
    // SAFETY: the value is copied at once; a race tells twice at worst.
    let told = unsafe { STORAGE_ERRORS.get(&which) }.copied().unwrap_or(0);
    if told != 0 && at.wrapping_sub(told) < AGAIN {
        return;
    }
    // If there is no room it is told again.
    let _ = STORAGE_ERRORS.insert(&which, &at, 0);
    send!(&ERRORS, RING_ERRORS, |record: &mut StorageError| {
        record.header = header(KIND_STORAGE_ERROR, hook, at);
        record.what = what;
        record.errno = errno;
        record.fs.dev = dev;
        if sb != 0 {
            describe_super(sb, &mut record.fs);
        }
    });
}

/// One inode of a sync call.
#[derive(Clone, Copy)]
pub struct Sync {
    pub file: Addr,
    pub start: u64,
    pub end: u64,
    pub call: u32,
    pub call_id: u64,
    pub flags: u32,
    pub scratch: Scratch,
}

/// Reports one inode of a sync call, and its path; whether its failures are followed.
#[inline(always)]
pub fn sync_file(hook: u32, sync: &Sync) -> bool {
    let scratch = sync.scratch as u64;
    let meta =
        u64::from(sync.call) | u64::from(sync.flags) << 16 | u64::from(hook) << 32 | scratch << 56;
    report_sync(sync.file, sync.start, sync.end, meta, sync.call_id) != 0
}

/// See [`sync_file`]. A global function: the verifier looks at it once, not at each mapping.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report_sync(file: u64, start: u64, end: u64, meta: u64, call_id: u64) -> u32 {
    let hook = (meta >> 32) as u32 & 0xff_ffff;
    let Some(mapping) = read_ptr(file, layout!(file_mapping)) else {
        return 0;
    };
    let Some(inode) = host_of(mapping) else {
        return 0;
    };
    let Some((key, state)) = tracked(inode) else {
        return 0;
    };
    path(file, call_id, meta >> 56);
    let told: u32 = read(file, layout!(file_wb_err)).unwrap_or(0);
    let recorded: u32 = read(mapping, layout!(mapping_wb_err)).unwrap_or(0);
    let mut flags = if told == recorded { 0 } else { SYNC_PENDING };
    if recorded == 0 && state.recorded != 0 {
        flags |= SYNC_ANEW;
    }
    send!(&SYNCS, RING_SYNCS, |record: &mut SyncFile| {
        record.header = header(KIND_SYNC_FILE, hook, now());
        record.inode = key;
        record.file = file;
        record.call_id = call_id;
        record.start = start;
        record.end = end;
        record.size = read(inode, layout!(inode_size)).unwrap_or(u64::MAX);
        record.call = meta as u32 & 0xffff;
        record.flags = (meta >> 16) as u32 & 0xffff | flags;
        record.state = *state;
        fill_task(&mut record.task);
        describe(inode, &mut record.fs);
    });
    1
}

/// The sync call came back.
#[inline(always)]
pub fn sync_end(hook: u32, call_id: u64, ret: i64) {
    send!(&SYNCS, RING_SYNCS, |record: &mut SyncEnd| {
        record.header = header(KIND_SYNC_END, hook, now());
        record.call_id = call_id;
        record.ret = ret;
    });
}

/// A kernel module was loaded.
#[inline(always)]
pub fn module_loaded(module: Addr) {
    send!(&ERRORS, RING_ERRORS, |record: &mut ModuleLoaded| {
        record.header = header(KIND_MODULE, 0, now());
        read_bytes(module, layout!(module_name), &mut record.name);
    });
}

/// Most directories deep that a path is followed.
const MAX_DEPTH: usize = 64;

/// Sends the names of a file from the leaf to the root of the mount namespace, crossing mounts
/// upwards (`prepend_path` in fs/d_path.c does the same under locks).
///
/// A global function: its stack ends before the sync record is built.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn path(file: u64, call_id: u64, entry: u64) -> u32 {
    let Some(scratch) = PATHS.get_ptr_mut(entry as u32) else {
        return 0;
    };
    let mode: u32 = read(file, layout!(file_mode)).unwrap_or(0);
    let (dentry, mount) = if mode & config!(fmode_backing) != 0 && layout!(backing_dentry) != ABSENT
    {
        (layout!(backing_dentry), layout!(backing_mnt))
    } else {
        (layout!(file_dentry), layout!(file_mnt))
    };
    let Some(dentry) = read_ptr(file, dentry) else {
        return 0;
    };
    let Some(vfsmount) = read_ptr(file, mount) else {
        return 0;
    };
    // SAFETY: the entry is this CPU's and this program's own (see `Scratch`), and programs do not
    // migrate: nobody else can be in the middle of it.
    let scratch = unsafe { &mut *scratch };
    scratch.dentry = dentry;
    scratch.mount = vfsmount.wrapping_sub(u64::from(layout!(mount_mnt)));
    scratch.root = read_ptr(vfsmount, layout!(vfsmount_root)).unwrap_or(0);
    scratch.used = 0;
    scratch.header.header.kind = KIND_PATH;
    scratch.header.header.at = now();
    scratch.header.call_id = call_id;
    scratch.header.truncated = 1;
    for _ in 0..MAX_DEPTH {
        if path_step(entry) == 0 {
            break;
        }
    }
    if output_path(scratch, &SYNCS) {
        count(|counters| &mut counters.sent[RING_SYNCS]);
    } else {
        count(|counters| &mut counters.ring_full[RING_SYNCS]);
    }
    0
}

/// Sends the names of an inode as its filesystem has them: a failure is seen by its inode, not by an
/// open file. Whether they were sent. Not so if the entry is in use, which an interrupt in the
/// middle finds, or a thread that preempted another.
#[inline(always)]
fn tell_names(inode: Addr, key: &InodeKey) -> bool {
    if layout!(inode_names) == ABSENT || layout!(dentry_alias) == ABSENT {
        return false;
    }
    let Some(scratch) = PATHS.get_ptr_mut(Scratch::Name as u32) else {
        return false;
    };
    // SAFETY: the entry is this CPU's own, and `busy` keeps off everybody else. Volatile: both
    // stores count.
    unsafe {
        if core::ptr::read_volatile(&raw const (*scratch).busy) != 0 {
            return false;
        }
        core::ptr::write_volatile(&raw mut (*scratch).busy, 1);
        (*scratch).header.inode = *key;
        let sent = inode_names(inode);
        core::ptr::write_volatile(&raw mut (*scratch).busy, 0);
        sent != 0
    }
}

/// See [`tell_names`]; 1 if they were sent. A global function: its stack ends before the record of
/// the failure is built. It calls none: some failures are found eight calls deep, and no program may
/// go deeper.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn inode_names(inode: u64) -> u32 {
    let Some(scratch) = PATHS.get_ptr_mut(Scratch::Name as u32) else {
        return 0;
    };
    let Some(alias) = read_ptr(inode, layout!(inode_names)) else {
        return 0;
    };
    // SAFETY: see `tell_names`.
    let scratch = unsafe { &mut *scratch };
    scratch.dentry = alias.wrapping_sub(u64::from(layout!(dentry_alias)));
    scratch.used = 0;
    scratch.header.header.kind = KIND_NAME;
    scratch.header.header.at = now();
    scratch.header.truncated = 1;
    for _ in 0..MAX_DEPTH {
        if !up(scratch) {
            break;
        }
    }
    // No loss if it finds no room: the next failure tells them.
    u32::from(output_path(scratch, &PAGES))
}

/// Takes the name of the entry's dentry and goes to its parent; whether there is more.
#[inline(always)]
fn up(scratch: &mut PathScratch) -> bool {
    let dentry = scratch.dentry;
    let Some(parent) = read_ptr(dentry, layout!(dentry_parent)) else {
        return false;
    };
    if parent == dentry {
        scratch.header.truncated = 0;
        return false;
    }
    let Some(name) = read_ptr(dentry, layout!(dentry_name)) else {
        return false;
    };
    let used = scratch.used;
    if used > (PATH_BYTES - 1) as u64 {
        return false;
    }
    // SAFETY: `used` is below PATH_BYTES and the array has 256 bytes more than that.
    let len = unsafe {
        let names = (&raw mut scratch.names).cast::<u8>();
        generated::bpf_probe_read_kernel_str(
            names.add(used as usize & (PATH_BYTES - 1)).cast(),
            256,
            name as *const _,
        )
    };
    if len <= 0 || len > 256 {
        return false;
    }
    scratch.used = used + len as u64;
    scratch.dentry = parent;
    true
}

/// Sends the record of a path, whose names are complete; whether there was room.
#[inline(always)]
fn output_path(scratch: &mut PathScratch, ring: &RingBuf) -> bool {
    let used = scratch.used & (2 * PATH_BYTES as u64 - 1);
    scratch.header.len = used as u32;
    let size = size_of::<PathHeader>() as u64 + used;
    if used > (PATH_BYTES + 255) as u64 {
        return false;
    }
    // SAFETY: `size` bytes from the header on are within the scratch entry.
    let sent = unsafe {
        generated::bpf_ringbuf_output(
            core::ptr::from_ref(ring).cast_mut().cast(),
            (&raw mut scratch.header).cast(),
            size,
            announcement(ring),
        )
    };
    sent == 0
}

/// One step of [`path`]: a name, or from a mount's root to where it is mounted. 0: the end. A
/// global function: the verifier looks at it once, not at each step.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn path_step(entry: u64) -> u32 {
    let Some(scratch) = PATHS.get_ptr_mut(entry as u32) else {
        return 0;
    };
    // SAFETY: see `path`.
    let scratch = unsafe { &mut *scratch };
    let dentry = scratch.dentry;
    if dentry == scratch.root {
        let Some(parent) = read_ptr(scratch.mount, layout!(mount_parent)) else {
            return 0;
        };
        if parent == scratch.mount {
            scratch.header.truncated = 0;
            return 0;
        }
        let Some(mountpoint) = read_ptr(scratch.mount, layout!(mount_mountpoint)) else {
            return 0;
        };
        scratch.mount = parent;
        scratch.dentry = mountpoint;
        scratch.root = read_ptr(
            parent.wrapping_add(u64::from(layout!(mount_mnt))),
            layout!(vfsmount_root),
        )
        .unwrap_or(0);
        return 1;
    }
    u32::from(up(scratch))
}
