//! Makes the HTML page of a report: `cargo run --example report_page < REPORT.json > PAGE.html`.
//! What `report --format json` wrote on one machine becomes a page on another.

use std::io::{self, Read as _};

use jiff::tz::TimeZone;
use msync_trace::{output::write_html, schema::Report};

fn main() -> anyhow::Result<()> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let report: Report = serde_json::from_str(&text)?;
    write_html(&report, &TimeZone::system(), io::stdout().lock())?;
    Ok(())
}
