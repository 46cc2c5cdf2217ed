//! Which file: identity that survives unmounting, number reuse and btrfs subvolumes.

use std::fmt;

/// The filesystem of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileSystemId {
    /// The filesystem's own UUID (`super_block.s_uuid`): unmounting and mounting again keeps it.
    Uuid([u8; 16]),
    /// The kernel's device number (`super_block.s_dev`) where the filesystem has no UUID:
    /// major << 20 | minor.
    Device(u32),
    /// FreeBSD's `f_fsid`, both halves.
    Fsid(u64),
}

impl fmt::Display for FileSystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(bytes) => {
                for (i, byte) in bytes.iter().enumerate() {
                    if matches!(i, 4 | 6 | 8 | 10) {
                        f.write_str("-")?;
                    }
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
            Self::Device(dev) => write!(f, "{}:{}", dev >> 20, dev & 0xf_ffff),
            Self::Fsid(fsid) => write!(f, "{fsid:016x}"),
        }
    }
}

/// The identity of an inode.
///
/// Device and inode number alone are none: numbers are reused, two btrfs subvolumes have the same
/// numbers under one device, and a device number can get another filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeKey {
    /// The filesystem.
    pub fs: FileSystemId,
    /// Inode number (`inode.i_ino`).
    pub ino: u64,
    /// `inode.i_generation`: another value means another file under the same number.
    pub generation: u32,
    /// btrfs: object id of the subvolume's root. 0 elsewhere, or where it cannot be read.
    pub subvolume: u64,
}

impl fmt::Display for InodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}.{}", self.fs, self.ino, self.generation)?;
        if self.subvolume != 0 {
            write!(f, "@{}", self.subvolume)?;
        }
        Ok(())
    }
}

/// What the kernel calls the file at the time of a fact. Names are bytes, as the kernel has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileView {
    /// Path as the kernel's dentries spell it: absolute in the mount namespace of the caller
    /// (`from_root` true), or below the filesystem's own root. From DTrace also as the program
    /// wrote it when it opened the file (`from_root` true): then it can be relative.
    pub path: Option<Vec<u8>>,
    /// Whether `path` begins at the root of a mount namespace rather than of the filesystem.
    pub from_root: bool,
    /// Where the filesystem is mounted, where the source says it.
    pub mount: Option<Vec<u8>>,
    /// Filesystem type (`file_system_type.name`): `ext4`, `xfs`, `btrfs` ...
    pub fs_type: Option<String>,
    /// Kernel device number of the superblock: major << 20 | minor.
    pub dev: Option<u32>,
    /// Name of the superblock's device (`super_block.s_id`): `sda1`, `dm-0`, `loop3` ...
    pub dev_name: Option<String>,
    /// Whether no name is left (`i_nlink` was 0).
    pub deleted: bool,
}

/// An error number of the kernel, 1 to 4095; never 0 and never negative. It knows which system
/// counts so: 70 is ESTALE on FreeBSD and ECOMM on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno {
    number: u16,
    numbers: ErrnoNumbers,
}

/// Whose error numbers they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrnoNumbers {
    /// Linux on x86 and ARM (`asm-generic/errno.h`).
    Linux,
    /// FreeBSD (`sys/errno.h`).
    FreeBsd,
}

impl Errno {
    /// EIO: what the kernel says when it knows no better.
    pub const EIO: Self = Self::linux(5);
    /// ENOSPC.
    pub const ENOSPC: Self = Self::linux(28);

    const fn linux(number: u16) -> Self {
        Self {
            number,
            numbers: ErrnoNumbers::Linux,
        }
    }

    /// Linux's, from a positive number, or `None` outside 1..=4095 (the kernel's `MAX_ERRNO`).
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        Self::of(ErrnoNumbers::Linux, number)
    }

    /// That system's, from a positive number, or `None` outside 1..=4095.
    #[must_use]
    pub fn of(numbers: ErrnoNumbers, number: u32) -> Option<Self> {
        let number = u16::try_from(number).ok();
        number
            .filter(|n| (1..=4095).contains(n))
            .map(|number| Self { number, numbers })
    }

    /// From a return value of Linux: `-EIO` gives `EIO`, 0 and success give `None`.
    #[must_use]
    pub fn from_return(ret: i64) -> Option<Self> {
        if ret >= 0 {
            return None;
        }
        u32::try_from(ret.unsigned_abs()).ok().and_then(Self::new)
    }

    /// The number, 1 to 4095.
    #[must_use]
    pub fn number(self) -> u16 {
        self.number
    }

    /// Whose number it is.
    #[must_use]
    pub fn numbers(self) -> ErrnoNumbers {
        self.numbers
    }

    /// Its symbol, for the errors that writing to a file can end in.
    #[must_use]
    pub fn symbol(self) -> Option<&'static str> {
        match (self.number, self.numbers) {
            // The first 34 are those of the first Unix; 11 is the one in which both differ.
            (number @ (1..=10 | 12..=34), _) => shared_symbol(number),
            (number, ErrnoNumbers::Linux) => linux_symbol(number),
            (number, ErrnoNumbers::FreeBsd) => freebsd_symbol(number),
        }
    }
}

