//! Facts in JSON and back.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    Body, Clock, Head, Record,
    words::{dev, mirrored},
};
use crate::model::{
    ByteRange, Call, CallId, Discarded, Errno, Evicted, Fact, FactKind, FileId, FileView, Gone,
    InodeKey, LossCause, Lost, MonoTime, Opened, Redirtied, StorageError, StorageErrorKind,
    SyncReturn, Task, Told, WriteFailed, WriteOk,
};

#[derive(Serialize, Deserialize)]
#[serde(remote = "WriteFailed")]
struct WriteFailedMembers {
    inode: InodeKey,
    range: Option<ByteRange>,
    #[serde(rename = "error")]
    errno: Errno,
    #[serde(rename = "submitted_ns")]
    submitted: Option<MonoTime>,
    eviction_watched: bool,
    writer: Option<Task>,
    file: FileView,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "WriteOk")]
struct WriteOkMembers {
    inode: InodeKey,
    range: ByteRange,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Redirtied")]
struct RedirtiedMembers {
    inode: InodeKey,
    range: ByteRange,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "SyncReturn")]
struct SyncReturnMembers {
    inode: InodeKey,
    #[serde(rename = "file_id")]
    file: Option<FileId>,
    call: Call,
    #[serde(rename = "call_id")]
    id: CallId,
    #[serde(rename = "requested")]
    range: ByteRange,
    error: Option<Errno>,
    pending: bool,
    #[serde(rename = "process")]
    task: Task,
    #[serde(rename = "file")]
    file_view: FileView,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Told")]
struct ToldMembers {
    inode: InodeKey,
    #[serde(rename = "file_id")]
    file: FileId,
    #[serde(rename = "error")]
    errno: Errno,
    #[serde(rename = "process")]
    task: Task,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Opened")]
struct OpenedMembers {
    inode: InodeKey,
    #[serde(rename = "file_id")]
    file: FileId,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Discarded")]
struct DiscardedMembers {
    inode: InodeKey,
    range: ByteRange,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Evicted")]
struct EvictedMembers {
    inode: InodeKey,
    range: ByteRange,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Gone")]
struct GoneMembers {
    inode: InodeKey,
    deleted: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "StorageError")]
struct StorageErrorMembers {
    what: StorageErrorKind,
    #[serde(rename = "error")]
    errno: Option<Errno>,
    #[serde(with = "dev")]
    dev: Option<u32>,
    #[serde(rename = "device")]
    dev_name: Option<String>,
    fs_type: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Lost")]
struct LostMembers {
    cause: LossCause,
    count: u64,
}

mirrored! {
    WriteFailed as WriteFailedMembers,
    WriteOk as WriteOkMembers,
    Redirtied as RedirtiedMembers,
    SyncReturn as SyncReturnMembers,
    Told as ToldMembers,
    Opened as OpenedMembers,
    Discarded as DiscardedMembers,
    Evicted as EvictedMembers,
    Gone as GoneMembers,
    StorageError as StorageErrorMembers,
    Lost as LostMembers,
}

impl Record {
    /// A fact as a record.
    #[must_use]
    pub fn of_fact(fact: Fact, clock: &Clock) -> Self {
        let body = match fact.kind {
            FactKind::WriteFailed(it) => Body::WriteFailed(it),
            FactKind::WriteOk(it) => Body::WriteOk(it),
            FactKind::Redirtied(it) => Body::Redirtied(it),
            FactKind::SyncReturn(it) => Body::SyncReturn(it),
            FactKind::Told(it) => Body::Told(it),
            FactKind::Opened(it) => Body::Opened(it),
            FactKind::Discarded(it) => Body::Discarded(it),
            FactKind::Evicted(it) => Body::Evicted(it),
            FactKind::Gone(it) => Body::Gone(it),
            FactKind::StorageError(it) => Body::StorageError(it.into()),
            FactKind::Lost(it) => Body::Lost(it),
        };
        Self {
            head: Head::at(fact.at, clock),
            body,
        }
    }

    /// The fact of a record, or `None` if it is no fact.
    #[must_use]
    pub fn into_fact(self) -> Option<Fact> {
        let kind = match self.body {
            Body::WriteFailed(it) => FactKind::WriteFailed(it),
            Body::WriteOk(it) => FactKind::WriteOk(it),
            Body::Redirtied(it) => FactKind::Redirtied(it),
            Body::SyncReturn(it) => FactKind::SyncReturn(it),
            Body::Told(it) => FactKind::Told(it),
            Body::Opened(it) => FactKind::Opened(it),
            Body::Discarded(it) => FactKind::Discarded(it),
            Body::Evicted(it) => FactKind::Evicted(it),
            Body::Gone(it) => FactKind::Gone(it),
            Body::StorageError(it) => FactKind::StorageError(it.error),
            Body::Lost(it) => FactKind::Lost(it),
            Body::Start(_)
            | Body::Hooks(_)
            | Body::Incident(_)
            | Body::Change(_)
            | Body::Stop(_) => return None,
        };
        Some(Fact {
            at: self.head.mono_ns,
            kind,
        })
    }
}
