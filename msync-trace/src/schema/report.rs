//! The report: everything that `msync-trace report` found in its records, as one document.
//!
//! Text, JSON, CSV and HTML are made from it and from nothing else; its JSON is the JSON form.
//! `docs/schema/report-v1.json` describes it for other programs.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{
    Explanation, FileRecord, Filters, IncidentRecord, KernelRecord, Moment, Name, StopReason,
    StorageErrorRecord, Totals, WallTime, Word, names, words,
};
use crate::model::{
    ByteRange, Call, Errno, InMemory, IncidentId, InodeKey, Lost, StorageErrorKind, Task, ToldWho,
};

/// The version of the report. It changes when a member changes its meaning or goes away; new
/// members do not change it.
pub const REPORT: u32 = 1;

/// What was lost, in which files, since when, who was told, and how much of it was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`REPORT`].
    pub schema: ReportVersion,
    /// What this document is.
    #[serde(rename = "type")]
    pub kind: ReportType,
    /// Version of the msync-trace that made the report.
    pub version: String,
    /// When it was made.
    pub made: WallTime,
    /// What was asked for.
    pub asked: Asked,
    /// What was lost, all in all.
    pub summary: ReportSummary,
    /// The runs that were looked at, in the order of their beginning.
    pub runs: Vec<RunReport>,
    /// The incidents, in the order of their times.
    pub incidents: Vec<IncidentReport>,
    /// Incidents that are counted in the summary and left out of `incidents`: the newest.
    pub incidents_left_out: u64,
    /// The files that lost bytes, or whose failures are outstanding; the worst first.
    pub files: Vec<FileReport>,
    /// Files that are counted in the summary and left out of `files`.
    pub files_left_out: u64,
    /// What befell disks and filesystems, in the order of their times.
    pub storage_errors: Vec<StorageErrorReport>,
    /// What this version says of the recorded facts, of each run; only there if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recomputed: Option<Vec<Recomputed>>,
}

/// [`REPORT`], checked when read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportVersion;

impl Serialize for ReportVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(REPORT)
    }
}

impl<'de> Deserialize<'de> for ReportVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            REPORT => Ok(Self),
            other => Err(de::Error::custom(format!(
                "the report has schema {other}; this msync-trace understands schema {REPORT}"
            ))),
        }
    }
}

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReportType {
    /// A report.
    Report,
}

/// What was asked for. Empty lists and null do not narrow; within one kind any value will do, and
/// every kind that is given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Incidents, failures and what followed from this moment on.
    pub since: Option<WallTime>,
    /// And before this one.
    pub until: Option<WallTime>,
    /// Files, and directories with all below, as the recorded machine spells them. (In JSON U+FFFD
    /// stands in the place of what is no UTF-8.)
    #[serde(serialize_with = "lossy_paths")]
    pub path: Vec<PathBuf>,
    /// Devices: `sdb1`, `/dev/sdb1`, `8:17`.
    pub dev: Vec<String>,
    /// Host names.
    pub host: Vec<String>,
    /// Process ids that were lied to.
    pub pid: Vec<u32>,
    /// Thread names that were lied to.
    pub comm: Vec<String>,
    /// Errors, by symbol or number, as they were typed.
    pub errno: Vec<String>,
    /// Who had been told.
    pub told: Vec<ToldWho>,
}

impl Asked {
    /// What narrows by other things than time: what that is, in one word, and its values, some of them
    /// none.
    #[must_use]
    pub fn names(&self) -> [(&'static str, Vec<String>); 7] {
        let lossy = |path: &PathBuf| path.to_string_lossy().into_owned();
        [
            ("path", self.path.iter().map(lossy).collect()),
            ("device", self.dev.clone()),
            ("host", self.host.clone()),
            ("pid", self.pid.iter().map(u32::to_string).collect()),
            ("comm", self.comm.clone()),
            ("errno", self.errno.clone()),
            (
                "told",
                self.told.iter().map(|who| who.word().to_owned()).collect(),
            ),
        ]
    }
}

fn lossy_paths<S: Serializer>(paths: &[PathBuf], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(paths.iter().map(|path| path.to_string_lossy()))
}

/// What was lost, all in all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportSummary {
    /// Counts of incidents and of lost bytes, each byte of a file once.
    #[serde(flatten)]
    pub totals: Totals,
    /// What became of the lost bytes.
    pub bytes_now: BytesNow,
    /// The first failure of lost bytes.
    pub first_failed: Option<WallTime>,
    /// The newest.
    pub last_failed: Option<WallTime>,
    /// The first false success.
    pub first_incident: Option<WallTime>,
    /// The newest; repeats do not count.
    pub last_incident: Option<WallTime>,
    /// Incidents by the error of their newest failure, the most frequent first.
    pub errors: Vec<ErrorCount>,
    /// Hosts with incidents, sorted.
    pub hosts: Vec<String>,
    /// Whether everything that could have been seen was seen, in every run that was looked at.
    pub complete: bool,
}

