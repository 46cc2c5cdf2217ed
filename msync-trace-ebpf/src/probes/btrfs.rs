//! btrfs: the ordered extent decides. One bad block loses the whole extent; with several copies a
//! failing device is no failure at all.

use aya_ebpf::{
    macros::{kprobe, raw_tracepoint},
    programs::{ProbeContext, RawTracePointContext},
};

use msync_trace_ebpf::KIND_WRITE_OK;

use super::hook;
use crate::{
    emit::{Failure, range_event, write_failed},
    inode::{host_of, key_of, state_of, suspect},
    kread::{Addr, now, read, read_ptr},
    maps::{any_tracked, layout},
};

/// `ERRSEQ`: error number bits.
const ERRSEQ_ERRNO: u32 = 0xfff;

/// `TP_PROTO(const struct btrfs_inode *inode, const struct btrfs_ordered_extent *ordered)`, all
/// supported kernels: an ordered extent ends, well or with `BTRFS_ORDERED_IOERR`. The error itself
/// stands on the mapping.
#[raw_tracepoint(tracepoint = "btrfs_ordered_extent_remove")]
fn btrfs_ordered_end(ctx: RawTracePointContext) -> u32 {
    let ordered: u64 = ctx.arg(1);
    let flags: u64 = read(ordered, layout!(oe_flags)).unwrap_or(0);
    let failed = flags & u64::from(layout!(oe_ioerr_mask)) != 0;
    if !failed && !any_tracked() {
        return 0;
    }
    let direct = flags & u64::from(layout!(oe_direct_mask)) != 0;
    if failed && direct {
        return 0;
    }
    let Some(owner) = read_ptr(ordered, layout!(oe_inode)) else {
        return 0;
    };
    let inode = owner.wrapping_add(u64::from(layout!(oe_inode_to_vfs)));
    let start: u64 = read(ordered, layout!(oe_file_offset)).unwrap_or(0);
    let mut len: u64 = read(ordered, layout!(oe_num_bytes)).unwrap_or(0);
    if flags & u64::from(layout!(oe_truncated_mask)) != 0 {
        let kept: u64 = read(ordered, layout!(oe_truncated_len)).unwrap_or(len);
        len = len.min(kept);
    }
    if len == 0 {
        return 0;
    }
    let Some(key) = key_of(inode) else {
        return 0;
    };
    if key.subvolume != 0
        && key.subvolume != FS_TREE
        && key.subvolume.wrapping_sub(FIRST_FREE) > LAST_FREE - FIRST_FREE
    {
        return 0;
    }
    let start_page = start & !4095;
    let end_page = (start + len + 4095) & !4095;
    if !failed {
        range_event(
            KIND_WRITE_OK,
            hook::BTRFS_ORDERED,
            &key,
            start_page,
            end_page,
        );
        return 0;
    }
    // The worker runs after write-back has ended, and after a waiting fsync was told: the bytes
    // failed when their bio did, which is when the inode was last suspected.
    let at = now();
    let suspected = state_of(&key).map_or(0, |state| state.page_exact_at);
    let failed_at = if at.wrapping_sub(suspected) < SUSPECTED_NS {
        suspected
    } else {
        at
    };
    let failure = Failure {
        inode,
        start: start_page,
        end: end_page,
        errno: recorded_error(inode),
        submitted: failed_at,
        flags: 0,
        at: failed_at,
    };
    write_failed(hook::BTRFS_ORDERED, &key, &failure);
    0
}

/// How long before its ordered extent ends a bio may have failed, ns.
const SUSPECTED_NS: u64 = 10_000_000_000;

/// `BTRFS_FS_TREE_OBJECTID`, `BTRFS_FIRST_FREE_OBJECTID`, `BTRFS_LAST_FREE_OBJECTID`: roots of
/// subvolumes. Free-space-cache and relocation inodes belong to others. 0: root not readable.
const FS_TREE: u64 = 5;
const FIRST_FREE: u64 = 256;
const LAST_FREE: u64 = u64::MAX - 255;

/// The error on the inode's mapping; EIO where there is none.
#[inline(always)]
fn recorded_error(inode: Addr) -> u32 {
    let recorded = read_ptr(inode, layout!(inode_mapping))
        .and_then(|mapping| read::<u32>(mapping, layout!(mapping_wb_err)))
        .unwrap_or(0)
        & ERRSEQ_ERRNO;
    if recorded == 0 { 5 } else { recorded }
}

/// A data bio ended: `static void end_bbio_data_write(struct btrfs_bio *bbio)` (6.12 and later),
/// `end_bio_extent_writepage(struct btrfs_bio *bbio)` (6.1), `(struct bio *bio)` (5.10). Runs
/// before any folio's write-back ends and before the error is recorded: a waiting msync must find
/// the inode followed already (7.2 ends write-back first).
#[kprobe]
fn btrfs_data_bio(ctx: ProbeContext) -> u32 {
    let bio = ctx.arg::<u64>(0).unwrap_or(0) + u64::from(layout!(bbio_bio));
    let status: u8 = read(bio, layout!(bio_status)).unwrap_or(0);
    if status != 0 {
        suspect_bio(bio);
    }
    0
}

/// Follows the inode of the first page of a failing data bio.
#[inline(always)]
pub fn suspect_bio(bio: Addr) {
    let Some(vecs) = read_ptr(bio, layout!(bio_io_vec)) else {
        return;
    };
    let Some(page) = read_ptr(vecs, 0) else {
        return;
    };
    let inode = crate::bio::head_of(page)
        .and_then(|head| read_ptr(head, layout!(folio_mapping)))
        .filter(|mapping| mapping & 3 == 0)
        .and_then(host_of);
    if let Some(key) = inode.and_then(key_of) {
        suspect(&key);
    }
}
