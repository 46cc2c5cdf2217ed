//! The scenarios, each a small story: what fails, who asks, who is told, who is lied to.

use std::fs::Permissions;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::disk::{Asks, Below};
use super::extents;
use super::page::DOOMED;
use super::program::{Ask, By, Open, Outcome, Program, Step, kernel_time};
use super::volume::{Kind, kernel_version, run};
use super::world::{Claim, Skip, Told, Truth, World};
use crate::faults::{Access, BLOCK, Effect, FaultRule, Place};

/// A story and where it can happen.
pub struct Scenario {
    /// Its name in results.
    pub name: &'static str,
    flags: &'static [&'static str],
    /// What happens.
    pub play: fn(&mut World) -> Result<()>,
    on: &'static [Kind],
    asks: Asks,
}

/// Flags of a tool that is shared by stories without flags of their own: none of these asks for
/// success of an fsync over lost bytes, so one that does can be among them.
const SHARED: &[&str] = &["--calls", "msync,fsync"];

impl Scenario {
    /// Further flags of the tool.
    pub fn flags(&self, shared: bool) -> &'static [&'static str] {
        match self.flags {
            [] if shared => SHARED,
            flags => flags,
        }
    }

    /// Whether the story makes sense there, on this kernel.
    pub fn runs_on(&self, kind: Kind, below: Below) -> bool {
        let needs = match self.name {
            "memory_failed_under_a_dirty_page" => "/proc/sys/vm/memory_failure_early_kill",
            _ => "/proc",
        };
        // 6.1 is stopped by a BUG in fs/fscache/cookie.c when a 9P server has died.
        let survives = match (self.name, kind) {
            ("server_dies", Kind::NineP) => kernel_version() >= (6, 12),
            _ => true,
        };
        let disk = below == Below::Fault || (below.can(self.asks) && kind.writes_in_place());
        self.on.contains(&kind) && disk && Path::new(needs).exists() && survives
    }

    /// Why comparing memory with the disk may prove nothing of its losses, as the tool says it.
    pub fn unprovable(&self) -> &'static [&'static str] {
        let found = UNPROVABLE.iter().find(|(name, _)| *name == self.name);
        found.map_or(&[], |(_, why)| *why)
    }

    /// Whether the tool can only be held to it where it sees byte ranges.
    pub fn needs_ranges(&self) -> bool {
        !WITHOUT_RANGES.contains(&self.name)
    }
}

/// Stories in which lost bytes cannot be compared, or not always.
const UNPROVABLE: &[(&str, &[&str])] = &[
    ("failed_again_after_recovery", STORED_AGAIN),
    ("failed_again_after_a_quiet_time", STORED_AGAIN),
    // The program that had it mapped has let go of it.
    (
        "opened_after_the_error_was_seen",
        &["no program has it in its page table, and opening the file would drop it"],
    ),
    ("encrypted", &["the file is encrypted on the disk"]),
    ("compressed", &["the bytes are compressed on the disk"]),
];

/// The program goes on while its bytes are compared.
const STORED_AGAIN: &[&str] = &[
    "dirty: the kernel is going to write it",
    "it changed meanwhile",
    "memory and the disk are the same, but the file was written again",
];

/// Stories that can be held to account where only the file is known: nothing in them is recovered,
/// given up, or outside a range.
const WITHOUT_RANGES: &[&str] = &[
    "same_descriptor",
    "another_process_got_the_error",
    "opened_after_the_error_was_seen",
    "healthy",
    "fsync_got_the_error",
    "forked_child",
    "server_made_the_file_immutable",
    "server_has_no_more_room",
    "server_dies",
    "server_without_fsync_dies",
];

/// Where an error on a data page is an error of that page and no more. With data=journal it is
/// the journal that fails, and dies.
const PAGE_ERRORS: &[Kind] = &[Kind::Ext4, Kind::Ext4NoJournal, Kind::Xfs, Kind::Btrfs];
/// The same, and behind a server whose own disk fails.
const WRITE_ERRORS: &[Kind] = &[
    Kind::Ext4,
    Kind::Ext4NoJournal,
    Kind::Xfs,
    Kind::Btrfs,
    Kind::Ext2,
    Kind::Vfat,
    Kind::F2fs,
    Kind::Nfs3,
    Kind::Nfs4,
    Kind::Fuse,
    Kind::NineP,
];
/// Without NFSv4, whose server gives one error of its disk to several descriptors of its own: a
/// WRITE that went well may be refused for an earlier one.
const ONE_ANSWER: &[Kind] = &[
    Kind::Ext4,
    Kind::Ext4NoJournal,
    Kind::Xfs,
    Kind::Btrfs,
    Kind::Ext2,
    Kind::Vfat,
    Kind::F2fs,
    Kind::Nfs3,
    Kind::Fuse,
    Kind::NineP,
];
/// Without our own FUSE server, which knows no rename.
const RENAMES: &[Kind] = &[
    Kind::Ext4,
    Kind::Ext4NoJournal,
    Kind::Xfs,
    Kind::Btrfs,
    Kind::Ext2,
    Kind::Vfat,
    Kind::F2fs,
    Kind::Nfs3,
    Kind::Nfs4,
    Kind::NineP,
];
/// One of each kind, for what has nothing to do with how the file system writes.
const DISKS: &[Kind] = &[Kind::Ext4, Kind::Xfs, Kind::Btrfs];
const NFS: &[Kind] = &[Kind::Nfs3, Kind::Nfs4];
/// Servers that keep a file open that can be made to refuse a write of it.
const REFUSING: &[Kind] = &[Kind::Nfs3, Kind::Nfs4, Kind::NineP];
const NFS3: &[Kind] = &[Kind::Nfs3];
const FUSE: &[Kind] = &[Kind::Fuse];
/// Servers that are processes of ours.
const MORTAL: &[Kind] = &[Kind::Fuse, Kind::NineP];
const EXT4: &[Kind] = &[Kind::Ext4, Kind::Ext4NoJournal];
/// btrfs gives every file a new number.
const NUMBERS_COME_AGAIN: &[Kind] = &[Kind::Ext4, Kind::Ext4NoJournal, Kind::Xfs];
const EVERYWHERE: &[Kind] = &Kind::ALL;
const DATA_JOURNAL: &[Kind] = &[Kind::Ext4DataJournal];

