//! Which bytes of which file a bio carries.
//!
//! A page-cache bio holds consecutive pages of one inode nearly always; a filesystem may merge
//! pages that are neighbours on the disk but not in the file, so each segment is looked at.

use msync_trace_ebpf::{ABSENT, FAILED_UNCONVERTED, KIND_CONVERTED, KIND_WRITE_OK, OWNER_CHAIN};

use crate::{
    emit::{Failure, range_event, write_failed},
    inode::{host_of, key_of},
    kread::{Addr, now, read, read_ptr},
    maps::{END_IO, any_tracked, count, layout},
};

/// Most segments looked at in one bio (`BIO_MAX_VECS` is 256).
const MAX_SEGMENTS: u32 = 256;

const PAGE_SIZE: u64 = 4096;

/// What a finished bio means for the pages in it.
#[derive(Clone, Copy)]
pub struct Outcome {
    /// Positive errno; 0: written.
    pub errno: u32,
    /// When the write was submitted; 0 unknown.
    pub submitted: u64,
    pub hook: u32,
}

impl Outcome {
    /// Errno and hook in one number.
    #[inline(always)]
    pub fn packed(&self) -> u64 {
        u64::from(self.errno) | u64::from(self.hook) << 32
    }

    #[inline(always)]
    fn unpacked(packed: u64, submitted: u64) -> Self {
        Self {
            errno: (packed & !OF_UNWRITTEN) as u32,
            hook: (packed >> 32) as u32,
            submitted,
        }
    }
}

/// Mark in a packed [`Outcome`]: it is about unwritten blocks, not about pages. Failed, they stay
/// unwritten; otherwise they will be converted.
pub const OF_UNWRITTEN: u64 = 1 << 31;

/// Where the bytes of a segment lie, `skip` bytes into it: owner mapping, and offset in the file.
#[inline(always)]
fn locate(segment: Addr, skip: u64) -> Option<(Addr, u64)> {
    // struct bio_vec { struct page *bv_page; unsigned int bv_len; unsigned int bv_offset; }
    let page: u64 = read(segment, 0)?;
    let offset = u64::from(read::<u32>(segment, 12)?) + skip;
    let size = u64::from(layout!(page_size_of));
    let page = cached_page(page + (offset >> 12) * size);
    let head = head_of(page)?;
    let mapping = read_ptr(head, layout!(folio_mapping))?;
    // Anonymous, movable and KSM pages mark the pointer's low bits (PAGE_MAPPING_FLAGS).
    if mapping & 3 != 0 {
        return None;
    }
    let index: u64 = read(head, layout!(folio_index))?;
    let within = page.wrapping_sub(head) / size.max(1);
    Some((mapping, (index + within) * PAGE_SIZE + (offset & 4095)))
}

/// The page of the page cache that this one stands for: itself, or what it is an encrypted copy of.
///
/// A copy belongs to no mapping and keeps the original in `private` (`fscrypt_is_bounce_page`,
/// `fscrypt_pagecache_page` in include/linux/fscrypt.h, all supported kernels). Others may keep there
/// what they like; an original lies in the same array of `struct page`. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn cached_page(page: u64) -> u64 {
    let head = head_of(page).unwrap_or(page);
    if read_ptr(head, layout!(folio_mapping)).is_some() || layout!(folio_private) == ABSENT {
        return page;
    }
    match read_ptr(page, layout!(folio_private)) {
        Some(original) if (original ^ page) >> PAGES_SPAN == 0 => original,
        _ => page,
    }
}

/// The array of all `struct page` spans at most 2^40 bytes (Documentation/arch/x86/x86_64/mm.rst).
const PAGES_SPAN: u32 = 40;

/// The head of the folio (compound page) that a page belongs to.
///
/// `page.compound_head` has bit 0 set in tail pages. 7.2 calls it `compound_info` and may keep an
/// address mask there instead of a pointer (include/linux/page-flags.h): such a mask is a small
/// negative number.
#[inline(always)]
pub fn head_of(page: Addr) -> Option<Addr> {
    let info: u64 = read(page, layout!(page_compound_head))?;
    if info & 1 == 0 {
        return Some(page);
    }
    if (info as i64) > -(1 << 40) {
        return Some(page & info & !1);
    }
    Some(info - 1)
}

