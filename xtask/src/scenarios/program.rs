//! A program under test: a forked process that maps files and asks for durability, one step at a
//! time, and reports exactly what the kernel answered.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::page::{Memory, Stamp};
use super::steps;

/// The longest one step may take, in a slow virtual machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Open {
    /// It has to be there.
    Existing,
    /// Made, or emptied.
    New,
}

/// Who makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    /// The program's first thread.
    Main,
    /// Another thread of it.
    Thread,
    /// A forked child: another process with the same open file descriptions.
    Child,
    /// The first thread, through the 32-bit system call entry.
    Compat,
}

/// A request for durability.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// msync(MS_SYNC) of these pages of the arena.
    Msync(Range<u64>),
    /// msync(MS_ASYNC).
    MsyncAsync(Range<u64>),
    /// msync(MS_SYNC) of the first pages again and again, while another thread does so with the
    /// second. The answer is the first failure of either.
    MsyncBeside(Range<u64>, Range<u64>),
    /// fsync of a descriptor.
    Fsync(usize),
    /// fdatasync.
    Fdatasync(usize),
    /// sync_file_range, the whole file, write and wait.
    FileRange(usize),
    /// `sync_file_range` that only begins to write, of the file in this slot.
    Begin(usize),
    /// IORING_OP_FSYNC.
    IoUring(usize),
}

/// One step. `at` counts pages of the arena, the one piece of address space that all mappings go
/// into; `first` counts pages of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Step {
    /// Opens a file; the value is the slot of its descriptor.
    Open(PathBuf, Open),
    /// Closes a slot.
    Close(usize),
    /// ftruncate.
    Resize(usize, u64),
    /// fallocate: unwritten extents.
    Allocate(usize, u64),
    /// The same, past the end of the file, which stays where it is.
    AllocateBeyond(usize, Range<u64>),
    /// fallocate: punches a hole.
    Punch(usize, Range<u64>),
    /// Maps pages of a slot's file.
    Map {
        slot: usize,
        at: u64,
        first: u64,
        pages: u64,
    },
    /// Unmaps.
    Unmap(Range<u64>),
    /// Stores whole pages.
    Store {
        at: u64,
        first: u64,
        pages: u64,
        stamp: Stamp,
    },
    /// Asks for durability.
    Sync(Ask, By),
    /// posix_fadvise(DONTNEED) on the whole file.
    DropCache(usize),
    /// A memory error under this page of the arena, as the machine would report it. In a child, which
    /// it kills.
    Poison(u64),
    /// The value is the inode number.
    Inode(usize),
}

/// What the kernel answered.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// 0 = success.
    pub errno: i32,
    /// Process that made the call.
    pub pid: i32,
    /// Thread that made the call.
    pub tid: i32,
    /// Whatever else the step returns.
    pub value: u64,
    /// Before and after the call of [`Step::Sync`], see [`kernel_time`].
    pub time: (u64, u64),
}

/// `CLOCK_MONOTONIC` in nanoseconds, as the tool's facts have it.
pub fn kernel_time() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: now is a valid place for the result.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

impl Outcome {
    /// The call must have failed like this; 0 = it must have succeeded.
    #[track_caller]
    pub fn must_be(self, errno: i32) -> Result<Outcome> {
        match self.errno == errno {
            true => Ok(self),
            false => bail!(
                "the call gave {}, expected {} ({})",
                name(self.errno),
                name(errno),
                std::panic::Location::caller()
            ),
        }
    }
}

/// An errno as people write it.
pub fn name(errno: i32) -> String {
    match errno {
        0 => "0".to_owned(),
        libc::EIO => "EIO".to_owned(),
        libc::ENOSPC => "ENOSPC".to_owned(),
        libc::EROFS => "EROFS".to_owned(),
        libc::EPERM => "EPERM".to_owned(),
        libc::EACCES => "EACCES".to_owned(),
        libc::EDQUOT => "EDQUOT".to_owned(),
        libc::ESTALE => "ESTALE".to_owned(),
        libc::EREMOTEIO => "EREMOTEIO".to_owned(),
        libc::ENOTCONN => "ENOTCONN".to_owned(),
        libc::EHWPOISON => "EHWPOISON".to_owned(),
        other => std::io::Error::from_raw_os_error(other).to_string(),
    }
}

struct Mapping {
    file: String,
    arena: Range<u64>,
    first: u64,
}

/// Our end of a program. Dropping it kills it, unless it was lied to: see [`Left`].
pub struct Program {
    /// `None` only while dropping.
    process: Option<Process>,
    left: Rc<RefCell<Left>>,
    directory: PathBuf,
    names: Vec<String>,
    mappings: Vec<Mapping>,
    memory: Rc<RefCell<Memory>>,
}

/// Programs that go on living at the end of their story, because somebody still looks at what they
/// have mapped.
#[derive(Default)]
pub struct Left {
    /// From now on programs are kept.
    pub kept: bool,
    programs: Vec<Process>,
}

/// A process of ours. Dropping it kills it.
struct Process {
    pid: libc::pid_t,
    pipe: BufReader<UnixStream>,
}

