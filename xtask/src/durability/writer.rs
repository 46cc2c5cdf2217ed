//! The program that writes a record, and what it says of it. Its output goes to files: it never waits
//! for us.

use std::{
    fs::File,
    io::Read,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// How long anything may take that has to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Facts and incidents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Facts.
    pub facts: u64,
    /// Incidents.
    pub incidents: u64,
}

/// Example `record_generated`, running.
pub struct Writer {
    child: Child,
    /// It goes on until this is closed.
    input: Option<ChildStdin>,
    out: File,
    errors: File,
}

/// How it ended.
pub struct Ended {
    /// What it said last to be stored.
    pub stored: Stored,
    /// Exit status 1: something could not be stored.
    pub failed: bool,
}

impl Writer {
    /// Starts it.
    pub fn start(program: &Path, record: &Path) -> Result<Self> {
        let (out, errors) = (
            tempfile::NamedTempFile::new()?,
            tempfile::NamedTempFile::new()?,
        );
        let mut child = Command::new(program)
            .arg(record)
            .stdin(Stdio::piped())
            .stdout(out.reopen()?)
            .stderr(errors.reopen()?)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Self {
            input: child.stdin.take(),
            child,
            out: out.into_file(),
            errors: errors.into_file(),
        })
    }

    /// What is stored, by what it has said until now.
    pub fn stored(&mut self) -> Result<Stored> {
        let said = read_all(&mut self.out)?;
        let whole = said.split_inclusive('\n').rev();
        let stored = whole
            .filter_map(|line| line.strip_suffix('\n'))
            .find_map(stored);
        Ok(stored.unwrap_or_default())
    }

    /// Waits until so many incidents are stored.
    pub fn wait_for_incidents(&mut self, count: u64) -> Result<()> {
        let what = format!("no {count} incidents were stored");
        self.wait(&what, |it| Ok(it.stored()?.incidents >= count))
    }

    /// Waits until it has said these words about the record.
    pub fn wait_for_words(&mut self, words: &str) -> Result<()> {
        let what = format!("it never said {words:?}");
        self.wait(&what, |it| Ok(read_all(&mut it.errors)?.contains(words)))
    }

    fn wait(&mut self, what: &str, is_so: impl Fn(&mut Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self)? {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{what}: it ended ({status}): {}",
                    read_all(&mut self.errors)?
                );
            }
            if Instant::now() > deadline {
                bail!("{what}: {}", read_all(&mut self.errors)?);
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// It has not ended.
    pub fn lives(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("it ended ({status}): {}", read_all(&mut self.errors)?),
        }
    }

    /// As `kill -9` does it.
    pub fn kill(mut self) -> Result<Stored> {
        self.lives()?;
        self.child.kill()?;
        self.child.wait()?;
        self.stored()
    }

    /// Lets it come to an end.
    pub fn stop(mut self) -> Result<Ended> {
        self.input = None;
        let status = self.end()?;
        let complaint = read_all(&mut self.errors)?;
        ensure!(
            status.signal().is_none(),
            "it was killed ({status}): {complaint}"
        );
        let failed = match status.code() {
            Some(0) => false,
            Some(1) => true,
            _ => bail!("it ended with {status}: {complaint}"),
        };
        let stored = self.stored()?;
        Ok(Ended { stored, failed })
    }

    fn end(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `stored FACTS INCIDENTS`.
fn stored(line: &str) -> Option<Stored> {
    let (facts, incidents) = line.strip_prefix("stored ")?.split_once(' ')?;
    Some(Stored {
        facts: facts.parse().ok()?,
        incidents: incidents.parse().ok()?,
    })
}

/// Our own descriptor: the child writes through another one.
fn read_all(file: &mut File) -> Result<String> {
    let mut text = Vec::new();
    std::io::Seek::rewind(file)?;
    file.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
