//! Tables for other engines: which columns there are and what a row holds. `docs/report.md` lists them.

/// A column of an exported table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: ColumnKind,
}

/// What a column holds. Any cell can be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// A whole number of 64 bits, with a sign.
    Number,
    /// A whole number of 64 bits, without.
    Unsigned,
    /// Printable text on one line; names are spelled as in text output.
    Text,
    /// Yes or no.
    Bool,
    /// Wall time, nanoseconds since 1970-01-01 UTC.
    Time,
}

/// A cell of a row. A number stands for whatever its column holds but text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Not known, or none.
    Empty,
    /// Of [`ColumnKind::Unsigned`]: its bits.
    Number(i64),
    /// Of [`ColumnKind::Text`].
    Text(String),
}
