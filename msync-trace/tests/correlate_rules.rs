//! One example per rule of the correlator, told the way a bug report would tell it.
//!
//! Pages are 4096 bytes and written `a..b`, `b` not included. Every fact comes one nanosecond
//! after the previous one unless a test says otherwise.

use std::{collections::BTreeSet, ops::Range};

use msync_trace::{
    correlate::{Config, Correlator, Limits},
    model::*,
};

const PAGE: u64 = 4096;

/// Shells, daemons and databases of these tests.
const EDITOR: u32 = 100;
const DATABASE: u32 = 200;

/// Open file descriptions.
const FIRST_OPEN: FileId = FileId(0xffff_0001);
const SECOND_OPEN: FileId = FileId(0xffff_0002);

fn inode(ino: u64) -> InodeKey {
    InodeKey {
        fs: FileSystemId::Uuid([7; 16]),
        ino,
        generation: 1,
        subvolume: 0,
    }
}

fn pages(pages: Range<u64>) -> ByteRange {
    ByteRange::new(pages.start * PAGE, pages.end * PAGE).unwrap()
}

fn errno(number: u32) -> Errno {
    Errno::new(number).unwrap()
}

fn task(pid: u32) -> Task {
    Task {
        process: ProcessId { pid, start_time: 1 },
        tid: pid,
        uid: 1000,
        comm: format!("process{pid}").into_bytes(),
        cgroup: 1,
        kernel_thread: false,
    }
}

fn failed_write(range: Option<ByteRange>) -> WriteFailed {
    WriteFailed {
        inode: inode(12),
        range,
        errno: Errno::EIO,
        submitted: None,
        eviction_watched: true,
        writer: Some(Task {
            kernel_thread: true,
            ..task(33)
        }),
        file: FileView {
            path: Some(b"/ledger.before".to_vec()),
            fs_type: Some("ext4".into()),
            dev_name: Some("sda1".into()),
            ..FileView::default()
        },
    }
}

fn sync(pid: u32) -> SyncReturn {
    SyncReturn {
        inode: inode(12),
        file: Some(FIRST_OPEN),
        call: Call::Msync,
        id: CallId(1),
        range: ByteRange::ALL,
        error: None,
        pending: false,
        task: task(pid),
        file_view: FileView {
            path: Some(b"/srv/ledger.db".to_vec()),
            from_root: true,
            ..FileView::default()
        },
    }
}

/// A sequence of facts about inode 12, and what the correlator said to each.
struct Story {
    correlator: Correlator,
    now: u64,
}

impl Story {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        Self {
            correlator: Correlator::new(config),
            now: 1000,
        }
    }

    fn fact(&mut self, kind: FactKind) -> Vec<Verdict> {
        self.now += 1;
        self.fact_at(self.now, kind)
    }

    fn fact_at(&mut self, at: u64, kind: FactKind) -> Vec<Verdict> {
        let mut out = Vec::new();
        let at = MonoTime(at);
        self.correlator.apply(&Fact { at, kind }, &mut out);
        out
    }

    fn write_fails(&mut self, range: Range<u64>) -> Vec<Verdict> {
        self.fact(FactKind::WriteFailed(failed_write(Some(pages(range)))))
    }

    fn write_fails_with(&mut self, range: Range<u64>, error: u32) -> Vec<Verdict> {
        self.fact(FactKind::WriteFailed(WriteFailed {
            errno: errno(error),
            ..failed_write(Some(pages(range)))
        }))
    }

    fn some_page_fails(&mut self) -> Vec<Verdict> {
        self.fact(FactKind::WriteFailed(failed_write(None)))
    }

    fn written(&mut self, range: ByteRange) -> Vec<Verdict> {
        let inode = inode(12);
        self.fact(FactKind::WriteOk(WriteOk { inode, range }))
    }

    fn stored_again(&mut self, range: Range<u64>) -> Vec<Verdict> {
        let (inode, range) = (inode(12), pages(range));
        self.fact(FactKind::Redirtied(Redirtied { inode, range }))
    }

    fn truncated(&mut self, range: ByteRange) -> Vec<Verdict> {
        let inode = inode(12);
        self.fact(FactKind::Discarded(Discarded { inode, range }))
    }

    fn evicted(&mut self, range: ByteRange) -> Vec<Verdict> {
        let inode = inode(12);
        self.fact(FactKind::Evicted(Evicted { inode, range }))
    }

    fn gone(&mut self, deleted: bool) -> Vec<Verdict> {
        let inode = inode(12);
        self.fact(FactKind::Gone(Gone { inode, deleted }))
    }

    fn told(&mut self, file: FileId) -> Vec<Verdict> {
        self.fact(FactKind::Told(Told {
            inode: inode(12),
            file,
            errno: Errno::EIO,
            task: task(DATABASE),
        }))
    }

    fn opened(&mut self, file: FileId) -> Vec<Verdict> {
        let inode = inode(12);
        self.fact(FactKind::Opened(Opened { inode, file }))
    }

    /// A whole-file `msync(MS_SYNC)` returned 0.
    fn msync_succeeds(&mut self, pid: u32) -> Vec<Verdict> {
        self.fact(FactKind::SyncReturn(sync(pid)))
    }

    fn msync_of(&mut self, pid: u32, range: Range<u64>) -> Vec<Verdict> {
        let range = pages(range);
        self.fact(FactKind::SyncReturn(SyncReturn { range, ..sync(pid) }))
    }

    fn call(&mut self, pid: u32, call: Call, error: Option<Errno>) -> Vec<Verdict> {
        self.fact(FactKind::SyncReturn(SyncReturn {
            call,
            error,
            ..sync(pid)
        }))
    }
}

