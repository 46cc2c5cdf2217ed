//! `cargo xtask test`: every test there is, on this kernel and on those of the guests.

use std::{
    num::NonZero,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Args;

#[cfg(target_os = "linux")]
use crate::packaging;
use crate::{
    fleet, freebsd, lint_d, paths, readme,
    setup::{self, Group},
    step::{Ending, Step, is_root, progress, seconds},
    tally::{CargoTestOutput, ScenarioOutput, Tally},
    vm::{
        dtrace,
        guest::{GuestCommand, GuestEnding, quote},
        kernels,
    },
};

/// On this kernel. NFS and 9P are tested in the guests, whose kernels all have them.
const ALL_FILESYSTEMS: &str = "ext4,ext4-nojournal,ext4-data-journal,xfs,btrfs,ext2,fuse";
/// The guests in the order in which they are begun, so that no long one is left for the end.
const LONGEST_FIRST: [&str; 4] = ["7.2", "6.12", "5.10", "6.1"];

/// What is run in a guest, one after the other: its name, and arguments of `xtask`. Not all there is:
/// everything takes ten times as long there.
const STAGES: [(&str, &str); 8] = [
    (
        // And what can still be saved, which takes no further start of the tool.
        "modules loaded later",
        "scenarios --shared-tool --verify --fs ext4,xfs,btrfs --modules-later --tier auto \
         --only same_descriptor,evicted_inode,given_up",
    ),
    (
        "served",
        "scenarios --shared-tool --fs nfs3,nfs4,fuse,9p --tier auto --only server_,9p/partly_rewritten",
    ),
    (
        "others",
        "scenarios --shared-tool --fs ext2,vfat,f2fs --tier auto",
    ),
    (
        "fentry",
        "scenarios --shared-tool --fs ext4,xfs,btrfs --tier fentry",
    ),
    (
        "kprobe",
        "scenarios --shared-tool --fs ext4,xfs,btrfs --tier kprobe",
    ),
    (
        "tracepoint",
        "scenarios --shared-tool --fs ext4,xfs,btrfs --tier tracepoint",
    ),
    (
        // By the tier that looks at the block layer itself.
        "other disks",
        "scenarios --shared-tool --below crypt,error,scsi-debug --fs ext4 --tier tracepoint --only same_descriptor",
    ),
    (
        "random programs",
        // Seeds in which something is lost on each of them.
        "lab fuzz --fs ext4,xfs,btrfs --seed 51 --runs 10 --out /run/failures",
    ),
];

/// The same stories told by the D script, with the eBPF programs beside it: those of every kind of
/// verdict, and none that it cannot see (dtrace/README.md).
const DTRACE: (&str, &str) = (
    "dtrace",
    "scenarios --shared-tool --source ebpf,dtrace --fs ext4,xfs,btrfs --only \
     same_descriptor,opened_after_the_error_was_seen,flusher_fails_in_background,\
     rewritten_before_msync,truncated_before_msync,two_files_one_msync,outside_the_range,\
     evicted_inode",
);

/// A tracer is killed, and its hooks go on by themselves: that test of `msync-trace/tests/restart.rs` which
/// has most to do with the kernel. The booted guest does this and more.
const RESTARTS: (&str, &str) = ("restarts", "failure_and_msync_happen_while_nobody_traces");

/// What is run in a guest with this kernel, by the runner of the scenarios.
fn stages(series: &str) -> Vec<(&'static str, &'static str)> {
    let dtrace = dtrace::KERNELS.contains(&series).then_some(DTRACE);
    STAGES.into_iter().chain(dtrace).collect()
}

/// The names of all that is run in a guest with this kernel.
fn stage_names(series: &str) -> Vec<&'static str> {
    let stages = stages(series).into_iter().chain(restarts(series));
    stages.map(|(name, _)| name).collect()
}

fn restarts(series: &str) -> Option<(&'static str, &'static str)> {
    (series != kernels::BOOTED).then_some(RESTARTS)
}

