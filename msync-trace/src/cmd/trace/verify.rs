//! `--verify` and `--rescue`, seen from the trace: incidents go to a worker process, are held back a
//! short while for its answer, and are shown in their order.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{self, BufRead, BufReader, Write},
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, TryRecvError, channel},
    thread,
    time::{Duration, Instant},
};

use crate::{
    cmd::verify_worker::{Answer, Job},
    model::{IncidentId, Verified},
    output::escape,
    schema::{Comparison, IncidentRecord},
};

/// An incident is held back that long.
pub(super) const HELD: Duration = Duration::from_secs(2);
/// A worker that says nothing for so long hangs.
const SILENCE: Duration = Duration::from_secs(10);
/// A disk that made a worker hang is left alone for so long.
const LEFT_ALONE: Duration = Duration::from_secs(60);
/// So many incidents wait for the worker. What is more is not compared: a storm must not fill memory.
const WAITING: usize = 4096;

/// What is asked for on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyPlan {
    /// Where to save, and how many bytes in all.
    pub rescue: Option<(PathBuf, u64)>,
}

/// What a comparison said of an incident.
pub(super) type Verdict = (Verified, Comparison);

/// The jobs of a trace.
pub(super) struct Verifier {
    plan: VerifyPlan,
    /// Bytes that may still be saved.
    room: u64,
    waiting: VecDeque<(Instant, IncidentRecord)>,
    worker: Option<Worker>,
    /// Devices that made a worker hang, and when.
    hanging: BTreeMap<u32, Instant>,
    /// Verdicts that nobody has fetched yet.
    verdicts: BTreeMap<IncidentId, Verdict>,
    messages: Vec<String>,
    limit_told: bool,
    /// Of the place for rescued bytes, each once.
    warned: BTreeSet<String>,
}

/// A process that works on one incident, or waits for one.
struct Worker {
    child: Child,
    answers: Receiver<Answer>,
    /// The incident, its device, and when something was heard of it last.
    at_work: Option<(IncidentId, Option<u32>, Instant)>,
}

impl Verifier {
    /// Starts the worker already: whether that is possible is to be known at once.
    pub(super) fn new(plan: VerifyPlan) -> io::Result<Self> {
        Ok(Self {
            room: plan.rescue.as_ref().map_or(0, |(_, room)| *room),
            plan,
            waiting: VecDeque::new(),
            worker: Some(Worker::start()?),
            hanging: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            messages: Vec::new(),
            limit_told: false,
            warned: BTreeSet::new(),
        })
    }

    /// Takes an incident on. Its verdict comes with [`Self::verdict`].
    pub(super) fn ask(&mut self, incident: &IncidentRecord) {
        if self.waiting.len() >= WAITING {
            self.unknown(incident.incident, "too many incidents at once");
            return;
        }
        self.waiting.push_back((Instant::now(), incident.clone()));
        self.turn();
    }

    /// What the comparison said, once.
    pub(super) fn verdict(&mut self, incident: IncidentId) -> Option<Verdict> {
        self.verdicts.remove(&incident)
    }

    /// What is to be said on standard error.
    pub(super) fn messages(&mut self) -> Vec<String> {
        std::mem::take(&mut self.messages)
    }

    /// Whether bytes are saved.
    pub(super) fn saves(&self) -> bool {
        self.plan.rescue.is_some()
    }

    /// Whether something is waiting or being done.
    pub(super) fn is_busy(&self) -> bool {
        self.is_at_work() || !self.waiting.is_empty()
    }

    fn is_at_work(&self) -> bool {
        let worker = self.worker.as_ref();
        worker.is_some_and(|worker| worker.at_work.is_some())
    }

    /// Hears what the worker says, and gives it more to do.
    pub(super) fn turn(&mut self) {
        self.hear();
        self.give_up_on_silence();
        while !self.is_at_work() {
            let Some((since, incident)) = self.waiting.pop_front() else {
                return;
            };
            self.begin(since, incident);
        }
    }

    fn begin(&mut self, since: Instant, incident: IncidentRecord) {
        let id = incident.incident;
        let dev = incident.file.dev;
        let left_alone = dev
            .and_then(|dev| self.hanging.get(&dev))
            .is_some_and(|when| when.elapsed() < LEFT_ALONE);
        if left_alone {
            return self.unknown(id, "its disk did not answer a short while ago");
        }
        let rescue = self.rescue();
        // Too late to be shown; only saving it still makes sense.
        if since.elapsed() > HELD && rescue.is_none() {
            return self.unknown(id, "there was no time to compare");
        }
        let job = Job { incident, rescue };
        let begun = match &mut self.worker {
            Some(worker) => worker.begin(&job, dev),
            None => Worker::start().and_then(|mut worker| {
                worker.begin(&job, dev)?;
                self.worker = Some(worker);
                Ok(())
            }),
        };
        if let Err(error) = begun {
            self.worker = None;
            self.unknown(id, &format!("the process that compares is gone: {error}"));
        }
    }

