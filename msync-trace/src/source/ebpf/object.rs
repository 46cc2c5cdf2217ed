//! The eBPF object in the program, and how it comes into the kernel.

use std::{
    thread,
    time::{Duration, Instant},
};

use aya::{Ebpf, EbpfError, EbpfLoader};
use log::debug;
use rustix::mm::{Advice, madvise};

use super::io_cause;

/// The object, as build.rs left it.
pub static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/msync-trace-ebpf"));

/// Lets go of the pages of the object, which has been loaded: 3 MiB. Whoever reads it again gets it
/// from the file.
pub fn give_back() {
    let page = rustix::param::page_size();
    let range = OBJECT.as_ptr_range();
    let first = (range.start as usize).next_multiple_of(page);
    let end = range.end as usize / page * page;
    let len = end.saturating_sub(first);
    // SAFETY: whole pages of a constant, mapped from the program's file and never written: their
    // content does not change.
    let _ = unsafe { madvise(first as *mut _, len, Advice::LinuxDontNeed) };
}

/// How long memory for the maps is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Loads the object. The maps of a process that was just killed count against the limit of its cgroup
/// until the kernel gets around to freeing them.
pub fn load(loader: &mut EbpfLoader<'_>) -> Result<Ebpf, EbpfError> {
    let begin = Instant::now();
    loop {
        match loader.load(OBJECT) {
            Err(error) if is_out_of_memory(&error) && begin.elapsed() < PATIENCE => {
                debug!("{error}: no memory yet, trying again");
                thread::sleep(Duration::from_millis(250));
            }
            done => return done,
        }
    }
}

fn is_out_of_memory(error: &EbpfError) -> bool {
    io_cause(error).is_some_and(|error| error.raw_os_error() == Some(libc::ENOMEM))
}
