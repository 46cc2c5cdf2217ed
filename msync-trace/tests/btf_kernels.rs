//! What real kernels say about their types, and that our reader says the same.
//!
//! The numbers were read by other tools (a separate reader of BTF, disassembly), so that a
//! mistake in ours cannot hide in its own test.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use msync_trace::source::ebpf::btf::{Btf, BtfError, Expect, Missing, TypeKind};
use msync_trace::source::ebpf::layout::{self, Resolved, Types};
use msync_trace_ebpf::ABSENT;

const KERNELS: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "7.2"];

/// A kernel of the fixtures: its vmlinux, and its modules above it.
struct Kernel {
    name: &'static str,
    vmlinux: Arc<Btf>,
    modules: Vec<(&'static str, Arc<Btf>)>,
}

impl Kernel {
    fn load(name: &'static str) -> Self {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/data/btf")
            .join(name);
        let read = |file: &str| fs::read(dir.join(file)).ok();
        let vmlinux = read("vmlinux.btf").expect("a vmlinux for every kernel");
        let vmlinux = Arc::new(Btf::parse(vmlinux).expect("vmlinux is BTF"));
        let split = |bytes| Btf::parse_split(bytes, Arc::clone(&vmlinux)).expect("split BTF");
        let modules = ["ext4", "xfs", "btrfs", "nfs", "fuse", "netfs"]
            .into_iter()
            .filter_map(|module| Some((module, Arc::new(split(read(&format!("{module}.btf"))?)))))
            .collect();
        Self {
            name,
            vmlinux,
            modules,
        }
    }

    fn all() -> Vec<Self> {
        KERNELS.into_iter().map(Self::load).collect()
    }

    /// What the module knows, which is vmlinux where the filesystem is built in.
    fn module(&self, module: &str) -> &Btf {
        self.modules
            .iter()
            .find(|(name, _)| *name == module)
            .map_or(&self.vmlinux, |(_, btf)| btf)
    }
}

/// Reads a column of the tables below.
fn expectation(column: &str) -> Expect<'_> {
    match column {
        "u8" => Expect::Int(1),
        "u16" => Expect::Int(2),
        "u32" => Expect::Int(4),
        "u64" => Expect::Int(8),
        "ptr" => Expect::Ptr,
        "struct" => Expect::Struct,
        "any" => Expect::Any,
        other => match other.strip_prefix('*') {
            Some(target) => Expect::PtrTo(target),
            None => Expect::Array(other.strip_prefix('[').unwrap().parse().unwrap()),
        },
    }
}

