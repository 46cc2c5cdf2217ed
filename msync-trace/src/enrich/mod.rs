//! Adds to a verdict what the kernel side could not know: where a filesystem is mounted, what a
//! device is called, which program and container a process is.
//!
//! Comes after the verdict and can only add: a look-up that fails gives `None`, never an error,
//! and never hides an incident. Nothing is guessed: a process is only described when it is
//! certainly still the same process.

mod beneath;
mod container;
mod device;
mod machine;
mod mounts;
mod process;

use std::{
    cell::RefCell,
    collections::HashMap,
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant},
};

pub use beneath::{Beneath, share_a_disk};
pub use machine::{Machine, look_at_clocks, machine};

use crate::{
    model::{FileView, Incident, ProcessId, StorageError, StorageErrorKind},
    schema::{
        Body, Clock, FileRecord, Head, IncidentRecord, Moment, Name, PathFrom, ProcessRecord,
        Record, StorageErrorRecord,
    },
};
pub use mounts::{Mount, Mounts, mounted_from};
use process::Described;

/// The mount table as we see it.
#[must_use]
pub fn our_mounts() -> Mounts {
    Mounts::read(Path::new("/proc/self/mountinfo"))
}

/// The mount table as a process sees it, if it is still the same one.
#[must_use]
pub fn mounts_of(process: ProcessId) -> Option<Mounts> {
    process::mountinfo(Path::new("/proc"), process).map(|path| Mounts::read(&path))
}

/// Whether a process is still the same one.
#[must_use]
pub fn is_running(process: ProcessId) -> bool {
    process::mountinfo(Path::new("/proc"), process).is_some()
}

/// What incidents call a device of the device mapper (`dm-0`): `mapper/NAME`. None for others.
#[must_use]
pub fn mapped_name(kernel_name: &str) -> Option<String> {
    device::mapped(Path::new("/sys"), kernel_name)
}

/// How long a look-up may stand for the next one.
const RECENT: Duration = Duration::from_millis(200);

/// Looks things up below `/proc` and `/sys`.
#[derive(Clone, Debug)]
pub struct Enricher {
    /// Where they are; `None`: the facts are of another machine, whose own are not here.
    below: Option<Below>,
    recent: RefCell<Recent>,
}

#[derive(Clone, Debug)]
struct Below {
    proc: PathBuf,
    sys: PathBuf,
}

/// Look-ups of the last moment: in a storm thousands of incidents are about a few processes, and
/// while they are looked up the kernel's buffers fill.
#[derive(Clone, Debug)]
struct Recent {
    since: Instant,
    processes: HashMap<ProcessId, Described>,
    /// Of processes that are gone: ours.
    mounts: HashMap<ProcessId, Rc<Mounts>>,
}

impl Recent {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            processes: HashMap::new(),
            mounts: HashMap::new(),
        }
    }
}

impl Default for Enricher {
    fn default() -> Self {
        Self::below(Path::new("/"))
    }
}

