//! Resolves the [`Layout`] that the programs read kernel memory by, from the running kernel's
//! BTF. A field that the kernel lacks, or has with another type, stays [`ABSENT`], and is named.

use std::{collections::BTreeMap, sync::Arc};

use msync_trace_ebpf::{ABSENT, Layout, Wire};

use super::btf::{Btf, Expect};

/// A resolved layout, and what could not be resolved.
#[derive(Debug)]
pub struct Resolved {
    /// The offsets.
    pub layout: Layout,
    /// Field of [`Layout`] → why it is absent.
    pub missing: BTreeMap<&'static str, String>,
}

/// BTF of the kernel and of the filesystem modules that are loaded.
#[derive(Debug, Default)]
pub struct Types {
    /// `/sys/kernel/btf/vmlinux`.
    pub vmlinux: Option<Arc<Btf>>,
    /// Split BTF by module name; none on 5.10.
    pub modules: BTreeMap<String, Arc<Btf>>,
    /// Kernel version, (major, minor).
    pub version: (u32, u32),
}

impl Types {
    /// The BTF that has the types of `module`: its own, or the kernel's where it is built in.
    fn of(&self, module: &str) -> Option<&Btf> {
        self.modules
            .get(module)
            .or(self.vmlinux.as_ref())
            .map(Arc::as_ref)
    }
}

/// Fields without which nothing can be said about any file.
pub const ESSENTIAL: &[&str] = &[
    "inode_ino",
    "inode_sb",
    "inode_mode",
    "inode_generation",
    "sb_dev",
    "mapping_host",
    "mapping_wb_err",
    "file_mapping",
    "file_wb_err",
    "regs_orig_ax",
    "task_flags",
];

/// What stays the same in all builds of 5.10 but has no BTF there (modules have none before
/// 5.11): fixed-width fields whose order in the source decides (fs/btrfs/ordered-data.h,
/// fs/ext4/ext4.h, fs/ext4/inode.c, include/linux/nfs_page.h, fs/fuse/fuse_i.h, fs/fuse/file.c of
/// 5.10). `FUSE_CONN_CONNECTED` follows locks, whose size depends on the configuration: read off
/// `fuse_simple_background` in Debian's build.
mod v5_10 {
    pub const OE_FILE_OFFSET: u32 = 0;
    pub const OE_NUM_BYTES: u32 = 16;
    pub const OE_TRUNCATED_LEN: u32 = 48;
    pub const OE_FLAGS: u32 = 56;
    pub const OE_INODE: u32 = 80;
    pub const OE_DIRECT_BIT: u32 = 5;
    pub const OE_IOERR_BIT: u32 = 6;
    pub const OE_TRUNCATED_BIT: u32 = 7;
    pub const MPAGE_FIRST_PAGE: u32 = 16;
    pub const MPAGE_NEXT_PAGE: u32 = 24;
    pub const NFS_PAGE_PAGE: u32 = 16;
    pub const NFS_PAGE_INDEX: u32 = 32;
    pub const NFS_PAGE_OFFSET: u32 = 40;
    pub const NFS_PAGE_BYTES: u32 = 48;
    pub const NFS_PAGE_VERF: u32 = 64;
    pub const NFS_VFS_INODE: u32 = 0x1e8;
    pub const NFS_HANDLE: u32 = 8;
    pub const FUSE_WRITE_ARGS: u32 = 56;
    pub const FUSE_WRITE_OFFSET: u32 = 8;
    pub const FUSE_WRITE_SIZE: u32 = 16;
    pub const FUSE_WRITE_INODE: u32 = 256;
    pub const FUSE_ARGS_END: u32 = 104;
    pub const FUSE_MOUNT_FC: u32 = 0;
    pub const FUSE_CONN_CONNECTED: u32 = 296;
}

/// Kinds of pages whose memory fails and that were dirty (`enum mf_action_page_type`).
const DIRTY_TYPES: [&str; 3] = [
    "MF_MSG_DIRTY_LRU",
    "MF_MSG_DIRTY_MLOCKED_LRU",
    "MF_MSG_DIRTY_UNEVICTABLE_LRU",
];

struct Resolver<'a> {
    types: &'a Types,
    missing: BTreeMap<&'static str, String>,
}

