//! The outputs that were asked for, as one.

use std::{cell::RefCell, io, rc::Rc, time::Duration};

use anyhow::Context;

use super::config::Config;
use crate::{
    model::Fact,
    output::{Journal, OnIncident, Output, RotatedFile, Say, Sinks, escape, metrics::Meters},
    schema::{Clock, Record},
};

/// How long outputs are waited for at the end.
const PATIENCE: Duration = Duration::from_secs(10);

/// All of them; shared by the session, which shows, and by who opens and ends them.
#[derive(Clone)]
pub(super) struct Outputs(Rc<RefCell<Sinks>>);

impl Outputs {
    /// Opens them. One that cannot be opened now is an error: the configuration is wrong.
    pub(super) fn open(config: &Config, meters: &Meters, say: &Say) -> anyhow::Result<Self> {
        let mut sinks = Sinks::default();
        sinks.watch(Box::new(meters.clone()));
        let no_thread = "cannot start a thread for an output";
        if let Some((path, rotation)) = &config.json {
            let file = RotatedFile::open(path, *rotation).with_context(|| {
                format!(
                    "cannot write {}",
                    escape(path.as_os_str().as_encoded_bytes())
                )
            })?;
            let make = |_| Box::new(file) as _;
            sinks
                .add("json", config.queue, say.clone(), make)
                .context(no_thread)?;
        }
        if config.journal {
            let journal = Journal::new().context("cannot make a socket for the journal")?;
            let make = |_| Box::new(journal) as _;
            sinks
                .add("journal", config.queue, say.clone(), make)
                .context(no_thread)?;
        }
        if let Some((command, bounds)) = &config.on_incident {
            // Not an error: it may come with a filesystem that is mounted later.
            if let Some(program) = command.first()
                && let Err(error) = OnIncident::can_start(program)
            {
                let program = escape(program.as_encoded_bytes());
                say(&format!(
                    "warning: on_incident: {program}: {error}; nobody is called while that is so"
                ));
            }
            let make =
                |reporter| Box::new(OnIncident::new(command.clone(), *bounds, reporter)) as _;
            sinks
                .add("on_incident", config.queue, say.clone(), make)
                .context(no_thread)?;
        }
        meters.show_deliveries(sinks.views());
        Ok(Self(Rc::new(RefCell::new(sinks))))
    }

    /// Opens files anew.
    pub(super) fn reopen(&self) {
        self.0.borrow().reopen();
    }

    /// Waits until all is delivered, or for long enough. Says what became of it.
    pub(super) fn finish(&self) -> Vec<String> {
        let mut sinks = self.0.borrow_mut();
        sinks.finish(PATIENCE);
        let views = sinks.views();
        let said = views.iter().map(|view| {
            let it = view.look();
            let mut said = format!("output {}: {} records", view.name(), it.delivered);
            let missing = it.dropped + it.waiting as u64;
            for (count, what) in [(missing, "missing"), (it.errors, "failed attempts")] {
                if count > 0 {
                    said += &format!(", {count} {what}");
                }
            }
            said
        });
        said.collect()
    }
}

impl Output for Outputs {
    fn show(&mut self, record: &Record) -> io::Result<()> {
        self.0.borrow_mut().show(record)
    }

    fn saw(&mut self, fact: &Fact, clock: &Clock) {
        self.0.borrow_mut().saw(fact, clock);
    }
}
