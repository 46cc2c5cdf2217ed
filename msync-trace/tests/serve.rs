//! `serve` on a disk that really loses data: each output gets the incident, also beside others that
//! are stuck. Needs root, a loop device, mkfs and eBPF; says SKIPPED and why where they are missing.
#![cfg(target_os = "linux")]

mod journal_entry;

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, net::UnixDatagram, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use journal_entry::{Fields, fields};
use msync_trace::check::scratch::{Loss, LossKind, Scratch, ScratchError, ScratchFs};
use serde_json::Value;

/// One after the other: each sees what the others lose.
static ALONE: Mutex<()> = Mutex::new(());

/// For anything that has to happen.
const SOON: Duration = Duration::from_secs(15);

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_msync-trace"));
    command
        .arg("serve")
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// A daemon that became ready. Killed if a test fails.
struct Serve {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Serve {
    /// Or why it cannot run here.
    fn start(command: &mut Command) -> Result<Self, String> {
        let (ready, write_end) = std::io::pipe().unwrap();
        let write_end: OwnedFd = write_end.into();
        let fd = write_end.as_raw_fd();
        // Pinned hooks would be everybody's: restart.rs is about those.
        command.arg("--pin=false");
        command
            .arg(format!("--ready-fd={fd}"))
            .stderr(Stdio::piped());
        // SAFETY: one system call between fork and exec.
        unsafe {
            command.pre_exec(move || match libc::fcntl(fd, libc::F_SETFD, 0) {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
        let mut child = command.spawn().unwrap();
        drop(write_end);
        let said = Arc::new(Mutex::new(String::new()));
        let (stderr, text) = (child.stderr.take().unwrap(), Arc::clone(&said));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                *text.lock().unwrap() += &(line.unwrap() + "\n");
            }
        });
        let mut line = String::new();
        BufReader::new(ready).read_line(&mut line).unwrap();
        let mut this = Self { child, said };
        if line == "\n" {
            return Ok(this);
        }
        let status = wait_for("the end", || this.child.try_wait().unwrap());
        let said = this.said();
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(
            said.contains("cannot trace") || said.contains("root"),
            "{said}"
        );
        Err(said)
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: our child, which was not waited for.
        unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
    }

