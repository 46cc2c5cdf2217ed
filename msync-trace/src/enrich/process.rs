//! `/proc/PID`: program and cgroup of a process that is certainly still the same one. FreeBSD has
//! no such files, and nothing is said of a process there but what the facts say.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use crate::{model::ProcessId, schema::Name};

/// `/proc` counts in `USER_HZ`, which is 100 per second on every architecture we run on.
const TICK_NS: u64 = 1_000_000_000 / 100;

/// So many of a process' files are looked at for the one that is meant.
const MOST_FILES: usize = 16_384;

/// What `/proc` says about a process.
#[derive(Clone, Debug, Default)]
pub(super) struct Described {
    /// Its program; with ` (deleted)` at the end if the file is gone.
    pub(super) exe: Option<Name>,
    /// Its cgroup, as seen from our cgroup namespace.
    pub(super) cgroup: Option<Name>,
}

/// Describes a process, or gives `None` if it is gone or its number belongs to another one now.
pub(super) fn describe(proc: &Path, process: ProcessId) -> Option<Described> {
    let directory = proc.join(process.pid.to_string());
    let described = Described {
        exe: fs::read_link(directory.join("exe"))
            .ok()
            .map(|path| Name(path.into_os_string().into_vec())),
        cgroup: fs::read(directory.join("cgroup"))
            .ok()
            .and_then(|text| cgroup_path(&text)),
    };
    // Looked at last: if the number still belongs to the same process now, then it did before.
    is_same(proc, &directory, process).then_some(described)
}

/// The mount table of a process, if it is still the same one.
pub(super) fn mountinfo(proc: &Path, process: ProcessId) -> Option<PathBuf> {
    let directory = proc.join(process.pid.to_string());
    is_same(proc, &directory, process).then(|| directory.join("mountinfo"))
}

/// The whole path of a file that a process has mapped or open, of which the end is known. `None` if
/// it has none, or several, or is gone.
pub(super) fn whole_path(proc: &Path, process: ProcessId, end: &[u8]) -> Option<Vec<u8>> {
    let directory = proc.join(process.pid.to_string());
    let files = ["map_files", "fd"].map(|folder| fs::read_dir(directory.join(folder)));
    let files = files.into_iter().flatten().flatten().flatten();
    let paths = files.take(MOST_FILES).filter_map(|file| {
        let path = fs::read_link(file.path()).ok()?;
        Some(path.into_os_string().into_vec())
    });
    // Links of `map_files` want CAP_CHECKPOINT_RESTORE, `maps` does not.
    let maps = fs::read(directory.join("maps")).unwrap_or_default();
    let paths = paths.chain(mapped(&maps));
    let mut found: BTreeSet<_> = paths.filter(|path| path.ends_with(end)).collect();
    let path = found.pop_first().filter(|_| found.is_empty())?;
    is_same(proc, &directory, process).then_some(path)
}

/// The paths in `maps`. Newlines are escaped there, backslashes are not: what can be read in two ways
/// is left out.
fn mapped(maps: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let lines = maps.split(|&b| b == b'\n').take(MOST_FILES);
    let paths = lines.filter_map(|line| Some(&line[line.iter().position(|&b| b == b'/')?..]));
    let is_certain = |path: &&[u8]| !path.windows(4).any(|four| four == b"\\012");
    paths.filter(is_certain).map(<[u8]>::to_vec)
}

/// Whether the process with this number started when ours did.
///
/// The kernel side gives `task_struct.start_time` (suspend not counted), `/proc` gives
/// `start_boottime` (suspend counted) in ticks. How much suspend lay before the start is not
/// known, only that it was between none and all there has been until now.
fn is_same(proc: &Path, directory: &Path, process: ProcessId) -> bool {
    if process.start_time == 0 {
        return false;
    }
    let Some(started) = fs::read(directory.join("stat"))
        .ok()
        .and_then(|stat| start_ticks(&stat))
    else {
        return false;
    };
    let started = started.saturating_mul(TICK_NS);
    let earliest = process.start_time.saturating_sub(TICK_NS);
    let latest = process
        .start_time
        .saturating_add(suspended_ns(proc))
        .saturating_add(TICK_NS);
    (earliest..=latest).contains(&started)
}