/// The only verdict, which must be an incident.
fn incident(verdicts: Vec<Verdict>) -> Incident {
    let shown = format!("{verdicts:?}");
    match <[Verdict; 1]>::try_from(verdicts) {
        Ok([Verdict::Incident(incident)]) => *incident,
        _ => panic!("one incident expected: {shown}"),
    }
}

/// The changes among the verdicts.
fn changes(verdicts: &[Verdict]) -> Vec<(u64, ChangeKind)> {
    let change = |verdict: &Verdict| match verdict {
        Verdict::Change(change) => Some((change.id.0, change.kind)),
        _ => None,
    };
    verdicts.iter().filter_map(change).collect()
}

fn incidents(verdicts: &[Verdict]) -> Vec<&Incident> {
    fn incident(verdict: &Verdict) -> Option<&Incident> {
        match verdict {
            Verdict::Incident(incident) => Some(&**incident),
            _ => None,
        }
    }
    verdicts.iter().filter_map(incident).collect()
}

fn settled(verdicts: &[Verdict]) -> bool {
    verdicts.contains(&Verdict::Released {
        inode: inode(12),
        why: Release::Settled,
    })
}

fn repeated(repeats: u64) -> ChangeKind {
    ChangeKind::Repeated { repeats }
}

// Rule 1: one incident per process that was given a false success.

#[test]
fn write_back_fails_then_msync_says_success_and_nobody_was_told() {
    let mut story = Story::new();
    assert_eq!(story.write_fails(3..5), []);
    let lost = incident(story.msync_succeeds(EDITOR));
    assert_eq!(lost.id, IncidentId(1));
    assert_eq!(lost.ranges, [pages(3..5)]);
    assert_eq!(lost.bytes(), Some(2 * PAGE));
    assert_eq!(lost.told, ToldWho::Nobody);
    assert_eq!(lost.evidence, Evidence::Page);
}

#[test]
fn the_same_process_asking_again_is_a_repeat_of_the_same_incident() {
    let mut story = Story::new();
    story.write_fails(3..5);
    story.msync_succeeds(EDITOR);
    assert_eq!(changes(&story.msync_succeeds(EDITOR)), [(1, repeated(1))]);
    assert_eq!(changes(&story.msync_succeeds(EDITOR)), [(1, repeated(2))]);
}

#[test]
fn another_process_given_the_same_false_success_has_an_incident_of_its_own() {
    let mut story = Story::new();
    story.write_fails(3..5);
    assert_eq!(incident(story.msync_succeeds(EDITOR)).id, IncidentId(1));
    let second = incident(story.msync_succeeds(DATABASE));
    assert_eq!(second.id, IncidentId(2));
    assert_eq!(second.task.process.pid, DATABASE);
}

#[test]
fn a_thread_of_the_same_process_makes_a_repeat_and_a_reused_pid_does_not() {
    let mut story = Story::new();
    story.write_fails(0..1);
    story.msync_succeeds(EDITOR);
    let thread = SyncReturn {
        task: Task {
            tid: EDITOR + 1,
            ..task(EDITOR)
        },
        ..sync(EDITOR)
    };
    let repeat = story.fact(FactKind::SyncReturn(thread));
    assert_eq!(changes(&repeat), [(1, repeated(1))]);
    let mut other = sync(EDITOR);
    other.task.process.start_time = 99;
    let new = incident(story.fact(FactKind::SyncReturn(other)));
    assert_eq!(new.id, IncidentId(2));
}

#[test]
fn more_pages_failed_since_the_incident_names_only_these_and_the_old_one_repeats() {
    let mut story = Story::new();
    story.write_fails(0..1);
    story.msync_succeeds(EDITOR);
    story.write_fails(1..2);
    let verdicts = story.msync_succeeds(EDITOR);
    assert_eq!(incidents(&verdicts)[0].ranges, [pages(1..2)]);
    assert_eq!(incidents(&verdicts)[0].id, IncidentId(2));
    assert_eq!(changes(&verdicts), [(1, repeated(1))]);
    assert_eq!(
        changes(&story.msync_succeeds(EDITOR)),
        [(1, repeated(2)), (2, repeated(1))]
    );
}

#[test]
fn failed_ranges_of_one_file_make_one_incident_sorted_and_apart() {
    let mut story = Story::new();
    story.write_fails(8..9);
    story.write_fails(0..1);
    story.write_fails(1..3);
    let lost = incident(story.msync_succeeds(EDITOR));
    assert_eq!(lost.ranges, [pages(0..3), pages(8..9)]);
}

#[test]
fn the_same_failure_seen_twice_is_no_new_failure() {
    // The page was written again without having been dirtied (ext4 retries a bad journal
    // write), and failed again: nothing new was lost.
    let mut story = Story::new();
    story.write_fails(0..2);
    story.msync_succeeds(EDITOR);
    story.write_fails_with(0..2, 28);
    assert_eq!(changes(&story.msync_succeeds(EDITOR)), [(1, repeated(1))]);
    let other = incident(story.msync_succeeds(DATABASE));
    assert_eq!(other.errno, Errno::ENOSPC, "the newest error counts");
    assert_eq!(other.failed_at, MonoTime(1001));
    assert_eq!(other.last_failed_at, MonoTime(1003));
}

