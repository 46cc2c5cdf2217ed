//! What the lines of a D script mean in the words of the model. **This is the one place where the
//! semantics of FreeBSD meet those words.**
//!
//! | FreeBSD | here | why |
//! |---|---|---|
//! | msync only ever returns EIO (`kern_msync`); the filesystem's error is thrown away | an incident has the error of the failed write, as on Linux | the cause is what helps; that msync returned 0 is the incident itself |
//! | msync of a part of a file never calls VOP_FSYNC, and of a clean object does nothing | nothing special: a success is a success | the correlator asks only what was outstanding when it returned |
//! | `state=lost`: the page was marked clean, or its buffer thrown away | `write_failed`; whether memory holds the bytes is unknown until a later fact says so | pages often stay, but nobody watched them until then |
//! | `state=pending`: the buffer or page is dirty again, and will be written once more | `write_failed` with the bytes in memory for certain, not `redirtied` | bytes that the *program* made dirty again are no promise yet, and make no incident before their next write. But an msync that returned 0 promised these: they are not on the disk, and nobody knows whether they ever will be. Once they are, `wrote` makes it `recovered` |
//! | an error belongs to the vnode (NFS: `NWRITEERR`) and goes to whoever syncs first | `file` is the pid, a `sync` with an error is a `told` as well | "this program was told and tried again" and "another one was told" can still be kept apart |
//! | msync gives ENOMEM, EBUSY, EINVAL for what it was asked | nobody was told | only EIO speaks of a write |
//! | a failure can come after the msync that it makes false (a delayed write) | `submitted` | a success between the two is judged again, as for btrfs on Linux |
//! | a filesystem is `f_fsid` | [`FileSystemId::Fsid`] | it has neither a UUID nor a device number that stays |
//! | a vnode without a readable inode number is known by its address, without a generation | another generation once it is gone | the address goes to another file |
//! | error numbers are FreeBSD's (70 is ESTALE) | [`Errno`] knows whose they are | neither the number nor the name is falsified |
//!
//! Ranges are taken as they are, without rounding to pages: on FreeBSD a buffer can end within a
//! page, and the later success of the same buffer has the same bytes.

use std::collections::BTreeMap;

use super::line::{Bytes, Call, Cause, Event, File, Fsid, State, What, Who};
use crate::model::{
    ByteRange, CallId, Discarded, Errno, ErrnoNumbers, Evicted, FactKind, FileId, FileSystemId,
    FileView, Gone, InodeKey, LossCause, Lost, MonoTime, Opened, ProcessId, Redirtied, SyncReturn,
    Task, Told, WriteFailed, WriteOk,
};

/// So many addresses of vnodes that are gone are remembered.
const MOST_GONE: usize = 65_536;

/// Makes facts of lines. They must come in the order of their times.
#[derive(Debug)]
pub struct Mapping {
    numbers: ErrnoNumbers,
    /// How often the vnode at an address is gone.
    gone: BTreeMap<(FileSystemId, u64), u32>,
}

impl Mapping {
    /// For the lines of that system.
    pub fn new(numbers: ErrnoNumbers) -> Self {
        Self {
            numbers,
            gone: BTreeMap::new(),
        }
    }

