//! The file to be looked at: found by its identity or its path, opened without touching it.

use std::{
    cell::OnceCell,
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, FromRawFd},
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::fs::{AtFlags, StatxFlags, statx};

use super::{
    btrfs::Chunks,
    device::{Device, kernel_dev},
    disk::{Below, Disk, Medium},
    filesystem::FileSystem,
    mapped::{Mappings, Number},
};
use crate::{
    enrich::{Mount, Mounts, mounts_of, our_mounts},
    model::{FileSystemId, InodeKey, ProcessId},
};

/// Why a file cannot be looked at: a sentence, with the remedy where there is one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Obstacle(pub String);

impl Obstacle {
    pub(super) fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

/// A file, and the disk below it.
#[derive(Debug)]
pub struct Target {
    /// Open to be read; none where opening it would empty its page cache.
    pub(super) file: Option<Arc<File>>,
    pub(super) disk: Disk,
    /// To ask what it is.
    look: Arc<File>,
    /// As the process has it mapped that was lied to, and as any has: once they were asked for.
    mapped: OnceCell<Mappings>,
    mapped_by_all: OnceCell<Mappings>,
    process: Option<ProcessId>,
    /// Looking through all processes takes its time.
    asks_all: bool,
    key: InodeKey,
    dev: u32,
}

impl Target {
    /// The file that is at this path now. Its disk is waited for that long, once.
    ///
    /// # Errors
    /// If it is no regular file, may not be looked at, or would lose its cache by being opened.
    pub fn at(path: &Path, patience: Duration) -> Result<Self, Obstacle> {
        let cannot = |error: io::Error| Obstacle::new(format!("cannot open the file: {error}"));
        let found = open(path, libc::O_PATH).map_err(cannot)?;
        if !found.metadata().map_err(cannot)?.is_file() {
            return Err(Obstacle::new("it is no regular file"));
        }
        let mount = mount_of(&found);
        let dev = match mount {
            Some(mount) => mount.dev,
            None => kernel_dev(found.metadata().map_err(cannot)?.dev()),
        };
        match FileSystem::of(&found).cannot_be_opened() {
            Some(why) => {
                let ino = found.metadata().map_err(cannot)?.ino();
                let key = InodeKey {
                    fs: FileSystemId::Device(dev),
                    ino,
                    generation: 0,
                    subvolume: 0,
                };
                Self::unopened(found, key, dev, None).ok_or_else(|| Obstacle::new(why))
            }
            None => Self::open_found(&found, dev, patience),
        }
    }

    /// The file with this identity, wherever its name is by now: it may have been renamed, deleted
    /// while still open, or be seen in another mount namespace only. A new file at the old path is
    /// never taken for it.
    ///
    /// `dev`: the filesystem's device number at that time; `process`: who may see a mount of it.
    ///
    /// # Errors
    /// If the filesystem is not mounted any more, the file is gone, or see [`Self::at`].
    pub fn of(
        key: InodeKey,
        dev: Option<u32>,
        process: Option<ProcessId>,
        patience: Duration,
    ) -> Result<Self, Obstacle> {
        let mut why = Obstacle::new("its filesystem is not mounted here any more");
        // Of a server's, which may be dead and must not be asked without need.
        let is_served = matches!(key.fs, FileSystemId::Device(dev) if dev >> 20 == 0);
        let mapped = match is_served {
            true => Self::mapped_by(key, dev, process),
            false => None,
        };
        if let Some(target) = mapped {
            return Ok(target);
        }
        for (mount, point) in mounts(key, dev, process) {
            match Self::on_mount(key, mount.dev, &point, patience) {
                Ok(Some(target)) => {
                    return Ok(Self { process, ..target });
                }
                Ok(None) => {}
                Err(obstacle) => why = obstacle,
            }
        }
        match is_served {
            true => None,
            false => Self::mapped_by(key, dev, process),
        }
        .ok_or(why)
    }

