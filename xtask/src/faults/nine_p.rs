//! A 9P server (9P2000.L, as the kernel's client speaks it) that shows a folder and answers a WRITE
//! when the bytes are on the folder's disk: its disk's errors become its own.
//!
//! It runs in a process of its own, at one end of a pair of sockets, until the client lets go of the
//! other or it is killed. What the messages hold: diod's protocol.md.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Weak};

use anyhow::{Context, Result};

use super::child::Child;

/// Bytes of a message: the most that 5.10 takes on a socket.
pub const MESSAGE_BYTES: u32 = 65536;
/// Bytes of one READ or WRITE: whole pages.
const IO_BYTES: u32 = 32768;

/// Starts a server of `folder`, and gives the socket that a client has to be mounted on. It ends when
/// the client is gone. Forks, see [`Child::start`].
pub fn serve_nine_p(folder: &Path) -> Result<(Child, OwnedFd)> {
    let (client, ours) = UnixStream::pair()?;
    let root = Arc::new(open_path(folder).context("open the folder to be served")?);
    let server = Child::start("9P server", &[root.as_fd(), ours.as_fd()], || {
        let mut server = Server {
            root: Arc::clone(&root),
            fids: HashMap::new(),
            open: HashMap::new(),
        };
        match server.run(&ours) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
            _ => Ok(()),
        }
    })?;
    Ok((server, client.into()))
}

/// What a mount of the server at the other end of this socket is told, for mount(2).
pub fn mount_options(socket: &OwnedFd) -> String {
    let fd = socket.as_raw_fd();
    format!(
        "trans=fd,rfdno={fd},wfdno={fd},version=9p2000.L,access=any,cache=loose,\
         msize={MESSAGE_BYTES}"
    )
}

/// What a client's number stands for.
struct Fid {
    /// Opened with `O_PATH`: it stays the same file when its name changes.
    place: Arc<File>,
    /// Opened by LOPEN or LCREATE.
    io: Option<Arc<File>>,
}

struct Server {
    root: Arc<File>,
    fids: HashMap<u32, Fid>,
    /// By inode number. All who have a file open share one description of it: an error of the disk
    /// is the answer to the one WRITE that met it.
    open: HashMap<u64, Weak<File>>,
}

/// Types of messages; the answer's is one more.
mod kind {
    pub const ERROR: u8 = 6;
    pub const STATFS: u8 = 8;
    pub const LOPEN: u8 = 12;
    pub const LCREATE: u8 = 14;
    pub const GETATTR: u8 = 24;
    pub const SETATTR: u8 = 26;
    pub const READDIR: u8 = 40;
    pub const FSYNC: u8 = 50;
    pub const MKDIR: u8 = 72;
    pub const RENAMEAT: u8 = 74;
    pub const UNLINKAT: u8 = 76;
    pub const VERSION: u8 = 100;
    pub const ATTACH: u8 = 104;
    pub const FLUSH: u8 = 108;
    pub const WALK: u8 = 110;
    pub const READ: u8 = 116;
    pub const WRITE: u8 = 118;
    pub const CLUNK: u8 = 120;
}

/// `P9_GETATTR_BASIC`, `P9_GETATTR_GEN`.
const GETATTR_BASIC: u64 = 0x7ff;
const GETATTR_GENERATION: u64 = 0x1000;
/// `P9_SETATTR_MODE`, `P9_SETATTR_SIZE`.
const SETATTR_MODE: u32 = 1;
const SETATTR_SIZE: u32 = 8;
/// `P9_QTDIR`.
const QUALIFIED_DIRECTORY: u8 = 0x80;
/// `P9_DOTL_AT_REMOVEDIR`.
const REMOVE_DIRECTORY: u32 = 0x200;
/// `V9FS_MAGIC`.
const MAGIC: u32 = 0x0102_1997;
/// Bytes before the body of a message: size, type, tag.
const HEADER: usize = 7;

