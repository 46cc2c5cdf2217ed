//! A record on a disk that fails: whatever happens, it opens, what was said to be stored is in it, and
//! whoever writes it goes on.

mod cases;
mod record;
mod tool;
mod writer;

use std::{path::PathBuf, time::Instant};

use anyhow::{Result, bail, ensure};
use clap::Args;

use crate::scenarios::{
    disk::Below,
    volume::{Kind, Sight, Volume},
    world::Skip,
};
use crate::{shielded::EndsInThreads, step::is_root};
use cases::{CASES, Place};

/// Kill what writes a record, cut its power, make its disk fail, and look what is left
///
/// The cases are played on ext4 and on XFS, on a disk that fails on command. Exit status 1 if a record
/// did not open, something was missing that had been said to be stored, or the writer did not go on.
#[derive(Args)]
pub struct DurabilityArgs {
    /// Only cases whose name (ext4/power_cut) contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Where the dice start that choose the moments
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The program that writes: `cargo build -p msync-trace --example record_generated` makes it
    #[arg(
        long,
        default_value = "target/debug/examples/record_generated",
        value_name = "PATH"
    )]
    writer: PathBuf,
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

const KINDS: [Kind; 2] = [Kind::Ext4, Kind::Xfs];

/// Runs them; the exit status of this process.
pub fn run(args: &DurabilityArgs) -> Result<u8> {
    if args.list {
        for case in CASES {
            println!("{:12} {}", case.name, case.story);
        }
        return Ok(0);
    }
    if !is_root() {
        bail!("file systems are mounted: run as root");
    }
    for (program, how) in [
        (&args.writer, "-p msync-trace --example record_generated"),
        (&args.msync_trace, "--release"),
    ] {
        ensure!(
            program.exists(),
            "{} is missing: cargo build {how}",
            program.display()
        );
    }
    crate::faults::load_modules();
    crate::faults::private_mounts()?;
    let _in_threads = EndsInThreads::new();
    let scratch = tempfile::tempdir()?;
    let mut count = [0; 3];
    let mut played = |name: &str, play: &mut dyn FnMut() -> Result<String>| {
        if name.contains(&args.only) {
            let begin = Instant::now();
            count[say(name, begin, play())] += 1;
        }
    };
    for kind in KINDS {
        let sight = Sight::of(kind, "auto");
        let mut volume = Volume::new(kind, Below::Fault, sight, scratch.path());
        for case in CASES.iter().filter(|case| case.on.contains(&kind)) {
            let name = format!("{}/{}", kind.name(), case.name);
            played(&name, &mut || match &mut volume {
                Ok(volume) => Place::new(volume, &args.writer, args.seed)
                    .and_then(|mut place| (case.play)(&mut place)),
                Err(error) => Err(again(error)),
            });
        }
    }
    played("tool/lied_to", &mut || tool::lied_to(&args.msync_trace));
    played("tool/same_disk", &mut || tool::same_disk(&args.msync_trace));
    played("tool/image_on_the_disk", &mut || {
        tool::image_on_the_disk(&args.msync_trace)
    });
    played("tool/filesystem_error", &mut || {
        tool::filesystem_error(&args.msync_trace)
    });
    let [passed, failed, skipped] = count;
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(u8::from(failed > 0))
}

/// The same reason, for the next case.
fn again(error: &anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<Skip>() {
        Some(Skip(reason)) => Skip(reason.clone()).into(),
        None => anyhow::anyhow!("{error:#}"),
    }
}

/// Prints how it went; which count it belongs to.
fn say(name: &str, begin: Instant, played: Result<String>) -> usize {
    match played {
        Ok(seen) => {
            println!("PASS {name} ({} ms): {seen}", begin.elapsed().as_millis());
            0
        }
        Err(error) if error.is::<Skip>() => {
            println!("SKIPPED {name}: {error}");
            2
        }
        Err(error) => {
            println!("FAIL {name}: {error:#}");
            1
        }
    }
}
