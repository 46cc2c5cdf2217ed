//! The report of a large record: how long it takes, and how much memory.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::report::Row;
use crate::{paths, step::progress};

const FACTS: u32 = 10_000_000;
/// What a report of so many facts may take.
const SECONDS: f64 = 5.0;
const MEBIBYTES: f64 = 300.0;

/// What one report took.
struct Took {
    wall: f64,
    processor: f64,
    mebibytes: f64,
}

/// Makes a record with the example `record_storm` and reports from it. Gives the rows, and whether
/// the limits held.
pub fn measure(program: &Path, scratch: &Path, quick: bool) -> Result<(Vec<Row>, bool)> {
    let facts = if quick { FACTS / 10 } else { FACTS };
    let file = scratch.join("storm.db");
    let mut cargo = Command::new("cargo");
    cargo.current_dir(paths::root());
    cargo.args(["run", "--quiet", "--release", "--package", "msync-trace"]);
    cargo.args(["--example", "record_storm", "--"]);
    let made = cargo.arg(&file).arg(facts.to_string()).status()?;
    if !made.success() {
        bail!("the example record_storm ended with {made}");
    }
    let mut took = Vec::new();
    for _ in 0..if quick { 1 } else { 3 } {
        took.push(report(program, &file)?);
    }
    std::fs::remove_file(&file)?;
    let rows = |of: fn(&Took) -> f64| took.iter().map(of).collect::<Vec<f64>>();
    let (wall, memory) = (rows(|it| it.wall), rows(|it| it.mebibytes));
    let least = wall.iter().copied().fold(f64::INFINITY, f64::min);
    let most = memory.iter().copied().fold(0.0, f64::max);
    // Other work on the machine can only make it slower.
    let held = least < SECONDS && most < MEBIBYTES;
    if !held {
        progress(&format!(
            "the report took {least:.2} s and {most:.0} MiB: more than {SECONDS} s or {MEBIBYTES} MiB"
        ));
    }
    let what = format!("report of {facts} facts");
    let rows = vec![
        Row::alone(&what, "s", wall),
        Row::alone(
            &format!("{what}, processor time"),
            "s",
            rows(|it| it.processor),
        ),
        Row::alone(&format!("{what}, memory"), "MiB", memory),
    ];
    Ok((rows, held))
}

fn report(program: &Path, file: &Path) -> Result<Took> {
    let begin = Instant::now();
    let child = Command::new(program)
        .arg("report")
        .arg(file)
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let (status, usage) = wait(child.id())?;
    let wall = begin.elapsed().as_secs_f64();
    // There are incidents in a storm.
    if status.code() != Some(1) {
        bail!("the report ended with {status}");
    }
    let seconds = |time: libc::timeval| {
        Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000).as_secs_f64()
    };
    Ok(Took {
        wall,
        processor: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        mebibytes: usage.ru_maxrss as f64 / 1024.0,
    })
}

/// How a child ended, and what it and nothing else took.
fn wait(pid: u32) -> Result<(ExitStatus, libc::rusage)> {
    let mut status = 0;
    // SAFETY: all bytes zero are a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both are valid places for the results, and nobody else waits for this child.
    let ended = unsafe { libc::wait4(pid.cast_signed(), &raw mut status, 0, &raw mut usage) };
    if ended < 0 {
        return Err(io::Error::last_os_error()).context("cannot wait for the report");
    }
    Ok((ExitStatus::from_raw(status), usage))
}
