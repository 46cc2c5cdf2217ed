//! `serve` for long: storms, restarts, outputs that fail, rotations, in little memory. What must hold
//! then is that each loss is told once in every output, and that nothing grows.

mod cgroup;
mod outputs;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    cases::Size,
    disk::{Disk, run, spoil},
    sync_loops::Mapping,
};
use crate::{daemon::Daemon, faults::BLOCK, http, step::progress};
use cgroup::Cgroup;
use outputs::{Found, Journal};

/// What the packaged unit allows.
const MEMORY: u64 = 64 << 20;
/// How often it says how far it is.
const SAID_EVERY: Duration = Duration::from_secs(30);
/// How long a loss may take to be told.
const PATIENCE: Duration = Duration::from_secs(20);
/// How much may be resident while nothing happens, MiB, with all outputs on. 6 of them are the rings of
/// the kernel side, which count twice.
const IDLE: f64 = 18.0;
/// How much more of a process may be resident in its last quarter than in its second, MiB. (In the
/// first it meets some of its code for the first time.)
const GROWTH: f64 = 2.0;

/// The file of the JSON lines; the names of older ones begin so.
const LINES: &str = "lines.jsonl";

/// What else happens while data is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    /// The disk of the JSON lines is full.
    JsonFull,
    /// SIGTERM and a start between failure and msync.
    Stopped,
    /// The command of each incident fails.
    CommandFails,
    /// SIGKILL and a start between failure and msync.
    Killed,
    /// The disk of the store fails.
    StoreFails,
    /// SIGKILL after the failure, a start after the msync.
    KilledDuringMsync,
    /// The command of each incident hangs.
    CommandHangs,
    /// Failure and msync happen while none runs.
    Away,
    /// What logrotate does.
    Rotated,
    /// More than it serves at once ask for its metrics, and send half of their question.
    SlowReaders,
}

/// In this order, again and again.
const TROUBLES: [Trouble; 11] = [
    Trouble::None,
    Trouble::JsonFull,
    Trouble::Stopped,
    Trouble::CommandFails,
    Trouble::Killed,
    Trouble::StoreFails,
    Trouble::KilledDuringMsync,
    Trouble::CommandHangs,
    Trouble::Away,
    Trouble::Rotated,
    Trouble::SlowReaders,
];

/// Without those that begin a new process: in the last two fifths of the time.
const TROUBLES_OF_ONE: [Trouble; 7] = [
    Trouble::None,
    Trouble::JsonFull,
    Trouble::CommandFails,
    Trouble::StoreFails,
    Trouble::CommandHangs,
    Trouble::Rotated,
    Trouble::SlowReaders,
];

/// The case.
pub fn play(program: &Path, size: Size) -> Result<String> {
    let mut world = World::new(program, size)?;
    let time = Duration::from_secs(size.serve_seconds);
    world.start()?;
    world.idle = world.resident_when_idle()?;
    let began = Instant::now();
    world.rounds_until(began + time.mul_f64(0.6), &TROUBLES)?;
    // From here on one process.
    world.resident_of_one = world.resident.len();
    world.rounds_until(began + time, &TROUBLES_OF_ONE)?;
    world.end()
}

/// All that there is. What is dropped first stands first.
struct World {
    program: PathBuf,
    size: Size,
    serve: Option<Daemon>,
    cgroup: Cgroup,
    journal: Journal,
    /// Where the store is, where the JSON lines are, where data is lost. What stands behind a disk has a hold
    /// of those that were made before it.
    store: Disk,
    json: Disk,
    lossy: Disk,
    folder: tempfile::TempDir,
    /// Of its metrics.
    port: u16,
    /// Every file that was lost.
    expected: BTreeSet<String>,
    starts: usize,
    /// Resident memory of the daemon before anything is lost, MiB.
    idle: f64,
    /// Of the daemon after each round, MiB; and from which one on it is one process.
    resident: Vec<f64>,
    resident_of_one: usize,
}

