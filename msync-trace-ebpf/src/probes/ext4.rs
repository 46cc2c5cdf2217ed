//! ext4: finished bios, unwritten extents, pages whose blocks cannot be allocated.

use aya_log_ebpf::debug;
use msync_trace_ebpf::{FAILED_UNCONVERTED, InodeKey, KIND_CONVERTED, KIND_EVICTED};

use super::hook;
use crate::{
    bio::{OF_UNWRITTEN, Outcome, WHOLE, errno_of_status, report_bio, report_inode},
    emit::{Failure, range_event, write_failed},
    inode::{key_of, suspect},
    kread::{Addr, now, pid_tgid, read, read_ptr},
    maps::{EXT4_DISCARDS, Ext4Discard, any_tracked, config, count, layout},
};
use aya_ebpf::{
    macros::{kprobe, raw_tracepoint},
    programs::{ProbeContext, RawTracePointContext},
};

/// `EXT4_IO_END_UNWRITTEN` (fs/ext4/ext4.h), the same in all supported kernels.
const IO_END_UNWRITTEN: u32 = 1;
/// `EXT4_IO_END_FAILED`: 0x2 where it exists.
const IO_END_FAILED: u32 = 2;

const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const ENOSPC: u32 = 28;

/// Most extents of one `ext4_io_end` looked at.
const MAX_VECS: usize = 32;

/// Reports every extent of an io_end. After a failure none of them will be converted, so all of them
/// keep what was there before (zeros, or old blocks). A global function, which the verifier looks
/// at once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report_io_end(io_end: u64, errno: u64, submitted: u64, hook: u64) -> u32 {
    let Some(inode) = read_ptr(io_end, layout!(ext4_io_end_inode)) else {
        return 0;
    };
    let outcome = Outcome {
        errno: errno as u32,
        submitted,
        hook: hook as u32,
    };
    let head = io_end.wrapping_add(u64::from(layout!(ext4_io_end_vecs)));
    let mut node: u64 = read(head, 0).unwrap_or(0);
    for _ in 0..MAX_VECS {
        if node == 0 || node == head {
            return 0;
        }
        node = report_vec(node, inode, outcome.packed() | OF_UNWRITTEN, submitted);
    }
    count(|counters| &mut counters.walk_limit);
    0
}

/// Reports one extent; gives the address of the next, 0 for none. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report_vec(node: u64, inode: u64, outcome: u64, submitted: u64) -> u64 {
    let start: u64 = read(node, layout!(ext4_vec_offset)).unwrap_or(0);
    let size: u64 = read(node.wrapping_add(8), layout!(ext4_vec_offset)).unwrap_or(0);
    let next: u64 = read(node, 0).unwrap_or(0);
    if size == 0 {
        return next;
    }
    let end = (start + size + 4095) & !4095;
    report_inode(inode, start & !4095, end, outcome, submitted);
    next
}

/// What a finished bio of an `ext4_io_end` means.
#[inline(always)]
pub fn bio_ended(bio: Addr, root: Addr, bytes: u64, outcome: &Outcome) {
    let io_end = read::<u64>(root, layout!(bio_private)).unwrap_or(0);
    let mut outcome = *outcome;
    if outcome.errno != 0 && config!(ext4_errno) != 0 {
        outcome.errno = config!(ext4_errno);
    }
    let outcome = &outcome;
    if layout!(ext4_whole_io_end) == 1 {
        let flag: u32 = read(io_end, layout!(ext4_io_end_flag)).unwrap_or(0);
        if flag & IO_END_UNWRITTEN != 0 {
            if outcome.errno == 0 && flag & IO_END_FAILED != 0 {
                // A neighbour failed: this one reached the disk, but nothing will point at it.
                return;
            }
            if outcome.errno != 0 || any_tracked() {
                let (errno, hook) = (u64::from(outcome.errno), u64::from(outcome.hook));
                // The bio itself follows: it can also hold pages whose blocks were written before
                // and that are therefore in none of these extents.
                report_io_end(io_end, errno, outcome.submitted, hook);
            }
        }
    }
    report_bio(bio, bytes, outcome);
}

/// `static void ext4_end_bio(struct bio *bio)` (fs/ext4/page-io.c), all supported kernels: runs
/// before the error is recorded and before write-back ends.
#[kprobe]
fn ext4_end_bio(ctx: ProbeContext) -> u32 {
    let bio: u64 = ctx.arg(0).unwrap_or(0);
    let status: u8 = read(bio, layout!(bio_status)).unwrap_or(0);
    if status == 0 && !any_tracked() {
        return 0;
    }
    let outcome = Outcome {
        errno: errno_of_status(u32::from(status)),
        submitted: 0,
        hook: hook::EXT4_END_BIO,
    };
    bio_ended(bio, bio, WHOLE, &outcome);
    0
}

