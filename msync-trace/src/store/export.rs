//! Recorded evidence as tables whose rows stand for themselves: each says host, boot_id and run, so
//! that those of many hosts can lie side by side.

use rusqlite::{Row, types::ValueRef};

use super::{Reader, RunRow, StoreError};
use crate::{
    model::{ChangeKind, FactKind, IncidentId, LossCause, Lost, MonoTime},
    schema::{
        Body, Cell, ChangeRecord, Clock, Column, ColumnKind, Head, Record, SchemaVersion, WallTime,
        Word, from_line,
    },
};

/// A table that can be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its columns, in the order of the cells of a row.
    pub columns: &'static [Column],
    sql: &'static str,
}

const fn column(name: &'static str, kind: ColumnKind) -> Column {
    Column { name, kind }
}

use ColumnKind::{Bool, Number, Text, Time, Unsigned};

/// Silent losses, and what became of them.
pub const INCIDENTS: Table = Table {
    columns: &[
        column("host", Text),
        column("boot_id", Text),
        column("run", Number),
        column("incident", Number),
        column("time", Time),
        column("mono_ns", Number),
        column("error", Text),
        column("path", Text),
        column("mount", Text),
        column("fs_type", Text),
        column("device", Text),
        column("dev", Text),
        column("fs", Text),
        column("ino", Unsigned),
        column("generation", Number),
        column("subvolume", Unsigned),
        column("bytes", Number),
        column("ranges", Text),
        column("evidence", Text),
        column("told", Text),
        column("coverage", Text),
        column("in_memory", Text),
        column("call", Text),
        column("pid", Number),
        column("tid", Number),
        column("uid", Number),
        column("comm", Text),
        column("container", Text),
        column("first_failed", Time),
        column("last_failed", Time),
        column("repeats", Number),
        column("state", Text),
        column("recovered", Time),
        column("discarded", Time),
        column("evicted", Time),
    ],
    sql: "
SELECT r.host, r.boot_id, i.run, i.incident, i.wall_ns, i.mono_ns,
    ifnull(e.name, 'errno ' || i.errno), i.path, i.mount, i.fs_type, i.device, i.dev,
    n.fs, n.ino, n.generation, n.subvolume, i.bytes,
    (SELECT group_concat(printf('%u-', g.range_start) || ifnull(printf('%u', g.range_end - 1), ''), ' ')
        FROM incident_ranges g WHERE g.run = i.run AND g.incident = i.incident),
    i.evidence, i.told, i.coverage, i.in_memory, i.call, i.pid, i.tid, i.uid, i.comm,
    json_extract(i.record, '$.process.container.id'),
    i.first_failed_wall_ns, i.last_failed_wall_ns,
    (SELECT ifnull(max(c.repeats), 0) FROM changes c
        WHERE c.run = i.run AND c.incident = i.incident),
    ifnull((SELECT c.change FROM changes c WHERE c.run = i.run AND c.incident = i.incident
        AND c.change IN ('recovered', 'discarded') ORDER BY c.id DESC LIMIT 1), 'outstanding'),
    (SELECT max(c.wall_ns) FROM changes c
        WHERE c.run = i.run AND c.incident = i.incident AND c.change = 'recovered'),
    (SELECT max(c.wall_ns) FROM changes c
        WHERE c.run = i.run AND c.incident = i.incident AND c.change = 'discarded'),
    (SELECT max(c.wall_ns) FROM changes c
        WHERE c.run = i.run AND c.incident = i.incident AND c.change = 'evicted')
FROM incidents i JOIN runs r USING (run) JOIN inodes n USING (inode)
LEFT JOIN errnos e ON e.os = ifnull(i.errno_os, 'Linux') AND e.number = i.errno
ORDER BY i.id",
};

/// Everything that the hooks saw.
pub const FACTS: Table = Table {
    columns: &[
        column("host", Text),
        column("boot_id", Text),
        column("run", Number),
        column("fact", Number),
        column("time", Time),
        column("mono_ns", Number),
        column("what", Text),
        column("path", Text),
        column("device", Text),
        column("fs", Text),
        column("ino", Unsigned),
        column("generation", Number),
        column("subvolume", Unsigned),
        column("range_start", Unsigned),
        column("range_end", Unsigned),
        column("error", Text),
        column("call", Text),
        column("call_id", Text),
        column("file_id", Text),
        column("pid", Number),
        column("tid", Number),
        column("uid", Number),
        column("comm", Text),
        column("flag", Bool),
        column("word", Text),
        column("count", Number),
    ],
    sql: "
SELECT r.host, r.boot_id, f.run, f.fact,
    f.mono_ns + ifnull((SELECT c.wall_minus_mono_ns FROM clock c
        WHERE c.run = f.run AND c.since_ns <= f.mono_ns ORDER BY c.since_ns DESC LIMIT 1),
        r.wall_minus_mono_ns),
    f.mono_ns, k.name, ifnull(v.path, n.path), ifnull(v.device, n.device),
    n.fs, n.ino, n.generation, n.subvolume, f.range_start, f.range_end,
    CASE WHEN f.errno IS NOT NULL THEN ifnull(e.name, 'errno ' || f.errno) END,
    c.name, CASE WHEN f.call_id IS NOT NULL THEN printf('0x%x', f.call_id) END,
    CASE WHEN f.file_id IS NOT NULL THEN printf('0x%x', f.file_id) END,
    t.pid, t.tid, t.uid, t.comm, f.flag, f.word, f.count
FROM facts f JOIN runs r USING (run) JOIN fact_kinds k USING (kind)
LEFT JOIN inodes n USING (inode) LEFT JOIN calls c USING (call) LEFT JOIN tasks t USING (task)
LEFT JOIN file_views v USING (file_view)
LEFT JOIN errnos e ON e.os = ifnull(f.errno_os, 'Linux') AND e.number = f.errno
ORDER BY f.fact",
};