#[test]
fn a_call_that_returns_an_error_is_no_false_success() {
    let mut story = Story::new();
    story.write_fails(0..1);
    assert_eq!(story.call(EDITOR, Call::Msync, Some(Errno::EIO)), []);
    assert_eq!(incident(story.msync_succeeds(EDITOR)).id, IncidentId(1));
}

#[test]
fn two_files_in_one_msync_only_the_failed_one_is_named() {
    let mut story = Story::new();
    story.write_fails(0..1);
    let healthy = SyncReturn {
        inode: inode(13),
        ..sync(EDITOR)
    };
    assert_eq!(story.fact(FactKind::SyncReturn(healthy)), []);
    assert_eq!(incident(story.msync_succeeds(EDITOR)).inode, inode(12));
}

// Rule 2: what was recovered or given up before msync makes no incident.

#[test]
fn rewritten_before_msync_is_silent_and_settled() {
    let mut story = Story::new();
    story.write_fails(0..4);
    assert!(settled(&story.written(pages(0..4))));
    assert_eq!(story.msync_succeeds(EDITOR), []);
}

#[test]
fn truncated_or_hole_punched_before_msync_is_silent() {
    let mut story = Story::new();
    story.write_fails(0..4);
    assert!(settled(&story.truncated(ByteRange::ALL)));
    assert_eq!(story.msync_succeeds(EDITOR), []);
}

#[test]
fn a_partly_recovered_range_is_reported_with_the_rest_only() {
    let mut story = Story::new();
    story.write_fails(0..10);
    story.written(pages(2..4));
    story.truncated(pages(8..10));
    let lost = incident(story.msync_succeeds(EDITOR));
    assert_eq!(lost.ranges, [pages(0..2), pages(4..8)]);
    assert_eq!(lost.bytes(), Some(6 * PAGE));
}

#[test]
fn stored_again_before_msync_waits_for_the_outcome() {
    let mut story = Story::new();
    story.write_fails(0..2);
    story.stored_again(0..2);
    assert_eq!(story.msync_succeeds(EDITOR), [], "the kernel will write it");
    assert!(settled(&story.written(pages(0..2))));
    assert_eq!(story.msync_succeeds(EDITOR), []);
}

#[test]
fn stored_again_then_dropped_without_a_write_is_lost_again() {
    let mut story = Story::new();
    story.write_fails(0..2);
    story.msync_succeeds(EDITOR);
    story.stored_again(0..1);
    story.evicted(pages(0..1));
    let verdicts = story.msync_succeeds(EDITOR);
    let lost = incidents(&verdicts)[0];
    assert_eq!(lost.ranges, [pages(0..1)]);
    assert_eq!(lost.in_memory, InMemory::No);
    assert_eq!(lost.errno, Errno::EIO);
    assert_eq!(
        changes(&verdicts),
        [(1, repeated(1))],
        "page 1 is as it was"
    );
}

#[test]
fn stored_again_and_the_inode_dropped_without_a_write_is_lost_again() {
    let mut story = Story::new();
    story.write_fails(0..2);
    story.stored_again(0..2);
    story.gone(false);
    let lost = incident(story.msync_succeeds(EDITOR));
    assert_eq!(lost.ranges, [pages(0..2)]);
    assert_eq!(lost.in_memory, InMemory::No);
}

#[test]
fn a_store_seen_after_the_failure_it_led_to_does_not_hide_the_failure() {
    let mut story = Story::new();
    story.write_fails(0..1);
    let late = Redirtied {
        inode: inode(12),
        range: pages(0..1),
    };
    story.fact_at(1000, FactKind::Redirtied(late));
    incident(story.msync_succeeds(EDITOR));
}

// Rule 3: failing again after recovery is a new write failure.

#[test]
fn failing_again_after_recovery_is_a_new_incident_for_the_same_process() {
    let mut story = Story::new();
    story.write_fails(0..1);
    story.msync_succeeds(EDITOR);
    let verdicts = story.written(pages(0..1));
    assert_eq!(changes(&verdicts), [(1, ChangeKind::Recovered)]);
    assert!(settled(&verdicts));
    story.write_fails(0..1);
    let lost = incident(story.msync_succeeds(EDITOR));
    assert_eq!(lost.id, IncidentId(2));
    assert_eq!(lost.failed_at, MonoTime(1004));
}

#[test]
fn stored_again_and_failed_again_is_a_new_incident_and_recovery_ends_both() {
    let mut story = Story::new();
    story.write_fails(0..1);
    story.msync_succeeds(EDITOR);
    story.stored_again(0..1);
    story.write_fails(0..1);
    let lost = incident(story.msync_succeeds(EDITOR));
    assert_eq!(lost.id, IncidentId(2), "the new store was lost as well");
    let verdicts = story.written(pages(0..1));
    assert_eq!(
        changes(&verdicts),
        [(1, ChangeKind::Recovered), (2, ChangeKind::Recovered)]
    );
}

// Rule 4: what an incident says.

#[test]
fn an_incident_names_the_error_the_file_the_writer_the_liar_and_the_times() {
    let mut story = Story::new();
    story.write_fails_with(0..1, 28);
    story.write_fails_with(4..5, 5);
    let lost = incident(story.msync_of(EDITOR, 0..8));
    let expected = Incident {
        id: IncidentId(1),
        inode: inode(12),
        ranges: vec![pages(0..1), pages(4..5)],
        errno: Errno::EIO,
        failed_at: MonoTime(1001),
        last_failed_at: MonoTime(1002),
        writer: failed_write(None).writer,
        synced_at: MonoTime(1003),
        call: Call::Msync,
        requested: pages(0..8),
        task: task(EDITOR),
        told: ToldWho::Nobody,
        coverage: Coverage::Inside,
        evidence: Evidence::Page,
        in_memory: InMemory::Yes,
        file: FileView {
            path: Some(b"/srv/ledger.db".to_vec()),
            from_root: true,
            mount: None,
            fs_type: Some("ext4".into()),
            dev: None,
            dev_name: Some("sda1".into()),
            deleted: false,
        },
        path_when_failed: Some(b"/ledger.before".to_vec()),
    };
    assert_eq!(lost, expected);
}

