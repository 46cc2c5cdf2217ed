//! Sync calls and opens: what was asked for, through which file, and what came back.

use aya_ebpf::{
    helpers::generated,
    macros::{fentry, fexit, kprobe, raw_tracepoint, tracepoint},
    programs::{
        FEntryContext, FExitContext, ProbeContext, RawTracePointContext, TracePointContext,
    },
};
use msync_trace_ebpf::{
    CALL_FDATASYNC, CALL_FSYNC, CALL_IO_URING, CALL_MSYNC, CALL_MSYNC_ASYNC, CALL_NFSD,
    KIND_DISCARDED, KIND_OPENED, SYNC_ALONE, SYNC_FAILED,
};

use super::hook;
use crate::{
    emit::{Scratch, Sync, file_event, range_event, sync_end, sync_file},
    inode::{host_of, inode_of_file, is_btrfs, key_of, state_of, tracked},
    kread::{Addr, argument, current, now, pid_tgid, read, read_ptr},
    maps::{CALLS, CONTROL, any_tracked, config, control, count, layout},
};

/// System call numbers: x86-64, then i386 (arch/x86/entry/syscalls).
const MSYNC: (u64, u64) = (26, 144);
const FSYNC: (u64, u64) = (74, 118);
const FDATASYNC: (u64, u64) = (75, 148);
const FTRUNCATE: (u64, u64) = (77, 93);
const FTRUNCATE64: u64 = 194;
const FALLOCATE: (u64, u64) = (285, 324);
const OPEN: (u64, u64) = (2, 5);
const CREAT: (u64, u64) = (85, 8);
const OPENAT: (u64, u64) = (257, 295);
const OPENAT2: u64 = 437;

/// `MS_SYNC` (asm-generic/mman-common.h).
const MS_SYNC: u64 = 4;
/// `VM_SHARED` (include/linux/mm.h).
const VM_SHARED: u64 = 8;
/// `FALLOC_FL_PUNCH_HOLE | COLLAPSE_RANGE | ZERO_RANGE` (include/uapi/linux/falloc.h).
const FALLOC_GIVES_UP: u64 = 0x02 | 0x08 | 0x10;

/// `PF_KTHREAD` (include/linux/sched.h).
const PF_KTHREAD: u32 = 0x20_0000;
/// `TS_COMPAT`: the thread is in a 32-bit system call (arch/x86/include/asm/thread_info.h).
const TS_COMPAT: u32 = 2;

/// Most mappings of one msync looked at.
const MAX_MAPPINGS: usize = 16;

/// A system call as the `pt_regs` of its entry have it.
#[derive(Clone, Copy)]
struct Syscall {
    number: u64,
    compat: bool,
    regs: Addr,
}

impl Syscall {
    #[inline(always)]
    fn at(regs: Addr) -> Option<Self> {
        let number: u64 = read(regs, layout!(regs_orig_ax))?;
        let status: u32 = read(current(), layout!(task_ti_status)).unwrap_or(0);
        Some(Self {
            number,
            compat: status & TS_COMPAT != 0,
            regs,
        })
    }

    #[inline(always)]
    fn is(&self, (native, compat): (u64, u64)) -> bool {
        self.number == if self.compat { compat } else { native }
    }

    /// Argument `n` (0 to 3).
    #[inline(always)]
    fn arg(&self, n: u32) -> u64 {
        let offset = match (n, self.compat) {
            (0, false) => layout!(regs_di),
            (1, false) => layout!(regs_si),
            (2, false) => layout!(regs_dx),
            (_, false) => layout!(regs_r10),
            (0, true) => layout!(regs_bx),
            (1, true) => layout!(regs_cx),
            (2, true) => layout!(regs_dx),
            (_, true) => layout!(regs_si),
        };
        let value: u64 = read(self.regs, offset).unwrap_or(0);
        if self.compat {
            value & 0xffff_ffff
        } else {
            value
        }
    }

