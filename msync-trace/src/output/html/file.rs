//! A section for each file: what it is, its picture, and the same in tables.

use std::collections::BTreeMap;

use super::{
    Context, ENOUGH, FILE_SECTIONS,
    bars::Look,
    incidents::moment,
    marks::Symbol,
    markup::Markup,
    overview, picture, spell,
    table::{Folded, cell},
    timeline,
};
use crate::{
    output::escape,
    schema::{FileRecord, FileReport, LossState, PathFrom, RangeReport, WallTime},
};

/// Rows of a table of ranges.
const RANGE_ROWS: usize = 200;
const COLUMNS: [&str; 6] = ["Bytes", "Error", "Failed", "Left memory", "Ended", "Now"];

/// Which file, from 1, the incidents are of, by their numbers.
pub(super) fn numbers(context: &Context<'_>) -> BTreeMap<u64, usize> {
    let files = context.report.files.iter().take(FILE_SECTIONS).enumerate();
    files
        .flat_map(|(at, file)| file.incidents.iter().map(move |number| (*number, at + 1)))
        .collect()
}

/// The name of a file, as a link to its section if there is one.
pub(super) fn link(page: &mut Markup, file: &FileRecord, number: Option<usize>) {
    match number {
        Some(number) => {
            let target = format!("#file-{number}");
            page.element("a", &[("href", &target)], |page| name(page, file));
        }
        None => name(page, file),
    }
}

fn name(page: &mut Markup, file: &FileRecord) {
    let device = file.device.as_deref().unwrap_or("unknown device");
    match (&file.path, file.path_from) {
        (Some(path), Some(PathFrom::Filesystem)) => {
            let path = [device.as_bytes(), b":", &path.0].concat();
            page.name(&path);
        }
        (Some(path), _) => page.name(&path.0),
        (None, _) => {
            let device = escape(device.as_bytes());
            let text = format!("unnamed (inode {} on {device})", file.inode.ino);
            page.leaf("span", &[("class", "name")], &text);
        }
    }
    if file.deleted {
        page.raw(" <span class=\"tag\">deleted</span>");
    }
}

/// Writes all sections.
pub(super) fn write_all(page: &mut Markup, context: &Context<'_>) {
    let report = context.report;
    if report.files.is_empty() {
        return;
    }
    page.element("section", &[("id", "files"), ("aria-labelledby", "files-h")], |page| {
        page.leaf("h2", &[("id", "files-h")], "Files");
        let shown = report.files.len().min(FILE_SECTIONS);
        let left_out = report.files_left_out + (report.files.len() - shown) as u64;
        if left_out > 0 {
            let text = format!(
                "The {} files that lost most. {} more are not on this page: narrow the report with \
                 --path, --host or --dev, or take --format json --all.",
                spell::digits(shown as u64),
                spell::digits(left_out)
            );
            page.leaf("p", &[("class", "note")], &text);
        }
        for (at, file) in report.files.iter().take(FILE_SECTIONS).enumerate() {
            write(page, file, at + 1, context);
        }
    });
}

fn write(page: &mut Markup, file: &FileReport, number: usize, context: &Context<'_>) {
    let id = format!("file-{number}");
    let heading = format!("{id}-h");
    let attributes = [
        ("id", &*id),
        ("class", "file"),
        ("aria-labelledby", &heading),
    ];
    page.element("article", &attributes, |page| {
        page.element("h3", &[("id", &heading)], |page| name(page, &file.file));
        page.element("p", &[("class", "facts")], |page| facts(page, file));
        overview::what_became(page, file.bytes, &file.bytes_now);
        if page.len() > ENOUGH {
            page.raw(
                "<p class=\"note\">Without picture and tables, for the size of the page: make a \
                 report of this file alone with --path.</p>",
            );
            return;
        }
        figure(page, file, &id, context);
        ranges(page, file, &id, context);
        timeline::write(page, file, &id, context);
    });
}

fn facts(page: &mut Markup, file: &FileReport) {
    let mut parts = Vec::new();
    parts.extend(
        file.host
            .as_ref()
            .map(|host| format!("on {}", escape(host.as_bytes()))),
    );
    let fs_type = file.file.fs_type.as_deref().unwrap_or("unknown filesystem");
    let device = file.file.device.as_deref().unwrap_or("an unknown device");
    let (fs_type, device) = (escape(fs_type.as_bytes()), escape(device.as_bytes()));
    parts.push(format!("{fs_type} on {device}"));
    parts.push(format!("inode {}", file.file.inode.ino));
    parts.push(match file.incidents.len() {
        0 => "no incident".to_owned(),
        incidents => spell::count(incidents as u64, "incident"),
    });
    parts.push(match (file.bytes, file.incidents_without_range) {
        (0, 0) => "nobody was told a false success".to_owned(),
        (0, _) => "unknown bytes lost".to_owned(),
        (bytes, 0) => format!("{} lost", spell::size(bytes)),
        (bytes, _) => format!("at least {} lost", spell::size(bytes)),
    });
    page.text(&parts.join(" \u{b7} "));
    if let Some(before) = &file.file.path_when_failed
        && file.file.path.as_ref() != Some(before)
    {
        page.text(" \u{b7} when it failed: ");
        page.name(&before.0);
    }
}

