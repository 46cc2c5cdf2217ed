//! Where maps and links outlive the process: a folder of the BPF filesystem, with one folder in it
//! for each generation of the object. Who holds the lock on the folder is the one that traces.
//!
//! A generation counts once user space has kept its state in it (`kept`). docs/restart.md says what
//! follows what.

use std::{
    ffi::CString,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use aya::maps::{HashMap, Map, MapData, RingBuf};
use msync_trace_ebpf as abi;
use rustix::fs::{FlockOperation, flock};

use super::{
    AttachError,
    instance::{Failed, MAPS, Pod, Rings},
    kept::Kept,
    shared::Shared,
};

/// Where everything is pinned.
pub const FOLDER: &str = "/sys/fs/bpf/msync-trace";

/// Where the BPF filesystem is mounted.
const BPFFS: &str = "/sys/fs/bpf";

/// `BPF_FS_MAGIC` (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The folder, locked.
pub struct Pins {
    folder: PathBuf,
    /// Holds the lock.
    _lock: File,
}

/// One generation of pinned maps and links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    number: u64,
    /// Its folder.
    pub folder: PathBuf,
}

/// What an earlier process left behind, still collecting.
pub struct Left {
    /// Where.
    pub generation: Generation,
    /// What it knew.
    pub kept: Option<Vec<u8>>,
    /// Its rings.
    pub rings: Rings,
    /// The inodes that it follows.
    pub failed: Failed,
    /// What it dropped.
    pub counters: Shared<abi::Counters>,
}

/// What was taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Hooks that were attached.
    pub hooks: u64,
    /// Inodes with failures.
    pub inodes: u64,
    /// Records that nobody had read.
    pub records: u64,
}

impl Pins {
    /// Makes the folder and locks it; mounts the BPF filesystem where nobody did.
    ///
    /// # Errors
    /// [`AttachError::Pins`], with the remedy; another process that traces is named.
    pub fn open() -> Result<Self, AttachError> {
        let folder = PathBuf::from(FOLDER);
        mount_bpffs()?;
        let made = DirBuilder::new().mode(0o700).create(&folder);
        if let Err(error) = made
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(refused(format!("cannot make {FOLDER}: {error}")));
        }
        Self::lock(folder)
    }

    /// What is there, locked; `None` if nothing is.
    ///
    /// # Errors
    /// [`AttachError::Pins`].
    pub fn existing() -> Result<Option<Self>, AttachError> {
        let folder = PathBuf::from(FOLDER);
        match folder.is_dir() {
            true => Self::lock(folder).map(Some),
            false => Ok(None),
        }
    }

    fn lock(folder: PathBuf) -> Result<Self, AttachError> {
        let lock = File::open(&folder);
        let lock = lock.map_err(|error| refused(format!("cannot open {FOLDER}: {error}")))?;
        let metadata = lock.metadata();
        let metadata =
            metadata.map_err(|error| refused(format!("cannot look at {FOLDER}: {error}")))?;
        let ours = rustix::process::geteuid().as_raw();
        if metadata.uid() != ours || metadata.mode() & 0o077 != 0 {
            return Err(refused(format!(
                "{FOLDER} is not for its owner alone: remove it, or chown it to the user that \
                 traces and chmod it to 0700"
            )));
        }
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let who = holder(&metadata).map_or_else(String::new, |pid| format!(" (process {pid})"));
            return Err(refused(format!(
                "another msync-trace{who} traces with pinned hooks: stop it first, or trace without \
                 --pin beside it"
            )));
        }
        Ok(Self {
            folder,
            _lock: lock,
        })
    }

    /// All generations, oldest first.
    pub fn generations(&self) -> Vec<Generation> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries
            .filter_map(|entry| {
                let number = entry.file_name().to_str()?.parse().ok()?;
                let folder = entry.path();
                Some(Generation { number, folder })
            })
            .collect();
        found.sort_by_key(|generation| generation.number);
        found
    }

    /// A folder for the next generation.
    ///
    /// # Errors
    /// [`AttachError::Pins`].
    pub fn next(&self) -> Result<Generation, AttachError> {
        let last = self.generations().last().map_or(0, |last| last.number);
        let number = last + 1;
        let folder = self.folder.join(number.to_string());
        let made = DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(|error| refused(format!("cannot make {}: {error}", folder.display())))?;
        Ok(Generation { number, folder })
    }

    /// Takes everything away.
    ///
    /// # Errors
    /// [`AttachError::Pins`].
    pub fn remove(self) -> Result<Forgotten, AttachError> {
        let mut all = Forgotten::default();
        for generation in self.generations() {
            let one = generation.forget()?;
            all.hooks += one.hooks;
            all.inodes += one.inodes;
            all.records += one.records;
        }
        let removed = fs::remove_dir(&self.folder);
        removed.map_err(|error| refused(format!("cannot remove {FOLDER}: {error}")))?;
        Ok(all)
    }
}

