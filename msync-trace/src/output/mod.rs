//! How records are shown: one file per form.
//!
//! This room turns records into text or JSON lines and knows nothing about where they come from.

use std::io;

use crate::{
    model::Fact,
    schema::{Clock, Record},
};

mod failures;
mod html;
#[cfg(target_os = "linux")]
mod journal;
mod json;
mod message;
pub mod metrics;
#[cfg(target_os = "linux")]
mod on_incident;
mod report;
mod rotated;
mod sinks;
mod table;
mod text;

pub use crate::schema::escape;
pub use html::write_html;
#[cfg(target_os = "linux")]
pub use journal::{Journal, MESSAGE_IDS};
pub use json::JsonLines;
pub use message::{Tone, loss_sentence, reading, started, storage_error, summary};
#[cfg(target_os = "linux")]
pub use on_incident::{Bounds, OnIncident};
pub use report::{ReportStyle, inert, write_csv, write_text};
pub use rotated::{RotatedFile, Rotation};
pub use sinks::{Delivery, DeliveryView, Refused, Reporter, Say, Sink, Sinks};
pub use table::{CsvRows, ParquetRows, Rows};
pub use text::{Style, Text, Verbosity};

/// Something that shows records, each at once.
pub trait Output {
    /// Shows one record; flushed when this returns.
    ///
    /// # Errors
    /// If it cannot be written; `BrokenPipe` if nobody reads any more.
    fn show(&mut self, record: &Record) -> io::Result<()>;

    /// A fact came, before anything that follows from it is shown. For outputs that count.
    fn saw(&mut self, _fact: &Fact, _clock: &Clock) {}
}