/// Run every test: style, units, real losses on this kernel and in virtual machines
///
/// Each step has a log below target/log. The last line is `N passed, N failed, N skipped`; the exit
/// status is 1 if a test failed, or was skipped where CI=true or --deny-skips.
#[derive(Args)]
pub struct TestArgs {
    /// Run only these steps (`vm` means all guests); what they need is built first
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Leave out the virtual machines; they count as skipped
    #[arg(long)]
    no_vm: bool,
    /// List the steps
    #[arg(long)]
    list: bool,
    /// A skipped test is a failure
    #[arg(long)]
    deny_skips: bool,
    /// Run so many guests, or clippy and freebsd, at the same time
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
    /// End a guest after so many minutes
    #[arg(long, value_name = "MINUTES", default_value_t = 50)]
    vm_timeout: u64,
}

/// A step of the test run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Setup,
    Format,
    Clippy,
    Freebsd,
    LintD,
    Units,
    Build,
    Fleet,
    Packaging,
    Monitoring,
    Durability,
    Stress,
    Scenarios,
    Fuzz,
    Readme,
    Guest(&'static str),
}

impl Check {
    /// All of them, in the order in which they are run.
    fn all() -> Vec<Self> {
        let mut all = vec![
            Self::Setup,
            Self::Format,
            Self::LintD,
            Self::Units,
            Self::Build,
            Self::Fleet,
            Self::Packaging,
            Self::Monitoring,
            Self::Durability,
            Self::Stress,
            Self::Scenarios,
            Self::Fuzz,
            Self::Readme,
        ];
        all.extend(LONGEST_FIRST.map(Self::Guest));
        all.extend([Self::Clippy, Self::Freebsd]);
        all
    }

    fn name(self) -> String {
        match self {
            Self::Setup => "setup".to_owned(),
            Self::Format => "fmt".to_owned(),
            Self::Clippy => "clippy".to_owned(),
            Self::Freebsd => "freebsd".to_owned(),
            Self::LintD => "lint-d".to_owned(),
            Self::Units => "units".to_owned(),
            Self::Build => "build".to_owned(),
            Self::Fleet => "fleet".to_owned(),
            Self::Packaging => "packaging".to_owned(),
            Self::Monitoring => "monitoring".to_owned(),
            Self::Durability => "durability".to_owned(),
            Self::Stress => "stress".to_owned(),
            Self::Scenarios => "scenarios".to_owned(),
            Self::Fuzz => "fuzz".to_owned(),
            Self::Readme => "readme".to_owned(),
            Self::Guest(series) => format!("vm-{series}"),
        }
    }

    fn purpose(self) -> String {
        match self {
            Self::Setup => "what the steps need is here".to_owned(),
            Self::Format => "cargo fmt --check".to_owned(),
            Self::Clippy => "cargo clippy, warnings denied".to_owned(),
            Self::Freebsd => "cargo check for FreeBSD, warnings denied".to_owned(),
            Self::LintD => "the D scripts, by the rules of cargo xtask lint-d".to_owned(),
            Self::Units => "unit and integration tests".to_owned(),
            Self::Build => "cargo build --release".to_owned(),
            Self::Fleet => "exported evidence of 1,000 hosts, asked with DuckDB".to_owned(),
            Self::Packaging => {
                "units, alert rules, the package in a clean root and booted with systemd".to_owned()
            }
            Self::Monitoring => "a loss beside Prometheus and Alertmanager".to_owned(),
            Self::Durability => "records on a disk that fails".to_owned(),
            Self::Stress => "serve among storms, restarts and failing outputs, briefly".to_owned(),
            Self::Scenarios => "real losses on this kernel".to_owned(),
            Self::Fuzz => "random programs on a failing disk".to_owned(),
            Self::Readme => "every command of README.md".to_owned(),
            Self::Guest(series) => {
                format!(
                    "real losses on Linux {series}: {}",
                    stage_names(series).join(", ")
                )
            }
        }
    }

