//! The commands in README.md, run as they stand there.
//!
//! A fenced block marked `sh` holds commands, one per line (a `\` at the end goes on; `#` lines are
//! remarks; if a line starts with `$ `, only such lines are commands and the rest is output).
//! Output belongs into blocks marked otherwise. `sudo` runs the command as the user we are, which
//! is root. Commands that mention cargo or target/ run in the checkout, others in an empty folder
//! that they share.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::Result;

use crate::{
    paths,
    step::{Ending, Step, progress},
    tally::Tally,
    vm::guest::quote,
};

/// A command of README.md.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ReadmeCommand {
    line: usize,
    text: String,
}

/// How a command is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    /// To its end; accepted exit statuses.
    Run(&'static [i32]),
    /// It waits for Ctrl-C, and gets it after five seconds.
    Interrupted,
    /// Not run; why.
    Exempt(&'static str),
}

/// Runs every command of README.md.
pub fn run() -> Result<Tally> {
    let readme = fs::read_to_string(paths::root().join("README.md")).unwrap_or_default();
    let commands = extract(&readme);
    let scratch = paths::target().join("readme");
    if scratch.exists() {
        fs::remove_dir_all(&scratch)?;
    }
    fs::create_dir_all(&scratch)?;
    let mut tally = Tally::default();
    for command in &commands {
        tally.add(run_one(command, &scratch)?);
    }
    if tally.passed == 0 && tally.failed.is_empty() {
        return Ok(Tally::one_failed(
            "README.md has no command in a block marked sh",
        ));
    }
    Ok(tally)
}

fn run_one(command: &ReadmeCommand, scratch: &Path) -> Result<Tally> {
    let ReadmeCommand { line, text } = command;
    let (accepted, interrupted): (&[i32], bool) = match treatment(text) {
        Treatment::Exempt(why) => {
            progress(&format!("    line {line}: `{text}` is not run: {why}"));
            return Ok(Tally::default());
        }
        Treatment::Run(accepted) => (accepted, false),
        Treatment::Interrupted => (&[0, 1, 3], true),
    };
    progress(&format!("    line {line}: {text}"));
    let checkout = paths::root();
    let is_in_checkout = |word: &str| word.contains('/') && checkout.join(word).exists();
    let in_checkout = text.contains("cargo ") || text.split_whitespace().any(is_in_checkout);
    let mut bash = Command::new(if interrupted { "timeout" } else { "bash" });
    if interrupted {
        bash.args([
            "--preserve-status",
            "--kill-after=20",
            "--signal=INT",
            "5",
            "bash",
        ]);
    }
    bash.arg("-c").arg(script(text));
    bash.current_dir(if in_checkout { &checkout } else { scratch });
    bash.env("CARGO_INSTALL_ROOT", scratch.join("installed"));
    let mut step = Step::new("readme", bash, paths::log(&format!("readme-line-{line}")));
    step.deadline = Duration::from_secs(10 * 60);
    let log = step.log.clone();
    let outcome = step.run(|_| ())?;
    Ok(match outcome.ending {
        Ending::Exit(status) if accepted.contains(&status) => Tally::one_passed(),
        ending => Tally::one_failed(format!(
            "README.md line {line}: `{text}` ended with {ending:?}, see {}:\n{}",
            log.display(),
            outcome.tail.join("\n")
        )),
    })
}

/// The programs just built come first in PATH.
fn script(text: &str) -> String {
    let release = paths::target().join("release");
    format!(
        "sudo() {{ \"$@\"; }}\nPATH={}:$PATH\n{text}",
        quote(&release.to_string_lossy())
    )
}

fn treatment(text: &str) -> Treatment {
    let words = text
        .split_whitespace()
        .skip_while(|word| *word == "sudo" || word.contains('='));
    let words: Vec<&str> = words.collect();
    match words.as_slice() {
        ["cargo", "xtask", "test", ..]
        | ["bash", ".ci/run", ..]
        | [".ci/run" | "./.ci/run", ..] => Treatment::Exempt("it runs this very test"),
        ["git", "clone", ..] | ["cd", ..] => Treatment::Exempt("this is the checkout"),
        [program, arguments @ ..] if program.rsplit('/').next() == Some("msync-trace") => {
            treatment_of_msync_trace(arguments)
        }
        _ => Treatment::Run(&[0]),
    }
}

/// Its exit status is a contract: 1 is "incident found", 3 "nothing found, but incomplete".
fn treatment_of_msync_trace(arguments: &[&str]) -> Treatment {
    const ENDS: [&str; 6] = [
        "--duration",
        "--stop-after",
        "--",
        "--help",
        "-h",
        "--version",
    ];
    let ends = |word: &&str| ENDS.contains(&word.split('=').next().unwrap_or(word));
    let subcommand = arguments
        .iter()
        .find(|word| word.bytes().all(|byte| byte.is_ascii_lowercase()));
    match subcommand.copied() {
        Some("selftest" | "detach") => Treatment::Run(&[0]),
        Some("check" | "report" | "ingest") => Treatment::Run(&[0, 1, 3]),
        _ if arguments.iter().any(ends) => Treatment::Run(&[0, 1, 3]),
        _ => Treatment::Interrupted,
    }
}

/// The commands in a page's `sh` blocks.
fn extract(markdown: &str) -> Vec<ReadmeCommand> {
    let mut commands = Vec::new();
    let mut block: Option<Vec<(usize, &str)>> = None;
    let mut other_block = false;
    for (index, line) in markdown.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (fence, &mut block) {
            (Some(_), Some(lines)) => {
                commands.extend(commands_of(lines));
                block = None;
            }
            (Some(_), None) if other_block => other_block = false,
            (Some(info), None) => match info.split_whitespace().next() {
                Some("sh") => block = Some(Vec::new()),
                _ => other_block = true,
            },
            (None, Some(lines)) => lines.push((index + 1, line)),
            (None, None) => {}
        }
    }
    commands
}

