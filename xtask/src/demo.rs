//! `cargo xtask demo`: from a fresh clone to a reported loss.

use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    paths,
    setup::{self, Group},
    step::{Ending, Step, is_root, progress, seconds},
};

/// Set up, build, and watch a loss being made on purpose and reported (needs root)
#[derive(Args)]
pub struct DemoArgs {}

/// Runs the demo; the exit status of this process.
pub fn run(_: &DemoArgs) -> Result<u8> {
    progress("==> [1/3] set-up");
    setup::ensure(&[Group::Build, Group::Scenarios])?;

    let log = paths::log("demo-build");
    progress(&format!(
        "==> [2/3] cargo build --release (log: {})",
        log.display()
    ));
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(paths::root())
        .args(["build", "--release", "--package", "msync-trace"]);
    let built = Step::new("build", cargo, log).must()?;
    progress(&format!("    {}", seconds(built.took)));

    progress("==> [3/3] msync-trace selftest");
    selftest()
}

fn selftest() -> Result<u8> {
    let program = paths::release("msync-trace");
    if !is_root() {
        // It may ask for a password, so the terminal is its own.
        let status = Command::new("sudo").arg(program).arg("selftest").status();
        let status = status.context("selftest mounts filesystems: run this as root")?;
        return Ok(u8::try_from(status.code().unwrap_or(2)).unwrap_or(2));
    }
    let mut command = Command::new(program);
    command.arg("selftest");
    let mut step = Step::new("selftest", command, paths::log("demo-selftest"));
    step.ticker = false;
    match step.run(|line| println!("{line}"))?.ending {
        Ending::Exit(status) => Ok(u8::try_from(status).unwrap_or(2)),
        Ending::TimedOut => Ok(124),
    }
}
