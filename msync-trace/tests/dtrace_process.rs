//! `msync-trace trace --source dtrace` with a program in the place of dtrace that plays its part:
//! prints lines, says things on standard error, dies, does not listen.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

/// The run `lost`: three incidents. The first two come by themselves; the rest is what dtrace prints
/// when it is told to end.
const RUN: &str = include_str!("data/dtrace/lost.txt");

struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // All but the counts and the stop line.
        let (first, last): (Vec<&str>, Vec<&str>) = RUN
            .lines()
            .partition(|line| !line.contains("\tlines\t") && !line.contains("\tstop\t"));
        fs::write(folder.path().join("first"), first.join("\n") + "\n").unwrap();
        fs::write(folder.path().join("last"), last.join("\n") + "\n").unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A dtrace that does this, in its folder.
    fn dtrace(&self, play: &str) -> PathBuf {
        let path = self.path("dtrace");
        let folder = self.folder.path().display();
        fs::write(&path, format!("#!/bin/sh\ncd '{folder}'\n{play}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn trace(&self, play: &str, arguments: &[&str]) -> Traced {
        let dtrace = self.dtrace(play);
        Traced::start(&dtrace, arguments, self.folder.path())
    }
}

/// Waits for the signal, then prints its last lines.
const LISTENS: &str = "trap 'cat last; exit 0' INT\ncat first\nwhile :; do sleep 0.05; done";

struct Traced {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
}

struct Ended {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Traced {
    fn start(dtrace: &Path, arguments: &[&str], temporary: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_msync-trace"))
            .args(["trace", "--source", "dtrace", "--dtrace-path"])
            .arg(dtrace)
            .args(arguments)
            .env("TZ", "UTC")
            .env("TMPDIR", temporary)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// Up to the second incident: everything that comes before the end is out.
    fn until_the_second_incident(&mut self) -> String {
        let mut seen = String::new();
        while seen.matches(" ENXIO ").count() < 2 {
            assert_ne!(self.stdout.read_line(&mut seen).unwrap(), 0, "{seen}");
        }
        seen
    }

    fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
    }

    fn end(mut self, seen: String) -> Ended {
        let mut stdout = seen;
        self.stdout.read_to_string(&mut stdout).unwrap();
        let output = self.child.wait_with_output().unwrap();
        Ended {
            status: output.status.code().unwrap(),
            stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn temporary_scripts(stage: &Stage) -> usize {
    let entries = fs::read_dir(stage.folder.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with("msync-trace-"))
        .count()
}

#[test]
fn a_signal_ends_dtrace_and_its_last_lines_are_read() {
    let stage = Stage::new();
    let play = format!("echo \"$@\" > arguments\nstat -c %a \"$6\" > mode\n{LISTENS}");
    let mut traced = stage.trace(
        &play,
        &["-x", "bufsize=8m", "--dtrace-option", "cleanrate=50hz"],
    );
    let seen = traced.until_the_second_incident();
    traced.interrupt();
    let ended = traced.end(seen);
    assert_eq!(ended.status, 1, "{}", ended.stderr);
    assert_eq!(
        ended.stdout.matches(" ENXIO ").count(),
        3,
        "{}",
        ended.stdout
    );
    assert!(
        ended.stderr.contains("complete: no event was dropped"),
        "{}",
        ended.stderr
    );
    assert!(
        ended.stderr.contains("(dtrace hooks); Ctrl-C to end"),
        "{}",
        ended.stderr
    );
    let arguments = fs::read_to_string(stage.path("arguments")).unwrap();
    assert!(
        arguments.starts_with("-x bufsize=8m -x cleanrate=50hz -s /"),
        "{arguments}"
    );
    assert!(arguments.contains(".d facts"), "{arguments}");
    assert_eq!(fs::read_to_string(stage.path("mode")).unwrap(), "600\n");
    assert_eq!(temporary_scripts(&stage), 0);
}

#[test]
fn drops_and_errors_that_dtrace_tells_of_make_the_run_incomplete() {
    let stage = Stage::new();
    let play = format!(
        "echo 'dtrace: 12 drops on CPU 3' >&2\n\
         echo 'dtrace: error on enabled probe ID 7 (ID 9: fbt:kernel:bufdone:entry): invalid address (0x10)' >&2\n\
         printf 'dtrace: \\033[31mred\\n' >&2\n{LISTENS}"
    );
    let mut traced = stage.trace(&play, &[]);
    let seen = traced.until_the_second_incident();
    traced.interrupt();
    let ended = traced.end(seen);
    assert_eq!(ended.status, 1);
    for part in [
        "msync-trace: dtrace: 12 drops on CPU 3\n",
        "12 events lost: DTrace dropped something",
        "msync-trace: dtrace: error on enabled probe ID 7",
        "1 event lost: a clause of the D script was broken off",
        "msync-trace: dtrace: \\x1b[31mred\n",
        "  incomplete",
    ] {
        assert!(
            ended.stderr.contains(part),
            "lacks {part}: {}",
            ended.stderr
        );
    }
}

#[test]
fn a_dtrace_that_does_not_listen_is_told_again() {
    let stage = Stage::new();
    let play = "trap '' INT\ntrap 'cat last; exit 0' TERM\ncat first\nwhile :; do sleep 0.05; done";
    let mut traced = stage.trace(play, &[]);
    let seen = traced.until_the_second_incident();
    traced.interrupt();
    let ended = traced.end(seen);
    assert_eq!(
        ended.stdout.matches(" ENXIO ").count(),
        3,
        "{}",
        ended.stderr
    );
    assert!(
        ended.stderr.contains("complete: no event was dropped"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_dtrace_that_dies_ends_the_trace_with_what_it_said() {
    let stage = Stage::new();
    let play = "cat first\necho 'dtrace: processing aborted: Abort due to systemic unresponsiveness' >&2\nkill -9 $$";
    let traced = stage.trace(play, &[]);
    let ended = traced.end(String::new());
    assert_eq!(ended.status, 2, "{}", ended.stderr);
    for part in [
        "dtrace was ended by signal 9, and nobody had asked it to: processing aborted",
        "the input was not read up to its stop line",
        "3 incidents",
    ] {
        assert!(
            ended.stderr.contains(part),
            "lacks {part}: {}",
            ended.stderr
        );
    }
}

#[test]
fn a_dtrace_that_does_not_begin_says_why_and_what_to_do() {
    for (play, parts) in [
        (
            "echo 'dtrace: failed to initialize dtrace: DTrace requires additional privileges' >&2; exit 1",
            ["DTrace requires additional privileges", "run it as root"],
        ),
        (
            "echo \"dtrace: failed to compile script $2: line 44: syntax error near b_exterr\" >&2; exit 1",
            [
                "line 44: syntax error near b_exterr",
                "please report it with this message",
            ],
        ),
        (
            "echo 'dtrace: failed to open /dev/dtrace/dtrace: No such file or directory' >&2; exit 1",
            [
                "ended with status 1 before tracing began",
                "kldload dtraceall",
            ],
        ),
        ("exit 3", ["ended with status 3", "dtrace -n BEGIN"]),
        (
            "echo hello; exit 0",
            ["ended with status 0", "dtrace -n BEGIN"],
        ),
    ] {
        let stage = Stage::new();
        let ended = stage.trace(play, &[]).end(String::new());
        assert_eq!(ended.status, 2, "{}", ended.stderr);
        assert!(ended.stdout.is_empty());
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        for part in parts {
            assert!(
                ended.stderr.contains(part),
                "lacks {part}: {}",
                ended.stderr
            );
        }
        assert_eq!(temporary_scripts(&stage), 0);
    }
}

#[test]
fn a_dtrace_that_is_not_there_says_what_to_install() {
    let scratch = tempfile::tempdir().unwrap();
    let nowhere = Path::new("/nonexistent/dtrace");
    let ended = Traced::start(nowhere, &[], scratch.path()).end(String::new());
    assert_eq!(ended.status, 2);
    assert!(
        ended.stderr.contains("cannot run /nonexistent/dtrace"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("--dtrace-path"), "{}", ended.stderr);
}

#[test]
fn it_runs_until_a_command_ends_or_the_time_is_over() {
    for (arguments, said) in [
        (&["--", "true"][..], "the command ended with status 0"),
        (&["--duration", "1s"], "3 incidents"),
    ] {
        let stage = Stage::new();
        let ended = stage.trace(LISTENS, arguments).end(String::new());
        assert_eq!(ended.status, 1, "{}", ended.stderr);
        assert!(
            ended.stderr.contains(said),
            "lacks {said}: {}",
            ended.stderr
        );
        assert!(
            ended.stderr.contains("complete: no event was dropped"),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn a_signal_before_it_begins_leaves_nothing_behind() {
    let stage = Stage::new();
    let traced = stage.trace(
        "sleep 3; echo $$ > pid.new; mv pid.new pid; sleep 1000",
        &[],
    );
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !stage.path("pid").exists() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    traced.interrupt();
    let ended = traced.end(String::new());
    assert_eq!(ended.status, 2);
    for said in ["waiting for dtrace to begin", "ended before tracing began"] {
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
    assert_eq!(temporary_scripts(&stage), 0);
    let pid = fs::read_to_string(stage.path("pid"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let gone = || rustix::process::test_kill_process(Pid::from_raw(pid).unwrap()).is_err();
    while !gone() {
        assert!(
            std::time::Instant::now() < deadline,
            "dtrace is still there"
        );
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn options_of_the_other_source_are_refused() {
    for (arguments, part) in [
        (
            &["--source", "ebpf", "-x", "bufsize=1m"][..],
            "--dtrace-option is for dtrace",
        ),
        (
            &["--source", "ebpf", "--dtrace-path", "/x"],
            "--dtrace-path is for dtrace",
        ),
        (
            &["--source", "dtrace", "--tier", "kprobe"],
            "--tier is for eBPF",
        ),
        (
            &["--source", "dtrace", "--ring-size", "64K"],
            "--ring-size is for eBPF",
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_msync-trace"))
            .args(arguments)
            .output()
            .unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(part), "{message}");
    }
}
