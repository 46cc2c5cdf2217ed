//! virtme-ng, which boots a kernel over this machine's root file system.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use super::{Finding, Thing, python};
use crate::paths;

const PACKAGE: &str = "virtme-ng";
const VERSION: &str = "1.42";

/// virtme-ng as a thing to install.
pub fn thing() -> Box<dyn Thing> {
    Box::new(VirtmeNg)
}

/// Where `vng` is: our own, or the user's if it is the version that was tried.
pub fn program() -> Option<PathBuf> {
    let own = python::environment(PACKAGE, VERSION).join("bin/vng");
    if own.is_file() {
        return Some(own);
    }
    let users = paths::find_program("vng")?;
    let output = Command::new(&users).arg("--version").output().ok()?;
    String::from_utf8_lossy(&output.stdout)
        .contains(VERSION)
        .then_some(users)
}

struct VirtmeNg;

impl Thing for VirtmeNg {
    fn name(&self) -> String {
        PACKAGE.to_owned()
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
        python::install(PACKAGE, VERSION)
    }
}
