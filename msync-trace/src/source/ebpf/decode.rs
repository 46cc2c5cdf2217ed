//! Ring records → facts. Pure: bytes in, facts out; no kernel, no clock.
//!
//! The records of one sync call are put together here, and what the rings lost is made good from
//! the kernel's summaries as far as it can be.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU64,
};

use msync_trace_ebpf as abi;
use zerocopy::{FromBytes, IntoBytes};

use super::unconverted::Unconverted;
use crate::model::{
    ByteRange, Call, CallId, Discarded, Errno, Evicted, Fact, FactKind, FileId, FileSystemId,
    FileView, Gone, InodeKey, LossCause, Lost, MonoTime, Opened, ProcessId, Redirtied,
    StorageError, StorageErrorKind, SyncReturn, Task, Told, WriteFailed, WriteOk,
    keep::{Keep, keep},
};

/// One ring record, not yet a fact.
#[derive(Clone, Debug)]
pub enum Record {
    /// A fact by itself.
    Fact(Fact, abi::InodeKey),
    /// A failure that left unwritten blocks unwritten.
    Unconverted(Fact, abi::InodeKey),
    /// Unwritten blocks were converted, or will be as soon as the write under way has ended.
    Converted(MonoTime, abi::InodeKey, ByteRange),
    /// One inode of a sync call.
    SyncFile(Box<abi::SyncFile>),
    /// The call came back.
    SyncEnd(abi::SyncEnd),
    /// Names of the file of a sync call.
    Path(CallId, FileView),
    /// Names of an inode whose write is about to fail.
    Name(abi::InodeKey, FileView),
    /// The call came back, and another copy of the object tells what it returned.
    SyncTold(MonoTime, CallId),
    /// A kernel module was loaded.
    Module(MonoTime, String),
}

impl Record {
    /// When the hook ran.
    #[must_use]
    pub fn at(&self) -> u64 {
        match self {
            Self::Fact(fact, _) | Self::Unconverted(fact, _) => fact.at.0,
            Self::Converted(at, ..) | Self::SyncTold(at, _) | Self::Module(at, _) => at.0,
            Self::SyncFile(record) => record.header.at,
            Self::SyncEnd(record) => record.header.at,
            Self::Path(..) | Self::Name(..) => 0,
        }
    }

    /// Whether something happened to a file with failures, so that it is to be followed. Names alone
    /// come of healthy ones too, and a disk in trouble is no failed write.
    #[must_use]
    pub fn is_of_a_file(&self) -> bool {
        match self {
            Self::Fact(fact, _) => !matches!(fact.kind, FactKind::StorageError(_)),
            Self::Path(..) | Self::Name(..) | Self::Module(..) => false,
            Self::Unconverted(..)
            | Self::Converted(..)
            | Self::SyncFile(_)
            | Self::SyncEnd(_)
            | Self::SyncTold(..) => true,
        }
    }
}

/// Decodes one record; `None` where it is not one of ours.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<Record> {
    let (header, _) = abi::Header::read_from_prefix(bytes).ok()?;
    let at = MonoTime(header.at);
    match header.kind {
        abi::KIND_WRITE_FAILED => write_failed(bytes, at),
        abi::KIND_WRITE_OK
        | abi::KIND_REDIRTIED
        | abi::KIND_DISCARDED
        | abi::KIND_EVICTED
        | abi::KIND_GONE
        | abi::KIND_CONVERTED => range(bytes, at),
        abi::KIND_SYNC_FILE => abi::SyncFile::read_from_prefix(bytes)
            .ok()
            .map(|(r, _)| Record::SyncFile(Box::new(r))),
        abi::KIND_SYNC_END => abi::SyncEnd::read_from_prefix(bytes)
            .ok()
            .map(|(r, _)| Record::SyncEnd(r)),
        abi::KIND_TOLD | abi::KIND_OPENED => file_event(bytes, at),
        abi::KIND_PATH | abi::KIND_NAME => path(bytes),
        abi::KIND_STORAGE_ERROR => storage_error(bytes, at),
        abi::KIND_MODULE => {
            let (record, _) = abi::ModuleLoaded::read_from_prefix(bytes).ok()?;
            Some(Record::Module(at, text(&record.name)))
        }
        _ => None,
    }
}