impl Resolver<'_> {
    /// Offset of the first of `paths` that exists with the expected type.
    fn kernel(&mut self, field: &'static str, paths: &[(&str, &str)], expect: Expect<'_>) -> u32 {
        self.find(field, self.types.vmlinux.clone().as_deref(), paths, expect)
    }

    /// The same in a module's types.
    fn module(
        &mut self,
        field: &'static str,
        module: &str,
        paths: &[(&str, &str)],
        expect: Expect<'_>,
    ) -> u32 {
        let types = self.types;
        self.find(field, types.of(module), paths, expect)
    }

    fn find(
        &mut self,
        field: &'static str,
        btf: Option<&Btf>,
        paths: &[(&str, &str)],
        expect: Expect<'_>,
    ) -> u32 {
        let Some(btf) = btf else {
            self.missing
                .insert(field, "the kernel has no BTF".to_owned());
            return ABSENT;
        };
        let mut reason = String::new();
        for (name, path) in paths {
            match btf.member(name, path, expect) {
                Ok(member) => return member.offset_bytes,
                Err(missing) if reason.is_empty() => reason = missing.to_string(),
                Err(_) => {}
            }
        }
        self.missing.insert(field, reason);
        ABSENT
    }

    /// Mask of a flag whose bit number is an enumerator.
    fn mask(&self, module: &str, enumerator: &str) -> Option<u32> {
        let bit = self.types.of(module)?.enum_value(None, enumerator).ok()?;
        u32::try_from(bit)
            .ok()
            .and_then(|bit| 1u32.checked_shl(bit))
    }
}

