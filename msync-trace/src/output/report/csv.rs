//! The incidents of a report as CSV (RFC 4180): one row each, lines end in CRLF.
//!
//! Names are spelled as in text, so no row has a line break in it. A spreadsheet takes a cell that
//! begins with `=`, `+`, `-` or `@` for a formula: such a first character is spelled as `\x3d` and so
//! on, which the same rule reads back. Nothing of ours begins so.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use crate::schema::{IncidentReport, Moment, Report, Word, escape, spell_dev};

const HEADER: &str = "number,host,boot_id,source,run,incident,time,path,path_from,mount,fs_type,device,dev,\
inode,error,bytes,ranges,evidence,told,coverage,in_memory,call,pid,tid,uid,comm,exe,container,\
first_failed,last_failed,repeats,state,recovered,discarded,evicted";

/// Writes the incidents of a report.
///
/// # Errors
/// If `out` cannot be written.
pub fn write_csv(report: &Report, mut out: impl Write) -> io::Result<()> {
    write!(out, "{HEADER}\r\n")?;
    for incident in &report.incidents {
        let cells = row(report, incident);
        let cells: Vec<String> = cells.iter().map(|text| cell(text)).collect();
        write!(out, "{}\r\n", cells.join(","))?;
    }
    Ok(())
}

/// A cell, quoted where it has to be. `text` is printable, see [`name`].
#[must_use]
pub fn cell(text: &str) -> String {
    if text.contains(['"', ',', '\r', '\n']) || text.starts_with(' ') || text.ends_with(' ') {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text.to_owned()
}

/// A name as it stands in a cell: on one line, and no formula.
fn name(bytes: &[u8]) -> String {
    inert(escape(bytes))
}

/// Printable text that no spreadsheet takes for a formula.
#[must_use]
pub fn inert(text: String) -> String {
    match text.chars().next() {
        Some(first @ ('=' | '+' | '-' | '@')) => {
            format!("\\x{:02x}{}", u32::from(first), &text[1..])
        }
        _ => text,
    }
}

fn optional(bytes: Option<&[u8]>) -> String {
    bytes.map(name).unwrap_or_default()
}

fn text(text: Option<&str>) -> String {
    optional(text.map(str::as_bytes))
}

fn time(moment: Option<&Moment>) -> String {
    moment
        .map(|moment| moment.time.to_string())
        .unwrap_or_default()
}

fn row(report: &Report, incident: &IncidentReport) -> Vec<String> {
    let record = &incident.record;
    let (file, process) = (&record.file, &record.process);
    let run = report.runs.get(incident.run);
    let mut ranges = String::new();
    for range in &record.ranges {
        let gap = if ranges.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = write!(ranges, "{gap}{range}");
    }
    vec![
        incident.number.to_string(),
        text(run.and_then(|run| run.host.as_deref())),
        text(run.and_then(|run| run.boot_id.as_deref())),
        optional(run.map(|run| &*run.source.0)),
        run.map(|run| run.run.to_string()).unwrap_or_default(),
        record.incident.0.to_string(),
        incident.at.time.to_string(),
        optional(file.path.as_ref().map(|path| &*path.0)),
        file.path_from
            .map(Word::word)
            .unwrap_or_default()
            .to_owned(),
        optional(file.mount.as_ref().map(|mount| &*mount.0)),
        text(file.fs_type.as_deref()),
        text(file.device.as_deref()),
        file.dev.map(spell_dev).unwrap_or_default(),
        file.inode.to_string(),
        record.error.to_string(),
        record
            .bytes
            .map(|bytes| bytes.to_string())
            .unwrap_or_default(),
        ranges,
        record.evidence.word().to_owned(),
        record.told.word().to_owned(),
        record.coverage.word().to_owned(),
        record.in_memory.word().to_owned(),
        record.call.word().to_owned(),
        process.task.process.pid.to_string(),
        process.task.tid.to_string(),
        process.task.uid.to_string(),
        name(&process.task.comm),
        optional(process.exe.as_ref().map(|exe| &*exe.0)),
        text(process.container.as_ref().map(|container| &*container.id)),
        record.first_failed.time.to_string(),
        record.last_failed.time.to_string(),
        incident.repeats.to_string(),
        incident.state.word().to_owned(),
        time(incident.recovered.as_ref()),
        time(incident.discarded.as_ref()),
        time(incident.evicted.as_ref()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_quoted_where_it_has_to_be() {
        assert_eq!(cell("plain"), "plain");
        assert_eq!(cell("a,b"), "\"a,b\"");
        assert_eq!(cell("say \"no\""), "\"say \"\"no\"\"\"");
        assert_eq!(cell(" a"), "\" a\"");
    }

    #[test]
    fn a_name_is_no_formula_and_no_second_line_and_can_be_read_back() {
        for hostile in [
            &b"=cmd|' /C calc'!A0"[..],
            b"+1",
            b"-1",
            b"@SUM(A1)",
            b"\t=1",
            b"\r\n=1",
            b"a\"\nb,\xff",
            "\u{feff}=1".as_bytes(),
        ] {
            let text = name(hostile);
            assert!(
                !text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']),
                "{text}"
            );
            assert!(!text.contains(['\r', '\n']), "{text}");
            assert_eq!(crate::schema::unescape(&text).unwrap(), hostile, "{text}");
        }
    }

    #[test]
    fn every_row_has_the_columns_of_the_header() {
        assert_eq!(HEADER.split(',').count(), 35);
        assert!(!HEADER.contains(char::is_whitespace));
    }
}
