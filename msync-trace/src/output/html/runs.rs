//! How much was seen: the runs that the report is made of.

use super::{
    Context,
    incidents::moment,
    markup::Markup,
    spell,
    table::{cell, header},
};
use crate::{
    output::{escape, loss_sentence},
    schema::{Difference, DifferenceKind, RunReport, StorageErrorReport, Word},
};

/// Runs that have a row.
const ROWS: usize = 500;
/// Storage errors that have a row.
const STORAGE_ROWS: usize = 200;
const COLUMNS: [&str; 5] = ["Run", "Host", "From, until", "Facts", "Seen"];

/// Writes the runs, and what befell disks.
pub(super) fn write(page: &mut Markup, context: &Context<'_>) {
    let runs = &context.report.runs;
    page.element(
        "section",
        &[("id", "runs"), ("aria-labelledby", "runs-h")],
        |page| {
            page.leaf("h2", &[("id", "runs-h")], "How much was seen");
            if runs.is_empty() {
                page.leaf("p", &[], "No run lies in the time that was asked for.");
                return;
            }
            if !context.report.summary.complete {
                page.raw(
                    "<p>Not everything was seen or recorded. What this page says did happen; that \
                 nothing else happened, it does not say.</p>",
                );
            }
            let region = [
                ("class", "scroll"),
                ("role", "region"),
                ("aria-labelledby", "runs-h"),
                ("tabindex", "0"),
            ];
            page.element("div", &region, |page| {
                page.element("table", &[("class", "cards")], |page| {
                    header(page, &COLUMNS);
                    page.element("tbody", &[], |page| {
                        runs.iter()
                            .take(ROWS)
                            .for_each(|run| row(page, run, context));
                    });
                });
            });
            if runs.len() > ROWS {
                let text = format!("{} more are not on this page.", runs.len() - ROWS);
                page.leaf("p", &[("class", "note")], &text);
            }
        },
    );
    recomputed(page, context);
    storage(page, context);
}

fn row(page: &mut Markup, run: &RunReport, context: &Context<'_>) {
    page.element("tr", &[], |page| {
        cell(page, COLUMNS[0], |page| {
            page.name(&run.source.0);
            page.leaf(
                "small",
                &[],
                &format!("run {}, msync-trace {}", run.run, run.version),
            );
        });
        cell(page, COLUMNS[1], |page| {
            let host = run.host.as_deref().unwrap_or("unknown");
            page.name(host.as_bytes());
            let kernel = format!("{} {}", run.kernel.name, run.kernel.release);
            page.leaf(
                "small",
                &[],
                &format!("{}, {}", escape(kernel.as_bytes()), run.tier),
            );
        });
        cell(page, COLUMNS[2], |page| {
            moment(page, run.began, context);
            page.element("small", &[], |page| {
                page.text(match run.ended {
                    Some(_) => "until ",
                    None => "no end recorded; last heard of at ",
                });
                moment(page, run.ended.unwrap_or(run.last_seen), context);
            });
        });
        cell(page, COLUMNS[3], |page| {
            page.text(&spell::digits(run.facts));
        });
        cell(page, COLUMNS[4], |page| seen(page, run, context));
    });
}

fn seen(page: &mut Markup, run: &RunReport, context: &Context<'_>) {
    match run.complete {
        true => page.leaf("span", &[("class", "badge good")], "\u{2713} complete"),
        false => page.leaf("span", &[("class", "badge warn")], "! incomplete"),
    }
    let when = |at| spell::moment(at, context.zone);
    let mut reasons: Vec<String> = Vec::new();
    if run.ended.is_none() {
        let text = "it was killed or is still running: the record has no end of it";
        reasons.push(text.to_owned());
    }
    reasons.extend(run.lost.iter().map(|lost| {
        format!(
            "{} lost: {}",
            spell::count(lost.count, "event"),
            loss_sentence(lost.cause)
        )
    }));
    reasons.extend(run.missing_hooks.iter().map(|hook| {
        let (name, reason) = (escape(hook.name.as_bytes()), escape(hook.reason.as_bytes()));
        format!("hook {name} is missing: {reason}")
    }));
    reasons.extend(run.gaps.iter().map(|gap| {
        let until = gap.until.map_or_else(|| "the end".to_owned(), when);
        let reason = escape(gap.reason.as_bytes());
        let facts = spell::count(gap.facts, "fact");
        format!(
            "gap in the record from {} to {until}: {facts} missing, {reason}",
            when(gap.since)
        )
    }));
    reasons.extend(
        run.deleted_before
            .map(|at| format!("facts before {} were deleted, as was asked for", when(at))),
    );
    let narrowed = narrowed(run);
    reasons.extend((!narrowed.is_empty()).then(|| {
        format!(
            "only incidents of these were reported: {}",
            narrowed.join("; ")
        )
    }));
    if !reasons.is_empty() {
        page.element("ul", &[("class", "reasons")], |page| {
            reasons
                .iter()
                .for_each(|reason| page.leaf("li", &[], reason));
        });
    }
}

