//! `cargo xtask bench`: what msync-trace costs, as ratios of things measured side by side.

mod cost;
mod measure;
mod recorded;
mod report;
mod startup;
mod storm;
mod tracers;

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::{
    paths,
    step::{is_root, progress},
};
use report::{Machine, Row};

/// Measure what msync-trace costs, and write it to target/bench.json (needs root)
#[derive(Args)]
pub struct BenchArgs {
    /// Fewer rounds and a small storm: to see that it works, not for figures.
    #[arg(long)]
    quick: bool,
    /// Only these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Subject>,
    /// Put the table into docs/performance.md.
    #[arg(long)]
    write: bool,
    /// The program to measure.
    #[arg(long, value_name = "PATH")]
    msync_trace: Option<PathBuf>,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// Start to attached, and memory and processor time when idle.
    Start,
    /// Nanoseconds per system call.
    Cost,
    /// Many failed pages.
    Storm,
    /// Facts per second through the correlator.
    Correlator,
    /// The report of a record of ten million facts; fails if it is too slow or too large.
    Report,
}

/// Runs the benchmarks; the exit status of this process.
pub fn run(args: &BenchArgs) -> Result<u8> {
    if !is_root() {
        bail!("tracing and mounting file systems take root");
    }
    let program = args
        .msync_trace
        .clone()
        .unwrap_or_else(|| paths::release("msync-trace"));
    if !program.exists() {
        bail!(
            "{} is missing: cargo build --release -p msync-trace",
            program.display()
        );
    }
    crate::faults::private_mounts()?;
    tracers::mount_tracefs();
    let scratch = tempfile::tempdir()?;
    // Before anything here starts a thread: the device forks.
    let wanted = |subject| args.only.is_empty() || args.only.contains(&subject);
    let pages = if args.quick { 10_000 } else { 250_000 };
    let disk = (wanted(Subject::Storm) || wanted(Subject::Cost))
        .then(|| storm::Disk::new(pages, scratch.path()));
    let mut disk = disk.transpose()?;

    let machine = Machine::of(tracers::tier(&program)?);
    let mut rows = Vec::new();
    if wanted(Subject::Start) {
        progress("==> start to attached");
        rows.extend(startup::measure(&program, &machine.tier, args.quick)?);
    }
    if let Some(disk) = &mut disk {
        if wanted(Subject::Cost) {
            progress("==> cost per system call");
            rows.extend(cost::measure(&program, &machine, disk.path(), args.quick)?);
        }
        if wanted(Subject::Storm) {
            progress("==> storm of failed pages");
            rows.extend(match machine.blind() {
                Some(why) => vec![Row::missing("storm of failed pages", &why)],
                None => storm::measure(&program, disk, args.quick)?,
            });
        }
    }
    if wanted(Subject::Correlator) {
        progress("==> correlator");
        rows.push(correlator(args.quick)?);
    }
    let mut within = true;
    if wanted(Subject::Report) {
        progress("==> report of a large record");
        let (found, held) = recorded::measure(&program, scratch.path(), args.quick)?;
        rows.extend(found);
        within = held;
    }
    finish(args, &machine, &rows)?;
    Ok(u8::from(!within))
}

fn finish(args: &BenchArgs, machine: &Machine, rows: &[Row]) -> Result<()> {
    let machine = machine.at_the_end();
    let table = report::table(&machine, rows);
    println!("{table}");
    let json = paths::target().join("bench.json");
    fs::write(
        &json,
        serde_json::to_string_pretty(&report::json(&machine, rows))?,
    )
    .with_context(|| format!("cannot write {}", json.display()))?;
    if args.write {
        report::write_page(&table)?;
    }
    Ok(())
}

/// The example `correlate_bench`, which needs no root and no kernel.
fn correlator(quick: bool) -> Result<Row> {
    let facts = if quick { "1000000" } else { "10000000" };
    let mut rates = Vec::new();
    for _ in 0..if quick { 1 } else { 3 } {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(paths::root()).args([
            "run",
            "--quiet",
            "--release",
            "--package",
            "msync-trace",
            "--example",
            "correlate_bench",
            "--",
            facts,
        ]);
        let output = cargo.output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let Ok(line) = serde_json::from_str::<serde_json::Value>(text.trim()) else {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().last().unwrap_or("no output").to_owned();
            return Ok(Row::missing("facts per second, correlator", &said));
        };
        rates.push(line["facts_per_second"].as_f64().unwrap_or(0.0) / 1e6);
    }
    Ok(Row::alone(
        "facts per second, correlator",
        "million/s",
        rates,
    ))
}
