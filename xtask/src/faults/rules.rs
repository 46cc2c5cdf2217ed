//! When a request to the fault device fails. Pure: requests in, verdicts out.

use serde::{Deserialize, Serialize};

use super::image::BLOCK;

/// Bytes that a doomed page starts with.
pub type Marker = [u8; 16];

/// One reason to fail. The first rule that applies gives the error.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Rule {
    /// Writes that touch these bytes of the device.
    WritesIn {
        /// First byte.
        start: u64,
        /// Byte after the last one.
        end: u64,
        /// The error.
        errno: i32,
    },
    /// Writes with a block that starts with this marker: data of the program under test, never
    /// the file system's own blocks.
    WritesWith {
        /// What the block starts with.
        marker: Marker,
        /// The error.
        errno: i32,
    },
    /// Reads that touch these bytes of the device.
    ReadsIn {
        /// First byte.
        start: u64,
        /// Byte after the last one.
        end: u64,
        /// The error.
        errno: i32,
    },
}

/// A write that has to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedWrite {
    /// The error.
    pub errno: i32,
    /// How many bytes come before the first bad block: a torn request stores these.
    pub good_prefix: usize,
}

/// Whether a write fails, and how far it got.
pub fn judge_write(rules: &[Rule], offset: u64, bytes: &[u8]) -> Option<FailedWrite> {
    rules.iter().find_map(|rule| match rule {
        Rule::WritesIn { start, end, errno } => {
            let touches = offset < *end && offset + bytes.len() as u64 > *start;
            touches.then(|| FailedWrite {
                errno: *errno,
                good_prefix: start.saturating_sub(offset) as usize / BLOCK * BLOCK,
            })
        }
        Rule::WritesWith { marker, errno } => {
            let bad = bytes
                .chunks(BLOCK)
                .position(|block| block.starts_with(marker))?;
            Some(FailedWrite {
                errno: *errno,
                good_prefix: bad * BLOCK,
            })
        }
        Rule::ReadsIn { .. } => None,
    })
}

/// Whether a read fails.
pub fn judge_read(rules: &[Rule], offset: u64, len: u64) -> Option<i32> {
    rules.iter().find_map(|rule| match rule {
        Rule::ReadsIn { start, end, errno } => {
            (offset < *end && offset + len > *start).then_some(*errno)
        }
        Rule::WritesIn { .. } | Rule::WritesWith { .. } => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_fails_by_range_or_by_what_it_carries() {
        let range = [Rule::WritesIn {
            start: 8192,
            end: 12288,
            errno: libc::EIO,
        }];
        assert_eq!(judge_write(&range, 0, &[0; 8192]), None);
        assert_eq!(
            judge_write(&range, 4096, &[0; 8192]),
            Some(FailedWrite {
                errno: libc::EIO,
                good_prefix: 4096
            })
        );
        let marker = *b"0123456789abcdef";
        let content = [Rule::WritesWith {
            marker,
            errno: libc::ENOSPC,
        }];
        let mut request = vec![0; 3 * BLOCK];
        assert_eq!(judge_write(&content, 0, &request), None);
        request[2 * BLOCK..2 * BLOCK + 16].copy_from_slice(&marker);
        assert_eq!(
            judge_write(&content, 0, &request),
            Some(FailedWrite {
                errno: libc::ENOSPC,
                good_prefix: 2 * BLOCK
            })
        );
        assert_eq!(judge_read(&range, 8192, 1), None);
    }
}