    fn is_guest(self) -> bool {
        matches!(self, Self::Guest(_))
    }

    /// Nothing is measured or lost on this kernel: `--jobs` of these run side by side, after all others.
    fn takes_only_processors(self) -> bool {
        matches!(self, Self::Guest(_) | Self::Clippy | Self::Freebsd)
    }

    /// Runs what `cargo build --release` makes.
    fn needs_build(self) -> bool {
        matches!(
            self,
            Self::Fleet
                | Self::Packaging
                | Self::Monitoring
                | Self::Durability
                | Self::Stress
                | Self::Scenarios
                | Self::Fuzz
                | Self::Readme
                | Self::Guest(_)
        )
    }

    fn chosen_by(self, only: &[String]) -> bool {
        only.iter()
            .any(|name| *name == self.name() || (name == "vm" && self.is_guest()))
    }
}

/// Runs the tests; the exit status of this process.
pub fn run(args: &TestArgs) -> Result<u8> {
    let checks = choose(&args.only)?;
    if args.list {
        for check in checks {
            println!("{:10} {}", check.name(), check.purpose());
        }
        return Ok(0);
    }
    let started = Instant::now();
    #[cfg(target_os = "linux")]
    let _in_threads = crate::shielded::EndsInThreads::new();
    let run = TestRun {
        args,
        checks: &checks,
        begun: AtomicUsize::new(0),
    };
    let mut total = Tally::default();
    let (side_by_side, alone): (Vec<Check>, Vec<Check>) = checks
        .iter()
        .partition(|check| check.takes_only_processors());
    for check in alone {
        total.add(run.run_one(check));
    }
    total.add(run.run_side_by_side(&side_by_side));
    Ok(verdict(args, &total, started.elapsed()))
}

/// The steps that were asked for, and those that they need.
fn choose(only: &[String]) -> Result<Vec<Check>> {
    let all = Check::all();
    if only.is_empty() {
        return Ok(all);
    }
    let known = |name: &&String| all.iter().any(|check| check.chosen_by(&[(*name).clone()]));
    if let Some(unknown) = only.iter().find(|name| !known(name)) {
        bail!("there is no step {unknown:?}; `cargo xtask test --list` shows them");
    }
    let build = all
        .iter()
        .any(|check| check.chosen_by(only) && check.needs_build());
    let wanted = |check: &Check| {
        check.chosen_by(only) || (build && matches!(check, Check::Build | Check::Setup))
    };
    Ok(all.into_iter().filter(wanted).collect())
}

/// Says what failed and what was skipped; the totals are the last line.
fn verdict(args: &TestArgs, total: &Tally, took: Duration) -> u8 {
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    let skips_fail = (ci || args.deny_skips) && !total.skipped.is_empty();
    progress("");
    for failure in &total.failed {
        progress(&format!("FAIL {failure}"));
    }
    for skip in &total.skipped {
        progress(&format!("SKIPPED {skip}"));
    }
    if skips_fail {
        progress("A skipped test counts as a failure in this run.");
    }
    progress(&format!("All steps: {}", seconds(took)));
    println!("{}", total.line());
    u8::from(!total.failed.is_empty() || skips_fail)
}

struct TestRun<'a> {
    args: &'a TestArgs,
    checks: &'a [Check],
    begun: AtomicUsize,
}

