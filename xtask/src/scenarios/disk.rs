//! The failing disk below a story's file system: our own, or one of the kernel's.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::volume::{modprobe, run};
use super::world::Skip;
use crate::faults::{
    Access, Effect, FaultDevice, FaultRule, Image, Mapper, Place, ScsiDebug, Snapshot, split,
};

/// What fails below a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below {
    /// Our own disk, see [`crate::faults`].
    Fault,
    /// dm-crypt on our own disk, which fails by place.
    Crypt,
    /// dm-flakey, with `error_writes`: chosen bytes, and flushes.
    Flakey,
    /// The device mapper's `error` target: chosen bytes, for reads too.
    Error,
    /// A SCSI disk by `scsi_debug`: all writes.
    ScsiDebug,
}

/// What a story asks of the disk that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// To know blocks by what they carry, to give another error than its own, to be late, to fail
    /// reads.
    Anything,
    /// To fail where pages of a file are written in place.
    InPlace,
    /// To fail while nothing but these pages is written; the rest may fail as well.
    Alone,
}

impl Below {
    /// All of them.
    pub const ALL: [Below; 5] = [
        Below::Fault,
        Below::Crypt,
        Below::Flakey,
        Below::Error,
        Below::ScsiDebug,
    ];

    /// The name used on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Below::Fault => "fault",
            Below::Crypt => "crypt",
            Below::Flakey => "flakey",
            Below::Error => "error",
            Below::ScsiDebug => "scsi-debug",
        }
    }

    /// Whether it can do what a story asks.
    pub fn can(self, asks: Asks) -> bool {
        match self {
            Below::Fault => true,
            Below::Crypt | Below::Error => asks != Asks::Anything,
            Below::Flakey | Below::ScsiDebug => asks == Asks::Alone,
        }
    }

    /// Whether it knows blocks by their place only.
    pub fn by_place(self) -> bool {
        matches!(self, Below::Crypt | Below::Flakey | Below::Error)
    }

    /// Whether it refuses more than the bytes it is told to: dm-flakey flushes of the cache as well
    /// (`flakey_map` in drivers/md/dm-flakey.c), scsi_debug all writes.
    pub fn refuses_more(self) -> bool {
        matches!(self, Below::Flakey | Below::ScsiDebug)
    }

    /// Its error.
    pub fn errno(self) -> i32 {
        match self {
            Below::ScsiDebug => ScsiDebug::ERROR,
            _ => libc::EIO,
        }
    }

    fn modules(self) -> &'static [&'static str] {
        match self {
            Below::Fault => &[],
            Below::Crypt => &["dm-mod", "dm-crypt"],
            Below::Flakey => &["dm-mod", "dm-flakey"],
            Below::Error => &["dm-mod"],
            Below::ScsiDebug => &["sd_mod"],
        }
    }
}

/// A disk that fails on command.
pub struct Disk {
    below: Below,
    layers: Layers,
}

enum Layers {
    Fault(FaultDevice),
    Mapped(Mapped),
    Scsi(ScsiDebug),
}

/// A device of the device mapper on a disk of ours. The upper one is dropped first.
struct Mapped {
    upper: Mapper,
    lower: FaultDevice,
    /// The upper one has its healthy table.
    healthy: bool,
}

impl Mapped {
    fn fail_in(&mut self, below: Below, places: &[Range<u64>]) -> Result<()> {
        if below == Below::Crypt {
            return self.lower.fail(refuse(places));
        }
        self.healthy = false;
        self.upper.reload(&table(below, &self.lower, places))
    }

    /// How many writes failed, if that is known.
    fn heal(&mut self, below: Below) -> Result<Option<u64>> {
        if below == Below::Crypt {
            return Ok(Some(self.lower.heal()?.failed_writes));
        }
        if !self.healthy {
            self.upper.reload(&table(below, &self.lower, &[]))?;
            self.healthy = true;
        }
        Ok(None)
    }
}

/// Any key will do.
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\
                   202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f";

impl Disk {
    /// A healthy disk of `size` bytes; a kernel that lacks it is a [`Skip`]. `name` is unique;
    /// `scratch` is an empty directory of ours. Forks: see [`FaultDevice::new`].
    pub fn new(below: Below, size: u64, name: &str, scratch: &Path) -> Result<Disk> {
        for module in below.modules() {
            if !modprobe(module) {
                bail!(Skip(format!("this kernel has no {module}")));
            }
        }
        match below {
            Below::Fault => (),
            Below::Crypt | Below::Flakey | Below::Error => {
                run(Command::new("dmsetup").arg("version"))?;
            }
            // It is loaded with parameters later.
            Below::ScsiDebug => run(Command::new("modprobe").args(["-n", "scsi_debug"]))
                .map_err(|_| Skip("this kernel has no scsi_debug".to_owned()))?,
        }
        let layers = match below {
            Below::Fault => Layers::Fault(FaultDevice::new(size, scratch)?),
            Below::Crypt | Below::Flakey | Below::Error => {
                let lower = FaultDevice::new(size, scratch)?;
                let name = format!("msync-trace-{}-{name}", std::process::id());
                let upper = Mapper::create(&name, &table(below, &lower, &[]))?;
                Layers::Mapped(Mapped {
                    upper,
                    lower,
                    healthy: true,
                })
            }
            Below::ScsiDebug => Layers::Scsi(ScsiDebug::new(size)?),
        };
        Ok(Disk { below, layers })
    }

