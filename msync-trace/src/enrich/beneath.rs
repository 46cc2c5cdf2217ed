//! What a file lies on: its filesystem, the device of that, and the devices below.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use super::{Mounts, device, our_mounts};
use crate::schema::{parse_dev, spell_dev};

/// Devices below a file, by the kernel's numbers (major << 20 | minor).
#[derive(Clone, Debug)]
pub struct Beneath {
    filesystem: BTreeSet<u32>,
    all: BTreeSet<u32>,
}

impl Beneath {
    /// Those of a file that exists.
    #[must_use]
    pub fn file(path: &Path) -> Self {
        Self::in_stack(&Stack::now(), path)
    }

    fn in_stack(stack: &Stack, path: &Path) -> Self {
        let filesystem = stack.filesystem_of(path);
        let all = filesystem
            .iter()
            .flat_map(|dev| stack.below(*dev, Files::Also));
        Self {
            all: all.collect(),
            filesystem,
        }
    }

    /// What the file has in common with this device: said in words, `None` if nothing.
    #[must_use]
    pub fn shared_with(&self, dev: u32) -> Option<String> {
        self.shared(&Stack::now(), dev)
    }

    fn shared(&self, stack: &Stack, dev: u32) -> Option<String> {
        if self.filesystem.contains(&dev) {
            return Some(format!("the filesystem on {}", stack.name(dev)));
        }
        // The first is the one that is nearest to what failed. What holds the file of a loop device is
        // in trouble if it fails itself, and then that is seen.
        let mut below = stack.below(dev, Files::No).into_iter();
        let shared = below.find(|dev| self.all.contains(dev))?;
        Some(format!("the disk {}", stack.name(shared)))
    }
}

/// Whether two filesystems or block devices lie on a common disk, as far as `/sys` says it.
#[must_use]
pub fn share_a_disk(one: u32, other: u32) -> bool {
    let stack = Stack::now();
    let disks: BTreeSet<u32> = stack.disks(one).collect();
    stack.disks(other).any(|disk| disks.contains(&disk))
}

/// So many devices below one: enough for any sane stack, and an end for any other.
const MOST: usize = 256;

/// Whether to go on from a loop device to the filesystem that has its file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Files {
    Also,
    No,
}

/// How block devices are made of others, as `/sys` says it.
struct Stack {
    sys: PathBuf,
    mounts: Mounts,
}

impl Stack {
    fn now() -> Self {
        Self {
            sys: PathBuf::from("/sys"),
            mounts: our_mounts(),
        }
    }

    /// The numbers of the filesystem of a file. btrfs has one per subvolume (stat), and another one
    /// that mounts and the kernel's facts have.
    fn filesystem_of(&self, path: &Path) -> BTreeSet<u32> {
        let of_stat = fs::metadata(path)
            .ok()
            .and_then(|is| kernel_number(is.dev()));
        let of_mount = self.mounts.of(path.as_os_str().as_encoded_bytes());
        of_stat
            .into_iter()
            .chain(of_mount.map(|it| it.dev))
            .collect()
    }

    /// A device and all below it, the nearest first.
    fn below(&self, dev: u32, files: Files) -> Vec<u32> {
        let mut found = vec![dev];
        let mut at = 0;
        while at < found.len() && found.len() < MOST {
            for next in self.next(found[at], files) {
                if !found.contains(&next) {
                    found.push(next);
                }
            }
            at += 1;
        }
        found
    }

    /// Those below a device that nothing is known to be below of.
    fn disks(&self, dev: u32) -> impl Iterator<Item = u32> {
        let below = self.below(dev, Files::Also).into_iter();
        below.filter(|dev| self.next(*dev, Files::Also).is_empty())
    }

    /// What a device is made of: parts of device mapper and md, the disk of a partition, the
    /// filesystem that has the file of a loop device, the devices of btrfs.
    fn next(&self, dev: u32, files: Files) -> Vec<u32> {
        let Ok(folder) = fs::canonicalize(self.sys.join("dev/block").join(spell_dev(dev))) else {
            return self.of_btrfs(dev);
        };
        let slaves = fs::read_dir(folder.join("slaves")).into_iter().flatten();
        let slaves = slaves.flatten().map(|slave| slave.path());
        let disk = folder.join("partition").exists().then(|| folder.parent());
        let disk = disk.flatten().map(Path::to_owned);
        let mut found: Vec<u32> = slaves.chain(disk).filter_map(|at| number(&at)).collect();
        if files == Files::Also
            && let Ok(file) = fs::read(folder.join("loop/backing_file"))
        {
            let file = file.strip_suffix(b"\n").unwrap_or(&file);
            found.extend(self.filesystem_of(Path::new(OsStr::from_bytes(file))));
        }
        found
    }

