//! What the guest is made of: a disk with Debian, the packages and the test, and a small initramfs that
//! knows how to reach the disk.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    dist::Made,
    packaging::root,
    paths,
    step::Step,
    test,
    vm::{guest::quote, kernels::Guest},
};

/// Beside what every Debian has: the init, what selftest makes its scratch disk with, what loads modules,
/// and the other kind of packages.
const INCLUDE: &str = "e2fsprogs,kmod,mount,rpm,systemd-sysv";
const MADE: &str = "usr/bin/rpm";

const MAKE_DISK: &str = include_str!("image.sh");
const INIT: &str = include_str!("init.sh");
const INSIDE: &str = include_str!("inside.sh");
const SERVICE: &str = include_str!("booted.service");

/// A disk and an initramfs to boot.
pub struct Machine {
    /// The disk, with the root filesystem right on it.
    pub disk: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
}

impl Machine {
    /// Makes both below `folder`, with this release of Debian and our package installed.
    pub fn make(guest: &Guest, release: &str, made: &Made, folder: &Path) -> Result<Self> {
        Ok(Self {
            disk: disk(guest, release, made, folder)?,
            initramfs: initramfs(guest, folder)?,
        })
    }
}

fn disk(guest: &Guest, release: &str, made: &Made, folder: &Path) -> Result<PathBuf> {
    let root = root::cached("booted-root", release, INCLUDE, MADE)?;
    let files = folder.join("files");
    fs::create_dir(&files)?;
    fs::write(files.join("inside.sh"), INSIDE)?;
    fs::write(files.join("booted.service"), SERVICE)?;
    fs::copy(&made.package, files.join("package.deb"))?;
    fs::copy(&made.rpm, files.join("package.rpm"))?;
    fs::copy(
        test::example("fails_on_command")?,
        files.join("fails_on_command"),
    )?;
    let script = folder.join("image.sh");
    fs::write(&script, MAKE_DISK)?;
    let disk = folder.join("disk");
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--mount", "--propagation", "private", "bash"])
        .args([&script, &root, &modules(guest), &files, &disk]);
    Step::new("booted-disk", unshare, paths::log("booted-disk")).must()?;
    Ok(disk)
}

fn modules(guest: &Guest) -> PathBuf {
    guest.folder.join("lib/modules").join(&guest.release)
}

/// Busybox, the modules that lead to the disk in the order in which they are loaded, and a script.
fn initramfs(guest: &Guest, folder: &Path) -> Result<PathBuf> {
    let tree = folder.join("initramfs");
    fs::create_dir_all(tree.join("modules"))?;
    let busybox = paths::find_program("busybox").context("there is no busybox")?;
    fs::copy(busybox, tree.join("busybox"))?;
    for (number, module) in modules_to(guest, &["virtio_blk", "ext4"])?
        .iter()
        .enumerate()
    {
        let to = tree.join("modules").join(format!("{number:02}.ko"));
        unpack(module, &to)?;
    }
    let init = tree.join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let initramfs = folder.join("initramfs.cpio");
    let mut pack = Command::new("bash");
    pack.current_dir(&tree).arg("-c").arg(format!(
        "set -o pipefail; find . | cpio --quiet -o -H newc >{}",
        quote(&initramfs.to_string_lossy())
    ));
    Step::new("booted-initramfs", pack, paths::log("booted-initramfs")).must()?;
    Ok(initramfs)
}

/// The files of these modules, each after those that it needs.
fn modules_to(guest: &Guest, wanted: &[&str]) -> Result<Vec<PathBuf>> {
    let modprobe = paths::find_program("modprobe").unwrap_or("modprobe".into());
    let mut files = Vec::new();
    for module in wanted {
        let output = Command::new(&modprobe)
            .arg("-d")
            .arg(&guest.folder)
            .args(["-S", &guest.release, "--show-depends", module])
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "no module {module} for the guest");
        // Of what is built in it says `builtin`.
        let names = text.lines().filter_map(|line| line.strip_prefix("insmod "));
        for file in names.map(|name| PathBuf::from(name.trim())) {
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

/// Debian compresses modules since 6.11 or so.
fn unpack(module: &Path, to: &Path) -> Result<()> {
    if module.extension().is_none_or(|end| end != "xz") {
        fs::copy(module, to)?;
        return Ok(());
    }
    let output = Command::new("busybox")
        .arg("xzcat")
        .arg(module)
        .output()
        .context("cannot run busybox")?;
    ensure!(
        output.status.success(),
        "cannot unpack {}",
        module.display()
    );
    fs::write(to, output.stdout)?;
    Ok(())
}
