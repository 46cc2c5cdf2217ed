//! What became of the bytes of one inode that could not be written: facts in, ranges out, each with
//! its story. The rules are those of the correlator, without its verdicts.
//!
//! A story holds for all ranges that share it: what failed (or was written, or left memory) within
//! [`ROW`] of each other is one story, and its times are those of the first and the last of them.

use crate::{
    correlate::interval::IntervalMap,
    model::{ByteRange, Errno, InMemory},
    schema::LossState,
};

/// Events no further apart than this, nanoseconds, are one storm.
pub(super) const ROW: u64 = 1_000_000_000;

/// What happened to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// They could not be written; whether evictions are watched from now on.
    Failed { errno: Errno, watched: bool },
    /// They were written after all.
    Written,
    /// They were given up on purpose.
    Discarded,
    /// They left memory.
    Evicted,
    /// They are dirty again, so memory has them.
    Redirtied,
}

/// What became of some bytes. Times are kernel time, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Story {
    pub(super) state: LossState,
    pub(super) memory: InMemory,
    pub(super) errno: Errno,
    pub(super) failures: u32,
    pub(super) first: u64,
    pub(super) last: u64,
    /// When they were written after all, or given up.
    pub(super) ended: Option<u64>,
    pub(super) evicted: Option<u64>,
    /// Dirty again since they failed.
    dirty: bool,
    /// The newest event that this story was told of.
    touched: u64,
}

impl Story {
    fn of_failure(at: u64, errno: Errno, watched: bool) -> Self {
        Self {
            state: LossState::Outstanding,
            memory: held(watched),
            errno,
            failures: 1,
            first: at,
            last: at,
            ended: None,
            evicted: None,
            dirty: false,
            touched: at,
        }
    }

    /// The story as it goes on, or `None` if this event does not change it.
    fn next(&self, event: Event, at: u64) -> Option<Self> {
        let mut next = Self {
            touched: at,
            ..*self
        };
        match event {
            Event::Failed { errno, watched } => {
                next = Self {
                    failures: self.failures.saturating_add(1),
                    first: self.first,
                    ..Self::of_failure(at, errno, watched)
                };
            }
            _ if self.state != LossState::Outstanding => return None,
            Event::Written | Event::Discarded => {
                next.state = match event {
                    Event::Written => LossState::Recovered,
                    _ => LossState::Discarded,
                };
                next.ended = Some(at);
                next.dirty = false;
            }
            // Dirty again and gone without a write: lost again, with the error of before.
            Event::Evicted if self.dirty => {
                next.failures = self.failures.saturating_add(1);
                next.last = at;
                next.dirty = false;
                next.leave_memory(at);
            }
            Event::Evicted if self.memory == InMemory::No => return None,
            Event::Evicted => next.leave_memory(at),
            // One that is older than the failure is the store whose write failed.
            Event::Redirtied if self.dirty || at < self.last => return None,
            Event::Redirtied => {
                next.dirty = true;
                next.memory = InMemory::Yes;
                next.evicted = None;
            }
        }
        Some(next)
    }

    fn leave_memory(&mut self, at: u64) {
        self.memory = InMemory::No;
        self.evicted = Some(at);
    }

    /// Takes in another that is told with this one from now on.
    fn widen(&mut self, other: &Self) {
        self.failures = self.failures.max(other.failures);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.ended = self.ended.max(other.ended);
        self.evicted = self.evicted.max(other.evicted);
        self.touched = self.touched.max(other.touched);
    }

    /// Takes in the same event on other bytes, if it is one storm; says whether it is.
    fn goes_on(&mut self, event: Event, at: u64) -> bool {
        if at.abs_diff(self.touched) > ROW {
            return false;
        }
        self.touched = self.touched.max(at);
        match event {
            Event::Failed { .. } => self.last = self.last.max(at),
            Event::Written | Event::Discarded => self.ended = self.ended.max(Some(at)),
            Event::Evicted => self.evicted = self.evicted.max(Some(at)),
            Event::Redirtied => {}
        }
        true
    }

