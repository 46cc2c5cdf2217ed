//! The command line as it is typed. What it means is worked out in `cmd`.

pub mod serve;

use std::{ffi::OsString, num::NonZeroU64, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::{
    model::{ByteRange, Errno},
    source::Tier,
};

const EXAMPLES: &str = "\
Examples:
  sudo msync-trace
      trace now: one line per incident, Ctrl-C prints a summary
  sudo msync-trace -o json | jq -r 'select(.type==\"incident\") | .file.path'
      the files that lost bytes, one path per line
  sudo msync-trace --path /var/lib/postgresql --calls msync,fsync,fdatasync
      report only files below a directory, for fsync and fdatasync as well
  sudo msync-trace --dev sdb1 --duration 10m
      report only one device, for ten minutes
  sudo msync-trace --stop-after 1 -q
      wait for the first incident
  sudo msync-trace --source dtrace
      see with DTrace instead of eBPF: on FreeBSD the only way, on Linux a second opinion
  sudo msync-trace --verify
      compare what was lost with the disk at once: proof, not suspicion
  sudo msync-trace --rescue /mnt/usb/rescue --rescue-max 4G
      save lost bytes while they are still in memory
  sudo msync-trace -- ./run-my-database-test
      run a command (as the user who called sudo) and trace until it ends
  sudo msync-trace record /var/lib/msync-trace.db
      trace, and keep the evidence for later
  msync-trace check
      can this machine be traced, and what to do about what is missing
  sudo msync-trace selftest
      lose data on a scratch disk, on purpose, and see that it is reported

Exit status:
  0  complete, and nothing was found
  1  an incident was found
  2  error: bad usage, not permitted, or tracing broke off
  3  nothing was found, but something could not be seen: no all-clear";

const RECORD_EXAMPLES: &str = "\
Examples:
  sudo msync-trace record /var/lib/msync-trace.db
      show what trace shows, and keep every fact and every incident
  sudo msync-trace record --keep 30d --max-size 2G -q /var/lib/msync-trace.db
      the same for months: what is older than 30 days goes, and the oldest when there is too much
  sudo msync-trace record --path /srv /root/srv.db
      show only files below a directory; all are kept
  sudo msync-trace record /root/test.db -- ./run-my-database-test
      keep what happened during a command
  sqlite3 /var/lib/msync-trace.db 'select time, error, bytes, told, path from incident_list'
      what was lost (docs/record.md has the tables)

FILE is an SQLite database. One that is there is continued with a new run. It can be read while it is
written, and after kill -9 or a power cut. Keep it on another disk than those that are watched. If it
cannot be written, tracing goes on and what is found waits in memory; what did not fit is said in the
record.

Exit status:
  0  complete, and nothing was found
  1  an incident was found
  2  error: bad usage, not permitted, tracing broke off, or FILE could not be written to the end
  3  nothing was found, but something could not be seen: no all-clear";

const INGEST_EXAMPLES: &str = "\
Examples:
  msync-trace ingest run.mst
      what was lost in a run that was saved:
      sudo dtrace -s dtrace/freebsd/msync-trace.d facts > run.mst 2> run.err
  sudo dtrace -s dtrace/freebsd/msync-trace.d facts | msync-trace ingest
      report losses while they happen; Ctrl-C ends both and prints a summary
  ssh db1 sudo dtrace -s /root/msync-trace.d facts | msync-trace ingest -o json > db1.json
      trace a machine on which msync-trace is not installed
  msync-trace ingest --record db1.db run.mst
      keep the facts and what followed from them, as record does: msync-trace report db1.db
  msync-trace ingest --path /var/db --calls msync,fsync,fdatasync run.mst
      only files below a directory, as that machine sees it, and all sync calls

Everything that is said about the machine comes from the input: nothing is looked up here. What
dtrace wrote to standard error (drops) is not in the input: a run with drops is incomplete, and only
that text says so. `msync-trace check` says what the machine it runs on can do.

Exit status:
  0  complete, and nothing was found
  1  an incident was found
  2  error: bad usage, not what a D script of msync-trace prints, or the record could not be written
  3  nothing was found, but something could not be seen or read: no all-clear";

const CHECK_EXAMPLES: &str = "\
Examples:
  msync-trace check                       what this machine can do
  sudo msync-trace check --attach         also attach every hook, and detach it
  sudo msync-trace check --json | jq .    the same for programs

Exit status:
  0  ready
  1  tracing works, with the limits that the warnings name
  2  tracing cannot work; each failure says what to do";

const SELFTEST_EXAMPLES: &str = "\
Examples:
  sudo msync-trace selftest               lose data on a scratch ext4, check the reports
  sudo msync-trace selftest --fs xfs      the same on XFS (needs mkfs.xfs)
  sudo msync-trace selftest --tier kprobe -v
      with kprobes only; shows the hooks and all that they see

The disk is a loop device over memory: no disk of yours is touched, nothing is mounted that other
programs can see, and nothing is left behind, even after Ctrl-C or kill -9. Three losses are made:
  tried-again   msync fails once, the program calls it again and gets 0
  opened-anew   msync fails, the program opens the file again and gets 0
  nobody-told   write-back fails in the background, msync gives 0 from the first call on
Each must be reported with its file, bytes, error, process and who was told. Pages that were in one
request with the lost ones may be reported with them.

Exit status:
  0  passed: every loss was reported, as it was
  1  failed: the last lines say what differs
  2  could not run; says what to do (`msync-trace check` says more)";

const DETACH_EXAMPLES: &str = "\
Examples:
  sudo msync-trace detach
      nothing of msync-trace is left in the kernel: after the last run with --pin, or before the
      package is removed

What the hooks had seen is forgotten, and said: files with lost bytes, records that nobody had read.
It refuses to do so while msync-trace traces with them, and names that process. docs/restart.md says
more.

Exit status:
  0  nothing is left, or nothing was there
  2  error: not permitted, or a process traces with them";

const REPORT_EXAMPLES: &str = "\
Examples:
  msync-trace report run.db
      what was lost, in which files, since when, who was told
  msync-trace report --since \"2 hours ago\" --path /var/lib/postgresql run.db
      only losses of the last two hours, in files below a directory
  msync-trace report --format html -o report.html db1.db db2.db db3.db
      one page over the records of three hosts, to be sent by mail
  msync-trace report --format json run.db | jq '.summary.bytes_now'
      which of the lost bytes can still be saved
  msync-trace report --told nobody --errno ENOSPC --format csv run.db > losses.csv
      the incidents of full disks that nobody was told of, as a table
  msync-trace report --recompute run.db
      judge the recorded facts again, with this version, and say what is different

It takes no root and no kernel, and writes nothing beside the record.

Points in time are 2026-11-20T12:00:00Z (RFC 3339), and in the local time zone \"2026-11-20 12:00\",
2026-11-20 (when the day begins), 12:00 (today), \"2 hours ago\", \"30m ago\", yesterday, today, now.

Exit status:
  0  nothing was lost silently, and all was seen
  1  there are incidents
  2  error: bad usage, or a record could not be read (the others are reported all the same)
  3  nothing was found, but not everything was seen or recorded: no all-clear";
const RESCUE_EXAMPLES: &str = "\
Examples:
  sudo msync-trace rescue --file /var/lib/db/base.dat
      which pages of a file are in memory, and which of them the disk does not have
  sudo msync-trace rescue --file /var/lib/db/base.dat --range 8192+4096 --out /mnt/usb/rescue
      save these bytes as memory has them, and as the disk has them
  sudo msync-trace rescue --incident 3 --record run.json --out /mnt/usb/rescue
      save what incident 3 lost, of a run that was written with `trace -o json`
  sudo msync-trace rescue --file /var/lib/db/base.dat --record run.db -o json | jq .pages
      all ranges of a file that are still lost according to a record

Lost bytes are in memory until the kernel needs the room: be quick, and do not restart the program,
unmount, or drop caches. Nothing is written to the file or its disk, and no page is read into memory.
Before anything is repaired, see docs/rescue.md.

Exit status:
  0  nothing differs: memory and the disk have the same bytes
  1  memory has bytes that the disk does not have (with --out: they are saved)
  2  error: bad usage, not permitted, or it could not be saved
  3  it could not be known: not in memory any more, or the disk cannot be read";

const SERVE_EXAMPLES: &str = "\
Examples:
  sudo msync-trace serve --json /var/log/msync-trace.jsonl --listen 127.0.0.1:9599
      run for months: incidents as JSON lines, metrics for Prometheus
  sudo msync-trace serve --config /etc/msync-trace.toml
      everything from a file (docs/serve.md has all keys)
  sudo msync-trace serve --config /etc/msync-trace.toml --print-config
      which options are in effect, and nothing else
  sudo msync-trace serve --journal --store /var/lib/msync-trace/store.db
      incidents in the journal, and all evidence for `msync-trace report`
  sudo msync-trace serve --metrics-textfile /var/lib/prometheus/node-exporter/msync-trace.prom
      metrics without a listening socket
  sudo msync-trace serve --on-incident '[\"/usr/local/bin/page\", \"dba\"]'
      run a command for each incident, with its JSON on standard input
  journalctl MESSAGE_ID=aad3997851b74b1c83da5c266a684fb5
      all incidents that are in the journal

SIGTERM and SIGINT end it in order; SIGHUP opens its files anew.

Exit status:
  0  ended by a signal, in order
  2  error: bad usage, not permitted, the self-check failed, or tracing broke off";

const EXPORT_EXAMPLES: &str = "\
Examples:
  msync-trace export --format jsonl run.db | jq -r 'select(.type==\"incident\") | .file.path'
      everything in the record, one JSON object per line
  msync-trace export --format parquet --out evidence/db1.parquet db1.db
      the incidents of one host, for DuckDB, ClickHouse or Spark (docs/report.md has queries)
  msync-trace export --format csv --table facts --out facts.csv run.db
      every fact, as a table

Every row says host, boot_id and run.

Exit status:
  0  done
  2  error: bad usage, or a record could not be read (the others are exported all the same)";

/// Reports silent data loss: an msync that returned 0 over bytes that the kernel had failed to
/// write.
#[derive(Debug, Parser)]
#[command(
    name = "msync-trace",
    version,
    args_conflicts_with_subcommands = true,
    after_help = EXAMPLES
)]
pub struct Cli {
    /// What to do; tracing if it is not said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Without a subcommand: those of `trace`.
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trace now: one line per incident, a summary at the end (the default)
    #[command(after_help = EXAMPLES)]
    Trace(Box<TraceArgs>),
    /// Trace, and keep every fact and incident in a file for later
    #[command(after_help = RECORD_EXAMPLES)]
    Record(Box<RecordArgs>),
    /// Run for months: metrics, journal, JSON lines, a command for each incident (Linux)
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Box<serve::ServeArgs>),
    /// Report from what a D script printed, on this machine or another one
    #[command(after_help = INGEST_EXAMPLES)]
    Ingest(Box<IngestArgs>),
    /// Say what was lost, from recorded files: on any machine, without root
    #[command(after_help = REPORT_EXAMPLES)]
    Report(Box<ReportFileArgs>),
    /// Save lost bytes that are still in memory, and compare them with the disk (Linux)
    #[command(after_help = RESCUE_EXAMPLES)]
    Rescue(Box<RescueArgs>),
    /// The process that compares for `trace --verify`
    #[command(hide = true)]
    VerifyWorker,
    /// Turn recorded files into JSON lines, CSV or Parquet, for other engines
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(ExportArgs),
    /// Say whether this machine can be traced, and what to do about what is missing
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    /// Lose data on purpose, on a scratch disk, and see whether it is reported as it was
    #[command(after_help = SELFTEST_EXAMPLES)]
    Selftest(SelftestArgs),
    /// Take away the hooks and maps that `--pin` left in the kernel (Linux)
    #[command(after_help = DETACH_EXAMPLES)]
    Detach,
}

