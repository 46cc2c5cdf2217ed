//! What was recorded, as far as `rescue` needs it: incidents, what became of them, and on which
//! machine that was.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead, BufReader, Read, Seek},
    path::Path,
    time::Duration,
};

use anyhow::Context;

use crate::{
    cli::IncidentName,
    enrich::machine,
    model::{ByteRange, ChangeKind, Discarded, FactKind, Gone, IncidentId, InodeKey, WriteOk},
    output::escape,
    rescue::{Obstacle, Target},
    schema::{Body, IncidentRecord, from_line},
    store::{Reader, StoreError},
};

/// One run that was recorded.
#[derive(Debug, Default)]
struct Run {
    host: Option<String>,
    boot_id: Option<String>,
    incidents: BTreeMap<IncidentId, IncidentRecord>,
    /// Recovered or given up on purpose: of interest only if asked for by its number.
    settled: BTreeSet<IncidentId>,
    /// None of its bytes is in memory any more.
    evicted: BTreeSet<IncidentId>,
    /// What is still lost of each file, by the facts, where they are known.
    lost: Option<BTreeMap<InodeKey, Vec<ByteRange>>>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Evidence {
    name: String,
    runs: Vec<Run>,
}

/// What a SQLite database begins with.
const SQLITE: &[u8] = b"SQLite format 3\0";

impl Evidence {
    /// Reads it.
    ///
    /// # Errors
    /// If it is no record, or cannot be read.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let name = escape(path.as_os_str().as_encoded_bytes());
        let mut file = File::open(path).with_context(|| format!("cannot read {name}"))?;
        let mut begin = Vec::new();
        file.by_ref()
            .take(SQLITE.len() as u64)
            .read_to_end(&mut begin)
            .with_context(|| format!("cannot read {name}"))?;
        if begin == SQLITE {
            let runs = database(path)?;
            return Ok(Self { name, runs });
        }
        file.rewind()
            .with_context(|| format!("cannot read {name}"))?;
        let runs = json_lines(BufReader::new(file))
            .with_context(|| format!("{name} is not what `trace -o json` or `record` writes"))?;
        Ok(Self { name, runs })
    }

    /// The incident with this number.
    ///
    /// # Errors
    /// If there is none, or it was on another machine or before it was started last: memory has
    /// nothing of it.
    pub(super) fn incident(&self, wanted: IncidentName) -> anyhow::Result<&IncidentRecord> {
        let index = match wanted.run {
            Some(run) => usize::try_from(run - 1).ok(),
            None => self.runs.len().checked_sub(1),
        };
        let run = index.and_then(|index| self.runs.get(index));
        let run = run.with_context(|| format!("{} holds no such run", self.name))?;
        let incident = run.incidents.get(&IncidentId(wanted.incident));
        let incident = incident.with_context(|| {
            format!(
                "{} holds no incident {} in this run (it has {})",
                self.name,
                wanted.incident,
                run.incidents.len()
            )
        })?;
        run.is_ours()?;
        Ok(incident)
    }

    /// The file of an incident, by its identity.
    ///
    /// # Errors
    /// See [`Target::of`].
    pub(super) fn target(
        &self,
        incident: &IncidentRecord,
        patience: Duration,
    ) -> Result<Target, Obstacle> {
        let process = incident.process.task.process;
        Target::of(
            incident.file.inode,
            incident.file.dev,
            Some(process),
            patience,
        )
    }

    /// Whether the lost bytes of an incident have left memory since: what is there now was read from
    /// the disk.
    pub(super) fn left_memory(&self, incident: &IncidentRecord) -> bool {
        let has = |run: &Run| run.incidents.get(&incident.incident) == Some(incident);
        let run = self.runs.iter().find(|run| has(run));
        run.is_some_and(|run| run.evicted.contains(&incident.incident))
    }

    /// The bytes of a file that were lost, and neither recovered nor given up since, in all runs of
    /// this boot.
    ///
    /// # Errors
    /// If nothing of it was lost.
    pub(super) fn outstanding(&self, file: InodeKey) -> anyhow::Result<Vec<ByteRange>> {
        let ranges: Vec<ByteRange> = self
            .runs
            .iter()
            .filter(|run| run.is_ours().is_ok())
            .flat_map(|run| run.outstanding(file))
            .collect();
        match ranges.is_empty() {
            false => Ok(ranges),
            true => anyhow::bail!(
                "{} knows of no bytes of this file (inode {file}) that are still lost, on this \
                 machine and since it was started last; without --record the whole file is \
                 looked at",
                self.name
            ),
        }
    }
}

impl Run {
    fn is_ours(&self) -> anyhow::Result<()> {
        let here = machine();
        if self.host.is_some() && self.host != here.host {
            anyhow::bail!(
                "that was on {}, and this is {}: memory has nothing of it here",
                escape(self.host.clone().unwrap_or_default().as_bytes()),
                escape(here.host.unwrap_or_default().as_bytes()),
            );
        }
        if self.boot_id != here.boot_id {
            anyhow::bail!(
                "this machine was started anew since then: what was only in memory is gone"
            );
        }
        Ok(())
    }

