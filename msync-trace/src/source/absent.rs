//! A source for systems without one: it can be asked, and says so.

use super::{FactSource, HookStatus, Options, Progress};
use crate::{
    model::{Fact, InodeKey, Release},
    schema::StopReason,
};

/// There is no source of live facts in this build.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this build has no eBPF, which is Linux's; the D scripts trace here (dtrace/README.md)")]
pub struct NoSource;

/// Cannot be made.
#[derive(Debug)]
pub enum Absent {}

impl Absent {
    /// Never works.
    ///
    /// # Errors
    /// Always.
    pub fn attach(_options: Options) -> Result<Self, NoSource> {
        Err(NoSource)
    }
}

impl FactSource for Absent {
    type Error = NoSource;

    fn hooks(&self) -> &[HookStatus] {
        match *self {}
    }

    fn tier(&self) -> &'static str {
        match *self {}
    }

    async fn next_facts(&mut self, _into: &mut Vec<Fact>) -> Result<Progress, NoSource> {
        match *self {}
    }

    async fn finish(&mut self, _why: StopReason, _into: &mut Vec<Fact>) -> Vec<String> {
        match *self {}
    }

    fn released(&mut self, _inode: &InodeKey, _why: Release) {
        match *self {}
    }
}
