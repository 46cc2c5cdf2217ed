//! What a report was asked for, and whether a run, an incident or a file belongs to it.
//!
//! What is not known cannot exclude: a path that could not be found must not hide a loss.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use crate::{
    model::{Errno, ToldWho},
    schema::{Asked, PathFrom, WallTime, parse_dev, spell_dev},
};

/// What a report is asked for.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// What belongs to it.
    pub asked: Asked,
    /// How much is listed.
    pub limits: Limits,
}

/// How much of each a report lists. What is left out is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Incidents; the oldest are listed.
    pub incidents: usize,
    /// Files; those that lost most are listed.
    pub files: usize,
    /// Ranges of one file.
    pub ranges: usize,
    /// Entries in the timeline of one file: the first and the last are listed.
    pub timeline: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            incidents: 1000,
            files: 100,
            ranges: 100,
            timeline: 100,
        }
    }
}

impl Limits {
    /// Everything, whatever memory it takes.
    pub const NONE: Self = Self {
        incidents: usize::MAX,
        files: usize::MAX,
        ranges: usize::MAX,
        timeline: usize::MAX,
    };
}

/// A name, as far as a record says it.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Names<'a> {
    pub(in crate::store) path: Option<&'a [u8]>,
    pub(in crate::store) path_from: Option<PathFrom>,
    pub(in crate::store) device: Option<&'a str>,
    pub(in crate::store) dev: Option<&'a str>,
}

impl Question {
    /// Whether only some incidents are wanted: then a file without one is not.
    pub(super) fn narrows_incidents(&self) -> bool {
        !(self.asked.pid.is_empty()
            && self.asked.comm.is_empty()
            && self.asked.errno.is_empty()
            && self.asked.told.is_empty())
    }

    /// Whether only some files are wanted.
    pub(super) fn narrows_files(&self) -> bool {
        !(self.asked.path.is_empty() && self.asked.dev.is_empty())
    }

    /// Whether this moment is in the window.
    pub(in crate::store) fn in_window(&self, at: WallTime) -> bool {
        self.asked.since.is_none_or(|since| since <= at)
            && self.asked.until.is_none_or(|until| at < until)
    }

    /// Whether a run on this host is wanted.
    pub(super) fn wants_host(&self, host: Option<&str>) -> bool {
        any_fits(&self.asked.host, |wanted| Some(wanted == host?))
    }

    /// Whether a file with these names is wanted.
    pub(in crate::store) fn wants_file(&self, names: Names<'_>) -> bool {
        any_fits(&self.asked.path, |wanted| fits_path(wanted, names))
            && any_fits(&self.asked.dev, |wanted| fits_device(wanted, names))
    }

    /// Whether an incident of this process is wanted.
    pub(in crate::store) fn wants_process(&self, pid: u32, comm: &[u8]) -> bool {
        any_fits(&self.asked.pid, |wanted| Some(*wanted == pid))
            && any_fits(&self.asked.comm, |wanted| Some(wanted.as_bytes() == comm))
    }

    /// Whether an incident with this error and this answer is wanted.
    pub(in crate::store) fn wants_verdict(&self, errno: Errno, told: ToldWho) -> bool {
        any_fits(&self.asked.errno, |wanted| Some(is_errno(wanted, errno)))
            && any_fits(&self.asked.told, |wanted| Some(*wanted == told))
    }
}

/// Whether nothing is asked for, something fits, or it cannot be known whether something fits.
fn any_fits<T>(wanted: &[T], fits: impl Fn(&T) -> Option<bool>) -> bool {
    wanted.is_empty() || wanted.iter().any(|it| fits(it) != Some(false))
}

fn fits_path(wanted: &Path, names: Names<'_>) -> Option<bool> {
    let path = Path::new(OsStr::from_bytes(names.path?));
    let where_from_unknown = names.path_from == Some(PathFrom::Filesystem) || path.is_relative();
    (!where_from_unknown).then(|| path.starts_with(wanted))
}

fn fits_device(wanted: &str, names: Names<'_>) -> Option<bool> {
    let number = parse_dev(wanted).map(spell_dev);
    match number {
        Some(number) => Some(names.dev? == number),
        None => {
            let below_dev = wanted.strip_prefix("/dev/").unwrap_or(wanted);
            let device = names.device?;
            Some(device == wanted || device == below_dev)
        }
    }
}

fn is_errno(wanted: &str, errno: Errno) -> bool {
    errno
        .symbol()
        .is_some_and(|symbol| symbol.eq_ignore_ascii_case(wanted))
        || wanted.parse() == Ok(errno.number())
}
