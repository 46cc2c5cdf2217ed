//! virtme-ng, which boots a kernel over this machine's root file system.
//!
//! It goes into a Python environment of its own in the VM cache: the system's Python may be
//! "externally managed", and nobody's own packages are touched.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{Finding, Thing, packages};
use crate::{paths, step::Step};

const VERSION: &str = "1.42";

/// virtme-ng as a thing to install.
pub fn thing() -> Box<dyn Thing> {
    Box::new(VirtmeNg)
}

/// Where `vng` is: our own, or the user's if it is the version that was tried.
pub fn program() -> Option<PathBuf> {
    let own = environment().join("bin/vng");
    if own.is_file() {
        return Some(own);
    }
    let users = paths::find_program("vng")?;
    let output = Command::new(&users).arg("--version").output().ok()?;
    String::from_utf8_lossy(&output.stdout)
        .contains(VERSION)
        .then_some(users)
}

fn environment() -> PathBuf {
    paths::vm_cache().join(format!("virtme-ng-{VERSION}"))
}

struct VirtmeNg;

impl Thing for VirtmeNg {
    fn name(&self) -> String {
        "virtme-ng".to_owned()
    }

    fn why(&self) -> &str {
        "boots a kernel over this machine's files"
    }

    fn find(&self) -> Finding {
        match program() {
            Some(vng) => Finding::Found(format!("({})", vng.display())),
            None => Finding::Missing,
        }
    }

    fn install(&self) -> Result<()> {
        let folder = environment();
        std::fs::create_dir_all(paths::vm_cache())?;
        if let Err(without_module) = make_environment(&folder) {
            packages::install(&["python3-venv".to_owned()])?;
            make_environment(&folder).context(without_module)?;
        }
        let mut pip = Command::new(folder.join("bin/pip"));
        pip.args(["install", "--disable-pip-version-check"])
            .arg(format!("virtme-ng=={VERSION}"));
        Step::new("pip install virtme-ng", pip, paths::log("setup-virtme-ng")).must()?;
        Ok(())
    }
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
