//! Where btrfs keeps bytes: its own addresses (those of FIEMAP) lie in chunks, and each chunk lies on
//! one or several devices. Reads the devices, never through the filesystem: that would write dirty
//! pages first, and can give the bytes of memory back (`btrfs_direct_read` falls back to them).

use std::{
    cell::OnceCell,
    ffi::{CStr, OsStr},
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::Path,
    sync::Arc,
};

use super::device::{Device, kernel_dev};

/// The chunks and devices of the filesystem that a file is on.
#[derive(Debug)]
pub(super) struct Chunks {
    file: Arc<File>,
    /// Asked for when they are needed, by the thread that may have to wait for a disk.
    known: OnceCell<Result<Known, String>>,
}

#[derive(Debug)]
struct Known {
    /// In the order of their addresses.
    chunks: Vec<Chunk>,
    devices: Vec<(u64, Result<Device, String>)>,
}

/// Addresses next to each other that are kept in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chunk {
    start: u64,
    length: u64,
    stripe_len: u64,
    kind: u64,
    sub_stripes: usize,
    /// Device and its first byte there.
    stripes: Vec<(u64, u64)>,
}

/// Copies of some bytes, all the same as far as the filesystem knows.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    length: u64,
    /// Device and first byte there.
    copies: Vec<(u64, u64)>,
}

/// Bytes that are not known: from and to, of those that were asked for, and why.
pub(super) type Hidden = Vec<(usize, usize, String)>;

impl Chunks {
    pub(super) fn new(file: Arc<File>) -> Self {
        Self {
            file,
            known: OnceCell::new(),
        }
    }

    /// Reads what the devices have at this address.
    ///
    /// # Errors
    /// A sentence, if nothing of it can be known.
    pub(super) fn read(&self, address: u64, into: &mut [u8]) -> Result<Hidden, String> {
        let known = self.known.get_or_init(|| Known::of(&self.file));
        let known = known.as_ref().map_err(Clone::clone)?;
        let mut hidden = Hidden::new();
        let mut done = 0;
        while done < into.len() {
            let at = address + done as u64;
            let chunk = known.chunk(at).ok_or("btrfs has no chunk there")?;
            let piece = chunk.piece(at)?;
            let length = usize::try_from(piece.length).unwrap_or(usize::MAX);
            let end = into.len().min(done.saturating_add(length));
            known.read(&piece, done, &mut into[done..end], &mut hidden);
            // A balance moves chunks, and others may come to lie where they were.
            match chunk_at(&self.file, chunk.start) {
                Ok(Some(now)) if now == *chunk => {}
                _ => return Err("btrfs moved the bytes meanwhile".to_owned()),
            }
            done = end;
        }
        Ok(hidden)
    }
}

impl Known {
    fn of(file: &File) -> Result<Self, String> {
        let cannot = |error: io::Error| format!("btrfs does not say where its chunks lie: {error}");
        let chunks = all_chunks(file).map_err(cannot)?;
        let mut numbers: Vec<u64> = chunks.iter().flat_map(Chunk::devices).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let open = |number: u64| (number, device(file, number));
        Ok(Self {
            chunks,
            devices: numbers.into_iter().map(open).collect(),
        })
    }

    fn chunk(&self, address: u64) -> Option<&Chunk> {
        let after = self.chunks.partition_point(|chunk| chunk.start <= address);
        let chunk = self.chunks.get(after.checked_sub(1)?)?;
        (address - chunk.start < chunk.length).then_some(chunk)
    }

    /// Reads all copies. `from`: where these bytes are among those that were asked for.
    fn read(&self, piece: &Piece, from: usize, into: &mut [u8], hidden: &mut Hidden) {
        let mut copies = Vec::new();
        let mut why = "btrfs names no device".to_owned();
        for (number, place) in &piece.copies {
            let mut bytes = vec![0; into.len()];
            match self.device(*number).and_then(|device| {
                device.read(*place, &mut bytes)?;
                Ok(bytes)
            }) {
                Ok(bytes) => copies.push(bytes),
                Err(error) => why = error,
            }
        }
        let Some((first, others)) = copies.split_first() else {
            hidden.push((from, from + into.len(), why));
            return;
        };
        into.copy_from_slice(first);
        for start in (0..into.len()).step_by(BLOCK) {
            let block = start..into.len().min(start + BLOCK);
            if others
                .iter()
                .any(|other| other[block.clone()] != first[block.clone()])
            {
                let why = "its copies on the disks are not the same".to_owned();
                hidden.push((from + block.start, from + block.end, why));
            }
        }
    }

    fn device(&self, number: u64) -> Result<&Device, String> {
        let found = self.devices.iter().find(|(known, _)| *known == number);
        match found {
            Some((_, device)) => device.as_ref().map_err(Clone::clone),
            None => Err("btrfs does not know this device".to_owned()),
        }
    }
}

/// The smallest block of btrfs on machines with pages of 4 KiB.
const BLOCK: usize = 4096;

