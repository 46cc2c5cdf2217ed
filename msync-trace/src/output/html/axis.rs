//! Scales from bytes or nanoseconds to pixels, cut where nothing happened.
//!
//! A lost page in a terabyte would be no pixel wide, and the second in which a disk died none in a
//! run of a week. So an axis has sections, each with a scale of its own, with marked gaps between.

/// What an axis has to show: from..to, from ≤ to.
pub(super) type Span = (i128, i128);

/// Sections at most: more are harder to read than small marks.
const MAX_SECTIONS: usize = 6;
/// A gap is worth a cut if it is so many times longer than what it separates.
const WORTH: i128 = 4;
/// The gaps of a set that stand out are so many times longer than the next.
const STANDS_OUT: i128 = 20;

/// A scale in sections, from `start` to `end` pixels.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    sections: Vec<Section>,
}

/// A part of an axis with one scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Section {
    /// First and last value.
    pub(super) values: Span,
    /// Their pixels.
    pub(super) pixels: (f64, f64),
}

/// How an axis is laid out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// First and last pixel.
    pub(super) pixels: (f64, f64),
    /// Pixels of a gap.
    pub(super) gap: f64,
    /// A section shows at least so much.
    pub(super) least: i128,
    /// Ends of sections are multiples of this.
    pub(super) grain: i128,
    /// Nothing is shown below.
    pub(super) floor: i128,
}

/// Where an axis has labels.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ticks {
    /// From one to the next; `None` if no round value is in sight, and it is where the section begins.
    pub(super) step: Option<i128>,
    /// Ascending, at least one.
    pub(super) values: Vec<i128>,
}

impl Axis {
    /// For ranges: what they hold is shown, and each group of them can be seen.
    pub(super) fn of_ranges(spans: &[Span], layout: Layout) -> Self {
        let spans = merged(spans);
        let threshold = range_threshold(&spans);
        Self::cut(&spans, threshold, layout)
    }

    /// For moments: proportions are kept, unless most moments would fall together.
    pub(super) fn of_moments(moments: &[i128], layout: Layout) -> Self {
        let points: Vec<Span> = moments.iter().map(|at| (*at, *at)).collect();
        let points = merged(&points);
        let threshold = moment_threshold(&points);
        Self::cut(&points, threshold, layout)
    }

    /// The sections, first to last; at least one.
    pub(super) fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The gaps between sections: the pixel where each begins and ends, and what it leaves out.
    pub(super) fn gaps(&self) -> impl Iterator<Item = ((f64, f64), i128)> {
        self.sections.windows(2).map(|pair| {
            let pixels = (pair[0].pixels.1, pair[1].pixels.0);
            (pixels, pair[1].values.0 - pair[0].values.1)
        })
    }

    /// The pixel of a value; of one in a gap, in its middle; of one outside, the nearer end.
    pub(super) fn at(&self, value: i128) -> f64 {
        let after = self.sections.partition_point(|it| it.values.1 < value);
        let Some(section) = self.sections.get(after) else {
            return self.end();
        };
        if value >= section.values.0 {
            return section.at(value);
        }
        match after.checked_sub(1) {
            None => section.pixels.0,
            Some(before) => f64::midpoint(self.sections[before].pixels.1, section.pixels.0),
        }
    }

    /// The last pixel.
    pub(super) fn end(&self) -> f64 {
        self.sections[self.sections.len() - 1].pixels.1
    }

    /// First and last value that can be shown.
    pub(super) fn values(&self) -> Span {
        let last = self.sections[self.sections.len() - 1];
        (self.sections[0].values.0, last.values.1)
    }

    fn cut(spans: &[Span], threshold: Option<i128>, layout: Layout) -> Self {
        let mut groups: Vec<Span> = Vec::new();
        for span in spans {
            match groups.last_mut() {
                Some(last) if threshold.is_none_or(|least| span.0 - last.1 < least) => {
                    last.1 = span.1;
                }
                _ => groups.push(*span),
            }
        }
        if groups.is_empty() {
            groups.push((0, layout.least));
        }
        let groups = padded(&groups, layout);
        Self {
            sections: placed(&groups, layout),
        }
    }
}

impl Section {
    fn at(&self, value: i128) -> f64 {
        let (from, to) = self.values;
        let (start, end) = self.pixels;
        let part = (value - from) as f64 / (to - from).max(1) as f64;
        start + part * (end - start)
    }

