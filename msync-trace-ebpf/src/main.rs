//! The eBPF programs of msync-trace. On any other target this is an empty program.
//!
//! `maps` holds what is shared with user space, `kread` reads kernel memory by the offsets of the
//! running kernel, `inode` knows identities and the map of inodes with failures, `emit` fills the
//! rings, `bio` finds the file bytes of a bio; `probes/` has one room per kind of hook.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod bio;
#[cfg(target_arch = "bpf")]
mod emit;
#[cfg(target_arch = "bpf")]
mod inode;
#[cfg(target_arch = "bpf")]
mod kread;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod probes;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Half of the helpers are for GPL-compatible programs only.
#[cfg(target_arch = "bpf")]
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Compared by user space before it loads the object.
#[cfg(target_arch = "bpf")]
#[used]
#[unsafe(no_mangle)]
static ABI_MARK: [u8; 17] = msync_trace_ebpf::ABI_MARK;
