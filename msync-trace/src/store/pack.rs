//! Facts once more, as few bytes: what a report reads of them, of a block of numbers at a time. Reading
//! ten million rows takes far longer than judging them.
//!
//! The table of facts is what counts. A block that is not packed, or whose pack is odd, is read from
//! there.

use rusqlite::{Connection, OptionalExtension};

/// A pack holds the facts with so many numbers side by side. The layout's trigger knows it.
pub(super) const BLOCK: i64 = 1 << 15;

/// The columns of a fact that a report reads, as they are in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) fact: i64,
    pub(super) run: i64,
    pub(super) at: i64,
    pub(super) kind: i64,
    pub(super) inode: Option<i64>,
    pub(super) start: Option<i64>,
    pub(super) end: Option<i64>,
    pub(super) errno: Option<i64>,
    /// Whether `errno` is a number of FreeBSD.
    pub(super) free_bsd: bool,
    pub(super) task: Option<i64>,
    pub(super) call: Option<i64>,
    pub(super) flag: bool,
}

/// Bits of the second byte of a fact: which columns follow.
mod has {
    pub(super) const INODE: u8 = 1;
    pub(super) const START: u8 = 1 << 1;
    pub(super) const END: u8 = 1 << 2;
    pub(super) const ERRNO: u8 = 1 << 3;
    pub(super) const TASK: u8 = 1 << 4;
    pub(super) const CALL: u8 = 1 << 5;
    pub(super) const FREE_BSD: u8 = 1 << 6;
    /// Offsets are multiples of a page, and so they are said.
    pub(super) const PAGES: u8 = 1 << 7;
}

/// Bits of the first byte, which holds the kind as well.
const KIND: u8 = 0x0f;
const FLAG: u8 = 1 << 4;
/// Of the same run, and the next number.
const NEXT: u8 = 1 << 5;

const PAGE_SHIFT: u32 = 12;

/// Packs the facts of one block after the other.
#[derive(Debug, Default)]
pub(super) struct Packer {
    bytes: Vec<u8>,
    facts: i64,
    last: Columns,
}

impl Packer {
    /// Takes in a fact that is being written. The block before is packed when the next one begins.
    pub(super) fn add(
        &mut self,
        connection: &Connection,
        columns: &Columns,
    ) -> rusqlite::Result<()> {
        let is_next = columns.fact > self.last.fact;
        let same_block = columns.fact / BLOCK == self.last.fact / BLOCK;
        if self.facts > 0 && !(is_next && same_block) {
            if is_next {
                self.store(connection)?;
            }
            *self = Self::default();
        }
        if self.facts == 0 {
            // It is written anew, perhaps not from its beginning.
            let mut old = connection.prepare_cached("DELETE FROM packs WHERE block = ?1")?;
            old.execute([columns.fact / BLOCK])?;
        }
        // A kind that does not fit is missing, and then the block is not packed.
        if (0..=i64::from(KIND)).contains(&columns.kind) {
            encode(&mut self.bytes, &self.last, columns);
            self.facts += 1;
            self.last = *columns;
        }
        Ok(())
    }

    /// Only if all facts of the block are in it, and only those: some could have been written
    /// before, or deleted since.
    fn store(&self, connection: &Connection) -> rusqlite::Result<()> {
        let block = self.last.fact / BLOCK;
        let mut count =
            connection.prepare_cached("SELECT count(*) FROM facts WHERE fact BETWEEN ?1 AND ?2")?;
        let (first, last) = (block * BLOCK, block * BLOCK + (BLOCK - 1));
        let there: i64 = count.query_row([first, last], |row| row.get(0))?;
        if there == self.facts {
            let mut store =
                connection.prepare_cached("INSERT OR REPLACE INTO packs VALUES (?1, ?2)")?;
            store.execute(rusqlite::params![block, self.bytes])?;
        }
        Ok(())
    }
}

/// Whether a record has packs: layout 1 has none.
pub(super) fn are_there(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'packs')";
    connection.query_row(sql, [], |row| row.get(0))
}

/// The facts of a block; `None`: read the table instead.
pub(super) fn load(connection: &Connection, block: i64) -> rusqlite::Result<Option<Vec<Columns>>> {
    let mut pack = connection.prepare_cached("SELECT facts FROM packs WHERE block = ?1")?;
    let found = pack.query_row([block], |row| {
        let mut facts = Vec::with_capacity(BLOCK.unsigned_abs() as usize);
        let whole = unpack(row.get_ref(0)?.as_blob()?, |columns| facts.push(*columns));
        Ok(whole.map(|()| facts))
    });
    found.optional().map(Option::flatten)
}

