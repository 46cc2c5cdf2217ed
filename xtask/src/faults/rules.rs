//! When a request to the fault device fails or is late. Pure: requests in, verdicts out; the same
//! rules and the same requests give the same verdicts.

use std::num::NonZero;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::image::BLOCK;

/// Bytes that a block of the program under test starts with.
pub type Marker = [u8; 16];

/// One way in which the device misbehaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultRule {
    /// Which requests.
    pub on: Access,
    /// Where.
    pub place: Place,
    /// What happens to them.
    pub effect: Effect,
    /// Only to the n-th request that matches, counted from 1; without it to every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nth: Option<NonZero<u64>>,
    /// With this probability, from 0 to 1.
    #[serde(default = "always")]
    pub probability: f64,
    /// Where the dice for `probability` start.
    #[serde(default)]
    pub seed: u64,
}

/// Kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Requests to flush the cache, which have no place.
    Flush,
}

/// The part of the disk that a rule is about. A request matches if it touches it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// All of it.
    Anywhere,
    /// These bytes of the device.
    Bytes(Range<u64>),
    /// Blocks that start with this marker and the number of one of these pages: data of the
    /// program under test wherever the file system puts it, never the file system's own blocks.
    /// Only writes carry anything.
    Carrying {
        /// What the block starts with.
        marker: Marker,
        /// The page number that follows, little-endian.
        pages: Range<u64>,
    },
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It fails.
    Fail {
        /// The error.
        errno: i32,
        /// A write stores the blocks before the first bad one all the same.
        #[serde(default)]
        torn: bool,
    },
    /// It takes so much longer.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
}

fn always() -> f64 {
    1.0
}

impl FaultRule {
    /// This happens to every such request.
    pub fn new(on: Access, place: Place, effect: Effect) -> FaultRule {
        FaultRule {
            on,
            place,
            effect,
            nth: None,
            probability: always(),
            seed: 0,
        }
    }

    /// Writes that carry this marker, on any page, fail.
    pub fn refuse(marker: Marker, errno: i32, torn: bool) -> FaultRule {
        let pages = 0..u64::MAX;
        FaultRule::new(
            Access::Write,
            Place::Carrying { marker, pages },
            Effect::Fail { errno, torn },
        )
    }
}

impl Place {
    /// The first byte of the request in a block that lies here.
    fn first_hit(&self, request: &Request<'_>) -> Option<usize> {
        match self {
            Place::Anywhere => Some(0),
            Place::Bytes(range) => {
                let end = request.offset + request.len;
                let touches = request.offset < range.end && end > range.start;
                let before = range.start.saturating_sub(request.offset) as usize;
                touches.then_some(before / BLOCK * BLOCK)
            }
            Place::Carrying { marker, pages } => {
                let carries = |block: &[u8]| {
                    let number = block.strip_prefix(marker)?.first_chunk()?;
                    Some(pages.contains(&u64::from_le_bytes(*number)))
                };
                let hit = |block| carries(block) == Some(true);
                Some(request.bytes.chunks(BLOCK).position(hit)? * BLOCK)
            }
        }
    }
}

struct Request<'a> {
    on: Access,
    offset: u64,
    len: u64,
    /// Empty for a read.
    bytes: &'a [u8],
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How long it has to wait.
    pub delay: Duration,
    /// If it fails.
    pub failure: Option<Failure>,
}

/// How a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The error.
    pub errno: i32,
    /// How many bytes of a write are stored all the same.
    pub stored: usize,
}

/// A rule and what it has done so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleStatus {
    /// The rule.
    pub rule: FaultRule,
    /// Requests that matched.
    pub matched: u64,
    /// Requests that it failed or delayed.
    pub applied: u64,
}

/// The rules in force, each with its counters and dice.
#[derive(Default)]
pub struct Rules(Vec<Armed>);

struct Armed {
    status: RuleStatus,
    dice: fastrand::Rng,
}

impl Rules {
    /// One more rule, from the next request on.
    pub fn add(&mut self, rule: FaultRule) {
        self.0.push(Armed {
            dice: fastrand::Rng::with_seed(rule.seed),
            status: RuleStatus {
                rule,
                matched: 0,
                applied: 0,
            },
        });
    }

    /// All rules in the order in which they were added.
    pub fn status(&self) -> Vec<RuleStatus> {
        self.0.iter().map(|armed| armed.status.clone()).collect()
    }

    /// Judges a write.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Verdict {
        self.judge(&Request {
            on: Access::Write,
            offset,
            len: bytes.len() as u64,
            bytes,
        })
    }

    /// Judges a read.
    pub fn read(&mut self, offset: u64, len: u64) -> Verdict {
        self.judge(&Request {
            on: Access::Read,
            offset,
            len,
            bytes: &[],
        })
    }

    /// Judges a flush.
    pub fn flush(&mut self) -> Verdict {
        self.judge(&Request {
            on: Access::Flush,
            offset: 0,
            len: 0,
            bytes: &[],
        })
    }

    /// Every rule counts the request; delays add up, the first failure decides.
    fn judge(&mut self, request: &Request<'_>) -> Verdict {
        let mut verdict = Verdict::default();
        for armed in &mut self.0 {
            let Some(good) = armed.applies(request) else {
                continue;
            };
            match armed.status.rule.effect {
                Effect::Delay { ms } => verdict.delay += Duration::from_millis(ms),
                Effect::Fail { errno, torn } => {
                    let stored = if torn { good } else { 0 };
                    verdict.failure.get_or_insert(Failure { errno, stored });
                }
            }
        }
        verdict
    }
}