/// `static void mpage_release_unused_pages(struct mpage_da_data *mpd, bool invalidate)`
/// (fs/ext4/inode.c), 5.10 to 7.2: with `invalidate`, pages whose blocks cannot be allocated are
/// discarded: clean, and never on the disk. Nobody is told. The error comes later, in
/// [`ext4_writepages_result`].
#[kprobe]
fn ext4_release_unused(ctx: ProbeContext) -> u32 {
    let mpd: u64 = ctx.arg(0).unwrap_or(0);
    let invalidate: u64 = ctx.arg(1).unwrap_or(0);
    if invalidate & 0xff == 0 {
        return 0;
    }
    let Some(inode) = read_ptr(mpd, 0) else {
        return 0;
    };
    let shift = layout!(mpage_shift) & 63;
    let start: u64 = read::<u64>(mpd, layout!(mpage_start)).unwrap_or(0) << shift;
    let end: u64 = read::<u64>(mpd, layout!(mpage_next)).unwrap_or(0) << shift;
    if start < end {
        discarded(inode, start & !4095, (end + 4095) & !4095);
    }
    0
}

/// Pages were given up on this thread; the error is not known yet.
#[inline(always)]
fn discarded(inode: Addr, start: u64, end: u64) {
    let Some(key) = key_of(inode) else {
        return;
    };
    suspect(&key);
    let thread = pid_tgid();
    if let Some(discard) = EXT4_DISCARDS.get_ptr_mut(&thread) {
        // SAFETY: the entry belongs to this thread alone.
        let discard = unsafe { &mut *discard };
        if discard.inode == inode {
            if start < discard.start {
                discard.start = start;
            }
            if end > discard.end {
                discard.end = end;
            }
            return;
        }
    }
    let discard = Ext4Discard {
        inode,
        start,
        end,
        at: now(),
        given_up: 1,
    };
    if EXT4_DISCARDS.insert(&thread, &discard, 0).is_err() {
        count(|counters| &mut counters.call_map_full);
    }
}

/// `TP_PROTO(struct inode *inode, struct writeback_control *wbc, int ret, int pages_written)`,
/// all supported kernels: ends a write-back pass. With a journal ENOSPC has become 0 by now
/// (`ext4_do_writepages`), so 0 after a discard means ENOSPC.
#[raw_tracepoint(tracepoint = "ext4_writepages_result")]
fn ext4_writepages_result(ctx: RawTracePointContext) -> u32 {
    let inode: u64 = ctx.arg(0);
    let ret: i32 = ctx.arg::<u64>(2) as i32;
    let thread = pid_tgid();
    // SAFETY: the entry belongs to this thread alone.
    let Some(discard) = (unsafe { EXT4_DISCARDS.get(&thread) }).copied() else {
        return 0;
    };
    let _ = EXT4_DISCARDS.remove(&thread);
    if discard.inode != inode {
        return 0;
    }
    if discard.given_up == 0 && (ret >= 0 || ret == -ENOMEM || ret == -EAGAIN) {
        return 0;
    }
    let Some(key) = key_of(inode) else {
        return 0;
    };
    let errno = if ret < 0 { ret.unsigned_abs() } else { ENOSPC };
    debug!(
        &ctx,
        "inode {}: bytes {} to {} given up", key.ino, discard.start, discard.end
    );
    write_failed(
        hook::EXT4_RELEASE,
        &key,
        &Failure {
            inode,
            start: discard.start,
            end: discard.end,
            errno,
            submitted: 0,
            flags: 0,
            at: discard.at,
        },
    );
    // After ENOSPC they may have stayed dirty, unless it is known that they were given up.
    if discard.given_up == 1 || errno != ENOSPC {
        given_up(hook::EXT4_RELEASE, &key, discard.start, discard.end);
    }
    0
}

/// The pages stay where they are, but no longer up to date (`folio_clear_uptodate`): who reads the
/// file next reads the disk into them. Only a program that has them mapped goes on seeing its bytes.
#[inline(always)]
fn given_up(hook: u32, key: &InodeKey, start: u64, end: u64) {
    range_event(KIND_EVICTED, hook, key, start, end);
}