    /// The open file behind a descriptor of the running process.
    #[inline(always)]
    fn file(&self, fd: u64) -> Option<Addr> {
        let files = read_ptr(current(), layout!(task_files))?;
        let table = read_ptr(files, layout!(files_fdt))?;
        let max: u32 = read(table, layout!(fdt_max))?;
        if fd >= u64::from(max) {
            return None;
        }
        let array = read_ptr(table, layout!(fdt_fd))?;
        read_ptr(array + fd * 8, 0)
    }
}

/// Groups the records of one call; unique within a thread for 18 minutes.
#[inline(always)]
fn new_call_id() -> u64 {
    (pid_tgid() << 40) | (now() & 0xff_ffff_ffff)
}

#[inline(always)]
fn is_own() -> bool {
    (pid_tgid() >> 32) as u32 == config!(own_pid)
}

// ---- tier 1: what each file was asked for, and its own return value -------------------------

/// `int vfs_fsync_range(struct file *file, loff_t start, loff_t end, int datasync)` (fs/sync.c),
/// all supported kernels: every msync, io_uring fsync and COMMIT of nfsd comes through here.
/// fsync(2) does not (inlined), nor is every caller a promise to somebody (O_SYNC writes, loop
/// devices): the thread's system call tells.
#[fexit(function = "vfs_fsync_range")]
fn fsync_range_fexit(ctx: FExitContext) -> i32 {
    if !any_tracked() {
        return 0;
    }
    let task = current();
    let flags: u32 = read(task, layout!(task_flags)).unwrap_or(0);
    let at_exit = flags & (config!(pf_io_worker) | PF_KTHREAD) == 0;
    if at_exit && control().is_none_or(|control| control.sync_at_exit != 0) {
        return 0;
    }
    let file: u64 = argument(&ctx, 0);
    if inode_of_file(file).and_then(tracked).is_none() {
        return 0;
    }
    let start: u64 = argument(&ctx, 1);
    let last: u64 = argument(&ctx, 2);
    let ret = argument(&ctx, 4) as i32;
    let mut sync = Sync {
        file,
        start,
        end: if last > i64::MAX as u64 - 1 {
            u64::MAX
        } else {
            last + 1
        },
        call: CALL_MSYNC,
        call_id: 0,
        flags: 0,
        scratch: Scratch::Range,
    };
    if flags & config!(pf_io_worker) != 0 {
        sync.call = CALL_IO_URING;
    } else if flags & PF_KTHREAD != 0 {
        if !is_nfsd() {
            return 0;
        }
        sync.call = CALL_NFSD;
    } else {
        let Some(syscall) = syscall_of(task) else {
            return 0;
        };
        if !syscall.is(MSYNC) || is_own() {
            return 0;
        }
        sync.call_id = call_in_flight();
        sync_file(hook::FSYNC_RANGE, &sync);
        return 0;
    }
    sync.call_id = new_call_id();
    sync.flags = SYNC_ALONE | if ret == 0 { 0 } else { SYNC_FAILED };
    sync_file(hook::FSYNC_RANGE, &sync);
    0
}

/// Whether the running kernel thread serves NFS.
#[inline(always)]
fn is_nfsd() -> bool {
    let mut comm = [0u8; 16];
    // SAFETY: comm is 16 bytes long.
    unsafe { generated::bpf_get_current_comm(comm.as_mut_ptr().cast(), 16) };
    comm[0] == b'n' && comm[1] == b'f' && comm[2] == b's' && comm[3] == b'd'
}

/// The system call that a thread is in; needs the calibration of [`calibrate`].
#[inline(always)]
fn syscall_of(task: Addr) -> Option<Syscall> {
    let offset = control()?.regs_offset;
    if offset == 0 {
        return None;
    }
    let stack = read_ptr(task, layout!(task_stack))?;
    Syscall::at(stack + u64::from(offset))
}

