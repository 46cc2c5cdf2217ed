//! Distribution packages, through apt-get.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result, bail};

use crate::{
    paths,
    step::{Step, is_root, progress},
    vm::kernels,
};

/// Whether packages can be installed here: root, and a system with apt-get.
pub fn can_install() -> bool {
    is_root() && paths::find_program("apt-get").is_some()
}

/// Installs packages; asks the archive for newer lists only when they are needed.
pub fn install(packages: &[String]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !can_install() {
        bail!(
            "cannot install {list}: that takes root and apt-get; run `sudo apt-get install {list}` \
             (or what your distribution has instead), then `cargo xtask setup` again"
        );
    }
    if packages.iter().any(|package| candidate(package).is_none()) {
        update()?;
    }
    progress(&format!("            apt-get install {list}"));
    let log = format!("setup-apt-{}", packages[0]);
    let first = apt_get(&["install"], packages, &log);
    if first.is_ok() {
        return Ok(());
    }
    // Lists that are too old name packages that have left the archive.
    update()?;
    let Err(second) = apt_get(&["install"], packages, &log) else {
        return Ok(());
    };
    // A package that came from backports keeps out the older ones that would go with it.
    from_backports(packages, &log)
        .with_context(|| format!("apt-get cannot install {list}: {second}"))
}

/// Installs packages from the backports of this machine's Debian release, with package lists of
/// their own: the machine's sources stay as they are.
fn from_backports(packages: &[String], log: &str) -> Result<()> {
    let release = std::fs::read_to_string("/etc/os-release")?;
    let Some(codename) = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
    else {
        bail!("this release has no code name, so its backports cannot be asked");
    };
    let folder = paths::vm_cache().join("backports");
    let lists = folder.join("lists");
    std::fs::create_dir_all(lists.join("partial"))?;
    let source = folder.join("sources.list");
    let suite = format!("{codename}-backports");
    std::fs::write(
        &source,
        kernels::source_line(&kernels::main_mirror()?, &suite),
    )?;
    let ours = [
        "-o".to_owned(),
        format!("Dir::Etc::sourcelist={}", source.display()),
        "-o".to_owned(),
        format!("Dir::State::Lists={}", lists.display()),
        "-o".to_owned(),
        // The sandbox user could not enter a cache folder below root's home.
        "APT::Sandbox::User=root".to_owned(),
    ];
    let ours: Vec<&str> = ours.iter().map(String::as_str).collect();
    progress(&format!("            from {suite}"));
    apt_get(
        &[&["update"], &ours[..]].concat(),
        &[],
        "setup-apt-backports",
    )?;
    let install = [&["install", "-t", &suite], &ours[..]].concat();
    apt_get(&install, packages, log)
}

/// The version of a package that apt would install.
pub fn candidate(package: &str) -> Option<String> {
    let output = Command::new("apt-cache")
        .args(["policy", package])
        .output()
        .ok()?;
    parse_candidate(&String::from_utf8_lossy(&output.stdout))
}

/// Whether apt would install a version that is `wanted`, if need be after asking the archive for
/// newer lists: those of a machine image are often older than the last security update.
pub fn find_candidate(package: &str, wanted: fn(&str) -> bool) -> Result<bool> {
    let known = || candidate(package).is_some_and(|version| wanted(&version));
    if !known() && can_install() {
        update()?;
    }
    Ok(known())
}

/// Fetches apt's package lists on a machine that has none.
pub fn refresh_lists_if_empty() -> Result<()> {
    if can_install() && !has_lists() {
        update()
    } else {
        Ok(())
    }
}

/// apt knows packages that are not installed.
pub fn has_lists() -> bool {
    let output = Command::new("apt-get")
        .args([
            "indextargets",
            "--format",
            "$(ORIGIN)",
            "Created-By: Packages",
        ])
        .output();
    output.is_ok_and(|output| !output.stdout.trim_ascii().is_empty())
}

/// Asks the archive for newer lists; once in a run.
fn update() -> Result<()> {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    progress("            apt-get update");
    apt_get(&["update"], &[], "setup-apt-update")
}

fn apt_get(command: &[&str], packages: &[String], log: &str) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(command);
    if !packages.is_empty() {
        // Another set-up may be at it; and nothing of the machine's owner may be removed.
        apt.args([
            "-y",
            "--no-install-recommends",
            "--no-remove",
            "-o",
            "DPkg::Lock::Timeout=600",
        ]);
        apt.args(packages);
    }
    let name = format!("apt-get {}", command[0]);
    Step::new(&name, apt, paths::log(log)).must()?;
    Ok(())
}

fn parse_candidate(policy: &str) -> Option<String> {
    let line = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate:"))?;
    let version = line.trim();
    (version != "(none)").then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_apt_would_install() {
        let known = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n";
        assert_eq!(
            parse_candidate(known).as_deref(),
            Some("1.96.0+dfsg1-1~deb12u2")
        );
        assert_eq!(
            parse_candidate("x:\n  Installed: (none)\n  Candidate: (none)\n"),
            None
        );
        assert_eq!(parse_candidate(""), None);
    }
}
