//! `/proc/PID/mountinfo`: which part of which filesystem is shown where. FreeBSD has no such file;
//! there the facts bring mount points along.

use std::{fs, path::Path};

use crate::schema::parse_dev;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its number in the kernel (`mnt_id` of `/proc/PID/fdinfo`).
    pub id: u64,
    /// The superblock's device number (`s_dev`; on btrfs an anonymous one, the same for all its
    /// subvolumes, unlike `st_dev`).
    pub dev: u32,
    /// The directory of the filesystem that is shown.
    pub root: Vec<u8>,
    /// Where.
    pub point: Vec<u8>,
    /// What it was mounted from: `/dev/sda1`, `server:/export`, or any name.
    pub source: Vec<u8>,
    /// Whether its filesystem can not be written: mounted so, or for an error since (ext4 from 6.15
    /// on has options of its own for that).
    pub read_only: bool,
}

impl Mount {
    /// Whether it shows this path of the filesystem.
    pub(super) fn shows(&self, path_in_fs: &[u8]) -> bool {
        below(&self.root, path_in_fs).is_some()
    }

    /// A path of the filesystem, as this mount shows it. The path must be below `root`.
    pub(super) fn spell(&self, path_in_fs: &[u8]) -> Vec<u8> {
        let below = below(&self.root, path_in_fs).unwrap_or(path_in_fs);
        let mut out = self.point.clone();
        if out.last() == Some(&b'/') {
            out.pop();
        }
        if !below.is_empty() && below[0] != b'/' {
            out.push(b'/');
        }
        out.extend_from_slice(below);
        out
    }
}

/// A mount table, in the order of mounting.
#[derive(Clone, Debug, Default)]
pub struct Mounts(Vec<Mount>);

impl Mounts {
    /// Empty if it cannot be read; a line that cannot be understood is left out.
    pub(super) fn read(mountinfo: &Path) -> Self {
        let text = fs::read(mountinfo).unwrap_or_default();
        Self(text.split(|b| *b == b'\n').filter_map(parse).collect())
    }

    /// A mount that shows this path of the filesystem: the one with the most of the filesystem,
    /// and the oldest of these.
    pub(super) fn showing(&self, dev: u32, path_in_fs: &[u8]) -> Option<&Mount> {
        self.0
            .iter()
            .filter(|mount| mount.dev == dev && mount.shows(path_in_fs))
            .min_by_key(|mount| mount.root.len())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.0.iter()
    }

    /// The mount that shows most of the filesystem, and the oldest of these.
    pub(super) fn largest(&self, dev: u32) -> Option<&Mount> {
        let mounts = self.0.iter().filter(|mount| mount.dev == dev);
        mounts.min_by_key(|mount| mount.root.len())
    }

    /// The mount that a path of this namespace lies on, if it is one of this device.
    pub(super) fn holding(&self, dev: u32, path: &[u8]) -> Option<&Mount> {
        self.of(path).filter(|mount| mount.dev == dev)
    }

    /// The mount that an absolute path without links lies on: the deepest, and the newest of
    /// these, which covers the others.
    #[must_use]
    pub fn of(&self, path: &[u8]) -> Option<&Mount> {
        self.0
            .iter()
            .filter(|mount| below(&mount.point, path).is_some())
            .max_by_key(|mount| mount.point.len())
    }
}

/// The rest of `path` below the directory, beginning with its slash (or empty for the directory
/// itself); `None` if it is not below.
fn below<'a>(directory: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    let directory = directory.strip_suffix(b"/").unwrap_or(directory);
    let rest = path.strip_prefix(directory)?;
    (rest.is_empty() || rest[0] == b'/').then_some(rest)
}

/// Options of a filesystem that cannot be written.
const READ_ONLY: [&[u8]; 3] = [b"ro", b"emergency_ro", b"shutdown"];

/// What the filesystem of a path is mounted from, as incidents name it (`da0p2`, `server:/export`).
/// On Linux its device number says that.
#[cfg(target_os = "freebsd")]
pub fn mounted_from(path: &Path) -> Option<String> {
    let filesystem = rustix::fs::statfs(path).ok()?;
    let from = filesystem.f_mntfromname.map(i8::cast_unsigned);
    let from = std::ffi::CStr::from_bytes_until_nul(&from)
        .ok()?
        .to_str()
        .ok()?;
    Some(from.strip_prefix("/dev/").unwrap_or(from).to_owned())
}

/// What the filesystem of a path is mounted from: told by its device number here.
#[cfg(not(target_os = "freebsd"))]
pub fn mounted_from(_path: &Path) -> Option<String> {
    None
}

/// `36 35 98:0 /root /point options ...` (proc_pid_mountinfo(5)).
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let dev = parse_dev(std::str::from_utf8(fields.nth(1)?).ok()?)?;
    let root = unescape(fields.next()?);
    let point = unescape(fields.next()?);
    // Options of the mount and optional fields, then a dash, type, source, and those of the
    // filesystem.
    let mut fields = fields.skip_while(|field| *field != b"-").skip(2);
    let source = unescape(fields.next().unwrap_or_default());
    let options = fields.next();
    let options = options.unwrap_or_default().split(|b| *b == b',');
    let read_only = options
        .into_iter()
        .any(|option| READ_ONLY.contains(&option));
    Some(Mount {
        id,
        dev,
        root,
        point,
        source,
        read_only,
    })
}

/// The kernel writes space, tab, newline and backslash as `\040` and so on (`mangle_path`).
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after
            .first_chunk::<3>()
            .filter(|digits| byte == b'\\' && digits.iter().all(|d| matches!(d, b'0'..=b'7')))
            .and_then(|d| u8::try_from(d.iter().fold(0, |n, d| n * 8 + u32::from(d - b'0'))).ok());
        match octal {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_bytes_pass_for_a_mount_table(
            text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
            line in "[0-9]{1,3} 1 [0-9:]{1,6} /[\\\\0-9a-z/]{0,20} /[\\\\0-9a-z/]{0,20} rw",
            path in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40),
        ) {
            let mut mounts = Mounts(text.split(|b| *b == b'\n').filter_map(parse).collect());
            mounts.0.extend(parse(line.as_bytes()));
            let _ = mounts.of(&path);
            for mount in &mounts.0 {
                if let Some(shown) = mounts.showing(mount.dev, &path) {
                    let _ = shown.spell(&path);
                }
            }
        }
    }
}
