//! Which value holds for which bytes: ranges that do not overlap, in a B-tree. Knows nothing of
//! files or failures.
//!
//! Neighbours with equal values are one entry, whatever the order they arrived in: 1,000,000
//! failed pages side by side cost as much as one. So a value should say as little as possible,
//! and what many ranges have in common belongs behind a number.

use std::collections::BTreeMap;

use crate::model::{ByteRange, keep::Keep};

/// From byte ranges to values; see the file's head.
#[derive(Clone, Debug)]
pub(crate) struct IntervalMap<V> {
    /// Start of each range → its end and value. Invariants: no range is empty, none overlaps
    /// another, and two that touch have different values.
    spans: BTreeMap<u64, Span<V>>,
    /// Room for [`Self::update`] to work in, kept to save allocations.
    pieces: Vec<(u64, Span<V>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span<V> {
    end: u64,
    value: V,
}

impl<V> Default for IntervalMap<V> {
    fn default() -> Self {
        Self {
            spans: BTreeMap::new(),
            pieces: Vec::new(),
        }
    }
}

impl<V: Copy + Eq> IntervalMap<V> {
    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Memory that the entries take, bytes, about.
    pub(crate) fn memory(&self) -> usize {
        tree_memory::<u64, Span<V>>(self.len())
    }

    /// Whether no byte has a value.
    pub(crate) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// All entries, by offset.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ByteRange, V)> {
        self.within(ByteRange::ALL)
    }

    /// The entries that share bytes with `range`, cut to it, by offset.
    pub(crate) fn within(&self, range: ByteRange) -> impl Iterator<Item = (ByteRange, V)> {
        let low = self.start_of_span_over(range.start());
        self.spans
            .range(low..range.end())
            .filter_map(move |(&start, span)| {
                let piece = ByteRange::new(start, span.end)?.intersect(range)?;
                Some((piece, span.value))
            })
    }

    /// Gives every byte of `range` a new value (`None`: none any more). `change` is called once
    /// for every piece of `range` that has one value so far, and for every gap (`None`), by
    /// offset.
    pub(crate) fn update(
        &mut self,
        range: ByteRange,
        mut change: impl FnMut(ByteRange, Option<V>) -> Option<V>,
    ) {
        // One look-up finds the last entry that could overlap the range or touch its end. The usual
        // cases in a storm: that entry ends where the range begins, or holds all of it.
        match self.spans.range_mut(..=range.end()).next_back() {
            Some((_, span)) if span.end == range.start() => {
                let Some(value) = change(range, None) else {
                    return;
                };
                if span.value == value {
                    span.end = range.end();
                } else {
                    let end = range.end();
                    self.spans.insert(range.start(), Span { end, value });
                }
            }
            Some((&start, span)) if start < range.start() && range.end() < span.end => {
                let (value, end) = (span.value, span.end);
                let new = change(range, Some(value));
                if new == Some(value) {
                    return;
                }
                span.end = range.start();
                if let Some(value) = new {
                    let end = range.end();
                    self.spans.insert(range.start(), Span { end, value });
                }
                self.spans.insert(range.end(), Span { end, value });
            }
            Some((_, span)) if span.end > range.start() => self.update_overlapping(range, change),
            _ => {
                if let Some(value) = change(range, None) {
                    let end = range.end();
                    self.spans.insert(range.start(), Span { end, value });
                }
            }
        }
    }

    /// [`Self::update`] for a range that overlaps entries, or touches one behind it.
    fn update_overlapping(
        &mut self,
        range: ByteRange,
        mut change: impl FnMut(ByteRange, Option<V>) -> Option<V>,
    ) {
        let mut pieces = std::mem::take(&mut self.pieces);
        let low = self.start_of_span_over(range.start());
        let mut cursor = range.start();
        let mut tail = None;
        for (start, span) in self.spans.extract_if(low..range.end(), |_, _| true) {
            if start < range.start() {
                push(&mut pieces, start, range.start(), Some(span.value));
            }
            if let Some(gap) = ByteRange::new(cursor, start) {
                push(&mut pieces, gap.start(), gap.end(), change(gap, None));
            }
            if let Some(piece) = ByteRange::new(start, span.end).and_then(|s| s.intersect(range)) {
                let value = change(piece, Some(span.value));
                push(&mut pieces, piece.start(), piece.end(), value);
                cursor = piece.end();
            }
            if span.end > range.end() {
                tail = Some(span);
            }
        }
        if let Some(gap) = ByteRange::new(cursor, range.end()) {
            push(&mut pieces, gap.start(), gap.end(), change(gap, None));
        }
        if let Some(span) = tail {
            push(&mut pieces, range.end(), span.end, Some(span.value));
        }
        self.join_neighbours(&mut pieces);
        self.spans.extend(pieces.drain(..));
        self.pieces = pieces;
    }

    /// Lets the first and the last piece swallow an equal neighbour outside.
    fn join_neighbours(&mut self, pieces: &mut [(u64, Span<V>)]) {
        if let Some((start, first)) = pieces.first_mut()
            && let Some((&before, span)) = self.spans.range(..*start).next_back()
            && span.end == *start
            && span.value == first.value
        {
            // Its entry is overwritten when the piece goes in.
            *start = before;
        }
        if let Some((_, last)) = pieces.last_mut()
            && let Some(span) = self.spans.get(&last.end)
            && span.value == last.value
        {
            let end = span.end;
            self.spans.remove(&last.end);
            last.end = end;
        }
    }

    /// Where the entry that holds `offset` begins, or `offset` where none does.
    fn start_of_span_over(&self, offset: u64) -> u64 {
        match self.spans.range(..=offset).next_back() {
            Some((&start, span)) if span.end > offset => start,
            _ => offset,
        }
    }
}

/// Memory that a B-tree of so many entries takes, bytes, about: a node has room for 11, and all
/// but the first are half full at least.
pub(super) fn tree_memory<K, V>(len: usize) -> usize {
    match len {
        0 => 0,
        _ => (size_of::<K>() + size_of::<V>()) * (len * 3 / 2).max(11),
    }
}

/// Appends `start..end`, to the last piece if that touches it and has the same value.
fn push<V: Eq>(pieces: &mut Vec<(u64, Span<V>)>, start: u64, end: u64, value: Option<V>) {
    let Some(value) = value else {
        return;
    };
    match pieces.last_mut() {
        Some((_, last)) if last.end == start && last.value == value => last.end = end,
        _ => pieces.push((start, Span { end, value })),
    }
}

impl<V: Keep> Keep for IntervalMap<V> {
    fn keep(&self, into: &mut Vec<u8>) {
        self.spans.keep(into);
    }