macro_rules! stories {
    ($($play:ident on $kinds:expr $(, with $($flag:literal)+)? $(, asks $asks:ident)?;)*) => {
        &[$(Scenario {
            name: stringify!($play),
            flags: &[$($($flag),+)?],
            play: $play,
            on: $kinds,
            asks: stories!(@asks $($asks)?),
        }),*]
    };
    (@asks) => { Asks::Anything };
    (@asks $asks:ident) => { Asks::$asks };
}

/// All of them.
pub fn scenarios() -> &'static [Scenario] {
    stories! {
        same_descriptor on WRITE_ERRORS, asks Alone;
        device_full on WRITE_ERRORS;
        another_process_got_the_error on WRITE_ERRORS, asks InPlace;
        opened_after_the_error_was_seen on WRITE_ERRORS, asks Alone;
        evicted_inode on PAGE_ERRORS, asks InPlace;
        unmounted_and_mounted_again on PAGE_ERRORS, asks InPlace;
        flusher_fails_in_background on WRITE_ERRORS, asks InPlace;
        block_allocation_fails on EXT4;
        given_up_and_read_back on EXT4;
        conversion_fails on &[Kind::Ext4NoJournal];
        disk_hangs_when_read on &[Kind::Ext4];
        outside_the_range on WRITE_ERRORS, asks Alone;
        partly_in_the_range on WRITE_ERRORS, asks Alone;
        rewritten_before_msync on WRITE_ERRORS, asks Alone;
        truncated_before_msync on WRITE_ERRORS, asks Alone;
        hole_punched_before_msync on PAGE_ERRORS, asks Alone;
        healthy on EVERYWHERE, asks Alone;
        two_files_one_msync on WRITE_ERRORS, asks Alone;
        deleted_and_number_reused on NUMBERS_COME_AGAIN, asks Alone;
        another_thread on WRITE_ERRORS, asks Alone;
        forked_child on WRITE_ERRORS, asks Alone;
        fsync_got_the_error on WRITE_ERRORS, asks InPlace;
        fdatasync_got_the_error on WRITE_ERRORS, asks InPlace;
        sync_file_range_got_the_error on PAGE_ERRORS, asks InPlace;
        io_uring_got_the_error on PAGE_ERRORS, asks InPlace;
        second_fsync on WRITE_ERRORS, with "--calls" "msync,fsync", asks Alone;
        unwritten_extent on PAGE_ERRORS;
        fresh_hole on WRITE_ERRORS;
        stored_again_in_an_unwritten_extent on PAGE_ERRORS;
        memory_failed_under_a_dirty_page on &[Kind::Ext4];
        async_promises_nothing on WRITE_ERRORS, asks Alone;
        async_on_request on WRITE_ERRORS, with "--include-async", asks Alone;
        async_while_pending on PAGE_ERRORS, with "--include-async", asks InPlace;
        failed_again_after_recovery on PAGE_ERRORS, asks InPlace;
        failed_again_after_a_quiet_time on &[Kind::Ext4];
        two_threads_at_once on WRITE_ERRORS, asks Alone;
        among_many_mappings on PAGE_ERRORS, asks InPlace;
        renamed_between on RENAMES, asks Alone;
        flush_fails on PAGE_ERRORS;
        shut_down on &[Kind::Ext4, Kind::Ext4NoJournal, Kind::Xfs];
        metadata_cannot_be_written on DISKS;
        through_a_bind_mount on DISKS, asks Alone;
        through_an_overlay on DISKS, asks Alone;
        written_in_place on &[Kind::Btrfs], asks InPlace;
        compressed on &[Kind::Btrfs];
        encrypted on &[Kind::Ext4], asks InPlace;
        same_number_in_two_subvolumes on &[Kind::Btrfs];
        partly_rewritten on ONE_ANSWER;
        neighbour_rewritten on PAGE_ERRORS;
        torn_request on PAGE_ERRORS;
        compat_caller on WRITE_ERRORS, asks InPlace;
        dead_journal on DATA_JOURNAL;
        server_deleted_the_file on NFS3;
        server_made_the_file_immutable on REFUSING;
        server_made_the_export_read_only on NFS;
        server_gave_the_file_to_another on NFS;
        server_has_no_more_room on REFUSING;
        server_is_silent_for_too_long on NFS3;
        server_enforces_a_quota on NFS;
        server_commit_fails on NFS;
        server_was_lied_to on NFS3, with "--calls" "nfsd";
        server_dies on MORTAL;
        server_without_fsync_dies on FUSE;
    }
}

const FILE: &str = "a";
const REUSED: &str = "new";
const PAGES: u64 = 16;
const ALL: Range<u64> = 0..PAGES;
const BAD: Range<u64> = 4..8;
const GOOD: Range<u64> = 0..2;

/// A program with a healthy file of 16 pages, mapped at the start of its arena, all on disk.
fn program_with_file(world: &mut World, name: &str) -> Result<(Program, usize)> {
    program_with(world, name, FILE)
}

fn program_with(world: &mut World, name: &str, file: &str) -> Result<(Program, usize)> {
    let mut program = world.program(name)?;
    let slot = new_file(world, &mut program, file)?;
    program.resize(slot, PAGES)?;
    program.map(slot, 0, 0, PAGES)?;
    program.store(ALL, false)?;
    program.msync(ALL)?.must_be(0)?;
    Ok((program, slot))
}

/// A new file whose name will outlive a power cut.
fn new_file(world: &mut World, program: &mut Program, file: &str) -> Result<usize> {
    let slot = program.open(file, Open::New)?;
    world.keep_names()?;
    Ok(slot)
}

/// Another program, or another descriptor, on the same file.
fn open_and_map(program: &mut Program, at: u64) -> Result<usize> {
    let slot = program.open(FILE, Open::Existing)?;
    program.map(slot, at, 0, PAGES)?;
    Ok(slot)
}

/// The victim's pages 4 to 7 have failed and its msync was told so.
fn told_once(world: &mut World) -> Result<(Program, usize)> {
    let (mut victim, slot) = program_with_file(world, "victim")?;
    world.fail_pages(FILE, BAD)?;
    victim.store(BAD, true)?;
    is_told(world, &mut victim, ALL)?;
    Ok((victim, slot))
}

/// An msync of these pages fails, and the descriptor (slot 0) is given all there is to be told:
/// btrfs records one failure a second time when its worker gets to it, perhaps after msync
/// returned.
fn is_told(world: &mut World, victim: &mut Program, arena: Range<u64>) -> Result<i32> {
    let errno = victim.msync(arena)?.errno;
    world.note_told(errno);
    ensure!(errno != 0, "msync gave 0 over pages that were just refused");
    world.no_longer_alone()?;
    settle(world, victim)?;
    Ok(errno)
}

