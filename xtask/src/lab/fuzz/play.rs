//! Plays a list of actions on a scratch file system, and remembers what the disk had whenever an
//! msync gave 0.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};

use super::action::{Action, FILES, Fault, Handle, MAPPINGS, PAGES, PROGRAMS, View};
use super::truth::{Disk, Page, Point};
use crate::faults::{Access, BLOCK, Effect, FaultRule, Place, Snapshot};
use crate::scenarios::page::{DOOMED, Stamp};
use crate::scenarios::program::{Ask, By, Open, Outcome, Program, Step, kernel_time};
use crate::scenarios::volume::Volume;

/// What came out of a run.
pub struct Played {
    /// The msyncs that gave 0 after a write had failed, in order, with what the disk had then.
    pub points: Vec<Point>,
    /// Kernel time of begin and end.
    pub time: Range<u64>,
}

/// Plays the actions in a folder of their own below the mount point. The volume must be mounted,
/// and is afterwards.
pub fn play(volume: &mut Volume, name: &str, actions: &[Action]) -> Result<Played> {
    let begin = kernel_time();
    let directory = volume.path().join(name);
    std::fs::create_dir(&directory)?;
    volume.device.heal()?;
    volume.device.forget()?;
    let mut player = Player {
        volume,
        directory: directory.clone(),
        files: Vec::new(),
        current: [0; FILES],
        programs: Default::default(),
        generation: 0,
        failed_writes: 0,
        moments: Vec::new(),
    };
    for number in 0..FILES {
        player.current[number] = player.create(format!("file{number}"))?;
    }
    for (number, action) in actions.iter().enumerate() {
        player
            .act(action)
            .with_context(|| format!("action {number}, {action:?}"))?;
    }
    let moments = player.end()?;
    let points = read_the_disk(volume, moments)?;
    std::fs::remove_dir_all(&directory)?;
    let time = begin..kernel_time();
    Ok(Played { points, time })
}

/// A file, deleted or not.
struct FuzzFile {
    /// Every name it had, the present one last.
    names: Vec<String>,
    linked: bool,
    size: u64,
    ino: u64,
    /// What was stored into it and not given up.
    pages: BTreeMap<u64, Page>,
}

/// A running program and what it has open: a slot and an index into the player's files.
struct Running {
    program: Program,
    open: [Option<(usize, usize)>; FILES],
    slots: usize,
}

/// An msync that gave 0.
struct Moment {
    point: Point,
    names: Vec<PathBuf>,
    disk: Rc<Snapshot>,
}

struct Player<'a> {
    volume: &'a mut Volume,
    directory: PathBuf,
    files: Vec<FuzzFile>,
    /// The file that has each of the names now.
    current: [usize; FILES],
    programs: [Option<Running>; PROGRAMS],
    generation: u64,
    /// Before the last heal.
    failed_writes: u64,
    moments: Vec<Moment>,
}

