//! What arrived in each output: which incident was told about which file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Paths of files, with the numbers of the incidents about them, each as often as it came.
#[derive(Clone, Debug, Default)]
pub struct Found(BTreeMap<String, Vec<u64>>);

impl Found {
    fn take(&mut self, record: &Value) {
        if let (Some(path), Some(number)) =
            (record["file"]["path"].as_str(), record["incident"].as_u64())
        {
            self.0.entry(path.to_owned()).or_default().push(number);
        }
    }

    /// Whether there is an incident about this file.
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// Whether there is an incident about each of these.
    pub fn has_all(&self, paths: &[String]) -> bool {
        paths.iter().all(|path| self.has(path))
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Those of these files that have none.
    pub fn missing<'a>(&self, expected: &'a BTreeSet<String>) -> impl Iterator<Item = &'a String> {
        expected.iter().filter(|path| !self.has(path))
    }

    /// How many incidents came more than once.
    pub fn again(&self) -> usize {
        let again = |numbers: &Vec<u64>| {
            let different: BTreeSet<_> = numbers.iter().collect();
            numbers.len() - different.len()
        };
        self.0.values().map(again).sum()
    }

    /// Adds another output's.
    pub fn add(&mut self, other: &Self) {
        for (path, numbers) in &other.0 {
            let ours = self.0.entry(path.clone()).or_default();
            ours.extend(numbers);
        }
    }

    /// Holds it to what happened: no other files below `folder`, one incident for each.
    pub fn is_sound(&self, expected: &BTreeSet<String>, folder: &Path) -> Result<()> {
        for (path, numbers) in &self.0 {
            let different: BTreeSet<_> = numbers.iter().collect();
            ensure!(
                different.len() == 1,
                "{path} was lost once and has incidents {different:?}"
            );
            let ours = Path::new(path).starts_with(folder);
            ensure!(!ours || expected.contains(path), "{path} was not lost");
        }
        Ok(())
    }
}

/// All lines of JSON in these files.
pub fn in_lines(files: impl IntoIterator<Item = PathBuf>) -> Result<Found> {
    let mut found = Found::default();
    for file in files {
        let text = fs::read_to_string(&file)?;
        for line in text.lines() {
            let record: Value = serde_json::from_str(line)
                .with_context(|| format!("not a line of JSON in {}: {line}", file.display()))?;
            if record["type"] == "incident" {
                found.take(&record);
            }
        }
    }
    Ok(found)
}

/// The files of a folder whose names begin so.
pub fn files(folder: &Path, beginning: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with(beginning)) {
            files.push(path);
        }
    }
    Ok(files)
}

/// Whether there is a line about each of these in the newest files whose names begin so. Those that
/// are written or moved meanwhile may have none yet.
pub fn newest_lines_have(folder: &Path, beginning: &str, paths: &[String]) -> bool {
    let mut files = files(folder, beginning).unwrap_or_default();
    files.sort_by_cached_key(|path| fs::metadata(path).and_then(|it| it.modified()).ok());
    let newest = files.split_off(files.len().saturating_sub(NEWEST));
    in_lines(newest).is_ok_and(|found| found.has_all(paths))
}

/// A round of incidents fits into so many files.
const NEWEST: usize = 8;

/// Everything in a store.
pub fn in_store(store: &Path) -> Result<Found> {
    incident_list(store, "1")
}

/// Whether a store can be read and has all of these, of which none has a quote in its name.
pub fn store_has(store: &Path, paths: &[String]) -> bool {
    let condition = format!("path IN ('{}')", paths.join("','"));
    incident_list(store, &condition).is_ok_and(|found| found.has_all(paths))
}

fn incident_list(store: &Path, condition: &str) -> Result<Found> {
    let output = Command::new("sqlite3")
        .args(["-json", "-readonly"])
        .arg(store)
        .arg(format!(
            "SELECT path, incident FROM incident_list WHERE {condition}"
        ))
        .output()
        .context("cannot run sqlite3")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "sqlite3: {complaint}");
    let rows: Vec<Value> = match output.stdout.trim_ascii() {
        b"" => Vec::new(),
        rows => serde_json::from_slice(rows)?,
    };
    let mut found = Found::default();
    for row in rows {
        let record = serde_json::json!({
            "file": {"path": row["path"]}, "incident": row["incident"],
        });
        found.take(&record);
    }
    Ok(found)
}

/// Listens where journald does. The folder has to be one that nobody else sees.
pub struct Journal {
    found: Arc<Mutex<Found>>,
}

impl Journal {
    /// Begins, on a thread of its own that lives as long as this process.
    pub fn listen(socket: &Path) -> Result<Self> {
        let socket = UnixDatagram::bind(socket)?;
        let found: Arc<Mutex<Found>> = Arc::default();
        let into = Arc::clone(&found);
        thread::spawn(move || {
            let mut entry = vec![0; 1 << 20];
            while let Ok(len) = socket.recv(&mut entry) {
                if let Some(record) = incident(&entry[..len]) {
                    let mut found = into.lock().unwrap_or_else(PoisonError::into_inner);
                    found.take(&record);
                }
            }
        });
        Ok(Self { found })
    }

    /// What came so far.
    pub fn found(&self) -> Found {
        let found = self.found.lock();
        found.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The record of an entry about an incident. None of our names has a newline, so all fields are lines.
fn incident(entry: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(entry).ok()?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    if field("MSYNC_TRACE_TYPE=")? != "incident" {
        return None;
    }
    serde_json::from_str(field("MSYNC_TRACE_JSON=")?).ok()
}
