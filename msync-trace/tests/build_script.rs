//! The build script as a build on another system than Linux sees it. There is nothing to run: that it
//! compiles, without aya-build, is what `cargo xtask check-freebsd` looks at.
#![cfg(not(target_os = "linux"))]

#[path = "../build.rs"]
#[expect(dead_code, reason = "cargo runs it, not this test")]
mod build_script;
