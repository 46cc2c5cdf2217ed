//! Page by page: what memory has, what the disk has, and whether that is the same.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{
    memory::{Cached, Dirtiness, page_size},
    sight::Sight,
    target::{Obstacle, Target},
};
use crate::{
    model::{ByteRange, Verified},
    schema::Comparison,
};

/// Whether a page is in the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InCache {
    /// Yes, and the kernel is done with it: if these bytes are not on the disk, they never will be.
    Clean,
    /// Yes, and the kernel is still going to write it: not lost.
    Dirty,
    /// No.
    No,
    /// It could not be known.
    Unknown,
}

/// What the disk has in the place of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDisk {
    /// The same bytes as memory.
    Same,
    /// Other bytes.
    Differs,
    /// It could not be compared.
    Unknown,
}

/// Pages next to each other that are in the same state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pages {
    /// Their bytes, as far as the file has them.
    #[serde(flatten)]
    pub range: ByteRange,
    /// Whether memory has them.
    pub in_cache: InCache,
    /// Whether the disk has the same.
    pub on_disk: OnDisk,
    /// Why something is unknown.
    pub reason: Option<String>,
}

/// Up to so many bytes are looked at together.
const WINDOW: u64 = 1 << 20;

/// What is to be looked at, and how long.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Which bytes; cut at the end of the file.
    pub ranges: Vec<ByteRange>,
    /// So many of them at most.
    pub max_bytes: u64,
    /// Not after this time.
    pub until: Option<Instant>,
}

/// Takes what was looked at, piece by piece in the order of the file.
pub trait Keep {
    /// Pages in one state with what memory and the disk have; what is not known is zeros.
    fn keep(&mut self, pages: &Pages, memory: &[u8], disk: &[u8]);
}

/// Keeps nothing.
impl Keep for () {
    fn keep(&mut self, _pages: &Pages, _memory: &[u8], _disk: &[u8]) {}
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// All pages that were asked for, in the order of the file.
    pub pages: Vec<Pages>,
    /// Length of the file, in bytes.
    pub size: u64,
}

impl Findings {
    /// Bytes in pages for which that is so.
    pub fn bytes(&self, is_so: impl Fn(&Pages) -> bool) -> u64 {
        let pages = self.pages.iter().filter(|pages| is_so(pages));
        pages.map(|pages| pages.range.len()).sum()
    }

    /// How much was compared.
    #[must_use]
    pub fn comparison(&self) -> Comparison {
        let is = |on_disk: OnDisk| move |pages: &Pages| pages.on_disk == on_disk;
        let unknown = self
            .pages
            .iter()
            .find(|pages| pages.on_disk == OnDisk::Unknown);
        Comparison {
            same_bytes: self.bytes(is(OnDisk::Same)),
            differing_bytes: self.bytes(is(OnDisk::Differs)),
            unknown_bytes: self.bytes(is(OnDisk::Unknown)),
            reason: unknown.map(|pages| match (&pages.reason, pages.in_cache) {
                (Some(reason), _) => reason.clone(),
                (None, InCache::No) => "not in memory any more".to_owned(),
                (None, _) => "not compared".to_owned(),
            }),
        }
    }

    /// What is proven about bytes that were lost: one page that differs is enough; that nothing
    /// was lost takes all of them.
    #[must_use]
    pub fn verified(&self) -> Verified {
        let comparison = self.comparison();
        match comparison {
            Comparison {
                differing_bytes: 1..,
                ..
            } => Verified::Differs,
            Comparison {
                same_bytes: 1..,
                unknown_bytes: 0,
                ..
            } => Verified::Same,
            _ => Verified::Unknown,
        }
    }

    fn push(&mut self, pages: &Pages) {
        if let Some(last) = self.pages.last_mut()
            && last.range.end() == pages.range.start()
            && (last.in_cache, last.on_disk) == (pages.in_cache, pages.on_disk)
            && last.reason == pages.reason
            && let Some(range) = ByteRange::new(last.range.start(), pages.range.end())
        {
            last.range = range;
            return;
        }
        self.pages.push(pages.clone());
    }
}

/// Looks at the file. Tells `keep` what it saw, and `progress` how many bytes are done.
///
/// # Errors
/// If the file cannot be looked at at all.
pub fn examine(
    target: &Target,
    scope: &Scope,
    keep: &mut dyn Keep,
    progress: &mut dyn FnMut(u64),
) -> Result<Findings, Obstacle> {
    let size = target.size();
    let mut findings = Findings {
        size,
        ..Findings::default()
    };
    let whole = ByteRange::new(0, size);
    let mut done = 0;
    for range in whole_pages(&scope.ranges) {
        let Some(range) = whole.and_then(|whole| whole.intersect(range)) else {
            continue;
        };
        for window in windows(range) {
            let is_late = scope.until.is_some_and(|until| Instant::now() >= until);
            let left_out = match (done >= scope.max_bytes, is_late) {
                (true, _) => Some("not looked at: enough bytes for once"),
                (_, true) => Some("not looked at in time"),
                (false, false) => None,
            };
            match left_out {
                Some(why) => findings.push(&unknown(window, why)),
                None => look(target, window, keep, &mut findings)?,
            }
            done += window.len();
            progress(done);
        }
    }
    Ok(findings)
}

