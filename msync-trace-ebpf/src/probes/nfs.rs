//! NFS client: the server refuses a WRITE or a COMMIT, or does not answer on a soft mount. One
//! `nfs_page` is one run of bytes within a page or folio.

use aya_ebpf::{
    macros::{kprobe, raw_tracepoint},
    programs::{ProbeContext, RawTracePointContext},
};

use super::hook;
use crate::{
    bio::{Outcome, head_of, report_range},
    inode::host_of,
    kread::{Addr, pid_tgid, read, read_ptr},
    maps::{NFS_FAILED, any_tracked, layout},
};

const PAGE_MASK: u64 = 4095;

/// The inode whose page a request writes: on 5.10 the tracepoints do not give it.
#[inline(always)]
fn inode_of(request: Addr) -> Option<Addr> {
    let page = read_ptr(request, layout!(nfs_page_folio))?;
    let mapping = read_ptr(head_of(page)?, layout!(folio_mapping))?;
    if mapping & 3 != 0 {
        return None;
    }
    host_of(mapping)
}

/// First byte and one past the last of a request.
#[inline(always)]
fn bytes_of(request: Addr) -> Option<(u64, u64)> {
    let index: u64 = read(request, layout!(nfs_page_index))?;
    let offset: u32 = read(request, layout!(nfs_page_offset))?;
    let bytes: u32 = read(request, layout!(nfs_page_bytes))?;
    let start = (index << 12) + u64::from(offset);
    Some((start, start + u64::from(bytes)))
}

/// A request failed for good.
#[inline(always)]
fn failed(inode: Addr, request: Addr, error: i32) {
    // Without room the request counts as written when it is taken off: the entry is the thread's
    // own and the oldest ones make room.
    let _ = NFS_FAILED.insert(&pid_tgid(), &request, 0);
    let Some((start, end)) = bytes_of(request) else {
        return;
    };
    let outcome = Outcome {
        errno: if error < 0 { error.unsigned_abs() } else { 5 },
        submitted: 0,
        hook: hook::NFS,
    };
    report_range(
        inode,
        start & !PAGE_MASK,
        (end + PAGE_MASK) & !PAGE_MASK,
        &outcome,
    );
}

/// `nfs_write_error`, `nfs_comp_error`, `nfs_commit_error` (fs/nfs/nfstrace.h), all `TP_PROTO(const
/// struct inode *inode, const struct nfs_page *req, int error)`, 6.1 and later: a request could not
/// be sent, its WRITE failed, or its COMMIT. Run before the error is recorded and before write-back
/// ends, once for each request.
#[raw_tracepoint(tracepoint = "nfs_write_error")]
fn nfs_failed(ctx: RawTracePointContext) -> u32 {
    failed(ctx.arg(0), ctx.arg(1), ctx.arg::<u64>(2) as i32);
    0
}

/// See [`nfs_failed`]; 5.10: `TP_PROTO(const struct nfs_page *req, int error)`.
#[raw_tracepoint(tracepoint = "nfs_write_error")]
fn nfs_failed_request(ctx: RawTracePointContext) -> u32 {
    let request: u64 = ctx.arg(0);
    if let Some(inode) = inode_of(request) {
        failed(inode, request, ctx.arg::<u64>(1) as i32);
    }
    0
}

/// `static void nfs_inode_remove_request(struct nfs_page *req)` (fs/nfs/write.c), all supported
/// kernels: a request is done, written and committed or failed just before on this thread. What
/// covers a page only in part does not recover it.
#[kprobe]
fn nfs_done(ctx: ProbeContext) -> u32 {
    if !any_tracked() {
        return 0;
    }
    let request: u64 = ctx.arg(0).unwrap_or(0);
    let thread = pid_tgid();
    // SAFETY: the entry belongs to this thread alone.
    if unsafe { NFS_FAILED.get(&thread) }.copied() == Some(request) {
        let _ = NFS_FAILED.remove(&thread);
        return 0;
    }
    let Some(inode) = inode_of(request) else {
        return 0;
    };
    let Some((start, end)) = bytes_of(request) else {
        return 0;
    };
    let size: u64 = read(inode, layout!(inode_size)).unwrap_or(u64::MAX);
    let end = if end < size { end } else { end + PAGE_MASK };
    let first = (start + PAGE_MASK) & !PAGE_MASK;
    let end = end & !PAGE_MASK;
    if first < end {
        let outcome = Outcome {
            errno: 0,
            submitted: 0,
            hook: hook::NFS,
        };
        report_range(inode, first, end, &outcome);
    }
    0
}
