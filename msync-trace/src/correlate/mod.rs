//! The correlator: facts in, verdicts out. A pure state machine: no clock, no I/O, no operating
//! system; the same facts in the same order give the same verdicts.
//!
//! What each fact does to one inode, and which sync is a false success, is in `inode`. This file
//! finds the inode, keeps memory bounded and says when nothing is outstanding any more.
//!
//! Order of the verdicts of one fact: the incident, then repeats and other changes by incident
//! number, then [`Verdict::Released`]. [`Verdict::Incomplete`] stands where something was given up.
//!
//! Order of the facts: by time. Two disorders are put right, because sync returns and failures
//! come through different rings: a failure that is seen after a sync which returned later than
//! it, and a re-dirtying that is seen after the failure it led to.

mod distinct;
mod episode;
mod followed;
mod inode;
pub(crate) mod interval;
mod key_hash;
mod recent;
mod tally;
mod told;

use std::collections::{BTreeSet, HashMap};

use self::{
    inode::Inode,
    key_hash::KeyHash,
    tally::{Ledger, Tally},
};
use crate::model::{
    Call, Fact, FactKind, InodeKey, MonoTime, Release, SyncReturn, Verdict, keep::Keep,
};

pub use self::{distinct::Distinct, tally::Totals};

/// What the correlator reports and how much it may remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which calls make incidents.
    pub calls: BTreeSet<Call>,
    /// Whether an `msync` without `MS_SYNC`, which promises nothing, makes incidents too. They
    /// count separately: one of them never stands for a false `msync(MS_SYNC)`.
    pub include_async: bool,
    /// Bounds on memory.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            calls: BTreeSet::from([Call::Msync]),
            include_async: false,
            limits: Limits::default(),
        }
    }
}

impl Config {
    fn reports(&self, sync: &SyncReturn) -> bool {
        let chosen = self.calls.contains(&sync.call);
        sync.error.is_none() && (chosen || (self.include_async && sync.call == Call::MsyncAsync))
    }
}

/// How much may be remembered. What is given up at a limit is counted and makes the run
/// incomplete: inodes without outstanding failures go first, then what was reported already, then
/// the rest; the oldest first in each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Inodes.
    pub inodes: usize,
    /// Failed ranges of one inode, neighbours with the same history counted as one.
    pub ranges_per_inode: usize,
    /// Incidents remembered for one failed range: one per process that was lied to.
    pub processes_per_range: usize,
    /// Open file descriptions of one inode that are known to have been told.
    pub told_files_per_inode: usize,
    /// Successful syncs of one inode kept for failures that are recorded late; of one process
    /// only those count that an equal or wider one has not replaced. Forgetting one is no loss
    /// until a failure comes that it could have been about.
    pub recent_syncs_per_inode: usize,
    /// Memory of all of these together, over all inodes, bytes, about.
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            inodes: 1 << 16,
            ranges_per_inode: 1 << 18,
            processes_per_range: 1 << 10,
            told_files_per_inode: 1 << 10,
            recent_syncs_per_inode: 1 << 7,
            memory: 12 << 20,
        }
    }
}

/// The state machine. See the head of this module.
#[derive(Debug)]
pub struct Correlator {
    config: Config,
    /// Where in `slots` an inode is. Looked up, never iterated: its order is random.
    index: HashMap<InodeKey, usize, KeyHash>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// The inode of the previous fact: the next one is often about the same.
    last: Option<(InodeKey, usize)>,
    /// Facts about inodes so far: what "oldest" is measured by.
    turn: u64,
    /// Memory that all inodes take, bytes, about.
    memory: usize,
    /// Newest success that went with a forgotten inode.
    forgotten_sync: Option<MonoTime>,
    ledger: Ledger,
}

#[derive(Debug)]
struct Slot {
    inode: Option<Box<Inode>>,
    /// When it was used last; when it became outstanding, as long as it is.
    since: u64,
}

