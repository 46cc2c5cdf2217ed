//! The package for Fedora, RHEL, SUSE and their like: the static program, which needs none of their
//! libraries, with its files where they look for them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{REVISION, VERSION, changed_at, must, tree};
use crate::paths;

/// Makes it below `folder`, of this program; where it is.
pub fn package(folder: &Path, program: &Path) -> Result<PathBuf> {
    let stage = tempfile::tempdir_in(paths::target())?;
    let root = stage.path().join("tree");
    for mut file in tree::files(folder, program)? {
        file.to = place(&file.to);
        file.put_below(&root)?;
    }
    for file in tree::licences("usr/share/licenses/msync-trace") {
        file.put_below(&root)?;
    }
    let mut rpmbuild = Command::new("rpmbuild");
    // Nothing of this machine's own settings, and nothing of this machine in the package.
    rpmbuild
        .env("SOURCE_DATE_EPOCH", changed_at()?.to_string())
        .env("HOME", stage.path())
        .args(["-bb", "--noclean"]);
    for (name, value) in [
        ("version", VERSION),
        ("revision", REVISION),
        ("tree", path(&root)?),
        ("_topdir", path(&stage.path().join("rpmbuild"))?),
        ("_rpmdir", path(folder)?),
        ("_rpmfilename", "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm"),
        ("_buildhost", "localhost"),
        ("use_source_date_epoch_as_buildtime", "1"),
        ("clamp_mtime_to_source_date_epoch", "1"),
        // Every rpm of the last ten years reads it.
        ("_binary_payload", "w6.xzdio"),
        // The program is stripped and the pages are packed already; what was stripped is no package.
        ("__os_install_post", "%{nil}"),
        ("debug_package", "%{nil}"),
        ("_build_id_links", "none"),
    ] {
        rpmbuild.arg("--define").arg(format!("{name} {value}"));
    }
    rpmbuild.arg(paths::root().join("packaging/rpm/msync-trace.spec"));
    must("dist-rpm", rpmbuild)?;
    let architecture = std::env::consts::ARCH;
    let name = format!("msync-trace-{VERSION}-{REVISION}.{architecture}.rpm");
    Ok(folder.join(name))
}

/// Where these distributions look for what Debian has elsewhere.
fn place(debian: &Path) -> PathBuf {
    debian
        .strip_prefix("usr/share/zsh/vendor-completions")
        .map_or_else(
            |_| debian.to_owned(),
            |name| Path::new("usr/share/zsh/site-functions").join(name),
        )
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}