    /// Values at round steps, no closer to each other than `apart` pixels. `steps` ascend; `shift`
    /// moves what counts as round (a time zone).
    pub(super) fn ticks(&self, steps: &[i128], apart: f64, shift: i128) -> Ticks {
        let (from, to) = self.values;
        let per_pixel = (to - from) as f64 / (self.pixels.1 - self.pixels.0).max(1.0);
        let wanted = per_pixel * apart;
        let Some(step) = steps.iter().copied().find(|step| *step as f64 >= wanted) else {
            return Ticks::none(from);
        };
        let first = (from + shift).div_euclid(step) * step - shift;
        let values: Vec<i128> = (0..)
            .map(|n| first + n * step)
            .skip_while(|at| *at < from)
            .take_while(|at| *at <= to)
            .take(64)
            .collect();
        match values.is_empty() {
            true => Ticks::none(from),
            false => Ticks {
                step: Some(step),
                values,
            },
        }
    }
}

impl Ticks {
    fn none(from: i128) -> Self {
        Self {
            step: None,
            values: vec![from],
        }
    }
}

/// Sorted, and those that touch made one.
fn merged(spans: &[Span]) -> Vec<Span> {
    let mut sorted = spans.to_vec();
    sorted.sort_unstable();
    let mut out: Vec<Span> = Vec::new();
    for span in sorted {
        match out.last_mut() {
            Some(last) if span.0 <= last.1 => last.1 = last.1.max(span.1),
            _ => out.push(span),
        }
    }
    out
}

fn gaps_of(spans: &[Span]) -> Vec<i128> {
    let mut gaps: Vec<i128> = spans.windows(2).map(|pair| pair[1].0 - pair[0].1).collect();
    gaps.sort_unstable();
    gaps
}

/// From which length on a gap between ranges is cut out.
fn range_threshold(spans: &[Span]) -> Option<i128> {
    let gaps = gaps_of(spans);
    let mut shown: i128 = spans.iter().map(|span| span.1 - span.0).sum();
    for (at, gap) in gaps.iter().enumerate() {
        let grows_too_far = *gap > shown.saturating_mul(WORTH);
        if grows_too_far && gaps.len() - at < MAX_SECTIONS {
            return Some(*gap);
        }
        shown += gap;
    }
    None
}

/// From which length on a gap between moments is cut out.
fn moment_threshold(points: &[Span]) -> Option<i128> {
    let gaps = gaps_of(points);
    let cuts = (1..MAX_SECTIONS.min(gaps.len())).find(|cuts| {
        let at = gaps.len() - cuts;
        gaps[at] > gaps[at - 1].saturating_mul(STANDS_OUT)
    })?;
    let threshold = gaps[gaps.len() - cuts];
    // Worth it only if many moments would fall together without.
    let alone = alone(points, threshold);
    (alone * 2 <= points.len()).then_some(threshold)
}

/// Points that have no neighbour within the threshold.
fn alone(points: &[Span], threshold: i128) -> usize {
    let near = |a: Option<&Span>, b: Option<&Span>| match (a, b) {
        (Some(a), Some(b)) => b.0 - a.1 < threshold,
        _ => false,
    };
    (0..points.len())
        .filter(|&at| {
            let before = at.checked_sub(1).and_then(|before| points.get(before));
            let (own, after) = (points.get(at), points.get(at + 1));
            !near(before, own) && !near(own, after)
        })
        .count()
}

/// With some room around each group, but never into another one.
fn padded(groups: &[Span], layout: Layout) -> Vec<Span> {
    let mut out = Vec::with_capacity(groups.len());
    for (at, &(from, to)) in groups.iter().enumerate() {
        let room = ((to - from) / 12).max((layout.least - (to - from)) / 2);
        let room = room.max(layout.grain);
        let before = match at.checked_sub(1) {
            None => room,
            Some(before) => room.min((from - groups[before].1) / 3),
        };
        let after = match groups.get(at + 1) {
            None => room,
            Some(next) => room.min((next.0 - to) / 3),
        };
        let start = (from - before).div_euclid(layout.grain) * layout.grain;
        let start = start.max(layout.floor);
        let end = -(-(to + after)).div_euclid(layout.grain) * layout.grain;
        out.push((start, end.max(start + 1)));
    }
    out
}

