//! What a trace keeps for later, and whether the disk below it can be relied on.

use std::collections::BTreeSet;

use crate::{
    enrich::Beneath,
    model::{Fact, FactKind, FileSystemId, InodeKey, MonoTime},
    output::escape,
    schema::{Body, Record, spell_dev},
    store::{Recorder, RunHeader, StoreError, StoreHealth},
};

/// A recorder, and what its file lies on.
pub struct Keeping {
    recorder: Recorder,
    /// `None`: the facts are about disks of another machine.
    beneath: Option<Beneath>,
    /// Devices that were seen to fail already.
    seen: BTreeSet<u32>,
}

/// So many failing devices are looked at.
const SEEN: usize = 4096;

impl Keeping {
    /// Keeps with this recorder.
    #[must_use]
    pub fn new(recorder: Recorder) -> Self {
        let beneath = Some(Beneath::file(recorder.path()));
        Self {
            recorder,
            beneath,
            seen: BTreeSet::new(),
        }
    }

    /// Keeps what was seen on another machine. Its facts can wait for this disk.
    #[must_use]
    pub fn of_elsewhere(recorder: Recorder) -> Self {
        Self {
            recorder,
            beneath: None,
            seen: BTreeSet::new(),
        }
    }

    pub(super) fn begin(&mut self, header: RunHeader) -> Result<(), StoreError> {
        self.recorder.begin(header)
    }

    pub(super) fn clock(&mut self, since: MonoTime, offset: i64) {
        self.recorder.clock(since, offset);
    }

    pub(super) fn settled(&mut self, inode: &InodeKey) {
        self.recorder.settled(inode);
    }

    pub(super) fn flush(&mut self) {
        self.recorder.flush();
        if self.beneath.is_none() {
            self.recorder.wait_for_room();
        }
    }

    /// Keeps a fact. Gives a warning if it is about the disk that it is kept on.
    pub(super) fn fact(&mut self, fact: Fact) -> Option<String> {
        let device = match &fact.kind {
            FactKind::WriteFailed(failed) => failed.file.dev.or(device_of(&failed.inode)),
            FactKind::StorageError(error) => error.dev,
            _ => None,
        };
        self.recorder.fact(fact);
        self.warn_of(device?)
    }

    /// Keeps a record. Gives a warning as [`Self::fact`] does.
    pub(super) fn record(&mut self, record: &Record, shown: bool) -> Option<String> {
        self.recorder.record(record, shown);
        match &record.body {
            Body::Incident(incident) => self.warn_of(incident.file.dev?),
            _ => None,
        }
    }

    fn warn_of(&mut self, device: u32) -> Option<String> {
        if self.seen.contains(&device) || self.seen.len() == SEEN {
            return None;
        }
        self.seen.insert(device);
        let shared = self.beneath.as_ref()?.shared_with(device)?;
        let warning = format!(
            "warning: the record {} lies on {shared}, where writes fail: keep it on another disk",
            escape(self.recorder.path().as_os_str().as_encoded_bytes()),
        );
        self.recorder
            .note(format!("lies on {} where writes fail", spell_dev(device)));
        Some(warning)
    }

    /// How the record fares.
    pub(super) fn health(&self) -> StoreHealth {
        self.recorder.health()
    }

    /// Waits until everything so far is stored.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        self.recorder.settle().map_err(|(facts, incidents)| {
            format!(
                "{} could not be written to the end: {facts} facts and {incidents} incidents are \
                 not in it",
                escape(self.recorder.path().as_os_str().as_encoded_bytes())
            )
        })
    }

    /// Closes the record. Says what is in it, and whether that is all.
    pub(super) fn finish(self) -> (String, bool) {
        let path = escape(self.recorder.path().as_os_str().as_encoded_bytes());
        let kept = self.recorder.finish();
        let mut said = format!(
            "{path} has {} and {} of this run",
            count(kept.facts, "fact"),
            count(kept.incidents, "incident")
        );
        if kept.lost_facts + kept.lost_incidents > 0 {
            said += &format!(
                "; {} and {} are lost",
                count(kept.lost_facts, "fact"),
                count(kept.lost_incidents, "incident")
            );
        }
        if kept.failed {
            said += "; its end could not be written";
        }
        (said, !kept.failed)
    }
}

fn device_of(inode: &InodeKey) -> Option<u32> {
    match inode.fs {
        FileSystemId::Device(dev) => Some(dev),
        FileSystemId::Uuid(_) | FileSystemId::Fsid(_) => None,
    }
}

fn count(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
