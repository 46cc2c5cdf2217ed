//! Boots a guest kernel over this machine's file system, runs one command there and hands its
//! output and status back.
//!
//! The guest sees the host's files read-only, at their own paths. /etc, /home, /lib, /opt, /srv,
//! /tmp, /usr and /var are overlays whose changes are gone with the guest; /run is a fresh tmpfs of
//! half the guest's memory, and TMPDIR is a folder there. Results leave through standard output.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use super::kernels::Guest;
use crate::{
    paths,
    step::{Ending, Step, progress, seconds},
};

/// The longest that a guest may take until its command begins; 20 to 40 seconds are usual.
const BOOT: Duration = Duration::from_secs(180);
const MOST_BOOTS: u32 = 3;

/// A command for a guest.
pub struct GuestCommand<'a> {
    /// The kernel to boot.
    pub guest: &'a Guest,
    /// Text for the guest's bash.
    pub script: &'a str,
    /// From the start of qemu to the end of the command.
    pub deadline: Duration,
    /// The guest's memory, as `vng -m` takes it.
    pub memory: &'a str,
    /// How many processors it has.
    pub processors: usize,
    /// Use hardware virtualisation. Off by default: where it is nested it may be there and broken.
    pub kvm: bool,
    /// Let kernel messages of all levels reach the console.
    pub verbose: bool,
    /// The console, all of it, goes here.
    pub log: PathBuf,
    /// Print signs of life.
    pub ticker: bool,
}

/// What became of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestEnding {
    /// It ended with this status.
    Exit(i32),
    /// It began, and the guest went down before it ended: a panic, or out of memory.
    Died,
    /// The guest went down before the command began.
    NeverBegan,
    /// Killed at its deadline.
    TimedOut,
}

/// What a guest left behind.
pub struct GuestOutcome {
    /// What became of the command.
    pub ending: GuestEnding,
    /// How long it took, boot included.
    pub took: Duration,
    /// The last lines of the console.
    pub tail: Vec<String>,
}

impl GuestCommand<'_> {
    /// Runs the command; its lines are handed over as they come. A guest that does not come up is
    /// started again: without hardware virtualisation a kernel may lose its timer while it boots.
    pub fn run(&self, virtme: &Path, mut on_output: impl FnMut(&str)) -> Result<GuestOutcome> {
        let mut boots = 1;
        loop {
            let outcome = self.boot(virtme, &mut on_output)?;
            if outcome.ending != GuestEnding::NeverBegan || boots == MOST_BOOTS {
                return Ok(outcome);
            }
            boots += 1;
            let (series, took) = (&self.guest.series, seconds(outcome.took));
            progress(&format!(
                "    Linux {series} did not come up in {took}: boot {boots} of {MOST_BOOTS}"
            ));
        }
    }

    fn boot(&self, virtme: &Path, on_output: &mut impl FnMut(&str)) -> Result<GuestOutcome> {
        let scratch = paths::target().join("vm");
        fs::create_dir_all(&scratch)?;
        let unique = format!("{}-{}", self.guest.series, std::process::id());
        let mut console = Console::new(&unique);
        let script = scratch.join(format!("{unique}-command.sh"));
        let wrapper = scratch.join(format!("{unique}-wrapper.sh"));
        fs::write(&script, self.script)?;
        fs::write(&wrapper, wrapper_text(&unique, &script, self.verbose))
            .with_context(|| format!("cannot write {}", wrapper.display()))?;

        let mut vng = Command::new(virtme);
        // It runs a second program of the same package, by name.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = virtme.parent().map(Path::to_owned).into_iter();
        vng.env(
            "PATH",
            std::env::join_paths(folders.chain(std::env::split_paths(&path)))?,
        );
        vng.arg("--run").arg(self.guest.image());
        vng.args([
            "--user",
            "root",
            "-m",
            self.memory,
            "--cpus",
            &self.processors.to_string(),
            "--verbose",
        ]);
        if !self.kvm {
            vng.arg("--disable-kvm");
        }
        vng.arg("--")
            .arg(format!("sh {}", quote(&wrapper.to_string_lossy())));
        let name = format!("Linux {} in a VM", self.guest.series);
        let step = Step {
            name,
            command: vng,
            log: self.log.clone(),
            deadline: self.deadline,
            must_say: Some((console.begin.clone(), BOOT)),
            ticker: self.ticker,
        };
        let outcome = step.run(|line| {
            if let Some(output) = console.read(line) {
                on_output(output);
            } else if self.verbose {
                eprintln!("{line}");
            }
        })?;
        for file in [script, wrapper] {
            fs::remove_file(file)?;
        }
        let ending = match (outcome.ending, console.state) {
            (_, State::Ended(status)) => GuestEnding::Exit(status),
            (Ending::TimedOut, State::Booting) if outcome.took < self.deadline => {
                GuestEnding::NeverBegan
            }
            (Ending::TimedOut, _) => GuestEnding::TimedOut,
            (_, State::Running) => GuestEnding::Died,
            (_, State::Booting) => GuestEnding::NeverBegan,
        };
        Ok(GuestOutcome {
            ending,
            took: outcome.took,
            tail: outcome.tail,
        })
    }
}

