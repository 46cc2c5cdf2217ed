//! Saves surviving bytes to a directory on another filesystem: nobody else may read them, nothing
//! that exists is overwritten, and what is said to be saved is on that disk.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{
    compare::{InCache, Keep, OnDisk, Pages},
    manifest::{Manifest, Saved},
    stack,
    target::{Obstacle, Target},
};
use crate::{enrich::share_a_disk, model::ByteRange};

/// A directory that rescued bytes may go to.
#[derive(Clone, Debug)]
pub struct Vault {
    path: PathBuf,
    dev: u32,
    /// Its filesystem is in memory.
    is_volatile: bool,
}

impl Vault {
    /// The directory need not be there yet: then it is made with the first rescue, for its owner
    /// alone. Nothing is made before it is known not to be on the filesystem that loses bytes.
    ///
    /// # Errors
    /// If it cannot be made or written there.
    pub fn at(path: &Path) -> Result<Self, Obstacle> {
        let cannot = |error: io::Error| {
            Obstacle::new(format!(
                "cannot use the directory for rescued bytes: {error}"
            ))
        };
        let (path, existing) = match fs::canonicalize(path) {
            Ok(path) => (path.clone(), path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let name = path.file_name().ok_or(error).map_err(cannot)?;
                let parent = match path.parent() {
                    Some(parent) if parent != Path::new("") => parent,
                    _ => Path::new("."),
                };
                let parent = fs::canonicalize(parent).map_err(cannot)?;
                (parent.join(name), parent)
            }
            Err(error) => return Err(cannot(error)),
        };
        if !fs::metadata(&existing).map_err(cannot)?.is_dir() {
            return Err(Obstacle::new("the place for rescued bytes is no directory"));
        }
        let directory = File::open(&existing).map_err(cannot)?;
        rustix::fs::access(&existing, rustix::fs::Access::WRITE_OK)
            .map_err(|error| cannot(error.into()))?;
        Ok(Self {
            dev: stack::dev_of(&directory).map_err(cannot)?,
            is_volatile: stack::is_in_memory(&directory),
            path,
        })
    }

    /// A new directory in it, for its owner alone.
    fn new_directory(&self, name: &str) -> io::Result<PathBuf> {
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // It may have been put somewhere else meanwhile.
        if stack::dev_of(&File::open(&self.path)?)? != self.dev {
            return Err(io::Error::other("it is on another filesystem now"));
        }
        make_directory(&self.path, name)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses the filesystem that is losing bytes: writing there could fail, or make room in
    /// memory by evicting what is to be saved.
    ///
    /// # Errors
    /// If it is the same filesystem.
    pub fn refuse_same_filesystem(&self, target: &Target) -> Result<(), Obstacle> {
        match self.dev == target.dev() {
            false => Ok(()),
            true => Err(Obstacle::new(
                "the directory for rescued bytes is on the filesystem that lost them: give one on \
                 another disk",
            )),
        }
    }

    /// What is worth knowing about it before relying on it.
    #[must_use]
    pub fn warning(&self, target: &Target) -> Option<&'static str> {
        if self.is_volatile {
            return Some("the directory for rescued bytes is in memory: copy it to a disk");
        }
        share_a_disk(self.dev, target.dev()).then_some(
            "the directory for rescued bytes is on the same disk, below another filesystem: copy it \
             to another one",
        )
    }
}

/// Which surviving bytes are saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// All of them: they were lost.
    All,
    /// Those that the disk does not have.
    Differing,
}

/// Saves what [`super::examine`] sees. Its errors wait for [`Self::finish`]: looking goes on.
#[derive(Debug)]
pub struct Saver {
    directory: PathBuf,
    choice: Choice,
    room: u64,
    written: u64,
    saved: Vec<Saved>,
    open: Option<Area>,
    not_saved: Option<String>,
    failed: Option<io::Error>,
}

/// Bytes that are being saved.
#[derive(Debug)]
struct Area {
    range: ByteRange,
    memory: Copied,
    disk: Option<Copied>,
}

impl Saver {
    /// Into a new directory of the vault, called `name` (and a number if there is one already), with
    /// `room` bytes at most.
    ///
    /// # Errors
    /// If that cannot be made.
    pub fn new(vault: &Vault, name: &str, choice: Choice, room: u64) -> Result<Self, Obstacle> {
        let directory = vault.new_directory(name).map_err(|error| {
            Obstacle::new(format!(
                "cannot make a directory for rescued bytes: {error}"
            ))
        })?;
        Ok(Self {
            directory,
            choice,
            room,
            written: 0,
            saved: Vec::new(),
            open: None,
            not_saved: None,
            failed: None,
        })
    }

