//! Real losses on real file systems: each scenario makes a disk fail under a program, asks the
//! disk what is really there, and holds msync-trace to it.

mod cases;
mod crypt;
pub mod disk;
pub mod extents;
mod io_uring;
mod knfsd;
pub mod page;
pub mod program;
mod quota;
mod steps;
pub mod tool;
pub mod verdict;
pub mod volume;
pub mod world;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use cases::{Scenario, scenarios};
use disk::Below;
use tool::{Report, Running, Source, Tool};
use volume::{Kind, Sight, Volume};
use world::{Skip, StorageClaim, World};

use crate::shielded::EndsInThreads;
use crate::step::is_root;
use crate::vm::dtrace;

/// Loses data on purpose on a scratch disk and compares what msync-trace reports with what the
/// disk has.
#[derive(Debug, clap::Args)]
pub struct ScenariosArgs {
    /// File systems: ext4, ext4-nojournal, ext4-data-journal, xfs, btrfs, ext2, vfat, f2fs, nfs3,
    /// nfs4, fuse, 9p.
    #[arg(long, value_delimiter = ',', value_parser = kind)]
    fs: Vec<Kind>,
    /// What fails below the file system: fault (our own disk), crypt (dm-crypt on it), flakey
    /// (dm-flakey), error (dm-error), scsi-debug. The last four run the stories that they can.
    #[arg(long, value_delimiter = ',', value_parser = below, default_value = "fault")]
    below: Vec<Below>,
    /// How the tool has to attach.
    #[arg(long, default_value = "auto", value_parser = ["auto", "fentry", "kprobe", "tracepoint"])]
    tier: String,
    /// Where the tool has its facts from: ebpf, dtrace. With both two of it run side by side, and each
    /// has to say what happened.
    #[arg(long, value_delimiter = ',', value_parser = ["ebpf", "dtrace"], default_value = "ebpf")]
    source: Vec<String>,
    /// With --source dtrace: the dtrace to run, rather than the one that setup --vm unpacked.
    #[arg(long, value_name = "PATH")]
    dtrace_path: Option<PathBuf>,
    /// Only scenarios whose name (ext4/same_descriptor) contains one of these.
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    only: Vec<String>,
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
    /// Let the tool compare lost bytes in memory with the disk, and hold it to what it proves.
    #[arg(long, conflicts_with = "no_tool")]
    verify: bool,
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
    one_of(Kind::ALL, Kind::name, name)
}

fn below(name: &str) -> Result<Below, String> {
    one_of(Below::ALL, Below::name, name)
}

