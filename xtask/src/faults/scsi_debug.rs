//! A SCSI disk in memory, by the kernel's `scsi_debug`: write errors come from a SCSI driver, by the
//! completion of its requests.
//!
//! Its medium errors are for reads (tried on 5.10 and 6.12). What it refuses to write it refuses
//! everywhere: as a disk that is write-protected (its parameter `wp`), which the kernel tries only
//! once and calls `BLK_STS_TARGET`, EREMOTEIO.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::image::{BLOCK, Image};
use super::loop_device::drop_cache;

const MODULE: &str = "/sys/module/scsi_debug";
const ADAPTER: &str = "/sys/bus/pseudo/drivers/scsi_debug/adapter0";
/// The sectors that were written and not discarded since, as `0-15,32-39`. Cut off at one page.
const MAP: &str = "/sys/bus/pseudo/drivers/scsi_debug/map";
const MAP_BYTES: usize = 4000;
const SECTOR: u64 = 512;
/// Enough for any scratch file system; a smaller one leaves the rest unused.
const MEGABYTES: u64 = 320;
/// The longest that the kernel may take to find its disk.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes copied at a time.
const CHUNK: usize = 1 << 20;

thread_local! {
    /// There is one such disk in the kernel.
    static LOADED: RefCell<Weak<Loaded>> = const { RefCell::new(Weak::new()) };
}

/// The module, while it is loaded by us.
struct Loaded {
    path: PathBuf,
    /// `None` only while dropping.
    device: Option<File>,
}

impl Loaded {
    fn load() -> Result<Loaded> {
        if Path::new(MODULE).exists() {
            bail!("scsi_debug is loaded already: `modprobe -r scsi_debug`");
        }
        let size = format!("dev_size_mb={MEGABYTES}");
        let mut modprobe = Command::new("modprobe");
        // With `lbpu` it keeps account of what was ever written; the rest reads as zeros.
        modprobe.args(["scsi_debug", &size, "delay=0", "lbpu=1"]);
        let done = modprobe.output().context("modprobe")?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            bail!("modprobe scsi_debug: {}", said.trim());
        }
        let mut loaded = Loaded {
            path: PathBuf::new(),
            device: None,
        };
        loaded.path = found()?;
        let device = OpenOptions::new().read(true).write(true).open(&loaded.path);
        loaded.device = Some(device.with_context(|| format!("open {}", loaded.path.display()))?);
        Ok(loaded)
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.device = None;
        let _ = protect(false);
        let deadline = Instant::now() + PATIENCE;
        let gone = || !Path::new(MODULE).exists();
        while !gone() && Instant::now() < deadline {
            let _ = Command::new("modprobe")
                .args(["-q", "-r", "scsi_debug"])
                .output();
        }
    }
}

