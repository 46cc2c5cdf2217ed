//! The running kernel's types, read from its own BTF: where a field lies, which argument is which.
//!
//! There is no CO-RE in Rust eBPF, so user space looks offsets up here and gives them to the
//! programs. Every answer is checked against what the caller expects: a field that was renamed,
//! widened or moved into another type is an error with a sentence, never a wrong offset.
//!
//! A module's BTF is *split*: its type ids and string offsets continue after those of vmlinux,
//! so that it needs vmlinux as its base. A vmlinux keeps about 7 MB; drop it after start-up.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::{fs, io};

pub mod raw;

use raw::{Kind, Record, Sections};

/// Where the kernel shows its BTF.
const SYSFS_BTF: &str = "/sys/kernel/btf";
/// Typedefs and qualifiers behind one another; real kernels have fewer than ten.
const MAX_CHAIN: usize = 64;
/// Unnamed structs inside unnamed structs; real kernels have fewer than ten.
const MAX_NESTING: usize = 32;
/// Members looked at for one question; the biggest struct of real kernels has about 300.
const MAX_MEMBERS: usize = 1 << 17;
/// BTF does not say how wide a pointer is; the tool runs on 64-bit kernels only.
const POINTER_BYTES: u32 = 8;

/// Why a file cannot be read as BTF.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The kernel shows no such file.
    #[error("{} does not exist: the kernel was built without BTF for it, or it is not loaded", .0.display())]
    Missing(PathBuf),
    /// It exists but cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A module's name with characters that no module has.
    #[error("{0:?} is not the name of a kernel module")]
    ModuleName(String),
    /// Shorter than the header.
    #[error("BTF header is cut off")]
    NoHeader,
    /// Not BTF.
    #[error("not BTF: it starts with {magic:#06x}, not 0xeb9f")]
    Magic {
        /// What it starts with.
        magic: u16,
    },
    /// Of a big-endian machine.
    #[error("BTF of a big-endian machine; only little-endian kernels are supported")]
    BigEndian,
    /// A later format.
    #[error("BTF version {version}; only version 1 is known")]
    Version {
        /// The version it claims.
        version: u8,
    },
    /// The types reach beyond the file.
    #[error("BTF is cut off: its types reach beyond the end")]
    TypesOutside,
    /// The strings reach beyond the file.
    #[error("BTF is cut off: its strings reach beyond the end")]
    StringsOutside,
    /// The last string has no end.
    #[error("BTF strings do not end with a zero byte")]
    StringsOpen,
    /// A type reaches beyond the types.
    #[error("BTF type {id} is cut off")]
    TypeTruncated {
        /// Its id.
        id: u32,
    },
    /// A kind that is not in our list, so that its length is not known either.
    #[error("BTF type {id} is of kind {number}, which this version of msync-trace does not know")]
    UnknownKind {
        /// The kind.
        number: u8,
        /// The type.
        id: u32,
    },
    /// More types than the kernel itself would take.
    #[error("BTF has more types than the kernel allows")]
    TooManyTypes,
}

/// Why a question has no answer on this kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// No struct, union or typedef of one has this name.
    #[error("this kernel has no struct {0}")]
    Struct(String),
    /// The struct has no such member.
    #[error("struct {of} has no member {member}")]
    Member {
        /// The struct.
        of: String,
        /// The member, dotted.
        member: String,
    },
    /// A dotted path goes through something that has no members of its own.
    #[error("{member} is {is} here: it has no member of its own inside")]
    NoMembersInside {
        /// The part of the path that was found.
        member: String,
        /// What it is, as in C.
        is: String,
    },
    /// The member has another width.
    #[error("{member} is {bytes} bytes wide here, {wanted} were expected")]
    Width {
        /// Struct and member.
        member: String,
        /// Its width in bytes.
        bytes: u32,
        /// The expected one.
        wanted: u32,
    },
    /// The member is of another kind.
    #[error("{member} is {is} here, {wanted} was expected")]
    Type {
        /// Struct and member.
        member: String,
        /// What it is, as in C.
        is: String,
        /// What was expected.
        wanted: String,
    },
    /// The member does not begin and end on byte boundaries.
    #[error("{member} is a bit-field here, a whole integer was expected")]
    Bitfield {
        /// Struct and member.
        member: String,
    },
    /// Several types of this name give different answers.
    #[error("this kernel has several types named {0}, and they differ")]
    Ambiguous(String),
    /// No such function, or it was inlined everywhere.
    #[error("this kernel has no function {0} with type information")]
    Func(String),
    /// No such tracepoint.
    #[error("this kernel has no tracepoint {0} with type information")]
    Tracepoint(String),
    /// No such enumerator.
    #[error("this kernel has no enumerator {0}")]
    Enumerator(String),
    /// The BTF contradicts itself there.
    #[error("the kernel's type information about {what} is damaged: {why}")]
    Damaged {
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// What the caller knows about a member, to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect<'a> {
    /// Whatever it is.
    Any,
    /// An integer, a boolean or an enum of this many bytes.
    Int(u32),
    /// Any pointer.
    Ptr,
    /// A pointer to the struct or union of this name.
    PtrTo(&'a str),
    /// A struct or union.
    Struct,
    /// An array of this many bytes in all.
    Array(u32),
}

/// What a type is once typedefs and qualifiers are taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeKind {
    /// Nothing.
    Void,
    /// An integer or a boolean.
    Int,
    /// A pointer to anything.
    Pointer,
    /// An array.
    Array,
    /// A struct.
    Struct,
    /// A union.
    Union,
    /// An enum.
    Enum,
    /// A floating-point number.
    Float,
    /// A struct or union that is only declared.
    Forward,
    /// A function.
    Function,
}

