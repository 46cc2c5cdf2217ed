//! Names of block devices.

use std::{fs, path::Path};

use crate::schema::spell_dev;

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
