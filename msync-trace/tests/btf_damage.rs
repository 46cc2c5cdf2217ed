//! BTF that no compiler made: cut off, overwritten, contradicting itself. It may cost answers,
//! never the process.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use msync_trace::source::ebpf::btf::raw::Kind;
use msync_trace::source::ebpf::btf::{Btf, BtfError, Expect, Missing};

fn fixture(file: &str) -> Vec<u8> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/btf");
    fs::read(dir.join(file)).expect("a fixture")
}

/// Asks everything that start-up asks, and more; the answers do not matter here.
fn interrogate(btf: &Btf) {
    const MEMBERS: [(&str, &str); 12] = [
        ("file", "f_path.dentry"),
        ("inode", "i_nlink"),
        ("inode", "i_generation"),
        ("folio", "index"),
        ("dentry", "d_name.name"),
        ("super_block", "s_id"),
        ("vm_area_struct", "vm_flags"),
        ("task_struct", "thread_info.status"),
        ("btrfs_inode", "vfs_inode.i_ino"),
        ("ext4_io_end", "list_vec.next"),
        ("mpage_da_data", "do_map"),
        ("atomic_t", "counter"),
    ];
    for (of, path) in MEMBERS {
        for expect in [Expect::Any, Expect::Int(4), Expect::PtrTo("dentry")] {
            let _ = btf
                .member(of, path, expect)
                .map_err(|missing| missing.to_string());
        }
        let _ = btf.struct_size(of);
    }
    for func in ["vfs_fsync_range", "do_writepages", "ext4_end_bio"] {
        let _ = btf.func(func).map(|proto| proto.position("inode"));
    }
    for tracepoint in [
        "sys_enter",
        "btrfs_ordered_extent_remove",
        "ext4_writepages_result",
    ] {
        let _ = btf
            .tracepoint(tracepoint)
            .map(|proto| proto.position_of_pointer_to("inode"));
    }
    let _ = btf.enum_value(None, "BTRFS_ORDERED_IOERR");
}

#[test]
fn cut_off_after_any_byte_it_is_refused() {
    let whole = fixture("6.1/vmlinux.btf");
    for len in 0..whole.len() {
        let error = Btf::parse(whole[..len].to_vec()).expect_err("every byte is needed");
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn cut_off_after_any_byte_a_module_is_refused() {
    let base = Arc::new(Btf::parse(fixture("7.2/vmlinux.btf")).unwrap());
    let whole = fixture("7.2/btrfs.btf");
    for len in 0..whole.len() {
        Btf::parse_split(whole[..len].to_vec(), Arc::clone(&base)).unwrap_err();
    }
    interrogate(&Btf::parse_split(whole, base).unwrap());
}

/// Types and strings cut off, but the header says so: a smaller set of answers.
#[test]
fn with_any_number_of_types_it_answers_or_says_why_not() {
    let whole = fixture("6.12/btrfs.btf");
    let base = Arc::new(Btf::parse(fixture("6.12/vmlinux.btf")).unwrap());
    let types_len = u32::from_le_bytes(whole[12..16].try_into().unwrap());
    for len in (0..=types_len).step_by(4) {
        let mut shorter = whole.clone();
        shorter[12..16].copy_from_slice(&len.to_le_bytes());
        if let Ok(btf) = Btf::parse_split(shorter, Arc::clone(&base)) {
            interrogate(&btf);
        }
    }
}

/// A module is read above a kernel that is not its own.
#[test]
fn above_the_wrong_kernel_it_answers_or_says_why_not() {
    for base in ["5.10", "6.1", "6.12", "6.18"] {
        let base = Arc::new(Btf::parse(fixture(&format!("{base}/vmlinux.btf"))).unwrap());
        for module in ["ext4", "xfs", "btrfs"] {
            let module = fixture(&format!("7.2/{module}.btf"));
            interrogate(&Btf::parse_split(module, Arc::clone(&base)).unwrap());
        }
    }
    // Above nothing at all, all its ids and strings mean something else.
    if let Ok(btf) = Btf::parse(fixture("7.2/btrfs.btf")) {
        interrogate(&btf);
    }
}

/// Marsaglia's xorshift64: the same damage in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.roll() % limit as u64) as usize
    }
}

