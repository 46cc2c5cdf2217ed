//! `selftest` passes where it can run, and leaves nothing behind, however it ends. Needs root, a
//! loop device and mkfs; says SKIPPED and why where they are missing.
#![cfg(target_os = "linux")]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// For the kernel to take down what a killed selftest left.
const TAKE_DOWN: Duration = Duration::from_secs(30);
/// What a selftest may take.
const WHOLE: Duration = Duration::from_secs(20);

fn selftest(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_msync-trace"));
    command.arg("selftest").args(arguments);
    command
}

/// Whether it cannot run on this machine, and why.
fn obstacle() -> Option<String> {
    (!rustix::process::geteuid().is_root()).then(|| "not root".to_owned())
}

fn passes_on(fs: &str) {
    if let Some(reason) = obstacle() {
        println!("SKIPPED selftest: {fs}: {reason}");
        return;
    }
    let began = Instant::now();
    let output = selftest(&["--fs", fs, "-v"]).output().unwrap();
    let took = began.elapsed();
    let (said, complained) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    if output.status.code() == Some(2) {
        assert_eq!(complained.lines().count(), 1, "{complained}");
        println!("SKIPPED selftest: {fs}: {}", complained.trim_end());
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{said}{complained}");
    let last = said.lines().last();
    assert_eq!(
        last,
        Some("selftest passed: 3 losses made, 3 reported"),
        "{said}"
    );
    for (kind, told) in [
        ("tried-again", "caller"),
        ("opened-anew", "other"),
        ("nobody-told", "nobody"),
    ] {
        let line = said
            .lines()
            .find(|line| line.starts_with(&format!("{kind}: lost bytes 16384-32767 of ")));
        let line = line.unwrap_or_else(|| panic!("{kind}:\n{said}"));
        assert!(line.contains(&format!("/mnt/{fs}/{kind}")), "{line}");
        assert!(line.contains("the disk has "), "{line}");
        assert!(line.contains(&format!("told {told}")), "{line}");
    }
    assert!(took < WHOLE, "{took:?}:\n{said}");
}

#[test]
fn passes_on_ext4() {
    passes_on("ext4");
}

#[test]
fn passes_on_xfs() {
    passes_on("xfs");
}

#[test]
fn passes_on_btrfs() {
    passes_on("btrfs");
}

#[test]
fn without_root_it_says_so() {
    use std::os::unix::process::CommandExt;

    let mut command = selftest(&[]);
    if rustix::process::geteuid().is_root() {
        // nobody; std drops the groups with it.
        command.uid(65534).gid(65534);
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            println!("SKIPPED selftest: cannot run as nobody: {error}");
            return;
        }
    };
    let complained = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{complained}");
    assert_eq!(complained.lines().count(), 1, "{complained}");
    assert!(
        complained.contains("sudo msync-trace selftest"),
        "{complained}"
    );
}

#[test]
fn a_missing_mkfs_names_its_package() {
    if let Some(reason) = obstacle() {
        println!("SKIPPED selftest: {reason}");
        return;
    }
    // Nowhere to find any program.
    let output = selftest(&[]).env("PATH", "/proc").output().unwrap();
    let complained = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{complained}");
    if complained.contains("mkfs") {
        assert!(complained.contains("install e2fsprogs"), "{complained}");
    } else {
        println!("SKIPPED selftest: {}", complained.trim_end());
    }
}

/// A selftest that has its disk, and which.
struct Running {
    child: Child,
    disk: Disk,
}

/// A loop device as it is now: its number is reused, its sequence number is not.
struct Disk {
    name: String,
    sequence: Option<String>,
}

impl Disk {
    fn sys(&self) -> PathBuf {
        Path::new("/sys/block").join(&self.name)
    }

    fn named(name: &str) -> Self {
        let mut disk = Self {
            name: name.to_owned(),
            sequence: None,
        };
        // Linux 5.15.
        disk.sequence = fs::read_to_string(disk.sys().join("diskseq")).ok();
        disk
    }

    /// Attached to the same file as at first. What is mounted is attached.
    fn is_attached(&self) -> bool {
        self.sys().join("loop/backing_file").exists()
            && fs::read_to_string(self.sys().join("diskseq")).ok() == self.sequence
    }

    /// Where it is mounted, in any namespace that a process is in.
    fn mounts(&self) -> Vec<PathBuf> {
        let source = format!(" /dev/{} ", self.name);
        let processes = fs::read_dir("/proc").unwrap().flatten();
        processes
            .map(|process| process.path().join("mountinfo"))
            .filter(|mounts| fs::read_to_string(mounts).is_ok_and(|text| text.contains(&source)))
            .collect()
    }

    fn must_go(&self) {
        let deadline = Instant::now() + TAKE_DOWN;
        while self.is_attached() {
            assert!(
                Instant::now() < deadline,
                "{} is left, mounted in {:?}",
                self.name,
                self.mounts()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Starts one, and returns once it has said this (`None`: this machine cannot run it).
fn run_until(milestone: &str) -> Option<Running> {
    if let Some(reason) = obstacle() {
        println!("SKIPPED selftest: {reason}");
        return None;
    }
    let mut child = selftest(&[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut disk = None;
    let stdout = BufReader::new(child.stdout.take().unwrap());
    for line in stdout.lines().map_while(Result::ok) {
        if let Some((_, rest)) = line.split_once(" on /dev/loop") {
            let number = rest.split(',').next().unwrap();
            disk = Some(Disk::named(&format!("loop{number}")));
        }
        if line.contains(milestone) {
            let disk = disk.expect("the disk comes first");
            return Some(Running { child, disk });
        }
    }
    let status = child.wait().unwrap();
    let mut complained = String::new();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut complained).unwrap();
    assert_eq!(status.code(), Some(2), "{complained}");
    println!("SKIPPED selftest: {}", complained.trim_end());
    None
}

/// Sends a signal in the middle. On a busy machine it can come too late: then again.
fn leaves_nothing(milestone: &str, signal: rustix::process::Signal, status: Option<i32>) {
    for _ in 0..5 {
        let Some(mut running) = run_until(milestone) else {
            return;
        };
        let pid = rustix::process::Pid::from_child(&running.child);
        rustix::process::kill_process(pid, signal).unwrap();
        let ended = running.child.wait().unwrap();
        running.disk.must_go();
        if ended.code() != Some(0) {
            assert_eq!(ended.code(), status, "{ended:?}");
            return;
        }
    }
    panic!("every selftest was over before the signal came");
}

#[test]
fn killed_with_a_new_disk_it_leaves_nothing() {
    leaves_nothing("scratch ext4 on", rustix::process::Signal::KILL, None);
}

#[test]
fn killed_among_the_losses_it_leaves_nothing() {
    leaves_nothing(
        "tried-again: data lost",
        rustix::process::Signal::KILL,
        None,
    );
}

#[test]
fn interrupted_it_leaves_nothing() {
    leaves_nothing("hooks attached", rustix::process::Signal::INT, Some(2));
}
