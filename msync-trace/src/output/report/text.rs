//! A report for people: the summary, the runs, the incidents, and file by file what became of its
//! bytes and what happened when.

use std::io::{self, Write};

use jiff::tz::TimeZone;

use crate::{
    model::InMemory,
    output::{Tone, loss_sentence, storage_error},
    schema::{
        Asked, BytesNow, FileRecord, FileReport, IncidentReport, LossState, PathFrom, RangeReport,
        Report, RunReport, TimelineEntry, TimelineKind, WallTime, Word, escape, spell_dev,
    },
};

/// How a report looks.
#[derive(Clone, Debug)]
pub struct ReportStyle {
    /// Whether to use colour.
    pub tone: Tone,
    /// The zone of all times.
    pub zone: TimeZone,
}

/// So many ranges of an incident stand on its line.
const RANGES_SHOWN: usize = 3;

/// Writes a report as text.
///
/// # Errors
/// If `out` cannot be written.
pub fn write_text(report: &Report, style: &ReportStyle, out: impl Write) -> io::Result<()> {
    let mut page = Page { out, style, report };
    page.summary()?;
    page.runs()?;
    page.incidents()?;
    page.storage_errors()?;
    page.recomputed()?;
    for (nth, file) in report.files.iter().enumerate() {
        page.file(nth + 1, file)?;
    }
    if report.files_left_out > 0 {
        let more = count(report.files_left_out, "more file");
        writeln!(page.out, "\n{more} left out (--all lists them)")?;
    }
    page.out.flush()
}

struct Page<'a, W> {
    out: W,
    style: &'a ReportStyle,
    report: &'a Report,
}

