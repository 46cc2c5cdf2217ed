//! `msync-trace export`: recorded evidence for other engines, as JSON lines, CSV or Parquet.

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::{
    Exit, complain, log_to_stderr,
    report::{is_broken_pipe, open_all, refuse_to_overwrite},
};
use crate::{
    cli::{ExportArgs, ExportForm, ExportTable},
    output::{CsvRows, ParquetRows, Rows, inert},
    schema::{Body, Cell, Record, escape, to_line},
    store::{Reader, RunRow, StoreError, export},
};

/// The whole command, from its arguments to the exit status.
#[must_use]
pub fn main(args: &ExportArgs) -> Exit {
    log_to_stderr(false, 0);
    match try_main(args) {
        Ok(exit) => exit,
        Err(error) if is_broken_pipe(&error) => Exit::Nothing,
        Err(error) => {
            complain(&error);
            Exit::Error
        }
    }
}

fn try_main(args: &ExportArgs) -> anyhow::Result<Exit> {
    if args.format == ExportForm::Jsonl && args.table == Some(ExportTable::Files) {
        anyhow::bail!("files are no records of their own: use --format csv or parquet");
    }
    if args.format == ExportForm::Parquet && args.out.is_none() && io::stdout().is_terminal() {
        anyhow::bail!("Parquet is no text, and this is a terminal: add --out FILE.parquet");
    }
    refuse_to_overwrite(args.out.as_deref(), &args.files)?;
    let (records, mut failed) = open_all(&args.files);
    if records.is_empty() {
        return Ok(Exit::Error);
    }
    match args.out.as_deref().filter(|out| out.is_dir()) {
        Some(folder) => {
            for record in &records {
                let file = beside(folder, record.path(), args.format)?;
                failed |= write(args, std::slice::from_ref(record), Some(&file))?;
            }
        }
        None => failed |= write(args, &records, args.out.as_deref())?,
    }
    Ok(match failed {
        true => Exit::Error,
        false => Exit::Nothing,
    })
}

/// The file of a record in a directory; never one that is there.
fn beside(folder: &Path, record: &Path, form: ExportForm) -> anyhow::Result<PathBuf> {
    let ending = match form {
        ExportForm::Jsonl => "jsonl",
        ExportForm::Parquet => "parquet",
        ExportForm::Csv => "csv",
    };
    let stem = record.file_stem().unwrap_or_default();
    let mut name = stem.to_owned();
    name.push(".");
    name.push(ending);
    let file = folder.join(name);
    if file.exists() {
        let file = escape(file.as_os_str().as_encoded_bytes());
        anyhow::bail!("{file} is there already: remove it, or give another directory");
    }
    Ok(file)
}

/// Writes all rows of these records into one file; whether one of them could not be read.
fn write(args: &ExportArgs, records: &[Reader], out: Option<&Path>) -> anyhow::Result<bool> {
    let name = out.map_or_else(
        || "standard output".to_owned(),
        |path| escape(path.as_os_str().as_encoded_bytes()),
    );
    let failed = || format!("cannot write {name}");
    let mut sink: Box<dyn Write + Send> = match out {
        Some(path) => Box::new(BufWriter::new(File::create(path).with_context(failed)?)),
        None => Box::new(BufWriter::new(io::stdout())),
    };
    let mut unread = false;
    if args.format == ExportForm::Jsonl {
        let which = lines(args.table);
        for record in records {
            let written = export::records(record, which, |run, it| write_line(&mut sink, run, &it));
            unread |= said(written, &name)?;
        }
        sink.flush().with_context(failed)?;
        return Ok(unread);
    }
    let table = table(args.table.unwrap_or_default());
    let columns = table.columns;
    let mut rows: Box<dyn Rows> = match args.format {
        ExportForm::Parquet => Box::new(ParquetRows::new(columns, sink).with_context(failed)?),
        _ => Box::new(CsvRows::new(columns, sink).with_context(failed)?),
    };
    let is_csv = args.format == ExportForm::Csv;
    for record in records {
        let written = export::rows(record, table, |cells| {
            let row = match is_csv {
                true => rows.row(&cells.iter().map(inert_cell).collect::<Vec<_>>()),
                false => rows.row(cells),
            };
            row.map_err(Trouble::Write)
        });
        unread |= said(written, &name)?;
    }
    rows.finish().with_context(failed)?;
    Ok(unread)
}

fn inert_cell(cell: &Cell) -> Cell {
    match cell {
        Cell::Text(text) => Cell::Text(inert(text.clone())),
        other => other.clone(),
    }
}

/// Why rows end early.
enum Trouble {
    Read(StoreError),
    Write(io::Error),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Read(error)
    }
}

/// A record that cannot be read does not hide the others; an output that cannot be written ends it.
fn said(written: Result<(), Trouble>, out: &str) -> anyhow::Result<bool> {
    match written {
        Ok(()) => Ok(false),
        Err(Trouble::Read(error)) => {
            complain(&anyhow::Error::from(error));
            Ok(true)
        }
        Err(Trouble::Write(error)) => Err(error).with_context(|| format!("cannot write {out}")),
    }
}

/// A record as a line, and where it comes from.
fn write_line(out: &mut impl Write, run: &RunRow, record: &Record) -> Result<(), Trouble> {
    let mut line = to_line(record);
    while matches!(line.last(), Some(b'\n' | b'}')) && line.pop() != Some(b'}') {}
    let mut origin = String::new();
    // A start record says these two itself.
    if !matches!(record.body, Body::Start(_)) {
        for (key, value) in [("host", &run.host), ("boot_id", &run.boot_id)] {
            let value = serde_json::json!(value.as_ref().map(|value| escape(value.as_bytes())));
            origin.push_str(&format!(",\"{key}\":{value}"));
        }
    }
    line.extend_from_slice(origin.as_bytes());
    line.extend_from_slice(format!(",\"run\":{}}}\n", run.run).as_bytes());
    out.write_all(&line).map_err(Trouble::Write)
}

fn lines(table: Option<ExportTable>) -> export::Lines {
    match table {
        None => export::Lines::Everything,
        Some(ExportTable::Incidents | ExportTable::Files) => export::Lines::Incidents,
        Some(ExportTable::Facts) => export::Lines::Facts,
        Some(ExportTable::Runs) => export::Lines::Runs,
    }
}

fn table(name: ExportTable) -> export::Table {
    match name {
        ExportTable::Incidents => export::INCIDENTS,
        ExportTable::Facts => export::FACTS,
        ExportTable::Files => export::FILES,
        ExportTable::Runs => export::RUNS,
    }
}