fn settle(world: &mut World, victim: &mut Program) -> Result<()> {
    if world.kind() == Kind::Btrfs {
        world.background_write_back()?;
        let again = victim.sync(Ask::FileRange(0), By::Main)?.errno;
        world.note(format!("btrfs, once more: {}", super::program::name(again)));
    }
    Ok(())
}

/// The victim's pages 4 to 7 have failed in background write-back; nobody knows.
fn failed_in_background(world: &mut World) -> Result<(Program, usize)> {
    let (mut victim, slot) = program_with_file(world, "victim")?;
    world.fail_pages(FILE, BAD)?;
    victim.store(BAD, true)?;
    world.background_write_back()?;
    Ok((victim, slot))
}

fn same_descriptor(world: &mut World) -> Result<()> {
    let (mut victim, _) = told_once(world)?;
    let lie = victim.msync(ALL)?.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Caller).lost(BAD))?;
    world.heal()?;
    // Again, on a healthy device: still lost, and not a second incident.
    victim.msync(ALL)?.must_be(0)?;
    world.point(Truth::LostWithoutPromise(FILE.to_owned()))
}

fn device_full(world: &mut World) -> Result<()> {
    let (mut victim, _) = program_with_file(world, "victim")?;
    world.fail(libc::ENOSPC)?;
    victim.store(BAD, true)?;
    // Some kernels and file systems make EIO of every error.
    let errno = is_told(world, &mut victim, ALL)?;
    let lie = victim.msync(ALL)?.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Caller).errno(errno).lost(BAD))
}

fn another_process_got_the_error(world: &mut World) -> Result<()> {
    let (mut writer, _) = program_with_file(world, "writer")?;
    let mut other = world.program("other")?;
    let slot = open_and_map(&mut other, 0)?;
    world.fail_pages(FILE, BAD)?;
    writer.store(BAD, true)?;
    world.background_write_back()?;
    other.sync(Ask::Fsync(slot), By::Main)?.must_be(libc::EIO)?;
    let mut victim = world.program("victim")?;
    open_and_map(&mut victim, 0)?;
    let lie = victim.msync(ALL)?.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Other).lost(BAD))?;
    // The writer's own descriptor was open before: it is told, once.
    writer.msync(ALL)?.must_be(libc::EIO)?;
    Ok(())
}

fn opened_after_the_error_was_seen(world: &mut World) -> Result<()> {
    let (mut victim, _) = told_once(world)?;
    victim.let_go()?;
    open_and_map(&mut victim, 0)?;
    let lie = victim.msync(ALL)?.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Other).lost(BAD))
}

fn evicted_inode(world: &mut World) -> Result<()> {
    let (mut writer, slot) = failed_in_background(world)?;
    world.heal()?;
    writer.step(&Step::Unmap(ALL))?.must_be(0)?;
    writer.step(&Step::DropCache(slot))?.must_be(0)?;
    drop(writer);
    world.evict_inodes()?;
    let mut victim = world.program("victim")?;
    open_and_map(&mut victim, 0)?;
    // If the inode were still there, a new descriptor would be told.
    let lie = victim.msync(ALL)?.must_be(0)?;
    world.lied(
        Claim::new(FILE, lie, Told::Nobody)
            .lost(BAD)
            .in_memory("no"),
    )
}

fn unmounted_and_mounted_again(world: &mut World) -> Result<()> {
    let (writer, _) = failed_in_background(world)?;
    world.heal()?;
    drop(writer);
    world.volume.unmount()?;
    world.volume.mount("")?;
    let mut victim = world.program("victim")?;
    open_and_map(&mut victim, 0)?;
    let lie = victim.msync(ALL)?.must_be(0)?;
    world.lied(
        Claim::new(FILE, lie, Told::Nobody)
            .lost(BAD)
            .in_memory("no"),
    )
}

fn flusher_fails_in_background(world: &mut World) -> Result<()> {
    let (mut victim, _) = failed_in_background(world)?;
    victim.msync(ALL)?.must_be(libc::EIO)?;
    let lie = victim.msync(ALL)?.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Caller).lost(BAD))
}

/// The only block bitmap cannot be read, so no block can be found for new pages. ext4 then throws
/// the pages away, and no error is kept for the file.
fn block_allocation_fails(world: &mut World) -> Result<()> {
    let mut victim = without_blocks(world)?;
    let lie = victim.msync(ALL)?.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Nobody).lost(BAD))
}

/// The same, and then somebody reads the file: what is in memory now is what the disk has.
fn given_up_and_read_back(world: &mut World) -> Result<()> {
    let mut victim = without_blocks(world)?;
    victim.let_go()?;
    std::fs::read(world.directory().join(FILE))?;
    open_and_map(&mut victim, 0)?;
    let lie = victim.msync(ALL)?.must_be(0)?;
    world.lied(
        Claim::new(FILE, lie, Told::Nobody)
            .lost(BAD)
            .in_memory("no"),
    )
}

/// A program whose pages 4 to 7 were given up because there are no blocks for them.
fn without_blocks(world: &mut World) -> Result<Program> {
    world.volume.unmount()?;
    let mut bitmap = [0; 4];
    // First group descriptor, in the block after the superblock: bg_block_bitmap_lo.
    let device = world.volume.device.fault_device()?;
    device.image().read_at(&mut bitmap, BLOCK as u64)?;
    let start = u64::from(u32::from_le_bytes(bitmap)) * BLOCK as u64;
    let unreadable = FaultRule::new(
        Access::Read,
        Place::Bytes(start..start + BLOCK as u64),
        Effect::Fail {
            errno: libc::EIO,
            torn: false,
        },
    );
    device.fail(vec![unreadable])?;
    world.volume.mount("")?;
    let mut victim = world.program("victim")?;
    let slot = new_file(world, &mut victim, FILE)?;
    victim.resize(slot, PAGES)?;
    victim.map(slot, 0, 0, PAGES)?;
    victim.store(BAD, false)?;
    world.background_write_back()?;
    Ok(victim)
}

