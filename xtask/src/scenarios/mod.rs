//! Real losses on real file systems: each scenario makes a disk fail under a program, asks the
//! disk what is really there, and holds msync-trace to it.

mod cases;
mod io_uring;
mod knfsd;
pub mod page;
pub mod program;
mod steps;
pub mod tool;
pub mod verdict;
pub mod volume;
pub mod world;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use cases::{Scenario, scenarios};
use tool::{Running, Tool};
use volume::{Kind, Sight, Volume};
use world::{Skip, World};

/// Loses data on purpose on a scratch disk and compares what msync-trace reports with what the
/// disk has.
#[derive(Debug, clap::Args)]
pub struct ScenariosArgs {
    /// File systems: ext4, ext4-nojournal, ext4-data-journal, xfs, btrfs, nfs3, nfs4, fuse.
    #[arg(long, value_delimiter = ',', value_parser = kind)]
    fs: Vec<Kind>,
    /// How the tool has to attach.
    #[arg(long, default_value = "auto", value_parser = ["auto", "fentry", "kprobe", "tracepoint"])]
    tier: String,
    /// Only scenarios whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// The tool to test.
    #[arg(
        long,
        default_value = "target/release/msync-trace",
        value_name = "PATH"
    )]
    msync_trace: PathBuf,
    /// One msync-trace for all scenarios of a file system rather than one for each: for machines
    /// where attaching takes seconds.
    #[arg(long)]
    shared_tool: bool,
    /// Load a file system's module only when the tool is running: it has to attach then.
    #[arg(long, requires = "shared_tool", conflicts_with = "no_tool")]
    modules_later: bool,
    /// Check the kernel's answers and the disk only, without the tool.
    #[arg(long)]
    no_tool: bool,
    /// Print the names of the scenarios.
    #[arg(long)]
    list: bool,
    /// Print what each scenario saw.
    #[arg(long, short)]
    verbose: bool,
}

/// Runs them; exit status 1 if one failed.
pub fn run(args: &ScenariosArgs) -> Result<u8> {
    args.run().map(|passed| u8::from(!passed))
}

fn kind(name: &str) -> Result<Kind, String> {
    let known = Kind::ALL.map(Kind::name).join(", ");
    Kind::ALL
        .into_iter()
        .find(|kind| kind.name() == name)
        .ok_or(format!("one of {known}"))
}

#[derive(Default)]
struct Count {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl ScenariosArgs {
    /// True if none failed; an error if they cannot run at all.
    fn run(&self) -> Result<bool> {
        let kinds = if self.fs.is_empty() {
            Kind::ALL.to_vec()
        } else {
            self.fs.clone()
        };
        let chosen = |kind: Kind| {
            scenarios()
                .iter()
                .filter(move |s| s.runs_on(kind) && s.name.contains(&self.only))
                .filter(move |s| Sight::of(kind, &self.tier).ranges || !s.needs_ranges())
        };
        if self.list {
            for kind in kinds {
                chosen(kind).for_each(|s| println!("{}/{}", kind.name(), s.name));
            }
            return Ok(true);
        }
        // SAFETY: geteuid has no arguments.
        if unsafe { libc::geteuid() } != 0 {
            bail!("scenarios mount file systems: run as root");
        }
        let tool = (!self.no_tool).then(|| Tool {
            program: self.msync_trace.clone(),
            tier: self.tier.clone(),
        });
        if let Some(tool) = &tool
            && !tool.program.exists()
        {
            bail!(
                "{} is missing: build it, or use --no-tool",
                tool.program.display()
            );
        }
        for module in ["loop", "fuse"] {
            let _ = std::process::Command::new("modprobe")
                .args(["-q", module])
                .output();
        }
        crate::faults::private_mounts()?;
        let scratch = tempfile::tempdir()?;
        let mut count = Count::default();
        for kind in kinds {
            let mut early = tool
                .as_ref()
                .filter(|_| self.modules_later)
                .map(|tool| tool.start_before_module(kind.module()));
            let mut volume = Volume::new(kind, Sight::of(kind, &self.tier), scratch.path());
            let mut groups: Vec<Vec<&Scenario>> = Vec::new();
            for scenario in chosen(kind) {
                match groups
                    .iter_mut()
                    .find(|group| group[0].flags == scenario.flags)
                {
                    Some(group) if self.shared_tool => group.push(scenario),
                    _ => groups.push(vec![scenario]),
                }
            }
            for group in groups {
                for done in play(&group, &mut volume, tool.as_ref(), early.take()) {
                    let name = format!("{}/{}", kind.name(), done.name);
                    count.add(&name, done.result, done.took);
                    if self.verbose {
                        let lines = done.notes.iter().flat_map(|note| note.lines());
                        lines.for_each(|line| println!("    {line}"));
                    }
                }
            }
        }
        println!(
            "{} passed, {} failed, {} skipped",
            count.passed, count.failed, count.skipped
        );
        Ok(count.failed == 0)
    }
}

impl Count {
    fn add(&mut self, name: &str, result: Result<()>, took: Duration) {
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("PASS {name} ({} ms)", took.as_millis());
            }
            Err(error) if error.is::<Skip>() => {
                self.skipped += 1;
                println!("SKIPPED {name}: {error}");
            }
            Err(error) => {
                self.failed += 1;
                println!("FAIL {name}: {error:#}");
            }
        }
    }
}