/// Resolves everything for the kernel that `types` describe.
#[must_use]
pub fn resolve(types: &Types) -> Resolved {
    use Expect::{Any, Int, Ptr};
    let mut r = Resolver {
        types,
        missing: BTreeMap::new(),
    };
    let old = types.version < (5, 11);
    let mut layout = Layout::read_zeroed();

    macro_rules! kernel {
        ($($field:ident: $expect:expr => $(($name:literal, $path:literal))|+;)*) => {$(
            layout.$field = r.kernel(stringify!($field), &[$(($name, $path)),+], $expect);
        )*};
    }
    kernel! {
        inode_ino: Int(8) => ("inode", "i_ino");
        inode_sb: Ptr => ("inode", "i_sb");
        inode_mode: Int(2) => ("inode", "i_mode");
        inode_nlink: Int(4) => ("inode", "i_nlink");
        inode_generation: Int(4) => ("inode", "i_generation");
        inode_size: Int(8) => ("inode", "i_size");
        inode_count: Int(4) => ("inode", "i_count.counter");
        inode_blkbits: Int(1) => ("inode", "i_blkbits");
        inode_mapping: Ptr => ("inode", "i_mapping");
        sb_dev: Int(4) => ("super_block", "s_dev");
        sb_type: Ptr => ("super_block", "s_type");
        sb_magic: Int(8) => ("super_block", "s_magic");
        sb_uuid: Any => ("super_block", "s_uuid");
        sb_id: Any => ("super_block", "s_id");
        sb_fs_info: Ptr => ("super_block", "s_fs_info");
        fs_type_name: Ptr => ("file_system_type", "name");
        mapping_host: Ptr => ("address_space", "host");
        mapping_wb_err: Int(4) => ("address_space", "wb_err");
        file_mapping: Ptr => ("file", "f_mapping");
        file_wb_err: Int(4) => ("file", "f_wb_err");
        file_mode: Int(4) => ("file", "f_mode");
        file_dentry: Ptr => ("file", "f_path.dentry");
        file_mnt: Ptr => ("file", "f_path.mnt");
        dentry_parent: Ptr => ("dentry", "d_parent");
        dentry_name: Ptr => ("dentry", "d_name.name");
        mount_mnt: Any => ("mount", "mnt");
        mount_parent: Ptr => ("mount", "mnt_parent");
        mount_mountpoint: Ptr => ("mount", "mnt_mountpoint");
        vfsmount_root: Ptr => ("vfsmount", "mnt_root");
        folio_mapping: Ptr => ("folio", "mapping") | ("page", "mapping");
        folio_index: Int(8) => ("folio", "index") | ("page", "index");
        folio_private: Any => ("folio", "private") | ("page", "private");
        page_compound_head: Int(8) => ("page", "compound_head") | ("page", "compound_info");
        folio_flags: Any => ("folio", "flags") | ("page", "flags");
        bio_opf: Int(4) => ("bio", "bi_opf");
        bio_status: Int(1) => ("bio", "bi_status");
        bio_vcnt: Int(2) => ("bio", "bi_vcnt");
        bio_io_vec: Ptr => ("bio", "bi_io_vec");
        bio_iter_size: Int(4) => ("bio", "bi_iter.bi_size");
        bio_iter_idx: Int(4) => ("bio", "bi_iter.bi_idx");
        bio_iter_done: Int(4) => ("bio", "bi_iter.bi_bvec_done");
        bio_next: Ptr => ("bio", "bi_next");
        bio_end_io: Ptr => ("bio", "bi_end_io");
        bio_private: Ptr => ("bio", "bi_private");
        rq_bio: Ptr => ("request", "bio");
        rq_flags: Int(4) => ("request", "cmd_flags");
        rq_queue: Ptr => ("request", "q");
        disk_major: Int(4) => ("gendisk", "major");
        disk_first_minor: Int(4) => ("gendisk", "first_minor");
        rq_start_time: Int(8) => ("request", "start_time_ns");
        ioend_inode: Ptr => ("iomap_ioend", "io_inode");
        ioend_offset: Int(8) => ("iomap_ioend", "io_offset");
        ioend_size: Int(8) => ("iomap_ioend", "io_size");
        bh_folio: Ptr => ("buffer_head", "b_folio") | ("buffer_head", "b_page");
        task_stack: Ptr => ("task_struct", "stack");
        task_flags: Int(4) => ("task_struct", "flags");
        task_leader: Ptr => ("task_struct", "group_leader");
        task_start_time: Int(8) => ("task_struct", "start_time");
        task_files: Ptr => ("task_struct", "files");
        task_mm: Ptr => ("task_struct", "mm");
        task_ti_status: Int(4) => ("task_struct", "thread_info.status");
        files_fdt: Ptr => ("files_struct", "fdt");
        fdt_max: Int(4) => ("fdtable", "max_fds");
        fdt_fd: Ptr => ("fdtable", "fd");
        regs_orig_ax: Int(8) => ("pt_regs", "orig_ax");
        regs_di: Int(8) => ("pt_regs", "di");
        regs_si: Int(8) => ("pt_regs", "si");
        regs_dx: Int(8) => ("pt_regs", "dx");
        regs_r10: Int(8) => ("pt_regs", "r10");
        regs_bx: Int(8) => ("pt_regs", "bx");
        regs_cx: Int(8) => ("pt_regs", "cx");
        vma_start: Int(8) => ("vm_area_struct", "vm_start");
        vma_end: Int(8) => ("vm_area_struct", "vm_end");
        vma_flags: Int(8) => ("vm_area_struct", "vm_flags");
        vma_file: Ptr => ("vm_area_struct", "vm_file");
        vma_mm: Ptr => ("vm_area_struct", "vm_mm");
        vma_pgoff: Int(8) => ("vm_area_struct", "vm_pgoff");
        dio_iocb: Ptr => ("iomap_dio", "iocb");
        dio_size: Int(8) => ("iomap_dio", "size");
        dio_error: Int(4) => ("iomap_dio", "error");
        dio_flags: Int(4) => ("iomap_dio", "flags");
        module_name: Any => ("module", "name");
        iocb_filp: Ptr => ("kiocb", "ki_filp");
        iocb_pos: Int(8) => ("kiocb", "ki_pos");
    }
    // Fields that only some kernels have: absence is normal, not a loss.
    let optional = |path: &[(&str, &str)], expect| {
        let btf = types.vmlinux.as_deref()?;
        path.iter()
            .find_map(|(name, path)| btf.member(name, path, expect).ok())
    };
    let offset = |found: Option<super::btf::Member>| found.map_or(ABSENT, |m| m.offset_bytes);
    layout.folio_nr_pages = offset(optional(
        &[("folio", "_nr_pages"), ("folio", "_folio_nr_pages")],
        Int(4),
    ));
    layout.ioend_error = offset(optional(&[("iomap_ioend", "io_error")], Int(4)));
    // A pointer to the bio before 6.9, the bio itself since.
    layout.ioend_bio = offset(optional(&[("iomap_ioend", "io_bio")], Expect::Struct));
    layout.rq_disk = offset(optional(&[("request", "rq_disk")], Ptr));
    layout.queue_disk = offset(optional(&[("request_queue", "disk")], Ptr));
    layout.vma_rb = offset(optional(&[("vm_area_struct", "vm_rb")], Any));
    layout.mm_rb = offset(optional(&[("mm_struct", "mm_rb")], Any));
    layout.inode_names = offset(optional(&[("inode", "i_dentry.first")], Ptr));
    layout.dentry_alias = offset(optional(
        &[("dentry", "d_u.d_alias"), ("dentry", "d_alias")],
        Any,
    ));
    layout.backing_dentry = offset(optional(&[("backing_file", "user_path.dentry")], Ptr));
    layout.backing_mnt = offset(optional(&[("backing_file", "user_path.mnt")], Ptr));
    layout.mm_root = offset(optional(&[("mm_struct", "mm_mt.ma_root")], Ptr));
    layout.range_pivots = offset(optional(&[("maple_range_64", "pivot")], Any));
    layout.range_slots = offset(optional(&[("maple_range_64", "slot")], Any));
    layout.range_end = offset(optional(&[("maple_range_64", "meta.end")], Int(1)));
    layout.arange_pivots = offset(optional(&[("maple_arange_64", "pivot")], Any));
    layout.arange_slots = offset(optional(&[("maple_arange_64", "slot")], Any));
    layout.arange_end = offset(optional(&[("maple_arange_64", "meta.end")], Int(1)));
    let vmlinux = types.vmlinux.as_deref();
    layout.page_size_of = vmlinux
        .and_then(|btf| btf.struct_size("page").ok())
        .unwrap_or(64);
    layout.page_head_bit = vmlinux
        .and_then(|btf| btf.enum_value(Some("pageflags"), "PG_head").ok())
        .and_then(|bit| u32::try_from(bit).ok())
        .unwrap_or(ABSENT);

    layout.memory_dirty_types = DIRTY_TYPES
        .iter()
        .filter_map(|name| r.mask("vmlinux", name))
        .fold(0, |mask, one| mask | one);
    btrfs(&mut r, &mut layout, old);
    ext4(&mut r, &mut layout, old);
    nfs(&mut r, &mut layout, old);
    fuse(&mut r, &mut layout, old);
    netfs(&mut r, &mut layout);
    let mut module = |field, module, at: (&str, &str), expect| match old {
        // Modules have no BTF there.
        true => ABSENT,
        false => r.module(field, module, &[at], expect),
    };
    layout.xfs_inode_vnode = module("xfs_inode_vnode", "xfs", ("xfs_inode", "i_vnode"), Any);
    layout.xfs_mount_super = module("xfs_mount_super", "xfs", ("xfs_mount", "m_super"), Ptr);
    layout.xfs_log_mount = module("xfs_log_mount", "xfs", ("xlog", "l_mp"), Ptr);
    layout.btrfs_info_super = module("btrfs_info_super", "btrfs", ("btrfs_fs_info", "sb"), Ptr);
    Resolved {
        layout,
        missing: r.missing,
    }
}