/// The bytes of a folio in its file, and its mapping.
#[inline(always)]
pub fn bytes_of_folio(folio: Addr) -> Option<(Addr, u64, u64)> {
    let mapping = read_ptr(folio, layout!(folio_mapping))?;
    if mapping & 3 != 0 {
        return None;
    }
    let index: u64 = read(folio, layout!(folio_index))?;
    let start = index * PAGE_SIZE;
    Some((mapping, start, start + pages_of_folio(folio) * PAGE_SIZE))
}

/// How many pages a folio has.
#[inline(always)]
fn pages_of_folio(folio: Addr) -> u64 {
    let flags: u64 = read(folio, layout!(folio_flags)).unwrap_or(0);
    if layout!(folio_nr_pages) == ABSENT || flags & (1 << (layout!(page_head_bit) & 63)) == 0 {
        return 1;
    }
    match read::<u32>(folio, layout!(folio_nr_pages)) {
        Some(pages) if pages > 0 => u64::from(pages),
        _ => 1,
    }
}

/// Reports what became of a range of an inode: failed, or written after an earlier failure.
#[inline(always)]
pub fn report_range(inode: Addr, start: u64, end: u64, outcome: &Outcome) {
    if outcome.errno == 0 && !any_tracked() {
        return;
    }
    report_inode(inode, start, end, outcome.packed(), outcome.submitted);
}

/// Bytes that failed before may have reached the server of a network filesystem. What covers a page
/// only in part does not recover it, unless the file ends there.
#[inline(always)]
pub fn report_written(inode: Addr, start: u64, len: u64, hook: u32) {
    let size: u64 = read(inode, layout!(inode_size)).unwrap_or(u64::MAX);
    let end = start + len;
    let end = if end < size { end } else { end + 4095 } & !4095;
    let first = (start + 4095) & !4095;
    if first < end {
        let outcome = Outcome {
            errno: 0,
            submitted: 0,
            hook,
        };
        report_range(inode, first, end, &outcome);
    }
}

/// [`report_range`] for callers in loops: a global function, which the verifier looks at once and
/// not at each call. Numbers only, so that it can.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report_inode(
    inode: u64,
    start: u64,
    end: u64,
    outcome: u64,
    submitted: u64,
) -> u32 {
    let Some(key) = key_of(inode) else {
        return 0;
    };
    let of_unwritten = outcome & OF_UNWRITTEN != 0;
    let outcome = Outcome::unpacked(outcome, submitted);
    if outcome.errno == 0 {
        let kind = if of_unwritten {
            KIND_CONVERTED
        } else {
            KIND_WRITE_OK
        };
        range_event(kind, outcome.hook, &key, start, end);
    } else {
        write_failed(
            outcome.hook,
            &key,
            &Failure {
                inode,
                start,
                end,
                errno: outcome.errno,
                submitted: outcome.submitted,
                flags: if of_unwritten { FAILED_UNCONVERTED } else { 0 },
                at: now(),
            },
        );
    }
    0
}

/// All of `bi_io_vec[0..bi_vcnt]`: at completion `bi_iter` has been advanced already.
pub const WHOLE: u64 = u64::MAX;

/// Walks a bio and reports each run of consecutive file bytes in it. `bytes`: [`WHOLE`], or at
/// most so many of what `bi_iter` says is still to come: in a request that is just being
/// completed, also for a bio that was split off and shares its parent's segments.
#[inline(always)]
pub fn report_bio(bio: Addr, bytes: u64, outcome: &Outcome) {
    if outcome.errno == 0 && !any_tracked() {
        return;
    }
    let (packed, submitted) = (outcome.packed(), outcome.submitted);
    if report_one_run(bio, bytes, packed, submitted) == 0 {
        report_segments(bio, bytes, packed, submitted);
    }
}

/// The part of a bio that is meant.
#[derive(Clone, Copy)]
struct Part {
    /// Address of the first segment.
    first: Addr,
    /// Segments to look at, at most.
    segments: u64,
    /// Bytes of the first segment that are done already.
    skip: u64,
    /// Bytes, at most.
    left: u64,
}

