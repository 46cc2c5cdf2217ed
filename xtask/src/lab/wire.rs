//! What is said on the lab's socket: one JSON value per line each way, a reply to every request.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::faults::{FaultRule, RuleStatus};

/// What a client asks for.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// One more rule.
    Add(FaultRule),
    /// No more rules.
    Heal,
    /// How things are.
    Status,
}

/// The answer.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is done. This is how things were before.
    Ok(Status),
    /// It is not, and why.
    Error(String),
}

/// How things are.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The block device.
    pub device: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// Writes since it was healthy last.
    pub writes: u64,
    /// Those that failed.
    pub failed_writes: u64,
    /// What makes it fail.
    pub rules: Vec<RuleStatus>,
}

/// Asks the lab at `socket`.
pub fn ask(socket: &Path, request: &Request) -> Result<Status> {
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("no lab at {} (`lab serve` runs one)", socket.display()))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    line.clear();
    BufReader::new(stream).read_line(&mut line)?;
    match serde_json::from_str(&line).context("the lab has ended")? {
        Reply::Ok(status) => Ok(status),
        Reply::Error(error) => bail!(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_can_be_typed_by_hand() {
        let parse = |line| serde_json::from_str::<Request>(line);
        assert_eq!(parse("\"heal\"").unwrap(), Request::Heal);
        let slow = r#"{"add":{"on":"write","place":"anywhere","effect":{"delay":{"ms":50}}}}"#;
        assert!(matches!(parse(slow), Ok(Request::Add(_))));
        assert!(parse("{}").is_err());
    }
}
