//! Repeats of incidents, shown now and then: a program may call msync in a loop.

use std::{collections::BTreeMap, time::Duration};

use crate::model::{IncidentId, MonoTime};

/// How often the repeats of one incident are shown at most.
pub(super) const PACE: Duration = Duration::from_secs(1);

/// How often an incident was repeated, and when last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Repeat {
    pub(super) at: MonoTime,
    pub(super) id: IncidentId,
    pub(super) repeats: u64,
}

/// Incidents that were repeated a short while ago.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    recent: BTreeMap<IncidentId, Recent>,
}

#[derive(Debug)]
struct Recent {
    shown_at: MonoTime,
    /// The newest that was not shown.
    held: Option<Repeat>,
}

impl Repeats {
    /// An incident was repeated; whether that is to be shown at once. If not it is kept.
    pub(super) fn show_now(&mut self, repeat: Repeat) -> bool {
        let fresh = Recent {
            shown_at: repeat.at,
            held: None,
        };
        match self.recent.get_mut(&repeat.id) {
            Some(recent) if !is_over(recent.shown_at, repeat.at) => {
                recent.held = Some(repeat);
                false
            }
            Some(recent) => {
                *recent = fresh;
                true
            }
            None => {
                self.recent.insert(repeat.id, fresh);
                true
            }
        }
    }

    /// Whether [`Self::due`] should be asked now and then.
    pub(super) fn is_waiting(&self) -> bool {
        !self.recent.is_empty()
    }

    /// What was kept long enough.
    pub(super) fn due(&mut self, now: MonoTime) -> Vec<Repeat> {
        let mut due = Vec::new();
        self.recent.retain(|_, recent| {
            if !is_over(recent.shown_at, now) {
                return true;
            }
            recent.shown_at = now;
            let held = recent.held.take();
            due.extend(held);
            held.is_some()
        });
        due
    }

    /// What was kept of one incident: something else is about to be said of it.
    pub(super) fn of(&mut self, id: IncidentId) -> Option<Repeat> {
        self.recent.get_mut(&id)?.held.take()
    }

    /// All that was kept.
    pub(super) fn take_all(&mut self) -> Vec<Repeat> {
        let recent = std::mem::take(&mut self.recent);
        recent
            .into_values()
            .filter_map(|recent| recent.held)
            .collect()
    }
}

fn is_over(shown_at: MonoTime, now: MonoTime) -> bool {
    u128::from(now.0.saturating_sub(shown_at.0)) >= PACE.as_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn repeat(at_ms: u64, id: u64, repeats: u64) -> Repeat {
        Repeat {
            at: MonoTime(at_ms * MS),
            id: IncidentId(id),
            repeats,
        }
    }

    #[test]
    fn the_first_is_shown_and_the_newest_of_each_second() {
        let mut repeats = Repeats::default();
        assert!(repeats.show_now(repeat(0, 1, 1)));
        assert!(!repeats.show_now(repeat(10, 1, 2)));
        assert!(!repeats.show_now(repeat(20, 1, 3)));
        assert_eq!(repeats.due(MonoTime(999 * MS)), []);
        assert_eq!(repeats.due(MonoTime(1000 * MS)), [repeat(20, 1, 3)]);
        assert!(!repeats.show_now(repeat(1100, 1, 4)));
        assert!(repeats.show_now(repeat(2000, 1, 5)));
    }

    #[test]
    fn what_is_quiet_is_forgotten() {
        let mut repeats = Repeats::default();
        repeats.show_now(repeat(0, 1, 1));
        assert!(repeats.is_waiting());
        assert_eq!(repeats.due(MonoTime(1000 * MS)), []);
        assert!(!repeats.is_waiting());
    }

    #[test]
    fn nothing_that_was_kept_gets_lost() {
        let mut repeats = Repeats::default();
        for id in [1, 2] {
            repeats.show_now(repeat(0, id, 1));
            repeats.show_now(repeat(1, id, 2));
        }
        assert_eq!(repeats.of(IncidentId(1)), Some(repeat(1, 1, 2)));
        assert_eq!(repeats.of(IncidentId(1)), None);
        assert_eq!(repeats.take_all(), [repeat(1, 2, 2)]);
    }
}