#[test]
fn the_error_is_that_of_the_newest_failure_that_is_left() {
    let mut story = Story::new();
    story.write_fails_with(0..1, 28);
    story.write_fails_with(1..2, 5);
    story.write_fails_with(2..3, 122);
    story.written(pages(2..3));
    assert_eq!(incident(story.msync_succeeds(EDITOR)).errno, Errno::EIO);
}

#[test]
fn the_same_description_was_told_once_and_then_given_success() {
    let mut story = Story::new();
    story.write_fails(0..1);
    story.told(FIRST_OPEN);
    story.call(EDITOR, Call::Msync, Some(Errno::EIO));
    assert_eq!(incident(story.msync_succeeds(EDITOR)).told, ToldWho::Caller);
}

#[test]
fn another_description_was_told_and_this_one_never() {
    let mut story = Story::new();
    story.write_fails(0..1);
    story.told(SECOND_OPEN);
    assert_eq!(incident(story.msync_succeeds(EDITOR)).told, ToldWho::Other);
}

#[test]
fn an_error_told_before_these_pages_failed_was_about_others() {
    let mut story = Story::new();
    story.write_fails(0..1);
    story.told(FIRST_OPEN);
    story.written(pages(0..1));
    story.write_fails(1..2);
    assert_eq!(incident(story.msync_succeeds(EDITOR)).told, ToldWho::Nobody);
}

#[test]
fn an_incident_over_told_and_untold_pages_says_who_knew_of_any() {
    let mut story = Story::new();
    story.write_fails(0..1);
    story.told(SECOND_OPEN);
    story.write_fails(1..2);
    assert_eq!(incident(story.msync_succeeds(EDITOR)).told, ToldWho::Other);
}

#[test]
fn opened_anew_at_the_same_address_was_not_told_but_somebody_was() {
    let mut story = Story::new();
    story.write_fails(0..1);
    story.told(FIRST_OPEN);
    story.opened(FIRST_OPEN);
    assert_eq!(incident(story.msync_succeeds(EDITOR)).told, ToldWho::Other);
}

#[test]
fn error_seen_then_closed_then_evicted_then_reopened_is_silent_from_the_start() {
    let mut story = Story::new();
    story.write_fails(0..1);
    story.told(FIRST_OPEN);
    assert_eq!(story.gone(false), []);
    let lost = incident(story.msync_succeeds(EDITOR));
    assert_eq!(lost.told, ToldWho::Other, "that description is gone");
    assert_eq!(lost.in_memory, InMemory::No);
}

#[test]
fn success_while_the_kernel_still_holds_the_error_is_pending() {
    let mut story = Story::new();
    story.write_fails(0..1);
    story.told(SECOND_OPEN);
    let lost = incident(story.fact(FactKind::SyncReturn(SyncReturn {
        pending: true,
        ..sync(EDITOR)
    })));
    assert_eq!(lost.told, ToldWho::Pending);
}

#[test]
fn a_caller_whose_description_is_unknown_is_not_called_told() {
    let mut story = Story::new();
    story.write_fails(0..1);
    story.told(FIRST_OPEN);
    let lost = incident(story.fact(FactKind::SyncReturn(SyncReturn {
        file: None,
        ..sync(EDITOR)
    })));
    assert_eq!(lost.told, ToldWho::Other);
}

#[test]
fn msync_of_a_part_of_the_failed_bytes_or_of_none_of_them() {
    for (requested, coverage) in [
        (0..10, Coverage::Inside),
        (3..5, Coverage::Inside),
        (4..10, Coverage::Partly),
        (6..10, Coverage::Outside),
    ] {
        let mut story = Story::new();
        story.write_fails(3..5);
        let lost = incident(story.msync_of(EDITOR, requested.clone()));
        assert_eq!(lost.coverage, coverage, "msync of pages {requested:?}");
    }
}

#[test]
fn evicted_before_msync_nothing_can_save_the_bytes() {
    let mut story = Story::new();
    story.write_fails(0..2);
    assert_eq!(story.evicted(pages(0..1)), []);
    assert_eq!(
        incident(story.msync_succeeds(EDITOR)).in_memory,
        InMemory::Partly
    );
    let verdicts = story.evicted(pages(1..2));
    assert_eq!(changes(&verdicts), [(1, ChangeKind::Evicted)]);
    assert_eq!(
        incident(story.msync_succeeds(DATABASE)).in_memory,
        InMemory::No
    );
}

#[test]
fn nobody_watched_for_evictions_when_the_write_failed() {
    let mut story = Story::new();
    story.fact(FactKind::WriteFailed(WriteFailed {
        eviction_watched: false,
        ..failed_write(Some(pages(0..1)))
    }));
    assert_eq!(
        incident(story.msync_succeeds(EDITOR)).in_memory,
        InMemory::Unknown
    );
    assert_eq!(
        changes(&story.gone(false)),
        [(1, ChangeKind::Evicted)],
        "now it is known"
    );
}

