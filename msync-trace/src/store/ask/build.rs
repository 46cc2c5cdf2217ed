//! The document, from what is known.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};

use super::{Asking, BytesNow, Entry, Errno, Found, InMemory, Known, LossState, Report, Run};
use super::{Timeline, ToldWho, Totals, WallTime, found, wanted::Question};
use crate::{
    model::{ByteRange, ProcessId, Task},
    schema::{
        self, Body, ErrorCount, FileRecord, FileReport, IncidentRecord, IncidentReport, Name,
        PathFrom, ReportSummary, ReportType, ReportVersion, StorageErrorReport, TimelineEntry,
        TimelineKind,
    },
};

/// Reads what befell disks and filesystems in the window.
pub(super) fn storage_errors(
    connection: &Connection,
    (base, runs): (usize, &[Run]),
    question: &Question,
) -> rusqlite::Result<Vec<StorageErrorReport>> {
    let mut statement = connection.prepare(
        "SELECT mono_ns, wall_ns, record FROM storage_errors WHERE run = ?1 ORDER BY id",
    )?;
    let mut found = Vec::new();
    for (nth, run) in runs.iter().enumerate() {
        let mut rows = statement.query([run.number])?;
        while let Some(row) = rows.next()? {
            let line: String = row.get(2)?;
            let record = schema::from_line(line.as_bytes()).ok();
            if question.in_window(WallTime(row.get(1)?))
                && let Some(Body::StorageError(record)) = record.map(|record| record.body)
            {
                let at: i64 = row.get(0)?;
                found.push(StorageErrorReport {
                    run: base + nth,
                    at: run.clock.moment(at.cast_unsigned()),
                    record,
                });
            }
        }
    }
    Ok(found)
}

