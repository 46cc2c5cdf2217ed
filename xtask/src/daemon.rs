//! A program that runs beside us until it is told to end. It is killed when this is dropped, and by the
//! kernel when this process dies.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsRawFd, RawFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// How long `serve` may take to begin, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// It runs, and what it says goes to a file.
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it. Its output is appended to `log`.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log);
        let out = out.with_context(|| format!("cannot write {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        // SAFETY: one system call between fork and exec.
        unsafe {
            command.pre_exec(
                || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                },
            );
        }
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn();
        let child = child.with_context(|| format!("cannot run {name}"))?;
        Ok(Self {
            name,
            child,
            log: log.to_owned(),
        })
    }

    /// `msync-trace serve` with these options, once it says that it is ready.
    pub fn serve(program: &Path, options: &[String], log: &Path) -> Result<Self> {
        Self::serve_in(program, options, log, |_| Ok(()))
    }

    /// The same, where `prepare` puts it.
    pub fn serve_in(
        program: &Path,
        options: &[String],
        log: &Path,
        prepare: impl FnOnce(&mut Command) -> Result<()>,
    ) -> Result<Self> {
        let (mut ready, write_end) = io::pipe()?;
        let fd = write_end.as_raw_fd();
        let mut command = Command::new(program);
        command
            .arg("serve")
            .arg(format!("--ready-fd={fd}"))
            .args(options)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        // SAFETY: one system call between fork and exec.
        unsafe {
            command.pre_exec(move || match libc::fcntl(fd, libc::F_SETFD, 0) {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
        prepare(&mut command)?;
        let mut serve = Self::start(command, log)?;
        drop(write_end);
        let mut line = [0];
        if is_readable(ready.as_raw_fd(), PATIENCE)? && ready.read(&mut line)? == 1 {
            return Ok(serve);
        }
        serve.signal(libc::SIGKILL);
        let status = serve.child.wait()?;
        bail!(
            "serve did not become ready ({status}): {}",
            serve.last_words()
        )
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The end of it, for an error.
    pub fn last_words(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    /// An error if it ended.
    pub fn must_run(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}): {}", self.name, self.last_words()),
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: our own child, which was not waited for.
        unsafe { libc::kill(self.child.id().cast_signed(), signal) };
    }

    /// SIGTERM, and how it ended.
    pub fn end(mut self) -> Result<ExitStatus> {
        self.signal(libc::SIGTERM);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "{} does not end: {}",
                self.name,
                self.last_words()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until there is something to read, or nobody to write.
fn is_readable(fd: RawFd, patience: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    let patience = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one structure that lives longer than the call.
    match unsafe { libc::poll(&raw mut poll, 1, patience) } {
        -1 => Err(io::Error::last_os_error()),
        ready => Ok(ready == 1),
    }
}