/// A type as the caller sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Type {
    /// What it is.
    pub kind: TypeKind,
    /// Its size; 0 for void, functions and what is only declared.
    pub bytes: u32,
    /// How C writes it, typedefs and qualifiers taken off: `struct inode *`, `unsigned int`.
    pub name: String,
}

impl Type {
    /// The struct or union that it points to, by name.
    #[must_use]
    pub fn pointee(&self) -> Option<&str> {
        let target = self.name.strip_suffix(" *")?;
        target
            .strip_prefix("struct ")
            .or_else(|| target.strip_prefix("union "))
    }
}

/// Which bits of its integer a bit-field takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bitfield {
    /// From the start of the struct, in bits.
    pub offset_bits: u32,
    /// How many bits.
    pub bits: u32,
}

/// A member, found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// From the start of the struct that was asked for. Of a bit-field: the byte its first bit
    /// is in.
    pub offset_bytes: u32,
    /// Set if it is a bit-field.
    pub bitfield: Option<Bitfield>,
    /// Its type; of a bit-field the type it is declared with.
    pub ty: Type,
}

impl Member {
    /// Its width in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u32 {
        self.ty.bytes
    }
}

/// A parameter of a function. Tracepoints have types but no names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Its name; empty if BTF does not keep it.
    pub name: String,
    /// Its type.
    pub ty: Type,
}

/// What a function takes and returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FuncProto {
    /// Its parameters in order.
    pub params: Vec<Param>,
    /// What it returns.
    pub returns: Type,
    /// Whether more arguments may follow (`...`).
    pub variadic: bool,
}

impl FuncProto {
    /// The position of the parameter of this name.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.params.iter().position(|param| param.name == name)
    }

    /// The position of the first pointer to the struct of this name.
    #[must_use]
    pub fn position_of_pointer_to(&self, target: &str) -> Option<usize> {
        self.params
            .iter()
            .position(|param| param.ty.pointee() == Some(target))
    }
}

/// The types of a kernel, or of one module on top of its kernel.
#[derive(Debug)]
pub struct Btf {
    bytes: Vec<u8>,
    sections: Sections,
    /// The base of a module's BTF.
    base: Option<Arc<Btf>>,
    first_id: u32,
    first_string: u32,
    /// Where the record of each type starts, counted from the start of the types.
    offsets: Vec<u32>,
    names: OnceLock<NameIndex>,
}

