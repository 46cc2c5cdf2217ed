//! The ABI between the eBPF programs and user space: map values, ring records, and the layout of
//! the running kernel.
//!
//! Fixed-width integers only, no padding (zerocopy makes padding a compile error), no `unsafe`.
//! Change anything here and [`ABI_VERSION`] goes up: user space looks for [`ABI_MARK`] in the
//! object before it loads it.
#![no_std]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of everything in this file.
pub const ABI_VERSION: u8 = 10;

/// Stands in the object as the symbol `ABI_MARK`; user space compares it before loading.
pub const ABI_MARK: [u8; 17] = {
    let mut mark = *b"msync-trace-abi\0\0";
    mark[16] = ABI_VERSION;
    mark
};

/// Values of the map `END_IO`, by the address of a bio's `bi_end_io`. Here: the pages that the bio
/// writes lie in it, one by one.
pub const OWNER_PAGES: u32 = 1;
/// `ext4_end_bio`: `bi_private` is an `ext4_io_end`.
pub const OWNER_EXT4: u32 = 2;
/// iomap write-back: the bio belongs to an `iomap_ioend`.
pub const OWNER_IOMAP: u32 = 3;
/// btrfs data: the ordered extent decides later, the bio alone means nothing.
pub const OWNER_BTRFS: u32 = 4;
/// `bio_chain_endio`: `bi_private` is the bio that this one was split from.
pub const OWNER_CHAIN: u32 = 5;
/// `fuse_writepage_end`: not of a bio, but of a FUSE request (`fuse_args.end`) that writes pages
/// back.
pub const OWNER_FUSE: u32 = 6;

/// Offset of a field that the running kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// Types that cross the border: plain bytes, no padding, every bit pattern valid.
pub trait Wire: FromBytes + IntoBytes + Immutable + KnownLayout + Copy + 'static {}

macro_rules! wire {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident: $ty:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty,)* }
        impl Wire for $name {}
    )*};
}

