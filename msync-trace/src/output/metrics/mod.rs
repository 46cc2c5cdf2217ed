//! Counts for Prometheus: of what was found, of what could not be seen, and of ourselves.

mod page;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use page::{Exposition, Number, Page};
pub use table::{FAMILIES, Family, Kind, document};

use super::{DeliveryView, Output};
use crate::{
    model::{Call, Fact, FactKind, FileView, LossCause, StorageErrorKind, SyncReturn, ToldWho},
    schema::{Body, ChangeRecord, Clock, HookRecord, IncidentRecord, Record, Word},
};

/// So many devices, filesystem types and errors are told apart.
const DEVICES: usize = 64;
const TYPES: usize = 16;
const ERRORS: usize = 32;
/// And so many combinations of them.
const ROWS: usize = 2048;
/// What stands for the rest.
const OTHER: &str = "other";
/// What stands for what is not known.
const UNKNOWN: &str = "unknown";

/// The kernel side, the correlator and the store as they are now. Counts are since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition {
    /// Records through each ring: its name, how many arrived, how many found it full.
    pub rings: Vec<(&'static str, u64, u64)>,
    /// How often a map was full: its name.
    pub maps_full: Vec<(&'static str, u64)>,
    /// Skipped programs that see failures, and those that see more.
    pub probe_misses: (u64, u64),
    /// Inodes that the kernel side follows.
    pub tracked_inodes: u64,
    /// How many it can follow.
    pub tracked_inodes_limit: u64,
    /// Inodes with outstanding failures.
    pub outstanding_inodes: u64,
    /// Whether all was seen.
    pub complete: bool,
    /// Failed attempts to write the store; lost facts; lost incidents.
    pub store: (u64, u64, u64),
    /// How often the rings were emptied.
    pub drains: u64,
    /// When that was last, seconds since 1970; 0: never.
    pub last_drain: f64,
    /// Attached and checked.
    pub ready: bool,
}

/// Counts, to be shared by who counts and who shows.
#[derive(Clone)]
pub struct Meters(Arc<Mutex<Counts>>);

struct Counts {
    abi: u8,
    name_of_device: fn(&str) -> Option<String>,
    devices: Known,
    types: Known,
    errors: Known,
    incidents: u64,
    bytes: u64,
    losses: BTreeMap<LossRow, (u64, u64)>,
    failures: BTreeMap<Row, u64>,
    changes: BTreeMap<&'static str, u64>,
    storage_errors: BTreeMap<&'static str, u64>,
    syncs: BTreeMap<(&'static str, &'static str), u64>,
    facts: u64,
    unseen: BTreeMap<&'static str, u64>,
    hooks: BTreeMap<String, bool>,
    hooks_missing: usize,
    started: f64,
    condition: Condition,
    outputs: Vec<DeliveryView>,
}

/// Filesystem type, device, error.
type Row = [String; 3];
/// And who was told.
type LossRow = (Row, &'static str);

/// The first values of a label; the rest has one name.
struct Known {
    limit: usize,
    words: BTreeSet<String>,
}

impl Known {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            words: BTreeSet::new(),
        }
    }

    fn bound(&mut self, word: &str) -> String {
        if !self.words.contains(word) {
            if self.words.len() >= self.limit {
                return OTHER.to_owned();
            }
            self.words.insert(word.to_owned());
        }
        word.to_owned()
    }
}

impl Meters {
    /// All counts are 0. `abi`: version of the interface to the kernel side. `name_of_device`: what
    /// incidents call a device that the kernel calls so.
    #[must_use]
    pub fn new(abi: u8, name_of_device: fn(&str) -> Option<String>) -> Self {
        Self(Arc::new(Mutex::new(Counts::new(abi, name_of_device))))
    }

    /// A filesystem on which something may fail: its counts are shown from now on.
    pub fn expect(&self, fs_type: &str, device: &str) {
        self.lock().expect(fs_type, device);
    }

    /// Outputs of which the deliveries are shown.
    pub fn show_deliveries(&self, outputs: Vec<DeliveryView>) {
        self.lock().outputs = outputs;
    }

    /// How things are now.
    pub fn update(&self, condition: Condition) {
        self.lock().condition = condition;
    }

    /// When the rings were emptied last, seconds since 1970.
    #[must_use]
    pub fn last_drain(&self) -> f64 {
        self.lock().condition.last_drain
    }

