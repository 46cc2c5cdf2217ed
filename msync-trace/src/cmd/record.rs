//! `msync-trace record`: what `trace` does, with everything kept in a file.

use std::{
    error::Error as StdError,
    io::{self, Write},
    path::Path,
};

use super::{
    Exit, complain, log_to_stderr,
    trace::{Keeping, try_main},
};
use crate::{
    cli::RecordArgs,
    enrich::look_at_clocks,
    output::escape,
    source::{FactSource, Options},
    store::{Limits, Recorder},
};

/// The whole command, from its arguments to the exit status. `attach` is that of `trace`.
pub fn main<S, E>(args: &RecordArgs, attach: impl FnOnce(Options) -> Result<S, E>) -> Exit
where
    S: FactSource,
    E: StdError + Send + Sync + 'static,
{
    log_to_stderr(args.trace.report.quiet, args.trace.report.verbose);
    let traced = open(args).and_then(|keeping| try_main(&args.trace, Some(keeping), attach));
    traced.unwrap_or_else(|error| {
        complain(&error);
        Exit::Error
    })
}

fn open(args: &RecordArgs) -> anyhow::Result<Keeping> {
    let limits = Limits {
        keep: args.keep,
        max_size: args.max_size,
    };
    let recorder = Recorder::open(&args.file, limits, look_at_clocks, Box::new(say))?;
    Ok(Keeping::new(recorder))
}

/// What was seen elsewhere is kept in this file.
pub(super) fn of_elsewhere(file: &Path) -> anyhow::Result<Keeping> {
    let recorder = Recorder::open(file, Limits::default(), look_at_clocks, Box::new(say))?;
    Ok(Keeping::of_elsewhere(recorder))
}

/// From the thread that writes, at once.
fn say(message: &str) {
    // Nobody to tell if standard error is closed.
    let _ = writeln!(io::stderr(), "msync-trace: {}", escape(message.as_bytes()));
}