#[test]
fn an_incident_whose_bytes_are_all_written_later_is_recovered() {
    let mut story = Story::new();
    story.write_fails(0..4);
    story.msync_succeeds(EDITOR);
    assert_eq!(story.written(pages(0..3)), []);
    let verdicts = story.written(pages(3..4));
    assert_eq!(changes(&verdicts), [(1, ChangeKind::Recovered)]);
}

#[test]
fn an_incident_is_discarded_only_if_every_byte_was_given_up() {
    let mut story = Story::new();
    story.write_fails(0..4);
    story.msync_succeeds(EDITOR);
    let verdicts = story.truncated(ByteRange::ALL);
    assert_eq!(changes(&verdicts), [(1, ChangeKind::Discarded)]);

    story.write_fails(0..4);
    story.msync_succeeds(EDITOR);
    assert_eq!(story.written(pages(0..3)), []);
    let verdicts = story.truncated(pages(3..4));
    assert_eq!(changes(&verdicts), [(2, ChangeKind::Recovered)]);
}

#[test]
fn eviction_of_what_is_left_is_said_once() {
    let mut story = Story::new();
    story.write_fails(0..2);
    story.msync_succeeds(EDITOR);
    assert_eq!(story.evicted(pages(0..1)), []);
    let verdicts = story.written(pages(1..2));
    assert_eq!(changes(&verdicts), [(1, ChangeKind::Evicted)]);
    assert_eq!(story.evicted(ByteRange::ALL), []);
}

// Rule 5: an inode deleted and its number reused is another inode.

#[test]
fn deleted_and_the_number_reused_blames_nobody() {
    let mut story = Story::new();
    story.write_fails(0..1);
    assert!(settled(&story.gone(true)));
    assert_eq!(story.msync_succeeds(EDITOR), []);
}

#[test]
fn deletion_ends_the_incidents_of_the_file() {
    let mut story = Story::new();
    story.write_fails(0..1);
    story.msync_succeeds(EDITOR);
    let verdicts = story.gone(true);
    assert_eq!(changes(&verdicts), [(1, ChangeKind::Discarded)]);
    assert!(settled(&verdicts));
}

#[test]
fn another_generation_or_subvolume_under_the_same_number_is_another_file() {
    for key in [
        InodeKey {
            generation: 2,
            ..inode(12)
        },
        InodeKey {
            subvolume: 257,
            ..inode(12)
        },
    ] {
        let mut story = Story::new();
        story.write_fails(0..1);
        let other = SyncReturn {
            inode: key,
            ..sync(EDITOR)
        };
        assert_eq!(story.fact(FactKind::SyncReturn(other)), []);
    }
}

#[test]
fn unmounted_and_mounted_again_keeps_its_failures() {
    let mut story = Story::new();
    story.write_fails(0..1);
    story.gone(false);
    assert_eq!(incident(story.msync_succeeds(EDITOR)).ranges, [pages(0..1)]);
}

// Rule 6: MS_ASYNC is no promise.

#[test]
fn ms_async_returning_0_is_no_incident_unless_asked_for() {
    let mut story = Story::new();
    story.write_fails(0..1);
    assert_eq!(story.call(EDITOR, Call::MsyncAsync, None), []);

    let mut story = Story::with(Config {
        include_async: true,
        ..Config::default()
    });
    story.write_fails(0..1);
    let lost = incident(story.call(EDITOR, Call::MsyncAsync, None));
    assert_eq!(lost.call, Call::MsyncAsync);
}

#[test]
fn an_incident_of_ms_async_does_not_stand_for_a_false_ms_sync() {
    let mut story = Story::with(Config {
        include_async: true,
        ..Config::default()
    });
    story.write_fails(0..1);
    story.call(EDITOR, Call::MsyncAsync, None);
    let lost = incident(story.msync_succeeds(EDITOR));
    assert_eq!((lost.id, lost.call), (IncidentId(2), Call::Msync));
    assert_eq!(
        changes(&story.call(EDITOR, Call::MsyncAsync, None)),
        [(1, repeated(1))]
    );
}

// Rule 7: other calls consume errors; which calls make incidents is a choice.

#[test]
fn fsync_is_followed_but_makes_incidents_only_when_chosen() {
    let mut story = Story::new();
    story.write_fails(0..1);
    story.told(SECOND_OPEN);
    assert_eq!(story.call(DATABASE, Call::Fsync, None), []);
    assert_eq!(incident(story.msync_succeeds(EDITOR)).told, ToldWho::Other);

    let mut story = Story::with(Config {
        calls: BTreeSet::from([Call::Fsync, Call::Fdatasync]),
        ..Config::default()
    });
    story.write_fails(0..1);
    assert_eq!(story.msync_succeeds(EDITOR), []);
    let lost = incident(story.call(EDITOR, Call::Fdatasync, None));
    assert_eq!(lost.call, Call::Fdatasync);
    let repeat = story.call(EDITOR, Call::Fsync, None);
    assert_eq!(changes(&repeat), [(1, repeated(1))], "one per process");
}

// Rule 8 is the reporter's; here: the error side is recorded whoever wrote.

#[test]
fn the_failing_write_of_a_kernel_worker_is_blamed_on_no_process() {
    let mut story = Story::new();
    story.fact(FactKind::WriteFailed(WriteFailed {
        writer: None,
        ..failed_write(Some(pages(0..1)))
    }));
    assert_eq!(incident(story.msync_succeeds(EDITOR)).writer, None);
}

// Rule 9: deterministic. See also `correlate_model.rs`.

