//! Lost bytes are saved from memory as the program had written them, and nothing else is touched:
//! on disks that really refuse writes. Needs root, a loop device and mkfs; says SKIPPED and why
//! where they are missing.
#![cfg(target_os = "linux")]

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileExt, MetadataExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use msync_trace::check::scratch::{Loss, LossKind, Scratch, ScratchError, ScratchFs};
use serde_json::Value;
use sha2::{Digest, Sha256};

const PAGE: usize = 4096;

/// In a thread of its own: a scratch file system takes its thread's mounts for good, and the
/// programs that are run from there see them.
fn with_loss(fs: ScratchFs, story: impl FnOnce(&mut Scratch, Loss) + Send + 'static) {
    let told = std::thread::spawn(move || -> Result<(), ScratchError> {
        let mut scratch = Scratch::new(fs)?;
        let loss = scratch.lose(LossKind::TriedAgain)?;
        story(&mut scratch, loss);
        Ok(())
    })
    .join()
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    match told {
        Ok(()) => {}
        Err(ScratchError::Unavailable(reason)) => println!("SKIPPED {}: {reason}", fs.name()),
        Err(error) => panic!("{}: {error}", fs.name()),
    }
}

/// MSYNC_TRACE names another build of it: the guests of `cargo xtask test` try the release.
fn program() -> OsString {
    let built = || env!("CARGO_BIN_EXE_msync-trace").into();
    std::env::var_os("MSYNC_TRACE").unwrap_or_else(built)
}

fn rescue(arguments: &[&OsStr]) -> Output {
    Command::new(program())
        .arg("rescue")
        .args(arguments)
        .output()
        .unwrap()
}

fn words<'a>(words: &[&'a str]) -> Vec<&'a OsStr> {
    words.iter().map(|word| OsStr::new(*word)).collect()
}

/// The JSON form, and the exit status.
fn look(arguments: &[&OsStr]) -> (Value, i32) {
    let mut all = arguments.to_vec();
    all.extend(words(&["-o", "json"]));
    let output = rescue(&all);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.is_empty() || text.contains("warning"), "{text}");
    let json = serde_json::from_slice(&output.stdout).expect("a JSON document");
    (json, output.status.code().unwrap())
}

/// What the program had stored in the lost pages.
fn stored(loss: &Loss) -> Vec<u8> {
    let stamp = format!("msync-trace selftest {} after\n", loss.kind.name());
    let pages = loss.range.start() / PAGE as u64..loss.range.end() / PAGE as u64;
    let page = |number: u64| {
        let mut page = stamp.clone().into_bytes();
        page.extend_from_slice(&number.to_le_bytes());
        page.resize(PAGE, 0);
        page
    };
    pages.flat_map(page).collect()
}

fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn range_argument(loss: &Loss) -> String {
    format!("{}+{}", loss.range.start(), loss.range.len())
}

