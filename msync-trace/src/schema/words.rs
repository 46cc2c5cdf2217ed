//! The small types of the model in JSON: enums as words, ranges, errors, inodes, tasks.
//!
//! Written here and not derived in the model, so that the model stays free of JSON and a renamed
//! variant does not silently rename a word on disk.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::names;
use crate::model::{
    ByteRange, Call, CallId, Coverage, Errno, ErrnoNumbers, Evidence, FileId, FileSystemId,
    FileView, InMemory, IncidentId, InodeKey, LossCause, MonoTime, ProcessId, StorageErrorKind,
    Task, ToldWho, Verified,
};

/// A type whose values are single words in every output.
pub trait Word: Copy + 'static {
    /// All values.
    const ALL: &'static [Self];
    /// The word.
    fn word(self) -> &'static str;
}

macro_rules! words {
    ($($type:ident { $($variant:ident => $word:literal,)* })*) => {$(
        impl Word for $type {
            const ALL: &'static [Self] = &[$(Self::$variant),*];
            fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                match text.as_str() {
                    $($word => Ok(Self::$variant),)*
                    other => Err(de::Error::unknown_variant(other, &[$($word),*])),
                }
            }
        }
    )*};
}
pub(super) use words;

words! {
    Call {
        Msync => "msync",
        MsyncAsync => "msync_async",
        Fsync => "fsync",
        Fdatasync => "fdatasync",
        IoUring => "io_uring",
        Nfsd => "nfsd",
    }
    ToldWho {
        Nobody => "nobody",
        Other => "other",
        Caller => "caller",
        Pending => "pending",
    }
    Coverage {
        Inside => "inside",
        Partly => "partly",
        Outside => "outside",
    }
    Evidence {
        Page => "page",
        Inode => "inode",
    }
    InMemory {
        Yes => "yes",
        Partly => "partly",
        No => "no",
        Unknown => "unknown",
    }
    Verified {
        Differs => "differs",
        Same => "same",
        Unknown => "unknown",
    }
    ErrnoNumbers {
        Linux => "Linux",
        FreeBsd => "FreeBSD",
    }
    StorageErrorKind {
        FlushFailed => "flush_failed",
        FilesystemError => "filesystem_error",
        FilesystemShutdown => "filesystem_shutdown",
    }
    LossCause {
        ErrorRingFull => "error_ring_full",
        SyncRingFull => "sync_ring_full",
        PageRingFull => "page_ring_full",
        InodeMapFull => "inode_map_full",
        CallMapFull => "call_map_full",
        MappingsBusy => "mappings_busy",
        WalkLimit => "walk_limit",
        HookMissing => "hook_missing",
        BadRecord => "bad_record",
        RecordLate => "record_late",
        ProgramSkipped => "program_skipped",
        MemoryLimit => "memory_limit",
        LineLost => "line_lost",
        BadLine => "bad_line",
        LineLate => "line_late",
        InputCut => "input_cut",
        ProbeError => "probe_error",
        MapFull => "map_full",
        DtraceDrops => "dtrace_drops",
    }
}

/// `end` is the first byte after the range, or null for "to the end of the file".
#[derive(Serialize, Deserialize)]
struct RangeMembers {
    start: u64,
    end: Option<u64>,
}

impl Serialize for ByteRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RangeMembers {
            start: self.start(),
            end: (self.end() != u64::MAX).then_some(self.end()),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ByteRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let RangeMembers { start, end } = RangeMembers::deserialize(deserializer)?;
        Self::new(start, end.unwrap_or(u64::MAX))
            .ok_or_else(|| de::Error::custom(format!("the byte range from {start} is empty")))
    }
}

#[derive(Serialize, Deserialize)]
struct ErrnoMembers<'a> {
    number: u32,
    #[serde(skip_deserializing)]
    name: Option<&'a str>,
    /// Whose number it is; not there: Linux's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    os: Option<ErrnoNumbers>,
}