/// What is reported, and how: of `trace` and `ingest`.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// How to write what is found: columns for people, or JSON lines (docs/output.md)
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Form,

    /// Report only incidents of this process (may be repeated)
    #[arg(long, value_name = "PID", help_heading = "Filters of the report")]
    pub pid: Vec<u32>,

    /// Report only incidents of threads with this name
    #[arg(long, value_name = "NAME", help_heading = "Filters of the report")]
    pub comm: Vec<String>,

    /// Report only this file, or the files below this directory; where a filesystem is mounted, all
    /// of its files, under whatever path a process sees them
    #[arg(long, value_name = "PATH", help_heading = "Filters of the report")]
    pub path: Vec<PathBuf>,

    /// Report only files on this device: sda1, /dev/sda1, 8:1, or any path on it
    #[arg(long, value_name = "DEVICE", help_heading = "Filters of the report")]
    pub dev: Vec<String>,

    /// Report only incidents of this user
    #[arg(long, value_name = "UID", help_heading = "Filters of the report")]
    pub uid: Vec<u32>,

    /// End after this many incidents
    #[arg(long, value_name = "N")]
    pub stop_after: Option<NonZeroU64>,

    /// The calls that make incidents. All calls are followed either way, since each can use up
    /// the error
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "msync",
        value_name = "CALL"
    )]
    pub calls: Vec<CallName>,

    /// Report msync without MS_SYNC as well, which returns 0 and promises nothing
    #[arg(long)]
    pub include_async: bool,

    /// When to use colour; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub color: When,

    /// Incidents only: no header, no start message, no summary
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// More: details and repeats of incidents; twice: also what the kernel side says
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

