//! `cargo xtask vm`: a command on another kernel, in a virtual machine.

pub mod dtrace;
pub mod guest;
pub mod kernels;

use std::{path::Path, time::Duration};

use anyhow::{Result, bail};
use clap::Args;
use guest::{GuestCommand, GuestEnding};
use kernels::Guest;

use crate::{
    paths, setup,
    step::{progress, seconds},
};

/// Run a command on another kernel, in a virtual machine over this machine's files
///
/// The guest sees this machine's files read-only at their own paths, starts in this checkout and
/// is root. Changes below /etc, /home, /lib, /opt, /srv, /tmp, /usr and /var are gone when it ends;
/// /run and $TMPDIR are a tmpfs. Results leave through standard output. The exit status is the
/// command's; 125 if the guest itself failed, 124 at the time limit.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask vm --list\n  \
    cargo xtask vm 6.12 -- uname -r\n  \
    cargo xtask vm all -- 'modprobe xfs && grep xfs /proc/filesystems'\n  \
    cargo xtask vm 5.10 -- target/release/msync-trace check")]
pub struct VmArgs {
    /// 5.10, 6.1, 6.12, 7.2, all, or the full release of one of them
    #[arg(required_unless_present = "list")]
    kernel: Option<String>,
    /// List the kernels that are ready
    #[arg(long)]
    list: bool,
    /// End the guest after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// Memory of the guest
    #[arg(long, value_name = "SIZE", default_value = "2G")]
    memory: String,
    /// Processors of the guest
    #[arg(long, value_name = "N", default_value_t = 2)]
    processors: usize,
    /// Use hardware virtualisation
    #[arg(long)]
    kvm: bool,
    /// Show the whole console
    #[arg(short, long)]
    verbose: bool,
    /// The command: one word is given to a shell as it is, several words are quoted
    #[arg(last = true, required_unless_present = "list", value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the command; the exit status of this process.
pub fn run(args: &VmArgs) -> Result<u8> {
    let virtme = setup::ensure_vm()?;
    let guests = kernels::cached();
    if args.list {
        for guest in &guests {
            println!("{:6} {}", guest.series, guest.release);
        }
        return Ok(0);
    }
    let wanted = args.kernel.as_deref().unwrap_or_default();
    let chosen: Vec<&Guest> = match wanted {
        "all" => guests.iter().collect(),
        one => kernels::find(&guests, one).into_iter().collect(),
    };
    if chosen.is_empty() {
        bail!("no kernel {wanted:?} is ready; `cargo xtask vm --list` shows those that are");
    }
    let mut worst = 0;
    for guest in chosen {
        worst = worst.max(run_in(args, guest, &virtme)?);
    }
    Ok(worst)
}

fn run_in(args: &VmArgs, guest: &Guest, virtme: &Path) -> Result<u8> {
    let log = paths::log(&format!("vm-{}", guest.series));
    progress(&format!(
        "==> Linux {} (console: {})",
        guest.release,
        log.display()
    ));
    let command = GuestCommand {
        guest,
        script: &shell_text(&args.command),
        deadline: Duration::from_secs(args.timeout),
        memory: &args.memory,
        processors: args.processors,
        kvm: args.kvm,
        verbose: args.verbose,
        log,
        ticker: true,
    };
    let outcome = command.run(virtme, |line| println!("{line}"))?;
    let took = seconds(outcome.took);
    let status = match outcome.ending {
        GuestEnding::Exit(status) => {
            progress(&format!("    status {status}, {took}"));
            u8::try_from(status).unwrap_or(255)
        }
        GuestEnding::TimedOut => {
            progress(&format!(
                "    ended at the time limit of {} s",
                args.timeout
            ));
            124
        }
        ending @ (GuestEnding::Died | GuestEnding::NeverBegan) => {
            let when = match ending {
                GuestEnding::Died => "before the command ended",
                _ => "before the command began",
            };
            progress(&outcome.tail.join("\n"));
            progress(&format!("    the guest went down {when}, {took}"));
            125
        }
    };
    Ok(status)
}

/// One word is shell text, as for `sh -c`; several are one command.
fn shell_text(words: &[String]) -> String {
    match words {
        [text] => text.clone(),
        words => words
            .iter()
            .map(|word| guest::quote(word))
            .collect::<Vec<_>>()
            .join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_is_shell_text_and_several_are_a_command() {
        let words = |list: &[&str]| {
            list.iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(shell_text(&words(&["a | b"])), "a | b");
        assert_eq!(shell_text(&words(&["echo", "a b"])), "'echo' 'a b'");
    }
}
