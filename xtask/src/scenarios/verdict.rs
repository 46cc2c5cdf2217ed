//! Compares what the disk has with what the scenario expects and with what the tool said.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::page::Stamp;
use super::tool::{self, Place, Report, Saved};
use super::volume::Volume;
use super::world::{Claim, Point, StorageClaim, Truth};

/// What the disk lost at a point, and the tool has to report.
pub struct Loss {
    to: LiedTo,
    /// The story waited for its incident, so that memory still had the bytes.
    waited_for: bool,
    path: PathBuf,
    /// Where the file is mounted and on which device, as a program sees it; `None` where it sees
    /// something else than the volume.
    place: Option<Place>,
    /// Pages.
    lost: BTreeSet<u64>,
    /// Pages whose last write failed.
    refused: BTreeSet<u64>,
    /// What programs had stored.
    stored: BTreeMap<u64, Stamp>,
}

/// Whose call gave success.
enum LiedTo {
    /// A program's.
    Program(Claim),
    /// The NFS server's, on its own disk.
    Server,
}

impl Loss {
    fn at(volume: &Volume, point: &Point, claim: &Claim, lost: BTreeSet<u64>) -> Self {
        Self {
            to: LiedTo::Program(claim.clone()),
            waited_for: point.truth.incident().is_some(),
            path: point.path.clone(),
            place: Place::of(volume).filter(|_| point.path == point.on_disk),
            lost,
            refused: point.refused_pages(volume),
            stored: point.stored(),
        }
    }
}

/// Whether a server has to be among those that were lied to.
pub fn any_at_server(losses: &[Loss]) -> bool {
    let at_server = |loss: &Loss| matches!(loss.to, LiedTo::Server);
    losses.iter().any(at_server)
}

/// What the tool has to report of a scenario; `None`: nothing is asked of it.
pub type Losses = Option<Vec<Loss>>;

/// Reads the disk. An error says what is wrong: a loss that did not happen proves nothing.
pub fn read_the_disk(
    volume: &mut Volume,
    points: &[Point],
    notes: &mut Vec<String>,
) -> Result<Losses> {
    ensure!(!points.is_empty(), "the scenario proved nothing");
    let mut losses = Vec::new();
    for point in points {
        let lost = point.lost_pages(volume)?;
        notes.push(format!(
            "{}: lost on the disk: {}",
            point.truth.file(),
            list(&lost)
        ));
        match &point.truth {
            Truth::Lost(claim) => {
                ensure!(
                    !lost.is_empty(),
                    "the loss did not happen: {} is complete",
                    claim.file
                );
                if let Some(expected) = &claim.lost {
                    let expected = expected.clone().collect();
                    ensure!(
                        lost == expected,
                        "the disk lost pages {}, expected {}",
                        list(&lost),
                        list(&expected)
                    );
                }
                losses.push(Loss::at(volume, point, claim, lost));
            }
            Truth::AsTheDiskSays(claim) if lost.is_empty() => {
                notes.push(format!("{}: nothing lost here", claim.file));
            }
            Truth::AsTheDiskSays(claim) => losses.push(Loss::at(volume, point, claim, lost)),
            Truth::OutOfSight(file) => {
                ensure!(
                    !lost.is_empty(),
                    "the loss did not happen: {file} is complete"
                );
                notes.push(format!("{file}: out of sight, see docs/limits.md"));
                return Ok(None);
            }
            Truth::ServerLied {
                file,
                lost: expected,
            } => {
                let expected: BTreeSet<u64> = expected.clone().collect();
                ensure!(
                    lost == expected,
                    "the server's disk lost pages {} of {file}, expected {}",
                    list(&lost),
                    list(&expected)
                );
                losses.push(Loss {
                    to: LiedTo::Server,
                    waited_for: false,
                    path: volume.on_server(&point.path)?,
                    place: None,
                    lost,
                    refused: point.refused_pages(volume),
                    stored: point.stored(),
                });
            }
            Truth::LostWithoutPromise(file) => {
                ensure!(
                    !lost.is_empty(),
                    "the loss did not happen: {file} is complete"
                );
            }
            Truth::Kept(file) => {
                ensure!(lost.is_empty(), "{file} lost pages {}", list(&lost));
            }
        }
    }
    Ok(Some(losses))
}

