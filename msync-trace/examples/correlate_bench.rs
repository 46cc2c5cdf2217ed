//! Facts per second through the correlator, on one core, as one line of JSON.
//!
//!     cargo run --release --example correlate_bench [FACTS]
//!
//! The facts are made up, the same ones every time: storms of contiguous failures over many
//! inodes, mixed with successes, re-dirtying, evictions, errors handed out and syncs, some of
//! which are false. They are made before the clock runs, in batches that fit in the
//! processor's cache, as facts that are decoded one by one do. The clock is this thread's
//! processor time: other work on the machine counts as little as possible.

use std::{hint::black_box, time::Duration};

use msync_trace::{
    correlate::{Config, Correlator},
    model::*,
};

const BATCH: usize = 1 << 9;
const INODES: u64 = 2048;
/// A write request of 64 pages.
const REQUEST: u64 = 64 * 4096;

fn main() {
    let facts = std::env::args().nth(1).map_or(10_000_000, |argument| {
        argument.parse().expect("FACTS must be a number")
    });
    let mut storm = Storm::new();
    let mut correlator = Correlator::new(Config::default());
    let mut batch = Vec::with_capacity(BATCH);
    let mut out = Vec::new();
    let (mut done, mut verdicts) = (0_u64, 0_u64);
    let mut busy = Duration::ZERO;
    while done < facts {
        batch.clear();
        batch.extend((0..BATCH).map(|_| storm.next_fact()));
        let start = processor_time();
        for fact in &batch {
            correlator.apply(fact, &mut out);
            verdicts += out.len() as u64;
            black_box(&out);
            out.clear();
        }
        busy += processor_time().saturating_sub(start);
        done += batch.len() as u64;
    }
    let per_second = done as f64 / busy.as_secs_f64();
    let totals = correlator.totals();
    println!(
        "{{\"facts\":{done},\"seconds\":{:.3},\"facts_per_second\":{per_second:.0},\
         \"verdicts\":{verdicts},\"incidents\":{},\"complete\":{}}}",
        busy.as_secs_f64(),
        totals.incidents,
        correlator.complete(),
    );
}

fn processor_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Makes facts, the same ones every time.
struct Storm {
    seed: u64,
    now: u64,
    /// How far the failures of each inode have come.
    reached: Vec<u64>,
    /// The inode that write-back is busy with, and for how many requests more.
    current: u64,
    left: u64,
}

impl Storm {
    fn new() -> Self {
        Self {
            seed: 0x9e37_79b9_7f4a_7c15,
            now: 1_000_000_000,
            reached: vec![0; INODES as usize],
            current: 0,
            left: 0,
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % below
    }

    /// Write-back works through one inode for a while, as the kernel's flusher does; everything
    /// else comes from anywhere.
    fn next_fact(&mut self) -> Fact {
        self.now += 1 + self.random(1000);
        let at = MonoTime(self.now);
        if self.left == 0 {
            self.left = 1 + self.random(64);
            self.current = self.random(INODES);
        }
        let anywhere = self.random(INODES);
        let kind = match self.random(1000) {
            0..700 => {
                self.left -= 1;
                self.write_fails(self.current)
            }
            700..850 => FactKind::WriteOk(WriteOk {
                inode: inode(anywhere),
                range: self.somewhere(anywhere),
            }),
            850..900 => FactKind::Redirtied(Redirtied {
                inode: inode(anywhere),
                range: self.somewhere(anywhere),
            }),
            900..940 => FactKind::Evicted(Evicted {
                inode: inode(anywhere),
                range: self.somewhere(anywhere),
            }),
            940..950 => FactKind::Told(Told {
                inode: inode(anywhere),
                file: FileId(anywhere * 16 + self.random(4)),
                errno: Errno::EIO,
                task: task(self.random(4)),
            }),
            950..960 => {
                self.reached[anywhere as usize] = 0;
                FactKind::Discarded(Discarded {
                    inode: inode(anywhere),
                    range: ByteRange::ALL,
                })
            }
            _ => self.sync_returns(anywhere),
        };
        Fact { at, kind }
    }

    fn write_fails(&mut self, ino: u64) -> FactKind {
        let start = self.reached[ino as usize];
        self.reached[ino as usize] += REQUEST;
        FactKind::WriteFailed(WriteFailed {
            inode: inode(ino),
            range: ByteRange::with_len(start, REQUEST),
            errno: Errno::EIO,
            submitted: Some(MonoTime(self.now.saturating_sub(500))),
            eviction_watched: true,
            writer: Some(task(1000)),
            file: view(ino),
        })
    }

    /// One request's worth of what has failed so far.
    fn somewhere(&mut self, ino: u64) -> ByteRange {
        let requests = self.reached[ino as usize] / REQUEST;
        let start = self.random(requests.max(1)) * REQUEST;
        ByteRange::with_len(start, REQUEST).unwrap_or(ByteRange::ALL)
    }

    fn sync_returns(&mut self, ino: u64) -> FactKind {
        let refused = self.random(2) == 0;
        FactKind::SyncReturn(SyncReturn {
            inode: inode(ino),
            file: Some(FileId(ino * 16)),
            call: Call::Msync,
            id: CallId(self.now),
            range: ByteRange::ALL,
            error: refused.then_some(Errno::EIO),
            pending: false,
            task: task(self.random(4)),
            file_view: view(ino),
        })
    }
}

fn inode(ino: u64) -> InodeKey {
    InodeKey {
        fs: FileSystemId::Uuid([1; 16]),
        ino,
        generation: 1,
        subvolume: 0,
    }
}

fn task(number: u64) -> Task {
    Task {
        process: ProcessId {
            pid: number as u32,
            start_time: number,
        },
        tid: number as u32,
        uid: 0,
        comm: b"kworker/u8:3".to_vec(),
        cgroup: 1,
        kernel_thread: true,
    }
}

fn view(ino: u64) -> FileView {
    FileView {
        path: Some(format!("/srv/data/segment-{ino:06}").into_bytes()),
        from_root: true,
        mount: None,
        fs_type: Some("ext4".to_owned()),
        dev: Some(8 << 20),
        dev_name: Some("sda".to_owned()),
        deleted: false,
    }
}
