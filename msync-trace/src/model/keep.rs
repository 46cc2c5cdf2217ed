//! State as bytes, for the process that goes on where this one ends on the same machine. No format
//! for files: who writes it says of which version it is, and another version does not read it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    hash::{BuildHasher, Hash},
    num::NonZeroU64,
    sync::Arc,
};

/// What can be kept.
pub(crate) trait Keep: Sized {
    /// Appends it to `into`.
    fn keep(&self, into: &mut Vec<u8>);

    /// Takes it from the beginning of `from`; `None` where that does not hold one.
    fn kept(from: &mut &[u8]) -> Option<Self>;
}

/// Implements [`Keep`] field by field: one that is forgotten does not compile.
macro_rules! keep {
    (struct $name:ty { $($field:ident),* $(,)? }) => {
        impl $crate::model::keep::Keep for $name {
            fn keep(&self, into: &mut Vec<u8>) {
                let Self { $($field),* } = self;
                $($crate::model::keep::Keep::keep($field, into);)*
            }

            fn kept(from: &mut &[u8]) -> Option<Self> {
                Some(Self { $($field: $crate::model::keep::Keep::kept(from)?),* })
            }
        }
    };
    (number $name:ty) => {
        impl $crate::model::keep::Keep for $name {
            fn keep(&self, into: &mut Vec<u8>) {
                $crate::model::keep::Keep::keep(&self.0, into);
            }

            fn kept(from: &mut &[u8]) -> Option<Self> {
                Some(Self($crate::model::keep::Keep::kept(from)?))
            }
        }
    };
    (words $name:ty { $($word:ident),* $(,)? }) => {
        impl $crate::model::keep::Keep for $name {
            fn keep(&self, into: &mut Vec<u8>) {
                let all = [$(Self::$word),*];
                let place = all.iter().position(|word| word == self);
                into.push(place.and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX));
                // A word that is missing above does not compile.
                match self {
                    $(Self::$word => {})*
                }
            }

            fn kept(from: &mut &[u8]) -> Option<Self> {
                let place = <u8 as $crate::model::keep::Keep>::kept(from)?;
                [$(Self::$word),*].get(usize::from(place)).copied()
            }
        }
    };
    (one of $name:ty { $($number:literal $variant:ident),* $(,)? }) => {
        impl $crate::model::keep::Keep for $name {
            fn keep(&self, into: &mut Vec<u8>) {
                match self {
                    $(Self::$variant(value) => {
                        into.push($number);
                        $crate::model::keep::Keep::keep(value, into);
                    })*
                }
            }

            fn kept(from: &mut &[u8]) -> Option<Self> {
                match <u8 as $crate::model::keep::Keep>::kept(from)? {
                    $($number => Some(Self::$variant($crate::model::keep::Keep::kept(from)?)),)*
                    _ => None,
                }
            }
        }
    };
}
pub(crate) use keep;

macro_rules! integers {
    ($($name:ty)*) => {$(
        impl Keep for $name {
            fn keep(&self, into: &mut Vec<u8>) {
                into.extend_from_slice(&self.to_le_bytes());
            }

            fn kept(from: &mut &[u8]) -> Option<Self> {
                let (bytes, rest) = from.split_first_chunk()?;
                *from = rest;
                Some(Self::from_le_bytes(*bytes))
            }
        }
    )*};
}
integers!(u8 u16 u32 u64 i64);

impl Keep for usize {
    fn keep(&self, into: &mut Vec<u8>) {
        (*self as u64).keep(into);
    }

    fn kept(from: &mut &[u8]) -> Option<Self> {
        Self::try_from(u64::kept(from)?).ok()
    }
}

impl Keep for NonZeroU64 {
    fn keep(&self, into: &mut Vec<u8>) {
        self.get().keep(into);
    }

    fn kept(from: &mut &[u8]) -> Option<Self> {
        Self::new(u64::kept(from)?)
    }
}

impl Keep for bool {
    fn keep(&self, into: &mut Vec<u8>) {
        into.push(u8::from(*self));
    }