#[test]
fn overwritten_bytes_never_cost_the_process() {
    let whole = fixture("6.18/vmlinux.btf");
    let module = fixture("7.2/btrfs.btf");
    let base = fixture("7.2/vmlinux.btf");
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut damage = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        for _ in 0..1 + dice.below(40) {
            let at = dice.below(bytes.len());
            bytes[at] = match dice.below(4) {
                0 => bytes[at] ^ 1 << dice.below(8),
                1 => 0xff,
                2 => 0,
                _ => dice.roll() as u8,
            };
        }
        bytes
    };
    let mut readable = 0;
    for _ in 0..1_500 {
        if let Ok(btf) = Btf::parse(damage(&whole)) {
            interrogate(&btf);
            readable += 1;
        }
        if let Ok(base) = Btf::parse(damage(&base))
            && let Ok(btf) = Btf::parse_split(damage(&module), Arc::new(base))
        {
            interrogate(&btf);
            readable += 1;
        }
    }
    assert!(
        readable > 100,
        "too little damage passed the first check: {readable}"
    );
}

/// Writes BTF by hand.
#[derive(Default)]
struct Writer {
    words: Vec<u32>,
    strings: Vec<u8>,
    first_id: u32,
    first_string: u32,
    types: u32,
}

impl Writer {
    fn new() -> Self {
        Self {
            strings: vec![0],
            first_id: 1,
            ..Self::default()
        }
    }

    fn above(base: &Self) -> Self {
        Self {
            first_id: base.first_id + base.types,
            first_string: base.first_string + base.strings.len() as u32,
            ..Self::default()
        }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let offset = self.first_string + self.strings.len() as u32;
        self.strings.extend(name.bytes().chain([0]));
        offset
    }

    /// Adds a record; `info` is `vlen`.
    fn ty(&mut self, kind: Kind, name: &str, vlen: u32, word: u32, extra: &[u32]) -> u32 {
        let name = self.name(name);
        self.words.extend([name, (kind as u32) << 24 | vlen, word]);
        self.words.extend(extra);
        self.types += 1;
        self.first_id + self.types - 1
    }

    fn int(&mut self, name: &str, bytes: u32) -> u32 {
        self.ty(Kind::Int, name, 0, bytes, &[bytes * 8])
    }

    fn structure(&mut self, name: &str, bytes: u32, members: &[(&str, u32, u32)]) -> u32 {
        let rows: Vec<u32> = members
            .iter()
            .flat_map(|&(name, ty, offset_bits)| [self.name(name), ty, offset_bits])
            .collect();
        self.ty(Kind::Struct, name, members.len() as u32, bytes, &rows)
    }

    fn bytes(&self) -> Vec<u8> {
        let types_len = 4 * self.words.len() as u32;
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, types_len, types_len, self.strings.len() as u32]
            .iter()
            .chain(&self.words)
        {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(&self.strings);
        bytes
    }

    fn read(&self) -> Btf {
        Btf::parse(self.bytes()).unwrap()
    }
}

#[test]
fn other_files_are_refused_by_name() {
    let refused = |bytes: &[u8]| Btf::parse(bytes.to_vec()).unwrap_err().to_string();
    assert_eq!(refused(b""), "BTF header is cut off");
    let good = Writer::new().bytes();
    let mut big_endian = good.clone();
    big_endian.swap(0, 1);
    assert!(refused(&big_endian).starts_with("BTF of a big-endian machine"));
    let mut elf = good.clone();
    elf[..2].copy_from_slice(b"\x7fE");
    assert_eq!(refused(&elf), "not BTF: it starts with 0x457f, not 0xeb9f");
    let mut later = good;
    later[2] = 2;
    assert_eq!(refused(&later), "BTF version 2; only version 1 is known");
}

