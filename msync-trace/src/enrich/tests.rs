//! What is added to an incident, on a made-up machine.

use std::{fs, os::unix::fs::symlink};

use tempfile::TempDir;

use super::*;
use crate::model::{
    ByteRange, Call, Coverage, Errno, Evidence, FileSystemId, InMemory, IncidentId, InodeKey,
    MonoTime, ProcessId, Task, ToldWho,
};
use crate::schema::WallTime;

const SDA1: u32 = (8 << 20) | 1;

/// A root with one process (4321, started 100 s after boot) and three mounts.
fn made_up_machine() -> (TempDir, Enricher) {
    let root = tempfile::tempdir().unwrap();
    let process = root.path().join("proc/4321");
    fs::create_dir_all(&process).unwrap();
    fs::create_dir_all(root.path().join("proc/self")).unwrap();
    let stat = "4321 (db) S 1 4321 4321 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 10000 1 2 3\n";
    fs::write(process.join("stat"), stat).unwrap();
    fs::write(process.join("cgroup"), "0::/system.slice/db.service\n").unwrap();
    symlink("/usr/bin/db", process.join("exe")).unwrap();
    let mountinfo = "\
        22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        30 22 8:1 /srv/my\\040data /data rw - ext4 /dev/sda1 rw\n\
        31 22 0:40 /subvol /pool rw shared:7 - btrfs /dev/sdb ro,space_cache\n";
    fs::write(root.path().join("proc/self/mountinfo"), mountinfo).unwrap();
    fs::write(process.join("mountinfo"), mountinfo).unwrap();
    let device = root.path().join("sys/dev/block/8:1");
    fs::create_dir_all(&device).unwrap();
    fs::write(device.join("uevent"), "MAJOR=8\nMINOR=1\nDEVNAME=sda1\n").unwrap();
    let by_name = root.path().join("sys/class/block/sda1");
    fs::create_dir_all(&by_name).unwrap();
    fs::write(by_name.join("dev"), "8:1\n").unwrap();
    let enricher = Enricher::below(root.path());
    (root, enricher)
}

fn incident(start_time: u64, file: FileView) -> Incident {
    Incident {
        id: IncidentId(1),
        inode: InodeKey {
            fs: FileSystemId::Device(SDA1),
            ino: 12,
            generation: 1,
            subvolume: 0,
        },
        ranges: vec![ByteRange::new(0, 4096).unwrap()],
        errno: Errno::EIO,
        failed_at: MonoTime(1),
        last_failed_at: MonoTime(1),
        writer: None,
        synced_at: MonoTime(2),
        call: Call::Msync,
        requested: ByteRange::ALL,
        task: Task {
            process: ProcessId {
                pid: 4321,
                start_time,
            },
            tid: 4321,
            uid: 0,
            comm: b"db".to_vec(),
            cgroup: 0,
            kernel_thread: false,
        },
        told: ToldWho::Nobody,
        coverage: Coverage::Inside,
        evidence: Evidence::Page,
        in_memory: InMemory::Yes,
        file,
        path_when_failed: None,
    }
}

fn enriched(enricher: &Enricher, incident: &Incident) -> IncidentRecord {
    let clock = Clock::new(MonoTime(0), WallTime(0));
    match enricher.incident(incident, &clock).body {
        Body::Incident(record) => *record,
        other => panic!("{other:?}"),
    }
}

fn view(path: &str, from_root: bool, dev: u32) -> FileView {
    FileView {
        path: Some(path.into()),
        from_root,
        dev: Some(dev),
        ..FileView::default()
    }
}

fn shown(record: &IncidentRecord) -> (String, Option<PathFrom>, Option<String>) {
    let text = |name: &Option<Name>| name.as_ref().map(|name| name.lossy().into_owned());
    (
        text(&record.file.path).unwrap_or_default(),
        record.file.path_from,
        text(&record.file.mount),
    )
}

#[test]
fn the_same_process_is_described() {
    let (_root, enricher) = made_up_machine();
    let record = enriched(&enricher, &incident(100_004_000_000, FileView::default()));
    assert_eq!(record.process.exe, Some(Name::from("/usr/bin/db")));
    assert_eq!(
        record.process.cgroup,
        Some(Name::from("/system.slice/db.service"))
    );
}

#[test]
fn a_later_process_with_the_same_number_is_never_blamed() {
    let (_root, enricher) = made_up_machine();
    for other in [99_000_000_000, 0] {
        let record = enriched(&enricher, &incident(other, FileView::default()));
        assert_eq!(record.process.exe, None, "started at {other}");
        assert_eq!(record.process.cgroup, None);
    }
}

