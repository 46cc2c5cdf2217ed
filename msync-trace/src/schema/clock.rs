//! Wall time, and how to get there from kernel time.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::model::MonoTime;

/// A moment in wall time, in nanoseconds since 1970-01-01 UTC. In JSON: RFC 3339 in UTC with nine
/// digits after the point, so that texts sort like times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallTime(pub i64);

impl WallTime {
    /// As jiff's type, for other zones and formats.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        // Every i64 of nanoseconds lies in 1677..=2262, far inside jiff's range.
        Timestamp::from_nanosecond(i128::from(self.0)).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Seconds since 1970, exact to less than a microsecond.
    #[must_use]
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.timestamp().strftime("%Y-%m-%dT%H:%M:%S.%9fZ"))
    }
}

impl Serialize for WallTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WallTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time: Timestamp = text.parse().map_err(de::Error::custom)?;
        i64::try_from(time.as_nanosecond())
            .map(Self)
            .map_err(|_| de::Error::custom(format!("the time {text} is outside 1677 to 2262")))
    }
}

/// Turns kernel time into wall time.
///
/// `CLOCK_MONOTONIC` stands still during suspend and wall time can be set, so the difference holds
/// only from one look at both clocks to the next. Every look is remembered (where it changed
/// something), so that a moment before a suspend keeps its right wall time afterwards.
#[derive(Clone, Debug)]
pub struct Clock {
    /// Wall minus monotonic, in nanoseconds, and from when on it holds. Sorted; never empty.
    offsets: Vec<(MonoTime, i64)>,
}

impl Clock {
    /// Two readings of the two clocks are some microseconds apart: a smaller difference is noise.
    const NOISE_NS: u64 = 1_000_000;
    /// More jumps than this and the oldest is forgotten.
    const MAX_JUMPS: usize = 64;

    /// From one look at both clocks.
    #[must_use]
    pub fn new(mono: MonoTime, wall: WallTime) -> Self {
        Self {
            offsets: vec![(mono, offset(mono, wall))],
        }
    }

    /// Another look at both clocks; later than all before.
    pub fn observe(&mut self, mono: MonoTime, wall: WallTime) {
        let new = offset(mono, wall);
        if new.abs_diff(self.offset_now()) > Self::NOISE_NS {
            if self.offsets.len() == Self::MAX_JUMPS {
                self.offsets.remove(0);
            }
            self.offsets.push((mono, new));
        }
    }

    /// The difference wall minus monotonic at the last look, in nanoseconds.
    #[must_use]
    pub fn offset_now(&self) -> i64 {
        self.offsets[self.offsets.len() - 1].1
    }

    /// Wall time of a kernel time.
    #[must_use]
    pub fn wall(&self, at: MonoTime) -> WallTime {
        let later = self.offsets.partition_point(|(since, _)| *since <= at);
        let (_, offset) = self.offsets[later.saturating_sub(1)];
        WallTime(offset.saturating_add_unsigned(at.0))
    }
}

fn offset(mono: MonoTime, wall: WallTime) -> i64 {
    wall.0.saturating_sub_unsigned(mono.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: WallTime = WallTime(1_763_640_000_000_000_000);

    #[test]
    fn times_have_nine_digits_so_that_they_sort_as_text() {
        assert_eq!(WallTime(0).to_string(), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(NOON.to_string(), "2025-11-20T12:00:00.000000000Z");
        let json = serde_json::to_string(&WallTime(NOON.0 + 42)).unwrap();
        assert_eq!(json, "\"2025-11-20T12:00:00.000000042Z\"");
        assert_eq!(
            serde_json::from_str::<WallTime>(&json).unwrap(),
            WallTime(NOON.0 + 42)
        );
    }

    #[test]
    fn a_failure_before_a_suspend_keeps_its_wall_time() {
        let hour = 3_600_000_000_000;
        let mut clock = Clock::new(MonoTime(1_000), NOON);
        // One second of running, an hour of sleep in between.
        clock.observe(
            MonoTime(1_000_001_000),
            WallTime(NOON.0 + hour + 1_000_000_000),
        );
        assert_eq!(clock.wall(MonoTime(2_000)), WallTime(NOON.0 + 1_000));
        assert_eq!(
            clock.wall(MonoTime(1_000_001_500)),
            WallTime(NOON.0 + hour + 1_000_000_500)
        );
        // Before the first look: by the first look.
        assert_eq!(clock.wall(MonoTime(0)), WallTime(NOON.0 - 1_000));
    }

    #[test]
    fn reading_noise_is_no_jump() {
        let mut clock = Clock::new(MonoTime(0), NOON);
        clock.observe(MonoTime(5_000), WallTime(NOON.0 + 5_700));
        assert_eq!(clock.wall(MonoTime(5_000)), WallTime(NOON.0 + 5_000));
    }
}
