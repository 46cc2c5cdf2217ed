//! `msync-trace ingest`: the facts of a D script, from a file or a pipe, through the same correlator
//! and outputs as those of `trace`. Nothing is looked up on this machine.

use std::{
    fs::File,
    io::{self, IsTerminal},
};

use anyhow::Context;

use super::{
    Exit, complain, log_to_stderr, record,
    trace::{Io, Plan, events, in_runtime, run, standard_streams},
};
use crate::{
    cli::IngestArgs,
    enrich::Enricher,
    output::escape,
    source::dtrace::{Input, Saved},
};

/// The whole command, from its arguments to the exit status.
#[must_use]
pub fn main(args: &IngestArgs) -> Exit {
    log_to_stderr(args.report.quiet, args.report.verbose);
    try_main(args).unwrap_or_else(|error| {
        complain(&error);
        Exit::Error
    })
}

fn try_main(args: &IngestArgs) -> anyhow::Result<Exit> {
    let plan = Plan::of_ingest(args);
    let name = plan.input.clone().unwrap_or_default();
    let name = escape(name.as_bytes());
    let input = open(args)?;
    let show_progress = !args.report.quiet && io::stderr().is_terminal();
    in_runtime(async {
        // Until a run has begun there is nothing to sum up: a signal may simply end the program.
        let saved = Saved::open(input, args.report.verbose > 0, show_progress)
            .await
            .with_context(|| format!("cannot read facts from {name}"))?;
        // After that: what is no input leaves no record behind.
        let keeping = args.record.as_deref().map(record::of_elsewhere);
        let keeping = keeping.transpose()?;
        let events = events::watch().context("cannot watch for signals")?;
        let io = Io {
            keeping,
            ..standard_streams(&args.report, Enricher::elsewhere())
        };
        run(saved, plan, io, events).await
    })
}

fn open(args: &IngestArgs) -> anyhow::Result<Input> {
    if args.file.as_os_str() == "-" {
        return standard_input();
    }
    let open = || {
        let file = File::open(&args.file)?;
        Ok((length(&file)?, file))
    };
    let (length, file) = open().map_err(|error: io::Error| {
        let path = escape(args.file.as_os_str().as_encoded_bytes());
        anyhow::anyhow!(
            "cannot read {path}: {error}; give the file into which the output of a D script went, \
             or - for standard input"
        )
    })?;
    Ok(Input::new(file, length))
}

fn standard_input() -> anyhow::Result<Input> {
    use std::os::fd::AsFd;

    let stdin = io::stdin();
    if stdin.is_terminal() {
        anyhow::bail!(
            "standard input is a terminal: give a file (msync-trace ingest run.mst), or the output \
             of a D script (sudo dtrace -s dtrace/freebsd/msync-trace.d facts | msync-trace ingest)"
        );
    }
    // Without a buffer in between, which would hold back what a pipe gives.
    let stdin = stdin.as_fd().try_clone_to_owned();
    let file = File::from(stdin.context("cannot read standard input")?);
    let length = length(&file).context("cannot read standard input")?;
    Ok(Input::new(file, length))
}

/// The length of a file; `None` if it is none and bytes come as they are made.
fn length(file: &File) -> io::Result<Option<u64>> {
    let is = file.metadata()?;
    if is.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(is.is_file().then_some(is.len()))
}
