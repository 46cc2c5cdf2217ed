//! The layout of a record and its versions.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::{StoreError, error::While};
use crate::model::{Errno, ErrnoNumbers};
use crate::schema::Word;

/// `PRAGMA application_id` of a record: "msyt".
pub(super) const APPLICATION: u32 = 0x6d73_7974;
/// `PRAGMA user_version`: the layout that this program writes.
pub(super) const LAYOUT: i32 = 2;
/// The oldest msync-trace that reads it.
const READ_BY: &str = "0.1.0";

const TABLES: &str = include_str!("layout.sql");
/// From layout n + 1 to n + 2. Nobody but a writer takes them: what reads must know all layouts.
const STEPS: [&str; 1] = [PACKS];

const PACKS: &str = "
CREATE TABLE IF NOT EXISTS packs (
    block INTEGER PRIMARY KEY,
    facts BLOB NOT NULL
) STRICT;
CREATE TRIGGER IF NOT EXISTS fact_is_deleted AFTER DELETE ON facts BEGIN
    DELETE FROM packs WHERE block = OLD.fact / 32768;
END;
CREATE TRIGGER IF NOT EXISTS fact_is_changed AFTER UPDATE ON facts BEGIN
    DELETE FROM packs WHERE block IN (OLD.fact / 32768, NEW.fact / 32768);
END;
";

/// Makes the tables of an empty database.
pub(super) fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    // Before the first table: pages that become free can be given back one by one.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    let work = connection.transaction()?;
    work.execute_batch(TABLES)?;
    work.pragma_update(None, "application_id", APPLICATION)?;
    work.pragma_update(None, "user_version", LAYOUT)?;
    {
        let mut name = work.prepare("INSERT INTO errnos VALUES (?1, ?2, ?3)")?;
        for &numbers in ErrnoNumbers::ALL {
            for errno in (1..=4095).filter_map(|number| Errno::of(numbers, number)) {
                if let Some(symbol) = errno.symbol() {
                    name.execute(params![numbers.word(), errno.number(), symbol])?;
                }
            }
        }
    }
    work.execute(
        "INSERT INTO about VALUES ('format', 'msync-trace record')",
        [],
    )?;
    sign(&work)?;
    work.commit()
}

/// Says who wrote last, and who can read it.
pub(super) fn sign(connection: &Connection) -> rusqlite::Result<()> {
    let mut say = connection.prepare("INSERT OR REPLACE INTO about VALUES (?1, ?2)")?;
    say.execute(["written_by", env!("CARGO_PKG_VERSION")])?;
    say.execute(["read_by", READ_BY])?;
    Ok(())
}

/// Brings a record to the layout of this program.
pub(super) fn lift(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let layout = version(connection, path)?;
    for (step, from) in STEPS.iter().zip(1..).filter(|(_, from)| *from >= layout) {
        let work = connection.transaction().during("upgrade", path)?;
        work.execute_batch(step)
            .and_then(|()| work.pragma_update(None, "user_version", from + 1))
            .and_then(|()| sign(&work))
            .and_then(|()| work.commit())
            .during("upgrade", path)?;
    }
    Ok(())
}

/// The layout of a record.
///
/// # Errors
/// If it is no record, or one that only a newer msync-trace reads.
pub(super) fn version(connection: &Connection, path: &Path) -> Result<i32, StoreError> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let application = number("application_id").during("read", path)?;
    let layout = number("user_version").during("read", path)?;
    let layout = i32::try_from(layout).unwrap_or(i32::MAX);
    if application != i64::from(APPLICATION) || layout < 1 {
        return Err(StoreError::NotOurs {
            path: path.to_owned(),
            what: "another SQLite database",
        });
    }
    if layout > LAYOUT {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            layout,
            written_by: about(connection, "written_by"),
            read_by: about(connection, "read_by"),
        });
    }
    Ok(layout)
}

fn about(connection: &Connection, key: &str) -> String {
    let value = connection
        .query_row("SELECT value FROM about WHERE key = ?1", [key], |row| {
            row.get(0)
        })
        .optional();
    value.ok().flatten().unwrap_or_else(|| "?".to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const FIRST: &str = include_str!("../../tests/data/record/layout-1.sql");

    /// What is in a database: tables, columns and all, by name.
    fn schema(connection: &Connection) -> BTreeMap<String, String> {
        let sql = "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL";
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn a_record_of_the_first_layout_becomes_one_like_those_that_are_made_now() {
        let mut old = Connection::open_in_memory().unwrap();
        old.execute_batch(FIRST).unwrap();
        old.pragma_update(None, "application_id", APPLICATION)
            .unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        lift(&mut old, Path::new("old.db")).unwrap();
        assert_eq!(version(&old, Path::new("old.db")).unwrap(), LAYOUT);
        let mut new = Connection::open_in_memory().unwrap();
        create(&mut new).unwrap();
        assert_eq!(schema(&old), schema(&new));
    }
}
