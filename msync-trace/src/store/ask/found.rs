//! The incidents of a record that a report is about, counted and by file.

use std::collections::HashMap;

use rusqlite::Connection;

use super::{
    runs::{Run, word},
    scan,
    wanted::{Names, Question},
};
use crate::{
    correlate::interval::IntervalMap,
    model::{ByteRange, Errno, ErrnoNumbers, FileSystemId, InMemory, InodeKey, ToldWho},
    schema::{self, Body, IncidentRecord, LossState, WallTime, spell_dev},
};

/// An incident that was found. Of the rest of it only its place is known.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Index of its run among the runs of the report.
    pub(super) run: usize,
    /// Its number in that run.
    pub(super) incident: i64,
    /// Its row in its record.
    pub(super) id: i64,
    pub(super) at: u64,
    pub(super) wall: WallTime,
    /// Index of its file.
    pub(super) file: usize,
    /// Its row in `inodes` of its record.
    pub(super) inode: i64,
    pub(super) errno: Errno,
    pub(super) told: ToldWho,
    pub(super) in_memory: InMemory,
    pub(super) has_ranges: bool,
    pub(super) first_failed: WallTime,
    pub(super) last_failed: WallTime,
    pub(super) repeats: u64,
    /// Kernel times.
    pub(super) recovered: Option<u64>,
    pub(super) discarded: Option<u64>,
    pub(super) evicted: Option<u64>,
}

impl Found {
    /// What it has come to.
    pub(super) fn state(&self) -> LossState {
        match (self.recovered, self.discarded) {
            (Some(_), _) => LossState::Recovered,
            (None, Some(_)) => LossState::Discarded,
            (None, None) => LossState::Outstanding,
        }
    }
}

/// What became of lost bytes, as far as an incident and its changes say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Now {
    pub(super) state: LossState,
    pub(super) memory: InMemory,
}

/// A file of a report, by what tells it from all others: where there is no UUID, an inode is known
/// within one boot of one host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    host: Option<String>,
    boot: Option<String>,
    pub(super) key: InodeKey,
}

impl FileId {
    fn new(run: &Run, key: InodeKey) -> Self {
        let report = &run.report;
        let lasting = matches!(key.fs, FileSystemId::Uuid(_));
        Self {
            host: report.host.clone(),
            boot: report.boot_id.clone().filter(|_| !lasting),
            key,
        }
    }

    /// Whether it can be a file of this run.
    pub(super) fn is_of(&self, run: &Run) -> bool {
        *self == Self::new(run, self.key)
    }
}

/// All files that are known so far.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) ids: Vec<FileId>,
    index: HashMap<FileId, usize>,
}

impl Files {
    /// The index of a file.
    pub(super) fn of(&mut self, run: &Run, key: InodeKey) -> usize {
        let id = FileId::new(run, key);
        *self.index.entry(id).or_insert_with_key(|id| {
            self.ids.push(id.clone());
            self.ids.len() - 1
        })
    }

    /// The host of a file.
    pub(super) fn host(&self, file: usize) -> Option<&str> {
        self.ids[file].host.as_deref()
    }
}

/// Reads the incidents of a record, in the order of their runs and numbers. `runs` are those of this
/// record and begin at `base` among all.
pub(super) fn incidents(
    connection: &Connection,
    (base, runs): (usize, &[Run]),
    question: &Question,
    files: &mut Files,
    mut take: impl FnMut(Found),
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "SELECT i.id, i.incident, i.mono_ns, i.wall_ns, i.inode, i.errno, i.errno_os, i.told, \
         i.in_memory, i.evidence, i.first_failed_wall_ns, i.last_failed_wall_ns, i.pid, i.comm, \
         i.record, n.fs_kind, n.fs, n.ino, n.generation, n.subvolume \
         FROM incidents i JOIN inodes n USING (inode) WHERE i.run = ?1 ORDER BY i.incident",
    )?;
    let needs_record = question.narrows_files();
    for (nth, run) in runs.iter().enumerate() {
        let mut rows = statement.query([run.number])?;
        while let Some(row) = rows.next()? {
            let wall = WallTime(row.get(3)?);
            let told: String = row.get(7)?;
            let told = word(&told).unwrap_or(ToldWho::Nobody);
            let errno = errno(row.get(5)?, row.get::<_, Option<String>>(6)?.as_deref());
            let comm = schema::unescape(row.get_ref(13)?.as_str()?).unwrap_or_default();
            let wanted = question.in_window(wall)
                && question.wants_verdict(errno, told)
                && question.wants_process(row.get(12)?, &comm)
                && (!needs_record || wants_file(row.get_ref(14)?.as_str()?, question));
            let Some(key) = key(row, 15)?.filter(|_| wanted) else {
                continue;
            };
            let in_memory: String = row.get(8)?;
            let at: i64 = row.get(2)?;
            take(Found {
                run: base + nth,
                incident: row.get(1)?,
                id: row.get(0)?,
                at: at.cast_unsigned(),
                wall,
                file: files.of(run, key),
                inode: row.get(4)?,
                errno,
                told,
                in_memory: word(&in_memory).unwrap_or(InMemory::Unknown),
                has_ranges: row.get_ref(9)?.as_str()? == "page",
                first_failed: WallTime(row.get(10)?),
                last_failed: WallTime(row.get(11)?),
                repeats: 0,
                recovered: None,
                discarded: None,
                evicted: None,
            });
        }
    }
    Ok(())
}

