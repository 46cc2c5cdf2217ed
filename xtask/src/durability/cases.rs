//! What can happen to a record.

use std::{
    fs::{self, File},
    ops::Range,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{
    record::{self, Contents},
    writer::{Stored, Writer},
};
use crate::{
    faults::{self, Access, Effect, FaultDevice, FaultRule},
    scenarios::{
        extents,
        volume::{Kind, Volume},
    },
};

/// A case.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What happens.
    pub story: &'static str,
    /// Where.
    pub on: &'static [Kind],
    /// Plays it; what was seen, in a few words.
    pub play: fn(&mut Place) -> Result<String>,
}

const EXT4: &[Kind] = &[Kind::Ext4];
const BOTH: &[Kind] = &[Kind::Ext4, Kind::Xfs];

/// All of them.
pub const CASES: &[Case] = &[
    Case {
        name: "killed",
        story: "kill -9 at some moment, again and again",
        on: BOTH,
        play: killed,
    },
    Case {
        name: "power_cut",
        story: "the power fails: of what was not flushed each sector is kept or not",
        on: BOTH,
        play: power_cut,
    },
    Case {
        name: "write_errors",
        story: "writes fail for a while",
        on: BOTH,
        play: write_errors,
    },
    Case {
        name: "full",
        story: "the disk is full for a while",
        on: BOTH,
        play: full,
    },
    Case {
        name: "shut_down",
        story: "the file system is shut down",
        on: BOTH,
        play: shut_down,
    },
    Case {
        name: "mounted_anew",
        story: "the file system is shut down, unmounted and mounted again while the writer lives",
        on: BOTH,
        play: mounted_anew,
    },
    Case {
        name: "read_only",
        story: "writes fail until the file system lets nobody write any more",
        on: EXT4,
        play: read_only,
    },
    Case {
        name: "gone",
        story: "the disk answers nothing but errors any more",
        on: EXT4,
        play: gone,
    },
];

/// How many power cuts, and how many kills.
const CUTS: u64 = 7;
const KILLS: u64 = 3;
/// By then the log of the record is full and begins anew: its blocks do not change any more.
const LOG_FULL: u64 = 300;
/// For this long the disk is in trouble.
const TROUBLE: Duration = Duration::from_millis(300);

const GOES_ON: &str = "tracing goes on";
const WRITTEN_AGAIN: &str = "can be written again";

/// Where a record is written.
pub struct Place<'a> {
    volume: &'a mut Volume,
    writer: &'a Path,
    dice: fastrand::Rng,
}

impl<'a> Place<'a> {
    /// An empty file system on a healthy disk.
    pub fn new(volume: &'a mut Volume, writer: &'a Path, seed: u64) -> Result<Self> {
        volume.take()?;
        let dice = fastrand::Rng::with_seed(seed);
        Ok(Self {
            volume,
            writer,
            dice,
        })
    }

    fn record(&self) -> PathBuf {
        self.volume.path().join("a.db")
    }

    fn write(&self) -> Result<Writer> {
        Writer::start(self.writer, &self.record())
    }

    fn disk(&mut self) -> Result<&mut FaultDevice> {
        self.volume.device.fault_device()
    }

    fn wait_a_moment(&mut self) {
        thread::sleep(Duration::from_micros(self.dice.u64(..200_000)));
    }

    /// The disk without whoever had it mounted: nothing but what is on it.
    fn after_power_cut(&mut self) -> Result<()> {
        let left = self.disk()?.snapshot()?.image;
        self.volume.revive(&left)
    }

    /// It is still a record: the next run stores what comes.
    fn goes_on(&self) -> Result<Contents> {
        let before = record::read(&self.record())?;
        let mut writer = self.write()?;
        writer.wait_for_incidents(3)?;
        let ended = writer.stop()?;
        let after = record::read(&self.record())?;
        ensure!(!ended.failed, "the next run could not store everything");
        ensure!(after.runs == before.runs + 1, "{after:?} after {before:?}");
        after.hold(Stored {
            facts: before.there.facts + ended.stored.facts,
            incidents: before.there.incidents + ended.stored.incidents,
        })?;
        Ok(after)
    }
}

