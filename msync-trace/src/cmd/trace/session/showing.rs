//! What is shown and kept of what was found, and in which order: what is compared with the disk first
//! is held, repeats are held, and disks may take a moment to draw their consequences.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{SOON, Session};
use crate::{
    cmd::trace::{
        repeats::{PACE, Repeat},
        verify::Verifier,
    },
    model::{Change, ChangeKind, Incident, IncidentId, Lost, MonoTime},
    output::{self, Verbosity},
    schema::{Body, ChangeRecord, Head, Record},
};

/// So many incidents are remembered as left out.
const HIDDEN_KEPT: usize = 65_536;

/// How long a filesystem may take to draw its consequences from an error, and to say so on a slow
/// console, before the mount table is asked.
const CONSEQUENCES: Duration = Duration::from_secs(1);

impl Session {
    pub(super) fn is_comparing(&self) -> bool {
        !self.held.is_empty() || self.verifier.as_ref().is_some_and(Verifier::is_busy)
    }

    /// Shows records that need not wait any longer.
    pub(super) fn show_verified(&mut self) -> io::Result<()> {
        let Some(verifier) = &mut self.verifier else {
            return Ok(());
        };
        verifier.turn();
        let messages = verifier.messages();
        let mut ready = Vec::new();
        while let Some(record) = self.held.next(|incident| verifier.verdict(incident)) {
            ready.push(record);
        }
        ready
            .iter()
            .try_for_each(|record| self.keep_and_display(record))?;
        messages.iter().for_each(|message| self.say(message));
        Ok(())
    }

    /// Waits for all verdicts, which takes no longer than an incident is held, and until all is
    /// saved. (A signal ends that at once: it was the second one, or the trace had ended by itself.)
    pub(super) fn finish_comparing(&mut self) -> io::Result<()> {
        let began = Instant::now();
        let mut told = false;
        while self.is_comparing() {
            self.show_verified()?;
            if !told && self.held.is_empty() && began.elapsed() > PACE {
                told = true;
                self.say("waiting until lost bytes are saved");
            }
            std::thread::sleep(SOON);
        }
        self.show_verified()
    }

    /// Shows what befell disks and filesystems, up to a little before `now` (`None`: all).
    pub(super) fn show_storage_errors(&mut self, now: Option<MonoTime>) -> io::Result<()> {
        let is_due = |at: MonoTime| now.is_none_or(|now| now.since(at) >= CONSEQUENCES);
        let due = self
            .storage_errors
            .iter()
            .take_while(|(at, _)| is_due(*at))
            .count();
        let due: Vec<_> = self.storage_errors.drain(..due).collect();
        for (at, error) in due {
            let record = self.io.enricher.storage_error(error);
            if self.verbosity > Verbosity::Quiet {
                self.say(&output::storage_error(&record));
            }
            self.show(at, Body::StorageError(record))?;
        }
        Ok(())
    }

    pub(super) fn show_repeat(&mut self, repeat: Repeat) -> io::Result<()> {
        let Repeat { at, id, repeats } = repeat;
        let kind = ChangeKind::Repeated { repeats };
        self.show_change(&Change { at, id, kind })
    }

    pub(super) fn incident(&mut self, incident: &Incident) -> io::Result<()> {
        let record = self.io.enricher.incident(incident, &self.clock);
        let wanted = match &record.body {
            Body::Incident(described) => self.filter.wants(described),
            _ => true,
        };
        if !wanted || self.has_enough() {
            self.hide(incident.id);
            self.keep_record(&record, false);
            return Ok(());
        }
        self.tally.incident(incident);
        match (&mut self.verifier, &record.body) {
            (Some(verifier), Body::Incident(described)) => {
                verifier.ask(described);
                self.held.incident(record);
                Ok(())
            }
            _ => self.emit(record),
        }
    }

    /// Shows a record, after those that are held.
    pub(super) fn emit(&mut self, record: Record) -> io::Result<()> {
        match self.held.is_empty() {
            true => self.keep_and_display(&record),
            false => {
                self.held.behind(record);
                Ok(())
            }
        }
    }

    /// Leaves the changes of an incident out as well. Of very many, those of the oldest are shown.
    pub(super) fn hide(&mut self, incident: IncidentId) {
        self.hidden.insert(incident);
        if self.hidden.len() > HIDDEN_KEPT {
            self.hidden.pop_first();
        }
    }

    pub(super) fn change(&mut self, change: &Change) -> io::Result<()> {
        let hidden = self.hidden.contains(&change.id);
        if hidden && !self.keeps() {
            return Ok(());
        }
        if !hidden {
            self.tally.change(change.kind);
        }
        let Change { at, id, kind } = *change;
        if let ChangeKind::Repeated { repeats } = kind {
            return match self.repeats.show_now(Repeat { at, id, repeats }) {
                true => self.show_change(change),
                false => Ok(()),
            };
        }
        if let Some(held) = self.repeats.of(id) {
            self.show_repeat(held)?;
        }
        self.show_change(change)
    }

    pub(super) fn show_change(&mut self, change: &Change) -> io::Result<()> {
        let body = Body::Change(ChangeRecord {
            incident: change.id,
            change: change.kind,
        });
        if self.hidden.contains(&change.id) {
            let head = Head::at(change.at, &self.clock);
            self.keep_record(&Record { head, body }, false);
            return Ok(());
        }
        self.show(change.at, body)
    }

    pub(super) fn lost(&mut self, at: MonoTime, loss: Lost) -> io::Result<()> {
        let first = self.correlator.totals().losses.get(&loss.cause) == Some(&loss.count);
        if first || self.verbosity == Verbosity::Verbose {
            let why = output::loss_sentence(loss.cause);
            self.say(&format!(
                "warning: something was not seen from here on: {why} ({}x)",
                loss.count
            ));
        }
        self.show(at, Body::Lost(loss))
    }

    pub(super) fn show(&mut self, at: MonoTime, body: Body) -> io::Result<()> {
        let head = Head::at(at, &self.clock);
        self.emit(Record { head, body })
    }

    pub(super) fn keep_and_display(&mut self, record: &Record) -> io::Result<()> {
        self.keep_record(record, true);
        self.display(record)
    }

    pub(super) fn keep_record(&mut self, record: &Record, shown: bool) {
        let Some(keeping) = &mut self.io.keeping else {
            return;
        };
        if let Some(warning) = keeping.record(record, shown) {
            self.say(&warning);
        }
    }

    /// What is kept besides does not suffer from an output that is gone: the error comes later.
    pub(super) fn display(&mut self, record: &Record) -> io::Result<()> {
        if self.muted {
            return Ok(());
        }
        let shown = self.io.out.show(record);
        if !self.keeps() {
            return shown;
        }
        if let Err(error) = shown {
            self.muted = true;
            self.output_error = Some(error);
        }
        Ok(())
    }

    /// An output that is gone, once.
    pub(super) fn output_error(&mut self) -> io::Result<()> {
        self.output_error.take().map_or(Ok(()), Err)
    }
}
