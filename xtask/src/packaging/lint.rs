//! The static program and the packages by themselves.

use std::{path::Path, process::Command};

use anyhow::{Result, ensure};

use super::{Tests, finds_nothing};
use crate::{dist::Made, paths};

pub fn run(tests: &mut Tests, made: &Made) {
    tests.test("lintian", || lintian(&made.package));
    tests.test("rpmlint", || rpmlint(&made.rpm));
    tests.test("the static program needs no library", || {
        runs_alone(&made.program)
    });
}

/// Errors and warnings fail, but for one that is about Debian's own archive, where this package is not.
fn lintian(package: &Path) -> Result<()> {
    let mut lintian = Command::new("lintian");
    lintian
        .args(["--fail-on", "error,warning", "--allow-root"])
        .args(["--suppress-tags", "initial-upload-closes-no-bugs"]);
    finds_nothing(lintian.arg(package))
}

/// Errors and warnings fail, but for those that our settings name with a reason.
fn rpmlint(package: &Path) -> Result<()> {
    let settings = paths::root().join("packaging/rpm/rpmlint.toml");
    let mut rpmlint = Command::new("rpmlint");
    finds_nothing(
        rpmlint
            .args(["--strict", "--config"])
            .args([&settings, package]),
    )
}

/// In a folder with nothing else in it.
fn runs_alone(program: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::copy(program, folder.path().join("msync-trace"))?;
    let output = Command::new("chroot")
        .arg(folder.path())
        .args(["/msync-trace", "--version"])
        .output()?;
    ensure!(
        output.status.success() && output.stdout.starts_with(b"msync-trace "),
        "it says: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
