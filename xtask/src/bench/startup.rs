//! From start to attached; what is used while nothing happens.

use std::{path::Path, thread, time::Duration};

use anyhow::Result;

use super::{
    report::Row,
    tracers::{self, Running, Who},
};

/// By then nothing is left to do of the beginning.
const BEGUN: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(5);

/// Three rows.
pub fn measure(program: &Path, tier: &str, quick: bool) -> Result<Vec<Row>> {
    let Who::Script(_, empty) = tracers::empty(tier) else {
        unreachable!("the empty program is a script")
    };
    // Attached last, so it fires when the rest is there.
    let script = format!("{empty} interval:ms:1 {{ printf(\"attached\\n\"); }}");
    let mut tool = Vec::new();
    let mut bpftrace = Ok(Vec::new());
    for _ in 0..if quick { 2 } else { 10 } {
        let running = tracers::start_tool(program)?;
        tool.push(running.took.as_secs_f64() * 1e3);
        running.stop()?;
        if let Ok(times) = &mut bpftrace {
            match tracers::start_script(&script) {
                Ok(running) => {
                    times.push(running.took.as_secs_f64() * 1e3);
                    running.stop()?;
                }
                Err(error) => bpftrace = Err(format!("{error:#}")),
            }
        }
    }
    let (resident, busy) = idle(tracers::start_tool(program)?)?;
    let folder = tempfile::tempdir()?;
    let record = tracers::start_record(program, &folder.path().join("idle.db"))?;
    let (record_resident, record_busy) = idle(record)?;
    let both = |trace, record| {
        vec![
            ("msync-trace".to_owned(), Ok(vec![trace])),
            ("msync-trace record".to_owned(), Ok(vec![record])),
        ]
    };
    Ok(vec![
        Row::of(
            "start to attached",
            "ms",
            vec![
                ("msync-trace".to_owned(), Ok(tool)),
                ("empty bpftrace script".to_owned(), bpftrace),
            ],
        ),
        Row::of(
            "resident memory, idle",
            "MiB",
            both(resident, record_resident),
        ),
        Row::of(
            "processor time, idle",
            "% of a core",
            both(busy, record_busy),
        ),
    ])
}

/// Resident memory, MiB, and processor time, percent.
fn idle(running: Running) -> Result<(f64, f64)> {
    thread::sleep(BEGUN);
    let before = running.processor_ms()?;
    thread::sleep(IDLE);
    let busy = (running.processor_ms()? - before) / IDLE.as_secs_f64() / 10.0;
    let resident = running.resident()?;
    running.stop()?;
    Ok((resident, busy))
}