/// The bytes reach the disk, in an unwritten extent, and then the block of the extent tree that has
/// it cannot be read: the extent stays unwritten, its bytes are zeros, and nobody is told. With a
/// journal that block would stay in memory until the next checkpoint.
fn conversion_fails(world: &mut World) -> Result<()> {
    const LATE: Effect = Effect::Delay { ms: 2000 };
    const LOST: Effect = Effect::Fail {
        errno: libc::EIO,
        torn: false,
    };
    let mut victim = world.program("victim")?;
    let slot = new_file(world, &mut victim, FILE)?;
    victim.step(&Step::Allocate(slot, PAGES))?.must_be(0)?;
    // The inode has no room for so many extents.
    for page in (1024..1056).step_by(2) {
        let one = Step::AllocateBeyond(slot, page..page + 1);
        victim.step(&one)?.must_be(0)?;
    }
    victim.sync(Ask::Fsync(slot), By::Main)?.must_be(0)?;
    victim.map(slot, 0, 0, PAGES)?;
    victim.store(ALL, true)?;
    let (marker, pages) = (DOOMED, 0..u64::MAX);
    world.volume.device.fault_device()?.fail(vec![
        FaultRule::new(Access::Write, Place::Carrying { marker, pages }, LATE),
        FaultRule::new(Access::Read, Place::Anywhere, LOST),
    ])?;
    victim.sync(Ask::Begin(slot), By::Main)?.must_be(0)?;
    world.volume.device.fault_device()?.write_out_and_forget()?;
    victim.sync(Ask::FileRange(slot), By::Main)?.must_be(0)?;
    let did = world.volume.device.fault_device()?.heal()?;
    let [late, lost] = [0, 1].map(|rule: usize| did.rules[rule].applied);
    world.note(format!("{late} late writes, {lost} failed reads"));
    ensure!(late > 0 && lost > 0, "the device was not asked");
    let lie = victim.msync(ALL)?.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Nobody).lost(ALL))
}

/// The disk that lost the bytes cannot be read either, for a long while: nothing waits for it.
fn disk_hangs_when_read(world: &mut World) -> Result<()> {
    let (mut victim, _) = told_once(world)?;
    let late = Effect::Delay { ms: 2500 };
    let hangs = FaultRule::new(Access::Read, Place::Anywhere, late);
    world.volume.device.fault_device()?.fail(vec![hangs])?;
    let lie = victim.msync(ALL)?.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Caller).lost(BAD))
}

fn outside_the_range(world: &mut World) -> Result<()> {
    let (mut victim, _) = told_once(world)?;
    let lie = victim.msync(10..12)?.must_be(0)?;
    world.lied(
        Claim::new(FILE, lie, Told::Caller)
            .lost(BAD)
            .coverage("outside"),
    )
}

fn partly_in_the_range(world: &mut World) -> Result<()> {
    let (mut victim, _) = told_once(world)?;
    let lie = victim.msync(6..12)?.must_be(0)?;
    world.lied(
        Claim::new(FILE, lie, Told::Caller)
            .lost(BAD)
            .coverage("partly"),
    )
}

fn rewritten_before_msync(world: &mut World) -> Result<()> {
    let (mut program, _) = told_once(world)?;
    world.heal()?;
    program.store(BAD, false)?;
    program.msync(ALL)?.must_be(0)?;
    world.kept(FILE)
}

fn truncated_before_msync(world: &mut World) -> Result<()> {
    let (mut program, slot) = told_once(world)?;
    world.heal()?;
    program.resize(slot, BAD.start)?;
    program.msync(0..BAD.start)?.must_be(0)?;
    world.kept(FILE)
}

fn hole_punched_before_msync(world: &mut World) -> Result<()> {
    let (mut program, slot) = told_once(world)?;
    world.heal()?;
    program.punch(slot, BAD)?;
    program.msync(ALL)?.must_be(0)?;
    world.kept(FILE)
}

fn healthy(world: &mut World) -> Result<()> {
    let (mut program, slot) = program_with_file(world, "healthy")?;
    for _ in 0..7 {
        program.store(BAD, false)?;
        program.msync(ALL)?.must_be(0)?;
    }
    program.store(0..1, false)?;
    program.sync(Ask::Fsync(slot), By::Main)?.must_be(0)?;
    world.kept(FILE)
}

fn two_files_one_msync(world: &mut World) -> Result<()> {
    let (mut victim, _) = program_with_file(world, "victim")?;
    let second = new_file(world, &mut victim, "b")?;
    victim.resize(second, PAGES)?;
    victim.map(second, PAGES, 0, PAGES)?;
    victim.store(PAGES..2 * PAGES, false)?;
    world.fail_pages(FILE, BAD)?;
    victim.store(BAD, true)?;
    is_told(world, &mut victim, 0..2 * PAGES)?;
    victim.store(PAGES..PAGES + 4, false)?;
    let lie = victim.msync(0..2 * PAGES)?.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Caller).lost(BAD))?;
    world.kept("b")
}

fn deleted_and_number_reused(world: &mut World) -> Result<()> {
    let (mut program, slot) = told_once(world)?;
    let old = program.step(&Step::Inode(slot))?.must_be(0)?.value;
    world.heal()?;
    program.let_go()?;
    world.delete(FILE)?;
    world.background_write_back()?;
    world.count_free_inodes()?;
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        let slot = program.open(REUSED, Open::New)?;
        if program.step(&Step::Inode(slot))?.must_be(0)?.value == old {
            program.resize(slot, PAGES)?;
            program.map(slot, 0, 0, PAGES)?;
            program.store(ALL, false)?;
            program.msync(ALL)?.must_be(0)?;
            return world.kept(REUSED);
        }
        // The name makes room, the open descriptor keeps this number from coming again.
        world.delete(REUSED)?;
        // XFS frees inodes in the background, or when somebody asks how many are free.
        world.count_free_inodes()?;
    }
    Err(Skip(format!(
        "{} did not reuse the inode number",
        world.kind().name()
    ))
    .into())
}

fn another_thread(world: &mut World) -> Result<()> {
    let (mut victim, _) = told_once(world)?;
    let lie = victim.sync(Ask::Msync(ALL), By::Thread)?.must_be(0)?;
    ensure!(
        lie.tid != lie.pid,
        "the call was not made by another thread"
    );
    world.lied(Claim::new(FILE, lie, Told::Caller).lost(BAD))
}

fn forked_child(world: &mut World) -> Result<()> {
    let (mut parent, _) = told_once(world)?;
    let lie = parent.sync(Ask::Msync(ALL), By::Child)?.must_be(0)?;
    ensure!(
        lie.pid != parent.pid(),
        "the call was not made by another process"
    );
    world.lied(Claim::new(FILE, lie, Told::Caller).lost(BAD))
}