/// Byte offsets in vmlinux. `-`: this kernel has no such member.
const VMLINUX_OFFSETS: &str = "
file.f_inode                     *inode            32    32    40    32    32
file.f_mapping                   *address_space    240   216   24    16    16
file.f_wb_err                    u32               248   224   136   128   120
file.f_sb_err                    u32               252   228   140   132   124
file.f_path                      struct            16    16    64    64    64
file.f_path.dentry               *dentry           24    24    72    72    72
inode.i_mode                     u16               0     0     0     0     0
inode.i_sb                       *super_block      40    40    40    40    40
inode.i_mapping                  *address_space    48    48    48    48    48
inode.i_ino                      u64               64    64    64    64    64
inode.i_nlink                    u32               72    72    72    72    72
inode.i_size                     u64               80    80    80    80    80
inode.i_generation               u32               560   592   124   124   124
inode.i_state                    any               152   152   144   144   144
inode.i_data                     struct            376   376   368   376   360
super_block.s_dev                u32               16    16    16    16    16
super_block.s_type               *file_system_type 40    40    40    40    40
super_block.s_flags              u64               80    80    80    80    80
super_block.s_magic              u64               96    96    96    96    96
super_block.s_id                 [32               952   968   960   936   952
super_block.s_wb_err             u32               1148  1156  1124  1100  1108
file_system_type.name            ptr               0     0     0     0     0
address_space.host               *inode            0     0     0     0     0
address_space.wb_err             u32               128   160   120   120   112
address_space.nrpages            u64               88    128   88    88    80
page.mapping                     any               24    24    24    24    24
page.index                       u64               32    32    32    -     -
page.compound_head               u64               8     8     8     8     -
page.compound_info               u64               -     -     -     -     8
folio.mapping                    *address_space    -     24    24    24    24
folio.index                      u64               -     32    32    32    32
folio.private                    ptr               -     40    40    40    40
folio._folio_nr_pages            u32               -     92    96    -     -
folio._nr_pages                  u32               -     -     -     120   120
bio.bi_disk                      ptr               8     -     -     -     -
bio.bi_bdev                      ptr               -     8     8     8     8
bio.bi_opf                       u32               16    16    16    16    16
bio.bi_flags                     u16               20    20    20    20    20
bio.bi_status                    u8                26    24    25    26    26
bio.bi_iter                      struct            32    32    32    32    40
bio.bi_end_io                    ptr               56    56    56    56    64
bio.bi_private                   ptr               64    64    64    64    72
bio.bi_vcnt                      u16               104   104   104   96    112
bio.bi_io_vec                    *bio_vec          112   112   112   104   32
bio_vec.bv_page                  *page             0     0     0     0     0
bio_vec.bv_len                   u32               8     8     8     8     8
bio_vec.bv_offset                u32               12    12    12    12    12
request.bio                      *bio              56    56    56    56    56
request.biotail                  *bio              64    64    64    64    64
request.cmd_flags                u32               24    24    24    24    24
buffer_head.b_page               *page             16    16    16    16    16
buffer_head.b_folio              *folio            -     -     16    16    16
buffer_head.b_blocknr            u64               24    24    24    24    24
buffer_head.b_size               u64               32    32    32    32    32
buffer_head.b_data               ptr               40    40    40    40    40
iomap_ioend.io_inode             *inode            24    24    24    24    24
iomap_ioend.io_size              u64               32    32    32    32    32
iomap_ioend.io_offset            u64               40    40    40    56    56
iomap_ioend.io_error             u32               -     -     -     44    44
iomap_ioend.io_type              u16               16    16    16    -     -
iomap_ioend.io_bio               any               56    56    56    80    88
iomap_dio.iocb                   *kiocb            0     0     0     0     0
iomap_dio.size                   u64               24    24    24    24    24
iomap_dio.flags                  u32               36    36    36    36    36
iomap_dio.error                  u32               40    40    40    40    40
kiocb.ki_filp                    *file             0     0     0     0     0
kiocb.ki_pos                     u64               8     8     8     8     8
writeback_control.range_start    u64               16    16    16    16    16
writeback_control.range_end      u64               24    24    24    24    24
writeback_control.sync_mode      u32               32    32    32    32    32
mm_struct.mm_rb                  struct            8     -     -     -     -
vm_area_struct.vm_start          u64               0     0     0     0     0
vm_area_struct.vm_end            u64               8     8     8     8     8
vm_area_struct.vm_rb             struct            32    -     -     -     -
vm_area_struct.vm_flags          u64               80    32    32    32    32
vm_area_struct.vm_pgoff          u64               152   104   120   80    80
vm_area_struct.vm_file           *file             160   112   128   88    88
rb_node.rb_right                 *rb_node          8     8     8     8     8
rb_node.rb_left                  *rb_node          16    16    16    16    16
task_struct.thread_info          struct            0     0     0     0     0
task_struct.thread_info.status   u32               8     16    16    16    16
task_struct.stack                ptr               24    32    32    32    32
task_struct.flags                u32               36    44    44    44    44
task_struct.mm                   *mm_struct        2056  2272  2304  1136  2680
task_struct.pid                  u32               2232  2416  2432  1264  2808
task_struct.tgid                 u32               2236  2420  2436  1268  2812
task_struct.group_leader         *task_struct      2296  2480  2496  1328  2872
task_struct.start_time           u64               2536  2776  2776  1552  3152
task_struct.comm                 [16               2736  2976  2976  1752  3344
task_struct.files                *files_struct     2808  3048  3048  1824  3416
pt_regs.di                       u64               112   112   112   112   112
pt_regs.orig_ax                  u64               120   120   120   120   120
files_struct.fdt                 *fdtable          32    32    32    32    32
fdtable.max_fds                  u32               0     0     0     0     0
fdtable.fd                       ptr               8     8     8     8     8
dentry.d_parent                  *dentry           24    24    24    24    24
dentry.d_name                    struct            32    32    32    32    32
dentry.d_name.name               ptr               40    40    40    40    40
dentry.d_inode                   *inode            48    48    48    48    48
dentry.d_sb                      *super_block      104   104   104   104   104
mount.mnt_parent                 *mount            16    16    16    16    16
mount.mnt_mountpoint             *dentry           24    24    24    24    24
mount.mnt                        struct            32    32    32    32    32
atomic_t.counter                 u32               0     0     0     0     0
";

/// Byte offsets in modules: module, member, type, then 5.10 to 7.2. 5.10 has no BTF of modules.
const MODULE_OFFSETS: &str = "
btrfs  btrfs_inode.root                   *btrfs_root   -     0     0     0     0
btrfs  btrfs_inode.vfs_inode              struct        -     520   392   392   376
btrfs  btrfs_ordered_extent.file_offset   u64           -     0     0     0     0
btrfs  btrfs_ordered_extent.num_bytes     u64           -     8     8     8     8
btrfs  btrfs_ordered_extent.truncated_len u64           -     64    56    56    56
btrfs  btrfs_ordered_extent.flags         u64           -     72    64    64    64
btrfs  btrfs_ordered_extent.inode         ptr           -     96    88    88    88
ext4   ext4_io_end.inode                  *inode        -     24    24    24    24
ext4   ext4_io_end.bio                    *bio          -     32    32    32    32
ext4   ext4_io_end.flag                   u32           -     40    40    40    40
ext4   ext4_io_end.list_vec               struct        -     48    48    48    48
ext4   ext4_io_end_vec.offset             u64           -     16    16    16    16
ext4   ext4_io_end_vec.size               u64           -     24    24    24    24
ext4   mpage_da_data.inode                *inode        -     0     0     0     0
ext4   mpage_da_data.first_page           u64           -     16    24    -     -
ext4   mpage_da_data.next_page            u64           -     24    32    -     -
ext4   mpage_da_data.start_pos            u64           -     -     -     24    24
ext4   mpage_da_data.next_pos             u64           -     -     -     32    32
xfs    xfs_inode.i_ino                    u64           -     32    32    32    -
xfs    xfs_inode.i_vnode                  struct        -     312   312   312   288
netfs  netfs_io_request.inode             *inode        -     32    32    -     64
netfs  netfs_io_request.origin            any           -     138   528   -     584
netfs  netfs_io_subrequest.rreq           ptr           -     0     0     -     0
netfs  netfs_io_subrequest.start          u64           -     24    96    -     96
netfs  netfs_io_subrequest.len            u64           -     32    104   -     104
netfs  netfs_io_subrequest.transferred    u64           -     40    112   -     112
netfs  netfs_io_subrequest.error          u16           -     52    148   -     124
netfs  netfs_io_subrequest.source         any           -     56    156   -     133
";

#[test]
fn every_field_lies_where_the_kernel_has_it() {
    let mut wrong = Vec::new();
    for (column, kernel) in Kernel::all().iter().enumerate() {
        for row in rows(VMLINUX_OFFSETS) {
            compare(
                &kernel.vmlinux,
                kernel.name,
                &row,
                row[2 + column],
                &mut wrong,
            );
        }
        for row in rows(MODULE_OFFSETS) {
            let btf = kernel.module(row[0]);
            compare(btf, kernel.name, &row[1..], row[3 + column], &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn rows(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|row| !row.is_empty())
}

fn compare(btf: &Btf, kernel: &str, row: &[&str], wanted: &str, wrong: &mut Vec<String>) {
    let (of, path) = row[0].split_once('.').expect("struct.member");
    let found = match btf.member(of, path, expectation(row[1])) {
        Ok(member) => member.offset_bytes.to_string(),
        Err(Missing::Struct(_) | Missing::Member { .. }) => "-".to_owned(),
        Err(other) => other.to_string(),
    };
    if found != wanted {
        wrong.push(format!(
            "{kernel} {}: found {found}, wanted {wanted}",
            row[0]
        ));
    }
}

#[test]
fn a_member_of_the_wrong_type_is_an_error_with_a_sentence() {
    let kernel = Kernel::load("7.2");
    let says = |path: &str, expect| {
        let (of, member) = path.split_once('.').unwrap();
        kernel
            .vmlinux
            .member(of, member, expect)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        says("file.f_wb_err", Expect::Int(8)),
        "file.f_wb_err is 4 bytes wide here, 8 were expected"
    );
    // 5.10 to 6.1: unsigned long; 6.12: u32; 7.2: a struct.
    assert_eq!(
        says("inode.i_state", Expect::Int(4)),
        "inode.i_state is struct inode_state_flags here, an integer was expected"
    );
    assert_eq!(
        says("page.index", Expect::Any),
        "struct page has no member index"
    );
    assert_eq!(
        says("nfs_page.wb_index", Expect::Any),
        "this kernel has no struct nfs_page"
    );
    assert_eq!(
        says("file.f_inode", Expect::PtrTo("dentry")),
        "file.f_inode is struct inode * here, struct dentry * was expected"
    );
    assert_eq!(
        says("file.f_inode.i_ino", Expect::Any),
        "file.f_inode is struct inode * here: it has no member of its own inside"
    );
}

#[test]
fn bit_fields_are_told_from_whole_integers() {
    for kernel in Kernel::all().iter().filter(|kernel| kernel.name != "5.10") {
        let ext4 = kernel.module("ext4");
        let do_map = ext4.member("mpage_da_data", "do_map", Expect::Any).unwrap();
        assert_eq!(
            do_map.bitfield.map(|field| field.bits),
            Some(1),
            "{}",
            kernel.name
        );
        assert_eq!(
            ext4.member("mpage_da_data", "do_map", Expect::Int(4))
                .unwrap_err()
                .to_string(),
            "mpage_da_data.do_map is a bit-field here, a whole integer was expected"
        );
    }
}

#[test]
fn an_ordered_extents_inode_changed_its_type() {
    let inode_of = |kernel| {
        let kernel = Kernel::load(kernel);
        let member = kernel
            .module("btrfs")
            .member("btrfs_ordered_extent", "inode", Expect::Ptr);
        member.unwrap().ty.pointee().map(str::to_owned)
    };
    assert_eq!(inode_of("6.1").as_deref(), Some("inode"));
    assert_eq!(inode_of("6.12").as_deref(), Some("btrfs_inode"));
    assert_eq!(inode_of("7.2").as_deref(), Some("btrfs_inode"));
}

#[test]
fn sizes_of_structs() {
    let sizes = |name: &str| -> Vec<Option<u32>> {
        Kernel::all()
            .iter()
            .map(|kernel| kernel.vmlinux.struct_size(name).ok())
            .collect()
    };
    assert_eq!(sizes("inode"), [600, 632, 624, 616, 560].map(Some));
    assert_eq!(sizes("page"), [64; 5].map(Some));
    assert_eq!(sizes("pt_regs"), [168; 5].map(Some));
    assert_eq!(sizes("iomap_dio"), [80, 96, 96, 96, 96].map(Some));
    assert_eq!(sizes("folio")[0], None);
}

/// Functions and raw tracepoints: where it is looked for, what it is, then its arguments on
/// 5.10 to 7.2 (`;` between kernels, `-` for none, `=` for the same as before).
const ARGUMENTS: &str = "
vmlinux  func        vfs_fsync_range                struct file *, long long int, long long int, int ; = ; = ; = ; =
vmlinux  func        __filemap_set_wb_err           struct address_space *, int ; = ; = ; = ; =
vmlinux  func        do_writepages                  struct address_space *, struct writeback_control * ; = ; = ; = ; =
vmlinux  func        iomap_dio_complete             struct iomap_dio * ; = ; = ; = ; =
vmlinux  func        iomap_finish_ioend_buffered    - ; - ; - ; struct iomap_ioend * ; -
vmlinux  func        iomap_finish_ioend_buffered_write - ; - ; - ; - ; struct iomap_ioend *
vmlinux  func        fred_entry_from_user           - ; - ; - ; - ; struct pt_regs *
vmlinux  tracepoint  filemap_set_wb_err             struct address_space *, unsigned int ; = ; = ; = ; =
vmlinux  tracepoint  file_check_and_advance_wb_err  struct file *, unsigned int ; = ; = ; = ; =
vmlinux  tracepoint  mm_filemap_delete_from_page_cache struct page * ; struct folio * ; = ; = ; =
vmlinux  tracepoint  writeback_dirty_page           struct page *, struct address_space * ; - ; - ; - ; -
vmlinux  tracepoint  writeback_dirty_folio          - ; struct folio *, struct address_space * ; = ; = ; =
vmlinux  tracepoint  block_bio_complete             struct request_queue *, struct bio * ; = ; = ; = ; =
vmlinux  tracepoint  block_rq_complete              struct request *, int, unsigned int ; struct request *, unsigned char, unsigned int ; = ; = ; =
vmlinux  tracepoint  sys_enter                      struct pt_regs *, long int ; = ; = ; = ; =
ext4     tracepoint  ext4_writepages_result         - ; struct inode *, struct writeback_control *, int, int ; = ; = ; =
ext4     tracepoint  ext4_da_write_folios_end       - ; - ; - ; struct inode *, long long int, long long int, struct writeback_control *, int ; =
ext4     func        ext4_end_bio                   - ; struct bio * ; = ; = ; =
ext4     func        ext4_end_io_end                - ; - ; - ; struct ext4_io_end * ; =
xfs      tracepoint  xfs_file_fsync                 - ; struct xfs_inode * ; = ; = ; =
btrfs    tracepoint  btrfs_ordered_extent_remove    - ; struct btrfs_inode *, struct btrfs_ordered_extent * ; = ; = ; =
btrfs    tracepoint  btrfs_sync_file                - ; struct file *, int ; = ; = ; -
btrfs    tracepoint  btrfs_sync_file_exit           - ; - ; - ; - ; struct file *, int
btrfs    tracepoint  btrfs_writepage_end_io_hook    - ; struct btrfs_inode *, long long unsigned int, long long unsigned int, int ; = ; = ; =
btrfs    tracepoint  btrfs_finish_ordered_extent    - ; - ; struct btrfs_inode *, long long unsigned int, long long unsigned int, _Bool ; = ; =
btrfs    func        end_bbio_data_write            - ; - ; struct btrfs_bio * ; = ; =
netfs    tracepoint  netfs_failure                  - ; struct netfs_io_request *, struct netfs_io_subrequest *, int, enum netfs_failure ; = ; - ; struct netfs_io_request *, struct netfs_io_subrequest *, int, enum netfs_failure
netfs    tracepoint  netfs_sreq                     - ; struct netfs_io_subrequest *, enum netfs_sreq_trace ; = ; - ; struct netfs_io_subrequest *, enum netfs_sreq_trace
";

#[test]
fn functions_and_tracepoints_take_what_the_kernel_passes() {
    let kernels = Kernel::all();
    let mut wrong = Vec::new();
    for line in ARGUMENTS.lines().filter(|line| !line.is_empty()) {
        let (file, rest) = line.split_once(char::is_whitespace).unwrap();
        let (what, rest) = rest.trim_start().split_once(char::is_whitespace).unwrap();
        let (name, lists) = rest.trim_start().split_once(char::is_whitespace).unwrap();
        let mut wanted = "";
        for (kernel, list) in kernels.iter().zip(lists.split(';').map(str::trim)) {
            wanted = if list == "=" { wanted } else { list };
            let btf = if file == "vmlinux" {
                &kernel.vmlinux
            } else {
                kernel.module(file)
            };
            let found = if what == "func" {
                btf.func(name)
            } else {
                btf.tracepoint(name)
            };
            let found = match found {
                Ok(proto) => {
                    let names: Vec<&str> = proto
                        .params
                        .iter()
                        .map(|param| param.ty.name.as_str())
                        .collect();
                    names.join(", ")
                }
                Err(Missing::Func(_) | Missing::Tracepoint(_)) => "-".to_owned(),
                Err(other) => other.to_string(),
            };
            if found != wanted {
                wrong.push(format!(
                    "{} {name}: found {found}, wanted {wanted}",
                    kernel.name
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_argument_is_found_by_its_name_or_its_type() {
    for kernel in Kernel::all() {
        let fsync = kernel.vmlinux.func("vfs_fsync_range").unwrap();
        assert_eq!(fsync.position("start"), Some(1), "{}", kernel.name);
        assert_eq!(fsync.position_of_pointer_to("file"), Some(0));
        assert_eq!(fsync.position("inode"), None);
        assert_eq!(fsync.returns.kind, TypeKind::Int);
        assert!(!fsync.variadic);
        assert!(kernel.vmlinux.has_func("vfs_fsync_range"));
        assert!(!kernel.vmlinux.has_func("vfs_fsync_rang"));
        assert!(kernel.vmlinux.has_tracepoint("sys_enter"));
    }
    // 6.1 passes a page in between.
    let position = |kernel| {
        let kernel = Kernel::load(kernel);
        let func = kernel
            .module("btrfs")
            .func("btrfs_mark_ordered_io_finished")
            .unwrap();
        func.position("file_offset")
    };
    assert_eq!(position("6.1"), Some(2));
    assert_eq!(position("7.2"), Some(1));
}

#[test]
fn bits_of_an_ordered_extent_moved() {
    let bit = |kernel, name| {
        Kernel::load(kernel)
            .module("btrfs")
            .enum_value(None, name)
            .map_err(|e| e.to_string())
    };
    for kernel in ["6.1", "6.12", "6.18"] {
        assert_eq!(bit(kernel, "BTRFS_ORDERED_IOERR"), Ok(7));
        assert_eq!(bit(kernel, "BTRFS_ORDERED_TRUNCATED"), Ok(8));
        assert_eq!(bit(kernel, "BTRFS_ORDERED_DIRECT"), Ok(4));
    }
    assert_eq!(bit("7.2", "BTRFS_ORDERED_IOERR"), Ok(2));
    assert_eq!(bit("7.2", "BTRFS_ORDERED_TRUNCATED"), Ok(3));
    assert_eq!(bit("7.2", "BTRFS_ORDERED_DIRECT"), Ok(12));
    assert_eq!(
        bit("5.10", "BTRFS_ORDERED_IOERR"),
        Err("this kernel has no enumerator BTRFS_ORDERED_IOERR".to_owned())
    );
}

/// Numbers of what netfs does and tells. 6.1 has netfs, but does not write pages back through it; this
/// 6.18 was built without.
#[test]
fn what_netfs_tells_is_numbered_anew_by_each_kernel() {
    let numbers = |kernel| {
        let layout = layout_of(&Kernel::load(kernel)).layout;
        [
            layout.netfs_fail_write,
            layout.netfs_terminated,
            layout.netfs_to_server,
            layout.netfs_write_back,
            layout.netfs_write_through,
        ]
    };
    assert_eq!(numbers("6.12"), [7, 20, 5, 5, 6]);
    assert_eq!(numbers("7.2"), [7, 35, 5, 7, 9]);
    for kernel in ["5.10", "6.1", "6.18"] {
        let layout = layout_of(&Kernel::load(kernel)).layout;
        assert_eq!(layout.netfs_fail_write, ABSENT, "{kernel}");
        assert_eq!(layout.netfs_part_start, ABSENT, "{kernel}");
    }
}

#[test]
fn the_running_kernel_is_read_where_it_shows_its_types() {
    let running = match Btf::load_vmlinux() {
        // Built without BTF: `check` says so, and there is nothing to compare here.
        Err(BtfError::Missing(_)) => return,
        other => other.unwrap(),
    };
    let wb_err = running.member("file", "f_wb_err", Expect::Int(4)).unwrap();
    assert!(wb_err.offset_bytes + 4 <= running.struct_size("file").unwrap());
    assert_eq!(
        running.func("vfs_fsync_range").unwrap().position("end"),
        Some(2)
    );
}

/// The layout that the programs are given.
fn layout_of(kernel: &Kernel) -> Resolved {
    let modules = kernel.modules.iter();
    layout::resolve(&Types {
        vmlinux: Some(Arc::clone(&kernel.vmlinux)),
        modules: modules
            .map(|(name, btf)| ((*name).to_owned(), Arc::clone(btf)))
            .collect(),
        version: parse_version(kernel.name),
    })
}

fn parse_version(name: &str) -> (u32, u32) {
    let (major, minor) = name.split_once('.').unwrap();
    (major.parse().unwrap(), minor.parse().unwrap())
}

#[test]
fn every_field_that_a_kernel_can_have_is_found() {
    for kernel in Kernel::all() {
        let resolved = layout_of(&kernel);
        // 5.10: its modules have no BTF. 6.18: it was built without NFS.
        let unknown = |field: &str| match kernel.name {
            "5.10" => field == "btrfs_root",
            "6.18" => field.starts_with("nfs_") || field.starts_with("rpc_"),
            _ => false,
        };
        let missing: Vec<_> = resolved
            .missing
            .keys()
            .filter(|field| !unknown(field))
            .collect();
        assert!(missing.is_empty(), "{}: {missing:?}", kernel.name);
    }
}

/// After the parent: 15 pivots and 16 slots, the last of which may hold the end instead; or 9 pivots,
/// 10 slots, 10 gaps and the end.
#[test]
fn maple_nodes_are_where_the_walk_expects_them() {
    for kernel in Kernel::all() {
        let layout = layout_of(&kernel).layout;
        let range = [layout.range_pivots, layout.range_slots, layout.range_end];
        let arange = [layout.arange_pivots, layout.arange_slots, layout.arange_end];
        if kernel.name == "5.10" {
            assert_eq!(layout.mm_root, ABSENT);
            assert_ne!(layout.mm_rb, ABSENT);
        } else {
            assert_eq!(range, [8, 128, 248], "{}", kernel.name);
            assert_eq!(arange, [8, 80, 240], "{}", kernel.name);
            assert_ne!(layout.mm_root, ABSENT);
        }
    }
}

/// From 6.7 on a mapping of an overlay's file has a file of the disk below, with the overlay's path
/// beside it.
#[test]
fn the_path_that_an_overlays_user_knows_is_found() {
    for kernel in Kernel::all() {
        let layout = layout_of(&kernel).layout;
        let found = layout.backing_dentry != ABSENT && layout.backing_mnt != ABSENT;
        assert_eq!(
            found,
            parse_version(kernel.name) >= (6, 7),
            "{}",
            kernel.name
        );
    }
}
