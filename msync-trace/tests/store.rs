//! Records: what goes in comes out, whatever happens in between.

mod arbitrary;
#[path = "../examples/record_generated.rs"]
mod record_generated;
mod recorded;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use arbitrary::{fact, incident};
use msync_trace::{
    enrich::Enricher,
    model::{Errno, Fact, FactKind, FileId, LossCause, Lost, MonoTime, Told},
    schema::{Body, Clock, Record, WallTime},
    store::{Kept, Limits, Reader, Recorder, RunHeader, StoreError},
};
use proptest::{collection::vec, prelude::*};
use recorded::NOON;
use tempfile::TempDir;

fn clocks() -> (MonoTime, WallTime) {
    (MonoTime(1_000), NOON)
}

fn header() -> RunHeader {
    let mut header = recorded::header("db1");
    header.began = MonoTime(1_000);
    header.start.wall_minus_mono_ns = NOON.0 - 1_000;
    header
}

/// In memory where that is possible: what is tested here is not the disk, and a machine that compiles
/// takes seconds for a flush.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// What a recorder says.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

impl Said {
    fn has(&self, words: &str) -> bool {
        let said = self.0.lock().unwrap();
        said.iter().any(|message| message.contains(words))
    }

    fn open(&self, path: &Path) -> Result<Recorder, StoreError> {
        let said = self.clone();
        let say = move |message: &str| said.0.lock().unwrap().push(message.to_owned());
        Recorder::open(path, Limits::default(), clocks, Box::new(say))
    }
}

fn begin(path: &Path) -> Recorder {
    let mut recorder = Said::default().open(path).unwrap();
    recorder.begin(header()).unwrap();
    recorder
}

fn record_all(path: &Path, facts: &[Fact], incidents: &[Record]) -> Kept {
    let mut recorder = begin(path);
    for fact in facts {
        recorder.fact(fact.clone());
    }
    for incident in incidents {
        recorder.record(incident, true);
    }
    recorder.finish()
}

fn facts_of(reader: &Reader, run: usize) -> Vec<Fact> {
    let mut facts = Vec::new();
    let run = &reader.runs().unwrap()[run];
    reader
        .facts(run, |_, fact| {
            facts.push(fact);
            Ok::<_, StoreError>(())
        })
        .unwrap();
    facts
}

fn incidents_of(reader: &Reader, run: i64) -> Vec<Record> {
    let mut records = Vec::new();
    reader
        .incidents(run, |record, _| {
            records.push(record);
            Ok::<_, StoreError>(())
        })
        .unwrap();
    records
}

#[test]
fn every_fact_and_incident_comes_back_as_it_was() {
    let folder = scratch();
    let path = folder.path().join("a.db");
    let enricher = Enricher::below(Path::new("/nonexistent"));
    let clock = Clock::new(MonoTime(0), NOON);
    let config = ProptestConfig::with_cases(12);
    proptest!(config, |(facts in vec(fact(), 0..40), mut incidents in vec(incident(), 0..4))| {
        let _ = fs::remove_file(&path);
        for (incident, number) in incidents.iter_mut().zip(1..) {
            incident.id.0 = number;
        }
        let records: Vec<_> = incidents.iter().map(|it| enricher.incident(it, &clock)).collect();
        let kept = record_all(&path, &facts, &records);
        prop_assert_eq!(kept.facts, facts.len() as u64);
        prop_assert_eq!(kept.incidents, records.len() as u64);
        let reader = Reader::open(&path).unwrap();
        prop_assert_eq!(facts_of(&reader, 0), facts);
        prop_assert_eq!(incidents_of(&reader, 1), records);
    });
}