fn write_failed(bytes: &[u8], at: MonoTime) -> Option<Record> {
    let (record, _) = abi::WriteFailed::read_from_prefix(bytes).ok()?;
    let kind = FactKind::WriteFailed(WriteFailed {
        inode: inode_key(&record.inode),
        range: ByteRange::new(record.start, record.end),
        errno: Errno::new(record.errno).unwrap_or(Errno::EIO),
        submitted: (record.submitted != 0).then_some(MonoTime(record.submitted)),
        eviction_watched: record.flags & abi::FAILED_EVICTION_WATCHED != 0,
        writer: Some(task(&record.task)),
        file: file_view(&record.fs, FileView::default()),
    });
    let fact = Fact { at, kind };
    Some(match record.flags & abi::FAILED_UNCONVERTED {
        0 => Record::Fact(fact, record.inode),
        _ => Record::Unconverted(fact, record.inode),
    })
}

fn range(bytes: &[u8], at: MonoTime) -> Option<Record> {
    let (record, _) = abi::Range::read_from_prefix(bytes).ok()?;
    let inode = inode_key(&record.inode);
    let range = ByteRange::new(record.start, record.end)?;
    let kind = match record.header.kind {
        abi::KIND_WRITE_OK => FactKind::WriteOk(WriteOk { inode, range }),
        abi::KIND_REDIRTIED => FactKind::Redirtied(Redirtied { inode, range }),
        abi::KIND_DISCARDED => FactKind::Discarded(Discarded { inode, range }),
        abi::KIND_EVICTED => FactKind::Evicted(Evicted { inode, range }),
        abi::KIND_CONVERTED => return Some(Record::Converted(at, record.inode, range)),
        _ => FactKind::Gone(Gone {
            inode,
            deleted: record.nlink == 0,
        }),
    };
    Some(Record::Fact(Fact { at, kind }, record.inode))
}

fn file_event(bytes: &[u8], at: MonoTime) -> Option<Record> {
    let (record, _) = abi::FileEvent::read_from_prefix(bytes).ok()?;
    let inode = inode_key(&record.inode);
    let file = FileId(record.file);
    let kind = if record.header.kind == abi::KIND_OPENED {
        FactKind::Opened(Opened { inode, file })
    } else {
        FactKind::Told(Told {
            inode,
            file,
            errno: Errno::new(record.errno).unwrap_or(Errno::EIO),
            task: task(&record.task),
        })
    };
    Some(Record::Fact(Fact { at, kind }, record.inode))
}

fn storage_error(bytes: &[u8], at: MonoTime) -> Option<Record> {
    let (record, _) = abi::StorageError::read_from_prefix(bytes).ok()?;
    let fs = file_view(&record.fs, FileView::default());
    let kind = FactKind::StorageError(StorageError {
        what: match record.what {
            abi::STORAGE_FLUSH_FAILED => StorageErrorKind::FlushFailed,
            abi::STORAGE_FILESYSTEM_ERROR => StorageErrorKind::FilesystemError,
            abi::STORAGE_FILESYSTEM_SHUTDOWN => StorageErrorKind::FilesystemShutdown,
            _ => return None,
        },
        errno: Errno::new(record.errno),
        dev: fs.dev,
        dev_name: fs.dev_name,
        fs_type: fs.fs_type,
    });
    Some(Record::Fact(Fact { at, kind }, abi::InodeKey::ZERO))
}

/// Names come leaf first, each ended by a NUL.
fn path(bytes: &[u8]) -> Option<Record> {
    let (header, names) = abi::PathHeader::read_from_prefix(bytes).ok()?;
    let names = names.get(..header.len as usize)?;
    let names: Vec<&[u8]> = names
        .split(|&b| b == 0)
        .filter(|name| !name.is_empty())
        .collect();
    let record = |view| match header.header.kind {
        abi::KIND_NAME => Record::Name(header.inode, view),
        _ => Record::Path(CallId(header.call_id), view),
    };
    if names.is_empty() {
        return Some(record(FileView::default()));
    }
    let mut path = Vec::new();
    for name in names.iter().rev() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    let whole = header.truncated == 0;
    if !whole {
        path.splice(0..0, *b"...");
    }
    Some(record(FileView {
        path: Some(path),
        from_root: whole && header.header.kind == abi::KIND_PATH,
        ..FileView::default()
    }))
}