#[test]
fn the_same_facts_give_the_same_verdicts() {
    let run = || {
        let mut story = Story::new();
        let mut all = Vec::new();
        for ino in 0..200 {
            let failed = WriteFailed {
                inode: inode(ino),
                ..failed_write(Some(pages(ino..ino + 2)))
            };
            all.extend(story.fact(FactKind::WriteFailed(failed)));
        }
        for ino in (0..200).rev() {
            let inode = inode(ino);
            let sync = SyncReturn {
                inode,
                ..sync(EDITOR)
            };
            all.extend(story.fact(FactKind::SyncReturn(sync)));
        }
        all
    };
    assert_eq!(run(), run());
}

// Evidence `inode`: only that some page failed.

#[test]
fn some_page_failed_and_no_hook_can_tell_which() {
    let mut story = Story::new();
    story.some_page_fails();
    let lost = incident(story.msync_succeeds(EDITOR));
    assert_eq!(lost.evidence, Evidence::Inode);
    assert_eq!(lost.ranges, []);
    assert_eq!(lost.bytes(), None);
    assert_eq!(lost.coverage, Coverage::Inside, "of the whole file");
    let part = incident(story.msync_of(DATABASE, 0..1));
    assert_eq!(part.coverage, Coverage::Partly);
}

#[test]
fn an_unknown_page_stays_lost_until_the_whole_file_is_written_or_given_up() {
    let mut story = Story::new();
    story.some_page_fails();
    story.msync_succeeds(EDITOR);
    assert_eq!(story.written(pages(0..1000)), []);
    assert_eq!(story.truncated(pages(0..1000)), []);
    let verdicts = story.written(ByteRange::ALL);
    assert_eq!(changes(&verdicts), [(1, ChangeKind::Recovered)]);
    assert!(settled(&verdicts));
}

#[test]
fn an_unknown_page_beside_known_ones_makes_no_incident_of_its_own() {
    let mut story = Story::new();
    story.write_fails(2..3);
    story.some_page_fails();
    let lost = incident(story.msync_succeeds(EDITOR));
    assert_eq!(lost.evidence, Evidence::Page);
    assert_eq!(lost.ranges, [pages(2..3)]);
    // The known page is saved, the unknown one not necessarily.
    assert_eq!(story.written(pages(2..3)), []);
    assert_eq!(changes(&story.msync_succeeds(EDITOR)), [(1, repeated(1))]);
    let verdicts = story.gone(true);
    assert_eq!(changes(&verdicts), [(1, ChangeKind::Recovered)]);
}

#[test]
fn an_unknown_page_that_fails_after_the_incident_is_reported_too() {
    let mut story = Story::new();
    story.write_fails(2..3);
    story.msync_succeeds(EDITOR);
    story.some_page_fails();
    let verdicts = story.msync_succeeds(EDITOR);
    assert_eq!(incidents(&verdicts)[0].evidence, Evidence::Inode);
    assert_eq!(changes(&verdicts), [(1, repeated(1))]);
}

#[test]
fn whether_an_unknown_page_is_in_memory_is_known_only_at_the_ends() {
    let mut story = Story::new();
    story.some_page_fails();
    let memory = |story: &mut Story, pid| incident(story.msync_succeeds(pid)).in_memory;
    assert_eq!(memory(&mut story, 1), InMemory::Yes, "nothing was evicted");
    story.evicted(pages(0..1));
    assert_eq!(memory(&mut story, 2), InMemory::Unknown);
    let verdicts = story.gone(false);
    let all_evicted = [(1, ChangeKind::Evicted), (2, ChangeKind::Evicted)];
    assert_eq!(changes(&verdicts), all_evicted);
    assert_eq!(memory(&mut story, 3), InMemory::No);
}

// Failures recorded after the success they prove false.

#[test]
fn write_back_ended_before_its_error_was_recorded() {
    // btrfs on 7.2: msync finds nothing under write-back any more and no error yet.
    let mut story = Story::new();
    assert_eq!(story.msync_succeeds(EDITOR), []);
    let lost = incident(story.fact(FactKind::WriteFailed(WriteFailed {
        submitted: Some(MonoTime(1001)),
        ..failed_write(Some(pages(0..1)))
    })));
    assert_eq!(lost.synced_at, MonoTime(1001));
    assert_eq!(lost.failed_at, MonoTime(1002));
    assert_eq!(lost.told, ToldWho::Nobody);
    assert_eq!(
        changes(&story.msync_succeeds(EDITOR)),
        [(1, repeated(1))],
        "still one incident per process"
    );
}

#[test]
fn bytes_that_were_submitted_after_the_sync_were_not_promised() {
    let mut story = Story::new();
    story.msync_succeeds(EDITOR);
    let verdicts = story.fact(FactKind::WriteFailed(WriteFailed {
        submitted: Some(MonoTime(1002)),
        ..failed_write(Some(pages(0..1)))
    }));
    assert_eq!(verdicts, []);
    let verdicts = story.write_fails(5..6);
    assert_eq!(verdicts, [], "nor where no hook knows when");
}

#[test]
fn a_late_failure_of_bytes_the_sync_was_not_asked_for_proves_nothing() {
    let mut story = Story::new();
    story.msync_of(EDITOR, 0..4);
    let late = |range| {
        FactKind::WriteFailed(WriteFailed {
            submitted: Some(MonoTime(1)),
            ..failed_write(range)
        })
    };
    assert_eq!(story.fact(late(Some(pages(4..8)))), []);
    let lost = incident(story.fact(late(Some(pages(3..5)))));
    assert_eq!(lost.ranges, [pages(3..5)]);
    assert_eq!(lost.coverage, Coverage::Partly);
    let unknown = incident(story.fact(late(None)));
    assert_eq!(unknown.evidence, Evidence::Inode);
}