#[test]
fn a_path_too_long_for_the_kernel_side_is_what_the_process_has_mapped() {
    let (root, enricher) = made_up_machine();
    let maps = root.path().join("proc/4321/map_files");
    fs::create_dir(&maps).unwrap();
    let show = |deleted| {
        let file = FileView {
            deleted,
            ..view(".../long/a.db", false, SDA1)
        };
        let mut incident = incident(100_004_000_000, file);
        incident.path_when_failed = Some(b".../long/a.db".to_vec());
        let record = enriched(&enricher, &incident);
        let when_failed = record.file.path_when_failed.clone().unwrap();
        (shown(&record), when_failed.lossy().into_owned())
    };
    let cut = (".../long/a.db".to_owned(), Some(PathFrom::Filesystem), None);
    assert_eq!(show(false), (cut.clone(), cut.0.clone()));
    symlink("/data/very/long/a.db", maps.join("1-2")).unwrap();
    symlink("/data/very/long/a.db", maps.join("2-3")).unwrap();
    symlink("/data/other/long/b.db", maps.join("3-4")).unwrap();
    let whole = "/data/very/long/a.db".to_owned();
    let mount = Some("/data".to_owned());
    let place = (whole.clone(), Some(PathFrom::Caller), mount);
    assert_eq!(show(false), (place.clone(), whole.clone()));
    // Another file with the same end: it could be either.
    symlink("/data/other/long/a.db", maps.join("4-5")).unwrap();
    assert_eq!(show(false), (cut.clone(), cut.0.clone()));
    assert_eq!(show(true), (cut.clone(), cut.0.clone()));
    symlink("/data/very/long/a.db (deleted)", maps.join("5-6")).unwrap();
    assert_eq!(show(true), (place.clone(), whole.clone()));
    // Links that we may not read.
    fs::remove_dir_all(&maps).unwrap();
    assert_eq!(show(false), (cut.clone(), cut.0.clone()));
    let line = |path| format!("7f0000000000-7f0000001000 rw-s 00000000 08:01 12  {path}\n");
    let listed = root.path().join("proc/4321/maps");
    // A newline or four characters: nobody can tell.
    fs::write(&listed, line("/data/\\012/long/a.db")).unwrap();
    assert_eq!(show(false), (cut.clone(), cut.0));
    fs::write(&listed, line("/data/very/long/a.db").repeat(2)).unwrap();
    assert_eq!(show(false), (place, whole));
}

#[test]
fn the_callers_path_is_kept_and_its_mount_found() {
    let (_root, enricher) = made_up_machine();
    let record = enriched(
        &enricher,
        &incident(100_000_000_000, view("/data/x", true, SDA1)),
    );
    assert_eq!(
        shown(&record),
        (
            "/data/x".into(),
            Some(PathFrom::Caller),
            Some("/data".into())
        )
    );
    assert_eq!(record.file.device.as_deref(), Some("sda1"));
}

/// DTrace on Linux says the name of the device and not its number.
#[test]
fn a_device_known_by_name_only_shows_where_it_is_mounted() {
    let (_root, enricher) = made_up_machine();
    let named = |name: &str| FileView {
        dev: None,
        dev_name: Some(name.to_owned()),
        ..view("/srv/my data/x", false, SDA1)
    };
    let record = enriched(&enricher, &incident(0, named("sda1")));
    assert_eq!(record.file.dev, Some(SDA1));
    assert_eq!(shown(&record).1, Some(PathFrom::Mount));
    for unknown in ["sdz9", "../block/sda1", "server:/export"] {
        let record = enriched(&enricher, &incident(0, named(unknown)));
        assert_eq!(shown(&record).1, Some(PathFrom::Filesystem), "{unknown}");
        assert_eq!(record.file.dev, None);
    }
}

/// Facts of another machine: its process 4321 is not ours, its sda1 neither.
#[test]
fn nothing_of_this_machine_is_said_of_another_one() {
    let (_root, here) = made_up_machine();
    let file = FileView {
        mount: Some(b"/data".to_vec()),
        dev_name: Some("sda1".to_owned()),
        ..view("/data/x", true, SDA1)
    };
    let incident = incident(100_004_000_000, file);
    assert!(enriched(&here, &incident).process.exe.is_some());
    let record = enriched(&Enricher::elsewhere(), &incident);
    assert_eq!(record.process.exe, None);
    assert_eq!(record.process.cgroup, None);
    assert_eq!(record.file.device.as_deref(), Some("sda1"));
    assert_eq!(
        shown(&record),
        (
            "/data/x".into(),
            Some(PathFrom::Caller),
            Some("/data".into())
        )
    );
}

