//! The eBPF toolchain: a compiler with the source of `core`, and a linker for its LLVM.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{Finding, Thing, packages};
use crate::{
    ebpf_toolchain::{self as toolchain, DEBIAN, OVERRIDE},
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
        "compiles the eBPF programs together with `core`"
    }

    fn find(&self) -> Finding {
        match toolchain::find() {
            Ok(chosen) => {
                let name = chosen.name.unwrap_or("in PATH".to_owned());
                Finding::Found(format!("(toolchain {name}, LLVM {})", chosen.compiler.llvm))
            }
            Err(_) => Finding::Missing,
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
            (_, Some(rustup)) => run_rustup(
                &rustup,
                &[
                    "toolchain",
                    "install",
                    "nightly",
                    "--profile",
                    "minimal",
                    "-c",
                    "rust-src",
                ],
            ),
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
    packages::refresh_lists_if_empty()?;
    let version = packages::candidate("rustc-web");
    Ok(version.is_some_and(|version| new_enough(&version)))
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

fn run_rustup(rustup: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(rustup);
    command.args(arguments);
    progress(&format!("            rustup {}", arguments.join(" ")));
    Step::new("rustup", command, paths::log("setup-rustup")).must()?;
    Ok(())
}

/// Links LLVM bitcode to an eBPF object with BTF.
struct BpfLinker;

impl BpfLinker {
    /// The LLVM of the compiler whose bitcode must be read.
    fn compilers_llvm() -> Option<u32> {
        toolchain::find().ok().map(|chosen| chosen.compiler.llvm)
    }
}

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
            .zip(Self::compilers_llvm())
            .is_some_and(|(own, needed)| own < needed);
        if !starts || too_old {
            return Finding::Missing;
        }
        Finding::Found(format!("({})", linker.display()))
    }

    fn install(&self) -> Result<()> {
        let needed = Self::compilers_llvm().context("bpf-linker comes after rust-src")?;
        let (llvm, prefix) = find_llvm(needed)?;
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

/// An LLVM, with headers, that reads what the compiler's LLVM writes: its major and its folder.
fn find_llvm(needed: u32) -> Result<(u32, PathBuf)> {
    let fitting = || LINKER_LLVMS.into_iter().filter(|llvm| *llvm >= needed);
    if let Some(prefix) = env::var_os("LLVM_PREFIX") {
        let llvm = fitting().next().unwrap_or(needed);
        return Ok((llvm, prefix.into()));
    }
    let prefix = |llvm: u32| PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    let installed = |llvm: &u32| prefix(*llvm).join("include/llvm-c/Core.h").is_file();
    let available = |llvm: &u32| packages::candidate(&format!("llvm-{llvm}-dev")).is_some();
    let Some(llvm) = fitting()
        .find(installed)
        .or_else(|| fitting().find(available))
    else {
        bail!(
            "no LLVM {needed} here: bpf-linker needs the development files of LLVM {needed} or a \
             newer one that it knows ({LINKER_LLVMS:?}); install them and set LLVM_PREFIX to their \
             folder, or choose another compiler with {OVERRIDE}"
        )
    };
    packages::install(&llvm_packages(llvm))?;
    Ok((llvm, prefix(llvm)))
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
