//! Entries for systemd's journal, by its native protocol: one datagram each, fields as bytes, so
//! that no name can break out of its field. What is too large for a datagram goes as a sealed file
//! in memory whose descriptor is sent (systemd.io, "Native Journal Protocol").

use std::{
    fs::File,
    io::{self, IoSlice, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};

use super::{Refused, Sink, escape, loss_sentence, message};
use crate::{
    model::{Lost, WriteFailed},
    schema::{Body, IncidentRecord, Name, Record, Stop, StopReason, Word, to_line},
};

/// The MESSAGE_ID of each kind of entry, for ever: `journalctl MESSAGE_ID=…`.
pub const MESSAGE_IDS: [(&str, &str); 8] = [
    ("incident", "aad3997851b74b1c83da5c266a684fb5"),
    ("change", "7dcc88225db34712974d6b254ad1fa65"),
    ("write_failed", "fd6a88578d514c0db9247b0c9d9b29db"),
    ("storage_error", "ad63e77aeb5e4afe93869312e14f55ef"),
    ("lost", "451aa9be7acf43c6a0113f23dd64ffb8"),
    ("hooks", "643ef4ec75ce467a8d54956ad0964ae8"),
    ("start", "95830fd09fa64c0c9740dacf5d991fc0"),
    ("stop", "b93050926b224992a402bbdad6e7e852"),
];

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// A journal that does not take an entry in this time is tried again later.
const PATIENCE: Duration = Duration::from_secs(5);

/// Priorities of syslog.
const CRITICAL: u8 = 2;
const ERROR: u8 = 3;
const WARNING: u8 = 4;
const NOTICE: u8 = 5;
const INFO: u8 = 6;

/// Sends each record as an entry.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// To the journal of this machine.
    ///
    /// # Errors
    /// If no socket can be had. That journald listens is found out with the first entry.
    pub fn new() -> io::Result<Self> {
        Self::at(Path::new(SOCKET))
    }

    /// To whoever listens there.
    ///
    /// # Errors
    /// As of [`Self::new`].
    pub fn at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            socket,
            path: path.to_owned(),
        })
    }

    fn send(&self, entry: &[u8]) -> io::Result<()> {
        match self.socket.send_to(entry, &self.path) {
            Ok(_) => Ok(()),
            // EMSGSIZE; ENOBUFS where the memory for sockets is bounded.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMSGSIZE | libc::ENOBUFS)) => {
                self.send_file(&sealed(entry)?)
            }
            Err(error) => Err(error),
        }
    }

    fn send_file(&self, file: &OwnedFd) -> io::Result<()> {
        // Each time anew: journald may have been started again since.
        let socket = UnixDatagram::unbound()?;
        socket.connect(&self.path)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let files = [file.as_fd()];
        ancillary.push(SendAncillaryMessage::ScmRights(&files));
        let nothing: [IoSlice<'_>; 0] = [];
        sendmsg(&socket, &nothing, &mut ancillary, SendFlags::empty())?;
        Ok(())
    }
}

fn sealed(entry: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("journal-entry", flags)?);
    file.write_all(entry)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

impl Sink for Journal {
    fn wants(&self, record: &Record) -> bool {
        id_of(kind(&record.body)).is_some()
    }

    fn put(&mut self, record: &Record) -> Result<(), Refused> {
        self.send(&entry(record)).map_err(Refused::ForNow)
    }
}

fn id_of(kind: &str) -> Option<&'static str> {
    let found = MESSAGE_IDS.iter().find(|(known, _)| *known == kind);
    found.map(|(_, id)| *id)
}

fn kind(body: &Body) -> &'static str {
    match body {
        Body::Incident(_) => "incident",
        Body::Change(_) => "change",
        Body::WriteFailed(_) => "write_failed",
        Body::StorageError(_) => "storage_error",
        Body::Lost(_) => "lost",
        Body::Hooks(_) => "hooks",
        Body::Start(_) => "start",
        Body::Stop(_) => "stop",
        _ => "",
    }
}

/// A record as fields of the journal.
fn entry(record: &Record) -> Vec<u8> {
    let kind = kind(&record.body);
    let (priority, text) = said(&record.body);
    let mut entry = Entry::default();
    entry.field("MESSAGE", text.as_bytes());
    entry.field("MESSAGE_ID", id_of(kind).unwrap_or_default().as_bytes());
    entry.field("PRIORITY", priority.to_string().as_bytes());
    entry.field("SYSLOG_IDENTIFIER", b"msync-trace");
    entry.field("MSYNC_TRACE_TYPE", kind.as_bytes());
    match &record.body {
        Body::Incident(incident) => incident_fields(&mut entry, incident),
        Body::Change(change) => entry.number("INCIDENT", change.incident.0),
        Body::WriteFailed(failed) => failure_fields(&mut entry, failed),
        _ => {}
    }
    let json = to_line(record);
    entry.field("MSYNC_TRACE_JSON", json.trim_ascii_end());
    entry.0
}