fn figure(page: &mut Markup, file: &FileReport, id: &str, context: &Context<'_>) {
    page.element("figure", &[], |page| {
        let mut drawn = None;
        let label = format!("Picture of {id}, scrolls sideways");
        let region =
            [("class", "scroll wide"), ("role", "region"), ("aria-label", &*label), ("tabindex", "0")];
        page.element("div", &region, |page| {
            drawn = Some(picture::draw(page, file, id, context));
        });
        let drawn = drawn.unwrap_or_default();
        page.element("figcaption", &[], |page| {
            page.element("ul", &[("class", "keys")], |page| legend(page, &drawn));
            if drawn.cut {
                page.raw(
                    "<p class=\"note\">A zigzag leaves out what lies between; each part has a scale \
                     of its own.</p>",
                );
            }
            if let Some(end) = still_lost_at(file, context) {
                let end = WallTime(i64::try_from(end).unwrap_or(i64::MAX));
                let text = format!(
                    "What is lost at the right edge was still lost when the record ended, at {}.",
                    spell::second(end, context.zone)
                );
                page.leaf("p", &[("class", "note")], &text);
            }
            if drawn.bars_left_out > 0 {
                let text = format!(
                    "{} are too many to draw: the smallest are left out.",
                    spell::count(drawn.bars_left_out, "range")
                );
                page.leaf("p", &[("class", "note")], &text);
            }
        });
    });
}

/// Up to when it is known that some bytes are lost.
fn still_lost_at(file: &FileReport, context: &Context<'_>) -> Option<i128> {
    let lost = file
        .ranges
        .iter()
        .filter(|it| it.state == LossState::Outstanding);
    lost.map(|it| context.end_of(it.run)).max()
}

fn legend(page: &mut Markup, drawn: &picture::Drawn) {
    for look in Look::ALL
        .into_iter()
        .filter(|look| drawn.bars.contains(look))
    {
        page.element("li", &[], |page| {
            match look {
                Look::Discarded => symbol(page, Symbol::Gone, "swatch cross"),
                look => overview::swatch(page, look.class()),
            }
            page.text(look.meaning());
        });
    }
    for kind in Symbol::ALL
        .into_iter()
        .filter(|kind| drawn.symbols.contains(kind))
    {
        page.element("li", &[], |page| {
            symbol(page, kind, "swatch");
            page.text(kind.meaning());
        });
    }
}

fn symbol(page: &mut Markup, symbol: Symbol, class: &str) {
    let size = [
        ("viewBox", "0 0 22 16"),
        ("class", class),
        ("aria-hidden", "true"),
    ];
    page.element("svg", &size, |page| symbol.draw(page, (11.0, 8.0)));
}

fn ranges(page: &mut Markup, file: &FileReport, id: &str, context: &Context<'_>) {
    if file.ranges.is_empty() {
        return;
    }
    let shown = file.ranges.len().min(RANGE_ROWS);
    let table = Folded {
        title: "Ranges that failed",
        label: &format!("Ranges of {id}"),
        columns: &COLUMNS,
        shown,
        left_out: file.ranges_left_out + (file.ranges.len() - shown) as u64,
        elsewhere: ": take --format json --all.",
    };
    table.write(page, |page| {
        for range in &file.ranges[..shown] {
            range_row(page, range, context);
        }
    });
}

fn range_row(page: &mut Markup, it: &RangeReport, context: &Context<'_>) {
    page.element("tr", &[], |page| {
        cell(page, COLUMNS[0], |page| {
            page.text(&spell::range(it.range));
            page.leaf("small", &[], &spell::range_size(it.range));
        });
        cell(page, COLUMNS[1], |page| page.text(&spell::error(it.error)));
        cell(page, COLUMNS[2], |page| {
            moment(page, it.first_failed.time, context);
            if it.failures > 1 {
                page.element("small", &[], |page| {
                    page.text(&format!("{}, last ", spell::count(it.failures, "time")));
                    moment(page, it.last_failed.time, context);
                });
            }
        });
        for (column, at) in [(COLUMNS[3], it.evicted), (COLUMNS[4], it.ended)] {
            cell(page, column, |page| match at {
                Some(at) => moment(page, at.time, context),
                None => page.text("\u{2013}"),
            });
        }
        cell(page, COLUMNS[5], |page| {
            page.text(spell::fate(it.state, it.in_memory));
            if !it.reported {
                page.leaf("small", &[], "no false success");
            }
        });
    });
}
