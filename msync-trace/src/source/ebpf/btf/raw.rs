//! The bytes of BTF: one header, one row of type records, one table of strings. Knows no C.
//!
//! The format is the kernel's `include/uapi/linux/btf.h`. Nothing here trusts a length or an
//! offset: every read goes through [`slice::get`](<[u8]>::get).

use super::BtfError;

const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;
/// The part of `struct btf_header` that every version of the format has.
const HEADER_BYTES: usize = 24;
/// `struct btf_type`: name, info, size or type.
const RECORD_BYTES: usize = 12;
/// Type ids are 32 bits wide, but the kernel takes no more than this (`BTF_MAX_TYPE`).
const MAX_TYPES: usize = 0x000f_ffff;
/// The kernel's symbols have at most 512 bytes (`KSYM_NAME_LEN`); prefixes come on top.
const MAX_NAME_BYTES: usize = 1024;

/// `BTF_KIND_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "named as in the kernel's btf.h")]
pub enum Kind {
    Int = 1,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    Datasec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 19] = [
        Self::Int,
        Self::Ptr,
        Self::Array,
        Self::Struct,
        Self::Union,
        Self::Enum,
        Self::Fwd,
        Self::Typedef,
        Self::Volatile,
        Self::Const,
        Self::Restrict,
        Self::Func,
        Self::FuncProto,
        Self::Var,
        Self::Datasec,
        Self::Float,
        Self::DeclTag,
        Self::TypeTag,
        Self::Enum64,
    ];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// How many bytes follow the record's first twelve.
    #[must_use]
    pub fn extra_bytes(self, vlen: u32) -> usize {
        let vlen = vlen as usize;
        match self {
            Self::Int | Self::Var | Self::DeclTag => 4,
            Self::Array => 12,
            Self::Struct | Self::Union | Self::Datasec | Self::Enum64 => 12 * vlen,
            Self::Enum | Self::FuncProto => 8 * vlen,
            Self::Ptr
            | Self::Fwd
            | Self::Typedef
            | Self::Volatile
            | Self::Const
            | Self::Restrict
            | Self::Func
            | Self::Float
            | Self::TypeTag => 0,
        }
    }
}

/// One type, as it stands in the file.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What it is.
    pub kind: Kind,
    /// Bit 31 of the info word; what it says depends on the kind.
    pub kind_flag: bool,
    /// How many members, enumerators or parameters follow.
    pub vlen: u32,
    /// Offset of its name among the strings; 0 is no name.
    pub name: u32,
    /// A size in bytes or a type id, depending on the kind.
    pub size_or_type: u32,
    /// What follows: members, enumerators, parameters.
    pub extra: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads the record at the start of `bytes`; `id` is for the error message.
    fn read(bytes: &'a [u8], id: u32) -> Result<Self, BtfError> {
        let truncated = BtfError::TypeTruncated { id };
        let (Some(name), Some(info), Some(size_or_type)) =
            (u32_at(bytes, 0), u32_at(bytes, 4), u32_at(bytes, 8))
        else {
            return Err(truncated);
        };
        // Linux 7.1 widened the kind to 7 bits and the count to 24; the new bits were 0 before.
        let number = (info >> 24) as u8 & 0x7f;
        let kind = Kind::from_number(number).ok_or(BtfError::UnknownKind { number, id })?;
        let vlen = info & 0x00ff_ffff;
        let end = RECORD_BYTES + kind.extra_bytes(vlen);
        let extra = bytes.get(RECORD_BYTES..end).ok_or(truncated)?;
        Ok(Self {
            kind,
            kind_flag: info >> 31 == 1,
            vlen,
            name,
            size_or_type,
            extra,
        })
    }

    /// Bytes it takes in the file.
    #[must_use]
    pub fn bytes_in_file(&self) -> usize {
        RECORD_BYTES + self.extra.len()
    }

    /// The words that follow, `N` at a time: `(name, type, offset)` of members, `(name, value)`
    /// of enumerators, `(name, type)` of parameters.
    pub fn rows<const N: usize>(&self) -> impl Iterator<Item = [u32; N]> + use<'a, N> {
        self.extra.chunks_exact(4 * N).map(|row| {
            let mut words = [0; N];
            for (word, bytes) in words.iter_mut().zip(row.chunks_exact(4)) {
                *word = u32_at(bytes, 0).unwrap_or_default();
            }
            words
        })
    }
}