/// The model's key of a kernel key.
#[must_use]
pub fn inode_key(key: &abi::InodeKey) -> InodeKey {
    InodeKey {
        fs: if key.uuid == [0; 16] {
            FileSystemId::Device(key.dev)
        } else {
            FileSystemId::Uuid(key.uuid)
        },
        ino: key.ino,
        generation: key.generation,
        subvolume: key.subvolume,
    }
}

/// The kernel's key of a model key.
#[must_use]
pub fn kernel_key(key: &InodeKey) -> abi::InodeKey {
    let (uuid, dev) = match key.fs {
        FileSystemId::Uuid(uuid) => (uuid, 0),
        FileSystemId::Device(dev) => ([0; 16], dev),
        // FreeBSD's: no key of this kernel.
        FileSystemId::Fsid(_) => ([0; 16], 0),
    };
    abi::InodeKey {
        uuid,
        ino: key.ino,
        subvolume: key.subvolume,
        generation: key.generation,
        dev,
    }
}

/// `PF_KTHREAD` (include/linux/sched.h).
const PF_KTHREAD: u32 = 0x0020_0000;

fn task(info: &abi::TaskInfo) -> Task {
    Task {
        process: ProcessId {
            pid: info.pid,
            start_time: info.start_time,
        },
        tid: info.tid,
        uid: info.uid,
        comm: until_nul(&info.comm).to_vec(),
        cgroup: info.cgroup,
        kernel_thread: info.flags & PF_KTHREAD != 0,
    }
}

fn file_view(fs: &abi::FileSystem, path: FileView) -> FileView {
    let name = |bytes: &[u8]| Some(text(bytes)).filter(|name| !name.is_empty());
    FileView {
        fs_type: name(&fs.fs_type),
        dev: (fs.dev != 0).then_some(fs.dev),
        dev_name: name(&fs.s_id),
        deleted: fs.nlink == 0,
        ..path
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or_default()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(until_nul(bytes)).into_owned()
}

/// Most bytes of paths of inodes with failures.
const MAX_NAME_BYTES: usize = 4 << 20;

/// Most calls whose end is waited for, and most paths kept for them.
const MAX_WAITING: usize = 4096;

/// What is known of an inode with failures.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Failures that arrived: compared with the kernel's own count.
    failures: u64,
    /// Nobody further on remembers them: the how manieth this was given up.
    given_up: Option<NonZeroU64>,
    /// Its path in its filesystem when a write failed last.
    path: Option<Box<[u8]>>,
}

/// Turns records, in the order of their times, into facts.
#[derive(Debug, Default)]
pub struct Joiner {
    /// Inodes with failures.
    known: HashMap<abi::InodeKey, Known>,
    /// Bytes of their paths.
    name_bytes: usize,
    /// How many inodes were given up so far.
    given_up: u64,
    /// Sync calls whose end has not come.
    waiting: BTreeMap<u64, Vec<SyncReturn>>,
    /// Paths whose sync record has not come.
    paths: BTreeMap<u64, FileView>,
    /// Extents that writes do not reach.
    unconverted: Unconverted,
}

impl Joiner {
    /// Notes the path of a sync whose record follows.
    pub fn path(&mut self, call: CallId, view: FileView) {
        bound(&mut self.paths);
        self.paths.insert(call.0, view);
    }

    /// Notes the path of an inode whose failures follow.
    pub fn name(&mut self, key: abi::InodeKey, view: FileView) {
        let known = self.known.entry(key).or_default();
        self.name_bytes -= known.path.take().map_or(0, |path| path.len());
        known.path = view.path.map(Vec::into_boxed_slice);
        let len = known.path.as_ref().map_or(0, |path| path.len());
        if self.name_bytes + len > MAX_NAME_BYTES {
            known.path = None;
        } else {
            self.name_bytes += len;
        }
    }