#[test]
fn a_clean_end_leaves_one_private_file_that_opens_where_nothing_can_be_written() {
    let folder = scratch();
    let path = folder.path().join("a.db");
    record_all(&path, &[], &[]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let run = &Reader::open(&path).unwrap().runs().unwrap()[0];
    assert_eq!(run.host.as_deref(), Some("db1"));
    assert_eq!(run.complete, None, "no stop record, so it was killed");
}

/// Not a test by itself: what the next ones start and kill.
#[test]
fn writer_to_be_killed() {
    if let Some(path) = std::env::var_os("RECORD_TO_WRITE") {
        record_generated::write(Path::new(&path), |_| true);
    }
}

fn writer(path: &Path) -> Command {
    let mut writer = Command::new(std::env::current_exe().unwrap());
    writer
        .args(["--exact", "writer_to_be_killed", "--nocapture"])
        .env("RECORD_TO_WRITE", path)
        .stdout(Stdio::piped());
    writer
}

/// `stored FACTS INCIDENTS`; a line that was cut off is none.
fn stored(line: &str) -> Option<(u64, u64)> {
    let numbers = line.strip_suffix('\n')?.split_once("stored ")?.1;
    let (facts, incidents) = numbers.split_once(' ')?;
    Some((facts.parse().ok()?, incidents.parse().ok()?))
}

fn count(connection: &rusqlite::Connection, what: &str) -> u64 {
    let sql = format!("SELECT count(*) FROM {what}");
    let count: i64 = connection.query_row(&sql, [], |row| row.get(0)).unwrap();
    count.unsigned_abs()
}

fn assert_sound(path: &Path) {
    let reader = Reader::open(path).unwrap();
    let verdict: String = reader
        .connection()
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(verdict, "ok");
}

/// Kills a writer when it has said so many times that something is stored, and gives what it said
/// last.
fn killed_after(path: &Path, lines: usize, wait: Duration) -> (u64, u64) {
    let mut writer = writer(path).spawn().unwrap();
    let mut said = BufReader::new(writer.stdout.take().unwrap());
    let mut last = None;
    let mut seen = 0;
    while seen < lines {
        let mut line = String::new();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "it ended by itself");
        seen += usize::from(stored(&line).is_some());
        last = stored(&line).or(last);
    }
    std::thread::sleep(wait);
    writer.kill().unwrap();
    writer.wait().unwrap();
    // What it said until it died counts as well.
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    let later = rest.split_inclusive('\n').rev().find_map(stored);
    later.or(last).unwrap()
}

#[test]
fn a_killed_writer_leaves_everything_that_it_said_was_stored() {
    let folder = scratch();
    let path = folder.path().join("a.db");
    let mut facts = 0;
    let mut incidents = 0;
    let mut dice = fastrand::Rng::with_seed(7);
    for run in 1..=5 {
        let wait = Duration::from_micros(dice.u64(..30_000));
        let said = killed_after(&path, dice.usize(1..4), wait);
        facts += said.0;
        incidents += said.1;
        assert_sound(&path);
        let reader = Reader::open(&path).unwrap();
        let runs = reader.runs().unwrap();
        assert_eq!(runs.len(), run);
        assert_eq!(runs[run - 1].reason, None, "it did not end");
        assert!(count(reader.connection(), "facts") >= facts);
        assert!(count(reader.connection(), "incidents") >= incidents);
        assert!(incidents_of(&reader, run as i64).len() as u64 >= said.1);
    }
}

/// Nothing can be written beside the record, and its log is not empty: evidence on a read-only disk.
#[test]
fn a_killed_writer_s_record_is_read_where_nothing_can_be_written() {
    let folder = scratch();
    let path = folder.path().join("a.db");
    let said = killed_after(&path, 4, Duration::ZERO);
    let log = folder.path().join("a.db-wal");
    assert!(fs::metadata(&log).unwrap().len() > 0);
    let copy = scratch();
    for file in [&path, &log] {
        fs::copy(file, copy.path().join(file.file_name().unwrap())).unwrap();
    }
    let copied = copy.path().join("a.db");
    let before = read_all(copy.path());
    {
        let _sealed = Sealed::new(copy.path());
        let reader = Reader::open(&copied).unwrap();
        assert!(count(reader.connection(), "incidents") >= said.1);
        assert_sound(&copied);
    }
    assert_eq!(read_all(copy.path()), before, "reading changed something");
}

/// A folder in which nothing can be written, by root neither.
struct Sealed<'a>(&'a Path);

