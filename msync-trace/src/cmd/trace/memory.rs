//! Memory that only the beginning of a trace needs, given back to the system.

use std::time::Duration;

/// By then hooks are attached, and the record, if there is one, is open.
pub(super) const BEGUN: Duration = Duration::from_secs(1);

/// Gives back what the allocator keeps of it, for each thread, and the code that has run: what runs
/// again comes from the page cache.
pub(super) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: no arguments that could be wrong.
        unsafe { libc::malloc_trim(0) };
        give_back_code();
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_back_code() {
    use rustix::mm::{Advice, madvise};

    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let here = give_back_code as fn() as usize;
    let Some(code) = maps.lines().find_map(|line| code_with(here, line)) else {
        return;
    };
    // SAFETY: whole pages of the program's file, mapped without the right to write: their content does
    // not change. What is needed of them, this function as well, is mapped again when it is run.
    let _ = unsafe { madvise(code.start as *mut _, code.len(), Advice::LinuxDontNeed) };
}

/// The addresses of a line of `/proc/PID/maps`, if they are code that nobody has written, with this
/// address in it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn code_with(address: usize, line: &str) -> Option<std::ops::Range<usize>> {
    let (addresses, rest) = line.split_once(' ')?;
    let (start, end) = addresses.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let range = number(start)?..number(end)?;
    (rest.starts_with("r-xp ") && range.contains(&address)).then_some(range)
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    #[test]
    fn a_program_goes_on_without_the_code_that_it_gave_back() {
        give_back();
        let line = "55d0-55f0 r-xp 00001000 fe:00 1234  /usr/bin/msync-trace";
        assert_eq!(code_with(0x55e0, line), Some(0x55d0..0x55f0));
        assert_eq!(code_with(0x55f0, line), None);
        assert_eq!(code_with(0x55e0, &line.replace("r-xp", "rwxp")), None);
        assert_eq!(code_with(0x55e0, ""), None);
    }
}