/// What became of lost bytes: the sum is `bytes` of the summary, or of the file. As of the last
/// thing that is known of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BytesNow {
    /// Still lost, and memory still holds them: reading the file gives them.
    pub in_memory: u64,
    /// Still lost, and no longer in memory: nothing can save them.
    pub evicted: u64,
    /// Still lost; whether memory holds them is not known.
    pub unknown: u64,
    /// Written after all.
    pub recovered: u64,
    /// Given up on purpose: truncated, hole punched, file deleted.
    pub discarded: u64,
}

/// Incidents of one error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorCount {
    /// The error.
    pub error: Errno,
    /// Incidents.
    pub incidents: u64,
}

/// One run of msync-trace, as its record tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunReport {
    /// The file that it was recorded in.
    #[serde(flatten, with = "names::source")]
    pub source: Name,
    /// Number of the run in that file, from 1.
    pub run: u64,
    /// Host name.
    pub host: Option<String>,
    /// Kernel times of different boots cannot be compared.
    pub boot_id: Option<String>,
    /// The kernel.
    pub kernel: KernelRecord,
    /// Version of the msync-trace that recorded.
    pub version: String,
    /// Which hooks were allowed: `fentry`, `kprobe`, `tracepoint`; or `dtrace`.
    pub tier: String,
    /// Which calls made incidents.
    pub calls: Vec<Call>,
    /// What the run reported was narrowed to. The facts never are.
    pub filters: Filters,
    /// When it began.
    pub began: WallTime,
    /// When it ended; null without a stop line: it was killed, or it is still running.
    pub ended: Option<WallTime>,
    /// Why it ended.
    pub reason: Option<StopReason>,
    /// The last moment that the record tells of.
    pub last_seen: WallTime,
    /// Facts of it in the record.
    pub facts: u64,
    /// Whether everything that could have been seen was seen and recorded up to `last_seen`.
    pub complete: bool,
    /// What was not seen, by cause.
    pub lost: Vec<Lost>,
    /// Hooks that could not be attached.
    pub missing_hooks: Vec<Explanation>,
    /// Times of which the record itself has holes.
    pub gaps: Vec<RecordGap>,
    /// Facts before this moment were deleted on purpose (`--keep`, `--max-size`).
    pub deleted_before: Option<WallTime>,
}

/// A hole in the record: something was seen and could not be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordGap {
    /// From when on.
    pub since: WallTime,
    /// Until when; null: to the end of the run.
    pub until: Option<WallTime>,
    /// How many facts are missing, at least.
    pub facts: u64,
    /// Why, in English.
    pub reason: String,
}

/// A silent data-loss event and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IncidentReport {
    /// Number in this report, from 1. `incident` is the one in its run.
    pub number: u64,
    /// Index of its run in `runs`, from 0.
    pub run: usize,
    /// When the false success was returned.
    #[serde(flatten)]
    pub at: Moment,
    /// The incident as it was reported.
    #[serde(flatten)]
    pub record: IncidentRecord,
    /// How often the same process was given the same false success again.
    pub repeats: u64,
    /// When all its bytes had been written after all.
    pub recovered: Option<Moment>,
    /// When all its bytes had been given up on purpose.
    pub discarded: Option<Moment>,
    /// When none of its bytes was in memory any more.
    pub evicted: Option<Moment>,
    /// What it has come to.
    pub state: LossState,
}

/// What became of bytes that the kernel failed to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LossState {
    /// Neither of the others, as far as is known: the disk does not have them.
    Outstanding,
    /// Written after all.
    Recovered,
    /// Given up on purpose: truncated, hole punched, file deleted.
    Discarded,
}

/// A file that lost bytes, or could not write some.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileReport {
    /// On which host.
    pub host: Option<String>,
    /// Which file; its names are those of the newest incident or failure.
    pub file: FileRecord,
    /// Numbers of its incidents in this report, ascending.
    pub incidents: Vec<u64>,
    /// Lost bytes that an incident names, each counted once.
    pub bytes: u64,
    /// Incidents of which only the file is known: their bytes are not counted.
    pub incidents_without_range: u64,
    /// What became of `bytes`.
    pub bytes_now: BytesNow,
    /// Write failures of which only the file is known.
    pub failures_without_range: u64,
    /// The bytes that could not be written, sorted by run and place; of one run they are apart
    /// from each other. Neighbours with the same story are one.
    pub ranges: Vec<RangeReport>,
    /// Ranges that were left out for their number.
    pub ranges_left_out: u64,
    /// What happened, in the order of the times.
    pub timeline: Vec<TimelineEntry>,
    /// Entries that were left out for their number; merged ones are not.
    pub timeline_left_out: u64,
}

