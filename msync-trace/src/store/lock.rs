//! One writer per record.
//!
//! The lock is on a file beside the record: SQLite has locks of its own on the record, which a program
//! gives up by closing any descriptor of it. A writer that is killed leaves the file behind, and the
//! kernel takes its lock away.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::{StoreError, error::While, file::sibling};

/// Held while a record is written.
#[derive(Debug)]
pub(super) struct WriterLock {
    /// Open as long as the lock is held.
    file: Option<File>,
    path: PathBuf,
}

impl WriterLock {
    /// Takes the lock, or says who has it.
    pub(super) fn take(record: &Path) -> Result<Self, StoreError> {
        let path = sibling(record, "-lock");
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .during("create", &path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(StoreError::InUse {
                        path: record.to_owned(),
                        pid: pid_in(&mut file),
                    });
                }
                Err(error) => return Err(io::Error::from(error)).during("lock", &path),
            }
            // A writer that ended in this moment has removed the file that we have locked.
            if !is_at(&file, &path) {
                continue;
            }
            // On a full disk what stands there already need not be written.
            if pid_in(&mut file) != Some(std::process::id()) {
                write_pid(&mut file).during("write", &path)?;
            }
            return Ok(Self {
                file: Some(file),
                path,
            });
        }
    }

    /// Whether it still keeps others out: its file may have been removed, or its filesystem replaced.
    pub(super) fn is_in_place(&self) -> bool {
        let is_at = |file| is_at(file, &self.path);
        self.file.as_ref().is_some_and(is_at)
    }

    /// Gives it up and leaves its file there: one on a disk that fails is better not touched. (Kept
    /// open, it would keep that from being unmounted.)
    pub(super) fn let_go(mut self) {
        self.file = None;
    }
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        // Left behind, it holds up nobody; and another one in its place is not ours.
        if self.is_in_place() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn is_at(file: &File, path: &Path) -> bool {
    let same = || -> io::Result<bool> {
        let (ours, there) = (file.metadata()?, fs::metadata(path)?);
        Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino()))
    };
    same().unwrap_or(false)
}

fn pid_in(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_told_the_pid_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let record = folder.path().join("a.db");
        let first = WriterLock::take(&record).unwrap();
        let second = WriterLock::take(&record).unwrap_err();
        let pid = std::process::id();
        assert!(
            matches!(second, StoreError::InUse { pid: Some(it), .. } if it == pid),
            "{second}"
        );
        drop(first);
        WriterLock::take(&record).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_writer_leaves_holds_up_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let record = folder.path().join("a.db");
        fs::write(sibling(&record, "-lock"), "1\n").unwrap();
        WriterLock::take(&record).unwrap();
    }
}
