//! The eBPF toolchain: a compiler with the source of `core`, and a linker for its LLVM.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, anyhow, bail};

use super::{Finding, Thing, packages};
use crate::{
    ebpf_toolchain::{self as toolchain, Chosen, DEBIAN, Missing, OVERRIDE},
    paths,
    step::{Step, progress},
};

const LINKER_VERSION: &str = "0.13.0";
/// The LLVMs that this release of bpf-linker can be built with.
const LINKER_LLVMS: [u32; 3] = [21, 22, 23];
/// What the eBPF crates ask of a compiler.
const MINIMUM_RUST: (u32, u32) = (1, 95);

/// In the order in which they must be installed.
pub fn things() -> [Box<dyn Thing>; 2] {
    [Box::new(CoreSource), Box::new(BpfLinker)]
}

/// What `cargo build` would say now, if it cannot build the eBPF programs.
pub fn obstacle() -> Option<String> {
    let linker = || toolchain::find_bpf_linker().map(drop);
    let missing = toolchain::find().map(drop).and_then(|()| linker()).err()?;
    Some(missing.sentence())
}

/// A compiler with the source of `core`, which is compiled for the kernel's virtual machine.
struct CoreSource;

impl Thing for CoreSource {
    fn name(&self) -> String {
        "rust-src".to_owned()
    }

    fn why(&self) -> &str {
        "compiles the eBPF programs with `core`, and for FreeBSD with `std`"
    }

    fn find(&self) -> Finding {
        match chosen() {
            Ok(chosen) if chosen.compiler.llvm <= newest_llvm() => {
                let name = chosen.name.unwrap_or("in PATH".to_owned());
                Finding::Found(format!("(toolchain {name}, LLVM {})", chosen.compiler.llvm))
            }
            _ => Finding::Missing,
        }
    }

    fn install(&self) -> Result<()> {
        let rustup = toolchain::find_program("rustup");
        match (env::var(OVERRIDE), rustup) {
            (Ok(own), Some(rustup)) => run_rustup(
                &rustup,
                &["component", "add", "rust-src", "--toolchain", &own],
            ),
            (_, rustup) if debian_has_it()? => install_debians(rustup.as_deref()),
            (_, Some(rustup)) => install_nightly(&rustup),
            (_, None) => bail!(
                "no rustup, and no apt package rustc-web of Rust 1.95 or newer; install rustup, \
                 then run `rustup toolchain install nightly --component rust-src`"
            ),
        }
    }
}

/// The packages that Debian keeps current for its web browsers hold a compiler that is new enough.
fn debian_has_it() -> Result<bool> {
    if !packages::can_install() {
        return Ok(false);
    }
    packages::find_candidate("rustc-web", new_enough)
}

fn new_enough(version: &str) -> bool {
    let mut parts = version
        .split('.')
        .map_while(|part| part.parse::<u32>().ok());
    parts
        .next()
        .zip(parts.next())
        .is_some_and(|version| version >= MINIMUM_RUST)
}

fn install_debians(rustup: Option<&Path>) -> Result<()> {
    packages::install(&["rustc-web", "cargo-web", "rust-web-src"].map(str::to_owned))?;
    match rustup {
        Some(rustup) => run_rustup(rustup, &["toolchain", "link", DEBIAN, "/usr"]),
        None => Ok(()),
    }
}

fn install_nightly(rustup: &Path) -> Result<()> {
    // Not without need: an update may bring a compiler that no LLVM here can follow.
    let found = chosen().is_ok();
    if !found {
        run_rustup(
            rustup,
            &[
                "toolchain",
                "install",
                "nightly",
                "--profile",
                "minimal",
                "-c",
                "rust-src",
            ],
        )?;
    }
    let needed = chosen().map_err(|missing| anyhow!(missing.sentence()))?;
    find_llvm(needed.compiler.llvm).map(drop)
}

fn run_rustup(rustup: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(rustup);
    command.args(arguments);
    progress(&format!("            rustup {}", arguments.join(" ")));
    Step::new("rustup", command, paths::log("setup-rustup")).must()?;
    Ok(())
}

/// Links LLVM bitcode to an eBPF object with BTF.
struct BpfLinker;

impl Thing for BpfLinker {
    fn name(&self) -> String {
        "bpf-linker".to_owned()
    }

