//! Reads records: of any host, old ones, those of a killed writer, those that are being written, and
//! in places where nothing can be written.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, Row, Statement};

use super::{
    StoreError,
    columns::{self, Odd, bits},
    error::While,
    file::{self, sibling},
    layout,
};
use crate::{
    model::{
        ByteRange, CallId, Discarded, Errno, Evicted, Fact, FactKind, FileId, FileView, Gone,
        InodeKey, Lost, MonoTime, Opened, Redirtied, StorageError, SyncReturn, Task, Told,
        WriteFailed, WriteOk,
    },
    schema::{Record, WallTime, from_line},
};

/// A record that is open for reading.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    path: PathBuf,
}

/// A run, as its header in the record says it. See `docs/record.md`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the columns of table `runs`")]
pub struct RunRow {
    pub run: i64,
    pub version: String,
    pub host: Option<String>,
    pub boot_id: Option<String>,
    pub os: String,
    pub kernel: String,
    pub machine: String,
    pub pid: u32,
    pub tier: String,
    pub include_async: bool,
    pub input: Option<String>,
    pub began: MonoTime,
    pub began_wall: WallTime,
    pub wall_minus_mono_ns: i64,
    pub first_fact: i64,
    pub last_fact: i64,
    pub seen: MonoTime,
    pub seen_wall: WallTime,
    pub ended: Option<MonoTime>,
    pub ended_wall: Option<WallTime>,
    pub reason: Option<String>,
    pub complete: Option<bool>,
    pub exit_status: Option<u8>,
}

/// A time in which the record could not be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// In which run.
    pub run: i64,
    /// The first attempt that failed.
    pub from: WallTime,
    /// The one that succeeded.
    pub to: WallTime,
    /// So many facts are lost.
    pub facts: u64,
    /// So many incidents.
    pub incidents: u64,
    /// So many changes, losses and storage errors.
    pub others: u64,
    /// Why.
    pub error: String,
}

