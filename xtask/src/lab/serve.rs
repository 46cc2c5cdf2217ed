//! `lab serve`: one failing disk, and a socket to command it.

use std::io::{self, BufRead, BufReader, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::units;
use super::wire::{Reply, Request, Status};
use crate::faults::FaultDevice;
use crate::step::{is_root, progress};

/// Make a block device that fails on demand
///
/// Prints the device's path, and serves it until Ctrl-C or SIGTERM. The disk is memory: it starts
/// as zeros and its bytes are gone afterwards. Unmount it first: what is still mounted then loses
/// its disk.
#[derive(Args)]
#[command(after_help = "\
Example, in one terminal and another:
  cargo xtask lab serve --size 256M --socket /run/lab.sock
  mkfs.ext4 -q /dev/loop0 && mount /dev/loop0 /mnt
  cargo xtask lab ctl --socket /run/lab.sock fail --error EIO --range 64M..65M

Without this program, the socket takes JSON lines:
  echo '\"status\"' | socat - UNIX-CONNECT:/run/lab.sock")]
pub struct ServeArgs {
    /// Bytes of the disk
    #[arg(long, default_value = "256M", value_parser = units::size)]
    size: u64,
    /// Where commands are taken
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
}

/// `None` once it is being taken down.
type Shared = Arc<Mutex<Option<FaultDevice>>>;

/// Serves until a signal ends it.
pub fn run(args: &ServeArgs) -> Result<u8> {
    if !is_root() {
        bail!("a loop device takes root: run as root");
    }
    let endings = block_endings()?;
    let listener = listen(&args.socket)?;
    let _socket = Socket(&args.socket);
    let folder = tempfile::tempdir()?;
    let device = FaultDevice::new(args.size, folder.path())?;
    println!("{}", device.path().display());
    io::stdout().flush()?;
    let device = Arc::new(Mutex::new(Some(device)));
    let served = Arc::clone(&device);
    std::thread::spawn(move || accept(&listener, &served));
    let signal = wait_for(&endings)?;
    progress(&format!("signal {signal}: taking the device down"));
    drop(device.lock().unwrap_or_else(PoisonError::into_inner).take());
    Ok(0)
}

/// The signals that end the lab wait until [`wait_for`] takes them, in every thread.
fn block_endings() -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset makes the set a valid one before anything else uses it.
    let set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    };
    // SAFETY: the set is valid, the old one is not asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } {
        0 => Ok(set),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn wait_for(signals: &libc::sigset_t) -> io::Result<i32> {
    let mut signal = 0;
    // SAFETY: both are valid places.
    match unsafe { libc::sigwait(signals, &raw mut signal) } {
        0 => Ok(signal),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// The socket's name goes away with the lab.
struct Socket<'a>(&'a Path);

impl Drop for Socket<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}

/// Takes the place of a lab that was killed, never of one that lives.
fn listen(socket: &Path) -> Result<UnixListener> {
    if UnixStream::connect(socket).is_ok() {
        bail!("a lab is running at {}", socket.display());
    }
    if std::fs::metadata(socket).is_ok_and(|left| left.len() == 0) {
        let _ = std::fs::remove_file(socket);
    }
    UnixListener::bind(socket).with_context(|| format!("cannot listen at {}", socket.display()))
}

fn accept(listener: &UnixListener, device: &Shared) {
    for client in listener.incoming().flatten() {
        let device = Arc::clone(device);
        std::thread::spawn(move || {
            // A client that hangs up is no concern of ours.
            let _ = obey(&client, &device);
        });
    }
}

fn obey(mut client: &UnixStream, device: &Shared) -> io::Result<()> {
    for line in BufReader::new(client).lines() {
        let reply = match serde_json::from_str(&line?) {
            Ok(request) => follow(&request, device),
            Err(error) => Reply::Error(error.to_string()),
        };
        let mut line = serde_json::to_string(&reply)?;
        line.push('\n');
        client.write_all(line.as_bytes())?;
    }
    Ok(())
}

fn follow(request: &Request, device: &Shared) -> Reply {
    let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(device) = device.as_mut() else {
        return Reply::Error("the device is being taken down".to_owned());
    };
    let answer = match request {
        Request::Add(rule) => device.add(rule.clone()),
        Request::Heal => device.heal(),
        Request::Status => device.status(),
    };
    match answer {
        Ok(answer) => Reply::Ok(Status {
            device: device.path().to_owned(),
            size: device.image().size(),
            writes: answer.writes,
            failed_writes: answer.failed_writes,
            rules: answer.rules,
        }),
        Err(error) => Reply::Error(format!("{error:#}")),
    }
}
