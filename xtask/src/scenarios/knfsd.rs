//! The kernel's own NFS server in a network of its own, without any daemon: what mountd, rpcbind
//! and exportfs would say is said here.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::volume::{c_string, mount};
use super::world::Skip;
use crate::faults::keep_only;

/// Where rpcbind would listen, and mountd as well.
const RPC_PORT: u16 = 111;
const PATIENCE: Duration = Duration::from_secs(30);
/// How long after one flush of a cache the next may come: the kernel counts in seconds, and a
/// second one in the same second cleans nothing until that time has passed (`write_flush` and
/// `cache_clean`, net/sunrpc/cache.c).
const BETWEEN_FLUSHES: Duration = Duration::from_millis(1100);
/// How often is looked between two flushes whether a deleted file still lives.
const LOOKS: u32 = 20;
/// `rpc.mountd` writes this for "never".
const NEVER: u32 = i32::MAX as u32;
/// `NFSEXP_INSECURE_PORT | NFSEXP_NOSUBTREECHECK | NFSEXP_FSID` (uapi/linux/nfsd/export.h); root
/// is root.
const EXPORT: u32 = 0x2 | 0x400 | 0x2000;
const READ_ONLY: u32 = 0x1;
const ROOT_SQUASH: u32 = 0x4;
/// Who others are on the server.
pub const NOBODY: u32 = 65534;
/// The file handle of an export's root by its number 0: version 1, no authentication, `FSID_NUM`,
/// `FILEID_ROOT`, then the number (fs/nfsd/nfsfh.h).
const ROOT_HANDLE: [u8; 8] = [1, 0, 1, 0, 0, 0, 0, 0];

/// A folder that is being exported.
pub struct Knfsd {
    folder: PathBuf,
    control: PathBuf,
    helper: libc::pid_t,
    /// Where it can be reached.
    network: File,
    serving: bool,
    flushed: Cell<Option<Instant>>,
}

impl Knfsd {
    /// The server, not serving yet. Forks: call it before this process has threads. No NFS in this
    /// kernel is a [`Skip`].
    pub fn new(folder: &Path, control: &Path) -> Result<Knfsd> {
        for module in ["nfsd", "nfs", "nfsv3", "nfsv4"] {
            let _ = Command::new("modprobe").args(["-q", module]).output();
        }
        let known = std::fs::read_to_string("/proc/filesystems")?;
        if !known.split_whitespace().any(|word| word == "nfsd") {
            bail!(Skip("this kernel has no NFS server".to_owned()));
        }
        let network = own_network().context("a network of our own")?;
        let helper = answer_for_daemons()?;
        std::fs::create_dir_all(control)?;
        let server = Knfsd {
            folder: folder.to_owned(),
            control: control.to_owned(),
            helper,
            network,
            serving: false,
            flushed: Cell::new(None),
        };
        mount("nfsd", control, "nfsd", 0, "").context("mount nfsd")?;
        Ok(server)
    }

