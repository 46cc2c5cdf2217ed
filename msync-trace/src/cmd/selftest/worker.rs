//! The process that owns the scratch disk, and its children that lose data on it.
//!
//! It ends, and takes the disk with it, when it is told to, when whoever started it is gone (the
//! socket closes), and in any case after a while.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    check::scratch::{Loss, LossKind, OnDisk, Scratch, ScratchError, ScratchFs},
    model::{ByteRange, Errno},
};

/// Longer than a selftest takes. The kernel ends what lives longer, come what may.
const LIFETIME_S: libc::c_uint = 30;
/// How long taking the disk down may take.
const TAKE_DOWN: Duration = Duration::from_secs(8);

/// What the worker says: one line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// The scratch disk stands.
    Ready {
        /// Block device.
        device: PathBuf,
        /// Where it is mounted, for the worker and its children alone.
        mount_point: PathBuf,
    },
    /// Data was lost.
    Lost(LossMessage),
    /// It could not be done: a sentence.
    Failed(String),
}

/// A [`Loss`] on its way between processes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LossMessage {
    kind: usize,
    path: PathBuf,
    range: ByteRange,
    whole: ByteRange,
    zeros: bool,
    errno: Errno,
    pid: u32,
    tid: u32,
}

impl From<Loss> for LossMessage {
    fn from(loss: Loss) -> Self {
        Self {
            kind: LossKind::ALL
                .iter()
                .position(|kind| *kind == loss.kind)
                .unwrap_or(usize::MAX),
            path: loss.path,
            range: loss.range,
            whole: loss.whole,
            zeros: loss.on_disk == OnDisk::Zeros,
            errno: loss.errno,
            pid: loss.pid,
            tid: loss.tid,
        }
    }
}

impl LossMessage {
    /// `None`: this is not from our worker.
    pub(super) fn loss(self) -> Option<Loss> {
        Some(Loss {
            kind: *LossKind::ALL.get(self.kind)?,
            path: self.path,
            range: self.range,
            whole: self.whole,
            on_disk: if self.zeros {
                OnDisk::Zeros
            } else {
                OnDisk::OldBytes
            },
            errno: self.errno,
            pid: self.pid,
            tid: self.tid,
        })
    }
}

/// The worker, seen from the process that started it. Dropped, it ends and is waited for.
pub(super) struct Worker {
    pid: libc::pid_t,
    /// `None` when it has been told to end.
    socket: Option<UnixStream>,
}

impl Worker {
    /// Starts it: it makes the disk and says [`Message::Ready`].
    pub(super) fn start(fs: ScratchFs) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        // SAFETY: this process has one thread (see `super::main`), so the child may go on as any
        // program does.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                drop(ours);
                run_and_exit(|| work(fs, &theirs))
            }
            pid => Ok(Self {
                pid,
                socket: Some(ours),
            }),
        }
    }

    /// Another handle to the socket, to read messages from.
    pub(super) fn messages(&self) -> io::Result<UnixStream> {
        match &self.socket {
            Some(socket) => socket.try_clone(),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Asks for a loss; [`Message::Lost`] will answer.
    pub(super) fn lose(&mut self, kind: usize) -> io::Result<()> {
        match &mut self.socket {
            Some(socket) => socket.write_all(&[kind as u8]),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Ends it and waits until the disk is gone. False: it had to be killed.
    pub(super) fn end(&mut self) -> bool {
        let Some(socket) = self.socket.take() else {
            return true;
        };
        // Also where another handle is still open.
        let _ = socket.shutdown(std::net::Shutdown::Both);
        let deadline = Instant::now() + TAKE_DOWN;
        while Instant::now() < deadline {
            // SAFETY: no status is asked for.
            match unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), libc::WNOHANG) } {
                0 => std::thread::sleep(Duration::from_millis(2)),
                _ => return true,
            }
        }
        // SAFETY: our child, not yet waited for: the number is still its own.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
        false
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

/// In a forked child: nothing of the parent's may run after this, no destructor, no exit handler.
fn run_and_exit(body: impl FnOnce()) -> ! {
    // Ctrl-C is for the parent, which then ends us; so that the disk is taken down in order.
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: ignoring a signal runs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // SAFETY: alarm has no memory arguments; SIGALRM ends the process.
    unsafe { libc::alarm(LIFETIME_S) };
    let status = i32::from(catch_unwind(AssertUnwindSafe(body)).is_err());
    // SAFETY: ends the process.
    unsafe { libc::_exit(status) }
}

fn work(fs: ScratchFs, mut socket: &UnixStream) {
    let mut scratch = match Scratch::new(fs) {
        Ok(scratch) => scratch,
        Err(error) => return say(socket, &Message::Failed(error.to_string())),
    };
    say(
        socket,
        &Message::Ready {
            device: scratch.device().to_owned(),
            mount_point: scratch.path().to_owned(),
        },
    );
    let mut wanted = [0];
    while let Ok(1) = socket.read(&mut wanted) {
        let Some(kind) = LossKind::ALL.get(usize::from(wanted[0])) else {
            return;
        };
        if let Err(error) = lose_in_child(&mut scratch, *kind, socket) {
            say(socket, &Message::Failed(error));
        }
    }
}

/// Every loss in a process of its own: it is reported once per process.
fn lose_in_child(scratch: &mut Scratch, kind: LossKind, socket: &UnixStream) -> Result<(), String> {
    // SAFETY: the worker has one thread.
    let pid = match unsafe { libc::fork() } {
        -1 => return Err(format!("fork: {}", io::Error::last_os_error())),
        0 => run_and_exit(|| {
            let message = match scratch.lose(kind) {
                Ok(loss) => Message::Lost(loss.into()),
                Err(error) => Message::Failed(sentence(kind, &error)),
            };
            say(socket, &message);
        }),
        pid => pid,
    };
    let mut status = 0;
    // SAFETY: status is a valid place for the result.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(format!("waitpid: {error}"));
        }
    }
    if status == 0 {
        Ok(())
    } else {
        Err(format!("the process that loses {} died", kind.name()))
    }
}

fn sentence(kind: LossKind, error: &ScratchError) -> String {
    format!("{}: {error}", kind.name())
}

fn say(mut socket: &UnixStream, message: &Message) {
    let Ok(mut line) = serde_json::to_vec(message) else {
        return;
    };
    line.push(b'\n');
    // Nobody to tell if the parent is gone.
    let _ = socket.write_all(&line);
}
