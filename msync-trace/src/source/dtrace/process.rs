//! A dtrace that we run: its lines on standard output, what it says on standard error, its end.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStderr, ChildStdout, Command},
    time::timeout,
};

use super::{
    Reader, Refusal,
    saved::Complaints,
    script::{self, ScriptFile},
};
use crate::{
    model::{Fact, InodeKey, LossCause, MonoTime, Release},
    schema::StopReason,
    source::{FactSource, HookStatus, Origin, Progress},
};

/// How long dtrace may take to compile the script and to enable its probes: three minutes with Linux
/// 7.2 under software emulation, whose verifier is slow.
const START: Duration = Duration::from_secs(600);
/// How long it may take to end, after each signal: it has to read all buffers and to print the rest.
const SIGNALS: [(Signal, Duration); 3] = [
    (Signal::INT, Duration::from_secs(10)),
    (Signal::TERM, Duration::from_secs(5)),
    (Signal::KILL, Duration::from_secs(2)),
];
/// Of what dtrace says, so much is kept for the error that ends it.
const KEPT: usize = 2048;
/// A line on standard error is not longer, bytes.
const LONGEST: usize = 4096;

/// Which dtrace, and how.
#[derive(Clone, Debug, Default)]
pub struct DtraceOptions {
    /// The program; `None`: that of the system.
    pub program: Option<PathBuf>,
    /// More of its `-x` options.
    pub options: Vec<OsString>,
}

