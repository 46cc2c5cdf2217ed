//! What lies below a filesystem: whether two of them share a disk.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{device::kernel_dev, target::mount_of};
use crate::schema::{parse_dev, spell_dev};

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

/// Whether two block devices lie on a common disk, as far as `/sys` says it.
pub(super) fn share_a_disk(one: u32, other: u32) -> bool {
    let (one, other) = (disks(one), disks(other));
    one.intersection(&other).next().is_some()
}

/// So many devices below one: enough for any sane stack, and an end for any other.
const MOST: usize = 256;

/// The disks below a device: what holds a partition, what the device mapper, md or a loop device
/// uses.
fn disks(dev: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut open = vec![dev];
    let mut seen = BTreeSet::new();
    while let Some(dev) = open.pop() {
        if !seen.insert(dev) || seen.len() > MOST {
            continue;
        }
        let below = below(dev);
        if below.is_empty() {
            found.insert(dev);
        }
        open.extend(below);
    }
    found
}

fn below(dev: u32) -> Vec<u32> {
    let directory = Path::new("/sys/dev/block").join(spell_dev(dev));
    let mut found: Vec<u32> = fs::read_dir(directory.join("slaves"))
        .into_iter()
        .flatten()
        .filter_map(|slave| number(&slave.ok()?.path()))
        .collect();
    if directory.join("partition").exists() {
        let disk = fs::canonicalize(&directory).ok();
        found.extend(disk.and_then(|path| number(path.parent()?)));
    }
    if let Ok(backing) = fs::read_to_string(directory.join("loop/backing_file")) {
        let path = PathBuf::from(backing.trim_end_matches('\n'));
        found.extend(File::open(path).ok().and_then(|file| dev_of(&file).ok()));
    }
    found
}

/// The number of the device that this directory of `/sys` describes.
fn number(directory: &Path) -> Option<u32> {
    let text = fs::read_to_string(directory.join("dev")).ok()?;
    parse_dev(text.trim_end())
}
