//! A shared mapping of a whole file, with the one call this program is about.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// Bytes of a page of the scratch file: a block of its file system.
pub const PAGE: usize = 4096;

/// Unmapped when dropped.
pub struct Mapping {
    base: *mut u8,
    len: usize,
}

impl Mapping {
    /// Maps the first `pages` pages, writable and shared.
    pub fn of(file: &File, pages: u64) -> io::Result<Mapping> {
        let len = pages as usize * PAGE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping {
            base: base.cast(),
            len,
        })
    }

    /// Fills pages with their number behind `stamp`.
    pub fn store(&mut self, pages: Range<u64>, stamp: &[u8]) {
        for page in pages {
            let mut bytes = [0; PAGE];
            bytes[..stamp.len()].copy_from_slice(stamp);
            bytes[stamp.len()..stamp.len() + 8].copy_from_slice(&page.to_le_bytes());
            let offset = page as usize * PAGE;
            assert!(offset + PAGE <= self.len, "a page of this mapping");
            // SAFETY: inside the mapping, as just checked; the file has these pages.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(offset), PAGE) };
        }
    }

    /// msync(MS_SYNC) of all of it.
    pub fn msync(&self) -> io::Result<()> {
        // SAFETY: the mapping is ours and lives.
        match unsafe { libc::msync(self.base.cast(), self.len, libc::MS_SYNC) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody uses it any more.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}
