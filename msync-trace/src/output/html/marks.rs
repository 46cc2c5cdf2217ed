//! Marks of the picture: calls that were made on a file, and what befell it, above the bytes.

use std::collections::BTreeMap;

use super::{
    Context,
    axis::{Axis, Span},
    bars::Extent,
    markup::Markup,
    picture::{line, rectangle},
    spell,
};
use crate::schema::{FileReport, IncidentReport, TimelineEntry, TimelineKind};

/// Marks closer than this many pixels are one.
const APART: f64 = 5.0;
/// Lost ranges that one mark points at.
const MOST_LOST: usize = 24;

/// A row of marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    /// Calls that returned success over lost bytes.
    Lies,
    /// Errors that somebody was given.
    Told,
    /// Other sync calls.
    Syncs,
    /// What befell the file and its disk.
    Events,
}

impl Lane {
    pub(super) const ALL: [Self; 4] = [Self::Lies, Self::Told, Self::Syncs, Self::Events];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lies => "false success",
            Self::Told => "told the error",
            Self::Syncs => "other syncs",
            Self::Events => "file and disk",
        }
    }
}

/// The shape of a mark: each kind has one of its own, not just a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Symbol {
    /// A false success.
    Lie,
    /// The same again.
    LieAgain,
    /// An error that somebody was given.
    Told,
    /// A sync that promised nothing false.
    Sync,
    /// Disk or filesystem in trouble.
    Storage,
    /// The inode left the cache, or the file was deleted.
    Gone,
    /// The file was opened.
    Opened,
    /// Something was not seen.
    NotSeen,
}

impl Symbol {
    pub(super) const ALL: [Self; 8] = [
        Self::Lie,
        Self::LieAgain,
        Self::Told,
        Self::Sync,
        Self::Storage,
        Self::Gone,
        Self::Opened,
        Self::NotSeen,
    ];

    pub(super) fn lane(self) -> Lane {
        match self {
            Self::Lie | Self::LieAgain => Lane::Lies,
            Self::Told => Lane::Told,
            Self::Sync => Lane::Syncs,
            Self::Storage | Self::Gone | Self::Opened | Self::NotSeen => Lane::Events,
        }
    }

    /// For the legend.
    pub(super) fn meaning(self) -> &'static str {
        match self {
            Self::Lie => "a sync returned 0 over lost bytes; the line is what it was asked for",
            Self::LieAgain => "the same false success again",
            Self::Told => "somebody was given the error; the line is what was asked for",
            Self::Sync => "a sync that promised nothing false",
            Self::Storage => "disk or filesystem in trouble",
            Self::Gone => "inode left the cache, or file deleted",
            Self::Opened => "opened",
            Self::NotSeen => "something was not seen",
        }
    }

    fn of(what: TimelineKind) -> Option<Self> {
        Some(match what {
            TimelineKind::Repeated => Self::LieAgain,
            TimelineKind::SyncFailed | TimelineKind::Told => Self::Told,
            TimelineKind::SyncOk => Self::Sync,
            TimelineKind::StorageError => Self::Storage,
            TimelineKind::Gone | TimelineKind::Deleted => Self::Gone,
            TimelineKind::Opened => Self::Opened,
            TimelineKind::Lost => Self::NotSeen,
            // Incidents come with what they say; the others are bars.
            TimelineKind::Incident
            | TimelineKind::WriteFailed
            | TimelineKind::WriteOk
            | TimelineKind::Redirtied
            | TimelineKind::Discarded
            | TimelineKind::Evicted => return None,
        })
    }

    /// Draws it around a place.
    pub(super) fn draw(self, page: &mut Markup, (x, y): (f64, f64)) {
        match self {
            Self::Lie => path(page, "symbol lie", &triangle(x, y)),
            Self::LieAgain => path(page, "symbol lie-again", &triangle(x, y)),
            Self::Told => {
                let (x, y) = (format!("{x:.1}"), format!("{y:.1}"));
                let circle = [
                    ("class", "symbol told"),
                    ("cx", &*x),
                    ("cy", &*y),
                    ("r", "5"),
                ];
                page.shape("circle", &circle);
            }
            Self::Sync => rectangle(page, "symbol sync", (x - 3.5, y - 3.5), (7.0, 7.0)),
            Self::Storage => {
                let (left, right, up, down) = (x - 6.5, x + 6.5, y - 6.5, y + 6.5);
                let diamond =
                    format!("M{x:.1} {up:.1}L{right:.1} {y:.1}L{x:.1} {down:.1}L{left:.1} {y:.1}z");
                path(page, "symbol storage", &diamond);
            }
            Self::Gone => {
                line(page, "symbol gone", (x - 4.5, y - 4.5), (x + 4.5, y + 4.5));
                line(page, "symbol gone", (x - 4.5, y + 4.5), (x + 4.5, y - 4.5));
            }
            Self::Opened => {
                line(page, "symbol opened", (x - 5.0, y), (x + 5.0, y));
                line(page, "symbol opened", (x, y - 5.0), (x, y + 5.0));
            }
            Self::NotSeen => {
                let (x, y) = (format!("{x:.1}"), format!("{:.1}", y + 5.0));
                let at = [("class", "symbol not-seen"), ("x", &*x), ("y", &*y)];
                page.leaf("text", &at, "?");
            }
        }
    }
}

fn triangle(x: f64, y: f64) -> String {
    let (left, right, up, down) = (x - 6.0, x + 6.0, y - 5.5, y + 6.0);
    format!("M{left:.1} {up:.1}L{right:.1} {up:.1}L{x:.1} {down:.1}z")
}

fn path(page: &mut Markup, class: &str, d: &str) {
    page.shape("path", &[("class", class), ("d", d)]);
}

