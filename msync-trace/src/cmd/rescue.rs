//! `msync-trace rescue`: what memory still has of lost bytes, what the disk has in their place, and,
//! if asked for, both saved.

mod evidence;
mod show;

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use super::{Exit, complain, verify_worker::choice};
use crate::{
    cli::{Form, RescueArgs},
    enrich::{look_at_clocks, machine},
    model::{ByteRange, IncidentId, Verified},
    output::escape,
    rescue::{
        Choice, Findings, Keep, MANIFEST, Manifest, Obstacle, RescuedFile, Saver, Scope, Target,
        Vault, examine,
    },
    schema::{Name, spell_dev},
};
use evidence::Evidence;

/// The whole command, from its arguments to the exit status.
#[must_use]
pub fn main(args: &RescueArgs) -> Exit {
    super::log_to_stderr(false, 0);
    try_main(args).unwrap_or_else(|error| {
        complain(&error);
        Exit::Error
    })
}

/// The process that compares for `trace --verify`.
#[must_use]
pub fn worker() -> Exit {
    super::verify_worker::main()
}

/// How long a disk may take for a mebibyte before it is taken for one that hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is to be rescued.
struct Subject {
    target: Target,
    path: Option<Name>,
    incident: Option<IncidentId>,
    ranges: Vec<ByteRange>,
    /// What of it is worth saving.
    choice: Choice,
}

fn try_main(args: &RescueArgs) -> anyhow::Result<Exit> {
    let subject = subject(args)?;
    let vault = args.out.as_deref().map(Vault::at).transpose()?;
    if let Some(vault) = &vault {
        vault.refuse_same_filesystem(&subject.target)?;
        if let Some(warning) = vault.warning(&subject.target) {
            say(&format!("warning: {warning}"));
        }
    }
    let mut manifest = describe(args, &subject);
    let mut saver = match &vault {
        Some(vault) => Some(saver(args, &subject, &manifest, vault)?),
        None => None,
    };
    let scope = Scope {
        ranges: subject.ranges.clone(),
        max_bytes: u64::MAX,
        until: None,
    };
    let mut progress = Progress::new();
    let mut nothing = ();
    let keep: &mut dyn Keep = match &mut saver {
        Some(saver) => saver,
        None => &mut nothing,
    };
    let findings = examine(&subject.target, &scope, keep, &mut |done| {
        progress.at(done);
    });
    progress.end();
    let findings = findings?;
    complete(&mut manifest, &findings);
    let directory = saver.as_ref().map(|saver| saver.directory().to_owned());
    if let Some(saver) = saver {
        manifest = saver.finish(manifest)?;
    }
    let shown = match args.output {
        Form::Json => show::json(&manifest),
        Form::Text => show::text(&manifest, directory.as_deref()),
    };
    match shown {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(exit(&manifest)),
    }
}

/// The contract with scripts.
fn exit(manifest: &Manifest) -> Exit {
    match manifest.verified {
        Verified::Differs => Exit::Found,
        Verified::Same => Exit::Nothing,
        Verified::Unknown => Exit::Incomplete,
    }
}

fn subject(args: &RescueArgs) -> anyhow::Result<Subject> {
    let evidence = args.record.as_deref().map(Evidence::read).transpose()?;
    let subject = match (&args.file, args.incident, evidence) {
        (_, Some(name), Some(evidence)) => {
            let incident = evidence.incident(name)?;
            let (target, why) = (
                evidence.target(incident, PATIENCE),
                "the file of this incident",
            );
            Subject {
                target: target.map_err(|error| in_words(why, &error))?.asking_all(),
                path: incident.file.path.clone(),
                incident: Some(incident.incident),
                ranges: match incident.ranges.is_empty() {
                    true => vec![ByteRange::ALL],
                    false => incident.ranges.clone(),
                },
                choice: match evidence.left_memory(incident) {
                    true => Choice::Differing,
                    false => choice(incident),
                },
            }
        }
        (Some(path), _, evidence) => {
            let name = Name::from(path.as_os_str().as_encoded_bytes());
            let target = Target::at(path, PATIENCE)
                .map_err(|error| in_words(&escape(&name.0), &error))?
                .asking_all();
            let ranges = match &evidence {
                Some(evidence) => evidence.outstanding(target.key())?,
                None => vec![ByteRange::ALL],
            };
            Subject {
                target,
                path: Some(name),
                incident: None,
                ranges,
                // Nobody says that these bytes were lost.
                choice: match evidence {
                    Some(_) => Choice::All,
                    None => Choice::Differing,
                },
            }
        }
        _ => anyhow::bail!("give --file PATH, or --incident ID with --record FILE"),
    };
    Ok(narrow(subject, &args.range))
}