    /// Where everything goes.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Bytes that were written, of memory and of the disk.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes the manifest, which `describe` completes, and waits until all is on the disk.
    ///
    /// # Errors
    /// If anything could not be saved: then nothing is relied on.
    pub fn finish(mut self, mut manifest: Manifest) -> Result<Manifest, Obstacle> {
        let directory = self.directory.clone();
        let finish = || -> io::Result<Manifest> {
            self.close();
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            manifest.saved = std::mem::take(&mut self.saved);
            manifest.not_saved = self.not_saved.take();
            let mut text = serde_json::to_vec_pretty(&manifest)?;
            text.push(b'\n');
            let mut file = create(&self.directory.join("manifest.json"))?;
            file.write_all(&text)?;
            file.sync_all()?;
            File::open(&self.directory)?.sync_all()?;
            if let Some(parent) = self.directory.parent() {
                File::open(parent)?.sync_all()?;
            }
            Ok(manifest)
        };
        finish().map_err(|error| {
            Obstacle::new(format!(
                "cannot save to {}: {error}; what is there is not complete",
                directory.display()
            ))
        })
    }

    fn wants(&self, pages: &Pages) -> bool {
        match (pages.in_cache, self.choice) {
            (InCache::No | InCache::Unknown, _) => false,
            (InCache::Clean | InCache::Dirty, Choice::All) => true,
            (_, Choice::Differing) => pages.on_disk == OnDisk::Differs,
        }
    }

    fn add(&mut self, pages: &Pages, memory: &[u8], disk: &[u8]) -> io::Result<()> {
        let has_disk = pages.on_disk != OnDisk::Unknown;
        let goes_on = self.open.as_ref().is_some_and(|area| {
            area.range.end() == pages.range.start() && area.disk.is_some() == has_disk
        });
        if !goes_on {
            self.close();
            self.open = Some(Area {
                range: pages.range,
                memory: Copied::new(&self.directory, pages.range.start(), "memory")?,
                disk: match has_disk {
                    true => Some(Copied::new(&self.directory, pages.range.start(), "disk")?),
                    false => None,
                },
            });
        }
        let Some(area) = &mut self.open else {
            return Ok(());
        };
        let range = ByteRange::new(area.range.start(), pages.range.end());
        area.range = range.unwrap_or(area.range);
        area.memory.write(memory)?;
        if let Some(copied) = &mut area.disk {
            copied.write(disk)?;
        }
        Ok(())
    }

    fn close(&mut self) {
        let Some(area) = self.open.take() else {
            return;
        };
        let finish = || -> io::Result<Saved> {
            let (memory_file, memory_sha256) = area.memory.finish()?;
            let disk = area.disk.map(Copied::finish).transpose()?;
            let (disk_file, disk_sha256) = disk.unzip();
            Ok(Saved {
                range: area.range,
                memory_file,
                memory_sha256,
                disk_file,
                disk_sha256,
            })
        };
        match finish() {
            Ok(saved) => self.saved.push(saved),
            Err(error) => self.failed = self.failed.take().or(Some(error)),
        }
    }
}

impl Keep for Saver {
    fn keep(&mut self, pages: &Pages, memory: &[u8], disk: &[u8]) {
        if self.failed.is_some() || !self.wants(pages) {
            return;
        }
        let has_disk = pages.on_disk != OnDisk::Unknown;
        let cost = pages.range.len() * if has_disk { 2 } else { 1 };
        if cost > self.room {
            self.not_saved = Some("the limit of bytes was reached".to_owned());
            // Nothing after a gap that only the limit made.
            self.room = 0;
            return;
        }
        self.room -= cost;
        self.written += cost;
        match self.add(pages, memory, disk) {
            Ok(()) => {}
            Err(error) => self.failed = Some(error),
        }
    }
}

/// A file that is written and digested.
#[derive(Debug)]
struct Copied {
    name: String,
    file: File,
    digest: Sha256,
    /// Since the last time that they were brought to the disk.
    unsynced: u64,
}

/// Bytes that may wait in memory, where they take the room of those that are to be saved.
const UNSYNCED: u64 = 16 << 20;

impl Copied {
    /// `START.KIND`, with enough digits that names sort like numbers.
    fn new(directory: &Path, start: u64, kind: &str) -> io::Result<Self> {
        let name = format!("{start:016}.{kind}");
        Ok(Self {
            file: create(&directory.join(&name))?,
            name,
            digest: Sha256::new(),
            unsynced: 0,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.digest.update(bytes);
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= UNSYNCED {
            self.sync()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        self.unsynced = 0;
        // SAFETY: touches no memory. No harm if the advice is not taken.
        unsafe { libc::posix_fadvise(self.file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        Ok(())
    }

    fn finish(mut self) -> io::Result<(String, String)> {
        self.sync()?;
        let digest = self.digest.finalize();
        let text = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((self.name, text))
    }
}

/// A new file, for its owner alone.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
}

/// So many rescues of the same name, made in the same second.
const NAMES: u32 = 10_000;

/// A new directory, for its owner alone.
fn make_directory(vault: &Path, name: &str) -> io::Result<PathBuf> {
    for number in 1..NAMES {
        let path = match number {
            1 => vault.join(name),
            _ => vault.join(format!("{name}-{number}")),
        };
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
