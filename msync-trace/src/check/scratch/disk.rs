//! The disk: tmpfs, file, loop device, file system. Knows where writes fail, not why one wants
//! that.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::loop_device::LoopDevice;
use super::mapping::PAGE;
use super::{ScratchError, ScratchFs, StepResult};

/// Size of the tmpfs while nothing fails.
const ROOM: &str = "size=536870912,mode=0700";
/// linux/fs.h
static FS_NOCOW_FL: libc::c_int = 0x0080_0000;
/// Someone may have the file system open for a moment, looking up a path.
const UNMOUNT: Duration = Duration::from_secs(5);

/// See the module.
pub struct Disk {
    fs: ScratchFs,
    /// `None` only while dropping.
    device: Option<LoopDevice>,
    backing: File,
    /// Where the tmpfs is mounted.
    base: PathBuf,
    mount_point: PathBuf,
    mounted: bool,
}

impl Disk {
    /// Makes and mounts it.
    pub fn new(fs: ScratchFs) -> Result<Disk, ScratchError> {
        // SAFETY: geteuid has no arguments.
        if unsafe { libc::geteuid() } != 0 {
            let why = "a scratch file system needs root: run it with sudo";
            return Err(ScratchError::Unavailable(why.to_owned()));
        }
        load_modules(fs)?;
        own_mounts().step("a mount namespace of our own")?;
        let base = base();
        mount("tmpfs", &base, "tmpfs", ROOM, 0).step("mount a tmpfs")?;
        let (image, mount_point) = (base.join("disk"), base.join(fs.name()));
        std::fs::create_dir(&mount_point).step("make a mount point")?;
        let backing = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&image)
            .step("make the disk")?;
        backing.set_len(disk_size(fs)).step("make the disk")?;
        make_file_system(fs, &image)?;
        let device = LoopDevice::attach(&backing).map_err(|error| {
            ScratchError::Unavailable(format!(
                "no loop device can be set up: {error} (try `modprobe loop`; `losetup -a` shows \
                 those in use)"
            ))
        })?;
        let mut disk = Disk {
            fs,
            device: Some(device),
            backing,
            base,
            mount_point,
            mounted: false,
        };
        disk.mount()?;
        disk.give_pages_to_the_file_system()?;
        Ok(disk)
    }

    /// Where the file system is.
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// The block device.
    pub fn device(&self) -> &Path {
        self.loop_device().path()
    }

    /// Makes btrfs write the data of this new file where it was before; the others do so anyway.
    pub fn overwrite_in_place(&self, file: &File) -> Result<(), ScratchError> {
        if self.fs != ScratchFs::Btrfs {
            return Ok(());
        }
        // SAFETY: the argument is an int as FS_IOC_SETFLAGS wants it.
        let result = unsafe {
            libc::ioctl(
                file.as_raw_fd(),
                libc::FS_IOC_SETFLAGS,
                &raw const FS_NOCOW_FL,
            )
        };
        done(result).step("chattr +C")
    }

    /// Page number and place on the disk of all pages that begin with `stamp`.
    pub fn find(&self, stamp: &[u8]) -> Result<Vec<(u64, u64)>, ScratchError> {
        let mut found = Vec::new();
        let mut block = [0; PAGE];
        let mut offset = 0;
        while let Some(data) = next_data(&self.backing, offset).step("read the disk")? {
            offset = data / PAGE as u64 * PAGE as u64;
            self.backing
                .read_exact_at(&mut block, offset)
                .step("read the disk")?;
            if block.starts_with(stamp) {
                let mut page = [0; 8];
                page.copy_from_slice(&block[stamp.len()..stamp.len() + 8]);
                found.push((u64::from_le_bytes(page), offset));
            }
            offset += PAGE as u64;
        }
        Ok(found)
    }

    /// Whether these pages of the disk hold nothing but zeros.
    pub fn is_zero(&self, offsets: &[u64]) -> Result<bool, ScratchError> {
        let mut block = [0; PAGE];
        for offset in offsets {
            self.backing
                .read_exact_at(&mut block, *offset)
                .step("read the disk")?;
            if block.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// From now on writes to these pages of the disk fail.
    pub fn refuse(&mut self, offsets: &[u64]) -> Result<(), ScratchError> {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        for offset in offsets {
            fallocate(&self.backing, mode, *offset, PAGE as u64).step("punch a hole")?;
        }
        // SAFETY: all fields of statfs are integers.
        let mut usage: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: usage is a valid place for the result.
        done(unsafe { libc::fstatfs(self.backing.as_raw_fd(), &raw mut usage) })
            .step("look at the tmpfs")?;
        let used = (usage.f_blocks - usage.f_bfree) * usage.f_bsize.unsigned_abs();
        self.resize(&format!("size={used},mode=0700"))
    }

    /// Nothing fails any more.
    pub fn heal(&mut self) -> Result<(), ScratchError> {
        self.resize(ROOM)
    }

    fn resize(&self, options: &str) -> Result<(), ScratchError> {
        mount("tmpfs", &self.base, "tmpfs", options, libc::MS_REMOUNT)
            .step("change the size of the tmpfs")
    }

    /// Writes back everything, as the kernel does by itself after a while.
    pub fn syncfs(&self) -> io::Result<()> {
        let root = File::open(&self.mount_point)?;
        // SAFETY: touches no memory.
        done(unsafe { libc::syncfs(root.as_raw_fd()) })
    }

    /// Unmounts and mounts: the kernel forgets every page and every error.
    pub fn mount_again(&mut self) -> Result<(), ScratchError> {
        self.unmount()?;
        self.mount()
    }

    fn mount(&mut self) -> Result<(), ScratchError> {
        let device = self.device().to_string_lossy().into_owned();
        let options = if self.fs == ScratchFs::Ext4 {
            "errors=continue"
        } else {
            ""
        };
        mount(&device, &self.mount_point, self.fs.name(), options, 0)
            .step("mount the scratch file system")?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), ScratchError> {
        let deadline = Instant::now() + UNMOUNT;
        while self.mounted {
            match unmount(&self.mount_point, 0) {
                Ok(()) => self.mounted = false,
                Err(error)
                    if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(2));
                }
                error => return error.step("unmount the scratch file system"),
            }
        }
        Ok(())
    }

    /// The file system's own blocks (journal, metadata that btrfs writes to new places) must not
    /// meet the end of the tmpfs.
    fn give_pages_to_the_file_system(&self) -> Result<(), ScratchError> {
        let bytes = match self.fs {
            ScratchFs::Ext4 => disk_size(self.fs),
            // mkfs and mount have written everything that XFS overwrites later.
            ScratchFs::Xfs => return Ok(()),
            // The first system, metadata and data chunk.
            ScratchFs::Btrfs => 24 << 20,
        };
        fallocate(&self.backing, 0, 0, bytes).step("give the disk its pages")
    }

    fn loop_device(&self) -> &LoopDevice {
        self.device
            .as_ref()
            .expect("the loop device lives as long as the disk")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.heal();
        if self.unmount().is_err() {
            let _ = unmount(&self.mount_point, libc::MNT_DETACH);
        }
        if self.fs == ScratchFs::Btrfs {
            // btrfs remembers every device it has seen.
            let mut forget = Command::new("btrfs");
            forget.args(["device", "scan", "--forget"]);
            let _ = forget.arg(self.device()).output();
        }
        self.device = None;
        let _ = unmount(&self.base, libc::MNT_DETACH);
    }
}