impl Server {
    fn run(&mut self, mut client: &UnixStream) -> io::Result<()> {
        loop {
            let mut header = [0; HEADER];
            client.read_exact(&mut header)?;
            let size = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
            let size = size.clamp(HEADER as u32, MESSAGE_BYTES) as usize;
            let mut body = vec![0; size - HEADER];
            client.read_exact(&mut body)?;
            let asked = header[4];
            let mut reply = Reply::default();
            let answered = self.answer(asked, Message(&body), &mut reply);
            let (kind, body) = match answered {
                Ok(()) => (asked + 1, reply.0),
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or(libc::EIO);
                    (kind::ERROR + 1, (errno as u32).to_le_bytes().to_vec())
                }
            };
            let size = (HEADER + body.len()) as u32;
            let mut message = size.to_le_bytes().to_vec();
            message.push(kind);
            message.extend(&header[5..7]);
            message.extend(body);
            client.write_all(&message)?;
        }
    }

    fn answer(&mut self, kind: u8, mut message: Message, reply: &mut Reply) -> io::Result<()> {
        match kind {
            kind::VERSION => {
                let bytes = message.u32()?.min(MESSAGE_BYTES);
                self.fids.clear();
                reply.u32(bytes);
                reply.string(b"9P2000.L");
            }
            kind::ATTACH => {
                let fid = message.u32()?;
                reply.qualified(&self.root.metadata()?);
                self.know(fid, Arc::clone(&self.root));
            }
            kind::WALK => self.walk(&mut message, reply)?,
            kind::CLUNK => {
                self.fids.remove(&message.u32()?);
            }
            kind::FLUSH => {}
            kind::LOPEN => {
                let (fid, flags) = (message.u32()?, message.u32()?);
                let place = self.place(fid)?;
                let metadata = place.metadata()?;
                let empty = flags & libc::O_TRUNC as u32 != 0;
                let io = match self.open_file(&place, empty) {
                    // A folder, or a file that nobody may write.
                    Err(_) if flags as i32 & libc::O_ACCMODE == libc::O_RDONLY => {
                        Arc::new(reopen(&place, libc::O_RDONLY)?)
                    }
                    opened => opened?,
                };
                self.fid(fid)?.io = Some(io);
                reply.qualified(&metadata);
                reply.u32(IO_BYTES);
            }
            kind::LCREATE => {
                let (fid, name) = (message.u32()?, message.string()?);
                let (flags, mode) = (message.u32()?, message.u32()?);
                let folder = self.place(fid)?;
                let exclusive = flags as i32 & libc::O_EXCL;
                let how = libc::O_CREAT | libc::O_WRONLY | libc::O_NOFOLLOW | exclusive;
                open_at(&folder, &name, how, mode)?;
                let place = Arc::new(open_at(&folder, &name, libc::O_PATH, 0)?);
                let io = self.open_file(&place, flags & libc::O_TRUNC as u32 != 0)?;
                reply.qualified(&place.metadata()?);
                reply.u32(IO_BYTES);
                let io = Some(io);
                self.fids.insert(fid, Fid { place, io });
            }
            kind::GETATTR => attributes(&*self.place(message.u32()?)?, reply)?,
            kind::SETATTR => {
                let (fid, valid) = (message.u32()?, message.u32()?);
                let (mode, _owner, _group) = (message.u32()?, message.u32()?, message.u32()?);
                let size = message.u64()?;
                let place = self.place(fid)?;
                if valid & SETATTR_MODE != 0 {
                    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
                    std::fs::set_permissions(below_proc(&place), mode)?;
                }
                if valid & SETATTR_SIZE != 0 {
                    self.open_file(&place, false)?.set_len(size)?;
                }
            }
            kind::READDIR => {
                let (fid, offset, count) = (message.u32()?, message.u64()?, message.u32()?);
                let folder = self.place(fid)?;
                let entries = list(&folder, offset, count as usize)?;
                reply.bytes(&entries);
            }
            kind::READ => {
                let (fid, offset, count) = (message.u32()?, message.u64()?, message.u32()?);
                let mut bytes = vec![0; count.min(MESSAGE_BYTES) as usize];
                let len = self.io(fid)?.read_at(&mut bytes, offset)?;
                reply.bytes(&bytes[..len]);
            }
            kind::WRITE => {
                let (fid, offset, count) = (message.u32()?, message.u64()?, message.u32()?);
                let bytes = message.take(count as usize)?;
                self.io(fid)?.write_all_at(bytes, offset)?;
                reply.u32(count);
            }
            kind::FSYNC => self.io(message.u32()?)?.sync_all()?,
            kind::MKDIR => {
                let (fid, name, mode) = (message.u32()?, message.string()?, message.u32()?);
                let folder = self.place(fid)?;
                // SAFETY: a C string that outlives the call.
                checked(unsafe { libc::mkdirat(folder.as_raw_fd(), name.as_ptr(), mode) })?;
                reply.qualified(&open_at(&folder, &name, libc::O_PATH, 0)?.metadata()?);
            }
            kind::RENAMEAT => {
                let (from, old) = (message.u32()?, message.string()?);
                let (to, new) = (message.u32()?, message.string()?);
                let (from, to) = (self.place(from)?, self.place(to)?);
                let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
                // SAFETY: C strings that outlive the call.
                checked(unsafe { libc::renameat(from, old.as_ptr(), to, new.as_ptr()) })?;
            }
            kind::UNLINKAT => {
                let (fid, name, flags) = (message.u32()?, message.string()?, message.u32()?);
                let folder = self.place(fid)?.as_raw_fd();
                let flags = match flags & REMOVE_DIRECTORY {
                    0 => 0,
                    _ => libc::AT_REMOVEDIR,
                };
                // SAFETY: a C string that outlives the call.
                checked(unsafe { libc::unlinkat(folder, name.as_ptr(), flags) })?;
            }
            kind::STATFS => {
                // Type, block size; then blocks and files, of which nobody here asks; longest name.
                reply.u32(MAGIC);
                reply.u32(4096);
                (0..6).for_each(|_| reply.u64(0));
                reply.u32(255);
            }
            _ => return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
        }
        Ok(())
    }

    /// From one place to another by names; the new number is given only if all of them are there.
    fn walk(&mut self, message: &mut Message, reply: &mut Reply) -> io::Result<()> {
        let (from, to, names) = (message.u32()?, message.u32()?, message.u16()?);
        let mut place = self.place(from)?;
        let mut found = Vec::new();
        for _ in 0..names {
            let name = message.string()?;
            match open_at(&place, &name, libc::O_PATH | libc::O_NOFOLLOW, 0) {
                Ok(next) => place = Arc::new(next),
                Err(error) if found.is_empty() => return Err(error),
                Err(_) => break,
            }
            found.push(place.metadata()?);
        }
        reply.u16(found.len() as u16);
        found.iter().for_each(|metadata| reply.qualified(metadata));
        if found.len() == usize::from(names) {
            self.know(to, place);
        }
        Ok(())
    }

    fn know(&mut self, fid: u32, place: Arc<File>) {
        self.fids.insert(fid, Fid { place, io: None });
    }

    fn fid(&mut self, fid: u32) -> io::Result<&mut Fid> {
        let unknown = || io::Error::from_raw_os_error(libc::EBADF);
        self.fids.get_mut(&fid).ok_or_else(unknown)
    }

    fn place(&mut self, fid: u32) -> io::Result<Arc<File>> {
        Ok(Arc::clone(&self.fid(fid)?.place))
    }

    fn io(&mut self, fid: u32) -> io::Result<Arc<File>> {
        let io = self.fid(fid)?.io.clone();
        io.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    /// The description that all share. A write comes back when its bytes are on the disk, or not.
    fn open_file(&mut self, place: &File, empty: bool) -> io::Result<Arc<File>> {
        let number = place.metadata()?.ino();
        let file = match self.open.get(&number).and_then(Weak::upgrade) {
            Some(file) => file,
            None => Arc::new(reopen(place, libc::O_RDWR | libc::O_DSYNC)?),
        };
        if empty {
            file.set_len(0)?;
        }
        self.open.insert(number, Arc::downgrade(&file));
        Ok(file)
    }
}

