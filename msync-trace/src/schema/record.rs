//! The records: what a line of JSON holds.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Clock, Name, SCHEMA, WallTime, Word, names, words};
use crate::model::{
    ByteRange, Call, ChangeKind, Coverage, Discarded, Errno, Evicted, Evidence, Gone, InMemory,
    IncidentId, InodeKey, Lost, MonoTime, Opened, Redirtied, StorageError, SyncReturn, Task, Told,
    ToldWho, Verified, WriteFailed, WriteOk,
};

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version and time.
    #[serde(flatten)]
    pub head: Head,
    /// What happened.
    #[serde(flatten)]
    pub body: Body,
}

/// What every record begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// [`SCHEMA`].
    pub schema: SchemaVersion,
    /// Wall time of `mono_ns`.
    pub time: WallTime,
    /// When it happened, in kernel time.
    pub mono_ns: MonoTime,
}

impl Head {
    /// The head of something that happened at this kernel time.
    #[must_use]
    pub fn at(at: MonoTime, clock: &Clock) -> Self {
        Self {
            schema: SchemaVersion,
            time: clock.wall(at),
            mono_ns: at,
        }
    }
}

/// [`SCHEMA`], checked when read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaVersion;

impl Serialize for SchemaVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(SCHEMA)
    }
}

impl<'de> Deserialize<'de> for SchemaVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            SCHEMA => Ok(Self),
            other => Err(de::Error::custom(format!(
                "the record has schema {other}; this msync-trace understands schema {SCHEMA}"
            ))),
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Body {
    /// Tracing began.
    Start(Box<Start>),
    /// Hooks changed: a kernel module was loaded.
    Hooks(HooksRecord),
    /// A silent data-loss event.
    Incident(Box<IncidentRecord>),
    /// Something happened to an earlier incident.
    Change(ChangeRecord),
    /// A disk or a whole filesystem is in trouble.
    StorageError(StorageErrorRecord),
    /// Something could not be seen.
    Lost(Lost),
    /// Tracing ended.
    Stop(Box<Stop>),
    /// See [`crate::model::FactKind::WriteFailed`].
    WriteFailed(WriteFailed),
    /// See [`crate::model::FactKind::WriteOk`].
    WriteOk(WriteOk),
    /// See [`crate::model::FactKind::Redirtied`].
    Redirtied(Redirtied),
    /// See [`crate::model::FactKind::SyncReturn`].
    SyncReturn(SyncReturn),
    /// See [`crate::model::FactKind::Told`].
    Told(Told),
    /// See [`crate::model::FactKind::Opened`].
    Opened(Opened),
    /// See [`crate::model::FactKind::Discarded`].
    Discarded(Discarded),
    /// See [`crate::model::FactKind::Evicted`].
    Evicted(Evicted),
    /// See [`crate::model::FactKind::Gone`].
    Gone(Gone),
}

/// A disk or a whole filesystem is in trouble.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageErrorRecord {
    /// What happened, and to whom.
    #[serde(flatten)]
    pub error: StorageError,
    /// Where the filesystem is mounted in our view.
    #[serde(flatten, with = "names::mount")]
    pub mount: Option<Name>,
    /// Whether our mount table says, shortly after, that the filesystem cannot be written. ext4 on
    /// 6.1 and 6.12 does not show it.
    pub read_only: bool,
}

impl From<StorageError> for StorageErrorRecord {
    /// Without what has to be looked up.
    fn from(error: StorageError) -> Self {
        Self {
            error,
            mount: None,
            read_only: false,
        }
    }
}

/// Tracing began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Version of msync-trace.
    pub version: String,
    /// Process id of msync-trace.
    pub pid: u32,
    /// The kernel.
    pub kernel: KernelRecord,
    /// Kernel times of different boots cannot be compared.
    pub boot_id: Option<String>,
    /// Host name.
    pub host: Option<String>,
    /// Which hooks were allowed: `fentry`, `kprobe`, `tracepoint`; or `dtrace`.
    pub tier: String,
    /// Every hook and what became of it.
    pub hooks: Vec<HookRecord>,
    /// Wall time minus kernel time at the start, in nanoseconds.
    pub wall_minus_mono_ns: i64,
    /// Which calls make incidents.
    pub calls: Vec<Call>,
    /// What the report was narrowed to; empty lists do not narrow.
    pub filters: Filters,
    /// The command that was run, if any.
    pub command: Option<Vec<String>>,
}

/// Hooks after a kernel module was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HooksRecord {
    /// Every hook and what became of it.
    pub hooks: Vec<HookRecord>,
}

/// The running kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelRecord {
    /// `uname -s`.
    pub name: String,
    /// `uname -r`.
    pub release: String,
    /// `uname -m`.
    pub machine: String,
}