    /// In order.
    fn end(mut self) -> (ExitStatus, String) {
        self.signal(libc::SIGTERM);
        let status = wait_for("the end", || self.child.try_wait().unwrap());
        // What it wrote last may still be on its way to us.
        std::thread::sleep(Duration::from_millis(50));
        (status, self.said())
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < SOON, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// In a thread of its own, whose mounts are gone with it.
fn on_a_scratch_disk(story: impl FnOnce(&mut Scratch) -> Result<(), String> + Send + 'static) {
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let told = std::thread::spawn(move || match Scratch::new(ScratchFs::Ext4) {
        Ok(mut scratch) => story(&mut scratch),
        Err(ScratchError::Unavailable(reason)) => Err(reason),
        Err(error) => panic!("{error}"),
    })
    .join()
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    drop(alone);
    if let Err(reason) = told {
        println!("SKIPPED serve: {}", reason.trim_end());
    }
}

fn records(path: &Path, kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect(line));
    lines.filter(|record| record["type"] == kind).collect()
}

fn incident(path: &Path, loss: &Loss) -> Option<Value> {
    let is_it = |it: &Value| it["file"]["path"] == loss.path.to_str().unwrap();
    records(path, "incident").into_iter().find(is_it)
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn get(port: u16, path: &str, headers: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn value(metrics: &str, sample: &str) -> f64 {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {sample} in\n{metrics}"))
        .parse()
        .unwrap()
}

fn promtool_likes(metrics: &str) {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        println!("SKIPPED promtool check metrics: no promtool (Debian package prometheus)");
        return;
    };
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(metrics.as_bytes())
        .unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn an_incident_reaches_every_output() {
    on_a_scratch_disk(|scratch| {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (json, store, port) = (at("lines.jsonl"), at("store.db"), free_port());
        let (textfile, command) = (at("m.prom"), at("command.jsonl"));
        fs::write(
            at("config.toml"),
            format!(
                "json = {json:?}\nstore = {store:?}\nlisten = \"127.0.0.1:{port}\"\n\
                 metrics_textfile = {textfile:?}\nmetrics_interval = \"1s\"\n\
                 on_incident = [\"tee\", \"-a\", {command:?}]\n"
            ),
        )
        .unwrap();
        let mut serve = binary();
        serve
            .arg("--config")
            .arg(at("config.toml"))
            .stdout(Stdio::null());
        let serve = Serve::start(&mut serve)?;
        let (head, before) = get(port, "/metrics", "");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        promtool_likes(&before);
        assert!(
            before.contains("\nmsync_trace_incidents_total "),
            "{before}"
        );
        assert!(get(port, "/readyz", "").0.starts_with("HTTP/1.1 200"));
        assert!(get(port, "/healthz", "").0.starts_with("HTTP/1.1 200"));
        assert!(get(port, "/nothing", "").0.starts_with("HTTP/1.1 404"));

        let loss = scratch.lose(LossKind::TriedAgain).unwrap();
        let line = wait_for("the line of JSON", || incident(&json, &loss));
        assert_eq!(line["bytes"], loss.range.len());
        let given = wait_for("the command", || incident(&command, &loss));
        assert_eq!(given, line, "the command gets what the file has");
        let (_, metrics) = get(port, "/metrics", "");
        promtool_likes(&metrics);
        assert!(value(&metrics, "msync_trace_incidents_total") >= 1.0);
        let device = scratch.device().file_name().unwrap().to_str().unwrap();
        let row = format!(
            "msync_trace_losses_total{{fstype=\"ext4\",device=\"{device}\",errno=\"{}\",\
             told=\"caller\"}}",
            loss.errno
        );
        assert_eq!(value(&metrics, &row), 1.0);
        let failures = format!(
            "msync_trace_write_failures_total{{fstype=\"ext4\",device=\"{device}\",errno=\"{}\"}}",
            loss.errno
        );
        assert!(value(&metrics, &failures) >= 1.0);
        assert!(
            value(
                &metrics,
                "msync_trace_ring_records_sent_total{ring=\"failures\"}"
            ) >= 0.0
        );
        let accept = "Accept: application/openmetrics-text\r\n";
        let (head, open) = get(port, "/metrics", accept);
        assert!(head.contains("application/openmetrics-text"), "{head}");
        assert!(open.ends_with("# EOF\n"));
        wait_for("the text file", || {
            let text = fs::read_to_string(&textfile).unwrap_or_default();
            text.contains(&format!("{row} 1\n")).then_some(())
        });

        // What logrotate does.
        fs::rename(&json, at("lines.jsonl.moved")).unwrap();
        serve.signal(libc::SIGHUP);
        wait_for("the new file", || json.exists().then_some(()));
        let second = scratch.lose(LossKind::OpenedAnew).unwrap();
        wait_for("the second incident", || incident(&json, &second));
        let (status, said) = serve.end();
        assert_eq!(status.code(), Some(0), "{said}");
        let stop = &records(&json, "stop")[0];
        assert!(stop["incidents"].as_u64() >= Some(2), "{stop}");
        assert_eq!(stop["exit_status"], 0, "{stop}");
        let report = Command::new(env!("CARGO_BIN_EXE_msync-trace"))
            .args(["report", "--format", "json"])
            .arg(&store)
            .output()
            .unwrap();
        let report: Value = serde_json::from_slice(&report.stdout).unwrap();
        assert!(
            report["summary"]["incidents"].as_u64() >= Some(2),
            "{report}"
        );
        Ok(())
    });
}

#[test]
fn outputs_that_are_stuck_hold_up_no_other() {
    on_a_scratch_disk(|scratch| {
        let folder = tempfile::tempdir().unwrap();
        let (full, port) = (folder.path().join("full"), free_port());
        fs::create_dir(&full).unwrap();
        mount_small(&full);
        let (json, filler) = (full.join("lines.jsonl"), full.join("filler"));
        let pids = folder.path().join("pids");
        let mut serve = binary();
        serve
            .arg(format!("--listen=127.0.0.1:{port}"))
            .arg(format!(
                "--store={}",
                folder.path().join("store.db").display()
            ))
            .arg(format!(
                "--on-incident=[\"sh\", \"-c\", \"echo $$ >> {}; sleep 1000\"]",
                pids.display()
            ))
            .args(["--on-incident-at-once=1", "--on-incident-timeout=3s"])
            .arg("--json")
            .arg(&json);
        let serve = Serve::start(&mut serve)?;
        wait_for("the start record", || {
            (records(&json, "start").len() == 1).then_some(())
        });
        pad_to_page(&json);
        fill(&filler);

        let began = Instant::now();
        let first = scratch.lose(LossKind::TriedAgain).unwrap();
        let second = scratch.lose(LossKind::OpenedAnew).unwrap();
        wait_for("both incidents, and the trouble", || {
            let (_, now) = get(port, "/metrics", "");
            let both = value(&now, "msync_trace_incidents_total") >= 2.0;
            let json = value(&now, "msync_trace_output_errors_total{output=\"json\"}") > 0.0;
            let waiting = value(
                &now,
                "msync_trace_output_waiting_records{output=\"on_incident\"}",
            );
            (both && json && waiting >= 1.0).then_some(())
        });
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(incident(&json, &first), None);
        let said = serve.said();
        assert_eq!(said.matches("the output json fails").count(), 1, "{said}");

        // The command is killed with what it started, and the next one has its turn.
        let pid = |line: usize| {
            let text = fs::read_to_string(&pids).unwrap_or_default();
            text.lines().nth(line).map(str::to_owned)
        };
        let old = pid(0).unwrap();
        wait_for("the second command", || pid(1));
        assert!(!PathBuf::from(format!("/proc/{old}")).exists());

        fs::remove_file(&filler).unwrap();
        wait_for("what was held back", || incident(&json, &first));
        wait_for("the other one", || incident(&json, &second));
        let (status, said) = serve.end();
        assert_eq!(status.code(), Some(0), "{said}");
        assert!(said.contains("the output json works again"), "{said}");
        assert_eq!(records(&json, "stop").len(), 1);
        assert!(!PathBuf::from(format!("/proc/{}", pid(1).unwrap())).exists());
        Ok(())
    });
}

/// In the mount namespace of this thread only.
fn mount_small(at: &Path) {
    let status = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=128k", "tmpfs"])
        .arg(at)
        .status();
    assert!(status.unwrap().success());
}

/// So that not one more line has room in its last page.
fn pad_to_page(path: &Path) {
    let frame = "{\"type\":\"pad\",\"pad\":\"\"}\n";
    let len = fs::metadata(path).unwrap().len() as usize;
    let room = 8192 - len % 4096 - frame.len();
    let line = format!("{{\"type\":\"pad\",\"pad\":\"{}\"}}\n", "x".repeat(room));
    let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(line.as_bytes()).unwrap();
}

/// To the last byte.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    while file.write_all(&[0; 512]).is_ok() {}
}

#[test]
fn the_service_manager_is_told_the_truth() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED serve: not root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let told = || {
        let mut message = [0; 4096];
        let len = manager.recv(&mut message).expect("a message");
        String::from_utf8(message[..len].to_vec()).unwrap()
    };
    let mut serve = binary();
    serve
        .arg("--metrics-textfile")
        .arg(folder.path().join("m.prom"))
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "600000");
    let serve = match Serve::start(&mut serve) {
        Ok(serve) => serve,
        Err(reason) => return println!("SKIPPED serve: {}", reason.trim_end()),
    };
    let first = told();
    assert!(
        first.starts_with("READY=1\nSTATUS=0 incidents; "),
        "{first}"
    );
    for _ in 0..3 {
        let alive = told();
        assert!(
            alive.starts_with("STATUS=") && alive.ends_with("\nWATCHDOG=1"),
            "{alive}"
        );
    }
    // As `Type=notify-reload` wants it, which compares the time with its own.
    let now = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec * 1_000_000 + now.tv_nsec / 1000
    };
    let before = now();
    serve.signal(libc::SIGHUP);
    let mut reload = told();
    while reload.contains("WATCHDOG=1") {
        reload = told();
    }
    let said_at = reload.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!((before..=now()).contains(&said_at.parse().unwrap()));
    assert!(told().starts_with("READY=1\nSTATUS="));
    let (status, said) = serve.end();
    assert_eq!(status.code(), Some(0), "{said}");
    let mut last = told();
    while last.contains("WATCHDOG=1") {
        last = told();
    }
    assert!(last.starts_with("STOPPING=1"), "{last}");
}

