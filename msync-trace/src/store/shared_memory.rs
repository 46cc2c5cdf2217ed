//! The memory that a writer shares with readers, and what happens when the disk below it fails.
//!
//! SQLite maps `FILE-shm`. Where its filesystem cannot bring or take a page of it (shut down, gone, full
//! where every write takes new room), touching that page raises SIGBUS, which ends the program. Here the
//! page becomes memory of this process alone instead, and the transaction does not count: the record is
//! opened anew. Whoever reads sees what a writer that was killed would have left.
//!
//! Linux only. Elsewhere nothing is done.

#[cfg(target_os = "linux")]
pub(super) use linux::{guard, pages_lost};

/// Nothing.
#[cfg(not(target_os = "linux"))]
pub(super) fn guard() {}

/// Pages that were given up in this process.
#[cfg(not(target_os = "linux"))]
pub(super) fn pages_lost() -> u64 {
    0
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        mem,
        ptr::null_mut,
        sync::{
            OnceLock,
            atomic::{AtomicU64, AtomicUsize, Ordering},
        },
    };

    /// What `/proc/self/maps` ends a line of such a mapping with.
    const NAMES: [&[u8]; 2] = [b"-shm", b"-shm (deleted)"];
    /// Longer than both.
    const TAIL: usize = 16;

    static LOST: AtomicU64 = AtomicU64::new(0);
    static PAGE: AtomicUsize = AtomicUsize::new(4096);
    /// Whose turn it is if it is not about us.
    static OTHER: OnceLock<libc::sigaction> = OnceLock::new();

    /// Pages that were given up in this process.
    pub(in crate::store) fn pages_lost() -> u64 {
        LOST.load(Ordering::Relaxed)
    }

    /// From now on a page of that memory can be lost without the end of this process.
    pub(in crate::store) fn guard() {
        OTHER.get_or_init(|| {
            PAGE.store(rustix::param::page_size(), Ordering::Relaxed);
            // SAFETY: all zeros is a valid sigaction; the handler has the signature that SA_SIGINFO
            // asks for, and calls nothing that a signal handler may not.
            unsafe {
                let mut ours: libc::sigaction = mem::zeroed();
                let mut other: libc::sigaction = mem::zeroed();
                ours.sa_sigaction = on_sigbus as *const () as usize;
                ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                libc::sigaction(libc::SIGBUS, &raw const ours, &raw mut other);
                other
            }
        });
    }

    extern "C" fn on_sigbus(
        signal: libc::c_int,
        info: *mut libc::siginfo_t,
        context: *mut libc::c_void,
    ) {
        // SAFETY: the kernel hands over a valid siginfo; errno is this thread's own.
        unsafe {
            let errno = *libc::__errno_location();
            let address = (*info).si_addr() as usize;
            // Not sent by kill(2), not a memory error of the machine.
            if (*info).si_code == libc::BUS_ADRERR && is_shared(address) && replace(address) {
                LOST.fetch_add(1, Ordering::Relaxed);
                *libc::__errno_location() = errno;
                return;
            }
            pass_on(signal, info, context);
        }
    }

    /// # Safety
    /// As a signal handler.
    unsafe fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        let other = OTHER.get();
        let handler = other.map_or(libc::SIG_DFL, |other| other.sa_sigaction);
        if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
            // The instruction is tried again, and ends the program.
            // SAFETY: the default action has no handler.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
            return;
        }
        type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
        // SAFETY: one that takes the signal alone ignores the other arguments.
        let handler: Handler = unsafe { mem::transmute(handler) };
        handler(signal, info, context);
    }

    /// Whether the address lies in memory that SQLite shares. Allocates nothing.
    fn is_shared(address: usize) -> bool {
        // SAFETY: a C string; the descriptor is ours, the buffer as long as is said.
        unsafe {
            let maps = libc::open(
                c"/proc/self/maps".as_ptr(),
                libc::O_RDONLY | libc::O_CLOEXEC,
            );
            if maps < 0 {
                return false;
            }
            let mut lines = Lines::new(address);
            let mut piece = [0; 1024];
            let found = loop {
                let length = libc::read(maps, piece.as_mut_ptr().cast(), piece.len());
                let Some(read) = usize::try_from(length).ok().and_then(|it| piece.get(..it)) else {
                    break false;
                };
                if read.is_empty() {
                    break false;
                }
                if let Some(found) = read.iter().find_map(|byte| lines.take(*byte)) {
                    break found;
                }
            };
            libc::close(maps);
            found
        }
    }

    /// Reads `/proc/self/maps` byte by byte: `55e0c000-55e0d000 rw-s 00000000 08:01 42    /a.db-shm`.
    struct Lines {
        address: usize,
        bounds: [usize; 2],
        /// In the first bound, in the second, behind them.
        field: usize,
        tail: [u8; TAIL],
    }

    impl Lines {
        fn new(address: usize) -> Self {
            Self {
                address,
                bounds: [0; 2],
                field: 0,
                tail: [0; TAIL],
            }
        }

        /// The answer, once the line of the address has been read.
        fn take(&mut self, byte: u8) -> Option<bool> {
            if byte == b'\n' {
                let here = (self.bounds[0]..self.bounds[1]).contains(&self.address);
                let named = NAMES.iter().any(|name| self.tail.ends_with(name));
                *self = Self::new(self.address);
                return here.then_some(named);
            }
            if self.field < 2 {
                match char::from(byte).to_digit(16) {
                    Some(digit) => {
                        self.bounds[self.field] = self.bounds[self.field] << 4 | digit as usize;
                    }
                    None => self.field += 1,
                }
            }
            self.tail.rotate_left(1);
            self.tail[TAIL - 1] = byte;
            None
        }
    }

    /// Puts memory of our own in the place of the page. It has the same bytes, if they can still be read:
    /// often only writing is refused. If not, bytes that SQLite does not take for anything.
    fn replace(address: usize) -> bool {
        let size = PAGE.load(Ordering::Relaxed);
        let page = (address & !(size - 1)) as *mut libc::c_void;
        // SAFETY: the new page is ours until it takes the place of one that nobody could use. The
        // kernel copies, so that bytes which cannot be read are an error and no signal.
        unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let how = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let new = libc::mmap(null_mut(), size, access, how, -1, 0);
            if new == libc::MAP_FAILED {
                return false;
            }
            let piece = |base| libc::iovec {
                iov_base: base,
                iov_len: size,
            };
            let (to, from) = (piece(new), piece(page));
            let us = libc::getpid();
            let copied = libc::process_vm_readv(us, &raw const to, 1, &raw const from, 1, 0);
            if usize::try_from(copied) != Ok(size) {
                new.write_bytes(0xff, size);
            }
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            libc::mremap(new, size, size, flags, page) == page
        }
    }

    #[cfg(test)]
    mod tests {
        use std::{fs::File, os::fd::AsRawFd, path::Path};

        use super::*;

        fn map(path: &Path) -> (File, *mut u8) {
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
                .unwrap();
            file.set_len(32 << 10).unwrap();
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let fd = file.as_raw_fd();
            // SAFETY: a new mapping at an address that the kernel chooses.
            let at = unsafe { libc::mmap(null_mut(), 32 << 10, access, libc::MAP_SHARED, fd, 0) };
            assert_ne!(at, libc::MAP_FAILED);
            (file, at.cast())
        }

        #[test]
        fn a_page_that_the_filesystem_cannot_bring_ends_nobody() {
            guard();
            let folder = tempfile::tempdir().unwrap();
            let (file, at) = map(&folder.path().join("a.db-shm"));
            file.set_len(8192).unwrap();
            let before = pages_lost();
            // SAFETY: within the mapping.
            unsafe {
                at.write_volatile(1);
                assert_eq!(pages_lost(), before, "that page is there");
                at.add(8192).write_volatile(2);
                assert!(pages_lost() > before);
                assert_eq!(at.add(8192).read_volatile(), 2);
                assert_eq!(
                    at.add(8193).read_volatile(),
                    0xff,
                    "nothing that SQLite believes"
                );
                assert_eq!(at.read_volatile(), 1);
            }
        }

        #[test]
        fn only_that_memory_is_replaced() {
            let folder = tempfile::tempdir().unwrap();
            let (_other, other) = map(&folder.path().join("a.db"));
            let (_file, at) = map(&folder.path().join("a b\n.db-shm"));
            assert!(is_shared(at as usize));
            assert!(is_shared(at as usize + (32 << 10) - 1));
            assert!(!is_shared(other as usize));
            assert!(!is_shared(0));
            assert!(!is_shared(
                only_that_memory_is_replaced as *const () as usize
            ));
        }
    }
}
