//! The record as a file: made, recognised, opened.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    hash::{DefaultHasher, Hasher},
    io::{self, Read, Seek, SeekFrom, Write},
    num::NonZero,
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig, hooks::Wal};
use rustix::fs::Advice;

use super::{
    StoreError,
    error::While,
    layout,
    shared_memory::{guard, pages_lost},
};

/// The file beside a record with this ending: `-wal`, `-lock` ...
pub(super) fn sibling(record: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(record);
    name.push(ending);
    PathBuf::from(name)
}

/// Where a record really is: whoever writes it through a symbolic link writes the same record.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, StoreError> {
    if let Ok(real) = fs::canonicalize(path) {
        return Ok(real);
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or_else(|| StoreError::NotOurs {
        path: path.to_owned(),
        what: "a directory",
    })?;
    let folder = fs::canonicalize(folder).during("open the directory of", path)?;
    Ok(folder.join(name))
}

/// Whether something is there that can be a record. Does not open it: closing it would give up the
/// locks that SQLite has on it in this process.
pub(super) fn can_be(path: &Path) -> Result<bool, StoreError> {
    let is = match fs::metadata(path) {
        Ok(is) => is,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).during("read", path),
    };
    let kind = is.file_type();
    if kind.is_dir() {
        return Err(not_ours(path, "a directory"));
    }
    if kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device() {
        return Err(not_ours(path, "a special file"));
    }
    Ok(is.len() > 0)
}

fn not_ours(path: &Path, what: &'static str) -> StoreError {
    StoreError::NotOurs {
        path: path.to_owned(),
        what,
    }
}

/// Whether a record is there; an error if it is something else. Touches nothing.
pub(super) fn is_there(path: &Path) -> Result<bool, StoreError> {
    if !can_be(path)? {
        return Ok(false);
    }
    // The header of a record is complete before the record has its name.
    let mut header = [0; 100];
    let mut file = File::open(path).during("read", path)?;
    match file.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(not_ours(path, "another kind of file"));
        }
        Err(error) => return Err(error).during("read", path),
    }
    if !header.starts_with(b"SQLite format 3\0") {
        return Err(not_ours(path, "another kind of file"));
    }
    if header[68..72] != layout::APPLICATION.to_be_bytes() {
        return Err(not_ours(path, "another SQLite database"));
    }
    Ok(true)
}

/// Makes an empty record. It appears under its name when it is complete and on the disk.
pub(super) fn create(path: &Path) -> Result<(), StoreError> {
    let new = sibling(path, "-new");
    set_aside_log(path)?;
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).during("remove", &new);
        }
        _ => {}
    }
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .during("create", path)?;
    let made = fill(&new)
        .and_then(|()| file.sync_all().during("write", path))
        .and_then(|()| fs::rename(&new, path).during("create", path));
    if made.is_err() {
        // What is in the way of the next attempt is removed by it.
        let _ = fs::remove_file(&new);
        return made;
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .during("write the directory of", path)
}

fn fill(new: &Path) -> Result<(), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(new, flags).during("create", new)?;
    layout::create(&mut connection).during("create", new)?;
    connection
        .close()
        .map_err(|(_, error)| error)
        .during("create", new)
}

/// A log without its record would be taken for the log of the new one.
fn set_aside_log(path: &Path) -> Result<(), StoreError> {
    for ending in ["-wal", "-journal"] {
        let log = sibling(path, ending);
        match fs::rename(&log, sibling(&log, "-orphan")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).during("set aside", &log);
            }
            _ => {}
        }
    }
    match fs::remove_file(sibling(path, "-shm")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).during("replace", path),
        _ => Ok(()),
    }
}

/// Opens a record to write it. Only for whoever holds the lock.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    guard();
    see_the_disk(path)?;
    write_log_again(&sibling(path, "-wal"))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).during("open", path)?;
    layout::version(&connection, path)?;
    set_up(&mut connection).during("open", path)?;
    layout::lift(&mut connection, path)?;
    Ok(connection)
}

/// Pages of the log that are written back into the record when there are so many.
const LOG_PAGES: i32 = 1000;

