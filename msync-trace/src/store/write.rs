//! Entries into rows: one batch, one transaction.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use rusqlite::{
    Connection, OptionalExtension, Transaction, params, params_from_iter, types::Value,
};

use super::{
    RunHeader, StoreError,
    columns::{
        Bits, call_number, errno_columns, filesystem_columns, range_columns, task_columns,
        view_columns,
    },
    error::While,
    file, layout,
    pack::{Columns, Packer},
    queue::{Batch, Dropped, Entry},
    shared_memory::pages_lost,
};
use crate::{
    model::{ByteRange, Errno, ErrnoNumbers, Fact, FactKind, FileView, InodeKey, MonoTime, Task},
    schema::{
        Body, ChangeRecord, Clock, Head, HookRecord, IncidentRecord, Record, Stop,
        StorageErrorRecord, WallTime, Word, escape, spell_dev, to_line,
    },
};

/// Facts with the same threads and names share rows within so many facts, so that rows can be deleted
/// with the facts that have them.
pub(super) const SLICE: i64 = 1 << 16;
/// So many inodes are remembered by their number, and so many threads and names.
const REMEMBERED: usize = 16_384;
/// About so many bytes of names are remembered.
const REMEMBERED_BYTES: usize = 1 << 20;

/// A gap that ends with the batch that it comes with.
#[derive(Clone, Debug)]
pub(super) struct GapRow {
    pub(super) from: WallTime,
    pub(super) to: WallTime,
    pub(super) dropped: Dropped,
    pub(super) error: String,
}

impl GapRow {
    /// Number of the last fact that was lost.
    pub(super) fn last(&self) -> Option<i64> {
        self.dropped.numbers.map(|(_, last)| last)
    }
}

/// How the facts of a run are numbered. What was counted up to in memory may be taken in the file: by
/// somebody who wrote while we could not, or because another record has its name now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    /// Of the first fact of the run, in the file.
    first: i64,
    /// Of the next fact that comes, as counted in memory.
    next: i64,
    /// What to add to a number that was counted in memory.
    shift: i64,
}

impl Numbers {
    /// A run whose facts are counted from this number on.
    pub(super) fn from(next: i64) -> Self {
        Self {
            first: next,
            next,
            shift: 0,
        }
    }

    /// Up to this fact, if there was any, all is dealt with.
    pub(super) fn reached(&mut self, last: Option<i64>) {
        self.next = self.next.max(last.map_or(0, |last| last + 1));
    }

    /// A run begins in a file in which numbers are free from this one on.
    fn begin(&mut self, free: i64) {
        self.shift = self.shift.max(free - self.next);
        self.first = self.next + self.shift;
    }
}

/// A record that is open for writing, in one of its runs.
#[derive(Debug)]
pub(super) struct Writing {
    connection: Connection,
    path: PathBuf,
    identity: (u64, u64),
    run: i64,
    /// What to add to the number of a fact.
    shift: i64,
    /// Pages of shared memory that this process had lost before.
    pages_lost: u64,
    /// Entries of this run that need not be written any more.
    stored: u64,
    known: Known,
    packer: Packer,
}

impl Writing {
    /// Opens the record, made anew if there is none, and goes on with this run or begins it.
    pub(super) fn open(
        path: &Path,
        header: &RunHeader,
        numbers: &mut Numbers,
    ) -> Result<Self, StoreError> {
        if !file::is_there(path)? {
            file::create(path)?;
        }
        let pages_lost = pages_lost();
        let mut connection = file::open(path)?;
        let (run, stored) = begin(&mut connection, header, numbers).during("write", path)?;
        Ok(Self {
            identity: file::identity(path).during("open", path)?,
            path: path.to_owned(),
            connection,
            run,
            shift: numbers.shift,
            pages_lost,
            stored,
            known: Known::default(),
            packer: Packer::default(),
        })
    }

    /// How many entries of this run need not be written any more.
    pub(super) fn stored(&self) -> u64 {
        self.stored
    }

    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn run(&self) -> i64 {
        self.run
    }

