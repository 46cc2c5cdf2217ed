//! What a service is told by signals.

use std::io;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use crate::cmd::trace::events::restore_default;

/// A signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// SIGTERM or SIGINT: end in order. A second one ends at once.
    End,
    /// SIGHUP: open files anew.
    Reopen,
}

/// Watches for them.
///
/// # Errors
/// If a signal cannot be watched.
pub(super) fn watch() -> io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(4);
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut stream = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            stream.recv().await;
            restore_default(libc::SIGTERM);
            restore_default(libc::SIGINT);
            let _ = sender.send(Signal::End).await;
        });
    }
    let mut stream = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while stream.recv().await.is_some() {
            if sender.send(Signal::Reopen).await.is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}
