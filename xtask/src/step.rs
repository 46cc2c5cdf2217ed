//! Runs a command as a step: output into a log of its own, a sign of life every ten seconds, an
//! end by deadline or Ctrl-C that takes all its children along. Knows nothing of what is run.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        atomic::{AtomicI32, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

const SIGN_OF_LIFE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(200);
/// How long a child may keep the pipe open after its parent ended.
const LAST_WORDS: Duration = Duration::from_secs(2);
const TAIL_LINES: usize = 30;

/// Whether this process may do everything.
pub fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions.
    unsafe { libc::geteuid() == 0 }
}

/// A command about to be run.
pub struct Step {
    /// Stands before the signs of life.
    pub name: String,
    /// What to run; standard input is empty.
    pub command: Command,
    /// Its whole output goes here.
    pub log: PathBuf,
    /// After that it is killed.
    pub deadline: Duration,
    /// It is killed as well if no line with this text has come after so long.
    pub must_say: Option<(String, Duration)>,
    /// Print signs of life.
    pub ticker: bool,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this status (128 + n for a signal n, as in a shell).
    Exit(i32),
    /// Killed at its deadline.
    TimedOut,
}

impl Ending {
    fn of(status: ExitStatus) -> Self {
        let signalled = || 128 + status.signal().unwrap_or(0);
        Self::Exit(status.code().unwrap_or_else(signalled))
    }
}

/// What a command left behind.
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// How long it took.
    pub took: Duration,
    /// The last lines of its output.
    pub tail: Vec<String>,
}

impl Outcome {
    /// It ended by itself with status 0.
    pub fn success(&self) -> bool {
        self.ending == Ending::Exit(0)
    }
}

impl Step {
    /// A step with the usual deadline and signs of life.
    pub fn new(name: &str, command: Command, log: PathBuf) -> Self {
        let deadline = Duration::from_secs(30 * 60);
        Self {
            name: name.to_owned(),
            command,
            log,
            deadline,
            must_say: None,
            ticker: true,
        }
    }

    /// Runs it to its end and hands over each line of output as it comes.
    pub fn run(mut self, mut on_line: impl FnMut(&str)) -> Result<Outcome> {
        let mut log = create_log(&self.log)?;
        writeln!(log, "$ {:?}", self.command)?;
        let program = self.command.get_program().to_owned();
        let (reader, writer) = io::pipe()?;
        self.command
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0);
        let child = self.command.spawn();
        let child = child.with_context(|| format!("cannot run {}", program.display()))?;
        // The command holds our copies of the pipe's end.
        drop(self.command);
        let mut running = Running::new(child);

        let lines = read_lines(reader);
        let started = Instant::now();
        let mut last_sign = started;
        let mut last_line = started;
        let mut tail = VecDeque::new();
        let mut ended = None;
        let ending = loop {
            match lines.recv_timeout(POLL) {
                Ok(line) => {
                    last_line = Instant::now();
                    writeln!(log, "{line}")?;
                    self.must_say.take_if(|(text, _)| line.contains(&*text));
                    on_line(&line);
                    tail.push_back(line);
                    if tail.len() > TAIL_LINES {
                        tail.pop_front();
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break Ending::of(running.wait()?),
                Err(RecvTimeoutError::Timeout) => {
                    ended = ended.or(running.poll()?);
                    if let Some(status) = ended
                        && last_line.elapsed() > LAST_WORDS
                    {
                        break Ending::of(status);
                    }
                }
            }
            let unsaid = self.must_say.as_ref();
            let deadline = unsaid.map_or(self.deadline, |(_, by)| self.deadline.min(*by));
            if started.elapsed() > deadline {
                running.kill();
                break Ending::TimedOut;
            }
            if self.ticker && last_sign.elapsed() >= SIGN_OF_LIFE {
                last_sign = Instant::now();
                let last = tail.back().map_or("", String::as_str).trim();
                progress(&format!(
                    "    {} {} {last:.60}",
                    self.name,
                    seconds(started.elapsed())
                ));
            }
        };
        Ok(Outcome {
            ending,
            took: started.elapsed(),
            tail: tail.into(),
        })
    }

    /// Runs it; anything but success is an error that names the log and shows its end.
    pub fn must(self) -> Result<Outcome> {
        let name = self.name.clone();
        let log = self.log.clone();
        let outcome = self.run(|_| ())?;
        if outcome.success() {
            return Ok(outcome);
        }
        anyhow::bail!(
            "{name} failed ({:?}); the last lines of {}:\n{}",
            outcome.ending,
            log.display(),
            outcome.tail.join("\n")
        )
    }
}

/// Prints a line of progress. All of them go to standard error.
pub fn progress(line: &str) {
    eprintln!("{}", line.trim_end());
}

/// A duration as people read it.
pub fn seconds(took: Duration) -> String {
    match took.as_secs() {
        0..10 => format!("{:.1} s", took.as_secs_f64()),
        whole @ 10..120 => format!("{whole} s"),
        whole => format!("{} min {:02} s", whole / 60, whole % 60),
    }
}

fn create_log(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

/// Lines without their end; bytes that are no UTF-8 are replaced.
fn read_lines(source: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut source = BufReader::new(source);
        let mut line = Vec::new();
        while source
            .read_until(b'\n', &mut line)
            .is_ok_and(|length| length > 0)
        {
            let text = String::from_utf8_lossy(&line);
            if sender
                .send(text.trim_end_matches(['\r', '\n']).to_owned())
                .is_err()
            {
                break;
            }
            line.clear();
        }
    });
    receiver
}

