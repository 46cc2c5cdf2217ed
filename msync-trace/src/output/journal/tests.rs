use std::io::{IoSliceMut, Read, Seek};

use rustix::{
    fs::fcntl_get_seals,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};

use journal_entry::fields;

use super::*;
use crate::{
    model::{Errno, FileSystemId, FileView, InodeKey, MonoTime},
    schema::{Clock, Head, WallTime, from_line},
};

#[path = "../../../tests/journal_entry/mod.rs"]
mod journal_entry;

fn record(path: &[u8]) -> Record {
    let clock = Clock::new(MonoTime(0), WallTime(0));
    Record {
        head: Head::at(MonoTime(1), &clock),
        body: Body::WriteFailed(WriteFailed {
            inode: InodeKey {
                fs: FileSystemId::Device(1),
                ino: 2,
                subvolume: 0,
                generation: 0,
            },
            range: None,
            errno: Errno::EIO,
            submitted: None,
            eviction_watched: false,
            writer: None,
            file: FileView {
                path: Some(path.to_vec()),
                ..FileView::default()
            },
        }),
    }
}

fn value<'a>(fields: &'a [(String, Vec<u8>)], name: &str) -> &'a [u8] {
    let found: Vec<_> = fields.iter().filter(|(it, _)| it == name).collect();
    assert_eq!(found.len(), 1, "{name}");
    &found[0].1
}

const HOSTILE: &[u8] = b"/a\nMESSAGE_ID=0\nPRIORITY=0\n\x1b[2J\xff\xfe=\n";

#[test]
fn a_name_cannot_break_out_of_its_field() {
    let entry = entry(&record(HOSTILE));
    let fields = fields(&entry);
    assert_eq!(value(&fields, "MSYNC_TRACE_PATH"), HOSTILE);
    assert_eq!(value(&fields, "PRIORITY"), b"4");
    let id = id_of("write_failed").unwrap();
    assert_eq!(value(&fields, "MESSAGE_ID"), id.as_bytes());
    let message = value(&fields, "MESSAGE");
    assert!(!message.contains(&b'\n') && !message.contains(&0x1b));
    let json = from_line(value(&fields, "MSYNC_TRACE_JSON")).unwrap();
    assert_eq!(json, record(HOSTILE));
}

#[test]
fn each_kind_has_an_id_of_its_own() {
    let mut ids: Vec<_> = MESSAGE_IDS.iter().map(|(_, id)| *id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), MESSAGE_IDS.len());
    assert!(ids.iter().all(|id| id.len() == 32));
}

/// What journald does: a datagram, or an empty one with a descriptor.
fn receive(socket: &UnixDatagram) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(socket, &mut into, &mut ancillary, flags).unwrap();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut files) = message {
            let mut file = File::from(files.next().unwrap());
            let seals = fcntl_get_seals(&file).unwrap();
            assert!(seals.contains(SealFlags::WRITE | SealFlags::SHRINK));
            file.rewind().unwrap();
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            return bytes;
        }
    }
    bytes.truncate(received.bytes);
    bytes
}

#[test]
fn small_entries_are_datagrams_and_large_ones_sealed_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let journald = UnixDatagram::bind(&path).unwrap();
    let mut journal = Journal::at(&path).unwrap();
    for len in [10, 4096, 1 << 20] {
        let record = record(&vec![b'x'; len]);
        journal.put(&record).unwrap();
        let received = receive(&journald);
        assert_eq!(value(&fields(&received), "MSYNC_TRACE_PATH").len(), len);
    }
}

#[test]
fn a_journal_that_is_away_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let mut journal = Journal::at(&path).unwrap();
    let refused = journal.put(&record(b"/a"));
    assert!(matches!(refused, Err(Refused::ForNow(_))), "{refused:?}");
    let journald = UnixDatagram::bind(&path).unwrap();
    journal.put(&record(b"/a")).unwrap();
    assert!(!receive(&journald).is_empty());
}
