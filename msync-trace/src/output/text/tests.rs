//! What people see.

use super::*;
use crate::{
    model::{Errno, FileSystemId, InodeKey, MonoTime, ProcessId, ToldWho},
    schema::{Clock, Moment, Name, ProcessRecord},
};

fn clock() -> Clock {
    Clock::new(MonoTime(0), WallTime(1_763_640_000_000_000_000))
}

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::new(start, end).unwrap()
}

fn incident() -> IncidentRecord {
    IncidentRecord {
        incident: IncidentId(1),
        error: Errno::EIO,
        file: FileRecord {
            path: Some(Name::from("/mnt/db/base.dat")),
            path_from: Some(PathFrom::Caller),
            path_when_failed: None,
            deleted: false,
            mount: Some(Name::from("/mnt")),
            fs_type: Some("ext4".to_owned()),
            device: Some("sdb1".to_owned()),
            dev: Some((8 << 20) | 17),
            inode: InodeKey {
                fs: FileSystemId::Device((8 << 20) | 17),
                ino: 12,
                generation: 1,
                subvolume: 0,
            },
        },
        ranges: vec![range(8192, 12288)],
        bytes: Some(4096),
        evidence: Evidence::Page,
        told: ToldWho::Nobody,
        coverage: Coverage::Inside,
        in_memory: InMemory::Yes,
        first_failed: Moment::at(MonoTime(1_000_000_000), &clock()),
        last_failed: Moment::at(MonoTime(1_000_000_000), &clock()),
        writer: None,
        call: Call::Msync,
        requested: ByteRange::ALL,
        process: ProcessRecord {
            task: Task {
                process: ProcessId {
                    pid: 4242,
                    start_time: 1,
                },
                tid: 4242,
                uid: 0,
                comm: b"postgres".to_vec(),
                cgroup: 1,
                kernel_thread: false,
            },
            exe: Some(Name::from("/usr/bin/postgres")),
            cgroup: None,
            container: None,
        },
        verified: None,
        comparison: None,
    }
}

fn at(seconds: u64, body: Body) -> Record {
    Record {
        head: Head::at(MonoTime(seconds * 1_000_000_000), &clock()),
        body,
    }
}

fn shown_as(records: &[Record], style: Style) -> String {
    let mut out = Vec::new();
    let mut text = Text::new(&mut out, style);
    for record in records {
        text.show(record).unwrap();
    }
    drop(text);
    String::from_utf8(out).unwrap()
}

fn shown(records: &[Record], verbosity: Verbosity) -> String {
    let style = Style {
        colour: false,
        zone: TimeZone::UTC,
        verbosity,
    };
    shown_as(records, style)
}

fn line_of(incident: IncidentRecord) -> String {
    let record = at(2, Body::Incident(Box::new(incident)));
    shown(&[record], Verbosity::Quiet)
}

fn change(seconds: u64, incident: u64, change: ChangeKind) -> Record {
    let body = Body::Change(ChangeRecord {
        incident: IncidentId(incident),
        change,
    });
    at(seconds, body)
}

#[test]
fn an_incident_is_one_line_and_its_changes_line_up() {
    let records = [
        at(2, Body::Incident(Box::new(incident()))),
        change(3, 1, ChangeKind::Repeated { repeats: 1 }),
        change(4, 1, ChangeKind::Recovered),
        change(5, 9, ChangeKind::Evicted),
    ];
    assert_eq!(
        shown(&records, Verbosity::Normal),
        "\
TIME         PID COMM         ERR      BYTES TOLD    FILE [RANGE]
12:00:02    4242 postgres     EIO       4096 nobody  /mnt/db/base.dat [8192-12287]
12:00:04    4242 postgres     recovered 4096         /mnt/db/base.dat [8192-12287]
12:00:05 incident 9 evicted
"
    );
    // The header once, and only incidents, when quiet.
    assert_eq!(shown(&records, Verbosity::Quiet).lines().count(), 1);
    assert!(shown(&records, Verbosity::Verbose).contains("repeated 1x"));
}