fn one_of<T: Copy, const N: usize>(
    all: [T; N],
    name_of: fn(T) -> &'static str,
    name: &str,
) -> Result<T, String> {
    let found = all.into_iter().find(|one| name_of(*one) == name);
    found.ok_or_else(|| format!("one of {}", all.map(name_of).join(", ")))
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
        if self.list {
            self.chosen(&kinds)
                .for_each(|story| println!("{}", story.name()));
            return Ok(true);
        }
        if !is_root() {
            bail!("scenarios mount file systems: run as root");
        }
        if let Some(reason) = self.no_dtrace() {
            println!("SKIPPED dtrace: {reason}");
            println!("0 passed, 0 failed, 1 skipped");
            return Ok(true);
        }
        let tools = if self.no_tool {
            Vec::new()
        } else {
            self.tools()?
        };
        // Before msync-trace starts: it notices modules that come later, which is a story of its own.
        crate::faults::load_modules();
        crate::faults::private_mounts()?;
        let _in_threads = EndsInThreads::new();
        let scratch = tempfile::tempdir()?;
        let mut early = tools
            .first()
            .filter(|_| self.modules_later)
            .map(|tool| tool.start_before_modules(&kinds));
        // Before any of them is mounted: what stands behind a disk is a process with the mounts of
        // its birth. Before the tool as well, for this loads modules.
        let stories: Vec<Story> = self.chosen(&kinds).collect();
        let mut volumes = Volumes::new(&stories, &self.tier, scratch.path());
        let mut count = Count::default();
        for group in self.groups(&kinds) {
            let early = early.take();
            let plays = plays(&tools);
            let group: Vec<Story> = (1..=plays)
                .flat_map(|play| group.iter().map(move |story| Story { play, ..*story }))
                .collect();
            let done = play(&group, &mut volumes, &tools, early, self.shared_tool);
            for done in sum_up(done) {
                count.add(&done);
                if self.verbose || done.result.is_err() {
                    let lines = done.notes.iter().flat_map(|note| note.lines());
                    lines.for_each(|line| println!("    {line}"));
                }
            }
        }
        println!(
            "{} passed, {} failed, {} skipped",
            count.passed, count.failed, count.skipped
        );
        Ok(count.failed == 0)
    }

    fn dtrace(&self) -> Option<PathBuf> {
        self.dtrace_path.clone().or_else(dtrace::unpacked)
    }

    /// Why the D script cannot run, if it is asked for.
    fn no_dtrace(&self) -> Option<&'static str> {
        let wanted = !self.no_tool && self.source.iter().any(|name| name == "dtrace");
        (wanted && self.dtrace().is_none())
            .then_some("no dtrace here; `cargo xtask setup --vm` unpacks one")
    }

    /// The tools that run side by side.
    fn tools(&self) -> Result<Vec<Tool>> {
        let program = &self.msync_trace;
        if !program.exists() {
            let program = program.display();
            bail!("{program} is missing: build it, or use --no-tool");
        }
        let source = |name: &String| match name.as_str() {
            "ebpf" => Ok(Source::Ebpf),
            _ => self.dtrace().map(Source::Dtrace).context("no dtrace"),
        };
        let tool = |source| Tool {
            program: program.clone(),
            tier: self.tier.clone(),
            source,
            verify: self.verify,
        };
        self.source
            .iter()
            .map(|name| source(name).map(tool))
            .collect()
    }

    /// The scenarios, file system by file system.
    fn chosen(&self, kinds: &[Kind]) -> impl Iterator<Item = Story> {
        let on = move |kind: Kind, below: Below| {
            scenarios()
                .iter()
                .filter(move |s| s.runs_on(kind, below) && self.wants(kind, s))
                .filter(move |s| Sight::of(kind, &self.tier).ranges || !s.needs_ranges())
                .map(move |scenario| Story {
                    kind,
                    below,
                    scenario,
                    play: 1,
                })
        };
        let disks = self.below.iter();
        disks.flat_map(move |below| kinds.iter().flat_map(move |kind| on(*kind, *below)))
    }

    fn wants(&self, kind: Kind, scenario: &Scenario) -> bool {
        let name = format!("{}/{}", kind.name(), scenario.name);
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part))
    }

    /// The scenarios that share one run of the tool.
    fn groups(&self, kinds: &[Kind]) -> Vec<Vec<Story>> {
        let mut groups: Vec<Vec<Story>> = Vec::new();
        for story in self.chosen(kinds) {
            let flags = |story: &Story| story.scenario.flags(self.shared_tool);
            let same = |group: &&mut Vec<Story>| flags(&group[0]) == flags(&story);
            match groups.iter_mut().find(same) {
                Some(group) if self.shared_tool => group.push(story),
                _ => groups.push(vec![story]),
            }
        }
        groups
    }
}

/// A scenario on a file system.
#[derive(Clone, Copy)]
struct Story {
    kind: Kind,
    below: Below,
    scenario: &'static Scenario,
    /// How often it is played with this, from 1.
    play: u8,
}

impl Story {
    fn name(self) -> String {
        let (kind, story) = (self.kind.name(), self.scenario.name);
        match self.below {
            Below::Fault => format!("{kind}/{story}"),
            below => format!("{kind}+{}/{story}", below.name()),
        }
    }

    /// Its folder on the file system.
    fn folder(self) -> String {
        match self.play {
            1 => self.scenario.name.to_owned(),
            play => format!("{}.{play}", self.scenario.name),
        }
    }
}

/// A second opinion that was not given: dtrace leaves out, and does not count, a probe that fires
/// while another one runs on the same processor (dtrace/README.md).
#[derive(Debug)]
struct NotByDtrace;

impl fmt::Display for NotByDtrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("by dtrace")
    }
}

/// How often each story is played: msync-trace has to be right every time, and the D script too
/// where its probes are not preempted; elsewhere once.
fn plays(tools: &[Tool]) -> u8 {
    match tools {
        [_, _, ..] if tool::programs_are_preempted() => 3,
        _ => 1,
    }
}

/// One result of all plays of a story.
fn sum_up(plays: Vec<Done>) -> Vec<Done> {
    let mut stories: Vec<Done> = Vec::new();
    for done in plays {
        let Some(before) = stories
            .iter_mut()
            .find(|before| before.story.name() == done.story.name())
        else {
            stories.push(done);
            continue;
        };
        let excused = |result: &Result<()>| matches!(result, Err(e) if e.is::<NotByDtrace>());
        let takes_over = match (&before.result, &done.result) {
            (Ok(()), Err(_)) => !excused(&done.result),
            (Err(_), _) => excused(&before.result),
            (Ok(()), Ok(())) => false,
        };
        before.took += done.took;
        before.notes.extend(done.notes);
        if takes_over {
            before.result = done.result;
        }
    }
    stories
}

