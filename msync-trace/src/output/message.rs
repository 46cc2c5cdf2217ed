//! What is said on standard error: that tracing began, what was not seen, and the summary.

use std::{fmt::Write as _, time::Duration};

use anstyle::{AnsiColor, Style as Paint};

use super::escape;
use crate::{
    model::{Call, LossCause, StorageErrorKind},
    schema::{
        CommandEnd, IncidentRecord, Start, Stop, StopReason, StorageErrorRecord, Totals, WallTime,
        Word, spell_dev,
    },
};

/// Whether messages have colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// No.
    Plain,
    /// Yes.
    Coloured,
}

impl Tone {
    fn paint(self, paint: Paint, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured => format!("{paint}{text}{paint:#}"),
        }
    }

    /// What is as it should be.
    #[must_use]
    pub fn good(self, text: &str) -> String {
        self.paint(GOOD, text)
    }

    /// What needs attention.
    #[must_use]
    pub fn warning(self, text: &str) -> String {
        self.paint(WARNING, text)
    }

    /// What is wrong.
    #[must_use]
    pub fn bad(self, text: &str) -> String {
        self.paint(BAD, text)
    }
}

const BAD: Paint = AnsiColor::Red.on_default().bold();
const GOOD: Paint = AnsiColor::Green.on_default();
const WARNING: Paint = AnsiColor::Yellow.on_default();

/// The line that says tracing has begun, and how it ends.
#[must_use]
pub fn started(start: &Start) -> String {
    let calls: Vec<_> = start
        .calls
        .iter()
        .filter(|call| **call != Call::MsyncAsync)
        .map(|call| call.word())
        .collect();
    let until = match &start.command {
        Some(command) => format!("until {} ends", escape(command[0].as_bytes())),
        None => "Ctrl-C to end".to_owned(),
    };
    format!(
        "tracing {} on {} {} ({} hooks); {until}",
        calls.join(", "),
        escape(start.kernel.name.as_bytes()),
        escape(start.kernel.release.as_bytes()),
        start.tier
    )
}

/// The line that says whose facts are read from where, and when they begin.
#[must_use]
pub fn reading(start: &Start, input: &str, began: WallTime) -> String {
    let kernel = format!("{} {}", start.kernel.name, start.kernel.release);
    let began = began.timestamp().strftime("%Y-%m-%d %H:%M:%S UTC");
    format!(
        "reading facts of {} from {}, begun {began}; Ctrl-C to end",
        escape(kernel.trim_end().as_bytes()),
        escape(input.as_bytes()),
    )
}

/// What a cause of loss means, for people.
#[must_use]
pub fn loss_sentence(cause: LossCause) -> &'static str {
    match cause {
        LossCause::ErrorRingFull => "the ring of write failures was full",
        LossCause::SyncRingFull => "the ring of sync returns was full",
        LossCause::PageRingFull => "the ring of page states was full",
        LossCause::InodeMapFull => "the kernel's map of inodes with failures was full",
        LossCause::CallMapFull => "the kernel's map of calls in flight was full",
        LossCause::MappingsBusy => "a process was changing its mappings during its msync",
        LossCause::WalkLimit => "a call or request was larger than can be walked in the kernel",
        LossCause::HookMissing => "a hook was not attached, or not in time",
        LossCause::BadRecord => "a record from the kernel side could not be understood",
        LossCause::RecordLate => {
            "a write failure was counted in the kernel and its record did not come"
        }
        LossCause::ProgramSkipped => "the kernel skipped a program that was active there already",
        LossCause::MemoryLimit => "the correlator reached its memory limit",
        LossCause::LineLost => "a line of the D script did not arrive",
        LossCause::BadLine => "a line could not be read, or came twice",
        LossCause::LineLate => "a line came later than its place allows",
        LossCause::InputCut => "the input was not read up to its stop line",
        LossCause::ProbeError => "a clause of the D script was broken off by an error",
        LossCause::MapFull => "a table of the D script was full",
        LossCause::DtraceDrops => "DTrace dropped something for want of room",
    }
}