/// Of `trace`.
#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    /// What is reported, and how.
    #[command(flatten)]
    pub report: ReportArgs,

    /// End after this time: 30s, 5m, 1h30m
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// Where facts come from: eBPF programs, or a D script that dtrace runs
    #[arg(long, value_enum, default_value_t, value_name = "SOURCE")]
    pub source: SourceName,

    /// With --source dtrace: the dtrace to run [default: /usr/sbin/dtrace, or that in PATH]
    #[arg(long, value_name = "PATH", help_heading = "DTrace")]
    pub dtrace_path: Option<PathBuf>,

    /// With --source dtrace: an option for dtrace, as bufsize=8m (may be repeated)
    #[arg(
        short = 'x',
        long,
        value_name = "OPTION[=VALUE]",
        help_heading = "DTrace"
    )]
    pub dtrace_option: Vec<OsString>,

    /// The hooks to use: the best that the kernel allows, or only these
    #[arg(long, value_enum, default_value_t, value_name = "TIER")]
    pub tier: TierName,

    /// Size of each buffer between kernel and msync-trace, a power of two from 4K to 64M. There are
    /// three. One that is full makes the run incomplete
    #[arg(long, value_name = "SIZE", value_parser = parse_ring_size)]
    pub ring_size: Option<u32>,

    /// Leave the hooks attached at the end, and begin with what those of the last run saw meanwhile:
    /// a failure before a restart and the msync after it make one incident (docs/restart.md).
    /// `msync-trace detach` takes them away
    #[arg(long)]
    pub pin: bool,

    /// Compare the lost bytes in memory with the disk at once: each incident says whether the disk
    /// really has other bytes (Linux, needs root; docs/rescue.md)
    #[arg(long, help_heading = "Proof and rescue")]
    pub verify: bool,

    /// Save lost bytes to a new directory below this one at the moment of the incident; includes
    /// --verify. They are contents of files: only root can read what is saved
    #[arg(long, value_name = "DIR", help_heading = "Proof and rescue")]
    pub rescue: Option<PathBuf>,

    /// Save at most so many bytes, those of the disk counted as well
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = parse_size,
        default_value = "1G",
        help_heading = "Proof and rescue"
    )]
    pub rescue_max: u64,

    /// Run this command (with sudo: as the user who called it) and trace until it ends
    #[arg(last = true, value_name = "COMMAND")]
    pub run: Vec<OsString>,
}

