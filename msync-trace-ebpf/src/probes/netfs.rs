//! Filesystems that write their pages back through netfs (fs/netfs), 6.12 and later: CIFS and 9p,
//! AFS and Ceph. A write is cut into subrequests; each is one run of bytes, sent to the server or to
//! a local cache.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use super::hook;
use crate::{
    bio::{Outcome, report_range, report_written},
    inode::tracked,
    kread::{Addr, read, read_ptr},
    maps::{any_tracked, layout},
};

const PAGE_MASK: u64 = 4095;

/// The subrequest will be sent again.
const EAGAIN: i32 = 11;

/// Whether a subrequest's bytes go to the server, not to a local cache.
#[inline(always)]
fn is_to_server(subrequest: Addr) -> bool {
    let source: u8 = read(subrequest, layout!(netfs_part_source)).unwrap_or(0);
    u32::from(source) == layout!(netfs_to_server)
}

/// Whether a request writes pages of the page cache, not what a program writes past it.
#[inline(always)]
fn is_write_back(request: Addr) -> bool {
    let origin: u8 = read(request, layout!(netfs_request_origin)).unwrap_or(0);
    let origin = u32::from(origin);
    origin == layout!(netfs_write_back) || origin == layout!(netfs_write_through)
}

/// `TP_PROTO(struct netfs_io_request *rreq, struct netfs_io_subrequest *sreq, int error, enum
/// netfs_failure what)` of `netfs_failure` (include/trace/events/netfs.h): a subrequest ended in an
/// error. Called by `netfs_write_subrequest_terminated` (fs/netfs/write_collect.c) before the error
/// is recorded on the mapping and before write-back ends, both of which the collector does
/// (`netfs_collect_write_results`). With EAGAIN the subrequest is sent again.
#[raw_tracepoint(tracepoint = "netfs_failure")]
fn netfs_failed(ctx: RawTracePointContext) -> u32 {
    let (request, subrequest): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    let error = ctx.arg::<u64>(2) as i32;
    // An enum of one byte.
    let what = ctx.arg::<u64>(3) as u32 & 0xff;
    if what != layout!(netfs_fail_write) || error >= 0 || error == -EAGAIN {
        return 0;
    }
    if !is_to_server(subrequest) || !is_write_back(request) {
        return 0;
    }
    let Some(inode) = read_ptr(request, layout!(netfs_request_inode)) else {
        return 0;
    };
    let start: u64 = read(subrequest, layout!(netfs_part_start)).unwrap_or(0);
    let len: u64 = read(subrequest, layout!(netfs_part_len)).unwrap_or(0);
    let done: u64 = read(subrequest, layout!(netfs_part_transferred)).unwrap_or(0);
    let outcome = Outcome {
        errno: error.unsigned_abs(),
        submitted: 0,
        hook: hook::NETFS,
    };
    let (first, end) = (start + done, start + len);
    report_range(
        inode,
        first & !PAGE_MASK,
        (end + PAGE_MASK) & !PAGE_MASK,
        &outcome,
    );
    0
}

/// `TP_PROTO(struct netfs_io_subrequest *sreq, enum netfs_sreq_trace what)` of `netfs_sreq`
/// (include/trace/events/netfs.h). `netfs_sreq_trace_terminated` comes from
/// `netfs_write_subrequest_terminated`, when `error` and `transferred` are set: the server has so
/// many bytes, those written past the page cache too. The rest, if any, is sent again.
#[raw_tracepoint(tracepoint = "netfs_sreq")]
fn netfs_written(ctx: RawTracePointContext) -> u32 {
    if !any_tracked() {
        return 0;
    }
    let subrequest: u64 = ctx.arg(0);
    let what = ctx.arg::<u64>(1) as u32 & 0xff;
    if what != layout!(netfs_terminated) || !is_to_server(subrequest) {
        return 0;
    }
    if read::<i16>(subrequest, layout!(netfs_part_error)) != Some(0) {
        return 0;
    }
    if let Some(request) = read_ptr(subrequest, layout!(netfs_part_request))
        && let Some(inode) = read_ptr(request, layout!(netfs_request_inode))
        && tracked(inode).is_some()
    {
        let start: u64 = read(subrequest, layout!(netfs_part_start)).unwrap_or(0);
        let done: u64 = read(subrequest, layout!(netfs_part_transferred)).unwrap_or(0);
        report_written(inode, start, done, hook::NETFS);
    }
    0
}
