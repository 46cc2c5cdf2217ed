//! What a scenario works with: a scratch file system, programs under test, and the points in time
//! at which the disk is asked for the truth.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::disk::Asks;
use super::extents;
use super::page::{DOOMED, Memory, Stamp};
use super::program::{Left, Outcome, Program, name as name_of};
use super::volume::{Kind, Volume, c_string, kernel_knows, mount, run};
use crate::faults::{Access, BLOCK, Effect, Fate, FaultRule, Place, Snapshot};

/// Who must have been told, in the words of the tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// No one.
    Nobody,
    /// Some other open file description.
    Other,
    /// This very open file description.
    Caller,
    /// No one yet, but this open file description will be, at its next sync.
    Pending,
}

/// An incident that the tool has to report: this call returned success over lost bytes.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Name of the file.
    pub file: String,
    /// What it was called when its write failed, where the tool is held to that.
    pub called: Option<&'static str>,
    /// The call and who made it.
    pub outcome: Outcome,
    /// `msync`, `fsync`, ...
    pub call: &'static str,
    /// Who had been told.
    pub told: Told,
    /// `inside`, `partly`, `outside`.
    pub coverage: &'static str,
    /// The error, as the program saw it.
    pub errno: i32,
    /// The disk's own error, where the program may have been given EIO for it and the tool knows
    /// better.
    pub of_disk: Option<i32>,
    /// Whether memory still has the bytes, where the scenario knows.
    pub in_memory: Option<&'static str>,
    /// The pages of the file that must be lost, where that does not depend on the kernel.
    pub lost: Option<Range<u64>>,
    /// Whether the tool can know which bytes of the file are lost.
    pub exact: bool,
    /// Whether the tool may learn of the failure only after the error was handed out, and then says
    /// that nobody was told (docs/limits.md).
    pub late: bool,
}

impl Claim {
    /// A msync of `file` that had been told as said; the failure lies inside its range.
    pub fn new(file: &str, outcome: Outcome, told: Told) -> Claim {
        Claim {
            file: file.to_owned(),
            called: None,
            outcome,
            call: "msync",
            told,
            coverage: "inside",
            errno: libc::EIO,
            of_disk: None,
            in_memory: None,
            lost: None,
            exact: true,
            late: false,
        }
    }

    /// See [`Claim::late`].
    pub fn perhaps_late(self) -> Claim {
        Claim { late: true, ..self }
    }

    /// What the file was called when its write failed.
    pub fn called_when_it_failed(self, name: &'static str) -> Claim {
        Claim {
            called: Some(name),
            ..self
        }
    }

    /// Only the file is known.
    pub fn somewhere(self) -> Claim {
        Claim {
            exact: false,
            coverage: "partly",
            ..self
        }
    }

    /// Exactly these pages are lost.
    pub fn lost(self, pages: Range<u64>) -> Claim {
        Claim {
            lost: Some(pages),
            ..self
        }
    }

    /// Where the failed range lies.
    pub fn coverage(self, coverage: &'static str) -> Claim {
        Claim { coverage, ..self }
    }

    /// Another error than EIO.
    pub fn errno(self, errno: i32) -> Claim {
        Claim { errno, ..self }
    }

    /// Another call than msync.
    pub fn call(self, call: &'static str) -> Claim {
        Claim { call, ..self }
    }

    /// Whether memory still has the bytes.
    pub fn in_memory(self, state: &'static str) -> Claim {
        Claim {
            in_memory: Some(state),
            ..self
        }
    }
}

/// What a moment of a scenario has to show.
pub enum Truth {
    /// Bytes are lost and this incident must be reported.
    Lost(Claim),
    /// Whether bytes are lost depends on the kernel (a neighbour's store may have rescued them):
    /// if they are, this incident must be reported, else none.
    AsTheDiskSays(Claim),
    /// Bytes of this file are lost, and the NFS server was given success for its own fsync of it:
    /// at least one incident of a kernel thread, and nothing else. (Which of its threads asks, for
    /// which range, through a descriptor of which age, is the server's business.)
    ServerLied {
        /// Name of the file.
        file: String,
        /// The pages that are lost.
        lost: Range<u64>,
    },
    /// Bytes of this file are lost, but nobody promised anything.
    LostWithoutPromise(String),
    /// Bytes of this file are lost and success was returned, but no hook can see it: reporting it
    /// is allowed, not required.
    OutOfSight(String),
    /// All pages owed to this file are on the disk.
    Kept(String),
}

