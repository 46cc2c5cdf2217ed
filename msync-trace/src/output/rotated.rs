//! JSON lines in a file that does not grow without end.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{Refused, Sink};
use crate::schema::{Body, Record, to_line};

/// How large a file may become, and how many of its predecessors stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes; a file is never larger unless one record is.
    pub max_size: u64,
    /// Older files: `FILE.1` is the newest of them. 0: what is full is deleted.
    pub keep: u32,
}

/// Appends each record as a line of JSON; only whole lines, even on a full disk.
#[derive(Debug)]
pub struct RotatedFile {
    path: PathBuf,
    rotation: Rotation,
    /// Not there after an error: opened anew before the next line.
    file: Option<File>,
}

impl RotatedFile {
    /// Opens the file, or makes it: readable by its owner and group only, as names of files can be
    /// private.
    ///
    /// # Errors
    /// If it cannot be opened or written.
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let mut this = Self {
            path: path.to_owned(),
            rotation,
            file: None,
        };
        this.file()?;
        Ok(this)
    }

    fn file(&mut self) -> io::Result<&mut File> {
        let opened = match self.file.take() {
            Some(file) => file,
            None => {
                let mut options = OpenOptions::new();
                let options = options.read(true).append(true).create(true).mode(0o640);
                let mut file = options.open(&self.path)?;
                end_torn_line(&mut file)?;
                file
            }
        };
        Ok(self.file.insert(opened))
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let len = self.file()?.metadata()?.len();
        if len > 0 && len.saturating_add(line.len() as u64) > self.rotation.max_size {
            self.rotate()?;
        }
        let file = self.file()?;
        let len = file.metadata()?.len();
        if let Err(error) = file.write_all(line) {
            // A part of it may be there: readers get whole lines only.
            let cut = file.set_len(len);
            self.file = None;
            return Err(cut.err().unwrap_or(error));
        }
        Ok(())
    }

    /// `FILE` becomes `FILE.1`, that becomes `FILE.2`, and the last goes.
    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        for number in (1..self.rotation.keep).rev() {
            rename_if_there(&self.older(number), &self.older(number + 1))?;
        }
        match self.rotation.keep {
            0 => fs::remove_file(&self.path)?,
            _ => rename_if_there(&self.path, &self.older(1))?,
        }
        self.file().map(drop)
    }

    fn older(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    /// Whether the name still leads to the file that is open (logrotate moves it away).
    fn is_there(&self) -> bool {
        let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let open = self.file.as_ref().and_then(|file| file.metadata().ok());
        let named = fs::metadata(&self.path).ok();
        open.map(identity)
            .is_some_and(|open| named.map(identity) == Some(open))
    }
}

/// A crash may have left half a line: it stays, and the next one begins on a line of its own.
fn end_torn_line(file: &mut File) -> io::Result<()> {
    let len = file.metadata()?.len();
    let mut last = [b'\n'];
    if len == 0 || file.read_at(&mut last, len - 1)? == 0 || last == *b"\n" {
        return Ok(());
    }
    file.write_all(b"\n")
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl Sink for RotatedFile {
    /// What `trace -o json` shows.
    fn wants(&self, record: &Record) -> bool {
        !matches!(record.body, Body::WriteFailed(_))
    }

    fn put(&mut self, record: &Record) -> Result<(), Refused> {
        self.append(&to_line(record)).map_err(Refused::ForNow)
    }

    fn reopen(&mut self) -> io::Result<()> {
        if !self.is_there() {
            self.file = None;
        }
        self.file().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{LossCause, Lost, MonoTime},
        schema::{Clock, Head, WallTime},
    };

    fn record(count: u64) -> Record {
        let clock = Clock::new(MonoTime(0), WallTime(0));
        Record {
            head: Head::at(MonoTime(count), &clock),
            body: Body::Lost(Lost {
                cause: LossCause::BadRecord,
                count,
            }),
        }
    }

    fn counts(path: &Path) -> Vec<u64> {
        let text = fs::read_to_string(path).unwrap();
        let count = |line: &str| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            value["count"].as_u64().unwrap()
        };
        text.lines().map(count).collect()
    }

    #[test]
    fn a_full_file_is_kept_under_another_name_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let max_size = to_line(&record(1)).len() as u64 * 2;
        let rotation = Rotation { max_size, keep: 2 };
        let mut file = RotatedFile::open(&path, rotation).unwrap();
        for number in 1..=7 {
            file.put(&record(number)).unwrap();
        }
        assert_eq!(counts(&path), [7]);
        assert_eq!(counts(&folder.path().join("log.1")), [5, 6]);
        assert_eq!(counts(&folder.path().join("log.2")), [3, 4]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let rotation = Rotation {
            max_size: 1 << 20,
            keep: 2,
        };
        let mut file = RotatedFile::open(&path, rotation).unwrap();
        file.put(&record(1)).unwrap();
        fs::rename(&path, folder.path().join("moved")).unwrap();
        file.put(&record(2)).unwrap();
        file.reopen().unwrap();
        file.put(&record(3)).unwrap();
        assert_eq!(counts(&folder.path().join("moved")), [1, 2]);
        assert_eq!(counts(&path), [3]);
    }

    #[test]
    fn half_a_line_of_a_crash_spoils_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "{\"schema\":1,\"ti").unwrap();
        let rotation = Rotation {
            max_size: 1 << 20,
            keep: 2,
        };
        let mut file = RotatedFile::open(&path, rotation).unwrap();
        file.put(&record(1)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().nth(1).unwrap().starts_with("{\"schema\""));
    }
}
