//! Writes a record as `msync-trace record` does, of facts and incidents that it makes up, and says what
//! is stored: a line `stored FACTS INCIDENTS` whenever that changes. For tests that kill it.
//!
//!     cargo run --example record_generated -- FILE [INCIDENTS]
//!
//! Without a number it goes on until its standard input ends.

use std::{
    env,
    io::{self, Write as _},
    path::Path,
    thread,
    time::Duration,
};

use msync_trace::{
    enrich::{Enricher, look_at_clocks, machine},
    model::{
        ByteRange, Call, Coverage, Errno, Evidence, Fact, FactKind, FileSystemId, FileView,
        InMemory, Incident, IncidentId, InodeKey, ProcessId, Task, ToldWho, WriteFailed,
    },
    schema::{Clock, Filters, Start},
    store::{Kept, Limits, Recorder, RunHeader},
};

/// Facts for each incident: a prime number.
const FACTS: u64 = 13;

#[allow(dead_code, reason = "a test has it as a module")]
fn main() {
    let mut arguments = env::args().skip(1);
    let file = arguments.next().expect("the record to write");
    let kept = match arguments.next() {
        Some(most) => {
            let most: u64 = most.parse().unwrap();
            write(Path::new(&file), |number| number <= most)
        }
        None => {
            let input = thread::spawn(|| io::copy(&mut io::stdin(), &mut io::sink()));
            write(Path::new(&file), |_| !input.is_finished())
        }
    };
    std::process::exit(i32::from(kept.failed));
}

/// Writes incidents, with the facts of each, as long as the next one is wanted.
pub fn write(path: &Path, wanted: impl Fn(u64) -> bool) -> Kept {
    let say = |message: &str| eprintln!("{message}");
    let mut recorder =
        Recorder::open(path, Limits::default(), look_at_clocks, Box::new(say)).unwrap();
    let (mono, wall) = look_at_clocks();
    let clock = Clock::new(mono, wall);
    recorder.begin(header(&clock)).unwrap();
    let enricher = Enricher::below(Path::new("/nonexistent"));
    let mut said = (0, 0);
    for number in (1..).take_while(|number| wanted(*number)) {
        for page in 0..FACTS {
            recorder.fact(failed(number, page));
        }
        recorder.record(&enricher.incident(&incident(number), &clock), true);
        recorder.flush();
        said = say_what_is_stored(&recorder, said);
        thread::sleep(Duration::from_millis(1));
    }
    let kept = recorder.finish();
    println!("stored {} {}", kept.facts, kept.incidents);
    kept
}

fn say_what_is_stored(recorder: &Recorder, said: (u64, u64)) -> (u64, u64) {
    let stored = recorder.stored();
    if stored != said {
        println!("stored {} {}", stored.0, stored.1);
        io::stdout().flush().unwrap();
    }
    stored
}

fn header(clock: &Clock) -> RunHeader {
    let machine = machine();
    let (began, began_wall) = look_at_clocks();
    RunHeader {
        began,
        began_wall,
        start: Start {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            kernel: machine.kernel,
            boot_id: machine.boot_id,
            host: machine.host,
            tier: "fentry".to_owned(),
            hooks: Vec::new(),
            wall_minus_mono_ns: clock.offset_now(),
            calls: vec![Call::Msync],
            filters: Filters::default(),
            command: None,
        },
        include_async: false,
        input: None,
    }
}

/// A file.
pub fn inode(number: u64) -> InodeKey {
    InodeKey {
        fs: FileSystemId::Uuid([7; 16]),
        ino: number,
        generation: 1,
        subvolume: 0,
    }
}

fn view(number: u64) -> FileView {
    FileView {
        path: Some(format!("/data/{number}").into_bytes()),
        from_root: true,
        fs_type: Some("ext4".to_owned()),
        dev: Some(8 << 20 | 1),
        dev_name: Some("sda1".to_owned()),
        ..FileView::default()
    }
}

/// A page of it that could not be written, now.
pub fn failed(number: u64, page: u64) -> Fact {
    Fact {
        at: look_at_clocks().0,
        kind: FactKind::WriteFailed(WriteFailed {
            inode: inode(number),
            range: ByteRange::with_len(page * 8192, 4096),
            errno: Errno::EIO,
            submitted: None,
            eviction_watched: true,
            writer: None,
            file: view(number),
        }),
    }
}

/// An msync that lied about it, now.
pub fn incident(number: u64) -> Incident {
    let (now, _) = look_at_clocks();
    let range = ByteRange::with_len(0, 4096).unwrap_or(ByteRange::ALL);
    Incident {
        id: IncidentId(number),
        inode: inode(number),
        ranges: vec![range],
        errno: Errno::EIO,
        failed_at: now,
        last_failed_at: now,
        writer: None,
        synced_at: now,
        call: Call::Msync,
        requested: ByteRange::ALL,
        task: Task {
            process: ProcessId {
                pid: 4242,
                start_time: 1,
            },
            tid: 4242,
            uid: 26,
            comm: b"postgres".to_vec(),
            cgroup: 1,
            kernel_thread: false,
        },
        told: ToldWho::Nobody,
        coverage: Coverage::Inside,
        evidence: Evidence::Page,
        in_memory: InMemory::Yes,
        file: view(number),
        path_when_failed: None,
    }
}