#[test]
fn ordinary_names_fit_80_characters() {
    let mut wide = incident();
    wide.error = Errno::ENOSPC;
    wide.told = ToldWho::Pending;
    wide.process.task.process.pid = 4_194_303;
    wide.process.task.comm = b"kafka-logs-1".to_vec();
    wide.ranges = vec![range(1 << 20, 2 << 20)];
    wide.bytes = Some(1 << 20);
    wide.file.path = Some(Name::from("/srv/x.db"));
    let line = line_of(wide);
    assert!(line.trim_end().chars().count() <= 80, "{line}");
}

#[test]
fn what_is_unusual_is_labelled() {
    let mut odd = incident();
    odd.call = Call::Fsync;
    odd.coverage = Coverage::Outside;
    odd.evidence = Evidence::Inode;
    odd.in_memory = InMemory::No;
    odd.told = ToldWho::Pending;
    odd.ranges.clear();
    odd.bytes = None;
    assert_eq!(
        line_of(odd),
        "12:00:02    4242 postgres     EIO          ? pending /mnt/db/base.dat call:fsync \
         coverage:outside evidence:inode evicted\n"
    );
}

#[test]
fn many_ranges_are_cut_unless_asked_for() {
    let mut many = incident();
    many.ranges = (0..10).map(|n| range(n * 8192, n * 8192 + 4096)).collect();
    let record = at(2, Body::Incident(Box::new(many)));
    let text = shown(std::slice::from_ref(&record), Verbosity::Normal);
    assert!(
        text.contains("[0-4095,8192-12287,16384-20479,+7 more]"),
        "{text}"
    );
    let text = shown(&[record], Verbosity::Verbose);
    assert!(text.contains("73728-77823]"), "{text}");
}

#[test]
fn an_unknown_path_is_never_guessed() {
    let mut nameless = incident();
    nameless.file.path = None;
    assert!(line_of(nameless).contains(" ? (inode 12 on sdb1) [8192-12287]"));

    let mut unmounted = incident();
    unmounted.file.path_from = Some(PathFrom::Filesystem);
    unmounted.file.deleted = true;
    assert!(line_of(unmounted).contains(" sdb1:/mnt/db/base.dat (deleted) ["));
}

#[test]
fn no_name_can_break_out_of_its_line() {
    let evil = b"\x1b[2J\n12:00:00 all is well\r".to_vec();
    let mut hostile = incident();
    hostile.file.path = Some(Name(evil.clone()));
    hostile.file.device = Some("\u{9b}x".to_owned());
    hostile.file.fs_type = Some("\u{202e}".to_owned());
    hostile.process.task.comm = evil.clone();
    hostile.process.exe = Some(Name(evil.clone()));
    hostile.writer = Some(Task {
        comm: evil,
        ..hostile.process.task.clone()
    });
    let records = [
        at(2, Body::Incident(Box::new(hostile))),
        change(3, 1, ChangeKind::Evicted),
    ];
    let text = shown(&records, Verbosity::Verbose);
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(
        !text
            .chars()
            .any(|c| c != '\n' && crate::schema::is_unprintable(c)),
        "{text:?}"
    );
}

#[test]
fn colour_changes_no_column() {
    let record = at(2, Body::Incident(Box::new(incident())));
    let style = |colour| Style {
        colour,
        zone: TimeZone::UTC,
        verbosity: Verbosity::Normal,
    };
    let plain = shown_as(std::slice::from_ref(&record), style(false));
    let coloured = shown_as(std::slice::from_ref(&record), style(true));
    assert_ne!(plain, coloured);
    let stripped = anstream::adapter::strip_str(&coloured).to_string();
    assert_eq!(stripped, plain);
}

#[test]
fn another_name_at_the_time_of_the_failure_is_said() {
    let line = |before: &str, mount: Option<Name>| {
        let mut renamed = incident();
        renamed.file.path_when_failed = Some(Name::from(before));
        renamed.file.mount = mount;
        line_of(renamed)
    };
    let mount = incident().file.mount;
    let text = line("/mnt/db/old\u{1b}", mount.clone());
    assert!(
        text.contains("base.dat (when it failed: /mnt/db/old\\x1b) [8192-12287]"),
        "{text}"
    );
    let same = line("/mnt/db/base.dat", mount);
    assert!(!same.contains("when it failed"), "{same}");
    let overlay = line("/upper/base.dat", None);
    assert!(!overlay.contains("when it failed"), "{overlay}");
}
