//! What the service manager is told: systemd's protocol (sd_notify(3)), and a descriptor for those
//! without systemd.

use std::{
    env,
    ffi::OsString,
    fs::File,
    io::{self, Write},
    os::{
        fd::{FromRawFd, RawFd},
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

/// Tells the service manager, if there is one.
pub(super) struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    ready_fd: Option<RawFd>,
    /// Within which time it wants to hear that we are alive.
    pub(super) watchdog: Option<Duration>,
}

impl Notify {
    /// As the environment says. To be called before anything is opened: a descriptor that was not
    /// handed over could become another one's.
    ///
    /// # Errors
    /// If there is no such descriptor.
    pub(super) fn new(ready_fd: Option<RawFd>) -> anyhow::Result<Self> {
        if let Some(fd) = ready_fd {
            // Not for the commands that we run.
            // SAFETY: only a flag of a descriptor is set.
            let is_open = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } == 0;
            anyhow::ensure!(
                is_open,
                "--ready-fd {fd}: no such descriptor was handed over"
            );
        }
        Ok(Self {
            socket: env::var_os("NOTIFY_SOCKET").and_then(|name| connect(&name).ok()),
            ready_fd,
            watchdog: watchdog(),
        })
    }

    /// Everything is attached and checked.
    pub(super) fn ready(&mut self, status: &str) -> io::Result<()> {
        self.send(&format!("READY=1\nSTATUS={status}"));
        match self.ready_fd.take() {
            // SAFETY: it was handed over to us by number, and is given up here.
            Some(fd) => unsafe { File::from_raw_fd(fd) }.write_all(b"\n"),
            None => Ok(()),
        }
    }

    /// How it goes; with `alive`, that it does.
    pub(super) fn status(&self, status: &str, alive: bool) {
        let alive = if alive { "\nWATCHDOG=1" } else { "" };
        self.send(&format!("STATUS={status}{alive}"));
    }

    /// Files are opened anew. With `Type=notify-reload` it is what `systemctl reload` waits for, with
    /// `Type=notify` it does no harm. To be followed by [`Self::reloaded`].
    pub(super) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// Every output was told.
    pub(super) fn reloaded(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// The end begins.
    pub(super) fn stopping(&self, status: &str) {
        self.send(&format!("STOPPING=1\nSTATUS={status}"));
    }

    /// The manager may be gone or busy: that is its affair.
    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.socket {
            let _ = socket.send_to_addr(message.as_bytes(), address);
        }
    }
}

fn connect(name: &OsString) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

fn watchdog() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    number("WATCHDOG_USEC")
        .filter(|usec| ours && *usec > 0)
        .map(Duration::from_micros)
}
