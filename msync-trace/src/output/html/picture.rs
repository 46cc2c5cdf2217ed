//! The picture of a file: its bytes from top to bottom, time from left to right.
//!
//! A bar is bytes that the disk does not have, from the failure to what ended it. Above are the calls
//! that were made meanwhile, with a line down to the bytes that they were asked for.

use std::collections::BTreeMap;

use super::{
    Context,
    axis::{Axis, Layout, Section},
    bars::{self, Bar, Extent},
    marks::{self, Lane, Mark, Symbol},
    markup::Markup,
    spell,
};
use crate::schema::{FileReport, WallTime};

/// Pixels of the picture, which the browser scales.
const WIDTH: f64 = 1000.0;
const LEFT: f64 = 156.0;
const RIGHT: f64 = 976.0;
const LANE: f64 = 26.0;
const TOP: f64 = 6.0;
const BYTE_GAP: f64 = 24.0;
const TIME_GAP: f64 = 30.0;
const BOTTOM: f64 = 58.0;
/// Of a letter of the labels, on average.
const LETTER: f64 = 6.6;
const PAGE: i128 = 4096;
const MILLISECOND: i128 = 1_000_000;

/// What a picture holds: decides what its legend explains.
#[derive(Clone, Debug, Default)]
pub(super) struct Drawn {
    /// Looks of bars.
    pub(super) bars: std::collections::BTreeSet<bars::Look>,
    /// Symbols of marks.
    pub(super) symbols: std::collections::BTreeSet<Symbol>,
    /// Ranges that found no place.
    pub(super) bars_left_out: u64,
    /// Whether an axis was cut.
    pub(super) cut: bool,
}

/// The frame of a picture.
struct Frame {
    bytes: Axis,
    time: Axis,
    lanes: Vec<Lane>,
    top: f64,
    bottom: f64,
}

/// Draws the picture of a file.
pub(super) fn draw(page: &mut Markup, file: &FileReport, id: &str, context: &Context<'_>) -> Drawn {
    let extent = Extent::of(file, context);
    let found = marks::of(file, &extent, context);
    let frame = Frame::new(&extent, &found);
    let (bars, bars_left_out) = bars::of(file, &extent, &frame.bytes, &frame.time, context);
    let found = marks::bucketed(found, &frame.time);
    let unknown = extent.unknown.map(|_| bars::Look::Unknown);
    let drawn = Drawn {
        bars: bars.iter().flat_map(Bar::looks).chain(unknown).collect(),
        symbols: found.iter().map(|mark| mark.symbol).collect(),
        bars_left_out,
        cut: frame.bytes.sections().len() > 1 || frame.time.sections().len() > 1,
    };
    let height = frame.bottom + BOTTOM;
    let view = format!("0 0 {WIDTH} {height:.0}");
    let (title, description) = (format!("{id}-title"), format!("{id}-description"));
    let labelled = [
        ("viewBox", view.as_str()),
        ("class", "picture"),
        ("role", "group"),
        ("aria-labelledby", &title),
        ("aria-describedby", &description),
    ];
    page.element("svg", &labelled, |page| {
        page.leaf("title", &[("id", &title)], "Bytes of the file over time");
        let text = describe(&bars, &found);
        page.leaf("desc", &[("id", &description)], &text);
        frame.ground(page);
        frame.byte_scale(page);
        frame.time_scale(page, context);
        frame.unknown_bytes(page, &extent);
        bars.iter().for_each(|bar| bar.draw(page, context));
        frame.cuts(page);
        found.iter().for_each(|mark| frame.reach(page, mark));
        frame.lane_names(page);
        frame.marks(page, &found);
    });
    drawn
}