impl Reader {
    /// Opens a record, to read only.
    ///
    /// # Errors
    /// If it is no record, a newer one, or cannot be read.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let path = file::resolve(path)?;
        let is = fs::metadata(&path).during("read", &path)?;
        if is.len() == 0 || !file::is_there(&path)? {
            return Err(StoreError::NotOurs {
                path,
                what: "an empty file",
            });
        }
        let connection = connect(&path)?;
        layout::version(&connection, &path)?;
        Ok(Self { connection, path })
    }

    /// The connection, for questions of one's own.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All runs, in the order in which they were recorded.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn runs(&self) -> Result<Vec<RunRow>, StoreError> {
        let sql = "SELECT run, version, host, boot_id, os, kernel, machine, pid, tier,
            include_async, input, began_ns, began_wall_ns, wall_minus_mono_ns, first_fact,
            last_fact, seen_ns, seen_wall_ns, ended_ns, ended_wall_ns, reason, complete,
            exit_status FROM runs ORDER BY run";
        self.all(sql, [], run_row)
    }

    /// Wall time minus kernel time in a run, and from when on, in nanoseconds.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn clock(&self, run: i64) -> Result<Vec<(MonoTime, i64)>, StoreError> {
        let sql = "SELECT since_ns, wall_minus_mono_ns FROM clock WHERE run = ?1 ORDER BY since_ns";
        self.all(sql, [run], |row| Ok((MonoTime(bits(row, 0)?), row.get(1)?)))
    }

    /// The records `start`, `hooks` and `stop` of a run, as they were published.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn run_records(&self, run: i64) -> Result<Vec<Record>, StoreError> {
        let sql = "SELECT record FROM run_records WHERE run = ?1 ORDER BY id";
        self.all(sql, [run], record)
    }

    /// The incidents of a run in their order, each with whether it was shown.
    ///
    /// # Errors
    /// If they cannot be read; an error of `each` ends it.
    pub fn incidents<E: From<StoreError>>(
        &self,
        run: i64,
        mut each: impl FnMut(Record, bool) -> Result<(), E>,
    ) -> Result<(), E> {
        let sql = "SELECT record, shown FROM incidents WHERE run = ?1 ORDER BY incident";
        self.each(
            sql,
            [run],
            |row| Ok((record(row)?, row.get(1)?)),
            |(it, shown)| each(it, shown),
        )
    }

    /// The times in which a run could not be stored.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn gaps(&self, run: i64) -> Result<Vec<Gap>, StoreError> {
        let sql = "SELECT run, from_wall_ns, to_wall_ns, facts, incidents, others, error
            FROM gaps WHERE run = ?1 ORDER BY id";
        self.all(sql, [run], |row| {
            Ok(Gap {
                run: row.get(0)?,
                from: WallTime(row.get(1)?),
                to: WallTime(row.get(2)?),
                facts: bits(row, 3)?,
                incidents: bits(row, 4)?,
                others: bits(row, 5)?,
                error: row.get(6)?,
            })
        })
    }

    /// The facts of a run, in their order, each with its number. They pass by one at a time, however
    /// many there are.
    ///
    /// # Errors
    /// If they cannot be read; an error of `each` ends it.
    pub fn facts<E: From<StoreError>>(
        &self,
        run: &RunRow,
        mut each: impl FnMut(i64, Fact) -> Result<(), E>,
    ) -> Result<(), E> {
        let sql = "SELECT fact, mono_ns, kind, inode, range_start, range_end, errno, task,
            file_view, call, call_id, file_id, flag, submitted_ns, errno_os, word, count
            FROM facts WHERE fact BETWEEN ?1 AND ?2 AND run = ?3 ORDER BY fact";
        let mut names = Names::of(&self.connection).during("read", &self.path)?;
        self.each(
            sql,
            [run.first_fact, run.last_fact, run.run],
            |row| Ok((row.get(0)?, fact(row, &mut names)?)),
            |(number, fact)| each(number, fact),
        )
    }

    fn all<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> Result<T, Odd>,
    ) -> Result<Vec<T>, StoreError> {
        let mut all = Vec::new();
        self.each(sql, values, read, |it| {
            all.push(it);
            Ok::<_, StoreError>(())
        })?;
        Ok(all)
    }

    fn each<T, E: From<StoreError>>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        mut read: impl FnMut(&Row<'_>) -> Result<T, Odd>,
        mut each: impl FnMut(T) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut statement = self
            .connection
            .prepare_cached(sql)
            .during("read", &self.path)?;
        let mut rows = statement.query(values).during("read", &self.path)?;
        while let Some(row) = rows.next().during("read", &self.path)? {
            each(read(row).map_err(|odd| self.odd(odd))?)?;
        }
        Ok(())
    }

    fn odd(&self, odd: Odd) -> StoreError {
        let path = self.path.clone();
        match odd {
            Odd::Sqlite(error) => StoreError::Sqlite {
                what: "read",
                path,
                error,
            },
            Odd::Value(what) => StoreError::Damaged { path, what },
        }
    }
}

/// Opens it as others do; where nothing can be written beside it, by itself.
fn connect(path: &Path) -> Result<Connection, StoreError> {
    let shared = open(path, "").and_then(|connection| {
        // The first look at a log needs the file that its readers share.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    });
    match shared {
        Ok(connection) => Ok(connection),
        Err(error) if cannot_share(&error) => alone(path).during("read", path),
        Err(error) => Err(error).during("read", path),
    }
}

fn cannot_share(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, ReadOnly, SystemIoFailure};
    matches!(
        error.sqlite_error_code(),
        Some(CannotOpen | ReadOnly | SystemIoFailure)
    )
}

/// Nobody else can have it open in a place that cannot be written: the index of the log is kept in our
/// memory, and no lock is needed.
fn alone(path: &Path) -> rusqlite::Result<Connection> {
    let has_log = fs::metadata(sibling(path, "-wal")).is_ok_and(|log| log.len() > 0);
    if !has_log {
        return open(path, "&immutable=1");
    }
    let connection = open(path, "&vfs=unix-none")?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

fn open(path: &Path, how: &str) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(uri(path, how), flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn uri(path: &Path, how: &str) -> String {
    use std::fmt::Write as _;

    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        // Writing to a String cannot fail.
        let _ = match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                uri.write_char(char::from(*byte))
            }
            other => write!(uri, "%{other:02X}"),
        };
    }
    uri + "?mode=ro" + how
}

