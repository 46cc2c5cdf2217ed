//! Rows of results as a table, as JSON, and in docs/performance.md.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

use super::measure::Spread;
use crate::paths;

const BEGIN: &str = "<!-- bench: begin -->";
const END: &str = "<!-- bench: end -->";

/// Where it was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Processors.
    pub cores: usize,
    /// `uname -r`
    pub kernel: String,
    /// Tier in use.
    pub tier: String,
    /// Hooks that cannot be attached here: what they would cost is in no figure.
    pub missing_hooks: Vec<String>,
    /// Runnable tasks, averaged over a minute: before and after.
    pub load: Vec<f64>,
}

impl Machine {
    /// This machine.
    pub fn of((tier, missing_hooks): (String, Vec<String>)) -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.trim().to_owned(),
            tier,
            missing_hooks,
            load: load().into_iter().collect(),
        }
    }

    /// Why sync calls are not seen here: then a figure would be of a tracer that does nothing.
    pub fn blind(&self) -> Option<String> {
        let sync = self.missing_hooks.iter();
        let sync: Vec<&str> = sync
            .map(String::as_str)
            .filter(|hook| hook.starts_with("sync."))
            .collect();
        (!sync.is_empty()).then(|| format!("hook {} cannot be attached", sync.join(", ")))
    }

    /// With the load of now.
    pub fn at_the_end(&self) -> Self {
        let mut machine = self.clone();
        machine.load.extend(load());
        machine
    }
}

fn load() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What is measured.
    pub what: String,
    /// Of the figures.
    pub unit: &'static str,
    /// Who, and the figures; the first is what the others are compared with.
    pub sides: Vec<Side>,
}

/// One cell of it.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// Who was measured.
    pub who: String,
    /// `Err` says why there is none.
    pub spread: Result<Spread, String>,
}

impl Row {
    /// A figure that is compared with nothing.
    pub fn alone(what: &str, unit: &'static str, values: Vec<f64>) -> Self {
        Self::of(what, unit, vec![("msync-trace".to_owned(), Ok(values))])
    }

    /// Nothing was measured.
    pub fn missing(what: &str, why: &str) -> Self {
        Self::of(
            what,
            "",
            vec![("msync-trace".to_owned(), Err(why.to_owned()))],
        )
    }

    /// Several sides of one run.
    pub fn of(
        what: &str,
        unit: &'static str,
        sides: Vec<(String, Result<Vec<f64>, String>)>,
    ) -> Self {
        let sides = sides.into_iter().map(|(who, values)| Side {
            who,
            spread: values.and_then(|values| Spread::of(values).ok_or("no result".to_owned())),
        });
        Self {
            what: what.to_owned(),
            unit,
            sides: sides.collect(),
        }
    }
}

/// For people.
pub fn table(machine: &Machine, rows: &[Row]) -> String {
    let load = machine.load.iter().map(|load| format!("{load:.1}"));
    let mut table = format!(
        "{} cores, Linux {}, tier {}{}; load average before and after: {}.\n\n\
         | what | who | median | min..max | ratio |\n|---|---|--:|--:|--:|\n",
        machine.cores,
        machine.kernel,
        machine.tier,
        match machine.missing_hooks.as_slice() {
            [] => String::new(),
            missing => format!(", hooks missing: {}", missing.join(", ")),
        },
        load.collect::<Vec<_>>().join(", "),
    );
    for row in rows {
        let base = row.sides.first().and_then(|side| side.spread.as_ref().ok());
        for (index, side) in row.sides.iter().enumerate() {
            let what = if index == 0 { row.what.as_str() } else { "" };
            table += &match &side.spread {
                Ok(Spread { median, min, max }) => {
                    let ratio = match base {
                        Some(base) if index > 0 && base.median > 0.0 => {
                            format!("{:.2}", median / base.median)
                        }
                        _ => String::new(),
                    };
                    format!(
                        "| {what} | {} | {} {} | {}..{} | {ratio} |\n",
                        side.who,
                        figure(*median),
                        row.unit,
                        figure(*min),
                        figure(*max)
                    )
                }
                Err(why) => format!("| {what} | {} | not measured: {why} | | |\n", side.who),
            };
        }
    }
    table
}

/// Three digits.
fn figure(value: f64) -> String {
    if value.abs() >= 100.0 || value == 0.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// For programs.
pub fn json(machine: &Machine, rows: &[Row]) -> Value {
    json!({ "machine": machine, "rows": rows })
}

/// Puts the table between the markers of docs/performance.md.
pub fn write_page(table: &str) -> Result<()> {
    let path = paths::root().join("docs/performance.md");
    let page =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let page = replace(&page, table).context("docs/performance.md has lost its markers")?;
    fs::write(&path, page)?;
    Ok(())
}

fn replace(page: &str, table: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let page = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = replace(&page, "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert_eq!(replace("no markers", "new"), None);
    }

    #[test]
    fn what_was_not_measured_says_why() {
        let machine = Machine {
            cores: 2,
            kernel: "6.18".to_owned(),
            tier: "fentry".to_owned(),
            missing_hooks: Vec::new(),
            load: vec![0.5],
        };
        let row = Row::of(
            "msync",
            "ns",
            vec![
                ("untraced".to_owned(), Ok(vec![100.0, 300.0, 200.0])),
                ("traced".to_owned(), Ok(vec![300.0])),
                (
                    "bpftrace".to_owned(),
                    Err("bpftrace is not installed".to_owned()),
                ),
            ],
        );
        let table = table(&machine, &[row]);
        assert!(
            table.contains("| msync | untraced | 200 ns | 100..300 |  |"),
            "{table}"
        );
        assert!(
            table.contains("|  | traced | 300 ns | 300..300 | 1.50 |"),
            "{table}"
        );
        assert!(
            table.contains("not measured: bpftrace is not installed"),
            "{table}"
        );
    }
}