#[test]
fn metrics_are_served_at_a_socket_that_systemd_hands_over() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED serve: not root");
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, fd) = (listener.local_addr().unwrap().port(), listener.as_raw_fd());
    // As a service manager does it: the number of the process is known when it runs.
    let mut serve = Command::new("sh");
    serve
        .args(["-c", "LISTEN_PID=$$ exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_msync-trace"))
        .arg("serve")
        .env("LISTEN_FDS", "1")
        .stdout(Stdio::null());
    // SAFETY: one system call between fork and exec.
    unsafe {
        serve.pre_exec(move || {
            let done = match fd {
                3 => libc::fcntl(fd, libc::F_SETFD, 0),
                _ => libc::dup2(fd, 3),
            };
            match done {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            }
        });
    }
    let serve = match Serve::start(&mut serve) {
        Ok(serve) => serve,
        Err(reason) => return println!("SKIPPED serve: {}", reason.trim_end()),
    };
    drop(listener);
    assert!(get(port, "/readyz", "").0.starts_with("HTTP/1.1 200"));
    let (_, metrics) = get(port, "/metrics", "");
    assert_eq!(value(&metrics, "msync_trace_ready"), 1.0);
    let (status, said) = serve.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(
        TcpStream::connect(("127.0.0.1", port)).is_err(),
        "somebody still listens"
    );
}

