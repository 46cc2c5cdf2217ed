//! A quick hash for look-ups by inode: one multiplication per word, under keys that differ from
//! run to run, so that nobody can choose inode numbers that collide. No order may ever come from
//! it.

use std::hash::{BuildHasher, Hasher, RandomState};

/// The keys of one table.
#[derive(Clone, Debug)]
pub(super) struct KeyHash {
    start: u64,
    key: u64,
}

impl Default for KeyHash {
    fn default() -> Self {
        let random = RandomState::new();
        Self {
            start: random.hash_one(0),
            // Odd, so that multiplying loses nothing.
            key: random.hash_one(1) | 1,
        }
    }
}

impl BuildHasher for KeyHash {
    type Hasher = Folding;

    fn build_hasher(&self) -> Folding {
        Folding {
            state: self.start,
            key: self.key,
        }
    }
}

/// A hash being computed.
#[derive(Clone, Debug)]
pub(super) struct Folding {
    state: u64,
    key: u64,
}

impl Hasher for Folding {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        for byte in rest {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }

    /// The product's upper half goes back into the lower one.
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.key);
        self.state = (product as u64) ^ ((product >> 64) as u64).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.state
    }
}
