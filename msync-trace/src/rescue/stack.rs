//! What an open file lies on.

use std::{fs::File, io, os::unix::fs::MetadataExt};

use super::{device::kernel_dev, target::mount_of};

/// The device number of the filesystem of an open file. (stat(2) names a number of its own for each
/// subvolume of btrfs.)
pub(super) fn dev_of(file: &File) -> io::Result<u32> {
    match mount_of(file) {
        Some(mount) => Ok(mount.dev),
        None => Ok(kernel_dev(file.metadata()?.dev())),
    }
}

/// Whether its filesystem is gone after a power cut.
pub(super) fn is_in_memory(file: &File) -> bool {
    // linux/magic.h: tmpfs, ramfs
    rustix::fs::fstatfs(file).is_ok_and(|found| {
        [0x0102_1994, 0x8584_58f6].contains(&(found.f_type as u64 & 0xffff_ffff))
    })
}
