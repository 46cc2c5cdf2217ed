//! `msync-trace report`: after the fact, from recorded files, what was lost and who was told.

pub mod time_words;

use std::{
    fs::{self, File},
    io::{self, BufWriter, IsTerminal, Write},
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;
use jiff::{Zoned, tz::TimeZone};

use super::{Exit, colour, complain, log_to_stderr};
use crate::{
    cli::{ReportFileArgs, ReportForm, ToldName, When},
    model::ToldWho,
    output::{ReportStyle, Tone, write_csv, write_html, write_text},
    schema::{Asked, Report, WallTime, escape, write_report},
    store::{Answer, Progress, Question, QuestionLimits, Reader, ask, recompute},
};

/// The whole command, from its arguments to the exit status.
#[must_use]
pub fn main(args: &ReportFileArgs) -> Exit {
    log_to_stderr(false, 0);
    try_main(args).unwrap_or_else(|error| {
        complain(&error);
        Exit::Error
    })
}

fn try_main(args: &ReportFileArgs) -> anyhow::Result<Exit> {
    let now = Zoned::now();
    let question = question(args, &now)?;
    if args.format == ReportForm::Html && args.out.is_none() && io::stdout().is_terminal() {
        anyhow::bail!("a page is for a browser, and this is a terminal: add --out report.html");
    }
    refuse_to_overwrite(args.out.as_deref(), &args.files)?;
    let (records, mut failed) = open_all(&args.files);
    if records.is_empty() {
        return Ok(Exit::Error);
    }
    let made = wall(&now);
    let mut bar = ProgressLine::new();
    let mut answer = ask(&records, &question, made, &mut |at| bar.show(at));
    if args.recompute {
        judge_again(&records, &question, &mut answer, &mut bar);
    }
    bar.clear();
    let Answer { report, troubles } = answer;
    for trouble in troubles {
        failed = true;
        complain(&anyhow::Error::from(trouble));
    }
    match write(args, &report) {
        Err(error) if is_broken_pipe(&error) => {}
        written => written?,
    }
    Ok(exit(&report, failed))
}

/// The contract with scripts.
fn exit(report: &Report, failed: bool) -> Exit {
    match (
        failed,
        report.summary.totals.incidents,
        report.summary.complete,
    ) {
        (true, _, _) => Exit::Error,
        (false, 1.., _) => Exit::Found,
        (false, 0, true) => Exit::Nothing,
        (false, 0, false) => Exit::Incomplete,
    }
}

/// Adds what this version says of the facts of every run in a report.
fn judge_again(
    records: &[Reader],
    question: &Question,
    answer: &mut Answer,
    bar: &mut ProgressLine,
) {
    let runs = &answer.report.runs;
    let of = runs.iter().map(|run| run.facts).sum();
    let mut facts = 0;
    let mut all = Vec::new();
    for (index, told) in runs.iter().enumerate() {
        let is_it =
            |record: &&Reader| record.path().as_os_str().as_encoded_bytes() == told.source.0;
        let Some(record) = records.iter().find(is_it) else {
            continue;
        };
        let again = record.runs().and_then(|rows| {
            let row = rows.iter().find(|row| row.run.cast_unsigned() == told.run);
            let judged = row.map(|row| {
                recompute((record, row), question, &told.calls, index, || {
                    facts += 1;
                    if u64::is_multiple_of(facts, 65_536) {
                        bar.show(Progress { facts, of });
                    }
                })
            });
            judged.transpose()
        });
        match again {
            Ok(again) => all.extend(again),
            Err(error) => answer.troubles.push(error),
        }
    }
    answer.report.recomputed = Some(all);
}

/// Opens what can be opened, and says what cannot; whether something could not.
pub(super) fn open_all(files: &[std::path::PathBuf]) -> (Vec<Reader>, bool) {
    let mut records: Vec<Reader> = Vec::new();
    let mut failed = false;
    for file in files {
        match Reader::open(file) {
            // The same evidence must not count twice.
            Ok(record) if records.iter().any(|known| known.path() == record.path()) => {}
            Ok(record) => records.push(record),
            Err(error) => {
                failed = true;
                complain(&anyhow::Error::from(error));
            }
        }
    }
    (records, failed)
}

/// Evidence is never overwritten by what is made of it.
pub(super) fn refuse_to_overwrite(
    out: Option<&Path>,
    records: &[std::path::PathBuf],
) -> anyhow::Result<()> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|is| (is.dev(), is.ino()));
    let Some(target) = out.and_then(identity) else {
        return Ok(());
    };
    match records
        .iter()
        .any(|record| identity(record) == Some(target))
    {
        true => anyhow::bail!("--out names the record itself: give another file"),
        false => Ok(()),
    }
}

fn question(args: &ReportFileArgs, now: &Zoned) -> anyhow::Result<Question> {
    let time = |option: &str, text: &Option<String>| {
        let parsed = text.as_deref().map(|text| time_words::parse(text, now));
        let parsed = parsed.transpose();
        parsed.map_err(|why| anyhow::anyhow!("{option}: {why}"))
    };
    let (since, until) = (time("--since", &args.since)?, time("--until", &args.until)?);
    if let (Some(since), Some(until)) = (since, until)
        && until <= since
    {
        anyhow::bail!("--until {until} is not after --since {since}: nothing lies between them");
    }
    Ok(Question {
        asked: Asked {
            since,
            until,
            path: args.path.clone(),
            dev: args.dev.clone(),
            host: args.host.clone(),
            pid: args.pid.clone(),
            comm: args.comm.clone(),
            errno: args.errno.clone(),
            told: args.told.iter().copied().map(told).collect(),
        },
        limits: match args.all {
            true => QuestionLimits::NONE,
            false => QuestionLimits::default(),
        },
    })
}