impl World {
    fn new(program: &Path, size: Size) -> Result<Self> {
        // They fork, so they come before everything that has threads.
        let lossy = Disk::new(4 * size.serve_files, size.serve_pages)?;
        // A thousand losses take 4 MiB of each.
        let (json, store) = (Disk::new(1, 100_000)?, Disk::new(1, 100_000)?);
        let folder = tempfile::tempdir()?;
        run(Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run"]))?;
        fs::create_dir_all("/run/systemd/journal")?;
        let journal = Journal::listen(Path::new("/run/systemd/journal/socket"))?;
        let world = Self {
            program: program.to_owned(),
            size,
            serve: None,
            cgroup: Cgroup::new(MEMORY)?,
            journal,
            store,
            json,
            lossy,
            folder,
            port: http::free_port()?,
            expected: BTreeSet::new(),
            starts: 0,
            idle: 0.0,
            resident: Vec::new(),
            resident_of_one: 0,
        };
        // What somebody else left pinned would be ours.
        run(Command::new(program).arg("detach"))?;
        fs::write(
            world.at("command"),
            "cat >> \"$1/commands.jsonl\"\n\
             case $(cat \"$1/mode\") in fails) exit 3;; hangs) exec sleep 1000;; esac\n",
        )?;
        world.command_does("works")?;
        Ok(world)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn store(&self) -> PathBuf {
        self.store.path().join("store.db")
    }

    fn lines(&self) -> PathBuf {
        self.json.path().join(LINES)
    }

    fn command_does(&self, what: &str) -> Result<()> {
        Ok(fs::write(self.at("mode"), what)?)
    }

    fn options(&self) -> Vec<String> {
        let command = serde_json::json!(["sh", self.at("command"), self.folder.path()]);
        vec![
            "--journal".to_owned(),
            format!("--json={}", self.lines().display()),
            "--json-max-size=256K".to_owned(),
            "--json-keep=1000".to_owned(),
            format!("--store={}", self.store().display()),
            format!("--metrics-textfile={}", self.at("m.prom").display()),
            "--metrics-interval=1s".to_owned(),
            format!("--listen=127.0.0.1:{}", self.port),
            format!("--on-incident={command}"),
            "--on-incident-timeout=1s".to_owned(),
        ]
    }

    fn start(&mut self) -> Result<()> {
        let (options, log) = (self.options(), self.at("log"));
        let cgroup = &self.cgroup;
        let serve = Daemon::serve_in(&self.program, &options, &log, |command| {
            cgroup.hold(command)
        });
        let serve = serve.with_context(|| self.kills())?;
        self.serve = Some(serve);
        self.starts += 1;
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        let serve = self.serve.take().context("it does not run")?;
        let status = serve.end()?;
        ensure!(status.success(), "serve ended with {status}");
        Ok(())
    }

    /// As `kill -9` does it.
    fn kill(&mut self) {
        self.serve = None;
    }

    fn kills(&self) -> String {
        format!("killed for want of memory: {} times", self.cgroup.kills())
    }

    fn said(&self) -> String {
        fs::read_to_string(self.at("log")).unwrap_or_default()
    }

    fn rounds_until(&mut self, end: Instant, troubles: &[Trouble]) -> Result<()> {
        let mut said = Instant::now();
        while Instant::now() < end {
            let round = self.resident.len();
            let trouble = troubles[round % troubles.len()];
            self.round(trouble)
                .with_context(|| format!("round {round}, {trouble:?}"))?;
            if said.elapsed() > SAID_EVERY {
                said = Instant::now();
                progress(&format!(
                    "serve: {} rounds, {} starts, {} losses, all told, {:.1} MiB resident",
                    round + 1,
                    self.starts,
                    self.expected.len(),
                    self.resident[round]
                ));
            }
        }
        Ok(())
    }

    fn round(&mut self, trouble: Trouble) -> Result<()> {
        let filler = self.json.path().join("filler");
        let (complaints, mended) = (self.complaints(), self.mended());
        match trouble {
            Trouble::JsonFull => self.json.fill(&filler)?,
            Trouble::CommandFails => self.command_does("fails")?,
            Trouble::CommandHangs => self.command_does("hangs")?,
            Trouble::StoreFails => self.store.fail_below(&self.store())?,
            Trouble::Away => self.stop()?,
            _ => {}
        }
        let slow = match trouble {
            Trouble::SlowReaders => slow_readers(self.port)?,
            _ => Vec::new(),
        };
        let storm = Storm::new(self)?;
        storm.fail(self)?;
        self.between(trouble)?;
        storm.lie()?;
        if self.serve.is_none() {
            self.start()?;
        }
        self.wait("all incidents are in the journal", |world| {
            world.journal.found().has_all(&storm.paths)
        })?;
        if matches!(trouble, Trouble::JsonFull | Trouble::StoreFails) {
            self.wait("an output complains", |world| {
                world.complaints() > complaints
            })?;
        }
        match trouble {
            Trouble::JsonFull => fs::remove_file(&filler)?,
            Trouble::StoreFails => self.store.heal()?,
            Trouble::CommandFails | Trouble::CommandHangs => self.command_does("works")?,
            _ => {}
        }
        self.wait(
            "all incidents are in the JSON lines and in the store",
            |world| {
                // Before that a reader can see rows of a commit that failed.
                (trouble != Trouble::StoreFails || world.mended() > mended)
                    && outputs::newest_lines_have(world.json.path(), LINES, &storm.paths)
                    && outputs::store_has(&world.store(), &storm.paths)
            },
        )?;
        if trouble == Trouble::StoreFails {
            // Not only in the page cache.
            fs::write("/proc/sys/vm/drop_caches", "1")?;
            ensure!(
                outputs::store_has(&self.store(), &storm.paths),
                "what was said to be stored is not on the disk"
            );
        }
        drop(slow);
        self.expected.extend(storm.paths.iter().cloned());
        self.lossy.heal()?;
        storm.delete()?;
        self.resident.push(self.resident()?);
        Ok(())
    }

    /// What happens between failure and msync.
    fn between(&mut self, trouble: Trouble) -> Result<()> {
        match trouble {
            Trouble::Stopped => {
                self.stop()?;
                self.start()
            }
            Trouble::Killed => {
                self.kill();
                self.start()
            }
            Trouble::KilledDuringMsync => {
                self.kill();
                Ok(())
            }
            Trouble::Rotated => self.rotate(),
            _ => Ok(()),
        }
    }

    /// How often the JSON lines or the store began to fail.
    fn complaints(&self) -> usize {
        let said = self.said();
        let times = |what| said.matches(what).count();
        times("the output json fails") + times("tracing goes on")
    }

    /// How often the store said that it can be written again.
    fn mended(&self) -> usize {
        self.said().matches("can be written again").count()
    }

    /// What logrotate does with the file that is being written.
    fn rotate(&mut self) -> Result<()> {
        let moved = format!("{LINES}.moved-{}", self.resident.len());
        fs::rename(self.lines(), self.json.path().join(moved))?;
        let serve = self.serve.as_ref().context("it does not run")?;
        serve.signal(libc::SIGHUP);
        Ok(())
    }

    fn wait(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            if let Some(serve) = &mut self.serve {
                let runs = serve.must_run();
                runs.with_context(|| self.kills())?;
            }
            if Instant::now() > deadline {
                bail!(
                    "waited too long until {what}; {}",
                    self.serve
                        .as_ref()
                        .map(Daemon::last_words)
                        .unwrap_or_default()
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// A moment after the start, when what it took is given back.
    fn resident_when_idle(&mut self) -> Result<f64> {
        self.wait("it is idle in little memory", |world| {
            world.resident().is_ok_and(|resident| resident < IDLE)
        })?;
        self.resident()
    }

    /// Of the daemon, MiB.
    fn resident(&self) -> Result<f64> {
        let serve = self.serve.as_ref().context("it does not run")?;
        let status = fs::read_to_string(format!("/proc/{}/status", serve.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.context("no VmRSS")?.parse::<f64>()? / 1024.0)
    }

    /// Holds every output to what happened.
    fn end(&mut self) -> Result<String> {
        self.stop()?;
        run(Command::new(&self.program).arg("detach"))?;
        let expected = &self.expected;
        let json = outputs::in_lines(outputs::files(self.json.path(), LINES)?)?;
        let commands = outputs::in_lines(outputs::files(self.folder.path(), "commands.jsonl")?)?;
        let found = [
            ("JSON lines", json),
            ("the journal", self.journal.found()),
            ("the store", outputs::in_store(&self.store())?),
        ];
        let mut all = Found::default();
        for (name, one) in &found {
            let missing: Vec<_> = one.missing(expected).collect();
            ensure!(
                missing.is_empty(),
                "{} of {} incidents are not in {name}, from {:?} to {:?}",
                missing.len(),
                expected.len(),
                missing.first(),
                missing.last()
            );
            all.add(one);
        }
        // Of these, so many a minute are left out on purpose.
        all.add(&commands);
        all.is_sound(expected, self.lossy.path())?;
        let again: usize = found.iter().map(|(_, one)| one.again()).sum();
        let files = outputs::files(self.json.path(), LINES)?.len();
        let kills = self.cgroup.kills();
        ensure!(kills == 0, "killed {kills} times for want of memory");
        let of_one = &self.resident[self.resident_of_one.min(self.resident.len())..];
        let growth = growth(of_one);
        if let Some((early, late)) = growth {
            ensure!(
                late - early <= GROWTH,
                "resident memory of one process grew from {early:.1} to {late:.1} MiB ({of_one:?})",
            );
        }
        let grew = match growth {
            Some((early, late)) => format!("{early:.1} and {late:.1} MiB"),
            None => "too few rounds".to_owned(),
        };
        let most = self.resident.iter().copied().fold(0.0, f64::max);
        Ok(format!(
            "{} rounds, {} starts, {} losses, all in JSON lines ({files} files), journal and \
             store, {again} told again with the same number, {} by the command; resident when idle: \
             {:.1} MiB, after a round at most {most:.1} MiB, of one process in its second and its last \
             quarter {grew}",
            self.resident.len(),
            self.starts,
            expected.len(),
            commands.len(),
            self.idle,
        ))
    }
}

/// The pins must not outlive a case that fails.
impl Drop for World {
    fn drop(&mut self) {
        self.serve = None;
        let _ = Command::new(&self.program).arg("detach").output();
        let _ = Command::new("umount").arg("/run").output();
    }
}

/// Twice as many as it serves at once.
fn slow_readers(port: u16) -> Result<Vec<TcpStream>> {
    let ask = |_| -> Result<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\n")?;
        Ok(stream)
    };
    (0..32).map(ask).collect()
}

/// The medians of the second and the last quarter.
fn growth(resident: &[f64]) -> Option<(f64, f64)> {
    let quarter = resident.len() / 4;
    let median = |part: &[f64]| {
        let mut part = part.to_vec();
        part.sort_by(f64::total_cmp);
        part.get(part.len() / 2).copied()
    };
    let late = median(&resident[resident.len() - quarter..])?;
    Some((median(&resident[quarter..2 * quarter])?, late))
}

/// Files that are lost together, and are lost once.
struct Storm {
    paths: Vec<String>,
    files: Vec<File>,
    mappings: Vec<Mapping>,
    pages: usize,
}

impl Storm {
    fn new(world: &World) -> Result<Self> {
        let first = world.expected.len();
        let numbers = first..first + world.size.serve_files;
        let pages = world.size.serve_pages;
        let files = numbers
            .clone()
            .map(|number| world.lossy.file(number, pages));
        let files = files.collect::<Result<Vec<_>>>()?;
        world.lossy.sync()?;
        let mappings = files.iter().map(|file| Mapping::new(file, pages * BLOCK));
        Ok(Self {
            paths: numbers
                .map(|number| world.lossy.path_of(number).display().to_string())
                .collect(),
            mappings: mappings.collect::<Result<_>>()?,
            files,
            pages,
        })
    }

    /// Every page of them fails.
    fn fail(&self, world: &mut World) -> Result<()> {
        for file in &self.files {
            spoil(file, self.pages)?;
        }
        world.lossy.fail()?;
        world.lossy.sync()
    }

    /// msync of each, until it says that all is well.
    fn lie(&self) -> Result<()> {
        for mapping in &self.mappings {
            ensure!(
                (0..4).any(|_| mapping.sync()),
                "msync goes on failing: nobody is lied to"
            );
        }
        Ok(())
    }

    fn delete(self) -> Result<()> {
        drop((self.mappings, self.files));
        for path in &self.paths {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}
