//! What of a file is in the page cache, without ever bringing anything into it: residency,
//! dirtiness and the bytes themselves. Knows files by their descriptors, and no disks.
//!
//! A plain read, also one with RWF_NOWAIT, starts read-ahead where a page is missing
//! (`generic_file_buffered_read` of 5.10, `filemap_get_pages` since), and would show bytes of the
//! disk as rescued ones. So a window of the file is mapped, mincore says which pages are there, and
//! only these are read, through `process_vm_readv`, which gives EFAULT where a program would get
//! SIGBUS. With MADV_RANDOM a fault reads nothing ahead (`do_sync_mmap_readahead`,
//! `do_async_mmap_readahead`), and a page that went away between mincore and the read costs a major
//! fault, which the kernel counts for each thread also here (`mm_account_fault`, 5.9).

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::FileExt,
    },
};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

/// A page of memory, as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cached {
    /// It was there, and its bytes were copied.
    Here,
    /// A program has it mapped, and its bytes were copied from there.
    Theirs,
    /// It was not there.
    Absent,
    /// No program has it in its page table. It may be in the page cache all the same, which cannot
    /// be looked at.
    Unseen,
    /// It was there, but its bytes could not be had: it left in this moment, or cannot be read.
    Slipped,
}

/// Whether the kernel is still going to write a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dirtiness {
    /// Nothing is to be written.
    Clean,
    /// Dirty, or being written at this moment.
    Dirty,
    /// This kernel does not say it.
    Unknown,
}

impl Dirtiness {
    /// What is to be assumed of a page of which both were seen.
    pub(super) fn worse(self, other: Self) -> Self {
        match (self, other) {
            (Self::Dirty, _) | (_, Self::Dirty) => Self::Dirty,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Clean, Self::Clean) => Self::Clean,
        }
    }
}

/// Some pages of a file (or block device), mapped to be looked at.
pub(super) struct Window<'a> {
    file: &'a File,
    base: *mut u8,
    offset: u64,
    pages: usize,
}

impl<'a> Window<'a> {
    /// `offset` is a multiple of the page size.
    ///
    /// # Errors
    /// If it cannot be mapped.
    pub(super) fn new(file: &'a File, offset: u64, pages: usize) -> io::Result<Self> {
        let len = pages * page_size();
        // SAFETY: a new mapping at a place of the kernel's choice, never turned into a reference.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ,
                MapFlags::SHARED,
                file.as_fd(),
                offset,
            )
        }?;
        let window = Self {
            file,
            base: base.cast(),
            offset,
            pages,
        };
        // SAFETY: our own mapping; this advice does not touch its contents.
        unsafe { madvise(base, len, Advice::Random) }?;
        Ok(window)
    }

    /// Which pages are in the page cache, and up to date.
    ///
    /// The kernel says so of all pages to who neither owns the file nor may write it
    /// (`can_do_mincore`). Such a caller cannot open with O_NOATIME either, so is not here.
    pub(super) fn resident(&self) -> io::Result<Vec<bool>> {
        let mut pages = vec![0_u8; self.pages];
        // SAFETY: our own mapping, and one byte for each of its pages.
        let result = unsafe {
            libc::mincore(
                self.base.cast(),
                self.pages * page_size(),
                pages.as_mut_ptr(),
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(pages.iter().map(|page| page & 1 != 0).collect())
    }

    /// Copies the pages that are there to the same places of `into`.
    ///
    /// # Errors
    /// If residency cannot be asked.
    pub(super) fn read(&self, into: &mut [u8]) -> io::Result<Vec<Cached>> {
        let resident = self.resident()?;
        let copy = |(index, is_there): (usize, bool)| match is_there {
            false => Cached::Absent,
            true => self.read_page(index, into),
        };
        Ok(resident.into_iter().enumerate().map(copy).collect())
    }

    fn read_page(&self, index: usize, into: &mut [u8]) -> Cached {
        let size = page_size();
        let into = &mut into[index * size..(index + 1) * size];
        let before = major_faults();
        let address = self.base.wrapping_add(index * size) as u64;
        if copy_from(std::process::id(), address, into) && major_faults() == before {
            Cached::Here
        } else {
            into.fill(0);
            Cached::Slipped
        }
    }

    /// Whether pages are dirty or under write-back; of a page that is not there, `Clean`.
    pub(super) fn dirtiness(&self) -> Vec<Dirtiness> {
        let bytes = |pages: usize| (pages * page_size()) as u64;
        match cachestat(self.file, self.offset, bytes(self.pages)) {
            Ok(true) => vec![Dirtiness::Clean; self.pages],
            Ok(false) => (0..self.pages)
                .map(
                    |index| match cachestat(self.file, self.offset + bytes(index), bytes(1)) {
                        Ok(true) => Dirtiness::Clean,
                        Ok(false) => Dirtiness::Dirty,
                        Err(_) => Dirtiness::Unknown,
                    },
                )
                .collect(),
            Err(_) => self.page_flags(),
        }
    }

    /// Before 6.5: by the flags of the page frames. Only of pages that were read through this
    /// window, so that they are in our page table; others are `Unknown` if they are there.
    fn page_flags(&self) -> Vec<Dirtiness> {
        let unknown = || vec![Dirtiness::Unknown; self.pages];
        let (Ok(resident), Ok(frames), Ok(flags)) = (
            self.resident(),
            File::open("/proc/self/pagemap"),
            File::open("/proc/kpageflags"),
        ) else {
            return unknown();
        };
        let first = self.base as usize / page_size();
        let of_page = |(index, is_there): (usize, bool)| match is_there {
            false => Dirtiness::Clean,
            true => entry(&frames, (first + index) as u64)
                .filter(|entry| entry & PAGEMAP_PRESENT != 0 && entry & PAGEMAP_FRAME != 0)
                .and_then(|entry| frame_is_dirty(&flags, entry & PAGEMAP_FRAME))
                .map_or(Dirtiness::Unknown, |is_dirty| match is_dirty {
                    true => Dirtiness::Dirty,
                    false => Dirtiness::Clean,
                }),
        };
        resident.into_iter().enumerate().map(of_page).collect()
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nobody refers to any more.
        let _ = unsafe { munmap(self.base.cast(), self.pages * page_size()) };
    }
}

/// Bytes of a page of this machine.
pub(super) fn page_size() -> usize {
    rustix::param::page_size()
}

/// Copies memory of a process, which may be our own; whether all of it.
pub(super) fn copy_from(pid: u32, address: u64, into: &mut [u8]) -> bool {
    let local = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    };
    let remote = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: into.len(),
    };
    // SAFETY: reads into a slice of the same length; the kernel checks both.
    let got =
        unsafe { libc::process_vm_readv(pid as i32, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(got).is_ok_and(|got| got == into.len())
}

/// Faults of this thread that had to wait for a disk.
pub(super) fn major_faults() -> libc::c_long {
    // SAFETY: all zeros is a valid rusage, and the kernel fills it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage.ru_majflt
    }
}