/// One thing that happened at one moment, or several that cannot be told apart.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) symbol: Symbol,
    /// When, in nanoseconds of wall time.
    pub(super) at: i128,
    /// How many.
    pub(super) count: u64,
    /// The bytes that it was asked for.
    pub(super) bytes: Option<Span>,
    /// The lost bytes that it lied about.
    pub(super) lost: Vec<Span>,
    /// The incident that it stands for.
    pub(super) incident: Option<u64>,
    linked: bool,
    title: String,
}

/// The marks of a file, in the order of time.
pub(super) fn of(file: &FileReport, extent: &Extent, context: &Context<'_>) -> Vec<Mark> {
    let incidents = context
        .incidents_of(file)
        .map(|it| Mark::of_incident(it, extent, context));
    let entries = file
        .timeline
        .iter()
        .enumerate()
        .filter(|(at, _)| !is_said_by_its_call(&file.timeline, *at))
        .map(|(_, entry)| entry)
        .filter_map(|entry| Mark::of_entry(entry, extent, context));
    let mut marks: Vec<Mark> = incidents.chain(entries).collect();
    marks.sort_by_key(|mark| mark.at);
    marks
}

/// Whether an error was handed out by a sync call that has an entry of its own, close by.
fn is_said_by_its_call(timeline: &[TimelineEntry], at: usize) -> bool {
    const CLOSE: u64 = 10_000_000;
    const NEIGHBOURS: usize = 8;
    let told = &timeline[at];
    let from = at.saturating_sub(NEIGHBOURS);
    let until = timeline.len().min(at + NEIGHBOURS);
    told.what == TimelineKind::Told
        && timeline[from..until].iter().any(|call| {
            call.what == TimelineKind::SyncFailed
                && call.run == told.run
                && call.process.as_ref().map(|task| task.process)
                    == told.process.as_ref().map(|task| task.process)
                && call.at.time.0.abs_diff(told.at.time.0) <= CLOSE
        })
}

/// The same, those that fall together made one.
pub(super) fn bucketed(marks: Vec<Mark>, time: &Axis) -> Vec<Mark> {
    let mut last: BTreeMap<Symbol, usize> = BTreeMap::new();
    let mut out: Vec<Mark> = Vec::new();
    for mark in marks {
        let near = last
            .get(&mark.symbol)
            .copied()
            .filter(|&before| time.at(mark.at) - time.at(out[before].at) < APART);
        match near {
            Some(before) => out[before].join(mark),
            None => {
                last.insert(mark.symbol, out.len());
                out.push(mark);
            }
        }
    }
    out
}

impl Mark {
    fn of_incident(it: &IncidentReport, extent: &Extent, context: &Context<'_>) -> Self {
        let record = &it.record;
        let lost = record.bytes.map_or_else(
            || "bytes of this file".to_owned(),
            |bytes| format!("{} of lost bytes", spell::size(bytes)),
        );
        let title = format!(
            "#{} at {}: {} by {} returned 0 over {lost} ({}); {}",
            it.number,
            spell::moment(it.at.time, context.zone),
            spell::call(record.call),
            spell::process(&record.process.task),
            spell::error(record.error),
            spell::told(record.told),
        );
        let ranges = record.ranges.iter().take(MOST_LOST);
        Self {
            symbol: Symbol::Lie,
            at: i128::from(it.at.time.0),
            count: 1,
            bytes: Some(extent.span(record.requested)),
            lost: ranges.map(|range| extent.span(*range)).collect(),
            incident: Some(it.number),
            linked: context.has_row(it.number),
            title,
        }
    }

    fn of_entry(entry: &TimelineEntry, extent: &Extent, context: &Context<'_>) -> Option<Self> {
        let symbol = Symbol::of(entry.what)?;
        let mut title = format!(
            "{}: {}",
            spell::moment(entry.at.time, context.zone),
            super::timeline::sentence(entry)
        );
        if entry.count > 1 && symbol != Symbol::LieAgain {
            title.push_str(&format!(" ({} times)", spell::digits(entry.count)));
        }
        Some(Self {
            symbol,
            at: i128::from(entry.at.time.0),
            // Of a repeat, the count is how often it was by then.
            count: if symbol == Symbol::LieAgain {
                1
            } else {
                entry.count
            },
            bytes: entry.range.map(|range| extent.span(range)),
            lost: Vec::new(),
            incident: entry.incident,
            linked: entry.incident.is_some_and(|number| context.has_row(number)),
            title,
        })
    }

    fn join(&mut self, other: Self) {
        self.count += other.count;
        self.bytes = match (self.bytes, other.bytes) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
        let room = MOST_LOST.saturating_sub(self.lost.len());
        self.lost.extend(other.lost.into_iter().take(room));
        // The title of a hundred marks would be longer than anybody reads.
        if self.title.len() < 600 {
            self.title.push('\n');
            self.title.push_str(&other.title);
        }
    }

    /// What stands beside it.
    pub(super) fn label(&self) -> String {
        match (self.symbol, self.incident, self.count) {
            (Symbol::Lie, Some(number), 1) => format!("#{number}"),
            (_, _, 1) => String::new(),
            (_, _, count) => format!("{}×", spell::digits(count)),
        }
    }

    pub(super) fn draw(&self, page: &mut Markup, at: (f64, f64)) {
        let inside = |page: &mut Markup| {
            page.leaf("title", &[], &self.title);
            self.symbol.draw(page, at);
        };
        match self.incident.filter(|_| self.linked) {
            Some(number) => {
                let target = format!("#incident-{number}");
                page.element("a", &[("href", &target), ("class", "mark")], inside);
            }
            None => page.element("g", &[("role", "img"), ("class", "mark")], inside),
        }
    }
}
