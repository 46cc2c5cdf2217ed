//! A scratch file system on a disk that refuses writes, and real losses on it: the proof that
//! `selftest` wants. Imports the words of `model` and nothing else.
//!
//! The disk is a loop device over a file on a size-limited tmpfs: once the tmpfs is full, writes
//! succeed where the file has its pages already and fail where it has a hole. A hole is punched
//! below the pages that are to be lost, so everything else, the file system's own blocks
//! included, keeps working.

mod disk;
mod loop_device;
mod mapping;

use std::fs::{File, OpenOptions};
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::model::{ByteRange, Errno, ToldWho};

use disk::Disk;
use mapping::{Mapping, PAGE};

/// File systems that can be made to lose data here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScratchFs {
    /// ext4 with a journal.
    Ext4,
    /// XFS.
    Xfs,
    /// btrfs, one copy.
    Btrfs,
}

impl ScratchFs {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ext4, Self::Xfs, Self::Btrfs];

    /// As the kernel calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }
}

impl FromStr for ScratchFs {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|fs| fs.name() == name)
            .ok_or_else(|| format!("{name} is not one of ext4, xfs, btrfs"))
    }
}

/// Ways to lose data silently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossKind {
    /// msync fails, the program tries again on the same descriptor and gets 0.
    TriedAgain,
    /// msync fails, the program opens the file anew and gets 0.
    OpenedAnew,
    /// Background write-back fails, the file system is unmounted and mounted again, msync gives 0
    /// from the first call on.
    NobodyTold,
}

impl LossKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::TriedAgain, Self::OpenedAnew, Self::NobodyTold];

    /// Who has been given an error before the false success.
    #[must_use]
    pub fn told(self) -> ToldWho {
        match self {
            Self::TriedAgain => ToldWho::Caller,
            Self::OpenedAnew => ToldWho::Other,
            Self::NobodyTold => ToldWho::Nobody,
        }
    }

    /// Its name, and that of its file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TriedAgain => "tried-again",
            Self::OpenedAnew => "opened-anew",
            Self::NobodyTold => "nobody-told",
        }
    }
}

/// A loss that really happened: the bytes are nowhere on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// How.
    pub kind: LossKind,
    /// The file, as the thread that lost it names it.
    pub path: PathBuf,
    /// The lost bytes.
    pub range: ByteRange,
    /// All bytes of the file. The pages around the lost ones can be in one request with them:
    /// then the kernel gives them up together, though the disk has them.
    pub whole: ByteRange,
    /// What the disk has in the place of the lost bytes.
    pub on_disk: OnDisk,
    /// The error, as the kernel reported it.
    pub errno: Errno,
    /// Process whose msync returned 0.
    pub pid: u32,
    /// Its thread.
    pub tid: u32,
}

/// What the disk has where the lost bytes belong. Never the lost bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisk {
    /// Nothing but zeros.
    Zeros,
    /// Bytes from before.
    OldBytes,
}

/// Why nothing was lost.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// This machine cannot do it.
    #[error("{0}")]
    Unavailable(String),
    /// A step failed that has to work.
    #[error("{step}: {error}")]
    Step {
        /// Which.
        step: &'static str,
        /// Why.
        error: io::Error,
    },
    /// All went well, but not as intended: this proves nothing about msync-trace.
    #[error("the loss did not happen: {0}")]
    NotLost(String),
}

/// Names the step that an I/O error belongs to.
trait StepResult<T> {
    fn step(self, step: &'static str) -> Result<T, ScratchError>;
}

impl<T> StepResult<T> for io::Result<T> {
    fn step(self, step: &'static str) -> Result<T, ScratchError> {
        self.map_err(|error| ScratchError::Step { step, error })
    }
}

/// Pages of a scratch file.
const PAGES: u64 = 16;
/// First page that gets lost.
const FIRST_LOST: u64 = 4;
/// How many get lost.
const LOST: u64 = 4;
/// msync may report one failure more than once (btrfs does).
const PATIENCE: u32 = 4;

/// A mounted scratch file system. It is visible to the thread that made it alone, belongs to that
/// thread, and disappears with it, even after SIGKILL.
pub struct Scratch {
    disk: Disk,
    _mounts_belong_to_a_thread: PhantomData<*const ()>,
}

impl Scratch {
    /// Makes the file system. Gives the calling thread a mount namespace of its own, for good: use
    /// a thread that does nothing else.
    pub fn new(fs: ScratchFs) -> Result<Scratch, ScratchError> {
        Ok(Scratch {
            disk: Disk::new(fs)?,
            _mounts_belong_to_a_thread: PhantomData,
        })
    }

    /// Where it is mounted, for this thread.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.disk.mount_point()
    }

    /// The block device.
    #[must_use]
    pub fn device(&self) -> &Path {
        self.disk.device()
    }

    /// The disk refuses four pages of a file of its own, which the program was told: its next msync
    /// will be a false success. Can be done once.
    pub fn fail(&mut self) -> Result<Failed, ScratchError> {
        let (path, file, mapping, _) = self.store_refused(LossKind::TriedAgain)?;
        first_error(mapping.msync())?;
        Ok(Failed {
            path,
            range: lost_range(),
            mapping,
            _file: file,
        })
    }