/// The same reason, for the next scenario.
fn again(error: &anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<Skip>() {
        Some(Skip(reason)) => Skip(reason.clone()).into(),
        None => anyhow::anyhow!("{error:#}"),
    }
}

/// A scenario that was played.
struct Done {
    name: &'static str,
    result: Result<()>,
    notes: Vec<String>,
    took: Duration,
}

/// Plays scenarios under one msync-trace (`early`, if it runs already): first all of them, with the disk read after each, then
/// what it reported is held to what the disk said.
fn play(
    group: &[&Scenario],
    volume: &mut Result<Volume>,
    tool: Option<&Tool>,
    early: Option<Result<Running>>,
) -> Vec<Done> {
    let begin = Instant::now();
    let running = early
        .or_else(|| tool.map(|tool| tool.start(group[0].flags)))
        .transpose();
    let mut played = Vec::new();
    for case in group {
        let mut notes = Vec::new();
        let losses = match (&mut *volume, &running) {
            (Err(error), _) => Err(again(error)),
            (_, Err(error)) => Err(again(error)),
            (Ok(volume), Ok(_)) => lose(case, volume, &mut notes),
        };
        played.push((case.name, losses, notes));
    }
    let report = running.and_then(|running| running.map(Running::stop).transpose());
    let any_loss = played
        .iter()
        .any(|(_, losses, _)| matches!(losses, Ok(Some(losses)) if !losses.is_empty()));
    let all_known = played
        .iter()
        .all(|(_, losses, _)| matches!(losses, Ok(Some(_))));
    let took = begin.elapsed() / u32::try_from(group.len()).unwrap_or(1);
    let mut done = Vec::new();
    for (name, losses, mut notes) in played {
        let result = losses.and_then(|losses| match (losses, &report, &mut *volume) {
            (_, Err(error), _) => Err(again(error)),
            (_, _, Err(error)) => Err(again(error)),
            (Some(losses), Ok(Some(report)), Ok(volume)) => {
                if group.len() == 1 {
                    notes.push(report.transcript.clone());
                }
                let incidents = report.incidents_below(&volume.path().join(name));
                verdict::hold_to_account(volume, &losses, &incidents, &mut notes)?;
                if all_known {
                    verdict::whole_run(report, any_loss)
                } else {
                    Ok(())
                }
            }
            _ => Ok(()),
        });
        done.push(Done {
            name,
            result,
            notes,
            took,
        });
    }
    done
}

fn lose(case: &Scenario, volume: &mut Volume, notes: &mut Vec<String>) -> Result<verdict::Losses> {
    let mut world = World::new(volume, case.name)?;
    let played = (case.play)(&mut world);
    let (points, mut seen) = world.into_points();
    notes.append(&mut seen);
    played?;
    verdict::read_the_disk(volume, &points, notes)
}