/// Another call on the same descriptor is given the error; then msync succeeds.
fn consumed_by(world: &mut World, ask: fn(usize) -> Ask) -> Result<()> {
    let (mut victim, slot) = failed_in_background(world)?;
    let first = victim.sync(ask(slot), By::Main)?;
    if let Outcome {
        value: 1, errno, ..
    } = first
    {
        return Err(Skip(format!("the call cannot be made here (errno {errno})")).into());
    }
    first.must_be(libc::EIO)?;
    let lie = victim.msync(ALL)?.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Caller).lost(BAD))
}

fn fsync_got_the_error(world: &mut World) -> Result<()> {
    consumed_by(world, Ask::Fsync)
}

fn fdatasync_got_the_error(world: &mut World) -> Result<()> {
    consumed_by(world, Ask::Fdatasync)
}

fn sync_file_range_got_the_error(world: &mut World) -> Result<()> {
    consumed_by(world, Ask::FileRange)
}

fn io_uring_got_the_error(world: &mut World) -> Result<()> {
    consumed_by(world, Ask::IoUring)
}

fn second_fsync(world: &mut World) -> Result<()> {
    let (mut victim, slot) = told_once(world)?;
    let lie = victim.sync(Ask::Fsync(slot), By::Main)?.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Caller).call("fsync").lost(BAD))
}

fn unwritten_extent(world: &mut World) -> Result<()> {
    fresh(world, |program, slot| {
        program
            .step(&Step::Allocate(slot, PAGES))?
            .must_be(0)
            .map(drop)
    })
}

fn fresh_hole(world: &mut World) -> Result<()> {
    fresh(world, |program, slot| program.resize(slot, PAGES))
}

/// The second write succeeds. Whether the file has its bytes, the disk says: ext4 from 6.12 on keeps
/// the extent unwritten.
fn stored_again_in_an_unwritten_extent(world: &mut World) -> Result<()> {
    let mut victim = world.program("victim")?;
    let slot = new_file(world, &mut victim, FILE)?;
    victim.step(&Step::Allocate(slot, PAGES))?.must_be(0)?;
    victim.sync(Ask::Fsync(slot), By::Main)?.must_be(0)?;
    victim.map(slot, 0, 0, PAGES)?;
    world.fail(libc::EIO)?;
    victim.store(BAD, true)?;
    is_told(world, &mut victim, ALL)?;
    world.heal()?;
    victim.store(BAD, true)?;
    let sync = victim.msync(ALL)?.must_be(0)?;
    world.point(Truth::AsTheDiskSays(
        Claim::new(FILE, sync, Told::Nobody).lost(BAD),
    ))
}

/// Pages that never were on the disk before: a reader finds zeros or old blocks.
fn fresh(world: &mut World, prepare: fn(&mut Program, usize) -> Result<()>) -> Result<()> {
    let mut victim = world.program("victim")?;
    let slot = new_file(world, &mut victim, FILE)?;
    prepare(&mut victim, slot)?;
    victim.sync(Ask::Fsync(slot), By::Main)?.must_be(0)?;
    victim.map(slot, 0, 0, PAGES)?;
    world.fail(libc::EIO)?;
    victim.store(BAD, true)?;
    is_told(world, &mut victim, ALL)?;
    let lie = victim.msync(ALL)?.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Caller).lost(BAD))
}

/// The kernel takes the page out of use and drops it from the cache. It records EIO on the file.
fn memory_failed_under_a_dirty_page(world: &mut World) -> Result<()> {
    let (mut victim, _) = program_with_file(world, "victim")?;
    victim.store(BAD, false)?;
    victim.step(&Step::Poison(BAD.start))?.must_be(0)?;
    is_told(world, &mut victim, ALL)?;
    let lie = victim.msync(ALL)?.must_be(0)?;
    let claim = Claim::new(FILE, lie, Told::Caller).errno(libc::EHWPOISON);
    let claim = match world.volume.sight.memory {
        true => claim,
        false => claim.somewhere(),
    };
    world.lied(claim.lost(BAD.start..BAD.start + 1))
}

fn async_promises_nothing(world: &mut World) -> Result<()> {
    let (mut victim, _) = told_once(world)?;
    victim.sync(Ask::MsyncAsync(ALL), By::Main)?.must_be(0)?;
    world.point(Truth::LostWithoutPromise(FILE.to_owned()))
}

fn async_on_request(world: &mut World) -> Result<()> {
    let (mut victim, _) = told_once(world)?;
    let lie = victim.sync(Ask::MsyncAsync(ALL), By::Main)?.must_be(0)?;
    world.lied(
        Claim::new(FILE, lie, Told::Caller)
            .call("msync_async")
            .lost(BAD),
    )
}

/// Nobody was told yet: the next msync of this descriptor will be.
fn async_while_pending(world: &mut World) -> Result<()> {
    let (mut victim, _) = failed_in_background(world)?;
    let lie = victim.sync(Ask::MsyncAsync(ALL), By::Main)?.must_be(0)?;
    let claim = Claim::new(FILE, lie, Told::Pending).call("msync_async");
    world.lied(claim.lost(BAD))?;
    victim.msync(ALL)?.must_be(libc::EIO)?;
    Ok(())
}

/// Stored again, and lost again: another failure, another incident.
fn failed_again_after_recovery(world: &mut World) -> Result<()> {
    failed_again(world, Duration::ZERO)
}

/// The same after so long that the tool has forgotten the file and taken its hooks back.
fn failed_again_after_a_quiet_time(world: &mut World) -> Result<()> {
    failed_again(world, Duration::from_secs(4))
}

fn failed_again(world: &mut World, quiet: Duration) -> Result<()> {
    let (mut first, _) = told_once(world)?;
    let lie = first.msync(ALL)?.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Caller).lost(BAD))?;
    world.heal()?;
    first.store(BAD, false)?;
    first.msync(ALL)?.must_be(0)?;
    std::thread::sleep(quiet);
    let mut second = world.program("second")?;
    open_and_map(&mut second, 0)?;
    world.fail_pages(FILE, 5..6)?;
    second.store(5..6, true)?;
    is_told(world, &mut second, ALL)?;
    let lie = second.msync(ALL)?.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Caller).lost(5..6))
}

/// One thread asks for a failed file, another for a healthy one, again and again.
fn two_threads_at_once(world: &mut World) -> Result<()> {
    let (mut victim, _) = program_with_file(world, "victim")?;
    let second = new_file(world, &mut victim, "b")?;
    let healthy = PAGES..2 * PAGES;
    victim.resize(second, PAGES)?;
    victim.map(second, PAGES, 0, PAGES)?;
    victim.store(healthy.clone(), false)?;
    victim.msync(healthy.clone())?.must_be(0)?;
    world.fail_pages(FILE, BAD)?;
    victim.store(BAD, true)?;
    is_told(world, &mut victim, ALL)?;
    let both = Ask::MsyncBeside(ALL, healthy);
    let lie = victim.sync(both, By::Main)?.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Caller).lost(BAD))?;
    world.kept("b")
}