    /// Rows were deleted: their numbers mean nothing any more.
    pub(super) fn forget_numbers(&mut self) {
        self.known = Known::default();
    }

    /// Writes a batch. When it returns, the batch is on the disk.
    pub(super) fn store(
        &mut self,
        batch: &Batch,
        gap: Option<&GapRow>,
        now: (MonoTime, WallTime),
    ) -> Result<(), StoreError> {
        if file::identity(&self.path).during("find", &self.path)? != self.identity {
            let error = std::io::Error::other("another file has its name now");
            return Err(error).during("write", &self.path);
        }
        let written = self.write(batch, gap, now);
        self.check_shared_memory().and(written)
    }

    /// What was committed without it is not relied on.
    fn check_shared_memory(&self) -> Result<(), StoreError> {
        if pages_lost() == self.pages_lost {
            return Ok(());
        }
        let error = std::io::Error::other("its disk lost the memory that is shared with readers");
        Err(error).during("write", &self.path)
    }

    fn write(
        &mut self,
        batch: &Batch,
        gap: Option<&GapRow>,
        now: (MonoTime, WallTime),
    ) -> Result<(), StoreError> {
        let transaction = self.connection.transaction();
        let transaction = transaction.during("write", &self.path)?;
        let mut rows = Rows {
            transaction: &transaction,
            run: self.run,
            shift: self.shift,
            known: &mut self.known,
            packer: &mut self.packer,
        };
        let written = rows.all(batch, gap, now);
        match written.and_then(|()| transaction.commit()) {
            Ok(()) => {
                self.stored = batch.iter().last().map_or(self.stored, |(order, _)| order);
                Ok(())
            }
            Err(error) => {
                // Numbers that were given to rows which are not there.
                self.known = Known::default();
                self.packer = Packer::default();
                Err(error).during("write", &self.path)
            }
        }
    }

    /// Leaves one file, without log, which can be read where nothing can be written.
    pub(super) fn close(self) -> Result<(), StoreError> {
        self.check_shared_memory()?;
        let path = self.path;
        self.connection.flush_prepared_statement_cache();
        let tidy = |pragma| self.connection.query_row(pragma, [], |_| Ok(()));
        tidy("PRAGMA wal_checkpoint(TRUNCATE)").during("write", &path)?;
        // Not while somebody reads; the empty log does no harm.
        let _ = tidy("PRAGMA journal_mode = DELETE");
        self.connection
            .close()
            .map_err(|(_, error)| error)
            .during("close", &path)
    }
}

/// The number of the run, and how many of its entries are stored.
fn begin(
    connection: &mut Connection,
    header: &RunHeader,
    numbers: &mut Numbers,
) -> rusqlite::Result<(i64, u64)> {
    let start = &header.start;
    let work = connection.transaction()?;
    let there = work
        .query_row(
            "SELECT run, stored, run = (SELECT max(run) FROM runs) FROM runs
             WHERE pid = ?1 AND began_wall_ns = ?2 AND began_ns = ?3 AND first_fact = ?4",
            params![
                start.pid,
                header.began_wall.0,
                Bits(header.began.0),
                numbers.first
            ],
            |row| {
                let stored = row.get::<_, i64>(1)?.cast_unsigned();
                Ok((row.get(0)?, stored, row.get::<_, bool>(2)?))
            },
        )
        .optional()?;
    let stored = match there {
        Some((run, stored, true)) => return Ok((run, stored)),
        // Somebody else began a run meanwhile: facts of one run stand side by side.
        Some((_, stored, false)) => stored,
        None => 0,
    };
    numbers.begin(next_fact(&work)?);
    layout::sign(&work)?;
    work.execute(
        "INSERT INTO runs (version, host, boot_id, os, kernel, machine, pid, tier, calls,
            include_async, filters, command, input, began_ns, began_wall_ns, wall_minus_mono_ns,
            first_fact, last_fact, stored, seen_ns, seen_wall_ns)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
            ?17 - 1, ?18, ?14, ?15)",
        params![
            start.version,
            start.host,
            start.boot_id,
            start.kernel.name,
            start.kernel.release,
            start.kernel.machine,
            start.pid,
            start.tier,
            json(&start.calls),
            header.include_async,
            json(&start.filters),
            start.command.as_ref().map(json),
            header.input,
            Bits(header.began.0),
            header.began_wall.0,
            start.wall_minus_mono_ns,
            numbers.first,
            stored.cast_signed(),
        ],
    )?;
    let run = work.last_insert_rowid();
    let clock = Clock::new(header.began, header.began_wall);
    let record = Record {
        head: Head::at(header.began, &clock),
        body: Body::Start(Box::new(start.clone())),
    };
    let rows = Rows {
        transaction: &work,
        run,
        shift: 0,
        known: &mut Known::default(),
        packer: &mut Packer::default(),
    };
    rows.run_record(&record)?;
    rows.hooks(header.began, &start.hooks)?;
    rows.clock(header.began, start.wall_minus_mono_ns)?;
    work.commit()?;
    Ok((run, stored))
}

