//! `lab ctl`: commands for a running `lab serve`.

use std::num::NonZero;
use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Args, Subcommand};

use super::units;
use super::wire::{Request, Status, ask};
use crate::faults::{Access, Effect, FaultRule, Place};

/// Make the device of `lab serve` fail, be slow, or work again
#[derive(Args)]
#[command(after_help = "\
Examples:
  ctl --socket /run/lab.sock fail --error EIO --range 4096..8192
  ctl --socket /run/lab.sock fail --error ENOSPC --nth 3
  ctl --socket /run/lab.sock fail --error EIO --probability 0.5 --seed 7
  ctl --socket /run/lab.sock delay --ms 50 --range 64M..65M
  ctl --socket /run/lab.sock status
  ctl --socket /run/lab.sock heal

Rules add up until `heal`: the first one that fails a request gives the error.")]
pub struct CtlArgs {
    /// The socket of `lab serve`
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Requests fail from now on
    Fail {
        /// The error that the disk below gives; a loop device makes EIO of most
        #[arg(long, default_value = "EIO", value_parser = units::error)]
        error: i32,
        /// A failing write stores the blocks before the first bad one
        #[arg(long)]
        torn: bool,
        #[command(flatten)]
        which: Which,
    },
    /// Requests take longer from now on
    Delay {
        /// Milliseconds
        #[arg(long)]
        ms: u64,
        #[command(flatten)]
        which: Which,
    },
    /// Everything works again
    Heal,
    /// Print the device, how many writes there were, and what each rule did
    Status,
}

/// Which requests a rule is about.
#[derive(Args)]
struct Which {
    /// Only those that touch these bytes of the device, the last one excluded
    #[arg(long, value_name = "FROM..TO", value_parser = units::bytes)]
    range: Option<Range<u64>>,
    /// Reads rather than writes
    #[arg(long)]
    reads: bool,
    /// Flushes of the cache rather than writes
    #[arg(long, conflicts_with_all = ["reads", "range"])]
    flushes: bool,
    /// Only the n-th that matches, counted from 1
    #[arg(long, value_name = "N")]
    nth: Option<NonZero<u64>>,
    /// Each with this probability, from 0 to 1
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    probability: f64,
    /// Where the dice for the probability start
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,
}

impl Which {
    fn rule(&self, effect: Effect) -> Result<FaultRule> {
        ensure!(
            (0.0..=1.0).contains(&self.probability),
            "a probability is between 0 and 1"
        );
        Ok(FaultRule {
            on: match (self.reads, self.flushes) {
                (true, _) => Access::Read,
                (_, true) => Access::Flush,
                _ => Access::Write,
            },
            place: self.range.clone().map_or(Place::Anywhere, Place::Bytes),
            effect,
            nth: self.nth,
            probability: self.probability,
            seed: self.seed,
        })
    }
}

impl Command {
    fn request(&self) -> Result<Request> {
        Ok(match self {
            Command::Fail { error, torn, which } => {
                let (errno, torn) = (*error, *torn);
                Request::Add(which.rule(Effect::Fail { errno, torn })?)
            }
            Command::Delay { ms, which } => Request::Add(which.rule(Effect::Delay { ms: *ms })?),
            Command::Heal => Request::Heal,
            Command::Status => Request::Status,
        })
    }
}

/// Sends the command. `heal` and `status` print how things were.
pub fn run(args: &CtlArgs) -> Result<u8> {
    let status = ask(&args.socket, &args.command.request()?)?;
    if matches!(args.command, Command::Heal | Command::Status) {
        print(&status);
    }
    Ok(0)
}

fn print(status: &Status) {
    let Status {
        device,
        size,
        writes,
        failed_writes,
        rules,
    } = status;
    println!(
        "{}: {size} bytes, {writes} writes, {failed_writes} failed",
        device.display()
    );
    for rule in rules {
        println!(
            "  {}: {} matched, {} applied",
            describe(&rule.rule),
            rule.matched,
            rule.applied
        );
    }
}

/// A rule as its options say it.
fn describe(rule: &FaultRule) -> String {
    let mut words = match rule.effect {
        Effect::Fail { errno, torn } => {
            let torn = if torn { " --torn" } else { "" };
            format!("fail --error {}{torn}", units::error_name(errno))
        }
        Effect::Delay { ms } => format!("delay --ms {ms}"),
    };
    match &rule.place {
        Place::Anywhere => (),
        Place::Bytes(range) => words += &format!(" --range {}..{}", range.start, range.end),
        Place::Carrying { pages, .. } => {
            words += &format!(" (tagged pages {}..{})", pages.start, pages.end);
        }
    }
    words += match rule.on {
        Access::Read => " --reads",
        Access::Flush => " --flushes",
        Access::Write => "",
    };
    if let Some(nth) = rule.nth {
        words += &format!(" --nth {nth}");
    }
    if rule.probability < 1.0 {
        words += &format!(" --probability {} --seed {}", rule.probability, rule.seed);
    }
    words
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        ctl: CtlArgs,
    }

    /// The rule that a command line makes, described again.
    fn round_trip(line: &str) -> String {
        let words = ["x", "--socket", "s"].into_iter();
        let line = Line::try_parse_from(words.chain(line.split(' '))).unwrap();
        match line.ctl.command.request().unwrap() {
            Request::Add(rule) => describe(&rule),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_rule_is_described_as_it_was_asked_for() {
        for line in [
            "fail --error EIO --range 4096..8192 --nth 3 --probability 0.5 --seed 7",
            "fail --error ENOSPC --torn",
            "fail --error EIO --reads",
            "fail --error EIO --flushes",
            "delay --ms 50 --range 0..4096",
        ] {
            assert_eq!(round_trip(line), line);
        }
    }
}