/// The number of cachestat(2), the same on all architectures (6.5).
const SYS_CACHESTAT: libc::c_long = 451;

/// `struct cachestat_range`
#[repr(C)]
struct CachestatRange {
    off: u64,
    len: u64,
}

/// `struct cachestat`
#[repr(C)]
#[derive(Default)]
struct Cachestat {
    nr_cache: u64,
    nr_dirty: u64,
    nr_writeback: u64,
    nr_evicted: u64,
    nr_recently_evicted: u64,
}

/// Whether no page of these bytes is dirty or under write-back.
fn cachestat(file: &File, off: u64, len: u64) -> io::Result<bool> {
    let range = CachestatRange { off, len };
    let mut found = Cachestat::default();
    // SAFETY: both structures are as the call wants them.
    let result = unsafe {
        libc::syscall(
            SYS_CACHESTAT,
            file.as_raw_fd(),
            &raw const range,
            &raw mut found,
            0_u32,
        )
    };
    match result {
        0 => Ok(found.nr_dirty == 0 && found.nr_writeback == 0),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Documentation/admin-guide/mm/pagemap.rst
pub(super) const PAGEMAP_PRESENT: u64 = 1 << 63;
/// Of a file, not a copy of the program's own.
pub(super) const PAGEMAP_FILE: u64 = 1 << 61;
pub(super) const PAGEMAP_FRAME: u64 = (1 << 55) - 1;
const KPF_DIRTY: u64 = 1 << 4;
const KPF_WRITEBACK: u64 = 1 << 8;
const KPF_COMPOUND_TAIL: u64 = 1 << 16;
/// Pages of the largest folio (a gigabyte of 4 KiB pages), so that a walk to its head ends.
const LARGEST_FOLIO: u64 = 1 << 18;

pub(super) fn entry(table: &File, index: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    table
        .read_exact_at(&mut bytes, index.checked_mul(8)?)
        .ok()?;
    Some(u64::from_ne_bytes(bytes))
}

/// The flags of a large folio are those of its first page.
pub(super) fn frame_is_dirty(flags: &File, frame: u64) -> Option<bool> {
    for head in (frame.saturating_sub(LARGEST_FOLIO)..=frame).rev() {
        let found = entry(flags, head)?;
        if found & KPF_COMPOUND_TAIL == 0 {
            return Some(found & (KPF_DIRTY | KPF_WRITEBACK) != 0);
        }
    }
    None
}
