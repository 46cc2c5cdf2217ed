//! Scratch file systems on a failing disk: made once, mounted again and again.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::crypt;
use super::disk::{Below, Disk};
use super::knfsd::{Knfsd, mount_data};
use super::world::Skip;
use crate::faults::{BLOCK, Child, Image, mount_passthrough, nine_p_mount_options, serve_nine_p};

/// A file system and the mode that matters for how it loses data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With a journal, data=ordered.
    Ext4,
    /// Without a journal.
    Ext4NoJournal,
    /// data=journal.
    Ext4DataJournal,
    /// XFS.
    Xfs,
    /// btrfs, one device, one copy.
    Btrfs,
    /// By the driver of that name, or by ext4's where there is no other.
    Ext2,
    /// FAT with long names.
    Vfat,
    /// f2fs.
    F2fs,
    /// NFS version 3, from this kernel's own server, which keeps its files on ext4.
    Nfs3,
    /// The same, version 4.2.
    Nfs4,
    /// FUSE with write-back cache; its server keeps its files on ext4.
    Fuse,
    /// 9P with write-back cache; its server keeps its files on ext4.
    NineP,
}

impl Kind {
    /// All of them, in the order in which they run.
    pub const ALL: [Kind; 12] = [
        Kind::Ext4,
        Kind::Ext4NoJournal,
        Kind::Ext4DataJournal,
        Kind::Xfs,
        Kind::Btrfs,
        Kind::Ext2,
        Kind::Vfat,
        Kind::F2fs,
        Kind::Nfs3,
        Kind::Nfs4,
        Kind::Fuse,
        Kind::NineP,
    ];

