//! `--verify` and `--rescue` where there are none: nothing here is ever called.

use std::{convert::Infallible, io, path::PathBuf, time::Duration};

use crate::model::Verified;
use crate::{
    model::IncidentId,
    schema::{Comparison, IncidentRecord},
};

/// See `verify.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyPlan {
    /// Where to save, and how many bytes in all.
    pub rescue: Option<(PathBuf, u64)>,
}

pub(super) const HELD: Duration = Duration::ZERO;
pub(super) type Verdict = (Verified, Comparison);
pub(super) struct Verifier(Infallible);

impl Verifier {
    pub(super) fn new(_plan: VerifyPlan) -> io::Result<Self> {
        Err(io::Error::other("it needs Linux"))
    }

    pub(super) fn ask(&mut self, _incident: &IncidentRecord) {
        match self.0 {}
    }

    pub(super) fn verdict(&mut self, _incident: IncidentId) -> Option<Verdict> {
        match self.0 {}
    }

    pub(super) fn messages(&mut self) -> Vec<String> {
        match self.0 {}
    }

    pub(super) fn saves(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn is_busy(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn turn(&mut self) {
        match self.0 {}
    }
}

pub(super) fn unknown(why: &str) -> Verdict {
    let comparison = Comparison {
        reason: Some(why.to_owned()),
        ..Comparison::default()
    };
    (Verified::Unknown, comparison)
}
