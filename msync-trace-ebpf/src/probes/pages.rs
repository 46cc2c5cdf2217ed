//! What happens to pages and inodes afterwards: dirty again, evicted, truncated, gone.

use aya_ebpf::{
    macros::{fentry, kprobe, raw_tracepoint},
    programs::{FEntryContext, ProbeContext, RawTracePointContext},
};
use msync_trace_ebpf::{ABSENT, KIND_DISCARDED, KIND_EVICTED, KIND_GONE, KIND_REDIRTIED};

use super::hook;
use crate::{
    bio::bytes_of_folio,
    emit::{gone, page_event, range_event},
    inode::{host_of, key_of, note_read_anew, tracked},
    kread::{Addr, argument, read},
    maps::{any_tracked, layout},
};

const PAGE_MASK: u64 = 4095;

/// `void truncate_inode_pages_range(struct address_space *mapping, loff_t lstart, loff_t lend)`
/// (mm/truncate.c), all supported kernels: truncation, hole punching, deletion. An inode that is
/// only leaving the cache has no users left (`i_count` 0) and still has links: that gives up
/// nothing.
#[inline(always)]
fn truncated(mapping: Addr, first: u64, last: u64) {
    if !any_tracked() {
        return;
    }
    let Some(inode) = host_of(mapping) else {
        return;
    };
    let Some(key) = key_of(inode) else {
        return;
    };
    let users: u32 = read(inode, layout!(inode_count)).unwrap_or(1);
    let links: u32 = read(inode, layout!(inode_nlink)).unwrap_or(1);
    if users == 0 && links != 0 {
        return;
    }
    let start = (first + PAGE_MASK) & !PAGE_MASK;
    let end = if last == u64::MAX {
        u64::MAX
    } else {
        (last + 1) & !PAGE_MASK
    };
    if start < end {
        range_event(KIND_DISCARDED, hook::TRUNCATE, &key, start, end);
    }
}

/// See [`truncated`].
#[fentry(function = "truncate_inode_pages_range")]
fn truncate_fentry(ctx: FEntryContext) -> i32 {
    truncated(argument(&ctx, 0), argument(&ctx, 1), argument(&ctx, 2));
    0
}

/// See [`truncated`].
#[kprobe]
fn truncate_kprobe(ctx: ProbeContext) -> u32 {
    truncated(
        ctx.arg(0).unwrap_or(0),
        ctx.arg(1).unwrap_or(0),
        ctx.arg(2).unwrap_or(0),
    );
    0
}

/// `TP_PROTO(struct folio *folio)` (5.10: `struct page *page`): a page leaves the page cache, by
/// reclaim or truncation. Attached on demand. What lies past the end of the file was truncated.
#[raw_tracepoint(tracepoint = "mm_filemap_delete_from_page_cache")]
fn cache_delete(ctx: RawTracePointContext) -> u32 {
    let Some((mapping, start, end)) = bytes_of_folio(ctx.arg(0)) else {
        return 0;
    };
    let Some(inode) = host_of(mapping) else {
        return 0;
    };
    let Some((key, _)) = tracked(inode) else {
        return 0;
    };
    let size: u64 = read(inode, layout!(inode_size)).unwrap_or(u64::MAX);
    if start >= size {
        range_event(KIND_DISCARDED, hook::CACHE_DELETE, &key, start, end);
    } else {
        page_event(KIND_EVICTED, hook::CACHE_DELETE, &key, start, end);
    }
    0
}

/// `TP_PROTO(struct folio *folio, struct address_space *mapping)`, `writeback_dirty_folio` from
/// 5.18 on, `writeback_dirty_page` before: a page became dirty. Attached on demand.
#[raw_tracepoint(tracepoint = "writeback_dirty_folio")]
fn dirtied(ctx: RawTracePointContext) -> u32 {
    let mapping: u64 = ctx.arg(1);
    if mapping == 0 {
        return 0;
    }
    let Some(inode) = host_of(mapping) else {
        return 0;
    };
    let Some((key, state)) = tracked(inode) else {
        return 0;
    };
    let recorded: u32 = read(mapping, layout!(mapping_wb_err)).unwrap_or(0);
    if recorded == 0 && state.recorded != 0 {
        // The inode was read anew since its error was recorded: what was in memory then is gone,
        // and what becomes dirty now is something else.
        gone(KIND_GONE, hook::DIRTY, &key, 1);
        note_read_anew(&key);
    }
    if let Some((_, start, end)) = bytes_of_folio(ctx.arg(0)) {
        page_event(KIND_REDIRTIED, hook::DIRTY, &key, start, end);
    }
    0
}

#[inline(always)]
fn inode_gone(inode: Addr) {
    if let Some((key, _)) = tracked(inode) {
        let links: u32 = read(inode, layout!(inode_nlink)).unwrap_or(1);
        gone(KIND_GONE, hook::EVICT, &key, u64::from(links));
    }
}

/// `static void evict(struct inode *inode)` (fs/inode.c), all supported kernels. Attached on
/// demand.
#[fentry(function = "evict")]
fn evict_fentry(ctx: FEntryContext) -> i32 {
    inode_gone(argument(&ctx, 0));
    0
}

/// See [`evict_fentry`].
#[kprobe]
fn evict_kprobe(ctx: ProbeContext) -> u32 {
    inode_gone(ctx.arg(0).unwrap_or(0));
    0
}

/// `ext4_evict_inode` and `btrfs_inode_evict`, both `TP_PROTO(struct inode *inode)`, all
/// supported kernels: tier 3.
#[raw_tracepoint(tracepoint = "ext4_evict_inode")]
fn evict_tracepoint(ctx: RawTracePointContext) -> u32 {
    inode_gone(ctx.arg(0));
    0
}

/// `xfs_destroy_inode`, `TP_PROTO(struct xfs_inode *ip)`: tier 3.
#[raw_tracepoint(tracepoint = "xfs_destroy_inode")]
fn evict_xfs(ctx: RawTracePointContext) -> u32 {
    if layout!(xfs_inode_vnode) == ABSENT {
        return 0;
    }
    inode_gone(ctx.arg::<u64>(0) + u64::from(layout!(xfs_inode_vnode)));
    0
}

/// `ext4_punch_hole`, `ext4_zero_range`: `TP_PROTO(struct inode *inode, loff_t offset, loff_t
/// len, int mode)`: tier 3, where system calls of io_uring and nfsd are not seen.
#[raw_tracepoint(tracepoint = "ext4_punch_hole")]
fn ext4_hole(ctx: RawTracePointContext) -> u32 {
    if !any_tracked() {
        return 0;
    }
    let Some(key) = key_of(ctx.arg(0)) else {
        return 0;
    };
    let first: u64 = ctx.arg(1);
    let len: u64 = ctx.arg(2);
    let start = (first + PAGE_MASK) & !PAGE_MASK;
    let end = (first + len) & !PAGE_MASK;
    if start < end {
        range_event(KIND_DISCARDED, hook::TRUNCATE, &key, start, end);
    }
    0
}
