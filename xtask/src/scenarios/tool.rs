//! `msync-trace trace -o json` as a child, and its JSON lines. The one place that knows the names
//! of the JSON fields.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::program::name;
use super::volume::{Kind, Volume, kernel_version};
use super::world::{Claim, Skip, StorageClaim, Told};
use crate::faults::BLOCK;

/// Attaching takes long under software emulation: the kernel's verifier reads all programs.
const START: Duration = Duration::from_secs(180);
/// The D script is ten times as much to read.
const START_DTRACE: Duration = Duration::from_secs(600);
/// The largest pipe that root may have without more ado.
const PIPE_BYTES: libc::c_int = 1 << 20;
/// An incident is shown, and its bytes are saved, that long after the call at the latest: two seconds
/// on a machine that has nothing else to do.
const VERIFIED: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(30);

/// How the tool is started.
#[derive(Clone, Debug)]
pub struct Tool {
    /// The program.
    pub program: PathBuf,
    /// `--tier`, unless `auto`.
    pub tier: String,
    /// Where it has its facts from.
    pub source: Source,
    /// `--verify`, and `--rescue` into a directory of its own.
    pub verify: bool,
}

/// Where the tool has its facts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// eBPF programs.
    Ebpf,
    /// The D script, run by this dtrace.
    Dtrace(PathBuf),
}

/// The tool, attached.
pub struct Running {
    child: Child,
    stdout: ChildStdout,
    stderr: File,
    seen: Vec<u8>,
    /// Where it saves lost bytes.
    vault: Option<tempfile::TempDir>,
}

/// What it said from start to stop.
pub struct Report {
    /// The incidents, as they were printed.
    pub incidents: Vec<Value>,
    /// What befell disks and filesystems.
    pub storage_errors: Vec<Value>,
    /// What it saved.
    pub saved: Vec<Saved>,
    /// The stop record.
    pub stop: Value,
    /// Exit status.
    pub status: Option<i32>,
    /// All lines and the standard error, for people.
    pub transcript: String,
}

/// A directory of saved bytes.
pub struct Saved {
    /// Its manifest.
    pub manifest: Value,
    /// Bytes as memory had them, by the place of the first in the file.
    pub memory: Vec<(u64, Vec<u8>)>,
}

impl Saved {
    fn all(vault: &Path) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(vault)? {
            all.push(Self::read(&entry?.path())?);
        }
        Ok(all)
    }

    fn read(directory: &Path) -> Result<Self> {
        let manifest = std::fs::read(directory.join("manifest.json"))
            .with_context(|| format!("what was saved in {}", directory.display()))?;
        let manifest: Value = serde_json::from_slice(&manifest)?;
        let mut memory = Vec::new();
        for saved in manifest["saved"].as_array().into_iter().flatten() {
            let file = saved["memory_file"].as_str().unwrap_or_default();
            let start = saved["start"].as_u64().unwrap_or_default();
            memory.push((start, std::fs::read(directory.join(file))?));
        }
        Ok(Self { manifest, memory })
    }

    /// The page of this number, if it was saved whole.
    pub fn page(&self, page: u64) -> Option<&[u8]> {
        let wanted = page * BLOCK as u64;
        self.memory.iter().find_map(|(start, bytes)| {
            let from = usize::try_from(wanted.checked_sub(*start)?).ok()?;
            bytes.get(from..from + BLOCK)
        })
    }
}

impl Report {
    /// It has seen everything, and every hook was attached. Newer kernels skip programs that were
    /// preempted, on a busy machine now and then: it must say so, and what it reports has to be right
    /// all the same.
    pub fn complete(&self) -> Result<()> {
        self.complete_on(kernel_version())
    }

    fn complete_on(&self, kernel: (u32, u32)) -> Result<()> {
        let nothing = |list: &str, excused: &str| {
            let list = self.stop[list].as_array();
            list.is_some_and(|all| all.iter().all(|one| one["cause"] == excused))
        };
        let excused = match kernel >= PREEMPTED {
            true => "program_skipped",
            false => "",
        };
        let hooks = self.stop["missing_hooks"].as_array();
        // No run of dtrace on Linux calls itself complete.
        let hooked =
            hooks.is_some_and(|hooks| hooks.iter().all(|hook| hook["name"] == "dtrace.probes"));
        ensure!(
            self.stop["complete"] == true || (nothing("lost", excused) && hooked),
            "the run is not complete: {}",
            self.stop
        );
        Ok(())
    }
}