#[test]
fn a_kind_that_we_do_not_know_is_named() {
    let mut writer = Writer::new();
    writer.int("int", 4);
    writer.words.extend([0, 20 << 24, 0]);
    let error = Btf::parse(writer.bytes()).unwrap_err();
    assert!(
        matches!(error, BtfError::UnknownKind { number: 20, id: 2 }),
        "{error}"
    );
}

#[test]
fn every_kind_has_the_length_that_the_kernel_gives_it() {
    let mut writer = Writer::new();
    for kind in Kind::ALL {
        let extra = vec![0; kind.extra_bytes(2) / 4];
        writer.ty(kind, "", 2, 0, &extra);
    }
    assert_eq!(writer.read().own_ids(), 1..20);
}

#[test]
fn typedefs_in_a_circle_end() {
    let mut writer = Writer::new();
    writer.ty(Kind::Typedef, "a", 0, 2, &[]);
    writer.ty(Kind::Const, "", 0, 1, &[]);
    writer.structure("s", 8, &[("x", 1, 0), ("", 2, 0)]);
    let btf = writer.read();
    for path in ["x", "x.y", "z"] {
        let error = btf.member("s", path, Expect::Any).unwrap_err();
        assert!(
            error.to_string().ends_with("typedefs go in a circle"),
            "{error}"
        );
    }
    assert!(btf.member("a", "x", Expect::Any).is_err());
}

#[test]
fn a_struct_that_contains_itself_ends() {
    let mut writer = Writer::new();
    // Two unnamed copies of itself at every level: 2 to the power of the depth to look at.
    let members = [("", 1, 0), ("", 1, 0), ("x", 1, 0)];
    writer.structure("s", 8, &members);
    let mut tower = Writer::new();
    for id in 2..60 {
        tower.structure("", 8, &[("", id, 0), ("", id, 0)]);
    }
    tower.structure("s", 8, &[("", 1, 0)]);
    for btf in [writer.read(), tower.read()] {
        let error = btf.member("s", "y", Expect::Any).unwrap_err();
        assert!(matches!(error, Missing::Damaged { .. }), "{error}");
    }
}

#[test]
fn pointers_and_arrays_without_end_end() {
    let mut writer = Writer::new();
    writer.ty(Kind::Ptr, "", 0, 1, &[]);
    writer.ty(Kind::Array, "", 0, 0, &[2, 2, 2]);
    let int = writer.int("int", 4);
    writer.ty(Kind::Array, "", 0, 0, &[int, int, u32::MAX]);
    writer.structure(
        "s",
        8,
        &[("p", 1, 0), ("a", 2, 0), ("big", 4, 0), ("gone", 99, 0)],
    );
    let btf = writer.read();
    for path in ["p", "a", "big", "gone"] {
        let error = btf.member("s", path, Expect::Any).unwrap_err();
        assert!(matches!(error, Missing::Damaged { .. }), "{error}");
    }
}

