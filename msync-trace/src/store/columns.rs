//! How the types of the model stand in columns, in both directions.

use rusqlite::{
    Row, ToSql,
    types::{ToSqlOutput, Value},
};

use crate::{
    model::{
        ByteRange, Call, Errno, ErrnoNumbers, FileSystemId, FileView, InodeKey, ProcessId, Task,
    },
    schema::{Word, escape, parse_dev, parse_filesystem, spell_dev, unescape},
};

/// A number of 64 bits without a sign: SQLite has none, the bits are kept.
pub(super) struct Bits(pub(super) u64);

impl ToSql for Bits {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Owned(Value::Integer(self.0.cast_signed())))
    }
}

/// A column, in a number without sign.
pub(super) fn bits(row: &Row<'_>, column: usize) -> Result<u64, Odd> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

/// What no msync-trace writes into a column.
#[derive(Debug, thiserror::Error)]
pub(super) enum Odd {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("{0}")]
    Value(String),
}

impl Odd {
    pub(super) fn value(what: impl Into<String>) -> Self {
        Self::Value(what.into())
    }
}

/// `range_start` and `range_end`.
pub(super) fn range_columns(range: Option<ByteRange>) -> (Option<i64>, Option<i64>) {
    let end = range.map(ByteRange::end).filter(|end| *end != u64::MAX);
    (
        range.map(|range| range.start().cast_signed()),
        end.map(u64::cast_signed),
    )
}

pub(super) fn range(start: Option<i64>, end: Option<i64>) -> Result<Option<ByteRange>, Odd> {
    let Some(start) = start else {
        return Ok(None);
    };
    let end = end.map_or(u64::MAX, i64::cast_unsigned);
    let range = ByteRange::new(start.cast_unsigned(), end);
    let range = range.ok_or_else(|| Odd::value(format!("the byte range from {start} is empty")))?;
    Ok(Some(range))
}

/// `errno` and `errno_os`.
pub(super) fn errno_columns(errno: Option<Errno>) -> (Option<u16>, Option<&'static str>) {
    let os = errno.map(Errno::numbers);
    (
        errno.map(Errno::number),
        os.filter(|os| *os != ErrnoNumbers::Linux).map(Word::word),
    )
}

pub(super) fn errno(number: Option<u32>, os: Option<&str>) -> Result<Option<Errno>, Odd> {
    let Some(number) = number else {
        return Ok(None);
    };
    let os = os.map_or(Ok(ErrnoNumbers::Linux), word)?;
    let errno = Errno::of(os, number)
        .ok_or_else(|| Odd::value(format!("{number} is no error number of the kernel")))?;
    Ok(Some(errno))
}

/// The value that a word stands for.
pub(super) fn word<T: Word>(text: &str) -> Result<T, Odd> {
    let found = T::ALL.iter().find(|value| value.word() == text);
    found
        .copied()
        .ok_or_else(|| Odd::value(format!("unknown word {text:?}")))
}

/// As table `calls` has it.
pub(super) fn call_number(call: Call) -> i64 {
    match call {
        Call::Msync => 1,
        Call::MsyncAsync => 2,
        Call::Fsync => 3,
        Call::Fdatasync => 4,
        Call::IoUring => 5,
        Call::Nfsd => 6,
    }
}

pub(super) fn call(number: i64) -> Result<Call, Odd> {
    let found = Call::ALL.iter().find(|call| call_number(**call) == number);
    found
        .copied()
        .ok_or_else(|| Odd::value(format!("unknown call {number}")))
}

/// `fs_kind` and `fs`.
pub(super) fn filesystem_columns(fs: FileSystemId) -> (&'static str, String) {
    let kind = match fs {
        FileSystemId::Uuid(_) => "uuid",
        FileSystemId::Device(_) => "dev",
        FileSystemId::Fsid(_) => "fsid",
    };
    (kind, fs.to_string())
}

/// Columns: `fs_kind`, `fs`, `ino`, `generation`, `subvolume`.
pub(super) fn inode_key(row: &Row<'_>, first: usize) -> Result<InodeKey, Odd> {
    let kind = row.get_ref(first)?.as_str().map_err(|_| no_text())?;
    let fs = row.get_ref(first + 1)?.as_str().map_err(|_| no_text())?;
    Ok(InodeKey {
        fs: parse_filesystem(kind, fs)
            .ok_or_else(|| Odd::value(format!("{fs:?} is no {kind} of a filesystem")))?,
        ino: bits(row, first + 2)?,
        generation: row.get(first + 3)?,
        subvolume: bits(row, first + 4)?,
    })
}

fn no_text() -> Odd {
    Odd::value("a text was expected")
}

pub(super) fn name(text: Option<String>) -> Result<Option<Vec<u8>>, Odd> {
    text.map(|text| unescape(&text).map_err(|error| Odd::value(error.to_string())))
        .transpose()
}

fn words(text: Option<String>) -> Result<Option<String>, Odd> {
    name(text)?
        .map(|bytes| String::from_utf8(bytes).map_err(|error| Odd::value(error.to_string())))
        .transpose()
}

/// Columns: `path`, `from_root`, `mount`, `fs_type`, `dev`, `device`, `deleted`.
pub(super) fn view_columns(view: &FileView) -> [Value; 7] {
    let text = |bytes: &[u8]| Value::Text(escape(bytes));
    let optional = |bytes: Option<&[u8]>| bytes.map_or(Value::Null, text);
    [
        optional(view.path.as_deref()),
        Value::Integer(view.from_root.into()),
        optional(view.mount.as_deref()),
        optional(view.fs_type.as_deref().map(str::as_bytes)),
        view.dev
            .map_or(Value::Null, |dev| Value::Text(spell_dev(dev))),
        optional(view.dev_name.as_deref().map(str::as_bytes)),
        Value::Integer(view.deleted.into()),
    ]
}

pub(super) fn view(row: &Row<'_>, first: usize) -> Result<FileView, Odd> {
    let dev: Option<String> = row.get(first + 4)?;
    let dev = dev.map(|text| {
        parse_dev(&text).ok_or_else(|| Odd::value(format!("{text:?} is no device number")))
    });
    Ok(FileView {
        path: name(row.get(first)?)?,
        from_root: row.get(first + 1)?,
        mount: name(row.get(first + 2)?)?,
        fs_type: words(row.get(first + 3)?)?,
        dev: dev.transpose()?,
        dev_name: words(row.get(first + 5)?)?,
        deleted: row.get(first + 6)?,
    })
}

/// Columns: `pid`, `start_ns`, `tid`, `uid`, `comm`, `cgroup_id`, `kernel_thread`.
pub(super) fn task_columns(task: &Task) -> [Value; 7] {
    [
        Value::Integer(task.process.pid.into()),
        Value::Integer(task.process.start_time.cast_signed()),
        Value::Integer(task.tid.into()),
        Value::Integer(task.uid.into()),
        Value::Text(escape(&task.comm)),
        Value::Integer(task.cgroup.cast_signed()),
        Value::Integer(task.kernel_thread.into()),
    ]
}

pub(super) fn task(row: &Row<'_>, first: usize) -> Result<Task, Odd> {
    Ok(Task {
        process: ProcessId {
            pid: row.get(first)?,
            start_time: bits(row, first + 1)?,
        },
        tid: row.get(first + 2)?,
        uid: row.get(first + 3)?,
        comm: name(Some(row.get(first + 4)?))?.unwrap_or_default(),
        cgroup: bits(row, first + 5)?,
        kernel_thread: row.get(first + 6)?,
    })
}