/// The id of the running thread's msync, made at its first file.
#[inline(always)]
fn call_in_flight() -> u64 {
    let thread = pid_tgid();
    // SAFETY: the entry belongs to this thread alone.
    if let Some(id) = unsafe { CALLS.get(&thread) } {
        return *id;
    }
    let id = new_call_id();
    if CALLS.insert(&thread, &id, 0).is_err() {
        count(|counters| &mut counters.call_map_full);
    }
    id
}

/// msync comes back: its verdict for all its files.
#[inline(always)]
fn msync_returned(ret: i64) {
    if !any_tracked() {
        return;
    }
    let thread = pid_tgid();
    // SAFETY: the entry belongs to this thread alone.
    let Some(id) = (unsafe { CALLS.get(&thread) }).copied() else {
        return;
    };
    let _ = CALLS.remove(&thread);
    sync_end(hook::SYSCALL, id, ret);
}

/// `long __x64_sys_msync(const struct pt_regs *regs)`, all supported kernels on x86-64.
#[fexit(function = "__x64_sys_msync")]
fn msync_fexit(ctx: FExitContext) -> i32 {
    msync_returned(argument(&ctx, 1) as i64);
    0
}

/// `long __ia32_sys_msync(const struct pt_regs *regs)`: 32-bit callers.
#[fexit(function = "__ia32_sys_msync")]
fn msync_compat_fexit(ctx: FExitContext) -> i32 {
    msync_returned(argument(&ctx, 1) as i64);
    0
}

/// `long __{x64,ia32}_sys_fsync(const struct pt_regs *regs)`.
#[fexit(function = "__x64_sys_fsync")]
fn fsync_fexit(ctx: FExitContext) -> i32 {
    fd_synced(&ctx, CALL_FSYNC, Scratch::Fsync)
}

/// See [`fsync_fexit`].
#[fexit(function = "__ia32_sys_fsync")]
fn fsync_compat_fexit(ctx: FExitContext) -> i32 {
    fd_synced(&ctx, CALL_FSYNC, Scratch::FsyncCompat)
}

/// `long __{x64,ia32}_sys_fdatasync(const struct pt_regs *regs)`.
#[fexit(function = "__x64_sys_fdatasync")]
fn fdatasync_fexit(ctx: FExitContext) -> i32 {
    fd_synced(&ctx, CALL_FDATASYNC, Scratch::Fdatasync)
}

/// See [`fdatasync_fexit`].
#[fexit(function = "__ia32_sys_fdatasync")]
fn fdatasync_compat_fexit(ctx: FExitContext) -> i32 {
    fd_synced(&ctx, CALL_FDATASYNC, Scratch::FdatasyncCompat)
}

#[inline(always)]
fn fd_synced(ctx: &FExitContext, call: u32, scratch: Scratch) -> i32 {
    if any_tracked()
        && control().is_some_and(|control| control.sync_at_exit == 0)
        && let Some(syscall) = Syscall::at(argument(ctx, 0))
    {
        descriptor_synced(&syscall, call, argument(ctx, 1) as i64, scratch);
    }
    0
}

/// fsync or fdatasync came back.
#[inline(always)]
fn descriptor_synced(syscall: &Syscall, call: u32, ret: i64, scratch: Scratch) {
    let Some(file) = syscall.file(syscall.arg(0)) else {
        return;
    };
    if inode_of_file(file).and_then(tracked).is_none() {
        return;
    };
    if is_own() {
        return;
    }
    let sync = Sync {
        file,
        start: 0,
        end: u64::MAX,
        call,
        call_id: new_call_id(),
        flags: SYNC_ALONE | if ret == 0 { 0 } else { SYNC_FAILED },
        scratch,
    };
    sync_file(hook::SYSCALL, &sync);
}

// ---- tiers 2 and 3: at the exit of the system call -------------------------------------------

/// The mapping at an address, from the maple tree of mappings (6.1 and later). Without `mmap_lock`:
/// another thread may hold it or wait for it, and `bpf_find_vma` would give up then. Nodes and
/// mappings stay readable through RCU, which programs run under; a node that was replaced in the
/// meantime says so. A global function: the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mapping_in_maple(addr: u64) -> u64 {
    for _ in 0..MAX_TRIES {
        let found = maple_walk(addr);
        if found != REPLACED {
            return found;
        }
    }
    count(|counters| &mut counters.mappings_busy);
    0
}