/// Words, lists and objects that cannot fail to be said in JSON.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A record as `-o json` writes it.
fn line(record: &Record) -> String {
    let mut line = to_line(record);
    line.truncate(line.trim_ascii_end().len());
    // JSON is UTF-8.
    String::from_utf8(line).unwrap_or_default()
}

/// The numbers of rows that were written a short while ago.
#[derive(Debug, Default)]
struct Known {
    slice: i64,
    inodes: HashMap<InodeKey, KnownInode>,
    tasks: HashMap<Task, i64>,
    views: HashMap<FileView, i64>,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct KnownInode {
    inode: i64,
    troubled: bool,
    named: bool,
}

impl Known {
    /// Before a fact with this number is written.
    fn reach(&mut self, fact: i64) {
        let slice = fact / SLICE;
        let names = self.tasks.len() + self.views.len();
        if slice != self.slice || names > REMEMBERED || self.bytes > REMEMBERED_BYTES {
            self.slice = slice;
            self.tasks.clear();
            self.views.clear();
            self.bytes = 0;
        }
        if self.inodes.len() > REMEMBERED {
            self.inodes.clear();
        }
    }
}

/// Writes rows of one run within one transaction.
struct Rows<'a> {
    transaction: &'a Transaction<'a>,
    run: i64,
    shift: i64,
    known: &'a mut Known,
    packer: &'a mut Packer,
}