impl Armed {
    /// The number of bytes before the first one that the rule is about.
    fn applies(&mut self, request: &Request<'_>) -> Option<usize> {
        let RuleStatus {
            rule,
            matched,
            applied,
        } = &mut self.status;
        let good = (rule.on == request.on).then(|| rule.place.first_hit(request))??;
        *matched += 1;
        // The dice are thrown for every match, so that `nth` does not move them.
        let by_chance = self.dice.f64() < rule.probability;
        let counted = rule.nth.is_none_or(|nth| nth.get() == *matched);
        (by_chance && counted).then(|| {
            *applied += 1;
            good
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EIO: Effect = Effect::Fail {
        errno: libc::EIO,
        torn: false,
    };
    const TORN: Effect = Effect::Fail {
        errno: libc::ENOSPC,
        torn: true,
    };

    fn rules(all: impl IntoIterator<Item = FaultRule>) -> Rules {
        let mut rules = Rules::default();
        all.into_iter().for_each(|rule| rules.add(rule));
        rules
    }

    fn writes(place: Place, effect: Effect) -> FaultRule {
        FaultRule::new(Access::Write, place, effect)
    }

    /// Which of so many writes of one block at offset 0 fail, counted from 1.
    fn failing(rules: &mut Rules, count: usize) -> Vec<usize> {
        let mut fails = |_: &usize| rules.write(0, &[0; BLOCK]).failure.is_some();
        (1..=count).filter(|number| fails(number)).collect()
    }

    #[test]
    fn a_write_fails_if_it_touches_the_bytes() {
        let mut rules = rules([writes(Place::Bytes(8192..12288), EIO)]);
        assert_eq!(rules.write(0, &[0; 8192]).failure, None);
        assert_eq!(rules.write(12288, &[0; 4096]).failure, None);
        let failed = Failure {
            errno: libc::EIO,
            stored: 0,
        };
        assert_eq!(rules.write(4096, &[0; 8192]).failure, Some(failed));
        assert_eq!(rules.read(8192, 1), Verdict::default());
        let status = &rules.status()[0];
        assert_eq!((status.matched, status.applied), (1, 1));
    }

    #[test]
    fn a_torn_write_stores_the_blocks_before_the_bad_one() {
        let mut rules = rules([writes(Place::Bytes(8200..8201), TORN)]);
        let failed = Failure {
            errno: libc::ENOSPC,
            stored: 4096,
        };
        assert_eq!(rules.write(4096, &[0; 8192]).failure, Some(failed));
    }

    #[test]
    fn a_write_fails_for_the_pages_that_it_carries() {
        let marker = *b"0123456789abcdef";
        let pages = 4..6;
        let mut rules = rules([writes(Place::Carrying { marker, pages }, TORN)]);
        let mut request = vec![0; 3 * BLOCK];
        request[2 * BLOCK..2 * BLOCK + 16].copy_from_slice(&marker);
        assert_eq!(rules.write(0, &request).failure, None, "page 0");
        request[2 * BLOCK + 16] = 5;
        let failed = Failure {
            errno: libc::ENOSPC,
            stored: 2 * BLOCK,
        };
        assert_eq!(rules.write(0, &request).failure, Some(failed));
    }

    #[test]
    fn only_the_nth_match_counts() {
        let mut third = rules([FaultRule {
            nth: NonZero::new(3),
            ..writes(Place::Bytes(0..4096), EIO)
        }]);
        assert_eq!(third.write(4096, &[0; 4096]).failure, None, "no match");
        assert_eq!(failing(&mut third, 10), [3]);
    }

    #[test]
    fn the_dice_fall_the_same_way_for_the_same_seed() {
        let seeded = |seed| {
            rules([FaultRule {
                probability: 0.5,
                seed,
                ..writes(Place::Anywhere, EIO)
            }])
        };
        let first = failing(&mut seeded(7), 1000);
        assert!((400..600).contains(&first.len()), "{}", first.len());
        assert_eq!(first, failing(&mut seeded(7), 1000));
        assert_ne!(first, failing(&mut seeded(8), 1000));
    }

    #[test]
    fn probability_zero_is_never_and_one_is_always() {
        let with = |probability| {
            rules([FaultRule {
                probability,
                ..writes(Place::Anywhere, EIO)
            }])
        };
        assert_eq!(failing(&mut with(0.0), 100).len(), 0);
        assert_eq!(failing(&mut with(1.0), 100).len(), 100);
    }

    #[test]
    fn delays_add_up_and_the_first_failure_decides() {
        let late = || writes(Place::Anywhere, Effect::Delay { ms: 20 });
        let mut rules = rules([
            late(),
            writes(Place::Anywhere, EIO),
            writes(Place::Anywhere, TORN),
            late(),
        ]);
        let verdict = rules.write(0, &[0; 4096]);
        assert_eq!(verdict.delay, Duration::from_millis(40));
        assert_eq!(verdict.failure.unwrap().errno, libc::EIO);
    }

    #[test]
    fn a_rule_needs_no_more_than_what_where_and_how() {
        let line = r#"{"on":"write","place":{"bytes":{"start":0,"end":4096}},
                       "effect":{"fail":{"errno":5}}}"#;
        let rule: FaultRule = serde_json::from_str(line).unwrap();
        assert_eq!(rule, writes(Place::Bytes(0..4096), EIO));
    }
}
