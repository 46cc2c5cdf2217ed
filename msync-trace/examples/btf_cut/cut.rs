//! Cuts a kernel's BTF down to the types that the tests ask for, so that real BTF fits into the
//! repository.
//!
//!     btf_cut ROOTS OUT_DIR VMLINUX.btf [MODULE.btf ...]
//!
//! ROOTS has one type per line: `struct inode`, `func vfs_fsync_range`, `tracepoint
//! ext4_evict_inode`, `enumerator BTRFS_ORDERED_IOERR`. What a kernel does not have is left out.
//! Kept are these types and what they are made of; of other structs only the size, if a kept one
//! contains them, or the name, if a kept one points to them. Every module is cut on top of the
//! same cut vmlinux, as split BTF.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs};

use anyhow::{Context as _, Result, bail, ensure};
use msync_trace::source::ebpf::btf::Btf;
use msync_trace::source::ebpf::btf::raw::{Kind, Record};

/// The whole program.
pub fn main() -> Result<()> {
    let args: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [roots, out_dir, vmlinux, modules @ ..] = args.as_slice() else {
        bail!("usage: btf_cut ROOTS OUT_DIR VMLINUX.btf [MODULE.btf ...]");
    };
    let roots = Roots::read(roots)?;
    let base = Arc::new(Btf::parse(fs::read(vmlinux)?)?);
    let mut layers = vec![Arc::clone(&base)];
    for module in modules {
        layers.push(Arc::new(Btf::parse_split(
            fs::read(module)?,
            Arc::clone(&base),
        )?));
    }

    let mut cut = Cut {
        layers,
        roots,
        kept: BTreeMap::new(),
    };
    for layer in 0..cut.layers.len() {
        cut.keep_roots(layer);
    }

    fs::create_dir_all(out_dir)?;
    let mut base_strings = Strings::default();
    base_strings.offset_of(b"");
    let base_ids = cut.numbered(0, 1);
    write(
        out_dir,
        vmlinux,
        &cut.records(0, &base_ids, &mut base_strings),
        &base_strings,
    )?;
    for (layer, module) in modules
        .iter()
        .enumerate()
        .map(|(nth, module)| (nth + 1, module))
    {
        let mut ids = cut.numbered(layer, base_ids.len() as u32 + 1);
        ids.extend(base_ids.iter().map(|(&key, &id)| (key, id)));
        let mut strings = Strings::above(&base_strings);
        write(
            out_dir,
            module,
            &cut.records(layer, &ids, &mut strings),
            &strings,
        )?;
    }
    Ok(())
}

/// The names to keep, by what they name.
struct Roots(HashSet<(String, String)>);

impl Roots {
    fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut roots = HashSet::new();
        for line in lines {
            let (what, name) = line.split_once(' ').with_context(|| line.to_owned())?;
            ensure!(
                ["struct", "func", "tracepoint", "enumerator"].contains(&what),
                "{line}"
            );
            roots.insert((what.to_owned(), name.to_owned()));
        }
        Ok(Self(roots))
    }

    fn has(&self, what: &str, name: &[u8]) -> bool {
        let name = String::from_utf8_lossy(name).into_owned();
        self.0.contains(&(what.to_owned(), name))
    }
}

/// How much of a type stays, the least first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Keep {
    /// Of a struct: that it exists.
    Name,
    /// Of a struct or an enum: its size.
    Size,
    /// Everything.
    All,
}

/// A type: the layer its record is in (0 is vmlinux), and its id there.
type Key = (usize, u32);

struct Cut {
    /// vmlinux, then the modules, each split above vmlinux.
    layers: Vec<Arc<Btf>>,
    roots: Roots,
    kept: BTreeMap<Key, Keep>,
}

