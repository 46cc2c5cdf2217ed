//! `cargo xtask check-freebsd`: whether this checkout compiles for FreeBSD, found out without one.
//!
//! rustc compiles its own `std` for the target, from the source that the eBPF programs take `core`
//! from. Nothing of FreeBSD is needed to check types. To link a program takes FreeBSD's C library, or
//! a description of it as zig brings.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, anyhow};
use clap::Args;

use crate::{
    ebpf_toolchain as toolchain, paths, setup,
    step::{Step, progress, seconds},
    vm::guest::quote,
};

const TARGET: &str = "x86_64-unknown-freebsd";
/// The oldest FreeBSD that zig 0.17 can link for: its start code needs `__libc_start1` of that libc.
const OLDEST_TO_LINK_FOR: &str = "14.0";

/// Check that the workspace compiles for FreeBSD, warnings denied
///
/// `std` is compiled along, so it takes one to two minutes and no FreeBSD.
#[derive(Args)]
pub struct CheckFreebsdArgs {
    /// Also link msync-trace for FreeBSD 14 or later on x86-64; set-up fetches zig for that (100 MB)
    #[arg(long)]
    build: bool,
}

/// Checks, and links if asked to; the exit status of this process.
pub fn run(args: &CheckFreebsdArgs) -> Result<u8> {
    let log = paths::log("freebsd");
    progress(&format!("cargo check for {TARGET}, log: {}", log.display()));
    let checked = Step::new("check", check()?, log).must()?;
    progress(&format!("    {}", seconds(checked.took)));
    if args.build {
        let zig = setup::ensure_zig()?;
        let log = paths::log("freebsd-build");
        progress(&format!("cargo build for {TARGET}, log: {}", log.display()));
        let built = Step::new("build", build(&zig)?, log).must()?;
        let program = folder().join(TARGET).join("release/msync-trace");
        progress(&format!("    {}", seconds(built.took)));
        println!("{}", program.display());
    }
    Ok(0)
}

/// Checks everything, tests included. Clippy would say more, but Debian's compiler has none.
pub fn check() -> Result<Command> {
    let mut cargo = cargo("check")?;
    cargo
        .args(["--workspace", "--all-targets"])
        .env("RUSTFLAGS", "-D warnings")
        // Nobody debugs what is only checked, and it is compiled once.
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        // SQLite is C: nothing is linked here, so nothing need be compiled.
        .env(format!("CC_{}", target_in_names()), "true")
        .env(format!("AR_{}", target_in_names()), "true")
        .env("CARGO_INCREMENTAL", "0");
    Ok(cargo)
}

fn build(zig: &Path) -> Result<Command> {
    fs::create_dir_all(folder())?;
    let linker = script("cc", &linker_script(zig))?;
    let archiver = script("ar", &archiver_script(zig))?;
    let mut cargo = cargo("build")?;
    cargo
        .args(["--package", "msync-trace", "--release"])
        .env(format!("CC_{}", target_in_names()), &linker)
        .env(format!("AR_{}", target_in_names()), archiver)
        // The one that says for which FreeBSD.
        .env("CRATE_CC_NO_DEFAULTS", "1")
        .env("CARGO_TARGET_X86_64_UNKNOWN_FREEBSD_LINKER", linker)
        .env("ZIG_GLOBAL_CACHE_DIR", folder().join("zig"));
    Ok(cargo)
}

/// As variables of the environment spell it.
fn target_in_names() -> String {
    TARGET.replace('-', "_")
}

fn script(name: &str, text: &str) -> Result<PathBuf> {
    let path = folder().join(name);
    fs::write(&path, text)
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// For what is compiled from C: SQLite.
fn archiver_script(zig: &Path) -> String {
    format!(
        "#!/bin/sh\nexec {} ar \"$@\"\n",
        quote(&zig.to_string_lossy())
    )
}

/// A linker for rustc, and a compiler for C. The crate `libc` asks for libraries that only programs for administering
/// FreeBSD use; zig does not describe them, and nothing of ours calls them. In the place of
/// FreeBSD's `libgcc_s`, which zig does not describe either, it links its own libunwind.
fn linker_script(zig: &Path) -> String {
    let zig = quote(&zig.to_string_lossy());
    format!(
        "#!/bin/sh\n\
         for argument; do\n    \
             shift\n    \
             case $argument in\n        \
                 -lkvm | -lmemstat | -lprocstat | -ldevstat) ;;\n        \
                 -lgcc_s) set -- \"$@\" -lunwind ;;\n        \
                 *) set -- \"$@\" \"$argument\" ;;\n    \
             esac\n\
         done\n\
         exec {zig} cc -target x86_64-freebsd.{OLDEST_TO_LINK_FOR}-none \"$@\"\n"
    )
}

/// Cargo of a toolchain that has the source of `std`.
fn cargo(subcommand: &str) -> Result<Command> {
    let chosen = toolchain::find().map_err(|_| {
        anyhow!(
            "cannot compile for FreeBSD: no Rust toolchain here has rust-src (the source of \
             `std`); `cargo xtask setup` installs it"
        )
    })?;
    let mut cargo = match (&chosen.name, toolchain::find_program("rustup")) {
        (Some(name), Some(rustup)) => {
            let mut command = Command::new(rustup);
            command.args(["run", name, "cargo"]);
            command
        }
        _ => Command::new("cargo"),
    };
    if !chosen.compiler.nightly {
        cargo.env("RUSTC_BOOTSTRAP", "1");
    }
    cargo
        .current_dir(paths::root())
        .arg(subcommand)
        .args(["-Z", "build-std=std,panic_abort", "--target", TARGET])
        .arg("--locked")
        .env("CARGO_TARGET_DIR", folder());
    Ok(cargo)
}

/// Apart from what is built for this machine: another compiler would throw that away.
fn folder() -> PathBuf {
    paths::target().join("freebsd")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The script with `echo` in the place of zig.
    fn linked_with(arguments: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("cc");
        fs::write(&script, linker_script(Path::new("/bin/echo"))).unwrap();
        let mut shell = Command::new("sh");
        let output = shell.arg(&script).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn the_linker_is_given_what_zig_knows_in_the_same_order() {
        assert_eq!(
            linked_with(&["a b.o", "-lkvm", "-lgcc_s", "-lprocstat", "-lc", "-o", "x"]),
            "cc -target x86_64-freebsd.14.0-none a b.o -lunwind -lc -o x\n"
        );
    }
}
