//! iomap write-back (XFS and others): one ioend is one run of file bytes that succeeded or failed
//! as a whole, conversions of unwritten and copy-on-write extents included.

use aya_ebpf::{
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};

use super::hook;
use crate::{
    bio::{Outcome, bytes_of_folio, report_range},
    emit::{Failure, write_failed},
    inode::{host_of, key_of},
    kread::{Addr, argument, now, read, read_ptr},
    maps::{any_tracked, layout},
};

/// Reports an ioend.
#[inline(always)]
pub fn ioend_ended(ioend: Addr, errno: u32, hook: u32) {
    if errno == 0 && !any_tracked() {
        return;
    }
    let Some(inode) = read_ptr(ioend, layout!(ioend_inode)) else {
        return;
    };
    let start: u64 = read(ioend, layout!(ioend_offset)).unwrap_or(0);
    let size: u64 = read(ioend, layout!(ioend_size)).unwrap_or(0);
    if size == 0 {
        return;
    }
    let outcome = Outcome {
        errno,
        submitted: 0,
        hook,
    };
    report_range(
        inode,
        start & !4095,
        (start + size + 4095) & !4095,
        &outcome,
    );
}

/// A negative `int` as a positive errno.
#[inline(always)]
fn errno(error: u64) -> u32 {
    let error = error as i32;
    if error < 0 { error.unsigned_abs() } else { 0 }
}

/// `iomap_finish_ioend(struct iomap_ioend *ioend, int error)` (fs/iomap/buffered-io.c), 5.10 to
/// 6.12.
#[fentry(function = "iomap_finish_ioend")]
fn iomap_finish_ioend_fentry(ctx: FEntryContext) -> i32 {
    ioend_ended(argument(&ctx, 0), errno(argument(&ctx, 1)), hook::IOMAP);
    0
}

/// See [`iomap_finish_ioend_fentry`].
#[kprobe]
fn iomap_finish_ioend_kprobe(ctx: ProbeContext) -> u32 {
    ioend_ended(
        ctx.arg(0).unwrap_or(0),
        errno(ctx.arg(1).unwrap_or(0)),
        hook::IOMAP,
    );
    0
}

#[inline(always)]
fn ioend_with_error(ioend: Addr) {
    let error: i32 = read(ioend, layout!(ioend_error)).unwrap_or(0);
    ioend_ended(
        ioend,
        if error < 0 { error.unsigned_abs() } else { 0 },
        hook::IOMAP,
    );
}

/// `iomap_finish_ioend_buffered(struct iomap_ioend *ioend)` in 6.18,
/// `iomap_finish_ioend_buffered_write` in 7.2: the error is `ioend->io_error`.
#[fentry(function = "iomap_finish_ioend_buffered")]
fn iomap_finish_buffered_fentry(ctx: FEntryContext) -> i32 {
    ioend_with_error(argument(&ctx, 0));
    0
}

/// See [`iomap_finish_buffered_fentry`].
#[kprobe]
fn iomap_finish_buffered_kprobe(ctx: ProbeContext) -> u32 {
    ioend_with_error(ctx.arg(0).unwrap_or(0));
    0
}

/// `xfs_discard_folio(struct folio *folio, loff_t pos)` (6.1 and later), `xfs_discard_page(struct
/// page *page, loff_t fileoff)` (5.10): blocks could not be mapped. The errno is recorded just
/// after, on the same thread; EIO is what it is nearly always.
#[kprobe]
fn xfs_discard(ctx: ProbeContext) -> u32 {
    let folio: u64 = ctx.arg(0).unwrap_or(0);
    let Some((mapping, start, end)) = bytes_of_folio(folio) else {
        return 0;
    };
    let Some(inode) = host_of(mapping) else {
        return 0;
    };
    let Some(key) = key_of(inode) else {
        return 0;
    };
    let failure = Failure {
        inode,
        start,
        end,
        errno: 5,
        submitted: 0,
        flags: 0,
        at: now(),
    };
    write_failed(hook::XFS_DISCARD, &key, &failure);
    0
}
