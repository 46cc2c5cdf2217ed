//! Builds the eBPF programs; `source::ebpf` embeds the object as `OUT_DIR/msync-trace-ebpf`.
//!
//! `AYA_BUILD_SKIP=1` gives an empty object instead, enough for clippy where the eBPF toolchain is
//! not wanted. Only Linux runs eBPF: other systems build nothing here.

#[path = "build/ebpf_toolchain.rs"]
mod ebpf_toolchain;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use aya_build::{Package, Toolchain};
use ebpf_toolchain::Chosen;

const OBJECT: &str = "msync-trace-ebpf";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-env-changed={}", ebpf_toolchain::OVERRIDE);
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    let built = if env::var("AYA_BUILD_SKIP").is_ok_and(|skip| skip == "1" || skip == "true") {
        println!("cargo::rerun-if-env-changed=AYA_BUILD_SKIP");
        fs::write(object_path(), []).map_err(|error| format!("cannot write the object: {error}"))
    } else {
        build()
    };
    // Cargo fails the build for it. A failing exit status would only add a page of its own.
    if let Err(sentence) = built {
        println!("cargo::error={sentence}");
    }
}

fn build() -> Result<(), String> {
    let chosen = ebpf_toolchain::find().map_err(|missing| missing.sentence())?;
    let linker = ebpf_toolchain::find_bpf_linker().map_err(|missing| missing.sentence())?;
    prepare_environment(&chosen, linker.parent());
    let package = Package {
        name: OBJECT,
        root_dir: "../msync-trace-ebpf",
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

fn object_path() -> PathBuf {
    PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join(OBJECT)
}
