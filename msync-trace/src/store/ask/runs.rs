//! The runs of a record: what their headers say, and whether all was seen.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row};
use serde::de::DeserializeOwned;

use super::wanted::Question;
use crate::{
    model::{LossCause, Lost, MonoTime},
    schema::{
        Explanation, Filters, KernelRecord, Moment, Name, RecordGap, RunReport, StopReason,
        WallTime, Word,
    },
};

/// A run of a record that a report looks at.
#[derive(Debug)]
pub(super) struct Run {
    /// Number of its record among those of the report.
    pub(super) record: usize,
    /// Its number in that record.
    pub(super) number: i64,
    /// Numbers of its facts: from the first, up to before the first of the next run.
    pub(super) facts: (i64, i64),
    /// Whether incidents of the window were deleted on purpose.
    pub(super) trimmed: bool,
    pub(super) clock: Offsets,
    pub(super) report: RunReport,
}

/// Wall time minus kernel time, nanoseconds, and from when on. Never empty.
#[derive(Clone, Debug)]
pub(super) struct Offsets(Vec<(u64, i64)>);

impl Offsets {
    /// Wall time of a kernel time.
    pub(super) fn wall(&self, at: u64) -> WallTime {
        let later = self.0.partition_point(|(since, _)| *since <= at);
        let (_, offset) = self.0[later.saturating_sub(1)];
        WallTime(offset.saturating_add_unsigned(at))
    }

    /// The first kernel time whose wall time is not before this one.
    pub(super) fn kernel_time(&self, wall: WallTime) -> u64 {
        for (nth, (since, offset)) in self.0.iter().enumerate() {
            let since = if nth == 0 { 0 } else { *since };
            let end = self.0.get(nth + 1).map_or(u64::MAX, |(next, _)| *next);
            let at = i128::from(wall.0) - i128::from(*offset);
            let at = u64::try_from(at.max(0)).unwrap_or(u64::MAX).max(since);
            if at < end {
                return at;
            }
        }
        u64::MAX
    }

    /// Both times of a kernel time.
    pub(super) fn moment(&self, at: u64) -> Moment {
        Moment {
            time: self.wall(at),
            mono_ns: MonoTime(at),
        }
    }
}

/// The runs of a record that the question is about, in their order.
pub(super) fn load(
    connection: &Connection,
    (record, source): (usize, &Name),
    question: &Question,
) -> rusqlite::Result<Vec<Run>> {
    let newest: i64 =
        connection.query_row("SELECT ifnull(max(fact), 0) FROM facts", [], |row| {
            row.get(0)
        })?;
    let mut statement = connection.prepare(
        "SELECT run, version, host, boot_id, os, kernel, machine, tier, calls, filters, \
         began_wall_ns, wall_minus_mono_ns, first_fact, seen_wall_ns, ended_wall_ns, reason, \
         complete FROM runs ORDER BY run",
    )?;
    let heads = statement.query_map([], |row| head(row, record, source))?;
    let mut runs = heads.collect::<rusqlite::Result<Vec<Run>>>()?;
    for nth in 0..runs.len() {
        let next = runs.get(nth + 1).map(|next| next.facts.0 - 1);
        runs[nth].facts.1 = next.unwrap_or(newest);
    }
    runs.retain(|run| {
        let (began, end) = (
            run.report.began,
            run.report.ended.unwrap_or(run.report.last_seen),
        );
        question.wants_host(run.report.host.as_deref())
            && question.asked.since.is_none_or(|since| since <= end)
            && question.asked.until.is_none_or(|until| began < until)
    });
    for run in &mut runs {
        fill(connection, run, question)?;
    }
    Ok(runs)
}

fn head(row: &Row<'_>, record: usize, source: &Name) -> rusqlite::Result<Run> {
    let json = |column| -> rusqlite::Result<String> { row.get(column) };
    let first: i64 = row.get("first_fact")?;
    let reason: Option<String> = row.get("reason")?;
    let ended: Option<i64> = row.get("ended_wall_ns")?;
    let number: i64 = row.get("run")?;
    Ok(Run {
        record,
        number,
        facts: (first, first),
        trimmed: false,
        clock: Offsets(vec![(0, row.get("wall_minus_mono_ns")?)]),
        report: RunReport {
            source: source.clone(),
            run: number.cast_unsigned(),
            host: row.get("host")?,
            boot_id: row.get("boot_id")?,
            kernel: KernelRecord {
                name: row.get("os")?,
                release: row.get("kernel")?,
                machine: row.get("machine")?,
            },
            version: row.get("version")?,
            tier: row.get("tier")?,
            calls: parsed(&json("calls")?),
            filters: parsed::<Option<Filters>>(&json("filters")?).unwrap_or_default(),
            began: WallTime(row.get("began_wall_ns")?),
            ended: ended.map(WallTime),
            reason: reason.as_deref().and_then(word::<StopReason>),
            last_seen: WallTime(row.get("seen_wall_ns")?),
            facts: 0,
            complete: row.get::<_, Option<i64>>("complete")? != Some(0),
            lost: Vec::new(),
            missing_hooks: Vec::new(),
            gaps: Vec::new(),
            deleted_before: None,
        },
    })
}

