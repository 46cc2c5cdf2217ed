//! What a power cut may take back: writes that the disk has answered and not yet been told to flush.

use std::collections::BTreeMap;
use std::io;

use super::image::Image;

/// What a disk writes wholly or not at all.
const SECTOR: usize = 512;

/// What each sector held before each write since the last flush, the oldest first.
#[derive(Default)]
pub struct Unflushed(BTreeMap<u64, Vec<[u8; SECTOR]>>);

impl Unflushed {
    /// Before so many bytes are written there.
    pub fn before_write(&mut self, disk: &Image, offset: u64, len: usize) -> io::Result<()> {
        let size = SECTOR as u64;
        for sector in offset / size..(offset + len as u64).div_ceil(size) {
            let mut held = [0; SECTOR];
            disk.read_at(&mut held, sector * size)?;
            self.0.entry(sector).or_default().push(held);
        }
        Ok(())
    }

    /// Nothing of what was written by now can be taken back.
    pub fn flushed(&mut self) {
        self.0.clear();
    }

    /// Each sector becomes what it held after any of its writes, or before the first: nobody has told
    /// the disk in which order to keep them.
    pub fn cut(&self, disk: &Image, dice: &mut fastrand::Rng) -> io::Result<()> {
        for (sector, held) in &self.0 {
            if let Some(held) = held.get(dice.usize(..=held.len())) {
                disk.write_at(held, sector * SECTOR as u64)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What three sectors hold after power cuts with so many seeds.
    fn after_cuts(unflushed: &Unflushed, disk: &Image) -> Vec<[u8; 3]> {
        let after = |seed| {
            let left = Image::new(disk.size()).unwrap();
            left.copy_from(disk).unwrap();
            let mut dice = fastrand::Rng::with_seed(seed);
            unflushed.cut(&left, &mut dice).unwrap();
            [0, 1, 2].map(|sector| {
                let mut byte = [0];
                left.read_at(&mut byte, sector * SECTOR as u64).unwrap();
                byte[0]
            })
        };
        (0..100).map(after).collect()
    }

    #[test]
    fn only_what_was_not_flushed_is_taken_back_and_any_of_it() {
        let disk = Image::new(1 << 20).unwrap();
        let mut unflushed = Unflushed::default();
        let write = |unflushed: &mut Unflushed, sectors: usize, byte: u8| {
            let bytes = vec![byte; sectors * SECTOR];
            unflushed.before_write(&disk, 0, bytes.len()).unwrap();
            disk.write_at(&bytes, 0).unwrap();
        };
        write(&mut unflushed, 3, 1);
        unflushed.flushed();
        assert_eq!(after_cuts(&unflushed, &disk), [[1; 3]; 100]);
        write(&mut unflushed, 2, 2);
        write(&mut unflushed, 1, 3);
        let mut left = after_cuts(&unflushed, &disk);
        left.sort_unstable();
        left.dedup();
        let all = [[1, 1], [1, 2], [2, 1], [2, 2], [3, 1], [3, 2]];
        assert_eq!(left, all.map(|[first, second]| [first, second, 1]));
    }
}