wire! {
    /// Identity of an inode; key of the map `FAILED`.
    pub struct InodeKey {
        /// UUID of the filesystem, zero where it has none.
        pub uuid: [u8; 16],
        /// Inode number.
        pub ino: u64,
        /// btrfs: object id of the subvolume's root; else 0.
        pub subvolume: u64,
        /// `i_generation`.
        pub generation: u32,
        /// `s_dev` where `uuid` is zero; else 0.
        pub dev: u32,
    }

    /// What the kernel side remembers of an inode with failures; value of the map `FAILED`.
    pub struct InodeState {
        /// Write failures seen: facts sent and facts that found the ring full.
        pub failures: u64,
        /// Time of the first and the last failure, `CLOCK_MONOTONIC` ns.
        pub first_at: u64,
        /// See `first_at`.
        pub last_at: u64,
        /// Lowest failed byte.
        pub lowest: u64,
        /// One past the highest failed byte; `u64::MAX` where a range was unknown.
        pub highest: u64,
        /// When a page-exact hook last saw this inode fail: a recorded error just after it is the
        /// same failure.
        pub page_exact_at: u64,
        /// When its names were told last; 0: never.
        pub named_at: u64,
        /// Last error, positive.
        pub errno: u32,
        /// 1: the kernel recorded an error on the inode since it is followed.
        pub recorded: u32,
    }

    /// First part of every ring record.
    pub struct Header {
        /// One of the `KIND_` constants.
        pub kind: u32,
        /// One of the `HOOK_` constants: which program saw it.
        pub hook: u32,
        /// `bpf_ktime_get_ns` when the program ran.
        pub at: u64,
    }

    /// A thread.
    pub struct TaskInfo {
        /// Thread group id.
        pub pid: u32,
        /// Thread id.
        pub tid: u32,
        /// Real user id.
        pub uid: u32,
        /// `PF_` flags of the task.
        pub flags: u32,
        /// `start_time` of the group leader, `CLOCK_MONOTONIC` ns.
        pub start_time: u64,
        /// cgroup v2 id.
        pub cgroup: u64,
        /// Thread name, NUL padded.
        pub comm: [u8; 16],
    }

    /// Of which filesystem an inode is.
    pub struct FileSystem {
        /// `file_system_type.name`, NUL padded.
        pub fs_type: [u8; 16],
        /// `super_block.s_id`, NUL padded.
        pub s_id: [u8; 32],
        /// `super_block.s_dev`.
        pub dev: u32,
        /// `inode.i_nlink`.
        pub nlink: u32,
    }

    /// `KIND_WRITE_FAILED`.
    pub struct WriteFailed {
        /// Kind and time.
        pub header: Header,
        /// Which inode.
        pub inode: InodeKey,
        /// First failed byte.
        pub start: u64,
        /// One past the last failed byte; 0 where the range is unknown.
        pub end: u64,
        /// When the write was submitted, ns; 0 where unknown.
        pub submitted: u64,
        /// Positive error number.
        pub errno: u32,
        /// `FAILED_` flags.
        pub flags: u32,
        /// Who was running.
        pub task: TaskInfo,
        /// Names.
        pub fs: FileSystem,
    }

    /// `KIND_WRITE_OK`, `KIND_REDIRTIED`, `KIND_DISCARDED`, `KIND_EVICTED`, `KIND_GONE`,
    /// `KIND_CONVERTED`.
    pub struct Range {
        /// Kind and time.
        pub header: Header,
        /// Which inode.
        pub inode: InodeKey,
        /// First byte.
        pub start: u64,
        /// One past the last byte.
        pub end: u64,
        /// `KIND_GONE`: links left.
        pub nlink: u64,
    }

    /// `KIND_SYNC_FILE`: one inode of a sync call.
    pub struct SyncFile {
        /// Kind and time.
        pub header: Header,
        /// Which inode.
        pub inode: InodeKey,
        /// Address of the `struct file`.
        pub file: u64,
        /// Groups the records of one call.
        pub call_id: u64,
        /// First byte asked for.
        pub start: u64,
        /// One past the last byte asked for.
        pub end: u64,
        /// `inode.i_size`, bytes.
        pub size: u64,
        /// `CALL_` constant.
        pub call: u32,
        /// `SYNC_` flags.
        pub flags: u32,
        /// Who called.
        pub task: TaskInfo,
        /// Names.
        pub fs: FileSystem,
        /// What the kernel side knows of the inode's failures.
        pub state: InodeState,
    }

    /// `KIND_SYNC_END`: the call came back.
    pub struct SyncEnd {
        /// Kind and time.
        pub header: Header,
        /// Which call.
        pub call_id: u64,
        /// What it returned to the program.
        pub ret: i64,
    }

    /// `KIND_TOLD` and `KIND_OPENED`.
    pub struct FileEvent {
        /// Kind and time.
        pub header: Header,
        /// Which inode.
        pub inode: InodeKey,
        /// Address of the `struct file`.
        pub file: u64,
        /// `KIND_TOLD`: the positive error number.
        pub errno: u32,
        /// Not used.
        pub reserved: u32,
        /// Who.
        pub task: TaskInfo,
    }

    /// `KIND_PATH` and `KIND_NAME`, followed by `len` bytes of names: leaf first, each ended by a NUL.
    pub struct PathHeader {
        /// Kind and time.
        pub header: Header,
        /// `KIND_PATH`: the sync call it belongs to; its record follows.
        pub call_id: u64,
        /// `KIND_NAME`: whose names these are, up to the root of its filesystem; the record of a
        /// failure follows.
        pub inode: InodeKey,
        /// Bytes of names that follow.
        pub len: u32,
        /// 1 where not all names were read.
        pub truncated: u32,
    }

    /// `KIND_STORAGE_ERROR`: a disk or a whole filesystem is in trouble. Once a second at most for
    /// each of them.
    pub struct StorageError {
        /// Kind and time.
        pub header: Header,
        /// `STORAGE_` constant.
        pub what: u32,
        /// Positive error number; 0 where the hook cannot tell.
        pub errno: u32,
        /// Which filesystem; of a disk the device number only.
        pub fs: FileSystem,
    }

    /// `KIND_MODULE`: a kernel module was loaded.
    pub struct ModuleLoaded {
        /// Kind and time.
        pub header: Header,
        /// `module.name`, NUL padded.
        pub name: [u8; 56],
    }

    /// Where the running kernel keeps what the programs read. Byte offsets from BTF, [`ABSENT`]
    /// where there is none. Injected as the read-only global `LAYOUT`.
    pub struct Layout {
        /// `inode.i_ino` (unsigned long up to 7.1, u64 since).
        pub inode_ino: u32,
        /// `inode.i_sb`.
        pub inode_sb: u32,
        /// `inode.i_mode` (u16).
        pub inode_mode: u32,
        /// `inode.i_nlink` (u32).
        pub inode_nlink: u32,
        /// `inode.i_generation` (u32).
        pub inode_generation: u32,
        /// `inode.i_size` (s64).
        pub inode_size: u32,
        /// `inode.i_count` (atomic_t).
        pub inode_count: u32,
        /// `super_block.s_dev` (u32).
        pub sb_dev: u32,
        /// `super_block.s_type`.
        pub sb_type: u32,
        /// `super_block.s_magic` (unsigned long).
        pub sb_magic: u32,
        /// `super_block.s_uuid` (16 bytes).
        pub sb_uuid: u32,
        /// `super_block.s_id` (32 bytes).
        pub sb_id: u32,
        /// `file_system_type.name`.
        pub fs_type_name: u32,
        /// `address_space.host`.
        pub mapping_host: u32,
        /// `address_space.wb_err` (u32).
        pub mapping_wb_err: u32,
        /// `file.f_mapping`.
        pub file_mapping: u32,
        /// `file.f_wb_err` (u32).
        pub file_wb_err: u32,
        /// `inode.i_dentry.first`, the first of its names; absent if the kernel keeps them elsewhere.
        pub inode_names: u32,
        /// `dentry.d_u.d_alias`, what `inode_names` points at.
        pub dentry_alias: u32,
        /// `file.f_path.dentry`.
        pub file_dentry: u32,
        /// `file.f_path.mnt`.
        pub file_mnt: u32,
        /// `dentry.d_parent`.
        pub dentry_parent: u32,
        /// `dentry.d_name.name`.
        pub dentry_name: u32,
        /// `mount.mnt`.
        pub mount_mnt: u32,
        /// `mount.mnt_parent`.
        pub mount_parent: u32,
        /// `mount.mnt_mountpoint`.
        pub mount_mountpoint: u32,
        /// `vfsmount.mnt_root`.
        pub vfsmount_root: u32,
        /// `folio.mapping`, or `page.mapping` on 5.10.
        pub folio_mapping: u32,
        /// `folio.index`, or `page.index` on 5.10.
        pub folio_index: u32,
        /// `folio.private`, or `page.private` on 5.10.
        pub folio_private: u32,
        /// `page.compound_head` / `compound_info`.
        pub page_compound_head: u32,
        /// `sizeof(struct page)`.
        pub page_size_of: u32,
        /// `folio._nr_pages` / `_folio_nr_pages` (u32), [`ABSENT`] on 5.10.
        pub folio_nr_pages: u32,
        /// `folio.flags`.
        pub folio_flags: u32,
        /// Number of the bit `PG_head` (from BTF `enum pageflags`).
        pub page_head_bit: u32,
        /// `bio.bi_opf` (u32).
        pub bio_opf: u32,
        /// `bio.bi_status` (u8).
        pub bio_status: u32,
        /// `bio.bi_vcnt` (u16).
        pub bio_vcnt: u32,
        /// `bio.bi_io_vec`.
        pub bio_io_vec: u32,
        /// `bio.bi_iter.bi_size` (u32).
        pub bio_iter_size: u32,
        /// `bio.bi_iter.bi_idx` (u32).
        pub bio_iter_idx: u32,
        /// `bio.bi_iter.bi_bvec_done` (u32).
        pub bio_iter_done: u32,
        /// `bio.bi_next`.
        pub bio_next: u32,
        /// `bio.bi_end_io`.
        pub bio_end_io: u32,
        /// `bio.bi_private`.
        pub bio_private: u32,
        /// `request.cmd_flags` (u32).
        pub rq_flags: u32,
        /// `request.rq_disk`, [`ABSENT`] from 5.17 on.
        pub rq_disk: u32,
        /// `request.q`.
        pub rq_queue: u32,
        /// `request_queue.disk`, [`ABSENT`] before 5.15.
        pub queue_disk: u32,
        /// `gendisk.major` (s32).
        pub disk_major: u32,
        /// `gendisk.first_minor` (s32).
        pub disk_first_minor: u32,
        /// XFS: `xfs_mount.m_super`.
        pub xfs_mount_super: u32,
        /// XFS: `xlog.l_mp`.
        pub xfs_log_mount: u32,
        /// btrfs: `btrfs_fs_info.sb`.
        pub btrfs_info_super: u32,
        /// Bit mask of the kinds of pages that were dirty (`enum mf_action_page_type`,
        /// `MF_MSG_DIRTY_LRU` and its like).
        pub memory_dirty_types: u32,
        /// `request.bio`.
        pub rq_bio: u32,
        /// `request.start_time_ns` (u64).
        pub rq_start_time: u32,
        /// `iomap_ioend.io_inode`.
        pub ioend_inode: u32,
        /// `iomap_ioend.io_offset` (s64).
        pub ioend_offset: u32,
        /// `iomap_ioend.io_size` (size_t).
        pub ioend_size: u32,
        /// `iomap_ioend.io_error` (int), 6.18 and later.
        pub ioend_error: u32,
        /// `iomap_ioend.io_bio` where the bio is embedded (6.12 and later).
        pub ioend_bio: u32,
        /// `buffer_head.b_folio` or `b_page`.
        pub bh_folio: u32,
        /// `inode.i_blkbits` (u8).
        pub inode_blkbits: u32,
        /// `inode.i_mapping`.
        pub inode_mapping: u32,
        /// `btrfs_bio.bio`; 0 on 5.10, where the argument is the bio itself.
        pub bbio_bio: u32,
        /// `btrfs_ordered_extent.file_offset` (u64).
        pub oe_file_offset: u32,
        /// `btrfs_ordered_extent.num_bytes` (u64).
        pub oe_num_bytes: u32,
        /// `btrfs_ordered_extent.flags` (unsigned long).
        pub oe_flags: u32,
        /// `btrfs_ordered_extent.inode`.
        pub oe_inode: u32,
        /// Added to what `oe_inode` points at to get the `struct inode`.
        pub oe_inode_to_vfs: u32,
        /// `btrfs_ordered_extent.truncated_len` (u64).
        pub oe_truncated_len: u32,
        /// Mask of `BTRFS_ORDERED_IOERR` in the flags; 0 where unknown.
        pub oe_ioerr_mask: u32,
        /// Mask of `BTRFS_ORDERED_TRUNCATED`.
        pub oe_truncated_mask: u32,
        /// Mask of `BTRFS_ORDERED_DIRECT`: an O_DIRECT write.
        pub oe_direct_mask: u32,
        /// `btrfs_inode.root` seen from the `struct inode`: subtracted to get the `btrfs_inode`.
        pub btrfs_vfs_inode: u32,
        /// `btrfs_inode.root`.
        pub btrfs_root: u32,
        /// `btrfs_root.root_key.objectid` (u64).
        pub btrfs_root_objectid: u32,
        /// `ext4_io_end.inode`.
        pub ext4_io_end_inode: u32,
        /// `ext4_io_end.flag` (u32).
        pub ext4_io_end_flag: u32,
        /// `ext4_io_end.list_vec` (list_head).
        pub ext4_io_end_vecs: u32,
        /// `ext4_io_end_vec.offset` (s64); `size` (s64) follows.
        pub ext4_vec_offset: u32,
        /// 1 where a failed bio leaves the whole `ext4_io_end` unconverted.
        pub ext4_whole_io_end: u32,
        /// Offset of `inode` in `struct mpage_da_data` is 0; this is `first_page` or `start_pos`.
        pub mpage_start: u32,
        /// `mpage_da_data.next_page` or `next_pos`.
        pub mpage_next: u32,
        /// Shift that makes `mpage_start` bytes: 12 for page numbers, 0 for bytes.
        pub mpage_shift: u32,
        /// `xfs_inode.i_vnode`.
        pub xfs_inode_vnode: u32,
        /// `task_struct.stack`.
        pub task_stack: u32,
        /// `task_struct.flags` (u32).
        pub task_flags: u32,
        /// `task_struct.group_leader`.
        pub task_leader: u32,
        /// `task_struct.start_time` (u64).
        pub task_start_time: u32,
        /// `task_struct.files`.
        pub task_files: u32,
        /// `task_struct.mm`.
        pub task_mm: u32,
        /// `task_struct.thread_info.status` (u32).
        pub task_ti_status: u32,
        /// `files_struct.fdt`.
        pub files_fdt: u32,
        /// `fdtable.max_fds` (u32).
        pub fdt_max: u32,
        /// `fdtable.fd`.
        pub fdt_fd: u32,
        /// `pt_regs.orig_ax`.
        pub regs_orig_ax: u32,
        /// `pt_regs.di`.
        pub regs_di: u32,
        /// `pt_regs.si`.
        pub regs_si: u32,
        /// `pt_regs.dx`.
        pub regs_dx: u32,
        /// `pt_regs.r10`.
        pub regs_r10: u32,
        /// `pt_regs.bx` (first argument of a 32-bit caller).
        pub regs_bx: u32,
        /// `pt_regs.cx` (second argument of a 32-bit caller).
        pub regs_cx: u32,
        /// `file.f_mode`.
        pub file_mode: u32,
        /// `backing_file.user_path.dentry`, from its `file` on, which is its first member; absent
        /// before 6.7.
        pub backing_dentry: u32,
        /// `backing_file.user_path.mnt`.
        pub backing_mnt: u32,
        /// `vm_area_struct.vm_start`.
        pub vma_start: u32,
        /// `vm_area_struct.vm_end`.
        pub vma_end: u32,
        /// `vm_area_struct.vm_flags`.
        pub vma_flags: u32,
        /// `vm_area_struct.vm_file`.
        pub vma_file: u32,
        /// `vm_area_struct.vm_pgoff`.
        pub vma_pgoff: u32,
        /// `vm_area_struct.vm_mm`.
        pub vma_mm: u32,
        /// `vm_area_struct.vm_rb` (before 6.1).
        pub vma_rb: u32,
        /// `mm_struct.mm_rb` (before 6.1).
        pub mm_rb: u32,
        /// `mm_struct.mm_mt.ma_root` (6.1 and later).
        pub mm_root: u32,
        /// `maple_range_64.pivot`: leaves have the same shape.
        pub range_pivots: u32,
        /// `maple_range_64.slot`.
        pub range_slots: u32,
        /// `maple_range_64.meta.end`.
        pub range_end: u32,
        /// `maple_arange_64.pivot`.
        pub arange_pivots: u32,
        /// `maple_arange_64.slot`.
        pub arange_slots: u32,
        /// `maple_arange_64.meta.end`.
        pub arange_end: u32,
        /// `iomap_dio.iocb`.
        pub dio_iocb: u32,
        /// `iomap_dio.size`.
        pub dio_size: u32,
        /// `iomap_dio.error` (int).
        pub dio_error: u32,
        /// `iomap_dio.flags` (u32); bit 30 of it is `IOMAP_DIO_WRITE`.
        pub dio_flags: u32,
        /// `module.name`.
        pub module_name: u32,
        /// `kiocb.ki_filp`.
        pub iocb_filp: u32,
        /// `kiocb.ki_pos`.
        pub iocb_pos: u32,
        /// `super_block.s_fs_info`.
        pub sb_fs_info: u32,
        /// `nfs_page.wb_page` or `wb_folio`.
        pub nfs_page_folio: u32,
        /// `nfs_page.wb_index` (unsigned long).
        pub nfs_page_index: u32,
        /// `nfs_page.wb_offset` (u32).
        pub nfs_page_offset: u32,
        /// `nfs_page.wb_bytes` (u32).
        pub nfs_page_bytes: u32,
        /// `nfs_page.wb_verf` (8 bytes).
        pub nfs_page_verf: u32,
        /// `nfs_inode.vfs_inode`.
        pub nfs_vfs_inode: u32,
        /// `nfs_inode.fh`; absent: the handle cannot be read.
        pub nfs_handle: u32,
        /// `rpc_task.tk_status` (int).
        pub rpc_task_status: u32,
        /// `nfs_pgio_header.inode`.
        pub nfs_header_inode: u32,
        /// `nfs_pgio_header.args.offset` (u64).
        pub nfs_header_offset: u32,
        /// `nfs_pgio_header.res.count`, its low 32 bits (a WRITE is smaller).
        pub nfs_header_count: u32,
        /// `nfs_pgio_header.res.verf`.
        pub nfs_header_verf: u32,
        /// `nfs_writeverf.committed` (enum).
        pub nfs_verf_committed: u32,
        /// `nfs_writeverf.verifier` (8 bytes).
        pub nfs_verf_verifier: u32,
        /// `nfs_commit_data.inode`.
        pub nfs_commit_inode: u32,
        /// `nfs_commit_data.pages` (list_head).
        pub nfs_commit_pages: u32,
        /// `nfs_commit_data.res.verf`.
        pub nfs_commit_verf: u32,
        /// 1 where the tracepoints of NFS write errors begin with the request (5.10), [`ABSENT`]
        /// where with the inode.
        pub nfs_request_first: u32,
        /// 1 where they begin with the inode, [`ABSENT`] on 5.10.
        pub nfs_inode_first: u32,
        /// `fuse_writepage_args.ia.ap.args`: subtracted from a `fuse_args`.
        pub fuse_write_args: u32,
        /// `fuse_writepage_args.ia.write.in.offset` (u64).
        pub fuse_write_offset: u32,
        /// `fuse_writepage_args.ia.write.in.size` (u32).
        pub fuse_write_size: u32,
        /// `fuse_writepage_args.inode`.
        pub fuse_write_inode: u32,
        /// `fuse_args.end`.
        pub fuse_args_end: u32,
        /// `fuse_req.args`, 6.12 and later.
        pub fuse_req_args: u32,
        /// `fuse_req.out.h.error` (int), 6.12 and later.
        pub fuse_req_error: u32,
        /// `fuse_mount.fc`.
        pub fuse_mount_fc: u32,
        /// `fuse_conn.chan`, 7.2 and later.
        pub fuse_conn_chan: u32,
        /// `fuse_conn.connected` (unsigned), `fuse_chan.connected` where there is a `fuse_conn.chan`.
        pub fuse_conn_connected: u32,
        /// `netfs_io_request.inode`; this and the next ones 6.12 and later.
        pub netfs_request_inode: u32,
        /// `netfs_io_request.origin` (u8).
        pub netfs_request_origin: u32,
        /// `netfs_io_subrequest.rreq`.
        pub netfs_part_request: u32,
        /// `netfs_io_subrequest.start` (u64).
        pub netfs_part_start: u32,
        /// `netfs_io_subrequest.len` (size_t).
        pub netfs_part_len: u32,
        /// `netfs_io_subrequest.transferred` (size_t).
        pub netfs_part_transferred: u32,
        /// `netfs_io_subrequest.error` (short).
        pub netfs_part_error: u32,
        /// `netfs_io_subrequest.source` (u8).
        pub netfs_part_source: u32,
        /// Value of `netfs_fail_write`.
        pub netfs_fail_write: u32,
        /// Value of `netfs_sreq_trace_terminated`.
        pub netfs_terminated: u32,
        /// Value of `NETFS_UPLOAD_TO_SERVER`.
        pub netfs_to_server: u32,
        /// Value of `NETFS_WRITEBACK`.
        pub netfs_write_back: u32,
        /// Value of `NETFS_WRITETHROUGH`.
        pub netfs_write_through: u32,
    }

    /// Choices of user space. Injected as the read-only global `CONFIG`.
    pub struct Config {
        /// `msync` without `MS_SYNC` is reported as well.
        pub include_async: u32,
        /// This process: its own sync calls are not reported.
        pub own_pid: u32,
        /// Argument 1 of tracepoint `block_rq_complete` is a `blk_status_t` (5.16 and later), not
        /// a negative errno.
        pub rq_error_is_status: u32,
        /// `FMODE_BACKING` in `file.f_mode`: a file below an overlay, opened for one of the overlay.
        pub fmode_backing: u32,
        /// `PF_IO_WORKER` of this kernel.
        pub pf_io_worker: u32,
        /// What ext4 records for any failed page; 0: what the device said.
        pub ext4_errno: u32,
    }

    /// What user space tells the programs while they run; the entry of the array `CONTROL`.
    pub struct Control {
        /// Not 0 as long as any inode is in `FAILED`: the one comparison on a healthy machine.
        pub tracked: u32,
        /// The hooks on hot paths are attached.
        pub page_hooks: u32,
        /// Tier 2: the system call exit hook is attached.
        pub exit_hook: u32,
        /// Distance from `task_struct.stack` to the `pt_regs` of a system call; 0 unknown.
        pub regs_offset: u32,
        /// Sync calls are seen at the exit of the system call: always in tiers 2 and 3, in tier 1 while
        /// the hook there is attached.
        pub sync_at_exit: u32,
        /// User space looks at the rings every few milliseconds: it need not be woken.
        pub polled: u32,
    }

    /// Counters of one CPU; an entry of the array `COUNTERS`.
    pub struct Counters {
        /// Records sent, by ring: errors, syncs, pages.
        pub sent: [u64; 3],
        /// Records that found their ring full.
        pub ring_full: [u64; 3],
        /// Inodes that found `FAILED` full.
        pub inode_map_full: u64,
        /// Calls that found `CALLS` full.
        pub call_map_full: u64,
        /// Mappings that could not be looked at.
        pub mappings_busy: u64,
        /// Walks that reached their limit.
        pub walk_limit: u64,
        /// Two cache lines are one CPU's own.
        pub unused: [u64; 6],
    }
}