fn commands_of(lines: &[(usize, &str)]) -> Vec<ReadmeCommand> {
    let prompts = lines
        .iter()
        .any(|(_, line)| line.trim_start().starts_with("$ "));
    let mut commands: Vec<ReadmeCommand> = Vec::new();
    let mut goes_on = false;
    for (number, line) in lines {
        let trimmed = line.trim();
        let (text, next_goes_on) = match trimmed.strip_suffix('\\') {
            Some(text) => (text.trim_end(), true),
            None => (trimmed, false),
        };
        if goes_on && let Some(command) = commands.last_mut() {
            command.text = format!("{} {text}", command.text);
            goes_on = next_goes_on;
            continue;
        }
        let text = match text.strip_prefix("$ ") {
            Some(text) => text,
            None if prompts => continue,
            None => text,
        };
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        commands.push(ReadmeCommand {
            line: *number,
            text: text.to_owned(),
        });
        goes_on = next_goes_on;
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(markdown: &str) -> Vec<String> {
        extract(markdown)
            .into_iter()
            .map(|command| command.text)
            .collect()
    }

    #[test]
    fn only_sh_blocks_hold_commands() {
        let page = "# Title\n```sh\n# a remark\n\nsudo msync-trace\n```\n\
            ```text\nrm -rf /\n```\n```\nnor this\n```\n  ```sh title\n  cargo xtask demo\n  ```\n";
        assert_eq!(texts(page), ["sudo msync-trace", "cargo xtask demo"]);
        assert_eq!(extract(page)[0].line, 5);
    }

    #[test]
    fn a_long_command_goes_on_in_the_next_line() {
        assert_eq!(
            texts("```sh\nmsync-trace \\\n  --comm x \\\n  --pid 1\nls\n```\n"),
            ["msync-trace --comm x --pid 1", "ls"]
        );
    }

    #[test]
    fn with_prompts_the_rest_is_output() {
        assert_eq!(
            texts("```sh\n$ uname -r\n6.12\n$ id\nroot\n```\n"),
            ["uname -r", "id"]
        );
    }

    #[test]
    fn what_waits_for_ctrl_c_gets_it() {
        for text in [
            "sudo msync-trace",
            "sudo msync-trace -o json --comm postgres",
            "sudo target/release/msync-trace trace",
            "sudo msync-trace record run.facts",
            "sudo msync-trace serve",
        ] {
            assert_eq!(treatment(text), Treatment::Interrupted, "{text}");
        }
    }

    #[test]
    fn what_ends_by_itself_is_run_to_its_end() {
        for text in [
            "sudo msync-trace --duration 5",
            "sudo msync-trace --stop-after=1",
            "sudo msync-trace -- sync",
            "msync-trace --help",
            "msync-trace check --json",
        ] {
            assert_eq!(treatment(text), Treatment::Run(&[0, 1, 3]), "{text}");
        }
        for text in [
            "sudo msync-trace selftest --fs xfs",
            "sudo msync-trace detach",
        ] {
            assert_eq!(treatment(text), Treatment::Run(&[0]), "{text}");
        }
        assert_eq!(treatment("cargo build --release"), Treatment::Run(&[0]));
    }

    #[test]
    fn what_would_run_this_test_again_is_not_run() {
        for text in [
            "cargo xtask test",
            "cargo xtask test --no-vm",
            "bash .ci/run",
            "cd x",
        ] {
            assert!(matches!(treatment(text), Treatment::Exempt(_)), "{text}");
        }
        assert_eq!(
            treatment("cargo xtask vm 6.12 -- uname -r"),
            Treatment::Run(&[0])
        );
    }
}