#[test]
fn the_same_struct_twice_is_fine_and_two_different_ones_are_not() {
    let mut base = Writer::new();
    let int = base.int("int", 4);
    base.structure("inode", 8, &[("mode", int, 0), ("flags", int, 32)]);
    base.structure("other", 4, &[("x", int, 0)]);
    let mut module = Writer::above(&base);
    // What modules of Debian's 6.18.15 have: a copy of the kernel's own type.
    module.structure("inode", 8, &[("mode", int, 0), ("flags", int, 32)]);
    // Another struct that happens to have the same name.
    module.structure("other", 8, &[("y", int, 0), ("x", int, 32)]);
    module.structure("private", 4, &[("x", int, 0)]);
    let base = Arc::new(base.read());
    let module = Btf::parse_split(module.bytes(), Arc::clone(&base)).unwrap();
    assert_eq!(
        module
            .member("inode", "flags", Expect::Int(4))
            .unwrap()
            .offset_bytes,
        4
    );
    assert_eq!(module.struct_size("inode"), Ok(8));
    assert_eq!(
        module
            .member("private", "x", Expect::Int(4))
            .unwrap()
            .offset_bytes,
        0
    );
    let ambiguous = Err(Missing::Ambiguous("other".to_owned()));
    assert_eq!(module.member("other", "x", Expect::Any), ambiguous);
    assert_eq!(module.member("other", "y", Expect::Any), ambiguous);
    assert_eq!(
        module.struct_size("other").unwrap_err().to_string(),
        "this kernel has several types named other, and they differ"
    );
    assert!(base.member("other", "x", Expect::Any).is_ok());
    assert!(base.member("private", "x", Expect::Any).is_err());
}

#[test]
fn bit_fields_of_old_compilers_are_seen() {
    let mut writer = Writer::new();
    // Three bits, starting at the fifth bit of their integer.
    let bits = writer.ty(Kind::Int, "unsigned int", 0, 4, &[5 << 16 | 3]);
    writer.structure("s", 8, &[("field", bits, 32)]);
    let member = writer.read().member("s", "field", Expect::Any).unwrap();
    let field = member.bitfield.unwrap();
    assert_eq!(
        (field.offset_bits, field.bits, member.offset_bytes),
        (37, 3, 4)
    );
}

#[test]
fn enumerators_of_both_widths() {
    let mut writer = Writer::new();
    let small = writer.name("SMALL");
    writer.ty(Kind::Enum, "", 1, 4, &[small, u32::MAX]);
    let big = writer.name("BIG");
    writer.ty(Kind::Enum64, "wide", 1, 8, &[big, 1, 2]);
    let twice = writer.name("TWICE");
    writer.ty(Kind::Enum, "one", 1, 4, &[twice, 1]);
    writer.ty(Kind::Enum, "two", 1, 4, &[twice, 2]);
    let btf = writer.read();
    assert_eq!(btf.enum_value(None, "SMALL"), Ok(i64::from(u32::MAX)));
    assert_eq!(btf.enum_value(None, "BIG"), Ok(0x2_0000_0001));
    assert_eq!(btf.enum_value(Some("wide"), "BIG"), Ok(0x2_0000_0001));
    assert!(btf.enum_value(Some("one"), "BIG").is_err());
    assert_eq!(
        btf.enum_value(None, "TWICE"),
        Err(Missing::Ambiguous("TWICE".to_owned()))
    );
    assert_eq!(btf.enum_value(Some("two"), "TWICE"), Ok(2));
}

#[test]
fn files_are_found_below_the_given_folder() {
    let sysfs = tempfile::tempdir().unwrap();
    let missing = Btf::load_vmlinux_from(sysfs.path()).unwrap_err();
    assert!(matches!(missing, BtfError::Missing(_)), "{missing}");
    fs::write(sysfs.path().join("vmlinux"), fixture("6.12/vmlinux.btf")).unwrap();
    fs::write(sysfs.path().join("btrfs"), fixture("6.12/btrfs.btf")).unwrap();
    let vmlinux = Arc::new(Btf::load_vmlinux_from(sysfs.path()).unwrap());
    let btrfs = Btf::load_module_from(sysfs.path(), "btrfs", Arc::clone(&vmlinux)).unwrap();
    assert!(btrfs.has_func("end_bbio_data_write"));
    let load = |name| Btf::load_module_from(sysfs.path(), name, Arc::clone(&vmlinux));
    assert!(matches!(load("xfs"), Err(BtfError::Missing(_))));
    for name in ["", "../btrfs", "vmlinux", "a b"] {
        assert!(matches!(load(name), Err(BtfError::ModuleName(_))), "{name}");
    }
}