impl Cut {
    fn record(&self, (layer, id): Key) -> Option<Record<'_>> {
        self.layers[layer].record(id)
    }

    fn name(&self, (layer, _): Key, offset: u32) -> &[u8] {
        self.layers[layer].string(offset)
    }

    /// Where a type that a record of `layer` refers to is.
    fn key(&self, layer: usize, id: u32) -> Key {
        if self.layers[0].own_ids().contains(&id) {
            (0, id)
        } else {
            (layer, id)
        }
    }

    fn keep_roots(&mut self, layer: usize) {
        for id in self.layers[layer].own_ids() {
            if self.is_root((layer, id)) {
                self.keep((layer, id), Keep::All);
            }
        }
    }

    fn is_root(&self, key: Key) -> bool {
        let Some(record) = self.record(key) else {
            return false;
        };
        let name = self.name(key, record.name);
        let has_root = |offset: u32| self.roots.has("enumerator", self.name(key, offset));
        match record.kind {
            Kind::Struct | Kind::Union => self.roots.has("struct", name),
            Kind::Func => self.roots.has("func", name),
            Kind::Typedef => {
                let tracepoint = name.strip_prefix(b"btf_trace_");
                tracepoint.is_some_and(|name| self.roots.has("tracepoint", name))
                    || self.roots.has("struct", name)
            }
            Kind::Enum => record.rows().any(|[name, _]| has_root(name)),
            Kind::Enum64 => record.rows().any(|[name, _, _]| has_root(name)),
            _ => false,
        }
    }

    /// Keeps a type and what it is made of.
    fn keep(&mut self, key: Key, how: Keep) {
        if key.1 == 0 || self.kept.get(&key).is_some_and(|&kept| kept >= how) {
            return;
        }
        self.kept.insert(key, how);
        let Some(record) = self.record(key) else {
            return;
        };
        let target = self.key(key.0, record.size_or_type);
        match record.kind {
            Kind::Typedef if self.is_root(key) => self.keep_probe_type(target),
            Kind::Typedef | Kind::Const | Kind::Volatile | Kind::Restrict | Kind::TypeTag => {
                self.keep_inside(target, how);
            }
            Kind::Ptr => self.keep_inside(target, Keep::Name),
            Kind::Func => self.keep(target, Keep::All),
            Kind::Array => {
                for [element, index, _] in record.rows().collect::<Vec<[u32; 3]>>() {
                    self.keep_inside(self.key(key.0, element), Keep::Size);
                    self.keep_inside(self.key(key.0, index), Keep::Size);
                }
            }
            Kind::Struct | Kind::Union if how == Keep::All => {
                for [_, ty, _] in record.rows().collect::<Vec<[u32; 3]>>() {
                    self.keep_inside(self.key(key.0, ty), Keep::Size);
                }
            }
            Kind::FuncProto if how == Keep::All => {
                let params: Vec<[u32; 2]> = record.rows().collect();
                for ty in params.into_iter().map(|[_, ty]| ty).chain([target.1]) {
                    self.keep_inside(self.key(key.0, ty), Keep::Size);
                }
            }
            _ => {}
        }
    }

    /// The pointer behind a tracepoint's typedef, and the prototype behind that; or the struct
    /// behind a typedef that is a root.
    fn keep_probe_type(&mut self, target: Key) {
        let Some(record) = self.record(target) else {
            return;
        };
        let pointee = self.key(target.0, record.size_or_type);
        if record.kind == Kind::Ptr {
            self.keep(pointee, Keep::All);
        }
        self.keep(target, Keep::All);
    }

    /// Keeps a type that a kept one contains (`Size`) or points to (`Name`).
    fn keep_inside(&mut self, key: Key, how: Keep) {
        let Some(record) = self.record(key) else {
            return;
        };
        let unnamed = self.name(key, record.name).is_empty();
        match record.kind {
            Kind::Struct | Kind::Union if unnamed && how == Keep::Name => {}
            Kind::Struct | Kind::Union if unnamed || self.is_root(key) => {
                self.keep(key, Keep::All);
            }
            _ => self.keep(key, how),
        }
    }

    /// New ids for what is kept of a layer.
    fn numbered(&self, layer: usize, first: u32) -> HashMap<Key, u32> {
        let own = self.kept.keys().filter(|key| key.0 == layer);
        own.copied().zip(first..).collect()
    }

    fn records(&self, layer: usize, ids: &HashMap<Key, u32>, strings: &mut Strings) -> Vec<u8> {
        let mut words: Vec<u32> = Vec::new();
        for (&key, &how) in self.kept.iter().filter(|(key, _)| key.0 == layer) {
            let Some(record) = self.record(key) else {
                continue;
            };
            let new_id = |id: u32| ids.get(&self.key(layer, id)).copied().unwrap_or(0);
            let mut new_name = |offset: u32| strings.offset_of(self.name(key, offset));
            let name = new_name(record.name);
            let info = |kind: Kind, vlen: u32, flag: bool| {
                u32::from(flag) << 31 | (kind as u32) << 24 | vlen
            };
            let whole = info(record.kind, record.vlen, record.kind_flag);
            match record.kind {
                Kind::Struct | Kind::Union if how == Keep::Name => {
                    words.extend([name, info(Kind::Fwd, 0, record.kind == Kind::Union), 0]);
                }
                Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 if how != Keep::All => {
                    words.extend([name, info(record.kind, 0, false), record.size_or_type]);
                }
                Kind::FuncProto if how != Keep::All => {
                    words.extend([name, info(record.kind, 0, false), 0]);
                }
                Kind::Struct | Kind::Union => {
                    words.extend([name, whole, record.size_or_type]);
                    for [name, ty, offset] in record.rows() {
                        words.extend([new_name(name), new_id(ty), offset]);
                    }
                }
                Kind::Enum => {
                    words.extend([name, whole, record.size_or_type]);
                    words.extend(
                        record
                            .rows()
                            .flat_map(|[name, value]| [new_name(name), value]),
                    );
                }
                Kind::Enum64 => {
                    words.extend([name, whole, record.size_or_type]);
                    for [name, low, high] in record.rows() {
                        words.extend([new_name(name), low, high]);
                    }
                }
                Kind::FuncProto => {
                    words.extend([name, whole, new_id(record.size_or_type)]);
                    for [name, ty] in record.rows() {
                        words.extend([new_name(name), new_id(ty)]);
                    }
                }
                Kind::Array => {
                    words.extend([name, whole, 0]);
                    for [element, index, count] in record.rows() {
                        words.extend([new_id(element), new_id(index), count]);
                    }
                }
                Kind::Int | Kind::Float | Kind::Fwd => {
                    words.extend([name, whole, record.size_or_type]);
                    words.extend(record.rows().map(|[word]| word));
                }
                _ => words.extend([name, whole, new_id(record.size_or_type)]),
            }
        }
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

/// A table of strings that follows another one's.
#[derive(Default)]
struct Strings {
    offsets: HashMap<Vec<u8>, u32>,
    first: u32,
    bytes: Vec<u8>,
}

impl Strings {
    fn above(base: &Self) -> Self {
        let first = base.bytes.len() as u32;
        Self {
            offsets: base.offsets.clone(),
            first,
            bytes: Vec::new(),
        }
    }

    fn offset_of(&mut self, string: &[u8]) -> u32 {
        if let Some(&offset) = self.offsets.get(string) {
            return offset;
        }
        let offset = self.first + self.bytes.len() as u32;
        self.bytes.extend_from_slice(string);
        self.bytes.push(0);
        self.offsets.insert(string.to_owned(), offset);
        offset
    }
}

fn write(out_dir: &Path, source: &Path, types: &[u8], strings: &Strings) -> Result<()> {
    let (types_len, strings_len) = (types.len() as u32, strings.bytes.len() as u32);
    let mut file = vec![0x9f, 0xeb, 1, 0];
    for word in [24, 0, types_len, types_len, strings_len] {
        file.extend(word.to_le_bytes());
    }
    file.extend(types);
    file.extend(&strings.bytes);
    let path = out_dir.join(source.file_name().context("a file name")?);
    println!("{}: {} bytes", path.display(), file.len());
    fs::write(&path, file).with_context(|| path.display().to_string())
}