impl Generation {
    /// What an earlier process of the same ABI left in it; `None` if user space kept nothing there
    /// or in another form.
    pub fn left(&self) -> Option<Left> {
        let kept = Kept::open(&self.folder).ok()?;
        if !kept.is_readable() {
            return None;
        }
        let open = |name: &str| MapData::from_pin(self.folder.join(name)).ok();
        let ring = |name: &str| RingBuf::try_from(Map::RingBuf(open(name)?)).ok();
        let counters = open("COUNTERS")?;
        let processors = counters.info().ok()?.max_entries() as usize;
        Some(Left {
            generation: self.clone(),
            kept: kept.read(),
            rings: Rings {
                errors: ring("ERRORS")?,
                syncs: ring("SYNCS")?,
                pages: ring("PAGES")?,
            },
            failed: HashMap::try_from(Map::HashMap(open("FAILED")?)).ok()?,
            counters: Shared::new(counters.fd(), processors).ok()?,
        })
    }

    /// Whether user space kept its state in it, in whatever form.
    pub fn counts(&self) -> bool {
        Kept::open(&self.folder).is_ok_and(|kept| !kept.is_empty())
    }

    /// Takes its links away: the hooks see nothing more, what they saw stays. Gives how many.
    pub fn detach(&self) -> io::Result<u64> {
        let mut hooks = 0;
        for entry in fs::read_dir(&self.folder)?.flatten() {
            let name = entry.file_name();
            if !name.to_str().is_some_and(is_map) {
                fs::remove_file(entry.path())?;
                hooks += 1;
            }
        }
        Ok(hooks)
    }

    /// Takes it away.
    pub fn remove(&self) -> io::Result<u64> {
        let hooks = self.detach()?;
        for entry in fs::read_dir(&self.folder)?.flatten() {
            fs::remove_file(entry.path())?;
        }
        fs::remove_dir(&self.folder)?;
        Ok(hooks)
    }

    /// Takes it away, and counts what is forgotten with it, whatever its ABI.
    pub fn forget(&self) -> Result<Forgotten, AttachError> {
        let (inodes, records) = (self.inodes(), self.records());
        let hooks = self.remove().map_err(|error| {
            refused(format!("cannot remove {}: {error}", self.folder.display()))
        })?;
        Ok(Forgotten {
            hooks,
            inodes,
            records,
        })
    }

    fn inodes(&self) -> u64 {
        let Ok(map) = MapData::from_pin(self.folder.join("FAILED")) else {
            return 0;
        };
        // What is no hash of ours cannot be counted: another ABI may have other keys.
        let failed: Result<HashMap<_, Pod<abi::InodeKey>, Pod<abi::InodeState>>, _> =
            HashMap::try_from(Map::HashMap(map));
        failed.map_or(0, |failed| failed.keys().flatten().count() as u64)
    }

    fn records(&self) -> u64 {
        let mut records = 0;
        for name in ["ERRORS", "SYNCS", "PAGES"] {
            let map = MapData::from_pin(self.folder.join(name));
            let ring = map
                .ok()
                .and_then(|map| RingBuf::try_from(Map::RingBuf(map)).ok());
            if let Some(mut ring) = ring {
                while ring.next().is_some() {
                    records += 1;
                }
            }
        }
        records
    }
}

/// Whether a pin is that of a map.
fn is_map(name: &str) -> bool {
    name == "STATE" || name == "STATE_new" || MAPS.contains(&name)
}

fn refused(text: String) -> AttachError {
    AttachError::Pins(text)
}

/// Mounts the BPF filesystem where nobody did; systemd does so at boot.
fn mount_bpffs() -> Result<(), AttachError> {
    let mounted = || rustix::fs::statfs(BPFFS).is_ok_and(|fs| fs.f_type == BPF_FS_MAGIC);
    if mounted() {
        return Ok(());
    }
    let words = ["bpf", BPFFS, "bpf", "mode=0700"].map(CString::new);
    let [Ok(source), Ok(target), Ok(kind), Ok(mode)] = words else {
        return Err(refused("cannot mount the BPF filesystem".to_owned()));
    };
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_RELATIME;
    // SAFETY: strings that end with a NUL and live longer than the call.
    let result = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            mode.as_ptr().cast(),
        )
    };
    if result == 0 && mounted() {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(refused(format!(
        "there is no BPF filesystem at {BPFFS}, and it cannot be mounted ({error}): mount -t bpf bpf \
         {BPFFS}; in a container, pass that of the host"
    )))
}

/// Which process holds the lock, from `/proc/locks`: `1: FLOCK  ADVISORY  WRITE 812 00:1f:5 0 EOF`.
fn holder(folder: &fs::Metadata) -> Option<u32> {
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let (major, minor) = (libc::major(folder.dev()), libc::minor(folder.dev()));
    let wanted = format!("{major:02x}:{minor:02x}:{}", folder.ino());
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_it = words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&wanted.as_str());
        words.get(4).filter(|_| is_it)?.parse().ok()
    })
}

/// Takes all hooks and maps away that processes left behind (`msync-trace detach`); `None` if there
/// are none.
///
/// # Errors
/// [`AttachError::Pins`], also while a process traces with them.
pub fn detach() -> Result<Option<Forgotten>, AttachError> {
    match Pins::existing()? {
        Some(pins) => pins.remove().map(Some),
        None => Ok(None),
    }
}

/// The path of a link's pin.
pub fn link_path(folder: &Path, program: &str, target: &str) -> PathBuf {
    // No dots: the BPF filesystem keeps them for itself.
    let target = target.replace(|c: char| !c.is_ascii_alphanumeric() && c != '_', "_");
    folder.join(format!("{program}-{target}"))
}
