//! The process that compares and saves for `trace --verify` and `--rescue`: one incident after the
//! other, each a line of JSON on standard input.
//!
//! A process of its own, because a disk that hangs can hold whoever reads it for good, also against
//! SIGKILL; tracing goes on, and can end. It outlives a trace that ends while it saves.

use std::{
    ffi::OsStr,
    io::{self, BufRead, Write},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    Exit,
    rescue::{complete, directory_name, manifest_of},
};
use crate::{
    enrich::machine,
    model::{ByteRange, InMemory, Verified},
    rescue::{Choice, Findings, Obstacle, Saver, Scope, Target, Vault, examine},
    schema::{Comparison, IncidentRecord},
};

/// What is to be done.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) incident: IncidentRecord,
    /// Where to save to (a path is bytes), and how many bytes at most.
    pub(super) rescue: Option<(Vec<u8>, u64)>,
}

/// What came of it, one line of JSON each; [`Answer::Done`] is the last.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// It was compared.
    Verified(Verified, Comparison),
    /// It is still at work.
    Alive,
    /// It was saved.
    Saved {
        /// Bytes as memory had them.
        bytes: u64,
        /// All that was written.
        written: u64,
        /// A path is bytes.
        directory: Vec<u8>,
        /// Why not everything.
        not_saved: Option<String>,
    },
    /// Something is worth knowing about where it is saved: a sentence.
    Warned(String),
    /// It could not be saved: a sentence.
    Said(String),
    /// Nothing follows.
    Done,
}

/// An incident is compared that far and that long before it is shown.
const MOST_BYTES: u64 = 64 << 20;
const LONGEST: Duration = Duration::from_millis(1200);
/// A disk that takes longer for a mebibyte is taken for one that hangs.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it says that it is at work.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);

/// Until nobody asks any more.
#[must_use]
pub fn main() -> Exit {
    for line in io::stdin().lock().lines() {
        let Ok(job) = line.and_then(|line| Ok(serde_json::from_str::<Job>(&line)?)) else {
            return Exit::Error;
        };
        work(&job);
        say(&Answer::Done);
    }
    Exit::Nothing
}

/// Nobody to tell if the trace is gone: what is being saved is saved all the same.
fn say(answer: &Answer) {
    let Ok(mut line) = serde_json::to_vec(answer) else {
        return;
    };
    line.push(b'\n');
    let _ = io::stdout().write_all(&line);
    let _ = io::stdout().flush();
}

fn work(job: &Job) {
    let incident = &job.incident;
    let process = Some(incident.process.task.process);
    let key = incident.file.inode;
    let target = match Target::of(key, incident.file.dev, process, PATIENCE) {
        Ok(target) => target,
        Err(why) => {
            say(&not_compared(&why));
            if job.rescue.is_some() {
                say(&Answer::Said(format!("not saved: {why}")));
            }
            return;
        }
    };
    let scope = Scope {
        ranges: match incident.ranges.is_empty() {
            true => vec![ByteRange::ALL],
            false => incident.ranges.clone(),
        },
        max_bytes: MOST_BYTES,
        until: Some(Instant::now() + LONGEST),
    };
    say(&match examine(&target, &scope, &mut (), &mut |_| {}) {
        Ok(findings) => verdict(&findings, incident),
        Err(why) => not_compared(&why),
    });
    if let Some((directory, room)) = &job.rescue {
        say(
            &match save(&target, incident, path(directory), *room, scope.ranges) {
                Ok(answer) => answer,
                Err(why) => Answer::Said(why.to_string()),
            },
        );
    }
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn not_compared(why: &Obstacle) -> Answer {
    let comparison = Comparison {
        reason: Some(why.to_string()),
        ..Comparison::default()
    };
    Answer::Verified(Verified::Unknown, comparison)
}

/// That all pages of a file are as on the disk says nothing if it is not known which of them were
/// lost.
fn verdict(findings: &Findings, incident: &IncidentRecord) -> Answer {
    let mut comparison = findings.comparison();
    let verified = match findings.verified() {
        Verified::Same if incident.ranges.is_empty() => {
            comparison.reason = Some("which bytes were lost is not known".to_owned());
            Verified::Unknown
        }
        Verified::Same if drops_lost_pages(incident) => {
            let why =
                "this kernel drops what it could not write, so it can have been read from the disk";
            comparison.reason = Some(why.to_owned());
            Verified::Unknown
        }
        verified => verified,
    };
    Answer::Verified(verified, comparison)
}

/// What left memory and is there again was read from the disk: it survived only if it differs.
pub(super) fn choice(incident: &IncidentRecord) -> Choice {
    match incident.ranges.is_empty() || incident.in_memory == InMemory::No {
        true => Choice::Differing,
        false => Choice::All,
    }
}

/// The contents of pages are given up, and no page leaves the cache: of all that btrfs could not
/// write (`end_extent_writepage` of 5.10 and 6.1, not of 6.12), of those that XFS found no place for
/// (`iomap_writepage_map` of 5.10, not of 6.1).
fn drops_lost_pages(incident: &IncidentRecord) -> bool {
    match incident.file.fs_type.as_deref() {
        Some("btrfs") => kernel_version() < (6, 12),
        Some("xfs") => kernel_version() < (6, 1),
        _ => false,
    }
}

/// Of the running kernel: major, minor. (0, 0) if it does not say it in the usual way.
fn kernel_version() -> (u32, u32) {
    let release = machine().kernel.release;
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn save(
    target: &Target,
    incident: &IncidentRecord,
    directory: &Path,
    room: u64,
    ranges: Vec<ByteRange>,
) -> Result<Answer, Obstacle> {
    let vault = Vault::at(directory)?;
    vault.refuse_same_filesystem(target)?;
    if let Some(warning) = vault.warning(target) {
        say(&Answer::Warned(warning.to_owned()));
    }
    let mut manifest = manifest_of(target, incident.file.path.as_ref());
    manifest.incident = Some(incident.incident);
    manifest.ranges.clone_from(&ranges);
    let choice = choice(incident);
    let mut saver = Saver::new(&vault, &directory_name(&manifest), choice, room)?;
    let place = saver.directory().to_owned();
    let scope = Scope {
        ranges,
        max_bytes: u64::MAX,
        until: None,
    };
    let mut told = Instant::now();
    let findings = examine(target, &scope, &mut saver, &mut |_| {
        if told.elapsed() > SIGN_OF_LIFE {
            told = Instant::now();
            say(&Answer::Alive);
        }
    })?;
    complete(&mut manifest, &findings);
    let written = saver.written();
    let manifest = saver.finish(manifest)?;
    Ok(Answer::Saved {
        bytes: manifest.saved.iter().map(|saved| saved.range.len()).sum(),
        written,
        directory: place.into_os_string().into_vec(),
        not_saved: manifest.not_saved,
    })
}
