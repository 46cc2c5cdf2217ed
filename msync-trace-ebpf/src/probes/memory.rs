//! The memory of a dirty page failed: the kernel drops the page, and records `EIO` on the file
//! (`me_pagecache_dirty`, mm/memory-failure.c). Told with `EHWPOISON`: it was not the disk.

use aya_ebpf::{
    macros::{kprobe, raw_tracepoint},
    programs::{ProbeContext, RawTracePointContext},
};

use super::hook;
use crate::{
    bio::{Outcome, bytes_of_folio, head_of, report_range},
    emit::{Failure, write_failed},
    inode::{host_of, key_of},
    kread::{Addr, now, pid_tgid},
    maps::{RECORDED, Recorded, layout},
};

const EHWPOISON: u32 = 133;

/// The kernel says what became of the page within this time, ns, after it recorded the error.
const SAME_FAILURE_NS: u64 = 1_000_000_000;

/// Remembers that this thread recorded an error on a file of which no hook knew the bytes.
#[inline(always)]
pub fn note_recorded_by(inode: Addr) {
    let recorded = Recorded { inode, at: now() };
    // Without room the failure is told with the error that was recorded.
    let _ = RECORDED.insert(&pid_tgid(), &recorded, 0);
}

/// `int me_pagecache_dirty(struct page *p, unsigned long pfn)` up to 5.16,
/// `(struct page_state *ps, struct page *p)` since; static. Called before the error is recorded.
#[kprobe]
fn memory_failed(ctx: ProbeContext) -> u32 {
    let second: u64 = ctx.arg(1).unwrap_or(0);
    // An address of the kernel has the highest bit set, the number of a page has not.
    let page = match (second as i64) < 0 {
        true => second,
        false => ctx.arg(0).unwrap_or(0),
    };
    let Some((mapping, start, end)) = head_of(page).and_then(bytes_of_folio) else {
        return 0;
    };
    let Some(inode) = host_of(mapping) else {
        return 0;
    };
    let outcome = Outcome {
        errno: EHWPOISON,
        submitted: 0,
        hook: hook::MEMORY,
    };
    report_range(inode, start, end, &outcome);
    0
}

/// `TP_PROTO(unsigned long pfn, int type, int result)`, all supported kernels: comes last, in the
/// thread that recorded the error. The page has left its file by then.
#[raw_tracepoint(tracepoint = "memory_failure_event")]
fn memory_failure_event(ctx: RawTracePointContext) -> u32 {
    let kind: u64 = ctx.arg(1);
    if kind >= 32 || layout!(memory_dirty_types) >> kind & 1 == 0 {
        return 0;
    }
    let thread = pid_tgid();
    // SAFETY: the value is copied at once.
    let Some(recorded) = (unsafe { RECORDED.get(&thread) }).copied() else {
        return 0;
    };
    let _ = RECORDED.remove(&thread);
    if now().wrapping_sub(recorded.at) > SAME_FAILURE_NS {
        return 0;
    }
    let inode = recorded.inode;
    let Some(key) = key_of(inode) else {
        return 0;
    };
    let failure = Failure {
        inode,
        start: 0,
        end: 0,
        errno: EHWPOISON,
        submitted: 0,
        flags: 0,
        at: now(),
    };
    write_failed(hook::MEMORY, &key, &failure);
    0
}
