//! msync-trace itself: it keeps what it sees of a disk that loses data.

use std::{path::Path, process::Command, thread, time::Duration};

use anyhow::{Context, Result, ensure};

use super::record;
use crate::{
    faults::BLOCK,
    stress::{
        disk::{Disk, spoil},
        sync_loops::Mapping,
        tracer::{Report, Tracer},
    },
};

/// A prime number, as everywhere in tests.
const PAGES: usize = 7;
/// How long the tool may take to say what it has seen.
const REPORTING: Duration = Duration::from_secs(1);

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
    let warned = report.complaints.matches("keep it on another disk").count();
    ensure!(warned == 1, "warned {warned} times: {}", report.complaints);
    let contents = record::read(&record)?;
    ensure!(contents.there.incidents > 0, "{contents:?}");
    ensure!(
        record::ask(&record, "SELECT count(*) FROM notes")? == "1",
        "no note"
    );
    Ok("warned, and kept".to_owned())
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
