//! What the kernel records of write errors and whom it tells (mm/filemap.c, lib/errseq.c).
//! Every filesystem goes through here: the fallback for those that nobody thought of.

use aya_ebpf::{
    macros::{fentry, kprobe, raw_tracepoint},
    programs::{FEntryContext, ProbeContext, RawTracePointContext},
};
use aya_log_ebpf::debug;
use msync_trace_ebpf::{KIND_TOLD, KIND_WRITE_OK};

use super::{hook, memory::note_recorded_by};
use crate::{
    bio::{Outcome, bytes_of_folio, report_range},
    emit::{Failure, file_event, range_event, write_failed},
    inode::{host_of, inode_of_file, key_of, note_recorded},
    kread::{Addr, argument, now, read, read_ptr},
    maps::layout,
};

/// `ERRSEQ_SEEN`'s neighbours: the error number in an `errseq_t`.
const ERRSEQ_ERRNO: u32 = 0xfff;

/// A page-exact hook that ran this long ago, ns, saw the same failure.
const SAME_FAILURE_NS: u64 = 2_000_000_000;

/// A write error was recorded on a mapping. Kernels 4.15 and later.
///
/// `TP_PROTO(struct address_space *mapping, errseq_t eseq)`: `eseq` is the *previous* value, so
/// the error is read from `mapping->wb_err`.
#[raw_tracepoint(tracepoint = "filemap_set_wb_err")]
fn recorded(ctx: RawTracePointContext) -> u32 {
    let mapping: u64 = ctx.arg(0);
    let Some(inode) = host_of(mapping) else {
        return 0;
    };
    let Some(key) = key_of(inode) else {
        return 0;
    };
    if note_recorded(&key, SAME_FAILURE_NS) {
        return 0;
    }
    note_recorded_by(inode);
    let recorded: u32 = read(mapping, layout!(mapping_wb_err)).unwrap_or(5);
    debug!(
        &ctx,
        "inode {}: error {} recorded, no page known",
        key.ino,
        recorded & ERRSEQ_ERRNO
    );
    write_failed(
        hook::RECORDED,
        &key,
        &Failure {
            inode,
            start: 0,
            end: 0,
            errno: recorded & ERRSEQ_ERRNO,
            submitted: 0,
            flags: 0,
            at: now(),
        },
    );
    0
}

/// An open file description is told of an error. Kernels 4.15 and later; only when there is
/// something new to tell.
///
/// `TP_PROTO(struct file *file, errseq_t old)`; `file->f_wb_err` holds the new value already.
#[raw_tracepoint(tracepoint = "file_check_and_advance_wb_err")]
fn told(ctx: RawTracePointContext) -> u32 {
    let file: u64 = ctx.arg(0);
    let Some(key) = inode_of_file(file).and_then(key_of) else {
        return 0;
    };
    let now_known: u32 = read(file, layout!(file_wb_err)).unwrap_or(0);
    debug!(
        &ctx,
        "inode {}: a file is told of error {}",
        key.ino,
        now_known & ERRSEQ_ERRNO
    );
    file_event(KIND_TOLD, hook::TOLD, &key, file, now_known & ERRSEQ_ERRNO);
    0
}

/// `void mark_buffer_write_io_error(struct buffer_head *bh)` (fs/buffer.c), 4.18 and later: a
/// buffer of a file's page failed. ext4 data=journal checkpoints end here, and all of ext2, vfat.
#[inline(always)]
fn buffer_failed(bh: Addr) {
    let Some(folio) = read_ptr(bh, layout!(bh_folio)).and_then(crate::bio::head_of) else {
        return;
    };
    let Some((mapping, start, end)) = bytes_of_folio(folio) else {
        return;
    };
    let Some(inode) = host_of(mapping) else {
        return;
    };
    // The grain is the folio: where in a large one the buffer lies cannot be told from `b_data`.
    report_range(
        inode,
        start,
        end,
        &Outcome {
            errno: 5,
            submitted: 0,
            hook: hook::BUFFER,
        },
    );
}

/// See [`buffer_failed`].
#[fentry(function = "mark_buffer_write_io_error")]
fn buffer_failed_fentry(ctx: FEntryContext) -> i32 {
    buffer_failed(argument(&ctx, 0));
    0
}

/// See [`buffer_failed`].
#[kprobe]
fn buffer_failed_kprobe(ctx: ProbeContext) -> u32 {
    buffer_failed(ctx.arg(0).unwrap_or(0));
    0
}

/// `iomap_dio`: bit of `flags` that says it is a write (`IOMAP_DIO_WRITE`, fs/iomap/direct-io.c).
const IOMAP_DIO_WRITE: u32 = 1 << 30;

/// `ssize_t iomap_dio_complete(struct iomap_dio *dio)`: bytes were written past the page cache.
/// Kernels 5.10 and later; ext4, XFS, btrfs and others. Attached on demand.
#[inline(always)]
fn direct_write(dio: Addr) {
    let flags: u32 = read(dio, layout!(dio_flags)).unwrap_or(0);
    let error: i32 = read(dio, layout!(dio_error)).unwrap_or(-1);
    if flags & IOMAP_DIO_WRITE == 0 || error != 0 {
        return;
    }
    let Some(iocb) = read_ptr(dio, layout!(dio_iocb)) else {
        return;
    };
    let Some(file) = read_ptr(iocb, layout!(iocb_filp)) else {
        return;
    };
    let Some(key) = inode_of_file(file).and_then(key_of) else {
        return;
    };
    let start: u64 = read(iocb, layout!(iocb_pos)).unwrap_or(0);
    let size: u64 = read(dio, layout!(dio_size)).unwrap_or(0);
    // Whole pages only: the rest of a page that was overwritten in part is still lost.
    let first = (start + 4095) & !4095;
    let end = (start + size) & !4095;
    if first < end {
        range_event(KIND_WRITE_OK, hook::DIRECT, &key, first, end);
    }
}

/// See [`direct_write`].
#[fentry(function = "iomap_dio_complete")]
fn direct_write_fentry(ctx: FEntryContext) -> i32 {
    direct_write(argument(&ctx, 0));
    0
}

/// See [`direct_write`].
#[kprobe]
fn direct_write_kprobe(ctx: ProbeContext) -> u32 {
    direct_write(ctx.arg(0).unwrap_or(0));
    0
}

/// `TP_PROTO(struct module *mod)`, all supported kernels with modules: a filesystem may have come
/// that could not be hooked before.
#[raw_tracepoint(tracepoint = "module_load")]
fn module_loaded(ctx: RawTracePointContext) -> u32 {
    crate::emit::module_loaded(ctx.arg(0));
    0
}