fn describe(bars: &[Bar<'_>], marks: &[Mark]) -> String {
    let count = |symbol| -> u64 {
        let of = marks.iter().filter(|mark| mark.symbol == symbol);
        of.map(|mark| mark.count).sum()
    };
    let ranges: u64 = bars.iter().map(|bar| bar.ranges).sum();
    format!(
        "{} that failed, {}, {}. The tables below say the same in words.",
        spell::count(ranges, "range"),
        spell::count(count(Symbol::Lie), "false success mark"),
        spell::count(count(Symbol::Told), "moment of an error told"),
    )
}

impl Frame {
    fn new(extent: &Extent, marks: &[Mark]) -> Self {
        let lanes: Vec<Lane> = Lane::ALL
            .into_iter()
            .filter(|lane| marks.iter().any(|mark| mark.symbol.lane() == *lane))
            .collect();
        let top = TOP + LANE * lanes.len() as f64 + 4.0;
        let layout = |height: f64| Layout {
            pixels: (top, top + height),
            gap: BYTE_GAP,
            least: 4 * PAGE,
            grain: PAGE,
            floor: 0,
        };
        // Where an axis is cut does not depend on its pixels.
        let sections = Axis::of_ranges(&extent.spans, layout(100.0))
            .sections()
            .len() as f64;
        let crowd = (extent.spans.len() as f64).min(16.0);
        let height = (110.0 + 46.0 * (sections - 1.0) + 7.0 * crowd).min(380.0);
        let bytes = Axis::of_ranges(&extent.spans, layout(height));
        let time = Axis::of_moments(
            &extent.moments,
            Layout {
                pixels: (LEFT, RIGHT),
                gap: TIME_GAP,
                least: MILLISECOND,
                grain: 1,
                floor: i128::MIN,
            },
        );
        Self {
            bytes,
            time,
            lanes,
            top,
            bottom: top + height,
        }
    }

    fn ground(&self, page: &mut Markup) {
        for columns in self.time.sections() {
            for rows in self.bytes.sections() {
                let (x, width) = (columns.pixels.0, columns.pixels.1 - columns.pixels.0);
                let (y, height) = (rows.pixels.0, rows.pixels.1 - rows.pixels.0);
                rectangle(page, "ground", (x, y), (width, height));
            }
        }
    }

    fn byte_scale(&self, page: &mut Markup) {
        let steps: Vec<i128> = (12..62).map(|power| 1_i128 << power).collect();
        let mut labels = Labels::default();
        let mut ticks: Vec<(i128, bool)> = Vec::new();
        for section in self.bytes.sections() {
            let found = section.ticks(&steps, 24.0, 0).values;
            ticks.extend(found.iter().enumerate().map(|(n, at)| (*at, n == 0)));
        }
        // The first of each section before all others: it says where the section lies.
        ticks.sort_by_key(|(at, first)| (!first, *at));
        for (at, _) in ticks {
            let y = self.bytes.at(at);
            if !labels.place(y - 7.0, y + 7.0) {
                continue;
            }
            line(page, "grid", (LEFT, y), (RIGHT, y));
            let text = spell::offset(u64::try_from(at).unwrap_or(0));
            label(page, "label end", (LEFT - 8.0, y + 4.0), &text);
        }
        let middle = f64::midpoint(self.top, self.bottom);
        sideways(
            page,
            "label middle title",
            (14.0, middle),
            "offset in the file",
        );
    }

    fn time_scale(&self, page: &mut Markup, context: &Context<'_>) {
        let steps = time_steps();
        let mut labels = Labels::default();
        let mut ticks: Vec<(i128, Option<i128>, bool)> = Vec::new();
        for section in self.time.sections() {
            let shift = zone_shift(section, context);
            let found = section.ticks(&steps, 104.0, shift);
            let first = found.values.first().copied();
            let all = found.values.iter();
            ticks.extend(all.map(|at| (*at, found.step, Some(*at) == first)));
        }
        ticks.sort_by_key(|(at, _, first)| (!first, *at));
        for (at, step, first) in ticks {
            let x = self.time.at(at);
            let when = WallTime(i64::try_from(at).unwrap_or(i64::MAX));
            let zoned = when.timestamp().to_zoned(context.zone.clone());
            let text = zoned.strftime(time_format(step)).to_string();
            let half = (text.len() as f64 * LETTER / 2.0).max(if first { 34.0 } else { 0.0 });
            let middle = x.clamp(LEFT + 20.0, RIGHT + 20.0 - half);
            line(page, "grid", (x, self.top), (x, self.bottom + 4.0));
            if !labels.place(middle - half, middle + half) {
                continue;
            }
            label(page, "label middle", (middle, self.bottom + 18.0), &text);
            if first {
                let date = zoned.strftime("%Y-%m-%d").to_string();
                label(
                    page,
                    "label middle faint",
                    (middle, self.bottom + 33.0),
                    &date,
                );
            }
        }
        let began = WallTime(i64::try_from(self.time.values().0).unwrap_or(0));
        let text = format!("time, {}", spell::zone(began, context.zone));
        label(page, "label end title", (RIGHT, self.bottom + 50.0), &text);
    }

    /// Failures of which only the file is known have no place on the axis of bytes.
    fn unknown_bytes(&self, page: &mut Markup, extent: &Extent) {
        let Some((from, to)) = extent.unknown else {
            return;
        };
        let (x, end) = (self.time.at(from), self.time.at(to));
        page.element("g", &[("role", "img")], |page| {
            let text = "Bytes of this file failed; which ones is not known";
            page.leaf("title", &[], text);
            let (width, height) = ((end - x).max(4.0), self.bottom - self.top);
            rectangle(page, "bar unknown", (x, self.top), (width, height));
        });
    }

    fn cuts(&self, page: &mut Markup) {
        // In the widest part, where no other cut crosses.
        let label_x = widest_middle(self.time.sections());
        let label_y = widest_middle(self.bytes.sections());
        for ((from, to), left_out) in self.bytes.gaps() {
            let y = f64::midpoint(from, to);
            rectangle(page, "cut", (LEFT, from), (RIGHT - LEFT, to - from));
            zigzag(page, (LEFT, y), (RIGHT, y));
            let size = spell::size(u64::try_from(left_out).unwrap_or(0));
            label(
                page,
                "label middle over",
                (label_x, y + 4.0),
                &format!("{size} not shown"),
            );
        }
        for ((from, to), left_out) in self.time.gaps() {
            let x = f64::midpoint(from, to);
            let height = self.bottom - self.top;
            rectangle(page, "cut", (from, self.top), (to - from, height));
            zigzag(page, (x, self.top), (x, self.bottom));
            let text = spell::duration(left_out);
            sideways(page, "label middle over", (x + 4.0, label_y), &text);
        }
    }

    /// The line from a mark down to the bytes that it is about.
    fn reach(&self, page: &mut Markup, mark: &Mark) {
        let Some((from, to)) = mark.bytes else {
            return;
        };
        let class = match mark.symbol {
            Symbol::Lie | Symbol::LieAgain => "reach lie",
            Symbol::Told => "reach told",
            _ => return,
        };
        let x = self.time.at(mark.at);
        let (least, most) = self.bytes.values();
        if to <= least || from >= most {
            return;
        }
        let (y, end) = (self.bytes.at(from), self.bytes.at(to));
        line(page, class, (x, y), (x, end));
        if from >= least {
            line(page, class, (x - 4.0, y), (x + 4.0, y));
        }
        if to <= most {
            line(page, class, (x - 4.0, end), (x + 4.0, end));
        }
        for (from, to) in &mark.lost {
            let (y, end) = (self.bytes.at(*from), self.bytes.at(*to));
            let height = (end - y).max(bars::LEAST);
            rectangle(page, "lied-over", (x - 2.5, y), (5.0, height));
        }
    }

    fn lane_y(&self, lane: Lane) -> f64 {
        let at = self.lanes.iter().position(|own| *own == lane).unwrap_or(0);
        TOP + LANE * (at as f64 + 0.5)
    }

    fn lane_names(&self, page: &mut Markup) {
        for lane in &self.lanes {
            let y = self.lane_y(*lane);
            line(page, "lane", (LEFT, y), (RIGHT, y));
            label(page, "label end", (LEFT - 8.0, y + 4.0), lane.name());
        }
    }

    fn marks(&self, page: &mut Markup, marks: &[Mark]) {
        let mut labels: BTreeMap<Lane, Labels> = BTreeMap::new();
        // A label must not cover the next symbol.
        for mark in marks {
            let x = self.time.at(mark.at);
            let labels = labels.entry(mark.symbol.lane()).or_default();
            labels.force(x - 8.0, x + 8.0);
        }
        // Repeats below what they repeat, and named only where there is room.
        let again = |mark: &&Mark| mark.symbol == Symbol::LieAgain;
        let (below, above): (Vec<&Mark>, Vec<&Mark>) = marks.iter().partition(again);
        for mark in below.iter().chain(&above) {
            let y = self.lane_y(mark.symbol.lane());
            mark.draw(page, (self.time.at(mark.at), y));
        }
        for mark in above.into_iter().chain(below) {
            let (x, y) = (self.time.at(mark.at), self.lane_y(mark.symbol.lane()));
            let text = mark.label();
            let end = x + 10.0 + text.len() as f64 * LETTER;
            let labels = labels.entry(mark.symbol.lane()).or_default();
            if !text.is_empty() && end < WIDTH && labels.place(x + 8.5, end) {
                label(page, "label", (x + 10.0, y + 4.0), &text);
            }
        }
    }
}

/// Places taken along a line.
#[derive(Default)]
struct Labels {
    taken: Vec<(f64, f64)>,
}

impl Labels {
    /// Takes a place if it is free.
    fn place(&mut self, from: f64, to: f64) -> bool {
        let free = self.taken.iter().all(|own| to <= own.0 || from >= own.1);
        if free {
            self.taken.push((from, to));
        }
        free
    }

    fn force(&mut self, from: f64, to: f64) {
        self.taken.push((from, to));
    }
}

/// Steps that people count time in, in nanoseconds.
fn time_steps() -> Vec<i128> {
    const SECOND: i128 = 1_000_000_000;
    let mut steps = Vec::new();
    let mut power = 1;
    while power < SECOND {
        steps.extend([power, 2 * power, 5 * power]);
        power *= 10;
    }
    let seconds = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800];
    let hours = [1, 2, 3, 6, 12, 24, 48, 168, 336, 672, 8760];
    steps.extend(seconds.map(|n| n * SECOND));
    steps.extend(hours.map(|n| n * 3600 * SECOND));
    steps
}

