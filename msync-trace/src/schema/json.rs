//! One record as one line of JSON that is safe to show.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};

use super::{Record, Report};

/// Whether a character could move the cursor, change colours, break a line or turn the text
/// around it: C0, DEL, C1 (a terminal takes U+009B for an escape sequence), line and paragraph
/// separators, and Unicode's invisible marks of direction.
#[must_use]
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
        )
}

/// A record as one line, with its newline.
///
/// # Panics
/// Never: records hold nothing that JSON cannot say.
#[must_use]
pub fn to_line(record: &Record) -> Vec<u8> {
    let mut line = Vec::with_capacity(512);
    let mut serializer = serde_json::Serializer::with_formatter(&mut line, Printable);
    record
        .serialize(&mut serializer)
        .expect("a record has text keys and is written to memory");
    line.push(b'\n');
    line
}

/// A record from one line.
///
/// # Errors
/// If the line is no record, or of a newer schema.
pub fn from_line(line: &[u8]) -> Result<Record, serde_json::Error> {
    serde_json::from_slice(line)
}

/// A report as one line, with its newline.
///
/// # Errors
/// If `out` cannot be written.
pub fn write_report(report: &Report, mut out: impl io::Write) -> io::Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, Printable);
    report.serialize(&mut serializer)?;
    out.write_all(b"\n")
}

/// serde_json escapes C0 only. This one escapes everything that [`is_unprintable`].
struct Printable;

impl Formatter for Printable {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut compact = CompactFormatter;
        let mut rest = fragment;
        while let Some(at) = rest.find(is_unprintable) {
            compact.write_string_fragment(writer, &rest[..at])?;
            let c = rest[at..].chars().next().unwrap_or_default();
            // All of them lie in the basic plane: one \u escape each.
            write!(writer, "\\u{:04x}", u32::from(c))?;
            rest = &rest[at + c.len_utf8()..];
        }
        compact.write_string_fragment(writer, rest)
    }
}