/// btrfs: the ordered extent, and the way from an inode to its subvolume.
fn btrfs(r: &mut Resolver<'_>, layout: &mut Layout, old: bool) {
    use Expect::{Any, Int, Ptr};
    if old {
        layout.oe_file_offset = v5_10::OE_FILE_OFFSET;
        layout.oe_num_bytes = v5_10::OE_NUM_BYTES;
        layout.oe_truncated_len = v5_10::OE_TRUNCATED_LEN;
        layout.oe_flags = v5_10::OE_FLAGS;
        layout.oe_inode = v5_10::OE_INODE;
        layout.oe_inode_to_vfs = 0;
        layout.oe_ioerr_mask = 1 << v5_10::OE_IOERR_BIT;
        layout.oe_truncated_mask = 1 << v5_10::OE_TRUNCATED_BIT;
        layout.oe_direct_mask = 1 << v5_10::OE_DIRECT_BIT;
        layout.btrfs_vfs_inode = ABSENT;
        layout.btrfs_root = ABSENT;
        layout.btrfs_root_objectid = ABSENT;
        layout.bbio_bio = 0;
        r.missing.insert(
            "btrfs_root",
            "the btrfs module has no BTF: files of equal number in two subvolumes are told apart \
             by generation only"
                .to_owned(),
        );
        return;
    }
    const OE: &str = "btrfs_ordered_extent";
    layout.oe_file_offset = r.module("oe_file_offset", "btrfs", &[(OE, "file_offset")], Int(8));
    layout.oe_num_bytes = r.module("oe_num_bytes", "btrfs", &[(OE, "num_bytes")], Int(8));
    layout.oe_truncated_len = r.module(
        "oe_truncated_len",
        "btrfs",
        &[(OE, "truncated_len")],
        Int(8),
    );
    layout.oe_flags = r.module("oe_flags", "btrfs", &[(OE, "flags")], Int(8));
    layout.oe_inode = r.module("oe_inode", "btrfs", &[(OE, "inode")], Ptr);
    layout.btrfs_vfs_inode = r.module(
        "btrfs_vfs_inode",
        "btrfs",
        &[("btrfs_inode", "vfs_inode")],
        Any,
    );
    layout.btrfs_root = r.module("btrfs_root", "btrfs", &[("btrfs_inode", "root")], Ptr);
    layout.btrfs_root_objectid = r.module(
        "btrfs_root_objectid",
        "btrfs",
        &[("btrfs_root", "root_key.objectid")],
        Int(8),
    );
    // `struct inode *` up to 6.8, `struct btrfs_inode *` since.
    let points_at_btrfs = r
        .types
        .of("btrfs")
        .and_then(|btf| btf.member(OE, "inode", Ptr).ok())
        .is_some_and(|member| member.ty.pointee() == Some("btrfs_inode"));
    layout.oe_inode_to_vfs = if points_at_btrfs {
        layout.btrfs_vfs_inode
    } else {
        0
    };
    if layout.oe_inode_to_vfs == ABSENT {
        layout.oe_inode = ABSENT;
    }
    layout.oe_ioerr_mask = r.mask("btrfs", "BTRFS_ORDERED_IOERR").unwrap_or(0);
    layout.oe_truncated_mask = r.mask("btrfs", "BTRFS_ORDERED_TRUNCATED").unwrap_or(0);
    layout.oe_direct_mask = r.mask("btrfs", "BTRFS_ORDERED_DIRECT").unwrap_or(0);
    if layout.oe_ioerr_mask == 0 {
        r.missing.insert(
            "oe_ioerr_mask",
            "no enumerator BTRFS_ORDERED_IOERR".to_owned(),
        );
    }
    layout.bbio_bio = r.module("bbio_bio", "btrfs", &[("btrfs_bio", "bio")], Any);
}