/// An incident in one sentence.
#[must_use]
pub fn incident(incident: &IncidentRecord) -> String {
    let file = &incident.file;
    let path = file.path.as_ref().map_or_else(
        || format!("inode {}", file.inode.ino),
        |path| escape(&path.0),
    );
    let bytes = incident.bytes.map_or_else(
        || "an unknown number of bytes".to_owned(),
        |it| count(it, "byte"),
    );
    let task = &incident.process.task;
    format!(
        "{bytes} of {path} lost silently ({}): {} returned success to {} (pid {}), told before: {}",
        incident.error,
        incident.call.word(),
        escape(&task.comm),
        task.process.pid,
        incident.told.word(),
    )
}

/// What befell a disk or a filesystem, for people.
#[must_use]
pub fn storage_error(record: &StorageErrorRecord) -> String {
    let error = &record.error;
    let mut who = match (&error.dev_name, error.dev) {
        (Some(name), _) => escape(name.as_bytes()),
        (None, Some(dev)) => format!("device {}", spell_dev(dev)),
        (None, None) => "unknown device".to_owned(),
    };
    if let Some(fs_type) = &error.fs_type {
        let place = record.mount.as_ref();
        let place = place.map_or_else(String::new, |mount| format!(", {}", escape(&mount.0)));
        let _ = write!(who, " ({}{place})", escape(fs_type.as_bytes()));
    }
    let errno = error
        .errno
        .map_or_else(String::new, |errno| format!(" ({errno})"));
    let consequence = match record.read_only {
        true => "; it is read-only now",
        false => "",
    };
    match error.what {
        StorageErrorKind::FlushFailed => format!(
            "{who}: the disk could not flush its cache{errno}; \
             what it had acknowledged before may be lost"
        ),
        StorageErrorKind::FilesystemError => {
            format!("{who}: the filesystem reports an error{errno}{consequence}")
        }
        StorageErrorKind::FilesystemShutdown => {
            format!("{who}: the filesystem was shut down{errno}")
        }
    }
}

/// The summary at the end, several lines.
#[must_use]
pub fn summary(stop: &Stop, tone: Tone) -> String {
    let mut out = String::new();
    let totals = &stop.totals;
    let time = spell_duration(Duration::from_nanos(stop.duration_ns));
    if totals.incidents == 0 && stop.complete {
        let _ = writeln!(out, "{} in {time}", tone.good("nothing found"));
    } else if totals.incidents > 0 {
        let found = format!(
            "{}, {} lost silently in {}",
            count(totals.incidents, "incident"),
            spell_bytes(totals),
            count(totals.files, "file"),
        );
        let _ = writeln!(out, "{}, in {time}", tone.bad(&found));
        let _ = writeln!(
            out,
            "  who was told before: nobody {}, other {}, caller {}, pending {}",
            totals.told_nobody, totals.told_other, totals.told_caller, totals.told_pending
        );
        let _ = writeln!(
            out,
            "  afterwards: recovered {}, discarded {}, evicted {}, repeated {}",
            totals.recovered, totals.discarded, totals.evicted, totals.repeats
        );
    }
    completeness(&mut out, stop, tone, &time);
    if let Some(end) = stop.command {
        let _ = writeln!(out, "  the command {}", spell_end(end));
    } else if stop.reason == StopReason::ReaderGone {
        let _ = writeln!(out, "  ended because nobody reads the output any more");
    }
    if let Some(error) = &stop.error {
        let _ = writeln!(
            out,
            "  {}",
            tone.bad(&format!("ended by an error: {error}"))
        );
    }
    out
}

