//! Identities of inodes, and the map of those with failures.

use core::arch::asm;

use msync_trace_ebpf::{ABSENT, FileSystem, InodeKey, InodeState};

use crate::{
    kread::{Addr, now, read, read_bytes, read_ptr, read_str},
    maps::{CONTROL, FAILED, any_tracked, count, layout},
};

/// `S_IFMT` and `S_IFREG` of the mode.
const FORMAT_MASK: u16 = 0o170_000;
const REGULAR: u16 = 0o100_000;

/// `BTRFS_SUPER_MAGIC`.
const BTRFS_MAGIC: u64 = 0x9123_683e;

/// `NFS_SUPER_MAGIC`.
const NFS_MAGIC: u64 = 0x6969;

/// The identity of a regular file's inode; `None` for everything else: errors on block devices
/// and metadata are not blamed on a file.
#[inline(always)]
pub fn key_of(inode: Addr) -> Option<InodeKey> {
    let mode: u16 = read(inode, layout!(inode_mode))?;
    if mode & FORMAT_MASK != REGULAR {
        return None;
    }
    let sb = read_ptr(inode, layout!(inode_sb))?;
    let mut key = InodeKey::ZERO;
    key.ino = read(inode, layout!(inode_ino))?;
    key.generation = read(inode, layout!(inode_generation))?;
    read_bytes(sb, layout!(sb_uuid), &mut key.uuid);
    if key.uuid == [0; 16] {
        key.dev = read(sb, layout!(sb_dev))?;
    }
    if layout!(btrfs_vfs_inode) != ABSENT && read::<u64>(sb, layout!(sb_magic)) == Some(BTRFS_MAGIC)
    {
        key.subvolume = subvolume_of(inode).unwrap_or(0);
    }
    if layout!(nfs_handle) != ABSENT && read::<u64>(sb, layout!(sb_magic)) == Some(NFS_MAGIC) {
        key.generation = nfs_handle(inode);
    }
    Some(key)
}

/// Whether an inode is one of btrfs.
#[inline(always)]
pub fn is_btrfs(inode: Addr) -> bool {
    let magic = |sb| read::<u64>(sb, layout!(sb_magic));
    read_ptr(inode, layout!(inode_sb)).and_then(magic) == Some(BTRFS_MAGIC)
}

/// 64-bit words of the longest handle: 128 bytes (RFC 8881).
const HANDLE_WORDS: u64 = 16;

/// NFS: a number made of the file handle, which is what the server tells files apart by. The inode
/// itself has no generation. A global function: it is looked at by the verifier once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn nfs_handle(inode: u64) -> u32 {
    let nfs_inode = inode.wrapping_sub(u64::from(layout!(nfs_vfs_inode)));
    let handle = nfs_inode.wrapping_add(u64::from(layout!(nfs_handle)));
    // struct nfs_fh { unsigned short size; unsigned char data[NFS_MAXFHSIZE]; }
    let size = u64::from(read::<u16>(handle, 0).unwrap_or(0));
    let mut hash: u64 = size;
    for index in 0..HANDLE_WORDS {
        let at = index * 8;
        if at < size {
            let word: u64 = read(handle.wrapping_add(at), 2).unwrap_or(0);
            // What lies behind the handle is left over from others.
            let left = size - at;
            let word = match left < 8 {
                true => word & ((1 << (left * 8 & 63)) - 1),
                false => word,
            };
            hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 32;
        }
    }
    hash as u32
}

/// btrfs: the object id of the root that an inode belongs to.
#[inline(always)]
fn subvolume_of(inode: Addr) -> Option<u64> {
    let btrfs_inode = inode.wrapping_sub(u64::from(layout!(btrfs_vfs_inode)));
    let root = read_ptr(btrfs_inode, layout!(btrfs_root))?;
    read(root, layout!(btrfs_root_objectid))
}

/// The inode that owns a mapping.
#[inline(always)]
pub fn host_of(mapping: Addr) -> Option<Addr> {
    read_ptr(mapping, layout!(mapping_host))
}

/// The inode that a file's pages belong to (with overlayfs: the real one).
#[inline(always)]
pub fn inode_of_file(file: Addr) -> Option<Addr> {
    host_of(read_ptr(file, layout!(file_mapping))?)
}

/// Key and state of an inode, if it has failures. One comparison on a healthy machine.
#[inline(always)]
pub fn tracked(inode: Addr) -> Option<(InodeKey, &'static InodeState)> {
    if !any_tracked() {
        return None;
    }
    let key = key_of(inode)?;
    state_of(&key).map(|state| (key, state))
}

/// State of an inode, if it has failures.
#[inline(always)]
pub fn state_of(key: &InodeKey) -> Option<&'static InodeState> {
    // SAFETY: entries of a preallocated hash map stay readable; a concurrent delete and reuse
    // shows another inode's numbers at worst, which only widens a filter.
    unsafe { FAILED.get(key) }
}

/// Whether failures of the inode may lie in `start..end`.
#[inline(always)]
pub fn may_touch(state: &InodeState, start: u64, end: u64) -> bool {
    start < state.highest && end > state.lowest
}