/// What runs in the guest around the command. Kernel messages share the console with its output:
/// only those of a dying kernel pass meanwhile, and a failed command is followed by the others.
fn wrapper_text(unique: &str, script: &Path, verbose: bool) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!(
        "{quiet}\nexport HOME=/root LANG=C.UTF-8 TERM=dumb TMPDIR=/run/msync-trace PATH={path}\n\
         export PATH=\"$PATH:/usr/sbin:/sbin\"\n\
         mkdir -p \"$TMPDIR\"\ncd {root}\nstty -onlcr 2>/dev/null\n\
         printf '%s\\n' '{begin}'\nbash {script} </dev/null\nstatus=$?\n\
         printf '%s %s>>>\\n' '{end}' \"$status\"\n\
         [ \"$status\" = 0 ] || dmesg | tail -n 200\n",
        quiet = if verbose { "" } else { "dmesg -n 2" },
        path = quote(&path),
        root = quote(&paths::root().to_string_lossy()),
        script = quote(&script.to_string_lossy()),
        begin = begin_marker(unique),
        end = end_marker(unique),
    )
}

fn begin_marker(unique: &str) -> String {
    format!("<<<begin {unique}>>>")
}

fn end_marker(unique: &str) -> String {
    format!("<<<end {unique}")
}

/// One word for a shell.
pub fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Booting,
    Running,
    Ended(i32),
}

/// Finds the command's output in what the guest's serial console says.
struct Console {
    begin: String,
    end: String,
    state: State,
}

impl Console {
    fn new(unique: &str) -> Self {
        Self {
            begin: begin_marker(unique),
            end: end_marker(unique),
            state: State::Booting,
        }
    }

    /// The part of a line that is the command's own.
    fn read<'line>(&mut self, line: &'line str) -> Option<&'line str> {
        match self.state {
            State::Booting => {
                if line.contains(&self.begin) {
                    self.state = State::Running;
                }
                None
            }
            State::Running => match line.split_once(&self.end) {
                Some((before, after)) => {
                    let status = after.split(">>>").next().unwrap_or_default();
                    self.state = State::Ended(status.trim().parse().unwrap_or(255));
                    (!before.is_empty()).then_some(before)
                }
                None => (!is_kernel_message(line)).then(|| line.trim_end_matches('\r')),
            },
            State::Ended(_) => None,
        }
    }
}

/// `[   12.345678] text`, as printk writes on a console.
fn is_kernel_message(line: &str) -> bool {
    let Some((time, _)) = line
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
    else {
        return false;
    };
    let Some((seconds, micros)) = time.trim_start().split_once('.') else {
        return false;
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(seconds) && digits(micros) && micros.len() == 6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(lines: &[&str]) -> (Vec<String>, State) {
        let mut console = Console::new("6.12-77");
        let own = lines
            .iter()
            .filter_map(|line| console.read(line).map(str::to_owned))
            .collect();
        (own, console.state)
    }

    #[test]
    fn the_commands_output_stands_between_the_markers() {
        let (own, state) = output(&[
            "[    1.625816] evm: security.apparmor",
            "virtme-ng-init: starting script",
            "<<<begin 6.12-77>>>\r",
            "6.12.107\r",
            "[    5.038991] device-mapper: uevent: version 1.0.3",
            "[not a] kernel message",
            "<<<end 6.12-77 0>>>",
            "[    9.000000] reboot: Power down",
        ]);
        assert_eq!(own, ["6.12.107", "[not a] kernel message"]);
        assert_eq!(state, State::Ended(0));
    }

    #[test]
    fn output_without_a_newline_at_its_end_is_kept_and_noise_before_a_marker_ignored() {
        let (own, state) = output(&[
            "[    4.1<<<begin 6.12-77>>>",
            "half a line<<<end 6.12-77 7>>>",
        ]);
        assert_eq!(own, ["half a line"]);
        assert_eq!(state, State::Ended(7));
    }

    #[test]
    fn a_guest_that_dies_has_begun_and_not_ended() {
        let (own, state) = output(&["<<<begin 6.12-77>>>", "one", "[    6.000001] Kernel panic"]);
        assert_eq!(own, ["one"]);
        assert_eq!(state, State::Running);
        assert_eq!(output(&["[    0.1] nothing"]).1, State::Booting);
    }

    #[test]
    fn another_runs_marker_is_output() {
        let (own, _) = output(&["<<<begin 6.12-77>>>", "<<<end 6.12-78 0>>>"]);
        assert_eq!(own, ["<<<end 6.12-78 0>>>"]);
    }

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
    }
}
