//! What was printed on several CPUs, in the order of time; and whether lines are missing. Pure:
//! time is what the lines say.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    hash::{DefaultHasher, Hash, Hasher},
};

use super::line::Stream;

/// So many lines wait for others at most.
const MOST_WAITING: usize = 65_536;
/// They take so much memory at most, bytes, about.
const MOST_MEMORY: usize = 32 << 20;
/// What a line takes beside its bytes: what was read from it, with its strings, bytes, about.
const PER_LINE: usize = 512;
/// More streams than this are no CPUs.
const MOST_STREAMS: usize = 4096;

/// Lines that wait for those of other streams that may still come before them.
#[derive(Debug)]
pub struct Order<T> {
    /// By time, then by stream, then by arrival: how the streams were mixed does not matter.
    waiting: BTreeMap<(u64, Stream, u64), (usize, T)>,
    arrivals: u64,
    memory: usize,
    window: u64,
    /// The latest time of a line.
    newest: u64,
    /// The latest time that was handed on.
    handed_on: u64,
}

impl<T> Order<T> {
    /// Lines can come out of order by up to `window` ns.
    pub fn new(window: u64) -> Self {
        Self {
            waiting: BTreeMap::new(),
            arrivals: 0,
            memory: 0,
            window,
            newest: 0,
            handed_on: 0,
        }
    }

    /// Takes what a line of `size` bytes says. Whether its place has passed: later things were
    /// handed on.
    pub fn push(&mut self, ts: u64, stream: Stream, size: usize, it: T) -> bool {
        self.reached(ts);
        self.arrivals += 1;
        let memory = size + PER_LINE;
        self.memory += memory;
        self.waiting
            .insert((ts, stream, self.arrivals), (memory, it));
        ts < self.handed_on
    }

    /// Time has come this far.
    pub fn reached(&mut self, ts: u64) {
        self.newest = self.newest.max(ts);
    }

    /// The latest time of a line.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// What happened before this is handed on.
    pub fn horizon(&self) -> u64 {
        self.newest.saturating_sub(self.window)
    }

    /// What need not wait any longer, or cannot for want of memory, with its time.
    pub fn next(&mut self) -> Option<(u64, T)> {
        let (ts, _, _) = *self.waiting.first_key_value()?.0;
        let is_full = self.waiting.len() > MOST_WAITING || self.memory > MOST_MEMORY;
        let is_due = ts < self.horizon();
        if is_due || is_full { self.pop() } else { None }
    }

    /// The rest, one by one.
    pub fn pop(&mut self) -> Option<(u64, T)> {
        let ((ts, _, _), (memory, it)) = self.waiting.pop_first()?;
        self.memory -= memory;
        self.handed_on = self.handed_on.max(ts);
        Some((ts, it))
    }
}

/// The numbers of the lines.
#[derive(Debug, Default)]
pub struct Sequences {
    streams: BTreeMap<Stream, Sequence>,
}

#[derive(Debug, Default)]
struct Sequence {
    /// Number of the last line.
    last: u64,
    /// How many came.
    came: u64,
    /// Of its bytes.
    hash: u64,
    /// How many the script says there were.
    count: Option<u64>,
}

/// How a line stands to those of its stream before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// As it should be. Also a line with the number of the last one that says something else: on
    /// Linux a probe can interrupt another while it counts.
    Next,
    /// So many lines before it did not come.
    After(u64),
    /// It is the last one again.
    Repeated,
    /// This number had passed.
    Back,
    /// There are too many streams.
    NoStream,
}

impl Sequences {
    /// A line came.
    pub fn place(&mut self, stream: Stream, n: u64, line: &[u8]) -> Place {
        let Some(sequence) = self.of(stream) else {
            return Place::NoStream;
        };
        let mut hasher = DefaultHasher::new();
        line.hash(&mut hasher);
        let hash = hasher.finish();
        if n < sequence.last || n == 0 {
            return Place::Back;
        }
        if n == sequence.last && hash == sequence.hash {
            return Place::Repeated;
        }
        let missing = (n - sequence.last).saturating_sub(1);
        (sequence.last, sequence.hash) = (n, hash);
        sequence.came += 1;
        match missing {
            0 => Place::Next,
            missing => Place::After(missing),
        }
    }

    /// The script says how many lines a stream had. Whether there was room for it.
    pub fn count(&mut self, stream: Stream, count: u64) -> bool {
        let sequence = self.of(stream);
        if let Some(sequence) = sequence {
            sequence.count = Some(sequence.count.map_or(count, |other| other.max(count)));
            return true;
        }
        false
    }

    fn of(&mut self, stream: Stream) -> Option<&mut Sequence> {
        let streams = self.streams.len();
        match self.streams.entry(stream) {
            Entry::Occupied(sequence) => Some(sequence.into_mut()),
            Entry::Vacant(_) if streams == MOST_STREAMS => None,
            Entry::Vacant(place) => Some(place.insert(Sequence::default())),
        }
    }