/// The file is known to the program by another name than the disk's.
fn through_a_bind_mount(world: &mut World) -> Result<()> {
    world.bind("real", "bound")?;
    lost_as(world, "bound/a")
}

/// The program sees the overlay, the pages belong to a file of the disk below.
fn through_an_overlay(world: &mut World) -> Result<()> {
    world.overlay("upper", "merged")?;
    let lie = lie_about(world, "merged/a")?;
    world.lied(
        Claim::new("merged/a", lie, Told::Caller)
            .called_when_it_failed("upper/a")
            .lost(BAD),
    )
}

/// Renamed after the failure, and before the false success.
fn renamed_between(world: &mut World) -> Result<()> {
    const LATER: &str = "renamed";
    let (mut victim, _) = told_once(world)?;
    world.rename(FILE, LATER)?;
    let lie = victim.msync(ALL)?.must_be(0)?;
    // The new name outlives a power cut.
    world.heal()?;
    world.background_write_back()?;
    world.lied(
        Claim::new(LATER, lie, Told::Caller)
            .called_when_it_failed(FILE)
            .lost(BAD),
    )
}

/// What befell the disk before is told once a second at most: lets that second pass.
fn quiet_second() {
    std::thread::sleep(Duration::from_millis(1100));
}

/// The disk takes every byte and cannot flush its cache: the program is told, no page is lost.
fn flush_fails(world: &mut World) -> Result<()> {
    quiet_second();
    let (mut program, _) = program_with_file(world, "program")?;
    program.store(GOOD, false)?;
    world.fail_flushes()?;
    let began = kernel_time();
    let outcome = program.msync(ALL)?;
    // 5.10: XFS and ext4 without a journal do not look at what became of the flush.
    ensure!(
        outcome.errno != 0 || kernel_version() <= (5, 10),
        "msync gave 0"
    );
    world.volume.device.heal()?;
    world.storage_error("flush_failed", began).errno = Some(libc::EIO);
    match world.kind() {
        // What was written elsewhere is not in the file before the tree is.
        Kind::Btrfs => world.point(Truth::LostWithoutPromise(FILE.to_owned())),
        _ => world.kept(FILE),
    }
}

/// Shut down on request: the program is told.
fn shut_down(world: &mut World) -> Result<()> {
    quiet_second();
    let (mut program, _) = program_with_file(world, "program")?;
    program.store(GOOD, false)?;
    let began = kernel_time();
    world.shut_down()?;
    let outcome = program.msync(ALL)?;
    ensure!(outcome.errno != 0, "msync gave 0");
    if world.kind() != Kind::Xfs || kernel_version() > (5, 10) {
        world.storage_error("filesystem_shutdown", began);
    }
    world.point(Truth::LostWithoutPromise(FILE.to_owned()))
}

/// The journal or the tree cannot be written: the filesystem is of no use from then on, and says so.
fn metadata_cannot_be_written(world: &mut World) -> Result<()> {
    quiet_second();
    let (mut program, _) = program_with_file(world, "program")?;
    program.store(GOOD, false)?;
    world.fail_everywhere()?;
    let began = kernel_time();
    let outcome = program.msync(ALL)?;
    ensure!(outcome.errno != 0, "msync gave 0");
    // A new file has to go through the journal; who wants another one finds that it is dead.
    for name in ["more", "still_more"] {
        let made = std::fs::File::create(world.directory().join(name));
        let made = made.and_then(|file| file.sync_all());
        world.note(format!("a new file: {made:?}"));
    }
    if world.volume.sight.own_errors {
        let xfs = world.kind() == Kind::Xfs;
        let what = match xfs {
            true => "filesystem_shutdown",
            false => "filesystem_error",
        };
        let ext4 = world.kind() == Kind::Ext4;
        // 5.10 makes it read-only for all to see; 6.15 and later have an option that says so.
        let hidden = ext4 && ((5, 11)..(6, 15)).contains(&kernel_version());
        let shown = !xfs && !hidden;
        world.storage_error(what, began).read_only = shown;
        // The tool looks at the mount table a second or two later.
        std::thread::sleep(Duration::from_secs(if shown { 3 } else { 0 }));
    }
    world.heal()?;
    world.point(Truth::LostWithoutPromise(FILE.to_owned()))
}

/// btrfs without copy on write: the old bytes are where the new ones should be.
fn written_in_place(world: &mut World) -> Result<()> {
    world.set_attribute("+C")?;
    lost_as(world, FILE)
}

/// What is on the disk does not look like what is in memory. The metadata is written at another
/// time.
fn compressed(world: &mut World) -> Result<()> {
    world.set_attribute("+c")?;
    let (mut victim, slot) = program_with_file(world, "victim")?;
    ensure!(
        extents::any_compressed(&world.file(FILE)?)?,
        "btrfs compressed nothing"
    );
    victim.store(BAD, false)?;
    world.fail_everywhere()?;
    victim
        .sync(Ask::FileRange(slot), By::Main)?
        .must_be(libc::EIO)?;
    world.heal()?;
    settle(world, &mut victim)?;
    let lie = victim.msync(ALL)?.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Caller).lost(BAD).perhaps_late())
}

/// The device is given copies of the pages.
fn encrypted(world: &mut World) -> Result<()> {
    const SECRET: &str = "secret/a";
    world.make_encrypted("secret")?;
    let (mut victim, _) = program_with(world, "victim", SECRET)?;
    world.fail_in_place(SECRET, BAD)?;
    victim.store(BAD, false)?;
    is_told(world, &mut victim, ALL)?;
    let lie = victim.msync(ALL)?.must_be(0)?;
    world.lied(Claim::new(SECRET, lie, Told::Caller).lost(BAD))
}

/// A file of this name loses pages.
fn lost_as(world: &mut World, file: &str) -> Result<()> {
    let lie = lie_about(world, file)?;
    world.lied(Claim::new(file, lie, Told::Caller).lost(BAD))
}

/// A file of this name loses its bad pages, and the program that knows of it is given success.
fn lie_about(world: &mut World, file: &str) -> Result<Outcome> {
    let (mut victim, _) = program_with(world, "victim", file)?;
    world.fail_pages(file, BAD)?;
    victim.store(BAD, true)?;
    is_told(world, &mut victim, ALL)?;
    victim.msync(ALL)?.must_be(0)
}