impl Btf {
    /// Reads a BTF that stands for itself, as vmlinux has.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        Self::parse_above(bytes, None)
    }

    /// Reads the split BTF of a module of the kernel whose BTF is `base`.
    pub fn parse_split(bytes: Vec<u8>, base: Arc<Self>) -> Result<Self, BtfError> {
        Self::parse_above(bytes, Some(base))
    }

    /// The types of the running kernel.
    pub fn load_vmlinux() -> Result<Self, BtfError> {
        Self::load_vmlinux_from(Path::new(SYSFS_BTF))
    }

    /// The types of a loaded module (`ext4`), on top of the running kernel's.
    pub fn load_module(name: &str, base: Arc<Self>) -> Result<Self, BtfError> {
        Self::load_module_from(Path::new(SYSFS_BTF), name, base)
    }

    /// [`Self::load_vmlinux`] with another place for `/sys/kernel/btf`.
    pub fn load_vmlinux_from(sysfs_btf: &Path) -> Result<Self, BtfError> {
        Self::parse(read(sysfs_btf.join("vmlinux"))?)
    }

    /// [`Self::load_module`] with another place for `/sys/kernel/btf`.
    pub fn load_module_from(
        sysfs_btf: &Path,
        name: &str,
        base: Arc<Self>,
    ) -> Result<Self, BtfError> {
        let is_module_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || name == "vmlinux" || !name.chars().all(is_module_name) {
            return Err(BtfError::ModuleName(name.to_owned()));
        }
        Self::parse_split(read(sysfs_btf.join(name))?, base)
    }

    fn parse_above(bytes: Vec<u8>, base: Option<Arc<Self>>) -> Result<Self, BtfError> {
        let sections = Sections::read(&bytes)?;
        let strings = &bytes[sections.strings..sections.strings_end];
        // A module may have no string of its own.
        if strings.last().map_or(base.is_none(), |&last| last != 0) {
            return Err(BtfError::StringsOpen);
        }
        // Id 0 is void and stands in no file.
        let (first_id, first_string) = base
            .as_ref()
            .map_or((1, 0), |base| (base.next_id(), base.next_string()));
        let types = &bytes[sections.types..sections.types_end];
        let offsets = raw::record_offsets(types, first_id)?;
        let names = OnceLock::new();
        Ok(Self {
            bytes,
            sections,
            base,
            first_id,
            first_string,
            offsets,
            names,
        })
    }

    fn next_id(&self) -> u32 {
        self.first_id.saturating_add(self.offsets.len() as u32)
    }

    fn next_string(&self) -> u32 {
        let own = self.sections.strings_end - self.sections.strings;
        self.first_string.saturating_add(own as u32)
    }

    /// The ids of its own types; those of its base come before.
    #[must_use]
    pub fn own_ids(&self) -> std::ops::Range<u32> {
        self.first_id..self.next_id()
    }

    /// The record of this type; `None` for void and for ids that do not exist.
    #[must_use]
    pub fn record(&self, id: u32) -> Option<Record<'_>> {
        match id.checked_sub(self.first_id) {
            None => self.base.as_ref()?.record(id),
            Some(own) => {
                let offset = *self.offsets.get(own as usize)?;
                raw::record_at(
                    &self.bytes[self.sections.types..self.sections.types_end],
                    offset,
                )
            }
        }
    }

    /// The string at this offset; empty if it does not exist.
    #[must_use]
    pub fn string(&self, offset: u32) -> &[u8] {
        match (offset.checked_sub(self.first_string), &self.base) {
            (None, Some(base)) => base.string(offset),
            (None, None) => &[],
            (Some(own), _) => {
                let strings = &self.bytes[self.sections.strings..self.sections.strings_end];
                raw::string_at(strings, own).unwrap_or_default()
            }
        }
    }

    /// Where a member of a struct lies. Looks through unnamed structs and unions; a dotted path
    /// (`d_name.name`) goes through named ones. Typedefs and qualifiers do not matter.
    pub fn member(&self, of: &str, path: &str, expect: Expect<'_>) -> Result<Member, Missing> {
        let mut answers = Vec::new();
        for id in self.struct_candidates(of)? {
            let answer = self.member_of(id, of, path);
            if !answers.contains(&answer) {
                answers.push(answer);
            }
        }
        if answers.len() > 1 {
            return Err(Missing::Ambiguous(of.to_owned()));
        }
        let member = answers
            .pop()
            .unwrap_or_else(|| Err(Missing::Struct(of.to_owned())))?;
        check(&member, expect, || format!("{of}.{path}"))?;
        Ok(member)
    }

    /// The size of a struct or union in bytes.
    pub fn struct_size(&self, name: &str) -> Result<u32, Missing> {
        let mut agreed = None;
        for id in self.struct_candidates(name)? {
            let bytes = self.record(id).map_or(0, |record| record.size_or_type);
            if *agreed.get_or_insert(bytes) != bytes {
                return Err(Missing::Ambiguous(name.to_owned()));
            }
        }
        agreed.ok_or_else(|| Missing::Struct(name.to_owned()))
    }

    /// What a function takes and returns.
    pub fn func(&self, name: &str) -> Result<FuncProto, Missing> {
        let ids = self.named(name, &[Kind::Func]);
        let protos = ids
            .iter()
            .filter_map(|&id| Some(self.record(id)?.size_or_type));
        self.agreed_proto(name, protos)?
            .ok_or_else(|| Missing::Func(name.to_owned()))
    }

    /// Whether a function of this name has type information, so that fentry can find it.
    #[must_use]
    pub fn has_func(&self, name: &str) -> bool {
        !self.named(name, &[Kind::Func]).is_empty()
    }

    /// Whether a typedef of this name exists.
    #[must_use]
    pub fn has_typedef(&self, name: &str) -> bool {
        !self.named(name, &[Kind::Typedef]).is_empty()
    }

    /// The arguments of a raw tracepoint, from the type of its probes (`btf_trace_NAME`). Their
    /// first parameter, `void *__data`, is not one of the tracepoint's arguments.
    pub fn tracepoint(&self, name: &str) -> Result<FuncProto, Missing> {
        let ids = self.named(&format!("btf_trace_{name}"), &[Kind::Typedef]);
        let protos = ids.iter().filter_map(|&id| {
            let pointer = self.resolve(id).ok().and_then(|id| self.record(id))?;
            (pointer.kind == Kind::Ptr).then_some(pointer.size_or_type)
        });
        let Some(mut proto) = self.agreed_proto(name, protos)? else {
            return Err(Missing::Tracepoint(name.to_owned()));
        };
        if proto.params.is_empty() {
            return Err(damaged(name, "its probes take no argument"));
        }
        proto.params.remove(0);
        Ok(proto)
    }

    /// Whether a tracepoint of this name has type information.
    #[must_use]
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.has_typedef(&format!("btf_trace_{name}"))
    }

    /// The value of an enumerator, of the enum of this name or of any (`BTRFS_ORDERED_IOERR` is
    /// of an unnamed one).
    pub fn enum_value(&self, of: Option<&str>, enumerator: &str) -> Result<i64, Missing> {
        const ENUMS: [Kind; 2] = [Kind::Enum, Kind::Enum64];
        let mut agreed = None;
        let mut look_at = |id: u32| {
            let Some(value) = self.enumerator(id, enumerator.as_bytes()) else {
                return Ok(());
            };
            match agreed.replace(value) {
                Some(other) if other != value => Err(Missing::Ambiguous(enumerator.to_owned())),
                _ => Ok(()),
            }
        };
        match of {
            Some(name) => self
                .named(name, &ENUMS)
                .into_iter()
                .try_for_each(&mut look_at)?,
            None => self.enums().into_iter().try_for_each(&mut look_at)?,
        }
        agreed.ok_or_else(|| Missing::Enumerator(enumerator.to_owned()))
    }

    /// All enums, its base's first.
    fn enums(&self) -> Vec<u32> {
        let mut ids = self
            .base
            .as_ref()
            .map_or_else(Vec::new, |base| base.enums());
        ids.extend_from_slice(&self.names().enums);
        ids
    }

    fn enumerator(&self, id: u32, wanted: &[u8]) -> Option<i64> {
        let record = self.record(id)?;
        match record.kind {
            Kind::Enum => record
                .rows()
                .find(|&[name, _]| self.string(name) == wanted)
                .map(|[_, value]| extend(value, record.kind_flag)),
            Kind::Enum64 => record
                .rows()
                .find(|&[name, _, _]| self.string(name) == wanted)
                .map(|[_, low, high]| (u64::from(high) << 32 | u64::from(low)) as i64),
            _ => None,
        }
    }

    /// All structs that this name may mean: struct or union of the name, or what a typedef of
    /// the name stands for. Modules of some kernels carry copies of the kernel's own types; the
    /// callers compare what they say.
    fn struct_candidates(&self, name: &str) -> Result<Vec<u32>, Missing> {
        let ids = self.named(name, &[Kind::Struct, Kind::Union]);
        if !ids.is_empty() {
            return Ok(ids);
        }
        let mut structs = Vec::new();
        for id in self.named(name, &[Kind::Typedef]) {
            let id = self.resolve(id).map_err(|why| damaged(name, why))?;
            let record = self.record(id);
            if record.is_some_and(|record| matches!(record.kind, Kind::Struct | Kind::Union)) {
                structs.push(id);
            }
        }
        Ok(structs)
    }

    fn member_of(&self, id: u32, of: &str, path: &str) -> Result<Member, Missing> {
        let mut budget = MAX_MEMBERS;
        let mut inside = id;
        let mut offset_bits = 0;
        let mut found: Option<Found> = None;
        let mut walked = of.to_owned();
        for name in path.split('.') {
            if let Some(through) = &found {
                inside = self
                    .resolve(through.ty)
                    .map_err(|why| damaged(&walked, why))?;
                let has_members =
                    |record: Record<'_>| matches!(record.kind, Kind::Struct | Kind::Union);
                if !self.record(inside).is_some_and(has_members) {
                    let is = self.described(through.ty, &walked)?.name;
                    return Err(Missing::NoMembersInside { member: walked, is });
                }
                offset_bits = through.offset_bits;
            }
            found = self
                .find_member(inside, name.as_bytes(), offset_bits, 0, &mut budget)
                .map_err(|why| damaged(&walked, why))?;
            if found.is_none() {
                let (of, member) = (of.to_owned(), path.to_owned());
                return Err(Missing::Member { of, member });
            }
            let _ = write!(walked, ".{name}");
        }
        let found = found.ok_or_else(|| damaged(of, "a path has at least one part"))?;
        self.as_member(&found, &walked)
    }

    fn as_member(&self, found: &Found, walked: &str) -> Result<Member, Missing> {
        let bitfield = self.bitfield(found);
        if bitfield.is_none() && !found.offset_bits.is_multiple_of(8) {
            return Err(damaged(walked, "it does not start on a byte"));
        }
        let ty = self.described(found.ty, walked)?;
        Ok(Member {
            offset_bytes: found.offset_bits / 8,
            bitfield,
            ty,
        })
    }

    /// Old BTF keeps the width of a bit-field in its integer type, not in the member.
    fn bitfield(&self, found: &Found) -> Option<Bitfield> {
        let Found {
            ty,
            offset_bits,
            bits,
        } = *found;
        if bits != 0 {
            return Some(Bitfield { offset_bits, bits });
        }
        let int = self
            .record(self.resolve(ty).ok()?)
            .filter(|record| record.kind == Kind::Int)?;
        let [encoding] = int.rows().next()?;
        let (bits, skipped) = (encoding & 0xff, encoding >> 16 & 0xff);
        (bits != int.size_or_type.checked_mul(8)?).then_some(Bitfield {
            offset_bits: offset_bits.checked_add(skipped)?,
            bits,
        })
    }

    /// Looks for a member by name, through unnamed structs and unions.
    fn find_member(
        &self,
        inside: u32,
        wanted: &[u8],
        base_bits: u32,
        depth: usize,
        budget: &mut usize,
    ) -> Result<Option<Found>, &'static str> {
        if depth > MAX_NESTING {
            return Err("unnamed structs are nested too deeply");
        }
        let record = self.record(inside).ok_or("a type does not exist")?;
        for [name, ty, offset] in record.rows() {
            *budget = budget.checked_sub(1).ok_or("it has too many members")?;
            // With the flag, the upper eight bits hold the width of a bit-field.
            let (bits, offset) = if record.kind_flag {
                (offset >> 24, offset & 0x00ff_ffff)
            } else {
                (0, offset)
            };
            let offset_bits = base_bits
                .checked_add(offset)
                .ok_or("an offset is too big")?;
            let name = self.string(name);
            if name == wanted && !name.is_empty() {
                return Ok(Some(Found {
                    ty,
                    offset_bits,
                    bits,
                }));
            }
            if name.is_empty() && bits == 0 {
                let ty = self.resolve(ty)?;
                let kind = self.record(ty).map(|record| record.kind);
                if matches!(kind, Some(Kind::Struct | Kind::Union))
                    && let Some(found) =
                        self.find_member(ty, wanted, offset_bits, depth + 1, budget)?
                {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// Takes typedefs, qualifiers and tags off.
    fn resolve(&self, mut id: u32) -> Result<u32, &'static str> {
        for _ in 0..MAX_CHAIN {
            match self.record(id) {
                Some(record) if is_transparent(record.kind) => id = record.size_or_type,
                Some(_) => return Ok(id),
                None if id == 0 => return Ok(0),
                None => return Err("a type does not exist"),
            }
        }
        Err("typedefs go in a circle")
    }

    fn described(&self, id: u32, what: &str) -> Result<Type, Missing> {
        self.describe(id, 0).map_err(|why| damaged(what, why))
    }

    fn describe(&self, id: u32, depth: usize) -> Result<Type, &'static str> {
        if depth > MAX_NESTING {
            return Err("pointers and arrays are nested too deeply");
        }
        let id = self.resolve(id)?;
        let Some(record) = self.record(id) else {
            return Ok(Type {
                kind: TypeKind::Void,
                bytes: 0,
                name: "void".to_owned(),
            });
        };
        let own_name = String::from_utf8_lossy(self.string(record.name));
        let size = record.size_or_type;
        let (kind, bytes, name) = match record.kind {
            Kind::Int => (TypeKind::Int, size, own_name.into_owned()),
            Kind::Float => (TypeKind::Float, size, own_name.into_owned()),
            Kind::Struct => (TypeKind::Struct, size, format!("struct {own_name}")),
            Kind::Union => (TypeKind::Union, size, format!("union {own_name}")),
            Kind::Enum | Kind::Enum64 => (TypeKind::Enum, size, format!("enum {own_name}")),
            Kind::Fwd => {
                let word = if record.kind_flag { "union" } else { "struct" };
                (TypeKind::Forward, 0, format!("{word} {own_name}"))
            }
            Kind::Ptr => {
                let target = self.describe(record.size_or_type, depth + 1)?.name;
                let star = if target.ends_with('*') { "*" } else { " *" };
                (TypeKind::Pointer, POINTER_BYTES, target + star)
            }
            Kind::Array => {
                let [element, _, count] = record.rows().next().ok_or("an array has no element")?;
                let element = self.describe(element, depth + 1)?;
                let bytes = element
                    .bytes
                    .checked_mul(count)
                    .ok_or("an array is too big")?;
                (
                    TypeKind::Array,
                    bytes,
                    format!("{} [{count}]", element.name),
                )
            }
            Kind::Func | Kind::FuncProto => (TypeKind::Function, 0, "function".to_owned()),
            Kind::Var | Kind::Datasec | Kind::DeclTag => return Err("a variable is no type"),
            Kind::Typedef | Kind::Volatile | Kind::Const | Kind::Restrict | Kind::TypeTag => {
                return Err("typedefs go in a circle");
            }
        };
        Ok(Type { kind, bytes, name })
    }

    /// The prototype that all these types are, `None` if there are none.
    fn agreed_proto(
        &self,
        name: &str,
        ids: impl Iterator<Item = u32>,
    ) -> Result<Option<FuncProto>, Missing> {
        let mut agreed: Option<FuncProto> = None;
        for id in ids {
            let proto = self.proto(id).map_err(|why| damaged(name, why))?;
            match &agreed {
                Some(other) if *other != proto => {
                    return Err(Missing::Ambiguous(name.to_owned()));
                }
                _ => agreed = Some(proto),
            }
        }
        Ok(agreed)
    }

    fn proto(&self, id: u32) -> Result<FuncProto, &'static str> {
        let record = self.record(id).ok_or("a type does not exist")?;
        if record.kind != Kind::FuncProto {
            return Err("a function has no prototype");
        }
        // BPF programs have at most five arguments, kernel functions a handful more.
        if record.vlen > 255 {
            return Err("a function has too many parameters");
        }
        let mut params = Vec::with_capacity(record.vlen as usize);
        let mut variadic = false;
        for [name, ty] in record.rows() {
            if name == 0 && ty == 0 {
                variadic = true;
                continue;
            }
            let name = String::from_utf8_lossy(self.string(name)).into_owned();
            params.push(Param {
                name,
                ty: self.describe(ty, 0)?,
            });
        }
        let returns = self.describe(record.size_or_type, 0)?;
        Ok(FuncProto {
            params,
            returns,
            variadic,
        })
    }

    /// Made when first needed: it costs more than all the rest of reading.
    fn names(&self) -> &NameIndex {
        self.names.get_or_init(|| NameIndex::of(self))
    }

    /// The types of this name and these kinds, its base's first.
    fn named(&self, name: &str, kinds: &[Kind]) -> Vec<u32> {
        let mut ids = self
            .base
            .as_ref()
            .map_or_else(Vec::new, |base| base.named(name, kinds));
        ids.extend(self.names().candidates(name.as_bytes()).filter_map(|own| {
            let id = self.first_id + own;
            let record = self.record(id)?;
            (kinds.contains(&record.kind) && self.string(record.name) == name.as_bytes())
                .then_some(id)
        }));
        ids
    }
}

