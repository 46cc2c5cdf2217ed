//! Very much at once: storms of failures, very many files, loops of syncs, rings that are too
//! small, tracers that come and go. What must hold then is that no loss is missed without a word.

mod cases;
pub mod disk;
mod serve;
pub mod sync_loops;
pub mod tracer;

use std::{path::PathBuf, time::Instant};

use anyhow::{Result, bail};
use clap::Args;

use crate::{shielded::EndsInThreads, step::is_root};
use cases::{CASES, Size};

/// Put msync-trace under stress on this kernel, and hold it to what must be true then
///
/// Every case loses data on a disk that fails on command. What was measured is printed with each
/// case; docs/performance.md says what the figures mean.
#[derive(Args)]
pub struct StressArgs {
    /// Only cases whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// A tenth of the files and pages
    #[arg(long)]
    quick: bool,
    /// How long the case `serve` takes
    #[arg(long, value_name = "N")]
    minutes: Option<u64>,
    /// The tool to test
    #[arg(
        long,
        default_value = "target/release/msync-trace",
        value_name = "PATH"
    )]
    msync_trace: PathBuf,
    /// Print the names of the cases
    #[arg(long)]
    list: bool,
}

/// Runs them; the exit status of this process.
pub fn run(args: &StressArgs) -> Result<u8> {
    let chosen = CASES.iter().filter(|case| case.name.contains(&args.only));
    if args.list {
        chosen.for_each(|case| println!("{:20} {}", case.name, case.promise));
        return Ok(0);
    }
    if !is_root() {
        bail!("stress mounts file systems: run as root");
    }
    if !args.msync_trace.exists() {
        bail!(
            "{} is missing: cargo build --release makes it",
            args.msync_trace.display()
        );
    }
    for module in ["loop", "fuse", "ext4"] {
        let _ = std::process::Command::new("modprobe")
            .args(["-q", module])
            .output();
    }
    crate::faults::private_mounts()?;
    let _in_threads = EndsInThreads::new();
    let mut size = if args.quick { Size::QUICK } else { Size::FULL };
    if let Some(minutes) = args.minutes {
        size.serve_seconds = 60 * minutes;
    }
    let (mut passed, mut failed) = (0, 0);
    for case in chosen {
        let begin = Instant::now();
        match (case.play)(&args.msync_trace, size) {
            Ok(said) => {
                passed += 1;
                println!(
                    "PASS {} ({} ms): {said}",
                    case.name,
                    begin.elapsed().as_millis()
                );
            }
            Err(error) => {
                failed += 1;
                println!("FAIL {}: {error:#}", case.name);
            }
        }
    }
    println!("{passed} passed, {failed} failed, 0 skipped");
    Ok(u8::from(failed > 0))
}