    /// The name used on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Ext4NoJournal => "ext4-nojournal",
            Kind::Ext4DataJournal => "ext4-data-journal",
            Kind::Xfs => "xfs",
            Kind::Btrfs => "btrfs",
            Kind::Ext2 => "ext2",
            Kind::Vfat => "vfat",
            Kind::F2fs => "f2fs",
            Kind::Nfs3 => "nfs3",
            Kind::Nfs4 => "nfs4",
            Kind::Fuse => "fuse",
            Kind::NineP => "9p",
        }
    }

    /// As the kernel calls it.
    pub fn fs_type(self) -> &'static str {
        match self {
            Kind::Ext4 | Kind::Ext4NoJournal | Kind::Ext4DataJournal => "ext4",
            Kind::Xfs => "xfs",
            Kind::Btrfs => "btrfs",
            Kind::Ext2 => "ext2",
            Kind::Vfat => "vfat",
            Kind::F2fs => "f2fs",
            Kind::Nfs3 => "nfs",
            Kind::Nfs4 => "nfs4",
            Kind::Fuse => "fuse",
            Kind::NineP => "9p",
        }
    }

    /// The kernel module that hooks are attached to.
    pub fn module(self) -> &'static str {
        match self {
            Kind::Nfs3 | Kind::Nfs4 => "nfs",
            _ => self.fs_type(),
        }
    }

    /// What is on the disk: a server's own file system, or this one.
    pub fn disk_type(self) -> &'static str {
        match self {
            Kind::Nfs3 | Kind::Nfs4 | Kind::Fuse | Kind::NineP => "ext4",
            _ => self.fs_type(),
        }
    }

    /// Whether lost bytes stay in memory, and what the disk has in their place can be read past it
    /// (docs/rescue.md).
    pub fn shows_lost_bytes(self) -> bool {
        match self {
            Kind::Ext4 | Kind::Ext4NoJournal | Kind::Ext2 | Kind::Xfs | Kind::F2fs => true,
            // Before, the page's contents were dropped.
            Kind::Btrfs => kernel_version() >= (6, 12),
            _ => false,
        }
    }

    /// Whether lost bytes can be read from memory at least as long as a program has them mapped.
    pub fn can_be_saved(self) -> bool {
        self.shows_lost_bytes() || matches!(self, Kind::Btrfs | Kind::Fuse | Kind::Nfs3)
    }

    /// Whether a server stands between the program and the disk.
    pub fn is_served(self) -> bool {
        matches!(self, Kind::Nfs3 | Kind::Nfs4 | Kind::Fuse | Kind::NineP)
    }

    /// Bytes of the disk: what mkfs wants at least. ext4 gets one block group only.
    fn size(self) -> u64 {
        match self.disk_type() {
            "ext4" | "ext2" | "vfat" => 64 << 20,
            "xfs" => 320 << 20,
            _ => 256 << 20,
        }
    }

    fn mkfs(self) -> Vec<&'static str> {
        match self {
            Kind::Ext4 | Kind::Fuse | Kind::NineP => {
                vec!["mkfs.ext4", "-q", "-F", "-b", "4096", "-J", "size=4"]
            }
            // Blocks are counted for each user.
            Kind::Nfs3 | Kind::Nfs4 => vec![
                "mkfs.ext4",
                "-q",
                "-F",
                "-b",
                "4096",
                "-J",
                "size=4",
                "-O",
                "quota",
            ],
            Kind::Ext4DataJournal => vec!["mkfs.ext4", "-q", "-F", "-b", "4096", "-J", "size=8"],
            Kind::Ext4NoJournal => {
                vec!["mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "^has_journal"]
            }
            Kind::Ext2 => vec!["mkfs.ext2", "-q", "-F", "-b", "4096"],
            // 8 sectors a cluster: one page.
            Kind::Vfat => vec!["mkfs.vfat", "-F", "16", "-s", "8"],
            Kind::F2fs => vec!["mkfs.f2fs", "-q", "-f"],
            Kind::Xfs => vec!["mkfs.xfs", "-q", "-f", "-K"],
            Kind::Btrfs => vec![
                "mkfs.btrfs",
                "-q",
                "-f",
                "-K",
                "-m",
                "single",
                "-d",
                "single",
            ],
        }
    }

    fn mount_options(self) -> &'static str {
        match self {
            Kind::Nfs3 | Kind::Nfs4 | Kind::Fuse | Kind::NineP => "errors=continue",
            Kind::Ext4 | Kind::Ext4NoJournal | Kind::Ext2 | Kind::Vfat => "errors=continue",
            Kind::Ext4DataJournal => "errors=continue,data=journal",
            Kind::Xfs | Kind::Btrfs | Kind::F2fs => "",
        }
    }

    /// Whether a power cut leaves a file system that wants fsck.
    fn needs_fsck(self) -> bool {
        matches!(self, Kind::Ext4NoJournal | Kind::Ext2 | Kind::Vfat)
    }

    /// Whether the place of a file's bytes on the disk can be asked for, and new bytes are written
    /// to the same place. (btrfs does on request, see [`World::new`](super::world::World::new).)
    pub fn writes_in_place(self) -> bool {
        match self {
            Kind::Ext4 | Kind::Ext4NoJournal | Kind::Xfs | Kind::Btrfs | Kind::Ext2 => true,
            Kind::Ext4DataJournal | Kind::Vfat | Kind::F2fs => false,
            Kind::Nfs3 | Kind::Nfs4 | Kind::NineP | Kind::Fuse => false,
        }
    }

    /// Whether an fsync of a new file leaves its name in memory only.
    pub fn forgets_names(self) -> bool {
        matches!(self, Kind::Ext2 | Kind::Vfat)
    }
}

/// A server that runs.
enum Serving {
    Nfs,
    /// One of ours: FUSE, 9P.
    Ours(Child),
}

/// What the tool can see of a file system here: docs/limits.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Which bytes failed; otherwise only that some did.
    pub ranges: bool,
    /// That a FUSE server was gone when pages were to be written.
    pub dead_server: bool,
    /// What kernel threads ask for and are answered.
    pub kernel_threads: bool,
    /// Which subvolume a file is in.
    pub subvolumes: bool,
    /// Under which page memory failed.
    pub memory: bool,
    /// That the filesystem as a whole is in trouble.
    pub own_errors: bool,
    /// A failed write may have held more pages than were stored: the kernel keeps several in one
    /// folio.
    pub large_folios: bool,
}