/// A member, not yet described.
struct Found {
    ty: u32,
    offset_bits: u32,
    /// Width of a bit-field, 0 for others.
    bits: u32,
}

/// Finds types by name without keeping a single name: chains of types whose names hash alike.
#[derive(Debug)]
struct NameIndex {
    /// First type of each chain.
    heads: Vec<u32>,
    /// The type that follows in the chain, for each of our own types.
    next: Vec<u32>,
    /// The ids of all enums, also of those without a name.
    enums: Vec<u32>,
}

impl NameIndex {
    const END: u32 = u32::MAX;

    fn of(btf: &Btf) -> Self {
        let count = btf.offsets.len();
        let mut heads = vec![Self::END; (count / 2).next_power_of_two()];
        let mut next = vec![Self::END; count];
        let mut enums = Vec::new();
        // Backwards, so that each chain goes in the order of ids.
        for own in (0..count as u32).rev() {
            let id = btf.first_id + own;
            let Some(record) = btf.record(id) else {
                continue;
            };
            if matches!(record.kind, Kind::Enum | Kind::Enum64) {
                enums.push(id);
            }
            if Self::is_asked_for(record.kind) && record.name != 0 {
                let head = &mut heads[Self::slot(btf.string(record.name), count)];
                next[own as usize] = std::mem::replace(head, own);
            }
        }
        enums.reverse();
        Self { heads, next, enums }
    }

