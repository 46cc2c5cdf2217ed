//! The bytes of a disk, held in memory. Knows nothing of file systems or faults.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Block in which images are copied and compared; also the page size of the machines we test on.
pub const BLOCK: usize = 4096;

static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// A sparse, anonymous file in memory: it goes away with the last process that has it open.
pub struct Image {
    file: File,
    size: u64,
}

impl Image {
    /// An image of `size` zero bytes.
    pub fn new(size: u64) -> io::Result<Image> {
        // SAFETY: the name is a valid C string and the result is checked.
        let fd = unsafe { libc::memfd_create(c"disk".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else owns it.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(size)?;
        Ok(Image { file, size })
    }

    /// The file in memory.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// How many bytes the disk has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A path that other programs (mkfs) can open while this process lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.file.as_raw_fd()
        ))
    }

    /// Reads; bytes never written are zero.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// Writes.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Becomes equal to `other`, with a hole for every block of zeros.
    pub fn copy_from(&self, other: &Image) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.set_len(self.size)?;
        let mut buffer = vec![0; 64 * BLOCK];
        let mut position = 0;
        while let Some((start, end)) = other.next_data(position)? {
            let mut at = start;
            while at < end {
                let len = buffer.len().min((end - at) as usize);
                other.read_at(&mut buffer[..len], at)?;
                for (index, block) in buffer[..len].chunks(BLOCK).enumerate() {
                    if block != &ZEROS[..block.len()] {
                        self.write_at(block, at + (index * BLOCK) as u64)?;
                    }
                }
                at += len as u64;
            }
            position = end;
        }
        Ok(())
    }

    /// The next run of bytes at or after `from` that was ever written.
    pub fn next_data(&self, from: u64) -> io::Result<Option<(u64, u64)>> {
        let Some(start) = self.seek(from, libc::SEEK_DATA)? else {
            return Ok(None);
        };
        let end = self.seek(start, libc::SEEK_HOLE)?.unwrap_or(self.size);
        Ok(Some((start, end)))
    }

    fn seek(&self, from: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
        // SAFETY: lseek touches no memory of ours; nobody relies on the file position.
        let found = unsafe { libc::lseek(self.file.as_raw_fd(), from as libc::off_t, whence) };
        match found {
            -1 => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
                error => Err(error),
            },
            position => Ok(Some(position as u64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_same_bytes_and_forgets_its_own() {
        let (source, copy) = (Image::new(1 << 20).unwrap(), Image::new(1 << 20).unwrap());
        source.write_at(b"kept", 700_000).unwrap();
        copy.write_at(b"old", 10).unwrap();
        copy.copy_from(&source).unwrap();
        let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        source.read_at(&mut a, 0).unwrap();
        copy.read_at(&mut b, 0).unwrap();
        assert!(a == b);
    }
}
