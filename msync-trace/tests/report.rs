//! What `msync-trace report` says of records, through the built command: what was lost, who was told,
//! and how it ends.

mod recorded;
#[path = "../examples/storm/mod.rs"]
mod storm;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use msync_trace::{
    model::*,
    schema::Body,
    source::dtrace,
    store::{Reader, StoreError},
};
use recorded::*;
use serde_json::Value;
use storm::Storm;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Three files of one host: one lost bytes for good, one got some back, one only had a failure.
    fn three_files(&self, host: &str) -> PathBuf {
        let path = self.file(&format!("{host}.db"));
        let mut run = Run::begin(&path, header(host));
        run.fact(S, failed(1, pages(0, 4), Errno::EIO));
        run.fact(2 * S, synced(1, task(4242, b"postgres"), Some(Errno::EIO)));
        run.fact(2 * S + 1, told(1, task(4242, b"postgres")));
        run.fact(3 * S, synced(1, task(4242, b"postgres"), None));
        run.fact(4 * S, synced(1, task(99, b"backup"), None));
        run.fact(5 * S, evicted(1, pages(0, 2)));
        run.fact(60 * S, failed(2, pages(10, 12), Errno::ENOSPC));
        run.fact(61 * S, synced(2, task(4242, b"postgres"), None));
        run.fact(62 * S, written(2, pages(10, 11)));
        run.fact(3600 * S, failed(3, pages(5, 6), Errno::EIO));
        run.fact(
            3601 * S,
            synced(3, task(4242, b"postgres"), Some(Errno::EIO)),
        );
        run.end();
        path
    }
}