/// Files with failures.
pub const FILES: Table = Table {
    columns: &[
        column("host", Text),
        column("boot_id", Text),
        column("run", Number),
        column("path", Text),
        column("fs_type", Text),
        column("device", Text),
        column("fs", Text),
        column("ino", Unsigned),
        column("generation", Number),
        column("subvolume", Unsigned),
        column("incidents", Number),
        column("first_failed", Time),
        column("last_incident", Time),
        column("failures", Number),
    ],
    sql: "
SELECT r.host, r.boot_id, w.run, n.path, n.fs_type, n.device, n.fs, n.ino, n.generation, n.subvolume,
    (SELECT count(*) FROM incidents i WHERE i.inode = n.inode AND i.run = w.run),
    (SELECT min(i.first_failed_wall_ns) FROM incidents i WHERE i.inode = n.inode AND i.run = w.run),
    (SELECT max(i.wall_ns) FROM incidents i WHERE i.inode = n.inode AND i.run = w.run),
    w.failures
FROM (SELECT run, inode, sum(failures) AS failures FROM (
        SELECT run, inode, count(*) AS failures FROM facts WHERE kind = 1 GROUP BY run, inode
        UNION ALL SELECT DISTINCT run, inode, 0 FROM incidents) GROUP BY run, inode) w
JOIN runs r USING (run) JOIN inodes n USING (inode)
ORDER BY w.run, n.inode",
};

/// When and how it was recorded.
pub const RUNS: Table = Table {
    columns: &[
        column("host", Text),
        column("boot_id", Text),
        column("run", Number),
        column("version", Text),
        column("os", Text),
        column("kernel", Text),
        column("machine", Text),
        column("tier", Text),
        column("calls", Text),
        column("began", Time),
        column("ended", Time),
        column("last_seen", Time),
        column("reason", Text),
        column("complete", Bool),
        column("facts", Number),
        column("incidents", Number),
        column("lost_events", Number),
        column("lost_facts", Number),
    ],
    sql: "
SELECT r.host, r.boot_id, r.run, r.version, r.os, r.kernel, r.machine, r.tier, r.calls,
    r.began_wall_ns, r.ended_wall_ns, r.seen_wall_ns, r.reason,
    r.complete = 1 AND NOT EXISTS (SELECT 1 FROM gaps g WHERE g.run = r.run
        AND g.facts + g.incidents + g.others > 0),
    (SELECT count(*) FROM facts f WHERE f.fact BETWEEN r.first_fact AND r.last_fact),
    (SELECT count(*) FROM incidents i WHERE i.run = r.run),
    (SELECT ifnull(sum(l.count), 0) FROM losses l WHERE l.run = r.run),
    (SELECT ifnull(sum(g.facts), 0) FROM gaps g WHERE g.run = r.run)
FROM runs r ORDER BY r.run",
};

/// Gives the rows of a table, one at a time.
///
/// # Errors
/// If the record cannot be read; an error of `each` ends it.
pub fn rows<E: From<StoreError>>(
    reader: &Reader,
    table: Table,
    mut each: impl FnMut(&[Cell]) -> Result<(), E>,
) -> Result<(), E> {
    let failed = |error| reader.unreadable(error);
    let mut statement = reader.connection().prepare(table.sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut cells = Vec::with_capacity(table.columns.len());
    while let Some(row) = rows.next().map_err(failed)? {
        cells.clear();
        for column in 0..table.columns.len() {
            cells.push(cell(row, column).map_err(failed)?);
        }
        each(&cells)?;
    }
    Ok(())
}

fn cell(row: &Row<'_>, column: usize) -> rusqlite::Result<Cell> {
    Ok(match row.get_ref(column)? {
        ValueRef::Integer(number) => Cell::Number(number),
        ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => Cell::Empty,
    })
}

/// Which records of a run are wanted as JSON lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// All of them.
    Everything,
    /// Incidents and what became of them.
    Incidents,
    /// Everything that the hooks saw.
    Facts,
    /// How it was recorded, and what could not be seen.
    Runs,
}