/// A file without opening it for anything.
fn open_path(path: &Path) -> io::Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).custom_flags(libc::O_PATH).open(path)
}

fn open_at(folder: &File, name: &CString, flags: i32, mode: u32) -> io::Result<File> {
    let flags = flags | libc::O_CLOEXEC;
    // SAFETY: a C string that outlives the call.
    let fd = unsafe { libc::openat(folder.as_raw_fd(), name.as_ptr(), flags, mode) };
    checked(fd)?;
    // SAFETY: a descriptor that is nobody else's.
    Ok(unsafe { File::from_raw_fd(fd) })
}

fn below_proc(place: &File) -> String {
    format!("/proc/self/fd/{}", place.as_raw_fd())
}

fn reopen(place: &File, flags: i32) -> io::Result<File> {
    let path = CString::new(below_proc(place))?;
    // SAFETY: a C string that outlives the call.
    let fd: RawFd = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) };
    checked(fd)?;
    // SAFETY: a descriptor that is nobody else's.
    Ok(unsafe { File::from_raw_fd(fd) })
}

fn checked(result: i32) -> io::Result<()> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Entries from the one of this number on; each says the number of the next.
fn list(folder: &File, offset: u64, room: usize) -> io::Result<Vec<u8>> {
    let mut entries = Reply::default();
    let skip = usize::try_from(offset).unwrap_or(usize::MAX);
    for (number, entry) in std::fs::read_dir(below_proc(folder))?
        .enumerate()
        .skip(skip)
    {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        // Its identity, the number of the next, its type, and the name with its length.
        if entries.0.len() + 13 + 8 + 1 + 2 + name.len() > room {
            break;
        }
        let metadata = entry.metadata()?;
        entries.qualified(&metadata);
        entries.u64(number as u64 + 1);
        entries.0.push(match metadata.is_dir() {
            true => libc::DT_DIR,
            false => libc::DT_REG,
        });
        entries.string(name);
    }
    Ok(entries.0)
}