impl Enricher {
    /// With another root in the place of `/`: for tests, and for containers that see the host's
    /// `/proc` elsewhere.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self {
            below: Some(Below {
                proc: root.join("proc"),
                sys: root.join("sys"),
            }),
            recent: RefCell::new(Recent::new()),
        }
    }

    /// For facts of another machine: looks nothing up, and only says what they say.
    #[must_use]
    pub fn elsewhere() -> Self {
        Self {
            below: None,
            recent: RefCell::new(Recent::new()),
        }
    }

    /// The record of an incident.
    #[must_use]
    pub fn incident(&self, incident: &Incident, clock: &Clock) -> Record {
        if self.recent.borrow().since.elapsed() > RECENT {
            self.recent.replace(Recent::new());
        }
        let with_dev = self.with_device_number(incident);
        let incident = with_dev.as_ref().unwrap_or(incident);
        let process = self.process(incident);
        let record = IncidentRecord {
            incident: incident.id,
            error: incident.errno,
            file: self.file(incident),
            ranges: incident.ranges.clone(),
            bytes: incident.bytes(),
            evidence: incident.evidence,
            told: incident.told,
            coverage: incident.coverage,
            in_memory: incident.in_memory,
            first_failed: Moment::at(incident.failed_at, clock),
            last_failed: Moment::at(incident.last_failed_at, clock),
            writer: incident.writer.clone(),
            call: incident.call,
            requested: incident.requested,
            process,
            verified: None,
            comparison: None,
        };
        Record {
            head: Head::at(incident.synced_at, clock),
            body: Body::Incident(Box::new(record)),
        }
    }

    /// What happened to a disk or a filesystem, with its names, and how the mount table shows it now.
    #[must_use]
    pub fn storage_error(&self, error: StorageError) -> StorageErrorRecord {
        let of_filesystem = error.what != StorageErrorKind::FlushFailed;
        let mounts = self.our_mounts();
        let mount = error
            .dev
            .filter(|_| of_filesystem)
            .and_then(|dev| mounts.largest(dev));
        StorageErrorRecord {
            mount: mount.map(|mount| Name(mount.point.clone())),
            read_only: mount.is_some_and(|mount| mount.read_only),
            error: StorageError {
                dev_name: self.device(error.dev_name, error.dev),
                ..error
            },
        }
    }

    /// DTrace says the name of a device and not its number, by which mounts are found.
    fn with_device_number(&self, incident: &Incident) -> Option<Incident> {
        let Below { sys, .. } = self.below.as_ref()?;
        let view = &incident.file;
        if view.dev.is_some() {
            return None;
        }
        let dev = device::number(sys, view.dev_name.as_deref()?)?;
        let mut incident = incident.clone();
        incident.file.dev = Some(dev);
        Some(incident)
    }

    fn process(&self, incident: &Incident) -> ProcessRecord {
        let process = incident.task.process;
        let describe = || {
            let below = self.below.as_ref()?;
            process::describe(&below.proc, process)
        };
        let found = self
            .recent
            .borrow_mut()
            .processes
            .entry(process)
            .or_insert_with(|| describe().unwrap_or_default())
            .clone();
        ProcessRecord {
            task: incident.task.clone(),
            exe: found.exe,
            container: found.cgroup.as_ref().and_then(container::of_cgroup),
            cgroup: found.cgroup,
        }
    }

    fn file(&self, incident: &Incident) -> FileRecord {
        let view = &incident.file;
        let place = self.place(incident);
        FileRecord {
            path_when_failed: self.path_when_failed(incident, &place),
            path: place.path,
            path_from: place.path_from,
            deleted: view.deleted,
            mount: place
                .mount
                .map(|mount| mount.point)
                .or_else(|| view.mount.clone())
                .map(Name),
            fs_type: view.fs_type.clone(),
            device: self.device(view.dev_name.clone(), view.dev),
            dev: view.dev,
            inode: incident.inode,
        }
    }

    fn device(&self, of_kernel: Option<String>, dev: Option<u32>) -> Option<String> {
        let Some(Below { sys, .. }) = &self.below else {
            return of_kernel;
        };
        let known = of_kernel.or_else(|| device::name(sys, dev?))?;
        Some(device::mapped(sys, &known).unwrap_or(known))
    }

    /// `place`: where the process sees the file.
    fn path_when_failed(&self, incident: &Incident, place: &Place) -> Option<Name> {
        let path = incident.path_when_failed.as_deref()?;
        if let (Some(end), Some(now)) = (end_of(path), &place.path)
            && now.0.ends_with(end)
        {
            return Some(now.clone());
        }
        let mount = place.mount.as_ref();
        let spelled = match mount.filter(|mount| mount.shows(path)) {
            Some(mount) => mount.spell(path),
            None => {
                let ours = self.our_mounts();
                let shown = incident.file.dev.and_then(|dev| ours.showing(dev, path));
                shown.map_or_else(|| path.to_vec(), |mount| mount.spell(path))
            }
        };
        Some(Name(spelled))
    }

    fn our_mounts(&self) -> Mounts {
        self.below
            .as_ref()
            .map(|below| Mounts::read(&below.proc.join("self/mountinfo")))
            .unwrap_or_default()
    }

    fn place(&self, incident: &Incident) -> Place {
        let view = &incident.file;
        let Some(path) = &view.path else {
            return Place::default();
        };
        let whole = self.whole_path(incident, path);
        if view.from_root || whole.is_some() {
            let path = whole.as_ref().unwrap_or(path);
            return Place {
                mount: self.mount_seen_by_caller(incident, view, path),
                path: Some(Name(path.clone())),
                path_from: Some(PathFrom::Caller),
            };
        }
        let ours = self.our_mounts();
        match view.dev.and_then(|dev| ours.showing(dev, path)) {
            Some(mount) => Place {
                path: Some(Name(mount.spell(path))),
                path_from: Some(PathFrom::Mount),
                mount: Some(mount.clone()),
            },
            None => Place {
                path: Some(Name(path.clone())),
                path_from: Some(PathFrom::Filesystem),
                mount: None,
            },
        }
    }

    /// Of a path that was too long for the kernel side.
    fn whole_path(&self, incident: &Incident, path: &[u8]) -> Option<Vec<u8>> {
        let mut end = end_of(path)?.to_vec();
        if incident.file.deleted {
            end.extend_from_slice(DELETED);
        }
        let proc = &self.below.as_ref()?.proc;
        let mut path = process::whole_path(proc, incident.task.process, &end)?;
        if incident.file.deleted {
            path.truncate(path.len() - DELETED.len());
        }
        Some(path)
    }

    /// The mount point in the view of the process, or in ours if the process is gone; both must
    /// show the right device at the right place.
    fn mount_seen_by_caller(
        &self,
        incident: &Incident,
        view: &FileView,
        path: &[u8],
    ) -> Option<Mount> {
        let dev = view.dev?;
        let proc = &self.below.as_ref()?.proc;
        let process = incident.task.process;
        let read = || {
            let caller = process::mountinfo(proc, process);
            let mounts = caller.unwrap_or_else(|| proc.join("self/mountinfo"));
            Rc::new(Mounts::read(&mounts))
        };
        let mounts = Rc::clone(
            self.recent
                .borrow_mut()
                .mounts
                .entry(process)
                .or_insert_with(read),
        );
        mounts.holding(dev, path).cloned()
    }
}

/// What `/proc` says behind the path of a file that has no name any more.
const DELETED: &[u8] = b" (deleted)";

/// What is known of a path whose beginning is not.
fn end_of(path: &[u8]) -> Option<&[u8]> {
    path.strip_prefix(b"...")
        .filter(|end| end.starts_with(b"/"))
}

#[derive(Default)]
struct Place {
    path: Option<Name>,
    path_from: Option<PathFrom>,
    mount: Option<Mount>,
}

#[cfg(test)]
mod tests;
