//! Sizes, times and words for people who read the page.

use jiff::tz::TimeZone;

use crate::{
    model::{ByteRange, Call, Errno, InMemory, StorageErrorKind, Task, ToldWho, Verified},
    output::escape,
    schema::{LossState, TimelineKind, WallTime},
};

const UNITS: [(u64, &str); 5] = [
    (1 << 50, "PiB"),
    (1 << 40, "TiB"),
    (1 << 30, "GiB"),
    (1 << 20, "MiB"),
    (1 << 10, "KiB"),
];

/// A size to be grasped: three digits and a unit.
pub(super) fn size(bytes: u64) -> String {
    // What would be 1024 of one unit is 1 of the next.
    let fits = |unit: &u64| bytes >= 1024 && bytes as f64 >= *unit as f64 * 0.9995;
    match UNITS.iter().find(|(unit, _)| fits(unit)) {
        None => count(bytes, "byte"),
        Some((unit, name)) if bytes.is_multiple_of(*unit) => format!("{} {name}", bytes / unit),
        Some((unit, name)) => {
            let value = bytes as f64 / *unit as f64;
            match value {
                0.0..9.995 => format!("{value:.2} {name}"),
                9.995..99.95 => format!("{value:.1} {name}"),
                _ => format!("{value:.0} {name}"),
            }
        }
    }
}

/// A place in a file, exact: in the largest unit that says it without a fraction.
pub(super) fn offset(bytes: u64) -> String {
    let unit = UNITS
        .iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    match unit {
        Some((unit, name)) => format!("{} {name}", digits(bytes / unit)),
        None if bytes == 0 => "0".to_owned(),
        None => format!("{} B", digits(bytes)),
    }
}

/// A range with its first and last byte, as in all other output, and its size.
pub(super) fn range(range: ByteRange) -> String {
    match range.end() {
        u64::MAX if range.start() == 0 => "whole file".to_owned(),
        u64::MAX => format!("{} to the end", digits(range.start())),
        end => format!("{}\u{2013}{}", digits(range.start()), digits(end - 1)),
    }
}

/// The size of a range, where it has one.
pub(super) fn range_size(range: ByteRange) -> String {
    match range.end() {
        u64::MAX => "to the end of the file".to_owned(),
        _ => size(range.len()),
    }
}