    fn rescue(&mut self) -> Option<(Vec<u8>, u64)> {
        let (directory, most) = self.plan.rescue.as_ref()?;
        if self.room > 0 {
            return Some((directory.as_os_str().as_bytes().to_vec(), self.room));
        }
        if !self.limit_told {
            self.limit_told = true;
            self.messages.push(format!(
                "warning: nothing more is rescued: {most} bytes were saved (--rescue-max)"
            ));
        }
        None
    }

    fn hear(&mut self) {
        loop {
            let Some(worker) = &mut self.worker else {
                return;
            };
            let answer = match worker.answers.try_recv() {
                Ok(answer) => answer,
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    let id = worker.at_work.map(|(id, _, _)| id);
                    self.worker = None;
                    if let Some(id) = id {
                        self.unknown(id, "the process that compares ended");
                    }
                    return;
                }
            };
            let Some((id, dev, _)) = worker.at_work else {
                continue;
            };
            worker.at_work = match answer {
                Answer::Done => None,
                _ => Some((id, dev, Instant::now())),
            };
            self.take(id, answer);
        }
    }

    fn take(&mut self, id: IncidentId, answer: Answer) {
        match answer {
            Answer::Verified(verified, comparison) => {
                self.verdicts.insert(id, (verified, comparison));
                // Of incidents that were not held so long.
                if self.verdicts.len() > WAITING {
                    self.verdicts.pop_first();
                }
            }
            Answer::Saved {
                bytes,
                written,
                directory,
                not_saved,
            } => {
                self.room = match &not_saved {
                    Some(_) => 0,
                    None => self.room.saturating_sub(written),
                };
                let place = escape(&directory);
                let not_all = not_saved.map_or_else(String::new, |why| format!("; not all: {why}"));
                self.messages.push(format!(
                    "incident {}: {bytes} bytes saved in {place}{not_all}",
                    id.0
                ));
            }
            Answer::Warned(warning) => {
                let warning = format!("warning: {}", escape(warning.as_bytes()));
                if self.warned.insert(warning.clone()) {
                    self.messages.push(warning);
                }
            }
            Answer::Said(sentence) => {
                let sentence = escape(sentence.as_bytes());
                self.messages.push(format!("incident {}: {sentence}", id.0));
            }
            Answer::Alive | Answer::Done => {}
        }
    }

    fn give_up_on_silence(&mut self) {
        let silent = self.worker.as_ref().and_then(|worker| worker.at_work);
        let Some((id, dev, heard)) = silent else {
            return;
        };
        if heard.elapsed() < SILENCE {
            return;
        }
        if let Some(mut worker) = self.worker.take() {
            // One that hangs in the kernel goes when the disk lets it.
            let _ = worker.child.kill();
        }
        self.hanging.extend(dev.map(|dev| (dev, Instant::now())));
        self.unknown(id, "the disk did not answer");
        if self.plan.rescue.is_some() {
            let sentence = format!("incident {}: not saved: the disk did not answer", id.0);
            self.messages.push(sentence);
        }
    }

    fn unknown(&mut self, id: IncidentId, why: &str) {
        self.verdicts.insert(id, unknown(why));
    }
}

/// A verdict that is none.
pub(super) fn unknown(why: &str) -> Verdict {
    let comparison = Comparison {
        reason: Some(why.to_owned()),
        ..Comparison::default()
    };
    (Verified::Unknown, comparison)
}

impl Worker {
    fn start() -> io::Result<Self> {
        // Our own program, also where its file was replaced meanwhile.
        let mut child = Command::new("/proc/self/exe")
            .arg0("msync-trace")
            .arg("verify-worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C on the terminal is for the trace; what is being saved is saved to its end.
            .process_group(0)
            .spawn()?;
        let (sender, answers) = channel();
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        thread::Builder::new()
            .name("verify".to_owned())
            .spawn(move || {
                for line in BufReader::new(stdout).lines() {
                    let answer = line.map(|line| serde_json::from_str(&line));
                    let Ok(Ok(answer)) = answer else { break };
                    if sender.send(answer).is_err() {
                        break;
                    }
                }
            })?;
        Ok(Self {
            child,
            answers,
            at_work: None,
        })
    }

    /// It is idle, so it reads this at once.
    fn begin(&mut self, job: &Job, dev: Option<u32>) -> io::Result<()> {
        let mut line = serde_json::to_vec(job)?;
        line.push(b'\n');
        let stdin = self.child.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        stdin.write_all(&line)?;
        self.at_work = Some((job.incident.incident, dev, Instant::now()));
        Ok(())
    }
}