/// The scratch file systems; one is mounted at a time.
struct Volumes {
    made: Vec<(Kind, Below, Result<Volume>)>,
}

impl Volumes {
    fn new(stories: &[Story], tier: &str, scratch: &Path) -> Self {
        let mut made: Vec<(Kind, Below, Result<Volume>)> = Vec::new();
        for &Story { kind, below, .. } in stories {
            if !made.iter().any(|(k, b, _)| (*k, *b) == (kind, below)) {
                let volume = Volume::new(kind, below, Sight::of(kind, tier), scratch);
                made.push((kind, below, volume));
            }
        }
        Self { made }
    }

    /// The one that is to be used now; the others are unmounted.
    fn turn_to(&mut self, story: Story) -> Result<&mut Volume> {
        for (kind, below, volume) in &mut self.made {
            if let Ok(volume) = volume
                && (*kind, *below) != (story.kind, story.below)
            {
                volume.unmount()?;
            }
        }
        self.get(story)
    }

    fn get(&mut self, story: Story) -> Result<&mut Volume> {
        let wanted = (story.kind, story.below);
        let mut made = self.made.iter_mut();
        let (_, _, volume) = made
            .find(|(kind, below, _)| (*kind, *below) == wanted)
            .context("not made")?;
        volume.as_mut().map_err(|error| again(error))
    }
}

