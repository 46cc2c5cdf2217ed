//! The end of a trace: everything that was held goes out, and the verdict on the whole run.

use std::io;

use anyhow::Context;

use super::{Session, missing_hooks};
use crate::{
    cmd::{
        Exit,
        trace::{End, verify::Verifier},
    },
    model::Lost,
    output::{self, Verbosity},
    schema::{Body, Stop, StopReason},
    source::HookStatus,
};

impl Session {
    /// Says what was found, and whether everything was seen.
    pub(in crate::cmd) fn stop(
        mut self,
        mut end: End,
        hooks: &[HookStatus],
    ) -> anyhow::Result<Exit> {
        self.muted |= end.reason == StopReason::ReaderGone;
        let saves = self.verifier.as_ref().is_some_and(Verifier::saves);
        let compared = match self.muted && !self.keeps() && !saves {
            true => Ok(()),
            false => self.finish_comparing(),
        };
        let unkept = self.unkept();
        if let Some(unkept) = &unkept {
            end.error.get_or_insert_with(|| unkept.clone());
        }
        let now = self.now();
        let missing_hooks = missing_hooks(hooks);
        let complete = self.correlator.complete()
            && missing_hooks.is_empty()
            && end.reason != StopReason::Error;
        let exit = match unkept {
            Some(_) => Exit::Error,
            None => (self.io.exit)(end.reason, self.tally.totals().incidents, complete),
        };
        let seen = self.correlator.totals();
        let stop = Stop {
            reason: end.reason,
            duration_ns: now.0.saturating_sub(self.began.0),
            totals: self.tally.totals(),
            facts: self.facts,
            outstanding_inodes: seen.outstanding,
            complete,
            lost: seen
                .losses
                .iter()
                .map(|(&cause, &count)| Lost { cause, count })
                .collect(),
            missing_hooks,
            command: end.command,
            error: end.error,
            exit_status: exit as u8,
        };
        if self.verbosity > Verbosity::Quiet {
            let summary = output::summary(&stop, self.io.tone);
            let _ = self.io.messages.write_all(summary.as_bytes());
        } else if let Some(error) = &stop.error {
            self.say(error);
        }
        let held = self.repeats.take_all();
        let mut shown = compared.and_then(|()| self.show_storage_errors(None));
        for repeat in held {
            shown = shown.and_then(|()| self.show_repeat(repeat));
        }
        if shown.is_ok() {
            shown = self.show(now, Body::Stop(Box::new(stop)));
        }
        let kept = self.end_keeping();
        match shown.and(self.output_error()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(error).context("cannot write to standard output")
            }
            _ if !kept => Ok(Exit::Error),
            _ => Ok(exit),
        }
    }

    /// Waits until everything so far is kept; otherwise says what is not.
    pub(super) fn unkept(&mut self) -> Option<String> {
        self.io.keeping.as_mut()?.settle().err()
    }

    /// Whether everything was kept.
    pub(super) fn end_keeping(&mut self) -> bool {
        let Some(keeping) = self.io.keeping.take() else {
            return true;
        };
        let (said, all) = keeping.finish();
        if self.verbosity > Verbosity::Quiet || !all {
            self.say(&said);
        }
        all
    }
}