fn report(arguments: &[&str], files: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_msync-trace"));
    command.arg("report").args(arguments).args(files);
    command.env("TZ", "UTC").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(arguments: &[&str], files: &[&Path]) -> Value {
    let output = report(&[&["--format", "json"], arguments].concat(), files);
    let came = text(&output.stdout);
    serde_json::from_str(&came).unwrap_or_else(|_| panic!("{came}\n{}", text(&output.stderr)))
}

#[test]
fn the_summary_counts_each_byte_once_and_says_what_became_of_it() {
    let folder = Folder::new();
    let path = folder.three_files("db1");
    let report = json(&[], &[&path]);
    let summary = &report["summary"];
    // Two processes were lied to about the same four pages.
    assert_eq!(summary["incidents"], 3);
    assert_eq!(summary["files"], 2);
    assert_eq!(summary["bytes"], 6 * PAGE);
    assert_eq!(summary["bytes_now"]["in_memory"], 3 * PAGE);
    assert_eq!(summary["bytes_now"]["evicted"], 2 * PAGE);
    assert_eq!(summary["bytes_now"]["recovered"], PAGE);
    assert_eq!(summary["told_caller"], 1);
    assert_eq!(summary["told_other"], 1);
    assert_eq!(summary["told_nobody"], 1);
    assert_eq!(summary["first_failed"], "2025-11-20T12:00:01.000000000Z");
    assert_eq!(summary["complete"], true);
    // The worst file first; the one without an incident is there too.
    let paths: Vec<_> = report["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| &f["file"]["path"])
        .collect();
    assert_eq!(
        paths,
        [
            "/srv/data/segment-000001",
            "/srv/data/segment-000002",
            "/srv/data/segment-000003"
        ]
    );
    let what = report["files"][0]["timeline"].as_array().unwrap();
    let what: Vec<_> = what
        .iter()
        .map(|entry| entry["what"].as_str().unwrap())
        .collect();
    assert_eq!(
        what,
        [
            "write_failed",
            "sync_failed",
            "told",
            "incident",
            "incident",
            "evicted"
        ]
    );
    let states = report["files"][1]["ranges"].as_array().unwrap();
    let states: Vec<_> = states
        .iter()
        .map(|range| range["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["recovered", "outstanding"]);
}

#[test]
fn the_exit_status_is_a_contract() {
    let folder = Folder::new();
    let lost = folder.three_files("db1");
    let nothing = folder.file("nothing.db");
    Run::begin(&nothing, header("db2")).end();
    let cut = folder.file("cut.db");
    let mut run = Run::begin(&cut, header("db3"));
    let loss = Lost {
        cause: LossCause::SyncRingFull,
        count: 3,
    };
    run.fact(S, FactKind::Lost(loss));
    run.end();
    let status = |files: &[&Path]| report(&[], files).status.code().unwrap();
    assert_eq!(status(&[&nothing]), 0);
    assert_eq!(status(&[&lost]), 1);
    assert_eq!(status(&[&lost, &cut]), 1);
    assert_eq!(status(&[&cut]), 3);
    assert_eq!(status(&[&cut, &nothing]), 3);
    assert_eq!(status(&[&lost, &folder.file("missing.db")]), 2);
    let said = text(&report(&[], &[&cut]).stdout);
    assert!(
        said.contains("no all-clear") && said.contains("3 events lost"),
        "{said}"
    );
}

#[test]
fn one_bad_file_does_not_hide_the_others() {
    let folder = Folder::new();
    let good = folder.three_files("db1");
    let bytes = std::fs::read(&good).unwrap();
    let half = folder.file("half.db");
    std::fs::write(&half, &bytes[..bytes.len() / 2]).unwrap();
    let other = folder.file("other.db");
    std::fs::write(&other, b"not a database").unwrap();
    let output = report(&[], &[&other, &good, &half]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stdout).starts_with("3 incidents"),
        "{}",
        text(&output.stdout)
    );
    let said = text(&output.stderr);
    assert!(
        said.contains("other.db") && said.contains("half.db"),
        "{said}"
    );
    assert_eq!(std::fs::read(&good).unwrap(), bytes);
}

#[test]
fn filters_choose_incidents_and_their_files() {
    let folder = Folder::new();
    let (a, b) = (folder.three_files("db1"), folder.three_files("db2"));
    let count = |arguments: &[&str]| {
        let report = json(arguments, &[&a, &b]);
        (
            report["summary"]["incidents"].as_u64().unwrap(),
            report["files"].as_array().unwrap().len(),
        )
    };
    assert_eq!(count(&[]), (6, 6));
    assert_eq!(count(&["--host", "db1"]), (3, 3));
    assert_eq!(count(&["--host", "db1", "--host", "db2"]), (6, 6));
    assert_eq!(count(&["--pid", "99"]), (2, 2));
    assert_eq!(count(&["--comm", "backup"]), (2, 2));
    assert_eq!(count(&["--errno", "ENOSPC"]), (2, 2));
    assert_eq!(count(&["--errno", "28"]), (2, 2));
    assert_eq!(count(&["--told", "nobody,other"]), (4, 4));
    assert_eq!(count(&["--path", "/srv/data/segment-000003"]), (0, 2));
    assert_eq!(count(&["--path", "/srv/data"]), (6, 6));
    assert_eq!(count(&["--path", "/srv/dat"]), (0, 0));
    assert_eq!(count(&["--dev", "sdb1"]), (6, 6));
    assert_eq!(count(&["--dev", "/dev/sda1"]), (0, 0));
    assert_eq!(count(&["--until", "2025-11-20T12:00:30Z"]), (4, 2));
    assert_eq!(count(&["--since", "2025-11-20 12:00:30"]), (2, 4));
    assert_eq!(count(&["--since", "2025-11-20T12:30:00Z"]), (0, 2));
    assert_eq!(count(&["--until", "2025-11-19"]), (0, 0));
}

#[test]
fn a_report_until_then_says_how_it_was_then() {
    let folder = Folder::new();
    let path = folder.three_files("db1");
    let report = json(&["--until", "2025-11-20T12:00:04.500Z"], &[&path]);
    assert_eq!(report["summary"]["bytes_now"]["in_memory"], 4 * PAGE);
    assert_eq!(report["summary"]["bytes_now"]["evicted"], 0);
    assert_eq!(report["runs"][0]["complete"], true);
}

#[test]
fn hostile_names_are_inert_in_every_form() {
    let folder = Folder::new();
    let path = folder.file("hostile.db");
    let hostile = b"=cmd|'\x1b[2J\n,\"</script><script>alert(1)</script>\xff";
    let mut run = Run::begin(&path, header("db\x1b[31m1"));
    let view = named(&[&b"/srv/"[..], hostile].concat());
    run.fact(S, with_names(failed(1, pages(0, 1), Errno::EIO), &view));
    run.fact(
        2 * S,
        with_names(synced(1, task(1, b"=1+1\n\x1b"), None), &view),
    );
    run.end();
    for form in ["text", "json", "csv", "html"] {
        let output = report(&["--format", form], &[&path]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        let came = text(&output.stdout);
        assert!(!came.contains('\x1b'), "{form}: {came}");
        if form == "html" {
            assert!(!came.contains("<script>alert"), "{came}");
        }
        if form == "csv" {
            assert_eq!(came.lines().count(), 2, "{came}");
            assert!(came.contains(",\\x3d1+1\\n\\x1b,"), "{came}");
        }
    }
}

fn with_names(kind: FactKind, view: &FileView) -> FactKind {
    match kind {
        FactKind::WriteFailed(it) => FactKind::WriteFailed(WriteFailed {
            file: view.clone(),
            ..it
        }),
        FactKind::SyncReturn(it) => FactKind::SyncReturn(SyncReturn {
            file_view: view.clone(),
            ..it
        }),
        other => other,
    }
}

#[test]
fn long_lists_say_how_much_they_leave_out() {
    let folder = Folder::new();
    let path = folder.file("long.db");
    let mut run = Run::begin(&path, header("db1"));
    for hour in 0..300 {
        run.fact(
            3600 * S * hour,
            failed(1, pages(2 * hour, 2 * hour + 1), Errno::EIO),
        );
    }
    run.end();
    let short = json(&[], &[&path]);
    let file = &short["files"][0];
    assert_eq!(file["timeline"].as_array().unwrap().len(), 100);
    assert_eq!(file["timeline_left_out"], 200);
    assert_eq!(file["ranges"].as_array().unwrap().len(), 100);
    assert_eq!(file["ranges_left_out"], 200);
    let all = json(&["--all"], &[&path]);
    assert_eq!(all["files"][0]["timeline"].as_array().unwrap().len(), 300);
    assert_eq!(all["files"][0]["ranges"].as_array().unwrap().len(), 300);
}

#[test]
fn a_record_is_never_written_over_by_its_report() {
    let folder = Folder::new();
    let path = folder.three_files("db1");
    let before = std::fs::read(&path).unwrap();
    let output = report(&["--out", path.to_str().unwrap()], &[&path]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

fn export(arguments: &[&str], files: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_msync-trace"));
    command
        .arg("export")
        .args(arguments)
        .args(files)
        .output()
        .unwrap()
}

#[test]
fn exported_lines_are_the_published_records_and_say_where_they_are_from() {
    let folder = Folder::new();
    let path = folder.three_files("db1");
    let output = export(&["--format", "jsonl"], &[&path]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let schema = include_str!("../../docs/schema/v1.json");
    let validator = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    let mut types = Vec::new();
    for line in text(&output.stdout).lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        assert!(validator.is_valid(&value), "{line}");
        assert_eq!(value["host"], "db1", "{line}");
        assert_eq!(value["boot_id"], "boot-of-db1", "{line}");
        assert_eq!(value["run"], 1, "{line}");
        types.push(value["type"].as_str().unwrap().to_owned());
    }
    let count = |kind: &str| types.iter().filter(|it| *it == kind).count();
    assert_eq!(
        (types.first().unwrap(), types.last().unwrap()),
        (&"start".into(), &"stop".into())
    );
    assert_eq!(
        (
            count("incident"),
            count("write_failed"),
            count("sync_return")
        ),
        (3, 3, 5)
    );
}

#[test]
fn exported_tables_have_a_row_for_each_incident_and_fact() {
    let folder = Folder::new();
    let path = folder.three_files("db1");
    for (table, rows) in [("incidents", 3), ("facts", 11), ("files", 3), ("runs", 1)] {
        let output = export(&["--format", "csv", "--table", table], &[&path]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let came = text(&output.stdout);
        assert_eq!(came.lines().count(), rows + 1, "{came}");
        let columns = |line: &str| line.matches(',').count();
        let header = columns(came.lines().next().unwrap());
        let same = |line: &str| line.contains('"') || columns(line) == header;
        assert!(came.lines().all(same), "{came}");
        let out = folder.file(&format!("{table}.parquet"));
        let arguments = [
            "--format",
            "parquet",
            "--table",
            table,
            "-o",
            out.to_str().unwrap(),
        ];
        let output = export(&arguments, &[&path]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let bytes = std::fs::read(&out).unwrap();
        assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
    }
}

/// The report without what differs each time.
fn said(arguments: &[&str], path: &Path) -> Value {
    let mut report = json(arguments, &[path]);
    report.as_object_mut().unwrap().remove("made");
    report
}

#[test]
fn packed_facts_and_their_rows_give_the_same_report() {
    let folder = Folder::new();
    let path = folder.file("storm.db");
    // Two runs: the second begins in the middle of a block.
    for facts in [50_000, 60_000] {
        let mut run = Run::begin(&path, header("db1"));
        run.keep_records = false;
        let mut storm = Storm::new();
        (0..facts).for_each(|_| run.take(storm.next_fact()));
        run.end();
    }
    let record = rusqlite::Connection::open(&path).unwrap();
    let count = |table: &str| {
        let sql = format!("SELECT count(*) FROM {table}");
        record.query_row(&sql, [], |row| row.get::<_, i64>(0))
    };
    // Of the four blocks one has facts of both runs, and the last is not full.
    assert_eq!(count("packs"), Ok(2));
    let since = "2025-11-20T12:00:01.010Z";
    let until = "2025-11-20T12:00:01.030Z";
    let questions: [&[&str]; 4] = [
        &[],
        &["--all"],
        &["--since", since, "--until", until],
        &["--path", "/srv/data/segment-000007"],
    ];
    let packed = questions.map(|question| said(question, &path));
    assert!(packed[0]["summary"]["incidents"].as_u64() > Some(100));
    assert_eq!(packed[0]["runs"][0]["facts"], 50_000);
    // One that is odd is not believed, nor one of a block that has changed since.
    record
        .execute("UPDATE packs SET facts = x'01' WHERE block = 0", [])
        .unwrap();
    assert!(questions.map(|question| said(question, &path)) == packed);
    record
        .execute("DELETE FROM facts WHERE fact = 100", [])
        .unwrap();
    assert_eq!(count("packs"), Ok(1));
    assert_eq!(count("facts"), Ok(109_999));
}

const FIRST_LAYOUT: &str = include_str!("data/record/layout-1.sql");

/// What the first layout would have held.
fn in_the_first_layout(new: &Path, old: &Path) {
    let record = rusqlite::Connection::open(old).unwrap();
    record.execute_batch(FIRST_LAYOUT).unwrap();
    let new = new.to_str().unwrap();
    record.execute("ATTACH ?1 AS new", [new]).unwrap();
    let mut tables = record
        .prepare("SELECT name FROM main.sqlite_schema WHERE type = 'table'")
        .unwrap();
    let tables: Vec<String> = tables
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(!tables.contains(&"packs".to_owned()));
    for table in tables {
        let copy = format!("INSERT OR REPLACE INTO main.{table} SELECT * FROM new.{table}");
        record.execute(&copy, []).unwrap();
    }
    record
        .execute_batch("PRAGMA application_id = 0x6d737974; PRAGMA user_version = 1;")
        .unwrap();
}

#[test]
fn a_record_of_the_first_layout_says_the_same_and_can_be_continued() {
    let folder = Folder::new();
    let (new, old) = (folder.file("new.db"), folder.file("old.db"));
    let mut run = Run::begin(&new, header("db1"));
    run.keep_records = false;
    let mut storm = Storm::new();
    (0..4_000).for_each(|_| run.take(storm.next_fact()));
    run.end();
    in_the_first_layout(&new, &old);
    let questions: [&[&str]; 3] = [
        &[],
        &["--recompute"],
        &[
            "--since",
            "2025-11-20T12:00:01.010Z",
            "--until",
            "2025-11-20T12:00:01.020Z",
        ],
    ];
    let answers = |path: &Path| {
        let answer = |question: &&[&str]| {
            let answer = said(question, path).to_string();
            answer.replace(path.to_str().unwrap(), "FILE")
        };
        questions.iter().map(answer).collect::<Vec<_>>()
    };
    let wanted = answers(&new);
    assert!(answers(&old) == wanted);
    let layout = || -> i32 {
        let record = rusqlite::Connection::open(&old).unwrap();
        let layout = record.pragma_query_value(None, "user_version", |row| row.get(0));
        layout.unwrap()
    };
    assert_eq!(layout(), 1, "reading changes nothing");
    let exported = export(&["--format", "jsonl"], &[&old]);
    assert!(exported.stdout == export(&["--format", "jsonl"], &[&new]).stdout);

    // Continued, it has the new layout.
    for path in [&old, &new] {
        let mut run = Run::begin(path, header("db1"));
        run.keep_records = false;
        let mut storm = Storm::new();
        (0..3_000).for_each(|_| run.take(storm.next_fact()));
        run.end();
    }
    assert_eq!(layout(), 2);
    assert!(answers(&old) == answers(&new));
}

/// What a run said while it went on, what its record says, and what is judged of its facts later.
fn three_answers(path: &Path, facts: Vec<Fact>) -> usize {
    let mut run = Run::begin(path, header("db1"));
    facts.into_iter().for_each(|fact| run.take(fact));
    let live = run.end();
    let incidents: Vec<_> = live
        .into_iter()
        .filter(|record| matches!(record.body, Body::Incident(_)))
        .collect();
    let reader = Reader::open(path).unwrap();
    let mut recorded = Vec::new();
    reader
        .incidents(1, |record, _| {
            recorded.push(record);
            Ok::<_, StoreError>(())
        })
        .unwrap();
    assert_eq!(recorded, incidents);
    let report = json(&["--recompute"], &[path]);
    let again = &report["recomputed"][0];
    assert_eq!(again["same"], incidents.len(), "{again}");
    assert_eq!(again["differences"], serde_json::json!([]), "{again}");
    incidents.len()
}

#[test]
fn live_recorded_and_judged_again_the_answer_is_the_same() {
    let folder = Folder::new();
    let mut storm = Storm::new();
    let facts = (0..20_000).map(|_| storm.next_fact()).collect();
    let found = three_answers(&folder.file("storm.db"), facts);
    assert!(found > 20, "{found}");
    let streams = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dtrace");
    let mut incidents = 0;
    for (nth, stream) in std::fs::read_dir(streams).unwrap().enumerate() {
        let stream = stream.unwrap().path();
        if stream.extension().is_some_and(|ending| ending == "txt") {
            let facts = facts_of_stream(&std::fs::read(stream).unwrap());
            incidents += three_answers(&folder.file(&format!("{nth}.db")), facts);
        }
    }
    assert!(incidents > 10, "{incidents}");
}

#[test]
fn a_record_that_says_otherwise_is_told_from_what_is_judged_again() {
    let folder = Folder::new();
    let path = folder.three_files("db1");
    let record = rusqlite::Connection::open(&path).unwrap();
    record
        .execute("DELETE FROM incidents WHERE incident = 3", [])
        .unwrap();
    drop(record);
    let report = json(&["--recompute"], &[&path]);
    let again = &report["recomputed"][0];
    assert_eq!(again["same"], 2, "{again}");
    assert_eq!(again["differences"][0]["kind"], "new", "{again}");
    let said = text(&self::report(&["--recompute"], &[&path]).stdout);
    assert!(
        said.contains("1 difference") && said.contains("segment-000002"),
        "{said}"
    );
}

#[test]
fn judging_again_says_no_more_than_was_asked_for() {
    let folder = Folder::new();
    let path = folder.three_files("db1");
    let record = rusqlite::Connection::open(&path).unwrap();
    record
        .execute("DELETE FROM incidents WHERE incident = 3", [])
        .unwrap();
    drop(record);
    let said = |arguments: &[&str]| {
        let again = json(&[&["--recompute"], arguments].concat(), &[&path]);
        let run = &again["recomputed"][0];
        let differences = run["differences"].as_array().unwrap().len();
        (run["same"].as_u64().unwrap(), differences)
    };
    assert_eq!(said(&[]), (2, 1));
    assert_eq!(said(&["--errno", "EIO"]), (2, 0));
    assert_eq!(said(&["--errno", "ENOSPC"]), (0, 1));
    assert_eq!(said(&["--pid", "99"]), (1, 0));
    assert_eq!(said(&["--told", "other"]), (1, 0));
    assert_eq!(said(&["--until", "2025-11-20T12:00:30Z"]), (2, 0));
    assert_eq!(said(&["--path", "/srv/data/segment-000001"]), (2, 0));
    assert_eq!(said(&["--path", "/srv/data/segment-000003"]), (0, 0));
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let folder = Folder::new();
    let path = folder.three_files("db1");
    for format in ["text", "json", "csv", "html"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_msync-trace"));
        command.args(["report", "--format", format]).arg(&path);
        let output = command.stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{format}");
        assert_eq!(text(&output.stderr), "", "{format}");
    }
}

#[test]
fn a_record_that_is_being_written_is_read() {
    let folder = Folder::new();
    let path = folder.file("live.db");
    let mut run = Run::begin(&path, header("db1"));
    run.fact(S, failed(1, pages(0, 4), Errno::EIO));
    run.fact(3 * S, synced(1, task(4242, b"postgres"), None));
    run.flush();
    let before = json(&[], &[&path]);
    assert_eq!(before["summary"]["incidents"], 1);
    // Nobody knows yet what else it will see.
    assert_eq!(before["summary"]["complete"], false);
    run.fact(4 * S, synced(1, task(99, b"backup"), None));
    run.end();
    let after = json(&[], &[&path]);
    assert_eq!(after["summary"]["incidents"], 2);
    assert_eq!(after["summary"]["complete"], true);
}

/// The facts of a run that a D script printed; those of one that is refused are none.
fn facts_of_stream(stream: &[u8]) -> Vec<Fact> {
    let mut reader = dtrace::Reader::default();
    let mut facts = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        match reader.take(rest, &mut facts) {
            Ok(taken) => rest = &rest[taken.bytes..],
            Err(_) => return Vec::new(),
        }
    }
    match reader.end(&mut facts) {
        Ok(_) => facts,
        Err(_) => Vec::new(),
    }
}