impl<W: Write> Page<'_, W> {
    fn summary(&mut self) -> io::Result<()> {
        let Self { out, style, report } = self;
        let (summary, tone) = (&report.summary, style.tone);
        let totals = &summary.totals;
        let hosts: Vec<String> = summary.hosts.iter().map(|h| escape(h.as_bytes())).collect();
        let on_hosts = match hosts.as_slice() {
            [] => String::new(),
            few @ [..] if few.len() <= 4 => format!(" on {}", few.join(", ")),
            many => format!(" on {} hosts", many.len()),
        };
        if totals.incidents > 0 {
            let at_least = if totals.incidents_without_range > 0 {
                "at least "
            } else {
                ""
            };
            let found = format!(
                "{}: {at_least}{} lost silently in {}{on_hosts}",
                count(totals.incidents, "incident"),
                count(totals.bytes, "byte"),
                count(totals.files, "file"),
            );
            writeln!(out, "{}", tone.bad(&found))?;
        } else if summary.complete {
            writeln!(out, "{}", tone.good("nothing found: no silent loss"))?;
        } else {
            let what = "nothing found, but not everything was seen: no all-clear";
            writeln!(out, "{}", tone.warning(what))?;
        }
        for line in asked(&report.asked, style) {
            writeln!(out, "  only {line}")?;
        }
        if totals.incidents > 0 {
            let since = |at: Option<WallTime>| at.map_or_else(String::new, |at| spell(at, style));
            writeln!(
                out,
                "  since {} (first failed write); false successes from {} to {}",
                since(summary.first_failed),
                since(summary.first_incident),
                since(summary.last_incident),
            )?;
            let errors: Vec<String> = summary
                .errors
                .iter()
                .map(|it| format!("{} {}", it.error, it.incidents))
                .collect();
            writeln!(out, "  errors: {}", errors.join(", "))?;
            writeln!(
                out,
                "  who was told before: nobody {}, other {}, caller {}, pending {}",
                totals.told_nobody, totals.told_other, totals.told_caller, totals.told_pending
            )?;
            writeln!(
                out,
                "  afterwards: recovered {}, discarded {}, evicted {}, repeated {}",
                totals.recovered, totals.discarded, totals.evicted, totals.repeats
            )?;
            writeln!(out, "  the bytes now: {}", bytes_now(&summary.bytes_now))?;
            if totals.incidents_without_range > 0 {
                let some = count(totals.incidents_without_range, "incident");
                writeln!(out, "  of {some} only the file is known, not the bytes")?;
            }
        }
        let silent = |file: &&FileReport| file.incidents.is_empty() && file.bytes == 0;
        let failed = report.files.iter().filter(silent).count() as u64;
        if failed > 0 && !narrows(&report.asked) {
            writeln!(
                out,
                "  also {} with failed writes that nobody was told are safe",
                count(failed, "file")
            )?;
        }
        Ok(())
    }

    fn runs(&mut self) -> io::Result<()> {
        let Self { out, style, report } = self;
        let runs = &report.runs;
        if runs.is_empty() {
            return writeln!(out, "  no run in these records fits what was asked for");
        }
        let complete = runs.iter().filter(|run| run.complete).count();
        let all = count(runs.len() as u64, "run");
        if report.summary.complete {
            let line = format!("complete: all that could be seen was seen, in {all}");
            writeln!(out, "  {}", style.tone.good(&line))?;
        } else {
            let line = format!("incomplete: {complete} of {all} saw everything");
            writeln!(out, "  {}", style.tone.warning(&line))?;
        }
        writeln!(out, "\nRuns (times are {})", zone_name(&style.zone))?;
        for run in runs.iter() {
            for line in spell_run(run, style) {
                writeln!(out, "{line}")?;
            }
        }
        Ok(())
    }

    fn incidents(&mut self) -> io::Result<()> {
        let Self { out, style, report } = self;
        if report.incidents.is_empty() {
            return Ok(());
        }
        writeln!(out, "\nIncidents")?;
        writeln!(
            out,
            "{:>4} {:<23} {:>7} {:<12} {:<6} {:>8} {:<7} {:<11} FILE [RANGE]",
            "NO", "TIME", "PID", "COMM", "ERR", "BYTES", "TOLD", "NOW"
        )?;
        for incident in &report.incidents {
            let line = incident_line(incident, report, style);
            writeln!(out, "{line}")?;
        }
        if report.incidents_left_out > 0 {
            let more = count(report.incidents_left_out, "newer incident");
            writeln!(out, "     {more} left out (--all lists them)")?;
        }
        Ok(())
    }

    fn storage_errors(&mut self) -> io::Result<()> {
        let Self { out, style, report } = self;
        if report.storage_errors.is_empty() {
            return Ok(());
        }
        writeln!(out, "\nDisks and filesystems")?;
        for error in &report.storage_errors {
            let time = spell(error.at.time, style);
            writeln!(out, "  {time}  {}", storage_error(&error.record))?;
        }
        Ok(())
    }

    fn recomputed(&mut self) -> io::Result<()> {
        let Self { out, style, report } = self;
        let Some(runs) = &report.recomputed else {
            return Ok(());
        };
        writeln!(
            out,
            "\nJudged again by msync-trace {}",
            escape(report.version.as_bytes())
        )?;
        for again in runs {
            let Some(run) = report.runs.get(again.run) else {
                continue;
            };
            let differ = again.differences.len() as u64;
            let verdict = match differ {
                0 => style.tone.good("the answer is the same"),
                _ => style.tone.warning(&count(differ, "difference")),
            };
            writeln!(
                out,
                "  {} run {}: {verdict}, {} the same",
                escape(&run.source.0),
                run.run,
                count(again.same, "incident"),
            )?;
            if differ > 0 && (!run.gaps.is_empty() || run.deleted_before.is_some()) {
                writeln!(
                    out,
                    "    facts of it are missing: a difference is no contradiction"
                )?;
            }
            for it in &again.differences {
                let path = it
                    .path
                    .as_ref()
                    .map_or_else(|| it.inode.to_string(), |p| escape(&p.0));
                let members = match it.members.is_empty() {
                    true => String::new(),
                    false => format!(": {}", it.members.join(", ")),
                };
                writeln!(
                    out,
                    "    {:<7} incident {} at {} by {} {}, {path}{members}",
                    it.kind.word(),
                    it.incident.0,
                    spell(it.at.time, style),
                    escape(&it.process.comm),
                    it.process.process.pid,
                )?;
            }
        }
        Ok(())
    }

    fn file(&mut self, nth: usize, file: &FileReport) -> io::Result<()> {
        let host = file.host.as_ref();
        let host = host.map_or_else(String::new, |host| format!("{}: ", escape(host.as_bytes())));
        let name = spell_file(&file.file);
        writeln!(self.out, "\nFile {nth}: {host}{name}")?;
        writeln!(self.out, "  {}", identity(&file.file))?;
        if file.incidents.is_empty() && file.bytes == 0 && file.incidents_without_range == 0 {
            writeln!(
                self.out,
                "  writes failed, and nobody was told that they are safe"
            )?;
        } else {
            writeln!(
                self.out,
                "  {} lost; now: {}",
                count(file.bytes, "byte"),
                bytes_now(&file.bytes_now)
            )?;
        }
        if file.incidents_without_range + file.failures_without_range > 0 {
            writeln!(
                self.out,
                "  of {} and {} only the file is known, not the bytes",
                count(file.incidents_without_range, "incident"),
                count(file.failures_without_range, "failure"),
            )?;
        }
        self.ranges(file)?;
        self.timeline(file)
    }

    fn ranges(&mut self, file: &FileReport) -> io::Result<()> {
        let Self { out, style, .. } = self;
        if file.ranges.is_empty() {
            return Ok(());
        }
        writeln!(out, "  Bytes that could not be written")?;
        writeln!(
            out,
            "    {:<23} {:<11} {:<7} {:<6} {:<23} RANGE",
            "FAILED", "NOW", "MEMORY", "ERR", "UNTIL"
        )?;
        for range in &file.ranges {
            let ended = range.ended.or(range.evicted);
            let until = ended.map_or_else(String::new, |at| spell(at.time, style));
            let mut notes = String::new();
            if range.failures > 1 {
                notes = format!(" (failed {} times)", range.failures);
            }
            if !range.reported {
                notes.push_str(" (in no incident)");
            }
            let word = range_word(range);
            let pad = " ".repeat(11_usize.saturating_sub(word.len()));
            writeln!(
                out,
                "    {:<23} {}{pad} {:<7} {:<6} {until:<23} {}{notes}",
                spell(range.first_failed.time, style),
                painted(range.state, style.tone, word),
                memory(range.in_memory),
                range.error.to_string(),
                range.range,
            )?;
        }
        if file.ranges_left_out > 0 {
            let more = count(file.ranges_left_out, "more range");
            writeln!(out, "    {more} left out (--all lists them)")?;
        }
        Ok(())
    }

    fn timeline(&mut self, file: &FileReport) -> io::Result<()> {
        let Self { out, style, .. } = self;
        if file.timeline.is_empty() {
            return Ok(());
        }
        writeln!(out, "  What happened")?;
        // The first half and the last half: what is missing lies between them.
        let half = file.timeline.len().div_ceil(2);
        for (nth, entry) in file.timeline.iter().enumerate() {
            if nth == half && file.timeline_left_out > 0 {
                let more = count(file.timeline_left_out, "entry");
                writeln!(out, "    ... {more} left out (--all lists them)")?;
            }
            writeln!(out, "    {}", spell_entry(entry, style))?;
        }
        Ok(())
    }
}