/// A hook and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookRecord {
    /// Our name for it.
    pub name: String,
    /// What it is for.
    pub purpose: String,
    /// Kernel function or tracepoint.
    pub target: String,
    /// `attached`, `on_demand`, `waits_for_module`, `not_needed`, `unavailable`.
    pub state: String,
    /// How: `fentry`, `fexit`, `kprobe`, `raw_tracepoint`.
    pub method: Option<String>,
    /// The module waited for, what sees the same, or why it cannot be had.
    pub detail: Option<String>,
}

/// What the report was narrowed to. The recording never is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filters {
    /// Process ids.
    pub pid: Vec<u32>,
    /// Thread names.
    pub comm: Vec<String>,
    /// Files, and directories with all below.
    pub path: Vec<String>,
    /// Devices, by name or `major:minor`.
    pub dev: Vec<String>,
    /// User ids.
    pub uid: Vec<u32>,
}

/// A moment in both times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Wall time.
    pub time: WallTime,
    /// Kernel time.
    pub mono_ns: MonoTime,
}

impl Moment {
    /// Of a kernel time.
    #[must_use]
    pub fn at(at: MonoTime, clock: &Clock) -> Self {
        Self {
            time: clock.wall(at),
            mono_ns: at,
        }
    }
}

/// A silent data-loss event. The record's own time is when the false success was returned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IncidentRecord {
    /// Number within the run.
    pub incident: IncidentId,
    /// The error of the newest failure.
    pub error: Errno,
    /// Which file.
    pub file: FileRecord,
    /// The lost bytes; empty with evidence `inode`.
    pub ranges: Vec<ByteRange>,
    /// How many; null with evidence `inode`.
    pub bytes: Option<u64>,
    /// How exactly the lost bytes are known.
    pub evidence: Evidence,
    /// Who had been given the error before.
    pub told: ToldWho,
    /// Whether the call was asked for the lost bytes.
    pub coverage: Coverage,
    /// Whether memory still holds them.
    pub in_memory: InMemory,
    /// The first failure among them.
    pub first_failed: Moment,
    /// The newest.
    pub last_failed: Moment,
    /// Who was running when the newest failure was noticed. A hint, never blame.
    pub writer: Option<Task>,
    /// Which call claimed success.
    pub call: Call,
    /// The bytes that the call was asked for.
    pub requested: ByteRange,
    /// Who was lied to.
    pub process: ProcessRecord,
    /// What a comparison of memory with the disk said; not there if none was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
    /// How much was compared; there if `verified` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
}

/// How much of the lost bytes was compared with the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// Bytes in pages that are the same in memory and on the disk.
    pub same_bytes: u64,
    /// Bytes in pages that differ.
    pub differing_bytes: u64,
    /// Bytes that could not be compared.
    pub unknown_bytes: u64,
    /// Why not, of the first of them; or why equal bytes prove nothing.
    pub reason: Option<String>,
}

/// A file, as far as it could be named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its path; see `path_from`.
    #[serde(flatten, with = "names::path")]
    pub path: Option<Name>,
    /// How to read the path.
    pub path_from: Option<PathFrom>,
    /// Its path when the newest failure was seen: below the same mount point if that shows it, else
    /// as our own mounts show it, else from the root of its filesystem.
    #[serde(flatten, with = "names::path_when_failed")]
    pub path_when_failed: Option<Name>,
    /// Whether no name was left.
    pub deleted: bool,
    /// Where its filesystem is mounted, in the same view as the path.
    #[serde(flatten, with = "names::mount")]
    pub mount: Option<Name>,
    /// `ext4`, `xfs`, `btrfs` ...
    pub fs_type: Option<String>,
    /// Name of the block device, or what the filesystem calls itself.
    pub device: Option<String>,
    /// Device number of the filesystem.
    #[serde(with = "words::dev")]
    pub dev: Option<u32>,
    /// Its identity.
    pub inode: InodeKey,
}

/// Where a path begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathFrom {
    /// At the root of the mount namespace of the process: in a container, the container's.
    Caller,
    /// At our own root: the file is shown below a mount point that we see.
    Mount,
    /// At the root of its filesystem; where that is mounted is not known.
    Filesystem,
}

/// A task with what /proc adds to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// What the kernel side saw.
    #[serde(flatten)]
    pub task: Task,
    /// Its program.
    #[serde(flatten, with = "names::exe")]
    pub exe: Option<Name>,
    /// Path of its cgroup, as /proc spells it.
    #[serde(flatten, with = "names::cgroup")]
    pub cgroup: Option<Name>,
    /// Its container.
    pub container: Option<Container>,
}

