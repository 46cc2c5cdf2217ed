//! An eBPF array as memory that the programs and this process share (`BPF_F_MMAPABLE`, 5.5 and
//! later).
//!
//! Not by the system call `bpf`: while that copies a value, the kernel runs no kprobe and no classic
//! tracepoint program on that processor (`bpf_disable_instrumentation`), and where it can be
//! preempted in the middle, programs are skipped for as long as that takes.

use std::{
    io,
    marker::PhantomData,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use msync_trace_ebpf::Wire;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The array, mapped; the map itself must outlive it, or the programs that use it be gone.
pub struct Shared<T> {
    at: NonNull<u8>,
    entries: usize,
    values: PhantomData<T>,
}

// SAFETY: the memory is reached through atomics only.
unsafe impl<T> Send for Shared<T> {}

impl<T: Wire> Shared<T> {
    /// The kernel keeps each value at a multiple of 8 bytes.
    const STRIDE: usize = size_of::<T>().next_multiple_of(8);

    /// Maps the array of `entries` values behind a descriptor.
    pub fn new(map: impl AsFd, entries: usize) -> io::Result<Self> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        let len = entries * Self::STRIDE;
        // SAFETY: a new mapping where the kernel likes; nothing else lies there.
        let at = unsafe { mmap(std::ptr::null_mut(), len, protection, flags, map, 0) }?;
        Ok(Self {
            at: NonNull::new(at.cast()).ok_or(io::ErrorKind::OutOfMemory)?,
            entries,
            values: PhantomData,
        })
    }

    /// The 32-bit word at an offset in the first value.
    pub fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= size_of::<T>());
        // SAFETY: within the mapping, aligned, and lives as long as it.
        unsafe { AtomicU32::from_ptr(self.at.as_ptr().add(offset).cast()) }
    }

    /// The 64-bit words of all values, value by value.
    pub fn words(&self) -> impl Iterator<Item = impl Iterator<Item = u64>> {
        (0..self.entries).map(move |entry| {
            (0..size_of::<T>() / 8).map(move |word| {
                // SAFETY: within the mapping, aligned, and lives as long as it.
                let word = unsafe {
                    let at = self.at.as_ptr().add(entry * Self::STRIDE + word * 8);
                    AtomicU64::from_ptr(at.cast())
                };
                word.load(Relaxed)
            })
        })
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let len = self.entries * size_of::<T>().next_multiple_of(8);
        // SAFETY: our mapping, of that length; nobody holds a reference any more.
        let _ = unsafe { munmap(self.at.as_ptr().cast(), len) };
    }
}