    /// The file as this process has it mapped, or if it has not, any other one.
    fn mapped_by(key: InodeKey, dev: Option<u32>, process: Option<ProcessId>) -> Option<Self> {
        let dev = match key.fs {
            FileSystemId::Device(dev) => dev,
            _ => dev?,
        };
        // Two subvolumes have the same numbers, and only the open file would tell them apart.
        if key.subvolume != 0 {
            return None;
        }
        let number = Number { dev, ino: key.ino };
        let theirs = process.map(|process| Mappings::of_process(process, number));
        let look = match theirs.and_then(|theirs| theirs.look().ok()) {
            Some(look) => look,
            None => Mappings::of_all(number).look().ok()?,
        };
        Self::unopened(look, key, dev, process)
    }

    /// A file that must not be opened; `None`: nothing of it can be seen.
    fn unopened(look: File, key: InodeKey, dev: u32, process: Option<ProcessId>) -> Option<Self> {
        let look = Arc::new(look);
        let below = Below {
            file: Arc::clone(&look),
            filesystem: FileSystem::Other,
            medium: Err("where this filesystem keeps the bytes of a file is not known".to_owned()),
        };
        let target = Self {
            file: None,
            disk: Disk::new(below, AT_ONCE).ok()?,
            look,
            mapped: OnceCell::new(),
            mapped_by_all: OnceCell::new(),
            process,
            asks_all: true,
            key,
            dev,
        };
        let is_seen = target.mapped().any(|mapped| !mapped.is_empty());
        is_seen.then_some(target)
    }

    /// `None`: this is another filesystem.
    fn on_mount(
        key: InodeKey,
        dev: u32,
        point: &Path,
        patience: Duration,
    ) -> Result<Option<Self>, Obstacle> {
        let look = match open(point, libc::O_PATH) {
            Ok(look) if look.metadata().is_ok_and(|what| what.is_dir()) => look,
            _ => return Ok(None),
        };
        let filesystem = FileSystem::of(&look);
        if let Some(why) = filesystem.cannot_be_opened() {
            return Err(Obstacle::new(why));
        }
        let directory = open(&again(&look), libc::O_DIRECTORY)
            .map_err(|error| Obstacle::new(format!("cannot open {}: {error}", point.display())))?;
        let device = Device::open(dev);
        if filesystem.id(&directory, dev, device.as_ref().ok()) != key.fs {
            return Ok(None);
        }
        let file = open_by_key(&directory, filesystem, key)?;
        let target = Self::new(file, dev, device, patience)?;
        match target.key == key {
            true => Ok(Some(target)),
            false => Err(Obstacle::new(
                "the file is gone; its number belongs to another one now",
            )),
        }
    }

