//! Facts and incidents of all kinds, with names of any bytes.

#![allow(dead_code, reason = "each test uses a part of it")]

use msync_trace::{
    model::{
        ByteRange, Call, CallId, Coverage, Discarded, Errno, ErrnoNumbers, Evicted, Evidence, Fact,
        FactKind, FileId, FileSystemId, FileView, Gone, InMemory, Incident, IncidentId, InodeKey,
        LossCause, Lost, MonoTime, Opened, ProcessId, Redirtied, StorageError, StorageErrorKind,
        SyncReturn, Task, Told, ToldWho, WriteFailed, WriteOk,
    },
    schema::Word,
};
use proptest::{collection::vec, option::of, prelude::*, sample::select};

pub fn word<T: Word + std::fmt::Debug>() -> impl Strategy<Value = T> {
    select(T::ALL)
}

prop_compose! {
    pub fn range()(start in 0..u64::MAX - 1, len in 1..u64::MAX) -> ByteRange {
        ByteRange::with_len(start, len).unwrap()
    }
}

pub fn errno() -> impl Strategy<Value = Errno> {
    let numbers = word::<ErrnoNumbers>();
    (numbers, 1_u32..=4095).prop_map(|(numbers, number)| Errno::of(numbers, number).unwrap())
}

pub fn dev() -> impl Strategy<Value = u32> {
    any::<u32>()
}

prop_compose! {
    pub fn inode()(
        fs in prop_oneof![
            any::<[u8; 16]>().prop_map(FileSystemId::Uuid),
            dev().prop_map(FileSystemId::Device),
            any::<u64>().prop_map(FileSystemId::Fsid),
        ],
        ino: u64,
        generation: u32,
        subvolume: u64,
    ) -> InodeKey {
        InodeKey { fs, ino, generation, subvolume }
    }
}

/// Names of all kinds: any bytes, any Unicode.
pub fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..20),
        any::<String>().prop_map(String::into_bytes),
    ]
}

prop_compose! {
    pub fn task()(
        pid: u32,
        start_time: u64,
        tid: u32,
        uid: u32,
        comm in name(),
        cgroup: u64,
        kernel_thread: bool,
    ) -> Task {
        let process = ProcessId { pid, start_time };
        Task { process, tid, uid, comm, cgroup, kernel_thread }
    }
}

prop_compose! {
    pub fn view()(
        path in of(name()),
        from_root: bool,
        mount in of(name()),
        fs_type in of(any::<String>()),
        dev in of(dev()),
        dev_name in of(any::<String>()),
        deleted: bool,
    ) -> FileView {
        FileView { path, from_root, mount, fs_type, dev, dev_name, deleted }
    }
}

prop_compose! {
    pub fn write_failed()(
        inode in inode(),
        range in of(range()),
        errno in errno(),
        submitted in of(any::<u64>().prop_map(MonoTime)),
        eviction_watched: bool,
        writer in of(task()),
        file in view(),
    ) -> WriteFailed {
        WriteFailed { inode, range, errno, submitted, eviction_watched, writer, file }
    }
}

prop_compose! {
    pub fn sync_return()(
        inode in inode(),
        file in of(any::<u64>().prop_map(FileId)),
        call in word::<Call>(),
        id in any::<u64>().prop_map(CallId),
        range in range(),
        error in of(errno()),
        pending: bool,
        task in task(),
        file_view in view(),
    ) -> SyncReturn {
        SyncReturn { inode, file, call, id, range, error, pending, task, file_view }
    }
}

prop_compose! {
    pub fn storage_error()(
        what in word::<StorageErrorKind>(),
        errno in of(errno()),
        dev in of(dev()),
        dev_name in of(any::<String>()),
        fs_type in of(any::<String>()),
    ) -> StorageError {
        StorageError { what, errno, dev, dev_name, fs_type }
    }
}

pub fn kind() -> impl Strategy<Value = FactKind> {
    let file = || any::<u64>().prop_map(FileId);
    prop_oneof![
        write_failed().prop_map(FactKind::WriteFailed),
        sync_return().prop_map(FactKind::SyncReturn),
        (inode(), range()).prop_map(|(inode, range)| FactKind::WriteOk(WriteOk { inode, range })),
        (inode(), range())
            .prop_map(|(inode, range)| FactKind::Redirtied(Redirtied { inode, range })),
        (inode(), range())
            .prop_map(|(inode, range)| FactKind::Discarded(Discarded { inode, range })),
        (inode(), range()).prop_map(|(inode, range)| FactKind::Evicted(Evicted { inode, range })),
        (inode(), file(), errno(), task()).prop_map(|(inode, file, errno, task)| {
            FactKind::Told(Told {
                inode,
                file,
                errno,
                task,
            })
        }),
        (inode(), file()).prop_map(|(inode, file)| FactKind::Opened(Opened { inode, file })),
        (inode(), any::<bool>())
            .prop_map(|(inode, deleted)| FactKind::Gone(Gone { inode, deleted })),
        storage_error().prop_map(FactKind::StorageError),
        (word::<LossCause>(), any::<u64>())
            .prop_map(|(cause, count)| FactKind::Lost(Lost { cause, count })),
    ]
}

prop_compose! {
    // Wall times are i64 nanoseconds: kernel times up to some centuries of uptime.
    pub fn fact()(at in 0..7_000_000_000_000_000_000_u64, kind in kind()) -> Fact {
        Fact { at: MonoTime(at), kind }
    }
}

prop_compose! {
    pub fn incident()(
        (id, inode, ranges, errno) in (1_u64.., inode(), vec((0_u64..1 << 50, 1_u64..1 << 20), 1..4), errno()),
        (failed_at, last_failed_at, synced_at) in (0_u64..1 << 60, 0_u64..1 << 60, 0_u64..1 << 60),
        (writer, task, file, before) in (of(task()), task(), view(), view()),
        (call, requested) in (word::<Call>(), range()),
        (told, coverage) in (word::<ToldWho>(), word::<Coverage>()),
        (evidence, in_memory) in (word::<Evidence>(), word::<InMemory>()),
    ) -> Incident {
        let ranges = match evidence {
            Evidence::Inode => Vec::new(),
            Evidence::Page => ranges
                .into_iter()
                .map(|(start, len)| ByteRange::with_len(start, len).unwrap())
                .collect(),
        };
        Incident {
            id: IncidentId(id),
            inode,
            ranges,
            errno,
            failed_at: MonoTime(failed_at),
            last_failed_at: MonoTime(last_failed_at),
            writer,
            synced_at: MonoTime(synced_at),
            call,
            requested,
            task,
            told,
            coverage,
            evidence,
            in_memory,
            file,
            path_when_failed: before.path,
        }
    }
}
