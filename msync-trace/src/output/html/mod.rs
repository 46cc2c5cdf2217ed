//! A report as one page of HTML: for people, to be read, printed, and attached to a postmortem.
//!
//! The page needs nothing but itself: no script at all, no address, and a policy that forbids the
//! browser to fetch anything. Names from outside are text in it, whatever they hold.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use jiff::tz::TimeZone;

use crate::schema::{FileReport, IncidentReport, Report};

mod axis;
mod bars;
mod file;
mod incidents;
mod marks;
mod markup;
mod overview;
mod picture;
mod runs;
mod spell;
mod table;
mod timeline;

use markup::Markup;

/// The style of the page. Its digest stands in [`POLICY`].
const STYLE: &str = include_str!("style.css");
/// What the browser may do with the page: apply this very style, and nothing else.
const POLICY: &str = "default-src 'none'; style-src 'sha256-ouVeT0GyRBrTA1zFexkFXXxs18h9xkbMlOExZp+MPxI='; \
                      base-uri 'none'; form-action 'none'";
/// Incidents that have a row.
const INCIDENT_ROWS: usize = 1000;
/// Files that have a section.
const FILE_SECTIONS: usize = 200;
/// From this size on, in bytes, files have no pictures and tables any more: a browser has to open
/// the page.
const ENOUGH: usize = 12 << 20;

/// Writes a report as a page, with times in this zone.
///
/// # Errors
/// If it cannot be written.
pub fn write_html(report: &Report, zone: &TimeZone, mut out: impl Write) -> io::Result<()> {
    out.write_all(page(report, zone).as_bytes())
}

/// What all parts of the page know.
struct Context<'a> {
    report: &'a Report,
    zone: &'a TimeZone,
    by_number: BTreeMap<u64, &'a IncidentReport>,
    last_row: Option<u64>,
}

impl<'a> Context<'a> {
    fn new(report: &'a Report, zone: &'a TimeZone) -> Self {
        let incidents = report.incidents.iter();
        let last_row = report.incidents.iter().take(INCIDENT_ROWS).next_back();
        Self {
            report,
            zone,
            by_number: incidents.map(|it| (it.number, it)).collect(),
            last_row: last_row.map(|it| it.number),
        }
    }

    /// The incidents of a file that the report holds.
    fn incidents_of(&self, file: &'a FileReport) -> impl Iterator<Item = &'a IncidentReport> {
        let numbers = file.incidents.iter();
        numbers.filter_map(|number| self.by_number.get(number).copied())
    }

    /// Whether the page has a row for an incident.
    fn has_row(&self, number: u64) -> bool {
        self.last_row.is_some_and(|last| number <= last) && self.by_number.contains_key(&number)
    }

    /// Up to when a run tells of anything, in nanoseconds of wall time.
    fn end_of(&self, run: usize) -> i128 {
        let run = self.report.runs.get(run);
        i128::from(run.map_or(self.report.made, |run| run.last_seen).0)
    }
}

fn page(report: &Report, zone: &TimeZone) -> String {
    let context = Context::new(report, zone);
    let mut page = Markup::default();
    page.raw("<!DOCTYPE html>\n");
    page.element("html", &[("lang", "en")], |page| {
        page.element("head", &[], |page| head(page, &context));
        page.raw("\n");
        page.element("body", &[], |page| body(page, &context));
    });
    page.raw("\n");
    page.finish()
}

fn head(page: &mut Markup, context: &Context<'_>) {
    page.raw("<meta charset=\"utf-8\">");
    // Before anything that it could concern.
    page.raw("<meta http-equiv=\"Content-Security-Policy\" content=\"");
    page.text(POLICY);
    page.raw("\"><meta name=\"referrer\" content=\"no-referrer\">");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    page.raw("<meta name=\"color-scheme\" content=\"light dark\">\n");
    let title = format!(
        "msync-trace report: {}",
        overview::verdict(context.report).text
    );
    page.leaf("title", &[], &title);
    page.raw("\n<style>");
    page.raw(STYLE);
    page.raw("</style>");
}

fn body(page: &mut Markup, context: &Context<'_>) {
    page.raw("<a class=\"skip\" href=\"#content\">Skip to the content</a>");
    page.raw(PATTERNS);
    page.element("main", &[("id", "content"), ("tabindex", "-1")], |page| {
        overview::write(page, context);
        incidents::write(page, context);
        file::write_all(page, context);
        runs::write(page, context);
    });
    overview::footer(page, context);
}

/// Fills of the pictures: told apart without colour.
const PATTERNS: &str = r#"<svg class="patterns" width="0" height="0" aria-hidden="true"><defs>
<pattern id="hatch-lost" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect class="fill-lost" width="6" height="6"/><path class="ink" d="M0 0V6"/></pattern>
<pattern id="hatch-perhaps" width="6" height="6" patternUnits="userSpaceOnUse"><rect class="fill-lost" width="6" height="6"/><circle class="dot" cx="3" cy="3" r="1.3"/></pattern>
<pattern id="hatch-evicted" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect class="fill-evicted" width="6" height="6"/><path class="ink" d="M0 0V6M0 0H6"/></pattern>
<pattern id="hatch-unknown" width="10" height="10" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)"><path class="ink-lost" d="M0 0V10"/></pattern>
</defs></svg>
"#;

#[cfg(test)]
mod tests;
