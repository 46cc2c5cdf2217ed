//! Processes that msync file after file without end, and remember what they were told.

use std::{
    fs::File,
    os::fd::AsRawFd,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// A shared mapping of a whole file.
pub struct Mapping {
    address: *mut libc::c_void,
    len: usize,
}

impl Mapping {
    /// Maps the file's first bytes.
    pub fn new(file: &File, len: usize) -> Result<Self> {
        Self::map(file.as_raw_fd(), len, libc::MAP_SHARED)
    }

    /// Memory that is shared with children.
    fn shared(len: usize) -> Result<Self> {
        Self::map(-1, len, libc::MAP_SHARED | libc::MAP_ANONYMOUS)
    }

    fn map(fd: i32, len: usize, flags: i32) -> Result<Self> {
        // SAFETY: a new mapping at an address that the kernel chooses.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                fd,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        Ok(Self { address, len })
    }

    /// `msync(MS_SYNC)` of all of it; whether it claimed success.
    pub fn sync(&self) -> bool {
        // SAFETY: the mapping is ours and lives.
        unsafe { libc::msync(self.address, self.len, libc::MS_SYNC) == 0 }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nobody uses the mapping any more.
        unsafe { libc::munmap(self.address, self.len) };
    }
}

/// The processes.
pub struct SyncLoops {
    pids: Vec<libc::pid_t>,
    files: usize,
    shared: Mapping,
}

impl SyncLoops {
    /// Forks them; they stop when this is dropped.
    pub fn start(processes: usize, mappings: &[Mapping]) -> Result<Self> {
        let cells = 2 + processes * (mappings.len() + 1);
        let mut loops = Self {
            pids: Vec::new(),
            files: mappings.len(),
            shared: Mapping::shared(cells * 8)?,
        };
        for process in 0..processes {
            // SAFETY: the child only makes system calls and stores to shared memory.
            match unsafe { libc::fork() } {
                -1 => bail!("fork: {}", std::io::Error::last_os_error()),
                0 => loops.go_round(process, mappings),
                pid => loops.pids.push(pid),
            }
        }
        Ok(loops)
    }

    /// What a child does until it is killed.
    fn go_round(&self, process: usize, mappings: &[Mapping]) -> ! {
        loop {
            for (number, mapping) in mappings.iter().enumerate() {
                let counts = self.counting().load(Relaxed) != 0;
                if mapping.sync() && counts {
                    self.successes(process, number).fetch_add(1, Relaxed);
                }
            }
            self.rounds(process).fetch_add(1, Relaxed);
        }
    }

    /// From now on successes are false ones, and count. Waits until everybody went round twice.
    pub fn count_two_rounds(&self) -> Result<()> {
        self.counting().store(1, Relaxed);
        let rounds = || (0..self.pids.len()).map(|process| self.rounds(process).load(Relaxed));
        let goals: Vec<u64> = rounds().map(|done| done + 2).collect();
        let deadline = Instant::now() + Duration::from_secs(120);
        while rounds().zip(&goals).any(|(done, goal)| done < *goal) {
            if Instant::now() > deadline {
                bail!("the loops of msync do not get round");
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.counting().store(0, Relaxed);
        Ok(())
    }

    /// Each process and file with a success that counted.
    pub fn lied_to(&self) -> Vec<(u32, usize)> {
        let pairs = self.pids.iter().enumerate().flat_map(|(process, pid)| {
            (0..self.files).map(move |file| (process, pid.cast_unsigned(), file))
        });
        pairs
            .filter(|(process, _, file)| self.successes(*process, *file).load(Relaxed) > 0)
            .map(|(_, pid, file)| (pid, file))
            .collect()
    }

    fn cell(&self, index: usize) -> &AtomicU64 {
        assert!((index + 1) * 8 <= self.shared.len);
        // SAFETY: within the shared memory, aligned, and only ever used as atomics.
        unsafe { &*self.shared.address.cast::<AtomicU64>().add(index) }
    }

    fn counting(&self) -> &AtomicU64 {
        self.cell(0)
    }

    fn rounds(&self, process: usize) -> &AtomicU64 {
        self.cell(2 + process * (self.files + 1))
    }

    fn successes(&self, process: usize, file: usize) -> &AtomicU64 {
        self.cell(2 + process * (self.files + 1) + 1 + file)
    }
}

impl Drop for SyncLoops {
    fn drop(&mut self) {
        for pid in &self.pids {
            // SAFETY: our own children, not yet waited for.
            unsafe {
                libc::kill(*pid, libc::SIGKILL);
                libc::waitpid(*pid, std::ptr::null_mut(), 0);
            }
        }
    }
}
