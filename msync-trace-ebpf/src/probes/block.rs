//! Tier 3: the block layer's tracepoints, where no function can be hooked. Whose write it was is
//! read from `bi_end_io`.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use msync_trace_ebpf::{OWNER_BTRFS, OWNER_EXT4, OWNER_IOMAP, OWNER_PAGES};

use super::{btrfs::suspect_bio, ext4, hook, iomap, storage::flush_failed};
use crate::{
    bio::{Outcome, WHOLE, errno_of_status, ioend_of, owner_of, report_bio, root_of},
    kread::{Addr, read},
    maps::{any_tracked, config, count, layout},
};

/// `REQ_OP_MASK`, `REQ_OP_WRITE` and `REQ_OP_FLUSH` (include/linux/blk_types.h), `REQ_OP_ZONE_APPEND` is 7 from
/// 5.18 on and 13 before.
const OP_MASK: u32 = 0xff;
const OP_WRITE: u32 = 1;
const OP_FLUSH: u32 = 2;
const OP_ZONE_APPEND: u32 = 7;
const OP_ZONE_APPEND_OLD: u32 = 13;

/// Most bios of one request looked at: so many strides of so many.
const STRIDES: usize = 32;
const STRIDE: usize = 16;

#[inline(always)]
pub fn is_write(bio: Addr) -> bool {
    let op = read::<u32>(bio, layout!(bio_opf)).unwrap_or(0) & OP_MASK;
    op == OP_WRITE || op == OP_ZONE_APPEND || op == OP_ZONE_APPEND_OLD
}

/// One bio of the page cache, or a part that was split off one, ended.
///
/// A global function: the verifier looks at it once, not at each bio of a request.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn part_ended(bio: u64, bytes: u64, errno: u64, submitted: u64) -> u32 {
    let errno = errno as u32;
    let outcome = Outcome {
        errno,
        submitted,
        hook: hook::BLOCK,
    };
    let root = root_of(bio);
    match owner_of(root) {
        OWNER_PAGES => report_bio(bio, bytes, &outcome),
        OWNER_EXT4 => ext4::bio_ended(bio, root, bytes, &outcome),
        OWNER_IOMAP => {
            if errno != 0 {
                // The kernel fails the whole ioend for one bad part.
                iomap::ioend_ended(ioend_of(root), errno, hook::BLOCK);
            } else if read::<u8>(root, layout!(bio_status)) == Some(0) {
                report_bio(bio, bytes, &outcome);
            }
        }
        OWNER_BTRFS if errno != 0 => suspect_bio(bio),
        _ => {}
    }
    0
}

/// `TP_PROTO(struct request *rq, blk_status_t error, unsigned int nr_bytes)` (5.16 and later;
/// before: `int error`, a negative errno): `nr_bytes` of a request end. Request-based devices.
#[raw_tracepoint(tracepoint = "block_rq_complete")]
fn block_rq_complete(ctx: RawTracePointContext) -> u32 {
    let error: u64 = ctx.arg(1);
    let errno = if config!(rq_error_is_status) == 1 {
        errno_of_status(error as u32 & 0xff)
    } else {
        (error as i32).unsigned_abs()
    };
    if errno == 0 && !any_tracked() {
        return 0;
    }
    let request: u64 = ctx.arg(0);
    let mut left = u64::from(ctx.arg::<u32>(2));
    let submitted: u64 = read(request, layout!(rq_start_time)).unwrap_or(0);
    let mut bio: u64 = read(request, layout!(rq_bio)).unwrap_or(0);
    if errno != 0 && bio == 0 {
        let op = read::<u32>(request, layout!(rq_flags)).unwrap_or(0) & OP_MASK;
        if op == OP_FLUSH {
            flush_failed(request, errno);
        }
        return 0;
    }
    for _ in 0..STRIDES {
        left = stride_ended(bio, left, u64::from(errno), submitted);
        if left == 0 {
            return 0;
        }
        bio = after_stride(bio);
    }
    if bio != 0 {
        count(|counters| &mut counters.walk_limit);
    }
    0
}

/// The first bios from here on of a request, of which `left` bytes ended: how many are left after
/// them, 0 if there is nothing more to see. A global function, see [`part_ended`]: the verifier
/// looks at the bios of one stride, not of all.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn stride_ended(bio: u64, left: u64, errno: u64, submitted: u64) -> u64 {
    let (mut bio, mut left) = (bio, left);
    for _ in 0..STRIDE {
        if left == 0 || bio == 0 || !is_write(bio) {
            return 0;
        }
        left = part_of_request_ended(bio, left, errno, submitted);
        bio = read(bio, layout!(bio_next)).unwrap_or(0);
    }
    left
}

/// The bio behind the first [`STRIDE`] from here on; 0 if there is none. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn after_stride(bio: u64) -> u64 {
    let mut bio = bio;
    for _ in 0..STRIDE {
        bio = read(bio, layout!(bio_next)).unwrap_or(0);
    }
    bio
}

/// One bio of a request, of which `left` bytes ended from this bio on: how many are left after it.
#[inline(always)]
fn part_of_request_ended(bio: u64, left: u64, errno: u64, submitted: u64) -> u64 {
    let size = u64::from(read::<u32>(bio, layout!(bio_iter_size)).unwrap_or(0));
    part_ended(bio, left, errno, submitted);
    left.saturating_sub(size)
}

/// `TP_PROTO(struct request_queue *q, struct bio *bio)`, all supported kernels: a bio of a
/// bio-based device (device mapper, md, brd, zram ...) ends. Its `bi_iter` may have been advanced,
/// so its segments are taken whole; a clone has none of its own.
#[raw_tracepoint(tracepoint = "block_bio_complete")]
fn block_bio_complete(ctx: RawTracePointContext) -> u32 {
    let bio: u64 = ctx.arg(1);
    let status: u8 = read(bio, layout!(bio_status)).unwrap_or(0);
    if (status == 0 && !any_tracked()) || !is_write(bio) {
        return 0;
    }
    let errno = errno_of_status(u32::from(status));
    let outcome = Outcome {
        errno,
        submitted: 0,
        hook: hook::BLOCK,
    };
    match owner_of(bio) {
        OWNER_PAGES => report_bio(bio, WHOLE, &outcome),
        OWNER_EXT4 => ext4::bio_ended(bio, bio, WHOLE, &outcome),
        OWNER_IOMAP => iomap::ioend_ended(ioend_of(bio), errno, hook::BLOCK),
        OWNER_BTRFS if errno != 0 => suspect_bio(bio),
        _ => {}
    }
    0
}