/// ext4: io_ends, and the state of a write-back pass.
fn ext4(r: &mut Resolver<'_>, layout: &mut Layout, old: bool) {
    use Expect::{Any, Int, Ptr};
    if old {
        // 5.10 converts unwritten extents whatever became of the bios: io_ends do not matter.
        layout.ext4_io_end_inode = ABSENT;
        layout.ext4_io_end_flag = ABSENT;
        layout.ext4_io_end_vecs = ABSENT;
        layout.ext4_vec_offset = ABSENT;
        layout.ext4_whole_io_end = 0;
        layout.mpage_start = v5_10::MPAGE_FIRST_PAGE;
        layout.mpage_next = v5_10::MPAGE_NEXT_PAGE;
        layout.mpage_shift = 12;
        return;
    }
    layout.ext4_io_end_inode = r.module(
        "ext4_io_end_inode",
        "ext4",
        &[("ext4_io_end", "inode")],
        Ptr,
    );
    layout.ext4_io_end_flag = r.module(
        "ext4_io_end_flag",
        "ext4",
        &[("ext4_io_end", "flag")],
        Int(4),
    );
    layout.ext4_io_end_vecs = r.module(
        "ext4_io_end_vecs",
        "ext4",
        &[("ext4_io_end", "list_vec")],
        Any,
    );
    layout.ext4_vec_offset = r.module(
        "ext4_vec_offset",
        "ext4",
        &[("ext4_io_end_vec", "offset")],
        Int(8),
    );
    // EXT4_IO_END_FAILED is checked before the conversion from 6.12.y on (ext4_end_io_end); in
    // 6.12 not where the submitter drops the last reference: there some bytes are named that are
    // on the disk after all.
    layout.ext4_whole_io_end = u32::from(r.types.version >= (6, 12));
    const MPD: &str = "mpage_da_data";
    layout.mpage_start = r.module(
        "mpage_start",
        "ext4",
        &[(MPD, "start_pos"), (MPD, "first_page")],
        Int(8),
    );
    layout.mpage_next = r.module(
        "mpage_next",
        "ext4",
        &[(MPD, "next_pos"), (MPD, "next_page")],
        Int(8),
    );
    let in_bytes = r
        .types
        .of("ext4")
        .is_some_and(|btf| btf.member(MPD, "start_pos", Int(8)).is_ok());
    layout.mpage_shift = if in_bytes { 0 } else { 12 };
}