    /// What the file was called when its write failed.
    fn add_name(&self, key: &abi::InodeKey, view: &mut FileView) {
        let known = self.known.get(key);
        if view.path.is_none()
            && let Some(path) = known.and_then(|known| known.path.as_deref())
        {
            view.path = Some(path.to_vec());
        }
    }

    /// A record came from a ring; its turn comes later.
    pub fn arrived(&mut self, record: &Record) {
        if let Record::Fact(fact, key) | Record::Unconverted(fact, key) = record
            && matches!(fact.kind, FactKind::WriteFailed(_))
        {
            self.known.entry(*key).or_default().failures += 1;
        }
    }

    /// From here on another copy of the object counts failures. Of these inodes its count begins at
    /// one.
    pub fn count_anew(&mut self, followed: impl IntoIterator<Item = abi::InodeKey>) {
        let anew = |key: abi::InodeKey| {
            let before = self.known.get(&key).cloned().unwrap_or_default();
            let failures = 1;
            (key, Known { failures, ..before })
        };
        self.known = followed.into_iter().map(anew).collect();
        let paths = self.known.values().filter_map(|known| known.path.as_ref());
        self.name_bytes = paths.map(|path| path.len()).sum();
    }

    /// Whether it is a sync and the kernel had counted more failures of its inode than came.
    #[must_use]
    pub fn misses(&self, record: &Record) -> bool {
        match record {
            Record::SyncFile(sync) => sync.state.failures > self.failures_of(&sync.inode),
            _ => false,
        }
    }

    /// Takes the next record. `dropped`: the ring of failures was full, and that was told.
    pub fn push(&mut self, record: Record, dropped: bool, into: &mut Vec<Fact>) {
        match record {
            Record::Fact(fact, key) => self.fact(fact, key, into),
            Record::Unconverted(mut fact, key) => {
                if let FactKind::WriteFailed(failed) = &mut fact.kind {
                    self.add_name(&key, &mut failed.file);
                }
                if let FactKind::WriteFailed(failed) = &fact.kind
                    && let Some(range) = failed.range
                    && !self.unconverted.add(key, range, failed.errno)
                {
                    let (cause, count) = (LossCause::MemoryLimit, 1);
                    let kind = FactKind::Lost(Lost { cause, count });
                    into.push(Fact { at: fact.at, kind });
                }
                into.push(fact);
            }
            Record::Converted(_, key, range) => self.unconverted.remove(key, range),
            Record::Path(call, view) => self.path(call, view),
            Record::Name(key, view) => self.name(key, view),
            Record::SyncFile(record) => self.sync_file(&record, dropped, into),
            Record::SyncEnd(end) => {
                for mut fact in self.waiting.remove(&end.call_id).unwrap_or_default() {
                    fact.error = Errno::from_return(end.ret);
                    into.push(Fact {
                        at: MonoTime(end.header.at),
                        kind: FactKind::SyncReturn(fact),
                    });
                }
            }
            Record::SyncTold(_, call) => {
                self.waiting.remove(&call.0);
            }
            Record::Module(..) => {}
        }
    }

    /// A fact by itself. A write that reached blocks which stay unwritten is one that failed.
    fn fact(&mut self, mut fact: Fact, key: abi::InodeKey, into: &mut Vec<Fact>) {
        match &mut fact.kind {
            FactKind::WriteFailed(failed) => self.add_name(&key, &mut failed.file),
            FactKind::WriteOk(written) => {
                let (at, inode) = (fact.at, written.inode);
                let mut file = FileView::default();
                self.add_name(&key, &mut file);
                let mut say = |kind| into.push(Fact { at, kind });
                for (range, errno) in self.unconverted.written(&key, written.range) {
                    let Some(errno) = errno else {
                        say(FactKind::WriteOk(WriteOk { inode, range }));
                        continue;
                    };
                    // It was dirty again, or nobody would have written it.
                    say(FactKind::Redirtied(Redirtied { inode, range }));
                    say(FactKind::WriteFailed(WriteFailed {
                        inode,
                        range: Some(range),
                        errno,
                        submitted: None,
                        eviction_watched: true,
                        writer: None,
                        file: file.clone(),
                    }));
                }
                return;
            }
            FactKind::Discarded(discarded) => self.unconverted.remove(key, discarded.range),
            FactKind::Gone(gone) if gone.deleted => self.unconverted.forget(&key),
            _ => {}
        }
        into.push(fact);
    }