    fn outstanding(&self, file: InodeKey) -> Vec<ByteRange> {
        if let Some(lost) = &self.lost {
            return lost.get(&file).cloned().unwrap_or_default();
        }
        let incidents = self.incidents.values().filter(|incident| {
            incident.file.inode == file && !self.settled.contains(&incident.incident)
        });
        incidents
            .flat_map(|incident| match incident.ranges.is_empty() {
                true => vec![ByteRange::ALL],
                false => incident.ranges.clone(),
            })
            .collect()
    }

    /// Facts know more than incidents: also what was lost and not yet lied about, and which part of
    /// it was written after all.
    fn fact(&mut self, kind: &FactKind) {
        let lost = self.lost.get_or_insert_default();
        match kind {
            FactKind::WriteFailed(failed) => {
                let range = failed.range.unwrap_or(ByteRange::ALL);
                lost.entry(failed.inode).or_default().push(range);
            }
            FactKind::WriteOk(WriteOk { inode, range })
            | FactKind::Discarded(Discarded { inode, range }) => {
                if let Some(ranges) = lost.get_mut(inode) {
                    *ranges = ranges
                        .iter()
                        .flat_map(|lost| without(*lost, *range))
                        .collect();
                }
            }
            FactKind::Gone(Gone {
                inode,
                deleted: true,
            }) => {
                lost.remove(inode);
            }
            _ => {}
        }
    }

    fn take(&mut self, body: Body) {
        match body {
            Body::Incident(incident) => {
                self.incidents.insert(incident.incident, *incident);
            }
            Body::Change(change) => match change.change {
                ChangeKind::Recovered | ChangeKind::Discarded => {
                    self.settled.insert(change.incident);
                }
                ChangeKind::Evicted => {
                    self.evicted.insert(change.incident);
                }
                ChangeKind::Repeated { .. } => {}
            },
            _ => {}
        }
    }
}

/// The parts of a range that are not in the other.
fn without(range: ByteRange, other: ByteRange) -> impl Iterator<Item = ByteRange> {
    let before = ByteRange::new(range.start(), range.end().min(other.start()));
    let after = ByteRange::new(range.start().max(other.end()), range.end());
    before.into_iter().chain(after)
}

/// What `record` keeps.
fn database(path: &Path) -> Result<Vec<Run>, StoreError> {
    let reader = Reader::open(path)?;
    let mut runs = Vec::new();
    for row in reader.runs()? {
        let mut run = Run {
            host: row.host.clone(),
            boot_id: row.boot_id.clone(),
            ..Run::default()
        };
        reader.incidents(row.run, |record, _| {
            run.take(record.body);
            Ok::<_, StoreError>(())
        })?;
        if run.is_ours().is_ok() {
            reader.facts(&row, |_, fact| {
                run.fact(&fact.kind);
                Ok::<_, StoreError>(())
            })?;
        }
        runs.push(run);
    }
    Ok(runs)
}

/// The last line of a run that goes on, or was killed, may be cut.
fn json_lines(lines: impl BufRead) -> anyhow::Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    let mut lines = lines.split(b'\n').enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let line = line?;
        if line.is_empty() {
            continue;
        }
        let body = match from_line(&line) {
            Ok(record) => record.body,
            Err(_) if lines.peek().is_none() && !runs.is_empty() => break,
            Err(error) => anyhow::bail!("line {}: {error}", number + 1),
        };
        match (body, runs.last_mut()) {
            (Body::Start(start), _) => runs.push(Run {
                host: start.host,
                boot_id: start.boot_id,
                ..Run::default()
            }),
            (body, Some(run)) => run.take(body),
            (_, None) => anyhow::bail!("it does not begin with the start of a run"),
        }
    }
    anyhow::ensure!(!runs.is_empty(), "it is empty");
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange::new(start, end).unwrap()
    }

    #[test]
    fn what_was_written_after_all_is_not_lost() {
        let left = |other| without(range(10, 20), other).collect::<Vec<_>>();
        assert_eq!(left(range(0, 10)), [range(10, 20)]);
        assert_eq!(left(range(20, 30)), [range(10, 20)]);
        assert_eq!(left(range(12, 15)), [range(10, 12), range(15, 20)]);
        assert_eq!(left(range(0, 15)), [range(15, 20)]);
        assert_eq!(left(range(15, 99)), [range(10, 15)]);
        assert_eq!(left(range(0, 99)), []);
    }

    #[test]
    fn a_file_that_is_no_record_is_refused_and_a_cut_last_line_is_not() {
        for bad in ["", "hello\n", "{}\n", "\n\n"] {
            assert!(json_lines(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
