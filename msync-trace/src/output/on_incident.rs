//! A command for each incident, with the record as one line of JSON on its standard input.
//!
//! No shell is involved, nothing of the record is in its arguments. It is bounded: so many at the
//! same time, so many in a minute, and each in its time; then it is killed with all that it began.

use std::{
    collections::VecDeque,
    env,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Seek, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Access, MemfdFlags, access, memfd_create},
    process::{Pid, Signal, kill_process_group},
};

use super::{Refused, Reporter, Sink};
use crate::schema::{Body, Record, to_line};

/// What the commands may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// So many run at the same time; further incidents wait.
    pub at_once: u32,
    /// So many are started in any minute; further incidents are left out.
    pub per_minute: u32,
    /// Then it is killed.
    pub timeout: Duration,
}

/// How often is looked whether a command ended.
const PACE: Duration = Duration::from_millis(10);
const MINUTE: Duration = Duration::from_secs(60);

/// Runs a command for each incident.
pub struct OnIncident {
    command: Vec<OsString>,
    bounds: Bounds,
    reporter: Reporter,
    /// When those of the last minute were started.
    started: VecDeque<Instant>,
    running: Arc<Running>,
}

#[derive(Default)]
struct Running {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    count: u32,
    /// All are killed then.
    deadline: Option<Instant>,
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until fewer than `count` run.
    fn wait_below(&self, count: u32) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        while state.count >= count {
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        state
    }
}

impl OnIncident {
    /// Whether a program could be started now, as execvp(3) looks for it: said before it is needed.
    ///
    /// # Errors
    /// The kernel's, or `NotFound` for a name that is in no folder of `PATH`.
    pub fn can_start(program: &OsStr) -> io::Result<()> {
        let is_program = |path: &Path| -> io::Result<()> {
            access(path, Access::EXEC_OK)?;
            match path.is_file() {
                true => Ok(()),
                false => Err(io::ErrorKind::PermissionDenied.into()),
            }
        };
        if program.as_encoded_bytes().contains(&b'/') {
            return is_program(Path::new(program));
        }
        let folders = env::var_os("PATH").unwrap_or_default();
        let mut tried = env::split_paths(&folders).map(|folder| is_program(&folder.join(program)));
        match tried.any(|found| found.is_ok()) {
            true => Ok(()),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// `command`: a program and its arguments. What becomes of it is told to `reporter`.
    #[must_use]
    pub fn new(command: Vec<OsString>, bounds: Bounds, reporter: Reporter) -> Self {
        Self {
            command,
            bounds,
            reporter,
            started: VecDeque::new(),
            running: Arc::default(),
        }
    }

    fn is_within_minute(&mut self) -> bool {
        while self
            .started
            .front()
            .is_some_and(|at| at.elapsed() >= MINUTE)
        {
            self.started.pop_front();
        }
        self.started.len() < self.bounds.per_minute as usize
    }

    fn spawn(&self, line: &[u8]) -> io::Result<Child> {
        let (program, arguments) = self
            .command
            .split_first()
            .ok_or(io::ErrorKind::InvalidInput)?;
        Command::new(program)
            .args(arguments)
            .stdin(in_memory(line)?)
            .process_group(0)
            .spawn()
            .map_err(|error| {
                let program = super::escape(program.as_encoded_bytes());
                io::Error::new(error.kind(), format!("cannot run {program}: {error}"))
            })
    }
}

/// A file that is nowhere: a command that does not read holds up nobody.
fn in_memory(line: &[u8]) -> io::Result<Stdio> {
    let mut file = File::from(memfd_create("incident", MemfdFlags::CLOEXEC)?);
    file.write_all(line)?;
    file.rewind()?;
    Ok(file.into())
}

impl Sink for OnIncident {
    fn wants(&self, record: &Record) -> bool {
        matches!(record.body, Body::Incident(_))
    }

    fn put(&mut self, record: &Record) -> Result<(), Refused> {
        if !self.is_within_minute() {
            return Err(Refused::LeftOut);
        }
        let mut state = self.running.wait_below(self.bounds.at_once);
        let child = self.spawn(&to_line(record)).map_err(Refused::ForNow)?;
        state.count += 1;
        drop(state);
        self.started.push_back(Instant::now());
        let watch = Watch {
            child,
            deadline: Instant::now() + self.bounds.timeout,
            timeout: self.bounds.timeout,
            running: Arc::clone(&self.running),
            reporter: self.reporter.clone(),
        };
        let thread = thread::Builder::new().name("on_incident".to_owned());
        match thread.spawn(move || watch.run()) {
            Ok(_) => Ok(()),
            Err(error) => {
                // Nobody will see it end.
                self.running.lock().count -= 1;
                Err(Refused::ForGood(error))
            }
        }
    }

    fn finish(&mut self, deadline: Instant) {
        self.running.lock().deadline = Some(deadline);
        drop(self.running.wait_below(1));
    }
}

/// Sees one command through.
struct Watch {
    child: Child,
    deadline: Instant,
    timeout: Duration,
    running: Arc<Running>,
    reporter: Reporter,
}

impl Watch {
    fn run(mut self) {
        match self.outcome() {
            Ok(()) => self.reporter.succeeded(),
            Err(error) => self.reporter.failed(&error),
        }
        self.running.lock().count -= 1;
        self.running.changed.notify_all();
    }

    fn outcome(&mut self) -> io::Result<()> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return judged(status);
            }
            let end = self.running.lock().deadline;
            let until = end.map_or(self.deadline, |end| end.min(self.deadline));
            if Instant::now() >= until {
                self.kill();
                self.child.wait()?;
                return Err(io::Error::other(format!(
                    "the command was killed: it took longer than {} s",
                    self.timeout.as_secs()
                )));
            }
            thread::sleep(PACE);
        }
    }

    fn kill(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself in this moment.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

fn judged(status: ExitStatus) -> io::Result<()> {
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("the command ended with {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_noticed() {
        let kind = |program: &str| {
            OnIncident::can_start(OsStr::new(program))
                .err()
                .map(|error| error.kind())
        };
        assert_eq!(kind("/bin/sh"), None);
        assert_eq!(kind("sh"), None);
        assert_eq!(kind("no-such-pager"), Some(io::ErrorKind::NotFound));
        assert_eq!(kind("/no/such/pager"), Some(io::ErrorKind::NotFound));
        assert_eq!(kind("/etc/passwd"), Some(io::ErrorKind::PermissionDenied));
        assert_eq!(kind("/etc"), Some(io::ErrorKind::PermissionDenied));
    }
}
