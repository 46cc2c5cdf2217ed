//! Holds what msync-trace reported of a run to what the disk said.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{AddAssign, Range};

use serde_json::Value;

use super::play::Played;
use super::truth::{Excuse, Page, Point, Word};
use crate::scenarios::tool;
use crate::scenarios::verdict::list;

/// How runs went.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// msyncs that an incident was expected of.
    pub expected: usize,
    /// Those of them that it was reported of, with every page.
    pub found: usize,
    /// What was not reported, a line each.
    pub missed: Vec<String>,
    /// What should not have been reported, a line each.
    pub invented: Vec<String>,
    /// Pages that were reported and are on the disk, though their request failed.
    pub torn: usize,
    /// Pages that were reported and had been stored again, before the hooks that see this were
    /// attached.
    pub unwatched: usize,
    /// Pages that are not on the disk and were not reported, by reason.
    pub excused: BTreeMap<Excuse, usize>,
}

impl Verdict {
    /// Nothing missed, nothing invented.
    pub fn good(&self) -> bool {
        self.missed.is_empty() && self.invented.is_empty()
    }
}

impl AddAssign for Verdict {
    fn add_assign(&mut self, other: Verdict) {
        let Verdict {
            expected,
            found,
            missed,
            invented,
            torn,
            unwatched,
            excused,
        } = other;
        self.expected += expected;
        self.found += found;
        self.missed.extend(missed);
        self.invented.extend(invented);
        self.torn += torn;
        self.unwatched += unwatched;
        for (excuse, count) in excused {
            *self.excused.entry(excuse).or_default() += count;
        }
    }
}

/// A process, a file, a page of it.
type Told = (i32, usize, u64);

/// Judges one run. `incidents` are those on the scratch device.
pub fn judge(played: &Played, incidents: &[Value]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut named_before: BTreeMap<Told, Page> = BTreeMap::new();
    for (number, point) in played.points.iter().enumerate() {
        let about = incidents
            .iter()
            .filter(|i| is_about(i, point.pid, &point.time));
        let about: Vec<&Value> = about.collect();
        let named: BTreeSet<u64> = about.iter().flat_map(|i| tool::pages(i)).collect();
        let words = Words::of(point, &named_before);
        let place = format!(
            "msync {number} by {} of file {} pages {:?}",
            point.pid, point.file, point.requested
        );
        let missing: BTreeSet<u64> = &words.must - &named;
        if !words.must.is_empty() {
            verdict.expected += 1;
            verdict.found += usize::from(missing.is_empty());
        }
        if !missing.is_empty() {
            verdict.missed.push(format!("{place}: {}", list(&missing)));
        }
        // The hooks for pages are attached after the first failure: until then nobody sees that a
        // page is stored again, and the incident says that it does not know about memory.
        let unwatched = about.iter().any(|i| i["in_memory"] == "unknown");
        let mut wrong = BTreeSet::new();
        for page in &named {
            if unwatched && point.pages.get(page).is_some_and(Page::dirty_again) {
                verdict.unwatched += 1;
            } else if !words.allow(point, *page) {
                wrong.insert(*page);
            }
        }
        if !wrong.is_empty() {
            verdict.invented.push(format!("{place}: {}", list(&wrong)));
        }
        for incident in about {
            if let Some(error) = misplaced(incident, point) {
                verdict.invented.push(format!("{place}: {error}"));
            }
        }
        verdict.torn += words.torn.intersection(&named).count();
        for (page, excuse) in &words.may {
            *verdict.excused.entry(*excuse).or_default() += usize::from(!named.contains(page));
        }
        for page in named {
            if let Some(stored) = point.pages.get(&page) {
                named_before.insert((point.pid, point.file, page), stored.clone());
            }
        }
    }
    let elsewhere = incidents.iter().filter(|incident| {
        let at = incident["mono_ns"].as_u64().unwrap_or_default();
        let known = |point: &Point| is_about(incident, point.pid, &point.time);
        played.time.contains(&at) && !played.points.iter().any(known)
    });
    for incident in elsewhere {
        verdict.invented.push(format!("no such msync: {incident}"));
    }
    verdict
}

fn is_about(incident: &Value, pid: i32, time: &Range<u64>) -> bool {
    let at = incident["mono_ns"].as_u64().unwrap_or_default();
    incident["process"]["pid"].as_i64() == Some(i64::from(pid)) && time.contains(&at)
}

/// What is wrong with an incident besides its pages.
fn misplaced(incident: &Value, point: &Point) -> Option<String> {
    let ino = &incident["file"]["inode"]["ino"];
    if ino.as_u64() != Some(point.ino) {
        return Some(format!("inode {ino}, expected {}", point.ino));
    }
    let evidence = &incident["evidence"];
    (evidence != "page").then(|| format!("evidence {evidence}, expected page"))
}

/// What may be said of all pages.
#[derive(Default)]
struct Words {
    must: BTreeSet<u64>,
    may: BTreeMap<u64, Excuse>,
    torn: BTreeSet<u64>,
}

impl Words {
    fn of(point: &Point, named_before: &BTreeMap<Told, Page>) -> Words {
        let mut words = Words::default();
        for (number, page) in &point.pages {
            let before = named_before.get(&(point.pid, point.file, *number));
            let before = before.and_then(Page::newest);
            let now = page.newest();
            let word = match (point.word(*number), before) {
                // Once per process and failure.
                (_, Some(before)) if now == Some(before) => Word::MustNot,
                (Word::Must, Some((generation, _)))
                    if now.is_some_and(|(now, _)| now == generation) =>
                {
                    Word::May(Excuse::TriedAgain)
                }
                (word, _) => word,
            };
            match word {
                Word::Must => drop(words.must.insert(*number)),
                Word::May(excuse) => drop(words.may.insert(*number, excuse)),
                Word::Torn => drop(words.torn.insert(*number)),
                Word::MustNot => (),
            }
        }
        words
    }

    fn allow(&self, point: &Point, page: u64) -> bool {
        match point.pages.contains_key(&page) {
            true => {
                self.must.contains(&page)
                    || self.may.contains_key(&page)
                    || self.torn.contains(&page)
            }
            false => point.word(page) == Word::Torn,
        }
    }
}
