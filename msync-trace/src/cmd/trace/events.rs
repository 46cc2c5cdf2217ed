//! What can end a trace from outside.

use std::{io, os::fd::AsFd};

use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// Something from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// SIGINT: from a terminal, a command that we run got it too.
    Interrupt,
    /// SIGTERM or SIGHUP: sent to us alone.
    Terminate,
    /// Whoever read standard output is gone.
    ReaderGone,
}

/// Watches for all of them. After the first signal the default action is back: a second one ends
/// the program at once, whatever it is waiting for (the kernel detaches the hooks).
///
/// # Errors
/// If a signal cannot be watched.
pub(in crate::cmd) fn watch() -> io::Result<mpsc::Receiver<Event>> {
    let (sender, receiver) = mpsc::channel(4);
    let signals = [
        (libc::SIGINT, Event::Interrupt),
        (libc::SIGTERM, Event::Terminate),
        (libc::SIGHUP, Event::Terminate),
    ];
    for (number, event) in signals {
        // Under nohup it stays ignored. (SIGINT does not: shells ignore it for what a script
        // starts in the background, and the script may still want to end us with it.)
        if number == libc::SIGHUP && is_ignored(number) {
            continue;
        }
        let mut stream = signal(SignalKind::from_raw(number))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            stream.recv().await;
            signals
                .iter()
                .for_each(|(number, _)| restore_default(*number));
            let _ = sender.send(event).await;
        });
    }
    tokio::spawn(async move {
        if reader_gone().await.is_ok() {
            let _ = sender.send(Event::ReaderGone).await;
        }
        // Otherwise there is no reader to lose; the receiver must not see the channel close.
        sender.closed().await;
    });
    Ok(receiver)
}

/// Returns when the reading end of a pipe on standard output is closed. An error where standard
/// output cannot be watched (a file).
async fn reader_gone() -> io::Result<()> {
    let stdout = io::stdout().as_fd().try_clone_to_owned()?;
    // SAFETY: the descriptor is ours alone, and stays open until it is dropped with `watched`.
    let watched = unsafe { AsyncFd::register_with_interest(stdout, Interest::ERROR) }?;
    let _ready = watched.ready(Interest::ERROR).await?;
    Ok(())
}

fn is_ignored(number: libc::c_int) -> bool {
    // SAFETY: all zeros is a valid sigaction, and only the old action is asked for.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        libc::sigaction(number, std::ptr::null(), &raw mut old) == 0
            && old.sa_sigaction == libc::SIG_IGN
    }
}

fn restore_default(number: libc::c_int) {
    if !is_ignored(number) {
        // SAFETY: the default action runs no code of ours.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}