/// How often the tree may change under a walk.
const MAX_TRIES: usize = 8;
/// In place of a mapping: a node was replaced during the walk.
const REPLACED: u64 = 1;
/// Deepest maple tree that is walked; nodes are half full at least, 65,530 mappings (the default
/// limit) are no deeper than 6.
const MAX_MAPLE_DEPTH: usize = 12;
/// `MAPLE_NODE_MASK` (include/linux/maple_tree.h): the low bits of a node's address hold its type.
const NODE_MASK: u64 = 255;
/// `maple_leaf_64` and `maple_arange_64` of `enum maple_type`, from bit 3 on.
const MAPLE_LEAF: u64 = 1;
const MAPLE_ARANGE: u64 = 3;
/// `MAPLE_RANGE64_SLOTS`, less one.
const MAX_PIVOTS: u64 = 15;

#[inline(always)]
fn maple_type(node: u64) -> u64 {
    node >> 3 & 15
}

/// One walk from the root (`mtree_range_walk` in lib/maple_tree.c does the same).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn maple_walk(addr: u64) -> u64 {
    let Some(mm) = read_ptr(current(), layout!(task_mm)) else {
        return 0;
    };
    let mut node: u64 = read(mm, layout!(mm_root)).unwrap_or(0);
    // `xa_is_node`: otherwise there is at most one mapping, from address 0 on.
    if node & 3 != 2 || node <= 4096 {
        return 0;
    }
    for _ in 0..MAX_MAPLE_DEPTH {
        let next = maple_step(node, addr);
        if next == REPLACED {
            return REPLACED;
        }
        if maple_type(node) <= MAPLE_LEAF {
            // Mappings are reused without waiting: this one may be another process's by now.
            if next != 0 && read::<u64>(next, layout!(vma_mm)).unwrap_or(0) != mm {
                return REPLACED;
            }
            return next;
        }
        node = next;
    }
    0
}

/// What the slot for an address holds: the next node, or in a leaf the mapping.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn maple_step(node: u64, addr: u64) -> u64 {
    let at = node & !NODE_MASK;
    let (pivots, slots, end) = if maple_type(node) == MAPLE_ARANGE {
        (
            layout!(arange_pivots),
            layout!(arange_slots),
            layout!(arange_end),
        )
    } else {
        (
            layout!(range_pivots),
            layout!(range_slots),
            layout!(range_end),
        )
    };
    // `ma_data_end`: a full node has no room to say how many slots it uses.
    let last = at.wrapping_add((MAX_PIVOTS - 1) * 8);
    let full = maple_type(node) != MAPLE_ARANGE && read::<u64>(last, pivots).unwrap_or(0) != 0;
    let used = if full {
        MAX_PIVOTS
    } else {
        u64::from(read::<u8>(at, end).unwrap_or(0))
    };
    let mut slot = used;
    for offset in 0..MAX_PIVOTS {
        if offset >= used {
            break;
        }
        let pivot: u64 = read(at.wrapping_add(offset * 8), pivots).unwrap_or(0);
        if pivot >= addr {
            slot = offset;
            break;
        }
    }
    let held: u64 = read(at.wrapping_add((slot & 15) * 8), slots).unwrap_or(0);
    // `ma_dead_node`: a replaced node is its own parent.
    let parent: u64 = read(at, 0).unwrap_or(0);
    if parent & !NODE_MASK == at {
        return REPLACED;
    }
    held
}

/// Deepest red-black tree of mappings that is walked: 2^20 mappings.
const MAX_TREE_DEPTH: usize = 40;