/// Half of the pixels is shared evenly, half by the root of what is shown: a group a million times
/// as long is not a million times as wide.
fn placed(groups: &[Span], layout: Layout) -> Vec<Section> {
    let (start, end) = layout.pixels;
    let count = groups.len() as f64;
    let room = (end - start - layout.gap * (count - 1.0)).max(count);
    let root = |group: &Span| ((group.1 - group.0) as f64).sqrt();
    let roots: f64 = groups.iter().map(root).sum();
    let mut at = start;
    let mut sections = Vec::with_capacity(groups.len());
    for group in groups {
        let width = room / 2.0 / count + room / 2.0 * root(group) / roots;
        sections.push(Section {
            values: *group,
            pixels: (at, at + width),
        });
        at += width + layout.gap;
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGES: Layout = Layout {
        pixels: (100.0, 400.0),
        gap: 20.0,
        least: 16_384,
        grain: 4096,
        floor: 0,
    };
    const TIMES: Layout = Layout {
        pixels: (0.0, 800.0),
        gap: 20.0,
        least: 1_000_000,
        grain: 1,
        floor: i128::MIN,
    };
    const SECOND: i128 = 1_000_000_000;
    const TIB: i128 = 1 << 40;

    #[test]
    fn pages_far_apart_in_a_huge_file_can_all_be_seen() {
        let page = |at: i128| (at, at + 4096);
        let axis = Axis::of_ranges(&[page(0), page(TIB), page(2 * TIB)], PAGES);
        assert_eq!(axis.sections().len(), 3);
        for at in [0, TIB, 2 * TIB] {
            let (from, to) = page(at);
            assert!(axis.at(to) - axis.at(from) > 10.0, "{axis:?}");
        }
        assert_eq!(axis.gaps().count(), 2);
    }

    #[test]
    fn pages_all_over_a_file_keep_their_proportions() {
        let spans: Vec<Span> = (0..40).map(|n| (n << 20, (n << 20) + 4096)).collect();
        let axis = Axis::of_ranges(&spans, PAGES);
        assert_eq!(axis.sections().len(), 1);
    }

    #[test]
    fn one_range_has_some_room_around() {
        let axis = Axis::of_ranges(&[(8192, 12_288)], PAGES);
        assert_eq!(axis.sections()[0].values, (0, 20_480));
        assert_eq!(axis.at(0), 100.0);
        assert_eq!(axis.at(20_480), 400.0);
    }

    #[test]
    fn two_bursts_a_day_apart_are_cut_and_an_even_rhythm_is_not() {
        let day = 86_400 * SECOND;
        let ms = SECOND / 1000;
        let bursts = [0, ms, 3 * ms, day, day + ms];
        assert_eq!(Axis::of_moments(&bursts, TIMES).sections().len(), 2);
        let even: Vec<i128> = (0..10).map(|n| n * SECOND).collect();
        assert_eq!(Axis::of_moments(&even, TIMES).sections().len(), 1);
        // One pair that falls together is no reason to lose the rhythm of the rest.
        let retries = [0, 100, 30 * SECOND, 60 * SECOND, 90 * SECOND];
        assert_eq!(Axis::of_moments(&retries, TIMES).sections().len(), 1);
    }

    #[test]
    fn nothing_and_a_single_moment_have_an_axis_too() {
        assert_eq!(Axis::of_moments(&[], TIMES).sections().len(), 1);
        let axis = Axis::of_moments(&[5 * SECOND], TIMES);
        assert_eq!(axis.at(5 * SECOND), 400.0);
    }

    #[test]
    fn what_lies_in_a_gap_or_outside_has_a_place() {
        let axis = Axis::of_ranges(&[(0, 4096), (TIB, TIB + 4096)], PAGES);
        let (gap, left_out) = axis.gaps().next().unwrap();
        assert!(left_out > TIB / 2);
        assert!((gap.0..=gap.1).contains(&axis.at(TIB / 2)));
        assert_eq!(axis.at(i128::from(u64::MAX)), 400.0);
        assert_eq!(axis.at(-1_000_000), 100.0);
    }

    #[test]
    fn ticks_are_round_in_the_zone_of_the_reader() {
        let hour = 3600 * SECOND;
        let section = Section {
            values: (10 * hour + 5, 34 * hour),
            pixels: (0.0, 400.0),
        };
        let half_past = hour / 2;
        let ticks = section.ticks(&[6 * hour], 90.0, half_past).values;
        assert_eq!(ticks.len(), 4);
        assert!(ticks.iter().all(|at| (at + half_past) % (6 * hour) == 0));
        let unknown = section.ticks(&[1], 90.0, 0);
        assert_eq!(unknown, Ticks::none(10 * hour + 5));
    }

    proptest! {
        /// Whatever is shown: in order, inside, and never a number that SVG cannot say.
        #[test]
        fn an_axis_ascends(spans in proptest::collection::vec((any::<u64>(), any::<u32>()), 0..40)) {
            let spans: Vec<Span> = spans
                .iter()
                .map(|(from, len)| (i128::from(*from), i128::from(*from) + i128::from(*len)))
                .collect();
            let moments: Vec<i128> = spans.iter().map(|span| span.0).collect();
            for axis in [Axis::of_ranges(&spans, PAGES), Axis::of_moments(&moments, PAGES)] {
                prop_assert!(axis.sections().len() <= MAX_SECTIONS);
                let mut values: Vec<i128> = spans.iter().flat_map(|s| [s.0, s.1]).collect();
                values.sort_unstable();
                let pixels: Vec<f64> = values.iter().map(|value| axis.at(*value)).collect();
                prop_assert!(pixels.iter().all(|at| (99.9..=400.1).contains(at)), "{:?}", pixels);
                prop_assert!(pixels.windows(2).all(|pair| pair[0] <= pair[1] + 1e-6));
            }
        }
    }
}
