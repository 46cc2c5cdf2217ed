//! Names of block devices.

use std::{fs, path::Path};

use crate::schema::spell_dev;

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