fn killed(place: &mut Place) -> Result<String> {
    let mut said = Stored::default();
    for _ in 0..KILLS {
        let mut writer = place.write()?;
        writer.wait_for_incidents(1)?;
        place.wait_a_moment();
        let stored = writer.kill()?;
        said.facts += stored.facts;
        said.incidents += stored.incidents;
        record::read(&place.record())?.hold(said)?;
    }
    place.goes_on()?;
    Ok(format!("{KILLS} kills, {} incidents", said.incidents))
}

fn power_cut(place: &mut Place) -> Result<String> {
    place.disk()?.have_cache()?;
    let mut writer = place.write()?;
    let mut cuts = Vec::new();
    for seed in 0..CUTS {
        place.wait_a_moment();
        // In this order: what is said during the cut may be lost.
        let said = writer.stored()?;
        cuts.push((said, place.disk()?.cut_power(seed)?));
    }
    writer.kill()?;
    for (said, left) in &cuts {
        place
            .volume
            .revive(left)
            .context("mount after the power cut")?;
        let record = place.record();
        if record.exists() || *said != Stored::default() {
            record::read(&record)?.hold(*said)?;
        }
    }
    place.goes_on()?;
    let last = cuts.last().map_or(0, |(said, _)| said.incidents);
    Ok(format!("{CUTS} cuts, {last} incidents before the last"))
}

/// The blocks of the record and its log.
fn blocks(record: &Path) -> Result<Vec<Range<u64>>> {
    let mut blocks = Vec::new();
    for ending in ["", "-wal"] {
        let mut name = record.as_os_str().to_owned();
        name.push(ending);
        blocks.extend(extents::on_disk(&File::open(name)?, 0..u64::MAX)?);
    }
    Ok(blocks)
}

fn failing(on: Access, place: faults::Place) -> FaultRule {
    let effect = Effect::Fail {
        errno: libc::EIO,
        torn: false,
    };
    FaultRule::new(on, place, effect)
}

fn write_errors(place: &mut Place) -> Result<String> {
    let mut writer = place.write()?;
    writer.wait_for_incidents(LOG_FULL)?;
    let blocks = blocks(&place.record())?;
    let rules = blocks
        .into_iter()
        .map(|bytes| failing(Access::Write, faults::Place::Bytes(bytes)));
    place.disk()?.fail(rules.collect())?;
    writer.wait_for_words(GOES_ON)?;
    thread::sleep(TROUBLE);
    place.disk()?.heal()?;
    writer.wait_for_words(WRITTEN_AGAIN)?;
    recovered(place, writer)
}

/// Nothing is missing after a while in which it could not be written.
fn recovered(place: &mut Place, writer: Writer) -> Result<String> {
    let ended = writer.stop()?;
    ensure!(!ended.failed, "not everything was stored at the end");
    place.after_power_cut()?;
    let contents = record::read(&place.record())?;
    contents.hold(ended.stored)?;
    ensure!(contents.gaps > 0, "the gap is not in the record");
    place.goes_on()?;
    Ok(format!("{} incidents, none lost", ended.stored.incidents))
}

fn full(place: &mut Place) -> Result<String> {
    let mut writer = place.write()?;
    writer.wait_for_incidents(1)?;
    let filler = place.volume.path().join("filler");
    fill(&filler)?;
    writer.wait_for_words(GOES_ON)?;
    thread::sleep(TROUBLE);
    fs::remove_file(&filler)?;
    writer.wait_for_words(WRITTEN_AGAIN)?;
    recovered(place, writer)
}

