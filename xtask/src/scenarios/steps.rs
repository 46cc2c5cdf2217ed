//! The inside of a program under test: does what [`Step`] says with real system calls.

use std::io::{self, BufRead, BufReader, Write};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::io_uring;
use super::program::{Ask, By, Open, Outcome, Step, kernel_time};
use crate::faults::BLOCK;

/// Pages of address space for all mappings of a program.
const ARENA_PAGES: usize = 4096;
const MSYNC_I386: i32 = 144;
/// Calls of each of two threads that are at it at the same time.
const BESIDE: usize = 100;

/// The main loop of the forked process; ends with its parent.
pub fn obey(name: &str, pipe: UnixStream) -> ! {
    let name = std::ffi::CString::new(name).unwrap_or_default();
    // SAFETY: prctl gets constants and one C string that outlives the call.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
        // Ctrl-C is for the parent, which ends us in its own time.
        libc::signal(libc::SIGINT, libc::SIG_IGN);
    }
    let status = i32::from(run(pipe).is_err());
    // SAFETY: leaves without running anything that belongs to the parent.
    unsafe { libc::_exit(status) }
}

fn run(pipe: UnixStream) -> io::Result<()> {
    let mut answers = pipe.try_clone()?;
    let mut inside = Inside {
        arena: Arena::reserve()?,
        slots: Vec::new(),
    };
    for line in BufReader::new(pipe).lines() {
        let outcome = inside.step(serde_json::from_str(&line?)?);
        let mut line = serde_json::to_string(&outcome)?;
        line.push('\n');
        answers.write_all(line.as_bytes())?;
    }
    Ok(())
}

/// Address space below 2 GiB, so that 32-bit system calls can name it.
#[derive(Clone, Copy)]
struct Arena(usize);

impl Arena {
    fn reserve() -> io::Result<Arena> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
        // SAFETY: a new mapping at a place of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                ARENA_PAGES * BLOCK,
                libc::PROT_NONE,
                flags | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(Arena(base as usize))
        }
    }

    fn at(self, page: u64) -> *mut libc::c_void {
        (self.0 + page as usize * BLOCK) as *mut libc::c_void
    }
}

struct Inside {
    arena: Arena,
    slots: Vec<i32>,
}

impl Inside {
    fn step(&mut self, step: Step) -> Outcome {
        match step {
            Step::Open(path, how) => {
                let fd = open(&path, how);
                self.slots.push(fd);
                answered(fd)
            }
            // SAFETY: the descriptor is ours and not used afterwards.
            Step::Close(slot) => answered(unsafe { libc::close(self.slots[slot]) }),
            Step::Resize(slot, bytes) => {
                // SAFETY: touches no memory.
                answered(unsafe { libc::ftruncate(self.slots[slot], bytes as i64) })
            }
            Step::Allocate(slot, pages) => self.fallocate(slot, 0, 0..pages),
            Step::AllocateBeyond(slot, pages) => {
                self.fallocate(slot, libc::FALLOC_FL_KEEP_SIZE, pages)
            }
            Step::Punch(slot, pages) => {
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                self.fallocate(slot, mode, pages)
            }
            Step::Map {
                slot,
                at,
                first,
                pages,
            } => self.map(slot, at, first, pages),
            Step::Unmap(pages) => {
                let len = (pages.end - pages.start) as usize * BLOCK;
                // SAFETY: only the arena, and nothing of it is used afterwards.
                answered(unsafe { libc::munmap(self.arena.at(pages.start), len) })
            }
            Step::Store {
                at,
                first,
                pages,
                stamp,
            } => {
                for page in 0..pages {
                    let bytes = stamp.bytes(first + page);
                    let place = self.arena.at(at + page).cast::<u8>();
                    // SAFETY: a mapped page of the arena.
                    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, BLOCK) };
                }
                answered(0)
            }
            Step::Sync(ask, by) => {
                let begin = kernel_time();
                let outcome = self.sync(ask, by);
                Outcome {
                    time: (begin, kernel_time()),
                    ..outcome
                }
            }
            Step::Poison(page) => {
                let place = self.arena.at(page);
                // SAFETY: nobody but this arena has the page.
                in_child(|| answered(unsafe { libc::madvise(place, BLOCK, libc::MADV_HWPOISON) }))
            }
            Step::DropCache(slot) => {
                let advice = libc::POSIX_FADV_DONTNEED;
                // SAFETY: touches no memory.
                let errno = unsafe { libc::posix_fadvise(self.slots[slot], 0, 0, advice) };
                Outcome {
                    errno,
                    ..answered(0)
                }
            }
            Step::Inode(slot) => {
                // SAFETY: all fields of stat are integers; it is filled by the call.
                let mut stat: libc::stat = unsafe { std::mem::zeroed() };
                // SAFETY: stat is a valid place for the result.
                let result = unsafe { libc::fstat(self.slots[slot], &raw mut stat) };
                Outcome {
                    value: stat.st_ino,
                    ..answered(result)
                }
            }
        }
    }

    fn fallocate(&self, slot: usize, mode: i32, pages: Range<u64>) -> Outcome {
        let (start, len) = (pages.start as i64, (pages.end - pages.start) as i64);
        let block = BLOCK as i64;
        // SAFETY: touches no memory.
        answered(unsafe { libc::fallocate(self.slots[slot], mode, start * block, len * block) })
    }

    fn map(&self, slot: usize, at: u64, first: u64, pages: u64) -> Outcome {
        // SAFETY: replaces pages of the arena only.
        let place = unsafe {
            libc::mmap(
                self.arena.at(at),
                pages as usize * BLOCK,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED,
                self.slots[slot],
                first as i64 * BLOCK as i64,
            )
        };
        answered(if place == libc::MAP_FAILED { -1 } else { 0 })
    }

    fn sync(&self, ask: Ask, by: By) -> Outcome {
        let arena = self.arena;
        let fd = match ask {
            Ask::Msync(_) | Ask::MsyncAsync(_) | Ask::MsyncBeside(..) => -1,
            Ask::Fsync(slot) | Ask::Fdatasync(slot) => self.slots[slot],
            Ask::FileRange(slot) | Ask::Begin(slot) | Ask::IoUring(slot) => self.slots[slot],
        };
        match by {
            By::Main => call(arena, &ask, fd, false),
            By::Compat => call(arena, &ask, fd, true),
            By::Thread => std::thread::spawn(move || call(arena, &ask, fd, false))
                .join()
                .unwrap_or_else(|_| Outcome {
                    errno: libc::EFAULT,
                    ..answered(0)
                }),
            By::Child => in_child(|| call(arena, &ask, fd, false)),
        }
    }
}

