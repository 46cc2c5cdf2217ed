//! What is known of a run when it begins.

use crate::{
    model::MonoTime,
    schema::{Start, WallTime},
};

/// The header of a run.
#[derive(Clone, Debug)]
pub struct RunHeader {
    /// When it began, in kernel time.
    pub began: MonoTime,
    /// The same moment in wall time.
    pub began_wall: WallTime,
    /// As it is published.
    pub start: Start,
    /// Whether `msync` without `MS_SYNC` makes incidents as well.
    pub include_async: bool,
    /// Where the facts were read from, if they were not seen here.
    pub input: Option<String>,
}