/// Takes all the room there is.
fn fill(filler: &Path) -> Result<()> {
    let filler = File::create(filler)?;
    let mut at = 0;
    let mut piece: libc::off_t = 16 << 20;
    while piece >= 4096 {
        // SAFETY: our own descriptor; touches no memory.
        match unsafe { libc::fallocate(filler.as_raw_fd(), 0, at, piece) } {
            0 => at += piece,
            _ => piece /= 2,
        }
    }
    Ok(())
}

fn shut_down(place: &mut Place) -> Result<String> {
    let mut writer = place.write()?;
    writer.wait_for_incidents(20)?;
    let root = File::open(place.volume.path())?;
    go_down(place.volume.kind, &root)?;
    drop(root);
    let said = goes_on_for_nothing(&mut writer)?;
    writer.kill()?;
    is_all_there(place, said)
}

fn mounted_anew(place: &mut Place) -> Result<String> {
    let mut writer = place.write()?;
    writer.wait_for_incidents(20)?;
    let root = File::open(place.volume.path())?;
    go_down(place.volume.kind, &root)?;
    drop(root);
    writer.wait_for_words(GOES_ON)?;
    // Refused as long as anybody has a file open there.
    place.volume.unmount()?;
    thread::sleep(TROUBLE);
    let beneath = fs::read_dir(place.volume.path())?.count();
    ensure!(beneath == 0, "it wrote into the bare mount point");
    place.volume.mount("")?;
    writer.wait_for_words(WRITTEN_AGAIN)?;
    recovered(place, writer)
}

/// `EXT4_IOC_SHUTDOWN` and `XFS_IOC_GOINGDOWN`, which are the same: `_IOR('X', 125, __u32)`.
const GOING_DOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;

/// Writes out everything, lets nobody in meanwhile, then refuses everything.
fn go_down(kind: Kind, root: &File) -> Result<()> {
    let flush: u32 = 0;
    // SAFETY: the argument is the number that the call reads.
    match unsafe { libc::ioctl(root.as_raw_fd(), GOING_DOWN, &raw const flush) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()).context(format!("shut {} down", kind.name())),
    }
}

fn read_only(place: &mut Place) -> Result<String> {
    place.volume.unmount()?;
    place.volume.mount("errors=remount-ro")?;
    let mut writer = place.write()?;
    writer.wait_for_incidents(20)?;
    let rule = failing(Access::Write, faults::Place::Anywhere);
    place.disk()?.fail(vec![rule])?;
    let said = goes_on_for_nothing(&mut writer)?;
    place.disk()?.heal()?;
    writer.lives()?;
    writer.kill()?;
    is_all_there(place, said)
}

fn gone(place: &mut Place) -> Result<String> {
    let mut writer = place.write()?;
    writer.wait_for_incidents(20)?;
    let all = [Access::Read, Access::Write, Access::Flush];
    let rules = all.map(|on| failing(on, faults::Place::Anywhere));
    place.disk()?.fail(rules.into())?;
    never_again(place, writer)
}

/// Says at the end that not everything is stored.
fn never_again(place: &mut Place, mut writer: Writer) -> Result<String> {
    let said = goes_on_for_nothing(&mut writer)?;
    let ended = writer.stop()?;
    ensure!(ended.failed, "it says that everything was stored");
    ensure!(
        ended.stored == said,
        "nothing could be stored, yet it says so: {said:?}, {:?}",
        ended.stored
    );
    is_all_there(place, said)
}

/// Whoever writes goes on while nothing can be stored. What is stored by then.
fn goes_on_for_nothing(writer: &mut Writer) -> Result<Stored> {
    writer.wait_for_words(GOES_ON)?;
    let said = writer.stored()?;
    thread::sleep(TROUBLE);
    writer.lives()?;
    Ok(said)
}

/// What was said to be stored is there when the disk answers again.
fn is_all_there(place: &mut Place, said: Stored) -> Result<String> {
    place.after_power_cut()?;
    record::read(&place.record())?.hold(said)?;
    place.goes_on()?;
    Ok(format!("{} incidents before it", said.incidents))
}