    /// Whether tracing was attached and checked.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.lock().condition.ready
    }

    /// Whether everything was seen so far.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.lock().condition.complete
    }

    /// Nothing is seen any more.
    pub fn end(&self) {
        self.lock().condition.ready = false;
    }

    /// Incidents and hooks that are missing.
    #[must_use]
    pub fn in_short(&self) -> (u64, usize) {
        let counts = self.lock();
        (counts.incidents, counts.hooks_missing)
    }

    /// All numbers as text.
    #[must_use]
    pub fn text(&self, exposition: Exposition) -> String {
        // Formatting takes a while: not while somebody waits to count.
        let page = self.lock().page();
        page.write(exposition)
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Output for Meters {
    fn show(&mut self, record: &Record) -> io::Result<()> {
        self.lock().record(record);
        Ok(())
    }

    fn saw(&mut self, fact: &Fact, _clock: &Clock) {
        self.lock().fact(fact);
    }
}

fn zeros<T: Word>() -> BTreeMap<&'static str, u64> {
    T::ALL.iter().map(|it| (it.word(), 0)).collect()
}

impl Counts {
    fn new(abi: u8, name_of_device: fn(&str) -> Option<String>) -> Self {
        let results = ["ok", "error"];
        let syncs = Call::ALL
            .iter()
            .flat_map(|call| results.map(|result| ((call.word(), result), 0)));
        Self {
            abi,
            name_of_device,
            devices: Known::new(DEVICES),
            types: Known::new(TYPES),
            errors: Known::new(ERRORS),
            incidents: 0,
            bytes: 0,
            losses: BTreeMap::new(),
            failures: BTreeMap::new(),
            changes: ChangeRecord::WORDS.iter().map(|it| (*it, 0)).collect(),
            storage_errors: zeros::<StorageErrorKind>(),
            syncs: syncs.collect(),
            facts: 0,
            unseen: zeros::<LossCause>(),
            hooks: BTreeMap::new(),
            hooks_missing: 0,
            started: 0.0,
            condition: Condition::default(),
            outputs: Vec::new(),
        }
    }

    fn expect(&mut self, fs_type: &str, device: &str) {
        let row = self.row(Some(fs_type), Some(device), "EIO");
        for told in ToldWho::ALL {
            self.losses.entry((row.clone(), told.word())).or_default();
        }
        self.failures.entry(row).or_default();
    }

    fn row(&mut self, fs_type: Option<&str>, device: Option<&str>, error: &str) -> Row {
        [
            self.types.bound(fs_type.unwrap_or(UNKNOWN)),
            self.devices.bound(device.unwrap_or(UNKNOWN)),
            self.errors.bound(error),
        ]
    }

    fn fact(&mut self, fact: &Fact) {
        self.facts += 1;
        match &fact.kind {
            FactKind::WriteFailed(it) => self.write_failed(&it.file, &it.errno.to_string()),
            FactKind::SyncReturn(sync) => self.sync_return(sync),
            FactKind::StorageError(error) => {
                *self.storage_errors.entry(error.what.word()).or_default() += 1;
            }
            FactKind::Lost(lost) => {
                *self.unseen.entry(lost.cause.word()).or_default() += lost.count;
            }
            _ => {}
        }
    }

    fn write_failed(&mut self, file: &FileView, error: &str) {
        let mapped = file.dev_name.as_deref().and_then(self.name_of_device);
        let device = mapped.as_deref().or(file.dev_name.as_deref());
        let row = self.row(file.fs_type.as_deref(), device, error);
        *bounded(&mut self.failures, row, other_row) += 1;
    }

    fn sync_return(&mut self, sync: &SyncReturn) {
        let result = match sync.error {
            None => "ok",
            Some(_) => "error",
        };
        *self.syncs.entry((sync.call.word(), result)).or_default() += 1;
    }

    fn record(&mut self, record: &Record) {
        match &record.body {
            Body::Start(start) => {
                self.started = record.head.time.seconds();
                self.hooks(&start.hooks);
            }
            Body::Hooks(hooks) => self.hooks(&hooks.hooks),
            Body::Incident(incident) => self.incident(incident),
            Body::Change(change) => *self.changes.entry(change.word()).or_default() += 1,
            _ => {}
        }
    }

    fn hooks(&mut self, hooks: &[HookRecord]) {
        let attached = |hook: &HookRecord| ["attached", "on_demand"].contains(&&*hook.state);
        self.hooks = hooks
            .iter()
            .map(|hook| (hook.name.clone(), attached(hook)))
            .collect();
        let missing = |hook: &&HookRecord| hook.state == "unavailable";
        self.hooks_missing = hooks.iter().filter(missing).count();
    }