impl Asking<'_> {
    /// The document.
    pub(super) fn build(mut self, made: WallTime) -> Report {
        let numbers = self.numbers();
        let incidents = self.incidents(&numbers);
        let summary = self.summary();
        let with_trouble = self.known.iter().filter(|known| is_reported(known)).count() as u64;
        let files = self.file_reports(&numbers);
        let files_left_out = with_trouble + self.more_files.len() as u64 - files.len() as u64;
        Report {
            schema: ReportVersion,
            kind: ReportType::Report,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            made,
            asked: self.question.asked.clone(),
            summary,
            incidents_left_out: self.found.len() as u64 - incidents.len() as u64,
            incidents,
            files_left_out,
            files,
            storage_errors: self.storage_errors,
            recomputed: None,
            runs: self.runs.into_iter().map(|run| run.report).collect(),
        }
    }

    /// The number of each incident in the report, in the order of their times; 0: left out.
    fn numbers(&self) -> Vec<u64> {
        let mut order: Vec<usize> = (0..self.found.len()).collect();
        order.sort_by_key(|&place| (self.found[place].wall, place));
        let mut numbers = vec![0; self.found.len()];
        let listed = order.into_iter().take(self.question.limits.incidents);
        for (number, place) in (1..).zip(listed) {
            numbers[place] = number;
        }
        numbers
    }

    fn incidents(&mut self, numbers: &[u64]) -> Vec<IncidentReport> {
        let mut listed = Vec::new();
        for (place, &number) in numbers.iter().enumerate() {
            if number == 0 {
                continue;
            }
            match self.record_of(place) {
                Ok(Some(record)) => listed.push(self.incident(place, number, record)),
                // Of a newer version in a detail that we do not know: counted and not listed.
                Ok(None) => {}
                Err(error) => {
                    let record = self.runs[self.found[place].run].record;
                    self.give_up(record, error);
                    break;
                }
            }
        }
        listed.sort_by_key(|incident| incident.number);
        listed
    }

    fn incident(&self, place: usize, number: u64, record: IncidentRecord) -> IncidentReport {
        let it = &self.found[place];
        let clock = &self.runs[it.run].clock;
        let moment = |at: Option<u64>| at.map(|at| clock.moment(at));
        IncidentReport {
            number,
            run: it.run,
            at: clock.moment(it.at),
            record,
            repeats: it.repeats,
            recovered: moment(it.recovered),
            discarded: moment(it.discarded),
            evicted: moment(it.evicted),
            state: it.state(),
        }
    }

    /// The incident as it was reported.
    fn record_of(&self, place: usize) -> rusqlite::Result<Option<IncidentRecord>> {
        let it = &self.found[place];
        let connection = self.records[self.runs[it.run].record].connection();
        let mut statement =
            connection.prepare_cached("SELECT record FROM incidents WHERE id = ?1")?;
        let line: Option<String> = statement.query_row([it.id], |row| row.get(0)).optional()?;
        Ok(line.as_deref().and_then(found::record_of))
    }

    fn summary(&self) -> ReportSummary {
        let mut errors: BTreeMap<Errno, u64> = BTreeMap::new();
        let mut hosts: Vec<String> = Vec::new();
        let mut totals = Totals::default();
        for it in &self.found {
            *errors.entry(it.errno).or_default() += 1;
            count(&mut totals, it);
        }
        let mut bytes_now = BytesNow::default();
        for (file, known) in self.known.iter().enumerate() {
            if known.incidents.is_empty() {
                continue;
            }
            totals.files += 1;
            totals.bytes = totals.bytes.saturating_add(known.bytes());
            add(&mut bytes_now, known);
            hosts.extend(self.files.host(file).map(ToOwned::to_owned));
        }
        hosts.sort();
        hosts.dedup();
        let errors = errors.into_iter();
        let mut errors: Vec<ErrorCount> = errors
            .map(|(error, incidents)| ErrorCount { error, incidents })
            .collect();
        errors.sort_by_key(|count| std::cmp::Reverse(count.incidents));
        let all_seen = |run: &Run| run.report.complete && !run.trimmed;
        ReportSummary {
            totals,
            bytes_now,
            first_failed: self.found.iter().map(|it| it.first_failed).min(),
            last_failed: self.found.iter().map(|it| it.last_failed).max(),
            first_incident: self.found.iter().map(|it| it.wall).min(),
            last_incident: self.found.iter().map(|it| it.wall).max(),
            errors,
            hosts,
            complete: !self.runs.is_empty()
                && self.troubles.is_empty()
                && self.runs.iter().all(all_seen),
        }
    }

    fn file_reports(&mut self, numbers: &[u64]) -> Vec<FileReport> {
        let mut order: Vec<usize> = (0..self.known.len())
            .filter(|&file| self.known[file].chosen && is_reported(&self.known[file]))
            .collect();
        order.sort_by_key(|&file| {
            let known = &self.known[file];
            let open = known
                .ranges
                .iter()
                .filter(|r| r.state == LossState::Outstanding);
            let open: u128 = open.map(|range| u128::from(range.range.len())).sum();
            std::cmp::Reverse((known.bytes(), known.incidents.len(), open))
        });
        let mut reports = Vec::new();
        for file in order {
            let known = std::mem::take(&mut self.known[file]);
            match self.file_report(file, known, numbers) {
                Ok(report) => reports.extend(report),
                Err((record, error)) => self.give_up(record, error),
            }
        }
        reports
    }

    fn file_report(
        &self,
        file: usize,
        mut known: Known,
        numbers: &[u64],
    ) -> Result<Option<FileReport>, (usize, rusqlite::Error)> {
        let Some((run, inode)) = known.seen_as else {
            return Ok(None);
        };
        let record = self.runs[run].record;
        let named = self.named(file, &known, record, inode);
        let timeline = known.timeline.take();
        let (entries, timeline_left_out) = timeline.map_or((Vec::new(), 0), Timeline::finish);
        let mut timeline = Vec::with_capacity(entries.len());
        for entry in entries {
            let record = self.runs[entry.run].record;
            let entry = self.entry(&entry, numbers);
            timeline.push(entry.map_err(|error| (record, error))?);
        }
        timeline.sort_by_key(|entry| entry.at.time);
        let mut incidents: Vec<u64> = known.incidents.iter().map(|&it| numbers[it]).collect();
        incidents.retain(|number| *number != 0);
        incidents.sort_unstable();
        let mut bytes_now = BytesNow::default();
        add(&mut bytes_now, &known);
        known
            .ranges
            .sort_by_key(|range| (range.run, range.range.start()));
        Ok(Some(FileReport {
            host: self.files.host(file).map(ToOwned::to_owned),
            file: named.map_err(|error| (record, error))?,
            incidents,
            bytes: known.bytes(),
            incidents_without_range: known.incidents_without_range,
            bytes_now,
            failures_without_range: known.failures_without_range,
            ranges: known.ranges,
            ranges_left_out: known.ranges_left_out,
            timeline,
            timeline_left_out,
        }))
    }

    /// The names of a file: those of its newest incident, or of its newest failure.
    fn named(
        &self,
        file: usize,
        known: &Known,
        record: usize,
        inode: i64,
    ) -> rusqlite::Result<FileRecord> {
        let newest = known
            .incidents
            .iter()
            .max_by_key(|&&it| self.found[it].wall);
        if let Some(&newest) = newest
            && let Some(incident) = self.record_of(newest)?
        {
            return Ok(incident.file);
        }
        let connection = self.records[record].connection();
        let mut statement = connection.prepare_cached(
            "SELECT v.path, v.from_root, v.mount, v.fs_type, v.dev, v.device, v.deleted \
             FROM facts f JOIN file_views v USING (file_view) \
             WHERE f.inode = ?1 ORDER BY f.fact DESC LIMIT 1",
        )?;
        let view = statement.query_row([inode], |row| {
            let name = |spelled: Option<String>| {
                spelled
                    .and_then(|text| schema::unescape(&text).ok())
                    .map(Name)
            };
            let path = name(row.get(0)?);
            let path_from = path.as_ref().map(|_| match row.get(1) {
                Ok(1) => PathFrom::Caller,
                _ => PathFrom::Filesystem,
            });
            let dev: Option<String> = row.get(4)?;
            Ok(FileRecord {
                path,
                path_from,
                path_when_failed: None,
                deleted: row.get::<_, i64>(6)? == 1,
                mount: name(row.get(2)?),
                fs_type: row.get(3)?,
                device: row.get(5)?,
                dev: dev.as_deref().and_then(schema::parse_dev),
                inode: self.files.ids[file].key,
            })
        });
        Ok(view.optional()?.unwrap_or_else(|| FileRecord {
            path: None,
            path_from: None,
            path_when_failed: None,
            deleted: false,
            mount: None,
            fs_type: None,
            device: None,
            dev: None,
            inode: self.files.ids[file].key,
        }))
    }

    fn entry(&self, entry: &Entry, numbers: &[u64]) -> rusqlite::Result<TimelineEntry> {
        let run = &self.runs[entry.run];
        let clock = &run.clock;
        let connection = self.records[run.record].connection();
        let mut shown = TimelineEntry {
            run: entry.run,
            at: clock.moment(entry.at),
            what: entry.what,
            range: entry.range,
            error: entry.errno,
            call: entry.call,
            process: entry
                .task
                .map(|row| task(connection, row))
                .transpose()?
                .flatten(),
            told: entry.told,
            incident: entry
                .incident
                .map(|it| numbers[it])
                .filter(|number| *number != 0),
            storage: None,
            count: entry.count,
            until: (entry.until > entry.at).then(|| clock.moment(entry.until)),
        };
        if let Some(incident) = entry.incident
            && let Some(record) = self.record_of(incident)?
        {
            shown.range = hull(&record.ranges);
            shown.call = Some(record.call);
            shown.error = Some(record.error);
            shown.process = Some(record.process.task);
        }
        // How often the same was said so far is no length of time.
        if entry.what == TimelineKind::Repeated {
            shown.until = None;
        }
        Ok(shown)
    }
}

