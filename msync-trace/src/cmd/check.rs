//! `msync-trace check`.

use std::{
    error::Error as StdError,
    io::{self, Write},
    path::Path,
};

use super::{Exit, colour, complain};
use crate::{
    check::{Observed, Readiness, Report, judge},
    cli::CheckArgs,
    output::Tone,
    source::{HookState, HookStatus, Method},
};

/// The whole command. `probe` attaches every hook and detaches it, inside the runtime; `look` only
/// looks how each could be attached.
pub fn main<E: StdError>(
    args: &CheckArgs,
    probe: impl FnOnce() -> Result<Vec<HookStatus>, E>,
    look: impl FnOnce() -> Vec<HookStatus>,
) -> Exit {
    let root = Path::new("/");
    let mut observed = Observed::look(root).with_symbols(root);
    let hooks = if args.attach {
        attach_all(probe)
    } else {
        Ok(look())
    };
    // None at all: DTrace has its own, or the kernel cannot be looked at.
    let hooks = Some(hooks).filter(|hooks| !matches!(hooks, Ok(hooks) if hooks.is_empty()));
    if args.attach
        && let Some(Ok(hooks)) = &hooks
    {
        observed.fentry_attached = Some(hooks.iter().any(is_by_fentry));
    }
    let report = Report::new(judge(&observed), hooks);
    let mut stdout = io::stdout();
    let text = if args.json {
        report.json()
    } else if colour(args.color, &stdout) {
        report.text(Tone::Coloured)
    } else {
        report.text(Tone::Plain)
    };
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&anyhow::Error::from(error).context("cannot write to standard output"));
            Exit::Error
        }
        _ => match report.readiness() {
            Readiness::Ready => Exit::Nothing,
            Readiness::Limited => Exit::Found,
            Readiness::No => Exit::Error,
        },
    }
}

fn is_by_fentry(hook: &HookStatus) -> bool {
    matches!(
        hook.state,
        HookState::Attached(Method::Fentry | Method::Fexit)
    )
}

fn attach_all<E: StdError>(
    probe: impl FnOnce() -> Result<Vec<HookStatus>, E>,
) -> Result<Vec<HookStatus>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the event loop: {error}"))?;
    runtime
        .block_on(async { probe() })
        .map_err(|error| super::chain(&error))
}
