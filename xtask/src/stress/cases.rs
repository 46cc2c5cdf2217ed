//! The cases, and what each promises.

use std::{
    fs::File,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use super::{
    disk::{Disk, spoil},
    serve,
    sync_loops::{Mapping, SyncLoops},
    tracer::{Report, Tracer, programs_in_kernel},
};
use crate::faults::BLOCK;

/// How much of everything.
#[derive(Clone, Copy)]
pub struct Size {
    storm_files: usize,
    storm_pages: usize,
    many_files: usize,
    loops: usize,
    kills: u32,
    /// Of each round of `serve`.
    pub serve_files: usize,
    /// Of each of these files.
    pub serve_pages: usize,
    /// For how long.
    pub serve_seconds: u64,
}

impl Size {
    /// What the promises are about.
    pub const FULL: Self = Self {
        storm_files: 1000,
        storm_pages: 1000,
        many_files: 100_000,
        loops: 5000,
        kills: 20,
        serve_files: 20,
        serve_pages: 50,
        serve_seconds: 600,
    };
    /// For every day.
    pub const QUICK: Self = Self {
        storm_files: 200,
        storm_pages: 200,
        many_files: 10_000,
        loops: 1000,
        kills: 8,
        serve_files: 30,
        serve_pages: 10,
        serve_seconds: 30,
    };
}

/// A case.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What must hold.
    pub promise: &'static str,
    /// Plays it; what was seen, for people.
    pub play: fn(&Path, Size) -> Result<String>,
}

/// All of them.
pub const CASES: &[Case] = &[
    Case {
        name: "storm",
        promise: "very many failed pages while 8 processes msync: no loss missed, 64 MiB at most",
        play: storm,
    },
    Case {
        name: "many_files",
        promise: "very many files with failures: bounded memory, what is given up is said",
        play: many_files,
    },
    Case {
        name: "tight_loop",
        promise: "a loop of msync over an outstanding loss: one incident, hardly slower",
        play: tight_loop,
    },
    Case {
        name: "tiny_rings",
        promise: "buffers that are too small: every loss found, the run incomplete",
        play: tiny_rings,
    },
    Case {
        name: "come_and_go",
        promise: "attached and detached while writes fail: every loss from then on is found",
        play: come_and_go,
    },
    Case {
        name: "side_by_side",
        promise: "two at once see the same",
        play: side_by_side,
    },
    Case {
        name: "killed",
        promise: "SIGKILL at any moment leaves nothing in the kernel",
        play: killed,
    },
    Case {
        name: "serve",
        promise: "ten minutes of restarts and failing outputs in 64 MiB: each loss told once, no growth",
        play: serve::play,
    },
];

/// Most memory that may be resident.
const MOST_MIB: f64 = 64.0;

/// So many inodes with failures the kernel side remembers, with room for the next ones.
const IN_KERNEL: usize = 65_536 - 4096;

/// How long the tool may take to say what it has seen.
const REPORTING: Duration = Duration::from_secs(1);

/// Files on a disk, mapped.
struct Files {
    pages: usize,
    mappings: Vec<Mapping>,
    files: Vec<File>,
    /// Last: nothing may be open when it is unmounted.
    disk: Disk,
}

impl Files {
    fn new(count: usize, pages: usize) -> Result<Self> {
        let disk = Disk::new(count, pages)?;
        let files = (0..count)
            .map(|number| disk.file(number, pages))
            .collect::<Result<Vec<_>>>()?;
        disk.sync()?;
        let mappings = files
            .iter()
            .map(|file| Mapping::new(file, pages * BLOCK))
            .collect::<Result<_>>()?;
        Ok(Self {
            disk,
            files,
            mappings,
            pages,
        })
    }

    /// Makes every page fail; how long write-back took.
    fn lose_all(&mut self) -> Result<Duration> {
        for file in &self.files {
            spoil(file, self.pages)?;
        }
        self.disk.fail()?;
        let begin = Instant::now();
        self.disk.sync()?;
        Ok(begin.elapsed())
    }

    /// Each file by this process: until it is told that all is well.
    fn sync_until_lied_to(&self) {
        for mapping in &self.mappings {
            let _ = (0..4).any(|_| mapping.sync());
        }
    }

    /// Files without an incident about this process.
    fn missed(&self, report: &Report) -> usize {
        let found: std::collections::BTreeSet<&str> = report
            .incidents
            .iter()
            .filter(|incident| incident["process"]["pid"] == std::process::id())
            .filter_map(|incident| incident["file"]["path"].as_str())
            .collect();
        (0..self.files.len())
            .filter(|number| !found.contains(&*self.disk.path_of(*number).to_string_lossy()))
            .count()
    }
}

