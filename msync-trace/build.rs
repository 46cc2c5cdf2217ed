//! Builds the eBPF programs; `source::ebpf` embeds the object as `OUT_DIR/msync-trace-ebpf`.
//!
//! `AYA_BUILD_SKIP=1` gives an empty object instead, enough for clippy where the eBPF toolchain is
//! not wanted. Only Linux runs eBPF: for other systems nothing is built, and nothing is needed.

#[cfg(target_os = "linux")]
#[path = "build/ebpf.rs"]
mod ebpf;

use std::{env, fs, path::PathBuf};

/// The package of the eBPF programs, and the file that they are in.
const OBJECT: &str = "msync-trace-ebpf";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
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

#[cfg(target_os = "linux")]
fn build() -> Result<(), String> {
    ebpf::build(OBJECT)
}

#[cfg(not(target_os = "linux"))]
fn build() -> Result<(), String> {
    Err("the eBPF programs are built on Linux only: build msync-trace for Linux there".to_owned())
}

fn object_path() -> PathBuf {
    PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join(OBJECT)
}
