//! Who was told: which open file descriptions of one inode were given an error, and when.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{FileId, MonoTime, ToldWho};

/// The open file descriptions that were given an error.
#[derive(Clone, Debug, Default)]
pub(super) struct ToldFiles {
    /// When each was told last.
    by_file: BTreeMap<FileId, MonoTime>,
    /// The same, oldest first.
    by_time: BTreeSet<(MonoTime, FileId)>,
    /// When anybody was told last. Outlives the descriptions themselves: that somebody was told
    /// stays true when he closes the file.
    newest: Option<MonoTime>,
}

impl ToldFiles {
    /// `file` was given the error. Beyond `limit` the one told longest ago is forgotten; says
    /// when that one was told.
    pub(super) fn tell(&mut self, file: FileId, at: MonoTime, limit: usize) -> Option<MonoTime> {
        self.newest = self.newest.max(Some(at));
        let at = self.by_file.get(&file).map_or(at, |before| at.max(*before));
        self.forget(file);
        self.by_file.insert(file, at);
        self.by_time.insert((at, file));
        if self.by_file.len() <= limit.max(1) {
            return None;
        }
        let (forgotten, file) = self.by_time.pop_first()?;
        self.by_file.remove(&file);
        Some(forgotten)
    }

    /// `file` is another description from now on.
    pub(super) fn forget(&mut self, file: FileId) {
        if let Some(at) = self.by_file.remove(&file) {
            self.by_time.remove(&(at, file));
        }
    }

    /// No description is left (an open one would have kept the inode in memory).
    pub(super) fn forget_all(&mut self) {
        self.by_file.clear();
        self.by_time.clear();
    }

    /// Nothing is outstanding: that somebody was told once matters only as long as a description
    /// that was is left (facts can be slightly out of order).
    pub(super) fn nothing_outstanding(&mut self) {
        if self.by_file.is_empty() {
            self.newest = None;
        }
    }

    /// When anybody was told last.
    pub(super) fn newest(&self) -> Option<MonoTime> {
        self.newest
    }

    /// Who had been told about bytes that failed first at `since`, seen from `file`: itself,
    /// somebody else, or nobody. An error handed out before these bytes failed was about others.
    pub(super) fn since(&self, since: MonoTime, file: Option<FileId>) -> ToldWho {
        let caller = file.and_then(|file| self.by_file.get(&file));
        if caller.is_some_and(|at| *at >= since) {
            ToldWho::Caller
        } else if self.newest.is_some_and(|at| at >= since) {
            ToldWho::Other
        } else {
            ToldWho::Nobody
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_file.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_handed_out_before_the_failure_does_not_count() {
        let mut told = ToldFiles::default();
        told.tell(FileId(1), MonoTime(10), 8);
        assert_eq!(told.since(MonoTime(11), Some(FileId(1))), ToldWho::Nobody);
        assert_eq!(told.since(MonoTime(10), Some(FileId(1))), ToldWho::Caller);
        assert_eq!(told.since(MonoTime(10), Some(FileId(2))), ToldWho::Other);
        assert_eq!(told.since(MonoTime(10), None), ToldWho::Other);
    }

    #[test]
    fn at_the_limit_the_one_told_longest_ago_is_forgotten() {
        let mut told = ToldFiles::default();
        assert_eq!(told.tell(FileId(1), MonoTime(10), 2), None);
        assert_eq!(told.tell(FileId(2), MonoTime(20), 2), None);
        assert_eq!(told.tell(FileId(1), MonoTime(30), 2), None);
        assert_eq!(
            told.tell(FileId(3), MonoTime(40), 2),
            Some(MonoTime(20)),
            "file 2 was told longest ago"
        );
        assert_eq!(told.since(MonoTime(0), Some(FileId(2))), ToldWho::Other);
    }
}
