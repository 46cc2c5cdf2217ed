//! Going on where an earlier process ended: its hooks, its maps and what it knew are taken over, and
//! what this one knows is kept for the next. docs/restart.md tells the whole story.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use log::{info, warn};
use msync_trace_ebpf as abi;
use zerocopy::FromZeros;

use super::{
    AttachError, Options, Tracer,
    decode::{Record, decode},
    instance::{Instance, Rings},
    kept::Kept,
    losses, now,
    order::{Order, REORDER},
    pins::{Forgotten, Generation, Left, Pins},
};
use crate::model::{
    Fact, InodeKey, LossCause,
    keep::{Keep, keep},
};

/// Keeping takes at most this part of the time in the long run: when much is lost at once, what is
/// kept is a little old.
const SHARE: u32 = 20;

/// So much time may be spent on keeping at once, before [`SHARE`] counts.
const AT_ONCE: Duration = Duration::from_millis(100);

/// What outlives this process.
pub struct Pinned {
    pins: Pins,
    generation: Generation,
    kept: Kept,
    /// What the earlier process' taker of facts knew, until it is asked for.
    pub resumed: Option<Vec<u8>>,
    /// What our taker of facts knows.
    taker: Vec<u8>,
    /// Facts were handed on that were not yet said to be taken.
    untaken: bool,
    /// What the taker knows is older than what was handed on: nothing may be kept before it is
    /// asked.
    is_stale: bool,
    kept_at: Instant,
    /// Time that was spent on keeping then, less what had been earned back.
    spent: Duration,
    ending: bool,
    /// It was said that nothing can be kept.
    said: bool,
}

impl Pinned {
    fn is_due(&self) -> bool {
        self.ending || self.owed() < AT_ONCE
    }

    /// Time that was spent on keeping and not earned back by now.
    fn owed(&self) -> Duration {
        self.spent.saturating_sub(self.kept_at.elapsed() / SHARE)
    }
}

/// What a tracer knows, but for its taker's part.
struct State {
    order: Order,
    settled: BTreeSet<InodeKey>,
    told: abi::Counters,
    full_before_room: u64,
    /// How many hooks see nothing while no process traces.
    unpinned: u64,
    /// Facts that were taken over and not yet taken.
    first: Vec<Fact>,
}

keep!(struct State { order, settled, told, full_before_room, unpinned, first });

impl Tracer {
    /// Loads the programs, attaches and pins the hooks, and takes over what an earlier process left.
    pub(super) fn attach_pinned(options: Options) -> Result<Self, AttachError> {
        let pins = Pins::open()?;
        let (left, forgotten) = adopt(&pins)?;
        let generation = pins.next()?;
        let loaded = Instance::load(&options, Some(&generation.folder));
        let tracer = loaded.and_then(|(instance, rings)| Self::new(options, instance, rings));
        let mut tracer = match tracer {
            Ok(tracer) => tracer,
            Err(error) => {
                // What is left goes on collecting.
                let _ = generation.remove();
                return Err(error);
            }
        };
        let unpinned = tracer.instance.unpinned();
        if !unpinned.is_empty() {
            warn!(
                "this kernel cannot pin all hooks (5.15 and later can): while msync-trace does not \
                 run, {} see nothing",
                unpinned.join(", ")
            );
        }
        let kept = Kept::create(&generation.folder)
            .map_err(|error| AttachError::Pins(format!("cannot keep what is known: {error}")))?;
        let mut pinned = Pinned {
            pins,
            generation,
            kept,
            resumed: None,
            taker: Vec::new(),
            untaken: false,
            is_stale: false,
            kept_at: Instant::now(),
            spent: Duration::ZERO,
            ending: false,
            said: false,
        };
        if forgotten.inodes > 0 {
            tracer
                .order
                .lose(LossCause::MemoryLimit, forgotten.inodes, now());
        }
        let before = left.as_ref().map(|left| left.generation.clone());
        if let Some(left) = left {
            pinned.taker = tracer.take_over(left);
            pinned.resumed = (!pinned.taker.is_empty()).then(|| pinned.taker.clone());
        }
        tracer.pinned = Some(pinned);
        tracer.keep_now();
        if let Some(Err(error)) = before.map(|before| before.remove()) {
            warn!("what an earlier msync-trace pinned cannot be removed: {error}");
        }
        Ok(tracer)
    }