/// Two files of equal number under one device number; one of them loses pages.
fn same_number_in_two_subvolumes(world: &mut World) -> Result<()> {
    const OTHER: &str = "two/a";
    world.make_subvolume("one")?;
    world.make_subvolume("two")?;
    let (mut victim, slot) = program_with(world, "victim", "one/a")?;
    if !world.volume.sight.subvolumes {
        // Another transaction, which is another generation.
        world.background_write_back()?;
    }
    let (mut other, other_slot) = program_with(world, "other", OTHER)?;
    let number = victim.step(&Step::Inode(slot))?.must_be(0)?.value;
    let other_number = other.step(&Step::Inode(other_slot))?.must_be(0)?.value;
    ensure!(number == other_number, "inodes {number} and {other_number}");
    world.fail(libc::EIO)?;
    victim.store(BAD, true)?;
    is_told(world, &mut victim, ALL)?;
    let lie = victim.msync(ALL)?.must_be(0)?;
    world.lied(Claim::new("one/a", lie, Told::Caller).lost(BAD))?;
    other.msync(ALL)?.must_be(0)?;
    world.kept(OTHER)
}

/// The process has so many mappings that the tree of them is several levels deep.
fn among_many_mappings(world: &mut World) -> Result<()> {
    let mut victim = world.program("victim")?;
    let slot = new_file(world, &mut victim, FILE)?;
    victim.resize(slot, PAGES)?;
    let other = new_file(world, &mut victim, "b")?;
    victim.resize(other, 1)?;
    // With a gap after each, so that they stay apart.
    let (below, above) = (0..300, 400..700);
    for place in below.chain(above) {
        victim.map(other, 2 * place, 0, 1)?;
    }
    let at = 640;
    victim.map(slot, at, 0, PAGES)?;
    victim.store(at..at + PAGES, false)?;
    victim.msync(at..at + PAGES)?.must_be(0)?;
    world.fail_pages(FILE, BAD)?;
    victim.store(at + BAD.start..at + BAD.end, true)?;
    is_told(world, &mut victim, at..at + PAGES)?;
    let lie = victim.msync(at..at + PAGES)?.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Caller).lost(BAD))
}

/// Two failed runs, one of them stored again.
fn partly_rewritten(world: &mut World) -> Result<()> {
    let mut victim = world.program("victim")?;
    let slot = new_file(world, &mut victim, FILE)?;
    victim.resize(slot, 256)?;
    victim.map(slot, 0, 0, 256)?;
    victim.store(0..256, false)?;
    victim.msync(0..256)?.must_be(0)?;
    world.fail(libc::EIO)?;
    victim.store(4..12, true)?;
    victim.store(200..204, true)?;
    is_told(world, &mut victim, 0..256)?;
    // FUSE before 6.12 gives the error of the first while the second is still under way.
    world.wait_for_failed_writes(2)?;
    world.heal()?;
    victim.store(4..12, false)?;
    let lie = victim.msync(0..256)?.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Caller))
}

/// Eight failed pages, three of them stored again: where the page cache has large folios, the
/// kernel writes their neighbours too.
fn neighbour_rewritten(world: &mut World) -> Result<()> {
    let (mut victim, _) = program_with_file(world, "victim")?;
    world.fail(libc::EIO)?;
    victim.store(4..12, true)?;
    is_told(world, &mut victim, ALL)?;
    world.heal()?;
    victim.store(4..7, false)?;
    let lie = victim.msync(ALL)?.must_be(0)?;
    world.point(Truth::AsTheDiskSays(Claim::new(FILE, lie, Told::Caller)))
}

/// One request, of which the device stores the first part and then fails.
fn torn_request(world: &mut World) -> Result<()> {
    let (mut victim, _) = program_with_file(world, "victim")?;
    world.fail_torn(libc::EIO)?;
    victim.store(0..8, false)?;
    victim.store(8..12, true)?;
    is_told(world, &mut victim, ALL)?;
    let lie = victim.msync(ALL)?.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Caller))
}

fn compat_caller(world: &mut World) -> Result<()> {
    let (mut victim, _) = program_with_file(world, "victim")?;
    world.fail_pages(FILE, BAD)?;
    victim.store(BAD, true)?;
    let first = victim.sync(Ask::Msync(ALL), By::Compat)?;
    if first.errno == libc::ENOSYS || first.errno == libc::EFAULT {
        return Err(Skip("no 32-bit system calls here".to_owned()).into());
    }
    first.must_be(libc::EIO)?;
    settle(world, &mut victim)?;
    let lie = victim.sync(Ask::Msync(ALL), By::Compat)?.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Caller).lost(BAD))
}

/// With data=journal the page goes through the journal, which dies of the error: from then on
/// msync fails, so nobody is lied to. Before 6.12 the journal may live on without the page and the
/// second msync gives 0, with no error event that a hook could see (docs/limits.md).
fn dead_journal(world: &mut World) -> Result<()> {
    let (mut program, _) = program_with_file(world, "program")?;
    world.fail(libc::EIO)?;
    program.store(BAD, true)?;
    for call in 1..=4 {
        let outcome = program.msync(ALL)?;
        world.note(format!(
            "msync {call} gave {}",
            super::program::name(outcome.errno)
        ));
        if outcome.errno == 0 {
            return world.point(Truth::OutOfSight(FILE.to_owned()));
        }
    }
    world.point(Truth::LostWithoutPromise(FILE.to_owned()))
}

/// A file on the server, beside the client.
fn on_server(world: &World, file: &str) -> Result<std::path::PathBuf> {
    world.volume.on_server(&world.directory().join(file))
}

/// The server refuses all pages of a file with this error; msync fails once, then gives 0.
fn refused_by_server(
    world: &mut World,
    errno: i32,
    refuse: fn(&mut World) -> Result<()>,
) -> Result<()> {
    let (mut victim, _) = program_with_file(world, "victim")?;
    refuse(world)?;
    victim.store(ALL, true)?;
    victim.msync(ALL)?.must_be(errno)?;
    let lie = victim.msync(ALL)?.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Caller).errno(errno).lost(ALL))
}

fn server_deleted_the_file(world: &mut World) -> Result<()> {
    refused_by_server(world, libc::ESTALE, |world| {
        let file = on_server(world, FILE)?;
        world.volume.knfsd()?.delete(&file)
    })
}

fn server_made_the_file_immutable(world: &mut World) -> Result<()> {
    refused_by_server(world, libc::EPERM, |world| {
        run(Command::new("chattr")
            .arg("+i")
            .arg(on_server(world, FILE)?))
    })
}