/// Holds the tool's incidents of a scenario to what the disk said.
pub fn hold_to_account(
    volume: &Volume,
    losses: &[Loss],
    incidents: &[Value],
    notes: &mut Vec<String>,
) -> Result<()> {
    let mut expected = 0;
    for loss in losses {
        let about = loss.incidents(volume, incidents)?;
        for incident in &about {
            let wrong = loss.differences(volume, incident);
            ensure!(wrong.is_empty(), "{}", wrong.join("; "));
            if loss.has_ranges(volume) {
                loss.hold_pages_to_account(incident, notes)?;
            }
        }
        expected += about.len();
    }
    ensure!(
        incidents.len() == expected,
        "{} incidents, expected {expected}: {}",
        incidents.len(),
        serde_json::to_string(incidents)?
    );
    Ok(())
}

/// Where the machine is too busy to compare before an incident has to be shown.
const BUSY: &[&str] = &[
    "the comparison took too long",
    "there was no time to compare",
    "not looked at in time",
];
/// Then nothing is proven, but what memory has is saved.
const NO_ANSWER: &[&str] = &["the disk did not answer in 1 s"];

/// Holds the tool to what it proved by comparing memory with the disk: never that lost bytes are
/// there, and that they are not, where memory still had them. `excuses`: why it may not know.
pub fn hold_to_proof(
    volume: &Volume,
    losses: &[Loss],
    incidents: &[Value],
    excuses: &[&str],
    notes: &mut Vec<String>,
) -> Result<()> {
    for loss in losses {
        for incident in loss.incidents(volume, incidents)? {
            let verified = &incident["verified"];
            let reason = &incident["comparison"]["reason"];
            notes.push(format!("verified: {verified} {reason}"));
            ensure!(
                verified == "differs" || verified == "unknown",
                "verified is {verified} of lost pages {}: {incident}",
                list(&loss.lost)
            );
            let mut excuses = excuses.iter().chain(BUSY).chain(NO_ANSWER);
            let excused = excuses.any(|excuse| reason == excuse);
            let provable =
                loss.waited_for && volume.kind.shows_lost_bytes() && incident["in_memory"] != "no";
            ensure!(
                !provable || excused || verified == "differs",
                "verified is {verified} of bytes that memory has: {incident}"
            );
        }
    }
    Ok(())
}

/// Holds the tool to what it saved: lost bytes as the program had stored them, and nothing else in
/// their place. See [`hold_to_proof`].
pub fn hold_to_rescue(
    volume: &Volume,
    losses: &[Loss],
    incidents: &[Value],
    saved: &[Saved],
    excuses: &[&str],
    notes: &mut Vec<String>,
) -> Result<()> {
    // The program stores again before all is saved.
    let goes_on = excuses.contains(&"it changed meanwhile");
    for loss in losses {
        for incident in loss.incidents(volume, incidents)? {
            let reason = &incident["comparison"]["reason"];
            let mut excuses = excuses.iter().chain(BUSY);
            let excused = !loss.waited_for || goes_on || excuses.any(|excuse| reason == excuse);
            let about = |saved: &&Saved| saved.manifest["incident"] == incident["incident"];
            let (mut right, mut wrong) = (BTreeSet::new(), BTreeSet::new());
            for (page, bytes) in saved.iter().filter(about).flat_map(|saved| {
                let pages = loss.lost.iter();
                pages.filter_map(|page| Some((*page, saved.page(*page)?)))
            }) {
                match loss
                    .stored
                    .get(&page)
                    .is_some_and(|stamp| stamp.bytes(page) == bytes)
                {
                    true => right.insert(page),
                    false => wrong.insert(page),
                };
            }
            notes.push(format!("saved of the lost pages: {}", list(&right)));
            ensure!(
                wrong.is_empty() || excused,
                "saved, but not what was stored in pages {}: {incident}",
                list(&wrong)
            );
            let expected = volume.kind.can_be_saved() && incident["in_memory"] != "no";
            ensure!(
                !expected || excused || right == loss.lost,
                "memory has lost pages {}, but only {} were saved: {incident}",
                list(&loss.lost),
                list(&right)
            );
        }
    }
    Ok(())
}

