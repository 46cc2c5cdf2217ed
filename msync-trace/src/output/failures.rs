//! Write failures that are worth a record of their own: not each of a storm.

use std::collections::HashMap;

use crate::{
    model::{Fact, FactKind, InodeKey, MonoTime},
    schema::{Body, Clock, Head, Record},
};

/// Of one inode, one in so long, nanoseconds.
const PER_INODE: u64 = 60_000_000_000;
/// Of all, so many in a second.
const PER_SECOND: u32 = 10;
/// So many inodes are remembered.
const REMEMBERED: usize = 4096;

/// Which failures were told.
#[derive(Debug, Default)]
pub(super) struct Failures {
    told: HashMap<InodeKey, MonoTime>,
    second: u64,
    in_second: u32,
}

impl Failures {
    /// The record of a write failure, if it is to be told.
    pub(super) fn told(&mut self, fact: &Fact, clock: &Clock) -> Option<Record> {
        let FactKind::WriteFailed(failed) = &fact.kind else {
            return None;
        };
        let last = self.told.get(&failed.inode);
        if last.is_some_and(|last| fact.at.since(*last).as_nanos() < PER_INODE.into()) {
            return None;
        }
        let second = fact.at.0 / 1_000_000_000;
        if second != self.second {
            (self.second, self.in_second) = (second, 0);
        }
        if self.in_second >= PER_SECOND {
            return None;
        }
        self.in_second += 1;
        if self.told.len() >= REMEMBERED {
            self.told.clear();
        }
        self.told.insert(failed.inode, fact.at);
        let head = Head::at(fact.at, clock);
        let body = Body::WriteFailed(failed.clone());
        Some(Record { head, body })
    }
}