    fn kept(from: &mut &[u8]) -> Option<Self> {
        let (spans, pieces) = (Keep::kept(from)?, Vec::new());
        Some(Self { spans, pieces })
    }
}

impl<V: Keep> Keep for Span<V> {
    fn keep(&self, into: &mut Vec<u8>) {
        self.end.keep(into);
        self.value.keep(into);
    }

    fn kept(from: &mut &[u8]) -> Option<Self> {
        let (end, value) = (Keep::kept(from)?, Keep::kept(from)?);
        Some(Self { end, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    fn pages(first: u64, end: u64) -> ByteRange {
        ByteRange::new(first * PAGE, end * PAGE).unwrap()
    }

    fn set(map: &mut IntervalMap<char>, range: ByteRange, value: char) {
        map.update(range, |_, _| Some(value));
    }

    fn shown(map: &IntervalMap<char>) -> String {
        let entries: Vec<_> = map
            .iter()
            .map(|(r, v)| format!("{}-{}{v}", r.start() / PAGE, r.end() / PAGE))
            .collect();
        entries.join(" ")
    }

    #[test]
    fn a_million_neighbours_are_one_entry_in_any_order() {
        let mut upwards = IntervalMap::default();
        let mut downwards = IntervalMap::default();
        let mut evens_then_odds = IntervalMap::default();
        for page in 0..1_000_000 {
            set(&mut upwards, pages(page, page + 1), 'x');
        }
        for page in (0..100_000).rev() {
            set(&mut downwards, pages(page, page + 1), 'x');
        }
        for page in (0..1000).step_by(2).chain((1..1000).step_by(2)) {
            set(&mut evens_then_odds, pages(page, page + 1), 'x');
        }
        assert_eq!(upwards.len(), 1);
        assert_eq!(downwards.len(), 1);
        assert_eq!(evens_then_odds.len(), 1);
    }

    #[test]
    fn different_values_stay_apart_and_an_equal_one_closes_the_gap() {
        let mut map = IntervalMap::default();
        set(&mut map, pages(0, 2), 'a');
        set(&mut map, pages(2, 4), 'b');
        set(&mut map, pages(5, 6), 'b');
        assert_eq!(shown(&map), "0-2a 2-4b 5-6b");
        set(&mut map, pages(4, 5), 'b');
        assert_eq!(shown(&map), "0-2a 2-6b");
        set(&mut map, pages(1, 5), 'a');
        assert_eq!(shown(&map), "0-5a 5-6b");
    }

    #[test]
    fn a_hole_in_the_middle_leaves_both_ends() {
        let mut map = IntervalMap::default();
        set(&mut map, pages(0, 10), 'a');
        map.update(pages(3, 4), |_, _| None);
        assert_eq!(shown(&map), "0-3a 4-10a");
        map.update(ByteRange::ALL, |_, _| None);
        assert!(map.is_empty());
    }

    #[test]
    fn update_sees_every_piece_and_every_gap_once() {
        let mut map = IntervalMap::default();
        set(&mut map, pages(1, 3), 'a');
        set(&mut map, pages(3, 4), 'b');
        set(&mut map, pages(6, 9), 'c');
        let mut seen = Vec::new();
        map.update(pages(0, 8), |piece, value| {
            seen.push((piece, value));
            value
        });
        assert_eq!(
            seen,
            [
                (pages(0, 1), None),
                (pages(1, 3), Some('a')),
                (pages(3, 4), Some('b')),
                (pages(4, 6), None),
                (pages(6, 8), Some('c')),
            ]
        );
        assert_eq!(shown(&map), "1-3a 3-4b 6-9c");
    }

    #[test]
    fn within_cuts_to_what_was_asked_for() {
        let mut map = IntervalMap::default();
        set(&mut map, pages(0, 4), 'a');
        set(&mut map, pages(6, 9), 'b');
        let found: Vec<_> = map.within(pages(2, 7)).collect();
        assert_eq!(found, [(pages(2, 4), 'a'), (pages(6, 7), 'b')]);
        assert_eq!(map.within(pages(4, 6)).count(), 0);
    }

    #[test]
    fn agrees_with_an_array_of_bytes() {
        // A small generator: the test is the same on every machine.
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        let mut map = IntervalMap::default();
        let mut bytes = [None; 40];
        for _ in 0..20_000 {
            let start = next(40);
            let end = start + 1 + next(40 - start);
            let value = [None, Some('a'), Some('b'), Some('c')][next(4) as usize];
            map.update(ByteRange::new(start, end).unwrap(), |_, _| value);
            bytes[start as usize..end as usize].fill(value);

            let mut expected = Vec::new();
            for (at, value) in bytes.iter().enumerate() {
                if let Some(value) = *value {
                    push(&mut expected, at as u64, at as u64 + 1, Some(value));
                }
            }
            let found: Vec<_> = map.spans.iter().map(|(k, v)| (*k, *v)).collect();
            assert_eq!(found, expected);
        }
    }
}
