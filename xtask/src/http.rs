//! As much of HTTP as asking the programs of this machine takes.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(5);

/// A port of this machine that was free a moment ago, each time another. None that the kernel gives to
/// those who ask for any: whoever listens there may begin anew.
pub fn free_port() -> Result<u16> {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let port = || 20_000 + (std::process::id() + TRIED.fetch_add(1, Relaxed)) % 10_000;
    let mut ports = (0..1000).filter_map(|_| u16::try_from(port()).ok());
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.find(free).context("no port is free")
}

/// The body of what a server of this machine answers; an error unless it is a success.
pub fn get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // 1.0: the answer comes in one piece and ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("half an answer")?;
    let status = head.split(' ').nth(1);
    ensure!(status == Some("200"), "{path}: {head}\n{body}");
    Ok(body.to_owned())
}

/// The same, as JSON.
pub fn get_json(port: u16, path: &str) -> Result<Value> {
    let body = get(port, path)?;
    serde_json::from_str(&body).with_context(|| format!("{path}: {body}"))
}

/// A text as a part of a query.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => quoted.push(char::from(byte)),
            _ => quoted += &format!("%{byte:02X}"),
        }
    }
    quoted
}
