//! Where on the disk a file's bytes are, by FIEMAP.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};

/// `FS_IOC_FIEMAP` (include/uapi/linux/fs.h).
const FIEMAP: libc::Ioctl = 0xC020_660B_u32 as libc::Ioctl;
/// `FIEMAP_EXTENT_ENCODED` (include/uapi/linux/fiemap.h): compressed.
const ENCODED: u32 = 8;
/// Most extents of a file here.
const MOST: usize = 64;

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

/// `struct fiemap` with room for its extents.
#[repr(C)]
struct Map {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [Extent; MOST],
}

fn extents(file: &File) -> Result<Vec<Extent>> {
    let mut map = Map {
        start: 0,
        length: u64::MAX,
        flags: 0,
        mapped: 0,
        count: MOST as u32,
        reserved: 0,
        extents: [Extent::default(); MOST],
    };
    // SAFETY: the struct has the layout that the call wants, with room for `count` extents.
    match unsafe { libc::ioctl(file.as_raw_fd(), FIEMAP, &raw mut map) } {
        0 => Ok(map.extents[..(map.mapped as usize).min(MOST)].to_vec()),
        _ => Err(io::Error::last_os_error()).context("FIEMAP"),
    }
}

/// Where these bytes of a file are on its disk.
pub fn on_disk(file: &File, bytes: Range<u64>) -> Result<Vec<Range<u64>>> {
    let piece = |extent: &Extent| {
        let start = extent.logical.max(bytes.start);
        let end = (extent.logical + extent.length).min(bytes.end);
        let at = extent.physical + (start - extent.logical.min(start));
        (start < end).then(|| at..at + (end - start))
    };
    Ok(extents(file)?.iter().filter_map(piece).collect())
}

/// Whether some of a file is compressed on the disk.
pub fn any_compressed(file: &File) -> Result<bool> {
    let compressed = |extent: &Extent| extent.flags & ENCODED != 0;
    Ok(extents(file)?.iter().any(compressed))
}
