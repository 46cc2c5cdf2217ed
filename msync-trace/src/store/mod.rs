//! Recorded facts and incidents: one SQLite file, written while they happen and read afterwards.
//!
//! The contract on disk:
//!
//! - `layout.sql` is the layout; `docs/record.md` explains it to its users. `application_id` says that
//!   a file is a record, `user_version` which layout it has. An older layout is lifted by a table of
//!   steps, a newer one is refused with the version that reads it.
//! - A file appears under its name complete with its layout, or not at all.
//! - What is said to be stored is on the disk: each batch is one transaction in the write-ahead log,
//!   and the log is flushed before the transaction counts. Facts wait for each other for half a second,
//!   incidents for nothing.
//! - A write that failed may look successful when the file is opened again: the kernel keeps the bytes,
//!   clean. So what is in the log is written once more before it is relied on, and whatever was not
//!   acknowledged is stored again.
//! - The memory that SQLite shares with readers lies on the same disk: where it cannot be had any more,
//!   the record is opened anew, and the program does not end.
//! - While nothing can be written, what happens is kept in bounded memory, the newest of it. What did not
//!   fit is counted in `gaps`.
//! - `facts` is what counts. `packs` has what a report reads of them once more, block by block, and a
//!   trigger deletes the pack of a block of which a fact is deleted.
//! - One program writes, which `FILE-lock` says with its process id; any number read. While the record
//!   cannot be written nothing of it is open, the lock neither, so that its filesystem can be mounted
//!   anew. Who wrote meanwhile keeps the numbers of his facts.
//!
//! This room does not know where facts come from and shows nothing.

mod ask;
mod columns;
mod error;
pub mod export;
mod file;
mod header;
mod layout;
mod lock;
mod pack;
mod queue;
mod read;
mod recompute;
mod recorder;
mod retention;
mod shared_memory;
mod write;

pub use ask::{Answer, Limits as QuestionLimits, Progress, Question, ask};
pub use error::StoreError;
pub use header::RunHeader;
pub use queue::Dropped;
pub use read::{Gap, Reader, RunRow};
pub use recompute::recompute;
pub use recorder::{Kept, Recorder, StoreHealth};
pub use retention::Limits;