    fn why(&self) -> &str {
        "links the eBPF programs"
    }

    fn find(&self) -> Finding {
        let Ok(linker) = toolchain::find_bpf_linker() else {
            return Finding::Missing;
        };
        // It does not start if its LLVM was taken away.
        let starts = Command::new(&linker).arg("--version").output();
        let starts = starts.is_ok_and(|output| output.status.success());
        let llvm = toolchain::linker_llvm();
        let too_old = llvm
            .zip(chosen().ok())
            .is_some_and(|(own, chosen)| own < chosen.compiler.llvm);
        if !starts || too_old {
            return Finding::Missing;
        }
        Finding::Found(format!("({})", linker.display()))
    }

    fn install(&self) -> Result<()> {
        let chosen = chosen().map_err(|missing| anyhow!(missing.sentence()))?;
        let (llvm, prefix) = find_llvm(chosen.compiler.llvm)?;
        packages::install(&llvm_packages(llvm))?;
        let mut cargo = Command::new("cargo");
        cargo
            .args([
                "install",
                "bpf-linker",
                "--version",
                LINKER_VERSION,
                "--locked",
                "--force",
            ])
            .args([
                "--no-default-features",
                "--features",
                &format!("llvm-{llvm}"),
            ])
            .env("LLVM_PREFIX", &prefix)
            .env(format!("LLVM_SYS_{llvm}1_PREFIX"), &prefix);
        progress(&format!(
            "            cargo install bpf-linker, for LLVM {llvm} (1 to 4 minutes)"
        ));
        Step::new("cargo install", cargo, paths::log("setup-bpf-linker")).must()?;
        Ok(())
    }
}

/// The toolchain that a linker can follow: the one that is here or the one that can be built.
fn chosen() -> Result<Chosen, Missing> {
    toolchain::find_for(Some(newest_llvm()))
}

/// The newest LLVM whose bitcode can be linked here; 0 if there is none.
fn newest_llvm() -> u32 {
    if env::var_os("LLVM_PREFIX").is_some() {
        return u32::MAX;
    }
    let newest = LINKER_LLVMS.into_iter().rfind(|llvm| {
        has_headers(*llvm) || packages::candidate(&llvm_packages(*llvm)[0]).is_some()
    });
    // A linker that cargo did not install does not say which it has.
    let linkers = toolchain::find_bpf_linker().ok();
    let linkers = linkers.map(|_| toolchain::linker_llvm().unwrap_or(u32::MAX));
    newest.max(linkers).unwrap_or(0)
}

fn llvm_prefix(llvm: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{llvm}"))
}

fn has_headers(llvm: u32) -> bool {
    llvm_prefix(llvm).join("include/llvm-c/Core.h").is_file()
}

/// An LLVM, with headers, that reads what the compiler's LLVM writes: its major and its folder.
fn find_llvm(needed: u32) -> Result<(u32, PathBuf)> {
    let fitting = || LINKER_LLVMS.into_iter().filter(|llvm| *llvm >= needed);
    if let Some(prefix) = env::var_os("LLVM_PREFIX") {
        let llvm = fitting().next().unwrap_or(needed);
        return Ok((llvm, prefix.into()));
    }
    if let Some(llvm) = fitting().find(|llvm| has_headers(*llvm)) {
        return Ok((llvm, llvm_prefix(llvm)));
    }
    for llvm in fitting() {
        if packages::find_candidate(&llvm_packages(llvm)[0], |_| true)? {
            return Ok((llvm, llvm_prefix(llvm)));
        }
    }
    bail!(
        "no LLVM {needed} here: bpf-linker needs the development files of LLVM {needed} or a \
         newer one that it knows ({LINKER_LLVMS:?}); install them and set LLVM_PREFIX to their \
         folder, or choose another compiler with {OVERRIDE}"
    )
}

fn llvm_packages(llvm: u32) -> Vec<String> {
    vec![format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_compiler_is_taken_only_if_it_is_new_enough() {
        assert!(new_enough("1.96.0+dfsg1-1~deb12u2"));
        assert!(new_enough("1.95.0"));
        assert!(new_enough("2.0.0"));
        assert!(!new_enough("1.85.0+dfsg3-1~deb12u3"));
        assert!(!new_enough(""));
    }
}