/// JSON of our own; nothing of it where a newer version wrote what we do not know.
fn parsed<T: DeserializeOwned + Default>(json: &str) -> T {
    serde_json::from_str(json).unwrap_or_default()
}

/// The value of a word.
pub(super) fn word<T: Word>(text: &str) -> Option<T> {
    T::ALL.iter().copied().find(|value| value.word() == text)
}

/// What other tables say about a run.
fn fill(connection: &Connection, run: &mut Run, question: &Question) -> rusqlite::Result<()> {
    let number = run.number;
    let mut clock = connection.prepare_cached(
        "SELECT since_ns, wall_minus_mono_ns FROM clock WHERE run = ?1 ORDER BY since_ns",
    )?;
    let offsets = clock.query_map([number], |row| {
        Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?))
    })?;
    let offsets = offsets.collect::<rusqlite::Result<Vec<_>>>()?;
    if !offsets.is_empty() {
        run.clock = Offsets(offsets);
    }
    run.report.lost = losses(connection, run, question)?;
    run.report.missing_hooks = missing_hooks(connection, number)?;
    run.report.gaps = gaps(connection, number)?;
    let trim = connection
        .query_row(
            "SELECT before_ns, incidents FROM trims WHERE run = ?1",
            [number],
            |row| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?)),
        )
        .optional()?;
    if let Some((before, incidents)) = trim {
        let before = run.clock.wall(before);
        run.report.deleted_before = Some(before);
        run.trimmed = incidents > 0 && question.asked.since.is_none_or(|since| since < before);
    }
    let seen_to_the_end = run.report.ended.is_some()
        || question
            .asked
            .until
            .is_some_and(|until| until <= run.report.last_seen);
    let report = &mut run.report;
    report.complete = report.complete
        && seen_to_the_end
        && report.lost.is_empty()
        && report.missing_hooks.is_empty()
        && report.gaps.iter().all(|gap| !matters(gap, question));
    Ok(())
}

/// Whether a hole lies in the window.
fn matters(gap: &RecordGap, question: &Question) -> bool {
    question.asked.until.is_none_or(|until| gap.since < until)
        && (question.asked.since).is_none_or(|since| gap.until.is_none_or(|end| since <= end))
}

/// What was not seen until the end of the window: what was missed before it began can be missing in it.
fn losses(connection: &Connection, run: &Run, question: &Question) -> rusqlite::Result<Vec<Lost>> {
    let mut statement = connection
        .prepare_cached("SELECT cause, count, wall_ns FROM losses WHERE run = ?1 ORDER BY id")?;
    let mut rows = statement.query([run.number])?;
    let mut counts: BTreeMap<LossCause, u64> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let at = WallTime(row.get(2)?);
        if question.asked.until.is_some_and(|until| until <= at) {
            continue;
        }
        let cause: String = row.get(0)?;
        // A cause that we do not know yet is a loss all the same.
        let cause = word(&cause).unwrap_or(LossCause::BadRecord);
        let count: i64 = row.get(1)?;
        let sum = counts.entry(cause).or_default();
        *sum = sum.saturating_add(count.cast_unsigned());
    }
    let lost = counts.into_iter();
    Ok(lost.map(|(cause, count)| Lost { cause, count }).collect())
}

/// Hooks that could not be had when they were looked at last.
fn missing_hooks(connection: &Connection, run: i64) -> rusqlite::Result<Vec<Explanation>> {
    let mut statement = connection.prepare_cached(
        "SELECT name, detail FROM hooks h WHERE run = ?1 AND state = 'unavailable' \
         AND mono_ns = (SELECT max(mono_ns) FROM hooks WHERE run = ?1) ORDER BY name",
    )?;
    let rows = statement.query_map([run], |row| {
        Ok(Explanation {
            name: row.get(0)?,
            reason: row.get::<_, Option<String>>(1)?.unwrap_or_default(),
        })
    })?;
    rows.collect()
}

fn gaps(connection: &Connection, run: i64) -> rusqlite::Result<Vec<RecordGap>> {
    let mut statement = connection.prepare_cached(
        "SELECT from_wall_ns, to_wall_ns, facts, incidents, others, error FROM gaps \
         WHERE run = ?1 AND facts + incidents + others > 0 ORDER BY id",
    )?;
    let rows = statement.query_map([run], |row| {
        Ok(RecordGap {
            since: WallTime(row.get(0)?),
            until: Some(WallTime(row.get(1)?)),
            facts: row.get::<_, i64>(2)?.cast_unsigned(),
            reason: row.get(5)?,
        })
    })?;
    rows.collect()
}
