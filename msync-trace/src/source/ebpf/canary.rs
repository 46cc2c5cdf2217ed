//! The self-check: a sync call that has to be seen.
//!
//! A file on a filesystem of our own in memory is put into the kernel's map of inodes, as if one of
//! its writes had failed, and another process calls `msync` on it. Its return has to come through the
//! hooks, the ring and the decoder as a fact. Nothing of it gets any further: with no failure there
//! is no verdict, and the fact is taken out.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    ptr::NonNull,
    time::{Duration, Instant},
};

use log::debug;
use msync_trace_ebpf as abi;
use rustix::{
    fs::{Mode, OFlags, ftruncate, openat},
    mm::{MapFlags, ProtFlags, mmap, munmap},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
};

use super::{Tracer, decode::inode_key, instance::Pod, now};
use crate::{
    model::{Fact, FactKind},
    source::FactSource,
};

/// How long the return may take to arrive: a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(5);
/// Less than an inode with nothing outstanding stays in the map.
const ATTEMPT: Duration = Duration::from_millis(1500);
const PAGE: usize = 4096;

/// A file whose identity is known: filesystems without UUID and generations.
struct Canary {
    file: File,
    /// Shared and writable; `None`: this file cannot be mapped, and is synced by its descriptor.
    mapped: Option<NonNull<u8>>,
}

impl Canary {
    fn new() -> io::Result<Self> {
        match Self::in_memory() {
            Ok(canary) => Ok(canary),
            // Without CAP_SYS_ADMIN: any file will do whose identity is known.
            Err(error) => {
                debug!(
                    "no file system for the self-check ({error}): fsync of one in /proc instead"
                );
                let file = File::open("/proc/self/comm")?;
                Ok(Self { file, mapped: None })
            }
        }
    }

    /// Mounted nowhere: it goes with the last descriptor (ramfs is in every kernel).
    fn in_memory() -> io::Result<Self> {
        let context = fsopen("ramfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(context.as_fd())?;
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        let root: OwnedFd = fsmount(context.as_fd(), flags, MountAttrFlags::empty())?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let file = openat(&root, "canary", flags, Mode::RUSR | Mode::WUSR)?;
        ftruncate(&file, PAGE as u64)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping where the kernel likes; nothing else lies there.
        let at = unsafe {
            mmap(
                std::ptr::null_mut(),
                PAGE,
                protection,
                MapFlags::SHARED,
                &file,
                0,
            )
        }?;
        Ok(Self {
            file: file.into(),
            mapped: NonNull::new(at.cast()),
        })
    }

    /// As the kernel side spells it.
    fn key(&self) -> io::Result<abi::InodeKey> {
        let meta = self.file.metadata()?;
        let (major, minor) = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
        Ok(abi::InodeKey {
            uuid: [0; 16],
            ino: meta.ino(),
            subvolume: 0,
            generation: 0,
            dev: major << 20 | minor,
        })
    }

    /// Another process syncs it: our own calls are not looked at.
    fn sync_elsewhere(&self) -> io::Result<()> {
        let at = self.mapped.map(|at| at.as_ptr().cast());
        let descriptor = self.file.as_raw_fd();
        // SAFETY: the child makes two system calls that allocate nothing and take no lock, and is
        // gone.
        unsafe {
            match libc::fork() {
                -1 => Err(io::Error::last_os_error()),
                0 => {
                    match at {
                        Some(at) => libc::msync(at, PAGE, libc::MS_SYNC),
                        None => libc::fsync(descriptor),
                    };
                    libc::_exit(0)
                }
                child => {
                    libc::waitpid(child, std::ptr::null_mut(), 0);
                    Ok(())
                }
            }
        }
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        if let Some(at) = self.mapped {
            // SAFETY: our mapping, of that length; nobody holds a reference into it.
            let _ = unsafe { munmap(at.as_ptr().cast(), PAGE) };
        }
    }
}

impl Tracer {
    pub(super) async fn see_a_canary(&mut self, into: &mut Vec<Fact>) -> Result<(), String> {
        let said = |error: io::Error| format!("the self-check cannot be made: {error}");
        let canary = Canary::new().map_err(said)?;
        let key = canary.key().map_err(said)?;
        let began = Instant::now();
        let mut seen = false;
        while !seen && began.elapsed() < PATIENCE {
            self.track(key).map_err(said)?;
            canary.sync_elsewhere().map_err(said)?;
            seen = self.sees_sync_of(&key, into).await?;
        }
        self.stop_following(&key);
        match seen {
            true => Ok(()),
            false => Err(format!(
                "the self-check failed: the hooks are attached, but a sync call that was made for \
                 them was not seen within {} s (`msync-trace check --attach` says more)",
                PATIENCE.as_secs()
            )),
        }
    }

    /// The kernel side follows an inode of which no failure is known.
    fn track(&mut self, key: abi::InodeKey) -> io::Result<()> {
        let at = now();
        let state = abi::InodeState {
            failures: 0,
            first_at: at,
            last_at: at,
            lowest: 0,
            highest: u64::MAX,
            page_exact_at: at,
            named_at: at,
            errno: 0,
            recorded: 0,
        };
        let inserted = self.instance.failed.insert(Pod(key), Pod(state), 0);
        inserted.map_err(|error| io::Error::other(error.to_string()))?;
        self.instance.set_tracked(true);
        self.following = true;
        self.follow();
        Ok(())
    }

    /// Takes its sync returns out of the facts that come.
    async fn sees_sync_of(
        &mut self,
        key: &abi::InodeKey,
        into: &mut Vec<Fact>,
    ) -> Result<bool, String> {
        let inode = inode_key(key);
        let until = tokio::time::Instant::now() + ATTEMPT;
        loop {
            let before = into.len();
            let facts = tokio::time::timeout_at(until, self.next_facts(into)).await;
            let mut seen = false;
            let mut at = 0;
            into.retain(|fact| {
                at += 1;
                let ours = matches!(&fact.kind, FactKind::SyncReturn(it) if it.inode == inode);
                seen |= ours;
                at <= before || !ours
            });
            match facts {
                _ if seen => return Ok(true),
                Err(_) => return Ok(false),
                Ok(Err(error)) => return Err(error.to_string()),
                Ok(Ok(_)) => {}
            }
        }
    }
}
