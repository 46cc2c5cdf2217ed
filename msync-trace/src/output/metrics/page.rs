//! Numbers as text: what Prometheus and OpenMetrics read.

use std::{collections::BTreeMap, fmt::Write as _};

use super::table::{FAMILIES, Family, Kind};

/// How to write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// The text format of Prometheus, 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Exposition {
    /// Its media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The samples of one moment.
#[derive(Debug, Default)]
pub struct Page {
    /// Lines of labels and value, by name of the metric.
    samples: BTreeMap<&'static str, String>,
}

impl Page {
    /// A value without labels.
    pub fn plain(&mut self, family: &'static Family, value: impl Into<Number>) {
        self.sample(family, &[], value);
    }

    /// A value, with one word for each label.
    pub fn sample(&mut self, family: &'static Family, words: &[&str], value: impl Into<Number>) {
        debug_assert_eq!(family.labels.len(), words.len(), "{}", family.name);
        let out = self.samples.entry(family.name).or_default();
        out.push_str(family.name);
        for (at, (label, word)) in family.labels.iter().zip(words).enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            // Writing to a String cannot fail.
            let _ = write!(out, "{before}{label}=\"{}\"", quoted(word));
        }
        let after = if family.labels.is_empty() { "" } else { "}" };
        let _ = match value.into() {
            Number::Count(count) => writeln!(out, "{after} {count}"),
            Number::Seconds(seconds) => writeln!(out, "{after} {seconds:.3}"),
        };
    }

    /// All of it; what has no sample yet is named all the same.
    #[must_use]
    pub fn write(&self, exposition: Exposition) -> String {
        let mut out = String::new();
        for family in FAMILIES {
            let name = match (exposition, family.kind) {
                (Exposition::OpenMetrics, Kind::Counter) => {
                    family.name.strip_suffix("_total").unwrap_or(family.name)
                }
                _ => family.name,
            };
            let _ = writeln!(out, "# HELP {name} {}", family.help);
            let _ = writeln!(out, "# TYPE {name} {}", family.kind.word());
            out.push_str(self.samples.get(family.name).map_or("", String::as_str));
        }
        if exposition == Exposition::OpenMetrics {
            out.push_str("# EOF\n");
        }
        out
    }
}

/// A value.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// Of things.
    Count(u64),
    /// A point in time, since 1970.
    Seconds(f64),
}

impl From<u64> for Number {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<usize> for Number {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl From<bool> for Number {
    fn from(yes: bool) -> Self {
        Self::Count(yes.into())
    }
}

/// Names of devices can hold anything.
fn quoted(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    for c in word.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out
}