    /// The failures of the inode that were told have been forgotten: its next sync is to be
    /// preceded by a failure again.
    pub fn give_up(&mut self, key: abi::InodeKey) {
        self.given_up += 1;
        self.known.entry(key).or_default().given_up = NonZeroU64::new(self.given_up);
    }

    /// So many of the inodes that were given up, longest ago first.
    #[must_use]
    pub fn oldest_given_up(&self, most: usize) -> Vec<abi::InodeKey> {
        let given_up = self.known.iter();
        let given_up = given_up.filter_map(|(key, known)| Some((known.given_up?, *key)));
        let mut keys: Vec<_> = given_up.collect();
        keys.sort_unstable_by_key(|(at, _)| *at);
        keys.truncate(most);
        keys.into_iter().map(|(_, key)| key).collect()
    }

    /// Whether [`Self::give_up`] was said of the inode, and no sync came since.
    #[must_use]
    pub fn was_given_up(&self, key: &abi::InodeKey) -> bool {
        self.known.get(key).is_some_and(|k| k.given_up.is_some())
    }

    /// The inode is no longer followed by the kernel side.
    pub fn forget(&mut self, key: &abi::InodeKey) {
        let known = self.known.remove(key);
        let path = known.and_then(|known| known.path);
        self.name_bytes -= path.map_or(0, |path| path.len());
        self.unconverted.forget(key);
    }

    /// Failures of the inode that arrived.
    #[must_use]
    pub fn failures_of(&self, key: &abi::InodeKey) -> u64 {
        self.known.get(key).map_or(0, |known| known.failures)
    }

    /// What the kernel side counted of this inode while nobody read the rings, and dropped: that it
    /// failed is known, the bytes are not. What came counts as told from now on.
    pub fn summary(&mut self, key: &abi::InodeKey, state: &abi::InodeState) -> Option<Fact> {
        let known = self.known.entry(*key).or_default();
        let missed = state.failures > known.failures;
        known.failures = known.failures.max(state.failures);
        missed.then(|| {
            let file = FileView {
                path: known.path.as_deref().map(<[u8]>::to_vec),
                ..FileView::default()
            };
            Fact {
                at: MonoTime(state.last_at),
                kind: FactKind::WriteFailed(WriteFailed {
                    inode: inode_key(key),
                    range: None,
                    errno: Errno::new(state.errno).unwrap_or(Errno::EIO),
                    submitted: None,
                    eviction_watched: false,
                    writer: None,
                    file,
                }),
            }
        })
    }