impl Truth {
    /// The file it is about.
    pub fn file(&self) -> &str {
        match self {
            Truth::Lost(claim) | Truth::AsTheDiskSays(claim) => &claim.file,
            Truth::ServerLied { file, .. } => file,
            Truth::LostWithoutPromise(file) | Truth::OutOfSight(file) | Truth::Kept(file) => file,
        }
    }

    /// The incident that must be reported.
    pub fn incident(&self) -> Option<&Claim> {
        match self {
            Truth::Lost(claim) => Some(claim),
            _ => None,
        }
    }
}

/// What befell the disk or the filesystem in a scenario, and the tool has to say.
#[derive(Clone, Debug)]
pub struct StorageClaim {
    /// Its word.
    pub what: &'static str,
    /// Name of the device, without its directory.
    pub device: String,
    /// The error, where the kernel says it.
    pub errno: Option<i32>,
    /// It can no longer be written, where that shows in the mount table.
    pub read_only: bool,
    /// Began and ended, `CLOCK_MONOTONIC` ns.
    pub time: (u64, u64),
}

/// The disk and the memory of all programs at one moment.
pub struct Point {
    /// What has to be found.
    pub truth: Truth,
    /// The file, as programs see it.
    pub path: PathBuf,
    /// The file, where no mount of this scenario is in the way.
    pub on_disk: PathBuf,
    disk: Snapshot,
    memory: Memory,
}

/// Why a scenario makes no sense here.
#[derive(Debug)]
pub struct Skip(pub String);

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// `_IOR('X', 125, __u32)`: `XFS_IOC_GOINGDOWN`, `EXT4_IOC_SHUTDOWN`.
const FS_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;

/// See the module.
pub struct World<'a> {
    /// The scratch file system.
    pub volume: &'a mut Volume,
    /// What happened, for `--verbose`.
    pub notes: Vec<String>,
    directory: PathBuf,
    memory: Rc<RefCell<Memory>>,
    left: Rc<RefCell<Left>>,
    points: Vec<Point>,
    mounts: Vec<Mount>,
    storage_errors: Vec<StorageClaim>,
    told: Option<i32>,
}

/// A directory of the scenario that shows another one.
struct Mount {
    seen: String,
    on_disk: String,
    at: PathBuf,
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Ok(at) = c_string(&self.at) {
            // SAFETY: a C string that outlives the call.
            unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) };
        }
    }
}

impl<'a> World<'a> {
    /// A directory of its own for this scenario.
    pub fn new(volume: &'a mut Volume, name: &str) -> Result<World<'a>> {
        volume.take()?;
        volume.device.forget()?;
        let directory = volume.path().join(name);
        std::fs::create_dir(&directory)?;
        let mut world = World {
            volume,
            notes: Vec::new(),
            directory,
            memory: Rc::default(),
            left: Rc::default(),
            points: Vec::new(),
            mounts: Vec::new(),
            storage_errors: Vec::new(),
            told: None,
        };
        if world.kind() == Kind::Btrfs && world.volume.device.below().by_place() {
            // Without copy on write: otherwise nobody knows where the next write goes.
            world.set_attribute("+C")?;
        }
        world.keep_names()?;
        Ok(world)
    }

    /// Brings new names to the disk where an fsync of the file does not.
    pub fn keep_names(&mut self) -> Result<()> {
        match self.kind().forgets_names() {
            true => self.background_write_back(),
            false => Ok(()),
        }
    }

    /// Which file system.
    pub fn kind(&self) -> Kind {
        self.volume.kind
    }

    /// The directory of this scenario.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// NFS: from now on root is nobody on the server, who may do anything in this directory.
    pub fn root_is_nobody_on_the_server(&self) -> Result<()> {
        let directory = self.volume.on_server(&self.directory)?;
        std::fs::set_permissions(directory, Permissions::from_mode(0o777))?;
        self.volume.knfsd()?.make_root_nobody()
    }

    /// Shows the directory `on_disk` as `seen` too.
    pub fn bind(&mut self, on_disk: &str, seen: &str) -> Result<()> {
        let from = self.make_directory(on_disk)?;
        let at = self.make_directory(seen)?;
        mount(&from.to_string_lossy(), &at, "", libc::MS_BIND, "").context("bind mount")?;
        self.note_mount(seen, on_disk, at);
        Ok(())
    }

    /// Shows an overlay as `seen`; new files are in `on_disk`.
    pub fn overlay(&mut self, on_disk: &str, seen: &str) -> Result<()> {
        if !kernel_knows("overlay") {
            bail!(Skip("this kernel has no overlayfs".to_owned()));
        }
        let upper = self.make_directory(on_disk)?;
        let (lower, work) = (self.make_directory("lower")?, self.make_directory("work")?);
        let at = self.make_directory(seen)?;
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        mount("overlay", &at, "overlay", 0, &options).context("mount an overlay")?;
        self.note_mount(seen, on_disk, at);
        Ok(())
    }

    fn note_mount(&mut self, seen: &str, on_disk: &str, at: PathBuf) {
        self.mounts.push(Mount {
            seen: seen.to_owned(),
            on_disk: on_disk.to_owned(),
            at,
        });
    }

    fn make_directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        std::fs::create_dir(&path)?;
        Ok(path)
    }

