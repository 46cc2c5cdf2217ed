//! What this machine can do for us, and what to do about what is missing.
//!
//! Looking (`observed`) is apart from judging (`judge`), so that every judgement can be tested on
//! machines that we do not have. The same sentences are used when tracing cannot start.

#[cfg(target_os = "linux")]
pub mod confine;
mod freebsd;
mod judge;
mod observed;
mod report;
#[cfg(target_os = "linux")]
pub mod scratch;
pub mod trusted;

use std::path::Path;

use serde::Serialize;

pub use judge::judge;
pub use observed::{BpfAnswer, Capabilities, Lockdown, Observed};
pub use report::{Readiness, Report};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// What: stable, for programs.
    pub id: &'static str,
    /// How it is.
    pub status: Status,
    /// One sentence that says so.
    pub detail: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Tracing works without it, but sees or shows less.
    Warn,
    /// Tracing cannot work.
    Fail,
}

/// The first reason why this machine cannot be traced, as one sentence with its remedy; `None` if
/// nothing speaks against it.
#[must_use]
pub fn obstacle() -> Option<String> {
    let observed = Observed::look(Path::new("/"));
    judge(&observed)
        .into_iter()
        .find(|item| item.status == Status::Fail)
        .map(|item| match item.remedy {
            Some(remedy) => format!("cannot trace: {}; {remedy}", item.detail),
            None => format!("cannot trace: {}", item.detail),
        })
}

#[cfg(test)]
mod tests;
