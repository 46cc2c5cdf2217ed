//! msync-trace itself: it keeps what it sees of a disk that loses data.

use std::{fs::File, path::Path, process::Command, thread, time::Duration};

use anyhow::{Context, Result, ensure};

use super::record;
use crate::{
    faults::BLOCK,
    stress::{
        disk::{Disk, run, spoil},
        sync_loops::Mapping,
        tracer::{Report, Tracer},
    },
};

/// A prime number, as everywhere in tests.
const PAGES: usize = 7;
/// How long the tool may take to say what it has seen.
const REPORTING: Duration = Duration::from_secs(1);
/// How long it waits for what a filesystem does about an error.
const CONSEQUENCES: Duration = Duration::from_millis(1500);
/// What it says of a record on a disk that fails.
const ANOTHER_DISK: &str = "keep it on another disk";

/// What the record says of a file: other disks may fail meanwhile.
const QUESTION: &str = "WITH file AS (SELECT inode FROM inodes WHERE path = 'PATH')
    SELECT (SELECT group_concat(incident || ' ' || bytes || ' ' || told) FROM incidents
            WHERE inode IN file),
        (SELECT max(range_end) - min(range_start) FROM facts WHERE kind = 1 AND inode IN file),
        (SELECT count(*) FROM facts WHERE kind = 4 AND errno IS NULL AND inode IN file) > 0,
        (SELECT reason IS NOT NULL FROM runs), (SELECT count(*) FROM gaps)";

/// A program is lied to about bytes on another disk: what was printed is in the record, with the facts
/// that it was judged by.
pub fn lied_to(program: &Path) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let record = folder.path().join("a.db");
    let mut disk = Disk::new(1, PAGES)?;
    let report = lose(program, &mut disk, &record)?;
    ensure!(report.incidents.len() == 1, "{:?}", report.incidents);
    ensure!(
        !report.complaints.contains(ANOTHER_DISK),
        "warned of a disk that the record is not on: {}",
        report.complaints
    );
    let incident = &report.incidents[0];
    let expected = format!(
        "{} {} {}|{}|1|1|0",
        incident["incident"],
        PAGES * BLOCK,
        incident["told"]
            .as_str()
            .context("told nobody knows whom")?,
        PAGES * BLOCK,
    );
    let path = disk.path_of(0);
    let path = path.to_string_lossy();
    let answer = record::ask(&record, &QUESTION.replace("PATH", &path))?;
    ensure!(
        answer == expected,
        "the record says {answer}, not {expected}"
    );
    record::read(&record)?;
    let output = Command::new(program).arg("report").arg(&record).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        said.contains(&*path),
        "report does not name the file: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(format!("{PAGES} pages lost, all of it is in the record"))
}

/// The record lies on the disk that fails: it is said, and kept all the same.
pub fn same_disk(program: &Path) -> Result<String> {
    let mut disk = Disk::new(1, PAGES)?;
    let record = disk.path().join("a.db");
    let report = lose(program, &mut disk, &record)?;
    warned_once(&report, &record)?;
    let contents = record::read(&record)?;
    ensure!(contents.there.incidents > 0, "{contents:?}");
    Ok("warned, and kept".to_owned())
}

/// The record lies in an image, which is a file on the disk that fails.
pub fn image_on_the_disk(program: &Path) -> Result<String> {
    let mut disk = Disk::new(1, PAGES + IMAGE / BLOCK)?;
    let inner = Inner::new(&disk)?;
    let record = inner.at.path().join("a.db");
    let report = lose(program, &mut disk, &record)?;
    warned_once(&report, &record)?;
    Ok("warned of the disk below the image".to_owned())
}

/// Nothing is lost, but the filesystem of the record finds an error in itself.
pub fn filesystem_error(program: &Path) -> Result<String> {
    let disk = Disk::new(1, PAGES)?;
    disk.sync()?;
    let record = disk.path().join("a.db");
    let tracer = Tracer::record(program, &record, disk.path())?;
    disk.break_metadata()?;
    thread::sleep(CONSEQUENCES);
    let report = tracer.stop()?;
    ensure!(report.incidents.is_empty(), "{:?}", report.incidents);
    ensure!(
        report
            .complaints
            .contains("the filesystem reports an error"),
        "no error was seen: {}",
        report.complaints
    );
    warned_once(&report, &record)?;
    Ok("warned before anything was lost".to_owned())
}

/// It is said once, and noted.
fn warned_once(report: &Report, record: &Path) -> Result<()> {
    let warned = report.complaints.matches(ANOTHER_DISK).count();
    ensure!(warned == 1, "warned {warned} times: {}", report.complaints);
    let notes = record::ask(record, "SELECT count(*) FROM notes")?;
    ensure!(notes == "1", "{notes} notes");
    Ok(())
}

/// Size of the image, bytes.
const IMAGE: usize = 16 << 20;

/// A filesystem in a file on the disk, mounted.
struct Inner {
    at: tempfile::TempDir,
}

impl Inner {
    fn new(disk: &Disk) -> Result<Self> {
        let (image, at) = (disk.path().join("image"), tempfile::tempdir()?);
        File::create(&image)?.set_len(IMAGE as u64)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        run(Command::new("mount")
            .args(["-o", "loop"])
            .args([&image, at.path()]))?;
        Ok(Self { at })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.at.path()).status();
    }
}

/// Loses all pages of a file, and lies about it to this process.
fn lose(program: &Path, disk: &mut Disk, record: &Path) -> Result<Report> {
    let file = disk.file(0, PAGES)?;
    disk.sync()?;
    let mapping = Mapping::new(&file, PAGES * BLOCK)?;
    let tracer = Tracer::record(program, record, disk.path())?;
    spoil(&file, PAGES)?;
    disk.fail()?;
    disk.sync()?;
    let lied = (0..4).any(|_| mapping.sync());
    ensure!(lied, "no msync claimed success");
    thread::sleep(REPORTING);
    tracer.stop()
}
