//! The metrics as a file that node_exporter reads: whole at any time.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::output::{
    Say,
    metrics::{Exposition, Meters},
};

/// Writes the file again and again, on a thread of its own.
pub(super) struct TextFile {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TextFile {
    /// Begins. A directory that cannot be written is said at once, and tried again.
    ///
    /// # Errors
    /// If there can be no thread for it.
    pub(super) fn start(
        path: PathBuf,
        interval: Duration,
        meters: Meters,
        say: Say,
    ) -> io::Result<Self> {
        let (end, ended) = channel();
        let thread = thread::Builder::new().name("textfile".to_owned());
        let thread = thread.spawn(move || {
            let mut failing = false;
            loop {
                let written = write(&path, meters.text(Exposition::Prometheus).as_bytes());
                tell(&path, &written, &mut failing, &say);
                if ended.recv_timeout(interval) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            // The last numbers stay: that they grow old is what shows that we are gone.
            let written = write(&path, meters.text(Exposition::Prometheus).as_bytes());
            tell(&path, &written, &mut failing, &say);
        })?;
        Ok(Self {
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// Writes it once more. A disk that hangs is not waited for.
    pub(super) fn finish(&mut self) {
        self.end = None;
        let Some(thread) = self.thread.take() else {
            return;
        };
        for _ in 0..200 {
            if thread.is_finished() {
                let _ = thread.join();
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A change of state is said, not each attempt.
fn tell(path: &Path, written: &io::Result<()>, failing: &mut bool, say: &Say) {
    let name = crate::output::escape(path.as_os_str().as_encoded_bytes());
    let said: Arc<_> = Arc::clone(say);
    match written {
        Err(error) if !*failing => said(&format!(
            "warning: cannot write the metrics to {name}: {error}; it is tried again"
        )),
        Ok(()) if *failing => said(&format!("the metrics are written to {name} again")),
        _ => {}
    }
    *failing = written.is_err();
}

/// Beside it, then in its place. For everybody to read: node_exporter is another user.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o644);
    let mut file = options.custom_flags(libc::O_NOFOLLOW).open(&beside)?;
    file.write_all(text)?;
    drop(file);
    fs::rename(&beside, path)
}