impl Sight {
    /// On this kernel, with the tool's `--tier`.
    pub fn of(kind: Kind, tier: &str) -> Sight {
        let limited = kind == Kind::Fuse && tier == "tracepoint";
        let version = kernel_version();
        let functions = match tier {
            "auto" => Path::new("/sys/bus/event_source/devices/kprobe").exists(),
            tier => tier != "tracepoint",
        };
        // From 6.12 on 9P writes back through netfs.
        let old = kind == Kind::NineP && version < (6, 12);
        Sight {
            ranges: !old && (!limited || version >= (6, 12)),
            dead_server: !limited || version >= (6, 18),
            // Wherever NFS is, the tool can have its first tier.
            subvolumes: version >= (5, 11),
            kernel_threads: matches!(tier, "auto" | "fentry"),
            // Where memory can fail, the tool can have its first tier.
            memory: tier != "tracepoint",
            own_errors: match kind {
                Kind::Xfs | Kind::Btrfs => version > (5, 10) && functions,
                _ => version > (5, 10) || functions,
            },
            large_folios: match kind.disk_type() {
                "xfs" => version >= (6, 12),
                "btrfs" => version >= (7, 2),
                _ => version >= (6, 18),
            },
        }
    }
}

/// Of the running kernel, (major, minor).
pub fn kernel_version() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// A disk with a file system that can be put back to the day it was made.
pub struct Volume {
    /// Which file system.
    pub kind: Kind,
    /// What the tool can see of it.
    pub sight: Sight,
    /// The disk.
    pub device: Disk,
    pristine: Image,
    at: PathBuf,
    /// Where the disk is mounted: here, or in the hands of a server.
    disk_at: PathBuf,
    mounted: bool,
    /// What is between the two, while it is.
    serving: Option<Serving>,
    nfs: Option<Knfsd>,
    /// Every mount is given the key of encrypted directories.
    encrypted: bool,
    /// Further options of the mount that programs see.
    client_options: &'static str,
    untouched: bool,
    /// Not fit for another scenario before it is made anew.
    used_up: bool,
}

impl Volume {
    /// Makes the file system; `scratch` is a directory of ours. No mkfs or no support in this
    /// kernel is a [`Skip`].
    pub fn new(kind: Kind, below: Below, sight: Sight, scratch: &Path) -> Result<Volume> {
        for fs_type in [kind.fs_type(), kind.disk_type()] {
            if !kernel_knows(fs_type) {
                bail!(Skip(format!("this kernel has no {fs_type}")));
            }
        }
        let name = format!("{}-{}", kind.name(), below.name());
        let (at, fuse) = (scratch.join(&name), scratch.join(format!("{name}.disk")));
        std::fs::create_dir_all(&at)?;
        std::fs::create_dir_all(&fuse)?;
        let disk_at = match kind.is_served() {
            true => scratch.join(format!("{name}.served")),
            false => at.clone(),
        };
        std::fs::create_dir_all(&disk_at)?;
        let nfs = match kind {
            Kind::Nfs3 | Kind::Nfs4 => {
                let control = scratch.join(format!("{name}.nfsd"));
                Some(Knfsd::new(&disk_at, &control)?)
            }
            _ => None,
        };
        let mut device = Disk::new(below, kind.size(), &name, &fuse)?;
        let pristine = make_file_system(kind, &mut device)?;
        Ok(Volume {
            kind,
            sight,
            device,
            pristine,
            at,
            disk_at,
            mounted: false,
            serving: None,
            nfs,
            encrypted: false,
            client_options: "",
            untouched: false,
            used_up: false,
        })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Healthy and freshly mounted: from now on somebody uses it. The files of earlier scenarios
    /// may still be there, their errors and cached pages are not.
    pub fn take(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.untouched) || self.encrypted {
            self.unmount()?;
            self.device.heal()?;
            self.device.restore(&self.pristine)?;
            self.used_up = false;
            self.encrypted = false;
            self.mount("")?;
        }
        Ok(())
    }

    /// Mounted with the bytes of this image: what a computer would find after a power cut.
    pub fn revive(&mut self, image: &Image) -> Result<()> {
        self.unmount()?;
        self.device.heal()?;
        self.device.restore(image)?;
        self.mount("")?;
        self.untouched = !self.kind.needs_fsck() && !self.used_up;
        Ok(())
    }

