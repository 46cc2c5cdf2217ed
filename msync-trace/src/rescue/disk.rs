//! What the disk has in the place of a file's bytes, asked for in a thread of its own: a disk that
//! fails often hangs as well, and must not keep the bytes that memory has from being saved.

use std::{
    cell::Cell,
    fs::File,
    io,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use super::{
    btrfs::Chunks,
    device::Device,
    filesystem::FileSystem,
    place::{Place, places},
};
use crate::model::ByteRange;

/// A file, and the disk below it.
#[derive(Debug)]
pub(super) struct Below {
    pub(super) file: Arc<File>,
    pub(super) filesystem: FileSystem,
    /// Or why there is none to be read.
    pub(super) medium: Result<Medium, String>,
}

/// What the places that a filesystem speaks of are on.
#[derive(Debug)]
pub(super) enum Medium {
    /// Its device.
    Device(Device),
    /// Devices of btrfs.
    Btrfs(Chunks),
}

impl Medium {
    /// Reads from this place on. What is not known is told, with its place in `range`, for which
    /// these bytes are.
    fn read(&self, place: u64, into: &mut [u8], range: ByteRange) -> Vec<(ByteRange, String)> {
        let found = match self {
            Self::Device(device) => device.read(place, into).map(|()| Vec::new()),
            Self::Btrfs(chunks) => chunks.read(place, into),
        };
        match found {
            Err(why) => vec![(range, why)],
            Ok(hidden) => hidden
                .into_iter()
                .filter_map(|(from, to, why)| {
                    let start = range.start();
                    Some((ByteRange::new(start + from as u64, start + to as u64)?, why))
                })
                .collect(),
        }
    }
}

/// What was read.
#[derive(Debug)]
pub(super) struct Read {
    /// One byte for each that was asked for; zeros where they are not known.
    pub(super) bytes: Vec<u8>,
    /// Which are not known, and why.
    pub(super) hidden: Vec<(ByteRange, String)>,
}

impl Read {
    fn nothing(range: ByteRange, why: String) -> Self {
        Self {
            bytes: vec![0; range.len() as usize],
            hidden: vec![(range, why)],
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Disk {
    asked: Sender<ByteRange>,
    answered: Receiver<Read>,
    patience: Duration,
    /// It did not answer in time once: it is not waited for again.
    hangs: Cell<bool>,
}

impl Disk {
    /// # Errors
    /// If no thread can be started.
    pub(super) fn new(below: Below, patience: Duration) -> io::Result<Self> {
        let (asked, questions) = channel();
        let (answers, answered) = channel();
        thread::Builder::new()
            .name("disk".to_owned())
            .spawn(move || {
                for range in questions {
                    if answers.send(below.read(range)).is_err() {
                        break;
                    }
                }
            })?;
        Ok(Self {
            asked,
            answered,
            patience,
            hangs: Cell::new(false),
        })
    }

    /// Reads the bytes of the file as the disk has them. The range is not much longer than what
    /// fits into memory with ease.
    pub(super) fn read(&self, range: ByteRange) -> Read {
        let answer = match self.hangs.get() || self.asked.send(range).is_err() {
            true => None,
            false => self.answered.recv_timeout(self.patience).ok(),
        };
        answer.unwrap_or_else(|| {
            self.hangs.set(true);
            let why = format!(
                "the disk did not answer in {} s",
                self.patience.as_secs_f32()
            );
            Read::nothing(range, why)
        })
    }
}

impl Below {
    fn read(&self, range: ByteRange) -> Read {
        let nothing = |why: String| Read::nothing(range, why);
        let medium = match &self.medium {
            Ok(medium) => medium,
            Err(why) => return nothing(why.clone()),
        };
        if let Some(why) = self.filesystem.hides_places(&self.file, medium) {
            return nothing(why.to_owned());
        }
        let cannot = |error| format!("the filesystem does not say where the bytes lie: {error}");
        let before = match places(&self.file, range) {
            Ok(places) => places,
            Err(error) => return nothing(cannot(error)),
        };
        let mut bytes = vec![0; range.len() as usize];
        let mut hidden = Vec::new();
        for piece in &before {
            let from = (piece.range.start() - range.start()) as usize;
            let into = &mut bytes[from..from + piece.range.len() as usize];
            match piece.place {
                Place::Zeros => {}
                Place::At(place) => hidden.extend(medium.read(place, into, piece.range)),
                Place::Elsewhere(why) => hidden.push((piece.range, why.to_owned())),
            }
        }
        match places(&self.file, range) {
            Ok(after) if after == before => Read { bytes, hidden },
            _ => nothing("the filesystem moved the bytes meanwhile".to_owned()),
        }
    }
}