impl Player<'_> {
    fn act(&mut self, action: &Action) -> Result<()> {
        match action {
            Action::Store(view) => self.store(view),
            Action::Msync(view, by) => self.msync(view, *by),
            Action::MsyncAsync(view) => {
                if let Some(arena) = self.arena(view) {
                    self.step(view.handle, |_| {
                        Step::Sync(Ask::MsyncAsync(arena), By::Main)
                    })?;
                }
                Ok(())
            }
            Action::Fsync(handle) => self.sync(*handle, Ask::Fsync),
            Action::Fdatasync(handle) => self.sync(*handle, Ask::Fdatasync),
            Action::SyncFileRange(handle) => self.sync(*handle, Ask::FileRange),
            Action::Fail(fault) => self
                .volume
                .device
                .fault_device()?
                .add(rule(fault))
                .map(drop),
            Action::Heal => self.heal(),
            Action::WriteBack => self.write_back(),
            Action::Resize(handle, pages) => self.resize(*handle, *pages),
            Action::Punch(handle, pages) => self.punch(*handle, pages),
            Action::Rename(number) => self.rename(*number),
            Action::Replace(number) => self.replace(*number),
            Action::DropCache(handle) => {
                let file = self.file(*handle)?;
                self.step(*handle, Step::DropCache)?;
                self.files[file].cache_dropped();
                Ok(())
            }
            Action::EvictInodes => {
                std::fs::write("/proc/sys/vm/drop_caches", "2").context("drop_caches")?;
                self.files.iter_mut().for_each(FuzzFile::cache_dropped);
                Ok(())
            }
            Action::Reopen(handle) => self.close(*handle),
            Action::End(number) => {
                self.programs[*number] = None;
                Ok(())
            }
            Action::Remount => {
                self.programs = Default::default();
                self.volume.unmount()?;
                self.volume.mount("")?;
                self.files.iter_mut().for_each(FuzzFile::cache_dropped);
                Ok(())
            }
        }
    }

    fn create(&mut self, name: String) -> Result<usize> {
        let file = std::fs::File::create_new(self.directory.join(&name))?;
        file.set_len(PAGES * BLOCK as u64)?;
        file.sync_all()?;
        self.files.push(FuzzFile {
            names: vec![name],
            linked: true,
            size: PAGES,
            ino: std::os::unix::fs::MetadataExt::ino(&file.metadata()?),
            pages: BTreeMap::new(),
        });
        Ok(self.files.len() - 1)
    }

    /// Starts the program and opens the file, as far as that has not happened yet. The file, which
    /// may have been replaced since.
    fn file(&mut self, handle: Handle) -> Result<usize> {
        let Handle { program, file } = handle;
        let running = match &mut self.programs[program] {
            Some(running) => running,
            empty => empty.insert(Running {
                program: Program::start("fuzzed", &self.directory, Rc::default(), Rc::default())?,
                open: [None; FILES],
                slots: 0,
            }),
        };
        if let Some((_, opened)) = running.open[file] {
            return Ok(opened);
        }
        let opened = self.current[file];
        let path = self.directory.join(self.files[opened].name());
        running
            .program
            .step(&Step::Open(path, Open::Existing))?
            .must_be(0)
            .context("open")?;
        let slot = running.slots;
        running.slots += 1;
        running.open[file] = Some((slot, opened));
        for (number, shows) in MAPPINGS.iter().enumerate() {
            let map = Step::Map {
                slot,
                at: arena_start(file, number),
                first: shows.start,
                pages: shows.end - shows.start,
            };
            running.program.step(&map)?.must_be(0).context("mmap")?;
        }
        Ok(opened)
    }

    /// Makes the program do a step on the file's slot.
    fn step(&mut self, handle: Handle, step: impl FnOnce(usize) -> Step) -> Result<Outcome> {
        self.file(handle)?;
        let running = self.programs[handle.program].as_mut();
        let running = running.context("the program runs")?;
        let (slot, _) = running.open[handle.file].context("the file is open")?;
        running.program.step(&step(slot))
    }

    fn close(&mut self, handle: Handle) -> Result<()> {
        let Some(running) = &mut self.programs[handle.program] else {
            return Ok(());
        };
        let Some((slot, _)) = running.open[handle.file].take() else {
            return Ok(());
        };
        for (number, shows) in MAPPINGS.iter().enumerate() {
            let start = arena_start(handle.file, number);
            let arena = start..start + shows.end - shows.start;
            running.program.step(&Step::Unmap(arena))?.must_be(0)?;
        }
        // A close may report the write error; that is no promise of any kind.
        running.program.step(&Step::Close(slot))?;
        Ok(())
    }

    /// Where the pages are in the program's address space; nothing if the mapping shows none.
    fn arena(&self, view: &View) -> Option<Range<u64>> {
        let shows = &MAPPINGS[view.mapping];
        let pages = clip(&view.pages, shows)?;
        let start = arena_start(view.handle.file, view.mapping) + pages.start - shows.start;
        Some(start..start + pages.end - pages.start)
    }

    fn store(&mut self, view: &View) -> Result<()> {
        let file = self.file(view.handle)?;
        let pages = clip(&view.pages, &(0..self.files[file].size));
        let Some(pages) = pages.and_then(|pages| clip(&pages, &MAPPINGS[view.mapping])) else {
            return Ok(());
        };
        let clipped = View {
            pages: pages.clone(),
            ..view.clone()
        };
        let Some(arena) = self.arena(&clipped) else {
            return Ok(());
        };
        self.generation += 1;
        let generation = self.generation;
        let store = Step::Store {
            at: arena.start,
            first: pages.start,
            pages: pages.end - pages.start,
            stamp: stamp(generation),
        };
        self.step(view.handle, |_| store)?.must_be(0)?;
        self.files[file].stored(pages, generation);
        Ok(())
    }

    fn msync(&mut self, view: &View, by: By) -> Result<()> {
        let file = self.file(view.handle)?;
        let Some(arena) = self.arena(view) else {
            return Ok(());
        };
        let begin = kernel_time();
        let outcome = self.step(view.handle, |_| Step::Sync(Ask::Msync(arena), by))?;
        let time = begin..kernel_time();
        if outcome.errno != 0 {
            return Ok(());
        }
        let status = self.volume.device.fault_device()?.status()?;
        if self.failed_writes + status.failed_writes == 0 {
            // Nothing can be lost yet.
            return Ok(());
        }
        let disk = match self.moments.last() {
            Some(last) if last.disk.newest == status.newest => Rc::clone(&last.disk),
            _ => Rc::new(self.volume.device.snapshot()?),
        };
        let lied = &self.files[file];
        let mut names: Vec<PathBuf> = Vec::new();
        if lied.linked {
            names.extend(
                lied.names
                    .iter()
                    .rev()
                    .map(|name| self.directory.join(name)),
            );
        }
        let pages = lied.pages.iter().map(|(number, page)| {
            let mut page = page.clone();
            let fate = |generation| disk.fates.get(&stamp(generation).header(*number)).copied();
            page.fates = page.generations.iter().map(|g| fate(*g)).collect();
            (*number, page)
        });
        let point = Point {
            pid: outcome.pid,
            time,
            file,
            ino: lied.ino,
            requested: clip(&view.pages, &MAPPINGS[view.mapping]).unwrap_or_default(),
            pages: pages.collect(),
            mixed: disk.mixed.clone(),
            size: lied.size,
            disk: Disk::Unknown,
        };
        self.moments.push(Moment { point, names, disk });
        Ok(())
    }

    fn sync(&mut self, handle: Handle, ask: fn(usize) -> Ask) -> Result<()> {
        self.step(handle, |slot| Step::Sync(ask(slot), By::Main))?;
        Ok(())
    }

    fn heal(&mut self) -> Result<()> {
        self.failed_writes += self.volume.device.fault_device()?.heal()?.failed_writes;
        Ok(())
    }

    fn write_back(&mut self) -> Result<()> {
        let root = std::fs::File::open(self.volume.path())?;
        // SAFETY: touches no memory. It fails if a write does, which is what it is for.
        unsafe { libc::syncfs(root.as_raw_fd()) };
        Ok(())
    }

    fn resize(&mut self, handle: Handle, pages: u64) -> Result<()> {
        let file = self.file(handle)?;
        let bytes = pages * BLOCK as u64;
        let outcome = self.step(handle, |slot| Step::Resize(slot, bytes))?;
        let file = &mut self.files[file];
        match outcome.errno {
            0 => {
                file.size = pages;
                file.give_up(pages..u64::MAX);
            }
            // It was written out first, which failed. Its size is the old one or the new one.
            _ => {
                file.size = file.size.min(pages);
                file.give_up_in_vain(pages..u64::MAX);
            }
        }
        Ok(())
    }

    fn punch(&mut self, handle: Handle, pages: &Range<u64>) -> Result<()> {
        let file = self.file(handle)?;
        let hole = pages.clone();
        let outcome = self.step(handle, |slot| Step::Punch(slot, hole))?;
        match outcome.errno {
            0 => self.files[file].give_up(pages.clone()),
            _ => self.files[file].give_up_in_vain(pages.clone()),
        }
        Ok(())
    }

    fn rename(&mut self, number: usize) -> Result<()> {
        let file = &mut self.files[self.current[number]];
        let name = format!("{}+", file.name());
        std::fs::rename(self.directory.join(file.name()), self.directory.join(&name))?;
        file.names.push(name);
        Ok(())
    }

    fn replace(&mut self, number: usize) -> Result<()> {
        let file = &mut self.files[self.current[number]];
        let name = file.name().to_owned();
        std::fs::remove_file(self.directory.join(&name))?;
        file.linked = false;
        self.current[number] = self.create(name)?;
        Ok(())
    }

    fn end(mut self) -> Result<Vec<Moment>> {
        self.programs = Default::default();
        self.heal()?;
        Ok(self.moments)
    }
}

