//! The result of a check, as text and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Item, Status};
use crate::{
    output::{Tone, escape},
    schema::{HookRecord, SCHEMA},
    source::{HookState, HookStatus},
};

/// Whether tracing works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// Yes.
    Ready,
    /// Yes, with the limits that the warnings name.
    Limited,
    /// No.
    No,
}

/// Everything that was found out.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    schema: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    version: &'static str,
    readiness: Readiness,
    items: Vec<Item>,
    /// Each hook, attached and detached; null if they were not tried.
    hooks: Option<Vec<HookRecord>>,
}

impl Report {
    /// From the judgements on the machine, and what became of the hooks if they were tried.
    #[must_use]
    pub fn new(mut items: Vec<Item>, hooks: Option<Result<Vec<HookStatus>, String>>) -> Self {
        items.extend(hooks.as_ref().map(hooks_item));
        let readiness = match items.iter().map(|item| item.status).max() {
            Some(Status::Fail) => Readiness::No,
            Some(Status::Warn) => Readiness::Limited,
            _ => Readiness::Ready,
        };
        Self {
            schema: SCHEMA,
            kind: "check",
            version: env!("CARGO_PKG_VERSION"),
            readiness,
            items,
            hooks: hooks.map(|hooks| {
                hooks
                    .unwrap_or_default()
                    .iter()
                    .map(HookRecord::from)
                    .collect()
            }),
        }
    }

    /// Whether tracing works.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness
    }

    /// One line of JSON.
    ///
    /// # Panics
    /// Never: a report holds nothing that JSON cannot say.
    #[must_use]
    pub fn json(&self) -> String {
        let mut line = serde_json::to_string(self).expect("a report has text keys");
        line.push('\n');
        line
    }

    /// Lines for people.
    #[must_use]
    pub fn text(&self, tone: Tone) -> String {
        let mut out = String::new();
        for item in &self.items {
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(
                out,
                "{} {:<13} {}",
                label(item.status, tone),
                item.id,
                escape(item.detail.as_bytes())
            );
            if let Some(remedy) = &item.remedy {
                let _ = writeln!(out, "{:>18} {}", "->", escape(remedy.as_bytes()));
            }
        }
        if let Some(hooks) = self.hooks.as_deref().filter(|hooks| !hooks.is_empty()) {
            hook_table(&mut out, hooks);
        }
        let sentence = match self.readiness {
            Readiness::Ready => "ready: this machine can be traced",
            Readiness::Limited => "ready, with the limits above",
            Readiness::No => "this machine cannot be traced as it is",
        };
        let _ = writeln!(out, "\n{sentence}");
        out
    }
}

fn hook_table(out: &mut String, hooks: &[HookRecord]) {
    let width = |column: fn(&HookRecord) -> &str| {
        hooks
            .iter()
            .map(|hook| column(hook).len())
            .max()
            .unwrap_or(0)
    };
    let (names, targets) = (width(|hook| &hook.name), width(|hook| &hook.target));
    let looked = hooks.iter().any(|hook| hook.state == "possible");
    let heading = if looked {
        "Hooks, and how each can be attached (`--attach` tries it):"
    } else {
        "Hooks, each attached and detached:"
    };
    let _ = writeln!(out, "\n{heading}");
    for hook in hooks {
        let how = match (&hook.method, &hook.detail) {
            (Some(method), _) => format!(" {method}"),
            (None, Some(detail)) => format!(": {}", escape(detail.as_bytes())),
            (None, None) => String::new(),
        };
        let _ = writeln!(
            out,
            "  {:<names$}  {:<targets$}  {}{how}",
            hook.name,
            hook.target,
            hook.state.replace('_', " ")
        );
    }
}

fn label(status: Status, tone: Tone) -> String {
    match status {
        Status::Ok => tone.good("ok  "),
        Status::Warn => tone.warning("warn"),
        Status::Fail => tone.bad("FAIL"),
    }
}

fn hooks_item(hooks: &Result<Vec<HookStatus>, String>) -> Item {
    let (status, detail) = match hooks {
        Err(error) => (Status::Fail, error.clone()),
        Ok(hooks) => {
            let missing: Vec<_> = hooks
                .iter()
                .filter(|hook| matches!(hook.state, HookState::Unavailable(_)))
                .map(|hook| hook.name)
                .collect();
            match missing.as_slice() {
                [] => (Status::Ok, format!("{}, none missing", hooks.len())),
                missing => (
                    Status::Warn,
                    format!(
                        "{} of {} missing: {}",
                        missing.len(),
                        hooks.len(),
                        missing.join(", ")
                    ),
                ),
            }
        }
    };
    Item {
        id: "hooks",
        status,
        detail,
        remedy: None,
    }
}