    /// Goes on with what another process left: its rings are read to their end, its inodes are
    /// followed. Gives what its taker of facts knew.
    fn take_over(&mut self, left: Left) -> Vec<u8> {
        let Left {
            generation,
            kept,
            mut rings,
            failed,
            counters,
        } = left;
        let is_known = kept.is_some();
        let (state, taker) = kept.and_then(|bytes| parse(&bytes)).unzip();
        let mut told = abi::Counters::new_zeroed();
        if let Some(state) = state {
            self.order = state.order;
            self.settled = state.settled;
            self.first = state.first;
            told = state.told;
            if state.unpinned > 0 {
                let cause = LossCause::HookMissing;
                self.order.lose(cause, state.unpinned, now());
            }
        } else if is_known {
            warn!("what an earlier msync-trace knew cannot be read: only the kernel's summary is");
        }
        let (followed, refused) = self.instance.take_over_failed(&failed);
        if refused > 0 {
            self.order.lose(LossCause::InodeMapFull, refused, now());
        }
        if !followed.is_empty() {
            self.instance.set_tracked(true);
            self.instance.attach_on_demand();
            self.following = true;
        }
        let at = now();
        // Until the programs that were running at that time have sent what they saw.
        thread::sleep(REORDER);
        let mut records = self.read_to_end(&mut rings);
        if let Err(error) = generation.detach() {
            warn!("hooks of an earlier msync-trace cannot be detached: {error}");
        }
        thread::sleep(REORDER);
        records += self.read_to_end(&mut rings);
        for (cause, count) in losses(&super::instance::sum(&counters), &told) {
            self.order.lose(cause, count, now());
        }
        let mut facts = std::mem::take(&mut self.first);
        self.hand_on(&mut facts, |order, into| {
            order.hand_over(at, &followed, into);
        });
        self.first = facts;
        info!(
            "goes on where an earlier msync-trace ended: inodes with failures: {}, records that \
             waited: {records}",
            followed.len()
        );
        taker.unwrap_or_default()
    }

    /// Takes all records from rings that nothing more comes to. Gives how many.
    fn read_to_end(&mut self, rings: &mut Rings) -> u64 {
        let (mut records, mut bad) = (0, 0);
        for ring in [&mut rings.errors, &mut rings.syncs, &mut rings.pages] {
            while let Some(item) = ring.next() {
                records += 1;
                match decode(&item) {
                    Some(Record::Module(..)) => {}
                    Some(record) => self.order.push(record),
                    None => bad += 1,
                }
            }
        }
        if bad > 0 {
            self.order.lose(LossCause::BadRecord, bad, now());
        }
        records
    }

    /// Where the next copy of the object is pinned, if it is.
    pub(super) fn next_generation(&self) -> Result<Option<Generation>, AttachError> {
        let pinned = self.pinned.as_ref();
        pinned.map(|pinned| pinned.pins.next()).transpose()
    }

    /// Another copy of the object is in use, pinned there. `facts` are on their way to their taker.
    pub(super) fn move_to(&mut self, generation: Option<Generation>, facts: &[Fact]) {
        let (Some(pinned), Some(generation)) = (&mut self.pinned, generation) else {
            return;
        };
        let kept = match Kept::create(&generation.folder) {
            Ok(kept) => kept,
            Err(error) => {
                warn!("what is known is not kept for a restart any more: {error}");
                return;
            }
        };
        let before = std::mem::replace(&mut pinned.generation, generation);
        pinned.kept = kept;
        self.first = facts.to_vec();
        self.keep_now();
        self.first.clear();
        self.handed_on();
        if let Err(error) = before.remove() {
            warn!("an earlier copy of the hooks cannot be removed: {error}");
        }
    }

