//! The list of incidents.

use super::{
    Context, INCIDENT_ROWS, file,
    markup::Markup,
    spell,
    table::{cell, header},
};
use crate::{
    model::{Coverage, Evidence, InMemory},
    schema::{IncidentReport, LossState, WallTime, Word},
};

const COLUMNS: [&str; 8] = [
    "#",
    "Success returned at",
    "To",
    "Call",
    "File",
    "Lost",
    "Told before",
    "Now",
];

/// Writes the list; nothing if there are none.
pub(super) fn write(page: &mut Markup, context: &Context<'_>) {
    let report = context.report;
    if report.summary.totals.incidents == 0 {
        return;
    }
    page.element("section", &[("id", "incidents"), ("aria-labelledby", "incidents-h")], |page| {
        page.leaf("h2", &[("id", "incidents-h")], "Incidents");
        let shown = report.incidents.len().min(INCIDENT_ROWS);
        let left_out = report.summary.totals.incidents.saturating_sub(shown as u64);
        if left_out > 0 {
            let text = format!(
                "The first {} of {} incidents. The rest: narrow the report with --since, --until \
                 or --path, or take --format csv --all.",
                spell::digits(shown as u64),
                spell::digits(report.summary.totals.incidents)
            );
            page.leaf("p", &[("class", "note")], &text);
        }
        let attributes = [
            ("class", "scroll"),
            ("role", "region"),
            ("aria-labelledby", "incidents-h"),
            ("tabindex", "0"),
        ];
        page.element("div", &attributes, |page| {
            page.element("table", &[("class", "incidents cards")], |page| {
                header(page, &COLUMNS);
                let files = file::numbers(context);
                page.element("tbody", &[], |page| {
                    for incident in report.incidents.iter().take(INCIDENT_ROWS) {
                        let number = files.get(&incident.number).copied();
                        row(page, incident, number, context);
                    }
                });
            });
        });
    });
}

/// A moment in a table.
pub(super) fn moment(page: &mut Markup, at: WallTime, context: &Context<'_>) {
    let text = spell::moment(at, context.zone);
    page.leaf("time", &[("datetime", &at.to_string())], &text);
}

fn row(page: &mut Markup, it: &IncidentReport, file: Option<usize>, context: &Context<'_>) {
    let record = &it.record;
    let id = format!("incident-{}", it.number);
    page.element("tr", &[("id", &id), ("tabindex", "-1")], |page| {
        page.element("th", &[("scope", "row")], |page| {
            page.text(&it.number.to_string());
        });
        cell(page, COLUMNS[1], |page| {
            moment(page, it.at.time, context);
            let late = i128::from(it.at.time.0) - i128::from(record.first_failed.time.0);
            let text = format!("{} after the failure", spell::duration(late));
            page.leaf("small", &[], &text);
        });
        cell(page, COLUMNS[2], |page| who(page, it, context));
        cell(page, COLUMNS[3], |page| {
            page.leaf("span", &[("class", "nowrap")], spell::call(record.call));
            page.leaf("small", &[], &asked_for(it));
        });
        cell(page, COLUMNS[4], |page| {
            file::link(page, &record.file, file);
        });
        cell(page, COLUMNS[5], |page| lost(page, it));
        cell(page, COLUMNS[6], |page| {
            let class = format!("told {}", record.told.word());
            let attributes = [("class", &*class), ("title", spell::told(record.told))];
            page.leaf("span", &attributes, record.told.word());
        });
        cell(page, COLUMNS[7], |page| now(page, it));
    });
}

fn who(page: &mut Markup, it: &IncidentReport, context: &Context<'_>) {
    let process = &it.record.process;
    page.name(&process.task.comm);
    let mut text = format!("pid {}", process.task.process.pid);
    if let Some(container) = &process.container {
        let id: String = container.id.chars().take(12).collect();
        text.push_str(&format!(", container {id}"));
    }
    let hosts = &context.report.summary.hosts;
    let run = context.report.runs.get(it.run);
    if let Some(host) = run
        .and_then(|run| run.host.as_deref())
        .filter(|_| hosts.len() > 1)
    {
        text.push_str(", on ");
        text.push_str(&crate::output::escape(host.as_bytes()));
    }
    page.leaf("small", &[], &text);
}

fn asked_for(it: &IncidentReport) -> String {
    let range = spell::range(it.record.requested);
    match it.record.coverage {
        Coverage::Inside => range,
        Coverage::Partly => format!("{range}; lost bytes partly outside"),
        Coverage::Outside => format!("{range}; lost bytes outside"),
    }
}

fn lost(page: &mut Markup, it: &IncidentReport) {
    let record = &it.record;
    let error = spell::error(record.error);
    let Some(bytes) = record.bytes.filter(|_| record.evidence == Evidence::Page) else {
        page.text(&format!("unknown, {error}"));
        page.leaf("small", &[], "only the file is known");
        return;
    };
    let text = format!("{}, {error}", spell::size(bytes));
    page.leaf("span", &[("class", "nowrap")], &text);
    let shown = record.ranges.iter().take(2);
    let shown: Vec<String> = shown.map(|range| spell::range(*range)).collect();
    let mut text = shown.join(", ");
    if let more @ 1.. = record.ranges.len().saturating_sub(2) {
        text.push_str(&format!(" and {} more", spell::digits(more as u64)));
    }
    page.leaf("small", &[], &text);
}

/// What an incident has come to.
fn now(page: &mut Markup, it: &IncidentReport) {
    let in_memory = match it.evicted {
        Some(_) => InMemory::No,
        None => it.record.in_memory,
    };
    match (it.state, in_memory) {
        (LossState::Outstanding, InMemory::Yes) => {
            page.text("lost");
            page.leaf("small", &[], "was in memory then");
        }
        (state, in_memory) => page.text(spell::fate(state, in_memory)),
    }
    if let Some(verified) = it.record.verified {
        page.leaf("small", &[], spell::verified(verified));
    }
    if it.repeats > 0 {
        let text = format!("told so again {}", spell::count(it.repeats, "time"));
        page.leaf("small", &[], &text);
    }
}
