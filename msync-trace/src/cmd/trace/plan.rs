//! What the command line of `trace` means.

use std::{ffi::OsString, time::Duration};

use crate::{
    cli::{CallName, Form, TraceArgs},
    model::Call,
    output::Verbosity,
    source::Options,
};

use super::filter::Filter;

/// Everything that `trace` was asked for.
#[derive(Debug)]
pub struct Plan {
    /// How to write what is found.
    pub form: Form,
    /// What to report.
    pub filter: Filter,
    /// When to end at the latest.
    pub duration: Option<Duration>,
    /// How many incidents are enough.
    pub stop_after: Option<u64>,
    /// Which calls make incidents; sorted, each once.
    pub calls: Vec<Call>,
    /// How much to show.
    pub verbosity: Verbosity,
    /// Run this, and trace until it ends.
    pub command: Vec<OsString>,
    /// What the source is asked to watch.
    pub options: Options,
}

impl Plan {
    /// From the command line.
    #[must_use]
    pub fn new(args: &TraceArgs) -> Self {
        let calls = calls(&args.calls, args.include_async);
        Self {
            form: args.output,
            filter: Filter::new(args),
            duration: args.duration,
            stop_after: args.stop_after.map(u64::from),
            verbosity: match (args.quiet, args.verbose) {
                (true, _) => Verbosity::Quiet,
                (false, 0) => Verbosity::Normal,
                (false, _) => Verbosity::Verbose,
            },
            command: args.run.clone(),
            options: Options {
                tier: args.tier.tier(),
                include_async: args.include_async,
                ring_bytes: args.ring_size,
            },
            calls,
        }
    }
}

fn calls(names: &[CallName], include_async: bool) -> Vec<Call> {
    let mut calls: Vec<Call> = names
        .iter()
        .flat_map(|name| match name {
            CallName::Msync => &[Call::Msync][..],
            CallName::Fsync => &[Call::Fsync],
            CallName::Fdatasync => &[Call::Fdatasync],
            CallName::IoUring => &[Call::IoUring],
            CallName::Nfsd => &[Call::Nfsd],
            CallName::All => &[
                Call::Msync,
                Call::Fsync,
                Call::Fdatasync,
                Call::IoUring,
                Call::Nfsd,
            ],
        })
        .copied()
        .chain(include_async.then_some(Call::MsyncAsync))
        .collect();
    calls.sort();
    calls.dedup();
    calls
}
