//! The programs, one room per kind of hook. Each says its kernel range and the prototype or
//! tracepoint it relies on.

/// Numbers of the programs in ring records (`Header::hook`): diagnostics only.
pub mod hook {
    pub const RECORDED: u32 = 1;
    pub const TOLD: u32 = 2;
    pub const EXT4_END_BIO: u32 = 3;
    pub const EXT4_RELEASE: u32 = 4;
    pub const EXT4_MAP: u32 = 5;
    pub const EXT4_FOLIOS_END: u32 = 6;
    pub const IOMAP: u32 = 7;
    pub const XFS_DISCARD: u32 = 8;
    pub const BTRFS_ORDERED: u32 = 9;
    pub const BUFFER: u32 = 11;
    pub const BLOCK: u32 = 12;
    pub const FSYNC_RANGE: u32 = 13;
    pub const SYSCALL: u32 = 14;
    pub const OPEN: u32 = 15;
    pub const TRUNCATE: u32 = 16;
    pub const CACHE_DELETE: u32 = 17;
    pub const DIRTY: u32 = 18;
    pub const EVICT: u32 = 19;
    pub const DIRECT: u32 = 20;
    pub const NFS: u32 = 21;
    pub const FUSE: u32 = 22;
    pub const PLAIN: u32 = 23;
    pub const STORAGE: u32 = 24;
    pub const MEMORY: u32 = 25;
    pub const NETFS: u32 = 26;
}

mod block;
mod btrfs;
mod ext4;
mod fuse;
mod iomap;
mod memory;
mod netfs;
mod nfs;
mod pages;
mod plain;
mod recorded;
mod storage;
mod sync;
