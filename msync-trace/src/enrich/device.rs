//! Names of block devices.

use std::{fs, path::Path};

use crate::schema::{parse_dev, spell_dev};

/// The name below `/dev` that people know of a device of the device mapper (`dm-0`): what
/// `/sys/block/dm-0/dm/name` says, as in `mapper/secret`. None for other devices.
pub(super) fn mapped(sys: &Path, kernel_name: &str) -> Option<String> {
    if !kernel_name.starts_with("dm-") {
        return None;
    }
    let name = sys.join("block").join(kernel_name).join("dm/name");
    let name = fs::read_to_string(name).ok()?;
    Some(format!("mapper/{}", name.trim_end_matches('\n')))
}

/// `DEVNAME` of `/sys/dev/block/MAJOR:MINOR/uevent`. None for filesystems without a block device
/// of their own (NFS, FUSE, tmpfs, btrfs with its anonymous numbers).
pub(super) fn name(sys: &Path, dev: u32) -> Option<String> {
    let uevent = sys.join("dev/block").join(spell_dev(dev)).join("uevent");
    fs::read_to_string(uevent)
        .ok()?
        .lines()
        .find_map(|line| line.strip_prefix("DEVNAME="))
        .map(ToOwned::to_owned)
}

/// The device number of a block device that the kernel calls so (`/sys/class/block/NAME/dev`).
pub(super) fn number(sys: &Path, kernel_name: &str) -> Option<u32> {
    // `server:/export` is no block device, and no way out of /sys.
    if kernel_name.contains('/') {
        return None;
    }
    let dev = sys.join("class/block").join(kernel_name).join("dev");
    parse_dev(fs::read_to_string(dev).ok()?.trim_end())
}