fn shared_symbol(number: u16) -> Option<&'static str> {
    Some(match number {
        1 => "EPERM",
        2 => "ENOENT",
        4 => "EINTR",
        5 => "EIO",
        6 => "ENXIO",
        9 => "EBADF",
        12 => "ENOMEM",
        13 => "EACCES",
        14 => "EFAULT",
        16 => "EBUSY",
        19 => "ENODEV",
        22 => "EINVAL",
        27 => "EFBIG",
        28 => "ENOSPC",
        30 => "EROFS",
        _ => return None,
    })
}

fn linux_symbol(number: u16) -> Option<&'static str> {
    Some(match number {
        11 => "EAGAIN",
        61 => "ENODATA",
        62 => "ETIME",
        67 => "ENOLINK",
        74 => "EBADMSG",
        52 => "EBADE",
        84 => "EILSEQ",
        95 => "EOPNOTSUPP",
        103 => "ECONNABORTED",
        107 => "ENOTCONN",
        110 => "ETIMEDOUT",
        112 => "EHOSTDOWN",
        116 => "ESTALE",
        117 => "EUCLEAN",
        121 => "EREMOTEIO",
        122 => "EDQUOT",
        133 => "EHWPOISON",
        _ => return None,
    })
}

fn freebsd_symbol(number: u16) -> Option<&'static str> {
    Some(match number {
        11 => "EDEADLK",
        35 => "EAGAIN",
        45 => "EOPNOTSUPP",
        50 => "ENETDOWN",
        51 => "ENETUNREACH",
        53 => "ECONNABORTED",
        54 => "ECONNRESET",
        55 => "ENOBUFS",
        57 => "ENOTCONN",
        58 => "ESHUTDOWN",
        60 => "ETIMEDOUT",
        61 => "ECONNREFUSED",
        64 => "EHOSTDOWN",
        65 => "EHOSTUNREACH",
        69 => "EDQUOT",
        70 => "ESTALE",
        72 => "EBADRPC",
        73 => "ERPCMISMATCH",
        74 => "EPROGUNAVAIL",
        75 => "EPROGMISMATCH",
        76 => "EPROCUNAVAIL",
        77 => "ENOLCK",
        78 => "ENOSYS",
        79 => "EFTYPE",
        80 => "EAUTH",
        81 => "ENEEDAUTH",
        84 => "EOVERFLOW",
        85 => "ECANCELED",
        86 => "EILSEQ",
        89 => "EBADMSG",
        91 => "ENOLINK",
        92 => "EPROTO",
        93 => "ENOTCAPABLE",
        94 => "ECAPMODE",
        97 => "EINTEGRITY",
        _ => return None,
    })
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.symbol() {
            Some(symbol) => f.write_str(symbol),
            None => write!(f, "errno {}", self.number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_device_number_is_20_bits_of_minor() {
        assert_eq!(FileSystemId::Device((8 << 20) | 1).to_string(), "8:1");
        assert_eq!(
            FileSystemId::Device((259 << 20) | 70_000).to_string(),
            "259:70000"
        );
    }

    #[test]
    fn a_uuid_is_written_the_way_blkid_writes_it() {
        let bytes = [
            0x3e, 0x6b, 0x1a, 0x00, 0xaa, 0xbb, 0xcc, 0xdd, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06,
            0x07, 0x08,
        ];
        assert_eq!(
            FileSystemId::Uuid(bytes).to_string(),
            "3e6b1a00-aabb-ccdd-0102-030405060708"
        );
    }

    #[test]
    fn an_error_is_named_by_the_system_that_counts_so() {
        let freebsd = |number| Errno::of(ErrnoNumbers::FreeBsd, number).unwrap();
        for (number, symbol) in [
            (5, "EIO"),
            (60, "ETIMEDOUT"),
            (69, "EDQUOT"),
            (70, "ESTALE"),
            (93, "ENOTCAPABLE"),
            (97, "EINTEGRITY"),
            (200, "errno 200"),
        ] {
            assert_eq!(freebsd(number).to_string(), symbol);
        }
        assert_eq!(Errno::new(116).unwrap().to_string(), "ESTALE");
        assert_eq!(Errno::new(70).unwrap().to_string(), "errno 70");
        assert_eq!(freebsd(11).to_string(), "EDEADLK");
    }

    #[test]
    fn success_is_no_errno() {
        assert_eq!(Errno::from_return(0), None);
        assert_eq!(Errno::from_return(-5), Some(Errno::EIO));
        assert_eq!(Errno::new(0), None);
        assert_eq!(Errno::new(4096), None);
        assert_eq!(Errno::from_return(i64::MIN), None);
    }
}
