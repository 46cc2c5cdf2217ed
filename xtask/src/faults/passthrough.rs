//! A FUSE file system with write-back cache that keeps its files in a folder of another one, and
//! answers a WRITE when the bytes are on that one's disk: its disk's errors become its own.
//!
//! It runs in a process of its own until it is unmounted or killed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, Session, TimeOrNow,
    WriteFlags,
};

use super::child::{Child, PATIENCE};

/// How long the kernel may believe what it was told: it is the only one that changes anything.
const TTL: Duration = Duration::from_secs(3600);
const ROOT_INO: u64 = 1;

/// Mounts `folder` at `at`. `has_fsync`: whether the server implements FSYNC. It ends when it is
/// unmounted. Forks, see [`Child::start`].
pub fn mount_passthrough(folder: &Path, at: &Path, has_fsync: bool) -> Result<Child> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let server = Child::start("FUSE server", &[theirs.as_fd()], || {
        run(folder, at, has_fsync, &theirs)
    })?;
    drop(theirs);
    ours.set_read_timeout(Some(PATIENCE))?;
    let mut ready = [0];
    ours.read_exact(&mut ready)
        .context("the FUSE server did not start (is /dev/fuse usable?)")?;
    Ok(server)
}

fn run(folder: &Path, at: &Path, has_fsync: bool, mut ready: &UnixStream) -> io::Result<()> {
    let files = Files {
        nodes: Mutex::default(),
        root: folder.to_owned(),
        has_fsync,
    };
    let mut config = fuser::Config::default();
    config.mount_options = vec![MountOption::FSName("msync-trace-served".to_owned())];
    let session = Session::new(files, at, &config)?.spawn()?;
    ready.write_all(&[1])?;
    session.join()
}

/// A file or folder that the kernel knows.
#[derive(Clone)]
struct Node {
    path: PathBuf,
    /// `None`: a folder.
    file: Option<Arc<File>>,
    generation: u64,
}

#[derive(Default)]
struct Nodes {
    known: HashMap<u64, Node>,
    made: u64,
}

struct Files {
    nodes: Mutex<Nodes>,
    root: PathBuf,
    has_fsync: bool,
}

impl Files {
    fn nodes(&self) -> std::sync::MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, ino: INodeNo) -> io::Result<PathBuf> {
        if u64::from(ino) == ROOT_INO {
            return Ok(self.root.clone());
        }
        let nodes = self.nodes();
        let node = nodes.known.get(&u64::from(ino));
        node.map(|node| node.path.clone()).ok_or_else(stale)
    }

    fn file(&self, ino: INodeNo) -> io::Result<Arc<File>> {
        let nodes = self.nodes();
        let node = nodes.known.get(&u64::from(ino));
        node.and_then(|node| node.file.clone()).ok_or_else(stale)
    }

    fn attributes(&self, ino: INodeNo) -> io::Result<FileAttr> {
        let metadata = match self.file(ino) {
            Ok(file) => file.metadata()?,
            Err(_) => self.path(ino)?.metadata()?,
        };
        Ok(attributes(u64::from(ino), &metadata))
    }

    /// What a name in a folder is; the kernel knows it from now on.
    fn find(&self, parent: INodeNo, name: &OsStr) -> io::Result<(FileAttr, Generation)> {
        let path = self.path(parent)?.join(name);
        let metadata = path.symlink_metadata()?;
        let mut nodes = self.nodes();
        let ino = metadata.ino();
        if !nodes.known.contains_key(&ino) {
            let file = match metadata.is_dir() {
                true => None,
                false => Some(Arc::new(open(&path, false)?)),
            };
            nodes.made += 1;
            let generation = nodes.made;
            nodes.known.insert(
                ino,
                Node {
                    path,
                    file,
                    generation,
                },
            );
        }
        let generation = nodes.known.get(&ino).map_or(0, |node| node.generation);
        Ok((attributes(ino, &metadata), Generation(generation)))
    }
}

/// A write comes back when its bytes are on the disk, or not.
fn open(path: &Path, create: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create);
    options.custom_flags(libc::O_DSYNC).open(path)
}

fn stale() -> io::Error {
    io::Error::from_raw_os_error(libc::ESTALE)
}

fn attributes(ino: u64, metadata: &std::fs::Metadata) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: metadata.size(),
        blocks: metadata.blocks(),
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: if metadata.is_dir() {
            FileType::Directory
        } else {
            FileType::RegularFile
        },
        perm: (metadata.mode() & 0o7777) as u16,
        nlink: metadata.nlink() as u32,
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for Files {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        config
            .add_capabilities(InitFlags::FUSE_WRITEBACK_CACHE)
            .map_err(|_| io::Error::from_raw_os_error(libc::ENOSYS))
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.find(parent, name) {
            Ok((attributes, generation)) => reply.entry(&TTL, &attributes, generation),
            Err(error) => reply.error(error.into()),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let resized = match size {
            Some(size) => self.file(ino).and_then(|file| file.set_len(size)),
            None => Ok(()),
        };
        match resized.and_then(|()| self.attributes(ino)) {
            Ok(attributes) => reply.attr(&TTL, &attributes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let made = self
            .path(parent)
            .and_then(|path| std::fs::create_dir(path.join(name)));
        match made.and_then(|()| self.find(parent, name)) {
            Ok((attributes, generation)) => reply.entry(&TTL, &attributes, generation),
            Err(error) => reply.error(error.into()),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let made = self
            .path(parent)
            .and_then(|path| open(&path.join(name), true));
        match made.and_then(|_| self.find(parent, name)) {
            Ok((attributes, generation)) => reply.created(
                &TTL,
                &attributes,
                generation,
                FileHandle(0),
                FopenFlags::FOPEN_KEEP_CACHE,
            ),
            Err(error) => reply.error(error.into()),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let path = match self.path(parent) {
            Ok(path) => path.join(name),
            Err(error) => return reply.error(error.into()),
        };
        let ino = path.symlink_metadata().map(|metadata| metadata.ino());
        match std::fs::remove_file(&path) {
            Ok(()) => {
                if let Ok(ino) = ino {
                    self.nodes().known.remove(&ino);
                }
                reply.ok();
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut bytes = vec![0; size as usize];
        match self
            .file(ino)
            .and_then(|file| file.read_at(&mut bytes, offset))
        {
            Ok(len) => reply.data(&bytes[..len]),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self
            .file(ino)
            .and_then(|file| file.write_all_at(bytes, offset))
        {
            Ok(()) => reply.written(bytes.len() as u32),
            Err(error) => reply.error(error.into()),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if !self.has_fsync {
            return reply.error(Errno::ENOSYS);
        }
        match self.file(ino).and_then(|file| file.sync_all()) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error.into()),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let done = self.file(ino).and_then(|file| {
            let (offset, length) = (offset as libc::off_t, length as libc::off_t);
            // SAFETY: touches no memory.
            match unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, length) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
        match done {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error.into()),
        }
    }
}
