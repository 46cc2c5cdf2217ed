//! `msync-trace serve` where there is none.

use super::{Exit, complain};
use crate::{cli::serve::ServeArgs, source::Options};

/// Says that it needs Linux.
pub fn main<S, E>(_args: &ServeArgs, _attach: impl FnOnce(Options) -> Result<S, E>) -> Exit {
    complain(&anyhow::anyhow!(
        "serve needs Linux; here use `msync-trace record FILE`"
    ));
    Exit::Error
}
