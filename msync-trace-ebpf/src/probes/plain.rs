//! Filesystems whose bios carry pages and nothing else that matters: those that write through
//! fs/mpage.c (ext2, FAT and many small ones), and f2fs.

use aya_ebpf::{
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};

use super::{block::is_write, hook};
use crate::{
    bio::{Outcome, WHOLE, errno_of_status, report_bio},
    kread::{Addr, argument, read},
    maps::{any_tracked, layout},
};

/// A bio ended. `errno`: what the filesystem makes of every error; 0: what the device said.
#[inline(always)]
fn pages_ended(bio: Addr, errno: u32) {
    let status: u8 = read(bio, layout!(bio_status)).unwrap_or(0);
    if (status == 0 && !any_tracked()) || !is_write(bio) {
        return;
    }
    let errno = match (status, errno) {
        (0, _) => 0,
        (_, 0) => errno_of_status(u32::from(status)),
        _ => errno,
    };
    let outcome = Outcome {
        errno,
        submitted: 0,
        hook: hook::PLAIN,
    };
    report_bio(bio, WHOLE, &outcome);
}

/// `static void mpage_write_end_io(struct bio *bio)` (fs/mpage.c), 6.4 and later; `mpage_end_io`
/// before, which ends reads too. Runs before the error is recorded and before write-back ends.
#[fentry(function = "mpage_write_end_io")]
fn mpage_ended_fentry(ctx: FEntryContext) -> i32 {
    pages_ended(argument(&ctx, 0), 0);
    0
}

/// See [`mpage_ended_fentry`].
#[kprobe]
fn mpage_ended_kprobe(ctx: ProbeContext) -> u32 {
    pages_ended(ctx.arg(0).unwrap_or(0), 0);
    0
}

/// `EIO`.
const EIO: u32 = 5;

/// `static void f2fs_write_end_io(struct bio *bio)` (fs/f2fs/data.c), all supported kernels. It
/// records EIO whatever the device said.
#[kprobe]
fn f2fs_ended(ctx: ProbeContext) -> u32 {
    pages_ended(ctx.arg(0).unwrap_or(0), EIO);
    0
}