#[test]
fn commands_are_bounded_in_a_minute_and_what_is_left_out_is_counted() {
    on_a_scratch_disk(|scratch| {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (json, command, port) = (at("lines.jsonl"), at("command.jsonl"), free_port());
        let mut serve = binary();
        serve
            .arg(format!("--json={}", json.display()))
            .arg(format!("--listen=127.0.0.1:{port}"))
            .arg(format!("--on-incident=[\"tee\", \"-a\", {command:?}]"))
            .arg("--on-incident-per-minute=1")
            .stdout(Stdio::null());
        let serve = Serve::start(&mut serve)?;
        for kind in [LossKind::TriedAgain, LossKind::OpenedAnew] {
            let loss = scratch.lose(kind).unwrap();
            wait_for("the line of JSON", || incident(&json, &loss));
        }
        let of_it = |name: &str| {
            let sample = format!("msync_trace_output_{name}{{output=\"on_incident\"}}");
            value(&get(port, "/metrics", "").1, &sample)
        };
        wait_for("what is left out", || {
            (of_it("dropped_total") >= 1.0).then_some(())
        });
        assert_eq!(of_it("delivered_total"), 1.0);
        let (status, said) = serve.end();
        assert_eq!(status.code(), Some(0), "{said}");
        assert_eq!(records(&command, "incident").len(), 1);
        Ok(())
    });
}

fn print_config(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output = binary()
        .arg("--print-config")
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn flags_go_over_variables_and_those_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    let text = "json = \"/file\"\nstore = \"/file\"\nlisten = \"[::1]:1\"\nqueue = 7\n";
    fs::write(&file, text).unwrap();
    let config = ["--config", file.to_str().unwrap()];
    let variables = [
        ("MSYNC_TRACE_STORE", "/variable"),
        ("MSYNC_TRACE_QUEUE", "8"),
    ];
    let flags = [&config[..], &["--queue", "9", "--on-incident", "/bin/true"]].concat();
    let (status, printed, said) = print_config(&flags, &variables);
    assert_eq!((status, said.as_str()), (Some(0), ""));
    for line in [
        "json = \"/file\"",
        "store = \"/variable\"",
        "listen = \"[::1]:1\"",
        "queue = 9",
        "on_incident = [\"/bin/true\"]",
        "json_max_size = \"64M\"",
    ] {
        assert!(printed.lines().any(|it| it == line), "{line}:\n{printed}");
    }
    // It is a file that says the same.
    fs::write(&file, &printed).unwrap();
    assert_eq!(
        print_config(&config, &[]),
        (Some(0), printed, String::new())
    );
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    let path = file.to_str().unwrap();
    for (text, expected) in [
        (
            "jsonn = \"x\"",
            "jsonn: there is no such key; did you mean json?",
        ),
        (
            "metrics-textfile = \"x.prom\"",
            "did you mean metrics_textfile?",
        ),
        (
            "queue = \"many\"",
            "queue: \"many\" is no number from 1 to 1000000",
        ),
        ("json_max_size = \"big\"", "json_max_size: not a size"),
        (
            "calls = [\"mysnc\"]",
            "calls: mysnc is none of msync, fsync",
        ),
        ("on_incident = []", "on_incident: no program is named"),
        ("journal = 1", "journal: 1 is neither true nor false"),
        ("metrics_textfile = \"/x/y.txt\"", "end in .prom"),
        ("[json]\nfile = \"x\"", "json: "),
        ("json = ", "TOML parse error at line 1"),
    ] {
        fs::write(&file, text).unwrap();
        let (status, _, said) = print_config(&["--config", path], &[]);
        assert_eq!(status, Some(2), "{text}: {said}");
        assert!(
            said.contains(path) || said.contains("prom"),
            "{text}: {said}"
        );
        assert!(said.contains(expected), "{text}: {said}");
        assert_eq!(said.lines().count(), 1, "{text}: {said}");
    }
    let (status, _, said) = print_config(&[], &[("MSYNC_TRACE_TIER", "best")]);
    assert_eq!(status, Some(2));
    assert!(
        said.contains("MSYNC_TRACE_TIER: best is none of auto, fentry"),
        "{said}"
    );
    let (status, _, said) = print_config(&[], &[("MSYNC_TRACE_JOSN", "x")]);
    assert_eq!(status, Some(0));
    assert!(
        said.contains("MSYNC_TRACE_JOSN is no option; did you mean json?"),
        "{said}"
    );
}

