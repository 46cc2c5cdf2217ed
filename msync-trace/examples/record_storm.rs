//! Makes a record of a storm of write failures, through the correlator and the real writer, to measure
//! what reading it takes.
//!
//!     cargo run --release --example record_storm FILE [FACTS]

#[path = "../tests/recorded/mod.rs"]
mod recorded;
#[path = "storm/mod.rs"]
mod storm;

use std::path::PathBuf;

use storm::Storm;

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let file = PathBuf::from(arguments.next().expect("which FILE?"));
    let facts = arguments.next().map_or(10_000_000, |argument| {
        let argument = argument.into_string();
        argument
            .ok()
            .and_then(|it| it.parse().ok())
            .expect("FACTS must be a number")
    });
    let mut storm = Storm::new();
    let mut run = recorded::Run::begin(&file, recorded::header("db1"));
    run.keep_records = false;
    for _ in 0..facts {
        run.take(storm.next_fact());
    }
    run.end();
}
