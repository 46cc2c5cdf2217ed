//! The head of the page: the verdict, the figures, and its foot.

use super::{Context, markup::Markup, spell};
use crate::{
    model::ToldWho,
    schema::{Asked, BytesNow, Report, WallTime},
};

/// The first sentence, and how it looks.
pub(super) struct Verdict {
    pub(super) text: String,
    class: &'static str,
}

/// What the report says in one sentence.
pub(super) fn verdict(report: &Report) -> Verdict {
    let totals = &report.summary.totals;
    if totals.incidents > 0 {
        let bytes = match (totals.bytes, totals.incidents_without_range) {
            (0, _) => "An unknown number of bytes".to_owned(),
            (bytes, 0) => spell::size(bytes),
            (bytes, _) => format!("At least {}", spell::size(bytes)),
        };
        let files = spell::count(totals.files, "file");
        return Verdict {
            text: format!("{bytes} lost silently in {files}"),
            class: "verdict bad",
        };
    }
    let nothing = |text: &str, class| Verdict {
        text: text.to_owned(),
        class,
    };
    match (report.runs.is_empty(), report.summary.complete) {
        (true, _) => nothing("Nothing was recorded in this time", "verdict unsure"),
        (_, true) => nothing("Nothing was lost silently", "verdict good"),
        (_, false) => nothing(
            "Nothing found, but not everything was seen",
            "verdict unsure",
        ),
    }
}

/// Verdict and figures.
pub(super) fn write(page: &mut Markup, context: &Context<'_>) {
    let report = context.report;
    page.element("header", &[], |page| {
        page.leaf("p", &[("class", "kicker")], "msync-trace incident report");
        let verdict = verdict(report);
        page.leaf("h1", &[("class", verdict.class)], &verdict.text);
        page.element("p", &[("class", "lede")], |page| lede(page, context));
        page.element("p", &[("class", "badges")], |page| {
            match report.summary.complete {
                true => page.leaf("a", &[("class", "badge good"), ("href", "#runs")], COMPLETE),
                false => page.leaf(
                    "a",
                    &[("class", "badge warn"), ("href", "#runs")],
                    INCOMPLETE,
                ),
            }
        });
    });
    if report.summary.totals.incidents > 0 {
        page.element("section", &[("aria-label", "Summary")], |page| {
            figures(page, context);
        });
    }
    asked(page, &report.asked, context);
}

const COMPLETE: &str = "\u{2713} Complete: everything that could be seen was seen";
const INCOMPLETE: &str = "! Incomplete: there may be more than this";

fn lede(page: &mut Markup, context: &Context<'_>) {
    let summary = &context.report.summary;
    let totals = &summary.totals;
    if totals.incidents == 0 {
        let runs = spell::count(context.report.runs.len() as u64, "run");
        page.text(&format!("Looked at {runs}. "));
        if !summary.complete {
            page.text("What was not seen is listed below; nothing can be said about it.");
        }
        return;
    }
    let calls = spell::count(totals.incidents, "sync call");
    page.text(&format!(
        "{calls} returned success over bytes that the kernel had failed to write"
    ));
    if totals.repeats > 0 {
        let again = spell::count(totals.repeats, "time");
        page.text(&format!(
            ", and the same callers were told so again {again}"
        ));
    }
    page.text(". ");
    page.text(&who_was_told(context.report));
}

/// `In 2 of them nobody had been told of the error; in 1 only somebody else.`
fn who_was_told(report: &Report) -> String {
    let incidents = report.summary.totals.incidents;
    let counts = told_counts(report).into_iter();
    let parts = counts.filter(|(_, count)| *count > 0).map(|(who, count)| {
        let which = match count == incidents {
            true if count == 1 => "before that".to_owned(),
            true => "in all of these".to_owned(),
            false => format!("in {} of these", spell::digits(count)),
        };
        format!("{which} {}", told_before(who))
    });
    let mut sentence = parts.collect::<Vec<_>>().join("; ");
    if let Some(first) = sentence.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    sentence + "."
}

fn told_counts(report: &Report) -> [(ToldWho, u64); 4] {
    let totals = &report.summary.totals;
    [
        (ToldWho::Nobody, totals.told_nobody),
        (ToldWho::Other, totals.told_other),
        (ToldWho::Caller, totals.told_caller),
        (ToldWho::Pending, totals.told_pending),
    ]
}

fn told_before(who: ToldWho) -> &'static str {
    match who {
        ToldWho::Nobody => "nobody had been told of the error",
        ToldWho::Other => "only somebody else had been told of the error",
        ToldWho::Caller => "the caller had been told of the error once",
        ToldWho::Pending => "the kernel still holds the error for the caller's next sync",
    }
}

fn figures(page: &mut Markup, context: &Context<'_>) {
    let summary = &context.report.summary;
    let totals = &summary.totals;
    page.element("dl", &[("class", "figures")], |page| {
        figure(page, "Lost silently", |page| {
            page.leaf("b", &[], &lost(context.report));
            page.leaf(
                "small",
                &[],
                &format!("{} bytes", spell::digits(totals.bytes)),
            );
        });
        figure(page, "Incidents", |page| {
            page.leaf("b", &[], &spell::digits(totals.incidents));
            page.leaf(
                "small",
                &[],
                &format!("in {}", spell::count(totals.files, "file")),
            );
        });
        figure(page, "First write failure", |page| {
            time(page, summary.first_failed, context);
        });
        figure(page, "First false success", |page| {
            time(page, summary.first_incident, context);
        });
        figure(page, "Last false success", |page| {
            time(page, summary.last_incident, context);
        });
        figure(page, "Errors", |page| {
            let errors = summary.errors.iter();
            let errors: Vec<String> = errors
                .map(|it| {
                    format!(
                        "{} ({})",
                        spell::error(it.error),
                        spell::digits(it.incidents)
                    )
                })
                .collect();
            page.leaf("b", &[], &errors.join(", "));
            page.leaf("small", &[], "incidents of each");
        });
    });
    what_became(page, totals.bytes, &summary.bytes_now);
}

