//! What the kernel left out: programs of dtrace that it skipped, because another one was active on that
//! processor. A D script cannot know it. Linux only.

use std::{collections::BTreeMap, fs, path::PathBuf};

use crate::source::fdinfo::field;

/// How often the programs that this process holds were skipped so far: `recursion_misses` in
/// `/proc/PID/fdinfo` (`bpf_prog_show_fdinfo`, 5.12 and later). 0 where the kernel does not say.
pub(super) fn skipped(pid: u32) -> u64 {
    let folder = PathBuf::from(format!("/proc/{pid}/fdinfo"));
    let Ok(descriptors) = fs::read_dir(folder) else {
        return 0;
    };
    let texts = descriptors
        .filter_map(|descriptor| fs::read_to_string(descriptor.ok()?.path()).ok())
        .collect::<Vec<_>>();
    sum(texts.iter().map(String::as_str))
}

/// Of what is known of descriptors. A program can have several.
fn sum<'a>(descriptors: impl Iterator<Item = &'a str>) -> u64 {
    let of_program =
        |text: &'a str| Some((field(text, "prog_id")?, field(text, "recursion_misses")?));
    let programs: BTreeMap<u64, u64> = descriptors.filter_map(of_program).collect();
    programs.values().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_counts_once_and_nothing_else_counts() {
        let program = |id: u32, misses: u32| {
            format!(
                "pos:\t0\nflags:\t02000002\nprog_type:\t2\nprog_jited:\t1\nprog_tag:\t0123\n\
                 memlock:\t4096\nprog_id:\t{id}\nrun_time_ns:\t0\nrun_cnt:\t0\n\
                 recursion_misses:\t{misses}\nverified_insns:\t77\n"
            )
        };
        let (one, two) = (program(7, 3), program(8, 4));
        let map = "pos:\t0\nmap_type:\t1\nmap_id:\t3\n";
        let old = "prog_id:\t9\nrun_cnt:\t0\n";
        assert_eq!(sum([&one, &one, &*two, map, old, ""].into_iter()), 7);
        assert_eq!(sum([map].into_iter()), 0);
    }

    #[test]
    fn a_process_without_programs_or_none_at_all_skipped_nothing() {
        assert_eq!(skipped(std::process::id()), 0);
        assert_eq!(skipped(u32::MAX), 0);
    }
}
