//! The Debian package: a folder as it will be installed, with DEBIAN/ in it, for dpkg-deb.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{REVISION, VERSION, changed_at, must, tree};
use crate::paths;

const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Makes it below `folder`, of this program; where it is.
pub fn package(folder: &Path, program: &Path) -> Result<PathBuf> {
    let stage = tempfile::tempdir_in(paths::target())?;
    let root = stage.path().join("msync-trace");
    for file in tree::files(folder, program)? {
        file.put_below(&root)?;
    }
    let copyright = fs::read(template("copyright"))?;
    tree::write(&root.join(tree::DOC).join("copyright"), &copyright, 0o644)?;
    let version = format!("{VERSION}-{REVISION}");
    let changes = changelog(&version)?;
    let to = root.join(tree::DOC).join("changelog.Debian.gz");
    tree::write(&to, &tree::gzip(changes.as_bytes())?, 0o644)?;
    let architecture = architecture()?;
    control(&root, &version, &architecture)?;
    let package = folder.join(format!("msync-trace_{version}_{architecture}.deb"));
    let mut deb = Command::new("dpkg-deb");
    deb.env("SOURCE_DATE_EPOCH", changed_at()?.to_string())
        .args(["--root-owner-group", "-Zxz", "-z3", "--build"])
        .args([&root, &package]);
    must("dist-deb", deb)?;
    Ok(package)
}

fn architecture() -> Result<String> {
    let output = Command::new("dpkg").arg("--print-architecture").output();
    let output = output.context("cannot run dpkg: a Debian package is made on Debian")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn changelog(version: &str) -> Result<String> {
    let output = Command::new("date")
        .env("LC_ALL", "C")
        .args(["-u", "-R", "-d"])
        .arg(format!("@{}", changed_at()?))
        .output()?;
    let date = String::from_utf8(output.stdout)?;
    let control = fs::read_to_string(template("control"))?;
    let maintainer = control
        .lines()
        .find_map(|line| line.strip_prefix("Maintainer: "))
        .context("control names no maintainer")?;
    Ok(format!(
        "msync-trace ({version}) unstable; urgency=medium\n\n  \
           * What is new stands in CHANGELOG.md.\n\n -- {maintainer}  {date}"
    ))
}

fn template(name: &str) -> PathBuf {
    paths::root().join("packaging/debian").join(name)
}

fn control(root: &Path, version: &str, architecture: &str) -> Result<()> {
    let debian = root.join("DEBIAN");
    let depends = depends(root)?;
    let size = installed_size(root)?;
    let text = fs::read_to_string(template("control"))?
        .replace("@VERSION@", version)
        .replace("@ARCHITECTURE@", architecture)
        .replace("@SIZE@", &size.to_string())
        .replace("@DEPENDS@", &depends);
    tree::write(&debian.join("control"), text.as_bytes(), 0o644)?;
    for script in SCRIPTS {
        tree::write(&debian.join(script), &fs::read(template(script))?, 0o755)?;
    }
    let all = all_files(root)?;
    let conffiles = all.iter().filter(|path| path.starts_with("etc/"));
    let conffiles: String = conffiles.map(|path| format!("/{path}\n")).collect();
    tree::write(&debian.join("conffiles"), conffiles.as_bytes(), 0o644)?;
    let sums = Command::new("md5sum")
        .current_dir(root)
        .args(all.iter().filter(|path| !path.starts_with("etc/")))
        .output()?;
    ensure!(sums.status.success(), "md5sum failed");
    tree::write(&debian.join("md5sums"), &sums.stdout, 0o644)
}

/// The libraries that the program was linked with, in the versions that it needs.
fn depends(root: &Path) -> Result<String> {
    // It looks for debian/control of a source package.
    let source = tempfile::tempdir()?;
    tree::write(
        &source.path().join("debian/control"),
        b"Source: msync-trace\n",
        0o644,
    )?;
    let output = Command::new("dpkg-shlibdeps")
        .current_dir(source.path())
        .arg("-O")
        .arg("-e")
        .arg(root.join("usr/bin/msync-trace"))
        .output()
        .context("cannot run dpkg-shlibdeps (Debian's dpkg-dev)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let depends = text
        .lines()
        .find_map(|line| line.strip_prefix("shlibs:Depends="));
    depends.map(str::to_owned).with_context(|| {
        let why = String::from_utf8_lossy(&output.stderr);
        format!("dpkg-shlibdeps names no libraries: {why}")
    })
}

/// In KiB, as Debian counts: whole KiB for each file, one for each folder.
fn installed_size(root: &Path) -> Result<u64> {
    let output = Command::new("du")
        .args(["-k", "-s", "--apparent-size"])
        .arg(root)
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let first = text.split_whitespace().next().context("du says nothing")?;
    Ok(first.parse()?)
}

/// All files below a folder but those of DEBIAN/, sorted.
fn all_files(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in super::sorted(&folder)? {
            let name = path.strip_prefix(root)?.to_owned();
            if path.is_dir() && name != Path::new("DEBIAN") {
                folders.push(path);
            } else if path.is_file() {
                let name = name.into_os_string().into_string();
                found.push(name.ok().context("a name that is not UTF-8")?);
            }
        }
    }
    found.sort();
    Ok(found)
}
