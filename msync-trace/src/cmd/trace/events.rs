//! What can end a trace from outside.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

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
    closed_by_reader(io::stdout().as_fd().try_clone_to_owned()?).await
}

/// Linux tells it as an error of the descriptor, FreeBSD as the end of the file that is written.
async fn closed_by_reader(pipe: OwnedFd) -> io::Result<()> {
    // SAFETY: the descriptor is ours alone, and stays open until it is dropped with `watched`.
    let watched = unsafe { AsyncFd::register_with_interest(pipe, Interest::WRITABLE) }?;
    loop {
        let mut guard = watched.ready(Interest::WRITABLE | Interest::ERROR).await?;
        let ready = guard.ready();
        if ready.is_error() || ready.is_write_closed() {
            return Ok(());
        }
        // There is room in the pipe: of no interest.
        guard.clear_ready();
    }
}

fn is_ignored(number: libc::c_int) -> bool {
    // SAFETY: all zeros is a valid sigaction, and only the old action is asked for.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        libc::sigaction(number, std::ptr::null(), &raw mut old) == 0
            && old.sa_sigaction == libc::SIG_IGN
    }
}

pub(in crate::cmd) fn restore_default(number: libc::c_int) {
    if !is_ignored(number) {
        // SAFETY: the default action runs no code of ours.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        time::Duration,
    };

    use tokio::time::timeout;

    use super::*;

    /// Lines that are read are no end; a reader that left is, whether or not anything was written
    /// since.
    #[tokio::test]
    async fn a_reader_that_leaves_is_noticed_and_one_that_reads_is_not() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        let watched = closed_by_reader(writer.try_clone().unwrap().into());
        let mut watched = std::pin::pin!(watched);
        let mut line = [0; 5];
        for _ in 0..3 {
            writer.write_all(b"line\n").unwrap();
            reader.read_exact(&mut line).unwrap();
            let ended = timeout(Duration::from_millis(20), &mut watched).await;
            assert!(ended.is_err(), "{ended:?}");
        }
        drop(reader);
        timeout(Duration::from_secs(10), watched)
            .await
            .unwrap()
            .unwrap();
    }
}