/// Of a daemon that begins and ends: two records.
#[test]
fn size_0_leaves_rotation_to_others_and_a_missing_command_is_said() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let (json, moved) = (
        folder.path().join("a.jsonl"),
        folder.path().join("a.jsonl.1"),
    );
    for (size, is_moved) in [("0", false), ("1", true)] {
        let mut serve = binary();
        serve
            .arg(format!("--json={}", json.display()))
            .arg(format!("--json-max-size={size}"))
            .arg("--on-incident=/no/such/pager");
        let serve = match Serve::start(&mut serve) {
            Ok(serve) => serve,
            Err(reason) => return println!("SKIPPED: {reason}"),
        };
        let (status, said) = serve.end();
        assert!(status.success(), "{said}");
        assert!(
            said.contains("warning: on_incident: /no/such/pager: No such file"),
            "{said}"
        );
        assert_eq!(moved.exists(), is_moved, "{size}");
    }
}

/// A directory or file called like this has said "hostile" before it can do harm.
const HOSTILE: &[u8] = b"hostile\nMESSAGE_ID=0\n\"},\\\x1b[2J\x1b]0;x\x07\r\xff\xfe\xc2\x9b\xe2\x80\xae{x=\"1\"} 9 %s$(x)`";

/// The longest path that a system call takes is a byte longer than this.
const LONGEST: usize = 4094;

#[test]
fn a_hostile_name_goes_through_every_output_unharmed() {
    on_a_scratch_disk(|scratch| {
        let path = scratch.path().join(OsStr::from_bytes(HOSTILE));
        a_loss_called(path, scratch)
    });
}

#[test]
fn so_does_the_longest_path() {
    on_a_scratch_disk(|scratch| {
        let mut path = scratch.path().to_owned();
        let of_length = |length: usize| -> Vec<u8> {
            let bytes = HOSTILE.iter().cycle().take(length);
            bytes.copied().collect()
        };
        while path.as_os_str().len() < LONGEST - 400 {
            path.push(OsStr::from_bytes(&of_length(250)));
        }
        fs::create_dir_all(&path).unwrap();
        let rest = LONGEST - path.as_os_str().len() - 1;
        let folder = rest / 2;
        path.push(OsStr::from_bytes(&of_length(folder)));
        fs::create_dir(&path).unwrap();
        path.push(OsStr::from_bytes(&of_length(rest - folder - 1)));
        assert_eq!(path.as_os_str().len(), LONGEST);
        a_loss_called(path, scratch)
    });
}