fn storm(program: &Path, size: Size) -> Result<String> {
    let mut files = Files::new(size.storm_files, size.storm_pages)?;
    let untraced = files.lose_all()?;
    let tracer = Tracer::start(program, files.disk.path(), &[])?;
    let traced = files.lose_all()?;
    let loops = SyncLoops::start(8, &files.mappings)?;
    files.lose_all()?;
    loops.count_two_rounds()?;
    let lied_to = loops.lied_to();
    thread::sleep(REPORTING);
    let report = tracer.stop()?;
    drop(loops);
    report.honest()?;
    let found: std::collections::BTreeSet<(u64, &str)> = report
        .incidents
        .iter()
        .filter_map(|i| Some((i["process"]["pid"].as_u64()?, i["file"]["path"].as_str()?)))
        .collect();
    let missed = lied_to.iter().filter(|(pid, number)| {
        let path = files.disk.path_of(*number);
        !found.contains(&(u64::from(*pid), &*path.to_string_lossy()))
    });
    let missed = missed.count();
    ensure!(!lied_to.is_empty(), "no msync claimed success");
    ensure!(
        missed == 0,
        "{missed} of {} false successes have no incident ({})",
        lied_to.len(),
        report.causes()
    );
    memory(&report)?;
    Ok(format!(
        "{} pages in {} files; {} false successes, {} incidents, {}; {:.1} MiB; write-back of \
         all took {:.2} s untraced, {:.2} s traced",
        size.storm_files * size.storm_pages,
        size.storm_files,
        lied_to.len(),
        report.incidents.len(),
        report.causes(),
        report.peak_mib,
        untraced.as_secs_f64(),
        traced.as_secs_f64(),
    ))
}

fn many_files(program: &Path, size: Size) -> Result<String> {
    let mut disk = Disk::new(size.many_files + 1, 1)?;
    for number in 0..size.many_files {
        disk.file(number, 1)?;
    }
    disk.sync()?;
    let tracer = Tracer::start(program, disk.path(), &[])?;
    for number in 0..size.many_files {
        spoil(&File::options().write(true).open(disk.path_of(number))?, 1)?;
    }
    disk.fail()?;
    disk.sync()?;
    let mut lies = 0;
    for number in 0..size.many_files {
        let file = File::options()
            .read(true)
            .write(true)
            .open(disk.path_of(number))?;
        let mapping = Mapping::new(&file, BLOCK)?;
        lies += usize::from((0..4).any(|_| mapping.sync()));
    }
    // All those before must not stand in the way of the next one.
    thread::sleep(2 * REPORTING);
    disk.heal()?;
    let last = disk.file(size.many_files, 1)?;
    last.sync_all()?;
    disk.fail()?;
    spoil(&last, 1)?;
    disk.sync()?;
    let mapping = Mapping::new(&last, BLOCK)?;
    ensure!((0..4).any(|_| mapping.sync()), "the last one is no loss");
    thread::sleep(REPORTING);
    let report = tracer.stop()?;
    report.honest()?;
    let path = disk.path_of(size.many_files);
    let of_last = |incident: &&serde_json::Value| {
        incident["file"]["path"].as_str() == path.to_str() && incident["evidence"] == "page"
    };
    ensure!(
        report.incidents.iter().any(|incident| of_last(&incident)),
        "the last one was not found ({})",
        report.causes()
    );
    let found = report.incidents.len() - 1;
    ensure!(lies == size.many_files, "only {lies} false successes");
    ensure!(
        found == lies || report.lost() > 0,
        "{} of {lies} losses missed without a word",
        lies - found
    );
    let exact = report.with_ranges();
    let dropped = report.lost_by("error_ring_full") + report.lost_by("sync_ring_full");
    ensure!(
        found as u64 + dropped >= lies.min(IN_KERNEL) as u64 && exact >= lies.min(5_000),
        "only {found} of {lies} found, {exact} of them with ranges ({}; {:.1} MiB)",
        report.causes(),
        report.peak_mib
    );
    memory(&report)?;
    Ok(format!(
        "{lies} files, {found} incidents, {exact} of them with ranges, {}; {:.1} MiB",
        report.causes(),
        report.peak_mib
    ))
}

