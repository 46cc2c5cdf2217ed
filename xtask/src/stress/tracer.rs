//! msync-trace as a child whose output goes to a file: it never waits for us.

use std::{
    fs::{self, File},
    io::{Read, Seek},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// How long attaching and ending may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// It runs, and is attached.
pub struct Tracer {
    child: Child,
    out: File,
    errors: File,
}

/// What it said.
pub struct Report {
    /// The incidents.
    pub incidents: Vec<Value>,
    /// The stop record.
    pub stop: Value,
    /// Its standard error.
    pub complaints: String,
    /// Most memory that was resident, MiB.
    pub peak_mib: f64,
}

impl Tracer {
    /// Starts it, to report what is lost below a directory, with further arguments of `trace`; waits
    /// until it is attached.
    pub fn start(program: &Path, below: &Path, more: &[&str]) -> Result<Self> {
        Self::spawn(program, below, more)?.attached()
    }

    /// The same, keeping everything in a record.
    pub fn record(program: &Path, record: &Path, below: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg("record").arg(record);
        Self::run(command, below, &[])?.attached()
    }

    fn attached(self) -> Result<Self> {
        let mut tracer = self;
        let deadline = Instant::now() + PATIENCE;
        while !tracer.said()?.contains("\"type\":\"start\"") {
            if tracer.child.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("msync-trace did not attach: {}", tracer.complaints()?);
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(tracer)
    }

    /// Starts it, and does not wait.
    pub fn spawn(program: &Path, below: &Path, more: &[&str]) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg("trace");
        Self::run(command, below, more)
    }

    fn run(mut command: Command, below: &Path, more: &[&str]) -> Result<Self> {
        let (out, errors) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let program = command.get_program().to_owned();
        let child = command
            .args(["-o", "json", "--path"])
            .arg(below)
            .args(more)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(errors.try_clone()?)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Self { child, out, errors })
    }

    /// As `kill -9` does it.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ctrl-C, and everything that it said.
    pub fn stop(mut self) -> Result<Report> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak_kib: f64 = peak
            .and_then(|line| line.split_whitespace().next())
            .context("no VmHWM")?
            .parse()?;
        // SAFETY: our own child, not yet waited for.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGINT) };
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("msync-trace does not end");
            }
            thread::sleep(Duration::from_millis(5));
        }
        let mut incidents = Vec::new();
        let mut stop = Value::Null;
        for line in self.said()?.lines() {
            let record: Value = serde_json::from_str(line).context("not a line of JSON")?;
            match record["type"].as_str() {
                Some("incident") => incidents.push(record),
                Some("stop") => stop = record,
                _ => {}
            }
        }
        if stop.is_null() {
            bail!("msync-trace ended without a word: {}", self.complaints()?);
        }
        Ok(Report {
            incidents,
            stop,
            complaints: self.complaints()?,
            peak_mib: peak_kib / 1024.0,
        })
    }

    fn said(&mut self) -> Result<String> {
        read_all(&mut self.out)
    }

    fn complaints(&mut self) -> Result<String> {
        read_all(&mut self.errors)
    }
}

/// From the beginning. The child writes with the same offset, so that is put back at the end.
fn read_all(file: &mut File) -> Result<String> {
    let mut file = File::open(format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(file)
    ))?;
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Report {
    /// How many incidents name the bytes.
    pub fn with_ranges(&self) -> usize {
        let exact = |incident: &&Value| incident["evidence"] == "page";
        self.incidents.iter().filter(exact).count()
    }

    /// How often something could not be seen.
    pub fn lost(&self) -> u64 {
        let entries = self.stop["lost"].as_array().into_iter().flatten();
        entries.filter_map(|entry| entry["count"].as_u64()).sum()
    }

    /// What it could not see for one cause.
    pub fn lost_by(&self, cause: &str) -> u64 {
        let entries = self.stop["lost"].as_array().into_iter().flatten();
        entries
            .filter(|entry| entry["cause"] == cause)
            .filter_map(|entry| entry["count"].as_u64())
            .sum()
    }

    /// The causes, for people.
    pub fn causes(&self) -> String {
        let entries = self.stop["lost"].as_array().into_iter().flatten();
        let causes: Vec<String> = entries
            .map(|entry| {
                let cause = entry["cause"].as_str().unwrap_or("?");
                format!("{cause} {}", entry["count"])
            })
            .collect();
        if causes.is_empty() {
            "nothing lost".to_owned()
        } else {
            causes.join(", ")
        }
    }

    /// A run that lost something must not call itself complete.
    pub fn honest(&self) -> Result<()> {
        let complete = self.stop["complete"] == true;
        if complete != (self.lost() == 0) {
            bail!("complete is {complete}, and there is: {}", self.causes());
        }
        Ok(())
    }
}

/// How many eBPF programs there are in the kernel.
pub fn programs_in_kernel() -> usize {
    /// `BPF_PROG_GET_NEXT_ID` (include/uapi/linux/bpf.h).
    const PROG_GET_NEXT_ID: libc::c_long = 11;
    let mut ids = [0u32; 3];
    let mut count = 0;
    // SAFETY: the attribute is { start_id, next_id, open_flags }, and the kernel fills next_id.
    while unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_GET_NEXT_ID,
            ids.as_mut_ptr(),
            size_of_val(&ids),
        )
    } == 0
    {
        ids[0] = ids[1];
        count += 1;
    }
    count
}