/// Digits in groups of three.
pub(super) fn digits(number: u64) -> String {
    let plain = number.to_string();
    let mut out = String::with_capacity(plain.len() + plain.len() / 3);
    for (at, digit) in plain.chars().enumerate() {
        if at > 0 && (plain.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 file`, `2,000 files`.
pub(super) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", digits(number))
}

/// A moment in the reader's zone, to the millisecond.
pub(super) fn moment(at: WallTime, zone: &TimeZone) -> String {
    let zoned = at.timestamp().to_zoned(zone.clone());
    zoned.strftime("%Y-%m-%d %H:%M:%S.%3f").to_string()
}

/// A moment in the reader's zone, to the second.
pub(super) fn second(at: WallTime, zone: &TimeZone) -> String {
    let zoned = at.timestamp().to_zoned(zone.clone());
    zoned.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The zone of the reader at that moment: `Europe/Berlin (UTC+01:00)`.
pub(super) fn zone(at: WallTime, zone: &TimeZone) -> String {
    let offset = zone.to_offset(at.timestamp()).seconds();
    if offset == 0 && zone.iana_name().is_none_or(|name| name.ends_with("UTC")) {
        return "UTC".to_owned();
    }
    let sign = if offset < 0 { '-' } else { '+' };
    let minutes = offset.abs() / 60;
    let numbers = format!("UTC{sign}{:02}:{:02}", minutes / 60, minutes % 60);
    match zone.iana_name() {
        Some(name) => format!("{name} ({numbers})"),
        None => numbers,
    }
}

/// How long, in two units at most.
pub(super) fn duration(nanoseconds: i128) -> String {
    let ns = nanoseconds.max(0);
    let seconds = ns / 1_000_000_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} µs", ns / 1_000),
        1_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        _ if seconds < 10 => format!("{:.1} s", ns as f64 / 1e9),
        _ if seconds < 60 => format!("{seconds} s"),
        _ if minutes < 60 => format!("{minutes} min {:02} s", seconds % 60),
        _ if hours < 24 => format!("{hours} h {:02} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// A process: `postgres (4242)`.
pub(super) fn process(task: &Task) -> String {
    format!("{} ({})", escape(&task.comm), task.process.pid)
}

/// A call as programs write it.
pub(super) fn call(call: Call) -> &'static str {
    match call {
        Call::Msync => "msync",
        Call::MsyncAsync => "msync (MS_ASYNC)",
        Call::Fsync => "fsync",
        Call::Fdatasync => "fdatasync",
        Call::IoUring => "fsync by io_uring",
        Call::Nfsd => "commit by nfsd",
    }
}

/// An error and its number.
pub(super) fn error(errno: Errno) -> String {
    match errno.symbol() {
        Some(symbol) => symbol.to_owned(),
        None => format!("error {}", errno.number()),
    }
}

/// Who had been told, as the end of a sentence.
pub(super) fn told(told: ToldWho) -> &'static str {
    match told {
        ToldWho::Nobody => "nobody had been told",
        ToldWho::Other => "only another open file had been told",
        ToldWho::Caller => "this caller had been told once before",
        ToldWho::Pending => "the error is still held for this caller's next sync",
    }
}

/// What became of lost bytes, in a word or two.
pub(super) fn fate(state: LossState, in_memory: InMemory) -> &'static str {
    match (state, in_memory) {
        (LossState::Recovered, _) => "recovered",
        (LossState::Discarded, _) => "discarded",
        (LossState::Outstanding, InMemory::Yes) => "lost, still in memory",
        (LossState::Outstanding, InMemory::Partly) => "lost, partly in memory",
        (LossState::Outstanding, InMemory::No) => "lost for good",
        (LossState::Outstanding, InMemory::Unknown) => "lost",
    }
}

/// What comparing memory with the disk proved.
pub(super) fn verified(verified: Verified) -> &'static str {
    match verified {
        Verified::Differs => "proved: the disk has other bytes",
        Verified::Same => "compared: the disk has them all",
        Verified::Unknown => "could not be compared with the disk",
    }
}

/// What happened, in a few words.
pub(super) fn event(what: TimelineKind) -> &'static str {
    match what {
        TimelineKind::WriteFailed => "write failed",
        TimelineKind::WriteOk => "written after all",
        TimelineKind::Redirtied => "dirty again",
        TimelineKind::SyncOk => "sync succeeded",
        TimelineKind::SyncFailed => "sync failed",
        TimelineKind::Told => "error handed out",
        TimelineKind::Opened => "opened",
        TimelineKind::Discarded => "given up on purpose",
        TimelineKind::Evicted => "left memory",
        TimelineKind::Gone => "inode left the cache",
        TimelineKind::Deleted => "file deleted",
        TimelineKind::Incident => "false success",
        TimelineKind::Repeated => "false success again",
        TimelineKind::StorageError => "storage in trouble",
        TimelineKind::Lost => "not seen",
    }
}

/// What befell a disk or filesystem.
pub(super) fn storage(kind: StorageErrorKind) -> &'static str {
    match kind {
        StorageErrorKind::FlushFailed => "the disk could not flush its cache",
        StorageErrorKind::FilesystemError => "the filesystem reported an error",
        StorageErrorKind::FilesystemShutdown => "the filesystem was shut down",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_grasped_and_places_are_exact() {
        assert_eq!(size(1), "1 byte");
        assert_eq!(size(4096), "4 KiB");
        assert_eq!(size(5 << 20), "5 MiB");
        assert_eq!(size((1 << 20) + 4096), "1.00 MiB");
        assert_eq!(size(123_456_789), "118 MiB");
        assert_eq!(size((1 << 40) - 16_384), "1.00 TiB");
        assert_eq!(size(1023), "1,023 bytes");
        assert_eq!(offset(0), "0");
        assert_eq!(offset(511), "511 B");
        assert_eq!(offset((1 << 40) + 4096), "1,073,741,828 KiB");
        let to_the_end = ByteRange::new(4096, u64::MAX).unwrap();
        assert_eq!(range(to_the_end), "4,096 to the end");
        assert_eq!(range(ByteRange::new(0, 4096).unwrap()), "0\u{2013}4,095");
    }

    #[test]
    fn a_zone_is_named_with_its_difference() {
        let at = WallTime(1_763_640_000_000_000_000);
        assert_eq!(zone(at, &TimeZone::UTC), "UTC");
        let fixed = TimeZone::fixed(jiff::tz::offset(-3));
        assert_eq!(zone(at, &fixed), "UTC-03:00");
        assert_eq!(moment(at, &fixed), "2025-11-20 09:00:00.000");
    }

    #[test]
    fn durations_read_well() {
        for (ns, text) in [
            (850, "850 ns"),
            (12_000_000, "12 ms"),
            (1_500_000_000, "1.5 s"),
            (200_000_000_000, "3 min 20 s"),
            (100 * 3_600_000_000_000, "4 d 4 h"),
        ] {
            assert_eq!(duration(ns), text);
        }
    }
}