    /// Whether they came to the same.
    fn ends_like(&self, other: &Self) -> bool {
        let end = |s: &Self| (s.state, s.memory, s.errno, s.dirty);
        end(self) == end(other)
    }
}

fn held(watched: bool) -> InMemory {
    match watched {
        true => InMemory::Yes,
        false => InMemory::Unknown,
    }
}

/// The stories of one inode in one run.
#[derive(Debug, Default)]
pub(super) struct Stories {
    /// Which bytes have which story, by its place in `stories`.
    spans: IntervalMap<u32>,
    stories: Vec<Story>,
    /// Which story became which in the storm that goes on.
    recent: Vec<Step>,
    /// Whether stories that end alike are one.
    coarse: bool,
    /// Failures of which only the inode is known, and whether the last is outstanding.
    pub(super) without_range: u64,
    pub(super) whole_outstanding: bool,
    /// The newest failure, kernel time.
    pub(super) last_failed: u64,
}

/// In a storm, bytes with this story (or none) had this happen to them, and have that story now.
#[derive(Clone, Copy, Debug)]
struct Step {
    from: Option<u32>,
    event: Event,
    to: u32,
}

/// So many steps of a storm are remembered.
const STEPS: usize = 64;

impl Stories {
    /// Something happened to `range` at this kernel time. `limit`: so many different stories are told
    /// before those that end alike become one.
    pub(super) fn tell(&mut self, range: ByteRange, event: Event, at: u64, limit: usize) {
        if let Event::Failed { .. } = event {
            self.last_failed = self.last_failed.max(at);
        }
        if range == ByteRange::ALL && matches!(event, Event::Written | Event::Discarded) {
            self.whole_outstanding = false;
        }
        let Self {
            spans,
            stories,
            recent,
            coarse,
            ..
        } = self;
        spans.update(range, |_, before| {
            let step = recent
                .iter()
                .rfind(|step| step.from == before && step.event == event);
            if let Some(step) = step
                && stories[step.to as usize].goes_on(event, at)
            {
                return Some(step.to);
            }
            let next = match (before, event) {
                (Some(before), _) => stories[before as usize].next(event, at),
                (None, Event::Failed { errno, watched }) => {
                    Some(Story::of_failure(at, errno, watched))
                }
                (None, _) => None,
            };
            let Some(next) = next else {
                return before;
            };
            let to = add(stories, next, *coarse);
            if recent.len() == STEPS {
                recent.drain(..STEPS / 2);
            }
            let from = before;
            recent.push(Step { from, event, to });
            Some(to)
        });
        if self.stories.len() > limit && !self.coarse {
            self.make_room(limit);
        }
    }

    /// Some page failed, and no hook could tell which.
    pub(super) fn tell_of_unknown(&mut self, at: u64) {
        self.last_failed = self.last_failed.max(at);
        self.without_range += 1;
        self.whole_outstanding = true;
    }

    /// Ranges and their stories, by offset.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ByteRange, &Story)> {
        self.within(ByteRange::ALL)
    }

    /// Those of some bytes.
    pub(super) fn within(&self, range: ByteRange) -> impl Iterator<Item = (ByteRange, &Story)> {
        let spans = self.spans.within(range);
        spans.map(|(range, place)| (range, &self.stories[place as usize]))
    }

    /// Whether some failure is neither recovered nor discarded.
    pub(super) fn outstanding(&self) -> bool {
        let is_open = |(_, story): (ByteRange, &Story)| story.state == LossState::Outstanding;
        self.whole_outstanding || self.iter().any(is_open)
    }

    /// Forgets stories that no bytes have any more; if too many are left, those that end alike
    /// become one.
    fn make_room(&mut self, limit: usize) {
        let mut used: Vec<u32> = self.spans.iter().map(|(_, place)| place).collect();
        used.sort_unstable();
        used.dedup();
        self.coarse = used.len() > limit / 2;
        let mut kept = Vec::new();
        let mut moved = vec![0; self.stories.len()];
        for place in used {
            moved[place as usize] = add(&mut kept, self.stories[place as usize], self.coarse);
        }
        let mut spans = IntervalMap::default();
        for (range, place) in self.spans.iter() {
            spans.update(range, |_, _| Some(moved[place as usize]));
        }
        (self.spans, self.stories) = (spans, kept);
        self.recent.clear();
    }
}

