//! Pages of a file as programs have them mapped. That is how the bytes of a file are read that must
//! not be opened, because its page cache would be emptied, and bytes of pages that the kernel holds
//! for no longer valid (`folio_clear_uptodate` after a failed write) but a program still sees.
//!
//! Only pages that are in the page table of a program are read (`/proc/PID/pagemap`), so no fault
//! brings any in; that it was the same page before and after proves it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::PathBuf,
};

use super::memory::{
    Cached, Dirtiness, PAGEMAP_FILE, PAGEMAP_FRAME, PAGEMAP_PRESENT, copy_from, entry,
    frame_is_dirty, major_faults, page_size,
};
use crate::{enrich::is_running, model::ProcessId};

/// Shared mappings of one file.
#[derive(Debug, Default)]
pub(super) struct Mappings(Vec<Mapping>);

#[derive(Debug)]
struct Mapping {
    pid: u32,
    /// First byte in the memory of the process, and the byte after.
    start: u64,
    end: u64,
    /// First byte of the file.
    offset: u64,
    /// Its page table.
    pagemap: File,
}

/// Mappings of a file that are looked at. Each that has a page is as good as any other.
const MOST: usize = 256;

/// Which file: number of its filesystem as the kernel has it, and inode number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    pub(super) dev: u32,
    pub(super) ino: u64,
}

impl Mappings {
    /// Those of this process, if it is still the same one.
    pub(super) fn of_process(process: ProcessId, number: Number) -> Self {
        let found = of(process.pid, number);
        match is_running(process) {
            true => Self(found),
            false => Self::default(),
        }
    }

    /// Those of all processes that we see.
    pub(super) fn of_all(number: Number) -> Self {
        let processes = fs::read_dir("/proc").into_iter().flatten();
        let numbers =
            processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let found = numbers.flat_map(|pid| of(pid, number));
        Self(found.take(MOST).collect())
    }

    /// Without those of other files that have the same numbers: subvolumes of btrfs share theirs.
    pub(super) fn only_of(self, file: &File) -> Self {
        let identity = |what: fs::Metadata| (what.dev(), what.ino());
        let Ok(wanted) = file.metadata().map(identity) else {
            return Self::default();
        };
        let is_it = |mapping: &Mapping| {
            let found = fs::metadata(mapping.path()).map(identity);
            found.is_ok_and(|found| found == wanted)
        };
        Self(self.0.into_iter().filter(is_it).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The file, not opened: only to ask what it is.
    pub(super) fn look(&self) -> io::Result<File> {
        let mapping = self.0.first().ok_or(io::ErrorKind::NotFound)?;
        OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
            .open(mapping.path())
    }

    /// The end of what is mapped of the file.
    pub(super) fn end(&self) -> u64 {
        let ends = self
            .0
            .iter()
            .map(|mapping| mapping.offset + (mapping.end - mapping.start));
        ends.max().unwrap_or(0)
    }

    /// Copies the page that begins at this byte of the file.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> Cached {
        let mut found = Cached::Absent;
        for mapping in &self.0 {
            match mapping.read(offset, into) {
                Cached::Absent => {}
                Cached::Slipped => found = Cached::Slipped,
                here => return here,
            }
        }
        into.fill(0);
        found
    }

    /// Whether that page is dirty or under write-back.
    pub(super) fn dirtiness(&self, offset: u64) -> Dirtiness {
        let frame = self.0.iter().find_map(|mapping| mapping.frame(offset));
        let flags = File::open("/proc/kpageflags");
        let is_dirty = frame.zip(flags.ok());
        match is_dirty.and_then(|(frame, flags)| frame_is_dirty(&flags, frame)) {
            Some(true) => Dirtiness::Dirty,
            Some(false) => Dirtiness::Clean,
            None => Dirtiness::Unknown,
        }
    }
}

impl Mapping {
    /// Where the kernel shows the file itself, whatever its name is by now.
    fn path(&self) -> PathBuf {
        let (pid, start, end) = (self.pid, self.start, self.end);
        PathBuf::from(format!("/proc/{pid}/map_files/{start:x}-{end:x}"))
    }

    fn address(&self, offset: u64) -> Option<u64> {
        let address = self.start.checked_add(offset.checked_sub(self.offset)?)?;
        (address < self.end).then_some(address)
    }

    /// The page frame, if the program has this page in its page table. Without root it is not said.
    fn frame(&self, offset: u64) -> Option<u64> {
        let page = self.address(offset)? / page_size() as u64;
        let found = entry(&self.pagemap, page)?;
        let is_there = found & PAGEMAP_PRESENT != 0 && found & PAGEMAP_FILE != 0;
        Some(found & PAGEMAP_FRAME).filter(|frame| is_there && *frame != 0)
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Cached {
        let (Some(address), Some(frame)) = (self.address(offset), self.frame(offset)) else {
            return Cached::Absent;
        };
        let before = major_faults();
        let is_whole = copy_from(self.pid, address, into);
        match is_whole && major_faults() == before && self.frame(offset) == Some(frame) {
            true => Cached::Theirs,
            false => Cached::Slipped,
        }
    }
}

fn of(pid: u32, number: Number) -> Vec<Mapping> {
    let Ok(maps) = File::open(format!("/proc/{pid}/maps")) else {
        return Vec::new();
    };
    let lines = BufReader::new(maps).split(b'\n').map_while(Result::ok);
    let found = lines.filter_map(|line| {
        let (start, end, offset) = place(&line, number)?;
        Some(Mapping {
            pid,
            start,
            end,
            offset,
            pagemap: File::open(format!("/proc/{pid}/pagemap")).ok()?,
        })
    });
    found.collect()
}

/// Start, end and offset of a line of `/proc/PID/maps`, if it is a shared mapping of this file.
fn place(line: &[u8], number: Number) -> Option<(u64, u64, u64)> {
    let mut words = line.split(|byte| *byte == b' ');
    let mut word = || std::str::from_utf8(words.next()?).ok();
    let (range, rights, offset, dev, ino) = (word()?, word()?, word()?, word()?, word()?);
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (major, minor) = dev.split_once(':')?;
    let is_it = rights.ends_with('s')
        && hex(major)? << 20 | hex(minor)? == u64::from(number.dev)
        && ino.parse::<u64>().ok()? == number.ino;
    let (start, end) = range.split_once('-')?;
    is_it.then_some((hex(start)?, hex(end)?, hex(offset)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shared_mappings_of_the_file_are_taken() {
        let number = Number { dev: 0x2a, ino: 77 };
        let line = b"7f0000001000-7f0000005000 rw-s 00003000 00:2a 77     /mnt/a b\\012c";
        let found = place(line, number);
        assert_eq!(found, Some((0x7f00_0000_1000, 0x7f00_0000_5000, 0x3000)));
        for other in [
            &b"7f0000001000-7f0000005000 rw-p 00003000 00:2a 77 /mnt/a"[..],
            b"7f0000001000-7f0000005000 rw-s 00003000 00:2b 77 /mnt/a",
            b"7f0000001000-7f0000005000 rw-s 00003000 08:2a 77 /mnt/a",
            b"7f0000001000-7f0000005000 rw-s 00003000 00:2a 78 /mnt/a",
            b"7f0000001000-7f0000005000 rw-s",
            b"",
        ] {
            assert_eq!(place(other, number), None, "{other:?}");
        }
    }
}
