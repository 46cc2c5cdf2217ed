//! Python environments of our own in the cache, each for one program: the system's Python may be
//! "externally managed", and nobody's own packages are touched.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::packages;
use crate::{paths, step::Step};

/// Where the environment of this release of a package is.
pub fn environment(package: &str, version: &str) -> PathBuf {
    paths::vm_cache().join(format!("{package}-{version}"))
}

/// Makes the environment anew and installs this release of the package into it.
pub fn install(package: &str, version: &str) -> Result<()> {
    let folder = environment(package, version);
    std::fs::create_dir_all(paths::vm_cache())?;
    if let Err(without_module) = make_environment(&folder) {
        packages::install(&["python3-venv".to_owned()])?;
        make_environment(&folder).context(without_module)?;
    }
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args(["install", "--disable-pip-version-check"])
        .arg(format!("{package}=={version}"));
    let log = paths::log(&format!("setup-{package}"));
    Step::new(&format!("pip install {package}"), pip, log).must()?;
    Ok(())
}

/// The distribution's Python is preferred to one that a version manager may take away.
fn make_environment(folder: &Path) -> Result<()> {
    let system = PathBuf::from("/usr/bin/python3");
    let python = if system.is_file() {
        system
    } else {
        PathBuf::from("python3")
    };
    let mut venv = Command::new(python);
    venv.args(["-m", "venv", "--clear"]).arg(folder);
    Step::new("python3 -m venv", venv, paths::log("setup-venv")).must()?;
    Ok(())
}