impl InodeKey {
    /// A key of zeros, to be filled.
    pub const ZERO: Self = Self {
        uuid: [0; 16],
        ino: 0,
        subvolume: 0,
        generation: 0,
        dev: 0,
    };
}

/// Ring indices in [`Counters`].
pub const RING_ERRORS: usize = 0;
/// See [`RING_ERRORS`].
pub const RING_SYNCS: usize = 1;
/// See [`RING_ERRORS`].
pub const RING_PAGES: usize = 2;

/// [`WriteFailed`].
pub const KIND_WRITE_FAILED: u32 = 1;
/// [`Range`].
pub const KIND_WRITE_OK: u32 = 2;
/// [`Range`].
pub const KIND_REDIRTIED: u32 = 3;
/// [`Range`].
pub const KIND_DISCARDED: u32 = 4;
/// [`Range`].
pub const KIND_EVICTED: u32 = 5;
/// [`Range`].
pub const KIND_GONE: u32 = 6;
/// [`SyncFile`].
pub const KIND_SYNC_FILE: u32 = 7;
/// [`SyncEnd`].
pub const KIND_SYNC_END: u32 = 8;
/// [`FileEvent`].
pub const KIND_TOLD: u32 = 9;
/// [`FileEvent`].
pub const KIND_OPENED: u32 = 10;
/// [`PathHeader`] and names.
pub const KIND_PATH: u32 = 11;

