//! FUSE with write-back cache: the server refuses a WRITE, or is gone while pages are dirty.

use aya_ebpf::{
    macros::{fentry, kprobe, raw_tracepoint},
    programs::{FEntryContext, ProbeContext, RawTracePointContext},
};
use msync_trace_ebpf::{ABSENT, OWNER_FUSE};

use super::hook;
use crate::{
    bio::{Outcome, report_range},
    kread::{Addr, argument, read, read_ptr},
    maps::{END_IO, any_tracked, layout},
};

const PAGE_MASK: u64 = 4095;

/// `FUSE_SUPER_MAGIC` (include/uapi/linux/magic.h).
const FUSE_MAGIC: u64 = 0x6573_5546;

/// The connection was broken when the kernel wanted to send pages.
const ENOTCONN: u32 = 107;

/// Whether a request writes pages of the page cache back: `fuse_args.end` is `fuse_writepage_end`.
#[inline(always)]
fn is_write_back(args: Addr) -> bool {
    let end: u64 = read(args, layout!(fuse_args_end)).unwrap_or(0);
    // SAFETY: user space fills the map before this program is attached.
    unsafe { END_IO.get(&end) }.copied() == Some(OWNER_FUSE)
}

/// A write-back request of these `fuse_args` ended, or will not be sent.
#[inline(always)]
fn ended(args: Addr, errno: u32) {
    let write = args.wrapping_sub(u64::from(layout!(fuse_write_args)));
    let Some(inode) = read_ptr(write, layout!(fuse_write_inode)) else {
        return;
    };
    let start: u64 = read(write, layout!(fuse_write_offset)).unwrap_or(0);
    let size: u32 = read(write, layout!(fuse_write_size)).unwrap_or(0);
    if size == 0 {
        return;
    }
    let outcome = Outcome {
        errno,
        submitted: 0,
        hook: hook::FUSE,
    };
    report_range(
        inode,
        start & !PAGE_MASK,
        (start + u64::from(size) + PAGE_MASK) & !PAGE_MASK,
        &outcome,
    );
}

#[inline(always)]
fn errno_of(error: i32) -> u32 {
    if error < 0 { error.unsigned_abs() } else { 0 }
}

/// `TP_PROTO(const struct fuse_req *req)` of `fuse_request_end` (fs/fuse/fuse_trace.h), 6.12 and
/// later: a request was answered, or the connection was aborted under it. Runs before its `end`.
#[raw_tracepoint(tracepoint = "fuse_request_end")]
fn fuse_request_end(ctx: RawTracePointContext) -> u32 {
    let request: u64 = ctx.arg(0);
    let errno = errno_of(read(request, layout!(fuse_req_error)).unwrap_or(0));
    if errno == 0 && !any_tracked() {
        return 0;
    }
    if let Some(args) = read_ptr(request, layout!(fuse_req_args))
        && is_write_back(args)
    {
        ended(args, errno);
    }
    0
}

/// `static void fuse_writepage_end(struct fuse_mount *fm, struct fuse_args *args, int error)`
/// (fs/fuse/file.c), 5.10 and 6.1, which do not have [`fuse_request_end`].
#[kprobe]
fn fuse_write_end(ctx: ProbeContext) -> u32 {
    let errno = errno_of(ctx.arg::<u64>(2).unwrap_or(0) as i32);
    if errno != 0 || any_tracked() {
        ended(ctx.arg(1).unwrap_or(0), errno);
    }
    0
}

/// Whether the server of a `struct fuse_mount` is gone.
#[inline(always)]
fn is_broken(mount: Addr) -> bool {
    let Some(mut connection) = read_ptr(mount, layout!(fuse_mount_fc)) else {
        return false;
    };
    if layout!(fuse_conn_chan) != ABSENT {
        connection = read_ptr(connection, layout!(fuse_conn_chan)).unwrap_or(0);
    }
    read::<u32>(connection, layout!(fuse_conn_connected)) == Some(0)
}

/// `int fuse_simple_background(struct fuse_mount *fm, struct fuse_args *args, gfp_t gfp_flags)`
/// (fs/fuse/dev.c), all supported kernels: on a broken connection it sends nothing and gives
/// `-ENOTCONN`, whereupon write-back ends as if it had been well. Nothing is recorded on the file.
#[inline(always)]
fn sent(mount: Addr, args: Addr) {
    if is_broken(mount) && is_write_back(args) {
        ended(args, ENOTCONN);
    }
}

/// See [`sent`].
#[fentry(function = "fuse_simple_background")]
fn fuse_send_fentry(ctx: FEntryContext) -> i32 {
    sent(argument(&ctx, 0), argument(&ctx, 1));
    0
}

/// See [`sent`].
#[kprobe]
fn fuse_send_kprobe(ctx: ProbeContext) -> u32 {
    sent(ctx.arg(0).unwrap_or(0), ctx.arg(1).unwrap_or(0));
    0
}

/// `TP_PROTO(struct inode *inode, u64 off, u64 len)` of `iomap_writeback_folio`, 6.18 and later,
/// where FUSE writes back through iomap. Tier 3: what is written back on a broken connection will
/// not be sent.
#[raw_tracepoint(tracepoint = "iomap_writeback_folio")]
fn fuse_writeback_folio(ctx: RawTracePointContext) -> u32 {
    let inode: u64 = ctx.arg(0);
    let Some(sb) = read_ptr(inode, layout!(inode_sb)) else {
        return 0;
    };
    if read::<u64>(sb, layout!(sb_magic)) != Some(FUSE_MAGIC) {
        return 0;
    }
    let Some(mount) = read_ptr(sb, layout!(sb_fs_info)) else {
        return 0;
    };
    if !is_broken(mount) {
        return 0;
    }
    let start: u64 = ctx.arg(1);
    let len: u64 = ctx.arg(2);
    let outcome = Outcome {
        errno: ENOTCONN,
        submitted: 0,
        hook: hook::FUSE,
    };
    report_range(
        inode,
        start & !PAGE_MASK,
        (start + len + PAGE_MASK) & !PAGE_MASK,
        &outcome,
    );
    0
}