    fn kept(from: &mut &[u8]) -> Option<Self> {
        Some(u8::kept(from)? != 0)
    }
}

impl Keep for () {
    fn keep(&self, _into: &mut Vec<u8>) {}

    fn kept(_from: &mut &[u8]) -> Option<Self> {
        Some(())
    }
}

impl<const N: usize> Keep for [u8; N] {
    fn keep(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(self);
    }

    fn kept(from: &mut &[u8]) -> Option<Self> {
        let (bytes, rest) = from.split_first_chunk()?;
        *from = rest;
        Some(*bytes)
    }
}

impl Keep for String {
    fn keep(&self, into: &mut Vec<u8>) {
        self.len().keep(into);
        into.extend_from_slice(self.as_bytes());
    }

    fn kept(from: &mut &[u8]) -> Option<Self> {
        Self::from_utf8(Keep::kept(from)?).ok()
    }
}

impl<T: Keep> Keep for Option<T> {
    fn keep(&self, into: &mut Vec<u8>) {
        self.is_some().keep(into);
        if let Some(value) = self {
            value.keep(into);
        }
    }

    fn kept(from: &mut &[u8]) -> Option<Self> {
        match bool::kept(from)? {
            true => Some(Some(T::kept(from)?)),
            false => Some(None),
        }
    }
}

impl<T: Keep> Keep for Box<T> {
    fn keep(&self, into: &mut Vec<u8>) {
        T::keep(self, into);
    }

    fn kept(from: &mut &[u8]) -> Option<Self> {
        T::kept(from).map(Self::new)
    }
}

impl<T: Keep> Keep for Arc<T> {
    fn keep(&self, into: &mut Vec<u8>) {
        T::keep(self, into);
    }

    fn kept(from: &mut &[u8]) -> Option<Self> {
        T::kept(from).map(Self::new)
    }
}

impl Keep for Box<[u8]> {
    fn keep(&self, into: &mut Vec<u8>) {
        self.len().keep(into);
        into.extend_from_slice(self);
    }

    fn kept(from: &mut &[u8]) -> Option<Self> {
        Vec::kept(from).map(Vec::into_boxed_slice)
    }
}

impl<A: Keep, B: Keep> Keep for (A, B) {
    fn keep(&self, into: &mut Vec<u8>) {
        self.0.keep(into);
        self.1.keep(into);
    }

    fn kept(from: &mut &[u8]) -> Option<Self> {
        Some((A::kept(from)?, B::kept(from)?))
    }
}

/// Many of them, behind their number.
fn keep_all<'a, T: Keep + 'a>(all: impl ExactSizeIterator<Item = &'a T>, into: &mut Vec<u8>) {
    all.len().keep(into);
    all.for_each(|one| one.keep(into));
}

fn kept_all<T: Keep, C: FromIterator<T>>(from: &mut &[u8]) -> Option<C> {
    let len = usize::kept(from)?;
    // Not more than there are bytes: what is broken asks for no memory.
    (len <= from.len()).then_some(())?;
    (0..len).map(|_| T::kept(from)).collect()
}

/// Many pairs, behind their number.
fn keep_pairs<'a, K: Keep + 'a, V: Keep + 'a>(
    all: impl ExactSizeIterator<Item = (&'a K, &'a V)>,
    into: &mut Vec<u8>,
) {
    all.len().keep(into);
    all.for_each(|(key, value)| {
        key.keep(into);
        value.keep(into);
    });
}

impl<T: Keep> Keep for Vec<T> {
    fn keep(&self, into: &mut Vec<u8>) {
        keep_all(self.iter(), into);
    }

    fn kept(from: &mut &[u8]) -> Option<Self> {
        kept_all(from)
    }
}

impl<T: Keep> Keep for VecDeque<T> {
    fn keep(&self, into: &mut Vec<u8>) {
        keep_all(self.iter(), into);
    }

    fn kept(from: &mut &[u8]) -> Option<Self> {
        kept_all(from)
    }
}

impl<T: Keep + Ord> Keep for BTreeSet<T> {
    fn keep(&self, into: &mut Vec<u8>) {
        keep_all(self.iter(), into);
    }

