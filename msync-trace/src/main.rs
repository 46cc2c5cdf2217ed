//! The `msync-trace` command.

use std::process::ExitCode;

use clap::Parser;
use msync_trace::{
    cli::{Cli, Command},
    cmd,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli
        .command
        .unwrap_or_else(|| Command::Trace(Box::new(cli.trace)))
    {
        Command::Trace(args) => cmd::trace::main(&args, live::attach),
        Command::Record(args) => cmd::record::main(&args, live::attach),
        Command::Serve(args) => cmd::serve::main(&args, live::attach),
        Command::Ingest(args) => cmd::ingest::main(&args),
        Command::Report(args) => cmd::report::main(&args),
        Command::Rescue(args) => cmd::rescue::main(&args),
        Command::VerifyWorker => cmd::rescue::worker(),
        Command::Export(args) => cmd::export::main(&args),
        Command::Check(args) => cmd::check::main(&args, live::probe, live::look),
        Command::Selftest(args) => cmd::selftest::main(&args, live::attach),
        Command::Detach => cmd::detach::main(),
    }
    .into()
}

/// Where live facts come from on this system.
#[cfg(target_os = "linux")]
mod live {
    use msync_trace::source::{
        HookStatus, Options,
        ebpf::{self, AttachError, Tracer},
    };

    pub fn attach(options: Options) -> Result<Tracer, AttachError> {
        Tracer::attach(ebpf::Options {
            tier: options.tier,
            include_async: options.include_async,
            ring_bytes: options.ring_bytes,
            pin: options.pin,
        })
    }

    pub fn probe() -> Result<Vec<HookStatus>, AttachError> {
        ebpf::probe_hooks(None).map(|(_, hooks)| hooks)
    }

    pub fn look() -> Vec<HookStatus> {
        ebpf::possible_hooks()
    }
}

/// Without eBPF: there is nothing to attach, and no hooks of ours to be tried.
#[cfg(not(target_os = "linux"))]
mod live {
    use msync_trace::source::{
        HookStatus, Options,
        absent::{Absent, NoSource},
    };

    pub fn attach(options: Options) -> Result<Absent, NoSource> {
        Absent::attach(options)
    }

    pub fn probe() -> Result<Vec<HookStatus>, NoSource> {
        Ok(Vec::new())
    }

    pub fn look() -> Vec<HookStatus> {
        Vec::new()
    }
}
