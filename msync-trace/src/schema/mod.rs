//! Facts and incidents as versioned JSON: one record per line, every line says its schema.
//!
//! This room knows how the words of the model are spelt in JSON, in both directions. It does not
//! know where facts come from, reads no clock and prints nothing. `docs/schema/v1.json` describes
//! the same records for other programs; a test holds the two together.

mod clock;
mod escape;
mod fact;
mod json;
mod names;
mod record;
mod report;
mod table;
mod words;

pub use clock::{Clock, WallTime};
pub use escape::{BadEscape, escape, unescape};
pub use json::{from_line, is_unprintable, to_line, write_report};
pub use names::{BadSpelling, Name};
pub use record::{
    Body, ChangeRecord, CommandEnd, Comparison, Container, Explanation, FileRecord, Filters, Head,
    HookRecord, HooksRecord, IncidentRecord, KernelRecord, Moment, PathFrom, ProcessRecord, Record,
    SchemaVersion, Start, Stop, StopReason, StorageErrorRecord, Totals,
};
pub use report::{
    Asked, BytesNow, Difference, DifferenceKind, ErrorCount, FileReport, IncidentReport, LossState,
    REPORT, RangeReport, Recomputed, RecordGap, Report, ReportSummary, ReportType, ReportVersion,
    RunReport, StorageErrorReport, TimelineEntry, TimelineKind,
};
pub use table::{Cell, Column, ColumnKind};
pub use words::{Word, parse_dev, parse_filesystem, spell_dev};

/// The version of the records in this room. It changes when a field changes its meaning or goes
/// away; new fields and new record types do not change it.
pub const SCHEMA: u32 = 1;