/// Why dtrace gives no facts, or no more.
#[derive(Debug, thiserror::Error)]
pub enum DtraceError {
    /// No script for it.
    #[error("there is no D script for this system: FreeBSD and Linux have one")]
    NoScript,
    /// The script cannot be given to it.
    #[error("cannot write the D script into {}", .folder.display())]
    Script {
        /// Where.
        folder: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// It cannot be started.
    #[error("cannot run {}: {error}; {REMEDY_MISSING}", .program.display())]
    Missing {
        /// The program.
        program: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It did not begin.
    #[error("{} {end} before tracing began{said}; {remedy}", .program.display())]
    NotStarted {
        /// The program.
        program: PathBuf,
        /// How it ended.
        end: String,
        /// What it said.
        said: String,
        /// What to do.
        remedy: &'static str,
    },
    /// It ended by itself.
    #[error("dtrace {end}, and nobody had asked it to{said}")]
    Ended {
        /// How.
        end: String,
        /// What it said.
        said: String,
    },
    /// It prints something else.
    #[error("what dtrace prints cannot be read")]
    Refused(#[from] Refusal),
    /// The pipe is broken.
    #[error("cannot read what dtrace prints")]
    Io(#[from] io::Error),
}

const REMEDY_MISSING: &str = if cfg!(target_os = "freebsd") {
    "DTrace is part of the base system; --dtrace-path names another one"
} else {
    "install DTrace 2.0.7 or later (package dtrace; that of SystemTap is another program), or name \
     it with --dtrace-path"
};

/// What to do about what dtrace says.
fn remedy(said: &str) -> &'static str {
    let says = |parts: &[&str]| parts.iter().any(|part| said.contains(part));
    if says(&["privilege", "ermission denied", "not permitted"]) {
        "run it as root (sudo), and on FreeBSD outside of jails"
    } else if says(&["/dev/dtrace", "kldload", "module"]) {
        "load DTrace into the kernel: kldload dtraceall"
    } else if says(&[
        "failed to compile",
        "syntax error",
        "invalid probe",
        "does not match",
    ]) {
        "the script is for FreeBSD 13 to 15, and for DTrace 2.0.7 or later on Linux with BTF; if \
         this is one, please report it with this message"
    } else {
        "see whether dtrace works at all: dtrace -n BEGIN"
    }
}

/// A running dtrace.
#[derive(Debug)]
pub struct Dtrace {
    child: Child,
    program: PathBuf,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    reader: Reader,
    chunk: Vec<u8>,
    taken: usize,
    /// The beginning of a line of standard error.
    partial: Vec<u8>,
    /// What dtrace said last.
    said: String,
    complaints: Complaints,
    messages: Vec<String>,
    early: Vec<Fact>,
    origin: Option<Origin>,
    hooks: Vec<HookStatus>,
}

impl Dtrace {
    /// Starts dtrace with the script of this system, and waits until it traces.
    ///
    /// # Errors
    /// If it cannot be started, or does not begin.
    pub async fn start(options: &DtraceOptions, all_messages: bool) -> Result<Self, DtraceError> {
        let script = script::of_this_system().ok_or(DtraceError::NoScript)?;
        let file = ScriptFile::write(&script).map_err(|error| DtraceError::Script {
            folder: std::env::temp_dir(),
            error,
        })?;
        let program = options.program.clone().unwrap_or_else(of_the_system);
        let mut child = command(&program, options, file.path())
            .spawn()
            .map_err(|error| DtraceError::Missing {
                program: program.clone(),
                error,
            })?;
        let mut dtrace = Self {
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            child,
            program,
            reader: Reader::default(),
            chunk: Vec::new(),
            taken: 0,
            partial: Vec::new(),
            said: String::new(),
            complaints: Complaints::new(all_messages),
            messages: Vec::new(),
            early: Vec::new(),
            origin: None,
            hooks: Vec::new(),
        };
        match timeout(START, dtrace.begin()).await {
            Ok(begun) => begun?,
            Err(_) => return Err(dtrace.not_started("did not begin".to_owned())),
        }
        dtrace.hooks = dtrace.reader.hooks();
        // On Linux these are our kernel and our clock.
        dtrace.origin = dtrace.reader.origin().cloned().map(|origin| Origin {
            here: true,
            ..origin
        });
        if cfg!(target_os = "linux") {
            dtrace.origin = dtrace.origin.filter(|origin| origin.os != "Linux");
        }
        Ok(dtrace)
    }

    /// Reads up to the start line.
    async fn begin(&mut self) -> Result<(), DtraceError> {
        let mut early = Vec::new();
        while self.reader.origin().is_none() {
            if self.advance(&mut early).await? == Came::Nothing {
                let end = spell_end(self.child.wait().await?);
                return Err(self.not_started(end));
            }
        }
        self.early = early;
        Ok(())
    }

    fn not_started(&self, end: String) -> DtraceError {
        DtraceError::NotStarted {
            program: self.program.clone(),
            end,
            said: self.spell_said(),
            remedy: remedy(&self.said),
        }
    }

    fn spell_said(&self) -> String {
        match self.said.is_empty() {
            true => String::new(),
            false => format!(": {}", self.said),
        }
    }

    /// Takes what there is of a chunk up to the end of a batch, or waits for more on either pipe. May
    /// be dropped while it waits.
    async fn advance(&mut self, into: &mut Vec<Fact>) -> Result<Came, DtraceError> {
        if self.taken < self.chunk.len() {
            let taken = self.reader.take(&self.chunk[self.taken..], into)?;
            self.taken += taken.bytes;
            return Ok(Came::Lines);
        }
        let (mut lines, mut words) = (vec![0; 64 << 10], [0; 4096]);
        tokio::select! {
            read = read(&mut self.stdout, &mut lines), if self.stdout.is_some() => {
                lines.truncate(read?);
                if lines.is_empty() {
                    self.stdout = None;
                }
                (self.chunk, self.taken) = (lines, 0);
                Ok(Came::Lines)
            }
            read = read(&mut self.stderr, &mut words), if self.stderr.is_some() => {
                match read? {
                    0 => {
                        self.stderr = None;
                        self.heard(b"\n");
                    }
                    length => self.heard(&words[..length]),
                }
                Ok(Came::Words)
            }
            else => Ok(Came::Nothing),
        }
    }

    /// Something on standard error.
    fn heard(&mut self, words: &[u8]) {
        for piece in words.split_inclusive(|b| *b == b'\n') {
            if self.partial.len() + piece.len() <= LONGEST {
                self.partial.extend_from_slice(piece);
            }
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.partial);
                let line = String::from_utf8_lossy(&line);
                let line = line.trim_end();
                let line = line.strip_prefix("dtrace: ").unwrap_or(line);
                if !line.is_empty() {
                    self.heard_line(line);
                }
            }
        }
    }

    fn heard_line(&mut self, line: &str) {
        if let Some((cause, count)) = loss(line) {
            self.reader.lose(cause, count);
        }
        self.messages
            .extend(self.complaints.show_one(format!("dtrace: {line}")));
        if self.said.len() + line.len() < KEPT {
            if !self.said.is_empty() {
                self.said.push_str("; ");
            }
            self.said.push_str(line);
        }
    }

    /// Until both pipes are closed.
    async fn read_rest(&mut self, into: &mut Vec<Fact>) {
        while let Ok(Came::Lines | Came::Words) = self.advance(into).await {}
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // It may have ended by itself in this moment.
            let _ = kill_process(pid, signal);
        }
    }

    fn take_messages(&mut self) -> Vec<String> {
        let complaints = self.reader.take_complaints();
        let mut messages = std::mem::take(&mut self.messages);
        messages.extend(self.complaints.show(complaints));
        messages
    }
}

/// What [`Dtrace::advance`] had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    Lines,
    Words,
    /// Both pipes are closed.
    Nothing,
}

/// Reads from a pipe that is there.
async fn read(from: &mut Option<impl AsyncReadExt + Unpin>, into: &mut [u8]) -> io::Result<usize> {
    match from {
        Some(from) => from.read(into).await,
        None => Ok(0),
    }
}

/// The dtrace of the system. On Linux SystemTap has another program of this name in /usr/bin.
fn of_the_system() -> PathBuf {
    let program = Path::new("/usr/sbin/dtrace");
    match program.exists() {
        true => program.to_owned(),
        false => PathBuf::from("dtrace"),
    }
}

