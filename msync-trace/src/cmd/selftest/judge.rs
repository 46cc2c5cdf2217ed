//! Compares what was lost with what was reported.

use std::os::unix::ffi::OsStrExt;

use crate::{
    check::scratch::{Loss, OnDisk, ScratchFs},
    model::{ByteRange, Call, Coverage, Evidence, Incident},
    output::escape,
    schema::Word,
};

/// What became of one loss.
#[derive(Debug)]
pub(super) struct Finding {
    /// One line: what was lost, what the disk has, what was reported.
    pub(super) line: String,
    /// What differs; empty if it was reported as it was.
    pub(super) differences: Vec<String>,
}

/// Whether an incident is about a loss: by process, or by file.
fn is_about(incident: &Incident, loss: &Loss) -> bool {
    incident.task.process.pid == loss.pid || names(incident, loss)
}

/// Whether an incident names the file: in full, or below its file system where the hook cannot
/// know more.
fn names(incident: &Incident, loss: &Loss) -> bool {
    let Some(path) = incident.file.path.as_deref() else {
        return false;
    };
    if incident.file.from_root {
        return path == loss.path.as_os_str().as_bytes();
    }
    let name = loss.path.file_name().map(OsStrExt::as_bytes);
    path.strip_prefix(b"/").unwrap_or(path) == name.unwrap_or_default()
}

/// Of one loss.
pub(super) fn judge(fs: ScratchFs, loss: &Loss, incidents: &[Incident]) -> Finding {
    let mut differences = Vec::new();
    let about: Vec<_> = incidents
        .iter()
        .filter(|incident| is_about(incident, loss))
        .collect();
    if about.len() > 1 {
        differences.push(format!("reported {} times, not once", about.len()));
    }
    let reported = match about.first() {
        Some(incident) => {
            differences.extend(compare(fs, loss, incident));
            reported(loss, incident)
        }
        None => {
            differences.push("not reported".to_owned());
            "nothing was reported".to_owned()
        }
    };
    let disk = match loss.on_disk {
        OnDisk::Zeros => "zeros",
        OnDisk::OldBytes => "old bytes",
    };
    Finding {
        line: format!(
            "{}: lost bytes {} of {} ({} in process {}); the disk has {disk}; {reported}",
            loss.kind.name(),
            loss.range,
            escape(loss.path.as_os_str().as_bytes()),
            loss.errno,
            loss.pid,
        ),
        differences,
    }
}

/// Every incident that is about none of the losses, though a process that made one of them, or
/// the scratch device, is named in it.
pub(super) fn invented<'a>(
    losses: &'a [Loss],
    device: &'a str,
    incidents: &'a [Incident],
) -> impl Iterator<Item = &'a Incident> {
    incidents.iter().filter(move |incident| {
        incident.file.dev_name.as_deref() == Some(device)
            && !losses.iter().any(|loss| is_about(incident, loss))
    })
}

/// An incident in a few words.
pub(super) fn words(incident: &Incident) -> String {
    let path = incident.file.path.as_deref().unwrap_or(b"a file");
    format!(
        "{} bytes {} of {}, told {}, process {}",
        incident.errno,
        spell(&incident.ranges),
        escape(path),
        incident.told.word(),
        incident.task.process.pid,
    )
}

fn reported(loss: &Loss, incident: &Incident) -> String {
    let bytes = if incident.ranges == [loss.range] {
        "these bytes".to_owned()
    } else {
        format!("bytes {}", spell(&incident.ranges))
    };
    format!(
        "reported {bytes}, {}, told {}, process {}",
        incident.errno,
        incident.told.word(),
        incident.task.process.pid,
    )
}

fn spell(ranges: &[ByteRange]) -> String {
    let ranges: Vec<_> = ranges.iter().map(ToString::to_string).collect();
    if ranges.is_empty() {
        "unknown".to_owned()
    } else {
        ranges.join("+")
    }
}