    fn incident(&mut self, incident: &IncidentRecord) {
        let bytes = incident.bytes.unwrap_or(0);
        self.incidents += 1;
        self.bytes += bytes;
        let (fs_type, device) = (&incident.file.fs_type, &incident.file.device);
        let error = incident.error.to_string();
        let row = self.row(fs_type.as_deref(), device.as_deref(), &error);
        let other = |(row, told): LossRow| (other_row(row), told);
        let (losses, lost) = bounded(&mut self.losses, (row, incident.told.word()), other);
        *losses += 1;
        *lost += bytes;
    }

    fn page(&self) -> Page {
        let mut page = Page::default();
        self.found(&mut page);
        self.unseen(&mut page);
        self.deliveries(&mut page);
        self.ourselves(&mut page);
        page
    }

    fn found(&self, page: &mut Page) {
        page.plain(table::INCIDENTS, self.incidents);
        page.plain(table::INCIDENT_BYTES, self.bytes);
        for (([fs_type, device, errno], told), (losses, bytes)) in &self.losses {
            let words = [&**fs_type, device, errno, told];
            page.sample(table::LOSSES, &words, *losses);
            page.sample(table::LOST_BYTES, &words, *bytes);
        }
        for (change, count) in &self.changes {
            page.sample(table::CHANGES, &[change], *count);
        }
        for ([fs_type, device, errno], count) in &self.failures {
            page.sample(table::WRITE_FAILURES, &[fs_type, device, errno], *count);
        }
        for (what, count) in &self.storage_errors {
            page.sample(table::STORAGE_ERRORS, &[what], *count);
        }
        for ((call, result), count) in &self.syncs {
            page.sample(table::SYNC_RESULTS, &[call, result], *count);
        }
        page.plain(table::FACTS, self.facts);
    }

    fn unseen(&self, page: &mut Page) {
        let now = &self.condition;
        for (cause, count) in &self.unseen {
            page.sample(table::UNSEEN, &[cause], *count);
        }
        for (ring, sent, dropped) in &now.rings {
            page.sample(table::RING_SEEN, &[ring], sent + dropped);
            page.sample(table::RING_SENT, &[ring], *sent);
            page.sample(table::RING_DROPPED, &[ring], *dropped);
        }
        for (map, count) in &now.maps_full {
            page.sample(table::MAP_FULL, &[map], *count);
        }
        for (hook, attached) in &self.hooks {
            page.sample(table::HOOK_ATTACHED, &[hook], *attached);
        }
        page.plain(table::HOOKS_MISSING, self.hooks_missing);
        page.sample(table::PROBE_MISSES, &["failures"], now.probe_misses.0);
        page.sample(table::PROBE_MISSES, &["more"], now.probe_misses.1);
        page.plain(table::TRACKED_INODES, now.tracked_inodes);
        page.plain(table::TRACKED_INODES_LIMIT, now.tracked_inodes_limit);
        page.plain(table::OUTSTANDING_INODES, now.outstanding_inodes);
        page.plain(table::COMPLETE, now.complete);
    }

    fn deliveries(&self, page: &mut Page) {
        let (errors, facts, incidents) = self.condition.store;
        page.plain(table::STORE_ERRORS, errors);
        page.sample(table::STORE_LOST, &["facts"], facts);
        page.sample(table::STORE_LOST, &["incidents"], incidents);
        for output in &self.outputs {
            let (name, delivery) = (&[output.name()], output.look());
            page.sample(table::OUTPUT_DELIVERED, name, delivery.delivered);
            page.sample(table::OUTPUT_DROPPED, name, delivery.dropped);
            page.sample(table::OUTPUT_ERRORS, name, delivery.errors);
            page.sample(table::OUTPUT_RETRIES, name, delivery.retries);
            page.sample(table::OUTPUT_WAITING, name, delivery.waiting);
        }
    }

    fn ourselves(&self, page: &mut Page) {
        page.plain(table::READY, self.condition.ready);
        page.plain(table::DRAINS, self.condition.drains);
        page.plain(
            table::LAST_DRAIN,
            Number::Seconds(self.condition.last_drain),
        );
        page.plain(table::START, Number::Seconds(self.started));
        let abi = self.abi.to_string();
        page.sample(table::BUILD_INFO, &[env!("CARGO_PKG_VERSION"), &abi], 1u64);
    }
}

fn other_row(_: Row) -> Row {
    [OTHER, OTHER, OTHER].map(str::to_owned)
}

/// The count of a row, or of what stands for it where there are too many.
fn bounded<K: Ord, V: Default>(
    rows: &mut BTreeMap<K, V>,
    row: K,
    other: impl FnOnce(K) -> K,
) -> &mut V {
    let row = match rows.len() < ROWS || rows.contains_key(&row) {
        true => row,
        false => other(row),
    };
    rows.entry(row).or_default()
}

#[cfg(test)]
mod tests;
