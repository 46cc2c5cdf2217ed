//! Who was told: which open file descriptions of one inode were given an error, and when.

use crate::model::{FileId, MonoTime, ToldWho, keep::keep};

/// The open file descriptions that were given an error.
#[derive(Clone, Debug, Default)]
pub(super) struct ToldFiles {
    /// When each was told last, oldest first. Nearly always one or two, a thousand at most.
    files: Vec<(MonoTime, FileId)>,
    /// When anybody was told last. Outlives the descriptions themselves: that somebody was told
    /// stays true when he closes the file.
    newest: Option<MonoTime>,
}

impl ToldFiles {
    /// `file` was given the error. Beyond `limit` the one told longest ago is forgotten; says
    /// when that one was told.
    pub(super) fn tell(&mut self, file: FileId, at: MonoTime, limit: usize) -> Option<MonoTime> {
        self.newest = self.newest.max(Some(at));
        let at = self.forget(file).map_or(at, |before| at.max(before));
        let place = self.files.partition_point(|told| *told < (at, file));
        self.files.insert(place, (at, file));
        (self.files.len() > limit.max(1)).then(|| self.files.remove(0).0)
    }

    /// `file` is another description from now on. Says when it was told last.
    pub(super) fn forget(&mut self, file: FileId) -> Option<MonoTime> {
        let place = self.files.iter().position(|(_, told)| *told == file)?;
        Some(self.files.remove(place).0)
    }

    /// No description is left (an open one would have kept the inode in memory).
    pub(super) fn forget_all(&mut self) {
        self.files.clear();
    }

    /// Nothing is outstanding: that somebody was told once matters only as long as a description
    /// that was is left (facts can be slightly out of order).
    pub(super) fn nothing_outstanding(&mut self) {
        if self.files.is_empty() {
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
        let told = |file| self.files.iter().find(|(_, told)| *told == file);
        if file.and_then(told).is_some_and(|(at, _)| *at >= since) {
            ToldWho::Caller
        } else if self.newest.is_some_and(|at| at >= since) {
            ToldWho::Other
        } else {
            ToldWho::Nobody
        }
    }

    /// Whether no description is known to have been told.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Memory that they take, bytes.
    pub(super) fn memory(&self) -> usize {
        self.files.capacity() * size_of::<(MonoTime, FileId)>()
    }
}

keep!(struct ToldFiles { files, newest });

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
