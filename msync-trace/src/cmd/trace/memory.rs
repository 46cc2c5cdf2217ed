//! Memory that only the beginning of a trace needs, or a storm, given back to the system.

use std::time::Duration;

/// By then hooks are attached, and the record, if there is one, is open.
pub(super) const BEGUN: Duration = Duration::from_secs(1);

/// What is as large as this goes back to the system when it is freed. Otherwise the allocator learns
/// from the kernel's types, of many MiB, to keep what is freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE: libc::c_int = 1 << 20;

/// Places that the allocator takes memory from: one for the thread that takes facts in, one for all
/// others. Each keeps some.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS: libc::c_int = 2;

/// To be called before anything large is needed, and before there are threads.
pub(super) fn keep_little() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: no memory is involved.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

/// Gives back what the allocator keeps of it, for each thread, and what was used of the program's
/// file: what is used again comes from the page cache.
pub(super) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use rustix::mm::{Advice, madvise};

        // SAFETY: no arguments that could be wrong.
        unsafe { libc::malloc_trim(0) };
        for part in read_only() {
            // SAFETY: whole pages of the program's file that nobody can have written: their content
            // does not change. What is needed of them, this function as well, is mapped again.
            let _ = unsafe { madvise(part.start as *mut _, part.len(), Advice::LinuxDontNeed) };
        }
    }
}

/// Knows when it is calm after work, of which the start is a part.
#[derive(Debug)]
pub(in crate::cmd) struct Calm {
    works: bool,
    /// Since memory was given back.
    worked: bool,
}

impl Default for Calm {
    fn default() -> Self {
        Self {
            works: false,
            worked: true,
        }
    }
}

impl Calm {
    /// Whether there was something to do.
    pub(in crate::cmd) fn ends(&mut self, work: bool) {
        self.works |= work;
    }

    /// To be called every few seconds: gives memory back if there was nothing to do since the last
    /// time, and something before.
    pub(in crate::cmd) fn beat(&mut self) {
        if self.gives_back() {
            give_back();
        }
    }

    fn gives_back(&mut self) -> bool {
        let calm = !std::mem::take(&mut self.works);
        std::mem::replace(&mut self.worked, !calm) && calm
    }
}

/// The addresses of the program's code and constants. What is written once, while it is loaded, is
/// not among them.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn read_only() -> Vec<std::ops::Range<usize>> {
    unsafe extern "C" fn look(
        object: *mut libc::dl_phdr_info,
        _: libc::size_t,
        parts: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: both are valid for this call; the second is what was given below.
        let (object, parts) = unsafe { (&*object, &mut *parts.cast::<Vec<_>>()) };
        // SAFETY: so many there are of them, as long as the program is loaded.
        let headers =
            unsafe { std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
        let page = rustix::param::page_size();
        for header in headers {
            if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0 {
                let start = (object.dlpi_addr + header.p_vaddr) as usize;
                let end = start + header.p_memsz as usize;
                parts.push(start / page * page..end.next_multiple_of(page));
            }
        }
        // The first one is the program itself: no others.
        1
    }

    let mut parts: Vec<std::ops::Range<usize>> = Vec::new();
    // SAFETY: `look` gets the list that it takes its argument for.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut parts).cast()) };
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_when_it_is_calm_again() {
        let mut calm = Calm::default();
        let beats = [false, true, true, false, false].map(|work| {
            calm.ends(work);
            calm.gives_back()
        });
        assert_eq!(beats, [true, false, false, true, false]);
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests_on_linux {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;

    static WRITTEN: AtomicU8 = AtomicU8::new(1);
    /// An address: written when the program is loaded.
    static RELOCATED: [fn(); 1] = [give_back];

    #[test]
    fn a_program_goes_on_without_what_it_gave_back() {
        WRITTEN.store(2, Ordering::Relaxed);
        give_back();
        assert_eq!(WRITTEN.load(Ordering::Relaxed), 2);
        RELOCATED[0]();
        let parts = read_only();
        let given = |address: usize| parts.iter().any(|part| part.contains(&address));
        assert!(given(give_back as fn() as usize), "code");
        assert!(given("constant".as_ptr() as usize), "constants");
        assert!(!given((&raw const WRITTEN) as usize), "variables");
        assert!(!given((&raw const RELOCATED) as usize), "addresses");
    }
}
