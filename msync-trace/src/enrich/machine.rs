//! The machine and its clocks.

use rustix::{
    system::uname,
    time::{ClockId, clock_gettime},
};

#[cfg(target_os = "freebsd")]
use crate::model::FileSystemId;
use crate::{
    model::MonoTime,
    schema::{KernelRecord, WallTime},
};

/// What identifies this machine and its boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// The kernel.
    pub kernel: KernelRecord,
    /// Random, another one after each boot: `/proc/sys/kernel/random/boot_id` of Linux,
    /// `kern.boot_id` of FreeBSD 13 or later.
    pub boot_id: Option<String>,
    /// Host name.
    pub host: Option<String>,
}

/// This machine.
#[must_use]
pub fn machine() -> Machine {
    let names = uname();
    let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
    Machine {
        kernel: KernelRecord {
            name: text(names.sysname()),
            release: text(names.release()),
            machine: text(names.machine()),
        },
        boot_id: boot_id(),
        host: Some(text(names.nodename())),
    }
}

#[cfg(target_os = "linux")]
fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim_end().to_owned())
}

/// 16 bytes, spelled as Linux does. The time of boot (`kern.boottime`) would not do: it moves when
/// the wall clock is set.
#[cfg(target_os = "freebsd")]
fn boot_id() -> Option<String> {
    let mut id = [0_u8; 16];
    let mut length = id.len();
    // SAFETY: the name ends in NUL, `length` is the room in `id`, and nothing is set.
    let status = unsafe {
        libc::sysctlbyname(
            c"kern.boot_id".as_ptr(),
            id.as_mut_ptr().cast(),
            &raw mut length,
            std::ptr::null(),
            0,
        )
    };
    (status == 0 && length == id.len()).then(|| FileSystemId::Uuid(id).to_string())
}

#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
fn boot_id() -> Option<String> {
    None
}

/// Both clocks, as close together as can be.
#[must_use]
pub fn look_at_clocks() -> (MonoTime, WallTime) {
    let mono = monotonic();
    let wall = clock_gettime(ClockId::Realtime);
    let wall = wall
        .tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(wall.tv_nsec);
    (mono, WallTime(wall))
}

/// `CLOCK_MONOTONIC` now.
pub(super) fn monotonic() -> MonoTime {
    let now = clock_gettime(ClockId::Monotonic);
    let ns = now
        .tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(now.tv_nsec);
    MonoTime(u64::try_from(ns).unwrap_or(0))
}
