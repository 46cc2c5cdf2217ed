//! All facts of a record, in their order, as fast as they can be read: blocks are read by several
//! threads at once, packed ones if there are any, and taken in by several, each the facts of its own
//! inodes.

use std::{
    panic::resume_unwind,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use rusqlite::{Connection, types::ValueRef};

use crate::{
    model::{ByteRange, Call, Errno, ErrnoNumbers},
    store::pack::{self, BLOCK, Columns},
};

/// More threads than this do not help: those that take in what they read are slower.
const THREADS: usize = 2;
/// So many threads take in facts.
pub(super) const SHARDS: usize = 4;
/// So many chunks may wait for one of them.
const AHEAD: usize = 2;

/// Takes in facts of some inodes.
pub(super) trait Take: Send {
    /// The next one.
    fn take(&mut self, row: &Row);
}

/// A fact, as far as a report needs it. Times are kernel time, nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) fact: i64,
    pub(super) run: i64,
    pub(super) at: u64,
    pub(super) kind: Kind,
    pub(super) inode: i64,
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

/// The columns that [`columns`] reads.
const COLUMNS: &str = "SELECT fact, run, mono_ns, kind, inode, range_start, range_end, errno, task, \
     call, flag, errno_os FROM facts";

/// Facts that are read at once, split for those who take them in.
struct Chunk {
    facts: u64,
    shards: [Vec<Row>; SHARDS],
}

/// Opens the record once more, for each thread that reads.
pub(super) type Open<'a> = dyn Fn() -> rusqlite::Result<Connection> + Sync + 'a;

/// Hands over all facts of inodes with numbers from `first` to `last`: to each of `takers` those of
/// some inodes, in their order, on a thread of its own. `read` is told how many were read, now and
/// then. Gives back the takers.
///
/// # Errors
/// If the record cannot be read; what was handed over until then is right.
pub(super) fn all<T: Take>(
    open: &Open<'_>,
    (first, last): (i64, i64),
    takers: [T; SHARDS],
    mut read: impl FnMut(u64),
) -> ([T; SHARDS], rusqlite::Result<()>) {
    let (block, end) = (first.div_euclid(BLOCK), last.div_euclid(BLOCK) + 1);
    let chunks = usize::try_from(end - block).unwrap_or(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(THREADS).min(chunks);
    thread::scope(|scope| {
        let readers: Vec<Receiver<rusqlite::Result<Chunk>>> = (0..threads)
            .map(|nth| {
                let (send, receive) = sync_channel(1);
                scope.spawn(move || read_every(open, (first, last), (nth, threads), &send));
                receive
            })
            .collect();
        let takers = takers.map(|mut taker| {
            let (send, receive) = sync_channel::<Vec<Row>>(AHEAD);
            let thread = scope.spawn(move || {
                for rows in receive {
                    rows.iter().for_each(|row| taker.take(row));
                }
                taker
            });
            (send, thread)
        });
        let mut result = Ok(());
        for chunk in 0..chunks {
            // A reader ends early only after it has said why.
            let Ok(chunk) = readers[chunk % threads].recv() else {
                break;
            };
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            };
            for (rows, (taker, _)) in chunk.shards.into_iter().zip(&takers) {
                // One that is gone has panicked, which is noticed below.
                let _ = taker.send(rows);
            }
            read(chunk.facts);
        }
        let takers = takers.map(|(send, thread)| {
            drop(send);
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        });
        (takers, result)
    })
}

/// Reads the chunks number `nth`, `nth + threads` ... until nobody wants them any more.
fn read_every(
    open: &Open<'_>,
    (first, last): (i64, i64),
    (nth, threads): (usize, usize),
    send: &SyncSender<rusqlite::Result<Chunk>>,
) {
    let opened = open().and_then(|connection| Ok((pack::are_there(&connection)?, connection)));
    let (packed, connection) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let _ = send.send(Err(error));
            return;
        }
    };
    let blocks = first.div_euclid(BLOCK)..=last.div_euclid(BLOCK);
    for block in blocks.skip(nth).step_by(threads) {
        let chunk = read(&connection, packed, block, (first, last));
        let failed = chunk.is_err();
        if send.send(chunk).is_err() || failed {
            return;
        }
    }
}

/// The facts of a block with numbers from `first` to `last`.
fn read(
    connection: &Connection,
    packed: bool,
    block: i64,
    (first, last): (i64, i64),
) -> rusqlite::Result<Chunk> {
    let begin = first.max(block.saturating_mul(BLOCK));
    let end = last.min(block.saturating_mul(BLOCK).saturating_add(BLOCK - 1));
    let mut chunk = Chunk::new();
    if packed && let Some(facts) = pack::load(connection, block)? {
        let facts = facts.iter().filter(|it| (begin..=end).contains(&it.fact));
        facts.for_each(|it| chunk.add(it));
        return Ok(chunk);
    }
    let mut facts =
        connection.prepare_cached(&format!("{COLUMNS} WHERE fact BETWEEN ?1 AND ?2"))?;
    let mut rows = facts.query([begin, end])?;
    while let Some(row) = rows.next()? {
        chunk.add(&columns(row)?);
    }
    Ok(chunk)
}

impl Chunk {
    fn new() -> Self {
        // A little more than all have, if they have the same.
        let room = BLOCK.unsigned_abs() as usize / SHARDS;
        Self {
            facts: 0,
            shards: std::array::from_fn(|_| Vec::with_capacity(room + room / 8)),
        }
    }

    fn add(&mut self, columns: &Columns) {
        self.facts += 1;
        if let Some(inode) = columns.inode {
            self.shards[shard(inode)].push(row(inode, columns));
        }
    }
}

/// Who takes in the facts of an inode. The same on every machine: what a report leaves out must not
/// depend on how many processors there are.
pub(super) fn shard(inode: i64) -> usize {
    usize::try_from(inode.rem_euclid(SHARDS as i64)).unwrap_or(0)
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
    while let Some(found) = rows.next()? {
        take(row(inode, &columns(found)?));
    }
    Ok(())
}

fn columns(row: &rusqlite::Row<'_>) -> rusqlite::Result<Columns> {
    let number = |column| -> rusqlite::Result<Option<i64>> {
        Ok(match row.get_ref(column)? {
            ValueRef::Integer(number) => Some(number),
            _ => None,
        })
    };
    Ok(Columns {
        fact: number(0)?.unwrap_or(0),
        run: number(1)?.unwrap_or(0),
        at: number(2)?.unwrap_or(0),
        kind: number(3)?.unwrap_or(0),
        inode: number(4)?,
        start: number(5)?,
        end: number(6)?,
        errno: number(7)?,
        free_bsd: matches!(row.get_ref(11)?, ValueRef::Text(b"FreeBSD")),
        task: number(8)?,
        call: number(9)?,
        flag: number(10)? == Some(1),
    })
}

fn row(inode: i64, columns: &Columns) -> Row {
    let numbers = match columns.free_bsd {
        true => ErrnoNumbers::FreeBsd,
        false => ErrnoNumbers::Linux,
    };
    let errno = columns.errno.and_then(|n| u32::try_from(n).ok());
    Row {
        fact: columns.fact,
        run: columns.run,
        at: columns.at.cast_unsigned(),
        kind: kind(columns.kind),
        inode,
        range: range(columns.start, columns.end),
        errno: errno.and_then(|n| Errno::of(numbers, n)),
        task: columns.task,
        call: columns.call.and_then(call),
        flag: columns.flag,
    }
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
