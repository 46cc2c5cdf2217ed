//! `msync-trace selftest`: loses data on a scratch disk and checks that it is reported as it was.
//!
//! The losses are made by other processes (`worker`), as the tracer does not watch itself;
//! `session` brings them and the real source together, `judge` compares.

#[cfg(target_os = "linux")]
mod judge;
#[cfg(target_os = "linux")]
mod session;
#[cfg(target_os = "linux")]
mod worker;

use std::error::Error as StdError;

use super::{Exit, complain, log_to_stderr};
use crate::{
    cli::SelftestArgs,
    source::{FactSource, Options},
};

/// The whole command. `attach` makes the source; it runs inside the runtime. Forks before it
/// starts any thread: call it in a process that has only one.
pub fn main<S, E>(args: &SelftestArgs, attach: impl FnOnce(Options) -> Result<S, E>) -> Exit
where
    S: FactSource,
    E: StdError + Send + Sync + 'static,
{
    log_to_stderr(false, args.verbose);
    try_main(args, attach).unwrap_or_else(|error| {
        complain(&error.context("selftest could not run"));
        Exit::Error
    })
}

#[cfg(target_os = "linux")]
fn try_main<S, E>(
    args: &SelftestArgs,
    attach: impl FnOnce(Options) -> Result<S, E>,
) -> anyhow::Result<Exit>
where
    S: FactSource,
    E: StdError + Send + Sync + 'static,
{
    session::run(args, attach)
}

#[cfg(not(target_os = "linux"))]
fn try_main<S, E>(
    _args: &SelftestArgs,
    _attach: impl FnOnce(Options) -> Result<S, E>,
) -> anyhow::Result<Exit>
where
    S: FactSource,
    E: StdError + Send + Sync + 'static,
{
    anyhow::bail!("it needs Linux, whose loop devices it makes fail")
}