/// NFS: requests to write.
fn nfs(r: &mut Resolver<'_>, layout: &mut Layout, old: bool) {
    use Expect::{Any, Int, Ptr};
    layout.nfs_inode_first = if old { ABSENT } else { 1 };
    layout.nfs_request_first = if old { 1 } else { ABSENT };
    // Types that the kernel itself mentions: 5.10 has these too.
    const HEADER: &str = "nfs_pgio_header";
    const COMMIT: &str = "nfs_commit_data";
    const VERF: &str = "nfs_writeverf";
    let mut find = |field, of, path, expect| r.module(field, "nfs", &[(of, path)], expect);
    layout.rpc_task_status = find("rpc_task_status", "rpc_task", "tk_status", Int(4));
    layout.nfs_header_inode = find("nfs_header_inode", HEADER, "inode", Ptr);
    layout.nfs_header_offset = find("nfs_header_offset", HEADER, "args.offset", Int(8));
    layout.nfs_header_count = find("nfs_header_count", HEADER, "res.count", Any);
    layout.nfs_header_verf = find("nfs_header_verf", HEADER, "res.verf", Ptr);
    layout.nfs_verf_committed = find("nfs_verf_committed", VERF, "committed", Any);
    layout.nfs_verf_verifier = find("nfs_verf_verifier", VERF, "verifier", Any);
    layout.nfs_commit_inode = find("nfs_commit_inode", COMMIT, "inode", Ptr);
    layout.nfs_commit_pages = find("nfs_commit_pages", COMMIT, "pages", Any);
    layout.nfs_commit_verf = find("nfs_commit_verf", COMMIT, "res.verf", Ptr);
    if old {
        layout.nfs_page_folio = v5_10::NFS_PAGE_PAGE;
        layout.nfs_page_index = v5_10::NFS_PAGE_INDEX;
        layout.nfs_page_offset = v5_10::NFS_PAGE_OFFSET;
        layout.nfs_page_bytes = v5_10::NFS_PAGE_BYTES;
        layout.nfs_page_verf = v5_10::NFS_PAGE_VERF;
        layout.nfs_vfs_inode = v5_10::NFS_VFS_INODE;
        layout.nfs_handle = v5_10::NFS_HANDLE;
        return;
    }
    const PAGE: &str = "nfs_page";
    let mut find = |field, paths: &[(&str, &str)], expect| r.module(field, "nfs", paths, expect);
    layout.nfs_page_folio = find(
        "nfs_page_folio",
        &[(PAGE, "wb_folio"), (PAGE, "wb_page")],
        Ptr,
    );
    layout.nfs_page_index = find("nfs_page_index", &[(PAGE, "wb_index")], Int(8));
    layout.nfs_page_offset = find("nfs_page_offset", &[(PAGE, "wb_offset")], Int(4));
    layout.nfs_page_verf = find("nfs_page_verf", &[(PAGE, "wb_verf")], Any);
    layout.nfs_page_bytes = find("nfs_page_bytes", &[(PAGE, "wb_bytes")], Int(4));
    layout.nfs_vfs_inode = find("nfs_vfs_inode", &[("nfs_inode", "vfs_inode")], Any);
    layout.nfs_handle = find("nfs_handle", &[("nfs_inode", "fh")], Any);
}