/// A child with a process group of its own, which is gone when this is dropped.
struct Running {
    child: Child,
    slot: Option<&'static AtomicI32>,
}

impl Running {
    fn new(child: Child) -> Self {
        let group = child.id().cast_signed();
        let free = |slot: &&AtomicI32| {
            slot.compare_exchange(0, group, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
        };
        Self {
            child,
            slot: GROUPS.iter().find(free),
        }
    }

    fn poll(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Asks the whole group to end, then makes it.
    fn kill(&mut self) {
        signal_group(self.child.id().cast_signed(), libc::SIGTERM);
        let asked = Instant::now();
        while asked.elapsed() < LAST_WORDS && matches!(self.poll(), Ok(None)) {
            thread::sleep(POLL / 4);
        }
        signal_group(self.child.id().cast_signed(), libc::SIGKILL);
        // Fails only if it was waited for already.
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.poll() {
            self.kill();
        }
        if let Some(slot) = self.slot {
            slot.store(0, Ordering::SeqCst);
        }
    }
}

/// The process groups that run now, for the signal handler.
static GROUPS: [AtomicI32; 16] = [const { AtomicI32::new(0) }; 16];

fn signal_group(group: i32, signal: i32) {
    if group > 1 {
        // SAFETY: killpg takes no pointer. The group is that of a child of ours.
        unsafe { libc::killpg(group, signal) };
    }
}

/// From now on Ctrl-C, SIGTERM and SIGHUP end the running steps with all their children.
pub fn take_children_along_when_interrupted() {
    extern "C" fn handler(signal: i32) {
        for slot in &GROUPS {
            signal_group(slot.load(Ordering::SeqCst), libc::SIGTERM);
        }
        // SAFETY: _exit may be called in a signal handler.
        unsafe { libc::_exit(128 + signal) };
    }
    let handler: extern "C" fn(i32) = handler;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler calls nothing but killpg and _exit, which a handler may.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_does_not_say_what_it_must_is_killed() {
        let silent = |script: &str| {
            let folder = tempfile::tempdir().unwrap();
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            let mut step = Step::new("test", command, folder.path().join("log"));
            step.must_say = Some(("hello".to_owned(), Duration::from_millis(500)));
            step.run(|_| ()).unwrap().ending
        };
        assert_eq!(silent("echo hell; exec sleep 60"), Ending::TimedOut);
        assert_eq!(silent("echo hello; sleep 1; exit 3"), Ending::Exit(3));
    }

    fn shell(script: &str, deadline: Duration) -> (Outcome, Vec<String>, String) {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("deep/step.log");
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let name = "test".to_owned();
        let step = Step {
            must_say: None,
            name,
            command,
            log: log.clone(),
            deadline,
            ticker: false,
        };
        let mut lines = Vec::new();
        let outcome = step.run(|line| lines.push(line.to_owned())).unwrap();
        (outcome, lines, fs::read_to_string(log).unwrap())
    }

    #[test]
    fn both_streams_reach_the_log_and_the_caller() {
        let (outcome, lines, log) = shell(
            "echo out; echo err >&2; printf 'no end'; exit 7",
            Duration::from_secs(20),
        );
        assert_eq!(outcome.ending, Ending::Exit(7));
        assert_eq!(lines, ["out", "err", "no end"]);
        assert!(log.ends_with("out\nerr\nno end\n"), "{log}");
    }

    #[test]
    fn a_signal_is_told_as_a_shell_tells_it() {
        let (outcome, ..) = shell("kill -9 $$", Duration::from_secs(20));
        assert_eq!(outcome.ending, Ending::Exit(137));
    }

    #[test]
    fn the_deadline_takes_grandchildren_along() {
        let (outcome, lines, _) = shell("sleep 1000 & echo $!; wait", Duration::from_millis(500));
        assert_eq!(outcome.ending, Ending::TimedOut);
        let grandchild: i32 = lines[0].parse().unwrap();
        let gone = || {
            fs::read_to_string(format!("/proc/{grandchild}/stat")).map_or(true, |stat| {
                stat.rsplit(") ")
                    .next()
                    .is_some_and(|rest| rest.starts_with('Z'))
            })
        };
        let asked = Instant::now();
        while !gone() && asked.elapsed() < Duration::from_secs(5) {
            thread::sleep(POLL / 10);
        }
        assert!(gone());
    }

    #[test]
    fn a_daemon_that_keeps_the_pipe_does_not_hold_us_up() {
        let (outcome, ..) = shell("setsid sleep 6 & exit 3", Duration::from_secs(20));
        assert_eq!(outcome.ending, Ending::Exit(3));
        assert!(outcome.took < Duration::from_secs(5));
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(seconds(Duration::from_millis(1_230)), "1.2 s");
        assert_eq!(seconds(Duration::from_secs(61)), "61 s");
        assert_eq!(seconds(Duration::from_secs(605)), "10 min 05 s");
    }
}
