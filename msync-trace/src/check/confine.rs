//! Giving up privileges once tracing has begun: what is kept, and why. docs/restart.md says it to
//! people.
//!
//! Capabilities belong to threads. Those that run already (a store, a server) are asked by a signal to
//! give up theirs, as the C library does for `setuid`; those that are started later inherit.

use std::{
    collections::BTreeSet,
    fs, io, ptr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A capability: number (include/uapi/linux/capability.h), name, and what it is kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its bit.
    pub number: u32,
    /// As the manual page spells it.
    pub name: &'static str,
    /// What it is kept for.
    pub why: &'static str,
}

const fn kept(number: u32, name: &'static str, why: &'static str) -> Kept {
    Kept { number, name, why }
}

/// Kept by every run that gives up the rest.
pub const KEPT: [Kept; 5] = [
    kept(
        2,
        "CAP_DAC_READ_SEARCH",
        "looks up mounts and files below folders of other users, never opens them for writing",
    ),
    kept(
        19,
        "CAP_SYS_PTRACE",
        "reads program and mounts of other users' processes in /proc",
    ),
    kept(
        34,
        "CAP_SYSLOG",
        "reads addresses of kernel functions when a filesystem's module is loaded later",
    ),
    kept(
        38,
        "CAP_PERFMON",
        "attaches the hooks that wait for the first failure, or for a module",
    ),
    kept(
        39,
        "CAP_BPF",
        "reads and writes the maps on kernels before 6.0, and loads programs for a module",
    ),
];

/// Kept besides where lost bytes are compared and saved (`--verify`, `--rescue`).
pub const KEPT_TO_VERIFY: [Kept; 2] = [
    kept(
        3,
        "CAP_FOWNER",
        "opens other users' files without changing their access time",
    ),
    kept(21, "CAP_SYS_ADMIN", "finds the pages of a file in memory"),
];

/// `CAP_SETPCAP`, which it takes to shrink the bounding set.
const SETPCAP: u32 = 8;

/// How long other threads may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Gives up everything but [`KEPT`] (and [`KEPT_TO_VERIFY`]), in all threads, for good: the bounding
/// set shrinks too, no program gains anything by being run (`no_new_privs`), and nobody but root may
/// look into this process. What this process runs, runs with what is left.
///
/// What it did not have it does not gain. The bounding set stays as it is where CAP_SETPCAP is missing, as
/// in a service: then the service manager has shrunk it, and `no_new_privs` keeps the rest of it out of
/// reach (a program that is run gets at most what was permitted before).
///
/// # Errors
/// If a thread still has more afterwards: nothing is to go on as if it had not.
pub fn confine(verifies: bool) -> io::Result<()> {
    let all = KEPT
        .iter()
        .chain(KEPT_TO_VERIFY.iter().filter(|_| verifies));
    let mask = all.fold(0, |mask, kept| mask | 1u64 << kept.number);
    // SAFETY: no memory is involved.
    if unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let own = fs::read_to_string("/proc/thread-self/status")?;
    let shrinks = set(&own, "CapEff:").is_some_and(|set| set & 1 << SETPCAP != 0);
    in_all_threads(mask)?;
    for thread in threads()? {
        let status = fs::read_to_string(format!("/proc/self/task/{thread}/status"));
        // A thread that is gone has nothing.
        if let Ok(status) = status
            && has_more(&status, mask, shrinks)
        {
            return Err(io::Error::other(format!(
                "thread {thread} still has privileges that it should have given up"
            )));
        }
    }
    Ok(())
}

/// Whether a thread's `status` shows more than these capabilities; in the bounding set only if that
/// could be `shrunk`.
fn has_more(status: &str, mask: u64, shrunk: bool) -> bool {
    let bounding = shrunk.then_some("CapBnd:");
    let mut sets = ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"]
        .into_iter()
        .chain(bounding);
    sets.any(|name| set(status, name).is_none_or(|set| set & !mask != 0))
        || field(status, "NoNewPrivs:") != Some("1")
}

/// A set of capabilities in a thread's `status`.
fn set(status: &str, name: &str) -> Option<u64> {
    u64::from_str_radix(field(status, name)?, 16).ok()
}

fn field<'status>(status: &'status str, name: &str) -> Option<&'status str> {
    let mut lines = status.lines();
    lines
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

fn threads() -> io::Result<BTreeSet<libc::pid_t>> {
    let entries = fs::read_dir("/proc/self/task")?;
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}

/// What the threads are to keep.
static MASK: AtomicU64 = AtomicU64::new(0);
/// How many have done so.
static DONE: AtomicU32 = AtomicU32::new(0);
/// What went wrong, if something did.
static ERRNO: AtomicI32 = AtomicI32::new(0);
/// One at a time.
static ONCE: Mutex<()> = Mutex::new(());