/// Puts a story among the others; where it is. With `coarse`, into one that ends alike.
fn add(stories: &mut Vec<Story>, story: Story, coarse: bool) -> u32 {
    let alike = stories.iter_mut().enumerate();
    if coarse && let Some((place, alike)) = { alike }.find(|(_, other)| other.ends_like(&story)) {
        alike.widen(&story);
        return narrow(place);
    }
    stories.push(story);
    narrow(stories.len() - 1)
}

/// A place in a list that is far shorter than 2^32.
fn narrow(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    const EIO: Event = Event::Failed {
        errno: Errno::EIO,
        watched: true,
    };

    fn pages(first: u64, end: u64) -> ByteRange {
        ByteRange::new(first * 4096, end * 4096).unwrap()
    }

    fn told(events: &[(u64, (u64, u64), Event)]) -> Stories {
        let mut stories = Stories::default();
        for (at, (first, end), event) in events {
            stories.tell(pages(*first, *end), *event, *at, 100);
        }
        stories
    }

    fn shown(stories: &Stories) -> Vec<String> {
        let lines = stories.iter().map(|(range, story)| {
            format!(
                "{}-{} {:?} {:?} {}x",
                range.start() / 4096,
                range.end() / 4096,
                story.state,
                story.memory,
                story.failures
            )
        });
        lines.collect()
    }

    #[test]
    fn a_storm_is_one_range_with_the_times_of_its_ends() {
        let mut stories = Stories::default();
        for page in 0..10_000 {
            stories.tell(pages(page, page + 1), EIO, page * S / 100, 100);
        }
        assert_eq!(shown(&stories), ["0-10000 Outstanding Yes 1x"]);
        let (_, story) = stories.iter().next().unwrap();
        assert_eq!((story.first, story.last), (0, 9999 * S / 100));
    }

    #[test]
    fn a_part_that_was_written_is_told_apart() {
        let stories = told(&[(1, (0, 10), EIO), (2, (3, 5), Event::Written)]);
        assert_eq!(
            shown(&stories),
            [
                "0-3 Outstanding Yes 1x",
                "3-5 Recovered Yes 1x",
                "5-10 Outstanding Yes 1x"
            ]
        );
    }

    #[test]
    fn what_fails_again_after_it_was_written_is_outstanding_again() {
        let stories = told(&[
            (S, (0, 1), EIO),
            (3 * S, (0, 1), Event::Written),
            (6 * S, (0, 1), EIO),
        ]);
        assert_eq!(shown(&stories), ["0-1 Outstanding Yes 2x"]);
        let (_, story) = stories.iter().next().unwrap();
        assert_eq!((story.first, story.last, story.ended), (S, 6 * S, None));
    }

    #[test]
    fn bytes_that_were_dirty_again_and_left_without_a_write_are_lost_again() {
        let stories = told(&[
            (S, (0, 2), EIO),
            (2 * S, (0, 1), Event::Redirtied),
            (5 * S, (0, 2), Event::Evicted),
        ]);
        assert_eq!(
            shown(&stories),
            ["0-1 Outstanding No 2x", "1-2 Outstanding No 1x"]
        );
    }

    #[test]
    fn what_never_failed_has_no_story() {
        let stories = told(&[(1, (0, 9), Event::Written), (2, (0, 9), Event::Evicted)]);
        assert!(shown(&stories).is_empty());
    }

    #[test]
    fn very_many_stories_become_few_that_end_alike_and_no_byte_changes_its_state() {
        let mut stories = Stories::default();
        for page in 0..1000 {
            stories.tell(pages(page, page + 1), EIO, page * 10 * S, 100);
        }
        for page in 0..500 {
            let at = (10_000 + page * 10) * S;
            stories.tell(pages(page, page + 1), Event::Written, at, 100);
        }
        assert_eq!(
            shown(&stories),
            ["0-500 Recovered Yes 1x", "500-1000 Outstanding Yes 1x"]
        );
        assert!(stories.stories.len() < 10);
    }
}
