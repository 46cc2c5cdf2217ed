//! What a file lies on: its filesystem, the device of that, and the devices below.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{device, our_mounts};
use crate::schema::{parse_dev, spell_dev};

/// Devices below a file, by the kernel's numbers (major << 20 | minor).
#[derive(Clone, Debug)]
pub struct Beneath {
    sys: PathBuf,
    filesystem: BTreeSet<u32>,
    all: BTreeSet<u32>,
}

impl Beneath {
    /// Those of a file that exists.
    #[must_use]
    pub fn file(path: &Path) -> Self {
        let sys = PathBuf::from("/sys");
        let mut filesystem = BTreeSet::new();
        if let Ok(is) = fs::metadata(path) {
            filesystem.extend(kernel_number(is.dev()));
        }
        // btrfs has a number per subvolume, and another one that mounts have.
        let mounts = our_mounts();
        filesystem.extend(
            mounts
                .of(path.as_os_str().as_encoded_bytes())
                .map(|it| it.dev),
        );
        let all = filesystem
            .iter()
            .flat_map(|dev| below(&sys, *dev))
            .collect();
        Self {
            sys,
            filesystem,
            all,
        }
    }

    /// What the file has in common with this device: said in words, `None` if nothing.
    #[must_use]
    pub fn shared_with(&self, dev: u32) -> Option<String> {
        let name = |dev| {
            device::name(&self.sys, dev)
                .map(|name| device::mapped(&self.sys, &name).unwrap_or(name))
                .unwrap_or_else(|| spell_dev(dev))
        };
        if self.filesystem.contains(&dev) {
            return Some(format!("the filesystem on {}", name(dev)));
        }
        let shared = below(&self.sys, dev).into_iter();
        let shared = shared.filter(|dev| self.all.contains(dev)).min()?;
        Some(format!("the disk {}", name(shared)))
    }
}

/// `st_dev` as the kernel counts inside.
fn kernel_number(dev: u64) -> Option<u32> {
    let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
    (major < 1 << 12 && minor < 1 << 20).then_some(major << 20 | minor)
}

/// The device, the disk that it is a partition of, and those that it is made of. As /sys tells.
fn below(sys: &Path, dev: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut look_at = vec![dev];
    while let Some(dev) = look_at.pop() {
        if !found.insert(dev) {
            continue;
        }
        let Ok(folder) = fs::canonicalize(sys.join("dev/block").join(spell_dev(dev))) else {
            continue;
        };
        let slaves = fs::read_dir(folder.join("slaves")).into_iter().flatten();
        let slaves = slaves.flatten().map(|slave| slave.path());
        let disk = folder.join("partition").exists().then(|| folder.parent());
        let disk = disk.flatten().map(Path::to_owned);
        look_at.extend(slaves.chain(disk).filter_map(|folder| {
            let dev = fs::read_to_string(folder.join("dev")).ok()?;
            parse_dev(dev.trim_end())
        }));
    }
    found
}