#[derive(Default)]
struct Entry(Vec<u8>);

impl Entry {
    /// Any bytes: the length stands before them.
    fn field(&mut self, name: &str, value: &[u8]) {
        self.0.extend_from_slice(name.as_bytes());
        if value.contains(&b'\n') {
            self.0.push(b'\n');
            self.0
                .extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            self.0.push(b'=');
        }
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    fn own(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.field(&format!("MSYNC_TRACE_{name}"), value.as_ref());
    }

    fn number(&mut self, name: &str, value: u64) {
        self.own(name, value.to_string());
    }

    fn name(&mut self, name: &str, value: Option<&Name>) {
        if let Some(value) = value {
            self.own(name, &value.0);
        }
    }

    fn word(&mut self, name: &str, value: Option<&String>) {
        if let Some(value) = value {
            self.own(name, value);
        }
    }
}

fn incident_fields(entry: &mut Entry, incident: &IncidentRecord) {
    let (file, process) = (&incident.file, &incident.process);
    entry.number("INCIDENT", incident.incident.0);
    entry.own("ERROR", incident.error.to_string());
    entry.name("PATH", file.path.as_ref());
    entry.name("MOUNT", file.mount.as_ref());
    entry.word("FSTYPE", file.fs_type.as_ref());
    entry.word("DEVICE", file.device.as_ref());
    entry.number("INODE", file.inode.ino);
    if let Some(bytes) = incident.bytes {
        entry.number("BYTES", bytes);
    }
    entry.own("TOLD", incident.told.word());
    entry.own("COVERAGE", incident.coverage.word());
    entry.own("EVIDENCE", incident.evidence.word());
    entry.own("CALL", incident.call.word());
    entry.number("PID", process.task.process.pid.into());
    entry.number("UID", process.task.uid.into());
    entry.own("COMM", &process.task.comm);
    entry.name("EXE", process.exe.as_ref());
    entry.name("CGROUP", process.cgroup.as_ref());
    entry.word("CONTAINER", process.container.as_ref().map(|it| &it.id));
}

fn failure_fields(entry: &mut Entry, failed: &WriteFailed) {
    entry.own("ERROR", failed.errno.to_string());
    entry.word("FSTYPE", failed.file.fs_type.as_ref());
    entry.word("DEVICE", failed.file.dev_name.as_ref());
    entry.number("INODE", failed.inode.ino);
    if let Some(path) = &failed.file.path {
        entry.own("PATH", path);
    }
}

/// Priority and text.
fn said(body: &Body) -> (u8, String) {
    match body {
        Body::Incident(incident) => (CRITICAL, message::incident(incident)),
        Body::Change(change) => (
            NOTICE,
            format!("incident {}: {}", change.incident.0, change.word()),
        ),
        Body::WriteFailed(failed) => (WARNING, write_failed(failed)),
        Body::StorageError(error) => (ERROR, message::storage_error(error)),
        Body::Lost(Lost { cause, count }) => {
            let why = loss_sentence(*cause);
            (WARNING, format!("something was not seen: {why} ({count}x)"))
        }
        Body::Start(start) => (INFO, message::started(start)),
        Body::Stop(stop) => stopped(stop),
        _ => (
            INFO,
            "hooks changed: a filesystem's module was loaded".to_owned(),
        ),
    }
}

fn write_failed(failed: &WriteFailed) -> String {
    let path = failed.file.path.as_deref();
    let path = path.map_or_else(|| format!("inode {}", failed.inode.ino), escape);
    let device = failed.file.dev_name.as_deref().unwrap_or("unknown device");
    format!(
        "{} when writing back {path} on {}; not lost silently yet",
        failed.errno,
        escape(device.as_bytes())
    )
}

fn stopped(stop: &Stop) -> (u8, String) {
    let priority = match stop.reason {
        StopReason::Error => ERROR,
        _ => INFO,
    };
    let found = stop.totals.incidents;
    let seen = match stop.complete {
        true => "everything was seen",
        false => "not everything was seen: no all-clear",
    };
    (
        priority,
        format!("tracing ended: {found} incidents; {seen}"),
    )
}

#[cfg(test)]
mod tests;