    fn open_found(found: &File, dev: u32, patience: Duration) -> Result<Self, Obstacle> {
        let file = open(&again(found), READ).map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Obstacle::new(
                "only the owner of the file or root may look at its page cache: run it with sudo",
            ),
            Some(libc::EWOULDBLOCK) => {
                Obstacle::new("another program has a lease on the file; try again")
            }
            _ => Obstacle::new(format!("cannot open the file: {error}")),
        })?;
        Self::new(file, dev, Device::open(dev), patience)
    }

    fn new(
        file: File,
        dev: u32,
        device: Result<Device, String>,
        patience: Duration,
    ) -> Result<Self, Obstacle> {
        let filesystem = FileSystem::of(&file);
        let what = file
            .metadata()
            .map_err(|error| Obstacle::new(format!("cannot look at the file: {error}")))?;
        if !what.is_file() {
            return Err(Obstacle::new("it is no regular file"));
        }
        let key = InodeKey {
            fs: filesystem.id(&file, dev, device.as_ref().ok()),
            ino: what.ino(),
            generation: generation(&file),
            subvolume: match filesystem {
                FileSystem::Btrfs => subvolume(&file),
                _ => 0,
            },
        };
        let file = Arc::new(file);
        let medium = match filesystem {
            FileSystem::Btrfs => Ok(Medium::Btrfs(Chunks::new(Arc::clone(&file)))),
            _ => device.map(Medium::Device),
        };
        let below = Below {
            file: Arc::clone(&file),
            filesystem,
            medium,
        };
        let disk = Disk::new(below, patience)
            .map_err(|error| Obstacle::new(format!("cannot start a thread: {error}")))?;
        Ok(Self {
            file: Some(Arc::clone(&file)),
            disk,
            look: file,
            mapped: OnceCell::new(),
            mapped_by_all: OnceCell::new(),
            process: None,
            asks_all: false,
            key,
            dev,
        })
    }

    /// Its identity.
    #[must_use]
    pub fn key(&self) -> InodeKey {
        self.key
    }

    /// The device number of its filesystem, as the kernel has it.
    #[must_use]
    pub fn dev(&self) -> u32 {
        self.dev
    }

    /// Its length now, in bytes.
    pub(super) fn size(&self) -> u64 {
        match &self.file {
            Some(file) => file.metadata().map_or(0, |what| what.len()),
            None => known_size(&self.look).unwrap_or_else(|| {
                let ends = self.mapped().map(Mappings::end);
                ends.max().unwrap_or(0)
            }),
        }
    }

    /// Looks for pages in all processes that have it mapped, not only in the one that was lied to.
    #[must_use]
    pub fn asking_all(self) -> Self {
        Self {
            asks_all: true,
            ..self
        }
    }

    /// As programs have it mapped: first the one that was lied to.
    pub(super) fn mapped(&self) -> impl Iterator<Item = &Mappings> {
        let number = Number {
            dev: self.dev,
            ino: self.key.ino,
        };
        let ours = move |found: Mappings| match &self.file {
            Some(file) => found.only_of(file),
            None => found,
        };
        let theirs = self.process.map(|process| {
            let find = || ours(Mappings::of_process(process, number));
            self.mapped.get_or_init(find)
        });
        let all = move || {
            let find = || ours(Mappings::of_all(number));
            self.asks_all.then(|| self.mapped_by_all.get_or_init(find))
        };
        theirs
            .into_iter()
            .chain(std::iter::once_with(all).flatten())
    }

    /// Names it has, as our mounts show it: where it is now.
    #[must_use]
    pub fn path_now(&self) -> Option<PathBuf> {
        fs::read_link(again(&self.look)).ok()
    }
}

/// More than an answer takes for which no disk is asked.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The length of a file as the kernel remembers it: a server that hangs is not asked.
fn known_size(look: &File) -> Option<u64> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let what = statx(look, c"", flags, StatxFlags::SIZE).ok()?;
    Some(what.stx_size)
}

/// Reads without a trace: no access time, no waiting for a lease, no controlling terminal.
const READ: libc::c_int = libc::O_NOATIME | libc::O_NONBLOCK | libc::O_NOCTTY;

fn open(path: &Path, flags: libc::c_int) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(flags | libc::O_CLOEXEC)
        .open(path)
}

/// A path to an open file: the very same one, whatever its name says now.
fn again(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// The mount through which a file was opened.
pub(super) fn mount_of(file: &File) -> Option<Mount> {
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()?;
    let id = about
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))?;
    let id: u64 = id.trim().parse().ok()?;
    our_mounts().iter().find(|mount| mount.id == id).cloned()
}

/// Mounts on which the file may be, the likeliest first: those of its device in our view, in the
/// view of the process, then all others (a filesystem that was mounted again can have another
/// device number).
fn mounts(key: InodeKey, dev: Option<u32>, process: Option<ProcessId>) -> Vec<(Mount, PathBuf)> {
    let named = match key.fs {
        FileSystemId::Device(dev) => Some(dev),
        _ => dev,
    };
    let ours = our_mounts();
    let ours = ours.iter().map(|mount| (mount.clone(), path(&mount.point)));
    let theirs = process.and_then(mounts_of);
    let theirs = theirs.iter().flat_map(Mounts::iter).map(|mount| {
        let root = PathBuf::from(format!("/proc/{}/root", process.map_or(0, |task| task.pid)));
        let point = mount.point.strip_prefix(b"/").unwrap_or(&mount.point);
        (mount.clone(), root.join(path(point)))
    });
    let (mut likely, mut others): (Vec<_>, Vec<_>) = ours
        .chain(theirs)
        .partition(|(mount, _)| Some(mount.dev) == named);
    // What is not known by a UUID is only known by its number. Of the others, one mount of each
    // that has a disk (major 0: NFS and the like, which are not to be asked without need).
    if matches!(key.fs, FileSystemId::Uuid(_)) {
        others.retain(|(mount, _)| mount.dev >> 20 != 0);
        others.sort_by_key(|(mount, _)| mount.dev);
        others.dedup_by_key(|(mount, _)| mount.dev);
        likely.extend(others);
    }
    likely
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// `struct file_handle` with what our filesystems put in.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    handle: [u8; 24],
}

