//! The process behind the fault device: a FUSE file system with one file, `disk`, whose writes
//! and reads fail by [`Rule`]. It has its own mount namespace and never touches the loop device or
//! the file system under test, so it can always answer, and whoever waits for it wakes up.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, Session, WriteFlags,
};
use serde::{Deserialize, Serialize};

use super::image::{BLOCK, Image};
use super::rules::{Rule, judge_read, judge_write};

/// Name of the one file.
pub const DISK: &str = "disk";
/// Attributes never change.
const TTL: Duration = Duration::from_secs(3600);
/// How long the server outlives its owner while the loop device still holds the file.
const LINGER: Duration = Duration::from_secs(20);

/// The first bytes of a block: enough to know a page by.
pub type Header = [u8; 32];

/// What the owner can ask for. Answered with one [`Answer`] each.
#[derive(Debug, Serialize, Deserialize)]
pub enum Command {
    /// Replaces the rules; none = healthy.
    Rules {
        /// The new rules.
        rules: Vec<Rule>,
        /// Whether a failing write stores the blocks before the first bad one.
        torn: bool,
    },
    /// Copies the disk, between two requests, into the second image. The answer says which blocks
    /// are refused at that moment.
    Snapshot,
    /// Forgets which blocks were refused.
    Forget,
}

/// What the server says.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// How many writes were failed since the rules before this command were set.
    pub failed_writes: u64,
    /// How the blocks begin whose last write failed.
    pub refused: Vec<Header>,
    /// Why the command failed.
    pub error: Option<String>,
}

struct Disk {
    image: Arc<Image>,
    rules: Vec<Rule>,
    torn: bool,
    failed_writes: u64,
    refused: BTreeSet<Header>,
    opened: u64,
}

impl Disk {
    /// Remembers what the blocks of a request began with, until a request with them succeeds.
    fn note(&mut self, bytes: &[u8], failed: bool) {
        if !failed && self.refused.is_empty() {
            return;
        }
        for header in bytes.chunks(BLOCK).filter_map(|block| block.first_chunk()) {
            match failed {
                true => self.refused.insert(*header),
                false => self.refused.remove(header),
            };
        }
    }
}

struct Shared {
    disk: Mutex<Disk>,
    closed: Condvar,
}

impl Shared {
    fn disk(&self) -> std::sync::MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves `image` at `mount_point/disk` until the owner is gone and the file is closed. Does not
/// return to the caller's code: it runs in a process of its own.
pub fn serve(image: Image, snapshot: &Image, mount_point: &Path, control: UnixStream) -> ! {
    // The owner, not the terminal, says when this ends.
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE] {
        // SAFETY: ignoring a signal installs no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    let status = match run(image, snapshot, mount_point, control) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("fault device: {error}");
            1
        }
    };
    std::process::exit(status)
}

fn run(image: Image, snapshot: &Image, at: &Path, control: UnixStream) -> io::Result<()> {
    super::private_mounts()?;
    let image = Arc::new(image);
    let disk = Disk {
        image,
        rules: Vec::new(),
        torn: false,
        failed_writes: 0,
        refused: BTreeSet::new(),
        opened: 0,
    };
    let shared = Arc::new(Shared {
        disk: Mutex::new(disk),
        closed: Condvar::new(),
    });
    let mut config = fuser::Config::default();
    config.mount_options = vec![MountOption::FSName("msync-trace-fault".to_owned())];
    let session = Session::new(FaultFile(Arc::clone(&shared)), at, &config)?;
    // Dropping it would unmount; the mount goes away with this process instead.
    let _serving = std::mem::ManuallyDrop::new(session.spawn()?);
    obey(&shared, snapshot, control)?;
    let (disk, _) = shared
        .closed
        .wait_timeout_while(shared.disk(), LINGER, |disk| disk.opened > 0)
        .unwrap_or_else(PoisonError::into_inner);
    drop(disk);
    Ok(())
}

