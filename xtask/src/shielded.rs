//! Kernels that shield processes even from root, as those of sandboxes. They may also not run BPF programs
//! while such a process is on the processor: what an interrupt brings over it is neither seen nor counted
//! (docs/limits.md). Here that would be the end of a write that a test is about.

use std::{fs, io};

use crate::step::progress;
use libc::{SCHED_FIFO, SCHED_OTHER, c_int, sched_getscheduler, sched_param, sched_setscheduler};

/// Whether not even root may look at the first process.
fn processes_are_shielded() -> bool {
    let program = fs::read_link("/proc/1/exe");
    program.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// While it lives, requests to disks end in threads of the kernel and over no process: these threads
/// (ksoftirqd) go before all others. Only where processes are shielded.
///
/// They stay so if this process is killed, which does no harm.
pub struct EndsInThreads(Vec<c_int>);

impl EndsInThreads {
    /// Raises them, and says so.
    pub fn new() -> Self {
        if !processes_are_shielded() {
            return Self(Vec::new());
        }
        let threads = fs::read_dir("/proc").into_iter().flatten().flatten();
        let raised = threads.filter_map(|entry| {
            let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
            let id = entry.file_name().to_str()?.parse().ok()?;
            (comm.starts_with("ksoftirqd/") && is_usual(id) && schedule(id, SCHED_FIFO, 1))
                .then_some(id)
        });
        let raised: Vec<c_int> = raised.collect();
        if !raised.is_empty() {
            progress("This kernel shields processes: ksoftirqd goes before them while tests run.");
        }
        Self(raised)
    }
}

impl Drop for EndsInThreads {
    fn drop(&mut self) {
        for id in &self.0 {
            schedule(*id, SCHED_OTHER, 0);
        }
    }
}

/// Nobody else has raised it, who lowers it too.
fn is_usual(thread: c_int) -> bool {
    // SAFETY: no memory is involved.
    unsafe { sched_getscheduler(thread) == SCHED_OTHER }
}

fn schedule(thread: c_int, policy: c_int, priority: c_int) -> bool {
    let param = sched_param {
        sched_priority: priority,
    };
    // SAFETY: the parameters live through the call, which only reads them.
    unsafe { sched_setscheduler(thread, policy, &raw const param) == 0 }
}
