//! One file per subcommand. Wiring only: what a command does is done by the other rooms.

pub mod check;
pub mod detach;
pub mod export;
pub mod ingest;
pub mod record;
pub mod report;
#[cfg(target_os = "linux")]
pub mod rescue;
#[cfg(not(target_os = "linux"))]
#[path = "rescue_absent.rs"]
pub mod rescue;
pub mod selftest;
#[cfg(target_os = "linux")]
pub mod serve;
#[cfg(not(target_os = "linux"))]
#[path = "serve_absent.rs"]
pub mod serve;
pub mod trace;
#[cfg(target_os = "linux")]
mod verify_worker;

use std::{
    error::Error as StdError,
    io::{self, Write},
    process::ExitCode,
};

use anstream::AutoStream;

use crate::{
    cli::When,
    output::{Tone, escape},
};

/// How the program ends: a contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Complete, and nothing was found (`check`: ready).
    Nothing = 0,
    /// An incident was found (`check`: tracing works, with limits).
    Found = 1,
    /// Error (`check`: tracing cannot work).
    Error = 2,
    /// Nothing was found, but something could not be seen.
    Incomplete = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Says on standard error why it cannot go on: the whole chain of causes in one line.
fn complain(error: &anyhow::Error) {
    let text = escape(format!("{error:#}").as_bytes());
    // Nobody to tell if standard error is closed.
    let _ = writeln!(io::stderr(), "msync-trace: {text}");
}

/// Whether to use colour on a stream: asked for, or a terminal that wants it (NO_COLOR,
/// CLICOLOR, CLICOLOR_FORCE, TERM).
fn colour(when: When, stream: &impl anstream::stream::RawStream) -> bool {
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto => AutoStream::choice(stream) != anstream::ColorChoice::Never,
    }
}

/// The colour of messages on standard error.
fn tone(when: When) -> Tone {
    if colour(when, &io::stderr()) {
        Tone::Coloured
    } else {
        Tone::Plain
    }
}

/// An error with all its causes, in one line.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// Diagnostics of all rooms and of the kernel side: `-v` says what is done, `-vv` everything.
fn log_to_stderr(quiet: bool, verbose: u8) {
    let level = match (quiet, verbose) {
        (true, _) => log::LevelFilter::Error,
        (false, 0) => log::LevelFilter::Warn,
        (false, 1) => log::LevelFilter::Info,
        (false, _) => log::LevelFilter::Debug,
    };
    let logger = env_logger::Builder::new()
        .filter_level(level.min(log::LevelFilter::Info))
        .filter_module("msync_trace", level)
        .format(|out, record| {
            let text = escape(record.args().to_string().as_bytes());
            writeln!(
                out,
                "msync-trace: {}: {text}",
                record.level().as_str().to_lowercase()
            )
        })
        .try_init();
    // A second call in one process (tests) keeps the first logger.
    drop(logger);
}
