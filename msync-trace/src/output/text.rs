//! Text for people: one line per incident, columns that fit 80 characters where names allow.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write},
};

use anstyle::{AnsiColor, Style as Paint};
use jiff::tz::TimeZone;

use super::{Output, escape};
use crate::{
    model::{ByteRange, Call, ChangeKind, Coverage, Evidence, InMemory, IncidentId, Task},
    schema::{
        Body, ChangeRecord, FileRecord, Head, IncidentRecord, PathFrom, Record, WallTime, Word,
    },
};

/// How much is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Incidents only, no header.
    Quiet,
    /// Header, incidents, and what became of them.
    #[default]
    Normal,
    /// Also repeats, all ranges, and a second line with the details of each incident.
    Verbose,
}

/// How text looks.
#[derive(Clone, Debug)]
pub struct Style {
    /// Whether to use colour.
    pub colour: bool,
    /// The zone of the TIME column.
    pub zone: TimeZone,
    /// How much to show.
    pub verbosity: Verbosity,
}

/// Writes incidents and changes as aligned lines.
#[derive(Debug)]
pub struct Text<W> {
    out: W,
    style: Style,
    header_written: bool,
    /// What a later change of an incident repeats of its line.
    earlier: BTreeMap<IncidentId, Earlier>,
}

/// The columns of an incident that a change repeats.
#[derive(Debug)]
struct Earlier {
    who: String,
    bytes: String,
    file: String,
}

const ERROR: Paint = AnsiColor::Red.on_default().bold();
const GOOD: Paint = AnsiColor::Green.on_default();
const WARNING: Paint = AnsiColor::Yellow.on_default();
const HEADER: Paint = Paint::new().bold();
const PLAIN: Paint = Paint::new();

/// So many ranges are listed on an incident's line.
const RANGES_SHOWN: usize = 3;
/// So many incidents are remembered for the lines of their changes.
const EARLIER_KEPT: usize = 10_000;
/// Width of ERR, a space and BYTES: a change has its word and the bytes there.
const OUTCOME_WIDTH: usize = 14;

impl<W: Write> Text<W> {
    /// To `out`.
    pub fn new(out: W, style: Style) -> Self {
        Self {
            out,
            style,
            header_written: false,
            earlier: BTreeMap::new(),
        }
    }

    fn header(&mut self) -> io::Result<()> {
        if self.header_written || self.style.verbosity == Verbosity::Quiet {
            return Ok(());
        }
        self.header_written = true;
        let line = format!(
            "{:<8} {} {:<6} {:>7} {:<7} {}",
            "TIME",
            who_columns("PID", "COMM"),
            "ERR",
            "BYTES",
            "TOLD",
            "FILE [RANGE]"
        );
        let line = self.paint(HEADER, &line);
        writeln!(self.out, "{line}")
    }

    fn incident(&mut self, head: &Head, incident: &IncidentRecord) -> io::Result<()> {
        self.header()?;
        let task = &incident.process.task;
        let who = who_columns(&task.process.pid.to_string(), &escape(&task.comm));
        let bytes = incident
            .bytes
            .map_or_else(|| "?".to_owned(), |bytes| bytes.to_string());
        let verbose = self.style.verbosity >= Verbosity::Verbose;
        let file = file_column(&incident.file, &incident.ranges, verbose);
        writeln!(
            self.out,
            "{} {who} {} {bytes:>7} {:<7} {file}{}",
            self.time(head.time),
            self.paint(ERROR, &format!("{:<6}", incident.error.to_string())),
            incident.told.word(),
            self.paint(WARNING, &labels(incident)),
        )?;
        if verbose {
            let details = self.details(incident);
            writeln!(self.out, "{:8} {details}", "")?;
        }
        self.remember(incident.incident, Earlier { who, bytes, file });
        Ok(())
    }

    fn change(&mut self, head: &Head, change: &ChangeRecord) -> io::Result<()> {
        let paint = match change.change {
            ChangeKind::Repeated { .. } if self.style.verbosity < Verbosity::Verbose => {
                return Ok(());
            }
            _ if self.style.verbosity == Verbosity::Quiet => return Ok(()),
            ChangeKind::Repeated { .. } | ChangeKind::Discarded => PLAIN,
            ChangeKind::Recovered => GOOD,
            ChangeKind::Evicted => WARNING,
        };
        self.header()?;
        let time = self.time(head.time);
        let word = match change.change {
            ChangeKind::Repeated { repeats } => format!("repeated {repeats}x"),
            _ => change.word().to_owned(),
        };
        match self.earlier.get(&change.incident) {
            Some(earlier) => {
                let room = OUTCOME_WIDTH.saturating_sub(word.chars().count() + 1);
                let word = self.paint(paint, &word);
                let Earlier { who, bytes, file } = earlier;
                writeln!(
                    self.out,
                    "{time} {who} {word} {bytes:>room$} {:<7} {file}",
                    ""
                )
            }
            None => {
                let word = self.paint(paint, &word);
                writeln!(self.out, "{time} incident {} {word}", change.incident.0)
            }
        }
    }

