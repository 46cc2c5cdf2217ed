//! `cargo xtask lab`: disks that fail on demand, for tests, for people, and for the fuzzer.

mod ctl;
mod fuzz;
mod serve;
mod units;
mod wire;

use anyhow::Result;
use clap::{Args, Subcommand};

/// A disk that fails on demand, and a fuzzer that uses it (needs root)
#[derive(Args)]
pub struct LabArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Ctl(ctl::CtlArgs),
    Fuzz(fuzz::FuzzArgs),
    Replay(fuzz::ReplayArgs),
    Shrink(fuzz::ShrinkArgs),
}

/// Runs it; the exit status of this process.
pub fn run(args: &LabArgs) -> Result<u8> {
    match &args.command {
        Command::Serve(args) => serve::run(args),
        Command::Ctl(args) => ctl::run(args),
        Command::Fuzz(args) => fuzz::fuzz(args),
        Command::Replay(args) => fuzz::replay(args),
        Command::Shrink(args) => fuzz::shrink(args),
    }
}