/// A container, as its cgroup names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// `containerd`, `cri-o`, `docker`, `podman`; null where the cgroup does not say.
    pub runtime: Option<String>,
    /// Uid of the pod around it, with dashes (that of a static pod has none); left out where there
    /// is no pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
}

/// Something happened to an earlier incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeRecord {
    /// To which.
    pub incident: IncidentId,
    /// What.
    pub change: ChangeKind,
}

#[derive(Serialize, Deserialize)]
struct ChangeMembers {
    incident: IncidentId,
    change: ChangeWord,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    repeats: Option<u64>,
}

#[derive(Clone, Copy)]
enum ChangeWord {
    Repeated,
    Recovered,
    Discarded,
    Evicted,
}

impl ChangeRecord {
    /// All words that [`Self::word`] gives.
    pub const WORDS: [&'static str; 4] = ["repeated", "recovered", "discarded", "evicted"];

    /// The change in one word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        self.members().change.word()
    }

    fn members(&self) -> ChangeMembers {
        let (change, repeats) = match self.change {
            ChangeKind::Repeated { repeats } => (ChangeWord::Repeated, Some(repeats)),
            ChangeKind::Recovered => (ChangeWord::Recovered, None),
            ChangeKind::Discarded => (ChangeWord::Discarded, None),
            ChangeKind::Evicted => (ChangeWord::Evicted, None),
        };
        ChangeMembers {
            incident: self.incident,
            change,
            repeats,
        }
    }
}

impl Serialize for ChangeRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.members().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ChangeRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let members = ChangeMembers::deserialize(deserializer)?;
        let change = match members.change {
            ChangeWord::Repeated => ChangeKind::Repeated {
                repeats: members
                    .repeats
                    .ok_or_else(|| de::Error::missing_field("repeats"))?,
            },
            ChangeWord::Recovered => ChangeKind::Recovered,
            ChangeWord::Discarded => ChangeKind::Discarded,
            ChangeWord::Evicted => ChangeKind::Evicted,
        };
        Ok(Self {
            incident: members.incident,
            change,
        })
    }
}

/// Tracing ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Why it ended.
    pub reason: StopReason,
    /// How long it ran.
    pub duration_ns: u64,
    /// What was found and reported.
    #[serde(flatten)]
    pub totals: Totals,
    /// Facts that came from the source.
    pub facts: u64,
    /// Inodes with failures that are still outstanding.
    pub outstanding_inodes: u64,
    /// Whether everything that could have been seen was seen.
    pub complete: bool,
    /// What was not seen, by cause.
    pub lost: Vec<Lost>,
    /// Hooks that could not be attached.
    pub missing_hooks: Vec<Explanation>,
    /// How the command ended, if one was run.
    pub command: Option<CommandEnd>,
    /// What went wrong, with reason `error`.
    pub error: Option<String>,
    /// Exit status of msync-trace.
    pub exit_status: u8,
}

/// Counts of what was reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Incidents.
    pub incidents: u64,
    /// Lost bytes, each counted once however many processes were lied to. At least: see
    /// `incidents_without_range`.
    pub bytes: u64,
    /// Files (inodes).
    pub files: u64,
    /// Incidents with evidence `inode`: their bytes are not counted.
    pub incidents_without_range: u64,
    /// Incidents by `told`.
    pub told_nobody: u64,
    /// Incidents by `told`.
    pub told_other: u64,
    /// Incidents by `told`.
    pub told_caller: u64,
    /// Incidents by `told`.
    pub told_pending: u64,
    /// Incidents whose bytes were all written later.
    pub recovered: u64,
    /// Incidents whose bytes were all given up on purpose later.
    pub discarded: u64,
    /// Incidents whose bytes all left memory.
    pub evicted: u64,
    /// False successes that repeated an earlier incident.
    pub repeats: u64,
}

/// A thing and why it is so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The thing.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// How a command ended: one of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandEnd {
    /// Its exit status.
    pub status: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// Why tracing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// A signal.
    Signal,
    /// The time was over.
    Duration,
    /// Enough incidents.
    StopAfter,
    /// The command ended.
    Command,
    /// Nobody reads the output any more.
    ReaderGone,
    /// The source failed.
    Error,
    /// The input was read to its end.
    EndOfInput,
}

words::words! {
    PathFrom {
        Caller => "caller",
        Mount => "mount",
        Filesystem => "filesystem",
    }
    ChangeWord {
        Repeated => "repeated",
        Recovered => "recovered",
        Discarded => "discarded",
        Evicted => "evicted",
    }
    StopReason {
        Signal => "signal",
        Duration => "duration",
        StopAfter => "stop_after",
        Command => "command",
        ReaderGone => "reader_gone",
        Error => "error",
        EndOfInput => "end_of_input",
    }
}
