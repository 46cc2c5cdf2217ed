//! What a system call costs on a healthy machine, with nobody looking on and with somebody.

use std::{
    fs::File,
    os::fd::{AsRawFd, FromRawFd},
    path::Path,
};

use anyhow::Result;

use super::{
    measure::nanoseconds_per_call,
    report::{Machine, Row},
    tracers::{self, NAIVE, Who},
};

/// A page of a file in memory.
pub struct Mapping {
    address: *mut libc::c_void,
    len: usize,
}

impl Mapping {
    /// Maps the file's first bytes.
    pub fn new(file: &File, len: usize) -> Result<Self> {
        // SAFETY: a new mapping at an address that the kernel chooses.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        Ok(Self { address, len })
    }

    /// `msync(MS_SYNC)`: 0 or an error number.
    pub fn sync(&self) -> i32 {
        // SAFETY: the mapping is ours and lives.
        match unsafe { libc::msync(self.address, self.len, libc::MS_SYNC) } {
            0 => 0,
            _ => std::io::Error::last_os_error().raw_os_error().unwrap_or(0),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nobody uses the mapping any more.
        unsafe { libc::munmap(self.address, self.len) };
    }
}

/// Its name in the table, how often, and the call.
type Call<'a> = (&'static str, u32, Box<dyn FnMut() + 'a>);

/// One row for each system call; `folder` is on ext4.
pub fn measure(program: &Path, machine: &Machine, folder: &Path, quick: bool) -> Result<Vec<Row>> {
    let scale = if quick { 10 } else { 1 };
    let path = folder.join("cost");
    let on_disk = page_of(File::create_new(&path)?)?;
    // SAFETY: the name is a C string; a failure shows in the next call.
    let memfd = unsafe { libc::memfd_create(c"cost".as_ptr(), libc::MFD_CLOEXEC) };
    // SAFETY: the descriptor is new and nobody else owns it.
    let in_memory = page_of(unsafe { File::from_raw_fd(memfd) })?;
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    let mut calls: Vec<Call> = vec![
        (
            "msync, clean page of a memfd",
            200_000,
            Box::new(|| assert_eq!(in_memory.sync(), 0)),
        ),
        (
            "msync, clean page on ext4",
            100_000,
            Box::new(|| assert_eq!(on_disk.sync(), 0)),
        ),
        (
            "getpid",
            1_000_000,
            Box::new(|| {
                // SAFETY: getpid has no preconditions.
                unsafe { libc::syscall(libc::SYS_getpid) };
            }),
        ),
        (
            "open and close",
            100_000,
            Box::new(|| {
                // SAFETY: name is a C string, and the descriptor is nobody else's.
                unsafe { libc::close(libc::open(name.as_ptr(), libc::O_RDONLY)) };
            }),
        ),
    ];
    let sides = [Who::Nobody, Who::Tool, tracers::empty(&machine.tier), NAIVE];
    let mut results = vec![vec![Ok(Vec::new()); sides.len()]; calls.len()];
    for round in 0..if quick { 2 } else { 5 } {
        for (side, who) in sides.iter().enumerate() {
            if let (Who::Tool, Some(why)) = (who, machine.blind()) {
                results
                    .iter_mut()
                    .for_each(|row| row[side] = Err(why.clone()));
                continue;
            }
            let running = match tracers::start(who, program) {
                Ok(running) => running,
                Err(error) if matches!(who, Who::Script(..)) => {
                    let missing = |row: &mut Vec<_>| row[side] = Err(format!("{error:#}"));
                    results.iter_mut().for_each(missing);
                    continue;
                }
                Err(error) => return Err(error),
            };
            for ((_, count, call), row) in calls.iter_mut().zip(&mut results) {
                let took = nanoseconds_per_call(*count / scale, call);
                if let Ok(values) = &mut row[side] {
                    values.push(took);
                }
            }
            if let Some(running) = running {
                running.stop()?;
            }
        }
        crate::step::progress(&format!("    round {} done", round + 1));
    }
    drop(std::fs::remove_file(&path));
    Ok(calls
        .iter()
        .zip(results)
        .map(|((what, ..), row)| {
            let names = sides.iter().map(|who| who.name().to_owned());
            Row::of(what, "ns", names.zip(row).collect())
        })
        .collect())
}

/// One clean page.
fn page_of(file: File) -> Result<Mapping> {
    std::os::unix::fs::FileExt::write_all_at(&file, &[1; 4096], 0)?;
    file.sync_all()?;
    let file = File::options()
        .read(true)
        .write(true)
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    Mapping::new(&file, 4096)
}