    /// Streams whose last lines did not come, or of which nobody says how many there were, once the
    /// run has ended; with the number of missing lines, at least.
    ///
    /// `stop_in`: the stream of the line that ends the run. It may be counted or not.
    pub fn missing(&self, stop_in: Stream) -> Vec<(Stream, Option<u64>)> {
        let missing = |(stream, sequence): (&Stream, &Sequence)| {
            let uncounted = u64::from(*stream == stop_in);
            // Where a number came twice there are more lines than numbers.
            let is_right = |count: u64| {
                let with_stop = count.saturating_add(uncounted);
                [count, with_stop]
                    .iter()
                    .any(|count| [sequence.last, sequence.came].contains(count))
            };
            match sequence.count {
                // A stream of which only the last line of all came.
                None if sequence.last == uncounted => None,
                None => Some((*stream, None)),
                Some(count) if is_right(count) => None,
                Some(count) => Some((*stream, Some(count.abs_diff(sequence.last)))),
            }
        };
        self.streams.iter().filter_map(missing).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(name: &str) -> Stream {
        Stream::new(name.as_bytes()).unwrap()
    }

    #[test]
    fn what_two_cpus_printed_comes_out_by_time() {
        let mut order = Order::new(100);
        let (a, b) = (stream("a"), stream("b"));
        assert!(!order.push(50, a, 1, "a50"));
        assert!(!order.push(150, a, 1, "a150"));
        assert_eq!(order.next(), None, "another of 50 may still come");
        assert!(!order.push(49, b, 1, "b49"));
        assert_eq!(order.next(), Some((49, "b49")));
        assert_eq!(order.next(), None);
        order.reached(151);
        assert_eq!(order.next(), Some((50, "a50")));
        assert_eq!(order.next(), None);
        assert!(order.push(48, b, 1, "b48"), "its place has passed");
        assert_eq!(
            order.next(),
            Some((48, "b48")),
            "it is handed on all the same"
        );
        assert_eq!(order.pop(), Some((150, "a150")));
        assert_eq!(order.waiting.len(), 0);
    }

    #[test]
    fn a_window_of_an_hour_takes_no_more_memory() {
        let mut order = Order::new(u64::MAX);
        for ts in 0..3 * MOST_WAITING as u64 {
            order.push(ts, stream("a"), 100, ());
            while order.next().is_some() {}
            assert!(order.waiting.len() <= MOST_WAITING && order.memory <= MOST_MEMORY);
        }
        assert!(order.waiting.len() > 1000);
    }

    #[test]
    fn a_number_that_is_missing_or_comes_twice_is_noticed() {
        let mut sequences = Sequences::default();
        let a = stream("a");
        assert_eq!(sequences.place(a, 1, b"one"), Place::Next);
        assert_eq!(sequences.place(a, 1, b"one"), Place::Repeated);
        assert_eq!(sequences.place(a, 1, b"interrupted"), Place::Next);
        assert_eq!(sequences.place(a, 4, b"four"), Place::After(2));
        assert_eq!(sequences.place(a, 3, b"three"), Place::Back);
        assert_eq!(sequences.place(a, 0, b"zero"), Place::Back);
        assert_eq!(sequences.place(stream("b"), 3, b"three"), Place::After(2));
    }

    #[test]
    fn the_counts_at_the_end_are_compared() {
        let mut sequences = Sequences::default();
        let (a, b, c, stop) = (stream("a"), stream("b"), stream("c"), stream("-"));
        sequences.place(a, 1, b"one");
        sequences.place(b, 1, b"one");
        assert!(sequences.count(a, 1));
        assert!(sequences.count(c, 5));
        assert_eq!(
            sequences.missing(stop),
            [(b, None), (c, Some(5))],
            "of b nobody said how many, of c nothing came"
        );
        sequences.count(b, 1);
        sequences.place(a, 2, b"stop");
        assert_eq!(sequences.missing(a), [(c, Some(5))]);
        assert_eq!(sequences.missing(stop), [(a, Some(1)), (c, Some(5))]);
    }

    /// Whether the script counts numbers or lines, a number that came twice is no loss.
    #[test]
    fn a_count_is_of_numbers_or_of_lines() {
        for (count, missing) in [(1, None), (2, None), (3, Some(2))] {
            let mut sequences = Sequences::default();
            let a = stream("a");
            sequences.place(a, 1, b"one");
            sequences.place(a, 1, b"interrupted");
            sequences.count(a, count);
            let missing: Vec<_> = missing.map(|n| (a, Some(n))).into_iter().collect();
            assert_eq!(sequences.missing(stream("-")), missing, "{count}");
        }
    }

    #[test]
    fn very_many_streams_are_refused() {
        let mut sequences = Sequences::default();
        for cpu in 0..MOST_STREAMS {
            let place = sequences.place(stream(&cpu.to_string()), 1, b"");
            assert_eq!(place, Place::Next);
        }
        assert_eq!(sequences.place(stream("more"), 1, b""), Place::NoStream);
        assert!(!sequences.count(stream("more"), 1));
    }
}