    /// A btrfs has a number that is no device's, and `/sys/fs/btrfs/UUID/devices` lists its own.
    fn of_btrfs(&self, dev: u32) -> Vec<u32> {
        let mounted_from = self.mounts.iter().find(|mount| mount.dev == dev);
        let Some(name) = mounted_from.and_then(|mount| mount.source.strip_prefix(b"/dev/")) else {
            return Vec::new();
        };
        let source = fs::metadata(Path::new("/dev").join(OsStr::from_bytes(name)));
        let Some(source) = source.ok().and_then(|is| kernel_number(is.rdev())) else {
            return Vec::new();
        };
        let filesystems = fs::read_dir(self.sys.join("fs/btrfs"))
            .into_iter()
            .flatten();
        let devices = filesystems.flatten().map(|it| {
            let devices = fs::read_dir(it.path().join("devices"))
                .into_iter()
                .flatten();
            devices
                .flatten()
                .filter_map(|it| number(&it.path()))
                .collect()
        });
        let mut devices = devices.filter(|all: &Vec<u32>| all.contains(&source));
        devices.next().unwrap_or_else(|| vec![source])
    }

    /// As people call it, or its number.
    fn name(&self, dev: u32) -> String {
        device::name(&self.sys, dev)
            .map(|name| device::mapped(&self.sys, &name).unwrap_or(name))
            .unwrap_or_else(|| spell_dev(dev))
    }
}

/// A number of stat(2) as the kernel counts inside.
fn kernel_number(dev: u64) -> Option<u32> {
    let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
    (major < 1 << 12 && minor < 1 << 20).then_some(major << 20 | minor)
}

/// The number of the device that this directory of `/sys` describes.
fn number(folder: &Path) -> Option<u32> {
    let dev = fs::read_to_string(folder.join("dev")).ok()?;
    parse_dev(dev.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: u32 = 253 << 20 | 1;
    const SWAP: u32 = 253 << 20 | 2;
    const VDA: u32 = 253 << 20;
    const LOOP: u32 = 7 << 20;
    const CRYPT: u32 = 252 << 20;
    const BTRFS: u32 = 44;
    const VDB: u32 = 253 << 20 | 16;

    /// A disk with two partitions; dm-crypt on a loop device over a file on the first; a btrfs.
    fn stack(folder: &Path) -> Stack {
        let sys = folder.join("sys");
        let block = |place: &str, dev: u32| {
            let at = sys.join("devices").join(place);
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join("dev"), format!("{}\n", spell_dev(dev))).unwrap();
            let by_number = sys.join("dev/block");
            fs::create_dir_all(&by_number).unwrap();
            std::os::unix::fs::symlink(&at, by_number.join(spell_dev(dev))).unwrap();
            at
        };
        block("vda", VDA);
        for (name, dev) in [("vda/vda1", ROOT), ("vda/vda2", SWAP)] {
            fs::write(block(name, dev).join("partition"), "1\n").unwrap();
        }
        let at = block("loop0", LOOP);
        fs::create_dir(at.join("loop")).unwrap();
        fs::write(at.join("loop/backing_file"), "/images/a\n").unwrap();
        let slaves = block("dm-0", CRYPT).join("slaves");
        fs::create_dir(&slaves).unwrap();
        std::os::unix::fs::symlink(&at, slaves.join("loop0")).unwrap();
        block("vdb", VDB);
        let mountinfo = folder.join("mountinfo");
        fs::write(
            &mountinfo,
            "1 0 253:1 / / rw - ext4 /dev/vda1 rw\n\
             2 1 252:0 / /srv rw - ext4 /dev/mapper/a rw\n\
             3 1 0:44 / /home rw - btrfs vdb rw\n",
        )
        .unwrap();
        Stack {
            sys,
            mounts: Mounts::read(&mountinfo),
        }
    }

    #[test]
    fn a_file_lies_on_all_that_its_filesystem_is_made_of() {
        let folder = tempfile::tempdir().unwrap();
        let stack = stack(folder.path());
        let shared =
            |path: &str, failed| Beneath::in_stack(&stack, Path::new(path)).shared(&stack, failed);
        for (path, failed, shares) in [
            ("/srv/a.db", CRYPT, Some("the filesystem on 252:0")),
            ("/srv/a.db", LOOP, Some("the disk 7:0")),
            ("/srv/a.db", ROOT, Some("the disk 253:1")),
            ("/srv/a.db", SWAP, Some("the disk 253:0")),
            ("/srv/a.db", VDB, None),
            ("/var/a.db", ROOT, Some("the filesystem on 253:1")),
            // The disk below its file does not fail because a loop device does.
            ("/var/a.db", LOOP, None),
            ("/var/a.db", CRYPT, None),
            ("/home/a.db", BTRFS, Some("the filesystem on 0:44")),
            ("/home/a.db", ROOT, None),
        ] {
            assert_eq!(shared(path, failed).as_deref(), shares, "{path} {failed}");
        }
    }
}
