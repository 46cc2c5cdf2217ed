//! The eBPF programs, compiled by the toolchain that `ebpf_toolchain` finds. For `build.rs` only.

mod ebpf_toolchain;

use std::{env, path::Path};

use aya_build::{Package, Toolchain};
use ebpf_toolchain::Chosen;

/// Compiles and links the programs of this package; its object is left in `OUT_DIR`.
pub fn build(package: &str) -> Result<(), String> {
    println!("cargo::rerun-if-env-changed={}", ebpf_toolchain::OVERRIDE);
    let chosen = ebpf_toolchain::find().map_err(|missing| missing.sentence())?;
    let linker = ebpf_toolchain::find_bpf_linker().map_err(|missing| missing.sentence())?;
    prepare_environment(&chosen, linker.parent());
    let folder = format!("../{package}");
    let package = Package {
        name: package,
        root_dir: &folder,
        ..Package::default()
    };
    let toolchain = Toolchain::Custom(chosen.name.as_deref().unwrap_or_default());
    aya_build::build_ebpf([package], toolchain).map_err(|error| {
        let reasons: Vec<String> = error.chain().map(ToString::to_string).collect();
        format!(
            "the eBPF programs do not build: {}",
            reasons.join(": ").replace('\n', " ")
        )
    })
}

/// aya-build takes from the environment that a stable compiler may use `-Z` flags, and the
/// compiler finds the linker in PATH.
fn prepare_environment(chosen: &Chosen, linker_folder: Option<&Path>) {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(linker_folder.map(Path::to_owned));
    let path = env::join_paths(folders).unwrap_or(path);
    // SAFETY: this build script has one thread.
    unsafe {
        env::set_var("PATH", path);
        // aya-build makes a warning of every line; those of a good build are none.
        env::set_var("CARGO_TERM_QUIET", "true");
        if !chosen.compiler.nightly {
            env::set_var("RUSTC_BOOTSTRAP", "1");
        }
    }
}