    /// btrfs: a subvolume.
    pub fn make_subvolume(&self, name: &str) -> Result<()> {
        let mut command = std::process::Command::new("btrfs");
        command.args(["-q", "subvolume", "create"]);
        run(command.arg(self.directory.join(name)))
    }

    /// A directory whose files are encrypted.
    pub fn make_encrypted(&mut self, name: &str) -> Result<()> {
        self.volume.allow_encryption()?;
        let directory = self.make_directory(name)?;
        self.volume.encrypt(&directory)
    }

    /// A file, for questions about it.
    pub fn file(&self, name: &str) -> Result<std::fs::File> {
        Ok(std::fs::File::open(self.directory.join(name))?)
    }

    /// chattr on the directory of the scenario: new files get this.
    pub fn set_attribute(&self, attribute: &str) -> Result<()> {
        let mut command = std::process::Command::new("chattr");
        run(command.arg(attribute).arg(&self.directory))
    }

    /// Starts a program beside the server, on the server's own files.
    pub fn program_on_server(&self, name: &str) -> Result<Program> {
        let directory = self.volume.on_server(&self.directory)?;
        let (memory, left) = (Rc::clone(&self.memory), Rc::clone(&self.left));
        Program::start(name, &directory, memory, left)
    }

    /// Starts a program under test.
    pub fn program(&self, name: &str) -> Result<Program> {
        let (memory, left) = (Rc::clone(&self.memory), Rc::clone(&self.left));
        Program::start(name, &self.directory, memory, left)
    }

    /// From now on writes of doomed pages fail.
    pub fn fail(&mut self, errno: i32) -> Result<()> {
        let rule = FaultRule::refuse(DOOMED, errno, false);
        self.volume.device.fault_device()?.fail(vec![rule])
    }

    /// From now on writes of these pages of a file fail, which are on the disk already and will be
    /// stored as doomed ones.
    pub fn fail_pages(&mut self, file: &str, pages: Range<u64>) -> Result<()> {
        if self.volume.device.below().can(Asks::Anything) {
            return self.fail(libc::EIO);
        }
        self.fail_in_place(file, pages)
    }

    /// From now on writes fail where these pages of a file are on the disk: for bytes that carry no
    /// mark there.
    pub fn fail_in_place(&mut self, file: &str, pages: Range<u64>) -> Result<()> {
        // What else waits to be written has nothing to do with it.
        self.background_write_back()?;
        let bytes = pages.start * BLOCK as u64..pages.end * BLOCK as u64;
        let places = extents::on_disk(&self.file(file)?, bytes)?;
        self.volume.device.fail_in(&places)
    }

    /// From now on all writes fail.
    pub fn fail_everywhere(&mut self) -> Result<()> {
        self.volume.device.fail_everywhere()
    }

    /// The file system may write something else from now on: a disk that refuses more than it was
    /// told to works again.
    pub fn no_longer_alone(&mut self) -> Result<()> {
        match self.volume.device.below().refuses_more() {
            true => self.heal(),
            false => Ok(()),
        }
    }

