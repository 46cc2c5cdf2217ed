//! The process behind the fault device: a FUSE file system with one file, `disk`, whose writes
//! and reads fail by [`FaultRule`]. It has its own mount namespace and never touches the loop device or
//! the file system under test, so it can always answer, and whoever waits for it wakes up.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, Session, WriteFlags,
};
use serde::{Deserialize, Serialize};

use super::image::{BLOCK, Image};
use super::rules::{Failure, FaultRule, RuleStatus, Rules};
use super::unflushed::Unflushed;

/// Name of the one file.
pub const DISK: &str = "disk";
/// Attributes never change.
const TTL: Duration = Duration::from_secs(3600);
/// How long the server outlives its owner while the loop device still holds the file.
const LINGER: Duration = Duration::from_secs(20);

/// The first bytes of a block: enough to know a page by.
pub type Header = [u8; 32];

/// Blocks that start with this are data of a program under test.
pub const TAG: &[u8; 12] = b"msync-trace:";

/// How the newest write of a tagged block ended, and when: writes are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// The device has it.
    Written(u64),
    /// The request failed; the device may have it all the same.
    Refused(u64),
}

/// What the owner can ask for. Answered with one [`Answer`] each.
#[derive(Debug, Serialize, Deserialize)]
pub enum Command {
    /// Replaces the rules; none = healthy.
    Rules(Vec<FaultRule>),
    /// One more rule.
    Add(FaultRule),
    /// Changes nothing.
    Status,
    /// Copies the disk, between two requests, into the second image. The answer has the fates of
    /// that moment.
    Snapshot,
    /// From now on the disk has a cache that a power cut empties.
    Cache,
    /// Copies into the second image what a power cut right now would leave, by dice that start there.
    CutPower(u64),
    /// Forgets the fates so far.
    Forget,
}

/// What the server says.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// How many writes there were since the rules before this command were set.
    pub writes: u64,
    /// How many of them failed.
    pub failed_writes: u64,
    /// The number of the newest write: with an equal one, the disk is the same.
    pub newest: u64,
    /// The rules before this command.
    pub rules: Vec<RuleStatus>,
    /// The tagged blocks that were ever written, by how they begin.
    pub fates: Vec<(Header, Fate)>,
    /// Requests that failed and also held blocks that were not tagged.
    pub mixed: BTreeSet<u64>,
    /// Why the command failed.
    pub error: Option<String>,
}

struct Disk {
    image: Arc<Image>,
    rules: Rules,
    writes: u64,
    failed_writes: u64,
    fates: BTreeMap<Header, Fate>,
    mixed: BTreeSet<u64>,
    /// The number of the newest write.
    newest: u64,
    opened: u64,
    /// If it has a cache.
    unflushed: Option<Unflushed>,
}

impl Disk {
    /// Remembers what became of the tagged blocks of a request.
    fn note(&mut self, bytes: &[u8], failed: bool) {
        self.newest += 1;
        let fate = match failed {
            true => Fate::Refused(self.newest),
            false => Fate::Written(self.newest),
        };
        for block in bytes.chunks(BLOCK) {
            match block.first_chunk() {
                Some(header) if block.starts_with(TAG) => drop(self.fates.insert(*header, fate)),
                _ if failed => drop(self.mixed.insert(self.newest)),
                _ => (),
            }
        }
    }

    fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Some(unflushed) = &mut self.unflushed {
            unflushed.before_write(&self.image, offset, bytes.len())?;
        }
        self.image.write_at(bytes, offset)
    }

    fn set_rules(&mut self, rules: Vec<FaultRule>) {
        self.rules = Rules::default();
        rules.into_iter().for_each(|rule| self.rules.add(rule));
        self.writes = 0;
        self.failed_writes = 0;
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

    fn read(&self, offset: u64, size: u32, failure: Option<Failure>, reply: ReplyData) {
        if let Some(failure) = failure {
            return reply.error(Errno::from_i32(failure.errno));
        }
        let disk = self.disk();
        let size = u64::from(size).min(disk.image.size().saturating_sub(offset));
        let mut bytes = vec![0; size as usize];
        match disk.image.read_at(&mut bytes, offset) {
            Ok(()) => reply.data(&bytes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(&self, bytes: &[u8], offset: u64, failure: Option<Failure>, reply: ReplyWrite) {
        let mut disk = self.disk();
        disk.writes += 1;
        if let Some(failure) = failure {
            disk.failed_writes += 1;
            disk.note(bytes, true);
            // If even this fails the request is failed all the same.
            let _ = disk.write(&bytes[..failure.stored], offset);
            return reply.error(Errno::from_i32(failure.errno));
        }
        match disk.write(bytes, offset) {
            Ok(()) => {
                disk.note(bytes, false);
                reply.written(bytes.len() as u32);
            }
            Err(error) => reply.error(error.into()),
        }
    }
}

/// Serves `image` at `mount_point/disk` until the owner is gone and the file is closed. Does not
/// return to the caller's code: it runs in a process of its own.
pub fn serve(image: Image, snapshot: &Image, mount_point: &Path, control: UnixStream) -> ! {
    super::keep_only(&[image.fd(), snapshot.fd(), control.as_fd()]);
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
        rules: Rules::default(),
        writes: 0,
        failed_writes: 0,
        fates: BTreeMap::new(),
        mixed: BTreeSet::new(),
        newest: 0,
        opened: 0,
        unflushed: None,
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
    send(&mut answers, &Answer::default())?;
    for line in BufReader::new(control).lines() {
        let Ok(line) = line else { break };
        let answer = follow(&mut shared.disk(), serde_json::from_str(&line)?, snapshot);
        if send(&mut answers, &answer).is_err() {
            break;
        }
    }
    shared.disk().set_rules(Vec::new());
    Ok(())
}

fn follow(disk: &mut Disk, command: Command, snapshot: &Image) -> Answer {
    let mut answer = Answer {
        writes: disk.writes,
        failed_writes: disk.failed_writes,
        newest: disk.newest,
        rules: disk.rules.status(),
        ..Answer::default()
    };
    match command {
        Command::Rules(rules) => disk.set_rules(rules),
        Command::Add(rule) => disk.rules.add(rule),
        Command::Status => (),
        Command::Snapshot => {
            answer.fates = disk.fates.clone().into_iter().collect();
            answer.mixed = disk.mixed.clone();
            let copied = snapshot.copy_from(&disk.image);
            answer.error = copied.err().map(|error| error.to_string());
        }
        Command::Cache => disk.unflushed = Some(Unflushed::default()),
        Command::CutPower(seed) => {
            let cut = cut_power(disk, snapshot, seed);
            answer.error = cut.err().map(|error| error.to_string());
        }
        Command::Forget => {
            disk.fates.clear();
            disk.mixed.clear();
        }
    }
    answer
}

fn cut_power(disk: &Disk, left: &Image, seed: u64) -> io::Result<()> {
    left.copy_from(&disk.image)?;
    let mut dice = fastrand::Rng::with_seed(seed);
    match &disk.unflushed {
        Some(unflushed) => unflushed.cut(left, &mut dice),
        None => Ok(()),
    }
}

fn send(to: &mut UnixStream, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_string(answer)?;
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
        // Without it the loop device waits for each request before it sends the next.
        config
            .add_capabilities(InitFlags::FUSE_ASYNC_DIO)
            .map_err(|_| io::Error::from_raw_os_error(libc::ENOSYS))
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
        let verdict = self.0.disk().rules.read(offset, u64::from(size));
        if verdict.delay.is_zero() {
            return self.0.read(offset, size, verdict.failure, reply);
        }
        let shared = Arc::clone(&self.0);
        std::thread::spawn(move || {
            std::thread::sleep(verdict.delay);
            shared.read(offset, size, verdict.failure, reply);
        });
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
        let verdict = self.0.disk().rules.write(offset, bytes);
        if verdict.delay.is_zero() {
            return self.0.write(bytes, offset, verdict.failure, reply);
        }
        // Whatever else is asked meanwhile is answered.
        let (shared, bytes) = (Arc::clone(&self.0), bytes.to_vec());
        std::thread::spawn(move || {
            std::thread::sleep(verdict.delay);
            shared.write(&bytes, offset, verdict.failure, reply);
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut disk = self.0.disk();
        let verdict = disk.rules.flush();
        if let (None, Some(unflushed)) = (verdict.failure, &mut disk.unflushed) {
            unflushed.flushed();
        }
        drop(disk);
        let answer = move || match verdict.failure {
            Some(failure) => reply.error(Errno::from_i32(failure.errno)),
            None => reply.ok(),
        };
        if verdict.delay.is_zero() {
            return answer();
        }
        std::thread::spawn(move || {
            std::thread::sleep(verdict.delay);
            answer();
        });
    }
}