impl Part {
    #[inline(always)]
    fn of(bio: Addr, bytes: u64) -> Option<Self> {
        let vecs = read_ptr(bio, layout!(bio_io_vec))?;
        if bytes == WHOLE {
            let segments: u16 = read(bio, layout!(bio_vcnt))?;
            return Some(Self {
                first: vecs,
                segments: u64::from(segments),
                skip: 0,
                left: u64::MAX,
            });
        }
        let size: u32 = read(bio, layout!(bio_iter_size))?;
        let index: u32 = read(bio, layout!(bio_iter_idx))?;
        let done: u32 = read(bio, layout!(bio_iter_done))?;
        Some(Self {
            first: vecs + u64::from(index) * SEGMENT_BYTES,
            segments: u64::from(MAX_SEGMENTS),
            skip: u64::from(done),
            left: u64::from(size).min(bytes),
        })
    }
}

/// The usual case: reports a bio whose file bytes are one run, and gives 1; 0 where they are not.
/// A global function like [`report_inode`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report_one_run(bio: u64, bytes: u64, outcome: u64, submitted: u64) -> u32 {
    let Some(part) = Part::of(bio, bytes) else {
        return 1;
    };
    let sum = sum_segments(part.first, part.segments, part.skip, part.left);
    let last = part.first + (sum & 0xffff) * SEGMENT_BYTES;
    let before_last = sum >> 16;
    let mut total = before_last + u64::from(read::<u32>(last, SEGMENT_LEN).unwrap_or(0));
    if last == part.first {
        total -= part.skip.min(total);
    }
    if total > part.left {
        total = part.left;
    }
    if bytes != WHOLE && total < part.left {
        count(|counters| &mut counters.walk_limit);
    }
    let Some((mapping, start)) = locate(part.first, part.skip) else {
        return 0;
    };
    if last != part.first {
        let Some((last_mapping, last_start)) = locate(last, 0) else {
            return 0;
        };
        if mapping != last_mapping || last_start != start + before_last {
            return 0;
        }
    }
    report_mapping_range(mapping, start, total, outcome, submitted);
    1
}

#[inline(always)]
fn report_mapping_range(mapping: Addr, start: u64, len: u64, outcome: u64, submitted: u64) {
    if let Some(inode) = host_of(mapping) {
        report_inode(
            inode,
            start & !4095,
            (start + len + 4095) & !4095,
            outcome,
            submitted,
        );
    }
}

/// Segments walked by one call of the functions below: the verifier looks at 16 rounds of 16, not
/// at 256.
const STRIDE: u64 = 16;

/// Index of the last segment that holds some of the next `left` bytes (lower 16 bits), and how
/// many bytes lie in those before it. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sum_segments(start: u64, segments: u64, skip: u64, left: u64) -> u64 {
    let mut before: u64 = 0;
    let mut skip = skip;
    for i in 0..u64::from(MAX_SEGMENTS) / STRIDE {
        let first = i * STRIDE;
        let sum = sum_stride(
            start + first * SEGMENT_BYTES,
            segments - first,
            skip,
            left.wrapping_sub(before),
        );
        before += sum >> 16;
        let index = sum & 0xffff;
        if index < STRIDE {
            return before << 16 | (first + index);
        }
        skip = 0;
    }
    before << 16 | u64::from(MAX_SEGMENTS - 1)
}

/// [`sum_segments`] of the next [`STRIDE`] segments; that many as the index means that the last
/// one is not among them. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sum_stride(start: u64, segments: u64, skip: u64, left: u64) -> u64 {
    let mut before: u64 = 0;
    for i in 0..STRIDE {
        let len = u64::from(read::<u32>(start + i * SEGMENT_BYTES, SEGMENT_LEN).unwrap_or(0));
        let len = if i == 0 { len.wrapping_sub(skip) } else { len };
        if i + 1 >= segments || before + len >= left {
            return before << 16 | i;
        }
        before += len;
    }
    before << 16 | STRIDE
}