/// The mapping at an address, from the red-black tree of mappings (before 6.1; as `find_vma` in
/// mm/mmap.c does).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn mapping_in_rb(addr: u64) -> u64 {
    let Some(mm) = read_ptr(current(), layout!(task_mm)) else {
        return 0;
    };
    let mut node: u64 = read(mm, layout!(mm_rb)).unwrap_or(0);
    for _ in 0..MAX_TREE_DEPTH {
        if node == 0 {
            return 0;
        }
        let vma = node.wrapping_sub(u64::from(layout!(vma_rb)));
        let start: u64 = read(vma, layout!(vma_start)).unwrap_or(0);
        let end: u64 = read(vma, layout!(vma_end)).unwrap_or(0);
        if addr >= start && addr < end {
            return vma;
        }
        // struct rb_node { unsigned long __rb_parent_color; rb_right; rb_left }
        node = read(node, if addr < start { 16 } else { 8 }).unwrap_or(0);
    }
    count(|counters| &mut counters.mappings_busy);
    0
}

/// Finds the mapping at an address: gives the address of its `vm_area_struct`, or 0.
type Find = extern "C" fn(u64) -> u64;

/// In what [`report_mapping`] gives: the mapping's file is followed.
const REPORTED: u64 = 1;

/// Reports the mapping at `addr`, as far as `end`, if it is a shared one of a file that is
/// followed; gives the address after it, a multiple of the page size, and [`REPORTED`]; 0 where
/// nothing is mapped. A global function: the verifier looks at it once, not at each mapping.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report_mapping(vma: u64, addr: u64, end: u64, call: u64, call_id: u64) -> u64 {
    let mapping_start: u64 = read(vma, layout!(vma_start)).unwrap_or(0);
    let mapping_end: u64 = read(vma, layout!(vma_end)).unwrap_or(0);
    if vma == 0 || addr < mapping_start || addr >= mapping_end {
        return 0;
    }
    let stop = if mapping_end < end { mapping_end } else { end };
    let flags: u64 = read(vma, layout!(vma_flags)).unwrap_or(0);
    let file: u64 = read(vma, layout!(vma_file)).unwrap_or(0);
    if flags & VM_SHARED == 0 || file == 0 {
        return stop;
    }
    let page_offset: u64 = read(vma, layout!(vma_pgoff)).unwrap_or(0);
    let start = addr - mapping_start + (page_offset << 12);
    let sync = Sync {
        file,
        start,
        end: start + (stop - addr),
        call: call as u32,
        call_id,
        flags: 0,
        scratch: Scratch::Exit,
    };
    stop | u64::from(sync_file(hook::SYSCALL, &sync))
}

/// msync came back: reports each shared file mapping in its range.
#[inline(always)]
fn msync_exit(syscall: &Syscall, ret: i64, find: Find) {
    let flags = syscall.arg(2);
    let asynchronous = flags & MS_SYNC == 0;
    if asynchronous && config!(include_async) == 0 {
        return;
    }
    if !asynchronous && control().is_none_or(|control| control.sync_at_exit == 0) {
        return;
    }
    let mut addr = syscall.arg(0);
    let end = addr.wrapping_add((syscall.arg(1).wrapping_add(4095)) & !4095);
    let call = if asynchronous {
        CALL_MSYNC_ASYNC
    } else {
        CALL_MSYNC
    };
    let call_id = new_call_id();
    let mut reported = 0;
    for _ in 0..MAX_MAPPINGS {
        if addr >= end {
            break;
        }
        let next = report_mapping(find(addr), addr, end, u64::from(call), call_id);
        if next == 0 {
            break;
        }
        reported |= next & REPORTED;
        addr = next & !REPORTED;
    }
    if addr < end && ret == 0 {
        count(|counters| &mut counters.walk_limit);
    }
    if reported != 0 {
        sync_end(hook::SYSCALL, call_id, ret);
    }
}

