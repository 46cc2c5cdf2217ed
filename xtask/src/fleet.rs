//! The query over a thousand hosts that docs/report.md prints, run as it stands there, on records that
//! are made up and whose answer is known.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{
    paths, setup,
    step::{Step, progress},
    tally::Tally,
    test::example,
};

const HOSTS: u32 = 1000;

/// What stands before the query in the document.
const MARK: &str = "```sql";

/// Reads a query from standard input and prints each row, its cells apart by bars.
const ASK: &str = "import duckdb, sys
for row in duckdb.sql(sys.stdin.read()).fetchall():
    print('|'.join(str(cell) for cell in row))";

/// Makes the records, exports them and asks.
pub fn run() -> Result<Tally> {
    let python = match setup::ensure_duckdb() {
        Ok(python) => python,
        Err(error) => {
            let why = format!("fleet: DuckDB cannot be installed from PyPI: {error:#}");
            return Ok(Tally::one_skipped(why));
        }
    };
    // In memory: a thousand records are flushed many times each.
    let folder = tempfile::tempdir_in(memory()).context("cannot make a folder for the records")?;
    let evidence = folder.path().join("evidence");
    fs::create_dir(&evidence)?;
    must("fleet-record", record(folder.path())?)?;
    must("fleet-export", export(folder.path(), &evidence)?)?;
    let document = fs::read_to_string(paths::root().join("docs/report.md"))?;
    let query = query(&document).context("docs/report.md has no query in a block marked sql")?;
    let came = ask(&python, folder.path(), query)?;
    let wanted = expected();
    if came == wanted {
        return Ok(Tally::one_passed());
    }
    progress(&format!("expected:\n{wanted}\ncame:\n{came}"));
    Ok(Tally::one_failed(
        "fleet: the query of docs/report.md gives another answer",
    ))
}

fn memory() -> &'static Path {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { shm } else { Path::new("/tmp") }
}

fn must(name: &str, command: Command) -> Result<()> {
    Step::new(name, command, paths::log(name)).must()?;
    Ok(())
}

fn record(folder: &Path) -> Result<Command> {
    let mut command = Command::new(example("record_fleet")?);
    command.arg(folder).arg(HOSTS.to_string());
    Ok(command)
}

fn export(folder: &Path, evidence: &Path) -> Result<Command> {
    let mut command = Command::new(paths::release("msync-trace"));
    command
        .args(["export", "--format", "parquet", "--out"])
        .arg(evidence);
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "db") {
            command.arg(path);
        }
    }
    Ok(command)
}

/// The first query of the document.
fn query(document: &str) -> Option<&str> {
    let (_, rest) = document.split_once(MARK)?;
    Some(rest.split_once("```")?.0.trim())
}

fn ask(python: &Path, folder: &Path, query: &str) -> Result<String> {
    let input = folder.join("query.sql");
    fs::write(&input, query)?;
    let output = Command::new(python)
        .args(["-c", ASK])
        .current_dir(folder)
        .stdin(fs::File::open(&input)?)
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "DuckDB refuses the query: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

/// What the made-up hosts lost: see the example `record_fleet`. Each third host loses n % 5 + 1 pages
/// of one file, to ENOSPC where n is even, else to EIO; each fifteenth writes them after all.
fn expected() -> String {
    let mut rows = Vec::new();
    for (error, parity) in [("EIO", 1), ("ENOSPC", 0)] {
        let lost =
            |host: &u32| host.is_multiple_of(3) && host % 2 == parity && !host.is_multiple_of(15);
        let hosts: Vec<u32> = (0..HOSTS).filter(lost).collect();
        let bytes: u64 = hosts
            .iter()
            .map(|host| u64::from(host % 5 + 1) * 4096)
            .sum();
        rows.push((bytes, error, hosts.len()));
    }
    rows.sort_by_key(|(bytes, ..)| std::cmp::Reverse(*bytes));
    let lines: Vec<String> = rows
        .iter()
        .map(|(bytes, error, hosts)| format!("{error}|nobody|{hosts}|{hosts}|{bytes}"))
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_query_of_a_document_is_found() {
        let document = "a\n\n```sql\nSELECT 1;\n```\n\n```sql\nSELECT 2;\n```\n";
        assert_eq!(query(document), Some("SELECT 1;"));
        assert_eq!(query("none"), None);
    }
}