    /// From now on the disk cannot flush its cache.
    pub fn fail_flushes(&mut self) -> Result<()> {
        let effect = Effect::Fail {
            errno: libc::EIO,
            torn: false,
        };
        let rule = FaultRule::new(Access::Flush, Place::Anywhere, effect);
        self.volume.device.fault_device()?.fail(vec![rule])
    }

    /// Shuts the file system down, and writes nothing more.
    pub fn shut_down(&self) -> Result<()> {
        const LOG_NOT_FLUSHED: u32 = 2;
        let flags = LOG_NOT_FLUSHED;
        let root = self.root()?;
        // SAFETY: the request reads one u32, which outlives the call.
        let result = unsafe { libc::ioctl(root.as_raw_fd(), FS_IOC_SHUTDOWN, &raw const flags) };
        match result {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()).context("shut the file system down"),
        }
    }

    /// As [`World::fail`], but the good blocks before the first doomed one are stored.
    pub fn fail_torn(&mut self, errno: i32) -> Result<()> {
        let rule = FaultRule::refuse(DOOMED, errno, true);
        self.volume.device.fault_device()?.fail(vec![rule])
    }

    /// Waits until so many writes have failed, a few seconds at most.
    pub fn wait_for_failed_writes(&mut self, writes: u64) -> Result<()> {
        let device = self.volume.device.fault_device()?;
        for _ in 0..500 {
            if device.status()?.failed_writes >= writes {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The device works again; something must have failed before.
    pub fn heal(&mut self) -> Result<()> {
        match self.volume.device.heal()? {
            Some(0) => bail!("the device was never asked to write a doomed page"),
            Some(writes) => self.note(format!("{writes} failed writes")),
            None => self.note("healed".to_owned()),
        }
        Ok(())
    }

    /// Write-back that no program asked for: syncfs by this process.
    pub fn background_write_back(&mut self) -> Result<()> {
        let root = self.root()?;
        self.write_back(&root)
    }

    /// The scratch file system's root: it can be opened as long as its server lives.
    pub fn root(&self) -> Result<std::fs::File> {
        Ok(std::fs::File::open(self.volume.path())?)
    }

    /// See [`World::background_write_back`].
    pub fn write_back(&mut self, root: &std::fs::File) -> Result<()> {
        // SAFETY: touches no memory.
        let result = unsafe { libc::syncfs(root.as_raw_fd()) };
        let error = std::io::Error::last_os_error();
        self.note(match result {
            0 => "syncfs gave 0".to_owned(),
            _ => format!("syncfs gave {error}"),
        });
        Ok(())
    }

    /// Takes unused inodes out of the inode cache, of all file systems.
    pub fn evict_inodes(&self) -> Result<()> {
        // An inode that was used is passed over the first time, and what is freed at a time is
        // little here.
        for _ in 0..3 {
            std::fs::write("/proc/sys/vm/drop_caches", "2").context("drop_caches")?;
        }
        Ok(())
    }

    /// statfs: makes XFS (5.14 and later) free the inodes that it was going to free later.
    pub fn count_free_inodes(&self) -> Result<()> {
        let root = std::fs::File::open(&self.directory)?;
        // SAFETY: all fields of statfs are integers.
        let mut free: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: free is a valid place for the result.
        match unsafe { libc::fstatfs(root.as_raw_fd(), &raw mut free) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()).context("statfs"),
        }
    }

    /// Gives a file another name.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        std::fs::rename(self.directory.join(from), self.directory.join(to))?;
        self.memory.borrow_mut().renamed(from, to);
        Ok(())
    }

    /// Deletes a file.
    pub fn delete(&mut self, file: &str) -> Result<()> {
        std::fs::remove_file(self.directory.join(file))?;
        self.memory.borrow_mut().deleted(file);
        Ok(())
    }

    /// For `--verbose`.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// This moment must turn out as `truth` says.
    pub fn point(&mut self, truth: Truth) -> Result<()> {
        let disk = self.volume.device.snapshot()?;
        let memory = self.memory.borrow().clone();
        let path = self.directory.join(truth.file());
        let below = |mount: &Mount| {
            let rest = Path::new(truth.file()).strip_prefix(&mount.seen).ok()?;
            Some(self.directory.join(&mount.on_disk).join(rest))
        };
        let on_disk = self.mounts.iter().find_map(below);
        self.points.push(Point {
            truth,
            on_disk: on_disk.unwrap_or_else(|| path.clone()),
            path,
            disk,
            memory,
        });
        Ok(())
    }

    /// The call just gave success over lost bytes. Which ones the tool can only know where it sees
    /// ranges.
    pub fn lied(&mut self, claim: Claim) -> Result<()> {
        self.left.borrow_mut().kept = true;
        let claim = match self.volume.sight.ranges {
            true => claim,
            false => claim.somewhere(),
        };
        let own = self.volume.device.below().errno();
        if own == libc::EIO || claim.errno != libc::EIO {
            return self.point(Truth::Lost(claim));
        }
        // Some kernels and file systems make EIO of every error; btrfs may record both.
        let errno = self.told.unwrap_or(own);
        let of_disk = (self.kind() == Kind::Btrfs).then_some(own);
        let claim = Claim {
            errno,
            of_disk,
            ..claim
        };
        self.point(Truth::Lost(claim))
    }

    /// A call was given this error.
    pub fn note_told(&mut self, errno: i32) {
        self.told = Some(errno);
        self.note(format!("msync gave {}", name_of(errno)));
    }

    /// Everything owed to this file is on the disk.
    pub fn kept(&mut self, file: &str) -> Result<()> {
        self.point(Truth::Kept(file.to_owned()))
    }

    /// Something befell the disk or the filesystem since `began`.
    pub fn storage_error(&mut self, what: &'static str, began: u64) -> &mut StorageClaim {
        let device = self.volume.device.path().file_name();
        self.storage_errors.push(StorageClaim {
            what,
            device: device.unwrap_or_default().to_string_lossy().into_owned(),
            errno: None,
            read_only: false,
            time: (began, super::program::kernel_time()),
        });
        let newest = self.storage_errors.len() - 1;
        &mut self.storage_errors[newest]
    }

    /// Programs that outlive the scenario, for as long as somebody looks at what they have mapped.
    pub fn left(&self) -> Rc<RefCell<Left>> {
        Rc::clone(&self.left)
    }

    /// Ends the scenario's hold on the volume.
    pub fn into_points(self) -> (Vec<Point>, Vec<StorageClaim>, Vec<String>) {
        (self.points, self.storage_errors, self.notes)
    }
}

