//! systemd's own opinion of the units.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};

use super::Tests;
use crate::paths;

/// Times ten, as `--threshold` wants it: 2.0.
const WORST: &str = "20";
const UNITS: [&str; 2] = ["msync-trace.service", "msync-trace.socket"];

pub fn run(tests: &mut Tests) {
    tests.test("systemd-analyze security, 2.0 or less", || {
        let output = rating(&folder().join("msync-trace.service"))?;
        ensure!(output.status.success(), "{}", what_is_open(&output));
        Ok(())
    });
    tests.test("the limit of the rating holds", || {
        // A unit that says nothing about its privileges is rated 9 and more.
        let root = tempfile::tempdir()?;
        let unit = root.path().join("open.service");
        fs::write(&unit, "[Service]\nExecStart=/bin/true\n")?;
        let output = rating(&unit)?;
        ensure!(!output.status.success(), "an open unit was let through");
        Ok(())
    });
    tests.test("systemd-analyze verify", || {
        let output = verified(&folder())?;
        ensure!(
            output.status.success() && output.stderr.is_empty() && output.stdout.is_empty(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    });
}

fn folder() -> PathBuf {
    paths::root().join("packaging/systemd")
}

fn rating(unit: &Path) -> Result<Output> {
    Command::new("systemd-analyze")
        .args(["security", "--no-pager", "--offline=true"])
        .args(["--threshold", WORST])
        .arg(unit)
        .output()
        .context("cannot run systemd-analyze")
}

/// The lines that count against it, and the sum.
fn what_is_open(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    let open = text.lines().filter(|line| !line.starts_with('✓'));
    open.collect::<Vec<_>>().join("\n")
}

/// Below a root of their own, where the programs that they name are: those of this machine may not be.
fn verified(folder: &Path) -> Result<Output> {
    let root = tempfile::tempdir()?;
    let units = root.path().join("usr/lib/systemd/system");
    fs::create_dir_all(&units)?;
    for unit in UNITS {
        fs::copy(folder.join(unit), units.join(unit))?;
    }
    for program in ["usr/bin/msync-trace", "bin/mkdir", "bin/sh"] {
        let program = root.path().join(program);
        fs::create_dir_all(program.parent().context("a program without a folder")?)?;
        fs::copy("/bin/true", program)?;
    }
    stand_ins(&units)?;
    Command::new("systemd-analyze")
        .arg("verify")
        .arg("--man=no")
        .arg(format!("--root={}", root.path().display()))
        .args(UNITS)
        .output()
        .context("cannot run systemd-analyze")
}

/// Of systemd's own units that every unit depends on.
fn stand_ins(units: &Path) -> Result<()> {
    for name in [
        "sysinit.target",
        "local-fs.target",
        "sockets.target",
        "shutdown.target",
    ] {
        fs::write(
            units.join(name),
            "[Unit]\nDescription=stand-in\nDefaultDependencies=no\n",
        )?;
    }
    Ok(())
}