impl TestRun<'_> {
    /// Side by side, as many as `--jobs` allows.
    fn run_side_by_side(&self, checks: &[Check]) -> Tally {
        let next = AtomicUsize::new(0);
        let total = Mutex::new(Tally::default());
        let worker = || {
            while let Some(check) = checks.get(next.fetch_add(1, Ordering::Relaxed)) {
                let tally = self.run_one(*check);
                total
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .add(tally);
            }
        };
        thread::scope(|scope| {
            for _ in 0..self.args.jobs.clamp(1, checks.len().max(1)) {
                scope.spawn(worker);
            }
        });
        total.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a step and says how it went. An error is a failed test.
    fn run_one(&self, check: Check) -> Tally {
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let count = self.checks.len();
        let name = check.name();
        progress(&format!(
            "==> [{number}/{count}] {name}: {}",
            check.purpose()
        ));
        let started = Instant::now();
        let tally = self
            .perform(check)
            .unwrap_or_else(|error| Tally::one_failed(format!("{name}: {error:#}")));
        let state = if tally.failed.is_empty() {
            "ok  "
        } else {
            "FAIL"
        };
        progress(&format!(
            "    {state} {name}  {}  {}",
            seconds(started.elapsed()),
            tally.line()
        ));
        for what in tally.failed.iter().chain(&tally.skipped) {
            progress(&format!("         {what}"));
        }
        tally
    }

    fn perform(&self, check: Check) -> Result<Tally> {
        match check {
            Check::Setup => self.set_up(),
            Check::Format => one(check, cargo(&["fmt", "--all", "--check"])),
            Check::Clippy => {
                let lint = [
                    "clippy",
                    "--workspace",
                    "--all-targets",
                    "--",
                    "-D",
                    "warnings",
                ];
                one(check, cargo(&lint))
            }
            Check::Freebsd => one(check, freebsd::check()?),
            Check::LintD => lint_d::check(),
            Check::Units => units(check),
            Check::Build => build(check),
            Check::Readme => readme::run(),
            Check::Fleet => fleet::run(),
            #[cfg(target_os = "linux")]
            Check::Packaging => packaging::run(!self.args.no_vm),
            #[cfg(not(target_os = "linux"))]
            Check::Packaging => Ok(Tally::one_skipped("packaging: not Linux")),
            Check::Monitoring if !is_root() => Ok(Tally::one_skipped("monitoring: not root")),
            Check::Monitoring => {
                setup::ensure(&[Group::Monitoring])?;
                losses_here(check, &["monitoring"])
            }
            Check::Durability if !is_root() => Ok(Tally::one_skipped("durability: not root")),
            Check::Durability => durability(check),
            Check::Stress if !is_root() => Ok(Tally::one_skipped("stress: not root")),
            Check::Stress => losses_here(check, &["stress", "--only", "serve", "--quick"]),
            Check::Scenarios if !is_root() => Ok(Tally::one_skipped("scenarios: not root")),
            Check::Scenarios => scenarios_here(check),
            Check::Fuzz if !is_root() => Ok(Tally::one_skipped("fuzz: not root")),
            Check::Fuzz => fuzz_here(check),
            Check::Guest(series) if self.args.no_vm => {
                Ok(Tally::one_skipped(format!("vm-{series}: --no-vm")))
            }
            Check::Guest(series) => self.scenarios_in_guest(check, series),
        }
    }

    fn set_up(&self) -> Result<Tally> {
        let mut groups = vec![Group::Build, Group::Scenarios];
        let guests = !self.args.no_vm && self.checks.iter().any(|check| check.is_guest());
        groups.extend(guests.then_some(Group::Vm));
        setup::ensure(&groups)?;
        Ok(Tally::one_passed())
    }

    /// Processors of a guest, so that all that run at a time have one of the machine's each: one that
    /// waits for another which is not being run halves the speed of both guests.
    fn processors(&self) -> usize {
        let here = thread::available_parallelism().map_or(1, NonZero::get);
        (here / self.args.jobs.max(1)).clamp(1, 2)
    }

    /// One boot for all stages: it takes longer than most scenarios.
    fn scenarios_in_guest(&self, check: Check, series: &str) -> Result<Tally> {
        let virtme = setup::ensure_vm()?;
        let guests = kernels::cached();
        let Some(guest) = kernels::find(&guests, series) else {
            bail!("no guest kernel {series}: `cargo xtask setup --vm` fetches it")
        };
        let log = paths::log(&check.name());
        let command = GuestCommand {
            guest,
            script: &guest_script(series, &test_program("restart")?),
            deadline: Duration::from_secs(self.args.vm_timeout * 60),
            memory: "3G",
            processors: self.processors(),
            kvm: false,
            verbose: false,
            log: log.clone(),
            ticker: true,
        };
        let mut stages = StageOutput::new(series);
        let outcome = command.run(&virtme, |line| stages.read(line))?;
        let mut tally = stages.finish();
        let ending = match outcome.ending {
            GuestEnding::Exit(0) => None,
            GuestEnding::Exit(status) => Some(format!("exit status {status}")),
            GuestEnding::Died => Some("the guest went down before the tests ended".to_owned()),
            GuestEnding::NeverBegan => Some("the guest did not boot".to_owned()),
            GuestEnding::TimedOut => Some(format!("killed after {}", seconds(outcome.took))),
        };
        if let Some(ending) = ending {
            tally.failed.push(format!("vm-{series}: {ending}"));
        }
        if !tally.failed.is_empty() {
            show_tail(&log, &outcome.tail);
        }
        Ok(tally)
    }
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(paths::root()).args(arguments);
    command
}

