//! A tracer that is stopped, killed or replaced between a failure and the false success: one incident,
//! never none and never two. On disks that really refuse writes. Needs root, a loop device and mkfs;
//! says SKIPPED and why where they are missing. `MSYNC_TRACE_PROGRAM` names another program than that of
//! this build: in a guest without hardware virtualisation the release build is ten times as fast.
#![cfg(target_os = "linux")]

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver},
    },
    time::{Duration, Instant},
};

use aya::maps::{Array, Map, MapData};
use msync_trace::{
    check::scratch::{Failed, Scratch, ScratchError, ScratchFs},
    source::ebpf::pins::FOLDER,
};
use serde_json::Value;

/// Within which time what must come has to come.
const PATIENCE: Duration = Duration::from_secs(120);

/// So long is waited for a second incident that must not come.
const QUIET: Duration = Duration::from_millis(700);

/// There is one folder of pins.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn msync_trace(arguments: &[&str]) -> Command {
    let named = std::env::var_os("MSYNC_TRACE_PROGRAM");
    let program = named.unwrap_or_else(|| env!("CARGO_BIN_EXE_msync-trace").into());
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// A running tracer that pins, and shows what this process is told.
struct Tracer {
    child: Child,
    records: Receiver<Value>,
    messages: Receiver<String>,
    /// What was read from them so far.
    said: String,
}

impl Tracer {
    /// Starts one, and returns once it traces; `None` if this machine cannot.
    fn start() -> Option<Self> {
        let pid = std::process::id().to_string();
        let mut child = msync_trace(&["--pin", "-vv", "-o", "json", "--pid", &pid])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (to_records, records) = mpsc::channel();
        let (to_messages, messages) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // The last line of one that is killed may be cut.
                if let Ok(record) = serde_json::from_str(&line) {
                    let _ = to_records.send(record);
                }
            }
        });
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = to_messages.send(line);
            }
        });
        let mut tracer = Self {
            child,
            records,
            messages,
            said: String::new(),
        };
        match tracer.says("tracing msync on") {
            true => Some(tracer),
            false => {
                println!("SKIPPED restart: {}", tracer.said.trim_end());
                let _ = tracer.child.wait();
                None
            }
        }
    }

    /// Waits for a message; `false` if the tracer ended instead.
    fn says(&mut self, what: &str) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while !self.said.contains(what) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.messages.recv_timeout(left) {
                Ok(line) => self.said += &(line + "\n"),
                Err(mpsc::RecvTimeoutError::Disconnected) => return false,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("no {what:?} in:\n{}", self.said),
            }
        }
        true
    }

    /// Waits for an incident.
    fn incident(&self) -> Value {
        self.incident_within(PATIENCE).expect("an incident")
    }

    fn incident_within(&self, time: Duration) -> Option<Value> {
        self.record_within(time, |record| record["type"] == "incident")
    }

    fn record_within(&self, time: Duration, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let record = self.records.recv_timeout(left).ok()?;
            if wanted(&record) {
                return Some(record);
            }
        }
    }

    fn end(&mut self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
        self.child.wait().unwrap();
    }

    fn kill(mut self) {
        self.end(rustix::process::Signal::KILL);
    }

    fn stop(mut self) {
        self.end(rustix::process::Signal::TERM);
    }
}

fn detach() -> Output {
    msync_trace(&["detach"]).output().unwrap()
}

/// A scratch disk in a thread of its own (its mounts are the thread's), and nothing pinned before
/// and after.
fn on_a_failing_disk(story: impl FnOnce(&mut Scratch) -> Option<()> + Send + 'static) {
    let _alone: MutexGuard<'_, ()> = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let before = detach();
    if !before.status.success() {
        println!(
            "SKIPPED restart: {}",
            String::from_utf8_lossy(&before.stderr).trim_end()
        );
        return;
    }
    // Here, and not in the thread, whose mounts nobody else sees.
    let told = match Tracer::start() {
        None => return,
        Some(first) => {
            first.stop();
            std::thread::spawn(move || -> Result<(), ScratchError> {
                let mut scratch = Scratch::new(ScratchFs::Ext4)?;
                story(&mut scratch);
                Ok(())
            })
            .join()
        }
    };
    let after = detach();
    match told {
        Err(panic) => std::panic::resume_unwind(panic),
        Ok(Err(ScratchError::Unavailable(reason))) => println!("SKIPPED restart: {reason}"),
        Ok(Err(error)) => panic!("{error}"),
        Ok(Ok(())) => {}
    }
    assert!(after.status.success(), "{after:?}");
    assert!(!Path::new(FOLDER).exists());
    let again = detach();
    assert!(again.status.success());
    let again = String::from_utf8(again.stdout).unwrap();
    assert!(again.starts_with("nothing is pinned"), "{again}");
}

/// An incident of this file, whose caller was told before.
fn is_of_file(incident: &Value, failed: &Failed) {
    let path = incident["file"]["path"].as_str().unwrap();
    let name = failed.path.file_name().unwrap().to_str().unwrap();
    assert!(path.ends_with(name), "{incident:#}");
    assert_eq!(incident["told"], "caller", "{incident:#}");
}

/// Whether kprobes can be pinned: those that cannot are gone with the process, and then some kernels
/// cannot tell pages (docs/restart.md).
fn pins_kprobes() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_str().unwrap();
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        panic!("a kernel {release}")
    };
    (major, minor) >= (5, 15)
}