/// Takes clean pages out of the page cache: what is read then is what the disk has.
fn evict(path: &Path) {
    let file = File::open(path).unwrap();
    // SAFETY: touches no memory.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

fn read(path: &Path, loss: &Loss) -> Vec<u8> {
    let mut file = File::open(path).unwrap();
    file.seek(SeekFrom::Start(loss.range.start())).unwrap();
    let mut bytes = vec![0; loss.range.len() as usize];
    file.read_exact(&mut bytes).unwrap();
    bytes
}

/// What was ever written to a disk: requests and sectors (Documentation/block/stat.rst).
fn written(device: &Path) -> [u64; 2] {
    let name = device.file_name().unwrap();
    let stat = fs::read_to_string(Path::new("/sys/class/block").join(name).join("stat")).unwrap();
    let fields: Vec<u64> = stat
        .split_ascii_whitespace()
        .map(|field| field.parse().unwrap())
        .collect();
    [fields[4], fields[6]]
}

/// So that nothing is written later on its own.
fn sync(path: &Path) {
    let file = File::open(path).unwrap();
    // It may still report the loss that was made.
    // SAFETY: touches no memory.
    unsafe { libc::syncfs(file.as_raw_fd()) };
}

/// One directory, made by one rescue.
fn only_entry(directory: &Path) -> PathBuf {
    let mut entries = fs::read_dir(directory).unwrap();
    let entry = entries.next().expect("a directory").unwrap().path();
    assert!(entries.next().is_none());
    entry
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn lost_bytes_are_saved_as_they_were_written(fs: ScratchFs) {
    with_loss(fs, |scratch, loss| {
        let vault = tempfile::tempdir().unwrap();
        let path = loss.path.as_os_str();
        sync(scratch.path());
        let (before, times) = (written(scratch.device()), times(&loss.path));

        let range = range_argument(&loss);
        let mut arguments = vec![OsStr::new("--file"), path];
        arguments.extend(words(&["--range", &range, "--out"]));
        arguments.push(vault.path().as_os_str());
        let (manifest, status) = look(&arguments);

        assert_eq!(status, 1, "{manifest:#}");
        assert_eq!(manifest["verified"], "differs", "{manifest:#}");
        assert_eq!(manifest["comparison"]["differing_bytes"], loss.range.len());
        assert_eq!(written(scratch.device()), before, "the disk was written");
        assert_eq!(self::times(&loss.path), times);

        let directory = only_entry(vault.path());
        assert_eq!(mode(&directory), 0o700);
        let saved = &manifest["saved"][0];
        let bytes = |kind: &str| {
            let name = saved[format!("{kind}_file")].as_str().unwrap();
            assert_eq!(mode(&directory.join(name)), 0o600);
            fs::read(directory.join(name)).unwrap()
        };
        let (memory, disk) = (bytes("memory"), bytes("disk"));
        assert!(memory == stored(&loss), "memory has what was stored");
        assert_eq!(saved["memory_sha256"], digest(&memory));
        assert_eq!(saved["disk_sha256"], digest(&disk));
        let on_paper: Value =
            serde_json::from_slice(&fs::read(directory.join("manifest.json")).unwrap()).unwrap();
        assert_eq!(on_paper, manifest);

        // What was not lost is found on the disk.
        let (whole, _) = look(&[OsStr::new("--file"), path]);
        let size = whole["file"]["size"].as_u64().unwrap();
        assert_eq!(whole["comparison"]["differing_bytes"], loss.range.len());
        let same = size - loss.range.len();
        assert_eq!(whole["comparison"]["same_bytes"], same, "{whole:#}");

        evict(&loss.path);
        assert!(
            read(&loss.path, &loss) == disk,
            "the disk has what was said"
        );
    });
}

fn times(path: &Path) -> [i64; 6] {
    let what = fs::metadata(path).unwrap();
    [
        what.atime(),
        what.atime_nsec(),
        what.mtime(),
        what.mtime_nsec(),
        what.ctime(),
        what.ctime_nsec(),
    ]
}

#[test]
fn ext4_lost_bytes_are_saved_as_they_were_written() {
    lost_bytes_are_saved_as_they_were_written(ScratchFs::Ext4);
}

#[test]
fn xfs_lost_bytes_are_saved_as_they_were_written() {
    lost_bytes_are_saved_as_they_were_written(ScratchFs::Xfs);
}

/// Newer kernels keep the page (docs/rescue.md); what older ones dropped is not said to be saved.
#[test]
fn btrfs_lost_bytes_are_saved_as_they_were_written() {
    match kernel() >= (6, 12) {
        true => lost_bytes_are_saved_as_they_were_written(ScratchFs::Btrfs),
        false => nothing_is_rescued(ScratchFs::Btrfs, |_| {}),
    }
}

/// Of the running kernel: major, minor.
fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

fn evicted_bytes_are_not_rescued(fs: ScratchFs) {
    nothing_is_rescued(fs, evict);
}

/// The pages are out of memory after `leave`, and stay out.
fn nothing_is_rescued(fs: ScratchFs, leave: fn(&Path)) {
    with_loss(fs, move |_, loss| {
        leave(&loss.path);
        let vault = tempfile::tempdir().unwrap();
        let range = range_argument(&loss);
        let mut arguments = vec![OsStr::new("--file"), loss.path.as_os_str()];
        arguments.extend(words(&["--range", &range, "--out"]));
        arguments.push(vault.path().as_os_str());
        for _ in 0..2 {
            // Looking must not bring the disk's bytes into memory: the second look sees the same.
            let (manifest, status) = look(&arguments);
            assert_eq!(status, 3, "{manifest:#}");
            assert_eq!(manifest["verified"], "unknown");
            assert_eq!(manifest["pages"].as_array().unwrap().len(), 1);
            assert_eq!(manifest["pages"][0]["in_cache"], "no");
            assert_eq!(manifest["saved"], Value::Array(Vec::new()));
        }
    });
}

#[test]
fn ext4_evicted_bytes_are_not_rescued() {
    evicted_bytes_are_not_rescued(ScratchFs::Ext4);
}

#[test]
fn xfs_evicted_bytes_are_not_rescued() {
    evicted_bytes_are_not_rescued(ScratchFs::Xfs);
}

#[test]
fn btrfs_evicted_bytes_are_not_rescued() {
    evicted_bytes_are_not_rescued(ScratchFs::Btrfs);
}

/// Puts the mapped pages of a file back to the disk, as a program does that stores and syncs again.
fn write_again(path: &Path, loss: &Loss) {
    let bytes = stored(loss);
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&bytes, loss.range.start()).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn what_was_written_after_all_is_the_same() {
    with_loss(ScratchFs::Ext4, |_, loss| {
        write_again(&loss.path, &loss);
        let range = range_argument(&loss);
        let mut arguments = vec![OsStr::new("--file"), loss.path.as_os_str()];
        arguments.extend(words(&["--range", &range]));
        let (manifest, status) = look(&arguments);
        assert_eq!(status, 0, "{manifest:#}");
        assert_eq!(manifest["verified"], "same");
        assert_eq!(manifest["saved"], Value::Array(Vec::new()));
    });
}

#[test]
fn a_directory_on_the_filesystem_that_loses_is_refused() {
    with_loss(ScratchFs::Ext4, |scratch, loss| {
        let vault = scratch.path().join("rescued");
        let mut arguments = words(&["--file"]);
        arguments.extend([
            loss.path.as_os_str(),
            OsStr::new("--out"),
            vault.as_os_str(),
        ]);
        let output = rescue(&arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("another disk"), "{said}");
        assert!(!vault.exists(), "nothing is made there");
    });
}

#[test]
fn a_hostile_name_is_shown_harmlessly_and_kept_exactly() {
    with_loss(ScratchFs::Ext4, |scratch, loss| {
        let name = b"a\x1b[31m\nb\xff";
        let path = scratch.path().join(OsStr::from_bytes(name));
        fs::rename(&loss.path, &path).unwrap();
        let (manifest, status) = look(&[OsStr::new("--file"), path.as_os_str()]);
        assert_eq!(status, 1, "{manifest:#}");
        let spelled = manifest["file"]["path_bytes"].as_str().unwrap();
        assert!(spelled.ends_with("/a%1B%5B31m%0Ab%FF"), "{spelled}");
        let text = rescue(&[OsStr::new("--file"), path.as_os_str()]).stdout;
        assert!(!text.contains(&0x1b) && !text.contains(&0xff), "{text:?}");
    });
}

#[test]
fn what_is_no_file_of_bytes_is_refused() {
    for path in ["/dev/null", "/", "/proc/self/nothing"] {
        let output = rescue(&words(&["--file", path]));
        assert_eq!(output.status.code(), Some(2), "{path}");
        assert!(output.stdout.is_empty());
    }
}

/// Traces until it has one incident, while `lose` loses bytes; gives the lines that it wrote.
fn traced(arguments: &[&OsStr], scratch: &mut Scratch, kind: LossKind) -> Option<Vec<Value>> {
    let mut child = Command::new(program())
        .args(arguments)
        .args([
            "-o",
            "json",
            "--stop-after",
            "1",
            "--duration",
            "60",
            "--dev",
        ])
        .arg(scratch.device())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("msync-trace: tracing ") {
        line.clear();
        if said.read_line(&mut line).unwrap() == 0 {
            println!("SKIPPED: it cannot trace here: {}", child.wait().unwrap());
            return None;
        }
    }
    scratch.lose(kind).unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let lines = lines
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{rest}");
    Some(lines)
}

fn incident(lines: &[Value]) -> &Value {
    let mut incidents = lines.iter().filter(|line| line["type"] == "incident");
    incidents.next().expect("an incident")
}

/// The limit is kept, and what was left out is said.
#[test]
fn no_more_is_saved_than_was_asked_for() {
    with_loss(ScratchFs::Ext4, |scratch, _| {
        let vault = tempfile::tempdir().unwrap();
        let arguments = [
            OsStr::new("trace"),
            OsStr::new("--rescue"),
            vault.path().as_os_str(),
            OsStr::new("--rescue-max"),
            OsStr::new("20000"),
        ];
        if traced(&arguments, scratch, LossKind::OpenedAnew).is_none() {
            return;
        }
        let directory = only_entry(vault.path());
        let saved = fs::read_dir(&directory).unwrap();
        let sizes = saved.map(|entry| entry.unwrap()).filter_map(|entry| {
            let is_manifest = entry.file_name() == "manifest.json";
            (!is_manifest).then(|| entry.metadata().unwrap().len())
        });
        // Two pages of memory with what the disk had in their place: 16384 bytes.
        assert_eq!(sizes.sum::<u64>(), 4 * PAGE as u64);
        let manifest: Value =
            serde_json::from_slice(&fs::read(directory.join("manifest.json")).unwrap()).unwrap();
        assert_eq!(manifest["not_saved"], "the limit of bytes was reached");
    });
}

/// `record` takes the same options, and keeps what they found.
#[test]
fn a_record_keeps_the_proof() {
    with_loss(ScratchFs::Ext4, |scratch, _| {
        let place = tempfile::tempdir().unwrap();
        let (record, vault) = (place.path().join("run.db"), place.path().join("rescued"));
        let mut arguments = vec![OsStr::new("record"), record.as_os_str()];
        arguments.extend([OsStr::new("--rescue"), vault.as_os_str()]);
        if traced(&arguments, scratch, LossKind::OpenedAnew).is_none() {
            return;
        }
        let manifest = only_entry(&vault).join("manifest.json");
        let manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
        assert_eq!(manifest["verified"], "differs", "{manifest:#}");
        let report = Command::new(program())
            .args(["report", "--format", "json"])
            .arg(&record)
            .output()
            .unwrap();
        let report = String::from_utf8(report.stdout).unwrap();
        assert!(report.contains("\"differs\""), "{report}");
    });
}

/// A file without a name is found as long as somebody has it open.
#[test]
fn a_deleted_file_is_looked_at_while_it_is_open() {
    for fs in [ScratchFs::Ext4, ScratchFs::Xfs] {
        with_loss(fs, |_, loss| {
            let held = File::open(&loss.path).unwrap();
            fs::remove_file(&loss.path).unwrap();
            let path = format!("/proc/{}/fd/{}", std::process::id(), held.as_raw_fd());
            let range = range_argument(&loss);
            let (manifest, status) = look(&words(&["--file", &path, "--range", &range]));
            assert_eq!(status, 1, "{manifest:#}");
            assert_eq!(manifest["comparison"]["differing_bytes"], loss.range.len());
        });
    }
}

/// Places beyond 4 GiB, and the holes before them.
#[test]
fn bytes_far_into_a_file_are_found_on_the_disk() {
    const FAR: u64 = (5 << 30) + 3 * PAGE as u64;
    for fs in [ScratchFs::Ext4, ScratchFs::Xfs, ScratchFs::Btrfs] {
        with_loss(fs, |scratch, _| {
            let path = scratch.path().join("sparse");
            let file = File::create(&path).unwrap();
            let bytes: Vec<u8> = (0..2 * PAGE).map(|byte| (byte % 251) as u8).collect();
            file.write_all_at(&bytes, FAR).unwrap();
            file.sync_all().unwrap();
            let vault = tempfile::tempdir().unwrap();
            let range = format!("{}+{}", FAR - PAGE as u64, 3 * PAGE);
            let mut arguments = vec![OsStr::new("--file"), path.as_os_str()];
            arguments.extend(words(&["--range", &range, "--out"]));
            arguments.push(vault.path().as_os_str());
            let (manifest, _) = look(&arguments);
            assert_eq!(
                manifest["comparison"]["same_bytes"],
                2 * PAGE,
                "{manifest:#}"
            );
            assert_eq!(manifest["comparison"]["differing_bytes"], 0, "{manifest:#}");
            let saved = &manifest["saved"][0];
            assert_eq!(saved["start"], FAR);
            assert_eq!(saved["disk_sha256"], digest(&bytes));
        });
    }
}

/// The incident says that the loss is proven, and its bytes are saved, while nobody asked.
fn proven_and_saved_at_once(fs: ScratchFs) {
    with_loss(fs, |scratch, _| {
        let vault = tempfile::tempdir().unwrap();
        let arguments = [
            OsStr::new("trace"),
            OsStr::new("--rescue"),
            vault.path().as_os_str(),
        ];
        let Some(lines) = traced(&arguments, scratch, LossKind::OpenedAnew) else {
            return;
        };
        let found = incident(&lines);
        assert_eq!(found["verified"], "differs", "{found:#}");
        let comparison = &found["comparison"];
        assert_eq!(comparison["differing_bytes"], 4 * PAGE, "{found:#}");
        assert_eq!(comparison["unknown_bytes"], 0, "{found:#}");
        let directory = only_entry(vault.path());
        let manifest: Value =
            serde_json::from_slice(&fs::read(directory.join("manifest.json")).unwrap()).unwrap();
        assert_eq!(manifest["incident"], found["incident"]);
        assert_eq!(manifest["file"]["inode"], found["file"]["inode"]);
        let name = manifest["saved"][0]["memory_file"].as_str().unwrap();
        let start = manifest["saved"][0]["start"].as_u64().unwrap() as usize;
        let bytes = fs::read(directory.join(name)).unwrap();
        let lost = &bytes[4 * PAGE - start..][..4 * PAGE];
        assert!(lost.starts_with(b"msync-trace selftest opened-anew after\n"));
    });
}

#[test]
fn ext4_losses_are_proven_and_saved_at_once() {
    proven_and_saved_at_once(ScratchFs::Ext4);
}

#[test]
fn xfs_losses_are_proven_and_saved_at_once() {
    proven_and_saved_at_once(ScratchFs::Xfs);
}

#[test]
fn btrfs_losses_are_proven_and_saved_at_once() {
    proven_and_saved_at_once(ScratchFs::Btrfs);
}

/// By its number, a file is found under whatever name it has by then; a new file with the old name
/// is not taken for it, and one that is gone is said to be gone.
#[test]
fn an_incident_of_a_record_leads_to_its_file_and_no_other() {
    with_loss(ScratchFs::Ext4, |scratch, _| {
        let place = tempfile::tempdir().unwrap();
        let record = place.path().join("run.db");
        let arguments = [OsStr::new("record"), record.as_os_str()];
        let Some(lines) = traced(&arguments, scratch, LossKind::OpenedAnew) else {
            return;
        };
        let found = incident(&lines);
        assert_eq!(found["verified"], Value::Null);
        let path = scratch.path().join(LossKind::OpenedAnew.name());
        let moved = scratch.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        fs::write(&path, vec![b'x'; 16 * PAGE]).unwrap();
        // Not always the first one of the record, which also has those of other tests' disks.
        let number = found["incident"].to_string();
        let mut arguments = words(&["--incident", &number, "--record"]);
        arguments.push(record.as_os_str());
        let (manifest, status) = look(&arguments);
        assert_eq!(status, 1, "{manifest:#}");
        assert_eq!(manifest["file"]["inode"], found["file"]["inode"]);
        assert_eq!(manifest["comparison"]["differing_bytes"], 4 * PAGE);

        let lines_of_json = place.path().join("run.json");
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&lines_of_json, text).unwrap();
        for record in [&record, &lines_of_json] {
            let mut arguments = vec![OsStr::new("--file"), moved.as_os_str()];
            arguments.extend([OsStr::new("--record"), record.as_os_str()]);
            let (outstanding, status) = look(&arguments);
            assert_eq!(status, 1, "{outstanding:#}");
            assert_eq!(outstanding["pages"], manifest["pages"]);
        }

        fs::remove_file(&moved).unwrap();
        let output = rescue(&arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("the file is gone"), "{said}");
    });
}
