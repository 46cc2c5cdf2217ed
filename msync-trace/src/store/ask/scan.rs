//! All facts of a record, in their order, as fast as they can be read: chunks are read by several
//! threads at once and handed over one after the other.

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use rusqlite::{Connection, types::ValueRef};

use crate::model::{ByteRange, Call, Errno, ErrnoNumbers};

/// Facts of one chunk; some megabytes.
const CHUNK: i64 = 1 << 15;

/// More threads than this do not help: one takes in what they read.
const THREADS: usize = 3;

/// A fact, as far as a report needs it. Times are kernel time, nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) run: i64,
    pub(super) at: u64,
    pub(super) kind: Kind,
    /// `None`: of no file.
    pub(super) inode: Option<i64>,
    pub(super) range: Option<ByteRange>,
    pub(super) errno: Option<Errno>,
    pub(super) task: Option<i64>,
    pub(super) call: Option<Call>,
    pub(super) flag: bool,
}

/// `fact_kinds` of the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    WriteFailed,
    WriteOk,
    Redirtied,
    SyncReturn,
    Told,
    Opened,
    Discarded,
    Evicted,
    Gone,
    /// Of no inode, or what a newer version knows.
    Other,
}

/// The columns that [`row`] reads.
const COLUMNS: &str = "SELECT run, mono_ns, kind, inode, range_start, range_end, errno, task, call, \
     flag, errno_os FROM facts";

/// Hands over all facts with numbers from `first` to `last`. `open` opens the record once
/// more, for each thread.
///
/// # Errors
/// If the record cannot be read; what was handed over until then is right.
pub(super) fn all(
    open: &(dyn Fn() -> rusqlite::Result<Connection> + Sync),
    (first, last): (i64, i64),
    mut take: impl FnMut(&[Row]),
) -> rusqlite::Result<()> {
    let chunks = usize::try_from((last - first) / CHUNK + 1).unwrap_or(usize::MAX);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(THREADS).min(chunks);
    thread::scope(|scope| {
        let readers: Vec<Receiver<rusqlite::Result<Vec<Row>>>> = (0..threads)
            .map(|nth| {
                let (send, receive) = sync_channel(1);
                scope.spawn(move || read_every(open, (first, last), (nth, threads), &send));
                receive
            })
            .collect();
        for chunk in 0..chunks {
            // A reader ends early only after it has said why.
            let Ok(rows) = readers[chunk % threads].recv() else {
                break;
            };
            take(&rows?);
        }
        Ok(())
    })
}

/// Reads the chunks number `nth`, `nth + threads` ... until nobody wants them any more.
fn read_every(
    open: &dyn Fn() -> rusqlite::Result<Connection>,
    (first, last): (i64, i64),
    (nth, threads): (usize, usize),
    send: &SyncSender<rusqlite::Result<Vec<Row>>>,
) {
    let connection = match open() {
        Ok(connection) => connection,
        Err(error) => {
            let _ = send.send(Err(error));
            return;
        }
    };
    let (nth, threads) = (nth as i64, threads as i64);
    let mut start = first.saturating_add(nth * CHUNK);
    while start <= last {
        let end = last.min(start.saturating_add(CHUNK - 1));
        let rows = read(&connection, start, end);
        let failed = rows.is_err();
        if send.send(rows).is_err() || failed {
            return;
        }
        start = start.saturating_add(threads * CHUNK);
    }
}

fn read(connection: &Connection, start: i64, end: i64) -> rusqlite::Result<Vec<Row>> {
    let mut facts =
        connection.prepare_cached(&format!("{COLUMNS} WHERE fact BETWEEN ?1 AND ?2"))?;
    let mut rows = facts.query([start, end])?;
    let mut found = Vec::with_capacity(usize::try_from(end - start + 1).unwrap_or(0));
    while let Some(columns) = rows.next()? {
        found.push(row(columns)?);
    }
    Ok(found)
}

/// All facts of one inode in some runs, in their order.
pub(super) fn of_inode(
    connection: &Connection,
    inode: i64,
    mut take: impl FnMut(Row),
) -> rusqlite::Result<()> {
    let mut facts =
        connection.prepare_cached(&format!("{COLUMNS} WHERE inode = ?1 ORDER BY fact"))?;
    let mut rows = facts.query([inode])?;
    while let Some(columns) = rows.next()? {
        take(row(columns)?);
    }
    Ok(())
}

fn row(columns: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let number = |column| -> rusqlite::Result<Option<i64>> {
        Ok(match columns.get_ref(column)? {
            ValueRef::Integer(number) => Some(number),
            _ => None,
        })
    };
    let numbers = match columns.get_ref(10)? {
        ValueRef::Text(b"FreeBSD") => ErrnoNumbers::FreeBsd,
        _ => ErrnoNumbers::Linux,
    };
    let errno = number(6)?.and_then(|n| Errno::of(numbers, u32::try_from(n).ok()?));
    Ok(Row {
        run: number(0)?.unwrap_or(0),
        at: number(1)?.unwrap_or(0).cast_unsigned(),
        kind: kind(number(2)?.unwrap_or(0)),
        inode: number(3)?,
        range: range(number(4)?, number(5)?),
        errno,
        task: number(7)?,
        call: number(8)?.and_then(call),
        flag: number(9)? == Some(1),
    })
}

/// A range of the layout: no end is "to the end of the file", no start is "not known".
pub(super) fn range(start: Option<i64>, end: Option<i64>) -> Option<ByteRange> {
    let end = end.map_or(u64::MAX, i64::cast_unsigned);
    ByteRange::new(start?.cast_unsigned(), end)
}

fn kind(number: i64) -> Kind {
    match number {
        1 => Kind::WriteFailed,
        2 => Kind::WriteOk,
        3 => Kind::Redirtied,
        4 => Kind::SyncReturn,
        5 => Kind::Told,
        6 => Kind::Opened,
        7 => Kind::Discarded,
        8 => Kind::Evicted,
        9 => Kind::Gone,
        _ => Kind::Other,
    }
}

fn call(number: i64) -> Option<Call> {
    Some(match number {
        1 => Call::Msync,
        2 => Call::MsyncAsync,
        3 => Call::Fsync,
        4 => Call::Fdatasync,
        5 => Call::IoUring,
        6 => Call::Nfsd,
        _ => return None,
    })
}
