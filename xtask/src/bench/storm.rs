//! Very many pages whose write-back fails, all at once.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{cost::Mapping, report::Row, tracers};
use crate::faults::{BLOCK, FaultDevice, FaultRule, Image, Marker};

const MARKER: Marker = *b"page in a storm ";

/// An ext4 on a disk that can fail.
pub struct Disk {
    device: FaultDevice,
    at: PathBuf,
    pages: usize,
}

impl Disk {
    /// With room for a file of so many pages.
    pub fn new(pages: usize, scratch: &Path) -> Result<Self> {
        let size = (pages * BLOCK) as u64 * 5 / 4 + (64 << 20);
        let (at, fuse) = (scratch.join("disk"), scratch.join("fuse"));
        fs::create_dir_all(&at)?;
        fs::create_dir_all(&fuse)?;
        let raw = Image::new(size)?;
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-b", "4096"])
            .arg(raw.path()))?;
        let device = FaultDevice::new(size, &fuse)?;
        device.restore(&raw)?;
        // Without barriers an msync of clean pages never waits for the disk.
        run(Command::new("mount")
            .args(["-t", "ext4", "-o", "noatime,nobarrier,errors=continue"])
            .arg(device.path())
            .arg(&at))?;
        Ok(Self { device, at, pages })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Seconds that an msync takes whose every page fails; a second one follows, which succeeds.
    fn storm(&mut self, file: &File) -> Result<f64> {
        let len = self.pages * BLOCK;
        fill(file, self.pages)?;
        let mapping = Mapping::new(file, len)?;
        let rule = FaultRule::refuse(MARKER, libc::EIO, false);
        self.device.fail(vec![rule])?;
        let begin = Instant::now();
        let first = mapping.sync();
        let took = begin.elapsed().as_secs_f64();
        let second = mapping.sync();
        self.device.heal()?;
        if (first, second) != (libc::EIO, 0) {
            bail!("the storm did not fail as it should: msync gave {first}, then {second}");
        }
        Ok(took)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.at).status();
    }
}

/// Makes every page dirty.
fn fill(file: &File, pages: usize) -> Result<()> {
    let mut block = [0x5a; BLOCK * 64];
    for page in block.chunks_mut(BLOCK) {
        page[..MARKER.len()].copy_from_slice(&MARKER);
    }
    for first in (0..pages).step_by(64) {
        let bytes = BLOCK * 64.min(pages - first);
        file.write_all_at(&block[..bytes], (first * BLOCK) as u64)?;
    }
    Ok(())
}

/// Rounds with nobody looking on and with msync-trace, in turn.
pub fn measure(program: &Path, disk: &mut Disk, quick: bool) -> Result<Vec<Row>> {
    let path = disk.at.join("storm");
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    // The blocks exist before: a storm only overwrites.
    fill(&file, disk.pages)?;
    file.sync_all()?;
    disk.storm(&file)?;
    let (mut untraced, mut traced, mut recorded) = (Vec::new(), Vec::new(), Vec::new());
    let folder = tempfile::tempdir()?;
    let mut record_resident = Vec::new();
    let (mut resident, mut drops, mut incidents, mut bytes) = (vec![], vec![], vec![], vec![]);
    for round in 0..if quick { 2 } else { 5 } {
        untraced.push(disk.storm(&file)?);
        let running = tracers::start_tool(program)?;
        traced.push(disk.storm(&file)?);
        std::thread::sleep(std::time::Duration::from_secs(1));
        resident.push(running.resident()?);
        let records = running.stop()?;
        let stop = records.iter().find(|record| record["type"] == "stop");
        let stop = stop.context("no stop record")?;
        drops.push(lost(stop));
        incidents.push(stop["incidents"].as_f64().unwrap_or(0.0));
        bytes.push(stop["bytes"].as_f64().unwrap_or(0.0) / (disk.pages * BLOCK) as f64 * 100.0);
        if stop["lost"] != Value::Array(Vec::new()) {
            crate::step::progress(&format!("    lost: {}", stop["lost"]));
        }
        let running = tracers::start_record(program, &folder.path().join("storm.db"))?;
        recorded.push(disk.storm(&file)?);
        std::thread::sleep(std::time::Duration::from_secs(1));
        record_resident.push(running.resident()?);
        running.stop()?;
        crate::step::progress(&format!("    round {} done", round + 1));
    }
    drop(fs::remove_file(&path));
    let pages = disk.pages;
    Ok(vec![
        Row::of(
            &format!("msync of {pages} pages that all fail"),
            "s",
            vec![
                ("untraced".to_owned(), Ok(untraced)),
                ("msync-trace".to_owned(), Ok(traced)),
                ("msync-trace record".to_owned(), Ok(recorded)),
            ],
        ),
        Row::alone("lost facts in the storm", "", drops),
        Row::alone("incidents found in the storm (1 expected)", "", incidents),
        Row::alone("failed bytes named by the incident", "%", bytes),
        Row::of(
            "resident memory after the storm",
            "MiB",
            vec![
                ("msync-trace".to_owned(), Ok(resident)),
                ("msync-trace record".to_owned(), Ok(record_resident)),
            ],
        ),
    ])
}

/// Everything that msync-trace says it did not see.
fn lost(stop: &Value) -> f64 {
    let entries = stop["lost"].as_array().into_iter().flatten();
    entries
        .map(|entry| entry["count"].as_f64().unwrap_or(1.0))
        .fold(0.0, |sum, count| sum + count)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("{:?}", command.get_program()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{:?}: {}", command.get_program(), said.trim());
    }
    Ok(())
}
