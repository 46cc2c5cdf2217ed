//! The packages in a clean Debian: installed, used, removed (`clean_root.sh`).

use std::{fs, process::Command, time::Duration};

use anyhow::Result;

use super::{root, script::ScriptOutput};
use crate::{dist::Made, paths, step::Step, tally::Tally};

const SCRIPT: &str = include_str!("clean_root.sh");
/// Beside what every Debian has: what completes and shows man pages, what selftest makes its scratch disk
/// with, and the other kind of packages.
const INCLUDE: &str = "bash-completion,e2fsprogs,fish,man-db,mount,rpm,zsh";
const MADE: &str = "usr/bin/rpm";
const DEADLINE: Duration = Duration::from_secs(120);

/// All tests of the packages.
pub fn run(made: &Made) -> Result<Tally> {
    let root = root::cached("clean-root", &root::codename()?, INCLUDE, MADE)?;
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("clean_root.sh");
    fs::write(&script, SCRIPT)?;
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--mount", "--propagation", "private", "bash"])
        .args([&script, &root, &made.package, &made.rpm]);
    let log = paths::log("clean-root");
    let mut step = Step::new("clean-root", unshare, log.clone());
    step.deadline = DEADLINE;
    let mut output = ScriptOutput::new("packaging: clean root");
    step.run(|line| output.read(line))?;
    Ok(output.finish(&log.display().to_string()))
}