impl Rows<'_> {
    fn all(
        &mut self,
        batch: &Batch,
        gap: Option<&GapRow>,
        (now, now_wall): (MonoTime, WallTime),
    ) -> rusqlite::Result<()> {
        let mut stored = None;
        let mut last = None;
        for (order, entry) in batch.iter() {
            self.entry(entry)?;
            stored = Some(order.cast_signed());
            if let Entry::Fact(number, _) = entry {
                last = Some(*number + self.shift);
            }
        }
        if let Some(gap) = gap {
            self.gap(gap)?;
        }
        self.execute(
            "UPDATE runs SET seen_ns = ?2, seen_wall_ns = ?3, stored = ifnull(?4, stored),
                last_fact = ifnull(?5, last_fact) WHERE run = ?1",
            params![self.run, Bits(now.0), now_wall.0, stored, last],
        )
    }

    fn execute(&self, sql: &str, values: impl rusqlite::Params) -> rusqlite::Result<()> {
        self.transaction.prepare_cached(sql)?.execute(values)?;
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) -> rusqlite::Result<()> {
        match entry {
            Entry::Fact(number, fact) => self.fact(*number + self.shift, fact),
            Entry::Record(record, shown) => self.record(record, *shown),
            Entry::Clock(since, offset) => self.clock(*since, *offset),
            Entry::Settled(key) => self.settled(key),
            Entry::Note(at, text) => self.execute(
                "INSERT INTO notes (run, wall_ns, note) VALUES (?1, ?2, ?3)",
                params![self.run, at.0, text],
            ),
        }
    }

    fn fact(&mut self, number: i64, fact: &Fact) -> rusqlite::Result<()> {
        self.known.reach(number);
        let row = FactRow::of(&fact.kind);
        let inode = row.inode.map(|key| self.inode(key, row.view));
        let inode = inode.transpose()?;
        if let (Some(known), FactKind::WriteFailed(failed)) = (inode, &fact.kind) {
            self.trouble(&failed.inode, known, (number, fact.at))?;
        }
        let task = row.task.map(|task| self.task(number, task)).transpose()?;
        let of_storage;
        let view = match &fact.kind {
            FactKind::StorageError(error) => {
                of_storage = FileView {
                    fs_type: error.fs_type.clone(),
                    dev: error.dev,
                    dev_name: error.dev_name.clone(),
                    ..FileView::default()
                };
                Some(&of_storage)
            }
            _ => row.view,
        };
        let view = view.map(|view| self.view(number, view)).transpose()?;
        let (start, end) = range_columns(row.range);
        let (errno, os) = errno_columns(row.errno);
        let columns = Columns {
            fact: number,
            run: self.run,
            at: fact.at.0.cast_signed(),
            kind: row.kind,
            inode: inode.map(|known| known.inode),
            start,
            end,
            errno: errno.map(i64::from),
            free_bsd: row.errno.map(Errno::numbers) == Some(ErrnoNumbers::FreeBsd),
            task,
            call: row.call,
            flag: row.flag == Some(true),
        };
        self.packer.add(self.transaction, &columns)?;
        self.execute(
            "INSERT OR REPLACE INTO facts VALUES
             (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
            params![
                number,
                self.run,
                Bits(fact.at.0),
                row.kind,
                inode.map(|known| known.inode),
                start,
                end,
                errno,
                task,
                view,
                row.call,
                row.call_id.map(Bits),
                row.file_id.map(Bits),
                row.flag,
                row.submitted.map(Bits),
                os,
                row.word,
                row.count.map(Bits),
            ],
        )
    }

    fn inode(&mut self, key: InodeKey, view: Option<&FileView>) -> rusqlite::Result<KnownInode> {
        let mut known = match self.known.inodes.get(&key) {
            Some(known) => *known,
            None => self.find_inode(&key)?,
        };
        if let (false, Some(view)) = (known.named, view)
            && let Some(path) = &view.path
        {
            self.execute(
                "UPDATE inodes SET path = ifnull(path, ?2), fs_type = ifnull(fs_type, ?3),
                    device = ifnull(device, ?4) WHERE inode = ?1",
                params![
                    known.inode,
                    escape(path),
                    view.fs_type.as_deref().map(|it| escape(it.as_bytes())),
                    view.dev_name.as_deref().map(|it| escape(it.as_bytes())),
                ],
            )?;
            known.named = true;
        }
        self.known.inodes.insert(key, known);
        Ok(known)
    }

    fn find_inode(&self, key: &InodeKey) -> rusqlite::Result<KnownInode> {
        let (kind, fs) = filesystem_columns(key.fs);
        let of_key = params![kind, fs, Bits(key.ino), key.generation, Bits(key.subvolume)];
        self.execute(
            "INSERT OR IGNORE INTO inodes (fs_kind, fs, ino, generation, subvolume)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            of_key,
        )?;
        let mut find = self.transaction.prepare_cached(
            "SELECT inode, EXISTS (SELECT 1 FROM troubled t WHERE t.inode = n.inode),
                path IS NOT NULL
             FROM inodes n
             WHERE fs_kind = ?1 AND fs = ?2 AND ino = ?3 AND generation = ?4 AND subvolume = ?5",
        )?;
        find.query_row(of_key, |row| {
            Ok(KnownInode {
                inode: row.get(0)?,
                troubled: row.get(1)?,
                named: row.get(2)?,
            })
        })
    }

    fn trouble(
        &mut self,
        key: &InodeKey,
        known: KnownInode,
        fact: (i64, MonoTime),
    ) -> rusqlite::Result<()> {
        if known.troubled {
            return Ok(());
        }
        let troubled = KnownInode {
            troubled: true,
            ..known
        };
        self.known.inodes.insert(*key, troubled);
        self.execute(
            "INSERT OR IGNORE INTO troubled (inode, since_fact, run, mono_ns)
             VALUES (?1, ?2, ?3, ?4)",
            params![known.inode, fact.0, self.run, Bits(fact.1.0)],
        )
    }

    fn settled(&mut self, key: &InodeKey) -> rusqlite::Result<()> {
        let known = self.inode(*key, None)?;
        let settled = KnownInode {
            troubled: false,
            ..known
        };
        self.known.inodes.insert(*key, settled);
        self.execute("DELETE FROM troubled WHERE inode = ?1", [known.inode])
    }

    fn task(&mut self, fact: i64, task: &Task) -> rusqlite::Result<i64> {
        if let Some(number) = self.known.tasks.get(task) {
            return Ok(*number);
        }
        self.execute(
            "INSERT OR REPLACE INTO tasks VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            numbered(fact, task_columns(task)),
        )?;
        self.known.bytes += task.comm.len();
        self.known.tasks.insert(task.clone(), fact);
        Ok(fact)
    }

    fn view(&mut self, fact: i64, view: &FileView) -> rusqlite::Result<i64> {
        if let Some(number) = self.known.views.get(view) {
            return Ok(*number);
        }
        self.execute(
            "INSERT OR REPLACE INTO file_views VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            numbered(fact, view_columns(view)),
        )?;
        let names = [&view.path, &view.mount].into_iter().flatten();
        self.known.bytes += names.map(Vec::len).sum::<usize>();
        self.known.views.insert(view.clone(), fact);
        Ok(fact)
    }

    fn record(&mut self, record: &Record, shown: bool) -> rusqlite::Result<()> {
        let Head { time, mono_ns, .. } = record.head;
        match &record.body {
            Body::Incident(incident) => self.incident(record, incident, shown),
            Body::Change(change) => self.change((mono_ns, time), change),
            Body::StorageError(error) => self.storage_error(record, error),
            Body::Lost(lost) => self.execute(
                "INSERT INTO losses (run, mono_ns, wall_ns, cause, count)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    self.run,
                    Bits(mono_ns.0),
                    time.0,
                    lost.cause.word(),
                    Bits(lost.count)
                ],
            ),
            Body::Hooks(hooks) => {
                self.run_record(record)?;
                self.hooks(mono_ns, &hooks.hooks)
            }
            Body::Stop(stop) => self.stop(record, stop),
            // The header of the run has it already; facts come as facts.
            _ => Ok(()),
        }
    }

    fn run_record(&self, record: &Record) -> rusqlite::Result<()> {
        let kind = match &record.body {
            Body::Start(_) => "start",
            Body::Hooks(_) => "hooks",
            _ => "stop",
        };
        self.execute(
            "INSERT INTO run_records (run, mono_ns, type, record) VALUES (?1, ?2, ?3, ?4)",
            params![self.run, Bits(record.head.mono_ns.0), kind, line(record)],
        )
    }

    fn hooks(&self, at: MonoTime, hooks: &[HookRecord]) -> rusqlite::Result<()> {
        for hook in hooks {
            self.execute(
                "INSERT OR REPLACE INTO hooks VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    self.run,
                    Bits(at.0),
                    hook.name,
                    hook.purpose,
                    hook.target,
                    hook.state,
                    hook.method,
                    hook.detail
                ],
            )?;
        }
        Ok(())
    }

    fn clock(&self, since: MonoTime, offset: i64) -> rusqlite::Result<()> {
        self.execute(
            "INSERT OR REPLACE INTO clock VALUES (?1, ?2, ?3)",
            params![self.run, Bits(since.0), offset],
        )
    }

    fn stop(&self, record: &Record, stop: &Stop) -> rusqlite::Result<()> {
        self.run_record(record)?;
        self.execute(
            "UPDATE runs SET ended_ns = ?2, ended_wall_ns = ?3, reason = ?4, complete = ?5,
                exit_status = ?6 WHERE run = ?1",
            params![
                self.run,
                Bits(record.head.mono_ns.0),
                record.head.time.0,
                stop.reason.word(),
                stop.complete,
                stop.exit_status
            ],
        )
    }

    fn incident(
        &mut self,
        record: &Record,
        incident: &IncidentRecord,
        shown: bool,
    ) -> rusqlite::Result<()> {
        let file = &incident.file;
        let known = self.inode(file.inode, None)?;
        let name = |name: &Option<crate::schema::Name>| name.as_ref().map(|name| escape(&name.0));
        let text = |text: &Option<String>| text.as_ref().map(|text| escape(text.as_bytes()));
        let (errno, os) = errno_columns(Some(incident.error));
        let (start, end) = range_columns(Some(incident.requested));
        let task = &incident.process.task;
        self.execute(
            "INSERT OR REPLACE INTO incidents (run, incident, shown, mono_ns, wall_ns, inode, errno, errno_os,
                bytes, evidence, told, coverage, in_memory, call, requested_start, requested_end,
                first_failed_ns, first_failed_wall_ns, last_failed_ns, last_failed_wall_ns, path,
                mount, fs_type, device, dev, pid, tid, uid, comm, record)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
                ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30)",
            params![
                self.run,
                Bits(incident.incident.0),
                shown,
                Bits(record.head.mono_ns.0),
                record.head.time.0,
                known.inode,
                errno,
                os,
                incident.bytes.map(Bits),
                incident.evidence.word(),
                incident.told.word(),
                incident.coverage.word(),
                incident.in_memory.word(),
                incident.call.word(),
                start,
                end,
                Bits(incident.first_failed.mono_ns.0),
                incident.first_failed.time.0,
                Bits(incident.last_failed.mono_ns.0),
                incident.last_failed.time.0,
                name(&file.path),
                name(&file.mount),
                text(&file.fs_type),
                text(&file.device),
                file.dev.map(spell_dev),
                task.process.pid,
                task.tid,
                task.uid,
                escape(&task.comm),
                line(record),
            ],
        )?;
        self.incident_ranges(incident)?;
        self.execute(
            "UPDATE inodes SET path = ifnull(?2, path), fs_type = ifnull(?3, fs_type),
                device = ifnull(?4, device) WHERE inode = ?1",
            params![
                known.inode,
                name(&file.path),
                text(&file.fs_type),
                text(&file.device)
            ],
        )
    }

    fn incident_ranges(&self, incident: &IncidentRecord) -> rusqlite::Result<()> {
        for range in &incident.ranges {
            let (start, end) = range_columns(Some(*range));
            self.execute(
                "INSERT OR REPLACE INTO incident_ranges VALUES (?1, ?2, ?3, ?4)",
                params![self.run, Bits(incident.incident.0), start, end],
            )?;
        }
        Ok(())
    }

    fn change(&self, at: (MonoTime, WallTime), change: &ChangeRecord) -> rusqlite::Result<()> {
        let repeats = match change.change {
            crate::model::ChangeKind::Repeated { repeats } => Some(Bits(repeats)),
            _ => None,
        };
        self.execute(
            "INSERT INTO changes (run, incident, mono_ns, wall_ns, change, repeats)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                self.run,
                Bits(change.incident.0),
                Bits(at.0.0),
                at.1.0,
                change.word(),
                repeats
            ],
        )
    }

    fn storage_error(&self, record: &Record, it: &StorageErrorRecord) -> rusqlite::Result<()> {
        let (errno, os) = errno_columns(it.error.errno);
        let text = |text: &Option<String>| text.as_ref().map(|text| escape(text.as_bytes()));
        self.execute(
            "INSERT INTO storage_errors (run, mono_ns, wall_ns, what, errno, errno_os, dev, device,
                fs_type, mount, read_only, record)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            params![
                self.run,
                Bits(record.head.mono_ns.0),
                record.head.time.0,
                it.error.what.word(),
                errno,
                os,
                it.error.dev.map(spell_dev),
                text(&it.error.dev_name),
                text(&it.error.fs_type),
                it.mount.as_ref().map(|name| escape(&name.0)),
                it.read_only,
                line(record),
            ],
        )
    }

    fn gap(&self, gap: &GapRow) -> rusqlite::Result<()> {
        let Dropped {
            facts,
            incidents,
            others,
            numbers,
        } = gap.dropped;
        self.execute(
            "INSERT INTO gaps (run, from_wall_ns, to_wall_ns, facts, incidents, others, first_fact,
                last_fact, error)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                self.run,
                gap.from.0,
                gap.to.0,
                Bits(facts),
                Bits(incidents),
                Bits(others),
                numbers.map(|(first, _)| first + self.shift),
                numbers.map(|(_, last)| last + self.shift),
                escape(gap.error.as_bytes())
            ],
        )
    }
}