fn server_made_the_export_read_only(world: &mut World) -> Result<()> {
    refused_by_server(world, libc::EROFS, |world| {
        world.volume.knfsd()?.make_read_only()
    })
}

/// Root on the client is nobody on the server, which takes the file away from him.
fn server_gave_the_file_to_another(world: &mut World) -> Result<()> {
    world.root_is_nobody_on_the_server()?;
    refused_by_server(world, libc::EACCES, |world| {
        let file = on_server(world, FILE)?;
        std::os::unix::fs::chown(&file, Some(0), Some(0))?;
        Ok(std::fs::set_permissions(
            &file,
            Permissions::from_mode(0o600),
        )?)
    })
}

/// Mounted `soft`: a server that does not answer in time has refused.
fn server_is_silent_for_too_long(world: &mut World) -> Result<()> {
    world.volume.mount_client_again("soft,timeo=10,retrans=1")?;
    let (mut victim, _) = program_with_file(world, "victim")?;
    world.volume.knfsd()?.cut_off(true)?;
    victim.store(ALL, true)?;
    let told = victim.msync(ALL);
    let lie = victim.msync(ALL);
    world.volume.knfsd()?.cut_off(false)?;
    let errno = told?.errno;
    world.note(format!("msync gave {}", super::program::name(errno)));
    ensure!(errno != 0, "msync gave 0 without a server");
    let lie = lie?.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Caller).errno(errno).lost(ALL))
}

/// The server's disk is full when pages without a block come.
fn server_has_no_more_room(world: &mut World) -> Result<()> {
    hole_refused_by_server(world, libc::ENOSPC, |world| world.volume.fill_server_disk())
}

/// Root on the client is nobody on the server, and he has used what he may.
fn server_enforces_a_quota(world: &mut World) -> Result<()> {
    world.root_is_nobody_on_the_server()?;
    hole_refused_by_server(world, libc::EDQUOT, |world| {
        let disk = world.volume.device.path();
        super::quota::use_up(disk, super::knfsd::NOBODY)
    })
}

/// As [`refused_by_server`], where the server would need blocks for the pages.
fn hole_refused_by_server(
    world: &mut World,
    errno: i32,
    refuse: fn(&mut World) -> Result<()>,
) -> Result<()> {
    let mut victim = world.program("victim")?;
    let slot = new_file(world, &mut victim, FILE)?;
    victim.resize(slot, PAGES)?;
    victim.sync(Ask::Fsync(slot), By::Main)?.must_be(0)?;
    victim.map(slot, 0, 0, PAGES)?;
    refuse(world)?;
    victim.store(ALL, true)?;
    victim.msync(ALL)?.must_be(errno)?;
    let lie = victim.msync(ALL)?.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Caller).errno(errno).lost(ALL))
}

/// The server takes the WRITE, which need not be durable, and fails at the COMMIT. It then gives
/// itself out for one that has started anew, and a client may send once more what an earlier WRITE
/// left with it, and be told once more.
fn server_commit_fails(world: &mut World) -> Result<()> {
    let (mut victim, slot) = program_with_file(world, "victim")?;
    world.fail(libc::EIO)?;
    victim.store(BAD, true)?;
    let before = super::knfsd::commits(world.volume.path())?;
    victim.sync(Ask::Begin(slot), By::Main)?.must_be(0)?;
    is_told(world, &mut victim, ALL)?;
    let commits = super::knfsd::commits(world.volume.path())? - before;
    ensure!(commits > 0, "the client asked for no COMMIT");
    let mut lie = victim.msync(ALL)?;
    if lie.errno == libc::EIO {
        world.note("msync gave EIO once more".to_owned());
        lie = victim.msync(ALL)?;
    }
    let lie = lie.must_be(0)?;
    world.lied(Claim::new(FILE, lie, Told::Caller).lost(BAD))
}

/// A program beside the server loses pages of a file that clients have as well. A client then asks
/// for its own bytes, and the server is given success by its own disk, over those that were lost.
fn server_was_lied_to(world: &mut World) -> Result<()> {
    let (mut client, _) = program_with_file(world, "client")?;
    let mut beside = world.program_on_server("beside")?;
    let slot = open_and_map(&mut beside, 0)?;
    world.fail(libc::EIO)?;
    beside.store(BAD, true)?;
    beside
        .sync(Ask::Fsync(slot), By::Main)?
        .must_be(libc::EIO)?;
    // A descriptor of the server that is older than the failure would be told.
    world.volume.knfsd()?.forget_files()?;
    // Pages apart: one run would be written and made durable by a single request, for its range.
    client.store(0..1, false)?;
    client.store(14..15, false)?;
    client.msync(ALL)?.must_be(0)?;
    world.point(match world.volume.sight.kernel_threads {
        true => Truth::ServerLied {
            file: FILE.to_owned(),
            lost: BAD,
        },
        false => Truth::OutOfSight(FILE.to_owned()),
    })
}

/// The server is killed while pages are dirty. It had FSYNC, so the first msync fails for want of
/// it, and all that follow. On 9P so does the write-back before it.
fn server_dies(world: &mut World) -> Result<()> {
    let (mut victim, _) = program_with_file(world, "victim")?;
    victim.store(BAD, true)?;
    world.volume.kill_server()?;
    for call in 1..=3 {
        let outcome = victim.msync(ALL)?;
        let errno = super::program::name(outcome.errno);
        world.note(format!("msync {call} gave {errno}"));
        ensure!(outcome.errno != 0, "msync gave 0 without a server");
    }
    world.point(Truth::LostWithoutPromise(FILE.to_owned()))
}

/// The same with a server that has no FSYNC, as it told the kernel once, and write-back before the
/// first msync: that and all later ones give 0, and nothing was ever recorded. (Without write-back
/// before it, the first one fails for want of somebody to take the new time stamps.)
fn server_without_fsync_dies(world: &mut World) -> Result<()> {
    world.volume.serve_again(false)?;
    let (mut victim, _) = program_with_file(world, "victim")?;
    victim.store(BAD, true)?;
    let root = world.root()?;
    world.volume.kill_server()?;
    world.write_back(&root)?;
    drop(root);
    let lie = victim.msync(ALL)?.must_be(0)?;
    if !world.volume.sight.dead_server {
        return world.point(Truth::OutOfSight(FILE.to_owned()));
    }
    world.lied(
        Claim::new(FILE, lie, Told::Nobody)
            .errno(libc::ENOTCONN)
            .lost(BAD),
    )
}
