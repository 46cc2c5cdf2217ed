//! Byte ranges of a file.

use std::fmt;

/// The bytes `start..end` of a file: `start` included, `end` not. Never empty.
///
/// `end == u64::MAX` stands for "to the end of the file, wherever that is".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// Every byte a file can have.
    pub const ALL: Self = Self {
        start: 0,
        end: u64::MAX,
    };

    /// `start..end`, or `None` if that is empty.
    #[must_use]
    pub fn new(start: u64, end: u64) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// `len` bytes from `start` (cut at `u64::MAX`), or `None` if `len` is 0.
    #[must_use]
    pub fn with_len(start: u64, len: u64) -> Option<Self> {
        Self::new(start, start.saturating_add(len))
    }

    /// The first byte.
    #[must_use]
    pub fn start(self) -> u64 {
        self.start
    }

    /// One past the last byte.
    #[must_use]
    pub fn end(self) -> u64 {
        self.end
    }

    /// Number of bytes; at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a ByteRange is never empty")]
    pub fn len(self) -> u64 {
        self.end - self.start
    }

    /// The bytes in both.
    #[must_use]
    pub fn intersect(self, other: Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// Whether every byte of `other` is in `self`.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Whether they share a byte.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.intersect(other).is_some()
    }
}

impl fmt::Display for ByteRange {
    /// As `start-last` with the last byte included, the way tools for people write ranges.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            u64::MAX => write!(f, "{}-", self.start),
            end => write!(f, "{}-{}", self.start, end - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_range_cannot_be_said() {
        assert_eq!(ByteRange::new(5, 5), None);
        assert_eq!(ByteRange::new(6, 5), None);
        assert_eq!(ByteRange::with_len(5, 0), None);
    }

    #[test]
    fn a_length_past_the_last_byte_is_cut() {
        let range = ByteRange::with_len(u64::MAX - 1, 10).unwrap();
        assert_eq!(range.end(), u64::MAX);
        assert_eq!(range.to_string(), format!("{}-", u64::MAX - 1));
    }

    #[test]
    fn neighbours_do_not_overlap() {
        let a = ByteRange::new(0, 4096).unwrap();
        let b = ByteRange::new(4096, 8192).unwrap();
        assert!(!a.overlaps(b));
        assert!(ByteRange::ALL.contains(a));
        assert_eq!(a.to_string(), "0-4095");
    }
}
