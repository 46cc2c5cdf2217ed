//! Who is woken: the receiver of Alertmanager's webhooks.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;

/// Takes calls, on a thread of its own, as long as this process lives.
pub struct Pager {
    /// Of this machine.
    pub port: u16,
    received: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Pager {
    /// Begins to listen.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let pager = Self {
            port: listener.local_addr()?.port(),
            received: Arc::default(),
        };
        let received = Arc::clone(&pager.received);
        thread::spawn(move || {
            // A call that cannot be understood is missed below, where it is waited for.
            for call in listener.incoming().flatten().flat_map(take) {
                received
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(call);
            }
        });
        Ok(pager)
    }

    /// Paths and bodies of all calls so far.
    pub fn received(&self) -> Vec<(String, Value)> {
        let received = self.received.lock();
        received.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn take(mut stream: TcpStream) -> Result<(String, Value)> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).context("no request")?.to_owned();
    let mut length = 0;
    while line.trim_end() != "" {
        line.clear();
        reader.read_line(&mut line)?;
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    Ok((path, serde_json::from_slice(&body)?))
}