/// In which way incidents were narrowed, one line each.
fn asked(asked: &Asked, style: &ReportStyle) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(since) = asked.since {
        lines.push(format!("since {}", spell(since, style)));
    }
    if let Some(until) = asked.until {
        lines.push(format!("before {}", spell(until, style)));
    }
    for (what, values) in asked.names() {
        if !values.is_empty() {
            let values: Vec<String> = values.iter().map(|v| escape(v.as_bytes())).collect();
            lines.push(format!("{what} {}", values.join(" or ")));
        }
    }
    lines
}

fn narrows(asked: &Asked) -> bool {
    !(asked.pid.is_empty()
        && asked.comm.is_empty()
        && asked.errno.is_empty()
        && asked.told.is_empty())
}

fn bytes_now(now: &BytesNow) -> String {
    let parts = [
        (now.in_memory, "still in memory"),
        (now.evicted, "gone from memory"),
        (now.unknown, "not known whether in memory"),
        (now.recovered, "written after all"),
        (now.discarded, "given up on purpose"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(bytes, _)| *bytes > 0)
        .map(|(bytes, what)| format!("{bytes} {what}"))
        .collect();
    match parts.is_empty() {
        true => "-".to_owned(),
        false => parts.join(", "),
    }
}

fn spell_run(run: &RunReport, style: &ReportStyle) -> Vec<String> {
    let host = run.host.as_deref().unwrap_or("unknown host");
    let end = match run.ended {
        Some(ended) => format!("to {}", spell(ended, style)),
        None => format!(
            "without an end (still going on, or killed); last sign of life {}",
            spell(run.last_seen, style)
        ),
    };
    let mut lines = vec![format!(
        "  {} run {} on {} ({} {}, {}): from {} {end}, {}",
        escape(&run.source.0),
        run.run,
        escape(host.as_bytes()),
        escape(run.kernel.name.as_bytes()),
        escape(run.kernel.release.as_bytes()),
        escape(run.tier.as_bytes()),
        spell(run.began, style),
        count(run.facts, "fact"),
    )];
    let mut note = |text: String| lines.push(format!("      {}", style.tone.warning(&text)));
    for lost in &run.lost {
        note(format!(
            "{} lost: {}",
            count(lost.count, "event"),
            loss_sentence(lost.cause)
        ));
    }
    for hook in &run.missing_hooks {
        let (name, reason) = (escape(hook.name.as_bytes()), escape(hook.reason.as_bytes()));
        note(format!("hook {name}: {reason}"));
    }
    for gap in &run.gaps {
        let until = gap
            .until
            .map_or_else(|| "the end".to_owned(), |at| spell(at, style));
        note(format!(
            "a hole in the record from {} to {until}: {} missing ({})",
            spell(gap.since, style),
            count(gap.facts, "fact"),
            escape(gap.reason.as_bytes()),
        ));
    }
    if let Some(before) = run.deleted_before {
        let before = spell(before, style);
        lines.push(format!(
            "      what was before {before} may have been deleted on purpose (--keep, --max-size)"
        ));
    }
    lines
}

fn incident_line(incident: &IncidentReport, report: &Report, style: &ReportStyle) -> String {
    let record = &incident.record;
    let task = &record.process.task;
    let host = match report.summary.hosts.len() {
        0 | 1 => String::new(),
        _ => report
            .runs
            .get(incident.run)
            .map_or_else(String::new, |run| {
                let host = run.host.as_deref().unwrap_or("?");
                format!("{}:", escape(host.as_bytes()))
            }),
    };
    let bytes = record
        .bytes
        .map_or_else(|| "?".to_owned(), |bytes| bytes.to_string());
    let mut ranges: Vec<String> = record
        .ranges
        .iter()
        .take(RANGES_SHOWN)
        .map(ToString::to_string)
        .collect();
    if record.ranges.len() > RANGES_SHOWN {
        ranges.push(format!("+{} more", record.ranges.len() - RANGES_SHOWN));
    }
    let ranges = match ranges.is_empty() {
        true => String::new(),
        false => format!(" [{}]", ranges.join(",")),
    };
    let mut notes = String::new();
    if incident.repeats > 0 {
        notes = format!(" repeated:{}", incident.repeats);
    }
    let is_evicted = incident.evicted.is_some() || record.in_memory == InMemory::No;
    let now = match incident.state {
        LossState::Outstanding if is_evicted => "evicted",
        state => state.word(),
    };
    let pad = " ".repeat(11_usize.saturating_sub(now.len()));
    let error = format!("{:<6}", record.error.to_string());
    format!(
        "{:>4} {:<23} {:>7} {:<12} {} {bytes:>8} {:<7} {}{pad} {host}{}{ranges}{notes}",
        incident.number,
        spell(incident.at.time, style),
        task.process.pid,
        escape(&task.comm),
        style.tone.bad(&error),
        record.told.word(),
        painted(incident.state, style.tone, now),
        spell_file(&record.file),
    )
}

fn painted(state: LossState, tone: Tone, word: &str) -> String {
    match state {
        LossState::Outstanding => tone.bad(word),
        LossState::Recovered => tone.good(word),
        LossState::Discarded => word.to_owned(),
    }
}

fn range_word(range: &RangeReport) -> &'static str {
    match (range.state, range.evicted) {
        (LossState::Outstanding, Some(_)) => "evicted",
        (state, _) => state.word(),
    }
}