impl FuzzFile {
    fn name(&self) -> &str {
        self.names.last().map_or("", String::as_str)
    }

    fn stored(&mut self, pages: Range<u64>, generation: u64) {
        for page in self.pages.values_mut() {
            page.read_again |= page.cache_dropped;
        }
        for number in pages {
            let page = self.pages.entry(number).or_default();
            page.generations.push(generation);
            page.cache_dropped = false;
            page.read_again = false;
            page.in_doubt = false;
        }
    }

    fn give_up(&mut self, pages: Range<u64>) {
        self.pages.retain(|page, _| !pages.contains(page));
    }

    fn give_up_in_vain(&mut self, pages: Range<u64>) {
        for (_, page) in self.pages.range_mut(pages) {
            page.in_doubt = true;
        }
    }

    fn cache_dropped(&mut self) {
        for page in self.pages.values_mut() {
            page.cache_dropped = true;
        }
    }
}

fn arena_start(file: usize, mapping: usize) -> u64 {
    (file * MAPPINGS.len() + mapping) as u64 * PAGES
}

fn clip(pages: &Range<u64>, to: &Range<u64>) -> Option<Range<u64>> {
    let clipped = pages.start.max(to.start)..pages.end.min(to.end);
    (!clipped.is_empty()).then_some(clipped)
}