    fn sync_file(&mut self, record: &abi::SyncFile, dropped: bool, into: &mut Vec<Fact>) {
        let at = MonoTime(record.header.at);
        let inode = inode_key(&record.inode);
        let path = self.paths.remove(&record.call_id).unwrap_or_default();
        let view = file_view(&record.fs, path);
        self.make_good(record, &view, dropped, into);
        if record.flags & abi::SYNC_ANEW != 0 {
            into.push(Fact {
                at,
                kind: FactKind::Gone(Gone {
                    inode,
                    deleted: false,
                }),
            });
        }
        // What lies past the end of the file now was truncated, whatever hook missed it.
        let end = record.size.saturating_add(4095) & !4095;
        if record.state.highest > end
            && record.state.highest != u64::MAX
            && let Some(range) = ByteRange::new(end, u64::MAX)
        {
            self.unconverted.remove(record.inode, range);
            into.push(Fact {
                at,
                kind: FactKind::Discarded(Discarded { inode, range }),
            });
        }
        let call = match record.call {
            abi::CALL_MSYNC => Call::Msync,
            abi::CALL_MSYNC_ASYNC => Call::MsyncAsync,
            abi::CALL_FSYNC => Call::Fsync,
            abi::CALL_FDATASYNC => Call::Fdatasync,
            abi::CALL_IO_URING => Call::IoUring,
            _ => Call::Nfsd,
        };
        let mut fact = SyncReturn {
            inode,
            file: Some(FileId(record.file)),
            call,
            id: CallId(record.call_id),
            range: ByteRange::new(record.start, record.end).unwrap_or(ByteRange::ALL),
            error: None,
            pending: record.flags & abi::SYNC_PENDING != 0,
            task: task(&record.task),
            file_view: view,
        };
        if record.flags & abi::SYNC_ALONE != 0 {
            if record.flags & abi::SYNC_FAILED != 0 {
                fact.error = Some(Errno::EIO);
            }
            into.push(Fact {
                at,
                kind: FactKind::SyncReturn(fact),
            });
            return;
        }
        bound(&mut self.waiting);
        self.waiting.entry(record.call_id).or_default().push(fact);
    }

    /// The kernel counted more failures than arrived (the ring was full), or they arrived and were
    /// forgotten. The inode is known to have failed, the bytes are not.
    fn make_good(
        &mut self,
        record: &abi::SyncFile,
        view: &FileView,
        dropped: bool,
        into: &mut Vec<Fact>,
    ) {
        let known = self.known.entry(record.inode).or_default();
        let count = record.state.failures.saturating_sub(known.failures);
        known.failures += count;
        if known.given_up.take().is_none() && count == 0 {
            return;
        }
        let mut file = view.clone();
        if let Some(path) = known.path.as_deref() {
            file.path = Some(path.to_vec());
            file.from_root = false;
        }
        let at = MonoTime(record.state.last_at.min(record.header.at));
        into.push(Fact {
            at,
            kind: FactKind::WriteFailed(WriteFailed {
                inode: inode_key(&record.inode),
                range: None,
                errno: Errno::new(record.state.errno).unwrap_or(Errno::EIO),
                submitted: None,
                eviction_watched: false,
                writer: None,
                file,
            }),
        });
        if count > 0 && !dropped {
            into.push(Fact {
                at,
                kind: FactKind::Lost(Lost {
                    cause: LossCause::RecordLate,
                    count,
                }),
            });
        }
    }
}

/// Drops the oldest entries past the limit: calls that never came back (the thread was killed, or
/// their end was lost).
fn bound<V>(map: &mut BTreeMap<u64, V>) {
    while map.len() >= MAX_WAITING {
        map.pop_first();
    }
}

keep!(struct Known { failures, given_up, path });
keep!(struct Joiner { known, name_bytes, given_up, waiting, paths, unconverted });

/// Types of the ABI are kept as they are: who reads them compares the version first.
macro_rules! keep_wire {
    ($($name:ident)*) => {$(
        impl Keep for abi::$name {
            fn keep(&self, into: &mut Vec<u8>) {
                into.extend_from_slice(self.as_bytes());
            }

            fn kept(from: &mut &[u8]) -> Option<Self> {
                let (value, rest) = Self::read_from_prefix(from).ok()?;
                *from = rest;
                Some(value)
            }
        }
    )*};
}
keep_wire!(InodeKey SyncFile SyncEnd Counters);

impl Keep for Record {
    fn keep(&self, into: &mut Vec<u8>) {
        match self {
            Self::Fact(fact, key) => keep_parts(0, (fact, key), into),
            Self::Unconverted(fact, key) => keep_parts(1, (fact, key), into),
            Self::Converted(at, key, range) => {
                keep_parts(2, (at, key), into);
                range.keep(into);
            }
            Self::SyncFile(file) => keep_parts(3, (file, &()), into),
            Self::SyncEnd(end) => keep_parts(4, (end, &()), into),
            Self::Path(call, view) => keep_parts(5, (call, view), into),
            Self::Name(key, view) => keep_parts(6, (key, view), into),
            Self::SyncTold(at, call) => keep_parts(7, (at, call), into),
            Self::Module(at, name) => keep_parts(8, (at, name), into),
        }
    }

