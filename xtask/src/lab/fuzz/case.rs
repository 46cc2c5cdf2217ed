//! A run as a file: enough to play it again.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::action::Action;
use super::judge::Verdict;

/// A program, where it was played, and what was wrong with it there.
#[derive(Debug, Serialize, Deserialize)]
pub struct Case {
    /// File system.
    pub fs: String,
    /// Where the actions come from.
    pub seed: u64,
    /// What was not reported.
    pub missed: Vec<String>,
    /// What should not have been.
    pub invented: Vec<String>,
    /// What happens.
    pub actions: Vec<Action>,
}

impl Case {
    /// A failed run.
    pub fn new(fs: &str, seed: u64, actions: Vec<Action>, verdict: &Verdict) -> Case {
        Case {
            fs: fs.to_owned(),
            seed,
            missed: verdict.missed.clone(),
            invented: verdict.invented.clone(),
            actions,
        }
    }

    /// Reads one.
    pub fn load(path: &Path) -> Result<Case> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| format!("{} is no case", path.display()))
    }

    /// Writes it, an action per line.
    pub fn save(&self, folder: &Path, suffix: &str) -> Result<PathBuf> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(format!("{}-{}{suffix}.json", self.fs, self.seed));
        let mut file = BufWriter::new(File::create(&path)?);
        let Case {
            fs,
            seed,
            missed,
            invented,
            actions,
        } = self;
        writeln!(file, "{{\"fs\": {},", serde_json::to_string(fs)?)?;
        writeln!(file, " \"seed\": {seed},")?;
        writeln!(file, " \"missed\": {},", serde_json::to_string(missed)?)?;
        writeln!(file, " \"invented\": {},", serde_json::to_string(invented)?)?;
        let lines: Result<Vec<String>, _> = actions.iter().map(serde_json::to_string).collect();
        writeln!(file, " \"actions\": [\n  {}\n]}}", lines?.join(",\n  "))?;
        file.flush()?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::fuzz::action::generate;

    #[test]
    fn a_case_is_read_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let case = Case::new("ext4", 7, generate(7), &Verdict::default());
        let path = case.save(folder.path(), "").unwrap();
        let read = Case::load(&path).unwrap();
        assert_eq!((read.seed, read.actions), (case.seed, case.actions));
    }
}
