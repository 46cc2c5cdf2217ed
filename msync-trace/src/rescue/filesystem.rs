//! Which filesystems can be looked at, and what identifies one: its superblock's UUID.

use std::{
    fs::{self, File},
    os::fd::{AsFd, AsRawFd},
    path::Path,
};

use super::{device::Device, disk::Medium};
use crate::model::FileSystemId;

/// A filesystem, by what has to be known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileSystem {
    /// ext2, ext3, ext4.
    Ext,
    /// XFS.
    Xfs,
    /// F2FS.
    F2fs,
    /// btrfs.
    Btrfs,
    /// Opening a file empties its cache unless the server says otherwise (`fuse_open`).
    Fuse,
    /// Mapping or opening a file after a failed write empties its cache (`nfs_zap_mapping`).
    Nfs,
    /// Shows files of others.
    Overlay,
    /// Any other.
    Other,
}

impl FileSystem {
    /// The one that an open file (also with O_PATH) is on.
    pub(super) fn of(file: &impl AsFd) -> Self {
        // linux/magic.h
        match rustix::fs::fstatfs(file).map(|found| found.f_type as u64 & 0xffff_ffff) {
            Ok(0xef53) => Self::Ext,
            Ok(0x5846_5342) => Self::Xfs,
            Ok(0xf2f5_2010) => Self::F2fs,
            Ok(0x9123_683e) => Self::Btrfs,
            Ok(0x6573_5546) => Self::Fuse,
            Ok(0x6969) => Self::Nfs,
            Ok(0x794c_7630) => Self::Overlay,
            _ => Self::Other,
        }
    }

    /// Why opening a file there to look at its cache would destroy what is looked for.
    pub(super) fn cannot_be_opened(self) -> Option<&'static str> {
        match self {
            Self::Fuse => Some(
                "opening a file of a FUSE filesystem drops its page cache; only a program that \
                 still has it mapped can save it",
            ),
            Self::Nfs => Some(
                "opening a file of NFS after a failed write drops its page cache; only a program \
                 that still has it mapped can save it",
            ),
            _ => None,
        }
    }

    /// Where its UUID is on its device, in bytes.
    fn uuid_at(self) -> Option<u64> {
        match self {
            Self::Ext => Some(1024 + 0x68),
            Self::Xfs => Some(32),
            Self::F2fs => Some(1024 + 108),
            _ => None,
        }
    }

    /// What the kernel side calls this filesystem, on which this open file is.
    pub(super) fn id(self, file: &File, dev: u32, device: Option<&Device>) -> FileSystemId {
        let uuid = uuid_in_memory(file).or_else(|| match self {
            // It has a device number that is no device's.
            Self::Btrfs => btrfs_uuid(file),
            _ => self.uuid_at().zip(device).and_then(|(at, device)| {
                let mut uuid = [0; 16];
                device.superblock(at, &mut uuid).ok().map(|()| uuid)
            }),
        });
        match uuid {
            Some(uuid) if uuid != [0; 16] => FileSystemId::Uuid(uuid),
            _ => FileSystemId::Device(dev),
        }
    }

    /// Why what the filesystem says of the place of a file's bytes is not all that counts.
    pub(super) fn hides_places(self, file: &File, medium: &Medium) -> Option<&'static str> {
        let flags = inode_flags(file);
        if flags & FS_ENCRYPT_FL != 0 {
            return Some("the file is encrypted on the disk");
        }
        let device = match medium {
            Medium::Device(device) => device,
            // What it compresses is said of each extent.
            Medium::Btrfs(_) => return None,
        };
        match self {
            Self::Ext if flags & FS_JOURNAL_DATA_FL != 0 || journals_data(device.name()) => {
                Some("the filesystem writes file contents to its journal first (data=journal)")
            }
            Self::Ext => None,
            Self::Xfs if is_realtime(file) => Some("the file lies on the realtime device"),
            Self::Xfs => None,
            Self::F2fs if flags & FS_COMPR_FL != 0 => Some("the file is compressed on the disk"),
            Self::F2fs if has_second_device(device) => Some("the filesystem has several devices"),
            Self::F2fs => None,
            Self::Overlay => Some(
                "overlayfs shows a file of another filesystem: give its path there, below the \
                 upper directory",
            ),
            Self::Btrfs | Self::Fuse | Self::Nfs | Self::Other => {
                Some("where this filesystem keeps the bytes of a file is not known")
            }
        }
    }
}

/// `_IOR(0x15, 0, struct fsuuid2)`
const FS_IOC_GETFSUUID: libc::c_ulong = 0x8011_1500;

/// What the kernel has as `s_uuid` (6.9). It asks no disk, which may hang.
fn uuid_in_memory(file: &File) -> Option<[u8; 16]> {
    // A length, then the UUID.
    let mut answer = [0_u8; 17];
    // SAFETY: 17 bytes, as the size in the request says.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_GETFSUUID, answer.as_mut_ptr()) };
    let uuid = answer[1..].try_into().ok();
    uuid.filter(|_| result == 0 && answer[0] == 16)
}

/// `_IOR(0x94, 31, struct btrfs_ioctl_fs_info_args)`
const BTRFS_IOC_FS_INFO: libc::c_ulong = 0x8400_941f;

/// `max_id`, `num_devices`, then the UUID.
fn btrfs_uuid(file: &File) -> Option<[u8; 16]> {
    let mut info = [0_u8; 1024];
    // SAFETY: 1024 bytes, as the size in the request says.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), BTRFS_IOC_FS_INFO, info.as_mut_ptr()) };
    let uuid = info[16..32].try_into().ok();
    uuid.filter(|_| result == 0)
}

// linux/fs.h
const FS_COMPR_FL: u32 = 0x4;
const FS_ENCRYPT_FL: u32 = 0x800;
const FS_JOURNAL_DATA_FL: u32 = 0x4000;
const FS_XFLAG_REALTIME: u32 = 1;
/// `_IOR('X', 31, struct fsxattr)`
const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;

fn inode_flags(file: &File) -> u32 {
    rustix::fs::ioctl_getflags(file).map_or(0, |flags| flags.bits())
}

/// `struct fsxattr`: the first word are the flags.
fn is_realtime(file: &File) -> bool {
    let mut attributes = [0_u32; 7];
    // SAFETY: 28 bytes, as the size in the request says.
    let result =
        unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSGETXATTR, attributes.as_mut_ptr()) };
    result == 0 && attributes[0] & FS_XFLAG_REALTIME != 0
}

/// All options of ext4, also those that are its defaults.
fn journals_data(dev_name: &str) -> bool {
    let options = Path::new("/proc/fs/ext4").join(dev_name).join("options");
    let options = fs::read_to_string(options).unwrap_or_default();
    options.lines().any(|option| option == "data=journal")
}

/// The path of the second of the eight devices of a `struct f2fs_super_block`.
fn has_second_device(device: &Device) -> bool {
    let mut first = [0];
    device.superblock(1024 + 2201 + 68, &mut first).is_err() || first != [0]
}
