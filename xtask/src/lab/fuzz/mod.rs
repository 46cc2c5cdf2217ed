//! `lab fuzz`: random programs on a failing disk. What msync-trace says of each is held to what
//! the disk says, which is asked without it.

mod action;
mod case;
mod judge;
mod play;
mod shrink;
mod truth;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::paths;
use crate::scenarios::disk::Below;
use crate::scenarios::tool::{Report, Source, Tool};
use crate::scenarios::volume::{Kind, Sight, Volume};
use crate::scenarios::world::Skip;
use crate::shielded::EndsInThreads;
use crate::step::is_root;
use action::{Action, generate};
use case::Case;
use judge::{Verdict, judge};
use play::{Played, play};

/// Runs under one msync-trace.
const BATCH: usize = 50;

/// Hold msync-trace to the disk with random programs
///
/// Each seed is a program of some dozen actions by up to three processes on two files: stores,
/// msync and the other calls, writes that fail, truncation, deletion. After every msync that
/// returned 0 the disk is copied, and mounted later to see what it had. Exit status 1 if
/// msync-trace missed or invented an incident.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask lab fuzz --runs 100
  cargo xtask lab fuzz --fs ext4 --seed 4711 --runs 1
  cargo xtask lab fuzz --fs xfs,btrfs --runs 100000 --seconds 600 --tier tracepoint")]
pub struct FuzzArgs {
    /// File systems
    #[arg(long, value_delimiter = ',', value_parser = kind, default_value = "ext4,xfs,btrfs")]
    fs: Vec<Kind>,
    /// The first seed; the next run has the next number
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs on each file system
    #[arg(long, default_value_t = 100)]
    runs: u64,
    /// End after so many seconds on each file system, whatever is left
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    #[command(flatten)]
    tool: ToolArgs,
    /// Where failing programs are kept [default: target/lab/failures]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Play a kept program again
#[derive(Args)]
pub struct ReplayArgs {
    /// What `lab fuzz` kept
    file: PathBuf,
    #[command(flatten)]
    tool: ToolArgs,
    /// Print every msync that gave 0, and all that msync-trace printed
    #[arg(long, short)]
    verbose: bool,
}

/// Remove actions from a kept program as long as it fails
#[derive(Args)]
pub struct ShrinkArgs {
    /// What `lab fuzz` kept; the result is written beside it
    file: PathBuf,
    #[command(flatten)]
    tool: ToolArgs,
}

#[derive(Args)]
struct ToolArgs {
    /// The tool to test
    #[arg(
        long,
        default_value = "target/release/msync-trace",
        value_name = "PATH"
    )]
    msync_trace: PathBuf,
    /// How the tool has to attach
    #[arg(long, default_value = "auto", value_parser = ["auto", "fentry", "kprobe", "tracepoint"])]
    tier: String,
}

impl ToolArgs {
    fn tool(&self) -> Result<Tool> {
        let program = self.msync_trace.clone();
        ensure!(
            program.exists(),
            "{} is missing: build it, or name another with --msync-trace",
            program.display()
        );
        Ok(Tool {
            program,
            tier: self.tier.clone(),
            source: Source::Ebpf,
            verify: false,
        })
    }
}

/// The file systems on which an error of a data page is an error of that page and no more.
fn kind(name: &str) -> Result<Kind, String> {
    let known = [Kind::Ext4, Kind::Xfs, Kind::Btrfs];
    let found = known.into_iter().find(|kind| kind.name() == name);
    found.ok_or_else(|| format!("one of {}", known.map(Kind::name).join(", ")))
}

