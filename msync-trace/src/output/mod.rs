//! How records are shown: one file per form.
//!
//! This room turns records into text or JSON lines and knows nothing about where they come from.

use std::io;

use crate::schema::Record;

mod html;
mod json;
mod message;
mod report;
mod table;
mod text;

pub use crate::schema::escape;
pub use html::write_html;
pub use json::JsonLines;
pub use message::{Tone, loss_sentence, reading, started, storage_error, summary};
pub use report::{ReportStyle, inert, write_csv, write_text};
pub use table::{CsvRows, ParquetRows, Rows};
pub use text::{Style, Text, Verbosity};

/// Something that shows records, each at once.
pub trait Output {
    /// Shows one record; flushed when this returns.
    ///
    /// # Errors
    /// If it cannot be written; `BrokenPipe` if nobody reads any more.
    fn show(&mut self, record: &Record) -> io::Result<()>;
}