fn memory(is: InMemory) -> &'static str {
    match is {
        InMemory::Yes => "yes",
        InMemory::No => "no",
        InMemory::Partly => "partly",
        InMemory::Unknown => "unknown",
    }
}

fn spell_entry(entry: &TimelineEntry, style: &ReportStyle) -> String {
    let what = match entry.what {
        TimelineKind::WriteFailed => "write failed",
        TimelineKind::WriteOk => "written after all",
        TimelineKind::Redirtied => "dirty again",
        TimelineKind::SyncOk => "sync succeeded",
        TimelineKind::SyncFailed => "sync failed",
        TimelineKind::Told => "told",
        TimelineKind::Opened => "opened",
        TimelineKind::Discarded => "given up",
        TimelineKind::Evicted => "left memory",
        TimelineKind::Gone => "inode left memory",
        TimelineKind::Deleted => "deleted",
        TimelineKind::Incident => "INCIDENT",
        TimelineKind::Repeated => "false success again",
        TimelineKind::StorageError => "storage error",
        TimelineKind::Lost => "not seen",
    };
    let mut words = vec![format!("{what:<19}")];
    if let Some(incident) = entry.incident {
        words.push(format!("no {incident}"));
    }
    if let Some(call) = entry.call {
        words.push(format!("{}()", call.word()));
    }
    if let Some(error) = entry.error {
        words.push(error.to_string());
    }
    if let Some(range) = entry.range {
        words.push(format!("[{range}]"));
    }
    if let Some(told) = entry.told {
        words.push(format!("told before: {}", told.word()));
    }
    if let Some(task) = &entry.process {
        let by = match entry.what {
            TimelineKind::WriteFailed => "noticed by",
            _ => "by",
        };
        words.push(format!("{by} {} {}", escape(&task.comm), task.process.pid));
    }
    match (entry.what, entry.count, entry.until) {
        (TimelineKind::Repeated, times, _) => words.push(format!("{times} times by now")),
        (_, 1, _) => {}
        (_, times, None) => words.push(format!("{times} times")),
        (_, times, Some(until)) => {
            words.push(format!("{times} times until {}", spell(until.time, style)));
        }
    }
    let line = format!("{}  {}", spell(entry.at.time, style), words.join(" "));
    let line = line.trim_end();
    match entry.what {
        TimelineKind::Incident => style.tone.bad(line),
        _ => line.to_owned(),
    }
}

