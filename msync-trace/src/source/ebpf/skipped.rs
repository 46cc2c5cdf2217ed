//! How often the kernel skipped our programs.
//!
//! It does so silently where one is called while it is active on the same processor already: in an
//! interrupt, or because it was preempted (`__bpf_prog_enter_recur`, `__bpf_trace_run`), and kprobes
//! while any other kprobe runs (`trace_call_bpf`, `kprobe_ftrace_handler`). The counts stand in the
//! `fdinfo` of a program from 5.12 on, and in that of a kprobe's link in recent kernels.

use std::{collections::BTreeMap, fs, os::fd::RawFd};

/// What it means when a program is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sees {
    /// Something may have failed unseen.
    Failures,
    /// It adds to known failures: of no account as long as there are none.
    More,
}

/// Counts since the programs were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Of programs that see failures.
    pub failures: u64,
    /// Of programs that see more.
    pub more: u64,
}

impl Skipped {
    /// Reads the counts of the programs behind these descriptors, and of their links.
    pub fn read(programs: &BTreeMap<RawFd, Sees>) -> Self {
        let Ok(entries) = fs::read_dir("/proc/self/fdinfo") else {
            return Self::default();
        };
        let infos = entries.flatten().filter_map(|entry| {
            let descriptor = entry.file_name().to_str()?.parse().ok()?;
            Some((descriptor, fs::read_to_string(entry.path()).ok()?))
        });
        Self::sum(&infos.collect::<Vec<_>>(), programs)
    }

    fn sum(infos: &[(RawFd, String)], programs: &BTreeMap<RawFd, Sees>) -> Self {
        let by_id: BTreeMap<u64, Sees> = infos
            .iter()
            .filter_map(|(descriptor, info)| {
                Some((field(info, "prog_id")?, *programs.get(descriptor)?))
            })
            .collect();
        let mut skipped = Self::default();
        for (_, info) in infos {
            let program = field(info, "prog_id").and_then(|id| by_id.get(&id));
            let count = field(info, "recursion_misses").or_else(|| field(info, "missed"));
            match program {
                Some(Sees::Failures) => skipped.failures += count.unwrap_or(0),
                Some(Sees::More) => skipped.more += count.unwrap_or(0),
                None => {}
            }
        }
        skipped
    }
}

/// The number behind a name at the beginning of a line.
fn field(info: &str, name: &str) -> Option<u64> {
    let value = |line: &str| {
        line.strip_prefix(name)?
            .strip_prefix(':')?
            .trim()
            .parse()
            .ok()
    };
    info.lines().find_map(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_links_are_told_apart_by_what_their_program_sees() {
        let infos = [
            (3, "pos:\t0\nflags:\t02000002\n"),
            (4, "prog_type:\t2\nprog_id:\t21\nrecursion_misses:\t5\n"),
            (
                5,
                "link_type:\tperf\nprog_id:\t21\nname:\tiomap_finish_ioend\nmissed:\t2\n",
            ),
            (6, "prog_type:\t17\nprog_id:\t22\nrecursion_misses:\t100\n"),
            (
                7,
                "link_type:\traw_tracepoint\nprog_id:\t22\ntp_name:\tsys_exit\n",
            ),
        ]
        .map(|(descriptor, info)| (descriptor, info.to_owned()));
        let expected = Skipped {
            failures: 7,
            more: 100,
        };
        let programs = BTreeMap::from([(4, Sees::Failures), (6, Sees::More)]);
        assert_eq!(Skipped::sum(&infos, &programs), expected);
    }
}