/// Bytes of a file that could not be written, all with the same story.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeReport {
    /// Index of the run in `runs`, from 0. What a run left outstanding is not known by the next.
    pub run: usize,
    /// Which bytes.
    pub range: ByteRange,
    /// What became of them.
    pub state: LossState,
    /// Whether memory still held them when they were last heard of.
    pub in_memory: InMemory,
    /// The error of the newest failure.
    pub error: Errno,
    /// How often they could not be written.
    pub failures: u64,
    /// The first failure.
    pub first_failed: Moment,
    /// The newest.
    pub last_failed: Moment,
    /// When they were written after all, or given up.
    pub ended: Option<Moment>,
    /// When they left memory.
    pub evicted: Option<Moment>,
    /// Whether an incident names them: somebody was told that they are safe.
    pub reported: bool,
}

/// One thing that happened to a file, or several of a kind in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// Index of the run in `runs`, from 0.
    pub run: usize,
    /// When; of several, the first.
    #[serde(flatten)]
    pub at: Moment,
    /// What.
    pub what: TimelineKind,
    /// Which bytes: of a failure or what followed it, those; of a sync call, those that it was
    /// asked for; of an incident, those that were lost. Of several, from the first to the last. Null
    /// where they are not known.
    pub range: Option<ByteRange>,
    /// The error.
    pub error: Option<Errno>,
    /// Which call, of a sync call or an incident.
    pub call: Option<Call>,
    /// Who called, or was told; of a failure, who was running when it was noticed (a hint).
    pub process: Option<Task>,
    /// Who had been told before, of an incident.
    pub told: Option<ToldWho>,
    /// Number of the incident in this report.
    pub incident: Option<u64>,
    /// What befell the disk or filesystem, of a `storage_error`.
    pub storage: Option<StorageErrorKind>,
    /// How many of a kind this entry stands for, at least 1; of `repeated`, how often it was by then.
    pub count: u64,
    /// When the last of several happened; null for one.
    pub until: Option<Moment>,
}

/// What can happen to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimelineKind {
    /// Bytes could not be written.
    WriteFailed,
    /// Bytes were written after all.
    WriteOk,
    /// Bytes became dirty again: the kernel will try once more.
    Redirtied,
    /// A sync call returned success, and there was nothing outstanding in it to lie about, or it
    /// promised nothing.
    SyncOk,
    /// A sync call returned an error.
    SyncFailed,
    /// An open file description was given the error.
    Told,
    /// The file was opened.
    Opened,
    /// Bytes were given up on purpose.
    Discarded,
    /// Bytes left memory.
    Evicted,
    /// The inode left the inode cache.
    Gone,
    /// So did that of a deleted file.
    Deleted,
    /// A sync call returned success over lost bytes.
    Incident,
    /// The same false success was given to the same process again.
    Repeated,
    /// The disk or filesystem was in trouble.
    StorageError,
    /// Something was not seen.
    Lost,
}

/// What befell a disk or a filesystem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageErrorReport {
    /// Index of the run in `runs`, from 0.
    pub run: usize,
    /// When.
    #[serde(flatten)]
    pub at: Moment,
    /// What, and to whom.
    #[serde(flatten)]
    pub record: StorageErrorRecord,
}

/// The facts of a run, judged again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recomputed {
    /// Index of the run in `runs`, from 0. Where facts of it are missing, see its `gaps` and
    /// `deleted_before`, a difference is no contradiction.
    pub run: usize,
    /// Incidents of which both say the same.
    pub same: u64,
    /// The others, in the order of their times.
    pub differences: Vec<Difference>,
}

/// An incident that was recorded otherwise than this version judges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// In which way.
    pub kind: DifferenceKind,
    /// Its number in the run; of a new one, that which this version gives it.
    pub incident: IncidentId,
    /// When the false success was returned.
    #[serde(flatten)]
    pub at: Moment,
    /// In which file.
    pub inode: InodeKey,
    /// Its path, as far as it is known.
    #[serde(flatten, with = "names::path")]
    pub path: Option<Name>,
    /// Who was lied to.
    pub process: Task,
    /// The members of the incident that differ, of a changed one.
    pub members: Vec<String>,
}

/// How an incident was recorded otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DifferenceKind {
    /// It was not recorded.
    New,
    /// This version sees none.
    Missing,
    /// Both see it, and say something else of it.
    Changed,
}

words::words! {
    DifferenceKind {
        New => "new",
        Missing => "missing",
        Changed => "changed",
    }
    ReportType {
        Report => "report",
    }
    LossState {
        Outstanding => "outstanding",
        Recovered => "recovered",
        Discarded => "discarded",
    }
    TimelineKind {
        WriteFailed => "write_failed",
        WriteOk => "write_ok",
        Redirtied => "redirtied",
        SyncOk => "sync_ok",
        SyncFailed => "sync_failed",
        Told => "told",
        Opened => "opened",
        Discarded => "discarded",
        Evicted => "evicted",
        Gone => "gone",
        Deleted => "deleted",
        Incident => "incident",
        Repeated => "repeated",
        StorageError => "storage_error",
        Lost => "lost",
    }
}