impl<'a> Sealed<'a> {
    fn new(folder: &'a Path) -> Self {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o555)).unwrap();
        if rustix::process::geteuid().is_root() {
            mount(&["--bind"], folder);
            mount(&["-o", "remount,bind,ro"], folder);
        }
        assert!(fs::write(folder.join("x"), "").is_err());
        Self(folder)
    }
}

fn mount(how: &[&str], folder: &Path) {
    let mut mount = Command::new("mount");
    let status = mount.args(how).args([folder, folder]).status().unwrap();
    assert!(status.success(), "mount {how:?}");
}

impl Drop for Sealed<'_> {
    fn drop(&mut self) {
        if rustix::process::geteuid().is_root() {
            let status = Command::new("umount").arg("-l").arg(self.0).status();
            assert!(status.unwrap().success());
        }
        fs::set_permissions(self.0, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn read_all(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap();
    let entries = entries.map(|entry| entry.unwrap().path());
    entries
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

#[test]
fn what_is_no_record_is_refused_and_not_touched() {
    let folder = scratch();
    let text = folder.path().join("notes.txt");
    fs::write(&text, "do not lose me\n".repeat(20)).unwrap();
    let other = folder.path().join("other.db");
    let connection = rusqlite::Connection::open(&other).unwrap();
    connection.execute_batch("CREATE TABLE t (a)").unwrap();
    drop(connection);
    let before = read_all(folder.path());
    for (path, what) in [
        (&text, "another kind of file"),
        (&other, "another SQLite database"),
        (&folder.path().to_owned(), "a directory"),
        (&PathBuf::from("/dev/null"), "a special file"),
    ] {
        let error = Said::default().open(path).err().unwrap().to_string();
        assert!(error.contains(what), "{error}");
        assert!(error.contains("give another name"), "{error}");
        assert!(Reader::open(path).is_err(), "{path:?}");
    }
    assert_eq!(read_all(folder.path()), before);
}

#[test]
fn a_newer_record_is_refused_with_the_version_that_reads_it() {
    let folder = scratch();
    let path = folder.path().join("a.db");
    record_all(&path, &[], &[]);
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "PRAGMA user_version = 9; UPDATE about SET value = '7.5.0' WHERE key = 'read_by';",
        )
        .unwrap();
    drop(connection);
    for error in [
        Said::default().open(&path).err().unwrap(),
        Reader::open(&path).err().unwrap(),
    ] {
        let text = error.to_string();
        assert!(text.contains("takes msync-trace 7.5.0 or newer"), "{text}");
        assert!(text.contains("layout 9"), "{text}");
    }
}

#[test]
fn a_second_writer_is_refused_and_a_reader_is_not() {
    let folder = scratch();
    let path = folder.path().join("a.db");
    let mut first = begin(&path);
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let second = Said::default().open(&link).err().unwrap().to_string();
    let pid = format!("pid {}", std::process::id());
    assert!(second.contains(&pid), "{second}");
    // Another process reads: closing a file gives up the locks of this one.
    first.note("seen".to_owned());
    first.flush();
    wait_until(|| {
        let mut sqlite = Command::new("sqlite3");
        let notes = sqlite.arg(&path).arg("SELECT note FROM notes").output();
        notes.unwrap().stdout == b"seen\n"
    });
    assert!(!first.finish().failed);
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The record is taken away while it is written, and what happens meanwhile is kept: a directory in
/// its place stands for a disk that cannot be written.
#[test]
fn what_cannot_be_written_waits_and_the_gap_is_in_the_record() {
    let folder = scratch();
    let path = folder.path().join("a.db");
    let said = Said::default();
    let mut recorder = said.open(&path).unwrap();
    recorder.begin(header()).unwrap();
    let lost = |at| Fact {
        at: MonoTime(at),
        kind: FactKind::Lost(Lost {
            cause: LossCause::BadLine,
            count: 1,
        }),
    };
    recorder.fact(lost(1));
    recorder.settle().unwrap();
    let aside = folder.path().join("aside.db");
    fs::rename(&path, &aside).unwrap();
    fs::create_dir(&path).unwrap();
    recorder.fact(lost(2));
    recorder.flush();
    wait_until(|| said.has("tracing goes on"));
    recorder.fact(lost(3));
    recorder.flush();
    fs::remove_dir(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    wait_until(|| said.has("can be written again"));
    assert!(said.has("nothing was lost"));
    let kept = recorder.finish();
    assert_eq!((kept.facts, kept.lost_facts, kept.failed), (3, 0, false));
    let reader = Reader::open(&path).unwrap();
    assert_eq!(facts_of(&reader, 0), [lost(1), lost(2), lost(3)]);
    let gaps = reader.gaps(1).unwrap();
    assert_eq!(gaps.len(), 1);
    assert_eq!((gaps[0].facts, gaps[0].incidents), (0, 0));
}

/// Its folder is moved away, and there is a new one in its place.
#[test]
fn a_record_goes_on_in_a_folder_that_was_replaced() {
    let folder = scratch();
    let (here, aside) = (folder.path().join("here"), folder.path().join("aside"));
    fs::create_dir(&here).unwrap();
    let path = here.join("a.db");
    let said = Said::default();
    let mut recorder = said.open(&path).unwrap();
    recorder.begin(header()).unwrap();
    recorder.fact(told(1));
    recorder.settle().unwrap();
    fs::rename(&here, &aside).unwrap();
    fs::create_dir(&here).unwrap();
    recorder.fact(told(2));
    recorder.flush();
    wait_until(|| said.has("can be written again") || path.exists());
    recorder.settle().unwrap();
    let second = Said::default().open(&path).err().unwrap().to_string();
    assert!(second.contains("is being written"), "the new one is locked");
    drop(Said::default().open(&aside.join("a.db")).unwrap());
    assert!(!recorder.finish().failed);
    let facts = |path: &Path| facts_of(&Reader::open(path).unwrap(), 0);
    assert_eq!(facts(&aside.join("a.db")), [told(1)]);
    assert_eq!(facts(&path), [told(2)]);
}

/// While a record cannot be written its lock is free, and somebody else writes: nobody's facts are
/// overwritten.
#[test]
fn what_others_wrote_meanwhile_stays() {
    let folder = scratch();
    let path = folder.path().join("a.db");
    let said = Said::default();
    let mut recorder = said.open(&path).unwrap();
    recorder.begin(header()).unwrap();
    recorder.fact(told(1));
    recorder.settle().unwrap();
    let aside = folder.path().join("aside.db");
    fs::rename(&path, &aside).unwrap();
    fs::create_dir(&path).unwrap();
    recorder.fact(told(2));
    recorder.flush();
    wait_until(|| said.has("tracing goes on"));
    // As another writer holds it.
    let lock = fs::File::create(folder.path().join("a.db-lock")).unwrap();
    let exclusive = rustix::fs::FlockOperation::LockExclusive;
    rustix::fs::flock(&lock, exclusive).unwrap();
    fs::remove_dir(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other
        .execute_batch(
            "CREATE TEMP TABLE it AS SELECT * FROM runs;
             UPDATE it SET run = 2, pid = 8, first_fact = 2, last_fact = 5;
             INSERT INTO runs SELECT * FROM it;
             CREATE TEMP TABLE theirs AS SELECT * FROM facts;
             UPDATE theirs SET run = 2, fact = 2;
             INSERT INTO facts SELECT * FROM theirs;",
        )
        .unwrap();
    drop(other);
    drop(lock);
    recorder.fact(told(3));
    recorder.flush();
    wait_until(|| said.has("can be written again"));
    let kept = recorder.finish();
    assert_eq!((kept.facts, kept.lost_facts, kept.failed), (3, 0, false));
    let reader = Reader::open(&path).unwrap();
    assert_eq!(facts_of(&reader, 0), [told(1)]);
    assert_eq!(facts_of(&reader, 1), [told(1)], "the other's");
    assert_eq!(facts_of(&reader, 2), [told(2), told(3)]);
    assert_eq!(numbers(&reader, "SELECT fact FROM facts"), [1, 2, 6, 7]);
    assert_sound(&path);
}

/// Somebody tidies up: the record stays locked.
#[test]
fn a_lock_that_was_removed_is_taken_anew() {
    let folder = scratch();
    let path = folder.path().join("a.db");
    let mut recorder = begin(&path);
    recorder.settle().unwrap();
    fs::remove_file(folder.path().join("a.db-lock")).unwrap();
    recorder.fact(told(1));
    recorder.settle().unwrap();
    let second = Said::default().open(&path).err().unwrap().to_string();
    assert!(second.contains("is being written"), "{second}");
    assert_eq!(recorder.finish().facts, 1);
    assert_eq!(facts_of(&Reader::open(&path).unwrap(), 0), [told(1)]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// Its filesystem cannot bring the memory that is shared with readers any more: a signal that ends
/// programs, here because the file is shorter than its mapping.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_loses_the_shared_memory_does_not_end_the_tracer() {
    let folder = scratch();
    let path = folder.path().join("a.db");
    let said = Said::default();
    let mut recorder = said.open(&path).unwrap();
    recorder.begin(header()).unwrap();
    for number in 1..=3 {
        recorder.fact(told(number));
        recorder.settle().unwrap();
        let shared = folder.path().join("a.db-shm");
        fs::File::options()
            .write(true)
            .open(shared)
            .unwrap()
            .set_len(0)
            .unwrap();
        recorder.fact(told(10 + number));
        recorder.settle().unwrap();
    }
    assert!(said.has("the memory that is shared with readers"));
    assert!(said.has("nothing was lost"));
    let kept = recorder.finish();
    assert_eq!((kept.facts, kept.lost_facts, kept.failed), (6, 0, false));
    let facts = facts_of(&Reader::open(&path).unwrap(), 0);
    assert_eq!(facts, [1, 11, 2, 12, 3, 13].map(told));
    assert_sound(&path);
}

#[test]
fn what_can_not_be_written_to_the_end_is_said() {
    let folder = scratch();
    let path = folder.path().join("a.db");
    let mut recorder = begin(&path);
    recorder.settle().unwrap();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    recorder.note("never stored".to_owned());
    assert!(recorder.finish().failed);
}

const DAY: i64 = 86_400_000_000_000;

fn forty_days_later() -> (MonoTime, WallTime) {
    (MonoTime(40 * DAY as u64), WallTime(NOON.0 + 40 * DAY))
}

fn with_limits(path: &Path, limits: Limits, look: fn() -> (MonoTime, WallTime)) -> Recorder {
    let mut recorder =
        Recorder::open(path, limits, look, Box::new(|said| println!("{said}"))).unwrap();
    let (began, began_wall) = look();
    recorder
        .begin(RunHeader {
            began,
            began_wall,
            ..header()
        })
        .unwrap();
    recorder
}

fn numbers(reader: &Reader, sql: &str) -> Vec<i64> {
    let mut statement = reader.connection().prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

/// Two files failed; one recovered. After forty days the evidence about the other one is still there.
#[test]
fn what_is_old_goes_but_not_what_judges_a_file_in_trouble() {
    let folder = scratch();
    let path = folder.path().join("a.db");
    let enricher = Enricher::below(Path::new("/nonexistent"));
    let clock = Clock::new(MonoTime(1_000), NOON);
    let mut recorder = begin(&path);
    for number in [1, 2] {
        for page in 0..3 {
            let mut failed = record_generated::failed(number, page);
            failed.at = MonoTime(2_000 + page);
            recorder.fact(failed);
        }
        let mut incident = record_generated::incident(number);
        incident.synced_at = MonoTime(3_000);
        recorder.record(&enricher.incident(&incident, &clock), true);
    }
    recorder.settled(&record_generated::inode(1));
    let limits = Limits {
        keep: Some(Duration::from_secs(30 * 86_400)),
        max_size: None,
    };
    assert!(!recorder.finish().failed);
    assert!(!with_limits(&path, limits, forty_days_later).finish().failed);

    let reader = Reader::open(&path).unwrap();
    assert_eq!(numbers(&reader, "SELECT ino FROM inodes"), [2]);
    assert_eq!(numbers(&reader, "SELECT fact FROM facts"), [4, 5, 6]);
    assert_eq!(numbers(&reader, "SELECT incident FROM incidents"), [2]);
    assert_eq!(
        numbers(&reader, "SELECT facts FROM trims WHERE run = 1"),
        [3]
    );
    assert_eq!(facts_of(&reader, 0).len(), 3, "their names are still there");

    // It recovers: nothing is left of the first run.
    let mut recorder = with_limits(&path, limits, forty_days_later);
    recorder.settled(&record_generated::inode(2));
    assert!(!recorder.finish().failed);
    let reader = Reader::open(&path).unwrap();
    assert_eq!(numbers(&reader, "SELECT run FROM runs"), [2, 3]);
    for table in [
        "facts",
        "incidents",
        "incident_ranges",
        "file_views",
        "inodes",
    ] {
        assert_eq!(count(reader.connection(), table), 0, "{table}");
    }
    assert_sound(&path);
}

#[test]
fn a_record_does_not_outgrow_its_size() {
    let most = 16 << 20;
    let folder = scratch();
    let path = folder.path().join("a.db");
    let limits = Limits {
        keep: None,
        max_size: Some(most),
    };
    let mut recorder = with_limits(&path, limits, clocks);
    let mut failed = record_generated::failed(7, 0);
    failed.at = MonoTime(1);
    recorder.fact(failed.clone());
    let mut largest = 0;
    for round in 0..12_u64 {
        for page in 0..1_000 {
            recorder.fact(told(round * 1_000 + page));
        }
        assert_eq!(recorder.settle(), Ok(()));
        let on_disk = |ending: &str| {
            let file = folder.path().join(format!("a.db{ending}"));
            fs::metadata(file).map_or(0, |is| is.len())
        };
        largest = largest.max(on_disk("") + on_disk("-wal"));
    }
    assert!(!recorder.finish().failed);
    assert!(largest <= most, "{largest}");
    assert!(fs::metadata(&path).unwrap().len() > most / 4);
    let reader = Reader::open(&path).unwrap();
    let facts = facts_of(&reader, 0);
    assert_eq!(facts[0], failed, "its file is still in trouble");
    assert_eq!(facts.last(), Some(&told(11_999)), "the newest stay");
    assert_sound(&path);
}

/// A large fact.
fn told(number: u64) -> Fact {
    let mut task = record_generated::incident(1).task;
    task.comm = format!("{number:02500}").into_bytes();
    Fact {
        at: MonoTime(2 + number),
        kind: FactKind::Told(Told {
            inode: record_generated::inode(8),
            file: FileId(number),
            errno: Errno::EIO,
            task,
        }),
    }
}

/// Every question of docs/record.md, asked with `sqlite3` as it stands there.
#[test]
fn the_documented_questions_have_answers() {
    let folder = scratch();
    let path = folder.path().join("FILE.db");
    let enricher = Enricher::below(Path::new("/nonexistent"));
    let clock = Clock::new(MonoTime(1_000), NOON);
    let mut recorder = begin(&path);
    recorder.fact(record_generated::failed(1, 0));
    let incident = enricher.incident(&record_generated::incident(1), &clock);
    recorder.record(&incident, true);
    let lost = Lost {
        cause: LossCause::BadLine,
        count: 1,
    };
    let head = incident.head;
    let body = Body::Lost(lost);
    recorder.record(&Record { head, body }, true);
    assert!(!recorder.finish().failed);

    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/record.md");
    let page = fs::read_to_string(page).unwrap();
    let blocks = page
        .split("\n\n")
        .filter(|block| block.starts_with("    sqlite3 "));
    let mut asked = 0;
    for block in blocks {
        let mut shell = Command::new("sh");
        let output = shell
            .args(["-c", block])
            .current_dir(folder.path())
            .output();
        let output = output.unwrap();
        let answer = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{block}: {output:?}");
        assert!(!answer.trim().is_empty(), "{block}");
        asked += 1;
    }
    assert!(asked >= 9, "{asked}");
}
