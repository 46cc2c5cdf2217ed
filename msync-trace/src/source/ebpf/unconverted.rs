//! Extents of ext4 that a failed write left unwritten. Pure.
//!
//! The failed write has left its pages mapped to the blocks, and the next write of such a page goes
//! straight to them (`mpage_process_page_bufs`, fs/ext4/inode.c: only unmapped, delayed and
//! unwritten buffers are mapped anew). It succeeds, no `ext4_io_end` asks for the conversion, and
//! the extent still reads as zeros once the page has left memory. To whoever waits for the bytes
//! that is a write that failed.

use std::collections::HashMap;

use msync_trace_ebpf as abi;

use crate::{
    correlate::interval::IntervalMap,
    model::{ByteRange, Errno, keep::keep},
};

/// Most memory for extents, bytes, about.
const MAX_MEMORY: usize = 4 << 20;

/// Memory that a file takes in the table, bytes, about.
const PER_FILE: usize = size_of::<(abi::InodeKey, IntervalMap<Errno>)>() * 3 / 2;

/// Which bytes of which files are mapped to unwritten blocks, and the error that left them so.
#[derive(Debug, Default)]
pub struct Unconverted {
    inodes: HashMap<abi::InodeKey, IntervalMap<Errno>>,
    /// Memory that they take, bytes, about.
    memory: usize,
}

impl Unconverted {
    /// A write failed and left `range` unwritten. False if there is no room to remember it.
    pub fn add(&mut self, key: abi::InodeKey, range: ByteRange, errno: Errno) -> bool {
        if self.memory >= MAX_MEMORY {
            return false;
        }
        self.change(key, range, Some(errno));
        true
    }

    /// `range` was converted, or is no longer in the file.
    pub fn remove(&mut self, key: abi::InodeKey, range: ByteRange) {
        if self.inodes.contains_key(&key) {
            self.change(key, range, None);
        }
    }

    fn change(&mut self, key: abi::InodeKey, range: ByteRange, value: Option<Errno>) {
        let files = self.inodes.len();
        let map = self.inodes.entry(key).or_default();
        let before = map.memory();
        map.update(range, |_, _| value);
        let (after, is_empty) = (map.memory(), map.is_empty());
        self.memory = self.memory - before + after + (self.inodes.len() - files) * PER_FILE;
        if is_empty {
            self.forget(&key);
        }
    }

    /// Forgets an inode.
    pub fn forget(&mut self, key: &abi::InodeKey) {
        if let Some(map) = self.inodes.remove(key) {
            self.memory -= map.memory() + PER_FILE;
        }
    }

    /// The parts of a range that was written: with the error of an earlier failure where the file
    /// does not have the bytes all the same, `None` where it has.
    pub fn written(
        &self,
        key: &abi::InodeKey,
        range: ByteRange,
    ) -> Vec<(ByteRange, Option<Errno>)> {
        let Some(map) = self.inodes.get(key) else {
            return vec![(range, None)];
        };
        let mut parts = Vec::new();
        let mut from = range.start();
        for (piece, errno) in map.within(range) {
            parts.extend(ByteRange::new(from, piece.start()).map(|gap| (gap, None)));
            parts.push((piece, Some(errno)));
            from = piece.end();
        }
        parts.extend(ByteRange::new(from, range.end()).map(|gap| (gap, None)));
        parts
    }
}

keep!(struct Unconverted { inodes, memory });

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    const PAGE: u64 = 4096;

    fn pages(from: u64, to: u64) -> ByteRange {
        ByteRange::new(from * PAGE, to * PAGE).unwrap()
    }

    fn file(ino: u64) -> abi::InodeKey {
        let mut key = abi::InodeKey::new_zeroed();
        key.ino = ino;
        key
    }

    #[test]
    fn a_write_is_split_at_what_stays_unwritten() {
        let mut unconverted = Unconverted::default();
        assert!(unconverted.add(file(1), pages(2, 4), Errno::EIO));
        let parts = unconverted.written(&file(1), pages(1, 5));
        assert_eq!(
            parts,
            [
                (pages(1, 2), None),
                (pages(2, 4), Some(Errno::EIO)),
                (pages(4, 5), None)
            ]
        );
        assert_eq!(
            unconverted.written(&file(2), pages(1, 5)),
            [(pages(1, 5), None)]
        );
    }

    #[test]
    fn what_was_converted_or_given_up_is_written_from_then_on() {
        let mut unconverted = Unconverted::default();
        unconverted.add(file(1), pages(0, 8), Errno::EIO);
        unconverted.remove(file(1), pages(0, 2));
        unconverted.remove(file(1), ByteRange::new(6 * PAGE, u64::MAX).unwrap());
        let failed: Vec<_> = unconverted
            .written(&file(1), pages(0, 8))
            .into_iter()
            .filter_map(|(range, errno)| errno.map(|_| range))
            .collect();
        assert_eq!(failed, [pages(2, 6)]);
        unconverted.remove(file(1), pages(2, 6));
        assert!(unconverted.inodes.is_empty());
        assert_eq!(unconverted.memory, 0);
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let mut unconverted = Unconverted::default();
        let mut extents = (0..MAX_MEMORY as u64).map(|at| pages(2 * at, 2 * at + 1));
        assert!(extents.any(|extent| !unconverted.add(file(1), extent, Errno::EIO)));
        assert!(unconverted.memory < 2 * MAX_MEMORY);
        assert!(!unconverted.add(file(2), pages(0, 1), Errno::EIO));
        unconverted.forget(&file(1));
        assert!(unconverted.add(file(2), pages(0, 1), Errno::EIO));
    }
}