impl Count {
    fn add(&mut self, done: &Done) {
        let name = done.story.name();
        match &done.result {
            Ok(()) => {
                self.passed += 1;
                println!("PASS {name} ({} ms)", done.took.as_millis());
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
    story: Story,
    result: Result<()>,
    notes: Vec<String>,
    /// Without the time that the tool took to start, if it is shared.
    took: Duration,
}

/// What a scenario left behind.
struct Played {
    story: Story,
    losses: Result<verdict::Losses>,
    storage_errors: Vec<StorageClaim>,
    notes: Vec<String>,
    took: Duration,
}

/// Plays scenarios under one msync-trace of each kind (`early`, if it runs already): first all of
/// them, with the disk read after each, then what each reported is held to what the disk said.
fn play(
    group: &[Story],
    volumes: &mut Volumes,
    tools: &[Tool],
    early: Option<Result<Running>>,
    shared: bool,
) -> Vec<Done> {
    let begin = Instant::now();
    let mut running: Result<Vec<Running>> = match early {
        Some(early) => early.map(|running| vec![running]),
        None => {
            let flags = group[0].scenario.flags(shared);
            tools.iter().map(|tool| tool.start(flags)).collect()
        }
    };
    let mut played = Vec::new();
    for story in group {
        if shared {
            progress(*story);
        }
        let begin = Instant::now();
        let (mut notes, mut storage_errors) = (Vec::new(), Vec::new());
        let losses = match &mut running {
            Err(error) => Err(again(error)),
            Ok(running) => volumes
                .turn_to(*story)
                .and_then(|volume| lose(*story, volume, tools, running, &mut notes))
                .map(|(losses, claims)| {
                    storage_errors = claims;
                    losses
                }),
        };
        played.push(Played {
            story: *story,
            losses,
            storage_errors,
            notes,
            took: begin.elapsed(),
        });
    }
    let reports: Result<Vec<Report>> =
        running.and_then(|running| running.into_iter().map(Running::stop).collect());
    if let [only] = &mut played[..] {
        only.took = begin.elapsed();
        let reports = reports.iter().flatten();
        only.notes
            .extend(reports.map(|report| report.transcript.clone()));
    }
    let whole = WholeRun::of(&played);
    played
        .into_iter()
        .map(|mut played| {
            let volume = volumes.get(played.story);
            let result = whole.judge_all(&mut played, volume, tools, &reports);
            Done {
                story: played.story,
                result,
                notes: played.notes,
                took: played.took,
            }
        })
        .collect()
}

/// What is known about all scenarios of a run of the tool.
struct WholeRun {
    any_loss: bool,
    all_known: bool,
    storage_errors: Vec<StorageClaim>,
}

impl WholeRun {
    fn of(played: &[Played]) -> Self {
        let known = |played: &Played| matches!(&played.losses, Ok(Some(_)));
        let lost = |played: &Played| matches!(&played.losses, Ok(Some(lost)) if !lost.is_empty());
        Self {
            any_loss: played.iter().any(lost),
            all_known: played.iter().all(known),
            storage_errors: played
                .iter()
                .flat_map(|played| played.storage_errors.clone())
                .collect(),
        }
    }

    fn judge_all(
        &self,
        played: &mut Played,
        volume: Result<&mut Volume>,
        tools: &[Tool],
        reports: &Result<Vec<Report>>,
    ) -> Result<()> {
        if let Err(error) = &played.losses {
            return Err(again(error));
        }
        let volume = volume?;
        for (tool, report) in tools.iter().zip(reports.as_ref().map_err(again)?) {
            let judged = self.judge(played, volume, report, tool.verify);
            match (tools, &tool.source) {
                ([_], _) => judged?,
                (_, Source::Dtrace(_)) => judged.context(NotByDtrace)?,
                _ => judged.context("by ebpf")?,
            }
        }
        Ok(())
    }

    fn judge(
        &self,
        played: &mut Played,
        volume: &mut Volume,
        report: &Report,
        verify: bool,
    ) -> Result<()> {
        let losses = match &played.losses {
            Ok(Some(losses)) => losses,
            _ => return Ok(()),
        };
        let folder = volume.path().join(played.story.folder());
        let mut incidents = report.incidents_below(&folder);
        // A server may well be lied to on its own disk, too: that is another story.
        if verdict::any_at_server(losses) {
            incidents.extend(report.incidents_below(&volume.on_server(&folder)?));
        }
        let held = verdict::hold_to_account(volume, losses, &incidents, &mut played.notes)
            .and_then(|()| verdict::hold_to_storage_errors(report, &played.storage_errors))
            .and_then(|()| match verify {
                true => {
                    let excuses = played.story.scenario.unprovable();
                    let notes = &mut played.notes;
                    verdict::hold_to_proof(volume, losses, &incidents, excuses, notes)?;
                    let saved = &report.saved;
                    verdict::hold_to_rescue(volume, losses, &incidents, saved, excuses, notes)
                }
                false => Ok(()),
            });
        // What was dropped explains what is missing.
        let complete = report.complete();
        match (held, complete) {
            (Err(wrong), Err(dropped)) => return Err(wrong.context(dropped.to_string())),
            (held, complete) => held.and(complete)?,
        }
        if self.all_known {
            verdict::exit_status(report, self.any_loss)?;
            verdict::no_flush_invented(report, &self.storage_errors)?;
        }
        Ok(())
    }
}

/// The results come at the end of a shared run, which may be minutes away.
fn progress(story: Story) {
    println!("... {}", story.name());
}

fn lose(
    story: Story,
    volume: &mut Volume,
    tools: &[Tool],
    running: &mut [Running],
    notes: &mut Vec<String>,
) -> Result<(verdict::Losses, Vec<StorageClaim>)> {
    let mut world = World::new(volume, &story.folder())?;
    let played = (story.scenario.play)(&mut world);
    let left = world.left();
    let (points, storage_errors, mut seen) = world.into_points();
    notes.append(&mut seen);
    played?;
    // It compares what is in memory: that is gone once the disk is read, which unmounts it.
    for (tool, running) in tools.iter().zip(running) {
        if tool.verify {
            for claim in points.iter().filter_map(|point| point.truth.incident()) {
                running.wait_for_incident(claim)?;
            }
        }
    }
    drop(left);
    let losses = verdict::read_the_disk(volume, &points, notes)?;
    Ok((losses, storage_errors))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of three plays, each right or wrong in the opinion of one of both.
    fn summed_up(results: [Option<&str>; 3]) -> Result<()> {
        let plays = results.into_iter().zip(1..).map(|(by, play)| Done {
            story: Story {
                kind: Kind::Ext4,
                below: Below::Fault,
                scenario: &scenarios()[0],
                play,
            },
            result: match by {
                None => Ok(()),
                Some("dtrace") => Err(anyhow::anyhow!("0 incidents").context(NotByDtrace)),
                Some(_) => Err(anyhow::anyhow!("0 incidents").context("by ebpf")),
            },
            notes: Vec::new(),
            took: Duration::ZERO,
        });
        let mut stories = sum_up(plays.collect());
        assert_eq!(stories.len(), 1);
        stories.remove(0).result
    }

    #[test]
    fn the_second_opinion_is_asked_for_once_and_the_first_every_time() {
        let (dtrace, ebpf) = (Some("dtrace"), Some("ebpf"));
        assert!(summed_up([None, None, None]).is_ok());
        assert!(summed_up([dtrace, None, dtrace]).is_ok());
        assert!(summed_up([dtrace, dtrace, dtrace]).is_err());
        for wrong in [
            [ebpf, None, None],
            [None, ebpf, None],
            [None, dtrace, ebpf],
            [dtrace, ebpf, None],
        ] {
            let error = summed_up(wrong).unwrap_err();
            assert!(!error.is::<NotByDtrace>(), "{wrong:?}: {error:#}");
        }
    }
}