fn compare(fs: ScratchFs, loss: &Loss, incident: &Incident) -> Vec<String> {
    let mut differences = Vec::new();
    let mut differ = |what: &str, reported: &str, real: &str| {
        differences.push(format!("{what}: reported {reported}, should be {real}"));
    };
    if !names(incident, loss) {
        let path = incident.file.path.as_deref();
        let path = path.map_or_else(|| "none".to_owned(), escape);
        differ("path", &path, &escape(loss.path.as_os_str().as_bytes()));
    }
    if incident.file.fs_type.as_deref() != Some(fs.name()) {
        let reported = incident.file.fs_type.as_deref().unwrap_or("none");
        differ("file system", reported, fs.name());
    }
    if incident.evidence != Evidence::Page {
        differ("evidence", incident.evidence.word(), Evidence::Page.word());
    }
    // Pages of one request, or of one folio, are lost together as far as the kernel knows.
    let holds = |range: &ByteRange| range.contains(loss.range);
    let beyond = |range: &ByteRange| !loss.whole.contains(*range);
    if !incident.ranges.iter().any(holds) || incident.ranges.iter().any(beyond) {
        let real = loss.range.to_string();
        differ("bytes", &spell(&incident.ranges), &real);
    }
    if incident.coverage != Coverage::Inside {
        differ(
            "coverage",
            incident.coverage.word(),
            Coverage::Inside.word(),
        );
    }
    if incident.call != Call::Msync {
        differ("call", incident.call.word(), Call::Msync.word());
    }
    if incident.errno != loss.errno {
        differ(
            "error",
            &incident.errno.to_string(),
            &loss.errno.to_string(),
        );
    }
    let (task, told) = (&incident.task, loss.kind.told());
    if task.process.pid != loss.pid {
        let reported = task.process.pid.to_string();
        differ("process", &reported, &loss.pid.to_string());
    }
    if task.tid != loss.tid {
        differ("thread", &task.tid.to_string(), &loss.tid.to_string());
    }
    if incident.told != told {
        differ("told", incident.told.word(), told.word());
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        check::scratch::LossKind,
        model::{
            Errno, FileSystemId, FileView, InMemory, IncidentId, InodeKey, MonoTime, ProcessId,
            Task, ToldWho,
        },
    };

    fn loss() -> Loss {
        Loss {
            kind: LossKind::OpenedAnew,
            path: "/mnt/xfs/opened-anew".into(),
            range: ByteRange::with_len(16384, 16384).unwrap(),
            whole: ByteRange::with_len(0, 65536).unwrap(),
            on_disk: OnDisk::Zeros,
            errno: Errno::ENOSPC,
            pid: 100,
            tid: 100,
        }
    }

    fn incident() -> Incident {
        Incident {
            id: IncidentId(1),
            inode: InodeKey {
                fs: FileSystemId::Device(1),
                ino: 1,
                generation: 1,
                subvolume: 0,
            },
            ranges: vec![loss().range],
            errno: Errno::ENOSPC,
            failed_at: MonoTime(1),
            last_failed_at: MonoTime(1),
            writer: None,
            synced_at: MonoTime(2),
            call: Call::Msync,
            requested: loss().whole,
            task: Task {
                process: ProcessId {
                    pid: 100,
                    start_time: 1,
                },
                tid: 100,
                uid: 0,
                comm: b"msync-trace".to_vec(),
                cgroup: 1,
                kernel_thread: false,
            },
            told: ToldWho::Other,
            coverage: Coverage::Inside,
            evidence: Evidence::Page,
            in_memory: InMemory::Unknown,
            file: FileView {
                path: Some(b"/mnt/xfs/opened-anew".to_vec()),
                from_root: true,
                fs_type: Some("xfs".to_owned()),
                dev_name: Some("loop3".to_owned()),
                ..FileView::default()
            },
            path_when_failed: None,
        }
    }

    fn differences(change: impl FnOnce(&mut Incident)) -> Vec<String> {
        let mut incident = incident();
        change(&mut incident);
        judge(ScratchFs::Xfs, &loss(), &[incident]).differences
    }

    #[test]
    fn a_true_report_has_no_differences() {
        assert!(differences(|_| {}).is_empty());
        // Below the file system, where the hook cannot know where it is mounted.
        let below = differences(|i| {
            i.file.from_root = false;
            i.file.path = Some(b"/opened-anew".to_vec());
        });
        assert!(below.is_empty(), "{below:?}");
        // The rest of the folio.
        let folio = differences(|i| i.ranges = vec![loss().whole]);
        assert!(folio.is_empty(), "{folio:?}");
    }

    #[test]
    fn every_wrong_field_is_named() {
        type Change = fn(&mut Incident);
        let cases: [(&str, Change); 10] = [
            ("path", |i| i.file.path = Some(b"/mnt/xfs/x".to_vec())),
            ("file system", |i| i.file.fs_type = None),
            ("evidence", |i| i.evidence = Evidence::Inode),
            ("bytes", |i| i.ranges.clear()),
            ("bytes", |i| i.ranges = vec![ByteRange::ALL]),
            ("coverage", |i| i.coverage = Coverage::Partly),
            ("error", |i| i.errno = Errno::EIO),
            ("process", |i| i.task.process.pid = 7),
            ("thread", |i| i.task.tid = 7),
            ("told", |i| i.told = ToldWho::Nobody),
        ];
        for (field, change) in cases {
            let found = differences(change);
            assert_eq!(found.len(), 1, "{field}: {found:?}");
            assert!(found[0].starts_with(field), "{field}: {found:?}");
        }
    }

    #[test]
    fn silence_and_noise_are_failures() {
        let silent = judge(ScratchFs::Xfs, &loss(), &[]);
        assert_eq!(silent.differences, ["not reported"]);
        let twice = judge(ScratchFs::Xfs, &loss(), &[incident(), incident()]);
        assert_eq!(twice.differences, ["reported 2 times, not once"]);
    }

    #[test]
    fn only_incidents_of_the_scratch_device_count_as_invented() {
        let mut other = incident();
        other.task.process.pid = 7;
        other.file.path = Some(b"/mnt/xfs/other".to_vec());
        let incidents = [incident(), other];
        let losses = [loss()];
        assert_eq!(invented(&losses, "loop3", &incidents).count(), 1);
        assert_eq!(invented(&losses, "loop4", &incidents).count(), 0);
    }
}