fn completeness(out: &mut String, stop: &Stop, tone: Tone, time: &str) {
    if stop.complete {
        let _ = writeln!(
            out,
            "  complete: no event was dropped and every hook was attached"
        );
        return;
    }
    if stop.totals.incidents == 0 {
        let sentence = format!("incomplete: nothing can be said about these {time}");
        let _ = writeln!(out, "{}", tone.warning(&sentence));
    } else {
        let sentence = "incomplete: nothing can be said about what was not seen";
        let _ = writeln!(out, "  {}", tone.warning(sentence));
    }
    for lost in &stop.lost {
        let _ = writeln!(
            out,
            "    {} lost: {}",
            count(lost.count, "event"),
            loss_sentence(lost.cause)
        );
    }
    for hook in &stop.missing_hooks {
        let _ = writeln!(
            out,
            "    hook {}: {}",
            escape(hook.name.as_bytes()),
            escape(hook.reason.as_bytes())
        );
    }
    if stop.outstanding_inodes > 0 {
        let _ = writeln!(
            out,
            "    still outstanding at the end: failed bytes of {}",
            count(stop.outstanding_inodes, "file")
        );
    }
}

fn spell_bytes(totals: &Totals) -> String {
    match (totals.bytes, totals.incidents_without_range) {
        (0, _) => "an unknown number of bytes".to_owned(),
        (bytes, 0) => count(bytes, "byte"),
        (bytes, _) => format!("at least {}", count(bytes, "byte")),
    }
}

fn spell_end(end: CommandEnd) -> String {
    match end {
        CommandEnd {
            signal: Some(signal),
            ..
        } => format!("was ended by signal {signal}"),
        CommandEnd {
            status: Some(status),
            ..
        } => format!("ended with status {status}"),
        CommandEnd { .. } => "is still running".to_owned(),
    }
}

/// `1 file`, `2 files`.
fn count(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// As people say it: `850 ms`, `42 s`, `3 min 20 s`, `5 h 02 min`, `3 d 4 h`.
fn spell_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {:02} s", seconds % 60),
        3600..86_400 => format!("{hours} h {:02} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Lost,
        schema::{Explanation, StopReason},
    };

    fn stop() -> Stop {
        Stop {
            reason: StopReason::Signal,
            duration_ns: 42_000_000_000,
            totals: Totals::default(),
            facts: 0,
            outstanding_inodes: 0,
            complete: true,
            lost: Vec::new(),
            missing_hooks: Vec::new(),
            command: None,
            error: None,
            exit_status: 0,
        }
    }

    #[test]
    fn nothing_found_is_only_said_of_a_complete_run() {
        assert_eq!(
            summary(&stop(), Tone::Plain),
            "nothing found in 42 s\n  \
             complete: no event was dropped and every hook was attached\n"
        );
        let mut incomplete = stop();
        incomplete.complete = false;
        incomplete.lost = vec![Lost {
            cause: LossCause::SyncRingFull,
            count: 3,
        }];
        incomplete.missing_hooks = vec![Explanation {
            name: "ext4.end_bio".to_owned(),
            reason: "no\nkprobes".to_owned(),
        }];
        assert_eq!(
            summary(&incomplete, Tone::Plain),
            "incomplete: nothing can be said about these 42 s\n    \
             3 events lost: the ring of sync returns was full\n    \
             hook ext4.end_bio: no\\nkprobes\n"
        );
    }

    #[test]
    fn the_summary_counts_and_says_who_was_told() {
        let mut found = stop();
        found.totals = Totals {
            incidents: 3,
            bytes: 12_288,
            files: 2,
            incidents_without_range: 1,
            told_nobody: 2,
            told_other: 1,
            recovered: 1,
            ..Totals::default()
        };
        found.command = Some(CommandEnd {
            status: None,
            signal: Some(9),
        });
        assert_eq!(
            summary(&found, Tone::Plain),
            "3 incidents, at least 12288 bytes lost silently in 2 files, in 42 s\n  \
             who was told before: nobody 2, other 1, caller 0, pending 0\n  \
             afterwards: recovered 1, discarded 0, evicted 0, repeated 0\n  \
             complete: no event was dropped and every hook was attached\n  \
             the command was ended by signal 9\n"
        );
    }

    #[test]
    fn durations_read_like_people_say_them() {
        for (seconds, text) in [
            (0, "0 ms"),
            (59, "59 s"),
            (200, "3 min 20 s"),
            (18_120, "5 h 02 min"),
            (273_600, "3 d 4 h"),
        ] {
            assert_eq!(spell_duration(Duration::from_secs(seconds)), text);
        }
    }
}