/// A system call comes back: every one of the machine passes here, so this is tier 3, and tiers 2
/// and 1 only while failures are outstanding.
#[inline(always)]
fn syscall_exit(syscall: &Syscall, ret: i64, find: Find) {
    if syscall.is(MSYNC) {
        if !is_own() {
            msync_exit(syscall, ret, find);
        }
        return;
    }
    if control().is_none_or(|control| control.sync_at_exit == 0) {
        return;
    }
    if syscall.is(FSYNC) {
        descriptor_synced(syscall, CALL_FSYNC, ret, Scratch::Exit);
    } else if syscall.is(FDATASYNC) {
        descriptor_synced(syscall, CALL_FDATASYNC, ret, Scratch::Exit);
    } else if syscall.is(OPENAT)
        || syscall.is(OPEN)
        || syscall.is(CREAT)
        || syscall.number == OPENAT2
    {
        if ret >= 0
            && let Some(file) = syscall.file(ret as u64)
        {
            opened(file);
        }
    } else if syscall.is(FALLOCATE) && ret == 0 && !syscall.compat {
        if syscall.arg(1) & FALLOC_GIVES_UP != 0 {
            descriptor_gave_up(syscall, syscall.arg(2), Some(syscall.arg(3)));
        }
    } else if ret == 0
        && (syscall.is(FTRUNCATE) || (syscall.compat && syscall.number == FTRUNCATE64))
    {
        descriptor_gave_up(syscall, syscall.arg(1), None);
    }
}

/// [`given_up`] of the file behind the first argument.
#[inline(always)]
fn descriptor_gave_up(syscall: &Syscall, start: u64, len: Option<u64>) {
    if let Some(file) = syscall.file(syscall.arg(0)) {
        given_up(file, start, len);
    }
}

/// Tier 1: `int vfs_fallocate(struct file *file, int mode, loff_t offset, loff_t len)` (fs/open.c),
/// all supported kernels. btrfs touches no page where it finds a hole already, as it does after a
/// failed write.
#[fexit(function = "vfs_fallocate")]
fn fallocate_fexit(ctx: FExitContext) -> i32 {
    let mode: u64 = argument(&ctx, 1);
    if any_tracked() && argument(&ctx, 4) as i32 == 0 && mode & FALLOC_GIVES_UP != 0 {
        given_up(
            argument(&ctx, 0),
            argument(&ctx, 2),
            Some(argument(&ctx, 3)),
        );
    }
    0
}

/// A file's bytes from `start` on were given up: `len` bytes, or all.
#[inline(always)]
fn given_up(file: Addr, start: u64, len: Option<u64>) {
    let Some((key, _)) = inode_of_file(file).and_then(tracked) else {
        return;
    };
    let first = (start + 4095) & !4095;
    let end = match len {
        Some(len) => (start + len) & !4095,
        None => u64::MAX,
    };
    if first < end {
        range_event(KIND_DISCARDED, hook::SYSCALL, &key, first, end);
    }
}

/// `TP_PROTO(struct pt_regs *regs, long ret)` of the raw tracepoint `sys_exit`, all supported
/// kernels.
#[inline(always)]
fn raw_exit(ctx: &RawTracePointContext, find: Find) -> u32 {
    if any_tracked()
        && let Some(syscall) = Syscall::at(ctx.arg(0))
    {
        syscall_exit(&syscall, ctx.arg(1), find);
    }
    0
}

/// See [`raw_exit`]; 6.1 and later.
#[raw_tracepoint(tracepoint = "sys_exit")]
fn sys_exit(ctx: RawTracePointContext) -> u32 {
    raw_exit(&ctx, mapping_in_maple)
}

/// See [`raw_exit`]; before 6.1.
#[raw_tracepoint(tracepoint = "sys_exit")]
fn sys_exit_rb(ctx: RawTracePointContext) -> u32 {
    raw_exit(&ctx, mapping_in_rb)
}

/// Where `ret` is in `struct trace_event_raw_sys_exit { struct trace_entry ent; long id; long ret; }`.
const EXIT_RET: usize = 16;