fn stamp(generation: u64) -> Stamp {
    Stamp {
        generation,
        doomed: true,
    }
}

fn rule(fault: &Fault) -> FaultRule {
    let Fault {
        pages,
        errno,
        torn,
        nth,
        probability,
        seed,
    } = fault.clone();
    FaultRule {
        on: Access::Write,
        place: Place::Carrying {
            marker: DOOMED,
            pages,
        },
        effect: Effect::Fail { errno, torn },
        nth,
        probability,
        seed,
    }
}

/// Mounts what a power cut would have left at each moment and reads the files. The volume ends as
/// it was: numbers of inodes must not come a second time.
fn read_the_disk(volume: &mut Volume, moments: Vec<Moment>) -> Result<Vec<Point>> {
    if moments.is_empty() {
        return Ok(Vec::new());
    }
    volume.unmount()?;
    let present = volume.device.snapshot()?.image;
    let mut points = Vec::new();
    let mut mounted = None;
    for Moment {
        mut point,
        names,
        disk,
    } in moments
    {
        if !names.is_empty() {
            if mounted != Some(disk.newest) {
                volume.revive(&disk.image)?;
                mounted = Some(disk.newest);
            }
            point.disk = read_file(&names, &point.pages);
        }
        points.push(point);
    }
    volume.revive(&present)?;
    Ok(points)
}

/// The pages that the disk has as they were stored last.
fn read_file(names: &[PathBuf], pages: &BTreeMap<u64, Page>) -> Disk {
    let open = |name: &PathBuf| std::fs::File::open(Path::new(name)).ok();
    let Some(file) = names.iter().find_map(open) else {
        return Disk::Has(Default::default());
    };
    let kept = |number: u64, page: &Page| {
        let mut bytes = [0; BLOCK];
        let read = file.read_at(&mut bytes, number * BLOCK as u64);
        // A page that cannot be read back (a btrfs checksum) is as lost as one that differs.
        let owed = page.generations.last();
        matches!((read, owed), (Ok(BLOCK), Some(owed)) if bytes == stamp(*owed).bytes(number))
    };
    let kept = pages.iter().filter(|(number, page)| kept(**number, page));
    Disk::Has(kept.map(|(number, _)| *number).collect())
}
