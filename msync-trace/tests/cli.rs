//! The built command, as a user meets it.

use std::process::{Command, Output};

fn msync_trace(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_msync-trace"));
    command.args(arguments);
    command
}

fn run(arguments: &[&str]) -> Output {
    msync_trace(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn help_has_examples_and_the_exit_status() {
    for arguments in [
        &["--help"][..],
        &["trace", "--help"],
        &["check", "--help"],
        &["selftest", "--help"],
        &["ingest", "--help"],
    ] {
        let output = run(arguments);
        let help = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0));
        for part in ["Examples:", "Exit status:", "msync-trace check"] {
            assert!(help.contains(part), "{arguments:?} lacks {part}:\n{help}");
        }
    }
}

#[test]
fn bad_usage_is_status_2_on_standard_error() {
    for arguments in [
        &["--nonsense"][..],
        &["--duration", "soon"],
        &["--stop-after", "0"],
        &["--calls", "write"],
        &["-q", "-v"],
        &["frobnicate"],
        &["selftest", "--fs", "vfat"],
        &["ingest", "--duration", "1s"],
        &["--source", "magic"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn without_privileges_it_says_which_are_missing_and_what_to_do() {
    use std::os::unix::process::CommandExt;

    let mut command = msync_trace(&["trace"]);
    if rustix::process::geteuid().is_root() {
        // nobody; std drops the groups with it.
        command.uid(65534).gid(65534);
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            println!("SKIPPED: cannot run as nobody: {error}");
            return;
        }
    };
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(output.stdout.is_empty());
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(message.contains("CAP_BPF"), "{message}");
    assert!(message.contains("sudo msync-trace"), "{message}");
}

#[test]
fn check_speaks_json() {
    let output = run(&["check", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["schema"], 1);
    assert_eq!(report["type"], "check");
    let expected = match report["readiness"].as_str().unwrap() {
        "ready" => 0,
        "limited" => 1,
        "no" => 2,
        other => panic!("{other}"),
    };
    assert_eq!(output.status.code(), Some(expected));
    for item in report["items"].as_array().unwrap() {
        assert!(item["detail"].is_string(), "{item}");
        assert!(["ok", "warn", "fail"].contains(&item["status"].as_str().unwrap()));
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let mut command = msync_trace(&["check", "--json"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdout(writer).output().unwrap();
    assert!(output.status.code().is_some(), "{:?}", output.status);
    assert_eq!(text(&output.stderr), "");
}