/// Of `record`.
#[derive(Clone, Debug, Args)]
pub struct RecordArgs {
    /// The record: made if it is not there, otherwise continued
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Delete what is older than this: 12h, 30d, 8w. The last incidents of files that are still in
    /// trouble stay
    #[arg(long, value_name = "TIME", value_parser = parse_age, help_heading = "Limits of the record")]
    pub keep: Option<Duration>,

    /// Delete the oldest when FILE is larger than this: 500M, 2G. The last incidents of files that
    /// are still in trouble stay
    #[arg(long, value_name = "SIZE", value_parser = parse_record_size, help_heading = "Limits of the record")]
    pub max_size: Option<u64>,

    /// As of `trace`.
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// Of `ingest`.
#[derive(Clone, Debug, Args)]
pub struct IngestArgs {
    /// What a D script printed, in a file; - is standard input
    #[arg(default_value = "-", value_name = "FILE")]
    pub file: PathBuf,

    /// Keep every fact and incident in this file, as `record` does: made if it is not there, otherwise
    /// continued with a new run
    #[arg(long, value_name = "FILE.db")]
    pub record: Option<PathBuf>,

    /// What is reported, and how.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// Of `report`.
#[derive(Clone, Debug, Args)]
pub struct ReportFileArgs {
    /// What `msync-trace record` wrote; of several hosts too
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// How to write the report
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub format: ReportForm,

    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Only what happened from then on: a date, a time, "2 hours ago"
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub since: Option<String>,

