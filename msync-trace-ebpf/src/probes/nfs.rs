//! NFS client: the server refuses a WRITE or a COMMIT, or does not answer on a soft mount. One
//! `nfs_page` is one run of bytes within a page or folio.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use super::hook;
use crate::{
    bio::{Outcome, head_of, report_range, report_written},
    inode::{host_of, tracked},
    kread::{Addr, read, read_ptr},
    maps::{any_tracked, count, layout},
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

/// `NFS_FILE_SYNC` (include/uapi/linux/nfs.h): the server wrote it to its disk already.
const FILE_SYNC: u32 = 2;

#[inline(always)]
fn succeeded(task: Addr) -> bool {
    read::<i32>(task, layout!(rpc_task_status)).unwrap_or(-1) >= 0
}

/// `TP_PROTO(const struct rpc_task *task, const struct nfs_pgio_header *hdr)` of
/// `nfs_writeback_done`, all supported kernels: a WRITE was answered, O_DIRECT ones too.
#[raw_tracepoint(tracepoint = "nfs_writeback_done")]
fn nfs_written(ctx: RawTracePointContext) -> u32 {
    if !any_tracked() {
        return 0;
    }
    let header: u64 = ctx.arg(1);
    let verifier = read_ptr(header, layout!(nfs_header_verf)).unwrap_or(0);
    let committed: u32 = read(verifier, layout!(nfs_verf_committed)).unwrap_or(0);
    if !succeeded(ctx.arg(0)) || committed != FILE_SYNC {
        return 0;
    }
    if let Some(inode) = read_ptr(header, layout!(nfs_header_inode))
        && tracked(inode).is_some()
    {
        let start: u64 = read(header, layout!(nfs_header_offset)).unwrap_or(0);
        let count: u32 = read(header, layout!(nfs_header_count)).unwrap_or(0);
        report_written(inode, start, u64::from(count), hook::NFS);
    }
    0
}

/// Requests of one COMMIT looked at: [`STRIDES`] times [`STRIDE`].
const STRIDES: usize = 64;
const STRIDE: usize = 64;

/// `TP_PROTO(const struct rpc_task *task, const struct nfs_commit_data *data)` of
/// `nfs_commit_done`, all supported kernels: a COMMIT was answered. What the server took under
/// another verifier it has forgotten; it will be sent again.
#[raw_tracepoint(tracepoint = "nfs_commit_done")]
fn nfs_committed(ctx: RawTracePointContext) -> u32 {
    if !any_tracked() || !succeeded(ctx.arg(0)) {
        return 0;
    }
    let data: u64 = ctx.arg(1);
    let Some(inode) = read_ptr(data, layout!(nfs_commit_inode)) else {
        return 0;
    };
    if tracked(inode).is_none() {
        return 0;
    }
    let verifier = read_ptr(data, layout!(nfs_commit_verf)).unwrap_or(0);
    let verifier: u64 = read(verifier, layout!(nfs_verf_verifier)).unwrap_or(0);
    let head = data + u64::from(layout!(nfs_commit_pages));
    let mut node: u64 = read(head, 0).unwrap_or(0);
    for _ in 0..STRIDES {
        node = commit_stride(node, head, inode, verifier);
    }
    if node != 0 {
        count(|counters| &mut counters.walk_limit);
    }
    0
}

/// Reports [`STRIDE`] requests of a COMMIT; gives the next, 0 at the end. A global function, which
/// the verifier looks at once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn commit_stride(node: u64, head: u64, inode: u64, verifier: u64) -> u64 {
    let mut node = node;
    for _ in 0..STRIDE {
        node = commit_request(node, head, inode, verifier);
    }
    node
}

/// See [`commit_stride`]: one request. `nfs_page.wb_list` is its first member.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn commit_request(node: u64, head: u64, inode: u64, verifier: u64) -> u64 {
    if node == 0 || node == head {
        return 0;
    }
    let taken_under: u64 = read(node, layout!(nfs_page_verf)).unwrap_or(0);
    if taken_under == verifier
        && let Some((start, end)) = bytes_of(node)
    {
        report_written(inode, start, end - start, hook::NFS);
    }
    read(node, 0).unwrap_or(0)
}
