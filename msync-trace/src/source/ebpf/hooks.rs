//! The table of hooks: for each, the ways it can be attached, best first.
//!
//! The loader walks it once ([`super::instance`]); `check` prints it; docs/how-it-works.md
//! describes it. Which kernel function or tracepoint a program relies on stands at the program.

use msync_trace_ebpf as abi;

use super::skipped::Sees;
use crate::source::{Method, Tier};

/// A hook, and the ways to attach it.
#[derive(Debug)]
pub struct Hook {
    /// Stable name.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Ways to attach it, best first.
    pub ways: &'static [Way],
    /// Attach all ways that work rather than the first one.
    pub all_ways: bool,
    /// When it is attached.
    pub when: When,
    /// What is not seen without it; `None` where another hook sees as much.
    pub without: Option<&'static str>,
}

impl Hook {
    /// What is missed when one of its programs is skipped.
    #[must_use]
    pub fn sees(&self) -> Sees {
        let (place, what) = self.name.split_once('.').unwrap_or_default();
        match (place, what) {
            (
                "sync" | "inode" | "page" | "direct" | "file" | "module" | "disk" | "filesystem",
                _,
            )
            | (_, "told" | "written" | "committed") => Sees::More,
            _ => Sees::Failures,
        }
    }
}

/// When a hook is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// From the start.
    Always,
    /// Once the first failure appears: it lies on a hot path.
    OnDemand,
    /// From the start in tier 3, on demand in tier 2; in tier 1 on demand where programs may be
    /// preempted, otherwise not needed.
    SyscallExit,
    /// Only where functions of the filesystems cannot be hooked.
    BlockLayer,
}

/// One way to attach a hook.
#[derive(Debug)]
pub struct Way {
    /// Program in the object.
    pub program: &'static str,
    /// How.
    pub method: Method,
    /// Kernel function or tracepoint.
    pub target: &'static str,
    /// Module that may hold the target; empty: the kernel itself.
    pub module: &'static str,
    /// Fields of the layout that it cannot do without.
    pub needs: &'static [&'static str],
}

impl Way {
    /// Whether a tier allows this way.
    #[must_use]
    pub fn allowed(&self, tier: Tier) -> bool {
        match self.method {
            Method::Fentry | Method::Fexit => tier == Tier::Fentry,
            Method::Kprobe => tier <= Tier::Kprobe,
            Method::RawTracepoint | Method::Tracepoint => true,
        }
    }
}

const fn way(
    method: Method,
    program: &'static str,
    target: &'static str,
    module: &'static str,
    needs: &'static [&'static str],
) -> Way {
    Way {
        program,
        method,
        target,
        module,
        needs,
    }
}

const fn fentry(
    program: &'static str,
    target: &'static str,
    needs: &'static [&'static str],
) -> Way {
    way(Method::Fentry, program, target, "", needs)
}

const fn fexit(program: &'static str, target: &'static str, needs: &'static [&'static str]) -> Way {
    way(Method::Fexit, program, target, "", needs)
}

const fn kprobe(
    program: &'static str,
    target: &'static str,
    module: &'static str,
    needs: &'static [&'static str],
) -> Way {
    way(Method::Kprobe, program, target, module, needs)
}

const fn tracepoint(
    program: &'static str,
    target: &'static str,
    module: &'static str,
    needs: &'static [&'static str],
) -> Way {
    way(Method::RawTracepoint, program, target, module, needs)
}

/// The first kernel that may preempt programs of raw tracepoints, and, unless built otherwise, those
/// of trampolines: no later than 7.2, where it was seen, and after 6.18, where it was not. While one
/// is preempted, the kernel skips it for all others on that processor. Classic tracepoints and kprobes
/// run theirs with preemption off, and are used instead.
pub const PREEMPTED: (u32, u32) = (6, 19);