/// An example, built as the unit tests have built it: of all packages together, with the features that
/// all of them want. Otherwise everything that it depends on would be built once more.
pub fn example(name: &str) -> Result<PathBuf> {
    let build = cargo(&["build", "--workspace", "--example", name]);
    let step = format!("build-{name}");
    Step::new(&step, build, paths::log(&step)).must()?;
    Ok(paths::target().join("debug/examples").join(name))
}

/// Tests of a file below `msync-trace/tests`, built as the unit tests have built them: the program.
fn test_program(name: &str) -> Result<PathBuf> {
    let build = cargo(&["test", "--workspace", "--test", name, "--no-run"]);
    let step = format!("build-{name}");
    let mut found = None;
    let outcome = Step::new(&step, build, paths::log(&step)).run(|line| {
        // `  Executable tests/restart.rs (target/debug/deps/restart-0123456789abcdef)`
        if line.trim_start().starts_with("Executable ")
            && let Some((_, program)) = line.rsplit_once('(')
        {
            found = Some(paths::root().join(program.trim_end_matches(')')));
        }
    })?;
    match found.filter(|_| outcome.success()) {
        Some(program) => Ok(program),
        None => bail!(
            "the tests {name} cannot be built: {}",
            paths::log(&step).display()
        ),
    }
}

fn step(check: Check, command: Command) -> Step {
    Step::new(&check.name(), command, paths::log(&check.name()))
}

fn show_tail(log: &Path, tail: &[String]) {
    progress(&format!(
        "    the last lines of {}:\n{}",
        log.display(),
        tail.join("\n")
    ));
}

/// A step that is one test.
fn one(check: Check, command: Command) -> Result<Tally> {
    let step = step(check, command);
    let log = step.log.clone();
    let outcome = step.run(|_| ())?;
    if outcome.success() {
        return Ok(Tally::one_passed());
    }
    show_tail(&log, &outcome.tail);
    Ok(Tally::one_failed(format!(
        "{}: {:?}, see {}",
        check.name(),
        outcome.ending,
        log.display()
    )))
}

fn units(check: Check) -> Result<Tally> {
    let step = step(
        check,
        cargo(&[
            "test",
            "--workspace",
            "--no-fail-fast",
            "--",
            "--show-output",
        ]),
    );
    let log = step.log.clone();
    let mut output = CargoTestOutput::default();
    let outcome = step.run(|line| output.read(line))?;
    if !outcome.success() {
        show_tail(&log, &outcome.tail);
    }
    Ok(output.finish(outcome.success()))
}

/// One after the other: together, each would be built with the features that the other wants, and what
/// `cargo build --release` makes would be built once more by the next who asks for it.
fn build(check: Check) -> Result<Tally> {
    let mut tally = one(check, cargo(&["build", "--release"]))?;
    tally.add(one(
        check,
        cargo(&["build", "--release", "--package", "xtask"]),
    )?);
    Ok(tally)
}

