//! What befalls a disk or a filesystem as a whole. No lost page by itself: told for what it is.

use aya_ebpf::{
    macros::{fentry, kprobe, raw_tracepoint},
    programs::{FEntryContext, ProbeContext, RawTracePointContext},
};
use msync_trace_ebpf::{
    STORAGE_FILESYSTEM_ERROR, STORAGE_FILESYSTEM_SHUTDOWN, STORAGE_FLUSH_FAILED,
};

use super::hook;
use crate::{
    bio::errno_of_status,
    emit::storage_error,
    kread::{Addr, argument, read, read_ptr},
    maps::layout,
};

/// Bits of the minor number in a `dev_t` of the kernel (`MINORBITS`).
const MINOR_BITS: u32 = 20;

/// A request that only flushes the cache of its disk has failed. Such a request is the block
/// layer's own (`blk_kick_flush`), for the flush before or after a write as well as for one alone.
#[inline(always)]
pub fn flush_failed(request: Addr, errno: u32) {
    let of_queue = |queue| read_ptr(queue, layout!(queue_disk));
    let Some(disk) = read_ptr(request, layout!(rq_queue))
        .and_then(of_queue)
        .or_else(|| read_ptr(request, layout!(rq_disk)))
    else {
        return;
    };
    let major: u32 = read(disk, layout!(disk_major)).unwrap_or(0);
    let minor: u32 = read(disk, layout!(disk_first_minor)).unwrap_or(0);
    let dev = major << MINOR_BITS | minor;
    storage_error(hook::STORAGE, STORAGE_FLUSH_FAILED, 0, dev, errno);
}

/// `flush_end_io(struct request *flush_rq, blk_status_t error, ...)` (block/blk-flush.c), static,
/// called by pointer, all supported kernels.
#[inline(always)]
fn flush_ended(request: Addr, status: u64) {
    let status = status as u32 & 0xff;
    if status != 0 {
        flush_failed(request, errno_of_status(status));
    }
}

/// See [`flush_ended`].
#[fentry(function = "flush_end_io")]
fn flush_ended_fentry(ctx: FEntryContext) -> i32 {
    flush_ended(argument(&ctx, 0), argument(&ctx, 1));
    0
}

/// See [`flush_ended`].
#[kprobe]
fn flush_ended_kprobe(ctx: ProbeContext) -> u32 {
    flush_ended(ctx.arg(0).unwrap_or(0), ctx.arg(1).unwrap_or(0));
    0
}

/// Something happened to a filesystem.
#[inline(always)]
fn of_super(what: u32, sb: Addr, errno: u32) {
    if let Some(dev) = read::<u32>(sb, layout!(sb_dev)) {
        storage_error(hook::STORAGE, what, sb, dev, errno);
    }
}

/// `TP_PROTO(struct super_block *sb, const char *function, unsigned int line)`, all supported
/// kernels: ext4 found an error. It goes on, or becomes read-only, by its option `errors=`.
#[raw_tracepoint(tracepoint = "ext4_error")]
fn ext4_error(ctx: RawTracePointContext) -> u32 {
    of_super(STORAGE_FILESYSTEM_ERROR, ctx.arg(0), 0);
    0
}

/// `void __ext4_abort(struct super_block *sb, const char *function, unsigned int line, int error,
/// const char *fmt, ...)` (fs/ext4/super.c), before 5.11: the journal is dead. Later kernels pass
/// the tracepoint.
#[kprobe]
fn ext4_abort(ctx: ProbeContext) -> u32 {
    let error: u64 = ctx.arg(3).unwrap_or(0);
    let errno = (error as i32).unsigned_abs();
    of_super(STORAGE_FILESYSTEM_ERROR, ctx.arg(0).unwrap_or(0), errno);
    0
}

/// `void __btrfs_handle_fs_error(struct btrfs_fs_info *fs_info, const char *function, unsigned int
/// line, int error, const char *fmt, ...)` (fs/btrfs): it is read-only from now on.
#[kprobe]
fn btrfs_error(ctx: ProbeContext) -> u32 {
    let info: u64 = ctx.arg(0).unwrap_or(0);
    let error: u64 = ctx.arg(3).unwrap_or(0);
    if let Some(sb) = read_ptr(info, layout!(btrfs_info_super)) {
        of_super(STORAGE_FILESYSTEM_ERROR, sb, (error as i32).unsigned_abs());
    }
    0
}

/// `TP_PROTO(struct super_block *sb, unsigned long flags)`, all supported kernels.
#[raw_tracepoint(tracepoint = "ext4_shutdown")]
fn ext4_shutdown(ctx: RawTracePointContext) -> u32 {
    of_super(STORAGE_FILESYSTEM_SHUTDOWN, ctx.arg(0), 0);
    0
}

/// `TP_PROTO(struct xfs_mount *mp, int ptag, int flags, const char *fname, int line_num)`, after
/// 5.10: XFS shuts itself down for an error, or was told to.
#[raw_tracepoint(tracepoint = "xfs_force_shutdown")]
fn xfs_shutdown(ctx: RawTracePointContext) -> u32 {
    if let Some(sb) = read_ptr(ctx.arg(0), layout!(xfs_mount_super)) {
        of_super(STORAGE_FILESYSTEM_SHUTDOWN, sb, 0);
    }
    0
}

/// `bool xlog_force_shutdown(struct xlog *log, uint32_t shutdown_flags)` (fs/xfs/xfs_log.c), 5.18 and
/// later: the log cannot be written. For that alone there is no tracepoint.
#[kprobe]
fn xfs_log_dead(ctx: ProbeContext) -> u32 {
    let log: u64 = ctx.arg(0).unwrap_or(0);
    let mount = read_ptr(log, layout!(xfs_log_mount)).unwrap_or(0);
    if let Some(sb) = read_ptr(mount, layout!(xfs_mount_super)) {
        of_super(STORAGE_FILESYSTEM_SHUTDOWN, sb, 0);
    }
    0
}
