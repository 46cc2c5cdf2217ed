//! Records: what goes in comes out, whatever happens in between.

mod arbitrary;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex},
};

use arbitrary::{fact, incident};
use msync_trace::{
    enrich::Enricher,
    model::{Call, Fact, MonoTime},
    schema::{Clock, Filters, HookRecord, KernelRecord, Record, Start, WallTime},
    store::{Kept, Limits, Reader, Recorder, RunHeader, StoreError},
};
use proptest::{collection::vec, prelude::*};

const NOON: WallTime = WallTime(1_763_640_000_000_000_000);

fn clocks() -> (MonoTime, WallTime) {
    (MonoTime(1_000), NOON)
}

fn header() -> RunHeader {
    RunHeader {
        began: MonoTime(1_000),
        began_wall: NOON,
        start: Start {
            version: "0.1.0".to_owned(),
            pid: 7,
            kernel: KernelRecord {
                name: "Linux".to_owned(),
                release: "6.12".to_owned(),
                machine: "x86_64".to_owned(),
            },
            boot_id: Some("b".to_owned()),
            host: Some("db1".to_owned()),
            tier: "fentry".to_owned(),
            hooks: vec![HookRecord {
                name: "sync.msync".to_owned(),
                purpose: "returns of msync".to_owned(),
                target: "__x64_sys_msync".to_owned(),
                state: "attached".to_owned(),
                method: Some("fexit".to_owned()),
                detail: None,
            }],
            wall_minus_mono_ns: NOON.0 - 1_000,
            calls: vec![Call::Msync],
            filters: Filters::default(),
            command: None,
        },
        include_async: false,
        input: None,
    }
}

/// What a recorder says.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

impl Said {
    fn open(&self, path: &Path) -> Result<Recorder, StoreError> {
        let said = self.clone();
        let say = move |message: &str| said.0.lock().unwrap().push(message.to_owned());
        Recorder::open(path, Limits::default(), clocks, Box::new(say))
    }
}

fn begin(path: &Path) -> Recorder {
    let mut recorder = Said::default().open(path).unwrap();
    recorder.begin(header()).unwrap();
    recorder
}

fn record_all(path: &Path, facts: &[Fact], incidents: &[Record]) -> Kept {
    let mut recorder = begin(path);
    for fact in facts {
        recorder.fact(fact.clone());
    }
    for incident in incidents {
        recorder.record(incident, true);
    }
    recorder.finish()
}

fn facts_of(reader: &Reader, run: usize) -> Vec<Fact> {
    let mut facts = Vec::new();
    let run = &reader.runs().unwrap()[run];
    reader
        .facts(run, |_, fact| {
            facts.push(fact);
            Ok::<_, StoreError>(())
        })
        .unwrap();
    facts
}

fn incidents_of(reader: &Reader, run: i64) -> Vec<Record> {
    let mut records = Vec::new();
    reader
        .incidents(run, |record, _| {
            records.push(record);
            Ok::<_, StoreError>(())
        })
        .unwrap();
    records
}

#[test]
fn every_fact_and_incident_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let enricher = Enricher::below(Path::new("/nonexistent"));
    let clock = Clock::new(MonoTime(0), NOON);
    let config = ProptestConfig::with_cases(12);
    proptest!(config, |(facts in vec(fact(), 0..40), mut incidents in vec(incident(), 0..4))| {
        let _ = fs::remove_file(&path);
        for (incident, number) in incidents.iter_mut().zip(1..) {
            incident.id.0 = number;
        }
        let records: Vec<_> = incidents.iter().map(|it| enricher.incident(it, &clock)).collect();
        let kept = record_all(&path, &facts, &records);
        prop_assert_eq!(kept.facts, facts.len() as u64);
        prop_assert_eq!(kept.incidents, records.len() as u64);
        let reader = Reader::open(&path).unwrap();
        prop_assert_eq!(facts_of(&reader, 0), facts);
        prop_assert_eq!(incidents_of(&reader, 1), records);
    });
}

#[test]
fn a_clean_end_leaves_one_private_file_that_opens_where_nothing_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    record_all(&path, &[], &[]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let run = &Reader::open(&path).unwrap().runs().unwrap()[0];
    assert_eq!(run.host.as_deref(), Some("db1"));
    assert_eq!(run.complete, None, "no stop record, so it was killed");
}
