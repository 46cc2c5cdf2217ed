//! `msync-trace rescue` where there is none.

use super::{Exit, complain};
use crate::cli::RescueArgs;

/// Says that it needs Linux.
#[must_use]
pub fn main(_args: &RescueArgs) -> Exit {
    complain(&anyhow::anyhow!(
        "rescue needs Linux: no other kernel says which pages of a file are in its cache, and where \
         they lie on the disk"
    ));
    Exit::Error
}

/// Never started here.
#[must_use]
pub fn worker() -> Exit {
    Exit::Error
}