    fn is_asked_for(kind: Kind) -> bool {
        use Kind::{Enum, Enum64, Func, Struct, Typedef, Union};
        matches!(kind, Struct | Union | Enum | Enum64 | Func | Typedef)
    }

    fn slot(name: &[u8], count: usize) -> usize {
        // Eight bytes at a time: 90,000 names are hashed at start-up.
        let hash = name.chunks(8).fold(name.len() as u64, |hash, chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        let slots = (count / 2).next_power_of_two();
        (hash >> 32) as usize & (slots - 1)
    }

    fn candidates(&self, name: &[u8]) -> impl Iterator<Item = u32> {
        let own = |index: u32| (index != Self::END).then_some(index);
        let first = own(self.heads[Self::slot(name, self.next.len())]);
        std::iter::successors(first, move |&index| own(self.next[index as usize]))
    }
}

fn read(path: PathBuf) -> Result<Vec<u8>, BtfError> {
    fs::read(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => BtfError::Missing(path),
        _ => BtfError::Read { path, source },
    })
}

fn damaged(what: &str, why: &'static str) -> Missing {
    Missing::Damaged {
        what: what.to_owned(),
        why,
    }
}

fn is_transparent(kind: Kind) -> bool {
    use Kind::{Const, Restrict, TypeTag, Typedef, Volatile};
    matches!(kind, Typedef | Const | Volatile | Restrict | TypeTag)
}

