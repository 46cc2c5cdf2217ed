//! `cargo xtask lint-d`: what can be checked of the D scripts without the system they are for.
//!
//! FreeBSD is nowhere in CI, and one wrong name makes DTrace refuse a whole script. So the rules
//! that were learnt on live systems are checked here: see `rules`.

mod clauses;
mod rules;
#[cfg(test)]
mod tests;
mod tokens;
mod words;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{paths, tally::Tally};

/// Check the D scripts against what is known of DTrace on FreeBSD and on Linux
///
/// The exit status is 1 if a script breaks a rule.
#[derive(Args)]
pub struct LintArgs {
    /// Scripts; without any, all below dtrace/. One in a folder `linux` is for Linux
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// The system that a script is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum System {
    FreeBsd,
    Linux,
}

impl System {
    fn of(script: &Path) -> Self {
        let folder = script.parent().and_then(Path::file_name);
        match folder.is_some_and(|name| name == "linux") {
            true => Self::Linux,
            false => Self::FreeBsd,
        }
    }
}

/// A rule is broken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    line: usize,
    text: String,
}

/// Checks the scripts and prints what is wrong; the exit status of this process.
pub fn run(args: &LintArgs) -> Result<u8> {
    let scripts = match args.files.is_empty() {
        true => scripts()?,
        false => args.files.clone(),
    };
    let wrong = findings_in(&scripts)?;
    for finding in &wrong {
        println!("{finding}");
    }
    println!("{} scripts, {} findings", scripts.len(), wrong.len());
    Ok(u8::from(!wrong.is_empty()))
}

/// The same as a step of `cargo xtask test`: a test for each script.
pub fn check() -> Result<Tally> {
    let mut tally = Tally::default();
    for script in scripts()? {
        let wrong = findings_in(std::slice::from_ref(&script))?;
        tally.add(match wrong.is_empty() {
            true => Tally::one_passed(),
            false => Tally::one_failed(wrong.join("; ")),
        });
    }
    Ok(tally)
}

/// All scripts below dtrace/.
fn scripts() -> Result<Vec<PathBuf>> {
    let mut scripts = Vec::new();
    for system in ["freebsd", "linux"] {
        let folder = paths::root().join("dtrace").join(system);
        if !folder.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "d") {
                scripts.push(path);
            }
        }
    }
    if scripts.is_empty() {
        bail!("there is no D script below dtrace/");
    }
    scripts.sort();
    Ok(scripts)
}

fn findings_in(scripts: &[PathBuf]) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for script in scripts {
        let text = fs::read_to_string(script)
            .with_context(|| format!("cannot read {}", script.display()))?;
        let name = script.strip_prefix(paths::root()).unwrap_or(script);
        for Finding { line, text } in lint(&text, System::of(script)) {
            wrong.push(format!("{}:{line}: {text}", name.display()));
        }
    }
    Ok(wrong)
}

/// What is wrong with a script.
fn lint(script: &str, system: System) -> Vec<Finding> {
    let tokens = match tokens::tokens(script) {
        Ok(tokens) => tokens,
        Err(finding) => return vec![finding],
    };
    if let Some(finding) = tokens::unbalanced(&tokens) {
        return vec![finding];
    }
    let program = match clauses::parse(&tokens) {
        Ok(program) => program,
        Err(finding) => return vec![finding],
    };
    let mut findings = rules::all(&program, system);
    findings.sort();
    findings.dedup();
    findings
}
