//! Reading kernel memory by the running kernel's offsets. A read that faults gives `None`.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_probe_read_kernel, generated},
};

use msync_trace_ebpf::ABSENT;

/// An address in the kernel. 0 is nowhere.
pub type Addr = u64;

/// Reads a `T` at `base + offset`; `None` where the kernel has no such field or the read faults.
#[inline(always)]
pub fn read<T: Copy>(base: Addr, offset: u32) -> Option<T> {
    if offset == ABSENT || base == 0 {
        return None;
    }
    // SAFETY: bpf_probe_read_kernel checks the address itself.
    unsafe { bpf_probe_read_kernel((base.wrapping_add(u64::from(offset))) as *const T) }.ok()
}

/// Reads a pointer; `None` for null.
#[inline(always)]
pub fn read_ptr(base: Addr, offset: u32) -> Option<Addr> {
    match read::<u64>(base, offset) {
        Some(0) | None => None,
        addr => addr,
    }
}

/// Copies `N` bytes; zeros where it faults.
#[inline(always)]
pub fn read_bytes<const N: usize>(base: Addr, offset: u32, into: &mut [u8; N]) {
    if offset == ABSENT || base == 0 {
        return;
    }
    // SAFETY: the destination is N bytes long; the helper checks the source.
    unsafe {
        generated::bpf_probe_read_kernel(
            into.as_mut_ptr().cast(),
            N as u32,
            (base.wrapping_add(u64::from(offset))) as *const _,
        );
    }
}

/// Copies a NUL-terminated string into `N` bytes.
#[inline(always)]
pub fn read_str<const N: usize>(from: Addr, into: &mut [u8; N]) {
    // SAFETY: as above.
    unsafe {
        generated::bpf_probe_read_kernel_str(into.as_mut_ptr().cast(), N as u32, from as *const _);
    }
}

/// `bpf_ktime_get_ns`: `CLOCK_MONOTONIC`.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { generated::bpf_ktime_get_ns() }
}

/// The running task.
#[inline(always)]
pub fn current() -> Addr {
    // SAFETY: no arguments.
    unsafe { generated::bpf_get_current_task() as u64 }
}

/// Thread group id in the upper, thread id in the lower half.
#[inline(always)]
pub fn pid_tgid() -> u64 {
    aya_ebpf::helpers::bpf_get_current_pid_tgid()
}

/// Argument `n` of an fentry or fexit program as a plain number. Read directly, the verifier would
/// know it as a typed pointer, which global functions do not take.
#[inline(always)]
pub fn argument(ctx: &impl EbpfContext, n: usize) -> u64 {
    read(ctx.as_ptr() as u64 + 8 * n as u64, 0).unwrap_or(0)
}