impl Loss {
    /// The incidents about it: one, or of the server's threads one or more.
    fn incidents<'a>(&self, volume: &Volume, all: &'a [Value]) -> Result<Vec<&'a Value>> {
        let about: Vec<&Value> = all
            .iter()
            .filter(|incident| match &self.to {
                LiedTo::Program(claim) => tool::is_about(incident, claim),
                LiedTo::Server => incident["file"]["fs_type"] == volume.kind.disk_type(),
            })
            .collect();
        match &self.to {
            LiedTo::Program(claim) => ensure!(
                about.len() == 1,
                "{} incidents about this {} of {} by {}, expected 1 (told {:?}, lost {}); all: {}",
                about.len(),
                claim.call,
                claim.file,
                claim.outcome.pid,
                claim.told,
                list(&self.lost),
                serde_json::to_string(all)?
            ),
            LiedTo::Server => ensure!(
                !about.is_empty(),
                "no incident about the server's fsync (lost {}); all: {}",
                list(&self.lost),
                serde_json::to_string(all)?
            ),
        }
        Ok(about)
    }

    fn has_ranges(&self, volume: &Volume) -> bool {
        match &self.to {
            LiedTo::Program(claim) => volume.sight.ranges && claim.exact,
            // Of the disk, not of what is between it and the programs.
            LiedTo::Server => true,
        }
    }

    fn differences(&self, volume: &Volume, incident: &Value) -> Vec<String> {
        let mut wrong = match &self.to {
            LiedTo::Program(claim) => {
                tool::differences(incident, claim, &self.path, volume.kind.fs_type())
            }
            LiedTo::Server => {
                tool::differences_at_server(incident, &self.path, volume.kind.disk_type())
            }
        };
        wrong.extend(
            self.place
                .iter()
                .flat_map(|place| tool::other_place(incident, place)),
        );
        wrong.extend(tool::other_evidence(incident, self.has_ranges(volume)));
        wrong
    }

    fn hold_pages_to_account(&self, incident: &Value, notes: &mut Vec<String>) -> Result<()> {
        let named = tool::pages(incident);
        let missing: BTreeSet<u64> = &self.lost - &named;
        let on_disk: BTreeSet<u64> = &named - &self.lost;
        ensure!(
            missing.is_empty(),
            "lost but not named: pages {}",
            list(&missing)
        );
        let known_better: BTreeSet<u64> = &on_disk - &self.refused;
        ensure!(
            known_better.is_empty(),
            "named, but on the disk and not part of a failed request: pages {}",
            list(&known_better)
        );
        if !on_disk.is_empty() {
            notes.push(format!(
                "on the disk, but part of a failed request: {}",
                list(&on_disk)
            ));
        }
        Ok(())
    }
}

/// Holds the tool to what befell disks and filesystems.
pub fn hold_to_storage_errors(report: &Report, claims: &[StorageClaim]) -> Result<()> {
    for claim in claims {
        let about = |record: &&Value| tool::is_about_storage(record, claim);
        ensure!(
            report.storage_errors.iter().any(|record| about(&record)),
            "nothing was said of this: {claim:?}; said: {}",
            serde_json::to_string(&report.storage_errors)?
        );
    }
    Ok(())
}

/// No flush is said to have failed that the disk took. `claims`: of the whole run.
pub fn no_flush_invented(report: &Report, claims: &[StorageClaim]) -> Result<()> {
    let invented = report.storage_errors.iter().find(|record| {
        let claimed = |claim| tool::is_about_storage(record, claim);
        record["what"] == "flush_failed" && !claims.iter().any(claimed)
    });
    ensure!(
        invented.is_none(),
        "no flush failed, but the tool said: {invented:?}"
    );
    Ok(())
}

/// A run of the tool ends as its verdict says.
pub fn exit_status(report: &Report, any_loss: bool) -> Result<()> {
    let expected = match (any_loss, report.stop["complete"] == true) {
        (true, _) => 1,
        (false, true) => 0,
        (false, false) => 3,
    };
    ensure!(
        report.status == Some(expected),
        "exit status {:?}, expected {expected}",
        report.status
    );
    Ok(())
}

/// `4-7,9`
pub fn list(pages: &BTreeSet<u64>) -> String {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *page => *last = *page,
            _ => runs.push((*page, *page)),
        }
    }
    let runs: Vec<String> = runs
        .into_iter()
        .map(|(first, last)| {
            if first == last {
                format!("{first}")
            } else {
                format!("{first}-{last}")
            }
        })
        .collect();
    if runs.is_empty() {
        "none".to_owned()
    } else {
        runs.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_listed_as_runs() {
        assert_eq!(list(&BTreeSet::new()), "none");
        assert_eq!(list(&BTreeSet::from([4, 5, 6, 9])), "4-6,9");
    }
}
