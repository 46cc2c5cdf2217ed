//! What the kernel left out: programs of dtrace that it skipped, because another one was active on that
//! processor. A D script cannot know it. Linux only.

use std::{
    collections::BTreeSet,
    fs,
    os::fd::{AsFd, AsRawFd},
};

use aya::programs::{ProgramInfo, loaded_programs};
use log::debug;

use crate::source::fdinfo::field;

/// How often the programs that a process has attached were skipped so far: `recursion_misses` in
/// the `fdinfo` of a program (`bpf_prog_show_fdinfo`, 5.12 and later). 0 where the kernel does not
/// say. dtrace holds the links of its programs, not the programs themselves.
pub(super) fn skipped(pid: u32) -> u64 {
    let attached = programs_of(pid);
    if attached.is_empty() {
        return 0;
    }
    let programs = loaded_programs()
        .flatten()
        .filter(|program| attached.contains(&u64::from(program.id())));
    let counts: Vec<u64> = programs.filter_map(|program| misses(&program)).collect();
    let sum = counts.iter().sum();
    debug!("dtrace: {} programs, skipped {sum} times", counts.len());
    sum
}

/// Numbers of the programs that a process holds, or holds a link of.
fn programs_of(pid: u32) -> BTreeSet<u64> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else {
        return BTreeSet::new();
    };
    let info = |entry: fs::DirEntry| fs::read_to_string(entry.path()).ok();
    descriptors
        .filter_map(|descriptor| field(&info(descriptor.ok()?)?, "prog_id"))
        .collect()
}

fn misses(program: &ProgramInfo) -> Option<u64> {
    let program = program.fd().ok()?;
    let descriptor = program.as_fd().as_raw_fd();
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).ok()?;
    field(&info, "recursion_misses")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_programs_or_none_at_all_skipped_nothing() {
        assert_eq!(skipped(std::process::id()), 0);
        assert_eq!(skipped(u32::MAX), 0);
    }
}