    fn kept(from: &mut &[u8]) -> Option<Self> {
        kept_all(from)
    }
}

impl<K: Keep + Ord, V: Keep> Keep for BTreeMap<K, V> {
    fn keep(&self, into: &mut Vec<u8>) {
        keep_pairs(self.iter(), into);
    }

    fn kept(from: &mut &[u8]) -> Option<Self> {
        kept_all(from)
    }
}

impl<K: Keep + Eq + Hash, V: Keep, S: BuildHasher + Default> Keep for HashMap<K, V, S> {
    fn keep(&self, into: &mut Vec<u8>) {
        keep_pairs(self.iter(), into);
    }

    fn kept(from: &mut &[u8]) -> Option<Self> {
        kept_all(from)
    }
}

mod words {
    use super::Keep;
    use crate::model::{
        Call, CallId, Discarded, Errno, ErrnoNumbers, Evicted, Fact, FactKind, FileId,
        FileSystemId, FileView, Gone, IncidentId, InodeKey, LossCause, Lost, MonoTime, Opened,
        ProcessId, Redirtied, StorageError, StorageErrorKind, SyncReturn, Task, Told, WriteFailed,
        WriteOk,
    };

    keep!(number MonoTime);
    keep!(number FileId);
    keep!(number CallId);
    keep!(number IncidentId);
    keep!(one of FileSystemId { 0 Uuid, 1 Device, 2 Fsid });
    keep!(struct InodeKey { fs, ino, generation, subvolume });
    keep!(struct FileView { path, from_root, mount, fs_type, dev, dev_name, deleted });
    keep!(struct ProcessId { pid, start_time });
    keep!(struct Task { process, tid, uid, comm, cgroup, kernel_thread });
    keep!(words ErrnoNumbers { Linux, FreeBsd });
    keep!(words Call { Msync, MsyncAsync, Fsync, Fdatasync, IoUring, Nfsd });
    keep!(struct Fact { at, kind });
    keep!(one of FactKind {
        0 WriteFailed, 1 WriteOk, 2 Redirtied, 3 SyncReturn, 4 Told, 5 Opened, 6 Discarded,
        7 Evicted, 8 Gone, 9 StorageError, 10 Lost,
    });
    keep!(struct WriteFailed { inode, range, errno, submitted, eviction_watched, writer, file });
    keep!(struct WriteOk { inode, range });
    keep!(struct Redirtied { inode, range });
    keep!(struct SyncReturn {
        inode, file, call, id, range, error, pending, task, file_view,
    });
    keep!(struct Told { inode, file, errno, task });
    keep!(struct Opened { inode, file });
    keep!(struct Discarded { inode, range });
    keep!(struct Evicted { inode, range });
    keep!(struct Gone { inode, deleted });
    keep!(struct StorageError { what, errno, dev, dev_name, fs_type });
    keep!(words StorageErrorKind { FlushFailed, FilesystemError, FilesystemShutdown });
    keep!(struct Lost { cause, count });
    keep!(words LossCause {
        ErrorRingFull, SyncRingFull, PageRingFull, InodeMapFull, CallMapFull, MappingsBusy,
        WalkLimit, HookMissing, BadRecord, RecordLate, ProgramSkipped, MemoryLimit, LineLost,
        BadLine, LineLate, InputCut, ProbeError, MapFull, DtraceDrops,
    });

    impl Keep for Errno {
        fn keep(&self, into: &mut Vec<u8>) {
            self.number().keep(into);
            self.numbers().keep(into);
        }

        fn kept(from: &mut &[u8]) -> Option<Self> {
            let number = u16::kept(from)?;
            Self::of(ErrnoNumbers::kept(from)?, number.into())
        }
    }
}

impl Keep for crate::model::ByteRange {
    fn keep(&self, into: &mut Vec<u8>) {
        self.start().keep(into);
        self.end().keep(into);
    }

    fn kept(from: &mut &[u8]) -> Option<Self> {
        let start = u64::kept(from)?;
        Self::new(start, u64::kept(from)?)
    }
}