    /// Whether the numbers in this event are such as this system has. `Err`: the field that is not.
    pub fn check(&self, event: &Event) -> Result<(), &'static str> {
        let Event::About(file, what) = event else {
            return Ok(());
        };
        self.filesystem(file.fsid).ok_or("fsid")?;
        let errno = match what {
            What::Failed { errno, .. } | What::Told { errno, .. } => *errno,
            What::Sync { errno, .. } if *errno != 0 => *errno,
            _ => return Ok(()),
        };
        Errno::of(self.numbers, errno).ok_or("errno")?;
        Ok(())
    }

    /// Appends the facts of an event that [`Self::check`] found good; none for one that is about
    /// the run.
    pub fn facts(&mut self, event: Event, into: &mut Vec<FactKind>) {
        match event {
            Event::About(file, what) => {
                let Some(inode) = self.inode(&file) else {
                    return;
                };
                self.about(inode, file, what, into);
            }
            Event::Lost { cause, count } if count > 0 => {
                let cause = match cause {
                    Cause::ProbeError => LossCause::ProbeError,
                    Cause::MapFull => LossCause::MapFull,
                    Cause::WalkLimit => LossCause::WalkLimit,
                };
                into.push(FactKind::Lost(Lost { cause, count }));
            }
            Event::Lost { .. } | Event::Start(_) | Event::Tick | Event::Lines { .. } => {}
            Event::Stop => {}
        }
    }

    fn about(&mut self, inode: InodeKey, file: File, what: What, into: &mut Vec<FactKind>) {
        match what {
            What::Failed {
                bytes,
                errno,
                state,
                submitted,
                by,
            } => {
                if let Some(errno) = Errno::of(self.numbers, errno) {
                    into.push(FactKind::WriteFailed(WriteFailed {
                        inode,
                        range: range(bytes),
                        errno,
                        submitted: (submitted != 0).then_some(MonoTime(submitted)),
                        eviction_watched: state == State::Pending,
                        writer: Some(task(by)),
                        file: self.view(file),
                    }));
                }
            }
            What::Wrote(bytes) => {
                into.extend(range(bytes).map(|range| FactKind::WriteOk(WriteOk { inode, range })));
            }
            What::Dirty(bytes) => into
                .extend(range(bytes).map(|range| FactKind::Redirtied(Redirtied { inode, range }))),
            What::Cut(bytes) => into
                .extend(range(bytes).map(|range| FactKind::Discarded(Discarded { inode, range }))),
            What::Evicted(bytes) => {
                into.extend(range(bytes).map(|range| FactKind::Evicted(Evicted { inode, range })));
            }
            What::Gone { deleted } => {
                into.push(FactKind::Gone(Gone { inode, deleted }));
                into.extend(
                    self.vnode_is_gone(inode, file.generation == 0)
                        .map(FactKind::Lost),
                );
            }
            What::Sync {
                call,
                id,
                bytes,
                errno,
                file: asks,
                pending,
                by,
            } => {
                let task = task(by);
                let error = Errno::of(self.numbers, errno);
                if let Some(errno) = error.filter(|errno| self.speaks_of_a_write(call, *errno)) {
                    into.push(told(inode, asks, errno, task.clone()));
                }
                // A call over no bytes promised nothing.
                into.extend(range(bytes).map(|range| {
                    FactKind::SyncReturn(SyncReturn {
                        inode,
                        file: (asks != 0).then_some(FileId(asks)),
                        call: match call {
                            Call::Msync => crate::model::Call::Msync,
                            Call::MsyncAsync => crate::model::Call::MsyncAsync,
                            Call::Fsync => crate::model::Call::Fsync,
                            Call::Fdatasync => crate::model::Call::Fdatasync,
                        },
                        id: CallId(id),
                        range,
                        error,
                        pending,
                        task,
                        file_view: self.view(file),
                    })
                }));
            }
            What::Told {
                file: asks,
                errno,
                by,
            } => {
                if let Some(errno) = Errno::of(self.numbers, errno) {
                    into.push(told(inode, asks, errno, task(by)));
                }
            }
            What::Opened { file: asks } => {
                into.extend((asks != 0).then_some(FactKind::Opened(Opened {
                    inode,
                    file: FileId(asks),
                })));
            }
        }
    }

    /// Whether an error of a call is about a write that failed, and not about the call itself.
    fn speaks_of_a_write(&self, call: Call, errno: Errno) -> bool {
        /// EINTR, EBADF, ENOMEM, EBUSY, EINVAL: the same on both systems.
        const OF_MSYNC: [u16; 5] = [4, 9, 12, 16, 22];
        /// EBADF, EINVAL. (EINTR from fsync can be that of a write over NFS.)
        const OF_FSYNC: [u16; 2] = [9, 22];
        let number = errno.number();
        match (call, self.numbers) {
            (Call::Msync | Call::MsyncAsync, ErrnoNumbers::FreeBsd) => {
                number == Errno::EIO.number()
            }
            (Call::Msync | Call::MsyncAsync, ErrnoNumbers::Linux) => !OF_MSYNC.contains(&number),
            (Call::Fsync | Call::Fdatasync, _) => !OF_FSYNC.contains(&number),
        }
    }

    fn filesystem(&self, fsid: Fsid) -> Option<FileSystemId> {
        match (self.numbers, fsid) {
            (ErrnoNumbers::FreeBsd, Fsid::Short(fsid)) => Some(FileSystemId::Fsid(fsid)),
            (ErrnoNumbers::FreeBsd, Fsid::Long(_)) => None,
            (ErrnoNumbers::Linux, Fsid::Short(dev)) => {
                u32::try_from(dev).ok().map(FileSystemId::Device)
            }
            (ErrnoNumbers::Linux, Fsid::Long(uuid)) => Some(FileSystemId::Uuid(uuid.to_be_bytes())),
        }
    }

    fn inode(&self, file: &File) -> Option<InodeKey> {
        let fs = self.filesystem(file.fsid)?;
        // Of a number of 64 bits both halves count.
        let bits = file.generation;
        let said = u32::try_from((bits ^ (bits >> 32)) & 0xffff_ffff).unwrap_or_default();
        let earlier = self.gone.get(&(fs, file.ino)).copied().unwrap_or(0);
        Some(InodeKey {
            fs,
            ino: file.ino,
            generation: said.wrapping_add(earlier),
            subvolume: file.subvolume,
        })
    }

    /// What is known by the address of its vnode is another file when that address comes back.
    /// At the limit one that was gone before is forgotten, which is a loss.
    fn vnode_is_gone(&mut self, inode: InodeKey, has_no_generation: bool) -> Option<Lost> {
        /// Addresses of the kernel have these bits, also with five levels of page tables.
        const KERNEL: u64 = 0xff << 56;
        let is_address = inode.ino & KERNEL == KERNEL && has_no_generation;
        if self.numbers != ErrnoNumbers::FreeBsd || !is_address {
            return None;
        }
        let times = self.gone.entry((inode.fs, inode.ino)).or_default();
        *times = times.wrapping_add(1);
        (self.gone.len() > MOST_GONE).then(|| {
            self.gone.pop_first();
            Lost {
                cause: LossCause::MemoryLimit,
                count: 1,
            }
        })
    }

    fn view(&self, file: File) -> FileView {
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            Some(text).filter(|text| !text.is_empty())
        };
        let mount = Some(file.mount).filter(|mount| !mount.is_empty());
        let (path, from_root) = match (file.path.is_empty(), file.below, &mount) {
            (true, ..) => (None, false),
            // As the program wrote it.
            (false, false, _) => (Some(file.path), true),
            (false, true, Some(mount)) => (Some(join(mount, &file.path)), true),
            (false, true, None) => {
                let mut path = file.path;
                if path[0] != b'/' {
                    path.insert(0, b'/');
                }
                (Some(path), false)
            }
        };
        FileView {
            path,
            from_root,
            mount,
            fs_type: text(&file.fs),
            dev: match self.filesystem(file.fsid) {
                Some(FileSystemId::Device(dev)) => Some(dev),
                _ => None,
            },
            dev_name: text(&file.dev),
            deleted: file.nlink == 0,
        }
    }
}