/// Most segments reported one by one.
const MAX_SINGLE: u64 = 128;

/// Reports segment by segment. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report_segments(bio: u64, bytes: u64, outcome: u64, submitted: u64) -> u32 {
    let Some(part) = Part::of(bio, bytes) else {
        return 0;
    };
    let last = sum_segments(part.first, part.segments, part.skip, part.left) & 0xffff;
    let mut skip = part.skip;
    for i in 0..MAX_SINGLE / STRIDE {
        let first = i * STRIDE;
        let at = part.first + first * SEGMENT_BYTES;
        report_stride(at, last.wrapping_sub(first), skip, outcome, submitted);
        skip = 0;
    }
    if last >= MAX_SINGLE {
        count(|counters| &mut counters.walk_limit);
    }
    0
}

/// Reports the segments from 0 to `last`, at most [`STRIDE`] of them; none if `last` is negative.
/// Nothing leaves the loop early: LLVM would make it count down from a number whose bounds 5.10
/// does not see. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report_stride(
    at: u64,
    last: u64,
    skip: u64,
    outcome: u64,
    submitted: u64,
) -> u32 {
    if (last as i64) < 0 {
        return 0;
    }
    let mut skip = skip;
    for i in 0..STRIDE {
        let wanted = last.wrapping_sub(i);
        report_segment(at + i * SEGMENT_BYTES, wanted, skip, outcome, submitted);
        skip = 0;
    }
    0
}

/// Reports one segment from `skip` bytes on, unless `wanted` is negative. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report_segment(
    at: u64,
    wanted: u64,
    skip: u64,
    outcome: u64,
    submitted: u64,
) -> u32 {
    if (wanted as i64) < 0 {
        return 0;
    }
    let len = u64::from(read::<u32>(at, SEGMENT_LEN).unwrap_or(0)).wrapping_sub(skip);
    if let Some((mapping, start)) = locate(at, skip)
        && len != 0
    {
        report_mapping_range(mapping, start, len, outcome, submitted);
    }
    0
}

/// `sizeof(struct bio_vec)`, and where `bv_len` is in it.
const SEGMENT_BYTES: u64 = 16;
const SEGMENT_LEN: u32 = 8;

/// `blk_status_to_errno` (block/blk-core.c), positive. The numbers up to 13 are the same in all
/// supported kernels; the few above them that a disk gives are told by the recorded error.
#[inline(always)]
pub fn errno_of_status(status: u32) -> u32 {
    match status {
        0 => 0,
        1 => 95,  // NOTSUPP
        2 => 110, // TIMEOUT
        3 => 28,  // NOSPC
        4 => 67,  // TRANSPORT
        5 => 121, // TARGET
        6 => 52,  // NEXUS, RESV_CONFLICT
        7 => 61,  // MEDIUM
        8 => 84,  // PROTECTION
        9 => 12,  // RESOURCE
        12 => 11, // AGAIN
        _ => 5,   // IOERR and the rest
    }
}

/// Whose a bio is, by `bi_end_io`: one of the `OWNER_` numbers, 0 for nobody's of interest.
#[inline(always)]
pub fn owner_of(bio: Addr) -> u32 {
    let end_io: u64 = read(bio, layout!(bio_end_io)).unwrap_or(0);
    // SAFETY: user space fills the map before this program is attached.
    unsafe { END_IO.get(&end_io) }.copied().unwrap_or(0)
}

/// The bio that this one was split from, or itself. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn root_of(bio: u64) -> u64 {
    let mut bio = bio;
    for _ in 0..4 {
        if owner_of(bio) != OWNER_CHAIN {
            return bio;
        }
        match read_ptr(bio, layout!(bio_private)) {
            Some(parent) => bio = parent,
            None => return bio,
        }
    }
    bio
}

/// The `iomap_ioend` that a bio belongs to.
#[inline(always)]
pub fn ioend_of(bio: Addr) -> Addr {
    if layout!(ioend_bio) == ABSENT {
        read_ptr(bio, layout!(bio_private)).unwrap_or(0)
    } else {
        bio.wrapping_sub(u64::from(layout!(ioend_bio)))
    }
}