/// FUSE: requests that write pages back, and whether there is still a server.
fn fuse(r: &mut Resolver<'_>, layout: &mut Layout, old: bool) {
    use Expect::{Any, Int, Ptr};
    if old {
        layout.fuse_write_args = v5_10::FUSE_WRITE_ARGS;
        layout.fuse_write_offset = v5_10::FUSE_WRITE_OFFSET;
        layout.fuse_write_size = v5_10::FUSE_WRITE_SIZE;
        layout.fuse_write_inode = v5_10::FUSE_WRITE_INODE;
        layout.fuse_args_end = v5_10::FUSE_ARGS_END;
        layout.fuse_mount_fc = v5_10::FUSE_MOUNT_FC;
        layout.fuse_conn_chan = ABSENT;
        layout.fuse_conn_connected = v5_10::FUSE_CONN_CONNECTED;
        layout.fuse_req_args = ABSENT;
        layout.fuse_req_error = ABSENT;
        return;
    }
    const WRITE: &str = "fuse_writepage_args";
    let mut find = |field, of, path, expect| r.module(field, "fuse", &[(of, path)], expect);
    layout.fuse_write_args = find("fuse_write_args", WRITE, "ia.ap.args", Any);
    layout.fuse_write_offset = find("fuse_write_offset", WRITE, "ia.write.in.offset", Int(8));
    layout.fuse_write_size = find("fuse_write_size", WRITE, "ia.write.in.size", Int(4));
    layout.fuse_write_inode = find("fuse_write_inode", WRITE, "inode", Ptr);
    layout.fuse_args_end = find("fuse_args_end", "fuse_args", "end", Ptr);
    layout.fuse_req_args = find("fuse_req_args", "fuse_req", "args", Ptr);
    layout.fuse_req_error = find("fuse_req_error", "fuse_req", "out.h.error", Int(4));
    layout.fuse_mount_fc = find("fuse_mount_fc", "fuse_mount", "fc", Ptr);
    layout.fuse_conn_connected = r.module(
        "fuse_conn_connected",
        "fuse",
        &[("fuse_conn", "connected"), ("fuse_chan", "connected")],
        Int(4),
    );
    let btf = r.types.of("fuse");
    let chan = btf.and_then(|btf| btf.member("fuse_conn", "chan", Ptr).ok());
    layout.fuse_conn_chan = chan.map_or(ABSENT, |member| member.offset_bytes);
}

/// netfs: requests to write, and the numbers of what its tracepoints say. Before 6.10 it does not
/// write pages back: no loss.
fn netfs(r: &mut Resolver<'_>, layout: &mut Layout) {
    use Expect::{Any, Int, Ptr};
    let btf = r.types.of("netfs");
    let value = |of, enumerator| {
        let value = btf.and_then(|btf| btf.enum_value(Some(of), enumerator).ok());
        value.and_then(|value| u32::try_from(value).ok())
    };
    let number = |of, enumerator| value(of, enumerator).unwrap_or(ABSENT);
    layout.netfs_fail_write = number("netfs_failure", "netfs_fail_write");
    layout.netfs_terminated = number("netfs_sreq_trace", "netfs_sreq_trace_terminated");
    layout.netfs_to_server = number("netfs_io_source", "NETFS_UPLOAD_TO_SERVER");
    layout.netfs_write_back = number("netfs_io_origin", "NETFS_WRITEBACK");
    layout.netfs_write_through = number("netfs_io_origin", "NETFS_WRITETHROUGH");
    const REQUEST: &str = "netfs_io_request";
    const PART: &str = "netfs_io_subrequest";
    let writes_back = layout.netfs_fail_write != ABSENT;
    let mut find = |field, of, path, expect| match writes_back {
        true => r.module(field, "netfs", &[(of, path)], expect),
        false => ABSENT,
    };
    layout.netfs_request_inode = find("netfs_request_inode", REQUEST, "inode", Ptr);
    layout.netfs_request_origin = find("netfs_request_origin", REQUEST, "origin", Any);
    layout.netfs_part_request = find("netfs_part_request", PART, "rreq", Ptr);
    layout.netfs_part_start = find("netfs_part_start", PART, "start", Int(8));
    layout.netfs_part_len = find("netfs_part_len", PART, "len", Int(8));
    layout.netfs_part_transferred = find("netfs_part_transferred", PART, "transferred", Int(8));
    layout.netfs_part_error = find("netfs_part_error", PART, "error", Int(2));
    layout.netfs_part_source = find("netfs_part_source", PART, "source", Any);
}

/// A layout of zeros, without naming its hundred fields.
trait ReadZeroed {
    fn read_zeroed() -> Self;
}

impl<T: Wire> ReadZeroed for T {
    fn read_zeroed() -> Self {
        T::new_zeroed()
    }
}