    /// Facts were handed on.
    pub(super) fn handed_on(&mut self) {
        if let Some(pinned) = &mut self.pinned {
            pinned.untaken = true;
        }
    }

    /// Records were taken from the rings, where the next process would not find them any more. True:
    /// the taker is to be asked what it knows, for too long it was not.
    pub(super) fn keep_drained(&mut self, any: bool) -> bool {
        let Some(pinned) = &self.pinned else {
            return false;
        };
        let is_due = pinned.is_due();
        if pinned.is_stale {
            return is_due;
        }
        if any && is_due && !pinned.untaken {
            self.keep_now();
        }
        false
    }

    /// All that was handed on was taken: keeps both parts, if enough time has passed.
    pub(super) fn keep_taken(&mut self, state: &mut dyn FnMut() -> Vec<u8>) {
        let Some(pinned) = &mut self.pinned else {
            return;
        };
        if !pinned.untaken && !pinned.is_stale && !pinned.ending {
            return;
        }
        pinned.untaken = false;
        pinned.is_stale = !pinned.is_due();
        if !pinned.is_stale {
            let began = Instant::now();
            pinned.taker = state();
            let asked = began.elapsed();
            self.keep_now();
            if let Some(pinned) = &mut self.pinned {
                pinned.spent += asked;
            }
        }
    }

    /// What is handed on now is the last.
    pub(super) fn keep_at_last(&mut self) {
        if let Some(pinned) = &mut self.pinned {
            pinned.ending = true;
            pinned.untaken = true;
        }
    }

    fn keep_now(&mut self) {
        let Some(pinned) = &mut self.pinned else {
            return;
        };
        let began = Instant::now();
        let unpinned = self.instance.unpinned().len();
        let mut bytes = Vec::new();
        self.order.keep(&mut bytes);
        self.settled.keep(&mut bytes);
        self.told.keep(&mut bytes);
        self.full_before_room.keep(&mut bytes);
        unpinned.keep(&mut bytes);
        self.first.keep(&mut bytes);
        bytes.extend_from_slice(&pinned.taker);
        let written = pinned.kept.write(&bytes, &pinned.generation.folder);
        let why = match written {
            Ok(true) => None,
            Ok(false) => Some("more is lost than there is room for".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = why.filter(|_| !pinned.said) {
            pinned.said = true;
            warn!("not everything that is known can be kept for a restart: {why}");
        }
        pinned.spent = pinned.owed() + began.elapsed();
        pinned.kept_at = Instant::now();
    }
}

/// What a tracer knew, and what its taker did.
fn parse(bytes: &[u8]) -> Option<(State, Vec<u8>)> {
    let mut rest = bytes;
    let state = State::kept(&mut rest)?;
    Some((state, rest.to_vec()))
}

/// What an earlier process left, and what of it cannot be used and is gone.
fn adopt(pins: &Pins) -> Result<(Option<Left>, Forgotten), AttachError> {
    let mut forgotten = Forgotten::default();
    let mut generations = pins.generations();
    // One in which nothing is kept was being made when its process ended: the one before still counts.
    let counts = generations.iter().rposition(Generation::counts);
    let place = counts.or(generations.len().checked_sub(1));
    let left = place.map(|place| generations.remove(place));
    for unused in generations {
        unused.forget()?;
    }
    let Some(generation) = left else {
        return Ok((None, forgotten));
    };
    let left = generation.left();
    if left.is_none() {
        forgotten = generation.forget()?;
        warn!(
            "another version of msync-trace left hooks that this one cannot go on with; they are \
             replaced. Forgotten: inodes with failures: {}, records that nobody had read: {}",
            forgotten.inodes, forgotten.records
        );
    }
    Ok((left, forgotten))
}