/// Sorted and apart from each other, from the beginning of a page to the end of one.
pub(super) fn whole_pages(ranges: &[ByteRange]) -> Vec<ByteRange> {
    let page = page_size() as u64;
    let mut ranges = ranges.to_vec();
    ranges.sort();
    let mut out: Vec<ByteRange> = Vec::new();
    for range in ranges {
        let start = range.start() / page * page;
        let end = range.end().checked_next_multiple_of(page);
        let end = end.unwrap_or(u64::MAX);
        match out.last_mut() {
            Some(last) if last.end() >= start => {
                let joined = ByteRange::new(last.start(), end.max(last.end()));
                *last = joined.unwrap_or(*last);
            }
            _ => out.extend(ByteRange::new(start, end)),
        }
    }
    out
}

fn windows(range: ByteRange) -> impl Iterator<Item = ByteRange> {
    let starts = (range.start()..range.end()).step_by(WINDOW as usize);
    starts.filter_map(move |start| ByteRange::new(start, range.end().min(start + WINDOW)))
}

fn unknown(range: ByteRange, reason: &str) -> Pages {
    Pages {
        range,
        in_cache: InCache::Unknown,
        on_disk: OnDisk::Unknown,
        reason: Some(reason.to_owned()),
    }
}

/// Memory first, because it can go away; then the disk; then memory again, because it can change.
fn look(
    target: &Target,
    range: ByteRange,
    keep: &mut dyn Keep,
    findings: &mut Findings,
) -> Result<(), Obstacle> {
    let size = page_size();
    let pages = (range.len() as usize).div_ceil(size);
    let cannot = |error| Obstacle::new(format!("cannot look into the page cache: {error}"));
    let sight = Sight::new(target, range.start(), pages).map_err(cannot)?;
    let mut memory = vec![0; pages * size];
    let first = sight.read(&mut memory).map_err(cannot)?;
    if first.iter().all(|page| *page == Cached::Absent) {
        findings.push(&Pages {
            range,
            in_cache: InCache::No,
            on_disk: OnDisk::Unknown,
            reason: None,
        });
        return Ok(());
    }
    let dirty_before = sight.dirtiness(&first);
    let disk = target.disk.read(range);
    let mut again = vec![0; pages * size];
    let second = sight.read(&mut again).map_err(cannot)?;
    let dirty_after = sight.dirtiness(&second);
    let size_now = target.size();
    for index in 0..pages {
        let start = range.start() + (index * size) as u64;
        let Some(bytes) = ByteRange::new(start, range.end().min(start + size as u64)) else {
            continue;
        };
        let at = index * size..index * size + bytes.len() as usize;
        let page = Page {
            first: first[index],
            dirtiness: dirty_before[index].worse(dirty_after[index]),
            changed: matches!(second[index], Cached::Here | Cached::Theirs)
                && memory[at.clone()] != again[at.clone()],
            cut: size_now < bytes.end(),
            disk: disk
                .hidden
                .iter()
                .find_map(|(hidden, why)| hidden.overlaps(bytes).then_some(why.as_str())),
            same: memory[at.clone()] == disk.bytes[at.clone()],
        };
        let pages = page.judge(bytes);
        keep.keep(&pages, &memory[at.clone()], &disk.bytes[at]);
        findings.push(&pages);
    }
    Ok(())
}

/// What was seen of one page.
struct Page<'a> {
    first: Cached,
    dirtiness: Dirtiness,
    /// Its bytes in memory were others after the disk was read.
    changed: bool,
    /// The file has become shorter meanwhile.
    cut: bool,
    /// Why the disk could not be read.
    disk: Option<&'a str>,
    same: bool,
}

impl Page<'_> {
    fn judge(&self, range: ByteRange) -> Pages {
        let state = |in_cache, on_disk, reason: Option<&str>| Pages {
            range,
            in_cache,
            on_disk,
            reason: reason.map(str::to_owned),
        };
        use InCache::{Clean, Dirty, No};
        use OnDisk::{Differs, Same};
        match (self.first, self.dirtiness) {
            (Cached::Absent, _) => state(No, OnDisk::Unknown, None),
            (Cached::Unseen, _) => unknown(
                range,
                "no program has it in its page table, and opening the file would drop it",
            ),
            (Cached::Slipped, _) => unknown(range, "it left memory while it was read"),
            _ if self.cut => unknown(range, "the file became shorter meanwhile"),
            (_, Dirtiness::Dirty) => state(
                Dirty,
                OnDisk::Unknown,
                Some("dirty: the kernel is going to write it"),
            ),
            (_, Dirtiness::Unknown) => state(
                InCache::Unknown,
                OnDisk::Unknown,
                Some("whether it is dirty is not known: that takes root, or Linux 6.5"),
            ),
            _ if self.changed => state(Clean, OnDisk::Unknown, Some("it changed meanwhile")),
            _ if self.disk.is_some() => state(Clean, OnDisk::Unknown, self.disk),
            _ if self.same => state(Clean, Same, None),
            _ => state(Clean, Differs, None),
        }
    }
}
