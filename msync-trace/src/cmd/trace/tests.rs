//! The whole trace loop, with a source that plays a script.

use std::io::Write;

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use clap::Parser;

use super::*;
use crate::{
    cli::{Cli, Command},
    enrich::Enricher,
    model::{
        ByteRange, Call, CallId, ChangeKind, Errno, FactKind, FileId, FileSystemId, FileView,
        InodeKey, LossCause, Lost, MonoTime, ProcessId, Release, StorageError, StorageErrorKind,
        SyncReturn, Task, WriteFailed,
    },
    output::Tone,
    schema::{Body, Record, WallTime, from_line},
    source::{HookState, HookStatus, Method},
};

/// Plays batches of facts, then waits forever.
struct Script {
    batches: VecDeque<Result<Vec<Fact>, Broken>>,
    /// What is still on its way when the source is told to finish.
    late: Vec<Fact>,
    hooks: Vec<HookStatus>,
    released: Rc<RefCell<Vec<(InodeKey, Release)>>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the ring went away")]
struct Broken;

impl FactSource for Script {
    type Error = Broken;

    fn hooks(&self) -> &[HookStatus] {
        &self.hooks
    }

    fn tier(&self) -> &'static str {
        "fentry"
    }

    async fn next_facts(&mut self, into: &mut Vec<Fact>) -> Result<Progress, Broken> {
        match self.batches.pop_front() {
            Some(batch) => {
                into.extend(batch?);
                Ok(Progress::More)
            }
            None => std::future::pending().await,
        }
    }

    async fn finish(&mut self, _why: StopReason, into: &mut Vec<Fact>) -> Vec<String> {
        into.append(&mut self.late);
        Vec::new()
    }

    fn released(&mut self, inode: &InodeKey, why: Release) {
        self.released.borrow_mut().push((*inode, why));
    }
}

fn script(batches: Vec<Vec<Fact>>) -> Script {
    Script {
        batches: batches.into_iter().map(Ok).collect(),
        late: Vec::new(),
        hooks: vec![HookStatus {
            name: "sync.msync",
            purpose: "returns of msync",
            target: "__x64_sys_msync".to_owned(),
            state: HookState::Attached(Method::Fexit),
        }],
        released: Rc::default(),
    }
}

/// A writer that can be read afterwards, and that breaks after so many bytes.
#[derive(Clone, Default)]
struct Paper {
    bytes: Rc<RefCell<Vec<u8>>>,
    room: Option<usize>,
}

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.bytes.borrow().clone()).unwrap()
    }
}

impl Write for Paper {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let mut bytes = self.bytes.borrow_mut();
        if self.room.is_some_and(|room| bytes.len() + buf.len() > room) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        bytes.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a run came to.
struct Ran {
    exit: anyhow::Result<Exit>,
    records: Vec<Record>,
    messages: String,
}

impl Ran {
    fn exit(&self) -> Exit {
        *self.exit.as_ref().unwrap()
    }

    fn incidents(&self) -> Vec<u32> {
        self.records
            .iter()
            .filter_map(|record| match &record.body {
                Body::Incident(incident) => Some(incident.process.task.process.pid),
                _ => None,
            })
            .collect()
    }

