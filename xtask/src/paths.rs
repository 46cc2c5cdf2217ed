//! Where things are: this checkout, what it builds, and what outlives it.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The checkout that this xtask was built from.
pub fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}

/// Cargo's target folder.
pub fn target() -> PathBuf {
    let folder = env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    root().join(folder)
}

/// A program that `cargo build --release` makes.
pub fn release(program: &str) -> PathBuf {
    target().join("release").join(program)
}

/// The log of a step.
pub fn log(step: &str) -> PathBuf {
    target().join("log").join(format!("{step}.log"))
}

/// Guest kernels and virtme-ng: 2 GB that a fresh clone on the same machine need not fetch again.
/// `MSYNC_TRACE_VM_CACHE` moves it.
pub fn vm_cache() -> PathBuf {
    if let Some(folder) = env::var_os("MSYNC_TRACE_VM_CACHE") {
        return folder.into();
    }
    env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|folder| folder.is_absolute())
        .or_else(|| env::home_dir().map(|home| home.join(".cache")))
        .unwrap_or_else(target)
        .join("msync-trace")
        .join("vm")
}

/// A program in PATH or where system programs are, which an ordinary user's PATH may lack.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}
