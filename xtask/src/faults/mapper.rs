//! A device of the device mapper, by `dmsetup`. It goes away when nobody has it open any more.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::loop_device::drop_cache;

const SECTOR: u64 = 512;

/// Removed when dropped and unmounted, also when the process is killed.
pub struct Mapper {
    name: String,
    path: PathBuf,
    /// `None` only while dropping.
    device: Option<File>,
}

impl Mapper {
    /// A new device of this name and table.
    pub fn create(name: &str, table: &str) -> Result<Mapper> {
        dmsetup(&["create", name, "--table", table])?;
        let path = Path::new("/dev/mapper").join(name);
        let device = OpenOptions::new().read(true).write(true).open(&path);
        // With somebody who has it open, this is for later; otherwise for now.
        dmsetup(&["remove", "--deferred", name])?;
        // That took the name away as well.
        dmsetup(&["mknodes", name])?;
        let device = device.with_context(|| format!("open {}", path.display()))?;
        Ok(Mapper {
            name: name.to_owned(),
            path,
            device: Some(device),
        })
    }

    /// `/dev/mapper/NAME`
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has another table from now on; requests that are under way end by the old one. The file
    /// system is not asked to write anything before: resuming suspends (`do_resume` in
    /// drivers/md/dm-ioctl.c), without freezing it.
    pub fn reload(&self, table: &str) -> Result<()> {
        dmsetup(&["load", &self.name, "--table", table])?;
        dmsetup(&["resume", "--nolockfs", &self.name])
    }

    /// Writes out and forgets what the kernel has cached of the device itself.
    pub fn drop_cache(&self) -> Result<()> {
        let device = self.device.as_ref().context("the device is gone")?;
        Ok(drop_cache(device)?)
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        self.device = None;
        // Removes the name of a device that is gone.
        let _ = dmsetup(&["mknodes", &self.name]);
    }
}

fn dmsetup(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("dmsetup");
    // It makes the names below /dev/mapper itself: there may be nobody else who does.
    command.env("DM_DISABLE_UDEV", "1").args(arguments);
    let output = command.output().context("dmsetup")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("dmsetup {}: {}", arguments[0], said.trim());
    }
    Ok(())
}

/// A table for `size` bytes of the device `below`: these byte ranges, in any order, belong to the
/// target that `bad` spells for a first sector, and the rest goes to the same place below.
pub fn split(
    size: u64,
    below: &Path,
    bad: &[Range<u64>],
    target: fn(&str, u64) -> String,
) -> String {
    let below = below.to_string_lossy();
    let mut bad = bad.to_vec();
    bad.sort_by_key(|range| range.start);
    let mut lines = Vec::new();
    let mut line = |bytes: Range<u64>, target: &dyn Fn(u64) -> String| {
        if bytes.start < bytes.end {
            let (first, end) = (bytes.start / SECTOR, bytes.end / SECTOR);
            lines.push(format!("{first} {} {}", end - first, target(first)));
        }
    };
    let linear = |first: u64| format!("linear {below} {first}");
    let mut at = 0;
    for range in bad {
        line(at..range.start, &linear);
        line(range.start.max(at)..range.end, &|first| {
            target(&below, first)
        });
        at = at.max(range.end);
    }
    line(at..size, &linear);
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(_: &str, _: u64) -> String {
        "error".to_owned()
    }

    #[test]
    fn bad_bytes_are_cut_out() {
        let below = Path::new("/dev/x");
        assert_eq!(split(8192, below, &[], error), "0 16 linear /dev/x 0");
        assert_eq!(
            split(16384, below, &[12288..16384, 4096..8192], error),
            "0 8 linear /dev/x 0\n8 8 error\n16 8 linear /dev/x 16\n24 8 error"
        );
        let all = std::slice::from_ref(&(0..4096));
        assert_eq!(split(4096, below, all, error), "0 8 error");
    }
}
