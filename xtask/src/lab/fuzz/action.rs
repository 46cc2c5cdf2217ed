//! What a fuzzed program does: the actions, and how a seed becomes a list of them.
//!
//! Every list makes sense: what an action cannot do at its place (a store past the end of the
//! file) is clipped or left out when it is played, so that actions can be removed freely.

use std::num::NonZero;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::scenarios::program::By;

/// Programs at a time.
pub const PROGRAMS: usize = 3;
/// Files at a time.
pub const FILES: usize = 2;
/// Pages of a file when it is new, and the most it ever has.
pub const PAGES: u64 = 48;
/// The pages of a file that each of a program's mappings shows.
pub const MAPPINGS: [Range<u64>; 2] = [0..PAGES, 8..32];

/// A program and one of the files, as it has it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    /// Below [`PROGRAMS`].
    pub program: usize,
    /// Below [`FILES`].
    pub file: usize,
}

/// Pages of a file through a mapping of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Whose.
    pub handle: Handle,
    /// Index into [`MAPPINGS`].
    pub mapping: usize,
    /// Pages of the file.
    pub pages: Range<u64>,
}

/// One action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// New content for whole pages.
    Store(View),
    /// msync(MS_SYNC): what the fuzzer is about.
    Msync(View, By),
    /// msync(MS_ASYNC).
    MsyncAsync(View),
    /// fsync.
    Fsync(Handle),
    /// fdatasync.
    Fdatasync(Handle),
    /// sync_file_range: write and wait.
    SyncFileRange(Handle),
    /// Writes of these pages of all files fail, until [`Action::Heal`].
    Fail(Fault),
    /// The disk works again.
    Heal,
    /// syncfs, by nobody's program.
    WriteBack,
    /// ftruncate to so many pages.
    Resize(Handle, u64),
    /// fallocate(PUNCH_HOLE).
    Punch(Handle, Range<u64>),
    /// The file gets another name.
    Rename(usize),
    /// The file is deleted, and a new one made under its name. Who has it open keeps the old one.
    Replace(usize),
    /// posix_fadvise(DONTNEED) on all of the file.
    DropCache(Handle),
    /// Unused inodes leave memory.
    EvictInodes,
    /// The program closes the file, and opens and maps it again.
    Reopen(Handle),
    /// The program ends, and starts anew when it is needed.
    End(usize),
    /// All programs end; unmount and mount.
    Remount,
}

/// How writes fail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Pages of every file.
    pub pages: Range<u64>,
    /// The error.
    pub errno: i32,
    /// Whether the good blocks before the first bad one are stored.
    pub torn: bool,
    /// Only the n-th request.
    pub nth: Option<NonZero<u64>>,
    /// How often.
    pub probability: f64,
    /// Where the dice start.
    pub seed: u64,
}

/// The program of a seed.
pub fn generate(seed: u64) -> Vec<Action> {
    let mut dice = Dice {
        rng: fastrand::Rng::with_seed(seed),
        programs: 1,
        files: 1,
    };
    dice.programs = dice.rng.usize(1..=PROGRAMS);
    dice.files = dice.rng.usize(1..=FILES);
    let mut actions = Vec::new();
    for file in 0..dice.files {
        // Some files begin on the disk, others as nothing but a size.
        if dice.chance(0.7) {
            let handle = Handle { program: 0, file };
            let (mapping, pages) = (0, 0..PAGES);
            let whole = View {
                handle,
                mapping,
                pages,
            };
            actions.extend([Action::Store(whole.clone()), Action::Msync(whole, By::Main)]);
        }
    }
    let count = dice.rng.usize(5..=20);
    for _ in 0..count {
        dice.play(&mut actions);
    }
    actions
}

struct Dice {
    rng: fastrand::Rng,
    programs: usize,
    files: usize,
}

impl Dice {
    fn chance(&mut self, probability: f64) -> bool {
        self.rng.f64() < probability
    }

    fn handle(&mut self) -> Handle {
        Handle {
            program: self.rng.usize(0..self.programs),
            file: self.rng.usize(0..self.files),
        }
    }

    /// Some pages, mostly few.
    fn pages(&mut self) -> Range<u64> {
        let longest = *self.rng.choice(&[1, 4, 12, PAGES]).unwrap_or(&PAGES);
        let first = self.rng.u64(0..PAGES);
        first..PAGES.min(first + self.rng.u64(1..=longest))
    }

    fn view(&mut self) -> View {
        let pages = match self.chance(0.3) {
            true => 0..PAGES,
            false => self.pages(),
        };
        View {
            handle: self.handle(),
            mapping: self.rng.usize(0..MAPPINGS.len()),
            pages,
        }
    }

    fn store(&mut self) -> Action {
        Action::Store(View {
            pages: self.pages(),
            ..self.view()
        })
    }

    fn msync(&mut self) -> Action {
        let by = *self
            .rng
            .choice(&[By::Main, By::Main, By::Main, By::Thread, By::Child])
            .unwrap_or(&By::Main);
        Action::Msync(self.view(), by)
    }

    fn fault(&mut self) -> Fault {
        Fault {
            pages: self.pages(),
            errno: match self.chance(0.8) {
                true => libc::EIO,
                false => libc::ENOSPC,
            },
            torn: self.chance(0.2),
            nth: self
                .chance(0.15)
                .then(|| self.rng.u64(1..4))
                .and_then(NonZero::new),
            probability: match self.chance(0.15) {
                true => 0.5,
                false => 1.0,
            },
            seed: self.rng.u64(0..1000),
        }
    }

    /// Adds one action, or a few that belong together.
    fn play(&mut self, to: &mut Vec<Action>) {
        let next = match self.rng.u32(0..100) {
            0..26 => self.store(),
            26..46 => self.msync(),
            // What losses are made of: pages are stored, and the disk refuses just those.
            46..62 => {
                let store = self.store();
                if let Action::Store(view) = &store {
                    let mut fault = self.fault();
                    fault.pages = view.pages.clone();
                    to.push(Action::Fail(fault));
                }
                to.push(store);
                match self.chance(0.5) {
                    true => self.msync(),
                    false => Action::WriteBack,
                }
            }
            62..66 => Action::Fail(self.fault()),
            66..72 => Action::Heal,
            72..75 => Action::WriteBack,
            75..78 => Action::Fsync(self.handle()),
            78..79 => Action::Fdatasync(self.handle()),
            79..80 => Action::SyncFileRange(self.handle()),
            80..82 => Action::MsyncAsync(self.view()),
            82..85 => Action::Resize(self.handle(), self.rng.u64(1..=PAGES)),
            85..88 => Action::Punch(self.handle(), self.pages()),
            88..90 => Action::Rename(self.rng.usize(0..self.files)),
            90..92 => Action::Replace(self.rng.usize(0..self.files)),
            92..94 => Action::DropCache(self.handle()),
            94..95 => Action::EvictInodes,
            95..97 => Action::Reopen(self.handle()),
            97..99 => Action::End(self.rng.usize(0..self.programs)),
            _ => Action::Remount,
        };
        to.push(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_program_and_stays_one_in_json() {
        for seed in 0..200 {
            let actions = generate(seed);
            assert_eq!(actions, generate(seed));
            let json = serde_json::to_string(&actions).unwrap();
            assert_eq!(actions, serde_json::from_str::<Vec<Action>>(&json).unwrap());
        }
        assert_ne!(generate(1), generate(2));
    }
}
