//! A control group that bounds the memory of a daemon: v2, or v1 where v2 has no controller of memory.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// Where the hierarchies are mounted, and what the limit is called there.
const PLACES: [(&str, &str); 2] = [
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
    ("/sys/fs/cgroup", "memory.max"),
];

/// Removed when this is dropped.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// An empty one with this limit.
    pub fn new(bytes: u64) -> Result<Self> {
        for (place, limit) in PLACES {
            let controllers = Path::new(place).join("cgroup.subtree_control");
            if controllers.exists() {
                // Refused where somebody else is in charge: then there is no file below.
                let _ = fs::write(controllers, "+memory");
            }
            let path = Path::new(place).join(format!("msync-trace-stress-{}", std::process::id()));
            if fs::create_dir(&path).is_err() {
                continue;
            }
            let cgroup = Self { path };
            if fs::write(cgroup.path.join(limit), bytes.to_string()).is_ok() {
                return Ok(cgroup);
            }
        }
        bail!("no control group bounds memory here: neither {PLACES:?}")
    }

    /// The command and all that it starts will be in it.
    pub fn hold(&self, command: &mut Command) -> Result<()> {
        let members = self.path.join("cgroup.procs");
        let members = File::options().write(true).open(&members);
        let mut members = members.context("cannot open cgroup.procs")?;
        // SAFETY: one system call between fork and exec; the file lives as long as the command.
        unsafe {
            command.pre_exec(move || {
                // 0: who writes it.
                members.write_all(b"0")
            });
        }
        Ok(())
    }

    /// How often somebody in it was killed because of the limit.
    pub fn kills(&self) -> u64 {
        ["memory.events", "memory.oom_control"]
            .iter()
            .filter_map(|file| fs::read_to_string(self.path.join(file)).ok())
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
            .filter_map(|line| line.strip_prefix("oom_kill ")?.parse::<u64>().ok())
            .sum()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Those that were killed may take a moment to be gone.
        for _ in 0..200 {
            match fs::remove_dir(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                _ => return,
            }
        }
    }
}
