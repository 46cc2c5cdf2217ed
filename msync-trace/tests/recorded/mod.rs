//! Records as `msync-trace record` makes them, of facts that are made up: through the correlator and
//! the real writer.

#![allow(dead_code, reason = "each test and example uses a part of it")]

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use msync_trace::{
    correlate::{Config, Correlator},
    enrich::Enricher,
    model::*,
    schema::{
        Body, ChangeRecord, Clock, Filters, Head, HookRecord, KernelRecord, Record, Start, Stop,
        StopReason, Totals, WallTime,
    },
    store::{Limits, Recorder, RunHeader},
};

/// When every run begins, wall time: 2025-11-20T12:00:00Z.
pub const NOON: WallTime = WallTime(1_763_640_000_000_000_000);
pub const S: u64 = 1_000_000_000;
pub const PAGE: u64 = 4096;

fn clocks() -> (MonoTime, WallTime) {
    (MonoTime(0), NOON)
}

/// A run of a host that begins at noon, when its kernel time is 0.
pub fn header(host: &str) -> RunHeader {
    RunHeader {
        began: MonoTime(0),
        began_wall: NOON,
        start: Start {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: 7,
            kernel: KernelRecord {
                name: "Linux".to_owned(),
                release: "6.12".to_owned(),
                machine: "x86_64".to_owned(),
            },
            boot_id: Some(format!("boot-of-{host}")),
            host: Some(host.to_owned()),
            tier: "fentry".to_owned(),
            hooks: vec![HookRecord {
                name: "sync.msync".to_owned(),
                purpose: "returns of msync".to_owned(),
                target: "__x64_sys_msync".to_owned(),
                state: "attached".to_owned(),
                method: Some("fexit".to_owned()),
                detail: None,
            }],
            wall_minus_mono_ns: NOON.0,
            calls: vec![Call::Msync],
            filters: Filters::default(),
            command: None,
        },
        include_async: false,
        input: None,
    }
}

/// Facts are stored as they come, verdicts as they follow from them.
pub struct Run {
    recorder: Recorder,
    correlator: Correlator,
    clock: Clock,
    enricher: Enricher,
    verdicts: Vec<Verdict>,
    now: MonoTime,
    facts: u64,
    /// The incidents and changes so far.
    pub records: Vec<Record>,
    /// Whether to keep them.
    pub keep_records: bool,
}

impl Run {
    pub fn begin(path: &Path, header: RunHeader) -> Self {
        let clock = Clock::new(header.began, header.began_wall);
        let say = |message: &str| eprintln!("{message}");
        let limits = Limits::default();
        let mut recorder = Recorder::open(path, limits, clocks, Box::new(say)).unwrap();
        let start = Record {
            head: Head::at(header.began, &clock),
            body: Body::Start(Box::new(header.start.clone())),
        };
        recorder.begin(header).unwrap();
        recorder.record(&start, true);
        Self {
            recorder,
            correlator: Correlator::new(Config::default()),
            clock,
            enricher: Enricher::elsewhere(),
            verdicts: Vec::new(),
            now: MonoTime(0),
            facts: 0,
            records: Vec::new(),
            keep_records: true,
        }
    }

    pub fn fact(&mut self, at: u64, kind: FactKind) {
        let fact = Fact {
            at: MonoTime(at),
            kind,
        };
        self.take(fact);
    }

