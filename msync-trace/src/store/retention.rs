//! How old and how large a record may become, and what must stay.
//!
//! What is needed to judge a file that is still in trouble stays: its facts from the first failure on
//! that is outstanding, and the incidents since then. Of these, when there is too much of it, go the
//! syncs that made no new incident. Everything else goes when it is too old, and the oldest first when
//! it is too much; a few facts at a time, so that what comes in does not wait.

use std::{
    fs,
    time::{Duration, Instant},
};

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{
    StoreError,
    error::While,
    file::{sibling, unless_read},
    write::{SLICE, Writing},
};
use crate::schema::WallTime;

/// Limits of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// What is older goes.
    pub keep: Option<Duration>,
    /// The oldest goes when the file, with its log, is larger, bytes.
    pub max_size: Option<u64>,
}

/// So many bytes of memory go into one transaction at most.
const BATCH: usize = 8 << 20;
/// So many facts are deleted at once at most.
const STEP: i64 = SLICE / 16;
/// For how long the writer may be kept from writing, at a time and at the end.
const AT_A_TIME: Duration = Duration::from_millis(200);
const AT_THE_END: Duration = Duration::from_secs(3);
/// How often what is too old is looked for while something is written, at most.
const PACE: Duration = Duration::from_secs(60);
/// The same while nothing comes: then only time passes, and a few times within the age that is kept
/// are enough.
const IDLE_PACE: (Duration, Duration) = (PACE, Duration::from_secs(3600));
const TIMES_WITHIN_AGE: u32 = 24;
/// When what was not done in time is gone on with.
const SOON: Duration = Duration::from_secs(1);
/// The log is emptied when it is larger, bytes; where the record may be small, earlier.
const LOG: u64 = 16 << 20;
/// So many pages are given back at once.
const PAGES: u32 = 512;

/// Keeps a record within its limits.
#[derive(Debug)]
pub(super) struct Retention {
    limits: Limits,
    /// How often is looked while nothing comes.
    pace: Duration,
    /// When all that was too old had gone, or could not be deleted.
    looked: Option<Instant>,
    /// When there was no time to delete all that is too old or too much.
    unfinished: Option<Instant>,
    /// Numbers of the facts at which that is gone on with: too old, too much.
    reached: [i64; 2],
    said_too_large: bool,
}

/// What may be deleted.
#[derive(Clone, Copy)]
enum Which {
    /// What happened before this.
    Before(WallTime),
    /// All, from the oldest on.
    Oldest,
}

impl Retention {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            pace: limits.keep.map_or(IDLE_PACE.1, |keep| {
                (keep / TIMES_WITHIN_AGE).clamp(IDLE_PACE.0, IDLE_PACE.1)
            }),
            looked: None,
            unfinished: None,
            reached: [0; 2],
            said_too_large: false,
        }
    }

    /// So many bytes of memory go into one transaction.
    pub(super) fn batch(&self) -> usize {
        let most = self.limits.max_size.map_or(u64::MAX, |most| most / 16);
        usize::try_from(most).unwrap_or(usize::MAX).min(BATCH)
    }

    /// When to look though nothing comes; `None`: not before something does.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let soon = self.unfinished.map(|at| at + SOON);
        let looked = self.looked.map(|looked| looked + self.pace);
        let later = self
            .limits
            .keep
            .and(looked.or_else(|| Some(Instant::now())));
        soon.or(later)
    }

    #[cfg(test)]
    pub(super) fn with_pace(self, pace: Duration) -> Self {
        Self { pace, ..self }
    }

    /// Deletes what is too old or too much. Gives what is to be said about it.
    pub(super) fn look(
        &mut self,
        writing: &mut Writing,
        now: WallTime,
    ) -> Result<Option<String>, StoreError> {
        let looked = self.within(writing, now, AT_A_TIME);
        if looked.is_err() {
            // Not again at each batch: the disk is full or fails.
            (self.looked, self.unfinished) = (Some(Instant::now()), None);
        }
        looked
    }

    /// The same, with more time for it.
    pub(super) fn at_the_end(
        &mut self,
        writing: &mut Writing,
        now: WallTime,
    ) -> Result<(), StoreError> {
        self.looked = None;
        self.within(writing, now, AT_THE_END).map(|_| ())
    }

    fn within(
        &mut self,
        writing: &mut Writing,
        now: WallTime,
        time: Duration,
    ) -> Result<Option<String>, StoreError> {
        let until = Instant::now() + time;
        self.unfinished = None;
        if let Some(keep) = self.limits.keep
            && self
                .looked
                .is_none_or(|looked| looked.elapsed() >= PACE.min(self.pace))
        {
            let keep = i64::try_from(keep.as_nanos()).unwrap_or(i64::MAX);
            let before = WallTime(now.0.saturating_sub(keep));
            let from = &mut self.reached[0];
            if delete(writing, Which::Before(before), from, until, |_| Ok(true))? {
                self.looked = Some(Instant::now());
            } else {
                self.unfinished = Some(Instant::now());
            }
        }
        match self.limits.max_size {
            Some(most) => self.shrink(writing, most, until),
            None => Ok(None),
        }
    }

    fn shrink(
        &mut self,
        writing: &mut Writing,
        most: u64,
        until: Instant,
    ) -> Result<Option<String>, StoreError> {
        let log = LOG.min(most / 8);
        // What comes with one batch, and what deleting writes, goes into the log as well.
        let room = most - 3 * log;
        empty_log(writing, log)?;
        let path = writing.path().to_owned();
        if used(writing.connection()).during("read", &path)? <= room {
            return give_back(writing, log, until).map(|()| None);
        }
        // Not only just: otherwise each batch would delete.
        let enough = room - room / 16;
        let from = &mut self.reached[1];
        let done = delete(writing, Which::Oldest, from, until, |connection| {
            Ok(used(connection)? > enough)
        })?;
        give_back(writing, log, until)?;
        let still = used(writing.connection()).during("read", &path)?;
        if !done {
            self.unfinished = Some(Instant::now());
        }
        if !done || still <= room || self.said_too_large {
            return Ok(None);
        }
        self.said_too_large = true;
        Ok(Some(format!(
            "warning: {} is larger than --max-size: what is left in it is about files that are \
             still in trouble",
            super::error::spell(&path)
        )))
    }
}