/// The classic tracepoint, for kernels that may preempt a program of a raw one: then all calls that
/// other threads make on that processor in the meantime would be skipped. `perf_trace_sys_exit`
/// (include/trace/perf.h) runs its programs with preemption off.
#[tracepoint]
fn sys_exit_classic(ctx: TracePointContext) -> u32 {
    if any_tracked()
        // SAFETY: within the record of this tracepoint.
        && let Ok(ret) = unsafe { ctx.read_at::<i64>(EXIT_RET) }
        && let Some(syscall) = syscall_of(current())
    {
        syscall_exit(&syscall, ret, mapping_in_maple);
    }
    0
}

/// Tier 2, before the exit hook is attached: `int file_check_and_advance_wb_err(struct file
/// *file)` (mm/filemap.c), all supported kernels, is where an fsync learns of recorded errors. If
/// there is nothing new for this file it will say success, and so, almost always, will the call.
#[kprobe]
fn errseq_checked(ctx: ProbeContext) -> u32 {
    if !any_tracked() || control().is_none_or(|control| control.exit_hook != 0) {
        return 0;
    }
    let file: u64 = ctx.arg(0).unwrap_or(0);
    if inode_of_file(file).and_then(tracked).is_none() {
        return 0;
    };
    let Some(mapping) = read_ptr(file, layout!(file_mapping)) else {
        return 0;
    };
    let told: u32 = read(file, layout!(file_wb_err)).unwrap_or(0);
    let recorded: u32 = read(mapping, layout!(mapping_wb_err)).unwrap_or(0);
    if told != recorded {
        // The call fails. It began before the failure was known, so that nothing was noted of it.
        errs(file, mapping);
        return 0;
    }
    if answered(file) {
        return 0;
    }
    let Some(syscall) = syscall_of(current()) else {
        return 0;
    };
    let call = if syscall.is(MSYNC) {
        CALL_MSYNC
    } else if syscall.is(FSYNC) {
        CALL_FSYNC
    } else if syscall.is(FDATASYNC) {
        CALL_FDATASYNC
    } else {
        return 0;
    };
    if is_own() {
        return 0;
    }
    let (start, end) = match (call, current_range()) {
        (CALL_MSYNC, Some(range)) => range,
        _ => (0, u64::MAX),
    };
    let sync = Sync {
        file,
        start,
        end,
        call,
        call_id: new_call_id(),
        flags: SYNC_ALONE,
        scratch: Scratch::Kprobe,
    };
    sync_file(hook::FSYNC_RANGE, &sync);
    0
}

/// What the running thread's `vfs_fsync_range` was asked for, noted by [`fsync_range_kprobe`].
#[inline(always)]
fn current_range() -> Option<(u64, u64)> {
    let thread = pid_tgid();
    // SAFETY: the entries belong to this thread alone.
    unsafe {
        let start = *CALLS.get(&(thread ^ START_KEY))?;
        let end = *CALLS.get(&(thread ^ END_KEY))?;
        Some((start, end))
    }
}

/// Bits that no `pid_tgid` has (pids have 22 bits): more values per thread in `CALLS`.
const START_KEY: u64 = 1 << 62;
const END_KEY: u64 = 1 << 61;
const FILE_KEY: u64 = 1 << 60;

/// In the value at [`FILE_KEY`], the address of a file: error numbers have been compared once.
const COMPARED: u64 = 1;

/// Whether the running thread's fsync had its answer for this file at an earlier comparison. What
/// waits by `file_write_and_wait_range` compares there, and some of it (ext4, the generic fsync)
/// again at the end of the same call.
#[inline(always)]
fn answered(file: Addr) -> bool {
    let key = pid_tgid() ^ FILE_KEY;
    // SAFETY: the entry belongs to this thread alone.
    let noted = unsafe { CALLS.get(&key) }.copied();
    if noted == Some(file | COMPARED) {
        let _ = CALLS.remove(&key);
        return true;
    }
    if noted == Some(file) {
        let _ = CALLS.insert(&key, &(file | COMPARED), 0);
    }
    false
}