impl Serialize for Errno {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ErrnoMembers {
            number: u32::from(self.number()),
            name: self.symbol(),
            os: Some(self.numbers()).filter(|numbers| *numbers != ErrnoNumbers::Linux),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Errno {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ErrnoMembers { number, os, .. } = ErrnoMembers::deserialize(deserializer)?;
        Self::of(os.unwrap_or(ErrnoNumbers::Linux), number)
            .ok_or_else(|| de::Error::custom(format!("{number} is no error number of the kernel")))
    }
}

/// A kernel device number as `major:minor`.
#[must_use]
pub fn spell_dev(dev: u32) -> String {
    FileSystemId::Device(dev).to_string()
}

/// `major:minor` as a kernel device number (12 bits and 20 bits).
#[must_use]
pub fn parse_dev(text: &str) -> Option<u32> {
    let (major, minor) = text.split_once(':')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    (major < 1 << 12 && minor < 1 << 20).then_some(major << 20 | minor)
}

/// `Option<u32>` device number as `"8:1"` or null.
pub(super) mod dev {
    use super::*;

    pub fn serialize<S: Serializer>(dev: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
        dev.map(spell_dev).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u32>, D::Error> {
        Option::<String>::deserialize(d)?
            .map(|text| {
                parse_dev(&text).ok_or_else(|| {
                    de::Error::custom(format!("{text:?} is no device number (major:minor)"))
                })
            })
            .transpose()
    }
}

/// A number that is 0 in the model where it is not known, and null in JSON.
mod zero_is_unknown {
    use super::*;

    pub fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        (*number != 0).then_some(*number).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
        Ok(Option::<u64>::deserialize(d)?.unwrap_or(0))
    }
}

/// At most one of `fs_uuid` and `dev` is not null; if both are, there is `fsid`.
#[derive(Serialize, Deserialize)]
struct InodeMembers {
    fs_uuid: Option<String>,
    #[serde(with = "dev")]
    dev: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fsid: Option<String>,
    ino: u64,
    generation: u32,
    #[serde(with = "zero_is_unknown")]
    subvolume: u64,
}

impl Serialize for InodeKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.fs.to_string();
        let (fs_uuid, dev, fsid) = match self.fs {
            FileSystemId::Uuid(_) => (Some(text), None, None),
            FileSystemId::Device(dev) => (None, Some(dev), None),
            FileSystemId::Fsid(_) => (None, None, Some(text)),
        };
        InodeMembers {
            fs_uuid,
            dev,
            fsid,
            ino: self.ino,
            generation: self.generation,
            subvolume: self.subvolume,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for InodeKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let members = InodeMembers::deserialize(deserializer)?;
        let fs = match (members.fs_uuid, members.dev, members.fsid) {
            (Some(text), None, None) => parse_uuid(&text)
                .map(FileSystemId::Uuid)
                .ok_or_else(|| de::Error::custom(format!("{text:?} is no UUID")))?,
            (None, Some(dev), None) => FileSystemId::Device(dev),
            (None, None, Some(text)) => parse_fsid(&text)
                .map(FileSystemId::Fsid)
                .ok_or_else(|| de::Error::custom(format!("{text:?} is no fsid")))?,
            _ => {
                let one = "an inode has one of fs_uuid, dev and fsid";
                return Err(de::Error::custom(one));
            }
        };
        Ok(Self {
            fs,
            ino: members.ino,
            generation: members.generation,
            subvolume: members.subvolume,
        })
    }
}

/// A filesystem by what kind of identity it has (`uuid`, `dev`, `fsid`) and the spelling of that.
#[must_use]
pub fn parse_filesystem(kind: &str, text: &str) -> Option<FileSystemId> {
    match kind {
        "uuid" => parse_uuid(text).map(FileSystemId::Uuid),
        "dev" => parse_dev(text).map(FileSystemId::Device),
        "fsid" => parse_fsid(text).map(FileSystemId::Fsid),
        _ => None,
    }
}

fn parse_fsid(text: &str) -> Option<u64> {
    let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| digits)
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| *c != '-')
        .map(|c| c.to_digit(16))
        .collect::<Option<_>>()?;
    let digits: [u32; 32] = digits.try_into().ok()?;
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::try_from(pair[0] << 4 | pair[1]).ok()?;
    }
    Some(bytes)
}

/// A 64-bit number that is a name, not a quantity: JSON readers that keep numbers as doubles
/// would round it, so it is a text.
macro_rules! hex_ids {
    ($($type:ident)*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&format_args!("{:#x}", self.0))
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.strip_prefix("0x")
                    .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                    .map(Self)
                    .ok_or_else(|| de::Error::custom(format!("{text:?} is no 0x number")))
            }
        }
    )*};
}
hex_ids! { FileId CallId }

