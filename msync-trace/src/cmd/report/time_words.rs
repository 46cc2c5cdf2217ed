//! Points in time as people type them: `2026-11-20T12:00:00Z`, `2026-11-20 12:00`, `2 hours ago`,
//! `yesterday`. What has no zone is meant in the zone of this machine.

use std::str::FromStr;

use jiff::{
    Span, Timestamp, Zoned,
    civil::{Date, DateTime, Time},
};

use crate::schema::WallTime;

/// What a text means when it is `now`; the zone is that of `now`.
///
/// # Errors
/// If it is no point in time, with examples of what is; if it lies outside 1677 to 2262.
pub fn parse(text: &str, now: &Zoned) -> Result<WallTime, String> {
    let text = text.trim();
    let at = point(text, now)?;
    i64::try_from(at.as_nanosecond())
        .map(WallTime)
        .map_err(|_| format!("{text:?} lies outside the years 1677 to 2262"))
}

fn point(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    if let Ok(exact) = text.parse::<Timestamp>() {
        return Ok(exact);
    }
    let out_of_range = |error: jiff::Error| format!("{text:?}: {error}");
    let here = |local: DateTime| {
        let zoned = local.to_zoned(now.time_zone().clone());
        zoned.map(|at| at.timestamp()).map_err(out_of_range)
    };
    let lower = text.to_ascii_lowercase();
    let midnight = |date: Date| here(date.to_datetime(Time::midnight()));
    match lower.as_str() {
        "now" => return Ok(now.timestamp()),
        "today" => return midnight(now.date()),
        "yesterday" => {
            let date = now.date().yesterday().map_err(out_of_range)?;
            return midnight(date);
        }
        _ => {}
    }
    if let Some(time) = whole::<Time>(text, 5).or_else(|| whole(text, 8)) {
        return here(now.date().to_datetime(time));
    }
    if let Some(ago) = ago(&lower)? {
        let at = now.checked_add(ago).map_err(out_of_range)?;
        return Ok(at.timestamp());
    }
    if let Some(date) = whole::<Date>(text, 10) {
        return midnight(date);
    }
    if let Ok(local) = text.parse::<DateTime>() {
        return here(local);
    }
    Err(format!(
        "{text:?} is no point in time; write 2026-11-20T12:00:00Z (RFC 3339), \"2026-11-20 12:00\", \
         2026-11-20, 12:00, \"2 hours ago\", \"30m ago\", yesterday, today or now"
    ))
}

/// `2 hours ago`, `1h30m ago`, `-2h`, `an hour ago`: as a span to add. `None` if it is no length of
/// time.
fn ago(text: &str) -> Result<Option<Span>, String> {
    let one = ["an ", "a "].iter().find_map(|one| text.strip_prefix(one));
    let counted = one.map(|rest| format!("1 {rest}"));
    let counted = counted.as_deref().unwrap_or(text);
    match Span::from_str(counted) {
        Ok(span) if span.is_negative() || span.is_zero() => Ok(Some(span)),
        Ok(_) => Err(format!(
            "{text:?} is a length of time, not a point; write \"{text} ago\""
        )),
        Err(_) => Ok(None),
    }
}

/// A text of exactly this length: the parsers of jiff take less than we would call a date.
fn whole<T: FromStr>(text: &str, length: usize) -> Option<T> {
    (text.len() == length).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;

    /// Noon in winter, in a zone that is an hour ahead of UTC, and two in summer.
    fn now() -> Zoned {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let noon: DateTime = "2026-11-20T12:00:00".parse().unwrap();
        noon.to_zoned(zone).unwrap()
    }

    fn means(text: &str) -> String {
        let at = parse(text, &now()).unwrap_or_else(|why| panic!("{why}"));
        at.to_string().replace(".000000000Z", "Z")
    }

    #[test]
    fn a_time_with_a_zone_is_that_moment() {
        assert_eq!(means("2026-11-20T10:00:00Z"), "2026-11-20T10:00:00Z");
        assert_eq!(means("2026-11-20T10:00:00+02:00"), "2026-11-20T08:00:00Z");
        assert_eq!(means("2026-11-20t10:00:00z"), "2026-11-20T10:00:00Z");
        assert_eq!(
            means("2026-11-20T10:00:00.000000001Z"),
            "2026-11-20T10:00:00.000000001Z"
        );
    }

    #[test]
    fn what_has_no_zone_is_meant_here() {
        assert_eq!(means("2026-11-20 10:00"), "2026-11-20T09:00:00Z");
        assert_eq!(means("2026-11-20T10:00:30"), "2026-11-20T09:00:30Z");
        assert_eq!(means("2026-11-20"), "2026-11-19T23:00:00Z");
        assert_eq!(means("2026-07-01"), "2026-06-30T22:00:00Z");
        assert_eq!(means("10:30"), "2026-11-20T09:30:00Z");
        assert_eq!(means("10:30:15"), "2026-11-20T09:30:15Z");
    }

    #[test]
    fn words_are_counted_from_now() {
        assert_eq!(means("now"), "2026-11-20T11:00:00Z");
        assert_eq!(means("Now "), "2026-11-20T11:00:00Z");
        assert_eq!(means("today"), "2026-11-19T23:00:00Z");
        assert_eq!(means("yesterday"), "2026-11-18T23:00:00Z");
        assert_eq!(means("2 hours ago"), "2026-11-20T09:00:00Z");
        assert_eq!(means("30m ago"), "2026-11-20T10:30:00Z");
        assert_eq!(means("1h30m ago"), "2026-11-20T09:30:00Z");
        assert_eq!(means("an hour ago"), "2026-11-20T10:00:00Z");
        assert_eq!(means("a day ago"), "2026-11-19T11:00:00Z");
        assert_eq!(means("3 days ago"), "2026-11-17T11:00:00Z");
        assert_eq!(means("2 Weeks Ago"), "2026-11-06T11:00:00Z");
        assert_eq!(means("-2h"), "2026-11-20T09:00:00Z");
        // By the calendar: in summer noon here is ten o'clock UTC.
        assert_eq!(means("2 months ago"), "2026-09-20T10:00:00Z");
    }

    #[test]
    fn what_is_no_point_in_time_is_refused_with_what_would_be() {
        let length = parse("2 hours", &now()).unwrap_err();
        assert!(length.contains("2 hours ago"), "{length}");
        for bad in [
            "",
            "soon",
            "tomorrow-ish",
            "2026-13-01",
            "25:00",
            "ago",
            "2026-11-20T10:00:00+99:00",
        ] {
            let why = parse(bad, &now()).unwrap_err();
            assert!(why.contains("RFC 3339"), "{bad}: {why}");
        }
        assert!(parse("1500-01-01", &now()).unwrap_err().contains("1677"));
        assert!(parse("90000000 years ago", &now()).is_err());
    }
}