/// `TP_PROTO(struct inode *inode, loff_t start_pos, loff_t next_pos, struct writeback_control
/// *wbc, int ret)`, 6.18 and later: the same discard where kprobes cannot be had. ENOMEM and
/// EAGAIN leave the pages dirty; after ENOSPC they may have stayed dirty, then a later write
/// recovers them.
#[raw_tracepoint(tracepoint = "ext4_da_write_folios_end")]
fn ext4_folios_end(ctx: RawTracePointContext) -> u32 {
    let ret: i32 = ctx.arg::<u64>(4) as i32;
    if ret >= 0 || ret == -ENOMEM || ret == -EAGAIN {
        return 0;
    }
    let inode: u64 = ctx.arg(0);
    let start: u64 = ctx.arg(1);
    let end: u64 = ctx.arg(2);
    if start >= end {
        return 0;
    }
    let Some(key) = key_of(inode) else {
        return 0;
    };
    write_failed(
        hook::EXT4_FOLIOS_END,
        &key,
        &Failure {
            inode,
            start: start & !4095,
            end: (end + 4095) & !4095,
            errno: ret.unsigned_abs(),
            submitted: 0,
            flags: 0,
            at: now(),
        },
    );
    if ret.unsigned_abs() != ENOSPC {
        given_up(
            hook::EXT4_FOLIOS_END,
            &key,
            start & !4095,
            (end + 4095) & !4095,
        );
    }
    0
}

/// `TP_PROTO(struct inode *inode, struct ext4_map_blocks *map)`, all supported kernels: blocks are
/// about to be allocated for an extent of dirty pages. If the pass then ends in an error, these
/// are the pages that were given up. Only where neither kprobes nor [`ext4_folios_end`] can be
/// had; ENOSPC with a journal is not seen then (the pass ends in 0).
#[raw_tracepoint(tracepoint = "ext4_da_write_pages_extent")]
fn ext4_extent(ctx: RawTracePointContext) -> u32 {
    let inode: u64 = ctx.arg(0);
    let (start, end) = bytes_of_map(inode, ctx.arg(1));
    let discard = Ext4Discard {
        inode,
        start,
        end,
        at: now(),
        given_up: 0,
    };
    if EXT4_DISCARDS.insert(&pid_tgid(), &discard, 0).is_err() {
        count(|counters| &mut counters.call_map_full);
    }
    0
}

/// The file's bytes in the pages of an extent.
#[inline(always)]
fn bytes_of_map(inode: Addr, map: Addr) -> (u64, u64) {
    // struct ext4_map_blocks { ext4_fsblk_t m_pblk; ext4_lblk_t m_lblk; unsigned int m_len; ... }
    let block: u32 = read(map, 8).unwrap_or(0);
    let blocks: u32 = read(map, 12).unwrap_or(0);
    let bits: u8 = read(inode, layout!(inode_blkbits)).unwrap_or(12);
    let shift = u32::from(bits) & 31;
    let start = u64::from(block) << shift;
    let end = start + (u64::from(blocks) << shift);
    (start & !4095, (end + 4095) & !4095)
}

/// `EXT4_GET_BLOCKS_CONVERT` (fs/ext4/ext4.h), part of every conversion of unwritten extents.
const GET_BLOCKS_CONVERT: u32 = 0x10;

/// `TP_PROTO(struct inode *inode, unsigned flags, struct ext4_map_blocks *map, int ret)`, all
/// supported kernels: the conversion of an unwritten extent, of write-back or of a write with
/// `O_DIRECT`. If it failed after its data was written well, the bytes read as zeros from then on;
/// only a line in the kernel log says so.
#[raw_tracepoint(tracepoint = "ext4_ext_map_blocks_exit")]
fn ext4_map_exit(ctx: RawTracePointContext) -> u32 {
    let ret: i32 = ctx.arg::<u64>(3) as i32;
    let flags: u32 = ctx.arg(1);
    if flags & GET_BLOCKS_CONVERT == 0 || (ret >= 0 && !any_tracked()) {
        return 0;
    }
    let inode: u64 = ctx.arg(0);
    let Some(key) = key_of(inode) else {
        return 0;
    };
    let (start, end) = bytes_of_map(inode, ctx.arg(2));
    if ret >= 0 {
        range_event(KIND_CONVERTED, hook::EXT4_MAP, &key, start, end);
        return 0;
    }
    write_failed(
        hook::EXT4_MAP,
        &key,
        &Failure {
            inode,
            start,
            end,
            errno: ret.unsigned_abs(),
            submitted: 0,
            flags: FAILED_UNCONVERTED,
            at: now(),
        },
    );
    0
}
