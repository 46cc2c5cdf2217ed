//! Clean Debians to try the package in, made once by mmdebstrap, in the cache of the guests.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{paths, step::Step, vm::kernels};

/// The smallest Debian of a release with these packages besides, made if it is not in the cache yet. It is
/// only read. `made` is a file that one of them brings.
pub fn cached(name: &str, release: &str, include: &str, made: &str) -> Result<PathBuf> {
    let root = paths::vm_cache().join(format!("{name}-{release}"));
    if root.join(made).is_file() {
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
        .arg(format!("--include={include}"))
        .arg(release)
        .arg(&unfinished)
        .arg(kernels::main_mirror()?);
    let step = format!("mmdebstrap-{name}");
    Step::new(&step, mmdebstrap, paths::log(&step)).must()?;
    fs::rename(&unfinished, &root)?;
    ensure!(root.join(made).is_file(), "mmdebstrap left programs out");
    Ok(root)
}

/// The release that this machine has: its libraries are those that the program was linked with.
pub fn codename() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release")?;
    let mut lines = release.lines();
    let name = lines
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("this is no Debian: /etc/os-release names no release")?;
    Ok(name.trim_matches('"').to_owned())
}
