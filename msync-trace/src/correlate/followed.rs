//! Incidents after they were reported: what has become of their bytes.

use std::collections::BTreeMap;

use super::{
    episode::{Episode, Memory},
    interval::tree_memory,
};
use crate::model::{Change, ChangeKind, IncidentId, MonoTime, Verdict, keep::keep};

/// What is left of one incident.
#[derive(Clone, Debug, Default)]
pub(super) struct Followed {
    /// Its bytes that are still lost.
    pub(super) bytes: u64,
    /// Those of them that memory no longer holds.
    pub(super) evicted: u64,
    /// Whether it stands for a failure of unknown range that is still outstanding.
    pub(super) whole: bool,
    /// Whether some of its bytes reached the disk after all.
    pub(super) recovered: bool,
    /// Whether it was reported, or said since, that memory does not hold the bytes.
    pub(super) evicted_said: bool,
    /// How often the same process was given the same false success again.
    pub(super) repeats: u64,
}

/// How bytes stopped being lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saved {
    Recovered,
    Discarded,
}

/// The incidents of one inode that can still change.
#[derive(Clone, Debug, Default)]
pub(super) struct FollowedIncidents {
    by_id: BTreeMap<IncidentId, Box<Followed>>,
    /// Those that the current fact may have changed.
    touched: Vec<IncidentId>,
}

impl FollowedIncidents {
    pub(super) fn follow(&mut self, id: IncidentId, followed: Followed) {
        self.by_id.insert(id, Box::new(followed));
    }

    /// Incident `id` is about the failure of unknown range as well.
    pub(super) fn stands_for_whole(&mut self, id: IncidentId) {
        if let Some(followed) = self.by_id.get_mut(&id) {
            followed.whole = true;
        }
    }

    /// No change of this incident will be told any more: some of what it is about had to be
    /// forgotten.
    pub(super) fn forget(&mut self, id: IncidentId) {
        self.by_id.remove(&id);
    }

    /// The same bytes of `episode` went from one state of memory to another.
    pub(super) fn moved(&mut self, episode: &Episode, bytes: u64, from: Memory, to: Memory) {
        let (was, is) = (from == Memory::Evicted, to == Memory::Evicted);
        if was == is {
            return;
        }
        self.each(episode, |followed| {
            followed.evicted = if is {
                followed.evicted + bytes
            } else {
                followed.evicted - bytes
            };
        });
    }

    /// `bytes` of `episode` are lost no more.
    pub(super) fn saved(&mut self, episode: &Episode, bytes: u64, memory: Memory, how: Saved) {
        self.each(episode, |followed| {
            followed.bytes -= bytes;
            if memory == Memory::Evicted {
                followed.evicted -= bytes;
            }
            followed.recovered |= how == Saved::Recovered;
        });
    }

    /// The failure of unknown range is no more.
    pub(super) fn whole_saved(&mut self, whole: &Episode, how: Saved) {
        self.each(whole, |followed| {
            followed.whole = false;
            followed.recovered |= how == Saved::Recovered;
        });
    }

    /// Something about the failure of unknown range may be known now.
    pub(super) fn whole_moved(&mut self, whole: &Episode) {
        self.each(whole, |_| ());
    }

    fn each(&mut self, episode: &Episode, change: impl Fn(&mut Followed)) {
        for id in episode.incidents() {
            if let Some(followed) = self.by_id.get_mut(&id) {
                change(followed);
                if self.touched.last() != Some(&id) {
                    self.touched.push(id);
                }
            }
        }
    }

    /// Says what the current fact changed, in the order of the incidents' numbers.
    ///
    /// An incident whose bytes are all gone is `Discarded` only if every one of them was given up
    /// on purpose; if some were, and the others were written, it is `Recovered`: nothing that was
    /// wanted is lost. `Evicted` is said once, when memory holds none of the bytes that are left.
    pub(super) fn say_changes(
        &mut self,
        at: MonoTime,
        whole_memory: Option<Memory>,
        out: &mut Vec<Verdict>,
    ) {
        if self.touched.is_empty() {
            return;
        }
        self.touched.sort_unstable();
        self.touched.dedup();
        for id in self.touched.drain(..) {
            let Some(followed) = self.by_id.get_mut(&id) else {
                continue;
            };
            let kind = if followed.bytes == 0 && !followed.whole {
                let recovered = followed.recovered;
                self.by_id.remove(&id);
                match recovered {
                    true => ChangeKind::Recovered,
                    false => ChangeKind::Discarded,
                }
            } else if !followed.evicted_said
                && followed.evicted == followed.bytes
                && (!followed.whole || whole_memory == Some(Memory::Evicted))
            {
                followed.evicted_said = true;
                ChangeKind::Evicted
            } else {
                continue;
            };
            out.push(Verdict::Change(Change { at, id, kind }));
        }
    }

    /// The same process was given the same false success again.
    pub(super) fn repeat(&mut self, id: IncidentId, at: MonoTime, out: &mut Vec<Verdict>) {
        if let Some(followed) = self.by_id.get_mut(&id) {
            followed.repeats += 1;
            let kind = ChangeKind::Repeated {
                repeats: followed.repeats,
            };
            out.push(Verdict::Change(Change { at, id, kind }));
        }
    }

    /// Memory that they take, bytes, about.
    pub(super) fn memory(&self) -> usize {
        let len = self.by_id.len();
        len * size_of::<Followed>() + tree_memory::<IncidentId, Box<Followed>>(len)
    }
}

keep!(struct Followed { bytes, evicted, whole, recovered, evicted_said, repeats });
keep!(struct FollowedIncidents { by_id, touched });