fn in_all_threads(mask: u64) -> io::Result<()> {
    let _alone = ONCE.lock().unwrap_or_else(PoisonError::into_inner);
    MASK.store(mask, Ordering::SeqCst);
    ERRNO.store(0, Ordering::SeqCst);
    // The last one: nothing of ours, of tokio's or of the C library's uses it.
    let signal = libc::SIGRTMAX();
    let before = handle(signal, on_signal as *const () as usize)?;
    let asked = ask_all(signal);
    handle(signal, before)?;
    asked?;
    match ERRNO.load(Ordering::SeqCst) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Asks every thread, until there is none that was not asked: one that has not answered may have
/// started another meanwhile.
fn ask_all(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: no arguments.
    let own = unsafe { libc::gettid() };
    give_up();
    let mut asked = BTreeSet::from([own]);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let new: Vec<_> = threads()?.difference(&asked).copied().collect();
        if new.is_empty() {
            return Ok(());
        }
        for thread in new {
            let before = DONE.load(Ordering::SeqCst);
            // SAFETY: no memory is involved.
            let sent =
                unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) } == 0;
            asked.insert(thread);
            // One that is gone need not answer.
            while sent && DONE.load(Ordering::SeqCst) == before {
                if !threads()?.contains(&thread) {
                    break;
                }
                if Instant::now() > deadline {
                    return Err(io::Error::other(format!(
                        "thread {thread} does not give up its privileges"
                    )));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// Sets the handler of a signal, and gives the one before.
fn handle(signal: libc::c_int, handler: usize) -> io::Result<usize> {
    // SAFETY: a structure of integers, all zeros is valid.
    let (mut new, mut old): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
    new.sa_sigaction = handler;
    new.sa_flags = libc::SA_RESTART;
    // SAFETY: both structures live longer than the call.
    match unsafe { libc::sigaction(signal, &raw const new, &raw mut old) } {
        0 => Ok(old.sa_sigaction),
        _ => Err(io::Error::last_os_error()),
    }
}

extern "C" fn on_signal(_signal: libc::c_int) {
    // SAFETY: the place of this thread's errno, which the interrupted code may be about to read.
    let errno = unsafe { &mut *libc::__errno_location() };
    let before = *errno;
    give_up();
    *errno = before;
    DONE.fetch_add(1, Ordering::SeqCst);
}

/// `struct __user_cap_header_struct` (include/uapi/linux/capability.h).
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION_3: u32 = 0x2008_0522;

/// The highest number that a set has room for.
const HIGHEST: u32 = 63;

/// In this thread. Also in a signal handler: system calls only.
fn give_up() {
    let mask = MASK.load(Ordering::SeqCst);
    let failed = |ok: bool| {
        if !ok {
            let errno = io::Error::last_os_error().raw_os_error();
            ERRNO.store(errno.unwrap_or(libc::EPERM), Ordering::SeqCst);
        }
    };
    for number in (0..=HIGHEST).filter(|number| mask & 1 << number == 0) {
        // SAFETY: no memory is involved. EINVAL: this kernel has no such capability; EPERM: there is no
        // CAP_SETPCAP, and the check in the end knows.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
    }
    // SAFETY: no memory is involved.
    unsafe {
        let all = libc::PR_CAP_AMBIENT_CLEAR_ALL;
        libc::prctl(libc::PR_CAP_AMBIENT, all, 0, 0, 0);
        failed(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    }
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let mut data = [Data {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    }; 2];
    // SAFETY: structures of that version, which live longer than the calls.
    unsafe {
        let (header, data) = (&raw const header, data.as_mut_ptr());
        failed(libc::syscall(libc::SYS_capget, header, data) == 0);
    }
    for (half, data) in data.iter_mut().enumerate() {
        let part = u32::try_from(mask >> (32 * half) & u64::from(u32::MAX)).unwrap_or(0);
        data.permitted &= part;
        data.effective &= part;
        data.inheritable = 0;
    }
    // SAFETY: as above.
    unsafe {
        let header = &raw const header;
        failed(libc::syscall(libc::SYS_capset, header, ptr::from_ref(&data)) == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_kept_too_much_is_noticed() {
        let status = |eff: &str, new: &str| {
            format!(
                "Name:\tx\nCapInh:\t0000000000000000\nCapPrm:\t0000000000080000\nCapEff:\t{eff}\n\
                 CapBnd:\t0000000000080000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t{new}\n"
            )
        };
        let mask = 1 << 19;
        assert!(!has_more(&status("0000000000080000", "1"), mask, true));
        assert!(has_more(&status("0000000000080001", "1"), mask, true));
        assert!(has_more(&status("0000000000080000", "0"), mask, true));
        assert!(has_more("", mask, true));
    }

    #[test]
    fn a_bounding_set_that_cannot_be_shrunk_is_no_obstacle() {
        let status = "CapInh:\t0\nCapPrm:\t0\nCapEff:\t0\nCapBnd:\t200000\nCapAmb:\t0\n\
                      NoNewPrivs:\t1\n";
        assert!(has_more(status, 0, true));
        assert!(!has_more(status, 0, false));
    }

    #[test]
    fn each_capability_is_kept_once_and_for_a_reason() {
        let all: Vec<_> = KEPT.iter().chain(&KEPT_TO_VERIFY).collect();
        let numbers: BTreeSet<_> = all.iter().map(|kept| kept.number).collect();
        assert_eq!(numbers.len(), all.len());
        assert!(all.iter().all(|kept| !kept.why.is_empty()));
    }
}