fn numbered(number: i64, columns: [Value; 7]) -> impl rusqlite::Params {
    params_from_iter([Value::Integer(number)].into_iter().chain(columns))
}

/// The columns of a fact, as far as they are in the fact itself.
#[derive(Default)]
struct FactRow<'a> {
    kind: i64,
    inode: Option<InodeKey>,
    range: Option<ByteRange>,
    errno: Option<Errno>,
    task: Option<&'a Task>,
    view: Option<&'a FileView>,
    call: Option<i64>,
    call_id: Option<u64>,
    file_id: Option<u64>,
    flag: Option<bool>,
    submitted: Option<u64>,
    word: Option<&'static str>,
    count: Option<u64>,
}

impl<'a> FactRow<'a> {
    /// The numbers are those of table `fact_kinds`.
    fn of(kind: &'a FactKind) -> Self {
        match kind {
            FactKind::WriteFailed(it) => Self {
                kind: 1,
                inode: Some(it.inode),
                range: it.range,
                errno: Some(it.errno),
                task: it.writer.as_ref(),
                view: Some(&it.file),
                flag: Some(it.eviction_watched),
                submitted: it.submitted.map(|at| at.0),
                ..Self::default()
            },
            FactKind::WriteOk(it) => Self::of_bytes(2, it.inode, it.range),
            FactKind::Redirtied(it) => Self::of_bytes(3, it.inode, it.range),
            FactKind::SyncReturn(it) => Self {
                errno: it.error,
                task: Some(&it.task),
                view: Some(&it.file_view),
                call: Some(call_number(it.call)),
                call_id: Some(it.id.0),
                file_id: it.file.map(|file| file.0),
                flag: Some(it.pending),
                ..Self::of_bytes(4, it.inode, it.range)
            },
            FactKind::Told(it) => Self {
                kind: 5,
                inode: Some(it.inode),
                errno: Some(it.errno),
                task: Some(&it.task),
                file_id: Some(it.file.0),
                ..Self::default()
            },
            FactKind::Opened(it) => Self {
                kind: 6,
                inode: Some(it.inode),
                file_id: Some(it.file.0),
                ..Self::default()
            },
            FactKind::Discarded(it) => Self::of_bytes(7, it.inode, it.range),
            FactKind::Evicted(it) => Self::of_bytes(8, it.inode, it.range),
            FactKind::Gone(it) => Self {
                kind: 9,
                inode: Some(it.inode),
                flag: Some(it.deleted),
                ..Self::default()
            },
            FactKind::StorageError(it) => Self {
                kind: 10,
                errno: it.errno,
                word: Some(it.what.word()),
                ..Self::default()
            },
            FactKind::Lost(it) => Self {
                kind: 11,
                word: Some(it.cause.word()),
                count: Some(it.count),
                ..Self::default()
            },
        }
    }

    fn of_bytes(kind: i64, inode: InodeKey, range: ByteRange) -> Self {
        Self {
            kind,
            inode: Some(inode),
            range: Some(range),
            ..Self::default()
        }
    }
}

/// The number that the next fact of the record gets.
pub(super) fn next_fact(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row(
        "SELECT 1 + max(ifnull((SELECT max(max(first_fact, last_fact)) FROM runs), 0),
            ifnull((SELECT max(last_fact) FROM gaps), 0))",
        [],
        |row| row.get(0),
    )
}