    pub fn take(&mut self, fact: Fact) {
        self.now = fact.at;
        self.facts += 1;
        self.correlator.apply(&fact, &mut self.verdicts);
        self.recorder.fact(fact);
        for verdict in std::mem::take(&mut self.verdicts) {
            self.verdict(verdict);
        }
        if self.facts.is_multiple_of(4096) {
            self.recorder.flush();
            // Made up facts come faster than any disk: what does not fit into memory would be lost.
            while self.facts - self.recorder.stored().0 > 60_000 {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn verdict(&mut self, verdict: Verdict) {
        let record = match verdict {
            Verdict::Incident(incident) => self.enricher.incident(&incident, &self.clock),
            Verdict::Change(change) => Record {
                head: Head::at(change.at, &self.clock),
                body: Body::Change(ChangeRecord {
                    incident: change.id,
                    change: change.kind,
                }),
            },
            Verdict::Incomplete { at, loss } => Record {
                head: Head::at(at, &self.clock),
                body: Body::Lost(loss),
            },
            Verdict::Released { inode, why } => {
                if why == Release::Settled {
                    self.recorder.settled(&inode);
                }
                return;
            }
        };
        self.recorder.record(&record, true);
        if self.keep_records {
            self.records.push(record);
        }
    }

    /// All of it until here is stored.
    pub fn flush(&mut self) {
        self.recorder.flush();
        let until = Instant::now() + Duration::from_secs(30);
        while self.recorder.stored().0 < self.facts {
            assert!(Instant::now() < until, "nothing is stored");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The run ends as it should, a second after its last fact.
    pub fn end(mut self) -> Vec<Record> {
        let complete = self.correlator.complete();
        let at = MonoTime(self.now.0 + S);
        let stop = Stop {
            reason: StopReason::Signal,
            duration_ns: at.0,
            totals: Totals::default(),
            facts: self.facts,
            outstanding_inodes: 0,
            complete,
            lost: Vec::new(),
            missing_hooks: Vec::new(),
            command: None,
            error: None,
            exit_status: 0,
        };
        self.recorder.record(
            &Record {
                head: Head::at(at, &self.clock),
                body: Body::Stop(Box::new(stop)),
            },
            true,
        );
        let kept = self.recorder.finish();
        assert_eq!(kept.lost_facts + kept.lost_incidents, 0, "{kept:?}");
        self.records
    }
}

pub fn pages(first: u64, end: u64) -> ByteRange {
    ByteRange::new(first * PAGE, end * PAGE).unwrap()
}

pub fn inode(ino: u64) -> InodeKey {
    InodeKey {
        fs: FileSystemId::Uuid([1; 16]),
        ino,
        generation: 1,
        subvolume: 0,
    }
}

pub fn task(pid: u32, comm: &[u8]) -> Task {
    Task {
        process: ProcessId {
            pid,
            start_time: u64::from(pid) * S,
        },
        tid: pid,
        uid: 26,
        comm: comm.to_vec(),
        cgroup: 1,
        kernel_thread: false,
    }
}

/// How the file with this number is seen.
pub fn view(ino: u64) -> FileView {
    named(format!("/srv/data/segment-{ino:06}").as_bytes())
}

pub fn named(path: &[u8]) -> FileView {
    FileView {
        path: Some(path.to_vec()),
        from_root: true,
        mount: Some(b"/srv".to_vec()),
        fs_type: Some("ext4".to_owned()),
        dev: Some(8 << 20 | 17),
        dev_name: Some("sdb1".to_owned()),
        deleted: false,
    }
}

pub fn failed(ino: u64, range: ByteRange, errno: Errno) -> FactKind {
    FactKind::WriteFailed(WriteFailed {
        inode: inode(ino),
        range: Some(range),
        errno,
        submitted: None,
        eviction_watched: true,
        writer: Some(task(77, b"kworker/u8:2")),
        file: view(ino),
    })
}

pub fn written(ino: u64, range: ByteRange) -> FactKind {
    FactKind::WriteOk(WriteOk {
        inode: inode(ino),
        range,
    })
}

pub fn evicted(ino: u64, range: ByteRange) -> FactKind {
    FactKind::Evicted(Evicted {
        inode: inode(ino),
        range,
    })
}

pub fn discarded(ino: u64, range: ByteRange) -> FactKind {
    FactKind::Discarded(Discarded {
        inode: inode(ino),
        range,
    })
}

/// msync of the whole file returns.
pub fn synced(ino: u64, who: Task, error: Option<Errno>) -> FactKind {
    FactKind::SyncReturn(SyncReturn {
        inode: inode(ino),
        file: Some(description(ino, &who)),
        call: Call::Msync,
        id: CallId(ino),
        range: pages(0, 1 << 20),
        error,
        pending: false,
        task: who,
        file_view: view(ino),
    })
}

pub fn told(ino: u64, who: Task) -> FactKind {
    FactKind::Told(Told {
        inode: inode(ino),
        file: description(ino, &who),
        errno: Errno::EIO,
        task: who,
    })
}

/// Each process has opened each file once.
fn description(ino: u64, who: &Task) -> FileId {
    FileId(0xffff_8880_0000_0000 + ino * 100_000 + u64::from(who.process.pid))
}
