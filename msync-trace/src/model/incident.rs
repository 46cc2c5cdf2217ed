//! Incidents: the verdicts of the correlator.

use super::{ByteRange, Call, Errno, FileView, InodeKey, MonoTime, Task};

/// Number of an incident within its run, from 1, in the order of the facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IncidentId(pub u64);

/// A silent data-loss event: an outstanding failed range and a later successful sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Number within the run.
    pub id: IncidentId,
    /// The inode that lost bytes.
    pub inode: InodeKey,
    /// The failed bytes that were outstanding, sorted, apart from each other; empty where only
    /// the inode is known (evidence `inode`).
    pub ranges: Vec<ByteRange>,
    /// The error of the newest failure among them.
    pub errno: Errno,
    /// First failure among them.
    pub failed_at: MonoTime,
    /// Newest failure among them.
    pub last_failed_at: MonoTime,
    /// Who was running when the newest failure was noticed.
    pub writer: Option<Task>,
    /// When the false success was returned.
    pub synced_at: MonoTime,
    /// Which call lied.
    pub call: Call,
    /// The bytes that the call was asked for.
    pub requested: ByteRange,
    /// Who was lied to.
    pub task: Task,
    /// Who had been given an error before.
    pub told: ToldWho,
    /// Whether the call was asked for the lost bytes.
    pub coverage: Coverage,
    /// How exactly the lost bytes are known.
    pub evidence: Evidence,
    /// Whether memory still holds the lost bytes.
    pub in_memory: InMemory,
    /// Names of the file, the caller's view first.
    pub file: FileView,
    /// Its path in its filesystem when the newest failure among them was seen, where it is known.
    pub path_when_failed: Option<Vec<u8>>,
}

impl Incident {
    /// Lost bytes, where the ranges are known.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        (self.evidence == Evidence::Page).then(|| self.ranges.iter().map(|r| r.len()).sum())
    }
}

/// Who was given an error for the failed bytes before the incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ToldWho {
    /// Nobody.
    Nobody,
    /// Some other open file description.
    Other,
    /// This very open file description: it got the error once, asked again and got success.
    Caller,
    /// The kernel still holds the error for this open file description: not silent yet.
    Pending,
}

/// Where the lost bytes lie, seen from the range that the call was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Coverage {
    /// All of them inside it.
    Inside,
    /// Some of them inside it.
    Partly,
    /// None of them inside it.
    Outside,
}

/// How exactly the lost bytes are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Evidence {
    /// Byte ranges.
    Page,
    /// Only that some page of this inode failed.
    Inode,
}

/// Whether memory still holds the lost bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InMemory {
    /// All of them: they can still be saved by reading the file.
    Yes,
    /// Some of them.
    Partly,
    /// None: nothing can save them.
    No,
    /// Not known.
    Unknown,
}

/// What a comparison of memory with the disk says about lost bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verified {
    /// The disk has other bytes than memory: the loss is proven.
    Differs,
    /// The disk has them all, byte for byte.
    Same,
    /// It could not be known.
    Unknown,
}

/// Something that happened to an incident after it was reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: MonoTime,
    /// To which incident.
    pub id: IncidentId,
    /// What.
    pub kind: ChangeKind,
}

/// What can happen to an incident after it was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The same process was given the same false success again: this often by now (first not
    /// counted).
    Repeated {
        /// Repeats so far.
        repeats: u64,
    },
    /// All its bytes have been written after all, but for those that were given up on purpose.
    Recovered,
    /// All its bytes have been given up on purpose (truncated, hole punched, deleted).
    Discarded,
    /// None of its bytes is in memory any more.
    Evicted,
}

/// What the correlator says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A new incident.
    Incident(Box<Incident>),
    /// A change to an earlier one.
    Change(Change),
    /// Something was not seen, or was given up: the run is incomplete from here on.
    Incomplete {
        /// When.
        at: MonoTime,
        /// What.
        loss: super::Lost,
    },
    /// The correlator holds nothing outstanding of this inode any more.
    Released {
        /// Which inode.
        inode: InodeKey,
        /// Why.
        why: Release,
    },
}

/// Why the correlator holds nothing outstanding of an inode any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Nothing is outstanding: its source may stop following it.
    Settled,
    /// It was forgotten at the memory limit, when all that was outstanding had been in an incident:
    /// its source should stop following it.
    Reported,
    /// It was forgotten at the memory limit, and not all of it had been in an incident: its source
    /// should say once more that the inode failed before it tells of its next sync.
    Unreported,
}