const IOEND: &[&str] = &["ioend_inode", "ioend_offset", "ioend_size"];
const IOEND_ERROR: &[&str] = &["ioend_inode", "ioend_offset", "ioend_size", "ioend_error"];
const BIO: &[&str] = &[
    "bio_status",
    "bio_opf",
    "bio_vcnt",
    "bio_io_vec",
    "folio_mapping",
    "folio_index",
    "page_compound_head",
];
const REQUEST: &[&str] = &[
    "rq_bio",
    "bio_next",
    "bio_opf",
    "bio_end_io",
    "bio_private",
    "bio_iter_size",
    "bio_iter_idx",
    "bio_iter_done",
    "bio_io_vec",
    "folio_mapping",
    "folio_index",
    "page_compound_head",
];
const FLUSH: &[&str] = &["rq_queue", "disk_major", "disk_first_minor"];
const FD: &[&str] = &["task_files", "files_fdt", "fdt_max", "fdt_fd", "regs_di"];
const VMA: &[&str] = &[
    "vma_start",
    "vma_end",
    "vma_flags",
    "vma_file",
    "vma_pgoff",
    "vma_mm",
    "regs_di",
    "mm_root",
    "range_pivots",
    "range_slots",
    "range_end",
    "arange_pivots",
    "arange_slots",
    "arange_end",
];
const NFS_INODE: &[&str] = &[
    "nfs_inode_first",
    "nfs_page_index",
    "nfs_page_offset",
    "nfs_page_bytes",
];
const NFS_REQUEST: &[&str] = &[
    "nfs_request_first",
    "nfs_page_folio",
    "nfs_page_index",
    "nfs_page_offset",
    "nfs_page_bytes",
    "folio_mapping",
    "page_compound_head",
];
const NFS_WRITTEN: &[&str] = &[
    "rpc_task_status",
    "nfs_header_inode",
    "nfs_header_offset",
    "nfs_header_count",
    "nfs_header_verf",
    "nfs_verf_committed",
];
const NFS_COMMITTED: &[&str] = &[
    "rpc_task_status",
    "nfs_page_index",
    "nfs_page_offset",
    "nfs_page_bytes",
    "nfs_page_verf",
    "nfs_commit_inode",
    "nfs_commit_pages",
    "nfs_commit_verf",
    "nfs_verf_verifier",
];
const FUSE_WRITE: &[&str] = &[
    "fuse_write_args",
    "fuse_write_offset",
    "fuse_write_size",
    "fuse_write_inode",
];
const FUSE_REQUEST: &[&str] = &[
    "fuse_req_args",
    "fuse_req_error",
    "fuse_args_end",
    "fuse_write_args",
    "fuse_write_offset",
    "fuse_write_size",
    "fuse_write_inode",
];
const FUSE_SEND: &[&str] = &[
    "fuse_mount_fc",
    "fuse_conn_connected",
    "fuse_args_end",
    "fuse_write_args",
    "fuse_write_offset",
    "fuse_write_size",
    "fuse_write_inode",
];
const FUSE_BROKEN: &[&str] = &["sb_fs_info", "fuse_mount_fc", "fuse_conn_connected"];
const NETFS_FAILED: &[&str] = &[
    "netfs_fail_write",
    "netfs_to_server",
    "netfs_write_back",
    "netfs_write_through",
    "netfs_request_inode",
    "netfs_request_origin",
    "netfs_part_source",
    "netfs_part_start",
    "netfs_part_len",
    "netfs_part_transferred",
];
const NETFS_WRITTEN: &[&str] = &[
    "netfs_terminated",
    "netfs_to_server",
    "netfs_request_inode",
    "netfs_part_request",
    "netfs_part_source",
    "netfs_part_error",
    "netfs_part_start",
    "netfs_part_transferred",
];
const FOLIO: &[&str] = &["folio_mapping", "folio_index"];
const ORDERED: &[&str] = &[
    "oe_file_offset",
    "oe_num_bytes",
    "oe_flags",
    "oe_inode",
    "oe_ioerr_mask",
];