fn run_row(row: &Row<'_>) -> Result<RunRow, Odd> {
    Ok(RunRow {
        run: row.get(0)?,
        version: row.get(1)?,
        host: row.get(2)?,
        boot_id: row.get(3)?,
        os: row.get(4)?,
        kernel: row.get(5)?,
        machine: row.get(6)?,
        pid: row.get(7)?,
        tier: row.get(8)?,
        include_async: row.get(9)?,
        input: row.get(10)?,
        began: MonoTime(bits(row, 11)?),
        began_wall: WallTime(row.get(12)?),
        wall_minus_mono_ns: row.get(13)?,
        first_fact: row.get(14)?,
        last_fact: row.get(15)?,
        seen: MonoTime(bits(row, 16)?),
        seen_wall: WallTime(row.get(17)?),
        ended: optional_bits(row, 18)?.map(MonoTime),
        ended_wall: row.get::<_, Option<i64>>(19)?.map(WallTime),
        reason: row.get(20)?,
        complete: row.get(21)?,
        exit_status: row.get(22)?,
    })
}

fn optional_bits(row: &Row<'_>, column: usize) -> Result<Option<u64>, Odd> {
    Ok(row.get::<_, Option<i64>>(column)?.map(i64::cast_unsigned))
}

fn record(row: &Row<'_>) -> Result<Record, Odd> {
    let text = row
        .get_ref(0)?
        .as_bytes()
        .map_err(|error| Odd::value(error.to_string()))?;
    from_line(text).map_err(|error| Odd::value(error.to_string()))
}

/// So many of each are remembered.
const REMEMBERED: usize = 16_384;

/// What facts name by number.
struct Names<'a> {
    inodes: Looked<'a, InodeKey>,
    tasks: Looked<'a, Task>,
    views: Looked<'a, FileView>,
}

struct Looked<'a, T> {
    statement: Statement<'a>,
    known: HashMap<i64, T>,
    what: &'static str,
}

impl<T: Clone> Looked<'_, T> {
    fn get(
        &mut self,
        number: Option<i64>,
        read: impl Fn(&Row<'_>) -> Result<T, Odd>,
    ) -> Result<Option<T>, Odd> {
        let Some(number) = number else {
            return Ok(None);
        };
        if let Some(known) = self.known.get(&number) {
            return Ok(Some(known.clone()));
        }
        let mut rows = self.statement.query([number])?;
        let row = rows.next()?;
        let row = row.ok_or_else(|| Odd::value(format!("{} {number} is missing", self.what)))?;
        let found = read(row)?;
        if self.known.len() == REMEMBERED {
            self.known.clear();
        }
        self.known.insert(number, found.clone());
        Ok(Some(found))
    }
}

impl<'a> Names<'a> {
    fn of(connection: &'a Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            inodes: Looked {
                statement: connection.prepare(
                    "SELECT fs_kind, fs, ino, generation, subvolume FROM inodes WHERE inode = ?1",
                )?,
                known: HashMap::new(),
                what: "inode",
            },
            tasks: Looked {
                statement: connection.prepare(
                    "SELECT pid, start_ns, tid, uid, comm, cgroup_id, kernel_thread FROM tasks
                     WHERE task = ?1",
                )?,
                known: HashMap::new(),
                what: "task",
            },
            views: Looked {
                statement: connection.prepare(
                    "SELECT path, from_root, mount, fs_type, dev, device, deleted FROM file_views
                     WHERE file_view = ?1",
                )?,
                known: HashMap::new(),
                what: "file view",
            },
        })
    }
}