/// Whether a file belongs into the report: it has incidents, or failures that are outstanding.
fn is_reported(known: &Known) -> bool {
    !known.incidents.is_empty() || known.chosen
}

/// From the first to the last byte.
fn hull(ranges: &[ByteRange]) -> Option<ByteRange> {
    let end = ranges.iter().map(|range| range.end()).max()?;
    ByteRange::new(ranges.first()?.start(), end)
}

fn count(totals: &mut Totals, it: &Found) {
    totals.incidents += 1;
    *match it.told {
        ToldWho::Nobody => &mut totals.told_nobody,
        ToldWho::Other => &mut totals.told_other,
        ToldWho::Caller => &mut totals.told_caller,
        ToldWho::Pending => &mut totals.told_pending,
    } += 1;
    totals.incidents_without_range += u64::from(!it.has_ranges);
    totals.recovered += u64::from(it.recovered.is_some());
    totals.discarded += u64::from(it.discarded.is_some());
    totals.evicted += u64::from(it.evicted.is_some());
    totals.repeats = totals.repeats.saturating_add(it.repeats);
}

/// Adds the lost bytes of a file to what became of all.
fn add(now: &mut BytesNow, known: &Known) {
    for (range, is) in known.now.iter() {
        let sum = match (is.state, is.memory) {
            (LossState::Recovered, _) => &mut now.recovered,
            (LossState::Discarded, _) => &mut now.discarded,
            (LossState::Outstanding, InMemory::Yes) => &mut now.in_memory,
            (LossState::Outstanding, InMemory::No) => &mut now.evicted,
            (LossState::Outstanding, _) => &mut now.unknown,
        };
        *sum = sum.saturating_add(range.len());
    }
}

/// A thread, as facts have it.
fn task(connection: &Connection, row: i64) -> rusqlite::Result<Option<Task>> {
    let mut statement = connection.prepare_cached(
        "SELECT pid, start_ns, tid, uid, comm, cgroup_id, kernel_thread FROM tasks WHERE task = ?1",
    )?;
    let number = |row: &rusqlite::Row<'_>, column| -> rusqlite::Result<u64> {
        Ok(row.get::<_, i64>(column)?.cast_unsigned())
    };
    statement
        .query_row([row], |row| {
            let comm: String = row.get(4)?;
            Ok(Task {
                process: ProcessId {
                    pid: row.get(0)?,
                    start_time: number(row, 1)?,
                },
                tid: row.get(2)?,
                uid: row.get(3)?,
                comm: schema::unescape(&comm).unwrap_or_default(),
                cgroup: number(row, 5)?,
                kernel_thread: row.get::<_, i64>(6)? == 1,
            })
        })
        .optional()
}