fn encode(bytes: &mut Vec<u8>, last: &Columns, it: &Columns) {
    let is_next = last.fact + 1 == it.fact && last.run == it.run;
    let length = it.end.map(|end| end.wrapping_sub(it.start.unwrap_or(0)));
    let of_pages = (it.start.unwrap_or(0) | length.unwrap_or(0)) & ((1 << PAGE_SHIFT) - 1) == 0;
    let shift = if of_pages { PAGE_SHIFT } else { 0 };
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    bytes.push(u8::try_from(it.kind).unwrap_or(KIND) | bit(it.flag, FLAG) | bit(is_next, NEXT));
    bytes.push(
        bit(it.inode.is_some(), has::INODE)
            | bit(it.start.is_some(), has::START)
            | bit(it.end.is_some(), has::END)
            | bit(it.errno.is_some(), has::ERRNO)
            | bit(it.task.is_some(), has::TASK)
            | bit(it.call.is_some(), has::CALL)
            | bit(it.free_bsd, has::FREE_BSD)
            | bit(of_pages, has::PAGES),
    );
    if !is_next {
        put(bytes, zigzag(it.fact.wrapping_sub(last.fact)));
        put(bytes, zigzag(it.run));
    }
    put(bytes, zigzag(it.at.wrapping_sub(last.at)));
    let mut column = |value: Option<u64>| value.into_iter().for_each(|value| put(bytes, value));
    column(it.inode.map(zigzag));
    column(it.start.map(|start| start.cast_unsigned() >> shift));
    column(length.map(|length| length.cast_unsigned() >> shift));
    column(it.errno.map(zigzag));
    column(it.task.map(|task| zigzag(it.fact.wrapping_sub(task))));
    column(it.call.map(zigzag));
}

/// All facts of a pack; `None` if it is odd.
fn unpack(mut bytes: &[u8], mut each: impl FnMut(&Columns)) -> Option<()> {
    let mut it = Columns::default();
    while let [first, which, rest @ ..] = bytes {
        bytes = rest;
        if first & NEXT == 0 {
            it.fact = it.fact.wrapping_add(unzigzag(take(&mut bytes)?));
            it.run = unzigzag(take(&mut bytes)?);
        } else {
            it.fact = it.fact.wrapping_add(1);
        }
        it.kind = i64::from(first & KIND);
        it.flag = first & FLAG != 0;
        it.free_bsd = which & has::FREE_BSD != 0;
        it.at = it.at.wrapping_add(unzigzag(take(&mut bytes)?));
        let shift = if which & has::PAGES == 0 {
            0
        } else {
            PAGE_SHIFT
        };
        let mut column = |bit: u8| match which & bit {
            0 => Some(None),
            _ => take(&mut bytes).map(Some),
        };
        it.inode = column(has::INODE)?.map(unzigzag);
        it.start = column(has::START)?.map(|start| (start << shift).cast_signed());
        let length = column(has::END)?.map(|length| (length << shift).cast_signed());
        it.end = length.map(|length| length.wrapping_add(it.start.unwrap_or(0)));
        it.errno = column(has::ERRNO)?.map(unzigzag);
        let back = column(has::TASK)?.map(unzigzag);
        it.task = back.map(|back| it.fact.wrapping_sub(back));
        it.call = column(has::CALL)?.map(unzigzag);
        each(&it);
    }
    bytes.is_empty().then_some(())
}

/// Small numbers of either sign as small ones without.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

/// Seven bits a byte, the lowest first; all but the last with the eighth set.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_kinds() -> Vec<Columns> {
        let failed = Columns {
            fact: 7 * BLOCK + 1,
            run: 3,
            at: 5_000_000_000,
            kind: 1,
            inode: Some(12),
            start: Some(4096),
            end: Some(3 * 4096),
            errno: Some(5),
            task: Some(7 * BLOCK + 1),
            flag: true,
            ..Columns::default()
        };
        let to_the_end = Columns {
            fact: failed.fact + 1,
            at: failed.at - 3,
            start: Some(17),
            end: None,
            free_bsd: true,
            flag: false,
            ..failed
        };
        let bits = Columns {
            fact: to_the_end.fact + 1,
            at: -1,
            start: Some(i64::MIN),
            end: Some(-1),
            errno: Some(i64::MAX),
            call: Some(6),
            task: None,
            ..to_the_end
        };
        let lost = Columns {
            fact: bits.fact + 1000,
            run: 4,
            kind: 11,
            ..Columns::default()
        };
        vec![failed, to_the_end, bits, lost]
    }

    fn packed(facts: &[Columns]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut last = Columns::default();
        for fact in facts {
            encode(&mut bytes, &last, fact);
            last = *fact;
        }
        bytes
    }

    fn unpacked(bytes: &[u8]) -> (Vec<Columns>, bool) {
        let mut found = Vec::new();
        let whole = unpack(bytes, |columns| found.push(*columns));
        (found, whole.is_some())
    }

    #[test]
    fn what_is_packed_comes_out_as_it_was() {
        let facts = all_kinds();
        assert_eq!(unpacked(&packed(&facts)), (facts, true));
    }

    #[test]
    fn a_pack_that_was_cut_off_within_a_fact_is_odd() {
        let facts = all_kinds();
        let bytes = packed(&facts);
        let ends: Vec<usize> = (0..=facts.len())
            .map(|n| packed(&facts[..n]).len())
            .collect();
        for length in 0..bytes.len() {
            assert_eq!(
                unpacked(&bytes[..length]).1,
                ends.contains(&length),
                "{length}"
            );
        }
        assert!(!unpacked(&[0xff; 40]).1);
    }
}