/// Follows commands until the owner hangs up, then heals the disk: what is still cached above
/// it can be written and let go.
fn obey(shared: &Shared, snapshot: &Image, control: UnixStream) -> io::Result<()> {
    let mut answers = control.try_clone()?;
    answer(&mut answers, 0, Vec::new(), Ok(()))?;
    for line in BufReader::new(control).lines() {
        let Ok(line) = line else { break };
        let mut disk = shared.disk();
        let failed_writes = disk.failed_writes;
        let mut refused = Vec::new();
        let done = match serde_json::from_str(&line)? {
            Command::Rules { rules, torn } => {
                disk.rules = rules;
                disk.torn = torn;
                disk.failed_writes = 0;
                Ok(())
            }
            Command::Snapshot => {
                refused = disk.refused.iter().copied().collect();
                snapshot.copy_from(&disk.image)
            }
            Command::Forget => {
                disk.refused.clear();
                Ok(())
            }
        };
        drop(disk);
        if answer(&mut answers, failed_writes, refused, done).is_err() {
            break;
        }
    }
    shared.disk().rules.clear();
    Ok(())
}

fn answer(
    to: &mut UnixStream,
    failed_writes: u64,
    refused: Vec<Header>,
    done: io::Result<()>,
) -> io::Result<()> {
    let error = done.err().map(|error| error.to_string());
    let mut line = serde_json::to_string(&Answer {
        failed_writes,
        refused,
        error,
    })?;
    line.push('\n');
    to.write_all(line.as_bytes())
}

/// The file system: a root directory and `disk`.
struct FaultFile(Arc<Shared>);

const ROOT_INO: u64 = 1;
const DISK_INO: u64 = 2;

impl FaultFile {
    fn attributes(&self, ino: u64) -> FileAttr {
        let size = if ino == DISK_INO {
            self.0.disk().image.size()
        } else {
            0
        };
        FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: size / 512,
            atime: SystemTime::UNIX_EPOCH,
            mtime: SystemTime::UNIX_EPOCH,
            ctime: SystemTime::UNIX_EPOCH,
            crtime: SystemTime::UNIX_EPOCH,
            kind: if ino == ROOT_INO {
                FileType::Directory
            } else {
                FileType::RegularFile
            },
            perm: if ino == ROOT_INO { 0o755 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for FaultFile {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Larger than any request the loop device is allowed to send (see LoopDevice): a request
        // split by FUSE would fail half-way, and the loop driver swallows short writes.
        let _previous = config.set_max_write(1 << 20);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if u64::from(parent) == ROOT_INO && name == DISK {
            reply.entry(&TTL, &self.attributes(DISK_INO), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attributes(u64::from(ino)));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.0.disk().opened += 1;
        // No page cache of its own: a write of the loop device is answered by us, at once.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.disk().opened -= 1;
        self.0.closed.notify_all();
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let disk = self.0.disk();
        let size = u64::from(size).min(disk.image.size().saturating_sub(offset));
        if let Some(errno) = judge_read(&disk.rules, offset, size) {
            return reply.error(Errno::from_i32(errno));
        }
        let mut bytes = vec![0; size as usize];
        match disk.image.read_at(&mut bytes, offset) {
            Ok(()) => reply.data(&bytes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut disk = self.0.disk();
        if let Some(failed) = judge_write(&disk.rules, offset, bytes) {
            disk.failed_writes += 1;
            disk.note(bytes, true);
            if disk.torn {
                // If even this fails the request is failed all the same.
                let _ = disk.image.write_at(&bytes[..failed.good_prefix], offset);
            }
            return reply.error(Errno::from_i32(failed.errno));
        }
        match disk.image.write_at(bytes, offset) {
            Ok(()) => {
                disk.note(bytes, false);
                reply.written(bytes.len() as u32);
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        // A cache flush always succeeds: only lost pages are our subject.
        reply.ok();
    }
}