/// The block device of the only adapter, as soon as it is there.
fn found() -> Result<PathBuf> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(name) = block_device(Path::new(ADAPTER), 4) {
            let path = Path::new("/dev").join(name);
            if path.exists() {
                return Ok(path);
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("scsi_debug has made no disk")
}

/// The name in the folder `block` at most so many folders below: `host0/target0:0:0/0:0:0:0/block`.
fn block_device(folder: &Path, depth: u32) -> Option<std::ffi::OsString> {
    let first = std::fs::read_dir(folder.join("block"));
    if let Some(disk) = first.ok().and_then(|mut disks| disks.next()) {
        return Some(disk.ok()?.file_name());
    }
    let folders = std::fs::read_dir(folder).ok()?.flatten();
    let mut real = folders.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let below = depth.checked_sub(1)?;
    real.find_map(|entry| block_device(&entry.path(), below))
}

/// Whether all writes fail.
fn protect(yes: bool) -> io::Result<()> {
    let parameter = Path::new(MODULE).join("parameters/wp");
    std::fs::write(parameter, if yes { "Y" } else { "N" })
}

/// The disk. All of them are the same one: only one may be in use at a time.
pub struct ScsiDebug {
    loaded: Rc<Loaded>,
    size: u64,
    failed_before: u64,
}

impl ScsiDebug {
    /// The error of its writes.
    pub const ERROR: i32 = libc::EREMOTEIO;

    /// The disk, of which `size` bytes are used; loads the module for the first one.
    pub fn new(size: u64) -> Result<ScsiDebug> {
        if size > MEGABYTES << 20 {
            bail!("the scsi_debug disk is too small");
        }
        let loaded = LOADED.with_borrow_mut(|last| match last.upgrade() {
            Some(loaded) => Ok(loaded),
            None => {
                let loaded = Rc::new(Loaded::load()?);
                *last = Rc::downgrade(&loaded);
                anyhow::Ok(loaded)
            }
        })?;
        Ok(ScsiDebug {
            loaded,
            size,
            failed_before: 0,
        })
    }

    /// How many bytes are used.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// `/dev/sdX`
    pub fn path(&self) -> &Path {
        &self.loaded.path
    }

    /// From now on all writes fail.
    pub fn fail(&mut self) -> Result<()> {
        self.failed_before = self.errors()?;
        protect(true).context("write-protect the scsi_debug disk")
    }

    /// Writes succeed again. How many commands failed since [`Self::fail`].
    pub fn heal(&self) -> Result<u64> {
        protect(false)?;
        Ok(self.errors()?.saturating_sub(self.failed_before))
    }

    /// Commands that ended in an error (`ioerr_cnt`, drivers/scsi/scsi_sysfs.c).
    fn errors(&self) -> Result<u64> {
        let name = self.path().file_name().context("no name")?;
        let counter = Path::new("/sys/block").join(name).join("device/ioerr_cnt");
        let text = std::fs::read_to_string(&counter).context("ioerr_cnt")?;
        let digits = text.trim().trim_start_matches("0x");
        Ok(u64::from_str_radix(digits, 16)?)
    }

    /// What is on the disk now, beside every cache.
    pub fn copy(&self) -> Result<Image> {
        let image = Image::new(self.size)?;
        let disk = self.beside_caches()?;
        let mut buffer = Aligned::new();
        for run in self.written()? {
            for at in run.clone().step_by(CHUNK) {
                let bytes = buffer.bytes(run.end - at);
                disk.read_exact_at(bytes, at)?;
                image.write_at(bytes, at)?;
            }
        }
        Ok(image)
    }

    /// Blocks that may be something else than zeros.
    fn written(&self) -> Result<Vec<Range<u64>>> {
        let map = std::fs::read_to_string(MAP)?;
        if map.len() > MAP_BYTES {
            return Ok(std::iter::once(0..self.size).collect());
        }
        runs(map.trim(), self.size).context("the map of the scsi_debug disk")
    }

    /// Puts other bytes on the disk. Only while nothing is mounted.
    pub fn restore(&self, image: &Image) -> Result<()> {
        let device = self.loaded.device.as_ref().context("the disk is gone")?;
        drop_cache(device)?;
        discard(device, self.size)?;
        let disk = self.beside_caches()?;
        let mut buffer = Aligned::new();
        let mut from = 0;
        while let Some((start, end)) = image.next_data(from)? {
            let first = start - start % BLOCK as u64;
            for at in (first..end).step_by(CHUNK) {
                let bytes = buffer.bytes(end.next_multiple_of(BLOCK as u64) - at);
                image.read_at(bytes, at)?;
                disk.write_all_at(bytes, at)?;
            }
            from = end;
        }
        Ok(drop_cache(device)?)
    }

    fn beside_caches(&self) -> io::Result<File> {
        let mut how = OpenOptions::new();
        how.read(true).write(true).custom_flags(libc::O_DIRECT);
        how.open(self.path())
    }
}

/// The whole disk forgets what was written: `BLKDISCARD` (linux/fs.h).
fn discard(device: &File, size: u64) -> io::Result<()> {
    const BLKDISCARD: libc::Ioctl = 0x1277;
    let bytes = [0, size];
    // SAFETY: the argument is the first byte and their number, as the call wants it.
    match unsafe { libc::ioctl(device.as_raw_fd(), BLKDISCARD, bytes.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The blocks, as byte ranges, in which there is a sector of this list, as far as the disk is used.
fn runs(list: &str, size: u64) -> Option<Vec<Range<u64>>> {
    let block = BLOCK as u64;
    let mut runs: Vec<Range<u64>> = Vec::new();
    for run in list.split(',').filter(|run| !run.is_empty()) {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        let start = first * SECTOR / block * block;
        let end = ((last + 1) * SECTOR).next_multiple_of(block).min(size);
        match runs.last_mut() {
            Some(before) if before.end >= start => before.end = end,
            _ if start < end => runs.push(start..end),
            _ => (),
        }
    }
    Some(runs)
}

/// Memory for O_DIRECT.
struct Aligned {
    bytes: Vec<u8>,
    first: usize,
}

impl Aligned {
    fn new() -> Aligned {
        let bytes = vec![0; CHUNK + BLOCK];
        let first = bytes.as_ptr().align_offset(BLOCK);
        Aligned { bytes, first }
    }

    /// At most so many bytes.
    fn bytes(&mut self, most: u64) -> &mut [u8] {
        let len = CHUNK.min(most as usize);
        &mut self.bytes[self.first..self.first + len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_are_read_as_whole_blocks_of_the_part_in_use() {
        let read = |list, size| {
            let ends = |run: Range<u64>| (run.start, run.end);
            let runs = runs(list, size)?;
            Some(runs.into_iter().map(ends).collect::<Vec<_>>())
        };
        assert_eq!(read("", 1 << 20), Some(vec![]));
        let two = vec![(0, 8192), (12288, 16384)];
        assert_eq!(
            read("0-7,9,30-32", 20480),
            Some(vec![(0, 8192), (12288, 20480)])
        );
        assert_eq!(read("0-7,9,30-32", 16384), Some(two));
        assert_eq!(read("0-655359", 8192), Some(vec![(0, 8192)]));
        assert_eq!(read("8,800", 8192), Some(vec![(4096, 8192)]));
        assert_eq!(read("0-x", 8192), None);
    }
}