#[test]
fn every_process_that_was_answered_too_early_has_an_incident() {
    let mut story = Story::new();
    story.msync_succeeds(EDITOR);
    story.msync_succeeds(DATABASE);
    story.msync_succeeds(EDITOR);
    let verdicts = story.fact(FactKind::WriteFailed(WriteFailed {
        submitted: Some(MonoTime(1)),
        ..failed_write(Some(pages(0..1)))
    }));
    let who: Vec<_> = incidents(&verdicts)
        .iter()
        .map(|i| (i.task.process.pid, i.synced_at.0))
        .collect();
    assert_eq!(who, [(DATABASE, 1002), (EDITOR, 1003)]);
}

#[test]
fn a_late_failure_leaves_other_failures_to_the_next_sync() {
    let mut story = Story::new();
    story.msync_of(EDITOR, 0..8);
    story.write_fails(20..21);
    let lost = incident(story.fact(FactKind::WriteFailed(WriteFailed {
        submitted: Some(MonoTime(1)),
        ..failed_write(Some(pages(0..1)))
    })));
    assert_eq!(lost.ranges, [pages(0..1)]);
    story.write_fails(1..2);
    let verdicts = story.msync_succeeds(EDITOR);
    let ranges = &incidents(&verdicts)[0].ranges;
    assert_eq!(*ranges, [pages(1..2), pages(20..21)]);
    assert_eq!(changes(&verdicts), [(1, repeated(1))]);
}

#[test]
fn a_failure_seen_after_the_sync_that_returned_later() {
    // The two come through different rings.
    let mut story = Story::new();
    story.fact_at(1010, FactKind::SyncReturn(sync(EDITOR)));
    let failed = FactKind::WriteFailed(failed_write(Some(pages(0..1))));
    let lost = incident(story.fact_at(1005, failed));
    assert_eq!(lost.failed_at, MonoTime(1005));
    assert_eq!(lost.synced_at, MonoTime(1010));
}

#[test]
fn a_sync_that_returned_an_error_promised_nothing() {
    let mut story = Story::new();
    story.call(EDITOR, Call::Msync, Some(Errno::EIO));
    let verdicts = story.fact(FactKind::WriteFailed(WriteFailed {
        submitted: Some(MonoTime(1)),
        ..failed_write(Some(pages(0..1)))
    }));
    assert_eq!(verdicts, []);
}

// Complete or incomplete.

#[test]
fn what_a_hook_could_not_deliver_makes_the_run_incomplete() {
    let mut story = Story::new();
    assert!(story.correlator.complete());
    let loss = Lost {
        cause: LossCause::ErrorRingFull,
        count: 17,
    };
    let verdicts = story.fact(FactKind::Lost(loss));
    let at = MonoTime(1001);
    assert_eq!(verdicts, [Verdict::Incomplete { at, loss }]);
    assert!(!story.correlator.complete());
    assert_eq!(
        story.correlator.totals().losses[&LossCause::ErrorRingFull],
        17
    );
}

#[test]
fn totals_count_incidents_and_what_is_outstanding() {
    let mut story = Story::new();
    story.write_fails(0..4);
    story.msync_succeeds(EDITOR);
    story.msync_succeeds(DATABASE);
    story.written(pages(0..4));
    story.write_fails(2..6);
    story.msync_succeeds(EDITOR);
    let totals = story.correlator.totals();
    assert_eq!(totals.incidents, 3);
    assert_eq!(totals.outstanding, 1);
    story.written(ByteRange::ALL);
    assert_eq!(story.correlator.totals().outstanding, 0);
}

// Storms and limits.

#[test]
fn a_million_pages_failing_in_small_pieces_are_one_range() {
    // While the retry goes through the file: failed again, dirty, failed before.
    let limits = Limits {
        ranges_per_inode: 3,
        ..Limits::default()
    };
    let mut story = Story::with(Config {
        limits,
        ..Config::default()
    });
    for bio in 0..250_000 {
        assert_eq!(story.write_fails(4 * bio..4 * bio + 4), []);
    }
    let lost = incident(story.msync_succeeds(EDITOR));
    assert_eq!(lost.ranges, [pages(0..1_000_000)]);
    for bio in 0..250_000 {
        story.stored_again(4 * bio..4 * bio + 4);
        story.write_fails(4 * bio..4 * bio + 4);
    }
    assert!(story.correlator.complete(), "a failed retry merges as well");
}

/// Inodes that were forgotten at a limit.
fn forgotten(verdicts: &[Verdict]) -> Vec<(u64, Release)> {
    let released = verdicts.iter().filter_map(|verdict| match verdict {
        Verdict::Released { inode, why } => Some((inode.ino, *why)),
        _ => None,
    });
    released
        .filter(|(_, why)| *why != Release::Settled)
        .collect()
}

fn given_up(verdicts: &[Verdict]) -> u64 {
    let count = |verdict: &Verdict| match verdict {
        Verdict::Incomplete { loss, .. } => {
            assert_eq!(loss.cause, LossCause::MemoryLimit);
            loss.count
        }
        _ => 0,
    };
    verdicts.iter().map(count).sum()
}