// linux/btrfs_tree.h: BTRFS_BLOCK_GROUP_*
const RAID0: u64 = 1 << 3;
const RAID1: u64 = 1 << 4;
const DUP: u64 = 1 << 5;
const RAID10: u64 = 1 << 6;
const RAID1C3: u64 = 1 << 9;
const RAID1C4: u64 = 1 << 10;
/// All that say how it is kept, also those that are not known here.
const PROFILES: u64 = !0b111;

impl Chunk {
    fn devices(&self) -> impl Iterator<Item = u64> {
        self.stripes.iter().map(|(device, _)| *device)
    }

    /// Where the bytes from this address on lie, which is in the chunk (`btrfs_map_block`).
    fn piece(&self, address: u64) -> Result<Piece, String> {
        let offset = address - self.start;
        let copies = match self.kind & PROFILES {
            0 | DUP | RAID1 | RAID1C3 | RAID1C4 => {
                let copy = |(device, start): &(u64, u64)| (*device, start + offset);
                return Ok(Piece {
                    length: self.length - offset,
                    copies: self.stripes.iter().map(copy).collect(),
                });
            }
            RAID0 => 1,
            RAID10 => self.sub_stripes,
            _ => return Err("btrfs keeps these bytes with parity (RAID5, RAID6)".to_owned()),
        };
        let columns = self.stripes.len().checked_div(copies).unwrap_or(0) as u64;
        if columns == 0 || self.stripe_len == 0 {
            return Err("btrfs describes this chunk in an unknown way".to_owned());
        }
        let (stripe, inside) = (offset / self.stripe_len, offset % self.stripe_len);
        let first = (stripe % columns) as usize * copies;
        let below = stripe / columns * self.stripe_len + inside;
        let copy = |(device, start): &(u64, u64)| (*device, start + below);
        Ok(Piece {
            length: self.stripe_len - inside,
            copies: self.stripes[first..first + copies]
                .iter()
                .map(copy)
                .collect(),
        })
    }
}

/// `_IOWR(0x94, 17, struct btrfs_ioctl_search_args)`
const BTRFS_IOC_TREE_SEARCH: libc::c_ulong = 0xd000_9411;
const CHUNK_TREE: u64 = 3;
const FIRST_CHUNK_TREE: u64 = 256;
const CHUNK_ITEM: u32 = 228;
/// Of `struct btrfs_ioctl_search_key`, and of all arguments.
const KEY: usize = 104;
const ARGUMENTS: usize = 4096;
/// Of `struct btrfs_ioctl_search_header`, `struct btrfs_chunk` before its stripes, and a stripe.
const HEADER: usize = 32;
const CHUNK: usize = 48;
const STRIPE: usize = 32;

fn all_chunks(file: &File) -> io::Result<Vec<Chunk>> {
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut from = 0;
    loop {
        let more = search(file, from, u64::MAX)?;
        match more.last() {
            Some(last) => from = last.start.saturating_add(1),
            None => return Ok(chunks),
        }
        chunks.extend(more);
    }
}

fn chunk_at(file: &File, start: u64) -> io::Result<Option<Chunk>> {
    Ok(search(file, start, start)?.pop())
}

/// The first chunks that begin at these addresses, as many as the kernel gives at a time.
fn search(file: &File, from: u64, to: u64) -> io::Result<Vec<Chunk>> {
    let mut arguments = vec![0_u8; ARGUMENTS];
    // tree, objectid from and to, offset from and to, transid from and to
    let key = [
        CHUNK_TREE,
        FIRST_CHUNK_TREE,
        FIRST_CHUNK_TREE,
        from,
        to,
        0,
        u64::MAX,
    ];
    for (place, word) in arguments.chunks_exact_mut(8).zip(key) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    // type from and to, number of items
    let key = [CHUNK_ITEM, CHUNK_ITEM, u32::MAX];
    for (place, word) in arguments[56..].chunks_exact_mut(4).zip(key) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    // SAFETY: 4096 bytes, as the size in the request says.
    let result = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            BTRFS_IOC_TREE_SEARCH,
            arguments.as_mut_ptr(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let count = u32_at(&arguments, 64).unwrap_or(0);
    Ok(items(&arguments[KEY..], count))
}

/// The chunks among what the kernel answered. What is cut off is left out.
fn items(mut answer: &[u8], count: u32) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for _ in 0..count {
        let (Some(start), Some(kind), Some(len)) =
            (u64_at(answer, 16), u32_at(answer, 24), u32_at(answer, 28))
        else {
            break;
        };
        let Some(item) = answer.get(HEADER..HEADER + len as usize) else {
            break;
        };
        // The key is one number to the kernel: what lies between is not of this kind only.
        if kind == CHUNK_ITEM {
            chunks.extend(chunk(start, item));
        }
        answer = &answer[HEADER + len as usize..];
    }
    chunks
}

