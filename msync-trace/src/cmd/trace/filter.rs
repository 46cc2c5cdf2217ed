//! Which incidents are reported. Never which facts are followed: the failing write happens in a
//! kernel worker or in another process, so a filter on the facts would hide real losses.
//!
//! What is not known about an incident cannot exclude it: a path that could not be found must not
//! hide a loss.

use std::{
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use crate::{
    cli::ReportArgs,
    enrich::{mapped_name, our_mounts},
    schema::{FileRecord, Filters, IncidentRecord, PathFrom, parse_dev},
};

/// Within one kind any value will do, and every kind that is given must fit.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    asked: Filters,
    paths: Vec<WantedPath>,
    devices: Vec<WantedDevice>,
}

/// A file, or a directory with all below, in every spelling we know.
#[derive(Clone, Debug)]
struct WantedPath {
    spellings: Vec<PathBuf>,
    /// Device and inode number, if it is a file: it may be known by other names (hard links,
    /// bind mounts, containers).
    file: Option<(u32, u64)>,
    /// The device whose filesystem is mounted there as a whole: its files are meant wherever else
    /// it is mounted, in a container for instance.
    mounted: Option<u32>,
}

#[derive(Clone, Debug)]
struct WantedDevice {
    number: Option<u32>,
    names: Vec<String>,
}

impl Filter {
    /// From the command line; looks at the paths and devices as they are now.
    #[must_use]
    pub fn new(args: &ReportArgs) -> Self {
        Self {
            asked: asked(args),
            paths: args.path.iter().map(|path| WantedPath::new(path)).collect(),
            devices: args
                .dev
                .iter()
                .map(|name| WantedDevice::new(name))
                .collect(),
        }
    }

    /// From the command line, about another machine: nothing is looked up here.
    #[must_use]
    pub fn elsewhere(args: &ReportArgs) -> Self {
        Self {
            asked: asked(args),
            paths: args.path.iter().map(|p| WantedPath::as_typed(p)).collect(),
            devices: args.dev.iter().map(|d| WantedDevice::as_typed(d)).collect(),
        }
    }

    /// As typed, for the start record.
    #[must_use]
    pub fn asked(&self) -> &Filters {
        &self.asked
    }

    /// Whether an incident is to be reported.
    #[must_use]
    pub fn wants(&self, incident: &IncidentRecord) -> bool {
        let task = &incident.process.task;
        any_fits(&self.asked.pid, |pid| Some(*pid == task.process.pid))
            && any_fits(&self.asked.uid, |uid| Some(*uid == task.uid))
            && any_fits(&self.asked.comm, |comm| Some(comm.as_bytes() == task.comm))
            && any_fits(&self.paths, |path| path.fits(&incident.file))
            && any_fits(&self.devices, |device| device.fits(&incident.file))
    }
}

fn asked(args: &ReportArgs) -> Filters {
    Filters {
        pid: args.pid.clone(),
        comm: args.comm.clone(),
        path: args
            .path
            .iter()
            .map(|path| path.to_string_lossy().into_owned())
            .collect(),
        dev: args.dev.clone(),
        uid: args.uid.clone(),
    }
}

/// Whether nothing is asked for, something fits, or it cannot be known whether something fits.
fn any_fits<T>(wanted: &[T], fits: impl Fn(&T) -> Option<bool>) -> bool {
    wanted.is_empty() || wanted.iter().any(|it| fits(it) != Some(false))
}

impl WantedPath {
    fn new(path: &Path) -> Self {
        let mut spellings: Vec<PathBuf> = std::path::absolute(path).into_iter().collect();
        spellings.extend(path.canonicalize());
        spellings.dedup();
        let file = fs::metadata(path)
            .ok()
            .filter(fs::Metadata::is_file)
            .map(|meta| (kernel_dev(meta.dev()), meta.ino()));
        let mounts = our_mounts();
        let mounted = spellings.iter().find_map(|spelling| {
            let spelling = spelling.as_os_str().as_bytes();
            let mount = mounts.of(spelling)?;
            (mount.point == spelling && mount.root == b"/").then_some(mount.dev)
        });
        Self {
            spellings,
            file,
            mounted,
        }
    }

    fn as_typed(path: &Path) -> Self {
        Self {
            spellings: vec![path.to_owned()],
            file: None,
            mounted: None,
        }
    }

    fn fits(&self, file: &FileRecord) -> Option<bool> {
        if let (Some((dev, ino)), Some(its_dev)) = (self.file, file.dev)
            && (dev, ino) == (its_dev, file.inode.ino)
        {
            return Some(true);
        }
        if self.mounted.is_some() && self.mounted == file.dev {
            return Some(true);
        }
        let path = file.path.as_ref()?;
        let path = Path::new(std::ffi::OsStr::from_bytes(&path.0));
        if file.path_from == Some(PathFrom::Filesystem) {
            return None;
        }
        // As a program wrote it that was in a directory which is not known (only from DTrace).
        if path.is_relative() {
            return None;
        }
        Some(self.spellings.iter().any(|wanted| path.starts_with(wanted)))
    }
}

impl WantedDevice {
    fn new(text: &str) -> Self {
        if let Some(number) = parse_dev(text) {
            return Self {
                number: Some(number),
                names: Vec::new(),
            };
        }
        let path = Path::new("/dev").join(text);
        let file_name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
        let mut names = vec![text.to_owned()];
        names.extend(file_name(&path));
        // /dev/mapper/home is a link to /dev/dm-3, whose name in an incident is mapper/home.
        names.extend(path.canonicalize().ok().and_then(|real| file_name(&real)));
        let mapped: Vec<String> = names.iter().filter_map(|name| mapped_name(name)).collect();
        names.extend(mapped);
        let below_dev = path.strip_prefix("/dev").ok().and_then(Path::to_str);
        names.extend(below_dev.map(ToOwned::to_owned));
        let number = fs::metadata(&path)
            .ok()
            .filter(|meta| meta.file_type().is_block_device())
            .map(|meta| kernel_dev(meta.rdev()))
            .or_else(|| {
                let real = Path::new(text).canonicalize().ok()?;
                Some(our_mounts().of(real.as_os_str().as_bytes())?.dev)
            });
        Self { number, names }
    }

    fn as_typed(text: &str) -> Self {
        let number = parse_dev(text);
        let below_dev = text.strip_prefix("/dev/").map(ToOwned::to_owned);
        Self {
            number,
            names: match number {
                Some(_) => Vec::new(),
                None => [text.to_owned()].into_iter().chain(below_dev).collect(),
            },
        }
    }

    fn fits(&self, file: &FileRecord) -> Option<bool> {
        let number = self.number.zip(file.dev).map(|(a, b)| a == b);
        let name = file
            .device
            .as_ref()
            .filter(|_| !self.names.is_empty())
            .map(|device| self.names.contains(device));
        match (number, name) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (None, None) => None,
            _ => Some(false),
        }
    }
}

/// The C library's `dev_t` as the kernel's: major << 20 | minor.
fn kernel_dev(dev: u64) -> u32 {
    rustix::fs::major(dev) << 20 | rustix::fs::minor(dev)
}
