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

#[path = "storm/mod.rs"]
mod storm;

use msync_trace::correlate::{Config, Correlator};
use storm::Storm;

const BATCH: usize = 1 << 9;

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