    /// What it is.
    pub fn below(&self) -> Below {
        self.below
    }

    /// The block device for the file system.
    pub fn path(&self) -> &Path {
        match &self.layers {
            Layers::Fault(device) => device.path(),
            Layers::Mapped(mapped) => mapped.upper.path(),
            Layers::Scsi(disk) => disk.path(),
        }
    }

    /// Our own disk, with everything that it can do, for stories that ask for [`Asks::Anything`].
    pub fn fault_device(&mut self) -> Result<&mut FaultDevice> {
        match &mut self.layers {
            Layers::Fault(device) => Ok(device),
            _ => bail!("{} cannot do this", self.below.name()),
        }
    }

    /// From now on writes fail that touch these bytes, or all of them if the disk cannot tell.
    pub fn fail_in(&mut self, places: &[Range<u64>]) -> Result<()> {
        match &mut self.layers {
            Layers::Fault(device) => device.fail(refuse(places)),
            Layers::Mapped(mapped) => mapped.fail_in(self.below, places),
            Layers::Scsi(disk) => disk.fail(),
        }
    }

    /// From now on all writes fail.
    pub fn fail_everywhere(&mut self) -> Result<()> {
        self.fail_in(std::slice::from_ref(&(0..self.size())))
    }

    fn size(&self) -> u64 {
        match &self.layers {
            Layers::Fault(device) => device.image().size(),
            Layers::Mapped(mapped) => mapped.lower.image().size(),
            Layers::Scsi(disk) => disk.size(),
        }
    }

    /// Everything works again. How many writes failed, if the disk counts them.
    pub fn heal(&mut self) -> Result<Option<u64>> {
        match &mut self.layers {
            Layers::Fault(device) => Ok(Some(device.heal()?.failed_writes)),
            Layers::Mapped(mapped) => mapped.heal(self.below),
            Layers::Scsi(disk) => disk.heal().map(Some),
        }
    }

    /// What a power cut right now would leave: of an encrypted disk what is below the encryption,
    /// to be read through it again. What became of the writes is known of our own disk only.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        match &mut self.layers {
            Layers::Fault(device) => device.snapshot(),
            Layers::Mapped(mapped) => mapped.lower.snapshot(),
            Layers::Scsi(disk) => Ok(Snapshot {
                image: disk.copy()?,
                fates: BTreeMap::new(),
                mixed: BTreeSet::new(),
                newest: 0,
            }),
        }
    }

    /// Forgets what became of the writes so far.
    pub fn forget(&mut self) -> Result<()> {
        match &mut self.layers {
            Layers::Fault(device) => device.forget(),
            Layers::Mapped(mapped) => mapped.lower.forget(),
            Layers::Scsi(_) => Ok(()),
        }
    }

    /// Puts the bytes of a snapshot on the disk. Only while nothing is mounted.
    pub fn restore(&self, image: &Image) -> Result<()> {
        match &self.layers {
            Layers::Fault(device) => device.restore(image),
            Layers::Mapped(mapped) => {
                // What it has cached must not be written later.
                mapped.upper.drop_cache()?;
                mapped.lower.restore(image)?;
                mapped.upper.drop_cache()
            }
            Layers::Scsi(disk) => disk.restore(image),
        }
    }

    /// Brings to the disk what the kernel has cached of the device itself.
    pub fn write_out(&self) -> Result<()> {
        let device = std::fs::OpenOptions::new().write(true).open(self.path())?;
        device.sync_all().context("fsync of the device")
    }
}

fn refuse(places: &[Range<u64>]) -> Vec<FaultRule> {
    let effect = Effect::Fail {
        errno: libc::EIO,
        torn: false,
    };
    let rule =
        |place: &Range<u64>| FaultRule::new(Access::Write, Place::Bytes(place.clone()), effect);
    places.iter().map(rule).collect()
}

/// The table of the upper device.
fn table(below: Below, lower: &FaultDevice, bad: &[Range<u64>]) -> String {
    let (size, path) = (lower.image().size(), lower.path());
    match below {
        Below::Crypt => format!(
            "0 {} crypt aes-xts-plain64 {KEY} 0 {} 0",
            size / 512,
            path.display()
        ),
        Below::Flakey => split(size, path, bad, |below, first| {
            // Never up, down for an hour at a time.
            format!("flakey {below} {first} 0 3600 1 error_writes")
        }),
        _ => split(size, path, bad, |_, _| "error".to_owned()),
    }
}