/// Every hook, errors before syncs: an error seen without its sync is safe, the reverse is a miss.
pub const HOOKS: &[Hook] = &[
    Hook {
        name: "errseq.recorded",
        purpose: "a write error is recorded on an inode, whatever the filesystem",
        ways: &[tracepoint("recorded", "filemap_set_wb_err", "", &[])],
        all_ways: false,
        when: When::Always,
        without: Some("failures of filesystems without a hook of their own"),
    },
    Hook {
        name: "errseq.told",
        purpose: "an open file is told of an error",
        ways: &[tracepoint("told", "file_check_and_advance_wb_err", "", &[])],
        all_ways: false,
        when: When::Always,
        without: Some("who was told"),
    },
    Hook {
        name: "ext4.write",
        purpose: "ext4 pages were written or failed",
        ways: &[kprobe("ext4_end_bio", "ext4_end_bio", "ext4", BIO)],
        all_ways: false,
        when: When::Always,
        without: None,
    },
    Hook {
        name: "ext4.discard",
        purpose: "ext4 gives up pages whose blocks cannot be allocated, and tells nobody",
        ways: &[
            kprobe(
                "ext4_release_unused",
                "mpage_release_unused_pages",
                "ext4",
                &["mpage_start", "mpage_next"],
            ),
            tracepoint("ext4_folios_end", "ext4_da_write_folios_end", "ext4", &[]),
            tracepoint(
                "ext4_extent",
                "ext4_da_write_pages_extent",
                "ext4",
                &["inode_blkbits"],
            ),
        ],
        all_ways: false,
        when: When::Always,
        without: Some("ext4 pages given up because no block could be allocated"),
    },
    Hook {
        name: "ext4.pass",
        purpose: "the error of an ext4 write-back pass",
        ways: &[tracepoint(
            "ext4_writepages_result",
            "ext4_writepages_result",
            "ext4",
            &[],
        )],
        all_ways: false,
        when: When::Always,
        without: Some("the error of ext4 pages given up"),
    },
    Hook {
        name: "ext4.convert",
        purpose: "an ext4 extent stays unwritten after its data was written",
        ways: &[tracepoint(
            "ext4_map_exit",
            "ext4_ext_map_blocks_exit",
            "ext4",
            &[],
        )],
        all_ways: false,
        when: When::Always,
        without: Some("ext4 extents left unwritten"),
    },
    Hook {
        name: "iomap.write",
        purpose: "XFS (iomap) pages were written or failed",
        ways: &[
            fentry(
                "iomap_finish_buffered_fentry",
                "iomap_finish_ioend_buffered_write",
                IOEND_ERROR,
            ),
            fentry(
                "iomap_finish_buffered_fentry",
                "iomap_finish_ioend_buffered",
                IOEND_ERROR,
            ),
            kprobe(
                "iomap_finish_buffered_kprobe",
                "iomap_finish_ioend_buffered_write",
                "",
                IOEND_ERROR,
            ),
            kprobe(
                "iomap_finish_buffered_kprobe",
                "iomap_finish_ioend_buffered",
                "",
                IOEND_ERROR,
            ),
            fentry("iomap_finish_ioend_fentry", "iomap_finish_ioend", IOEND),
            kprobe("iomap_finish_ioend_kprobe", "iomap_finish_ioend", "", IOEND),
        ],
        all_ways: false,
        when: When::Always,
        without: None,
    },
    Hook {
        name: "xfs.map",
        purpose: "XFS gives up pages whose blocks cannot be mapped",
        ways: &[
            kprobe("xfs_discard", "xfs_discard_folio", "xfs", FOLIO),
            kprobe("xfs_discard", "xfs_discard_page", "xfs", FOLIO),
        ],
        all_ways: false,
        when: When::Always,
        without: None,
    },
    Hook {
        name: "btrfs.ordered",
        purpose: "a btrfs ordered extent ended, well or not",
        ways: &[tracepoint(
            "btrfs_ordered_end",
            "btrfs_ordered_extent_remove",
            "btrfs",
            ORDERED,
        )],
        all_ways: false,
        when: When::Always,
        without: Some("byte ranges on btrfs"),
    },
    Hook {
        name: "btrfs.bio",
        purpose: "a btrfs data bio failed: its inode is followed before anybody is woken",
        ways: &[
            kprobe(
                "btrfs_data_bio",
                "end_bbio_data_write",
                "btrfs",
                &["bbio_bio", "bio_status"],
            ),
            kprobe(
                "btrfs_data_bio",
                "end_bio_extent_writepage",
                "btrfs",
                &["bbio_bio", "bio_status"],
            ),
        ],
        all_ways: false,
        when: When::Always,
        without: None,
    },
    Hook {
        name: "mpage.write",
        purpose: "pages of ext2, FAT and other small filesystems were written or failed",
        ways: &[
            fentry("mpage_ended_fentry", "mpage_write_end_io", BIO),
            kprobe("mpage_ended_kprobe", "mpage_write_end_io", "", BIO),
            fentry("mpage_ended_fentry", "mpage_end_io", BIO),
            kprobe("mpage_ended_kprobe", "mpage_end_io", "", BIO),
        ],
        all_ways: false,
        when: When::Always,
        without: None,
    },
    Hook {
        name: "f2fs.write",
        purpose: "f2fs pages were written or failed",
        ways: &[kprobe("f2fs_ended", "f2fs_write_end_io", "f2fs", BIO)],
        all_ways: false,
        when: When::Always,
        without: None,
    },
    Hook {
        name: "nfs.send",
        purpose: "an NFS write could not be sent",
        ways: &[
            tracepoint("nfs_failed", "nfs_write_error", "nfs", NFS_INODE),
            tracepoint("nfs_failed_request", "nfs_write_error", "nfs", NFS_REQUEST),
        ],
        all_ways: false,
        when: When::Always,
        without: Some("byte ranges of NFS writes that were not sent"),
    },
    Hook {
        name: "nfs.write",
        purpose: "an NFS server refused a write, or did not answer",
        ways: &[
            tracepoint("nfs_failed", "nfs_comp_error", "nfs", NFS_INODE),
            tracepoint("nfs_failed_request", "nfs_comp_error", "nfs", NFS_REQUEST),
        ],
        all_ways: false,
        when: When::Always,
        without: Some("byte ranges of NFS writes that the server refused"),
    },
    Hook {
        name: "nfs.commit",
        purpose: "an NFS server could not commit what it had taken",
        ways: &[
            tracepoint("nfs_failed", "nfs_commit_error", "nfs", NFS_INODE),
            tracepoint("nfs_failed_request", "nfs_commit_error", "nfs", NFS_REQUEST),
        ],
        all_ways: false,
        when: When::Always,
        without: Some("byte ranges of NFS writes that were not committed"),
    },
    Hook {
        name: "nfs.written",
        purpose: "an NFS server wrote bytes that had failed before",
        ways: &[tracepoint(
            "nfs_written",
            "nfs_writeback_done",
            "nfs",
            NFS_WRITTEN,
        )],
        all_ways: false,
        when: When::Always,
        without: Some("NFS writes that succeed later: they may be reported as lost"),
    },
    Hook {
        name: "nfs.committed",
        purpose: "an NFS server committed bytes that had failed before",
        ways: &[tracepoint(
            "nfs_committed",
            "nfs_commit_done",
            "nfs",
            NFS_COMMITTED,
        )],
        all_ways: false,
        when: When::Always,
        without: Some("NFS writes that succeed later: they may be reported as lost"),
    },
    Hook {
        name: "netfs.write",
        purpose: "a CIFS or 9p server refused a write, or is gone",
        ways: &[tracepoint(
            "netfs_failed",
            "netfs_failure",
            "netfs",
            NETFS_FAILED,
        )],
        all_ways: false,
        when: When::Always,
        without: None,
    },
    Hook {
        name: "netfs.written",
        purpose: "a CIFS or 9p server took bytes that had failed before",
        ways: &[tracepoint(
            "netfs_written",
            "netfs_sreq",
            "netfs",
            NETFS_WRITTEN,
        )],
        all_ways: false,
        when: When::Always,
        without: None,
    },
    Hook {
        name: "fuse.write",
        purpose: "a FUSE server wrote pages, or refused them",
        ways: &[
            tracepoint("fuse_request_end", "fuse_request_end", "fuse", FUSE_REQUEST),
            kprobe("fuse_write_end", "fuse_writepage_end", "fuse", FUSE_WRITE),
        ],
        all_ways: false,
        when: When::Always,
        without: None,
    },
    Hook {
        name: "fuse.send",
        purpose: "FUSE pages are dropped because the server is gone",
        ways: &[
            fentry("fuse_send_fentry", "fuse_simple_background", FUSE_SEND),
            kprobe(
                "fuse_send_kprobe",
                "fuse_simple_background",
                "fuse",
                FUSE_SEND,
            ),
            tracepoint(
                "fuse_writeback_folio",
                "iomap_writeback_folio",
                "",
                FUSE_BROKEN,
            ),
        ],
        all_ways: false,
        when: When::Always,
        without: None,
    },
    Hook {
        name: "buffer.write",
        purpose: "a buffer of a page failed (ext4 data=journal, ext2, vfat)",
        ways: &[
            fentry(
                "buffer_failed_fentry",
                "mark_buffer_write_io_error",
                &["bh_folio"],
            ),
            kprobe(
                "buffer_failed_kprobe",
                "mark_buffer_write_io_error",
                "",
                &["bh_folio"],
            ),
        ],
        all_ways: false,
        when: When::Always,
        without: None,
    },
    Hook {
        name: "block.request",
        purpose: "a request ended: whose pages it was is read from its bios",
        ways: &[tracepoint(
            "block_rq_complete",
            "block_rq_complete",
            "",
            REQUEST,
        )],
        all_ways: false,
        when: When::BlockLayer,
        without: Some("byte ranges of failed and repeated writes"),
    },
    Hook {
        name: "block.bio",
        purpose: "a bio of a stacked device (device mapper, md) ended",
        ways: &[tracepoint(
            "block_bio_complete",
            "block_bio_complete",
            "",
            BIO,
        )],
        all_ways: false,
        when: When::BlockLayer,
        without: Some("byte ranges of failures on stacked devices"),
    },
    Hook {
        name: "module.loaded",
        purpose: "a filesystem module came: hooks are attached to it",
        ways: &[tracepoint(
            "module_loaded",
            "module_load",
            "",
            &["module_name"],
        )],
        all_ways: false,
        when: When::Always,
        without: None,
    },
    Hook {
        name: "inode.truncated",
        purpose: "bytes were given up on purpose: truncated, hole punched, deleted",
        ways: &[
            fentry(
                "truncate_fentry",
                "truncate_inode_pages_range",
                &["inode_count"],
            ),
            kprobe(
                "truncate_kprobe",
                "truncate_inode_pages_range",
                "",
                &["inode_count"],
            ),
            tracepoint("ext4_hole", "ext4_punch_hole", "ext4", &[]),
        ],
        all_ways: false,
        when: When::Always,
        without: Some("bytes given up on purpose: they may be reported as lost"),
    },
    Hook {
        name: "inode.hole",
        purpose: "a hole was punched, where the filesystem may have had one already",
        ways: &[fexit("fallocate_fexit", "vfs_fallocate", &[])],
        all_ways: false,
        when: When::Always,
        without: None,
    },
    Hook {
        name: "inode.gone",
        purpose: "an inode left the cache",
        ways: &[
            fentry("evict_fentry", "evict", &["inode_nlink"]),
            kprobe("evict_kprobe", "evict", "", &["inode_nlink"]),
        ],
        all_ways: false,
        when: When::OnDemand,
        without: None,
    },
    Hook {
        name: "inode.gone.fs",
        purpose: "an inode left the cache, said by its filesystem",
        ways: &[
            tracepoint(
                "evict_tracepoint",
                "ext4_evict_inode",
                "ext4",
                &["inode_nlink"],
            ),
            tracepoint(
                "evict_tracepoint",
                "btrfs_inode_evict",
                "btrfs",
                &["inode_nlink"],
            ),
            tracepoint(
                "evict_xfs",
                "xfs_destroy_inode",
                "xfs",
                &["inode_nlink", "xfs_inode_vnode"],
            ),
        ],
        all_ways: true,
        when: When::OnDemand,
        without: None,
    },
    Hook {
        name: "page.evicted",
        purpose: "a page left the page cache",
        ways: &[tracepoint(
            "cache_delete",
            "mm_filemap_delete_from_page_cache",
            "",
            FOLIO,
        )],
        all_ways: false,
        when: When::OnDemand,
        without: Some("whether lost bytes are still in memory"),
    },
    Hook {
        name: "page.dirtied",
        purpose: "a failed page became dirty again",
        ways: &[
            tracepoint("dirtied", "writeback_dirty_folio", "", FOLIO),
            tracepoint("dirtied", "writeback_dirty_page", "", FOLIO),
        ],
        all_ways: false,
        when: When::OnDemand,
        without: Some("failed pages that became dirty again"),
    },
    Hook {
        name: "direct.write",
        purpose: "failed bytes were overwritten past the page cache (O_DIRECT)",
        ways: &[
            fentry(
                "direct_write_fentry",
                "iomap_dio_complete",
                &["dio_iocb", "dio_size"],
            ),
            kprobe(
                "direct_write_kprobe",
                "iomap_dio_complete",
                "",
                &["dio_iocb", "dio_size"],
            ),
        ],
        all_ways: false,
        when: When::OnDemand,
        without: Some("failed bytes overwritten with O_DIRECT: they may be reported as lost"),
    },
    Hook {
        name: "file.opened",
        purpose: "a file with failures was opened",
        ways: &[
            fentry("open_fentry", "security_file_open", &[]),
            kprobe("open_kprobe", "security_file_open", "", &[]),
        ],
        all_ways: false,
        when: When::Always,
        without: Some("whether a file was opened again after it was told"),
    },
    Hook {
        name: "sync.range",
        purpose: "what an msync asked of each file",
        ways: &[
            fexit("fsync_range_fexit", "vfs_fsync_range", &[]),
            kprobe("fsync_range_kprobe", "vfs_fsync_range", "", &[]),
        ],
        all_ways: false,
        when: When::Always,
        without: None,
    },
    Hook {
        name: "sync.errseq",
        purpose: "whether an fsync learns of an error, until the exit hook is attached",
        ways: &[kprobe(
            "errseq_checked",
            "file_check_and_advance_wb_err",
            "",
            &[],
        )],
        all_ways: false,
        when: When::Always,
        without: None,
    },
    Hook {
        name: "sync.wait",
        purpose: "an fsync that compares error numbers twice counts once",
        ways: &[kprobe("wait_kprobe", "file_write_and_wait_range", "", &[])],
        all_ways: false,
        when: When::Always,
        without: None,
    },
    Hook {
        name: "sync.msync",
        purpose: "what msync returned",
        ways: &[fexit("msync_fexit", "__x64_sys_msync", &[])],
        all_ways: false,
        when: When::Always,
        without: Some("what msync returned"),
    },
    Hook {
        name: "sync.msync.32",
        purpose: "what msync returned to a 32-bit program",
        ways: &[fexit("msync_compat_fexit", "__ia32_sys_msync", &[])],
        all_ways: false,
        when: When::Always,
        without: None,
    },
    Hook {
        name: "sync.fsync",
        purpose: "what fsync returned",
        ways: &[fexit("fsync_fexit", "__x64_sys_fsync", FD)],
        all_ways: false,
        when: When::Always,
        without: Some("what fsync returned"),
    },
    Hook {
        name: "sync.fsync.32",
        purpose: "what fsync returned to a 32-bit program",
        ways: &[fexit("fsync_compat_fexit", "__ia32_sys_fsync", FD)],
        all_ways: false,
        when: When::Always,
        without: None,
    },
    Hook {
        name: "sync.fdatasync",
        purpose: "what fdatasync returned",
        ways: &[fexit("fdatasync_fexit", "__x64_sys_fdatasync", FD)],
        all_ways: false,
        when: When::Always,
        without: Some("what fdatasync returned"),
    },
    Hook {
        name: "sync.fdatasync.32",
        purpose: "what fdatasync returned to a 32-bit program",
        ways: &[fexit("fdatasync_compat_fexit", "__ia32_sys_fdatasync", FD)],
        all_ways: false,
        when: When::Always,
        without: None,
    },
    Hook {
        name: "sync.exit",
        purpose: "what a sync call returned, at the exit of the system call",
        ways: &[
            way(
                Method::Tracepoint,
                "sys_exit_classic",
                "raw_syscalls:sys_exit",
                "",
                VMA,
            ),
            tracepoint("sys_exit", "sys_exit", "", VMA),
            tracepoint(
                "sys_exit_rb",
                "sys_exit",
                "",
                &["mm_rb", "vma_rb", "vma_file", "regs_di"],
            ),
        ],
        all_ways: false,
        when: When::SyscallExit,
        without: Some("every sync call"),
    },
    Hook {
        name: "memory.failed",
        purpose: "the memory of a dirty page failed: it was not the disk",
        ways: &[
            kprobe(
                "memory_failed",
                "me_pagecache_dirty",
                "",
                &["folio_mapping", "folio_index", "page_compound_head"],
            ),
            tracepoint("memory_failure_event", "memory_failure_event", "", &[]),
        ],
        all_ways: false,
        when: When::Always,
        without: None,
    },
    Hook {
        name: "disk.flush",
        purpose: "a disk could not flush its cache",
        ways: &[
            fentry("flush_ended_fentry", "flush_end_io", FLUSH),
            kprobe("flush_ended_kprobe", "flush_end_io", "", FLUSH),
        ],
        all_ways: false,
        when: When::Always,
        without: None,
    },
    Hook {
        name: "filesystem.error",
        purpose: "a filesystem found an error, and may be read-only for it",
        ways: &[
            tracepoint("ext4_error", "ext4_error", "ext4", &[]),
            kprobe("ext4_abort", "__ext4_abort", "ext4", &[]),
            kprobe(
                "btrfs_error",
                "__btrfs_handle_fs_error",
                "btrfs",
                &["btrfs_info_super"],
            ),
        ],
        all_ways: true,
        when: When::Always,
        without: None,
    },
    Hook {
        name: "filesystem.shutdown",
        purpose: "a filesystem was shut down",
        ways: &[
            tracepoint("ext4_shutdown", "ext4_shutdown", "ext4", &[]),
            tracepoint(
                "xfs_shutdown",
                "xfs_force_shutdown",
                "xfs",
                &["xfs_mount_super"],
            ),
            kprobe(
                "xfs_log_dead",
                "xlog_force_shutdown",
                "xfs",
                &["xfs_mount_super", "xfs_log_mount"],
            ),
        ],
        all_ways: true,
        when: When::Always,
        without: None,
    },
];