    fn kept(from: &mut &[u8]) -> Option<Self> {
        let kind = u8::kept(from)?;
        Some(match kind {
            0 => Self::Fact(Keep::kept(from)?, Keep::kept(from)?),
            1 => Self::Unconverted(Keep::kept(from)?, Keep::kept(from)?),
            2 => Self::Converted(Keep::kept(from)?, Keep::kept(from)?, Keep::kept(from)?),
            3 => Self::SyncFile(Keep::kept(from)?),
            4 => Self::SyncEnd(Keep::kept(from)?),
            5 => Self::Path(Keep::kept(from)?, Keep::kept(from)?),
            6 => Self::Name(Keep::kept(from)?, Keep::kept(from)?),
            7 => Self::SyncTold(Keep::kept(from)?, Keep::kept(from)?),
            8 => Self::Module(Keep::kept(from)?, Keep::kept(from)?),
            _ => return None,
        })
    }
}

fn keep_parts(kind: u8, parts: (&impl Keep, &impl Keep), into: &mut Vec<u8>) {
    into.push(kind);
    parts.0.keep(into);
    parts.1.keep(into);
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    fn header(kind: u32, at: u64) -> abi::Header {
        abi::Header { kind, hook: 0, at }
    }

    #[test]
    fn a_record_cut_at_any_byte_is_refused_not_misread() {
        let mut record = abi::WriteFailed::new_zeroed();
        record.header = header(abi::KIND_WRITE_FAILED, 7);
        let bytes = record.as_bytes();
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_none(), "{len} bytes");
        }
        assert!(decode(bytes).is_some());
    }

    #[test]
    fn an_msync_over_two_files_has_one_verdict_for_both() {
        let mut joiner = Joiner::default();
        let mut facts = Vec::new();
        for ino in [11, 12] {
            let mut file = abi::SyncFile::new_zeroed();
            file.header = header(abi::KIND_SYNC_FILE, 100);
            file.inode.ino = ino;
            file.call = abi::CALL_MSYNC;
            file.call_id = 5;
            file.end = 4096;
            file.size = 4096;
            joiner.push(decode(file.as_bytes()).unwrap(), false, &mut facts);
        }
        assert!(facts.is_empty(), "nothing is known before the call returns");
        let end = abi::SyncEnd {
            header: header(abi::KIND_SYNC_END, 200),
            call_id: 5,
            ret: -5,
        };
        joiner.push(decode(end.as_bytes()).unwrap(), false, &mut facts);
        assert_eq!(facts.len(), 2);
        for fact in &facts {
            assert_eq!(fact.at, MonoTime(200));
            let FactKind::SyncReturn(sync) = &fact.kind else {
                panic!("{fact:?}")
            };
            assert_eq!(sync.error, Some(Errno::EIO));
        }
    }

    #[test]
    fn a_flush_that_failed_does_not_attach_hooks_on_hot_paths() {
        let mut flush = abi::StorageError::new_zeroed();
        flush.header = header(abi::KIND_STORAGE_ERROR, 1);
        flush.what = abi::STORAGE_FLUSH_FAILED;
        assert!(!decode(flush.as_bytes()).unwrap().is_of_a_file());
        assert!(range_record(abi::KIND_GONE, 1).is_of_a_file());
    }

    fn range_record(kind: u32, at: u64) -> Record {
        let mut record = abi::Range::new_zeroed();
        record.header = header(kind, at);
        record.end = 4096;
        decode(record.as_bytes()).unwrap()
    }

    fn left_unwritten(at: u64) -> Record {
        let mut record = abi::WriteFailed::new_zeroed();
        record.header = header(abi::KIND_WRITE_FAILED, at);
        record.end = 4096;
        record.errno = 28;
        record.flags = abi::FAILED_UNCONVERTED;
        decode(record.as_bytes()).unwrap()
    }

    #[test]
    fn a_write_into_blocks_that_stay_unwritten_failed_again() {
        let mut joiner = Joiner::default();
        let mut facts = Vec::new();
        joiner.push(left_unwritten(1), false, &mut facts);
        joiner.push(range_record(abi::KIND_WRITE_OK, 2), false, &mut facts);
        let [_, again, failed] = &facts[..] else {
            panic!("{facts:?}")
        };
        assert!(matches!(again.kind, FactKind::Redirtied(_)));
        assert!(matches!(
            failed.kind,
            FactKind::WriteFailed(WriteFailed {
                errno: Errno::ENOSPC,
                range: Some(_),
                ..
            })
        ));
        assert_eq!(failed.at, MonoTime(2));
    }

    #[test]
    fn converted_or_given_up_blocks_take_writes_again() {
        for kind in [abi::KIND_CONVERTED, abi::KIND_DISCARDED] {
            let mut joiner = Joiner::default();
            let mut facts = Vec::new();
            joiner.push(left_unwritten(1), false, &mut facts);
            joiner.push(range_record(kind, 2), false, &mut facts);
            joiner.push(range_record(abi::KIND_WRITE_OK, 3), false, &mut facts);
            let last = facts.last().unwrap();
            assert!(matches!(last.kind, FactKind::WriteOk(_)), "{kind}");
        }
    }

    #[test]
    fn names_are_put_together_from_the_leaf_up() {
        let mut header_record = abi::PathHeader::new_zeroed();
        header_record.header = header(abi::KIND_PATH, 1);
        header_record.call_id = 9;
        let names = b"data.db\0lib\0var\0";
        header_record.len = u32::try_from(names.len()).unwrap();
        let mut bytes = header_record.as_bytes().to_vec();
        bytes.extend_from_slice(names);
        let Some(Record::Path(_, view)) = decode(&bytes) else {
            panic!()
        };
        assert_eq!(view.path.as_deref(), Some(&b"/var/lib/data.db"[..]));
        assert!(view.from_root);
    }

    #[test]
    fn a_failure_says_what_the_file_was_called() {
        let name = |name: &str| FileView {
            path: Some(name.into()),
            ..FileView::default()
        };
        let record = write_failed(abi::WriteFailed::new_zeroed().as_bytes(), MonoTime(1));
        let Some(Record::Fact(fact, key)) = record else {
            panic!("{record:?}")
        };
        let mut joiner = Joiner::default();
        let called = |joiner: &mut Joiner| {
            let mut facts = Vec::new();
            joiner.push(Record::Fact(fact.clone(), key), false, &mut facts);
            match facts.remove(0).kind {
                FactKind::WriteFailed(failed) => failed.file.path,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(called(&mut joiner), None);
        joiner.push(Record::Name(key, name("/before")), false, &mut Vec::new());
        assert_eq!(called(&mut joiner).as_deref(), Some(&b"/before"[..]));
        joiner.name(key, name("/after"));
        assert_eq!(called(&mut joiner).as_deref(), Some(&b"/after"[..]));
        assert_eq!(joiner.name_bytes, "/after".len());
        joiner.name(key, name(&"x".repeat(MAX_NAME_BYTES + 1)));
        assert_eq!(called(&mut joiner), None);
        joiner.forget(&key);
        assert_eq!(joiner.name_bytes, 0);
    }

    proptest::proptest! {
        /// Another program's bytes, or a kernel side of another version: never a panic, and nothing
        /// kept that is not bounded.
        #[test]
        fn any_bytes_are_a_record_or_are_refused(
            kind in 0u32..20,
            fill in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..1200),
            calls in proptest::collection::vec(0u64..4, 1..8),
        ) {
            let mut joiner = Joiner::default();
            let mut facts = Vec::new();
            for call in calls {
                let mut bytes = header(kind, call).as_bytes().to_vec();
                bytes.extend_from_slice(&call.to_ne_bytes());
                bytes.extend_from_slice(&fill);
                if let Some(record) = decode(&bytes) {
                    joiner.push(record, false, &mut facts);
                }
            }
            proptest::prop_assert!(facts.len() <= 8 * 4);
        }
    }
}