    /// The second line of an incident with `-v`.
    fn details(&self, incident: &IncidentRecord) -> String {
        let mut out = format!("failed {}", self.time(incident.first_failed.time));
        if incident.first_failed != incident.last_failed {
            let _ = write!(out, " to {}", self.time(incident.last_failed.time));
        }
        if let Some(writer) = &incident.writer {
            let _ = write!(out, " (noticed by {})", spell_task(writer));
        }
        let _ = write!(
            out,
            "; {} of {} by thread {}, uid {}; memory has the bytes: {}; inode {}",
            incident.call.word(),
            incident.requested,
            incident.process.task.tid,
            incident.process.task.uid,
            incident.in_memory.word(),
            incident.file.inode,
        );
        if let Some(fs_type) = &incident.file.fs_type {
            let _ = write!(out, "; {}", escape(fs_type.as_bytes()));
            if let Some(device) = &incident.file.device {
                let _ = write!(out, " on {}", escape(device.as_bytes()));
            }
        }
        if let Some(exe) = &incident.process.exe {
            let _ = write!(out, "; {}", escape(&exe.0));
        }
        if let Some(container) = &incident.process.container {
            let _ = write!(out, "; container {:.12}", container.id);
            if let Some(pod) = &container.pod_uid {
                let _ = write!(out, " of pod {pod}");
            }
        }
        out
    }

    fn remember(&mut self, id: IncidentId, earlier: Earlier) {
        if self.earlier.len() >= EARLIER_KEPT {
            self.earlier.pop_first();
        }
        self.earlier.insert(id, earlier);
    }

    fn time(&self, time: WallTime) -> String {
        time.timestamp()
            .to_zoned(self.style.zone.clone())
            .strftime("%H:%M:%S")
            .to_string()
    }

    fn paint(&self, paint: Paint, text: &str) -> String {
        if self.style.colour && !text.is_empty() {
            format!("{paint}{text}{paint:#}")
        } else {
            text.to_owned()
        }
    }
}

impl<W: Write> Output for Text<W> {
    fn show(&mut self, record: &Record) -> io::Result<()> {
        match &record.body {
            Body::Start(_) => self.header()?,
            Body::Incident(incident) => self.incident(&record.head, incident)?,
            Body::Change(change) => self.change(&record.head, change)?,
            // What could not be seen, the end, and single facts are told on standard error, kept
            // or counted; they are no findings.
            _ => {}
        }
        self.out.flush()
    }
}

fn who_columns(pid: &str, comm: &str) -> String {
    format!("{pid:>7} {comm:<12}")
}

fn spell_task(task: &Task) -> String {
    format!("{} {}", escape(&task.comm), task.process.pid)
}

/// Path and ranges: the longest column, so the last.
fn file_column(file: &FileRecord, ranges: &[ByteRange], all_ranges: bool) -> String {
    let mut out = match (&file.path, file.path_from) {
        (Some(path), Some(PathFrom::Filesystem)) => {
            format!("{}:{}", spell_device(file), escape(&path.0))
        }
        (Some(path), _) => escape(&path.0),
        (None, _) => format!("? (inode {} on {})", file.inode.ino, spell_device(file)),
    };
    if file.deleted {
        out.push_str(" (deleted)");
    }
    // Without a mount the two were not seen from the same place.
    if let Some(before) = &file.path_when_failed
        && file.mount.is_some()
        && file.path.as_ref() != Some(before)
    {
        let _ = write!(out, " (when it failed: {})", escape(&before.0));
    }
    if !ranges.is_empty() {
        let shown = if all_ranges {
            ranges.len()
        } else {
            RANGES_SHOWN
        };
        let mut listed: Vec<_> = ranges.iter().take(shown).map(ToString::to_string).collect();
        if ranges.len() > shown {
            listed.push(format!("+{} more", ranges.len() - shown));
        }
        let _ = write!(out, " [{}]", listed.join(","));
    }
    out
}

fn spell_device(file: &FileRecord) -> String {
    match (&file.device, file.dev) {
        (Some(device), _) => escape(device.as_bytes()),
        (None, Some(dev)) => crate::schema::spell_dev(dev),
        (None, None) => file.inode.fs.to_string(),
    }
}

/// What is unusual about an incident, each as a word after the file.
fn labels(incident: &IncidentRecord) -> String {
    let mut out = String::new();
    if incident.call != Call::Msync {
        let _ = write!(out, " call:{}", incident.call.word());
    }
    if incident.coverage != Coverage::Inside {
        let _ = write!(out, " coverage:{}", incident.coverage.word());
    }
    if incident.evidence != Evidence::Page {
        let _ = write!(out, " evidence:{}", incident.evidence.word());
    }
    match incident.in_memory {
        InMemory::No => out.push_str(" evicted"),
        InMemory::Partly => out.push_str(" partly-evicted"),
        InMemory::Yes | InMemory::Unknown => {}
    }
    if let Some(verified) = incident.verified {
        let _ = write!(out, " verified:{}", verified.word());
    }
    out
}

#[cfg(test)]
mod tests;
