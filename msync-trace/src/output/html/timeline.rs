//! What happened to a file, as a table.

use super::{
    Context,
    incidents::moment,
    markup::Markup,
    spell,
    table::{Folded, cell},
};
use crate::schema::{FileReport, TimelineEntry, TimelineKind, Word};

/// Rows of a timeline.
const ROWS: usize = 500;
const COLUMNS: [&str; 5] = ["When", "What", "Bytes", "Who", "More"];

/// Writes the timeline of a file; nothing if there is none.
pub(super) fn write(page: &mut Markup, file: &FileReport, id: &str, context: &Context<'_>) {
    if file.timeline.is_empty() {
        return;
    }
    let shown = file.timeline.len().min(ROWS);
    let table = Folded {
        title: "Timeline",
        label: &format!("Timeline of file {id}"),
        columns: &COLUMNS,
        shown,
        left_out: file.timeline_left_out + (file.timeline.len() - shown) as u64,
        elsewhere: ". Narrow the report with --since and --until, or take --format json --all.",
    };
    table.write(page, |page| {
        for entry in &file.timeline[..shown] {
            row(page, entry, context);
        }
    });
}

fn row(page: &mut Markup, entry: &TimelineEntry, context: &Context<'_>) {
    let class = format!("is-{}", entry.what.word());
    page.element("tr", &[("class", &class)], |page| {
        cell(page, COLUMNS[0], |page| {
            moment(page, entry.at.time, context);
            if let Some(until) = entry.until {
                page.element("small", &[], |page| {
                    page.text("until ");
                    moment(page, until.time, context);
                });
            }
        });
        cell(page, COLUMNS[1], |page| {
            page.leaf("span", &[("class", "event")], spell::event(entry.what));
            if entry.count > 1 {
                let by_now = match entry.what {
                    TimelineKind::Repeated => " by then",
                    _ => "",
                };
                let text = format!("{}{by_now}", spell::count(entry.count, "time"));
                page.leaf("small", &[], &text);
            }
        });
        cell(page, COLUMNS[2], |page| bytes(page, entry));
        cell(page, COLUMNS[3], |page| {
            if let Some(task) = &entry.process {
                page.name(&task.comm);
                let hint = match entry.what {
                    TimelineKind::WriteFailed => " (only noticed it)",
                    _ => "",
                };
                page.leaf("small", &[], &format!("pid {}{hint}", task.process.pid));
            }
        });
        cell(page, COLUMNS[4], |page| more(page, entry, context));
    });
}

fn bytes(page: &mut Markup, entry: &TimelineEntry) {
    match entry.range {
        Some(range) => {
            page.text(&spell::range(range));
            page.leaf("small", &[], &spell::range_size(range));
        }
        None if entry.what == TimelineKind::WriteFailed => page.text("not known"),
        None => {}
    }
}

fn more(page: &mut Markup, entry: &TimelineEntry, context: &Context<'_>) {
    let mut parts = Vec::new();
    parts.extend(entry.call.map(|call| spell::call(call).to_owned()));
    parts.extend(entry.error.map(spell::error));
    parts.extend(entry.told.map(|told| spell::told(told).to_owned()));
    parts.extend(
        entry
            .storage
            .map(|storage| spell::storage(storage).to_owned()),
    );
    page.text(&parts.join(", "));
    let Some(number) = entry.incident else {
        return;
    };
    page.text(if parts.is_empty() { "" } else { " " });
    let name = format!("#{number}");
    match context.has_row(number) {
        true => {
            let target = format!("#incident-{number}");
            page.leaf("a", &[("href", &target)], &name);
        }
        false => page.text(&name),
    }
}

/// An entry as half a sentence: for the title of a mark.
pub(super) fn sentence(entry: &TimelineEntry) -> String {
    let who = entry
        .process
        .as_ref()
        .map_or_else(|| "somebody".to_owned(), spell::process);
    let error = entry
        .error
        .map_or_else(|| "an error".to_owned(), spell::error);
    let call = entry.call.map_or("sync", spell::call);
    match entry.what {
        TimelineKind::SyncFailed => format!("{call} by {who} returned {error}"),
        TimelineKind::SyncOk => format!("{call} by {who} returned 0"),
        TimelineKind::Told => format!("{who} was given {error}"),
        TimelineKind::Repeated => format!("{call} by {who} returned 0 again"),
        TimelineKind::StorageError => entry
            .storage
            .map_or("storage in trouble", spell::storage)
            .to_owned(),
        what => spell::event(what).to_owned(),
    }
}