/// The hook and the way that a program belongs to.
#[must_use]
pub fn find(program: &str) -> Option<(&'static Hook, &'static Way)> {
    let ways = |hook: &'static Hook| hook.ways.iter().map(move |way| (hook, way));
    let mut all = HOOKS.iter().flat_map(ways);
    all.find(|(_, way)| way.program == program)
}

/// Functions at the end of page-cache bios (`bi_end_io`) and of FUSE requests (`fuse_args.end`), and
/// what they tell.
pub const END_IO: &[(&str, u32)] = &[
    ("end_bio_bh_io_sync", abi::OWNER_PAGES),
    ("bh_end_async_write", abi::OWNER_PAGES),
    ("bh_end_write", abi::OWNER_PAGES),
    ("mpage_end_io", abi::OWNER_PAGES),
    ("mpage_write_end_io", abi::OWNER_PAGES),
    ("f2fs_write_end_io", abi::OWNER_PAGES),
    ("ext4_end_bio", abi::OWNER_EXT4),
    ("iomap_writepage_end_bio", abi::OWNER_IOMAP),
    ("ioend_writeback_end_bio", abi::OWNER_IOMAP),
    ("xfs_end_bio", abi::OWNER_IOMAP),
    ("btrfs_simple_end_io", abi::OWNER_BTRFS),
    ("btrfs_orig_write_end_io", abi::OWNER_BTRFS),
    ("btrfs_clone_write_end_io", abi::OWNER_BTRFS),
    ("btrfs_end_bio", abi::OWNER_BTRFS),
    ("bio_chain_endio", abi::OWNER_CHAIN),
    ("fuse_writepage_end", abi::OWNER_FUSE),
];