/// A silent loss of a file with this path, in a thread with a name as bad.
fn a_loss_called(path: PathBuf, scratch: &mut Scratch) -> Result<(), String> {
    let comm = b"\n\x1b[2J\xff\"=\\";
    rustix::thread::set_name(&std::ffi::CString::new(comm).unwrap()).unwrap();
    let journald = journald();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (json, store, port) = (at("lines.jsonl"), at("store.db"), free_port());
    let command = at("command.jsonl");
    let mut serve = binary();
    serve
        .args(["--journal", "--metrics-interval=1s"])
        .arg(format!("--listen=127.0.0.1:{port}"))
        .arg(format!("--json={}", json.display()))
        .arg(format!("--store={}", store.display()))
        .arg(format!("--metrics-textfile={}", at("m.prom").display()))
        .arg(format!("--on-incident=[\"tee\", {command:?}]"))
        .stdout(Stdio::null());
    let serve = Serve::start(&mut serve)?;
    let failed = scratch.fail().unwrap();
    fs::rename(&failed.path, &path).unwrap();
    failed.msync().unwrap();

    let name = path.as_os_str().as_bytes();
    let is_it = |it: &Value| bytes_of(&it["file"], "path").as_deref() == Some(name);
    let found = |file: &Path| records(file, "incident").into_iter().find(is_it);
    let line = wait_for("the line of JSON", || found(&json));
    assert_eq!(bytes_of(&line["process"], "comm").unwrap(), comm);
    let old = line["file"]["path_when_failed"].as_str().unwrap();
    assert_eq!(Path::new(old), failed.path);
    let given = wait_for("the command", || found(&command));
    assert_eq!(given, line, "the command gets what the file has");

    let entry = incident_entry(&journald);
    let value = |name: &str| {
        let mut values = entry.iter().filter(|(it, _)| it == name);
        let (_, value) = values.next().unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(values.next(), None, "{name} is there twice");
        value
    };
    assert_eq!(value("MSYNC_TRACE_PATH"), name);
    assert_eq!(value("MSYNC_TRACE_COMM"), comm);
    assert_eq!(value("MESSAGE_ID"), b"aad3997851b74b1c83da5c266a684fb5");
    is_harmless(std::str::from_utf8(value("MESSAGE")).unwrap());
    let json_there: Value = serde_json::from_slice(value("MSYNC_TRACE_JSON")).unwrap();
    assert_eq!(json_there, line);

    let (_, metrics) = get(port, "/metrics", "");
    promtool_likes(&metrics);
    assert!(!metrics.contains("hostile"), "{metrics}");
    assert!(value_of_any(&metrics, "msync_trace_losses_total{"));
    let (status, said) = serve.end();
    assert_eq!(status.code(), Some(0), "{said}");
    is_harmless(&said);
    for file in [&json, &command, &at("m.prom")] {
        is_harmless(&fs::read_to_string(file).unwrap());
    }
    let report = |format: &str| {
        let mut report = Command::new(env!("CARGO_BIN_EXE_msync-trace"));
        let report = report.args(["report", "--format", format]).arg(&store);
        String::from_utf8(report.output().unwrap().stdout).unwrap()
    };
    is_harmless(&report("text"));
    let kept: Value = serde_json::from_str(&report("json")).unwrap();
    assert!(holds(&kept, &is_it), "{kept:#}");
    Ok(())
}

/// Nothing of it moves a cursor or looks like another line.
fn is_harmless(text: &str) {
    let harmful = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
    assert!(!text.contains(harmful), "{text:?}");
    assert!(!text.contains("\nMESSAGE_ID"), "{text:?}");
}

fn value_of_any(metrics: &str, beginning: &str) -> bool {
    let mut lines = metrics.lines().filter(|line| line.starts_with(beginning));
    lines.any(|line| !line.ends_with(" 0"))
}

/// Whether something within a value is so.
fn holds(value: &Value, is_it: &impl Fn(&Value) -> bool) -> bool {
    let below = match value {
        Value::Array(all) => all.iter().any(|it| holds(it, is_it)),
        Value::Object(all) => all.values().any(|it| holds(it, is_it)),
        _ => false,
    };
    below || is_it(value)
}

/// A name as docs/output.md spells it: its bytes stand beside it unless they are text.
fn bytes_of(record: &Value, key: &str) -> Option<Vec<u8>> {
    let Some(spelled) = record[format!("{key}_bytes")].as_str() else {
        return record[key].as_str().map(|text| text.as_bytes().to_vec());
    };
    let mut bytes = spelled.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    Some(decoded)
}

/// Listens where journald does, in the mount namespace of this thread only.
fn journald() -> UnixDatagram {
    mount_small(Path::new("/run"));
    fs::create_dir_all("/run/systemd/journal").unwrap();
    let journald = UnixDatagram::bind("/run/systemd/journal/socket").unwrap();
    journald.set_read_timeout(Some(SOON)).unwrap();
    journald
}

/// The next entry about an incident.
fn incident_entry(journald: &UnixDatagram) -> Fields {
    let mut buffer = vec![0; 1 << 20];
    loop {
        let len = journald.recv(&mut buffer).expect("an entry");
        let fields = fields(&buffer[..len]);
        let kind = fields.iter().find(|(name, _)| name == "MSYNC_TRACE_TYPE");
        if kind.unwrap().1 == b"incident" {
            return fields;
        }
    }
}