    fn stop(&self) -> &crate::schema::Stop {
        match &self.records.last().unwrap().body {
            Body::Stop(stop) => stop,
            other => panic!("{other:?}"),
        }
    }
}

fn plan(arguments: &[&str]) -> Plan {
    let cli = Cli::try_parse_from([&["msync-trace", "trace"], arguments].concat()).unwrap();
    match cli.command {
        Some(Command::Trace(args)) => Plan::new(&args),
        other => panic!("{other:?}"),
    }
}

/// Runs with these arguments. Without something else to end it, a signal does, as soon as the
/// script is over.
async fn trace(source: Script, arguments: &[&str], room: Option<usize>) -> Ran {
    let plan = plan(arguments);
    let (out, messages) = (
        Paper {
            room,
            ..Paper::default()
        },
        Paper::default(),
    );
    let io = Io {
        keeping: None,
        out: Box::new(JsonLines::new(out.clone())),
        messages: Box::new(messages.clone()),
        tone: Tone::Plain,
        enricher: Enricher::below(std::path::Path::new("/nonexistent")),
        look_at_clocks: || (MonoTime(1_000), WallTime(1_763_640_000_000_000_000)),
        exit: session::exit,
    };
    let (sender, events) = mpsc::channel(1);
    let interrupt_later = plan.duration.is_none() && plan.command.is_empty();
    if interrupt_later {
        tokio::spawn(async move {
            // Time is paused: this passes when nothing else can happen any more.
            tokio::time::sleep(Duration::from_secs(1)).await;
            let _ = sender.send(Event::Interrupt).await;
        });
    }
    let exit = run(source, plan, io, events).await;
    assert_described(&out.text());
    let records = out
        .text()
        .lines()
        .map(|line| from_line(line.as_bytes()).unwrap())
        .collect();
    Ran {
        exit,
        records,
        messages: messages.text(),
    }
}

/// Every line fits the schema that we publish.
fn assert_described(lines: &str) {
    let schema = include_str!("../../../../docs/schema/v1.json");
    let validator = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    for line in lines.lines() {
        let value = serde_json::from_str(line).unwrap();
        let errors: Vec<_> = validator
            .iter_errors(&value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{line}\n{errors:#?}");
    }
}

const INODE: InodeKey = InodeKey {
    fs: FileSystemId::Device((8 << 20) | 1),
    ino: 12,
    generation: 1,
    subvolume: 0,
};

fn failed(at: u64) -> Fact {
    Fact {
        at: MonoTime(at),
        kind: FactKind::WriteFailed(WriteFailed {
            inode: INODE,
            range: ByteRange::new(4096, 8192),
            errno: Errno::EIO,
            submitted: None,
            eviction_watched: true,
            writer: None,
            file: FileView::default(),
        }),
    }
}

fn msync(at: u64, pid: u32) -> Fact {
    Fact {
        at: MonoTime(at),
        kind: FactKind::SyncReturn(SyncReturn {
            inode: INODE,
            file: Some(FileId(u64::from(pid))),
            call: Call::Msync,
            id: CallId(at),
            range: ByteRange::ALL,
            error: None,
            pending: false,
            task: Task {
                process: ProcessId {
                    pid,
                    start_time: u64::from(pid),
                },
                tid: pid,
                uid: 1000,
                comm: b"db".to_vec(),
                cgroup: 0,
                kernel_thread: false,
            },
            file_view: FileView {
                path: Some(b"/data/db".to_vec()),
                from_root: true,
                ..FileView::default()
            },
        }),
    }
}

fn lost(at: u64) -> Fact {
    Fact {
        at: MonoTime(at),
        kind: FactKind::Lost(Lost {
            cause: LossCause::SyncRingFull,
            count: 7,
        }),
    }
}

#[tokio::test(start_paused = true)]
async fn a_complete_run_without_a_loss_is_status_0() {
    let ran = trace(script(vec![vec![msync(5, 77)]]), &[], None).await;
    assert_eq!(ran.exit(), Exit::Nothing);
    assert!(ran.stop().complete);
    assert!(ran.messages.contains("nothing found"), "{}", ran.messages);
}

#[tokio::test(start_paused = true)]
async fn an_incident_is_status_1_and_says_who_was_lied_to() {
    let ran = trace(script(vec![vec![failed(5)], vec![msync(9, 77)]]), &[], None).await;
    assert_eq!(ran.exit(), Exit::Found);
    assert_eq!(ran.incidents(), [77]);
    let totals = ran.stop().totals;
    assert_eq!((totals.incidents, totals.bytes, totals.files), (1, 4096, 1));
    assert_eq!(totals.told_nobody, 1);
    assert!(
        ran.messages
            .contains("1 incident, 4096 bytes lost silently in 1 file"),
        "{}",
        ran.messages
    );
}

#[tokio::test(start_paused = true)]
async fn a_source_that_breaks_is_status_2_with_a_summary() {
    let mut source = script(vec![vec![failed(5)], vec![msync(9, 77)]]);
    source.batches.push_back(Err(Broken));
    let ran = trace(source, &[], None).await;
    assert_eq!(ran.exit(), Exit::Error);
    assert_eq!(ran.incidents(), [77]);
    assert_eq!(ran.stop().error.as_deref(), Some("the ring went away"));
    assert!(!ran.stop().complete);
}

#[tokio::test(start_paused = true)]
async fn dropped_events_are_status_3_never_an_all_clear() {
    let ran = trace(script(vec![vec![lost(5)]]), &[], None).await;
    assert_eq!(ran.exit(), Exit::Incomplete);
    assert_eq!(ran.stop().lost[0].count, 7);
    assert!(
        ran.messages.contains("nothing can be said"),
        "{}",
        ran.messages
    );
    assert!(!ran.messages.contains("nothing found"), "{}", ran.messages);
}

#[tokio::test(start_paused = true)]
async fn a_missing_hook_is_status_3_and_named() {
    let mut source = script(vec![]);
    source.hooks[0].state = HookState::Unavailable("kernel built without kprobes".to_owned());
    let ran = trace(source, &[], None).await;
    assert_eq!(ran.exit(), Exit::Incomplete);
    assert!(
        ran.messages
            .contains("hook sync.msync: kernel built without kprobes"),
        "{}",
        ran.messages
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_at_the_end_still_counts() {
    let mut source = script(vec![vec![failed(5)]]);
    source.late = vec![msync(9, 77)];
    let ran = trace(source, &[], None).await;
    assert_eq!(ran.exit(), Exit::Found);
}

#[tokio::test(start_paused = true)]
async fn it_ends_after_as_many_incidents_as_were_asked_for() {
    let batch = vec![failed(5), msync(6, 1), msync(7, 2), msync(8, 3)];
    let ran = trace(script(vec![batch]), &["--stop-after", "2"], None).await;
    assert_eq!(ran.incidents(), [1, 2]);
    assert_eq!(ran.stop().reason, StopReason::StopAfter);
    assert_eq!(ran.stop().totals.incidents, 2);
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_the_time_is_over() {
    let ran = trace(script(vec![]), &["--duration", "3s"], None).await;
    assert_eq!(ran.exit(), Exit::Nothing);
    assert_eq!(ran.stop().reason, StopReason::Duration);
}

/// The failure comes from a process (or kernel worker) that the filter does not name.
#[tokio::test(start_paused = true)]
async fn filters_narrow_the_report_and_not_what_is_followed() {
    let batch = vec![failed(5), msync(6, 1), msync(7, 2)];
    let ran = trace(script(vec![batch.clone()]), &["--pid", "2"], None).await;
    assert_eq!(ran.incidents(), [2]);
    assert_eq!(ran.stop().facts, 3);

    // Nothing reported is status 0 for what was asked.
    let ran = trace(script(vec![batch.clone()]), &["--pid", "3"], None).await;
    assert_eq!(ran.exit(), Exit::Nothing);

    for (arguments, expected) in [
        (&["--path", "/data"][..], 2),
        (&["--path", "/data/db"], 2),
        (&["--path", "/dat"], 0),
        (&["--comm", "db", "--uid", "1000"], 2),
        (&["--comm", "db", "--uid", "0"], 0),
        // The device of this file is not known: a filter must not hide what it cannot judge.
        (&["--dev", "sdb1"], 2),
    ] {
        let ran = trace(script(vec![batch.clone()]), arguments, None).await;
        assert_eq!(ran.incidents().len(), expected, "{arguments:?}");
    }
}

/// A process in a container sees the filesystem elsewhere.
#[tokio::test(start_paused = true)]
async fn a_mount_point_means_its_filesystem_and_a_device_may_be_any_path_on_it() {
    use std::os::unix::fs::MetadataExt;

    let dev = std::fs::metadata("/proc").unwrap().dev();
    let dev = rustix::fs::major(dev) << 20 | rustix::fs::minor(dev);
    let mut sync = msync(6, 1);
    if let FactKind::SyncReturn(sync) = &mut sync.kind {
        sync.file_view.dev = Some(dev);
    }
    let batch = vec![failed(5), sync];
    for (arguments, expected) in [
        (["--path", "/proc"], 1),
        (["--path", "/proc/sys"], 0),
        (["--path", "/sys"], 0),
        (["--dev", "/proc"], 1),
        (["--dev", "/proc/version"], 1),
        (["--dev", "/sys"], 0),
    ] {
        let ran = trace(script(vec![batch.clone()]), &arguments, None).await;
        assert_eq!(ran.incidents().len(), expected, "{arguments:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_leaves_ends_it_quietly_by_what_was_found() {
    let batches = vec![vec![failed(5)], vec![msync(6, 1)], vec![msync(7, 2)]];
    let whole = trace(script(batches.clone()), &[], None).await;
    let line = |record| crate::schema::to_line(record).len();
    let room: usize = whole.records[..2].iter().map(line).sum();
    let ran = trace(script(batches), &[], Some(room)).await;
    assert_eq!(ran.exit(), Exit::Found);
    assert_eq!(ran.incidents(), [1]);
    assert!(ran.messages.contains("nobody reads"), "{}", ran.messages);

    // Even before the first line.
    let ran = trace(script(vec![]), &[], Some(0)).await;
    assert_eq!(ran.exit(), Exit::Nothing);
}

#[tokio::test(start_paused = true)]
async fn settled_inodes_go_back_to_the_source() {
    let mut recovered = failed(6);
    recovered.kind = FactKind::WriteOk(crate::model::WriteOk {
        inode: INODE,
        range: ByteRange::ALL,
    });
    let source = script(vec![vec![failed(5), recovered]]);
    let released = Rc::clone(&source.released);
    trace(source, &[], None).await;
    assert_eq!(*released.borrow(), [(INODE, Release::Settled)]);
}

#[tokio::test(start_paused = true)]
async fn repeats_are_counted_and_shown_now_and_then() {
    let mut facts = vec![failed(5)];
    facts.extend((6..106).map(|at| msync(at, 1)));
    let ran = trace(script(vec![facts]), &["-o", "json"], None).await;
    let repeated = ran.records.iter().filter_map(|record| match &record.body {
        Body::Change(change) => Some(change.change),
        _ => None,
    });
    let expected = [1, 99].map(|repeats| ChangeKind::Repeated { repeats });
    assert_eq!(repeated.collect::<Vec<_>>(), expected);
    assert_eq!(ran.stop().totals.repeats, 99);
}

#[tokio::test(start_paused = true)]
async fn what_befalls_a_disk_is_said_and_is_no_incident() {
    let flush = Fact {
        at: MonoTime(1),
        kind: FactKind::StorageError(StorageError {
            what: StorageErrorKind::FlushFailed,
            errno: Some(Errno::EIO),
            dev: None,
            dev_name: Some("sdb\x1b[1m".to_owned()),
            fs_type: None,
        }),
    };
    let ran = trace(script(vec![vec![flush.clone()]]), &[], None).await;
    assert_eq!(ran.exit(), Exit::Nothing);
    let kinds = ran.records.iter().map(|record| &record.body);
    let told: Vec<_> = kinds
        .filter_map(|body| match body {
            Body::StorageError(record) => Some(record.error.what),
            _ => None,
        })
        .collect();
    assert_eq!(told, [StorageErrorKind::FlushFailed]);
    let line = "sdb\\x1b[1m: the disk could not flush its cache (EIO)";
    assert!(ran.messages.contains(line), "{}", ran.messages);
    let quiet = trace(script(vec![vec![flush]]), &["--quiet"], None).await;
    assert_eq!(quiet.messages, "");
}

#[tokio::test(start_paused = true)]
async fn quiet_says_nothing_but_incidents() {
    let ran = trace(script(vec![vec![failed(5), msync(6, 1)]]), &["-q"], None).await;
    assert_eq!(ran.messages, "");
}

#[tokio::test]
async fn a_command_is_traced_until_it_ends() {
    let ran = trace(script(vec![]), &["--", "sh", "-c", "exit 5"], None).await;
    assert_eq!(ran.exit(), Exit::Nothing);
    assert_eq!(ran.stop().reason, StopReason::Command);
    assert_eq!(ran.stop().command.unwrap().status, Some(5));
    assert!(
        ran.messages.contains("the command ended with status 5"),
        "{}",
        ran.messages
    );
}

#[tokio::test]
async fn a_command_that_cannot_be_run_is_an_error() {
    let ran = trace(script(vec![]), &["--", "/nonexistent\n"], None).await;
    let error = format!("{:#}", ran.exit.unwrap_err());
    assert!(error.contains("cannot run /nonexistent\\n"), "{error}");
}
