//! The package in a clean Debian: installed, used, removed (`clean_root.sh`).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{paths, step::Step, tally::Tally, vm::kernels};

const SCRIPT: &str = include_str!("clean_root.sh");
/// Beside what every Debian has: what completes and shows man pages, and what selftest makes its
/// scratch disk with.
const INCLUDE: &str = "bash-completion,e2fsprogs,fish,man-db,mount,zsh";
const DEADLINE: Duration = Duration::from_secs(120);

/// All tests of the package.
pub fn run(package: &Path) -> Result<Tally> {
    let root = root()?;
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("clean_root.sh");
    fs::write(&script, SCRIPT)?;
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--mount", "--propagation", "private", "bash"])
        .args([&script, &root, package]);
    let mut step = Step::new("clean-root", unshare, paths::log("clean-root"));
    step.deadline = DEADLINE;
    let mut tally = Tally::default();
    let mut ended = false;
    step.run(|line| {
        if line.starts_with("PASS ") {
            tally.passed += 1;
        } else if let Some(what) = line.strip_prefix("FAIL ") {
            tally.failed.push(format!("packaging: clean root: {what}"));
        } else if line == "END" {
            ended = true;
        }
    })?;
    if !ended {
        let log = paths::log("clean-root");
        tally.failed.push(format!(
            "packaging: the clean root was not gone through to the end: {}",
            log.display()
        ));
    }
    Ok(tally)
}

/// The clean root, made if it is not in the cache yet. It is only read.
fn root() -> Result<PathBuf> {
    let codename = codename()?;
    let root = paths::vm_cache().join(format!("clean-root-{codename}"));
    if root.join("usr/bin/fish").is_file() {
        return Ok(root);
    }
    let unfinished = root.with_extension("new");
    for old in [&root, &unfinished] {
        if old.exists() {
            fs::remove_dir_all(old)?;
        }
    }
    fs::create_dir_all(paths::vm_cache())?;
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap
        .args(["--mode=root", "--variant=minbase", "--format=directory"])
        .arg(format!("--include={INCLUDE}"))
        .arg(&codename)
        .arg(&unfinished)
        .arg(kernels::main_mirror()?);
    Step::new("mmdebstrap", mmdebstrap, paths::log("mmdebstrap")).must()?;
    fs::rename(&unfinished, &root)?;
    ensure!(
        root.join("usr/bin/fish").is_file(),
        "mmdebstrap left programs out"
    );
    Ok(root)
}

/// The release that this machine has: its libraries are those that the program was linked with.
fn codename() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release")?;
    let mut lines = release.lines();
    let name = lines
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("this is no Debian: /etc/os-release names no release")?;
    Ok(name.trim_matches('"').to_owned())
}
