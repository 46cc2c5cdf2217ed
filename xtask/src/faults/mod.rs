//! A disk that fails on command, made of a FUSE file and a loop device: no kernel module beyond
//! `fuse` and `loop`, and its true content can be read beside every cache.
//!
//! Three processes keep it free of deadlocks: the server answers FUSE and touches nothing above
//! it; this process owns the loop device; the programs under test are forked from it. Whoever is
//! killed first, the others wake up: the loop device detaches itself with its last user, the
//! server lives on until then.

mod child;
mod image;
mod loop_device;
mod mapper;
mod nine_p;
mod passthrough;
mod rules;
mod scsi_debug;
mod server;
mod unflushed;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub use child::Child;
pub use image::{BLOCK, Image};
pub use mapper::{Mapper, split};
pub use nine_p::{mount_options as nine_p_mount_options, serve_nine_p};
pub use passthrough::mount_passthrough;
pub use rules::{Access, Effect, FaultRule, Marker, Place, RuleStatus};
pub use scsi_debug::ScsiDebug;

use loop_device::LoopDevice;
use server::Command;

pub use server::{Answer, Fate, Header};

/// The longest a healthy server may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Gives this process mounts that nobody else sees and that end with it.
pub fn private_mounts() -> io::Result<()> {
    // SAFETY: neither call touches memory beyond its constant arguments.
    unsafe {
        if libc::unshare(libc::CLONE_NEWNS) != 0 {
            return Err(io::Error::last_os_error());
        }
        let (none, root) = (std::ptr::null(), c"/".as_ptr());
        if libc::mount(
            none,
            root,
            none,
            libc::MS_REC | libc::MS_PRIVATE,
            none.cast(),
        ) != 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Loads what a disk stands on, where it is a module.
pub fn load_modules() {
    for (module, device) in [("loop", "/dev/loop-control"), ("fuse", "/dev/fuse")] {
        if !Path::new(device).exists() {
            let mut modprobe = std::process::Command::new("modprobe");
            let _ = modprobe.args(["-q", module]).output();
        }
    }
}

/// Closes every descriptor that a forked process has from its parent, except these and the standard
/// ones. A loop device of another disk would stay attached as long as this process lives.
pub fn keep_only(keep: &[BorrowedFd<'_>]) {
    let mut first = libc::STDERR_FILENO as libc::c_uint + 1;
    let keep = keep.iter().map(|fd| fd.as_raw_fd() as libc::c_uint);
    let keep: BTreeSet<_> = keep.filter(|fd| *fd >= first).collect();
    let close = |from: libc::c_uint, to: libc::c_uint| {
        if from <= to {
            // SAFETY: what owns these is the parent's and is never dropped here.
            unsafe { libc::close_range(from, to, 0) };
        }
    };
    for fd in keep {
        close(first, fd - 1);
        first = fd + 1;
    }
    close(first, libc::c_uint::MAX);
}

/// The disk at one moment.
pub struct Snapshot {
    /// Its bytes.
    pub image: Image,
    /// How the newest write of each tagged block ended.
    pub fates: BTreeMap<Header, Fate>,
    /// Requests that failed and also held blocks that were not tagged.
    pub mixed: BTreeSet<u64>,
    /// The newest write: equal numbers, equal disks.
    pub newest: u64,
}

/// The disk.
pub struct FaultDevice {
    /// `None` only while dropping.
    device: Option<LoopDevice>,
    control: BufReader<UnixStream>,
    image: Image,
    saved: Image,
    server: libc::pid_t,
}

/// Makes each processor let go of the buffers that it used last (`bh_lrus` in fs/buffer.c): dropping
/// the cache of any block device does, if it has any (`invalidate_bdev`). Before 5.15 nothing else
/// does for a device in use.
fn forget_recent_buffers() -> io::Result<()> {
    let image = Image::new(1 << 20)?;
    let other = LoopDevice::attach(
        &OpenOptions::new()
            .read(true)
            .write(true)
            .open(image.path())?,
    )?;
    std::fs::File::open(other.path())?.read_exact(&mut [0; BLOCK])?;
    other.drop_cache()
}

impl FaultDevice {
    /// A healthy disk of `size` zero bytes; `mount_point` is an empty directory, used in the
    /// server's own mount namespace. Forks: call it before this process has threads.
    pub fn new(size: u64, mount_point: &Path) -> Result<FaultDevice> {
        load_modules();
        let (image, saved) = (Image::new(size)?, Image::new(size)?);
        let (ours, theirs) = UnixStream::pair()?;
        // SAFETY: this process has one thread, so the child may do anything.
        let server = match unsafe { libc::fork() } {
            -1 => return Err(io::Error::last_os_error()).context("fork"),
            0 => {
                drop(ours);
                server::serve(image, &saved, mount_point, theirs)
            }
            pid => pid,
        };
        drop(theirs);
        ours.set_read_timeout(Some(PATIENCE))?;
        let mut control = BufReader::new(ours);
        read_answer(&mut control)
            .context("the FUSE server did not start (is /dev/fuse usable? try `modprobe fuse`)")?;
        let disk = format!(
            "/proc/{server}/root{}/{}",
            mount_point.display(),
            server::DISK
        );
        let backing = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&disk)
            .context(disk)?;
        let device = LoopDevice::attach(&backing)
            .context("no loop device (try `modprobe loop`, or free one: `losetup -a`)")?;
        Ok(FaultDevice {
            device: Some(device),
            control,
            image,
            saved,
            server,
        })
    }

    /// The block device.
    pub fn path(&self) -> &Path {
        self.device().path()
    }

    /// What is on the disk now, beside every cache. May be changed while nothing is mounted.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// From now on requests fail by these rules and no others.
    pub fn fail(&mut self, rules: Vec<FaultRule>) -> Result<()> {
        self.ask(&Command::Rules(rules)).map(drop)
    }

    /// One more rule. What the others did until now.
    pub fn add(&mut self, rule: FaultRule) -> Result<Answer> {
        self.ask(&Command::Add(rule))
    }

    /// Everything works again. What the rules did until now.
    pub fn heal(&mut self) -> Result<Answer> {
        self.ask(&Command::Rules(Vec::new()))
    }

    /// Brings to the disk what the kernel has cached of the device itself, its file system's own
    /// blocks, and forgets those that nobody holds. The file system is not asked.
    pub fn write_out_and_forget(&self) -> io::Result<()> {
        let device = OpenOptions::new().write(true).open(self.path())?;
        device.sync_data()?;
        forget_recent_buffers()?;
        // SAFETY: touches no memory.
        match unsafe { libc::posix_fadvise(device.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// What the rules did until now.
    pub fn status(&mut self) -> Result<Answer> {
        self.ask(&Command::Status)
    }

    /// What a power cut right now would leave, and what became of the writes of tagged blocks.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        let image = Image::new(self.image.size())?;
        let answer = self.ask(&Command::Snapshot)?;
        image.copy_from(&self.saved)?;
        Ok(Snapshot {
            image,
            fates: answer.fates.into_iter().collect(),
            mixed: answer.mixed,
            newest: answer.newest,
        })
    }

    /// From now on writes that are not flushed can be lost by a power cut.
    pub fn have_cache(&mut self) -> Result<()> {
        self.ask(&Command::Cache).map(drop)
    }

    /// What a power cut right now may leave: each sector as any of its writes since the last flush
    /// made it, or as it was before them. Equal seeds choose in the same way.
    pub fn cut_power(&mut self, seed: u64) -> Result<Image> {
        let image = Image::new(self.image.size())?;
        self.ask(&Command::CutPower(seed))?;
        image.copy_from(&self.saved)?;
        Ok(image)
    }

    /// Forgets the fates of blocks so far.
    pub fn forget(&mut self) -> Result<()> {
        self.ask(&Command::Forget).map(drop)
    }

    /// Puts other bytes on the disk. Only while nothing is mounted.
    pub fn restore(&self, image: &Image) -> Result<()> {
        self.image.copy_from(image)?;
        self.device().drop_cache()?;
        Ok(())
    }

    fn device(&self) -> &LoopDevice {
        self.device
            .as_ref()
            .expect("the loop device lives as long as the disk")
    }

    fn ask(&mut self, command: &Command) -> Result<Answer> {
        let mut line = serde_json::to_string(command)?;
        line.push('\n');
        self.control.get_mut().write_all(line.as_bytes())?;
        let answer = read_answer(&mut self.control)?;
        match &answer.error {
            Some(error) => bail!("fault device: {error}"),
            None => Ok(answer),
        }
    }
}

impl Drop for FaultDevice {
    /// The server heals the disk when we hang up, and ends once the loop device has let go of
    /// its file.
    fn drop(&mut self) {
        let _ = self.control.get_ref().shutdown(std::net::Shutdown::Both);
        self.device = None;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let mut status = 0;
            // SAFETY: status is a valid place for the result; the child is ours.
            match unsafe { libc::waitpid(self.server, &raw mut status, libc::WNOHANG) } {
                0 => std::thread::sleep(Duration::from_millis(1)),
                _ => return,
            }
        }
    }
}

fn read_answer(from: &mut BufReader<UnixStream>) -> Result<Answer> {
    let mut line = String::new();
    from.read_line(&mut line)
        .context("the FUSE server does not answer")?;
    if line.is_empty() {
        bail!("the FUSE server has ended");
    }
    Ok(serde_json::from_str(&line)?)
}