    /// From now on this process is where the server can be reached: there may be two.
    fn enter_network(&self) -> Result<()> {
        // SAFETY: touches no memory.
        match unsafe { libc::setns(self.network.as_raw_fd(), libc::CLONE_NEWNET) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()).context("the server's network"),
        }
    }

    /// Exports the folder, for mounts of this process. The server begins at the first time: its state of version 4 takes
    /// seconds to be built.
    pub fn start(&mut self) -> Result<()> {
        self.enter_network()?;
        if std::mem::replace(&mut self.serving, true) {
            return self.export(0);
        }
        // The shortest that the server takes: nobody has anything to reclaim.
        for time in ["nfsv4leasetime", "nfsv4gracetime"] {
            let _ = self.tell(time, "10");
        }
        self.tell("portlist", "tcp 2049")?;
        self.tell("threads", "4")?;
        let _ = self.tell("v4_end_grace", "Y");
        self.export(0)
    }

    /// From now on nothing gets through to the server, or everything again.
    pub fn cut_off(&self, cut: bool) -> Result<()> {
        self.enter_network()?;
        set_loopback(!cut).context("the loopback device")
    }

    /// The server closes the files that it keeps open between requests.
    pub fn forget_files(&self) -> Result<()> {
        self.enter_network()?;
        self.flush()?;
        self.export(0)
    }

    /// Deletes a file of the folder for good: a request that is still on its way may put it back
    /// into the server's caches, and as long as it is held open there, writes to it succeed.
    pub fn delete(&self, file: &Path) -> Result<()> {
        let folder = File::open(&self.folder)?;
        let mut handle = Handle::of(file).context("the file's handle")?;
        std::fs::remove_file(file)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.forget_files()?;
            for _ in 0..LOOKS {
                match handle.open(&folder) {
                    Err(error) if error.raw_os_error() == Some(libc::ESTALE) => return Ok(()),
                    Err(error) => return Err(error).context("open the deleted file"),
                    Ok(_) => std::thread::sleep(BETWEEN_FLUSHES / LOOKS),
                }
            }
            if Instant::now() > deadline {
                bail!("the server holds a deleted file open");
            }
        }
    }

    /// From now on the export is read-only.
    pub fn make_read_only(&self) -> Result<()> {
        self.enter_network()?;
        self.flush()?;
        self.export(READ_ONLY)
    }

    /// From now on root of a client is nobody here.
    pub fn make_root_nobody(&self) -> Result<()> {
        self.enter_network()?;
        self.flush()?;
        self.export(ROOT_SQUASH)
    }

    fn export(&self, more: u32) -> Result<()> {
        let folder = self.folder.display();
        cache(
            "auth.unix.ip",
            "channel",
            &format!("nfsd 127.0.0.1 {NEVER} here\n"),
        )?;
        let flags = EXPORT | more;
        let export = format!("here {folder} {NEVER} {flags} {NOBODY} {NOBODY} 0\n");
        cache("nfsd.export", "channel", &export)?;
        let handle = format!("here 1 \\x00000000 {NEVER} {folder}\n");
        cache("nfsd.fh", "channel", &handle)
    }

    /// The server forgets what is exported; what it holds open it may keep.
    fn flush(&self) -> Result<()> {
        if let Some(flushed) = self.flushed.get() {
            std::thread::sleep(BETWEEN_FLUSHES.saturating_sub(flushed.elapsed()));
        }
        self.flushed.set(Some(Instant::now()));
        for name in ["auth.unix.ip", "nfsd.export", "nfsd.fh"] {
            cache(name, "flush", &format!("{NEVER}\n"))?;
        }
        Ok(())
    }

    /// Lets go again, if the last time is long enough ago: a request that was still on its way has
    /// put its file back into the server's caches.
    pub fn stop_again(&self) -> Result<()> {
        match self.flushed.get() {
            Some(flushed) if flushed.elapsed() < BETWEEN_FLUSHES => Ok(()),
            _ => self.stop(),
        }
    }

    /// Lets go of the folder.
    pub fn stop(&self) -> Result<()> {
        self.enter_network()?;
        // Not all kernels give up what clients of version 4 hold; it ends with their lease.
        let _ = self.tell("unlock_filesystem", &self.folder.to_string_lossy());
        self.flush()
    }

    fn tell(&self, file: &str, what: &str) -> Result<()> {
        let path = self.control.join(file);
        std::fs::write(&path, format!("{what}\n"))
            .with_context(|| format!("write {what:?} to nfsd's {file}"))
    }
}

/// What a server calls a file, whatever becomes of its name.
#[repr(C)]
struct Handle {
    head: libc::file_handle,
    bytes: [u8; libc::MAX_HANDLE_SZ as usize],
}

impl Handle {
    fn of(file: &Path) -> Result<Handle> {
        let path = c_string(file)?;
        // SAFETY: numbers and bytes, for which 0 is a value.
        let mut handle: Handle = unsafe { std::mem::zeroed() };
        handle.head.handle_bytes = handle.bytes.len() as libc::c_uint;
        let mut mount = 0;
        let whole = (&raw mut handle).cast();
        // SAFETY: a C string, and room for as many bytes as the head says; both outlive the call.
        let outcome = unsafe {
            libc::name_to_handle_at(libc::AT_FDCWD, path.as_ptr(), whole, &raw mut mount, 0)
        };
        match outcome {
            0 => Ok(handle),
            _ => Err(io::Error::last_os_error().into()),
        }
    }

    /// Opens the file, if it lives, on the filesystem of `beside`.
    fn open(&mut self, beside: &File) -> io::Result<File> {
        let whole = (&raw mut *self).cast();
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        // SAFETY: a handle as the kernel gave it.
        match unsafe { libc::open_by_handle_at(beside.as_raw_fd(), whole, flags) } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: open, and nobody else's.
            descriptor => Ok(unsafe { File::from_raw_fd(descriptor) }),
        }
    }
}

impl Drop for Knfsd {
    fn drop(&mut self) {
        let _ = self.stop();
        let _ = self.tell("threads", "0");
        if let Ok(at) = c_string(&self.control) {
            // SAFETY: a C string that outlives the call.
            unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) };
        }
        let mut status = 0;
        // SAFETY: our own child, not yet waited for.
        unsafe {
            libc::kill(self.helper, libc::SIGKILL);
            libc::waitpid(self.helper, &raw mut status, 0);
        }
    }
}

