//! Facts: what a hook saw, whatever the hook was. The only input of the correlator.

use super::{ByteRange, Errno, FileView, InodeKey, MonoTime, Task};

/// One thing that happened, and when. Facts come in the order of `at`; equal times keep the
/// order of arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// When the hook ran.
    pub at: MonoTime,
    /// What it saw.
    pub kind: FactKind,
}

/// What a hook can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FactKind {
    /// Page-cache bytes of an inode could not be written.
    WriteFailed(WriteFailed),
    /// Page-cache bytes of an inode with outstanding failures reached the disk (by write-back,
    /// or overwritten with O_DIRECT).
    WriteOk(WriteOk),
    /// Bytes of an inode with outstanding failures became dirty again: memory still has them and
    /// the kernel will try to write them again.
    Redirtied(Redirtied),
    /// A sync call on an inode with outstanding failures came back.
    SyncReturn(SyncReturn),
    /// The kernel handed the recorded write error to an open file description
    /// (`file_check_and_advance_wb_err`).
    Told(Told),
    /// An inode with outstanding failures was opened: this `FileId` now is a new open file
    /// description, whatever was told to an earlier one at the same address.
    Opened(Opened),
    /// Bytes were given up on purpose: truncated or hole punched.
    Discarded(Discarded),
    /// Pages left the page cache: memory no longer holds these bytes.
    Evicted(Evicted),
    /// The inode left the inode cache.
    Gone(Gone),
    /// A disk or a whole filesystem is in trouble. No lost page by itself.
    StorageError(StorageError),
    /// Something could not be seen: the run is incomplete.
    Lost(Lost),
}

/// The kernel tried to write page-cache bytes and the write ended in an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteFailed {
    /// Of which inode.
    pub inode: InodeKey,
    /// Which bytes, page granular; `None` where no hook can tell (evidence = `inode`).
    pub range: Option<ByteRange>,
    /// The error.
    pub errno: Errno,
    /// A moment at which these bytes are known to have been dirty or under write-back already
    /// (when the write was submitted), where the hook knows one. A sync that returned success
    /// after it and before the failure was recorded was false.
    pub submitted: Option<MonoTime>,
    /// Whether evictions of this inode's pages were being watched when this happened. If not,
    /// whether the bytes are still in memory is unknown until a later fact says so.
    pub eviction_watched: bool,
    /// Who was running when the failure was noticed: often a kernel worker, or whoever was
    /// interrupted. A hint, never blame.
    pub writer: Option<Task>,
    /// Names known at that moment.
    pub file: FileView,
}

/// A later write of the same bytes succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteOk {
    /// Of which inode.
    pub inode: InodeKey,
    /// Which bytes.
    pub range: ByteRange,
}

/// Bytes became dirty again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirtied {
    /// Of which inode.
    pub inode: InodeKey,
    /// Which bytes (a folio, whole).
    pub range: ByteRange,
}

/// An open file description, by the kernel address of its `struct file`. Addresses are reused:
/// see [`Opened`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

/// One system call; an msync over several mappings gives several [`SyncReturn`]s with one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Which call promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// `msync(MS_SYNC)`.
    Msync,
    /// `msync` without `MS_SYNC`: promises nothing.
    MsyncAsync,
    /// `fsync`.
    Fsync,
    /// `fdatasync`.
    Fdatasync,
    /// An fsync that io_uring made.
    IoUring,
    /// An fsync or COMMIT that a kernel thread of the NFS server made.
    Nfsd,
}

/// A sync call came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncReturn {
    /// On which inode.
    pub inode: InodeKey,
    /// Through which open file description; `None` where the hook cannot tell.
    pub file: Option<FileId>,
    /// Which call.
    pub call: Call,
    /// Groups the inodes of one call.
    pub id: CallId,
    /// The bytes of this inode that the call was asked for.
    pub range: ByteRange,
    /// `None`: the whole call returned success. The verdict of the whole call, also where it went
    /// over several inodes.
    pub error: Option<Errno>,
    /// Whether the kernel, after this call, still holds an error that this open file description
    /// has not been given (`file.f_wb_err` differs from `address_space.wb_err`): its next sync
    /// will fail.
    pub pending: bool,
    /// Who called.
    pub task: Task,
    /// Names as the caller sees them.
    pub file_view: FileView,
}

/// An open file description was given the error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Of which inode.
    pub inode: InodeKey,
    /// Which open file description.
    pub file: FileId,
    /// The error it was given.
    pub errno: Errno,
    /// Who asked.
    pub task: Task,
}

/// A new open file description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Of which inode.
    pub inode: InodeKey,
    /// The address of its `struct file`.
    pub file: FileId,
}

/// Bytes given up on purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discarded {
    /// Of which inode.
    pub inode: InodeKey,
    /// Which bytes; whole pages only.
    pub range: ByteRange,
}

/// Pages that left the page cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// Of which inode.
    pub inode: InodeKey,
    /// Which bytes.
    pub range: ByteRange,
}

/// The inode left the inode cache; all its pages left the page cache before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Which inode.
    pub inode: InodeKey,
    /// Whether the file was deleted (no link left): its bytes were given up on purpose.
    pub deleted: bool,
}

/// A disk or a whole filesystem is in trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageError {
    /// What happened.
    pub what: StorageErrorKind,
    /// The error, where the hook can tell.
    pub errno: Option<Errno>,
    /// Device number of the disk, or of the filesystem (`s_dev`), as the kernel has it:
    /// `major << 20 | minor`.
    pub dev: Option<u32>,
    /// Its name; `None` for a disk.
    pub dev_name: Option<String>,
    /// Type of the filesystem; `None` for a disk.
    pub fs_type: Option<String>,
}

/// What befalls a disk or a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StorageErrorKind {
    /// The disk could not flush its cache: what it had acknowledged since the last flush may be lost.
    FlushFailed,
    /// The filesystem found an error, in itself or in its journal.
    FilesystemError,
    /// The filesystem was shut down, by itself or on request.
    FilesystemShutdown,
}

/// What could not be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Why.
    pub cause: LossCause,
    /// How many events, at least.
    pub count: u64,
}

/// Why something could not be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LossCause {
    /// The ring of failures and successes was full.
    ErrorRingFull,
    /// The ring of sync returns was full.
    SyncRingFull,
    /// The ring of page states (evicted, dirty again) was full.
    PageRingFull,
    /// The kernel's map of inodes with failures was full.
    InodeMapFull,
    /// The kernel's map of calls in flight was full.
    CallMapFull,
    /// The mappings of a process could not be looked at (`mmap_lock` was taken).
    MappingsBusy,
    /// Something was larger than the kernel side can walk (mappings of one msync, pages of one
    /// request).
    WalkLimit,
    /// A hook could not be attached, or not in time.
    HookMissing,
    /// A record could not be understood.
    BadRecord,
    /// A failure was counted in the kernel and its record did not come.
    RecordLate,
    /// The kernel skipped a program, because it was active on that processor already.
    ProgramSkipped,
    /// The correlator gave up state at its memory limit.
    MemoryLimit,
    /// Lines of a D script did not arrive.
    LineLost,
    /// A line could not be read, or came twice.
    BadLine,
    /// A line came so late that its place had passed.
    LineLate,
    /// The input ended, or was given up, before the line that ends a run.
    InputCut,
    /// A clause of a D script was broken off by an error.
    ProbeError,
    /// A table of a D script was full.
    MapFull,
    /// DTrace dropped records or variables for want of room.
    DtraceDrops,
}
