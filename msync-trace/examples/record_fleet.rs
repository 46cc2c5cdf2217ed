//! Makes the records of a fleet: what each host lost follows from its number, so that the answer to a
//! question over all of them is known.
//!
//!     cargo run --example record_fleet DIR [HOSTS]
//!
//! Each third host n loses n % 5 + 1 pages of one file, to ENOSPC where n is even, else to EIO, and
//! nobody is told; each fifteenth writes them after all.

#[path = "../tests/recorded/mod.rs"]
mod recorded;

use std::{path::Path, thread};

use msync_trace::model::Errno;
use recorded::{Run, S, failed, header, pages, synced, task, written};

/// A record waits for its disk: many at once wait together.
const THREADS: u64 = 16;

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let folder = arguments.next().expect("which DIR?");
    let hosts: u64 = arguments.next().map_or(1000, |argument| {
        let argument = argument.into_string().ok();
        argument
            .and_then(|it| it.parse().ok())
            .expect("HOSTS must be a number")
    });
    let folder = Path::new(&folder);
    thread::scope(|scope| {
        for nth in 0..THREADS {
            scope.spawn(move || {
                let own = (0..hosts).filter(|host| host % THREADS == nth);
                own.for_each(|host| record(folder, host));
            });
        }
    });
}

fn record(folder: &Path, host: u64) {
    let name = format!("host{host:04}");
    let mut run = Run::begin(&folder.join(format!("{name}.db")), header(&name));
    if host.is_multiple_of(3) {
        let lost = pages(0, host % 5 + 1);
        let errno = match host % 2 {
            0 => Errno::ENOSPC,
            _ => Errno::EIO,
        };
        run.fact(S, failed(host, lost, errno));
        run.fact(2 * S, synced(host, task(4242, b"postgres"), None));
        if host.is_multiple_of(15) {
            run.fact(3 * S, written(host, lost));
        }
    }
    run.end();
}