/// As exact as the step, and no more.
fn time_format(step: Option<i128>) -> &'static str {
    match step {
        None => "%H:%M:%S.%3f",
        Some(0..1_000) => "%H:%M:%S.%9f",
        Some(1_000..1_000_000) => "%H:%M:%S.%6f",
        Some(1_000_000..100_000_000) => "%H:%M:%S.%3f",
        Some(100_000_000..1_000_000_000) => "%H:%M:%S.%1f",
        Some(1_000_000_000..60_000_000_000) => "%H:%M:%S",
        Some(60_000_000_000..86_400_000_000_000) => "%H:%M",
        Some(_) => "%b %d",
    }
}

/// Nanoseconds that the reader's clock is ahead of UTC.
fn zone_shift(section: &Section, context: &Context<'_>) -> i128 {
    let at = WallTime(i64::try_from(section.values.0).unwrap_or(0));
    let seconds = context.zone.to_offset(at.timestamp()).seconds();
    i128::from(seconds) * 1_000_000_000
}

/// A rectangle at a place, of a size.
pub(super) fn rectangle(page: &mut Markup, class: &str, at: (f64, f64), size: (f64, f64)) {
    page.shape(
        "rect",
        &[
            ("class", class),
            ("x", &format!("{:.1}", at.0)),
            ("y", &format!("{:.1}", at.1)),
            ("width", &format!("{:.1}", size.0)),
            ("height", &format!("{:.1}", size.1)),
        ],
    );
}