/// Whether this kernel gives the processor to another thread in the middle of a program.
pub fn programs_are_preempted() -> bool {
    kernel_version() >= PREEMPTED
}

/// From this kernel on programs are preempted (docs/how-it-works.md).
const PREEMPTED: (u32, u32) = (6, 19);

impl Tool {
    /// Starts it and waits until it is attached.
    pub fn start(&self, more: &[&str]) -> Result<Running> {
        let mut command = Command::new(&self.program);
        command.args(["trace", "-o", "json"]);
        if self.tier != "auto" {
            command.args(["--tier", &self.tier]);
        }
        if let Source::Dtrace(program) = &self.source {
            command
                .args(["--source", "dtrace", "--dtrace-path"])
                .arg(program);
        }
        let vault = self.verify.then(tempfile::tempdir).transpose()?;
        if let Some(vault) = &vault {
            command.arg("--verify").arg("--rescue").arg(vault.path());
        }
        let stderr = tempfile::tempfile()?;
        command
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr.try_clone()?);
        // SAFETY: prctl is safe between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        let stdout = child.stdout.take().context("no standard output")?;
        // Room for everything that it says while nobody reads: it must never wait for us.
        // SAFETY: our own descriptor.
        unsafe { libc::fcntl(stdout.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES) };
        let mut running = Running {
            child,
            stdout,
            stderr,
            seen: Vec::new(),
            vault,
        };
        let patience = match self.source {
            Source::Ebpf => START,
            Source::Dtrace(_) => START_DTRACE,
        };
        running.wait_for("start", patience, |_| true)?;
        Ok(running)
    }

    /// Starts it without the modules of these file systems, loads them, and waits until each is
    /// hooked.
    pub fn start_before_modules(&self, kinds: &[Kind]) -> Result<Running> {
        let modprobe = |arguments: &[&str]| Command::new("modprobe").args(arguments).output();
        let modules: BTreeSet<&str> = kinds.iter().map(|kind| kind.module()).collect();
        for module in &modules {
            modprobe(&["-q", "-r", module]).context("modprobe")?;
            if Path::new("/sys/module").join(module).exists() {
                bail!(Skip(format!("{module} is built in, or in use")));
            }
        }
        let mut running = self.start(&[])?;
        for module in &modules {
            let loaded = modprobe(&[module]).context("modprobe")?;
            if !loaded.status.success() {
                bail!(Skip(format!("this kernel has no module {module}")));
            }
        }
        let waits_for_one = |hook: &Value| {
            let module = hook["detail"].as_str().unwrap_or_default();
            hook["state"] == "waits_for_module" && modules.contains(module)
        };
        running.wait_for("hooks", START, |record| {
            let hooks = record["hooks"].as_array();
            hooks.is_some_and(|hooks| !hooks.iter().any(waits_for_one))
        })?;
        Ok(running)
    }
}

impl Running {
    /// Reads until there is a record of this type that is as wanted.
    fn wait_for(
        &mut self,
        record_type: &str,
        patience: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + patience;
        let is_it = |line: &[u8]| {
            serde_json::from_slice(line)
                .is_ok_and(|record: Value| record["type"] == record_type && wanted(&record))
        };
        while !self.seen.split(|&byte| byte == b'\n').any(is_it) {
            if !self.read_some(deadline)? {
                let status = self.child.wait()?;
                bail!(
                    "msync-trace ended before it was attached ({status}): {}",
                    self.said()
                );
            }
        }
        Ok(())
    }

    /// Waits a short while for the incident about this call. One that does not come is for the
    /// verdict to complain about.
    pub fn wait_for_incident(&mut self, claim: &Claim) -> Result<()> {
        let deadline = Instant::now() + VERIFIED;
        let is_it = |line: &[u8]| {
            serde_json::from_slice(line)
                .is_ok_and(|record: Value| record["type"] == "incident" && is_about(&record, claim))
        };
        while !self.seen.split(|&byte| byte == b'\n').any(is_it) {
            if !self.has_more(deadline) || !self.read_some(deadline)? {
                return Ok(());
            }
        }
        self.wait_for_rescue(&is_it, deadline);
        Ok(())
    }