/// [`ModuleLoaded`].
pub const KIND_MODULE: u32 = 12;

/// [`Range`]: unwritten blocks were converted, or will be when the write under way has ended: from
/// here on the file has what is written to them.
pub const KIND_CONVERTED: u32 = 13;
/// [`PathHeader`] and names.
pub const KIND_NAME: u32 = 14;
/// [`StorageError`].
pub const KIND_STORAGE_ERROR: u32 = 15;

/// The disk could not flush its cache.
pub const STORAGE_FLUSH_FAILED: u32 = 1;
/// The filesystem found an error, and may be read-only for it.
pub const STORAGE_FILESYSTEM_ERROR: u32 = 2;
/// The filesystem was shut down.
pub const STORAGE_FILESYSTEM_SHUTDOWN: u32 = 3;

/// Flag of [`WriteFailed`]: evictions were being watched.
pub const FAILED_EVICTION_WATCHED: u32 = 1;
/// Flag of [`WriteFailed`]: the blocks stay unwritten. Nothing that is written to them is in the
/// file before [`KIND_CONVERTED`].
pub const FAILED_UNCONVERTED: u32 = 2;

/// Flag of [`SyncFile`]: `f_wb_err` differs from `wb_err`, the next sync will fail.
pub const SYNC_PENDING: u32 = 1;
/// Flag of [`SyncFile`]: the record stands for itself, no [`SyncEnd`] follows; `ret` 0.
pub const SYNC_ALONE: u32 = 2;
/// Flag of [`SyncFile`]: an error was recorded on the inode and none stands there now: the inode
/// left the cache meanwhile, with all its pages, and was read anew.
pub const SYNC_ANEW: u32 = 4;
/// Flag of [`SyncFile`]: the call failed (only with [`SYNC_ALONE`]).
pub const SYNC_FAILED: u32 = 8;

/// `msync` with `MS_SYNC`.
pub const CALL_MSYNC: u32 = 1;
/// `msync` without.
pub const CALL_MSYNC_ASYNC: u32 = 2;
/// `fsync`.
pub const CALL_FSYNC: u32 = 3;
/// `fdatasync`.
pub const CALL_FDATASYNC: u32 = 4;
/// io_uring worker.
pub const CALL_IO_URING: u32 = 5;
/// nfsd.
pub const CALL_NFSD: u32 = 6;

/// Bytes of names in one [`PathHeader`] record, at most.
pub const PATH_BYTES: usize = 2048;