    /// Only what happened before then, and as it was then
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub until: Option<String>,

    /// Only this file, or the files below this directory, as the recorded machine spells it (may be
    /// repeated, as all filters)
    #[arg(long, value_name = "PATH", help_heading = "Filters")]
    pub path: Vec<PathBuf>,

    /// Only files on this device: sda1, /dev/sda1, 8:1
    #[arg(long, value_name = "DEVICE", help_heading = "Filters")]
    pub dev: Vec<String>,

    /// Only runs on this host
    #[arg(long, value_name = "NAME", help_heading = "Filters")]
    pub host: Vec<String>,

    /// Only incidents of this process
    #[arg(long, value_name = "PID", help_heading = "Filters")]
    pub pid: Vec<u32>,

    /// Only incidents of threads with this name
    #[arg(long, value_name = "NAME", help_heading = "Filters")]
    pub comm: Vec<String>,

    /// Only incidents with this error: EIO, ENOSPC, 5
    #[arg(long, value_name = "ERROR", value_parser = parse_errno, help_heading = "Filters")]
    pub errno: Vec<String>,

    /// Only incidents of which these had been told before
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "WHO",
        help_heading = "Filters"
    )]
    pub told: Vec<ToldName>,

    /// List everything, however long: all incidents, files, ranges and timelines. Otherwise the first
    /// 1000 incidents, the 100 files that lost most, and of each 100 ranges and 100 entries
    #[arg(long)]
    pub all: bool,

    /// Judge the recorded facts again, with this version, and say where that differs from what was
    /// recorded
    #[arg(long)]
    pub recompute: bool,

    /// When to use colour; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub color: When,
}

/// Of `export`.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// What `msync-trace record` wrote; of several hosts too
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// How to write it
    #[arg(long, value_enum, value_name = "FORM")]
    pub format: ExportForm,

    /// What to write; jsonl without it: everything
    #[arg(long, value_enum, value_name = "TABLE")]
    pub table: Option<ExportTable>,

    /// Write to this file instead of standard output; if it is a directory, to a file in it for each
    /// record
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// How to write a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportForm {
    /// For people
    #[default]
    Text,
    /// One JSON document (docs/report.md)
    Json,
    /// The incidents as a table
    Csv,
    /// One page for a browser, with pictures
    Html,
}

/// How to export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportForm {
    /// One JSON object per line: the records of docs/schema/v1.json
    Jsonl,
    /// Apache Parquet
    Parquet,
    /// A table as text
    Csv,
}