fn needed<T>(value: Option<T>, what: &str) -> Result<T, Odd> {
    value.ok_or_else(|| Odd::value(format!("a fact has no {what}")))
}

/// Columns as [`Reader::facts`] asks for them.
fn fact(row: &Row<'_>, names: &mut Names<'_>) -> Result<Fact, Odd> {
    let os = row.get_ref(14)?.as_str_or_null().ok().flatten();
    let errno: Option<Errno> = columns::errno(row.get(6)?, os)?;
    let range: Option<ByteRange> = columns::range(row.get(4)?, row.get(5)?)?;
    let inode = names
        .inodes
        .get(row.get(3)?, |row| columns::inode_key(row, 0))?;
    let task = names.tasks.get(row.get(7)?, |row| columns::task(row, 0))?;
    let view = names.views.get(row.get(8)?, |row| columns::view(row, 0))?;
    let file = optional_bits(row, 11)?.map(FileId);
    let flag: Option<bool> = row.get(12)?;
    let kind: i64 = row.get(2)?;
    let kind = match kind {
        1 => FactKind::WriteFailed(WriteFailed {
            inode: needed(inode, "inode")?,
            range,
            errno: needed(errno, "error")?,
            submitted: optional_bits(row, 13)?.map(MonoTime),
            eviction_watched: needed(flag, "flag")?,
            writer: task,
            file: needed(view, "names")?,
        }),
        2 => FactKind::WriteOk(WriteOk {
            inode: needed(inode, "inode")?,
            range: needed(range, "range")?,
        }),
        3 => FactKind::Redirtied(Redirtied {
            inode: needed(inode, "inode")?,
            range: needed(range, "range")?,
        }),
        4 => FactKind::SyncReturn(SyncReturn {
            inode: needed(inode, "inode")?,
            file,
            call: columns::call(needed(row.get(9)?, "call")?)?,
            id: CallId(needed(optional_bits(row, 10)?, "call id")?),
            range: needed(range, "range")?,
            error: errno,
            pending: needed(flag, "flag")?,
            task: needed(task, "task")?,
            file_view: needed(view, "names")?,
        }),
        5 => FactKind::Told(Told {
            inode: needed(inode, "inode")?,
            file: needed(file, "file")?,
            errno: needed(errno, "error")?,
            task: needed(task, "task")?,
        }),
        6 => FactKind::Opened(Opened {
            inode: needed(inode, "inode")?,
            file: needed(file, "file")?,
        }),
        7 => FactKind::Discarded(Discarded {
            inode: needed(inode, "inode")?,
            range: needed(range, "range")?,
        }),
        8 => FactKind::Evicted(Evicted {
            inode: needed(inode, "inode")?,
            range: needed(range, "range")?,
        }),
        9 => FactKind::Gone(Gone {
            inode: needed(inode, "inode")?,
            deleted: needed(flag, "flag")?,
        }),
        10 => {
            let FileView {
                dev,
                dev_name,
                fs_type,
                ..
            } = needed(view, "names")?;
            FactKind::StorageError(StorageError {
                what: columns::word(&needed(row.get::<_, Option<String>>(15)?, "word")?)?,
                errno,
                dev,
                dev_name,
                fs_type,
            })
        }
        11 => FactKind::Lost(Lost {
            cause: columns::word(&needed(row.get::<_, Option<String>>(15)?, "word")?)?,
            count: needed(optional_bits(row, 16)?, "count")?,
        }),
        other => return Err(Odd::value(format!("unknown kind of fact {other}"))),
    };
    Ok(Fact {
        at: MonoTime(bits(row, 1)?),
        kind,
    })
}
