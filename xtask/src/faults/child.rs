//! A server of ours in a process of its own.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The longest that a server may take to begin or to end.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A forked process. Dropping it kills it.
pub struct Child {
    pid: libc::pid_t,
    ended: bool,
}

impl Child {
    /// Forks. The new process keeps these descriptors only, does `work`, and ends: with status 1 if
    /// that failed, which it says under this name. It dies with us, and does not mind Ctrl-C. Call it
    /// before this process has threads.
    pub fn start(
        name: &str,
        keep: &[BorrowedFd<'_>],
        work: impl FnOnce() -> io::Result<()>,
    ) -> Result<Child> {
        // SAFETY: this process has one thread, so the child may do anything.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()).context("fork"),
            0 => {
                super::keep_only(keep);
                // SAFETY: prctl and signal get constants only.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    libc::signal(libc::SIGINT, libc::SIG_IGN);
                }
                let done = work();
                if let Err(error) = &done {
                    eprintln!("{name}: {error}");
                }
                // SAFETY: leaves without running anything that belongs to the parent.
                unsafe { libc::_exit(i32::from(done.is_err())) }
            }
            pid => Ok(Child { pid, ended: false }),
        }
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        // SAFETY: our own child, not yet waited for.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.ended {
            let mut status = 0;
            // SAFETY: status is a valid place for the result; the child is ours.
            match unsafe { libc::waitpid(self.pid, &raw mut status, libc::WNOHANG) } {
                0 if Instant::now() > deadline => bail!("a server of ours does not end"),
                0 => std::thread::sleep(Duration::from_millis(1)),
                _ => self.ended = true,
            }
        }
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.kill();
        }
    }
}
