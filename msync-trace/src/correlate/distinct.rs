//! Distinct files and bytes of incidents: what several processes were lied to about counts once.

use std::collections::BTreeMap;

use super::interval::IntervalMap;
use crate::model::{Incident, InodeKey};

/// Counts the distinct files and bytes that incidents name.
#[derive(Debug)]
pub struct Distinct {
    /// Files so far.
    pub files: u64,
    /// Bytes so far; a byte counts once, however often it was lost.
    pub bytes: u64,
    named: BTreeMap<InodeKey, IntervalMap<()>>,
    /// Memory that `named` takes and may take, bytes, about.
    memory: usize,
    limit: usize,
}

/// Memory of a file in `Distinct::named`, without its ranges, in a tree that is two thirds full.
const PER_FILE: usize = size_of::<(InodeKey, IntervalMap<()>)>() * 3 / 2;

impl Default for Distinct {
    fn default() -> Self {
        Self::within(2 << 20)
    }
}

impl Distinct {
    /// With so much memory, bytes, about: when it is used up files are forgotten, and count again
    /// if they come back.
    #[must_use]
    pub fn within(limit: usize) -> Self {
        Self {
            files: 0,
            bytes: 0,
            named: BTreeMap::new(),
            memory: 0,
            limit,
        }
    }

    /// Counts what this incident names.
    pub fn add(&mut self, incident: &Incident) {
        if !self.named.contains_key(&incident.inode) {
            self.files += 1;
            self.memory += PER_FILE;
        }
        let named = self.named.entry(incident.inode).or_default();
        let before = named.memory();
        for range in &incident.ranges {
            let mut new = 0;
            named.update(*range, |piece, known| {
                if known.is_none() {
                    new += piece.len();
                }
                Some(())
            });
            self.bytes = self.bytes.saturating_add(new);
        }
        self.memory = self.memory - before + named.memory();
        while self.memory > self.limit
            && let Some((_, forgotten)) = self.named.pop_first()
        {
            self.memory -= forgotten.memory() + PER_FILE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::*;

    fn incident(ino: u64, pages: &[(u64, u64)]) -> Incident {
        let ranges = pages.iter().map(|(from, to)| ByteRange::new(*from, *to));
        Incident {
            id: IncidentId(1),
            inode: InodeKey {
                fs: FileSystemId::Device(1),
                ino,
                generation: 1,
                subvolume: 0,
            },
            ranges: ranges.map(Option::unwrap).collect(),
            errno: Errno::EIO,
            failed_at: MonoTime(1),
            last_failed_at: MonoTime(1),
            writer: None,
            synced_at: MonoTime(2),
            call: Call::Msync,
            requested: ByteRange::ALL,
            task: Task {
                process: ProcessId {
                    pid: 1,
                    start_time: 1,
                },
                tid: 1,
                uid: 0,
                comm: b"db".to_vec(),
                cgroup: 0,
                kernel_thread: false,
            },
            told: ToldWho::Nobody,
            coverage: Coverage::Inside,
            evidence: Evidence::Page,
            in_memory: InMemory::Yes,
            file: FileView::default(),
            path_when_failed: None,
        }
    }

    #[test]
    fn a_byte_counts_once_in_each_file() {
        let mut distinct = Distinct::default();
        distinct.add(&incident(1, &[(0, 10), (20, 30)]));
        distinct.add(&incident(1, &[(5, 25)]));
        assert_eq!((distinct.files, distinct.bytes), (1, 30));
        distinct.add(&incident(2, &[(0, 10)]));
        assert_eq!((distinct.files, distinct.bytes), (2, 40));
    }

    #[test]
    fn memory_has_a_limit() {
        let mut distinct = Distinct::within(10_000);
        for ino in 0..1000 {
            distinct.add(&incident(ino, &[(0, 10)]));
            assert!(distinct.memory <= 10_000);
        }
        assert_eq!((distinct.files, distinct.bytes), (1000, 10_000));
        assert!(!distinct.named.is_empty());
    }
}
