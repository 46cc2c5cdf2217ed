//! The step `packaging`: what is given to others holds what it promises. Units are rated, the packages
//! are looked at, installed, and booted with systemd.

mod booted;
mod clean_root;
mod kubernetes;
mod lint;
mod root;
mod rules;
mod script;
mod units;
mod yaml;

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{
    dist,
    setup::{self, Group},
    step::{is_root, progress},
    tally::Tally,
};

pub use booted::{BootPackageArgs, run_alone as boot_package};

/// Makes the packages and tries everything; a test for each promise. `guests`: virtual machines are
/// wanted.
pub fn run(guests: bool) -> Result<Tally> {
    setup::ensure(&[Group::Dist, Group::Packaging])?;
    let mut tests = Tests::default();
    units::run(&mut tests);
    rules::run(&mut tests);
    kubernetes::run(&mut tests);
    let made = dist::make()?;
    lint::run(&mut tests, &made);
    let mut tally = tests.0;
    tally.add(match is_root() {
        true => clean_root::run(&made)?,
        false => Tally::one_skipped("packaging: clean root: not root"),
    });
    tally.add(match guests {
        true => booted::run(&made, None)?,
        false => Tally::one_skipped("packaging: booted: --no-vm"),
    });
    Ok(tally)
}

/// Runs what finds faults. What it says is the error.
fn finds_nothing(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} says:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Takes the tests in.
#[derive(Default)]
pub struct Tests(Tally);

impl Tests {
    /// Runs a test. An error is its failure.
    pub fn test(&mut self, name: &str, run: impl FnOnce() -> Result<()>) {
        self.0.add(match run() {
            Ok(()) => Tally::one_passed(),
            Err(error) => {
                progress(&format!("    FAIL {name}: {error:#}"));
                Tally::one_failed(format!("packaging: {name}: {error:#}"))
            }
        });
    }
}