/// Bytes of the database that are in use.
fn used(connection: &Connection) -> rusqlite::Result<u64> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let pages = number("page_count")? - number("freelist_count")?;
    Ok((pages * number("page_size")?).cast_unsigned())
}

/// Gives free pages back to the filesystem.
fn give_back(writing: &mut Writing, log: u64, until: Instant) -> Result<(), StoreError> {
    let path = writing.path().to_owned();
    let free = |connection: &Connection| {
        connection.pragma_query_value(None, "freelist_count", |row| row.get::<_, u32>(0))
    };
    // A few are used again soon.
    while free(writing.connection()).during("read", &path)? > PAGES && Instant::now() < until {
        let vacuum = format!("PRAGMA incremental_vacuum({PAGES})");
        let vacuumed = writing.connection().execute_batch(&vacuum);
        vacuumed.during("shrink", &path)?;
        empty_log(writing, log)?;
    }
    Ok(())
}

/// Not while somebody reads: then it is emptied later.
fn empty_log(writing: &mut Writing, larger_than: u64) -> Result<(), StoreError> {
    let path = writing.path().to_owned();
    let log = fs::metadata(sibling(&path, "-wal"));
    if log.is_ok_and(|log| log.len() > larger_than) {
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        let emptied = writing.connection().query_row(checkpoint, [], |_| Ok(()));
        emptied.or_else(unless_read).during("shrink", &path)?;
    }
    Ok(())
}

/// Deletes step by step as long as there is something and more is wanted; whether that is over.
/// Otherwise `from` says where to go on.
fn delete(
    writing: &mut Writing,
    which: Which,
    from: &mut i64,
    until: Instant,
    more: impl Fn(&Connection) -> rusqlite::Result<bool>,
) -> Result<bool, StoreError> {
    let path = writing.path().to_owned();
    let current = writing.run();
    let mut deleted = false;
    let over = loop {
        let connection = writing.connection();
        if !more(connection).during("read", &path)? {
            break true;
        }
        if Instant::now() >= until {
            break false;
        }
        let transaction = connection.transaction().during("shrink", &path)?;
        let step = Step {
            transaction: &transaction,
            which,
            current,
        };
        let next = step.delete(*from).during("shrink", &path)?;
        transaction.commit().during("shrink", &path)?;
        deleted = true;
        match next {
            Some(next) => *from = next,
            None => break true,
        }
    };
    if over {
        *from = 0;
    }
    if deleted {
        writing.forget_numbers();
    }
    Ok(over)
}

/// One transaction that deletes.
struct Step<'a> {
    transaction: &'a Transaction<'a>,
    which: Which,
    current: i64,
}

/// Wall time of a fact.
const WALL: &str = "f.mono_ns + ifnull((SELECT c.wall_minus_mono_ns FROM clock c
    WHERE c.run = f.run AND c.since_ns <= f.mono_ns ORDER BY c.since_ns DESC LIMIT 1),
    (SELECT r.wall_minus_mono_ns FROM runs r WHERE r.run = f.run))";