fn tight_loop(program: &Path, size: Size) -> Result<String> {
    let mut files = Files::new(1, 16)?;
    let calls = size.loops as u64;
    let (mut untraced, mut traced, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    // Other work on the machine is felt for a round or two, not in most of nine.
    for _ in 0..9 {
        files.lose_all()?;
        files.sync_until_lied_to();
        let alone = sync_loop(&files, size.loops);
        files.disk.heal()?;

        let tracer = Tracer::start(program, files.disk.path(), &[])?;
        files.lose_all()?;
        files.sync_until_lied_to();
        let watched = sync_loop(&files, size.loops);
        thread::sleep(REPORTING);
        let report = tracer.stop()?;
        files.disk.heal()?;
        report.honest()?;
        ensure!(
            report.incidents.len() == 1,
            "{} incidents, expected one",
            report.incidents.len()
        );
        let repeats = report.stop["repeats"].as_u64().unwrap_or(0);
        ensure!(
            repeats + report.lost() >= calls,
            "{repeats} repeats counted of {calls}, {}",
            report.causes()
        );
        untraced.push(alone);
        traced.push(watched);
        ratios.push(watched / alone);
    }
    let ratio = median(&mut ratios);
    let seen = format!(
        "{calls} calls, one incident with as many repeats; a call took {:.1} us untraced, {:.1} us \
         traced; median of the ratios {ratio:.2}",
        median(&mut untraced) * 1e6,
        median(&mut traced) * 1e6,
    );
    ensure!(ratio < 1.2, "{seen}");
    Ok(seen)
}

/// Seconds of an `msync` of all, nothing of which is dirty: the median.
fn sync_loop(files: &Files, times: usize) -> f64 {
    let mapping = &files.mappings[0];
    let mut seconds: Vec<f64> = (0..times)
        .map(|_| {
            let begin = Instant::now();
            mapping.sync();
            begin.elapsed().as_secs_f64()
        })
        .collect();
    median(&mut seconds)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn tiny_rings(program: &Path, _: Size) -> Result<String> {
    let mut files = Files::new(300, 20)?;
    let tracer = Tracer::start(program, files.disk.path(), &["--ring-size", "4K"])?;
    files.lose_all()?;
    files.sync_until_lied_to();
    thread::sleep(REPORTING);
    // Once more, when there is room: what was lost of the first calls must not hide the file.
    for number in 0..files.files.len() {
        files.mappings[number].sync();
        thread::sleep(Duration::from_millis(2));
    }
    thread::sleep(REPORTING);
    let report = tracer.stop()?;
    report.honest()?;
    ensure!(
        report.lost() > 0,
        "nothing was lost: the rings are not tiny"
    );
    let missed = files.missed(&report);
    ensure!(
        missed == 0,
        "{missed} of {} files have no incident ({})",
        files.files.len(),
        report.causes()
    );
    Ok(format!(
        "300 files, {} incidents, {} of them with ranges; {}",
        report.incidents.len(),
        report.with_ranges(),
        report.causes()
    ))
}

fn come_and_go(program: &Path, _: Size) -> Result<String> {
    let mut files = Files::new(20, 50)?;
    let loops = SyncLoops::start(2, &files.mappings)?;
    files.lose_all()?;
    for round in 0..5 {
        // It attaches while failures happen that it can only see in part.
        let tracer = Tracer::spawn(program, files.disk.path(), &[])?;
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(50 * round) {
            files.lose_all()?;
        }
        drop(tracer);
        let tracer = Tracer::start(program, files.disk.path(), &[])?;
        files.lose_all()?;
        files.sync_until_lied_to();
        thread::sleep(REPORTING);
        let report = tracer.stop()?;
        report.honest()?;
        let missed = files.missed(&report);
        ensure!(missed == 0, "round {round}: {missed} losses missed");
    }
    drop(loops);
    Ok("5 times, nothing missed".to_owned())
}

fn side_by_side(program: &Path, _: Size) -> Result<String> {
    let mut files = Files::new(50, 20)?;
    let first = Tracer::start(program, files.disk.path(), &[])?;
    let second = Tracer::start(program, files.disk.path(), &[])?;
    files.lose_all()?;
    files.sync_until_lied_to();
    thread::sleep(REPORTING);
    let reports = [first.stop()?, second.stop()?];
    for report in &reports {
        report.honest()?;
        ensure!(
            files.missed(report) == 0 && report.incidents.len() == 50,
            "{} incidents, {} files missed",
            report.incidents.len(),
            files.missed(report)
        );
    }
    Ok("50 losses, seen by both".to_owned())
}

fn killed(program: &Path, size: Size) -> Result<String> {
    let mut files = Files::new(5, 20)?;
    let before = programs_in_kernel();
    for number in 0..size.kills {
        let tracer = Tracer::spawn(program, files.disk.path(), &[])?;
        thread::sleep(Duration::from_millis(u64::from(number * 25)));
        files.lose_all()?;
        tracer.kill()?;
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while programs_in_kernel() > before {
        if Instant::now() > deadline {
            bail!("{} programs before, {} after", before, programs_in_kernel());
        }
        thread::sleep(Duration::from_millis(50));
    }
    let tracer = Tracer::start(program, files.disk.path(), &[])?;
    files.lose_all()?;
    files.sync_until_lied_to();
    thread::sleep(REPORTING);
    let report = tracer.stop()?;
    ensure!(files.missed(&report) == 0, "the next one misses losses");
    Ok(format!("{} times", size.kills))
}

fn memory(report: &Report) -> Result<()> {
    if report.peak_mib > MOST_MIB {
        bail!("{:.1} MiB were resident", report.peak_mib);
    }
    Ok(())
}