fn in_words(what: &str, error: &Obstacle) -> anyhow::Error {
    anyhow::anyhow!("{what}: {error}")
}

/// To the ranges that were asked for.
fn narrow(mut subject: Subject, asked: &[ByteRange]) -> Subject {
    if asked.is_empty() {
        return subject;
    }
    let both = |range: &ByteRange| {
        let range = *range;
        asked.iter().filter_map(move |asked| asked.intersect(range))
    };
    subject.ranges = subject.ranges.iter().flat_map(both).collect();
    if subject.incident.is_none() {
        subject.choice = Choice::All;
    }
    subject
}

fn saver(
    args: &RescueArgs,
    subject: &Subject,
    manifest: &Manifest,
    vault: &Vault,
) -> Result<Saver, Obstacle> {
    let name = directory_name(manifest);
    Saver::new(vault, &name, subject.choice, args.max.unwrap_or(u64::MAX))
}

/// `20261120T120002Z-incident-3-inode-12`
pub(super) fn directory_name(manifest: &Manifest) -> String {
    let time = manifest.time.timestamp().strftime("%Y%m%dT%H%M%SZ");
    let incident = manifest
        .incident
        .map_or_else(String::new, |id| format!("-incident-{}", id.0));
    format!("{time}{incident}-inode-{}", manifest.file.inode.ino)
}

fn describe(args: &RescueArgs, subject: &Subject) -> Manifest {
    Manifest {
        incident: subject.incident,
        record: args
            .record
            .as_ref()
            .map(|record| record.to_string_lossy().into_owned()),
        ranges: subject.ranges.clone(),
        ..manifest_of(&subject.target, subject.path.as_ref())
    }
}

/// What is known of a file before it is looked at.
pub(super) fn manifest_of(target: &Target, path: Option<&Name>) -> Manifest {
    let machine = machine();
    Manifest {
        schema: MANIFEST,
        kind: "rescue".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        time: look_at_clocks().1,
        host: machine.host,
        boot_id: machine.boot_id,
        kernel: machine.kernel.release,
        incident: None,
        record: None,
        file: RescuedFile {
            path: path.map(|name| name.lossy().into_owned()),
            path_bytes: path.and_then(Name::percent),
            inode: target.key(),
            dev: spell_dev(target.dev()),
            size: 0,
        },
        page_size: rustix::param::page_size() as u64,
        ranges: Vec::new(),
        pages: Vec::new(),
        verified: Verified::Unknown,
        comparison: crate::schema::Comparison::default(),
        saved: Vec::new(),
        not_saved: None,
    }
}

/// Adds what was found.
pub(super) fn complete(manifest: &mut Manifest, findings: &Findings) {
    manifest.file.size = findings.size;
    manifest.pages.clone_from(&findings.pages);
    manifest.verified = findings.verified();
    manifest.comparison = findings.comparison();
}

/// Nobody to tell if standard error is closed.
fn say(message: &str) {
    let _ = writeln!(io::stderr(), "msync-trace: {}", escape(message.as_bytes()));
}

/// How far it is, for people who wait.
struct Progress {
    /// When to tell next; `None`: nobody sees it.
    next: Option<Instant>,
    told: bool,
}

impl Progress {
    fn new() -> Self {
        let is_seen = io::stderr().is_terminal();
        Self {
            next: is_seen.then(|| Instant::now() + Duration::from_secs(2)),
            told: false,
        }
    }

    fn at(&mut self, done: u64) {
        let now = Instant::now();
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        self.next = Some(now + Duration::from_millis(200));
        self.told = true;
        let _ = write!(io::stderr(), "\r{} MiB looked at", done >> 20);
    }

    fn end(&self) {
        if self.told {
            let _ = writeln!(io::stderr());
        }
    }
}