/// Runs programs, prints a line per file system; exit status 1 if one failed.
pub fn fuzz(args: &FuzzArgs) -> Result<u8> {
    let tool = args.tool.tool()?;
    let (scratch, _in_threads) = prepare()?;
    let out = args.out.clone();
    let out = out.unwrap_or_else(|| paths::target().join("lab/failures"));
    let [mut passed, mut failed, mut skipped] = [0; 3];
    for kind in &args.fs {
        let campaign = Campaign {
            lab: Lab {
                kind: *kind,
                tool: &tool,
                scratch: scratch.path(),
            },
            seeds: args.seed..args.seed.saturating_add(args.runs),
            deadline: args
                .seconds
                .map(|s| Instant::now() + Duration::from_secs(s)),
            out: &out,
        };
        match campaign.run() {
            Ok(sum) if sum.good() => {
                passed += 1;
                println!("PASS {}: {}", kind.name(), sum.line());
            }
            Ok(sum) => {
                failed += 1;
                println!("FAIL {}: {}", kind.name(), sum.line());
            }
            Err(error) if error.is::<Skip>() => {
                skipped += 1;
                println!("SKIPPED {}: {error}", kind.name());
            }
            Err(error) => {
                failed += 1;
                println!("FAIL {}: {error:#}", kind.name());
            }
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(u8::from(failed > 0))
}

/// Plays one case again; exit status 1 if it fails.
pub fn replay(args: &ReplayArgs) -> Result<u8> {
    let (case, tool) = (Case::load(&args.file)?, args.tool.tool()?);
    let (scratch, _in_threads) = prepare()?;
    let lab = Lab::of(&case, &tool, scratch.path())?;
    let round = lab.one(&case.actions)?;
    if args.verbose {
        for point in &round.played.points {
            println!("{point:?}");
        }
        println!("{}", round.transcript);
    }
    let verdict = round.verdict;
    verdict.print(&case.fs, case.seed);
    println!("{}", verdict.line());
    Ok(u8::from(!verdict.good()))
}

/// Shrinks one case; an error if it does not fail.
pub fn shrink(args: &ShrinkArgs) -> Result<u8> {
    let (case, tool) = (Case::load(&args.file)?, args.tool.tool()?);
    let (scratch, _in_threads) = prepare()?;
    let lab = Lab::of(&case, &tool, scratch.path())?;
    if lab.one(&case.actions)?.verdict.good() {
        bail!("{} does not fail here", args.file.display());
    }
    let actions = shrink::shrink(&case.actions, |actions| {
        Ok(lab.one(actions).is_ok_and(|round| !round.verdict.good()))
    })?;
    let verdict = lab.one(&actions)?.verdict;
    let small = Case::new(&case.fs, case.seed, actions, &verdict);
    let folder = args.file.parent().unwrap_or(Path::new("."));
    let path = small.save(folder, ".min")?;
    println!(
        "{}: {} of {} actions",
        path.display(),
        small.actions.len(),
        case.actions.len()
    );
    Ok(0)
}

/// What everything here needs: root, mounts of our own, a folder, and a kernel that shows every end.
fn prepare() -> Result<(tempfile::TempDir, EndsInThreads)> {
    if !is_root() {
        bail!("the fuzzer mounts file systems: run as root");
    }
    crate::faults::private_mounts()?;
    Ok((tempfile::tempdir()?, EndsInThreads::new()))
}

/// A file system, and the tool to test on it.
#[derive(Clone, Copy)]
struct Lab<'a> {
    kind: Kind,
    tool: &'a Tool,
    scratch: &'a Path,
}

/// One program under a msync-trace of its own.
struct Round {
    played: Played,
    verdict: Verdict,
    transcript: String,
}

impl<'a> Lab<'a> {
    fn of(case: &Case, tool: &'a Tool, scratch: &'a Path) -> Result<Lab<'a>> {
        let kind = kind(&case.fs).map_err(anyhow::Error::msg)?;
        Ok(Lab {
            kind,
            tool,
            scratch,
        })
    }

    fn volume(&self) -> Result<Volume> {
        let mut volume = Volume::new(
            self.kind,
            Below::Fault,
            Sight::of(self.kind, &self.tool.tier),
            self.scratch,
        )?;
        volume.take()?;
        Ok(volume)
    }

    fn one(&self, actions: &[Action]) -> Result<Round> {
        let mut volume = self.volume()?;
        let running = self.tool.start(&[])?;
        let played = play(&mut volume, "run", actions);
        let report = running.stop()?;
        let played = played?;
        report.complete()?;
        let verdict = judge(&played, &on_device(&report, &volume));
        Ok(Round {
            played,
            verdict,
            transcript: report.transcript,
        })
    }
}

