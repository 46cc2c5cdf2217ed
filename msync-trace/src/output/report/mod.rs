//! The forms of a report that are text: for people, and as a table.

mod csv;
mod text;

pub use csv::{cell, inert, write_csv};
pub use text::{ReportStyle, write_text};