/// Gives the records of all runs, as `-o json` writes them: of each run its header, then what was
/// found, what the hooks saw, what could not be seen, and its end. Each kind is in the order of its
/// times.
///
/// # Errors
/// If the record cannot be read; an error of `each` ends it.
pub fn records<E: From<StoreError>>(
    reader: &Reader,
    which: Lines,
    mut each: impl FnMut(&RunRow, Record) -> Result<(), E>,
) -> Result<(), E> {
    let all = which == Lines::Everything;
    for run in reader.runs()? {
        let (ends, headers): (Vec<Record>, Vec<Record>) = reader
            .run_records(run.run)?
            .into_iter()
            .partition(|record| matches!(record.body, Body::Stop(_)));
        if all || which == Lines::Runs {
            headers
                .into_iter()
                .try_for_each(|record| each(&run, record))?;
        }
        if all || which == Lines::Incidents {
            reader.incidents(run.run, |record, _| each(&run, record))?;
            let sql = "SELECT mono_ns, wall_ns, incident, change, repeats FROM changes
                WHERE run = ?1 ORDER BY id";
            of_run(reader, &run, sql, change, &mut each)?;
        }
        if all {
            let sql = "SELECT record FROM storage_errors WHERE run = ?1 ORDER BY id";
            of_run(reader, &run, sql, published, &mut each)?;
        }
        if all || which == Lines::Runs {
            let sql =
                "SELECT mono_ns, wall_ns, cause, count FROM losses WHERE run = ?1 ORDER BY id";
            of_run(reader, &run, sql, loss, &mut each)?;
        }
        if all || which == Lines::Facts {
            let clock = clock_of(reader, &run)?;
            reader.facts(&run, |_, fact| {
                // In everything these are there already, with what was looked up.
                let twice = matches!(fact.kind, FactKind::Lost(_) | FactKind::StorageError(_));
                match all && twice {
                    true => Ok(()),
                    false => each(&run, Record::of_fact(fact, &clock)),
                }
            })?;
        }
        if all || which == Lines::Runs {
            ends.into_iter().try_for_each(|record| each(&run, record))?;
        }
    }
    Ok(())
}

/// Wall time of the facts of a run.
pub fn clock_of(reader: &Reader, run: &RunRow) -> Result<Clock, StoreError> {
    let wall = |at: MonoTime, offset: i64| WallTime(offset.saturating_add_unsigned(at.0));
    let mut clock = Clock::new(run.began, wall(run.began, run.wall_minus_mono_ns));
    for (since, offset) in reader.clock(run.run)? {
        clock.observe(since, wall(since, offset));
    }
    Ok(clock)
}

fn of_run<E: From<StoreError>>(
    reader: &Reader,
    run: &RunRow,
    sql: &str,
    read: fn(&Row<'_>) -> rusqlite::Result<Option<Record>>,
    each: &mut impl FnMut(&RunRow, Record) -> Result<(), E>,
) -> Result<(), E> {
    let failed = |error| reader.unreadable(error);
    let mut statement = reader.connection().prepare_cached(sql).map_err(failed)?;
    let mut rows = statement.query([run.run]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        // What a newer version knows and we do not is left out.
        if let Some(record) = read(row).map_err(failed)? {
            each(run, record)?;
        }
    }
    Ok(())
}

fn head(row: &Row<'_>) -> rusqlite::Result<Head> {
    Ok(Head {
        schema: SchemaVersion,
        mono_ns: MonoTime(row.get::<_, i64>(0)?.cast_unsigned()),
        time: WallTime(row.get(1)?),
    })
}

fn change(row: &Row<'_>) -> rusqlite::Result<Option<Record>> {
    let repeats: Option<i64> = row.get(4)?;
    let change = match row.get_ref(3)?.as_str()? {
        "repeated" => ChangeKind::Repeated {
            repeats: repeats.unwrap_or(0).cast_unsigned(),
        },
        "recovered" => ChangeKind::Recovered,
        "discarded" => ChangeKind::Discarded,
        "evicted" => ChangeKind::Evicted,
        _ => return Ok(None),
    };
    let incident = IncidentId(row.get::<_, i64>(2)?.cast_unsigned());
    let body = Body::Change(ChangeRecord { incident, change });
    Ok(Some(Record {
        head: head(row)?,
        body,
    }))
}

fn loss(row: &Row<'_>) -> rusqlite::Result<Option<Record>> {
    let cause = row.get_ref(2)?.as_str()?;
    let cause = LossCause::ALL.iter().find(|known| known.word() == cause);
    let count = row.get::<_, i64>(3)?.cast_unsigned();
    let head = head(row)?;
    Ok(cause.map(|&cause| Record {
        head,
        body: Body::Lost(Lost { cause, count }),
    }))
}

fn published(row: &Row<'_>) -> rusqlite::Result<Option<Record>> {
    Ok(from_line(row.get_ref(0)?.as_str()?.as_bytes()).ok())
}