    /// Mounts, with further options.
    pub fn mount(&mut self, more: &str) -> Result<()> {
        let options = [self.kind.mount_options(), more];
        let options = options
            .iter()
            .filter(|o| !o.is_empty())
            .copied()
            .collect::<Vec<_>>();
        let disk = self.device.path().to_string_lossy();
        let fs_type = self.kind.disk_type();
        mount(
            &disk,
            &self.disk_at,
            fs_type,
            libc::MS_NOATIME,
            &options.join(","),
        )
        .with_context(|| format!("mount {} ({options:?})", self.kind.name()))?;
        self.mounted = true;
        if self.encrypted {
            crypt::add_key(&self.disk_at)?;
        }
        self.serve(true)
    }

    /// ext4: from now on it can have encrypted directories. Not from the beginning: the kernel gives
    /// no large folios to files of such a file system.
    pub fn allow_encryption(&mut self) -> Result<()> {
        self.unmount()?;
        let mut command = Command::new("tune2fs");
        run(command.args(["-O", "encrypt"]).arg(self.device.path()))?;
        self.mount("")
    }

    /// Everything made in this empty directory from now on is encrypted.
    pub fn encrypt(&mut self, directory: &Path) -> Result<()> {
        let identifier = crypt::add_key(&self.disk_at)?;
        crypt::encrypt(directory, identifier)?;
        self.encrypted = true;
        Ok(())
    }

    /// Puts the server between the disk and the programs.
    fn serve(&mut self, has_fsync: bool) -> Result<()> {
        let version = match self.kind {
            Kind::Nfs3 => 3,
            Kind::Nfs4 => 4,
            Kind::Fuse => {
                let server = mount_passthrough(&self.disk_at, &self.at, has_fsync)?;
                self.serving = Some(Serving::Ours(server));
                return Ok(());
            }
            Kind::NineP => return self.serve_nine_p(),
            _ => return Ok(()),
        };
        let server = self.nfs.as_mut().context("no NFS server here")?;
        server.start()?;
        let (source, mut options) = mount_data(version);
        if !self.client_options.is_empty() {
            options = format!("{options},{}", self.client_options);
        }
        self.serving = Some(Serving::Nfs);
        mount(
            &source,
            &self.at,
            self.kind.fs_type(),
            libc::MS_NOATIME,
            &options,
        )
        .with_context(|| format!("mount {}", self.kind.name()))
    }

    fn serve_nine_p(&mut self) -> Result<()> {
        let (server, socket) = serve_nine_p(&self.disk_at)?;
        self.serving = Some(Serving::Ours(server));
        let options = nine_p_mount_options(&socket);
        let fs_type = self.kind.fs_type();
        mount("served", &self.at, fs_type, libc::MS_NOATIME, &options).context("mount 9p")
    }

    /// NFS: the same files again, mounted with further options until the volume is put back.
    pub fn mount_client_again(&mut self, options: &'static str) -> Result<()> {
        self.stop_serving()?;
        self.client_options = options;
        self.serve(true)
    }

    /// NFS: the server.
    pub fn knfsd(&self) -> Result<&Knfsd> {
        self.nfs.as_ref().context("no NFS server here")
    }

    /// Leaves no free block on the server's disk.
    pub fn fill_server_disk(&mut self) -> Result<()> {
        self.used_up = true;
        let filler = std::fs::File::create(self.disk_at.join("filler"))?;
        let mut step = self.kind.size();
        let mut end = 0;
        // Ever smaller pieces, as long as there is room.
        while step >= BLOCK as u64 {
            // SAFETY: touches no memory.
            match unsafe { libc::fallocate(filler.as_raw_fd(), 0, end, step as i64) } {
                0 => end += step as i64,
                _ => step /= 2,
            }
        }
        Ok(filler.sync_all()?)
    }

    /// FUSE: the same files again, from a server that may not implement FSYNC.
    pub fn serve_again(&mut self, has_fsync: bool) -> Result<()> {
        self.stop_serving()?;
        self.serve(has_fsync)
    }

    /// FUSE, 9P: the server is gone all of a sudden.
    pub fn kill_server(&mut self) -> Result<()> {
        match &mut self.serving {
            Some(Serving::Ours(server)) => server.kill(),
            _ => bail!("no server here that can be killed"),
        }
    }

    /// A file of this file system, as its server has it.
    pub fn on_server(&self, file: &Path) -> Result<PathBuf> {
        Ok(self.disk_at.join(file.strip_prefix(&self.at)?))
    }

