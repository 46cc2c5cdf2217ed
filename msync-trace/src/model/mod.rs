//! The vocabulary: what is known about inodes, byte ranges, write failures, sync calls and
//! incidents, as types.
//!
//! This room imports nothing of the crate: no kernel, no clock, no JSON. Every other room speaks
//! in these words. Times and identities come in with the facts.

mod fact;
mod incident;
mod inode;
pub(crate) mod keep;
mod range;
mod task;
mod time;

pub use fact::{
    Call, CallId, Discarded, Evicted, Fact, FactKind, FileId, Gone, LossCause, Lost, Opened,
    Redirtied, StorageError, StorageErrorKind, SyncReturn, Told, WriteFailed, WriteOk,
};
pub use incident::{
    Change, ChangeKind, Coverage, Evidence, InMemory, Incident, IncidentId, Release, ToldWho,
    Verdict, Verified,
};
pub use inode::{Errno, ErrnoNumbers, FileSystemId, FileView, InodeKey};
pub use range::ByteRange;
pub use task::{ProcessId, Task};
pub use time::MonoTime;