/// The value of a 32-bit enumerator.
fn extend(value: u32, signed: bool) -> i64 {
    if signed {
        i64::from(value as i32)
    } else {
        i64::from(value)
    }
}

fn check(member: &Member, expect: Expect<'_>, called: impl Fn() -> String) -> Result<(), Missing> {
    use TypeKind::{Array, Enum, Int, Pointer, Struct, Union};
    let kind = member.ty.kind;
    let (fits, wanted, bytes) = match expect {
        Expect::Any => return Ok(()),
        Expect::Int(bytes) => (matches!(kind, Int | Enum), "an integer".to_owned(), bytes),
        Expect::Ptr => (kind == Pointer, "a pointer".to_owned(), POINTER_BYTES),
        Expect::PtrTo(target) => {
            let fits = member.ty.pointee() == Some(target);
            (fits, format!("struct {target} *"), POINTER_BYTES)
        }
        Expect::Struct => (
            matches!(kind, Struct | Union),
            "a struct".to_owned(),
            member.ty.bytes,
        ),
        Expect::Array(bytes) => (kind == Array, "an array".to_owned(), bytes),
    };
    if !fits {
        let is = member.ty.name.clone();
        return Err(Missing::Type {
            member: called(),
            is,
            wanted,
        });
    }
    if member.bitfield.is_some() {
        return Err(Missing::Bitfield { member: called() });
    }
    if member.ty.bytes != bytes {
        return Err(Missing::Width {
            member: called(),
            bytes: member.ty.bytes,
            wanted: bytes,
        });
    }
    Ok(())
}