/// What to export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ExportTable {
    /// Silent losses, and what became of them
    #[default]
    Incidents,
    /// Everything that the hooks saw
    Facts,
    /// Files with failures
    Files,
    /// When and how it was recorded
    Runs,
}

/// Who had been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ToldName {
    /// No one
    Nobody,
    /// Another open file description
    Other,
    /// This very one
    Caller,
    /// This one will be, by its next sync
    Pending,
}

/// Of `rescue`.
#[derive(Clone, Debug, Args)]
pub struct RescueArgs {
    /// The file that lost bytes
    #[arg(
        long,
        value_name = "PATH",
        required_unless_present = "incident",
        conflicts_with = "incident"
    )]
    pub file: Option<PathBuf>,

    /// The incident whose bytes are wanted, by its number in the record; RUN.ID if the record holds
    /// several runs and it is not one of the last
    #[arg(long, value_name = "ID", requires = "record", value_parser = parse_incident)]
    pub incident: Option<IncidentName>,

    /// What was recorded: by `trace -o json`, or by `record`. With --file: only ranges that are still
    /// lost
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,

    /// Only these bytes (may be repeated): 8192+4096 are the 4096 bytes from byte 8192 on; K, M, G
    /// stand for powers of 1024
    #[arg(long, value_name = "OFFSET+LENGTH", value_parser = parse_range)]
    pub range: Vec<ByteRange>,

    /// Save to a new directory below this one, which is on another filesystem. Without it nothing is
    /// saved, only looked at
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Save at most so many bytes, those of the disk counted as well
    #[arg(long, value_name = "SIZE", value_parser = parse_size, requires = "out")]
    pub max: Option<u64>,

    /// How to write what is found: for people, or as one JSON document (docs/rescue.md)
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Form,
}

/// An incident of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IncidentName {
    /// Number of the run, from 1; the last if it is not said.
    pub run: Option<u64>,
    /// Number of the incident within the run.
    pub incident: u64,
}

/// Of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Write one JSON document (docs/output.md)
    #[arg(long)]
    pub json: bool,

    /// Really attach every hook, then detach it
    #[arg(long)]
    pub attach: bool,

    /// When to use colour; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub color: When,
}

/// Of `selftest`.
#[derive(Clone, Copy, Debug, Args)]
pub struct SelftestArgs {
    /// File system to lose data on
    #[arg(long, value_enum, default_value_t, value_name = "FS")]
    pub fs: FsName,

    /// The hooks to use: the best that the kernel allows, or only these
    #[arg(long, value_enum, default_value_t, value_name = "TIER")]
    pub tier: TierName,

    /// More: every hook and everything that the hooks see; twice: also what the kernel side says
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

/// A file system to lose data on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FsName {
    /// ext4 with a journal
    #[default]
    Ext4,
    /// XFS
    Xfs,
    /// btrfs
    Btrfs,
}

/// How to write what is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Aligned columns
    #[default]
    Text,
    /// JSON lines
    Json,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The hooks to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TierName {
    /// The best that the kernel allows
    #[default]
    Auto,
    /// BPF trampolines where the kernel has them, then as kprobe
    Fentry,
    /// Kprobes and raw tracepoints
    Kprobe,
    /// Raw tracepoints only
    Tracepoint,
}

/// Where facts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SourceName {
    /// eBPF programs (Linux)
    Ebpf,
    /// A D script that dtrace runs (FreeBSD, Linux)
    Dtrace,
}

impl Default for SourceName {
    fn default() -> Self {
        match cfg!(target_os = "freebsd") {
            true => Self::Dtrace,
            false => Self::Ebpf,
        }
    }
}

impl TierName {
    /// The tier it stands for; `None` where the kernel decides.
    #[must_use]
    pub fn tier(self) -> Option<Tier> {
        match self {
            Self::Auto => None,
            Self::Fentry => Some(Tier::Fentry),
            Self::Kprobe => Some(Tier::Kprobe),
            Self::Tracepoint => Some(Tier::Tracepoint),
        }
    }
}