/// Whether a fact is needed to judge a file.
const NEEDED: &str = "EXISTS (SELECT 1 FROM troubled t WHERE t.inode = f.inode
    AND f.fact >= t.since_fact)";
/// Whether an incident is one of the last of a file in trouble.
const LAST: &str = "EXISTS (SELECT 1 FROM troubled t WHERE t.inode = i.inode
    AND (i.run > t.run OR (i.run = t.run AND i.mono_ns >= t.mono_ns)))";

impl Step<'_> {
    /// Deletes facts from this number on, and what goes with them. Gives the number to go on from.
    fn delete(&self, from: i64) -> rusqlite::Result<Option<i64>> {
        let first: Option<i64> = self.transaction.query_row(
            "SELECT min(fact) FROM facts WHERE fact >= ?1",
            [from],
            |row| row.get(0),
        )?;
        let Some(first) = first else {
            self.delete_incidents(None)?;
            self.delete_runs()?;
            return self.delete_syncs();
        };
        // Never across a slice: names are shared within one.
        let end = (first + self.step(first)?).min((first / SLICE + 1) * SLICE);
        let reached = self.reached(end)?;
        let old = self.delete_facts(first, end)?;
        self.delete_names(first)?;
        self.delete_incidents(reached)?;
        self.delete_runs()?;
        Ok(old.then_some(end))
    }

    /// A small part of what is there, so that not much more goes than has to.
    fn step(&self, first: i64) -> rusqlite::Result<i64> {
        let last = "SELECT max(fact) FROM facts";
        let last: i64 = self.transaction.query_row(last, [], |row| row.get(0))?;
        Ok(((last - first) / 32).clamp(16, STEP))
    }

    /// Run and kernel time of the last fact before this number.
    fn reached(&self, end: i64) -> rusqlite::Result<Option<(i64, i64)>> {
        let sql = "SELECT run, mono_ns FROM facts WHERE fact < ?1 ORDER BY fact DESC LIMIT 1";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        self.transaction.query_row(sql, [end], row).optional()
    }

    /// Whether all of them were old enough.
    fn delete_facts(&self, first: i64, end: i64) -> rusqlite::Result<bool> {
        let before = match self.which {
            Which::Before(before) => before.0,
            Which::Oldest => i64::MAX,
        };
        let doomed = format!(
            "FROM facts AS f WHERE f.fact >= ?1 AND f.fact < ?2 AND {WALL} < ?3 AND NOT {NEEDED}"
        );
        self.transaction.execute(
            &format!(
                "INSERT INTO trims SELECT f.run, count(*), 0, max(f.mono_ns) + 1 {doomed}
                 GROUP BY f.run ON CONFLICT (run) DO UPDATE SET facts = facts + excluded.facts,
                    before_ns = max(before_ns, excluded.before_ns)"
            ),
            [first, end, before],
        )?;
        self.transaction
            .execute(&format!("DELETE {doomed}"), [first, end, before])?;
        let young: bool = self.transaction.query_row(
            &format!(
                "SELECT EXISTS (SELECT 1 FROM facts f WHERE f.fact >= ?1 AND f.fact < ?2
                    AND {WALL} >= ?3)"
            ),
            [first, end, before],
            |row| row.get(0),
        )?;
        Ok(!young)
    }

    /// Threads and names that no fact of the slice has any more.
    fn delete_names(&self, fact: i64) -> rusqlite::Result<()> {
        let slice = fact / SLICE * SLICE;
        for (table, number) in [("tasks", "task"), ("file_views", "file_view")] {
            self.transaction.execute(
                &format!(
                    "DELETE FROM {table} WHERE {number} >= ?1 AND {number} < ?2
                     AND {number} NOT IN (SELECT {number} FROM facts
                        WHERE fact >= ?1 AND fact < ?2 AND {number} IS NOT NULL)"
                ),
                [slice, slice + SLICE],
            )?;
        }
        Ok(())
    }

    /// `reached`: not those after it.
    fn delete_incidents(&self, reached: Option<(i64, i64)>) -> rusqlite::Result<()> {
        let (before, run, mono) = match (self.which, reached) {
            (Which::Before(before), _) => (before.0, i64::MAX, i64::MAX),
            (Which::Oldest, Some((run, mono))) => (i64::MAX, run, mono),
            (Which::Oldest, None) => (i64::MAX, self.current, i64::MAX),
        };
        let doomed = format!(
            "FROM incidents AS i WHERE i.wall_ns < ?1
                AND (i.run < ?2 OR (i.run = ?2 AND i.mono_ns <= ?3)) AND NOT {LAST}"
        );
        let doom = params![before, run, mono];
        for table in ["incident_ranges", "changes"] {
            self.transaction.execute(
                &format!(
                    "DELETE FROM {table} WHERE (run, incident) IN
                        (SELECT i.run, i.incident {doomed})"
                ),
                doom,
            )?;
        }
        self.transaction.execute(
            &format!(
                "INSERT INTO trims SELECT i.run, 0, count(*), max(i.mono_ns) + 1 {doomed}
                 GROUP BY i.run ON CONFLICT (run) DO UPDATE SET
                    incidents = incidents + excluded.incidents,
                    before_ns = max(before_ns, excluded.before_ns)"
            ),
            doom,
        )?;
        self.transaction
            .execute(&format!("DELETE {doomed}"), doom)?;
        Ok(())
    }

    /// Runs of which nothing is left, and inodes that nothing names any more.
    fn delete_runs(&self) -> rusqlite::Result<()> {
        let before = match self.which {
            Which::Before(before) => before.0,
            Which::Oldest => i64::MAX,
        };
        let mut empty = self.transaction.prepare_cached(
            "SELECT run FROM runs r WHERE run < ?1 AND seen_wall_ns < ?2
                AND NOT EXISTS (SELECT 1 FROM incidents i WHERE i.run = r.run)
                AND NOT EXISTS (SELECT 1 FROM facts f
                    WHERE f.fact BETWEEN r.first_fact AND r.last_fact)",
        )?;
        let empty: Vec<i64> = empty
            .query_map([self.current, before], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for run in &empty {
            for table in [
                "run_records",
                "hooks",
                "clock",
                "losses",
                "storage_errors",
                "gaps",
                "notes",
                "trims",
                "runs",
            ] {
                let sql = format!("DELETE FROM {table} WHERE run = ?1");
                self.transaction.prepare_cached(&sql)?.execute([run])?;
            }
        }
        self.transaction.execute(
            "DELETE FROM inodes WHERE NOT EXISTS (SELECT 1 FROM facts f WHERE f.inode = inodes.inode)
                AND NOT EXISTS (SELECT 1 FROM incidents i WHERE i.inode = inodes.inode)
                AND NOT EXISTS (SELECT 1 FROM troubled t WHERE t.inode = inodes.inode)",
            [],
        )?;
        Ok(())
    }

    /// When all that is left is needed and it is too much: successful syncs that made no new incident.
    fn delete_syncs(&self) -> rusqlite::Result<Option<i64>> {
        let Which::Oldest = self.which else {
            return Ok(None);
        };
        let doomed = format!(
            "SELECT f.fact FROM facts f WHERE f.kind = 4 AND f.errno IS NULL AND NOT EXISTS
                (SELECT 1 FROM incidents i WHERE i.inode = f.inode AND i.mono_ns = f.mono_ns)
             ORDER BY f.fact LIMIT {STEP}"
        );
        self.transaction.execute(
            &format!(
                "INSERT INTO trims SELECT f.run, count(*), 0, max(f.mono_ns) + 1 FROM facts f
                 WHERE f.fact IN ({doomed}) GROUP BY f.run ON CONFLICT (run) DO UPDATE SET
                    facts = facts + excluded.facts, before_ns = max(before_ns, excluded.before_ns)"
            ),
            [],
        )?;
        let sql = format!("DELETE FROM facts WHERE fact IN ({doomed})");
        let deleted = self.transaction.execute(&sql, [])?;
        // All facts have a lower number.
        Ok((deleted > 0).then_some(i64::MAX - SLICE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeping(keep: u64) -> Retention {
        Retention::new(Limits {
            keep: Some(Duration::from_secs(keep)),
            max_size: None,
        })
    }

    #[test]
    fn while_nothing_comes_is_looked_once_an_hour_and_more_often_only_for_short_ages() {
        for (keep, pace) in [
            (30 * 86_400, 3600),
            (86_400, 3600),
            (12 * 3600, 1800),
            (90, 60),
        ] {
            let mut retention = keeping(keep);
            assert!(
                retention.next_look() <= Some(Instant::now()),
                "at the start"
            );
            let now = Instant::now();
            retention.looked = Some(now);
            let next = now + Duration::from_secs(pace);
            assert_eq!(retention.next_look(), Some(next), "{keep}");
        }
        let mut unlimited = Retention::new(Limits::default());
        assert_eq!(unlimited.next_look(), None, "nothing ever wakes it");
        let now = Instant::now();
        unlimited.unfinished = Some(now);
        assert_eq!(unlimited.next_look(), Some(now + SOON));
    }
}