    /// A file of which four pages were stored that the disk will refuse, and where they belong.
    fn store_refused(
        &mut self,
        kind: LossKind,
    ) -> Result<(PathBuf, File, Mapping, Vec<u64>), ScratchError> {
        let path = self.disk.mount_point().join(kind.name());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .step("make a scratch file")?;
        self.disk.overwrite_in_place(&file)?;
        file.set_len(PAGES * PAGE as u64)
            .step("make a scratch file")?;
        let mut mapping = Mapping::of(&file, PAGES).step("mmap")?;
        mapping.store(0..PAGES, &stamp(kind, "before"));
        mapping.msync().step("msync on the healthy disk")?;
        let places = self.refuse_pages(&stamp(kind, "before"))?;
        mapping.store(FIRST_LOST..FIRST_LOST + LOST, &stamp(kind, "after"));
        Ok((path, file, mapping, places))
    }

    /// Loses four pages of a file of its own. Every kind can be lost once.
    pub fn lose(&mut self, kind: LossKind) -> Result<Loss, ScratchError> {
        let (path, file, mapping, places) = self.store_refused(kind)?;
        let after = stamp(kind, "after");
        let errno = match kind {
            LossKind::TriedAgain => {
                let errno = first_error(mapping.msync())?;
                until_success(&mapping)?;
                errno
            }
            LossKind::OpenedAnew => {
                let errno = first_error(mapping.msync())?;
                drop((mapping, file));
                until_success(&open_and_map(&path)?)?;
                errno
            }
            LossKind::NobodyTold => {
                // syncfs gives the error without taking it from the file.
                let errno = first_error(self.disk.syncfs())?;
                drop((mapping, file));
                self.disk.heal()?;
                self.disk.mount_again()?;
                let mapping = open_and_map(&path)?;
                mapping.msync().map_err(|error| {
                    ScratchError::NotLost(format!("msync on the new mount: {error}"))
                })?;
                errno
            }
        };
        let found = self.disk.find(&after)?;
        let on_disk = if self.disk.is_zero(&places)? {
            OnDisk::Zeros
        } else {
            OnDisk::OldBytes
        };
        self.disk.heal()?;
        if !found.is_empty() {
            return Err(ScratchError::NotLost(format!(
                "{} of {LOST} pages are on the disk",
                found.len()
            )));
        }
        // SAFETY: gettid has no arguments.
        let tid = unsafe { libc::gettid() };
        Ok(Loss {
            kind,
            path,
            range: lost_range(),
            whole: ByteRange::with_len(0, PAGES * PAGE as u64).unwrap_or(ByteRange::ALL),
            on_disk,
            errno,
            pid: std::process::id(),
            tid: tid.unsigned_abs(),
        })
    }

    /// From now on the disk refuses the pages that are to be lost, and nothing else. Says where
    /// they are.
    fn refuse_pages(&mut self, before: &[u8]) -> Result<Vec<u64>, ScratchError> {
        let places = self.disk.find(before)?;
        let doomed = |page: &u64| (FIRST_LOST..FIRST_LOST + LOST).contains(page);
        let doomed: Vec<u64> = places
            .into_iter()
            .filter(|(page, _)| doomed(page))
            .map(|(_, offset)| offset)
            .collect();
        if (doomed.len() as u64) < LOST {
            return Err(ScratchError::NotLost(
                "the pages to be lost cannot be found on the healthy disk".to_owned(),
            ));
        }
        self.disk.refuse(&doomed)?;
        Ok(doomed)
    }
}

/// A file that the disk refused pages of. Its program knows, and has not called msync again.
pub struct Failed {
    /// The file, as the thread that made it names it.
    pub path: PathBuf,
    /// The bytes that are lost.
    pub range: ByteRange,
    mapping: Mapping,
    _file: File,
}

impl Failed {
    /// The program tries once more: the false success.
    ///
    /// # Errors
    /// [`ScratchError::NotLost`] if it goes on failing.
    pub fn msync(&self) -> Result<(), ScratchError> {
        until_success(&self.mapping)
    }
}

fn lost_range() -> ByteRange {
    let start = FIRST_LOST * PAGE as u64;
    ByteRange::with_len(start, LOST * PAGE as u64).unwrap_or(ByteRange::ALL)
}

/// What every stored page begins with, up to its page number.
fn stamp(kind: LossKind, when: &str) -> Vec<u8> {
    format!("msync-trace selftest {} {when}\n", kind.name()).into_bytes()
}

fn open_and_map(path: &Path) -> Result<Mapping, ScratchError> {
    let file: File = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .step("open the scratch file again")?;
    Mapping::of(&file, PAGES).step("mmap")
}

fn first_error(result: io::Result<()>) -> Result<Errno, ScratchError> {
    result
        .err()
        .and_then(|error| error.raw_os_error())
        .and_then(|number| Errno::new(number.unsigned_abs()))
        .ok_or_else(|| ScratchError::NotLost("the failing disk accepted the write".to_owned()))
}

fn until_success(mapping: &Mapping) -> Result<(), ScratchError> {
    let mut last = String::new();
    for _ in 0..PATIENCE {
        match mapping.msync() {
            Ok(()) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
    }
    Err(ScratchError::NotLost(format!(
        "msync keeps failing: {last}"
    )))
}
