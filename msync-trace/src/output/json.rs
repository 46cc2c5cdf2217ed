//! JSON lines: every record, whole.

use std::io::{self, Write};

use super::Output;
use crate::schema::{Record, to_line};

/// Writes each record as one line of JSON.
#[derive(Debug)]
pub struct JsonLines<W> {
    out: W,
}

impl<W: Write> JsonLines<W> {
    /// To `out`.
    pub fn new(out: W) -> Self {
        Self { out }
    }
}

impl<W: Write> Output for JsonLines<W> {
    fn show(&mut self, record: &Record) -> io::Result<()> {
        self.out.write_all(&to_line(record))?;
        self.out.flush()
    }
}