fn errno(number: i64, os: Option<&str>) -> Errno {
    let numbers = match os {
        Some("FreeBSD") => ErrnoNumbers::FreeBsd,
        _ => ErrnoNumbers::Linux,
    };
    let number = u32::try_from(number).ok();
    number
        .and_then(|number| Errno::of(numbers, number))
        .unwrap_or(Errno::EIO)
}

fn wants_file(record: &str, question: &Question) -> bool {
    record_of(record).is_none_or(|incident| {
        let file = &incident.file;
        let dev = file.dev.map(spell_dev);
        question.wants_file(Names {
            path: file.path.as_ref().map(|path| &*path.0),
            path_from: file.path_from,
            device: file.device.as_deref(),
            dev: dev.as_deref(),
        })
    })
}

/// The incident of a record as `-o json` writes it.
pub(super) fn record_of(line: &str) -> Option<IncidentRecord> {
    match schema::from_line(line.as_bytes()).ok()?.body {
        Body::Incident(incident) => Some(*incident),
        _ => None,
    }
}

/// An inode from its five columns.
pub(super) fn key(row: &rusqlite::Row<'_>, from: usize) -> rusqlite::Result<Option<InodeKey>> {
    let fs = schema::parse_filesystem(
        row.get_ref(from)?.as_str()?,
        row.get_ref(from + 1)?.as_str()?,
    );
    let ino: i64 = row.get(from + 2)?;
    let subvolume: i64 = row.get(from + 4)?;
    let generation: u32 = row.get(from + 3)?;
    Ok(fs.map(|fs| InodeKey {
        fs,
        ino: ino.cast_unsigned(),
        generation,
        subvolume: subvolume.cast_unsigned(),
    }))
}

/// Reads what became of the incidents of a record until the window ends. `found` are those of this
/// record, sorted by run and number. `repeated` is told of each change that says so.
pub(super) fn changes(
    connection: &Connection,
    (base, runs): (usize, &[Run]),
    question: &Question,
    found: &mut [Found],
    mut repeated: impl FnMut(usize, u64, u64),
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "SELECT incident, mono_ns, wall_ns, change, repeats FROM changes WHERE run = ?1 ORDER BY id",
    )?;
    for (nth, run) in runs.iter().enumerate() {
        let mut rows = statement.query([run.number])?;
        while let Some(row) = rows.next()? {
            let wall = WallTime(row.get(2)?);
            let place = place(found, base + nth, row.get(0)?);
            let Some(place) =
                place.filter(|_| question.asked.until.is_none_or(|until| wall < until))
            else {
                continue;
            };
            let at: i64 = row.get(1)?;
            let at = at.cast_unsigned();
            let it = &mut found[place];
            match row.get_ref(3)?.as_str()? {
                "recovered" => it.recovered = Some(at),
                "discarded" => it.discarded = Some(at),
                "evicted" => it.evicted = Some(at),
                "repeated" => {
                    let times: Option<i64> = row.get(4)?;
                    let times = times.unwrap_or(0).cast_unsigned();
                    it.repeats = it.repeats.max(times);
                    if question.in_window(wall) {
                        repeated(place, at, times);
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Where an incident is among those of a record.
fn place(found: &[Found], run: usize, incident: i64) -> Option<usize> {
    found
        .binary_search_by_key(&(run, incident), |it| (it.run, it.incident))
        .ok()
}

/// Reads the bytes of the incidents of a record.
pub(super) fn ranges(
    connection: &Connection,
    (base, runs): (usize, &[Run]),
    found: &[Found],
    mut take: impl FnMut(&Found, ByteRange),
) -> rusqlite::Result<()> {
    let mut statement = connection
        .prepare("SELECT incident, range_start, range_end FROM incident_ranges WHERE run = ?1")?;
    for (nth, run) in runs.iter().enumerate() {
        let mut rows = statement.query([run.number])?;
        while let Some(row) = rows.next()? {
            let place = place(found, base + nth, row.get(0)?);
            if let Some(range) = scan::range(row.get(1)?, row.get(2)?)
                && let Some(place) = place
            {
                take(&found[place], range);
            }
        }
    }
    Ok(())
}

/// The lost bytes of one file in one run, and what the incidents say became of them.
#[derive(Debug, Default)]
pub(super) struct Lost(pub(super) IntervalMap<Now>);

impl Lost {
    /// An incident names these bytes.
    pub(super) fn add(&mut self, incident: &Found, range: ByteRange) {
        let memory = match (incident.evicted, incident.in_memory) {
            (Some(_), _) => InMemory::No,
            // Which of them it holds is not said.
            (None, InMemory::Partly) => InMemory::Unknown,
            (None, memory) => memory,
        };
        let state = incident.state();
        self.0.update(range, |_, _| Some(Now { state, memory }));
    }
}
