//! What can still be saved: the bytes of failed ranges that are only in memory, and what the disk
//! has in their place.
//!
//! Nothing here writes to the file, to its device or to its page cache, makes the kernel write a
//! dirty page, or brings a page into the cache. Only the files that are saved, on another
//! filesystem, are written.

mod btrfs;
mod compare;
mod device;
mod disk;
mod filesystem;
mod manifest;
mod mapped;
mod memory;
mod place;
mod save;
mod sight;
mod stack;
mod target;

pub use compare::{Findings, InCache, Keep, OnDisk, Pages, Scope, examine};
pub use manifest::{MANIFEST, Manifest, RescuedFile, Saved};
pub use save::{Choice, Saver, Vault};
pub use target::{Obstacle, Target};