/// State of an inode of which nothing is known yet. Not on the stack: see `emit::send`.
static NEW_STATE: InodeState = InodeState {
    failures: 0,
    first_at: 0,
    last_at: 0,
    lowest: u64::MAX,
    highest: 0,
    page_exact_at: 0,
    named_at: 0,
    errno: 0,
    recorded: 0,
};

/// The entry of an inode in the map, made if there is none: from here on its syncs are reported.
#[inline(always)]
fn follow(key: &InodeKey) -> Option<&'static mut InodeState> {
    if FAILED.get_ptr(key).is_none() {
        if FAILED.insert(key, &NEW_STATE, 0).is_err() {
            count(|counters| &mut counters.inode_map_full);
            return None;
        }
        if let Some(control) = CONTROL.get_ptr_mut(0) {
            // SAFETY: an array's entry; every writer in the kernel writes 1.
            unsafe { core::ptr::write_volatile(&raw mut (*control).tracked, 1) };
        }
    }
    // SAFETY: the entry exists; CPUs race over it without a lock, and the summary is only used to
    // widen, never to narrow, what user space knows from the facts.
    FAILED.get_ptr_mut(key).map(|state| unsafe { &mut *state })
}

/// Adds one, in one instruction that no other CPU can come between (`BPF_XADD`, which every kernel
/// has). Not by `core::sync::atomic`: on this target it can only load and store.
#[inline(always)]
fn add_one(word: &mut u64) {
    // SAFETY: the word is the caller's, and aligned.
    unsafe {
        asm!(
            "lock *(u64 *)({word} + 0) += {one}",
            word = in(reg) core::ptr::from_mut(word),
            one = in(reg) 1u64,
            options(nostack),
        );
    }
}

/// How long the names of an inode are taken to stay the same, ns.
const NAMES_LAST: u64 = 1_000_000_000;

/// Notes a failure in the map; `None` if there was no room, else whether the names of the inode are
/// due. `end` 0: range unknown.
#[inline(always)]
pub fn remember_failure(
    key: &InodeKey,
    start: u64,
    end: u64,
    errno: u32,
    failed_at: u64,
) -> Option<bool> {
    let at = now();
    let state = follow(key)?;
    // Exact, unlike the rest: user space waits for so many records.
    add_one(&mut state.failures);
    if state.first_at == 0 {
        state.first_at = at;
    }
    state.last_at = at;
    state.errno = errno;
    let (lowest, highest) = if end == 0 {
        (0, u64::MAX)
    } else {
        (start, end)
    };
    if lowest < state.lowest {
        state.lowest = lowest;
    }
    if highest > state.highest {
        state.highest = highest;
    }
    // Not the time of this call: btrfs reports an extent after its bio failed, and the next extent
    // must find that time again.
    if end != 0 && failed_at > state.page_exact_at {
        state.page_exact_at = failed_at;
    }
    Some(at.wrapping_sub(state.named_at) > NAMES_LAST)
}

/// Notes that the names of the inode were told.
#[inline(always)]
pub fn note_named(key: &InodeKey) {
    if let Some(state) = FAILED.get_ptr_mut(key) {
        // SAFETY: see `follow`.
        unsafe { (*state).named_at = now() };
    }
}

/// Follows an inode that may be about to fail: its syncs are reported, nothing is said of it yet.
#[inline(always)]
pub fn suspect(key: &InodeKey) {
    if let Some(state) = follow(key) {
        state.page_exact_at = now();
    }
}

/// Notes that the kernel recorded an error on the inode; whether a page-exact hook saw the same
/// failure within `window` ns.
#[inline(always)]
pub fn note_recorded(key: &InodeKey, window: u64) -> bool {
    let Some(state) = FAILED.get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: see `follow`.
    let state = unsafe { &mut *state };
    state.recorded = 1;
    now().wrapping_sub(state.page_exact_at) < window
}

/// Notes that the inode in memory is another one than the one whose error was recorded.
#[inline(always)]
pub fn note_read_anew(key: &InodeKey) {
    if let Some(state) = FAILED.get_ptr_mut(key) {
        // SAFETY: see `follow`.
        unsafe { (*state).recorded = 0 };
    }
}

/// Names of the filesystem of an inode. A function of its own: its stack ends with it.
#[inline(never)]
pub fn describe(inode: Addr, into: &mut FileSystem) {
    into.nlink = read(inode, layout!(inode_nlink)).unwrap_or(1);
    if let Some(sb) = read_ptr(inode, layout!(inode_sb)) {
        describe_super(sb, into);
    }
}

/// Names of a filesystem, by its `struct super_block`.
#[inline(always)]
pub fn describe_super(sb: Addr, into: &mut FileSystem) {
    into.dev = read(sb, layout!(sb_dev)).unwrap_or(0);
    read_bytes(sb, layout!(sb_id), &mut into.s_id);
    if let Some(fs_type) = read_ptr(sb, layout!(sb_type))
        && let Some(name) = read_ptr(fs_type, layout!(fs_type_name))
    {
        read_str(name, &mut into.fs_type);
    }
}