#[test]
fn too_many_ranges_the_reported_ones_go_first_and_are_counted() {
    let limits = Limits {
        ranges_per_inode: 3,
        ..Limits::default()
    };
    let mut story = Story::with(Config {
        limits,
        ..Config::default()
    });
    story.write_fails(0..1);
    story.write_fails(10..11);
    story.written(pages(0..1));
    story.msync_succeeds(EDITOR);
    story.write_fails(20..21);
    story.write_fails(30..31);
    let verdicts = story.write_fails(40..41);
    assert_eq!(given_up(&verdicts), 1);
    assert!(!story.correlator.complete());
    let lost = incident(story.msync_succeeds(EDITOR));
    assert_eq!(lost.ranges, [pages(20..21), pages(30..31), pages(40..41)]);
}

#[test]
fn too_many_inodes_the_quiet_then_the_reported_then_the_oldest_go() {
    let limits = Limits {
        inodes: 3,
        ..Limits::default()
    };
    let mut story = Story::with(Config {
        limits,
        ..Config::default()
    });
    let fails = |story: &mut Story, ino| {
        story.fact(FactKind::WriteFailed(WriteFailed {
            inode: inode(ino),
            ..failed_write(Some(pages(0..1)))
        }))
    };
    let syncs = |story: &mut Story, ino| {
        story.fact(FactKind::SyncReturn(SyncReturn {
            inode: inode(ino),
            ..sync(EDITOR)
        }))
    };
    fails(&mut story, 1);
    fails(&mut story, 2);
    syncs(&mut story, 99);
    assert_eq!(given_up(&fails(&mut story, 3)), 0, "99 had nothing to lose");
    syncs(&mut story, 2);
    let verdicts = fails(&mut story, 4);
    assert_eq!(given_up(&verdicts), 1);
    assert_eq!(forgotten(&verdicts), [(2, Release::Reported)]);
    let verdicts = fails(&mut story, 5);
    assert_eq!(given_up(&verdicts), 1);
    assert_eq!(
        forgotten(&verdicts),
        [(1, Release::Unreported)],
        "the oldest"
    );
    assert_eq!(story.correlator.totals().outstanding, 3);
    assert_eq!(syncs(&mut story, 1), []);
    incident(syncs(&mut story, 3));
}

#[test]
fn memory_has_a_limit_whatever_the_number_of_inodes() {
    let limits = Limits {
        memory: 1 << 20,
        ..Limits::default()
    };
    let mut story = Story::with(Config {
        limits,
        ..Config::default()
    });
    let mut unreported = 0;
    for ino in 0..2000 {
        let verdicts = story.fact(FactKind::WriteFailed(WriteFailed {
            inode: inode(ino),
            ..failed_write(Some(pages(0..1)))
        }));
        unreported += forgotten(&verdicts).len();
    }
    let left = story.correlator.totals().outstanding;
    assert_eq!(unreported as u64 + left, 2000);
    assert!((300..1500).contains(&left), "{left} inodes in 1 MiB");
    // What has been reported makes room for what has not.
    let verdicts = story.fact(FactKind::SyncReturn(SyncReturn {
        inode: inode(1999),
        ..sync(EDITOR)
    }));
    incident(verdicts);
    let mut released = Vec::new();
    for ino in 5000..5200 {
        let verdicts = story.fact(FactKind::WriteFailed(WriteFailed {
            inode: inode(ino),
            ..failed_write(Some(pages(0..1)))
        }));
        released.extend(forgotten(&verdicts));
    }
    assert_eq!(released.first(), Some(&(1999, Release::Reported)));
}

#[test]
fn too_many_processes_lied_to_about_one_range() {
    let limits = Limits {
        processes_per_range: 2,
        ..Limits::default()
    };
    let mut story = Story::with(Config {
        limits,
        ..Config::default()
    });
    story.write_fails(0..1);
    assert_eq!(given_up(&story.msync_succeeds(1)), 0);
    assert_eq!(given_up(&story.msync_succeeds(2)), 0);
    assert_eq!(given_up(&story.msync_succeeds(3)), 1);
    let verdicts = story.written(pages(0..1));
    assert_eq!(
        changes(&verdicts),
        [(2, ChangeKind::Recovered), (3, ChangeKind::Recovered)]
    );
}

#[test]
fn a_page_that_is_stored_and_lost_for_ever_does_not_pile_up_incidents() {
    let limits = Limits {
        processes_per_range: 3,
        ..Limits::default()
    };
    let mut story = Story::with(Config {
        limits,
        ..Config::default()
    });
    for _ in 0..5 {
        story.write_fails(0..1);
        story.msync_succeeds(EDITOR);
        story.stored_again(0..1);
    }
    assert!(!story.correlator.complete());
    let verdicts = story.written(pages(0..1));
    let followed = [3, 4, 5].map(|id| (id, ChangeKind::Recovered));
    assert_eq!(changes(&verdicts), followed);
}

#[test]
fn forgetting_a_success_is_a_loss_only_once_a_late_failure_asks_for_it() {
    let limits = Limits {
        recent_syncs_per_inode: 1,
        ..Limits::default()
    };
    let mut story = Story::with(Config {
        limits,
        ..Config::default()
    });
    story.msync_succeeds(1);
    story.msync_succeeds(2);
    story.msync_succeeds(3);
    assert_eq!(given_up(&story.write_fails(0..1)), 0);
    let verdicts = story.fact(FactKind::WriteFailed(WriteFailed {
        submitted: Some(MonoTime(1002)),
        ..failed_write(Some(pages(8..9)))
    }));
    assert_eq!(given_up(&verdicts), 1);
    assert_eq!(incidents(&verdicts)[0].task.process.pid, 3);
}
