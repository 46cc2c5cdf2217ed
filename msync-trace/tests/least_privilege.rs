//! A tracer that has begun keeps few privileges, in all its threads, and still names the programs of
//! other users. Needs root, a loop device and mkfs; says SKIPPED and why where they are missing.
#![cfg(target_os = "linux")]

use std::{
    fs, io,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use msync_trace::check::{
    confine::{KEPT, KEPT_TO_VERIFY, confine},
    scratch::{Scratch, ScratchError, ScratchFs},
};
use serde_json::Value;

/// Within which time what must come has to come.
const PATIENCE: Duration = Duration::from_secs(120);

const NOBODY: libc::uid_t = 65_534;

/// Ends with the test, also when it fails.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = Command::new(env!("CARGO_BIN_EXE_msync-trace"))
            .arg("detach")
            .output();
    }
}

fn documented(verifies: bool) -> u64 {
    let more = KEPT_TO_VERIFY.iter().filter(|_| verifies);
    let all = KEPT.iter().chain(more);
    all.fold(0, |mask, kept| mask | 1 << kept.number)
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
}

/// What a thread has: effective, permitted, inheritable, bounding, ambient.
fn sets(status: &str) -> [u64; 5] {
    ["CapEff:", "CapPrm:", "CapInh:", "CapBnd:", "CapAmb:"].map(|name| field(status, name))
}

/// A process of another user that takes over a mapping and is given the false success. It stays
/// until it is killed.
fn as_nobody(msync: impl Fn() -> bool) -> libc::pid_t {
    // SAFETY: the child only makes system calls and never returns.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: no memory is involved.
        unsafe {
            let is_nobody = libc::setgid(NOBODY) == 0 && libc::setuid(NOBODY) == 0;
            if !is_nobody || !msync() {
                libc::_exit(1);
            }
            loop {
                libc::pause();
            }
        }
    }
    child
}

#[test]
fn few_privileges_are_kept_and_losses_of_other_users_are_named() {
    for verifies in [false, true] {
        a_loss_of_nobody(verifies);
    }
}

fn a_loss_of_nobody(verifies: bool) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_msync-trace"))
        .args(["--pin", "-o", "json"])
        .args(verifies.then_some("--verify"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let child = Guard(child);
    let mut said = String::new();
    for line in stderr.lines().map_while(Result::ok) {
        said += &(line + "\n");
        if said.contains("tracing msync on") {
            break;
        }
    }
    if !said.contains("tracing msync on") {
        println!("SKIPPED least privilege: {}", said.trim_end());
        return;
    }
    for thread in fs::read_dir(format!("/proc/{}/task", child.0.id())).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        let mask = documented(verifies);
        assert_eq!(sets(&status), [mask, mask, 0, mask, 0], "{status}");
        assert_eq!(field(&status, "NoNewPrivs:"), 1, "{status}");
    }
    let told = std::thread::spawn(move || -> Result<(), ScratchError> {
        let mut scratch = Scratch::new(ScratchFs::Ext4)?;
        let failed = scratch.fail()?;
        let nobody = as_nobody(|| failed.msync().is_ok());
        let incident = incident_of(stdout, nobody);
        // SAFETY: our own child, which has not been waited for.
        unsafe {
            libc::kill(nobody, libc::SIGKILL);
            libc::waitpid(nobody, std::ptr::null_mut(), 0);
        }
        let process = &incident["process"];
        assert_eq!(process["uid"], NOBODY, "{incident:#}");
        let exe = std::env::current_exe().unwrap();
        assert_eq!(process["exe"], exe.to_str().unwrap(), "{incident:#}");
        assert!(process["comm"].is_string() && process["cgroup"].is_string());
        let path = incident["file"]["path"].as_str().unwrap();
        assert!(path.ends_with("/tried-again"), "{incident:#}");
        assert!(incident["file"]["mount"].is_string(), "{incident:#}");
        if verifies {
            assert_eq!(incident["verified"], "differs", "{incident:#}");
        }
        Ok(())
    })
    .join()
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    match told {
        Ok(()) => {}
        Err(ScratchError::Unavailable(reason)) => println!("SKIPPED least privilege: {reason}"),
        Err(error) => panic!("{error}"),
    }
}

