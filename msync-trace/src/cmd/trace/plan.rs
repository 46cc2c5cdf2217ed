//! What the command line of `trace` means.

use std::{ffi::OsString, time::Duration};

use crate::{
    cli::{CallName, Form, IngestArgs, ReportArgs, TraceArgs},
    model::Call,
    output::Verbosity,
    source::Options,
};

use super::{filter::Filter, verify::VerifyPlan};

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
    /// Where the facts are read from, if they were printed by somebody else.
    pub input: Option<String>,
    /// Run this, and trace until it ends.
    pub command: Vec<OsString>,
    /// What the source is asked to watch.
    pub options: Options,
    /// Whether lost bytes are compared with the disk, and saved.
    pub verify: Option<VerifyPlan>,
}

impl Plan {
    /// From the command line.
    #[must_use]
    pub fn new(args: &TraceArgs) -> Self {
        Self {
            duration: args.duration,
            command: args.run.clone(),
            options: Options {
                tier: args.tier.tier(),
                include_async: args.report.include_async,
                ring_bytes: args.ring_size,
                pin: args.pin,
            },
            verify: (args.verify || args.rescue.is_some()).then(|| VerifyPlan {
                rescue: args
                    .rescue
                    .as_ref()
                    .map(|directory| (directory.clone(), args.rescue_max)),
            }),
            ..Self::of_report(&args.report, Filter::new(&args.report))
        }
    }

    /// From the command line of `ingest`.
    #[must_use]
    pub fn of_ingest(args: &IngestArgs) -> Self {
        let input = match args.file.as_os_str() == "-" {
            true => "standard input".to_owned(),
            false => args.file.to_string_lossy().into_owned(),
        };
        Self {
            input: Some(input),
            ..Self::of_report(&args.report, Filter::elsewhere(&args.report))
        }
    }

    fn of_report(args: &ReportArgs, filter: Filter) -> Self {
        Self {
            form: args.output,
            filter,
            duration: None,
            stop_after: args.stop_after.map(u64::from),
            calls: calls(&args.calls, args.include_async),
            verbosity: verbosity(args),
            input: None,
            command: Vec::new(),
            options: Options {
                include_async: args.include_async,
                ..Options::default()
            },
            verify: None,
        }
    }
}

/// How much to show.
pub(super) fn verbosity(args: &ReportArgs) -> Verbosity {
    match (args.quiet, args.verbose) {
        (true, _) => Verbosity::Quiet,
        (false, 0) => Verbosity::Normal,
        (false, _) => Verbosity::Verbose,
    }
}

pub(in crate::cmd) fn calls(names: &[CallName], include_async: bool) -> Vec<Call> {
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