    fn stop_serving(&mut self) -> Result<()> {
        match &mut self.serving {
            None => return Ok(()),
            Some(Serving::Nfs) => {
                unmount(&self.at)?;
                self.knfsd()?.stop()?;
            }
            Some(Serving::Ours(server)) => {
                unmount(&self.at)?;
                server.wait()?;
            }
        }
        self.serving = None;
        Ok(())
    }

    /// Unmounts; whoever has it open for a moment (a path look-up) gets the time to end.
    pub fn unmount(&mut self) -> Result<()> {
        self.untouched = false;
        self.stop_serving()?;
        self.client_options = "";
        if self.mounted {
            unmount_while(&self.disk_at, || match &self.nfs {
                Some(server) => server.stop_again(),
                None => Ok(()),
            })?;
            self.mounted = false;
        }
        Ok(())
    }
}

/// The bytes of a new file system for this disk. What its maker leaves out is zeros, if the disk
/// itself does not make something else of them.
fn make_file_system(kind: Kind, disk: &mut Disk) -> Result<Image> {
    let arguments = kind.mkfs();
    let mut mkfs = Command::new(arguments[0]);
    mkfs.args(&arguments[1..]);
    if disk.below() == Below::Crypt {
        run(mkfs.arg(disk.path()))?;
        disk.write_out()?;
        return Ok(disk.snapshot()?.image);
    }
    let (raw, pristine) = (Image::new(kind.size())?, Image::new(kind.size())?);
    run(mkfs.arg(raw.path()))?;
    pristine.copy_from(&raw)?;
    Ok(pristine)
}

/// mount(2).
pub fn mount(
    source: &str,
    at: &Path,
    fs_type: &str,
    flags: libc::c_ulong,
    options: &str,
) -> Result<()> {
    let source = std::ffi::CString::new(source)?;
    let target = c_string(at)?;
    let fs_type = std::ffi::CString::new(fs_type)?;
    let options = std::ffi::CString::new(options)?;
    // SAFETY: all four are C strings that outlive the call.
    let result = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            fs_type.as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(())
}

/// The longest that a file system may stay busy: an NFS server keeps what a client holds for as long
/// as the client's lease, twice at worst.
const UNMOUNT: Duration = Duration::from_secs(40);

fn unmount(at: &Path) -> Result<()> {
    unmount_while(at, || Ok(()))
}

/// Unmounts; as long as it is busy, something can be done about that.
fn unmount_while(at: &Path, let_go: impl Fn() -> Result<()>) -> Result<()> {
    let target = c_string(at)?;
    let deadline = Instant::now() + UNMOUNT;
    loop {
        // SAFETY: target is a C string that outlives the call.
        if unsafe { libc::umount2(target.as_ptr(), 0) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EBUSY) || Instant::now() > deadline {
            return Err(error).with_context(|| format!("unmount {}", at.display()));
        }
        let_go()?;
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.unmount().is_err() {
            for at in [&self.at, &self.disk_at] {
                if let Ok(target) = c_string(at) {
                    // SAFETY: target is a C string that outlives the call.
                    unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
                }
            }
        }
        if self.kind == Kind::Btrfs {
            // btrfs remembers every device it has seen.
            let mut forget = Command::new("btrfs");
            forget
                .args(["device", "scan", "--forget"])
                .arg(self.device.path());
            let _ = forget.output();
        }
    }
}

/// Loads the module if there is one.
pub fn kernel_knows(fs_type: &str) -> bool {
    modprobe(fs_type);
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known.split_whitespace().any(|word| word == fs_type)
}

/// Loads a module; whether the kernel has it, or it is built in.
pub fn modprobe(module: &str) -> bool {
    let done = Command::new("modprobe").args(["-q", module]).status();
    done.is_ok_and(|status| status.success())
}

/// Runs a program; one that is not installed is a [`Skip`].
pub fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_owned();
    let output = match command.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!(Skip(format!("{} is not installed", program.display())));
        }
        output => output?,
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{}: {}",
            program.display(),
            said.lines().next().unwrap_or("failed")
        );
    }
    Ok(())
}

/// A path for a system call.
pub fn c_string(path: &Path) -> Result<std::ffi::CString> {
    Ok(std::ffi::CString::new(path.as_os_str().as_bytes())?)
}