fn open(path: &Path, how: Open) -> i32 {
    let flags = match how {
        Open::Existing => libc::O_RDWR,
        Open::New => libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC,
    };
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
    // SAFETY: path is a C string that outlives the call.
    unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o644) }
}

fn call(arena: Arena, ask: &Ask, fd: i32, compat: bool) -> Outcome {
    let msync = |pages: &Range<u64>, flags: i32| {
        let (place, len) = (
            arena.at(pages.start),
            (pages.end - pages.start) as usize * BLOCK,
        );
        match compat {
            true => msync_i386(place as u32, len as u32, flags),
            // SAFETY: msync changes no memory.
            false => answered(unsafe { libc::msync(place, len, flags) }),
        }
    };
    match ask {
        Ask::Msync(pages) => msync(pages, libc::MS_SYNC),
        Ask::MsyncAsync(pages) => msync(pages, libc::MS_ASYNC),
        Ask::MsyncBeside(ours, theirs) => beside(arena, ours, theirs),
        // SAFETY: touches no memory.
        Ask::Fsync(_) => answered(unsafe { libc::fsync(fd) }),
        // SAFETY: touches no memory.
        Ask::Fdatasync(_) => answered(unsafe { libc::fdatasync(fd) }),
        Ask::FileRange(_) => {
            let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
                | libc::SYNC_FILE_RANGE_WRITE
                | libc::SYNC_FILE_RANGE_WAIT_AFTER;
            // SAFETY: touches no memory.
            answered(unsafe { libc::sync_file_range(fd, 0, 0, flags) })
        }
        Ask::Begin(_) => {
            let flags = libc::SYNC_FILE_RANGE_WRITE;
            // SAFETY: touches no memory.
            answered(unsafe { libc::sync_file_range(fd, 0, 0, flags) })
        }
        Ask::IoUring(_) => match io_uring::fsync(fd) {
            Ok(0) => answered(0),
            Ok(errno) => Outcome {
                errno,
                ..answered(0)
            },
            Err(error) => Outcome {
                errno: error.raw_os_error().unwrap_or(libc::EIO),
                value: 1,
                ..answered(0)
            },
        },
    }
}

/// Two threads, each with pages of its own.
fn beside(arena: Arena, ours: &Range<u64>, theirs: &Range<u64>) -> Outcome {
    let repeat = |pages: &Range<u64>| {
        let ask = Ask::Msync(pages.clone());
        let mut answers = (0..BESIDE).map(|_| call(arena, &ask, -1, false));
        let first = answers.next().unwrap_or_else(|| answered(0));
        answers.find(|answer| answer.errno != 0).unwrap_or(first)
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| repeat(theirs));
        let own = repeat(ours);
        match other.join() {
            Ok(other) if own.errno == 0 && other.errno != 0 => other,
            _ => own,
        }
    })
}

/// msync as a 32-bit program calls it: `int 0x80` works from 64-bit code too.
fn msync_i386(place: u32, len: u32, flags: i32) -> Outcome {
    let result: i32;
    // SAFETY: the call changes no memory; rbx, which the compiler keeps for itself, is put back.
    unsafe {
        std::arch::asm!(
            "push rbx",
            "mov ebx, {place:e}",
            "int 0x80",
            "pop rbx",
            place = in(reg) place,
            inlateout("eax") MSYNC_I386 => result,
            in("ecx") len,
            in("edx") flags,
            // The 32-bit entry of older kernels does not keep these.
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    Outcome {
        errno: -result,
        ..answered(0)
    }
}

fn in_child(call: impl FnOnce() -> Outcome) -> Outcome {
    // SAFETY: this process has one thread.
    match unsafe { libc::fork() } {
        -1 => answered(-1),
        0 => {
            let outcome = call();
            // SAFETY: leaves without running anything that belongs to the parent. An errno of
            // Linux fits into an exit status.
            unsafe { libc::_exit(outcome.errno) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: status is a valid place for the result.
            unsafe { libc::waitpid(pid, &raw mut status, 0) };
            Outcome {
                errno: libc::WEXITSTATUS(status),
                pid,
                tid: pid,
                ..answered(0)
            }
        }
    }
}

fn answered(result: i32) -> Outcome {
    let errno = match result {
        -1 => io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EIO),
        _ => 0,
    };
    // SAFETY: gettid has no arguments.
    let tid = unsafe { libc::gettid() };
    Outcome {
        errno,
        pid: std::process::id() as i32,
        tid,
        value: 0,
        time: (0, 0),
    }
}
