//! The losses that `selftest` relies on really happen, each with the bytes missing on the disk.
//! Needs root, a loop device and mkfs; says SKIPPED and why where they are missing.
#![cfg(target_os = "linux")]

use msync_trace::check::scratch::{Loss, LossKind, Scratch, ScratchError, ScratchFs};
use msync_trace::model::{ByteRange, Errno, ToldWho};

/// In a thread of its own: a scratch file system takes its thread's mounts for good.
fn lose_all(fs: ScratchFs) -> Option<Vec<Loss>> {
    let lost = std::thread::spawn(move || -> Result<Vec<Loss>, ScratchError> {
        let mut scratch = Scratch::new(fs)?;
        LossKind::ALL
            .into_iter()
            .map(|kind| scratch.lose(kind))
            .collect()
    })
    .join()
    .expect("no panic");
    match lost {
        Ok(losses) => Some(losses),
        Err(ScratchError::Unavailable(reason)) => {
            println!("SKIPPED {}: {reason}", fs.name());
            None
        }
        Err(error) => panic!("{}: {error}", fs.name()),
    }
}

fn every_kind_of_loss_happens(fs: ScratchFs) {
    let Some(losses) = lose_all(fs) else { return };
    let told: Vec<ToldWho> = losses.iter().map(|loss| loss.kind.told()).collect();
    assert_eq!(
        told,
        [ToldWho::Caller, ToldWho::Other, ToldWho::Nobody],
        "{}",
        fs.name()
    );
    for loss in &losses {
        assert_eq!(Some(loss.range), ByteRange::new(4 * 4096, 8 * 4096));
        assert!(
            [Errno::ENOSPC, Errno::EIO].contains(&loss.errno),
            "{loss:?}"
        );
        assert_eq!(loss.pid, std::process::id());
        assert_ne!(loss.tid, loss.pid, "lost by a thread");
    }
    println!("{}: {losses:?}", fs.name());
}

#[test]
fn ext4_loses_data_silently() {
    every_kind_of_loss_happens(ScratchFs::Ext4);
}

#[test]
fn xfs_loses_data_silently() {
    every_kind_of_loss_happens(ScratchFs::Xfs);
}

#[test]
fn btrfs_loses_data_silently() {
    every_kind_of_loss_happens(ScratchFs::Btrfs);
}

#[test]
fn nothing_is_left_behind() {
    if lose_all(ScratchFs::Ext4).is_none() {
        return;
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(" /mnt/ext4 "), "{mounts}");
}