    /// It says of each incident, when it has been shown, what was saved.
    fn wait_for_rescue(&mut self, is_it: &impl Fn(&[u8]) -> bool, deadline: Instant) {
        let line = self
            .seen
            .split(|&byte| byte == b'\n')
            .find(|line| is_it(line));
        let record: Option<Value> = line.and_then(|line| serde_json::from_slice(line).ok());
        let said = format!("incident {}: ", record.unwrap_or_default()["incident"]);
        while self.vault.is_some() && Instant::now() < deadline && !self.said().contains(&said) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it says something, or ends, before this time.
    fn has_more(&self, deadline: Instant) -> bool {
        let left = deadline
            .saturating_duration_since(Instant::now())
            .as_millis() as i32;
        let mut poll = libc::pollfd {
            fd: self.stdout.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd, valid during the call.
        unsafe { libc::poll(&raw mut poll, 1, left) != 0 }
    }

    /// False at the end of its output.
    fn read_some(&mut self, deadline: Instant) -> Result<bool> {
        if !self.has_more(deadline) {
            bail!("msync-trace is silent: {}", self.said());
        }
        let mut buffer = [0; 65536];
        let len = self.stdout.read(&mut buffer)?;
        self.seen.extend_from_slice(&buffer[..len]);
        Ok(len > 0)
    }

    fn said(&mut self) -> String {
        let mut said = String::from_utf8_lossy(&self.seen).into_owned();
        let mut errors = Vec::new();
        if self.stderr.rewind().is_ok() && self.stderr.read_to_end(&mut errors).is_ok() {
            said.push_str(&String::from_utf8_lossy(&errors));
        }
        said
    }

    /// Takes what it has said so far, so that it never waits for us.
    pub fn listen(&mut self) -> Result<()> {
        loop {
            let mut waiting: libc::c_int = 0;
            // SAFETY: waiting is a valid place for the result.
            unsafe { libc::ioctl(self.stdout.as_raw_fd(), libc::FIONREAD, &raw mut waiting) };
            if waiting == 0 || !self.read_some(Instant::now() + STOP)? {
                return Ok(());
            }
        }
    }

    /// Ctrl-C, then everything it still has to say.
    pub fn stop(mut self) -> Result<Report> {
        // SAFETY: our own child, not yet waited for.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGINT) };
        let deadline = Instant::now() + STOP;
        while self.read_some(deadline)? {}
        let status = self.child.wait()?.code();
        let transcript = self.said();
        let records = String::from_utf8_lossy(&self.seen)
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<Vec<Value>, _>>()
            .with_context(|| format!("not JSON lines: {transcript}"))?;
        let of_type = |wanted: &str| -> Vec<Value> {
            records
                .iter()
                .filter(|r| r["type"] == wanted)
                .cloned()
                .collect()
        };
        let stop = of_type("stop").pop().unwrap_or(Value::Null);
        if stop["complete"] != true {
            // Whether it is excused or not.
            println!("    this run is not complete: {}", stop["lost"]);
        }
        let saved = self.vault.as_ref().map(|vault| Saved::all(vault.path()));
        Ok(Report {
            saved: saved.transpose()?.unwrap_or_default(),
            incidents: of_type("incident"),
            storage_errors: of_type("storage_error"),
            stop,
            status,
            transcript,
        })
    }
}

impl Report {
    /// The incidents on files below a folder.
    pub fn incidents_below(&self, folder: &Path) -> Vec<Value> {
        let folder = format!("{}/", folder.display());
        let of_it = |incident: &&Value| {
            let path = incident["file"]["path"].as_str().unwrap_or_default();
            path.starts_with(&folder)
        };
        self.incidents.iter().filter(of_it).cloned().collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The pages an incident names.
pub fn pages(incident: &Value) -> BTreeSet<u64> {
    let block = BLOCK as u64;
    let ranges = incident["ranges"].as_array().into_iter().flatten();
    ranges
        .filter_map(|range| Some((range["start"].as_u64()?, range["end"].as_u64()?)))
        .flat_map(|(start, end)| start / block..end.div_ceil(block))
        .collect()
}

/// Whether this incident is about that call on that file.
pub fn is_about(incident: &Value, claim: &Claim) -> bool {
    let path = incident["file"]["path"].as_str().unwrap_or_default();
    let (begin, end) = claim.outcome.time;
    let at = incident["mono_ns"].as_u64().unwrap_or(0);
    Path::new(path).ends_with(&claim.file)
        && (begin..=end).contains(&at)
        && incident["process"]["pid"].as_i64() == Some(i64::from(claim.outcome.pid))
        && incident["call"] == claim.call
}

/// Whether this record is what the claim says.
pub fn is_about_storage(record: &Value, claim: &StorageClaim) -> bool {
    let (begin, end) = claim.time;
    let at = record["mono_ns"].as_u64().unwrap_or(0);
    let errno = claim.errno.map(i64::from);
    record["what"] == claim.what
        && record["device"] == claim.device
        && (begin..=end).contains(&at)
        && errno.is_none_or(|errno| record["error"]["number"] == errno)
        && (!claim.read_only || record["read_only"] == true)
}

/// Everything in which the incident is not what the NFS server was lied to about this file.
pub fn differences_at_server(incident: &Value, path: &Path, fs_type: &str) -> Vec<String> {
    let (file, process) = (&incident["file"], &incident["process"]);
    let expected = [
        ("path", &file["path"], json!(path.to_string_lossy())),
        ("fs_type", &file["fs_type"], json!(fs_type)),
        ("call", &incident["call"], json!("nfsd")),
        ("errno", &incident["error"]["number"], json!(libc::EIO)),
        ("comm", &process["comm"], json!("nfsd")),
        ("kernel_thread", &process["kernel_thread"], json!(true)),
    ];
    let mut wrong = wrong_words(expected);
    let told = &incident["told"];
    if told != "other" && told != "caller" {
        wrong.push(format!("told is {told}, expected other or caller"));
    }
    wrong
}

fn wrong_words<'a>(expected: impl IntoIterator<Item = (&'a str, &'a Value, Value)>) -> Vec<String> {
    expected
        .into_iter()
        .filter(|(_, said, wanted)| *said != wanted)
        .map(|(field, said, wanted)| format!("{field} is {said}, expected {wanted}"))
        .collect()
}

/// Where a program sees a file.
pub struct Place {
    mount: PathBuf,
    /// Below `/dev`.
    device: PathBuf,
}

impl Place {
    /// Of the files of a volume, if no server is between it and the programs.
    pub fn of(volume: &Volume) -> Option<Place> {
        let device = volume.device.path().strip_prefix("/dev").ok()?;
        (!volume.kind.is_served()).then(|| Place {
            mount: volume.path().to_owned(),
            device: device.to_owned(),
        })
    }
}

/// In which of mount and device the incident differs. A story that ends at once may have unmounted
/// before the tool came to look: then the mount is not known.
pub fn other_place(incident: &Value, place: &Place) -> Vec<String> {
    let (mount, device) = (&incident["file"]["mount"], &incident["file"]["device"]);
    let known = (!mount.is_null()).then(|| ("mount", mount, json!(place.mount.to_string_lossy())));
    let device = ("device", device, json!(place.device.to_string_lossy()));
    wrong_words(known.into_iter().chain([device]))
}

/// Whether its evidence is not what can be had.
pub fn other_evidence(incident: &Value, ranges: bool) -> Option<String> {
    let (said, wanted) = (&incident["evidence"], if ranges { "page" } else { "inode" });
    (said != wanted).then(|| format!("evidence is {said}, expected {wanted}"))
}

/// Everything in which the incident is not what the claim says, pages aside.
pub fn differences(incident: &Value, claim: &Claim, path: &Path, fs_type: &str) -> Vec<String> {
    let told = match claim.told {
        _ if claim.late && incident["told"] == "nobody" => "nobody",
        Told::Nobody => "nobody",
        Told::Other => "other",
        Told::Caller => "caller",
        Told::Pending => "pending",
    };
    let said = &incident["error"]["number"];
    let errno = claim
        .of_disk
        .filter(|own| *said == *own)
        .unwrap_or(claim.errno);
    let mut expected = vec![
        (
            "path",
            &incident["file"]["path"],
            Value::from(path.to_string_lossy().into_owned()),
        ),
        (
            "fs_type",
            &incident["file"]["fs_type"],
            Value::from(fs_type),
        ),
        ("errno", said, Value::from(errno)),
        (
            "errno",
            &incident["error"]["name"],
            Value::from(name(errno)),
        ),
        ("told", &incident["told"], Value::from(told)),
        (
            "coverage",
            &incident["coverage"],
            Value::from(claim.coverage),
        ),
        (
            "tid",
            &incident["process"]["tid"],
            Value::from(claim.outcome.tid),
        ),
        ("uid", &incident["process"]["uid"], Value::from(0)),
    ];
    let called = &incident["file"]["path_when_failed"];
    if let Some(before) = claim.called {
        let steps = Path::new(&claim.file).components().count();
        let base = path.ancestors().nth(steps).unwrap_or(path);
        let wanted = base.join(before);
        // As the disk has it, where the tool came to look after the story had unmounted it.
        let directory = base.file_name().unwrap_or_default();
        let on_disk = Path::new("/").join(directory).join(before);
        if *called != Value::from(on_disk.to_string_lossy()) {
            let wanted = Value::from(wanted.to_string_lossy());
            expected.push(("path_when_failed", called, wanted));
        }
    }
    if let Some(state) = claim.in_memory {
        expected.push(("in_memory", &incident["in_memory"], Value::from(state)));
    }
    wrong_words(expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios::program::Outcome;

    fn incident() -> Value {
        json!({
            "schema": 1, "type": "incident", "id": 1, "mono_ns": 150,
            "file": {"path": "/mnt/x/a", "fs_type": "ext4"},
            "ranges": [{"start": 16384, "end": 32768}, {"start": 40960, "end": 45056}],
            "error": {"number": 5, "name": "EIO"},
            "told": "caller", "coverage": "inside", "evidence": "page", "in_memory": "yes",
            "call": "msync", "process": {"pid": 10, "tid": 11, "comm": "victim", "uid": 0},
        })
    }

    fn claim() -> Claim {
        let outcome = Outcome {
            errno: 0,
            pid: 10,
            tid: 11,
            value: 0,
            time: (100, 200),
        };
        Claim::new("a", outcome, Told::Caller)
    }

    #[test]
    fn only_programs_skipped_by_a_newer_kernel_may_be_missing() {
        let stopped = |complete: bool, cause: &str, missing: Value| Report {
            saved: Vec::new(),
            storage_errors: Vec::new(),
            incidents: Vec::new(),
            stop: json!({
                "complete": complete,
                "lost": [{"cause": cause, "count": 1}],
                "missing_hooks": missing,
            }),
            status: None,
            transcript: String::new(),
        };
        let skipped = stopped(false, "program_skipped", json!([]));
        assert!(skipped.complete_on((7, 2)).is_ok());
        assert!(skipped.complete_on((6, 18)).is_err());
        let full = stopped(false, "error_ring_full", json!([]));
        assert!(full.complete_on((7, 2)).is_err());
        let unhooked = stopped(false, "program_skipped", json!([{"hook": "sync.exit"}]));
        assert!(unhooked.complete_on((7, 2)).is_err());
        let complete = stopped(true, "", json!([]));
        assert!(complete.complete_on((6, 18)).is_ok());
    }

    #[test]
    fn an_incident_that_says_what_happened_has_no_differences() {
        let incident = incident();
        assert!(is_about(&incident, &claim()));
        assert_eq!(pages(&incident), BTreeSet::from([4, 5, 6, 7, 10]));
        let path = Path::new("/mnt/x/a");
        assert_eq!(
            differences(&incident, &claim(), path, "ext4"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn every_wrong_word_is_named() {
        let mut incident = incident();
        incident["told"] = json!("nobody");
        incident["error"]["number"] = json!(28);
        let wrong = differences(&incident, &claim(), Path::new("/mnt/x/a"), "ext4");
        assert_eq!(
            wrong,
            [
                "errno is 28, expected 5",
                "told is \"nobody\", expected \"caller\"",
            ]
        );
        incident["process"]["pid"] = json!(12);
        assert!(!is_about(&incident, &claim()));
        incident["process"]["pid"] = json!(10);
        assert!(is_about(&incident, &claim()));
        incident["mono_ns"] = json!(99);
        assert!(!is_about(&incident, &claim()), "an earlier call");
    }
}