fn told(name: ToldName) -> ToldWho {
    match name {
        ToldName::Nobody => ToldWho::Nobody,
        ToldName::Other => ToldWho::Other,
        ToldName::Caller => ToldWho::Caller,
        ToldName::Pending => ToldWho::Pending,
    }
}

fn wall(now: &Zoned) -> WallTime {
    WallTime(i64::try_from(now.timestamp().as_nanosecond()).unwrap_or(i64::MAX))
}

fn write(args: &ReportFileArgs, report: &Report) -> anyhow::Result<()> {
    match &args.out {
        Some(path) => {
            let spelled = escape(path.as_os_str().as_encoded_bytes());
            let failed = || format!("cannot write {spelled}");
            let file = File::create(path).with_context(failed)?;
            let plain = matches!(args.color, When::Auto | When::Never);
            let mut out = BufWriter::new(file);
            write_form(args.format, report, tone(!plain), &mut out).with_context(failed)?;
            out.flush().with_context(failed)
        }
        None => {
            let stdout = io::stdout();
            let tone = tone(colour(args.color, &stdout));
            let mut out = BufWriter::new(stdout.lock());
            write_form(args.format, report, tone, &mut out)
                .and_then(|()| out.flush())
                .context("cannot write to standard output")
        }
    }
}

fn tone(coloured: bool) -> Tone {
    match coloured {
        true => Tone::Coloured,
        false => Tone::Plain,
    }
}

fn write_form(form: ReportForm, report: &Report, tone: Tone, out: impl Write) -> io::Result<()> {
    match form {
        ReportForm::Text => {
            let zone = TimeZone::system();
            write_text(report, &ReportStyle { tone, zone }, out)
        }
        ReportForm::Json => write_report(report, out),
        ReportForm::Csv => write_csv(report, out),
        ReportForm::Html => write_html(report, &TimeZone::system(), out),
    }
}

/// Whether nobody reads any more: no error of ours.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_one = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(is_one)
}

/// How far it is, on a terminal, when it takes long.
pub(super) struct ProgressLine<W = io::Stderr> {
    began: Instant,
    shown: Option<Instant>,
    /// A terminal, if there is one.
    out: Option<W>,
}

impl ProgressLine {
    pub(super) fn new() -> Self {
        Self::on(Some(io::stderr()).filter(IsTerminal::is_terminal))
    }
}

impl<W: Write> ProgressLine<W> {
    /// Nothing is shown before this time is over.
    const PATIENCE: Duration = Duration::from_secs(2);
    const PACE: Duration = Duration::from_millis(200);
    const WIDTH: u64 = 30;

    fn on(out: Option<W>) -> Self {
        Self {
            began: Instant::now(),
            shown: None,
            out,
        }
    }

    pub(super) fn show(&mut self, at: Progress) {
        let Some(out) = &mut self.out else {
            return;
        };
        let last = self.shown.unwrap_or(self.began);
        let pace = self.shown.map_or(Self::PATIENCE, |_| Self::PACE);
        if last.elapsed() < pace {
            return;
        }
        self.shown = Some(Instant::now());
        let (facts, of) = (at.facts.min(at.of), at.of.max(1));
        let full = facts.saturating_mul(Self::WIDTH) / of;
        let bar: String = (0..Self::WIDTH)
            .map(|nth| if nth < full { '#' } else { '.' })
            .collect();
        let percent = facts.saturating_mul(100) / of;
        // Nobody to tell if it is closed.
        let _ = write!(out, "\r[{bar}] {percent:>3} % of {of} facts");
    }

    pub(super) fn clear(&mut self) {
        if let (Some(out), Some(_)) = (&mut self.out, self.shown.take()) {
            let _ = write!(out, "\r{:70}\r", "");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_shown_when_it_takes_long_and_wiped_away_afterwards() {
        let mut line = ProgressLine::on(Some(Vec::new()));
        let half = Progress { facts: 5, of: 10 };
        line.show(half);
        line.clear();
        assert_eq!(line.out.as_deref(), Some(&b""[..]), "too early");
        line.began -= ProgressLine::<Vec<u8>>::PATIENCE;
        line.show(half);
        line.show(Progress { facts: 9, of: 10 });
        let bar = format!("\r[{}{}]  50 % of 10 facts", "#".repeat(15), ".".repeat(15));
        let said = String::from_utf8(line.out.clone().unwrap()).unwrap();
        assert_eq!(said, bar, "once, not for every batch of facts");
        line.clear();
        let said = String::from_utf8(line.out.clone().unwrap()).unwrap();
        let wiped = said.rsplit('\r').nth(1).unwrap();
        assert!(wiped.len() >= bar.len() - 1 && wiped.trim().is_empty());
        assert!(said.ends_with('\r'));
    }

    #[test]
    fn without_a_terminal_there_is_no_progress() {
        let mut line = ProgressLine::<Vec<u8>>::on(None);
        line.began -= ProgressLine::<Vec<u8>>::PATIENCE;
        line.show(Progress { facts: 5, of: 10 });
        line.clear();
        assert_eq!(line.out, None);
    }
}