/// Where the two sections of a BTF file lie.
#[derive(Clone, Copy, Debug)]
pub struct Sections {
    /// First byte of the type records.
    pub types: usize,
    /// First byte after them.
    pub types_end: usize,
    /// First byte of the strings.
    pub strings: usize,
    /// First byte after them.
    pub strings_end: usize,
}

impl Sections {
    /// Reads the header.
    pub fn read(bytes: &[u8]) -> Result<Self, BtfError> {
        let header = bytes.get(..HEADER_BYTES).ok_or(BtfError::NoHeader)?;
        match u16::from_le_bytes([header[0], header[1]]) {
            MAGIC => {}
            magic if magic.swap_bytes() == MAGIC => return Err(BtfError::BigEndian),
            magic => return Err(BtfError::Magic { magic }),
        }
        if header[2] != VERSION {
            return Err(BtfError::Version { version: header[2] });
        }
        let word = |at| u32_at(header, at).ok_or(BtfError::NoHeader);
        let header_bytes = word(4)? as usize;
        if header_bytes < HEADER_BYTES {
            return Err(BtfError::NoHeader);
        }
        let (types, types_end) = section(
            bytes,
            header_bytes,
            word(8)?,
            word(12)?,
            BtfError::TypesOutside,
        )?;
        let (strings, strings_end) = section(
            bytes,
            header_bytes,
            word(16)?,
            word(20)?,
            BtfError::StringsOutside,
        )?;
        Ok(Self {
            types,
            types_end,
            strings,
            strings_end,
        })
    }
}

/// Start and end of a section, if it lies inside the file.
fn section(
    bytes: &[u8],
    header_bytes: usize,
    offset: u32,
    len: u32,
    outside: BtfError,
) -> Result<(usize, usize), BtfError> {
    let bounds = header_bytes
        .checked_add(offset as usize)
        .and_then(|start| Some((start, start.checked_add(len as usize)?)));
    match bounds {
        Some((start, end)) if end <= bytes.len() => Ok((start, end)),
        _ => Err(outside),
    }
}

/// Where each record starts, in bytes from the start of `types`. The only pass over all types.
pub fn record_offsets(types: &[u8], first_id: u32) -> Result<Vec<u32>, BtfError> {
    // Records of real kernels take 23 bytes on average.
    let mut offsets = Vec::with_capacity(types.len() / 20);
    let mut at = 0;
    while let Some(rest) = types.get(at..).filter(|rest| !rest.is_empty()) {
        let id = first_id.saturating_add(offsets.len() as u32);
        if id as usize > MAX_TYPES {
            return Err(BtfError::TooManyTypes);
        }
        let record = Record::read(rest, id)?;
        offsets.push(u32::try_from(at).map_err(|_| BtfError::TooManyTypes)?);
        at += record.bytes_in_file();
    }
    Ok(offsets)
}

/// The record at this offset; `None` if there is none, which [`record_offsets`] has ruled out.
#[must_use]
pub fn record_at(types: &[u8], offset: u32) -> Option<Record<'_>> {
    Record::read(types.get(offset as usize..)?, 0).ok()
}

/// The string at this offset, without its final zero byte; `None` if it does not end in time.
#[must_use]
pub fn string_at(strings: &[u8], offset: u32) -> Option<&[u8]> {
    let rest = strings.get(offset as usize..)?;
    let rest = &rest[..rest.len().min(MAX_NAME_BYTES)];
    Some(&rest[..rest.iter().position(|&byte| byte == 0)?])
}

/// The little-endian word at this offset.
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(word.try_into().ok()?))
}