/// A path below a mount point.
fn join(mount: &[u8], path: &[u8]) -> Vec<u8> {
    let mount = mount.strip_suffix(b"/").unwrap_or(mount);
    let path = path.strip_prefix(b"/").unwrap_or(path);
    [mount, b"/", path].concat()
}

/// None if there is no byte in it. A file's last possible byte stands for "to the end".
fn range(bytes: Bytes) -> Option<ByteRange> {
    const LAST: u64 = i64::MAX.unsigned_abs();
    let end = match bytes.off.saturating_add(bytes.len) {
        end if bytes.len > 0 && end >= LAST => u64::MAX,
        end => end,
    };
    ByteRange::new(bytes.off, end)
}

fn task(who: Who) -> Task {
    Task {
        process: ProcessId {
            pid: who.pid,
            start_time: who.began,
        },
        tid: who.tid,
        uid: who.uid,
        comm: who.comm,
        cgroup: 0,
        kernel_thread: who.kernel,
    }
}

/// Somebody unknown (0) is nobody that could ask again: no `sync_return` has this file.
fn told(inode: InodeKey, file: u64, errno: Errno, task: Task) -> FactKind {
    FactKind::Told(Told {
        inode,
        file: FileId(file),
        errno,
        task,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> File {
        File {
            fs: b"ufs".to_vec(),
            fsid: Fsid::Short(0x1234),
            ino: 4,
            generation: 7,
            subvolume: 0,
            dev: b"da0p2".to_vec(),
            mount: b"/mnt".to_vec(),
            path: b"db/base".to_vec(),
            below: true,
            nlink: 1,
        }
    }

    fn who() -> Who {
        Who {
            pid: 27,
            tid: 100_100,
            uid: 1001,
            comm: b"mm".to_vec(),
            kernel: false,
            began: 5,
        }
    }

    fn facts(numbers: ErrnoNumbers, file: File, what: What) -> Vec<FactKind> {
        let event = Event::About(file, what);
        let mut mapping = Mapping::new(numbers);
        assert_eq!(mapping.check(&event), Ok(()));
        let mut into = Vec::new();
        mapping.facts(event, &mut into);
        into
    }

    fn failed(state: State, errno: u32, len: u64) -> What {
        What::Failed {
            bytes: Bytes { off: 0, len },
            errno,
            state,
            submitted: 0,
            by: who(),
        }
    }

    fn sync(call: Call, errno: u32, file: u64) -> What {
        What::Sync {
            call,
            id: 9,
            bytes: Bytes { off: 0, len: 8192 },
            errno,
            file,
            pending: false,
            by: who(),
        }
    }

    #[test]
    fn bytes_that_wait_for_another_try_are_in_memory_and_lost_ones_perhaps() {
        for (state, held) in [(State::Pending, true), (State::Lost, false)] {
            let facts = facts(ErrnoNumbers::FreeBsd, file(), failed(state, 70, 8192));
            let [FactKind::WriteFailed(failed)] = &facts[..] else {
                panic!("{facts:?}");
            };
            assert_eq!(failed.eviction_watched, held);
            assert_eq!(failed.errno.to_string(), "ESTALE");
            assert_eq!(failed.inode.fs, FileSystemId::Fsid(0x1234));
            assert_eq!(failed.range, ByteRange::new(0, 8192));
        }
    }

    #[test]
    fn a_failure_of_no_known_bytes_is_one_of_the_file() {
        let facts = facts(ErrnoNumbers::FreeBsd, file(), failed(State::Lost, 5, 0));
        assert!(matches!(&facts[..], [FactKind::WriteFailed(f)] if f.range.is_none()));
    }

    #[test]
    fn a_sync_that_fails_tells_its_file() {
        for (numbers, call, errno, tells) in [
            (ErrnoNumbers::FreeBsd, Call::Msync, 5, true),
            (ErrnoNumbers::FreeBsd, Call::Msync, 12, false),
            (ErrnoNumbers::FreeBsd, Call::Fsync, 70, true),
            (ErrnoNumbers::FreeBsd, Call::Fsync, 9, false),
            (ErrnoNumbers::Linux, Call::Msync, 122, true),
            (ErrnoNumbers::Linux, Call::Msync, 12, false),
            (ErrnoNumbers::Linux, Call::Fdatasync, 4, true),
            (ErrnoNumbers::Linux, Call::Fsync, 0, false),
        ] {
            let facts = facts(numbers, file(), sync(call, errno, 27));
            let told = matches!(
                facts[0],
                FactKind::Told(Told {
                    file: FileId(27),
                    ..
                })
            );
            assert_eq!(told, tells, "{call:?} {errno}");
            let Some(FactKind::SyncReturn(sync)) = facts.last() else {
                panic!("{facts:?}");
            };
            assert_eq!(sync.error.is_some(), errno != 0);
            assert_eq!(sync.file, Some(FileId(27)));
        }
    }

    #[test]
    fn nobody_known_was_told_and_asks() {
        let told = facts(ErrnoNumbers::FreeBsd, file(), sync(Call::Fsync, 5, 0));
        let [FactKind::Told(told), FactKind::SyncReturn(sync)] = &told[..] else {
            panic!("{told:?}");
        };
        assert_eq!(told.file, FileId(0));
        assert_eq!(sync.file, None);
    }

    #[test]
    fn a_path_is_the_callers_unless_only_its_filesystem_is_known() {
        for (mount, path, below, seen) in [
            ("/mnt", "db/base", true, Some(("/mnt/db/base", true))),
            ("/mnt", "/db/base", true, Some(("/mnt/db/base", true))),
            ("/", "db/base", true, Some(("/db/base", true))),
            ("", "db/base", true, Some(("/db/base", false))),
            (
                "/mnt",
                "/home/db/base",
                false,
                Some(("/home/db/base", true)),
            ),
            ("/mnt", "../base", false, Some(("../base", true))),
            ("/mnt", "", true, None),
        ] {
            let file = File {
                mount: mount.into(),
                path: path.into(),
                below,
                ..file()
            };
            let view = Mapping::new(ErrnoNumbers::FreeBsd).view(file);
            let shown = view.path.map(|path| String::from_utf8(path).unwrap());
            let shown = shown.as_deref().map(|path| (path, view.from_root));
            assert_eq!(shown, seen, "{mount} {path}");
            assert_eq!(view.mount.is_some(), !mount.is_empty());
        }
    }

    #[test]
    fn a_range_to_the_last_byte_goes_to_the_end() {
        let last = i64::MAX.unsigned_abs();
        let range = |off, len| range(Bytes { off, len });
        assert_eq!(range(4096, last - 4096), ByteRange::new(4096, u64::MAX));
        assert_eq!(range(0, u64::MAX), Some(ByteRange::ALL));
        assert_eq!(range(5, 0), None);
        assert_eq!(range(last, 0), None);
        assert_eq!(range(0, 4096), ByteRange::new(0, 4096));
    }

    #[test]
    fn the_address_of_a_vnode_is_another_file_after_the_vnode_is_gone() {
        let mut mapping = Mapping::new(ErrnoNumbers::FreeBsd);
        let mut generations = |ino: u64| {
            let mut seen = Vec::new();
            for what in [
                failed(State::Lost, 5, 0),
                What::Gone { deleted: false },
                failed(State::Lost, 5, 0),
            ] {
                let mut facts = Vec::new();
                let generation = 0;
                let file = File {
                    ino,
                    generation,
                    ..file()
                };
                mapping.facts(Event::About(file, what), &mut facts);
                seen.extend(facts.into_iter().map(|fact| match fact {
                    FactKind::WriteFailed(it) => it.inode.generation,
                    FactKind::Gone(it) => it.inode.generation,
                    other => panic!("{other:?}"),
                }));
            }
            seen
        };
        assert_eq!(generations(0xffff_f800_0123_4568), [0, 0, 1]);
        assert_eq!(generations(0xff00_fffe_ff6b_1248), [0, 0, 1]);
        assert_eq!(
            generations(4),
            [0, 0, 0],
            "a number of the filesystem stays"
        );
    }

    #[test]
    fn numbers_that_the_system_does_not_have_are_refused() {
        let check = |numbers, fsid, errno| {
            let file = File { fsid, ..file() };
            let event = Event::About(file, failed(State::Lost, errno, 0));
            Mapping::new(numbers).check(&event)
        };
        assert_eq!(check(ErrnoNumbers::FreeBsd, Fsid::Long(1), 5), Err("fsid"));
        assert_eq!(
            check(ErrnoNumbers::Linux, Fsid::Short(1 << 32), 5),
            Err("fsid")
        );
        assert_eq!(check(ErrnoNumbers::Linux, Fsid::Long(1), 5), Ok(()));
        assert_eq!(
            check(ErrnoNumbers::FreeBsd, Fsid::Short(1), 0),
            Err("errno")
        );
        assert_eq!(
            check(ErrnoNumbers::FreeBsd, Fsid::Short(1), 4096),
            Err("errno")
        );
    }

    #[test]
    fn a_uuid_keeps_the_order_of_its_bytes() {
        let uuid = Mapping::new(ErrnoNumbers::Linux)
            .filesystem(Fsid::Long(0x3e6b_1a00_aabb_ccdd_0102_0304_0506_0708))
            .unwrap();
        assert_eq!(uuid.to_string(), "3e6b1a00-aabb-ccdd-0102-030405060708");
    }
}