fn command(program: &Path, options: &DtraceOptions, script: &Path) -> Command {
    let mut command = Command::new(program);
    for option in &options.options {
        command.arg("-x").arg(option);
    }
    command.arg("-s").arg(script).arg("facts");
    if cfg!(target_os = "freebsd") {
        // The script cannot read it.
        command.arg(rustix::system::uname().release().to_string_lossy().as_ref());
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // What can be printed depends on it.
        .env("LC_ALL", "C")
        // Ctrl-C is for us: we end dtrace when it is time.
        .process_group(0)
        .kill_on_drop(true);
    // Shells ignore SIGINT for what they start in the background, and dtrace would as well.
    let listen = || {
        // SAFETY: the default action runs no code of ours.
        match unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) } {
            libc::SIG_ERR => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // SAFETY: between fork and exec, the closure only makes a system call; it allocates nothing.
    unsafe { command.pre_exec(listen) };
    command
}

fn spell_end(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;

    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// What a line of dtrace on standard error says was lost: "12 drops on CPU 0", "3 dynamic variable
/// drops with non-empty dirty list", "1 failed speculations"; "error on enabled probe ID 4 ..." on
/// FreeBSD, "error in dt_clause_4 for probe ID ..." on Linux.
fn loss(line: &str) -> Option<(LossCause, u64)> {
    let lower = line.to_ascii_lowercase();
    let first = lower.split_whitespace().next()?;
    if let Ok(count) = first.parse::<u64>() {
        let lost = ["drop", "failed speculation", "overflow", "error"];
        return lost
            .iter()
            .any(|word| lower.contains(word))
            .then_some((LossCause::DtraceDrops, count.max(1)));
    }
    if lower.starts_with("error on enabled probe") || lower.starts_with("error in ") {
        return Some((LossCause::ProbeError, 1));
    }
    None
}

impl FactSource for Dtrace {
    type Error = DtraceError;

    fn hooks(&self) -> &[HookStatus] {
        &self.hooks
    }

    fn tier(&self) -> &'static str {
        super::TIER
    }

    fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    fn now(&self) -> Option<MonoTime> {
        self.reader.now()
    }

    fn messages(&mut self) -> Vec<String> {
        self.take_messages()
    }

    async fn next_facts(&mut self, into: &mut Vec<Fact>) -> Result<Progress, DtraceError> {
        into.append(&mut self.early);
        loop {
            let came = self.advance(into).await?;
            if came == Came::Nothing {
                let end = spell_end(self.child.wait().await?);
                if self.reader.has_stopped() {
                    return Ok(Progress::Ended);
                }
                let said = self.spell_said();
                return Err(DtraceError::Ended { end, said });
            }
            let is_all = self.taken == self.chunk.len();
            let is_news = self.reader.complains() || !self.messages.is_empty();
            if is_all && (!into.is_empty() || is_news) {
                return Ok(Progress::More);
            }
        }
    }

    async fn finish(&mut self, _why: StopReason, into: &mut Vec<Fact>) -> Vec<String> {
        for (signal, patience) in SIGNALS {
            self.signal(signal);
            if timeout(patience, self.read_rest(into)).await.is_ok() {
                break;
            }
        }
        // Both pipes are closed, or it was killed: no more than a moment.
        let _ = timeout(Duration::from_secs(1), self.child.wait()).await;
        // There was a start line, so there is nothing to refuse.
        let _ = self.reader.end(into);
        let mut said = self.take_messages();
        said.extend(self.complaints.rest());
        said
    }

    fn released(&mut self, _inode: &InodeKey, _why: Release) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dtrace_says_was_lost_is_a_loss() {
        for (line, lost) in [
            ("12 drops on CPU 0", Some((LossCause::DtraceDrops, 12))),
            (
                "1 aggregation drop on CPU 3",
                Some((LossCause::DtraceDrops, 1)),
            ),
            (
                "5 dynamic variable drops with non-empty dirty list",
                Some((LossCause::DtraceDrops, 5)),
            ),
            (
                "2 failed speculations (no speculative buffer available)",
                Some((LossCause::DtraceDrops, 2)),
            ),
            (
                "error on enabled probe ID 7 (ID 61234: fbt:kernel:bufdone:entry): invalid address \
                 (0x10) in action #1 at DIF offset 24",
                Some((LossCause::ProbeError, 1)),
            ),
            (
                "error in dt_clause_5 for probe ID 1234 (fbt:vmlinux:ext4_end_bio:entry): invalid address",
                Some((LossCause::ProbeError, 1)),
            ),
            ("script '/tmp/x.d' matched 30 probes", None),
            ("buffer size lowered to 2m", None),
            ("", None),
        ] {
            assert_eq!(loss(line), lost, "{line}");
        }
    }
}