/// A directory that every machine has: only this thread sees the tmpfs on it, and nothing is left
/// behind.
fn base() -> PathBuf {
    let mnt = PathBuf::from("/mnt");
    if mnt.is_dir() {
        mnt
    } else {
        std::env::temp_dir()
    }
}

fn disk_size(fs: ScratchFs) -> u64 {
    match fs {
        ScratchFs::Ext4 => 16 << 20,
        // What mkfs wants at least; tmpfs holds only what is written.
        ScratchFs::Xfs => 320 << 20,
        ScratchFs::Btrfs => 128 << 20,
    }
}

fn load_modules(fs: ScratchFs) -> Result<(), ScratchError> {
    for module in ["loop", fs.name()] {
        // It may be built in, or there may be no modules at all: what counts comes later.
        let _ = Command::new("modprobe").args(["-q", module]).output();
    }
    let known = std::fs::read_to_string("/proc/filesystems").step("/proc/filesystems")?;
    if known.split_whitespace().any(|word| word == fs.name()) {
        return Ok(());
    }
    Err(ScratchError::Unavailable(format!(
        "this kernel has no {}: use another --fs",
        fs.name()
    )))
}

fn make_file_system(fs: ScratchFs, image: &Path) -> Result<(), ScratchError> {
    let mut mkfs = match fs {
        ScratchFs::Ext4 => {
            let mut mkfs = Command::new("mkfs.ext4");
            mkfs.args(["-q", "-F", "-b", "4096", "-J", "size=4", "-E"]);
            mkfs.arg("lazy_itable_init=0,lazy_journal_init=0");
            mkfs
        }
        ScratchFs::Xfs => {
            let mut mkfs = Command::new("mkfs.xfs");
            mkfs.args(["-q", "-f", "-K"]);
            mkfs
        }
        ScratchFs::Btrfs => {
            let mut mkfs = Command::new("mkfs.btrfs");
            mkfs.args(["-q", "-f", "-K", "-m", "single", "-d", "single"]);
            mkfs
        }
    };
    let name = format!("mkfs.{}", fs.name());
    let output = mkfs.arg(image).output().map_err(|error| {
        let package = match fs {
            ScratchFs::Ext4 => "e2fsprogs",
            ScratchFs::Xfs => "xfsprogs",
            ScratchFs::Btrfs => "btrfs-progs",
        };
        ScratchError::Unavailable(if error.kind() == io::ErrorKind::NotFound {
            format!("there is no {name}: install {package}")
        } else {
            format!("{name}: {error} (is {package} installed?)")
        })
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap_or("failed");
    Err(ScratchError::Unavailable(format!("{name}: {first}")))
}

/// Mounts of this thread's own: they end with it.
fn own_mounts() -> io::Result<()> {
    // SAFETY: unshare touches no memory.
    done(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    mount(
        "none",
        Path::new("/"),
        "",
        "",
        libc::MS_REC | libc::MS_PRIVATE,
    )
}

fn mount(
    source: &str,
    target: &Path,
    fs_type: &str,
    options: &str,
    flags: libc::c_ulong,
) -> io::Result<()> {
    let (source, target) = (
        CString::new(source)?,
        CString::new(target.as_os_str().as_bytes())?,
    );
    let (fs_type, options) = (CString::new(fs_type)?, CString::new(options)?);
    // SAFETY: all four are C strings that outlive the call.
    done(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            fs_type.as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    })
}

fn unmount(target: &Path, flags: libc::c_int) -> io::Result<()> {
    let target = CString::new(target.as_os_str().as_bytes())?;
    // SAFETY: target is a C string that outlives the call.
    done(unsafe { libc::umount2(target.as_ptr(), flags) })
}

fn fallocate(file: &File, mode: libc::c_int, offset: u64, len: u64) -> io::Result<()> {
    // SAFETY: touches no memory.
    done(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as i64, len as i64) })
}

/// The first byte at or after `from` that is not in a hole.
fn next_data(file: &File, from: u64) -> io::Result<Option<u64>> {
    // SAFETY: touches no memory; nobody relies on the file position.
    match unsafe { libc::lseek(file.as_raw_fd(), from as i64, libc::SEEK_DATA) } {
        -1 => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            error => Err(error),
        },
        data => Ok(Some(data as u64)),
    }
}

fn done(result: libc::c_int) -> io::Result<()> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
