//! Bars of the picture: which bytes the disk does not have, from when until when.

use std::collections::BTreeMap;

use super::{
    Context,
    axis::{Axis, Span},
    markup::Markup,
    picture::{line, rectangle},
    spell,
};
use crate::{
    model::{ByteRange, InMemory},
    schema::{FileReport, LossState, RangeReport, TimelineKind, WallTime},
};

/// Height of the lowest bar, in pixels: one page of a large file.
pub(super) const LEAST: f64 = 4.0;
/// Bars that one picture holds.
const MOST: usize = 400;

/// What a picture has to show, before it has a scale.
#[derive(Debug)]
pub(super) struct Extent {
    /// Bytes that failed; of a file without known ranges, those that calls were asked for.
    pub(super) spans: Vec<Span>,
    /// Moments, in nanoseconds of wall time.
    pub(super) moments: Vec<i128>,
    /// From when until when bytes were lost that have no known place.
    pub(super) unknown: Option<Span>,
    /// Stands for "the end of the file".
    end_of_file: i128,
}

impl Extent {
    pub(super) fn of(file: &FileReport, context: &Context<'_>) -> Self {
        let unknown = unknown_bytes(file, context);
        let ranges: Vec<ByteRange> = match file.ranges.is_empty() {
            false => file.ranges.iter().map(|it| it.range).collect(),
            true => file.timeline.iter().filter_map(|it| it.range).collect(),
        };
        let finite = ranges.iter().map(|range| match range.end() {
            u64::MAX => range.start().saturating_add(4096),
            end => end,
        });
        let mut extent = Self {
            spans: Vec::new(),
            moments: moments(file, context),
            unknown,
            end_of_file: i128::from(finite.max().unwrap_or(4 * 4096)),
        };
        extent.moments.extend(unknown.iter().map(|span| span.0));
        extent.spans = ranges.iter().map(|range| extent.span(*range)).collect();
        extent
    }

    /// A range as a span, an open end put where the last known bytes end.
    pub(super) fn span(&self, range: ByteRange) -> Span {
        let start = i128::from(range.start());
        match range.end() {
            u64::MAX => (start, self.end_of_file.max(start + 1)),
            end => (start, i128::from(end)),
        }
    }
}

fn moments(file: &FileReport, context: &Context<'_>) -> Vec<i128> {
    let mut moments = Vec::new();
    for it in &file.ranges {
        moments.extend([it.first_failed.time, it.last_failed.time]);
        moments.extend(it.ended.iter().chain(&it.evicted).map(|at| at.time));
    }
    moments.extend(file.timeline.iter().map(|it| it.at.time));
    moments.extend(
        file.timeline
            .iter()
            .filter_map(|it| it.until)
            .map(|at| at.time),
    );
    moments.extend(context.incidents_of(file).map(|it| it.at.time));
    moments.iter().map(|at| i128::from(at.0)).collect()
}

fn unknown_bytes(file: &FileReport, context: &Context<'_>) -> Option<Span> {
    if file.failures_without_range == 0 && file.incidents_without_range == 0 {
        return None;
    }
    let failures = file
        .timeline
        .iter()
        .filter(|it| it.what == TimelineKind::WriteFailed && it.range.is_none());
    let incidents = context
        .incidents_of(file)
        .filter(|it| it.record.bytes.is_none());
    let mut began: Vec<(i64, usize)> = failures.map(|it| (it.at.time.0, it.run)).collect();
    began.extend(incidents.map(|it| (it.record.first_failed.time.0, it.run)));
    let (from, run) = began.into_iter().min()?;
    Some((i128::from(from), context.end_of(run)))
}

/// How a stretch of a bar looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Look {
    /// The disk does not have them, memory does.
    Lost,
    /// The disk does not have them; whether memory does is not known.
    LostPerhaps,
    /// Nothing has them.
    Evicted,
    /// The disk has them after all.
    Recovered,
    /// Nobody wants them any more: only an end, no stretch.
    Discarded,
    /// Of no known place.
    Unknown,
}

impl Look {
    pub(super) const ALL: [Self; 6] = [
        Self::Lost,
        Self::LostPerhaps,
        Self::Evicted,
        Self::Recovered,
        Self::Discarded,
        Self::Unknown,
    ];

    /// Its class in the style sheet.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Lost => "bar lost",
            Self::LostPerhaps => "bar perhaps",
            Self::Evicted => "bar evicted",
            Self::Recovered => "bar recovered",
            Self::Discarded => "bar discarded",
            Self::Unknown => "bar unknown",
        }
    }

    /// For the legend.
    pub(super) fn meaning(self) -> &'static str {
        match self {
            Self::Lost => "not on the disk, still in memory",
            Self::LostPerhaps => "not on the disk; whether in memory is not known",
            Self::Evicted => "not on the disk, and no longer in memory: gone",
            Self::Recovered => "written after all",
            Self::Discarded => "given up on purpose (truncated, punched, deleted)",
            Self::Unknown => "bytes of this file failed, which is not known",
        }
    }
}

/// One or more ranges that cannot be told apart at this scale.
#[derive(Clone, Debug)]
pub(super) struct Bar<'a> {
    first: &'a RangeReport,
    key: Key,
    y: (f64, f64),
    /// How many ranges.
    pub(super) ranges: u64,
    bytes: u64,
}

/// Times of a bar, in pixels, and what ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// In tenths of a pixel: where it fails, where it leaves memory, where that ends, where the
    /// record ends.
    x: [i64; 4],
    state: LossState,
    perhaps: bool,
}