impl Program {
    /// Forks: this process must have one thread. Files are named relative to `directory`.
    pub fn start(
        name: &str,
        directory: &Path,
        memory: Rc<RefCell<Memory>>,
        left: Rc<RefCell<Left>>,
    ) -> Result<Program> {
        let (ours, theirs) = UnixStream::pair()?;
        // SAFETY: this process has one thread, so the child may do anything.
        let pid = match unsafe { libc::fork() } {
            -1 => return Err(std::io::Error::last_os_error()).context("fork"),
            0 => {
                drop(ours);
                steps::obey(name, theirs)
            }
            pid => pid,
        };
        ours.set_read_timeout(Some(PATIENCE))?;
        Ok(Program {
            process: Some(Process {
                pid,
                pipe: BufReader::new(ours),
            }),
            left,
            directory: directory.to_owned(),
            names: Vec::new(),
            mappings: Vec::new(),
            memory,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.process.as_ref().map_or(0, |process| process.pid)
    }

    /// Opens a file and returns the slot of its descriptor.
    pub fn open(&mut self, file: &str, how: Open) -> Result<usize> {
        let path = self.directory.join(file);
        self.step(&Step::Open(path, how))?
            .must_be(0)
            .with_context(|| format!("open {file}"))?;
        self.names.push(file.to_owned());
        Ok(self.names.len() - 1)
    }

    /// Maps `pages` of the file, from page `first`, to page `at` of the arena.
    pub fn map(&mut self, slot: usize, at: u64, first: u64, pages: u64) -> Result<()> {
        self.step(&Step::Map {
            slot,
            at,
            first,
            pages,
        })?
        .must_be(0)
        .context("mmap")?;
        let file = self.names[slot].clone();
        self.mappings.push(Mapping {
            file,
            arena: at..at + pages,
            first,
        });
        Ok(())
    }

    /// Stores into pages of the arena; `doomed` pages are refused while the device fails.
    pub fn store(&mut self, arena: Range<u64>, doomed: bool) -> Result<()> {
        let stamp = Stamp {
            generation: self.memory.borrow_mut().next_generation(),
            doomed,
        };
        let mapping = self
            .mappings
            .iter()
            .find(|m| m.arena.start <= arena.start && arena.end <= m.arena.end)
            .context("a store outside the mappings")?;
        let first = mapping.first + arena.start - mapping.arena.start;
        let pages = arena.end - arena.start;
        for page in first..first + pages {
            self.memory.borrow_mut().stored(&mapping.file, page, stamp);
        }
        let step = Step::Store {
            at: arena.start,
            first,
            pages,
            stamp,
        };
        self.step(&step)?.must_be(0).context("store")?;
        Ok(())
    }

    /// msync(MS_SYNC) by the main thread.
    pub fn msync(&mut self, arena: Range<u64>) -> Result<Outcome> {
        self.sync(Ask::Msync(arena), By::Main)
    }

    /// Any request for durability.
    pub fn sync(&mut self, ask: Ask, by: By) -> Result<Outcome> {
        self.step(&Step::Sync(ask, by))
    }

    /// Unmaps all and closes all.
    pub fn let_go(&mut self) -> Result<()> {
        for mapping in std::mem::take(&mut self.mappings) {
            self.step(&Step::Unmap(mapping.arena))?.must_be(0)?;
        }
        for slot in 0..self.names.len() {
            // A close may report the write error; that is no promise of any kind.
            self.step(&Step::Close(slot))?;
        }
        Ok(())
    }

    /// Shortens or lengthens the file.
    pub fn resize(&mut self, slot: usize, pages: u64) -> Result<()> {
        let bytes = pages * crate::faults::BLOCK as u64;
        self.step(&Step::Resize(slot, bytes))?
            .must_be(0)
            .context("ftruncate")?;
        self.memory
            .borrow_mut()
            .given_up(&self.names[slot], pages..u64::MAX);
        Ok(())
    }

    /// Punches a hole.
    pub fn punch(&mut self, slot: usize, pages: Range<u64>) -> Result<()> {
        self.step(&Step::Punch(slot, pages.clone()))?
            .must_be(0)
            .context("punch a hole")?;
        self.memory.borrow_mut().given_up(&self.names[slot], pages);
        Ok(())
    }

    /// Any other step.
    pub fn step(&mut self, step: &Step) -> Result<Outcome> {
        let mut line = serde_json::to_string(step)?;
        line.push('\n');
        let pipe = &mut self.process.as_mut().context("the program is gone")?.pipe;
        pipe.get_mut().write_all(line.as_bytes())?;
        line.clear();
        pipe.read_line(&mut line)
            .context("the program under test hangs")?;
        if line.is_empty() {
            bail!("the program under test died in {step:?}");
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let mut left = self.left.borrow_mut();
        if left.kept {
            left.programs.extend(self.process.take());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut status = 0;
        // SAFETY: the process is our child and not yet waited for, so the number is still its own.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, &raw mut status, 0);
        }
    }
}