/// The running thread's fsync is being given an error: at a second comparison in the same call there
/// will be nothing new, which is no success. What is noted here ends where the next call begins to
/// wait ([`wait_kprobe`]); btrfs does not wait there, and compares once.
#[inline(always)]
fn errs(file: Addr, mapping: Addr) {
    if !host_of(mapping).is_some_and(is_btrfs)
        && CALLS
            .insert(&(pid_tgid() ^ FILE_KEY), &(file | COMPARED), 0)
            .is_err()
    {
        count(|counters| &mut counters.call_map_full);
    }
}

/// Tier 2: `int file_write_and_wait_range(struct file *file, loff_t lstart, loff_t lend)`
/// (mm/filemap.c), all supported kernels: a call of fsync begins to wait, for [`answered`].
#[kprobe]
fn wait_kprobe(ctx: ProbeContext) -> u32 {
    if !any_tracked() || control().is_none_or(|control| control.exit_hook != 0) {
        return 0;
    }
    let file: u64 = ctx.arg(0).unwrap_or(0);
    if inode_of_file(file).and_then(tracked).is_some()
        && CALLS.insert(&(pid_tgid() ^ FILE_KEY), &file, 0).is_err()
    {
        count(|counters| &mut counters.call_map_full);
    }
    0
}

/// Tier 2, see [`fsync_range_fexit`]: notes the range for [`errseq_checked`].
#[kprobe]
fn fsync_range_kprobe(ctx: ProbeContext) -> u32 {
    if !any_tracked() || control().is_none_or(|control| control.exit_hook != 0) {
        return 0;
    }
    let file: u64 = ctx.arg(0).unwrap_or(0);
    if inode_of_file(file).and_then(tracked).is_none() {
        return 0;
    }
    let start: u64 = ctx.arg(1).unwrap_or(0);
    let last: u64 = ctx.arg(2).unwrap_or(0);
    let thread = pid_tgid();
    if CALLS.insert(&(thread ^ START_KEY), &start, 0).is_err()
        || CALLS
            .insert(&(thread ^ END_KEY), &last.saturating_add(1), 0)
            .is_err()
    {
        count(|counters| &mut counters.call_map_full);
    }
    0
}

// ---- opens -----------------------------------------------------------------------------------

/// A file of an inode with failures was opened: what an earlier file at this address was told
/// does not count for it.
#[inline(always)]
fn opened(file: Addr) {
    let Some(key) = inode_of_file(file).and_then(key_of) else {
        return;
    };
    if state_of(&key).is_some() {
        file_event(KIND_OPENED, hook::OPEN, &key, file, 0);
    }
}

/// `int security_file_open(struct file *file)` (security/security.c), all supported kernels:
/// within `do_dentry_open`, when `f_mapping` and `f_wb_err` are set.
#[fentry(function = "security_file_open")]
fn open_fentry(ctx: FEntryContext) -> i32 {
    if any_tracked() {
        opened(argument(&ctx, 0));
    }
    0
}

/// See [`open_fentry`].
#[kprobe]
fn open_kprobe(ctx: ProbeContext) -> u32 {
    if any_tracked() {
        opened(ctx.arg(0).unwrap_or(0));
    }
    0
}

// ---- calibration -----------------------------------------------------------------------------

/// Attached for a moment at the start: the system call that user space makes then tells where the
/// kernel keeps the `pt_regs` of a system call within the stack (its size and padding depend on
/// the kernel's configuration).
#[raw_tracepoint(tracepoint = "sys_exit")]
fn calibrate(ctx: RawTracePointContext) -> u32 {
    if !is_own() {
        return 0;
    }
    let regs: u64 = ctx.arg(0);
    let Some(stack) = read_ptr(current(), layout!(task_stack)) else {
        return 0;
    };
    if let Some(control) = CONTROL.get_ptr_mut(0) {
        // SAFETY: an array's entry.
        unsafe {
            core::ptr::write_volatile(&raw mut (*control).regs_offset, (regs - stack) as u32);
        }
    }
    0
}
