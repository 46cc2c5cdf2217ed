//! Why a record cannot be written or read, and what to do about it.

use std::{io, path::PathBuf};

/// Why a record cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else writes it.
    #[error(
        "{} is being written by {}: give another file, or end that one first",
        spell(.path),
        .pid.map_or_else(|| "another msync-trace".to_owned(), |pid| format!("msync-trace with pid {pid}"))
    )]
    InUse {
        /// The record.
        path: PathBuf,
        /// Process id of the writer, where it has said it.
        pid: Option<u32>,
    },
    /// It is something else; it was not touched.
    #[error("{} is {what}, not a record of msync-trace: give another name", spell(.path))]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Its layout is newer than this program.
    #[error(
        "{} was written by msync-trace {written_by} (layout {layout}): reading it takes msync-trace \
         {read_by} or newer, this is {}", spell(.path), env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// The record.
        path: PathBuf,
        /// Its layout.
        layout: i32,
        /// Who wrote it.
        written_by: String,
        /// The oldest version that reads it.
        read_by: String,
    },
    /// A file cannot be opened, written, moved.
    #[error("cannot {what} {}: {error}", spell(.path))]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// SQLite cannot do it.
    #[error("cannot {what} {}: {error}", spell(.path))]
    Sqlite {
        /// What was tried.
        what: &'static str,
        /// The record.
        path: PathBuf,
        /// Why not.
        error: rusqlite::Error,
    },
    /// A row says what no msync-trace writes.
    #[error("{} is damaged: {what} (`sqlite3 FILE .recover` saves the rest)", spell(.path))]
    Damaged {
        /// The record.
        path: PathBuf,
        /// Which row, and what is wrong with it.
        what: String,
    },
}

/// Any bytes: whoever shows it makes it safe.
pub(super) fn spell(path: &std::path::Path) -> std::path::Display<'_> {
    path.display()
}

/// Adds to an error what was tried on which file.
pub(super) trait While<T> {
    fn during(self, what: &'static str, path: &std::path::Path) -> Result<T, StoreError>;
}

impl<T> While<T> for io::Result<T> {
    fn during(self, what: &'static str, path: &std::path::Path) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::Io {
            what,
            path: path.to_owned(),
            error,
        })
    }
}

impl<T> While<T> for rusqlite::Result<T> {
    fn during(self, what: &'static str, path: &std::path::Path) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::Sqlite {
            what,
            path: path.to_owned(),
            error,
        })
    }
}
