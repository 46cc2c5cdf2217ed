//! The page as a whole; that a browser shows it is tested in `tests/html_page.rs`.

use sha2::{Digest as _, Sha256};

use super::*;

const DATABASE: &str = include_str!("../../../tests/data/report/database.json");

fn database() -> Report {
    serde_json::from_str(DATABASE).unwrap()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let group = (0..3).fold(0, |group, at| {
            group << 8 | u32::from(chunk.get(at).copied().unwrap_or(0))
        });
        for digit in 0..4 {
            let value = group >> (18 - 6 * digit) & 63;
            let filled = digit <= chunk.len();
            out.push(if filled {
                char::from(DIGITS[value as usize])
            } else {
                '='
            });
        }
    }
    out
}

/// With another digest the browser shows the page without any style.
#[test]
fn the_policy_allows_this_very_style() {
    let digest = base64(&Sha256::digest(STYLE));
    assert!(
        POLICY.contains(&format!("style-src 'sha256-{digest}'")),
        "style.css was changed: POLICY takes sha256-{digest}"
    );
    assert!(!STYLE.contains("url(http") && !STYLE.contains("@import"));
}

#[test]
fn the_verdict_comes_first() {
    let report = database();
    let page = page(&report, &TimeZone::UTC);
    assert!(
        page.contains("<h1 class=\"verdict bad\">At least 104 KiB lost silently in 3 files</h1>")
    );
    assert!(page.contains("Incomplete: there may be more than this"));
    assert!(page.contains("12 events lost: the ring of sync returns was full"));
}

/// An all-clear is only given by a complete run.
#[test]
fn nothing_found_is_no_all_clear_when_something_was_not_seen() {
    let mut report = database();
    report.incidents.clear();
    report.files.clear();
    report.summary.totals = Default::default();
    let unsure = overview::verdict(&report).text;
    assert_eq!(unsure, "Nothing found, but not everything was seen");
    report.summary.complete = true;
    assert_eq!(overview::verdict(&report).text, "Nothing was lost silently");
    report.runs.clear();
    assert_eq!(
        overview::verdict(&report).text,
        "Nothing was recorded in this time"
    );
}

#[test]
fn times_are_those_of_the_zone_that_was_asked_for() {
    let zone = TimeZone::fixed(jiff::tz::offset(2));
    let page = page(&database(), &zone);
    assert!(page.contains(">2026-11-20 04:14:03.200</time>"));
    assert!(page.contains("Times are UTC+02:00"));
}

/// A million of anything makes no page that a browser cannot open, and what is missing is said.
#[test]
fn a_page_has_a_size_that_a_browser_opens() {
    let mut report = database();
    let (incident, file) = (report.incidents[0].clone(), report.files[0].clone());
    report.incidents = (1..=20_000)
        .map(|number| IncidentReport {
            number,
            ..incident.clone()
        })
        .collect();
    report.summary.totals.incidents = 20_000;
    let range = file.ranges[0].clone();
    let ranges = (0..1_000_u64).map(|n| {
        let mut range = range.clone();
        range.range = crate::model::ByteRange::with_len(n * n * 8192, 4096).unwrap();
        range
    });
    let many = FileReport {
        incidents: (1..=1_000).collect(),
        ranges: ranges.collect(),
        timeline: file.timeline.iter().cycle().take(1_000).cloned().collect(),
        ..file
    };
    report.files = vec![many; 400];
    let page = page(&report, &TimeZone::UTC);
    assert!(page.len() < 20 << 20, "{} MiB", page.len() >> 20);
    for said in [
        "The first 1,000 of 20,000 incidents",
        "The 200 files that lost most. 200 more are not on this page",
        "800 of them are not on this page",
        "500 of them are not on this page",
        "Without picture and tables, for the size of the page",
    ] {
        assert!(page.contains(said), "{said}");
    }
}
