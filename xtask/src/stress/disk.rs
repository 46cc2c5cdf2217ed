//! An ext4 on a disk whose data writes can be made to fail, and files on it.

use std::{
    fs::{self, File},
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    faults::{Access, BLOCK, Effect, FaultDevice, FaultRule, Image, Marker, Place},
    scenarios::extents,
};

/// What every page holds that must fail.
const MARKER: Marker = *b"page in trouble ";

/// Content that reaches the disk.
const SOUND: [u8; BLOCK] = [0x11; BLOCK];

/// The disk, mounted.
pub struct Disk {
    device: FaultDevice,
    at: PathBuf,
    /// Last: the mount is in it.
    _scratch: tempfile::TempDir,
}

impl Disk {
    /// With room for so many files of so many pages. No journal: its failure would end the game.
    pub fn new(files: usize, pages: usize) -> Result<Self> {
        let scratch = tempfile::tempdir()?;
        let size = (files * pages * BLOCK + files * 512) as u64 * 5 / 4 + (64 << 20);
        let (at, fuse) = (scratch.path().join("disk"), scratch.path().join("fuse"));
        fs::create_dir_all(&at)?;
        fs::create_dir_all(&fuse)?;
        let raw = Image::new(size)?;
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-b", "4096", "-O", "^has_journal", "-N"])
            .arg((files + 1000).to_string())
            .arg(raw.path()))?;
        let device = FaultDevice::new(size, &fuse)?;
        device.restore(&raw)?;
        run(Command::new("mount")
            .args(["-t", "ext4", "-o", "noatime,errors=continue"])
            .arg(device.path())
            .arg(&at))?;
        Ok(Self {
            device,
            at,
            _scratch: scratch,
        })
    }

    /// A file with these many pages that are on the disk.
    pub fn file(&self, number: usize, pages: usize) -> Result<File> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.path_of(number))?;
        for page in 0..pages {
            file.write_all_at(&SOUND, (page * BLOCK) as u64)?;
        }
        Ok(file)
    }

    /// The path of a file.
    pub fn path_of(&self, number: usize) -> PathBuf {
        self.at.join(format!("f{number}"))
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// The block device.
    pub fn device(&self) -> &Path {
        self.device.path()
    }

    /// From now on every page that was made by [`spoil`] fails.
    pub fn fail(&mut self) -> Result<()> {
        self.device
            .fail(vec![FaultRule::refuse(MARKER, libc::EIO, false)])
    }

    /// From now on the blocks that a record has now, and flushes, fail.
    pub fn fail_below(&mut self, record: &Path) -> Result<()> {
        let effect = Effect::Fail {
            errno: libc::EIO,
            torn: false,
        };
        let mut places = vec![(Access::Flush, Place::Anywhere)];
        for ending in ["", "-wal"] {
            let mut name = record.as_os_str().to_owned();
            name.push(ending);
            let blocks = extents::on_disk(&File::open(name)?, 0..u64::MAX)?;
            places.extend(
                blocks
                    .into_iter()
                    .map(|it| (Access::Write, Place::Bytes(it))),
            );
        }
        let rules = places
            .into_iter()
            .map(|(on, place)| FaultRule::new(on, place, effect));
        self.device.fail(rules.collect())
    }

    /// Takes all the room there is.
    pub fn fill(&self, filler: &Path) -> Result<()> {
        let filler = File::create(filler)?;
        let (mut at, mut piece) = (0, 16 << 20);
        while piece >= BLOCK as libc::off_t {
            // SAFETY: our own descriptor; touches no memory.
            match unsafe { libc::fallocate(filler.as_raw_fd(), 0, at, piece) } {
                0 => at += piece,
                _ => piece /= 2,
            }
        }
        Ok(())
    }

    /// The filesystem finds an error in itself, and no write fails.
    pub fn break_metadata(&self) -> Result<()> {
        let name = self.device.path().file_name();
        let name = name.context("a device without a name")?;
        let trigger = Path::new("/sys/fs/ext4")
            .join(name)
            .join("trigger_fs_error");
        fs::write(&trigger, "a test\n").with_context(|| trigger.display().to_string())
    }

    /// From now on nothing fails.
    pub fn heal(&mut self) -> Result<()> {
        self.device.heal().map(drop)
    }

    /// Writes everything back, and waits for it.
    pub fn sync(&self) -> Result<()> {
        let root = File::open(&self.at)?;
        // SAFETY: the descriptor is ours. Its return value is the error that we make on purpose.
        unsafe { libc::syncfs(root.as_raw_fd()) };
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.device.heal();
        let _ = Command::new("umount").arg(&self.at).status();
    }
}

/// Makes pages dirty that will fail.
pub fn spoil(file: &File, pages: usize) -> Result<()> {
    let mut page = SOUND;
    page[..MARKER.len()].copy_from_slice(&MARKER);
    for number in 0..pages {
        file.write_all_at(&page, (number * BLOCK) as u64)?;
    }
    Ok(())
}

/// Runs it to its end; what it says on standard error is the error.
pub fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("{:?}", command.get_program()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{:?}: {}", command.get_program(), said.trim());
    }
    Ok(())
}