// linux/exportfs.h, fs/xfs/xfs_export.h
const FILEID_INO32_GEN: i32 = 1;
const XFS_FILEID_TYPE_64FLAG: i32 = 0x80;
const FILEID_BTRFS_WITHOUT_PARENT: i32 = 0x4d;

/// Opens an inode by number and generation, as an NFS server does: no name is needed, and another
/// file that got the number is refused by the filesystem (ESTALE).
fn open_by_key(directory: &File, filesystem: FileSystem, key: InodeKey) -> Result<File, Obstacle> {
    let mut handle = Vec::new();
    let kind = match filesystem {
        FileSystem::Xfs => {
            handle.extend_from_slice(&key.ino.to_ne_bytes());
            handle.extend_from_slice(&key.generation.to_ne_bytes());
            // Taken on every XFS, also where numbers have 32 bits only (`xfs_fs_fh_to_dentry`).
            FILEID_INO32_GEN | XFS_FILEID_TYPE_64FLAG
        }
        FileSystem::Btrfs => {
            handle.extend_from_slice(&key.ino.to_ne_bytes());
            handle.extend_from_slice(&key.subvolume.to_ne_bytes());
            handle.extend_from_slice(&key.generation.to_ne_bytes());
            FILEID_BTRFS_WITHOUT_PARENT
        }
        FileSystem::Ext | FileSystem::F2fs => {
            let ino = u32::try_from(key.ino)
                .map_err(|_| Obstacle::new("no such file can be on its filesystem"))?;
            handle.extend_from_slice(&ino.to_ne_bytes());
            handle.extend_from_slice(&key.generation.to_ne_bytes());
            FILEID_INO32_GEN
        }
        _ => {
            return Err(Obstacle::new(
                "files of this filesystem cannot be found by their number: try --file",
            ));
        }
    };
    let mut wanted = Handle {
        bytes: handle.len() as u32,
        kind,
        handle: [0; 24],
    };
    wanted.handle[..handle.len()].copy_from_slice(&handle);
    // SAFETY: a file handle with as many bytes as it says.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            directory.as_raw_fd(),
            &raw mut wanted,
            READ | libc::O_RDONLY | libc::O_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(Obstacle::new(match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESTALE) => {
                "the file is gone: deleted, and nothing holds it".to_owned()
            }
            error if error.raw_os_error() == Some(libc::EPERM) => {
                "finding a file by its number needs root (CAP_DAC_READ_SEARCH): run it with sudo"
                    .to_owned()
            }
            error => format!("cannot open the file by its number: {error}"),
        }));
    }
    // SAFETY: a new descriptor that is ours.
    Ok(unsafe { File::from_raw_fd(fd as i32) })
}

/// `_IOR('v', 1, long)`; the kernel writes an int.
const FS_IOC_GETVERSION: libc::c_ulong = 0x8008_7601;

/// `i_generation`, 0 where the filesystem does not say it.
fn generation(file: &File) -> u32 {
    let mut generation: libc::c_long = 0;
    // SAFETY: a place that is large enough, and zero.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_GETVERSION, &raw mut generation) };
    match result {
        0 => generation as u32,
        _ => 0,
    }
}

/// `_IOWR(0x94, 18, struct btrfs_ioctl_ino_lookup_args)`
const BTRFS_IOC_INO_LOOKUP: libc::c_ulong = 0xd000_9412;
const BTRFS_FIRST_FREE_OBJECTID: u64 = 256;

/// The root of the subvolume that a file of btrfs is in.
fn subvolume(file: &File) -> u64 {
    // treeid, objectid, name
    let mut lookup = [0_u64; 512];
    lookup[1] = BTRFS_FIRST_FREE_OBJECTID;
    // SAFETY: 4096 bytes, as the size in the request says.
    let result =
        unsafe { libc::ioctl(file.as_raw_fd(), BTRFS_IOC_INO_LOOKUP, lookup.as_mut_ptr()) };
    match result {
        0 => lookup[0],
        _ => 0,
    }
}