impl Point {
    /// What the programs had stored in the pages of the file.
    pub fn stored(&self) -> BTreeMap<u64, Stamp> {
        self.memory.pages(self.truth.file())
    }

    /// The pages whose last write failed, whatever the disk has: a request fails as a whole, and a
    /// large folio is written as a whole. The kernel cannot know better.
    pub fn refused_pages(&self, volume: &Volume) -> BTreeSet<u64> {
        let owed = self.memory.pages(self.truth.file());
        if !volume.device.below().can(Asks::Anything) {
            // The disk does not say. The stories store nothing but the pages that fail.
            let neighbours = owed.into_keys().filter(|_| volume.sight.large_folios);
            return neighbours.collect();
        }
        owed.into_iter()
            .filter(|(page, stamp)| {
                let fate = self.disk.fates.get(&stamp.header(*page));
                matches!(fate, Some(Fate::Refused(_)))
            })
            .map(|(page, _)| page)
            .collect()
    }

    /// The pages that differ on the disk from what the programs had stored.
    pub fn lost_pages(&self, volume: &mut Volume) -> Result<BTreeSet<u64>> {
        let file = self.truth.file();
        volume
            .revive(&self.disk.image)
            .context("mount what a power cut would leave")?;
        let owed = self.memory.pages(file);
        let on_disk = match std::fs::File::open(&self.on_disk) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(owed.into_keys().collect());
            }
            Err(error) => return Err(error).context("open the file on the revived disk"),
        };
        let mut lost = BTreeSet::new();
        for (page, stamp) in owed {
            let mut bytes = [0; BLOCK];
            let read = on_disk.read_at(&mut bytes, page * BLOCK as u64);
            // A page that cannot be read back (a btrfs checksum) is as lost as one that differs.
            if !matches!(read, Ok(len) if bytes[..len] == stamp.bytes(page)) {
                lost.insert(page);
            }
        }
        Ok(lost)
    }
}
