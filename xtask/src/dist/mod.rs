//! `cargo xtask dist`: what is given to others: a static program, packages, man pages and completions,
//! below target/dist.

mod debian;
mod licences;
mod rpm;
mod tree;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{
    paths,
    setup::{self, Group},
    step::{Step, progress},
    test,
};

/// Make what is given to others: static program, packages, man pages, completions
///
/// Below target/dist: `msync-trace` (needs no library), the same with its pages as .tar.gz and as .rpm,
/// a package for this release of Debian and later ones, SHA256SUMS.
#[derive(Args)]
pub struct DistArgs {}

/// What was made.
pub struct Made {
    /// The static program.
    pub program: PathBuf,
    /// The Debian package.
    pub package: PathBuf,
    /// The package for Fedora and others.
    pub rpm: PathBuf,
}

/// Makes everything; the exit status of this process.
pub fn run(_args: &DistArgs) -> Result<u8> {
    setup::ensure(&[Group::Build, Group::Dist])?;
    make()?;
    for entry in sorted(&folder())? {
        println!("{}", entry.display());
    }
    Ok(0)
}

fn folder() -> PathBuf {
    paths::target().join("dist")
}

/// Makes everything, of a program that is built if it is not yet.
pub fn make() -> Result<Made> {
    let folder = folder();
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let program = static_program(&folder)?;
    let dynamic = dynamic_program(&folder)?;
    pages(&folder)?;
    let notices = folder.join("third-party-licences.txt");
    fs::write(&notices, licences::all()?)?;
    let package = debian::package(&folder, &dynamic)?;
    let rpm = rpm::package(&folder, &program)?;
    archive(&folder, &program)?;
    fs::remove_file(&dynamic)?;
    sums(&folder)?;
    Ok(Made {
        program,
        package,
        rpm,
    })
}

/// Only the last step, the linking, differs from the usual release build: all that is compiled is
/// shared with it. glibc's own static library: look-ups of host names then take that very glibc's
/// modules at run time, which is why addresses are given as numbers.
fn static_program(folder: &Path) -> Result<PathBuf> {
    let mut cargo = cargo(&[
        "rustc",
        "--release",
        "-p",
        "msync-trace",
        "--bin",
        "msync-trace",
    ]);
    cargo.args(["--", "-C", "target-feature=+crt-static"]);
    must("dist-static", cargo)?;
    let program = folder.join("msync-trace");
    strip(&paths::release("msync-trace"), &program)?;
    ensure!(
        !needs_interpreter(&program)?,
        "{} was not linked statically: is Debian's libc6-dev, which has libc.a, installed?",
        program.display()
    );
    Ok(program)
}

/// For the package: Debian's own libraries get Debian's security updates.
fn dynamic_program(folder: &Path) -> Result<PathBuf> {
    must(
        "dist-build",
        cargo(&["build", "--release", "-p", "msync-trace"]),
    )?;
    let program = folder.join("msync-trace.dynamic");
    strip(&paths::release("msync-trace"), &program)?;
    ensure!(
        needs_interpreter(&program)?,
        "cargo left the static program in target/release"
    );
    Ok(program)
}

/// Whether a program asks for the dynamic linker: PT_INTERP names it.
fn needs_interpreter(program: &Path) -> Result<bool> {
    let output = Command::new("readelf").arg("-lW").arg(program).output()?;
    ensure!(output.status.success(), "readelf cannot read the program");
    Ok(String::from_utf8_lossy(&output.stdout).contains("INTERP"))
}

fn strip(from: &Path, to: &Path) -> Result<()> {
    let mut strip = Command::new("strip");
    strip.arg("--strip-all").arg("-o").arg(to).arg(from);
    must("dist-strip", strip)
}

/// Man pages and completions, from the command line that was compiled.
fn pages(folder: &Path) -> Result<()> {
    let mut packaged = Command::new(test::example("packaged")?);
    packaged.arg(folder);
    must("dist-pages", packaged)
}

/// For machines without Debian's package manager.
fn archive(folder: &Path, program: &Path) -> Result<()> {
    let name = format!("msync-trace-{VERSION}-{}-linux", std::env::consts::ARCH);
    let stage = tempfile::tempdir_in(paths::target())?;
    let root = stage.path().join(&name);
    for file in tree::files(folder, program)?
        .into_iter()
        .chain(tree::licences(tree::DOC))
    {
        file.put_below(&root)?;
    }
    let mut tar = Command::new("tar");
    tar.arg("--sort=name")
        .args(["--owner=0", "--group=0", "--numeric-owner"])
        .arg(format!("--mtime=@{}", changed_at()?))
        .args(["-I", "gzip -6n", "-cf"])
        .arg(folder.join(format!("{name}.tar.gz")))
        .arg("-C")
        .args([stage.path(), Path::new(&name)]);
    must("dist-tar", tar)
}

fn sums(folder: &Path) -> Result<()> {
    let files = sorted(folder)?;
    let names = files.iter().filter(|path| path.is_file());
    let names = names.filter_map(|path| path.file_name());
    let output = Command::new("sha256sum")
        .current_dir(folder)
        .args(names)
        .output()?;
    ensure!(output.status.success(), "sha256sum failed");
    fs::write(folder.join("SHA256SUMS"), output.stdout)?;
    Ok(())
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Of the packages: raised when they change and the version of the program does not.
const REVISION: &str = "1";

/// Of the last commit, in seconds since 1970: the same sources give the same package.
fn changed_at() -> Result<u64> {
    if let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") {
        return epoch.parse().context("SOURCE_DATE_EPOCH is no number");
    }
    let output = Command::new("git")
        .current_dir(paths::root())
        .args(["log", "-1", "--format=%ct"])
        .output();
    let seconds = output.ok().and_then(|output| {
        let text = String::from_utf8(output.stdout).ok()?;
        text.trim().parse().ok()
    });
    // Not in a checkout: a fixed date, the day of the first release's year.
    Ok(seconds.unwrap_or(1_767_225_600))
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(paths::root()).args(arguments);
    command
}

fn must(name: &str, command: Command) -> Result<()> {
    let outcome = Step::new(name, command, paths::log(name)).must()?;
    if outcome.took.as_secs() > 5 {
        progress(&format!("    {name}: {} s", outcome.took.as_secs()));
    }
    Ok(())
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut paths = entries.collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
