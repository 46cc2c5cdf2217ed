//! Filesystems that are mounted and may fail: their counts are shown from the start.

use std::{collections::BTreeSet, fs, path::Path};

use crate::enrich::mapped_name;

/// Types without a disk or a server behind them.
const WITHOUT: &[&str] = &["squashfs", "iso9660", "erofs", "overlay"];

/// Type and device of each, as incidents name them.
pub(super) fn filesystems() -> BTreeSet<(String, String)> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter_map(filesystem).collect()
}

/// proc(5): after the dash come the type and the source.
fn filesystem(line: &str) -> Option<(String, String)> {
    let (_, rest) = line.split_once(" - ")?;
    let mut words = rest.split(' ');
    let (fs_type, source) = (words.next()?, words.next()?);
    let device = Path::new(source).strip_prefix("/dev").ok()?;
    let device = device.to_str()?;
    let device = mapped_name(device).unwrap_or_else(|| device.to_owned());
    (!WITHOUT.contains(&fs_type)).then(|| (fs_type.to_owned(), device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_on_a_device_is_named_like_in_incidents() {
        let line = "28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw";
        let expected = Some(("ext4".to_owned(), "sda1".to_owned()));
        assert_eq!(filesystem(line), expected);
        let line = "25 28 0:22 / /proc rw,nosuid - proc proc rw";
        assert_eq!(filesystem(line), None);
    }
}