fn scenarios_here(check: Check) -> Result<Tally> {
    losses_here(
        check,
        &[
            "scenarios",
            "--fs",
            ALL_FILESYSTEMS,
            "--tier",
            "auto",
            "--verify",
        ],
    )
}

fn durability(check: Check) -> Result<Tally> {
    let writer = example("record_generated")?;
    let writer = writer.to_string_lossy();
    losses_here(check, &["durability", "--writer", &writer])
}

/// The same programs every time, as many of them as half a minute for each file system allows.
fn fuzz_here(check: Check) -> Result<Tally> {
    losses_here(
        check,
        &[
            "lab",
            "fuzz",
            "--seed",
            "1",
            "--runs",
            "300",
            "--seconds",
            "28",
        ],
    )
}

/// Runs `xtask` with these arguments: it prints a line per test and totals.
fn losses_here(check: Check, arguments: &[&str]) -> Result<Tally> {
    let mut command = Command::new(paths::release("xtask"));
    command
        .current_dir(paths::root())
        .args(arguments)
        .arg("--msync-trace")
        .arg(paths::release("msync-trace"));
    let step = step(check, command);
    let log = step.log.clone();
    let mut output = ScenarioOutput::new("this kernel");
    let outcome = step.run(|line| output.read(line))?;
    if !outcome.success() {
        show_tail(&log, &outcome.tail);
    }
    Ok(output.finish(match outcome.ending {
        Ending::Exit(status) => Some(status),
        Ending::TimedOut => None,
    }))
}

const STAGE_BEGINS: &str = "=== stage ";
const STAGE_ENDS: &str = "=== status ";

/// Runs the scenarios stage by stage with the programs built on the host, `program` has the tests of
/// restarts. The first stage comes before the file systems' modules.
fn guest_script(series: &str, program: &Path) -> String {
    let xtask = quote(&paths::release("xtask").to_string_lossy());
    let msync_trace = quote(&paths::release("msync-trace").to_string_lossy());
    let stages = stages(series).into_iter().map(|(name, arguments)| {
        format!(
            "echo '{STAGE_BEGINS}{name}'\n\
             {xtask} {arguments} --msync-trace {msync_trace}\n\
             echo \"{STAGE_ENDS}$?\"\n"
        )
    });
    let program = quote(&program.to_string_lossy());
    let restarts = restarts(series).map(|(name, test)| {
        format!(
            "echo '{STAGE_BEGINS}{name}'\n\
             MSYNC_TRACE_PROGRAM={msync_trace} {program} --exact --show-output {test}\n\
             echo \"{STAGE_ENDS}$?\"\n"
        )
    });
    let stages = stages.chain(restarts).collect::<String>();
    format!("modprobe loop 2>/dev/null\n{stages}")
}

/// A stage that runs.
enum Running {
    Scenarios(ScenarioOutput),
    Tests(String, CargoTestOutput),
}

impl Running {
    fn new(series: &str, stage: &str) -> Self {
        let section = format!("Linux {series} {stage}");
        match stage == RESTARTS.0 {
            true => Self::Tests(section, CargoTestOutput::default()),
            false => Self::Scenarios(ScenarioOutput::new(&section)),
        }
    }

    fn read(&mut self, line: &str) {
        match self {
            Self::Scenarios(output) => output.read(line),
            Self::Tests(_, output) => output.read(line),
        }
    }

    /// The tests, once the program ended with `status` (nothing if it never ended).
    fn finish(self, status: Option<i32>) -> Tally {
        match self {
            Self::Scenarios(output) => output.finish(status),
            Self::Tests(section, output) => {
                let mut tally = output.finish(status == Some(0));
                for what in tally.failed.iter_mut().chain(&mut tally.skipped) {
                    *what = format!("{section}: {what}");
                }
                tally
            }
        }
    }
}

/// Takes a guest's output apart by stage. A stage that never came is a failure.
struct StageOutput {
    series: String,
    missing: Vec<&'static str>,
    running: Option<Running>,
    total: Tally,
}

