//! Where the bytes of a file lie on its filesystem's device, as the filesystem says it (FIEMAP).
//!
//! Without FIEMAP_FLAG_SYNC: that would write dirty pages first (`fiemap_prep`).

use std::{fs::File, io, os::fd::AsRawFd};

use crate::model::ByteRange;

/// What reading some bytes past the page cache would give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Zeros: a hole, or blocks that were never written as far as the filesystem knows.
    Zeros,
    /// What the device has from this byte on.
    At(u64),
    /// Not what lies on the device as it is: a reason.
    Elsewhere(&'static str),
}

/// Bytes of a file with their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Of the file.
    pub(super) range: ByteRange,
    /// Of its first byte.
    pub(super) place: Place,
}

/// `_IOWR('f', 11, struct fiemap)`
const FS_IOC_FIEMAP: libc::c_ulong = 0xc020_660b;
const EXTENTS: usize = 64;

/// `struct fiemap` with its extents.
#[repr(C)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
    extents: [Extent; EXTENTS],
}

/// `struct fiemap_extent`
#[repr(C)]
#[derive(Clone, Copy)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

// FIEMAP_EXTENT_*
const LAST: u32 = 0x1;
const UNKNOWN: u32 = 0x2;
const DELALLOC: u32 = 0x4;
const ENCODED: u32 = 0x8;
const DATA_ENCRYPTED: u32 = 0x80;
const NOT_ALIGNED: u32 = 0x100;
const DATA_INLINE: u32 = 0x200;
const DATA_TAIL: u32 = 0x400;
const UNWRITTEN: u32 = 0x800;

/// The places of all bytes of a range, in order, without a gap.
///
/// # Errors
/// If the filesystem does not say.
pub(super) fn places(file: &File, range: ByteRange) -> io::Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut at = range.start();
    while at < range.end() {
        let (extents, is_last) = ask(file, at, range.end() - at)?;
        let before = at;
        for extent in extents {
            let Some(known) = ByteRange::with_len(extent.logical, extent.length)
                .and_then(|known| known.intersect(range))
                .filter(|known| known.end() > at)
            else {
                continue;
            };
            let known = ByteRange::new(known.start().max(at), known.end()).unwrap_or(known);
            push(&mut pieces, at, known.start(), Place::Zeros);
            let place = place(&extent, known.start());
            push(&mut pieces, known.start(), known.end(), place);
            at = known.end();
        }
        if is_last || at == before {
            push(&mut pieces, at, range.end(), Place::Zeros);
            break;
        }
    }
    Ok(pieces)
}

fn push(pieces: &mut Vec<Piece>, start: u64, end: u64, place: Place) {
    pieces.extend(ByteRange::new(start, end).map(|range| Piece { range, place }));
}

fn place(extent: &Extent, from: u64) -> Place {
    let has = |flag: u32| extent.flags & flag != 0;
    if has(DATA_INLINE | DATA_TAIL | NOT_ALIGNED) {
        Place::Elsewhere("the filesystem keeps these bytes among its own (inline)")
    } else if has(DATA_ENCRYPTED) {
        Place::Elsewhere("the bytes are encrypted on the disk")
    } else if has(ENCODED) {
        Place::Elsewhere("the bytes are compressed on the disk")
    } else if has(DELALLOC | UNWRITTEN) {
        // Delayed allocation: nothing is on the disk yet.
        Place::Zeros
    } else if has(UNKNOWN) {
        Place::Elsewhere("the filesystem does not say where these bytes lie")
    } else {
        Place::At(extent.physical + (from - extent.logical))
    }
}

fn ask(file: &File, start: u64, length: u64) -> io::Result<(Vec<Extent>, bool)> {
    // SAFETY: integers and arrays of integers only, for which zero is valid.
    let mut map: Fiemap = unsafe { std::mem::zeroed() };
    map.start = start;
    map.length = length;
    map.extent_count = EXTENTS as u32;
    // SAFETY: a fiemap with room for as many extents as it says.
    if unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP, &raw mut map) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let count = (map.mapped_extents as usize).min(EXTENTS);
    let extents = map.extents[..count].to_vec();
    let is_last = count < EXTENTS || extents.iter().any(|extent| extent.flags & LAST != 0);
    Ok((extents, is_last))
}
