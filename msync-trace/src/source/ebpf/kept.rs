//! What user space knows, in an eBPF array that is pinned beside the others: it lives as long as
//! they do, through SIGKILL too, and not past a boot.
//!
//! Two places take turns. The word that says which one counts is changed last, so that a process that
//! is killed while it writes leaves the state before.

use std::{
    io,
    path::Path,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::{Array, MapData};
use msync_trace_ebpf as abi;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// First word.
const MAGIC: u64 = u64::from_le_bytes(*b"msynckpt");

/// Version of what is kept, together with the ABI: another one is not read.
pub const VERSION: u64 = (abi::ABI_VERSION as u64) << 32 | 1;

/// Bytes before the two places.
const HEAD: usize = 4096;

/// Room of each place at first, bytes.
const ROOM: usize = 64 << 10;

/// Most room of each place, bytes. More than that is not kept.
const MOST: usize = 8 << 20;

/// `BPF_F_MMAPABLE`.
const MMAPABLE: u32 = 1 << 10;

/// Name of the pin.
const PIN: &str = "STATE";

/// Words of the head.
const AT_MAGIC: usize = 0;
const AT_VERSION: usize = 1;
/// 0: nothing was kept yet; the place that counts, from 1 on; or [`TOO_LARGE`].
const AT_PLACE: usize = 2;
const TOO_LARGE: u64 = 3;
/// Bytes in the first place; those in the second follow.
const AT_LEN: usize = 3;

/// The array, mapped.
pub struct Kept {
    at: NonNull<u8>,
    /// Bytes of the mapping.
    len: usize,
}

// SAFETY: the mapping is reached through this value only, and by atomics where others may look.
unsafe impl Send for Kept {}

impl Kept {
    /// A new one, pinned in a folder.
    pub fn create(folder: &Path) -> io::Result<Self> {
        Self::with_room(ROOM, &folder.join(PIN))
    }

    fn with_room(room: usize, pin: &Path) -> io::Result<Self> {
        let words = u32::try_from((HEAD + 2 * room) / 8).map_err(io::Error::other)?;
        let map = Array::<_, u64>::create(words, MMAPABLE).map_err(io::Error::other)?;
        map.pin(pin).map_err(io::Error::other)?;
        let one = Self::at(pin)?;
        one.word(AT_VERSION).store(VERSION, Ordering::Relaxed);
        one.word(AT_MAGIC).store(MAGIC, Ordering::Relaxed);
        Ok(one)
    }

    /// What an earlier process pinned there.
    pub fn open(folder: &Path) -> io::Result<Self> {
        Self::at(&folder.join(PIN))
    }

    fn at(pin: &Path) -> io::Result<Self> {
        let map = MapData::from_pin(pin).map_err(io::Error::other)?;
        let info = map.info().map_err(io::Error::other)?;
        let len = info.max_entries() as usize * 8;
        if info.value_size() != 8 || len < HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping where the kernel likes; nothing else lies there.
        let at = unsafe { mmap(ptr::null_mut(), len, protection, flags, map.fd(), 0) }?;
        Ok(Self {
            at: NonNull::new(at.cast()).ok_or(io::ErrorKind::OutOfMemory)?,
            len,
        })
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        debug_assert!(index < HEAD / 8);
        // SAFETY: within the head of the mapping, aligned, and lives as long as it.
        unsafe { AtomicU64::from_ptr(self.at.as_ptr().add(index * 8).cast()) }
    }

    fn room(&self) -> usize {
        (self.len - HEAD) / 2
    }

    /// Whether it was kept by a process that kept the same things in the same form.
    pub fn is_readable(&self) -> bool {
        self.word(AT_MAGIC).load(Ordering::Relaxed) == MAGIC
            && self.word(AT_VERSION).load(Ordering::Relaxed) == VERSION
    }

    /// Whether nothing was kept yet.
    pub fn is_empty(&self) -> bool {
        self.word(AT_PLACE).load(Ordering::Acquire) == 0
    }

    /// What was kept last; `None` if nothing was.
    pub fn read(&self) -> Option<Vec<u8>> {
        let place = match self.word(AT_PLACE).load(Ordering::Acquire) {
            1 => 0,
            2 => 1,
            _ => return None,
        };
        let len = self.word(AT_LEN + place).load(Ordering::Relaxed);
        let len = usize::try_from(len)
            .ok()
            .filter(|len| *len <= self.room())?;
        let mut bytes = vec![0; len];
        // SAFETY: `len` bytes of a place, which lies within the mapping; nobody else writes to it:
        // there is one process at a time (see `pins`).
        unsafe {
            let from = self.at.as_ptr().add(HEAD + place * self.room());
            ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), len);
        }
        Some(bytes)
    }

    /// Keeps these bytes in the place of those before. Makes more room if it takes that; beyond
    /// [`MOST`] nothing is kept any more, which is what `false` says.
    pub fn write(&mut self, bytes: &[u8], folder: &Path) -> io::Result<bool> {
        if bytes.len() > MOST {
            self.word(AT_PLACE).store(TOO_LARGE, Ordering::Release);
            return Ok(false);
        }
        if bytes.len() > self.room() {
            let (new, pin) = (folder.join("STATE_new"), folder.join(PIN));
            let room = bytes.len().next_power_of_two().min(MOST);
            let mut larger = Self::with_room(room, &new)?;
            larger.put(bytes);
            std::fs::rename(&new, &pin)?;
            *self = larger;
            return Ok(true);
        }
        self.put(bytes);
        Ok(true)
    }

    fn put(&mut self, bytes: &[u8]) {
        let place = usize::from(self.word(AT_PLACE).load(Ordering::Relaxed) == 1);
        // SAFETY: the place that does not count has at least so much room; see `read`.
        unsafe {
            let to = self.at.as_ptr().add(HEAD + place * self.room());
            ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        self.word(AT_LEN + place)
            .store(bytes.len() as u64, Ordering::Relaxed);
        self.word(AT_PLACE)
            .store(place as u64 + 1, Ordering::Release);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // SAFETY: our mapping, of that length; nobody holds a reference any more.
        let _ = unsafe { munmap(self.at.as_ptr().cast(), self.len) };
    }
}