/// A call that makes incidents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum CallName {
    /// msync(MS_SYNC)
    Msync,
    /// fsync
    Fsync,
    /// fdatasync
    Fdatasync,
    /// An fsync that io_uring makes
    IoUring,
    /// An fsync or COMMIT that the NFS server makes for a client
    Nfsd,
    /// All of them
    All,
}

/// `EIO`, `5`.
fn parse_errno(text: &str) -> Result<String, String> {
    let number = text.parse::<u32>().map(Errno::new);
    let is_name = text.len() > 1 && text.starts_with(['E', 'e']);
    match number {
        Ok(Some(_)) => Ok(text.to_owned()),
        Err(_) if is_name && text.bytes().all(|b| b.is_ascii_alphanumeric()) => Ok(text.to_owned()),
        _ => Err("not an error; write it as EIO or as 5".to_owned()),
    }
}

/// `4096`, `64K`, `4M`.
pub(crate) fn parse_ring_size(text: &str) -> Result<u32, String> {
    let (number, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    let bytes = number.parse::<u32>().ok().and_then(|n| n.checked_mul(unit));
    bytes
        .filter(|bytes| bytes.is_power_of_two() && (4 << 10..=64 << 20).contains(bytes))
        .ok_or_else(|| "not a power of two from 4K to 64M".to_owned())
}

/// `4096`, `64K`, `4M`, `1G`: powers of 1024.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let unit = match text.as_bytes().last() {
        Some(b'k' | b'K') => 1 << 10,
        Some(b'm' | b'M') => 1 << 20,
        Some(b'g' | b'G') => 1 << 30,
        Some(b't' | b'T') => 1 << 40,
        _ => 1,
    };
    let number = if unit == 1 {
        text
    } else {
        &text[..text.len() - 1]
    };
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let bytes = number.parse::<u64>().ok().filter(|_| is_number);
    bytes
        .and_then(|bytes| bytes.checked_mul(unit))
        .ok_or_else(|| "not a size; write it as 4096, 64K, 4M or 1G".to_owned())
}

/// `8192+4096`
fn parse_range(text: &str) -> Result<ByteRange, String> {
    let bad = || "not a range; write OFFSET+LENGTH, as 8192+4096 or 1G+64K".to_owned();
    let (offset, length) = text.split_once('+').ok_or_else(bad)?;
    let (offset, length) = (parse_size(offset), parse_size(length));
    let (offset, length) = (offset.map_err(|_| bad())?, length.map_err(|_| bad())?);
    let end = offset.checked_add(length).ok_or_else(bad)?;
    ByteRange::new(offset, end).ok_or_else(|| "a range of no bytes".to_owned())
}

/// `3`, or `2.3` with the number of the run.
fn parse_incident(text: &str) -> Result<IncidentName, String> {
    let number = |text: &str| {
        let number = text.parse::<u64>().ok().filter(|number| *number > 0);
        number.ok_or_else(|| "not the number of an incident; write 3, or RUN.ID as 2.3".to_owned())
    };
    Ok(match text.split_once('.') {
        None => IncidentName {
            run: None,
            incident: number(text)?,
        },
        Some((run, incident)) => IncidentName {
            run: Some(number(run)?),
            incident: number(incident)?,
        },
    })
}

/// The smallest record that has room for its log.
const SMALLEST: u64 = 16 << 20;

/// `500M`, `2G`.
pub(crate) fn parse_record_size(text: &str) -> Result<u64, String> {
    parse_size(text)
        .ok()
        .filter(|bytes| *bytes >= SMALLEST)
        .ok_or_else(|| "not a size from 16M on; write it as 500M or 2G".to_owned())
}

/// `12h`, `30d`, `8w`.
pub(crate) fn parse_age(text: &str) -> Result<Duration, String> {
    let bad = |_| "not a time; write it as 12h, 30d or 8w".to_owned();
    let span: jiff::Span = text.parse().map_err(bad)?;
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    let signed = span.to_duration(days).map_err(bad)?;
    positive(Duration::try_from(signed).map_err(|_| "a time before now".to_owned())?)
}