fn lost(report: &Report) -> String {
    let totals = &report.summary.totals;
    match (totals.bytes, totals.incidents_without_range) {
        (0, _) => "unknown".to_owned(),
        (bytes, 0) => spell::size(bytes),
        (bytes, _) => format!("\u{2265} {}", spell::size(bytes)),
    }
}

fn figure(page: &mut Markup, name: &str, inside: impl FnOnce(&mut Markup)) {
    page.element("div", &[], |page| {
        page.leaf("dt", &[], name);
        page.element("dd", &[], inside);
    });
}

fn time(page: &mut Markup, at: Option<WallTime>, context: &Context<'_>) {
    let Some(at) = at else {
        page.leaf("b", &[], "unknown");
        return;
    };
    let text = spell::second(at, context.zone);
    let (date, clock) = text.split_once(' ').unwrap_or((&text, ""));
    page.element("time", &[("datetime", &at.to_string())], |page| {
        page.leaf("b", &[], clock);
        page.leaf("small", &[], date);
    });
}

/// What became of lost bytes, as a bar and in words.
pub(super) fn what_became(page: &mut Markup, bytes: u64, now: &BytesNow) {
    let parts = [
        (
            "lost",
            "still in memory: can be saved by reading the file",
            now.in_memory,
        ),
        (
            "perhaps",
            "lost; whether memory still has them is not known",
            now.unknown,
        ),
        (
            "evicted",
            "gone: neither on disk nor in memory",
            now.evicted,
        ),
        ("recovered", "recovered: written after all", now.recovered),
        ("discarded", "given up on purpose", now.discarded),
    ];
    let sum: u64 = parts.iter().map(|part| part.2).sum();
    if bytes == 0 || sum == 0 {
        return;
    }
    page.element("div", &[("class", "fate")], |page| {
        page.leaf("h3", &[], "What became of the lost bytes");
        let bar = [("viewBox", "0 0 1000 18"), ("preserveAspectRatio", "none")];
        let hidden = [("class", "fate-bar"), ("aria-hidden", "true")];
        page.element("svg", &[bar, hidden].concat(), |page| {
            let mut at = 0.0;
            for (class, _, part) in parts.iter().filter(|part| part.2 > 0) {
                let width = (*part as f64 / sum as f64 * 1000.0).max(3.0);
                super::picture::rectangle(page, &format!("bar {class}"), (at, 0.0), (width, 18.0));
                at += width;
            }
        });
        page.element("ul", &[("class", "keys")], |page| {
            for (class, text, part) in parts.iter().filter(|part| part.2 > 0) {
                page.element("li", &[], |page| {
                    swatch(page, &format!("bar {class}"));
                    page.leaf("b", &[], &spell::size(*part));
                    page.text(" ");
                    page.text(text);
                });
            }
        });
    });
}

/// A sample of a fill.
pub(super) fn swatch(page: &mut Markup, class: &str) {
    let size = [
        ("viewBox", "0 0 22 12"),
        ("class", "swatch"),
        ("aria-hidden", "true"),
    ];
    page.element("svg", &size, |page| {
        super::picture::rectangle(page, class, (0.5, 0.5), (21.0, 11.0));
    });
}

/// What the report was narrowed to, if it was.
fn asked(page: &mut Markup, asked: &Asked, context: &Context<'_>) {
    let time =
        |at: Option<WallTime>| at.map_or_else(String::new, |at| spell::moment(at, context.zone));
    let times = [("since", time(asked.since)), ("until", time(asked.until))];
    let names = asked
        .names()
        .map(|(name, values)| (name, values.join(", ")));
    let narrowed = [&times[..], &names[..]].concat();
    if narrowed.iter().all(|(_, value)| value.is_empty()) {
        return;
    }
    page.element("p", &[("class", "note")], |page| {
        page.text("Narrowed to ");
        let mut first = true;
        for (name, value) in narrowed.iter().filter(|(_, value)| !value.is_empty()) {
            page.text(if first { "" } else { "; " });
            page.text(&format!("{name} "));
            page.name(value.as_bytes());
            first = false;
        }
        page.text(". What does not match is not on this page.");
    });
}

/// Who made the page, when, and how to read it.
pub(super) fn footer(page: &mut Markup, context: &Context<'_>) {
    let report = context.report;
    page.element("footer", &[], |page| {
        page.element("p", &[], |page| {
            page.text(&format!("Made by msync-trace {} on ", report.version));
            let at = report.made;
            let text = spell::second(at, context.zone);
            page.leaf("time", &[("datetime", &at.to_string())], &text);
            let zone = spell::zone(at, context.zone);
            page.text(&format!(". Times are {zone}; sizes are powers of two."));
        });
        page.raw(
            "<p>An incident is a sync call that returned success although the kernel had failed to \
             write bytes of that file, and they were neither written since nor given up.</p>",
        );
    });
}
