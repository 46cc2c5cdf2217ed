//! A loop device over an open file. It detaches itself when nobody has it open any more.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

// linux/loop.h and linux/fs.h
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;
const BLKFLSBUF: libc::c_ulong = 0x1261;
/// Another program can take the free device first.
const ATTEMPTS: u32 = 20;
/// One request of the device must stay one FUSE write, on every kernel.
const MAX_SECTORS_KB: &str = "512";

/// `struct loop_info64`
#[repr(C)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

/// Detaches when dropped and unmounted, also when the process is killed.
pub struct LoopDevice {
    device: File,
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches a free loop device to `backing`.
    pub fn attach(backing: &File) -> io::Result<LoopDevice> {
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control")?;
        let mut last = io::Error::from_raw_os_error(libc::EBUSY);
        for _ in 0..ATTEMPTS {
            // SAFETY: LOOP_CTL_GET_FREE takes no argument.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            if number < 0 {
                return Err(io::Error::last_os_error());
            }
            match Self::configure(number, backing) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => last = error,
                result => return result,
            }
        }
        Err(last)
    }

    fn configure(number: i32, backing: &File) -> io::Result<LoopDevice> {
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = OpenOptions::new().read(true).write(true).open(&path)?;
        // SAFETY: every field is an integer or an array of integers, for which zero is valid.
        let mut config: LoopConfig = unsafe { std::mem::zeroed() };
        config.fd = backing.as_raw_fd() as u32;
        // Direct I/O makes one write of a request on every kernel; buffered, those before 6.16
        // make one of every page.
        config.info.flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO;
        // SAFETY: the argument is a loop_config as LOOP_CONFIGURE (Linux 5.8) wants it.
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let queue = format!("/sys/block/loop{number}/queue/max_sectors_kb");
        std::fs::write(queue, MAX_SECTORS_KB)?;
        Ok(LoopDevice { device, path })
    }

    /// `/dev/loopN`
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Forgets what the kernel has cached of the device itself.
    pub fn drop_cache(&self) -> io::Result<()> {
        drop_cache(&self.device)
    }
}

/// Writes out and forgets what the kernel has cached of a block device.
pub fn drop_cache(device: &File) -> io::Result<()> {
    // SAFETY: BLKFLSBUF takes no argument.
    match unsafe { libc::ioctl(device.as_raw_fd(), BLKFLSBUF, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