impl Correlator {
    /// A correlator that has seen nothing.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            index: HashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            last: None,
            turn: 0,
            memory: 0,
            forgotten_sync: None,
            ledger: Ledger::default(),
        }
    }

    /// Takes in one fact and appends what follows from it to `out`.
    pub fn apply(&mut self, fact: &Fact, out: &mut Vec<Verdict>) {
        let at = fact.at;
        match &fact.kind {
            FactKind::WriteFailed(f) => {
                self.create(f.inode, at, out, |i, tally| i.write_failed(at, f, tally));
            }
            FactKind::WriteOk(f) => {
                self.visit(f.inode, at, out, |i, tally| i.write_ok(at, f.range, tally));
            }
            FactKind::Redirtied(f) => {
                self.visit(f.inode, at, out, |i, tally| i.redirtied(at, f.range, tally));
            }
            // An error is no false success: the process knows. A call that was not chosen makes
            // no incident; what it consumed comes as `Told`.
            FactKind::SyncReturn(f) if self.config.reports(f) => {
                self.create(f.inode, at, out, |i, tally| i.false_success(at, f, tally));
            }
            FactKind::SyncReturn(_) => {}
            FactKind::Told(f) => {
                self.create(f.inode, at, out, |i, tally| i.told(at, f.file, tally));
            }
            FactKind::Opened(f) => {
                self.visit(f.inode, at, out, |i, _| i.opened(f.file));
            }
            FactKind::Discarded(f) => {
                self.visit(f.inode, at, out, |i, tally| i.discarded(at, f.range, tally));
            }
            FactKind::Evicted(f) => {
                self.visit(f.inode, at, out, |i, tally| i.evicted(at, f.range, tally));
            }
            FactKind::Gone(f) if f.deleted => {
                self.visit(f.inode, at, out, |i, tally| i.deleted(at, tally));
            }
            FactKind::Gone(f) => {
                self.visit(f.inode, at, out, |i, tally| i.left_memory(at, tally));
            }
            FactKind::Lost(loss) => self.ledger.lose(at, *loss, out),
            // Of no file: no verdict follows from it.
            FactKind::StorageError(_) => {}
        }
    }

    /// What it reports and how much it may remember.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// All that it knows, for [`Self::resumed`] in another process of the same version.
    #[must_use]
    pub fn keep(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.turn.keep(&mut bytes);
        self.forgotten_sync.keep(&mut bytes);
        self.ledger.totals.incidents.keep(&mut bytes);
        self.index.len().keep(&mut bytes);
        let known = |slot: &Slot| slot.inode.is_some();
        for slot in self.slots.iter().filter(|slot| known(slot)) {
            slot.since.keep(&mut bytes);
            if let Some(inode) = &slot.inode {
                inode.keep(&mut bytes);
            }
        }
        bytes
    }

    /// One that goes on where another one was kept: what was lost and reported by then is known,
    /// incidents are numbered on, and what could not be seen by then is of no account. `None` if
    /// these bytes are not of [`Self::keep`].
    #[must_use]
    pub fn resumed(config: Config, mut bytes: &[u8]) -> Option<Self> {
        let from = &mut bytes;
        let mut one = Self::new(config);
        one.turn = Keep::kept(from)?;
        one.forgotten_sync = Keep::kept(from)?;
        one.ledger.totals.incidents = Keep::kept(from)?;
        for _ in 0..usize::kept(from)? {
            let since = Keep::kept(from)?;
            let inode = Box::<Inode>::kept(from)?;
            one.memory += inode.memory();
            one.ledger.totals.outstanding += u64::from(inode.outstanding());
            one.index.insert(inode.key, one.slots.len());
            one.slots.push(Slot {
                inode: Some(inode),
                since,
            });
        }
        from.is_empty().then_some(one)
    }

    /// Whether everything that could have been seen was seen, and nothing had to be forgotten.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.ledger.totals.losses.is_empty()
    }

    /// What was found so far.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.ledger.totals
    }

    /// Applies a fact to an inode that need not be known yet.
    fn create(
        &mut self,
        key: InodeKey,
        at: MonoTime,
        out: &mut Vec<Verdict>,
        rule: impl FnOnce(&mut Inode, &mut Tally<'_>),
    ) {
        let place = self.find(key).unwrap_or_else(|| {
            let inode = Inode::new(key, self.forgotten_sync);
            self.memory += inode.memory();
            let inode = Some(Box::new(inode));
            let since = self.turn;
            let slot = match self.free.pop() {
                Some(slot) => {
                    self.slots[slot] = Slot { inode, since };
                    slot
                }
                None => {
                    self.slots.push(Slot { inode, since });
                    self.slots.len() - 1
                }
            };
            self.index.insert(key, slot);
            self.last = Some((key, slot));
            slot
        });
        self.apply_at(place, at, out, rule);
    }

    /// Applies a fact to an inode; one that nothing is known about has nothing to lose.
    fn visit(
        &mut self,
        key: InodeKey,
        at: MonoTime,
        out: &mut Vec<Verdict>,
        rule: impl FnOnce(&mut Inode, &mut Tally<'_>),
    ) {
        if let Some(place) = self.find(key) {
            self.apply_at(place, at, out, rule);
        }
    }

    fn apply_at(
        &mut self,
        place: usize,
        at: MonoTime,
        out: &mut Vec<Verdict>,
        rule: impl FnOnce(&mut Inode, &mut Tally<'_>),
    ) {
        let slot = &mut self.slots[place];
        let Some(inode) = slot.inode.as_deref_mut() else {
            return;
        };
        self.turn += 1;
        let mut tally = Tally {
            limits: &self.config.limits,
            ledger: &mut self.ledger,
            out,
        };
        let (was_outstanding, memory_before) = (inode.outstanding(), inode.memory());

        rule(inode, &mut tally);

        let given_up = inode.shrink(self.config.limits.ranges_per_inode);
        tally.give_up(at, given_up);
        inode.tidy();
        let (is_outstanding, is_empty) = (inode.outstanding(), inode.is_empty());
        self.memory = self.memory - memory_before + inode.memory();
        if !(was_outstanding && is_outstanding) {
            slot.since = self.turn;
        }
        match (was_outstanding, is_outstanding) {
            (false, true) => self.ledger.totals.outstanding += 1,
            (true, false) => {
                self.ledger.totals.outstanding -= 1;
                out.push(Verdict::Released {
                    inode: inode.key,
                    why: Release::Settled,
                });
            }
            _ => {}
        }
        if is_empty {
            self.forget(place);
        }
        let limits = &self.config.limits;
        if self.index.len() > limits.inodes.max(1) || self.memory > limits.memory {
            self.forget_inodes(at, out);
        }
    }

    fn find(&mut self, key: InodeKey) -> Option<usize> {
        if let Some((last, slot)) = self.last
            && last == key
        {
            return Some(slot);
        }
        let slot = *self.index.get(&key)?;
        self.last = Some((key, slot));
        Some(slot)
    }

    fn forget(&mut self, slot: usize) -> Option<Box<Inode>> {
        let inode = self.slots[slot].inode.take()?;
        self.index.remove(&inode.key);
        self.free.push(slot);
        self.last = None;
        self.memory -= inode.memory();
        self.forgotten_sync = self.forgotten_sync.max(inode.forgotten_with_it());
        Some(inode)
    }

    /// Makes room: a sixteenth of what is allowed, so that the search costs little per fact.
    fn forget_inodes(&mut self, at: MonoTime, out: &mut Vec<Verdict>) {
        let room = |limit: usize| limit.max(1) - limit / 16;
        let inodes = room(self.config.limits.inodes);
        let memory = room(self.config.limits.memory);
        let mut order: Vec<(bool, bool, u64, usize)> = (self.slots.iter().enumerate())
            .filter_map(|(place, slot)| {
                let inode = slot.inode.as_deref()?;
                let outstanding = inode.outstanding();
                let unreported = outstanding && !inode.all_reported();
                Some((outstanding, unreported, slot.since, place))
            })
            .collect();
        order.sort_unstable();
        let mut given_up = 0;
        for (outstanding, unreported, _, place) in order {
            if self.index.len() <= inodes && self.memory <= memory {
                break;
            }
            let forgotten = self.forget(place);
            if let Some(inode) = forgotten.filter(|_| outstanding) {
                given_up += inode.ranges() as u64;
                self.ledger.totals.outstanding -= 1;
                out.push(Verdict::Released {
                    inode: inode.key,
                    why: match unreported {
                        true => Release::Unreported,
                        false => Release::Reported,
                    },
                });
            }
        }
        let mut tally = Tally {
            limits: &self.config.limits,
            ledger: &mut self.ledger,
            out,
        };
        tally.give_up(at, given_up);
    }
}