/// What tells a file from an earlier one of the same number; folders are not asked for theirs.
fn generation(place: &File) -> io::Result<u32> {
    let file = reopen(place, libc::O_RDONLY)?;
    let mut generation: libc::c_int = 0;
    // SAFETY: generation is a valid place for the result.
    checked(unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            libc::FS_IOC_GETVERSION,
            &raw mut generation,
        )
    })?;
    Ok(generation as u32)
}

fn attributes(place: &File, reply: &mut Reply) -> io::Result<()> {
    let metadata = &place.metadata()?;
    let generation = match metadata.is_file() {
        true => generation(place)?,
        false => 0,
    };
    reply.u64(GETATTR_BASIC | GETATTR_GENERATION);
    reply.qualified(metadata);
    reply.u32(metadata.mode());
    reply.u32(metadata.uid());
    reply.u32(metadata.gid());
    reply.u64(metadata.nlink());
    reply.u64(0);
    reply.u64(metadata.size());
    reply.u64(4096);
    reply.u64(metadata.blocks());
    // Four times, of which nobody here asks, with nanoseconds.
    (0..8).for_each(|_| reply.u64(0));
    reply.u64(u64::from(generation));
    // Data version.
    reply.u64(0);
    Ok(())
}

/// The body of a message, little endian.
struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    fn take(&mut self, len: usize) -> io::Result<&'a [u8]> {
        let short = || io::Error::from_raw_os_error(libc::EPROTO);
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> io::Result<u16> {
        let bytes = self.take(2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> io::Result<u32> {
        let (low, high) = (self.u16()?, self.u16()?);
        Ok(u32::from(low) | u32::from(high) << 16)
    }

    fn u64(&mut self) -> io::Result<u64> {
        let (low, high) = (self.u32()?, self.u32()?);
        Ok(u64::from(low) | u64::from(high) << 32)
    }

    fn string(&mut self) -> io::Result<CString> {
        let len = self.u16()?;
        Ok(CString::new(self.take(usize::from(len))?)?)
    }
}

#[derive(Default)]
struct Reply(Vec<u8>);

impl Reply {
    fn u16(&mut self, number: u16) {
        self.0.extend(number.to_le_bytes());
    }

    fn u32(&mut self, number: u32) {
        self.0.extend(number.to_le_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    fn string(&mut self, string: &[u8]) {
        self.u16(string.len() as u16);
        self.0.extend(string);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32);
        self.0.extend(bytes);
    }

    /// Who a file is: type, version (never another: a changed one would be another file to the
    /// client) and number.
    fn qualified(&mut self, metadata: &std::fs::Metadata) {
        self.0.push(match metadata.is_dir() {
            true => QUALIFIED_DIRECTORY,
            false => 0,
        });
        self.u32(0);
        self.u64(metadata.ino());
    }
}