fn incident_of(stdout: impl BufRead, pid: libc::pid_t) -> Value {
    let deadline = Instant::now() + PATIENCE;
    for line in stdout.lines().map_while(Result::ok) {
        let record: Value = serde_json::from_str(&line).unwrap();
        if record["type"] == "incident" && record["process"]["pid"] == pid {
            return record;
        }
        assert!(Instant::now() < deadline);
    }
    panic!("no incident of {pid}");
}

/// Threads that were there before give up theirs as well. In a process of its own: it is for good.
#[test]
fn threads_that_run_already_give_up_their_privileges_too() {
    const ASKED: &str = "MSYNC_TRACE_TEST_CONFINE";
    if std::env::var_os(ASKED).is_none() {
        let own = std::env::current_exe().unwrap();
        let name = "threads_that_run_already_give_up_their_privileges_too";
        let output = Command::new(own)
            .args(["--exact", name, "--nocapture"])
            .env(ASKED, "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let (stay, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let wait = wait.clone();
            std::thread::spawn(move || wait.lock().unwrap().recv())
        })
        .collect();
    confine(false).unwrap();
    let mut seen = 0;
    for thread in fs::read_dir("/proc/self/task").unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        assert!(
            sets(&status)
                .iter()
                .all(|set| set & !documented(false) == 0)
        );
        assert_eq!(field(&status, "NoNewPrivs:"), 1);
        seen += 1;
    }
    assert!(seen > 8);
    let after = std::thread::spawn(|| fs::read_to_string("/proc/thread-self/status").unwrap());
    assert_eq!(sets(&after.join().unwrap())[0] & !documented(false), 0);
    drop(stay);
    for thread in threads {
        let _ = thread.join();
    }
}

/// As in the packaged service, whose bounding set has no CAP_SETPCAP: it stays larger, and what is run
/// gains nothing from it. In a process of its own: it is for good.
#[test]
fn a_bounding_set_that_cannot_be_shrunk_gives_nothing_to_what_is_run() {
    const ASKED: &str = "MSYNC_TRACE_TEST_NO_SETPCAP";
    const SETPCAP: libc::c_ulong = 8;
    if std::env::var_os(ASKED).is_none() {
        let own = std::env::current_exe().unwrap();
        let name = "a_bounding_set_that_cannot_be_shrunk_gives_nothing_to_what_is_run";
        let mut again = Command::new(own);
        again.args(["--exact", name, "--nocapture"]).env(ASKED, "1");
        // SAFETY: a system call that involves no memory.
        unsafe {
            again.pre_exec(
                || match libc::prctl(libc::PR_CAPBSET_DROP, SETPCAP, 0, 0, 0) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                },
            );
        }
        match again.output() {
            Err(error) => println!("SKIPPED least privilege: no CAP_SETPCAP to give up: {error}"),
            Ok(output) => assert!(output.status.success(), "{output:?}"),
        }
        return;
    }
    let before = fs::read_to_string("/proc/thread-self/status").unwrap();
    confine(false).unwrap();
    let own = fs::read_to_string("/proc/thread-self/status").unwrap();
    assert_eq!(field(&own, "CapBnd:"), field(&before, "CapBnd:"));
    assert_ne!(field(&own, "CapBnd:") & !documented(false), 0);
    let run = Command::new("cat")
        .arg("/proc/self/status")
        .output()
        .unwrap();
    let status = String::from_utf8(run.stdout).unwrap();
    assert_eq!(field(&status, "CapPrm:") & !documented(false), 0);
    assert_eq!(field(&status, "CapEff:") & !documented(false), 0);
}
