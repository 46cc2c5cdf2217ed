//! From start to attached; what is used while nothing happens.

use std::{path::Path, thread, time::Duration};

use anyhow::Result;

use super::{
    report::Row,
    tracers::{self, Who},
};

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
    let running = tracers::start_tool(program)?;
    thread::sleep(Duration::from_secs(1));
    let before = running.processor_ms()?;
    thread::sleep(IDLE);
    let busy = (running.processor_ms()? - before) / IDLE.as_secs_f64() / 10.0;
    let resident = running.resident()?;
    running.stop()?;
    Ok(vec![
        Row::of(
            "start to attached",
            "ms",
            vec![
                ("msync-trace".to_owned(), Ok(tool)),
                ("empty bpftrace script".to_owned(), bpftrace),
            ],
        ),
        Row::alone("resident memory, idle", "MiB", vec![resident]),
        Row::alone("processor time, idle", "% of a core", vec![busy]),
    ])
}