#[test]
fn a_path_below_the_filesystem_is_shown_below_a_mount_that_has_it() {
    let (_root, enricher) = made_up_machine();
    let record = enriched(&enricher, &incident(0, view("/srv/my data/x", false, SDA1)));
    assert_eq!(
        shown(&record),
        (
            "/srv/my data/x".into(),
            Some(PathFrom::Mount),
            Some("/".into())
        )
    );
    let btrfs = 40;
    let record = enriched(&enricher, &incident(0, view("/subvol/x", false, btrfs)));
    assert_eq!(
        shown(&record),
        (
            "/pool/x".into(),
            Some(PathFrom::Mount),
            Some("/pool".into())
        )
    );
    // A subvolume that is mounted nowhere, and one that only begins with the same letters.
    for path in ["/other/x", "/subvolume/x"] {
        let record = enriched(&enricher, &incident(0, view(path, false, btrfs)));
        assert_eq!(
            shown(&record),
            (path.into(), Some(PathFrom::Filesystem), None)
        );
    }
}

#[test]
fn a_mapped_device_has_the_name_that_people_gave_it() {
    let (root, enricher) = made_up_machine();
    let mapped = root.path().join("sys/block/dm-0/dm");
    fs::create_dir_all(&mapped).unwrap();
    fs::write(mapped.join("name"), "secret\n").unwrap();
    let on = |kernel_name: &str| {
        let mut view = view("/data/x", true, SDA1);
        view.dev_name = Some(kernel_name.to_owned());
        enriched(&enricher, &incident(0, view)).file.device
    };
    assert_eq!(on("dm-0").as_deref(), Some("mapper/secret"));
    assert_eq!(on("dm-1").as_deref(), Some("dm-1"), "gone meanwhile");
    assert_eq!(on("sda1").as_deref(), Some("sda1"));
}

#[test]
fn nothing_to_look_up_is_no_error() {
    let enricher = Enricher::below(Path::new("/nonexistent"));
    let record = enriched(&enricher, &incident(5, view("/x", false, SDA1)));
    assert_eq!(
        shown(&record),
        ("/x".into(), Some(PathFrom::Filesystem), None)
    );
    assert_eq!(record.file.device, None);
}

/// On the real `/proc`, for the one process that surely exists.
#[test]
#[cfg(target_os = "linux")]
fn our_own_start_time_is_recognised() {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let ticks: u64 = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_ascii_whitespace()
        .nth(19)
        .unwrap()
        .parse()
        .unwrap();
    let mut own = incident(ticks * 10_000_000 + 1_000, FileView::default());
    own.task.process.pid = std::process::id();
    let record = enriched(&Enricher::default(), &own);
    let exe = std::env::current_exe().unwrap();
    assert_eq!(record.process.exe.unwrap().lossy(), exe.to_string_lossy());
}

#[test]
fn what_the_file_was_called_is_said_as_the_process_sees_it() {
    let (_root, enricher) = made_up_machine();
    let before = |path: &str, dev| {
        let mut renamed = incident(100_000_000_000, view("/data/x", true, dev));
        renamed.path_when_failed = Some(path.into());
        enriched(&enricher, &renamed).file.path_when_failed.unwrap()
    };
    assert_eq!(before("/srv/my data/old", SDA1), Name::from("/data/old"));
    let elsewhere = before("/etc/old", SDA1);
    assert_eq!(elsewhere, Name::from("/etc/old"), "through our own mounts");
    assert_eq!(before("/old", SDA1 + 99), Name::from("/old"), "not mounted");
}

#[test]
fn a_filesystem_in_trouble_is_shown_where_it_is_mounted_and_whether_it_can_be_written() {
    let (_root, enricher) = made_up_machine();
    let shown = |what, dev| {
        let record = enricher.storage_error(StorageError {
            what,
            errno: None,
            dev: Some(dev),
            dev_name: None,
            fs_type: None,
        });
        let mount = record.mount.map(|mount| mount.lossy().into_owned());
        (record.error.dev_name, mount, record.read_only)
    };
    let some = |text: &str| Some(text.to_owned());
    use StorageErrorKind::{FilesystemError, FlushFailed};
    assert_eq!(
        shown(FilesystemError, SDA1),
        (some("sda1"), some("/"), false)
    );
    // Only a part of it is mounted.
    assert_eq!(shown(FilesystemError, 40), (None, some("/pool"), true));
    assert_eq!(shown(FilesystemError, 41), (None, None, false));
    assert_eq!(shown(FlushFailed, SDA1), (some("sda1"), None, false));
}
