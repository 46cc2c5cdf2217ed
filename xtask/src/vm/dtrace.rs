//! DTrace for guests: Debian's packages of it and of what it needs, unpacked into a folder of their
//! own. It brings its own C library, for it is built for a newer one than the machine may have.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::kernels::{Archive, lock_cache, remove_folder};
use crate::paths;

/// The kernels whose guests run it. Older ones lack what it needs (BTF of modules, fprobes).
pub const KERNELS: [&str; 2] = ["6.12", "7.2"];

/// Below an unpacked package.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

fn folder() -> PathBuf {
    paths::vm_cache().join("dtrace")
}

/// The program that starts the unpacked dtrace, if it is there.
pub fn unpacked() -> Option<PathBuf> {
    let program = folder().join("run");
    program.is_file().then_some(program)
}

/// Fetches and unpacks it, unless another set-up just did.
pub fn fetch() -> Result<()> {
    let _lock = lock_cache(&paths::vm_cache())?;
    if unpacked().is_some() {
        return Ok(());
    }
    let (folder, downloads) = (folder(), paths::vm_cache().join("download-dtrace"));
    remove_folder(&folder)?;
    remove_folder(&downloads)?;
    fs::create_dir_all(downloads.join("partial"))?;
    let archive = Archive::open(&paths::vm_cache())?;
    let mut download = archive.apt("apt-get");
    download.args([
        "install",
        "--yes",
        "--download-only",
        "--no-install-recommends",
    ]);
    download.args(["--target-release", "sid", "-o", "Debug::NoLocking=1"]);
    // Nothing is installed in this state of apt: all that it needs is fetched.
    download
        .arg("-o")
        .arg(format!("Dir::Cache::archives={}", downloads.display()));
    download.arg("dtrace");
    archive.step("download of dtrace", "dtrace", download)?;

    let root = folder.join("root");
    fs::create_dir_all(&root)?;
    for package in fs::read_dir(&downloads)? {
        let package = package?.path();
        if package.extension().is_some_and(|end| end == "deb") {
            let mut unpack = Command::new("dpkg");
            unpack.arg("-x").arg(package).arg(&root);
            archive.step("unpacking dtrace", "dtrace", unpack)?;
        }
    }
    without_io_library(&root.join(LIBRARIES).join("dtrace"))?;
    let program = folder.join("run");
    let unready = folder.join("run.new");
    fs::write(&unready, starter(&root))?;
    fs::set_permissions(&unready, fs::Permissions::from_mode(0o755))?;
    fs::rename(&unready, &program)?;
    remove_folder(&downloads)
}

/// Takes `io.d` out of DTrace's own library: that of 2.0.7 names a member of `struct buffer_head`
/// that 7.2 has no more, and then no script compiles at all. Ours use no `io` probes.
fn without_io_library(library: &Path) -> Result<()> {
    let mut kernels = 0;
    let versions = fs::read_dir(library)
        .with_context(|| format!("no library of dtrace in {}", library.display()))?;
    for version in versions {
        let io = version?.path().join("io.d");
        if io.exists() {
            fs::remove_file(io)?;
            kernels += 1;
        }
    }
    ensure!(
        kernels > 0,
        "dtrace's library has no io.d: is it another one than 2.0.7?"
    );
    Ok(())
}

/// A shell script that runs it with its own loader and libraries.
fn starter(root: &Path) -> String {
    let root = root.display();
    format!(
        "#!/bin/sh\n\
         # {LIBRARIES} of the unpacked packages, for the program and for its D library.\n\
         libraries='{root}/{LIBRARIES}'\n\
         exec \"$libraries/ld-linux-x86-64.so.2\" --library-path \"$libraries\" \\\n    \
         '{root}/usr/sbin/dtrace' -x syslibdir=\"$libraries/dtrace\" \"$@\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_io_is_taken_out_of_the_library() {
        let library = tempfile::tempdir().unwrap();
        for version in ["6.1", "6.10"] {
            fs::create_dir(library.path().join(version)).unwrap();
            fs::write(library.path().join(version).join("io.d"), "").unwrap();
            fs::write(library.path().join(version).join("sched.d"), "").unwrap();
        }
        fs::write(library.path().join("bpf_dlib.o"), "").unwrap();
        without_io_library(library.path()).unwrap();
        assert!(!library.path().join("6.10/io.d").exists());
        assert!(library.path().join("6.1/sched.d").exists());
        assert!(library.path().join("bpf_dlib.o").exists());
        assert!(
            without_io_library(library.path()).is_err(),
            "nothing to take out"
        );
    }
}