impl StageOutput {
    fn new(series: &str) -> Self {
        Self {
            series: series.to_owned(),
            missing: stage_names(series),
            running: None,
            total: Tally::default(),
        }
    }

    fn read(&mut self, line: &str) {
        if let Some(stage) = line.strip_prefix(STAGE_BEGINS) {
            self.end_stage(None);
            self.missing.retain(|missing| *missing != stage.trim());
            self.running = Some(Running::new(&self.series, stage.trim()));
        } else if let Some(status) = line.strip_prefix(STAGE_ENDS) {
            self.end_stage(status.trim().parse().ok());
        } else if let Some(running) = &mut self.running {
            running.read(line);
        }
    }

    fn end_stage(&mut self, status: Option<i32>) {
        if let Some(running) = self.running.take() {
            self.total.add(running.finish(status));
        }
    }

    fn finish(mut self) -> Tally {
        self.end_stage(None);
        for stage in &self.missing {
            self.total
                .failed
                .push(format!("Linux {} {stage}: never began", self.series));
        }
        self.total
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::vm::kernels::SERIES;

    fn stages(lines: &[&str]) -> Tally {
        let mut output = StageOutput::new("6.1");
        for line in lines {
            output.read(line);
        }
        output.finish()
    }

    #[test]
    fn each_stage_has_its_own_totals() {
        let begins = STAGES.map(|(name, _)| format!("=== stage {name}"));
        let mut lines = Vec::new();
        for begin in &begins {
            lines.extend([begin, "PASS a", "PASS b", "2 passed, 0 failed, 0 skipped"]);
            lines.push("=== status 0");
        }
        lines.extend(["=== stage restarts", "test a ... ok", "SKIPPED a: no mkfs"]);
        lines.extend(["test result: ok. 2 passed; 0 failed", "=== status 0"]);
        let tally = stages(&lines);
        assert_eq!(tally.line(), "17 passed, 0 failed, 1 skipped");
        assert_eq!(tally.skipped, ["Linux 6.1 restarts: a: no mkfs"]);
    }

    #[test]
    fn a_guest_that_dies_in_one_stage_fails_for_it_and_for_those_after_it() {
        let tally = stages(&[
            "=== stage modules loaded later",
            "PASS a",
            "1 passed, 0 failed, 0 skipped",
            "=== status 0",
            "=== stage served",
            "PASS a",
            "1 passed, 0 failed, 0 skipped",
            "=== status 0",
            "=== stage others",
            "PASS a",
        ]);
        assert_eq!(tally.passed, 3);
        assert_eq!(
            tally.failed,
            [
                "Linux 6.1 others: the runner never ended",
                "Linux 6.1 fentry: never began",
                "Linux 6.1 kprobe: never began",
                "Linux 6.1 tracepoint: never began",
                "Linux 6.1 other disks: never began",
                "Linux 6.1 random programs: never began",
                "Linux 6.1 restarts: never began"
            ]
        );
    }

    #[test]
    fn a_step_brings_along_what_it_needs() {
        let only = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            choose(&names).map(|checks| checks.into_iter().map(Check::name).collect::<Vec<_>>())
        };
        assert_eq!(only(&["fmt"]).unwrap(), ["fmt"]);
        assert_eq!(only(&["vm-6.1"]).unwrap(), ["setup", "build", "vm-6.1"]);
        assert_eq!(
            only(&["vm"]).unwrap(),
            ["setup", "build", "vm-7.2", "vm-6.12", "vm-5.10", "vm-6.1"]
        );
        assert!(
            only(&["vm-9.9"])
                .unwrap_err()
                .to_string()
                .contains("vm-9.9")
        );
        assert_eq!(only(&[]).unwrap().len(), Check::all().len());
        let every: BTreeSet<&str> = SERIES.iter().map(|series| series.name).collect();
        assert_eq!(BTreeSet::from(LONGEST_FIRST), every);
    }
}