/// A number, nothing else.
macro_rules! plain_numbers {
    ($($type:ident)*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_u64(self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                u64::deserialize(deserializer).map(Self)
            }
        }
    )*};
}
plain_numbers! { MonoTime IncidentId }

/// A struct of the model, member by member. A member that the model gains is a compile error here.
macro_rules! mirrored {
    ($($model:ident as $mirror:ident),* $(,)?) => {$(
        impl Serialize for $model {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $mirror::serialize(self, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $model {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $mirror::deserialize(deserializer)
            }
        }
    )*};
}
pub(super) use mirrored;

#[derive(Serialize, Deserialize)]
#[serde(remote = "ProcessId")]
struct ProcessIdMembers {
    pid: u32,
    #[serde(rename = "start_ns", with = "zero_is_unknown")]
    start_time: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Task")]
struct TaskMembers {
    #[serde(flatten)]
    process: ProcessId,
    tid: u32,
    uid: u32,
    #[serde(flatten, with = "names::comm")]
    comm: Vec<u8>,
    #[serde(rename = "cgroup_id", with = "zero_is_unknown")]
    cgroup: u64,
    kernel_thread: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "FileView")]
struct FileViewMembers {
    #[serde(flatten, with = "names::path")]
    path: Option<Vec<u8>>,
    from_root: bool,
    #[serde(flatten, with = "names::mount")]
    mount: Option<Vec<u8>>,
    fs_type: Option<String>,
    #[serde(with = "dev")]
    dev: Option<u32>,
    #[serde(rename = "device")]
    dev_name: Option<String>,
    deleted: bool,
}

mirrored! {
    ProcessId as ProcessIdMembers,
    Task as TaskMembers,
    FileView as FileViewMembers,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_is_named_by_uuid_or_device_never_both() {
        let key = InodeKey {
            fs: FileSystemId::Device((8 << 20) | 1),
            ino: 12,
            generation: 7,
            subvolume: 0,
        };
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(
            json,
            r#"{"fs_uuid":null,"dev":"8:1","ino":12,"generation":7,"subvolume":null}"#
        );
        assert_eq!(serde_json::from_str::<InodeKey>(&json).unwrap(), key);
        for bad in [
            r#"{"fs_uuid":null,"dev":null,"ino":12,"generation":7,"subvolume":null}"#,
            r#"{"fs_uuid":"3e6b1a00","dev":null,"ino":1,"generation":7,"subvolume":null}"#,
            r#"{"fs_uuid":null,"dev":"4096:0","ino":12,"generation":7,"subvolume":null}"#,
            r#"{"fs_uuid":null,"dev":null,"fsid":"+12345678901234a","ino":1,"generation":7,"subvolume":null}"#,
            r#"{"fs_uuid":null,"dev":"8:1","fsid":"0123456789abcdef","ino":1,"generation":7,"subvolume":null}"#,
        ] {
            assert!(serde_json::from_str::<InodeKey>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_error_of_freebsd_says_whose_number_it_is() {
        let stale = Errno::of(ErrnoNumbers::FreeBsd, 70).unwrap();
        let json = serde_json::to_string(&stale).unwrap();
        assert_eq!(json, r#"{"number":70,"name":"ESTALE","os":"FreeBSD"}"#);
        assert_eq!(serde_json::from_str::<Errno>(&json).unwrap(), stale);
        assert_eq!(
            serde_json::to_string(&Errno::EIO).unwrap(),
            r#"{"number":5,"name":"EIO"}"#
        );
    }

    #[test]
    fn an_open_end_is_null_and_an_empty_range_is_refused() {
        assert_eq!(
            serde_json::to_string(&ByteRange::ALL).unwrap(),
            r#"{"start":0,"end":null}"#
        );
        assert!(serde_json::from_str::<ByteRange>(r#"{"start":5,"end":5}"#).is_err());
    }

    #[test]
    fn a_zero_or_unknown_word_is_an_error_not_a_guess() {
        assert!(serde_json::from_str::<Errno>(r#"{"number":0,"name":null}"#).is_err());
        assert!(serde_json::from_str::<Call>("\"sync\"").is_err());
    }
}