/// A line between two places.
pub(super) fn line(page: &mut Markup, class: &str, from: (f64, f64), to: (f64, f64)) {
    let path = format!("M{:.1} {:.1}L{:.1} {:.1}", from.0, from.1, to.0, to.1);
    page.shape("path", &[("class", class), ("d", &path)]);
}

fn label(page: &mut Markup, class: &str, at: (f64, f64), text: &str) {
    let (x, y) = (format!("{:.1}", at.0), format!("{:.1}", at.1));
    page.leaf("text", &[("class", class), ("x", &x), ("y", &y)], text);
}

/// Text that runs upwards.
fn sideways(page: &mut Markup, class: &str, at: (f64, f64), text: &str) {
    let (x, y) = (format!("{:.1}", at.0), format!("{:.1}", at.1));
    let turn = format!("rotate(-90 {x} {y})");
    let attributes = [("class", class), ("x", &x), ("y", &y), ("transform", &turn)];
    page.leaf("text", &attributes, text);
}

fn widest_middle(sections: &[Section]) -> f64 {
    let width = |it: &&Section| it.pixels.1 - it.pixels.0;
    let widest = sections.iter().max_by(|a, b| width(a).total_cmp(&width(b)));
    widest.map_or(LEFT, |it| f64::midpoint(it.pixels.0, it.pixels.1))
}

/// The mark of a cut, along a straight line.
fn zigzag(page: &mut Markup, from: (f64, f64), to: (f64, f64)) {
    const STEP: f64 = 7.0;
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let count = (dx.hypot(dy) / STEP).ceil().max(2.0);
    let (nx, ny) = (-dy / dx.hypot(dy) * 2.5, dx / dx.hypot(dy) * 2.5);
    let mut path = format!("M{:.1} {:.1}", from.0, from.1);
    let mut side = 1.0;
    let mut at = 1.0;
    while at < count {
        let (x, y) = (from.0 + dx * at / count, from.1 + dy * at / count);
        path.push_str(&format!("L{:.1} {:.1}", x + nx * side, y + ny * side));
        side = -side;
        at += 1.0;
    }
    path.push_str(&format!("L{:.1} {:.1}", to.0, to.1));
    page.shape("path", &[("class", "zigzag"), ("d", &path)]);
}