impl Key {
    fn of(it: &RangeReport, time: &Axis, context: &Context<'_>) -> Self {
        let at = |when: WallTime| time.at(i128::from(when.0));
        let end_of_record = time.at(context.end_of(it.run));
        let first = at(it.first_failed.time);
        let end = it.ended.map_or(end_of_record, |ended| at(ended.time));
        let gone = match (it.evicted, it.in_memory) {
            (Some(evicted), _) => at(evicted.time),
            (None, InMemory::No) if it.ended.is_none() => first,
            _ => end,
        };
        let tenths = |x: f64| (x * 10.0).round() as i64;
        Self {
            x: [first, gone, end, end_of_record.max(end)].map(tenths),
            state: it.state,
            perhaps: it.in_memory == InMemory::Unknown,
        }
    }

    fn pixel(&self, at: usize) -> f64 {
        self.x[at] as f64 / 10.0
    }
}

/// The bars of a file, and how many ranges found no place.
pub(super) fn of<'a>(
    file: &'a FileReport,
    extent: &Extent,
    bytes: &Axis,
    time: &Axis,
    context: &Context<'_>,
) -> (Vec<Bar<'a>>, u64) {
    let mut groups: BTreeMap<Key, Vec<Bar<'a>>> = BTreeMap::new();
    for it in &file.ranges {
        let key = Key::of(it, time, context);
        let span = extent.span(it.range);
        let y = (bytes.at(span.0), bytes.at(span.1));
        let bar = Bar {
            first: it,
            key,
            y: (y.0, y.1.max(y.0 + LEAST)),
            ranges: 1,
            bytes: u64::try_from(span.1 - span.0).unwrap_or(0),
        };
        let group = groups.entry(key).or_default();
        match group.last_mut() {
            Some(last) if bar.y.0 < last.y.1 - 0.5 => last.join(bar),
            _ => group.push(bar),
        }
    }
    let mut bars: Vec<Bar<'a>> = groups.into_values().flatten().collect();
    bars.sort_by_key(|bar| std::cmp::Reverse(bar.bytes));
    let left_out = bars.iter().skip(MOST).map(|bar| bar.ranges).sum();
    bars.truncate(MOST);
    // Small ones last, so that a large one does not hide them.
    (bars, left_out)
}

impl Bar<'_> {
    fn join(&mut self, other: Self) {
        self.y.1 = self.y.1.max(other.y.1);
        self.ranges += other.ranges;
        self.bytes += other.bytes;
    }

    fn title(&self, context: &Context<'_>) -> String {
        match self.ranges {
            1 => title(self.first, context),
            ranges => format!(
                "{}, {}, that cannot be told apart at this scale: see the table",
                spell::count(ranges, "range"),
                spell::size(self.bytes)
            ),
        }
    }

    /// How it looks, in the order of time.
    pub(super) fn looks(&self) -> Vec<Look> {
        let mut looks = Vec::new();
        if self.key.x[1] > self.key.x[0] || self.key.x[2] == self.key.x[0] {
            looks.push(self.look_while_lost());
        }
        if self.key.x[2] > self.key.x[1] {
            looks.push(Look::Evicted);
        }
        match self.key.state {
            LossState::Outstanding => {}
            LossState::Recovered => looks.push(Look::Recovered),
            LossState::Discarded => looks.push(Look::Discarded),
        }
        looks
    }

    fn look_while_lost(&self) -> Look {
        match self.key.perhaps {
            true => Look::LostPerhaps,
            false => Look::Lost,
        }
    }

    pub(super) fn draw(&self, page: &mut Markup, context: &Context<'_>) {
        let [first, gone, end, last] = [0, 1, 2, 3].map(|at| self.key.pixel(at));
        let (y, height) = (self.y.0, self.y.1 - self.y.0);
        let stretch = |page: &mut Markup, look: Look, from: f64, to: f64| {
            if to - from >= 0.1 {
                rectangle(page, look.class(), (from, y), (to - from, height));
            }
        };
        page.element("g", &[("role", "img")], |page| {
            page.leaf("title", &[], &self.title(context));
            // Of no length at this scale, but it happened.
            let gone = if end - first < 3.0 { first + 3.0 } else { gone };
            stretch(page, self.look_while_lost(), first, gone);
            stretch(page, Look::Evicted, gone, end);
            match self.key.state {
                LossState::Outstanding => {}
                LossState::Recovered => {
                    stretch(page, Look::Recovered, end, last);
                    rectangle(page, "cap recovered", (end - 1.5, y), (3.0, height));
                }
                LossState::Discarded => {
                    let middle = y + height / 2.0;
                    let size = (height / 2.0).clamp(3.0, 6.0);
                    let x = end.max(first + 3.0);
                    let (left, right) = (x - size, x + size);
                    let (up, down) = (middle - size, middle + size);
                    line(page, "cap discarded", (left, up), (right, down));
                    line(page, "cap discarded", (left, down), (right, up));
                }
            }
        });
    }
}

/// The story of a range in a sentence.
fn title(it: &RangeReport, context: &Context<'_>) -> String {
    let when = |at: WallTime| spell::moment(at, context.zone);
    let mut out = format!(
        "Bytes {} ({}): {} at {}",
        spell::range(it.range),
        spell::range_size(it.range),
        spell::error(it.error),
        when(it.first_failed.time)
    );
    if it.failures > 1 {
        let last = when(it.last_failed.time);
        out.push_str(&format!(
            ", {} failures until {last}",
            spell::digits(it.failures)
        ));
    }
    if let Some(evicted) = it.evicted {
        out.push_str(&format!("; left memory at {}", when(evicted.time)));
    }
    let ended = it
        .ended
        .map_or_else(String::new, |at| format!(" at {}", when(at.time)));
    let fate = spell::fate(it.state, it.in_memory);
    out.push_str(&format!("; {fate}{ended}"));
    if !it.reported {
        out.push_str("; no call was told that they are safe");
    }
    out
}
