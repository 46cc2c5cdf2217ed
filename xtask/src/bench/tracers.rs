//! The programs that are compared, each started and waited for until it is attached.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{paths, scenarios::volume};

/// bpftrace says that it starts to attach, not that it is done.
const ATTACHING: Duration = Duration::from_millis(500);

/// Who looks on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Nobody.
    Nobody,
    /// msync-trace.
    Tool,
    /// A bpftrace script: its name in the table, and the script.
    Script(&'static str, &'static str),
}

impl Who {
    /// As the table calls it.
    pub fn name(&self) -> &str {
        match self {
            Who::Nobody => "untraced",
            Who::Tool => "msync-trace",
            Who::Script(name, _) => name,
        }
    }
}

/// A program with nothing in it, on the hooks that msync-trace uses for a sync call.
pub fn empty(tier: &str) -> Who {
    let script = match tier {
        "fentry" => "kfunc:vfs_fsync_range { } kretfunc:vfs_fsync_range { }",
        "kprobe" => "kprobe:vfs_fsync_range { } kretprobe:vfs_fsync_range { }",
        _ => "tracepoint:raw_syscalls:sys_exit { }",
    };
    Who::Script("empty bpftrace program, same hook", script)
}

/// What one would write in a minute: counts what every msync returned.
pub const NAIVE: Who = Who::Script(
    "naive bpftrace script",
    "tracepoint:syscalls:sys_exit_msync { @[pid, args->ret] = count(); }",
);

/// A tracer that is attached.
pub struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// Start to attached.
    pub took: Duration,
    /// msync-trace's start record.
    pub start: Value,
}

/// bpftrace looks tracepoints up in tracefs, msync-trace does not need it. Seen by this process and
/// its children only.
pub fn mount_tracefs() {
    let at = Path::new("/sys/kernel/tracing");
    if !at.join("events").exists() {
        // If it fails, the table says what bpftrace said.
        let _ = volume::mount("tracefs", at, "tracefs", 0, "");
    }
}

/// Starts msync-trace.
pub fn start_tool(program: &Path) -> Result<Running> {
    let mut command = Command::new(program);
    command.args(["trace", "-o", "json"]);
    let mut running = spawn(command, "\"start\"")?;
    running.start = serde_json::from_str(running.start.as_str().unwrap_or_default())?;
    Ok(running)
}

/// The same, with everything kept in a record.
pub fn start_record(program: &Path, record: &Path) -> Result<Running> {
    let mut command = Command::new(program);
    command.arg("record").arg(record).args(["-o", "json"]);
    spawn(command, "\"start\"")
}

/// Starts a bpftrace script that prints `attached`.
pub fn start_script(script: &str) -> Result<Running> {
    let Some(bpftrace) = paths::find_program("bpftrace") else {
        bail!("bpftrace is not installed");
    };
    let mut command = Command::new(bpftrace);
    command.args(["-e", script]);
    spawn(command, "attached")
}

/// Starts whoever it is; `None` for nobody.
pub fn start(who: &Who, program: &Path) -> Result<Option<Running>> {
    Ok(match who {
        Who::Nobody => None,
        Who::Tool => Some(start_tool(program)?),
        Who::Script(_, script) => {
            let script = format!("BEGIN {{ printf(\"attached\\n\"); }} {script}");
            let running = start_script(&script)?;
            thread::sleep(ATTACHING);
            Some(running)
        }
    })
}

fn spawn(mut command: Command, sign: &str) -> Result<Running> {
    let program = command.get_program().to_string_lossy().into_owned();
    let errors = tempfile::tempfile()?;
    let begin = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors.try_clone()?)
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let stdout = child.stdout.take().context("no standard output")?;
    let mut running = Running {
        child,
        stdout: BufReader::new(stdout),
        took: Duration::ZERO,
        start: Value::Null,
    };
    let mut line = String::new();
    while !line.contains(sign) {
        line.clear();
        if running.stdout.read_line(&mut line)? == 0 {
            let mut said = String::new();
            let mut errors = errors;
            std::io::Seek::rewind(&mut errors)?;
            errors.read_to_string(&mut said)?;
            bail!(
                "{program} ended: {}",
                said.lines()
                    .rfind(|line| line.contains("ERROR"))
                    .or(said.lines().last())
                    .unwrap_or_default()
            );
        }
    }
    running.took = begin.elapsed();
    running.start = Value::String(line);
    Ok(running)
}

impl Running {
    /// Resident memory, in MiB.
    pub fn resident(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: f64 = line
            .and_then(|line| line.split_whitespace().next())
            .context("no VmRSS")?
            .parse()?;
        Ok(kib / 1024.0)
    }

    /// Processor time so far, all threads, in milliseconds: sum over the threads' `schedstat`,
    /// which counts nanoseconds where `stat` counts ticks.
    pub fn processor_ms(&self) -> Result<f64> {
        let mut sum = 0.0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let first = text.split(' ').next().unwrap_or_default();
            sum += first.parse::<f64>()? / 1e6;
        }
        Ok(sum)
    }

    /// Ctrl-C; the records that msync-trace had still to print.
    pub fn stop(mut self) -> Result<Vec<Value>> {
        // SAFETY: our own child, not yet waited for.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGINT) };
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest)?;
        self.child.wait()?;
        Ok(rest
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Which tier msync-trace uses here, and which hooks it wants but does not get.
pub fn tier(program: &Path) -> Result<(String, Vec<String>)> {
    let running = start_tool(program)?;
    let tier = running.start["tier"].as_str().unwrap_or("?").to_owned();
    let hooks = running.start["hooks"].as_array().into_iter().flatten();
    let missing = hooks
        .filter(|hook| hook["state"] == "unavailable")
        .filter_map(|hook| Some(hook["name"].as_str()?.to_owned()))
        .collect();
    running.stop()?;
    Ok((tier, missing))
}