/// The page-exact incident of this file.
fn is_of(incident: &Value, failed: &Failed) {
    is_of_file(incident, failed);
    assert_eq!(incident["evidence"], "page", "{incident:#}");
    let first = &incident["ranges"][0];
    assert!(first["start"].as_u64().unwrap() <= failed.range.start());
    assert!(first["end"].as_u64().unwrap() >= failed.range.end());
}

/// Waits until the tracer has read the failure from the kernel's ring.
fn has_seen_it(tracer: &mut Tracer) {
    assert!(tracer.says("a failure appeared"));
}

#[test]
fn killed_between_the_failure_and_the_msync() {
    on_a_failing_disk(|scratch| {
        let mut tracer = Tracer::start()?;
        let failed = scratch.fail().unwrap();
        has_seen_it(&mut tracer);
        tracer.kill();
        let tracer = Tracer::start()?;
        failed.msync().unwrap();
        let incident = tracer.incident();
        is_of(&incident, &failed);
        assert_eq!(tracer.incident_within(QUIET), None, "once");
        tracer.kill();
        // What was reported is not reported again, and what becomes of it is.
        let tracer = Tracer::start()?;
        failed.msync().unwrap();
        assert_eq!(tracer.incident_within(QUIET), None, "never twice");
        tracer.kill();
        let tracer = Tracer::start()?;
        std::fs::remove_file(&failed.path).unwrap();
        drop(failed);
        let change = tracer.record_within(PATIENCE, |record| record["change"] == "discarded");
        let change = change.expect("what became of the incident");
        assert_eq!(change["incident"], incident["incident"]);
        tracer.stop();
        Some(())
    });
}

#[test]
fn stopped_between_the_failure_and_the_msync() {
    on_a_failing_disk(|scratch| {
        let mut tracer = Tracer::start()?;
        let failed = scratch.fail().unwrap();
        has_seen_it(&mut tracer);
        tracer.stop();
        let tracer = Tracer::start()?;
        failed.msync().unwrap();
        is_of(&tracer.incident(), &failed);
        tracer.stop();
        let tracer = Tracer::start()?;
        failed.msync().unwrap();
        assert_eq!(tracer.incident_within(QUIET), None, "never twice");
        tracer.stop();
        Some(())
    });
}

#[test]
fn the_failure_happens_while_nobody_traces() {
    on_a_failing_disk(|scratch| {
        let failed = scratch.fail().unwrap();
        // What it takes over is not forgotten with it.
        Tracer::start()?.kill();
        let tracer = Tracer::start()?;
        failed.msync().unwrap();
        is_of(&tracer.incident(), &failed);
        tracer.stop();
        Some(())
    });
}

#[test]
fn failure_and_msync_happen_while_nobody_traces() {
    on_a_failing_disk(|scratch| {
        Tracer::start()?.kill();
        let failed = scratch.fail().unwrap();
        failed.msync().unwrap();
        let tracer = Tracer::start()?;
        let incident = tracer.incident();
        match pins_kprobes() {
            true => is_of(&incident, &failed),
            false => is_of_file(&incident, &failed),
        }
        assert_eq!(tracer.incident_within(QUIET), None, "once");
        tracer.stop();
        let tracer = Tracer::start()?;
        assert_eq!(tracer.incident_within(QUIET), None, "never twice");
        tracer.stop();
        Some(())
    });
}

/// Makes what is pinned that of another version.
fn pretend_another_version() {
    let mut generations = std::fs::read_dir(FOLDER).unwrap();
    let generation = generations.next().unwrap().unwrap().path();
    assert!(generations.next().is_none(), "the one before is gone");
    let map = MapData::from_pin(generation.join("STATE")).unwrap();
    let mut state: Array<_, u64> = Array::try_from(Map::Array(map)).unwrap();
    let version = state.get(&1, 0).unwrap();
    state.set(1, version + 1, 0).unwrap();
}

#[test]
fn another_version_says_what_it_has_to_forget() {
    on_a_failing_disk(|scratch| {
        let failed = scratch.fail().unwrap();
        pretend_another_version();
        let mut tracer = Tracer::start()?;
        let said = tracer.said.clone();
        let files = said.split("inodes with failures: ").nth(1).unwrap();
        let files: u64 = files.split(',').next().unwrap().parse().unwrap();
        assert!(files >= 1, "{said}");
        failed.msync().unwrap();
        assert_eq!(tracer.incident_within(QUIET), None, "it is forgotten");
        tracer.end(rustix::process::Signal::TERM);
        let mut stop = tracer.records.try_iter().filter(|r| r["type"] == "stop");
        let stop = stop.next().expect("a stop record");
        assert_eq!(stop["complete"], false, "{stop:#}");
        Some(())
    });
}

#[test]
fn a_second_tracer_is_refused_and_told_of_the_first() {
    on_a_failing_disk(|_| {
        let tracer = Tracer::start()?;
        let pid = format!("(process {})", tracer.child.id());
        for arguments in [&["--pin", "--duration", "1s"][..], &["detach"]] {
            let mut second = msync_trace(arguments);
            let output = second.stdout(Stdio::null()).output().unwrap();
            let complained = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{complained}");
            assert!(complained.contains(&pid), "{complained}");
        }
        tracer.stop();
        Some(())
    });
}

/// So that a tracer does not outlive a test that fails.
impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut rest = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = stderr.read_to_string(&mut rest);
        }
    }
}
