//! What the programs under test write: every page says which page of its file it is, of which
//! generation, and whether the fault device may refuse it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::faults::{BLOCK, Header, Marker};

/// Pages that start with this are refused while the device fails.
pub const DOOMED: Marker = *b"msync-trace:fail";
/// Pages that start with this are never refused for what they carry.
const PLAIN: Marker = *b"msync-trace:keep";

/// Content of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Counts the stores of a scenario.
    pub generation: u64,
    /// Starts with [`DOOMED`].
    pub doomed: bool,
}

impl Stamp {
    /// How the block of page number `page` begins.
    pub fn header(self, page: u64) -> Header {
        let mut header = [0; size_of::<Header>()];
        header.copy_from_slice(&self.bytes(page)[..size_of::<Header>()]);
        header
    }

    /// The bytes of page number `page`.
    pub fn bytes(self, page: u64) -> [u8; BLOCK] {
        let mut bytes = [self.generation as u8; BLOCK];
        bytes[..16].copy_from_slice(if self.doomed { &DOOMED } else { &PLAIN });
        bytes[16..24].copy_from_slice(&page.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.generation.to_le_bytes());
        bytes
    }
}

/// What all programs together have stored, by file name and page.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    files: BTreeMap<String, BTreeMap<u64, Stamp>>,
    generation: u64,
}

impl Memory {
    /// A generation that was not used yet.
    pub fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// A page was stored.
    pub fn stored(&mut self, file: &str, page: u64, stamp: Stamp) {
        self.files
            .entry(file.to_owned())
            .or_default()
            .insert(page, stamp);
    }

    /// Pages were given up on purpose: nobody is owed them.
    pub fn given_up(&mut self, file: &str, pages: std::ops::Range<u64>) {
        if let Some(stamps) = self.files.get_mut(file) {
            stamps.retain(|page, _| !pages.contains(page));
        }
    }

    /// The file has another name.
    pub fn renamed(&mut self, from: &str, to: &str) {
        if let Some(stamps) = self.files.remove(from) {
            self.files.insert(to.to_owned(), stamps);
        }
    }

    /// The file was deleted.
    pub fn deleted(&mut self, file: &str) {
        self.files.remove(file);
    }

    /// Every page owed to a file.
    pub fn pages(&self, file: &str) -> BTreeMap<u64, Stamp> {
        self.files.get(file).cloned().unwrap_or_default()
    }
}