/// The incidents on this disk: others may lose data on this machine at the same time.
fn on_device(report: &Report, volume: &Volume) -> Vec<Value> {
    let name = volume.device.path().file_name().unwrap_or_default();
    let ours = |incident: &&Value| {
        let device = incident["file"]["device"].as_str();
        device.is_some_and(|device| name == device)
    };
    report.incidents.iter().filter(ours).cloned().collect()
}

/// Many programs on one file system.
struct Campaign<'a> {
    lab: Lab<'a>,
    seeds: Range<u64>,
    deadline: Option<Instant>,
    out: &'a Path,
}

/// How a campaign went.
#[derive(Default)]
struct Sum {
    runs: u64,
    took: Duration,
    verdict: Verdict,
    /// Runs that could not be played.
    broken: u64,
    /// Runs during which msync-trace could not see everything: something else on this machine
    /// flooded it.
    unjudged: u64,
}

impl Campaign<'_> {
    fn run(&self) -> Result<Sum> {
        let begin = Instant::now();
        let mut sum = Sum::default();
        let mut seeds = self.seeds.clone();
        while !seeds.is_empty() && !self.is_late() {
            // A run that could not be played leaves a disk that nobody knows.
            let mut volume = self.lab.volume()?;
            while !seeds.is_empty() && !self.is_late() {
                let broken = sum.broken;
                self.batch(&mut seeds, &mut volume, &mut sum)?;
                if sum.broken > broken {
                    break;
                }
            }
        }
        sum.took = begin.elapsed();
        Ok(sum)
    }

    fn is_late(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() > deadline)
    }

    /// Some of the seeds under one msync-trace, up to the first that could not be played.
    fn batch(&self, seeds: &mut Range<u64>, volume: &mut Volume, sum: &mut Sum) -> Result<()> {
        let fs = self.lab.kind.name();
        let mut running = self.lab.tool.start(&[])?;
        let mut runs = Vec::new();
        for seed in seeds.by_ref().take(BATCH) {
            sum.runs += 1;
            let actions = generate(seed);
            match play(volume, &format!("run{seed}"), &actions) {
                Ok(played) => runs.push((seed, actions, played)),
                Err(error) => {
                    sum.broken += 1;
                    println!("  {fs} seed {seed} could not be played: {error:#}");
                    break;
                }
            }
            running.listen()?;
            if self.is_late() {
                break;
            }
        }
        let report = running.stop()?;
        if let Err(incomplete) = report.complete() {
            sum.unjudged += runs.len() as u64;
            println!("  {fs} {} runs not judged: {incomplete}", runs.len());
            return Ok(());
        }
        let incidents = on_device(&report, volume);
        for (seed, actions, played) in runs {
            let verdict = judge(&played, &incidents);
            if !verdict.good() {
                verdict.print(fs, seed);
                let case = Case::new(fs, seed, actions, &verdict);
                println!("  kept as {}", case.save(self.out, "")?.display());
            }
            sum.verdict += verdict;
        }
        Ok(())
    }
}

impl Sum {
    fn good(&self) -> bool {
        self.verdict.good() && self.broken == 0 && self.unjudged == 0
    }

    fn line(&self) -> String {
        let rate = self.runs as f64 / self.took.as_secs_f64().max(0.001);
        let mut line = format!("{} runs ({rate:.1}/s): ", self.runs);
        if self.broken > 0 {
            line += &format!("{} could not be played; ", self.broken);
        }
        if self.unjudged > 0 {
            line += &format!("{} not judged; ", self.unjudged);
        }
        line + &self.verdict.line()
    }
}

impl Verdict {
    fn line(&self) -> String {
        let mut line = format!(
            "{} incidents expected, {} found, {} missed, {} invented; {} pages torn",
            self.expected,
            self.found,
            self.missed.len(),
            self.invented.len(),
            self.torn
        );
        if self.unwatched > 0 {
            line += &format!(", {} stored again before hooks were there", self.unwatched);
        }
        for (excuse, count) in self.excused.iter().filter(|(_, count)| **count > 0) {
            line += &format!(", {count} {}", excuse.name());
        }
        line
    }

    fn print(&self, fs: &str, seed: u64) {
        for what in &self.missed {
            println!("  {fs} seed {seed} missed: {what}");
        }
        for what in &self.invented {
            println!("  {fs} seed {seed} invented: {what}");
        }
    }
}
