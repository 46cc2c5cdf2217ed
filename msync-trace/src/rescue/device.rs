//! A block device, read past its page cache, and what its first blocks say about the filesystem on
//! it. Read only.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::memory::{Dirtiness, Window, page_size};
use crate::schema::spell_dev;

/// See the module.
#[derive(Debug)]
pub(super) struct Device {
    /// With O_DIRECT.
    direct: File,
    /// As the kernel calls it: `sda1`, `dm-0`.
    name: String,
    /// Without, to ask what its page cache holds.
    buffered: File,
}

/// Memory at a place that O_DIRECT takes on every disk.
#[repr(C, align(4096))]
#[derive(Clone, Copy)]
struct Aligned([u8; ALIGNMENT]);
const ALIGNMENT: usize = 4096;

impl Device {
    /// By its number, as the kernel has it: `major << 20 | minor`.
    ///
    /// # Errors
    /// A sentence: it has no node below `/dev`, or cannot be opened.
    pub(super) fn open(dev: u32) -> Result<Self, String> {
        let path = node(dev)?;
        let open = |flags: libc::c_int| {
            let file = OpenOptions::new()
                .read(true)
                .custom_flags(flags | libc::O_CLOEXEC | libc::O_NONBLOCK)
                .open(&path)?;
            match file.metadata()?.rdev() == rdev(dev) {
                true => Ok(file),
                false => Err(io::Error::other("it is another device now")),
            }
        };
        let cannot = |error: io::Error| format!("cannot read {}: {error}", path.display());
        Ok(Self {
            direct: open(libc::O_DIRECT).map_err(cannot)?,
            buffered: open(0).map_err(cannot)?,
            name: kernel_name(dev),
        })
    }

    /// What the kernel calls it: `sda1`, `dm-0`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Reads what the device itself has, not what its page cache has.
    ///
    /// Dirty blocks there would be written by the kernel first (`kiocb_write_and_wait`), so a place
    /// with some is not read. (A filesystem has its own blocks there, never those of a file.)
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), String> {
        let unit = ALIGNMENT as u64;
        let start = offset / unit * unit;
        let end = (offset + into.len() as u64).div_ceil(unit) * unit;
        self.refuse_dirty(start, end)?;
        let blocks = usize::try_from((end - start) / unit).map_err(|error| error.to_string())?;
        let mut aligned = vec![Aligned([0; ALIGNMENT]); blocks];
        // SAFETY: `Aligned` is nothing but its bytes.
        let bytes = unsafe {
            std::slice::from_raw_parts_mut(aligned.as_mut_ptr().cast::<u8>(), blocks * ALIGNMENT)
        };
        let skip = (offset - start) as usize;
        let wanted = skip + into.len();
        let mut got = 0;
        while got < wanted {
            match self.direct.read_at(&mut bytes[got..], start + got as u64) {
                // A device may end inside of a unit.
                Ok(0) => return Err("the device ends before".to_owned()),
                Ok(more) => got += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("the disk cannot read them: {error}")),
            }
        }
        into.copy_from_slice(&bytes[skip..wanted]);
        Ok(())
    }

    fn refuse_dirty(&self, start: u64, end: u64) -> Result<(), String> {
        let page = page_size() as u64;
        let first = start / page * page;
        let pages = (end - first).div_ceil(page) as usize;
        let cannot = |error: io::Error| format!("cannot ask for the cache of the device: {error}");
        let window = Window::new(&self.buffered, first, pages).map_err(cannot)?;
        let resident = window.resident().map_err(cannot)?;
        if resident.iter().all(|is_there| !is_there) {
            return Ok(());
        }
        // Before 6.5 dirtiness is only known of pages in our page table.
        let mut bytes = vec![0; pages * page_size()];
        window.read(&mut bytes).map_err(cannot)?;
        match window
            .dirtiness()
            .iter()
            .all(|page| *page == Dirtiness::Clean)
        {
            true => Ok(()),
            false => Err(
                "the device's own page cache has blocks there that it may still write".to_owned(),
            ),
        }
    }

    /// Bytes of its beginning, as the filesystem on it sees them, from its page cache.
    pub(super) fn superblock(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.buffered.read_exact_at(into, offset)
    }
}

/// The node below `/dev`. None is made: in a container there may be no right to.
fn node(dev: u32) -> Result<PathBuf, String> {
    let number = spell_dev(dev);
    let uevent = Path::new("/sys/dev/block").join(&number).join("uevent");
    let uevent = fs::read_to_string(&uevent)
        .map_err(|_| format!("{number} is no block device that this machine has"))?;
    let name = uevent
        .lines()
        .find_map(|line| line.strip_prefix("DEVNAME="));
    let path = Path::new("/dev").join(name.unwrap_or_default());
    let is_it = fs::metadata(&path)
        .is_ok_and(|node| node.file_type().is_block_device() && node.rdev() == rdev(dev));
    match is_it {
        true => Ok(path),
        false => Err(format!(
            "the disk {number} has no node {}: run msync-trace where /dev has it",
            path.display()
        )),
    }
}

/// The last part of where `/sys/dev/block/MAJOR:MINOR` leads.
fn kernel_name(dev: u32) -> String {
    let place = fs::read_link(Path::new("/sys/dev/block").join(spell_dev(dev)));
    let place = place.unwrap_or_default();
    let name = place.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// A device number as stat(2) has it.
fn rdev(dev: u32) -> u64 {
    rustix::fs::makedev(dev >> 20, dev & 0xf_ffff)
}

/// A device number of stat(2) as the kernel has it.
pub(super) fn kernel_dev(rdev: u64) -> u32 {
    rustix::fs::major(rdev) << 20 | rustix::fs::minor(rdev)
}