/// `struct btrfs_chunk`, which is little endian.
fn chunk(start: u64, item: &[u8]) -> Option<Chunk> {
    let short = |at: usize| Some(u16::from_le_bytes(item.get(at..at + 2)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_le_bytes(item.get(at..at + 8)?.try_into().ok()?));
    let stripe = |index: usize| {
        let at = CHUNK + index * STRIPE;
        Some((long(at)?, long(at + 8)?))
    };
    Some(Chunk {
        start,
        length: long(0)?,
        stripe_len: long(16)?,
        kind: long(24)?,
        sub_stripes: usize::from(short(46)?),
        stripes: (0..usize::from(short(44)?))
            .map(stripe)
            .collect::<Option<_>>()?,
    })
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// `_IOWR(0x94, 30, struct btrfs_ioctl_dev_info_args)`
const BTRFS_IOC_DEV_INFO: libc::c_ulong = 0xd000_941e;
/// Where the path is in it.
const PATH: usize = 3072;
/// Of the first superblock, and in it: features that must be known, and the UUID of the device.
const SUPERBLOCK: u64 = 65536;
const INCOMPATIBLE: u64 = 0xbc;
const DEVICE_UUID: u64 = 0x10b;
/// Where bytes lie is in a tree of its own (6.7).
const RAID_STRIPE_TREE: u64 = 1 << 14;

fn device(file: &File, number: u64) -> Result<Device, String> {
    let mut info = vec![0_u8; 4096];
    info[..8].copy_from_slice(&number.to_ne_bytes());
    // SAFETY: 4096 bytes, as the size in the request says.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), BTRFS_IOC_DEV_INFO, info.as_mut_ptr()) };
    if result != 0 {
        let error = io::Error::last_os_error();
        return Err(format!(
            "btrfs does not say which disk number {number} is: {error}"
        ));
    }
    let path = CStr::from_bytes_until_nul(&info[PATH..]).unwrap_or_default();
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    let cannot = |error: io::Error| format!("cannot read {}: {error}", path.display());
    let node = fs::metadata(path).map_err(cannot)?;
    let device = Device::open(kernel_dev(node.rdev()))?;
    let (mut uuid, mut features) = ([0; 16], [0; 8]);
    let place = |at| SUPERBLOCK + at;
    device
        .superblock(place(DEVICE_UUID), &mut uuid)
        .map_err(cannot)?;
    device
        .superblock(place(INCOMPATIBLE), &mut features)
        .map_err(cannot)?;
    if uuid != info[8..24] {
        return Err(format!("{} is another disk now", path.display()));
    }
    if u64::from_le_bytes(features) & RAID_STRIPE_TREE != 0 {
        return Err("btrfs keeps places in a tree of its own (raid-stripe-tree)".to_owned());
    }
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn chunk_of(kind: u64, sub_stripes: usize, devices: u64) -> Chunk {
        Chunk {
            start: 100 * MIB,
            length: 64 * MIB,
            stripe_len: 65536,
            kind: kind | 1,
            sub_stripes,
            stripes: (1..=devices).map(|device| (device, device * MIB)).collect(),
        }
    }

    #[test]
    fn a_single_copy_lies_in_one_piece() {
        let piece = chunk_of(0, 0, 1).piece(103 * MIB).unwrap();
        assert_eq!(piece.copies, [(1, 4 * MIB)]);
        assert_eq!(piece.length, 61 * MIB);
    }

    #[test]
    fn all_copies_are_known() {
        let piece = chunk_of(RAID1, 1, 2).piece(100 * MIB + 5).unwrap();
        assert_eq!(piece.copies, [(1, MIB + 5), (2, 2 * MIB + 5)]);
    }

    #[test]
    fn stripes_go_round() {
        let piece = chunk_of(RAID0, 1, 3)
            .piece(100 * MIB + 4 * 65536 + 7)
            .unwrap();
        assert_eq!(piece.copies, [(2, 2 * MIB + 65536 + 7)]);
        assert_eq!(piece.length, 65536 - 7);
        let piece = chunk_of(RAID10, 2, 4).piece(100 * MIB + 3 * 65536).unwrap();
        assert_eq!(piece.copies, [(3, 3 * MIB + 65536), (4, 4 * MIB + 65536)]);
    }

    #[test]
    fn parity_and_what_comes_after_it_are_not_guessed() {
        assert!(chunk_of(1 << 7, 1, 3).piece(100 * MIB).is_err());
        assert!(chunk_of(1 << 40, 1, 3).piece(100 * MIB).is_err());
        assert!(chunk_of(RAID10, 0, 4).piece(100 * MIB).is_err());
    }

    #[test]
    fn an_answer_that_is_cut_off_gives_what_is_whole() {
        let mut answer = vec![0; HEADER + CHUNK + STRIPE];
        answer[16..24].copy_from_slice(&MIB.to_ne_bytes());
        answer[24..28].copy_from_slice(&CHUNK_ITEM.to_ne_bytes());
        let len = (CHUNK + STRIPE) as u32;
        answer[28..32].copy_from_slice(&len.to_ne_bytes());
        answer[HEADER + 44] = 1;
        assert_eq!(items(&answer, 1).len(), 1);
        assert_eq!(items(&answer, 5).len(), 1);
        for cut in 0..answer.len() {
            assert!(items(&answer[..cut], 1).is_empty(), "{cut}");
        }
        answer[HEADER + 44] = 2;
        assert!(items(&answer, 1).is_empty(), "more stripes than it has");
    }
}
