//! Made-up facts of a storm of write failures, for measurements.

use msync_trace::model::*;

const INODES: u64 = 2048;
/// A write request of 64 pages.
const REQUEST: u64 = 64 * 4096;

/// Makes facts, the same ones every time.
pub struct Storm {
    seed: u64,
    now: u64,
    /// How far the failures of each inode have come.
    reached: Vec<u64>,
    /// The inode that write-back is busy with, and for how many requests more.
    current: u64,
    left: u64,
}

impl Storm {
    pub fn new() -> Self {
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
    pub fn next_fact(&mut self) -> Fact {
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
