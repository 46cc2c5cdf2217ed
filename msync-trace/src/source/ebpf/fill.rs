//! How far a BPF ring buffer is filled and read.
//!
//! A program takes a place in the ring and fills it afterwards; a reader stops at a place that is
//! not filled yet, and cannot tell that from the end. The ring's two positions can
//! (`bpf_ringbuf_map_mmap` in kernel/bpf/ringbuf.c, 5.8 and later: the reader's position is on the
//! first page, the writers' on the second).

use std::{
    io,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering},
};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Both positions, mapped read-only. Counted in bytes since the ring was made.
pub struct Fill {
    at: NonNull<u8>,
    page: usize,
}

// SAFETY: the memory is reached through atomics only.
unsafe impl Send for Fill {}

impl Fill {
    /// Of the ring behind a descriptor.
    pub fn of(ring: impl AsFd) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let (protection, flags) = (ProtFlags::READ, MapFlags::SHARED);
        // SAFETY: a new mapping where the kernel likes; nothing else lies there.
        let at = unsafe { mmap(std::ptr::null_mut(), 2 * page, protection, flags, ring, 0) }?;
        let at = NonNull::new(at.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { at, page })
    }

    /// Up to where places were taken.
    pub fn taken(&self) -> usize {
        self.position(self.page)
    }

    /// Up to where the ring was read.
    pub fn read(&self) -> usize {
        self.position(0)
    }

    fn position(&self, offset: usize) -> usize {
        // SAFETY: the first word of a page of the mapping, which lives as long as this.
        unsafe { AtomicUsize::from_ptr(self.at.as_ptr().add(offset).cast()) }
            .load(Ordering::Acquire)
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        // SAFETY: our mapping, of that length; nobody holds a reference any more.
        let _ = unsafe { munmap(self.at.as_ptr().cast(), 2 * self.page) };
    }
}