/// Field 22 of `/proc/PID/stat`. The name in field 2 can hold anything, `)` and spaces too, so
/// fields are counted from the last `)`.
fn start_ticks(stat: &[u8]) -> Option<u64> {
    let name_end = stat.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// How long the machine has been suspended since boot: uptime counts it, `CLOCK_MONOTONIC` does
/// not.
fn suspended_ns(proc: &Path) -> u64 {
    let uptime = fs::read_to_string(proc.join("uptime")).unwrap_or_default();
    let uptime: f64 = uptime
        .split_ascii_whitespace()
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(0.0);
    let running = super::machine::monotonic().0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an uptime is positive and far below 2^53 ns * 1000; a tick of error is allowed for"
    )]
    let uptime_ns = (uptime * 1e9) as u64;
    uptime_ns.saturating_sub(running)
}

/// The path of cgroup v2 (`0::/path`). Where that says nothing, or does not name the container that
/// v1 names (both mounted side by side), the path of the first v1 hierarchy that says more.
fn cgroup_path(text: &[u8]) -> Option<Name> {
    let paths = text.split(|b| *b == b'\n').filter_map(|line| {
        let mut fields = line.splitn(3, |b| *b == b':');
        let v2 = fields.next()? == b"0";
        Some((v2, fields.nth(1)?))
    });
    let names_container = |path: &[u8]| super::container::of_cgroup(&Name::from(path)).is_some();
    let mut unified = None;
    let mut legacy: Option<&[u8]> = None;
    for (v2, path) in paths {
        if v2 {
            unified = Some(path);
        } else if path != b"/" && legacy.is_none_or(|first| !names_container(first)) {
            legacy = match legacy {
                Some(first) if !names_container(path) => Some(first),
                _ => Some(path),
            };
        }
    }
    let says_more = |unified: &[u8], legacy: &[u8]| {
        unified == b"/" || (names_container(legacy) && !names_container(unified))
    };
    match (unified, legacy) {
        (Some(unified), Some(legacy)) if says_more(unified, legacy) => Some(legacy),
        (unified, legacy) => unified.or(legacy),
    }
    .map(Name::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_be_called_anything() {
        let mut stat = b"12 (a) b) R 1 S) ".to_vec();
        stat.extend_from_slice(b"S 1 12 12 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 777 1 2 3\n");
        assert_eq!(start_ticks(&stat), Some(777));
        assert_eq!(start_ticks(b"12 (cut short"), None);
        assert_eq!(start_ticks(b""), None);
    }

    #[test]
    fn the_cgroup_is_the_unified_one_unless_that_says_nothing() {
        let path = |text: &[u8]| cgroup_path(text).map(|name| name.lossy().into_owned());
        assert_eq!(
            path(b"0::/system.slice/a:b.service\n").unwrap(),
            "/system.slice/a:b.service"
        );
        assert_eq!(
            path(b"2:cpu:/\n1:memory:/docker/x\n0::/\n").unwrap(),
            "/docker/x"
        );
        assert_eq!(path(b"2:cpu:/\n0::/\n").unwrap(), "/");
        let id = "3f4e1a5c".repeat(8);
        let both = format!(
            "12:rdma:/\n11:pids:/system.slice/docker.service\n4:memory:/docker/{id}\n\
             1:name=systemd:/docker/{id}\n0::/system.slice/containerd.service\n"
        );
        assert_eq!(path(both.as_bytes()).unwrap(), format!("/docker/{id}"));
        assert_eq!(path(b""), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_pass_for_proc_files(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = start_ticks(&bytes);
            let _ = cgroup_path(&bytes).as_ref().and_then(super::super::container::of_cgroup);
        }
    }
}
