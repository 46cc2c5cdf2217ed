//! The machine and its clocks.

use std::fs;

use rustix::{
    system::uname,
    time::{ClockId, clock_gettime},
};

use crate::{
    model::MonoTime,
    schema::{KernelRecord, WallTime},
};

/// What identifies this machine and its boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// The kernel.
    pub kernel: KernelRecord,
    /// `/proc/sys/kernel/random/boot_id`.
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
        boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .ok()
            .map(|id| id.trim_end().to_owned()),
        host: Some(text(names.nodename())),
    }
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