/// `30s`, `5m`, `1h30m`; a bare number is seconds, as with other tracers.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return positive(Duration::from_secs(seconds));
    }
    let signed: jiff::SignedDuration = text
        .parse()
        .map_err(|_| "not a time; write it as 30s, 5m or 1h30m".to_owned())?;
    positive(Duration::try_from(signed).map_err(|_| "a time before now".to_owned())?)
}

fn positive(duration: Duration) -> Result<Duration, String> {
    if duration.is_zero() {
        Err("no time at all".to_owned())
    } else {
        Ok(duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_ring_has_a_power_of_two() {
        assert_eq!(parse_ring_size("4096"), Ok(4096));
        assert_eq!(parse_ring_size("64K"), Ok(65_536));
        assert_eq!(parse_ring_size("4M"), Ok(4 << 20));
        for bad in ["", "K", "3K", "2K", "128M", "9999999M", "-4K", "4 K"] {
            assert!(parse_ring_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_of_a_record_are_what_people_write() {
        assert_eq!(parse_record_size("2G"), Ok(2 << 30));
        assert_eq!(parse_record_size("500M"), Ok(500 << 20));
        for bad in ["", "G", "1M", "-2G", "2 GB", "99999999999T"] {
            assert!(parse_record_size(bad).is_err(), "{bad}");
        }
        let day = 86_400;
        for (text, seconds) in [("30d", 30 * day), ("8w", 56 * day), ("12h", day / 2)] {
            assert_eq!(parse_age(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "30", "0d", "-1d", "1 month", "soon"] {
            assert!(parse_age(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn without_a_subcommand_it_traces() {
        let cli =
            Cli::try_parse_from(["msync-trace", "--pid", "1", "--pid", "2", "--", "ls", "-l"])
                .unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.trace.report.pid, [1, 2]);
        assert_eq!(cli.trace.run, ["ls", "-l"]);
    }

    #[test]
    fn calls_are_a_list() {
        let cli =
            Cli::try_parse_from(["msync-trace", "trace", "--calls", "msync,io_uring"]).unwrap();
        let Some(Command::Trace(args)) = cli.command else {
            panic!("{cli:?}");
        };
        assert_eq!(args.report.calls, [CallName::Msync, CallName::IoUring]);
    }

    #[test]
    fn bytes_to_rescue_are_an_offset_and_a_length() {
        assert_eq!(
            parse_range("8192+4K"),
            Ok(ByteRange::new(8192, 12_288).unwrap())
        );
        assert_eq!(
            parse_range("5G+1"),
            Ok(ByteRange::new(5 << 30, (5 << 30) + 1).unwrap())
        );
        for bad in [
            "",
            "+",
            "1",
            "1+",
            "+1",
            "1+0",
            "-1+2",
            "1++2",
            "1+2+3",
            "18446744073709551615+1",
            "16777216T+1",
            "0x10+1",
        ] {
            assert!(parse_range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_incident_can_be_named_with_its_run() {
        let name = |run, incident| Ok(IncidentName { run, incident });
        assert_eq!(parse_incident("3"), name(None, 3));
        assert_eq!(parse_incident("2.3"), name(Some(2), 3));
        for bad in ["", "0", "2.", ".3", "2.3.4", "0.1", "-1", "x"] {
            assert!(parse_incident(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rescue_needs_a_file_or_an_incident() {
        for bad in [
            &["rescue"][..],
            &["rescue", "--incident", "1"],
            &["rescue", "--file", "a", "--incident", "1", "--record", "r"],
        ] {
            let words = ["msync-trace"].iter().chain(bad);
            assert!(Cli::try_parse_from(words).is_err(), "{bad:?}");
        }
        let good = ["msync-trace", "rescue", "--incident", "1", "--record", "r"];
        assert!(Cli::try_parse_from(good).is_ok());
    }

    #[test]
    fn durations_are_what_people_write() {
        for (text, seconds) in [
            ("30s", 30),
            ("5m", 300),
            ("1h30m", 5400),
            ("10", 10),
            ("2 min", 120),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for bad in ["", "0", "0s", "-5s", "soon", "5 bananas"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