/// What a file is called.
fn spell_file(file: &FileRecord) -> String {
    let mut text = match (&file.path, file.path_from) {
        (Some(path), Some(PathFrom::Filesystem)) => {
            format!("{}:{}", device(file), escape(&path.0))
        }
        (Some(path), _) => escape(&path.0),
        (None, _) => format!("? (inode {} on {})", file.inode.ino, device(file)),
    };
    if file.deleted {
        text.push_str(" (deleted)");
    }
    text
}

fn device(file: &FileRecord) -> String {
    match (&file.device, file.dev) {
        (Some(device), _) => escape(device.as_bytes()),
        (None, Some(dev)) => spell_dev(dev),
        (None, None) => file.inode.fs.to_string(),
    }
}

fn identity(file: &FileRecord) -> String {
    let fs_type = file.fs_type.as_ref().map(|name| escape(name.as_bytes()));
    let fs_type = fs_type.unwrap_or_else(|| "unknown filesystem".to_owned());
    format!("{fs_type} on {}; inode {}", device(file), file.inode)
}

/// `1 incident`, `2 incidents`.
fn count(number: u64, what: &str) -> String {
    match (number, what.strip_suffix('y')) {
        (1, _) => format!("1 {what}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {what}s"),
    }
}

/// With milliseconds: what led to what is often within a second.
fn spell(at: WallTime, style: &ReportStyle) -> String {
    let zoned = at.timestamp().to_zoned(style.zone.clone());
    zoned.strftime("%Y-%m-%d %H:%M:%S.%3f").to_string()
}

fn zone_name(zone: &TimeZone) -> String {
    match zone.iana_name() {
        Some(name) => format!("in {name}"),
        None => "local".to_owned(),
    }
}