/// What the run was narrowed to.
fn narrowed(run: &RunReport) -> Vec<String> {
    let numbers = |list: &[u32]| {
        list.iter()
            .map(u32::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let words = |list: &[String]| {
        let words: Vec<String> = list.iter().map(|word| escape(word.as_bytes())).collect();
        words.join(", ")
    };
    let filters = &run.filters;
    [
        ("pid", numbers(&filters.pid)),
        ("comm", words(&filters.comm)),
        ("path", words(&filters.path)),
        ("device", words(&filters.dev)),
        ("user", numbers(&filters.uid)),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(name, value)| format!("{name} {value}"))
    .collect()
}

/// What this version says of the recorded facts, if it was asked.
fn recomputed(page: &mut Markup, context: &Context<'_>) {
    let Some(runs) = &context.report.recomputed else {
        return;
    };
    page.element("section", &[("aria-labelledby", "again-h")], |page| {
        page.leaf("h2", &[("id", "again-h")], "Judged again");
        let same: u64 = runs.iter().map(|run| run.same).sum();
        let differing: usize = runs.iter().map(|run| run.differences.len()).sum();
        let text = format!(
            "By this version, of the recorded facts: {} as recorded, {} otherwise.",
            spell::count(same, "incident"),
            spell::digits(differing as u64)
        );
        page.leaf("p", &[], &text);
        page.element("ul", &[("class", "plain")], |page| {
            let all = runs.iter().flat_map(|run| &run.differences);
            all.take(STORAGE_ROWS)
                .for_each(|it| difference(page, it, context));
        });
        if differing > STORAGE_ROWS {
            let text = format!("{} more are not on this page.", differing - STORAGE_ROWS);
            page.leaf("p", &[("class", "note")], &text);
        }
    });
}

fn difference(page: &mut Markup, it: &Difference, context: &Context<'_>) {
    page.element("li", &[], |page| {
        moment(page, it.at.time, context);
        let members = escape(it.members.join(", ").as_bytes());
        let what = match it.kind {
            DifferenceKind::New => "not recorded, and seen now".to_owned(),
            DifferenceKind::Missing => "recorded, and not seen now".to_owned(),
            DifferenceKind::Changed => format!("other {members}"),
        };
        let who = spell::process(&it.process);
        page.text(&format!(
            " incident {} of its run, {who}: {what}; ",
            it.incident.0
        ));
        match &it.path {
            Some(path) => page.name(&path.0),
            None => page.text(&format!("inode {}", it.inode)),
        }
    });
}

fn storage(page: &mut Markup, context: &Context<'_>) {
    let errors = &context.report.storage_errors;
    if errors.is_empty() {
        return;
    }
    page.element("section", &[("aria-labelledby", "storage-h")], |page| {
        page.leaf(
            "h2",
            &[("id", "storage-h")],
            "Disks and filesystems in trouble",
        );
        page.element("ul", &[("class", "plain")], |page| {
            errors
                .iter()
                .take(STORAGE_ROWS)
                .for_each(|it| storage_row(page, it, context));
        });
        if errors.len() > STORAGE_ROWS {
            let text = format!("{} more are not on this page.", errors.len() - STORAGE_ROWS);
            page.leaf("p", &[("class", "note")], &text);
        }
    });
}

fn storage_row(page: &mut Markup, it: &StorageErrorReport, context: &Context<'_>) {
    page.element("li", &[], |page| {
        moment(page, it.at.time, context);
        page.text(" ");
        page.leaf(
            "span",
            &[("title", it.record.error.what.word())],
            &crate::output::storage_error(&it.record),
        );
    });
}