fn set_up(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(2))?;
    // Closed after an error, nothing more is written behind our back.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "cache_size", -2048)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.query_row("PRAGMA journal_size_limit = 4194304", [], |_| Ok(()))?;
    connection.set_prepared_statement_cache_capacity(64);
    believe_shared_memory(connection)
}

/// Nothing is committed or written back by what stands in shared memory once some of it was lost.
fn believe_shared_memory(connection: &mut Connection) -> rusqlite::Result<()> {
    let before = pages_lost();
    connection.commit_hook(Some(move || pages_lost() != before))?;
    connection.wal_hook(Some(move |log: &mut Wal, pages| {
        match pages >= LOG_PAGES && pages_lost() == before {
            true => log.checkpoint().or_else(unless_read),
            false => Ok(()),
        }
    }))
}

/// Some reader may need the log. Anything else is taken for a commit that failed, so that the record is
/// opened anew: a later attempt could not mend the pages that failed, see [`write_log_again`].
pub(super) fn unless_read(error: rusqlite::Error) -> rusqlite::Result<()> {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Ok(()),
        _ => Err(error),
    }
}

/// Writes a log that is there already once more, the same bytes. A flush that failed left bytes in the
/// page cache that look as if they were on the disk; SQLite would build on them.
///
/// Not over those pages: once a write into new blocks failed, ext4 takes these for written, while they
/// are marked as unwritten on the disk. Then a later write of the page reaches the blocks, fsync
/// succeeds, and who reads the disk gets zeros (`mpage_map_buffers` in fs/ext4/inode.c; seen on 6.18).
fn write_log_again(log: &Path) -> Result<(), StoreError> {
    let file = OpenOptions::new().read(true).write(true).open(log);
    let mut file = match file {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.during("open", log)?,
    };
    let mut again = || -> io::Result<()> {
        // What cannot be written now is met below.
        let _ = file.sync_all();
        let mut written = DefaultHasher::new();
        for_each_piece(&mut file, |file, at, bytes| {
            drop_pages(file, at, bytes.len())?;
            file.seek(SeekFrom::Start(at))?;
            file.write_all(bytes)?;
            written.write(bytes);
            Ok(())
        })?;
        file.sync_all()?;
        let mut read = DefaultHasher::new();
        drop_pages(&file, 0, 0)?;
        for_each_piece(&mut file, |_, _, bytes| {
            read.write(bytes);
            Ok(())
        })?;
        match read.finish() == written.finish() {
            true => Ok(()),
            false => Err(io::Error::other(
                "the disk has other bytes than were written",
            )),
        }
    };
    again().during("write", log)
}

/// Bytes looked at at a time; no piece of the page cache is larger, or lies in two of them.
const PIECE: u64 = 4 << 20;

fn for_each_piece(
    file: &mut File,
    mut each: impl FnMut(&mut File, u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut at = 0;
    loop {
        bytes.clear();
        file.seek(SeekFrom::Start(at))?;
        (&*file).take(PIECE).read_to_end(&mut bytes)?;
        if bytes.is_empty() {
            return Ok(());
        }
        each(file, at, &bytes)?;
        at += bytes.len() as u64;
    }
}

/// What the page cache has of a record beyond what the disk has is gone: the log has it. See
/// [`write_log_again`].
fn see_the_disk(path: &Path) -> Result<(), StoreError> {
    let file = File::open(path).during("open", path)?;
    let _ = file.sync_all();
    drop_pages(&file, 0, 0).during("read", path)
}

/// Takes clean pages of a file out of the page cache; a length of 0 means up to its end.
fn drop_pages(file: &File, at: u64, length: usize) -> io::Result<()> {
    let length = NonZero::new(length as u64);
    Ok(rustix::fs::fadvise(file, at, length, Advice::DontNeed)?)
}

/// Where the filesystem of a file is mounted, as far as device numbers tell; `None` if its folder cannot
/// be looked at.
pub(super) fn mounted_at(path: &Path) -> Option<PathBuf> {
    let folder = path.parent()?;
    let dev = |folder: &Path| fs::metadata(folder).map(|is| is.dev()).ok();
    let ours = dev(folder)?;
    let same = folder.ancestors().take_while(|it| dev(it) == Some(ours));
    same.last().map(Path::to_owned)
}

/// Which file it is, to notice that another one has its name.
pub(super) fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|is| (is.dev(), is.ino()))
}
