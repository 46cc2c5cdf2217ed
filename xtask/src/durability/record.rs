//! What is in a record, by another program than the one that wrote it.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};

use super::writer::Stored;

/// `sqlite3` prints the check, then one line of numbers.
const QUESTION: &str = "PRAGMA integrity_check;
    SELECT (SELECT count(*) FROM facts), (SELECT max(fact) FROM facts),
        (SELECT count(*) FROM incidents), (SELECT count(*) FROM runs), (SELECT count(*) FROM gaps)";

/// What is in a record that is sound.
#[derive(Debug, PartialEq, Eq)]
pub struct Contents {
    /// Facts and incidents.
    pub there: Stored,
    /// Number of the last fact.
    pub last_fact: u64,
    /// Runs.
    pub runs: u64,
    /// Times in which it could not be written.
    pub gaps: u64,
}

/// Reads it. A file that does not open, or not as it should, is an error.
pub fn read(record: &Path) -> Result<Contents> {
    let answer = ask(record, QUESTION)?;
    let (check, numbers) = answer.split_once('\n').context("no answer")?;
    ensure!(check == "ok", "PRAGMA integrity_check: {answer}");
    let numbers: Vec<u64> = numbers
        .split('|')
        .map(|number| number.parse().unwrap_or(0))
        .collect();
    let &[facts, last_fact, incidents, runs, gaps] = &numbers[..] else {
        bail!("not the numbers that were asked for: {answer}");
    };
    Ok(Contents {
        there: Stored { facts, incidents },
        last_fact,
        runs,
        gaps,
    })
}

/// What `sqlite3` answers.
pub fn ask(record: &Path, question: &str) -> Result<String> {
    let output = Command::new("sqlite3")
        .arg(record)
        .arg(question)
        .output()
        .context("cannot run sqlite3")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "sqlite3: {}", complaint.trim());
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

impl Contents {
    /// Nothing that was said to be stored is missing, and no fact between others.
    pub fn hold(&self, said: Stored) -> Result<()> {
        ensure!(
            self.there.facts >= said.facts && self.there.incidents >= said.incidents,
            "{said:?} were said to be stored, there are {:?}",
            self.there
        );
        ensure!(
            self.there.facts == self.last_fact,
            "of {} facts there are {}",
            self.last_fact,
            self.there.facts
        );
        Ok(())
    }
}