/// COMMITs that the client has sent for what is mounted here.
pub fn commits(at: &Path) -> Result<u64> {
    let stats = std::fs::read_to_string("/proc/self/mountstats")?;
    let mount = format!(" mounted on {} ", at.display());
    let mut lines = stats.lines().skip_while(|line| !line.contains(&mount));
    let commits = lines.find_map(|line| line.trim_start().strip_prefix("COMMIT: "));
    let sent = commits.and_then(|numbers| numbers.split_whitespace().next()?.parse().ok());
    sent.with_context(|| format!("no COMMITs in the statistics of {}", at.display()))
}

/// Writes one entry of a cache of the kernel's RPC server; the file appears with the server.
fn cache(name: &str, file: &str, entry: &str) -> Result<()> {
    let path = format!("/proc/net/rpc/{name}/{file}");
    let deadline = Instant::now() + PATIENCE;
    loop {
        match std::fs::write(&path, entry) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result.with_context(|| format!("write {entry:?} to {path}")),
        }
    }
}

/// Source and options of a mount of the export, for mount(2).
pub fn mount_data(version: u8) -> (String, String) {
    let both = "addr=127.0.0.1,proto=tcp,port=2049,sec=sys";
    match version {
        3 => (
            "127.0.0.1:/".to_owned(),
            format!(
                "vers=3,{both},nolock,mountaddr=127.0.0.1,mountvers=3,mountproto=tcp,\
                 mountport={RPC_PORT}"
            ),
        ),
        _ => (
            "127.0.0.1:/".to_owned(),
            format!("vers=4.2,{both},clientaddr=127.0.0.1"),
        ),
    }
}

/// A network with nothing but a loopback device: no server of this machine is in the way, and
/// nobody else can reach ours.
fn own_network() -> io::Result<File> {
    // SAFETY: touches no memory.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    set_loopback(true)?;
    File::open("/proc/self/ns/net")
}

/// Switches the loopback device of this process's network on or off.
fn set_loopback(on: bool) -> io::Result<()> {
    // SAFETY: no memory is touched but the request, which outlives the calls.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        if on {
            request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        }
        let result = libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw mut request);
        let error = io::Error::last_os_error();
        libc::close(socket);
        match result {
            0 => Ok(()),
            _ => Err(error),
        }
    }
}

/// A process that answers for rpcbind (whatever is registered is registered) and for mountd (the
/// root of the export is all there is to mount).
fn answer_for_daemons() -> Result<libc::pid_t> {
    let listener = TcpListener::bind(("127.0.0.1", RPC_PORT)).context("listen as rpcbind")?;
    // SAFETY: this process has one thread, so the child may do anything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()).context("fork"),
        0 => {
            keep_only(&[listener.as_fd()]);
            // SAFETY: constants only.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::signal(libc::SIGINT, libc::SIG_IGN);
            }
            for caller in listener.incoming().flatten() {
                std::thread::spawn(move || answer(caller));
            }
            // SAFETY: leaves without running anything that belongs to the parent.
            unsafe { libc::_exit(0) }
        }
        pid => Ok(pid),
    }
}

const PROGRAM_MOUNT: u32 = 100_005;
const MOUNT_MNT: u32 = 1;
const RPCBIND_NULL: u32 = 0;

/// ONC RPC over TCP (RFC 5531), one record after the other; MOUNT version 3 is in RFC 1813.
fn answer(mut caller: TcpStream) -> io::Result<()> {
    loop {
        let mut mark = [0; 4];
        caller.read_exact(&mut mark)?;
        let len = u32::from_be_bytes(mark) & 0x7fff_ffff;
        let mut call = vec![0; len.min(4096) as usize];
        caller.read_exact(&mut call)?;
        let word = |index: usize| {
            let bytes = call.get(index * 4..index * 4 + 4).unwrap_or(&[0; 4]);
            u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        };
        let (transaction, program, procedure) = (word(0), word(3), word(5));
        // Reply, accepted, no verifier, success.
        let mut reply: Vec<u32> = vec![transaction, 1, 0, 0, 0, 0];
        match (program, procedure) {
            (PROGRAM_MOUNT, MOUNT_MNT) => {
                let handle = ROOT_HANDLE.chunks(4);
                let handle =
                    handle.map(|part| u32::from_be_bytes([part[0], part[1], part[2], part[3]]));
                // Status 0, the handle, and one way to authenticate: AUTH_SYS.
                reply.extend([0, ROOT_HANDLE.len() as u32]);
                reply.extend(handle);
                reply.extend([1, 1]);
            }
            (PROGRAM_MOUNT, _) | (_, RPCBIND_NULL) => {}
            // SET and UNSET: true.
            _ => reply.push(1),
        }
        let bytes: Vec<u8> = reply.iter().flat_map(|word| word.to_be_bytes()).collect();
        let mark = 0x8000_0000 | bytes.len() as u32;
        caller.write_all(&[&mark.to_be_bytes()[..], &bytes].concat())?;
    }
}
