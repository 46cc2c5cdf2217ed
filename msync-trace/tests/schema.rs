//! Records as JSON: they come back unchanged, and docs/schema/v1.json describes all of them.

mod arbitrary;
mod recorded;

use std::{fs, path::Path};

use arbitrary::{fact, incident};
use jsonschema::Validator;
use msync_trace::{
    enrich::Enricher,
    model::{Call, Fact, FactKind, LossCause, Lost, MonoTime},
    schema::{
        Body, Clock, CommandEnd, Container, Explanation, Filters, Head, LossState, Name, Record,
        Report, Start, Stop, StopReason, TimelineKind, Totals, WallTime, Word, from_line, to_line,
        write_report,
    },
};
use proptest::prelude::*;
use serde_json::Value;

/// The published schema, made strict: a member that it does not describe is an error here, so
/// that no member goes out undocumented.
fn published() -> Validator {
    jsonschema::validator_for(&strict("v1.json")).unwrap()
}

fn strict(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
    let text = fs::read_to_string(folder.join(name)).unwrap();
    let mut schema: Value = serde_json::from_str(&text).unwrap();
    for definition in schema["$defs"].as_object_mut().unwrap().values_mut() {
        forbid_others(definition);
    }
    schema
}

/// The schema of the report, which uses definitions of the records.
fn published_report() -> Validator {
    let mut schema = strict("report-v1.json");
    schema["additionalProperties"] = Value::Bool(false);
    schema["$id"] = Value::from("file:///report-v1.json");
    jsonschema::options()
        .with_retriever(Beside)
        .build(&schema)
        .unwrap()
}

/// Finds a schema that another one names beside itself.
struct Beside;

impl jsonschema::Retrieve for Beside {
    fn retrieve(
        &self,
        uri: &jsonschema::Uri<String>,
    ) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let name = uri.path().as_str().rsplit('/').next().unwrap();
        Ok(strict(name))
    }
}

fn forbid_others(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.get("type") == Some(&Value::from("object")) {
                members.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            members.values_mut().for_each(forbid_others);
        }
        Value::Array(items) => items.iter_mut().for_each(forbid_others),
        _ => {}
    }
}

fn assert_described(validator: &Validator, line: &[u8]) {
    let value: Value = serde_json::from_slice(line).unwrap();
    let errors: Vec<_> = validator
        .iter_errors(&value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{value:#}\n{errors:#?}");
}

fn clock() -> Clock {
    Clock::new(MonoTime(0), WallTime(1_763_640_000_000_000_000))
}

proptest! {
    #[test]
    fn a_fact_comes_back_as_it_was(fact in fact()) {
        let line = to_line(&Record::of_fact(fact.clone(), &clock()));
        let back = from_line(&line).unwrap().into_fact();
        prop_assert_eq!(back, Some(fact));
    }

    #[test]
    fn an_incident_comes_back_as_it_was(incident in incident()) {
        let enricher = Enricher::below(Path::new("/nonexistent"));
        let record = enricher.incident(&incident, &clock());
        prop_assert_eq!(from_line(&to_line(&record)).unwrap(), record);
    }

    /// One record, one line, whatever the names are; and nothing in it that a terminal obeys.
    #[test]
    fn a_line_is_a_line(fact in fact()) {
        let line = String::from_utf8(to_line(&Record::of_fact(fact, &clock()))).unwrap();
        let text = line.strip_suffix('\n').unwrap();
        prop_assert!(!text.chars().any(msync_trace::schema::is_unprintable), "{:?}", text);
    }
}

#[test]
fn every_fact_and_incident_is_described_by_the_published_schema() {
    let validator = published();
    let config = ProptestConfig::with_cases(300);
    proptest!(config, |(fact in fact(), incident in incident())| {
        assert_described(&validator, &to_line(&Record::of_fact(fact, &clock())));
        let enricher = Enricher::below(Path::new("/nonexistent"));
        let mut record = enricher.incident(&incident, &clock());
        assert_described(&validator, &to_line(&record));
        if let Body::Incident(incident) = &mut record.body {
            incident.process.exe = Some(Name(b"/bin/\xff".to_vec()));
            incident.process.container = Some(Container {
                id: "ab".repeat(32),
                runtime: Some("podman".to_owned()),
                pod_uid: Some("8dbc9d4b-3dfd-4e54-b07a-9a1f3b0a2c11".to_owned()),
            });
        }
        assert_described(&validator, &to_line(&record));
    });
}

#[test]
fn start_and_stop_are_described_and_come_back() {
    let validator = published();
    let start = Start {
        boot_id: None,
        wall_minus_mono_ns: -5,
        calls: Call::ALL.to_vec(),
        filters: Filters {
            pid: vec![3],
            ..Filters::default()
        },
        command: Some(vec!["ls".to_owned()]),
        ..recorded::header("h").start
    };
    let stop = Stop {
        reason: StopReason::Command,
        duration_ns: 1,
        totals: Totals::default(),
        facts: 4,
        outstanding_inodes: 0,
        complete: false,
        lost: vec![Lost {
            cause: LossCause::WalkLimit,
            count: 3,
        }],
        missing_hooks: vec![Explanation {
            name: "a".to_owned(),
            reason: "b".to_owned(),
        }],
        command: Some(CommandEnd {
            status: Some(0),
            signal: None,
        }),
        error: None,
        exit_status: 3,
    };
    for body in [Body::Start(Box::new(start)), Body::Stop(Box::new(stop))] {
        let head = Head::at(MonoTime(7), &clock());
        let record = Record { head, body };
        let line = to_line(&record);
        assert_described(&validator, &line);
        assert_eq!(from_line(&line).unwrap(), record);
    }
}

#[test]
fn the_schema_refuses_what_is_wrong() {
    let validator = published();
    let fact = Fact {
        at: MonoTime(1),
        kind: FactKind::Lost(Lost {
            cause: LossCause::WalkLimit,
            count: 1,
        }),
    };
    let line = to_line(&Record::of_fact(fact, &clock()));
    let good: Value = serde_json::from_slice(&line).unwrap();
    assert!(validator.is_valid(&good));
    for (member, wrong) in [
        ("schema", Value::from(2)),
        ("time", Value::from("yesterday")),
        ("cause", Value::from("bad luck")),
        ("surprise", Value::from(1)),
    ] {
        let mut bad = good.clone();
        bad[member] = wrong;
        assert!(!validator.is_valid(&bad), "{bad}");
    }
}

#[test]
fn a_record_of_a_newer_schema_says_so() {
    let line = br#"{"schema":2,"time":"2026-01-01T00:00:00Z","mono_ns":1,"type":"lost","cause":"walk_limit","count":1}"#;
    let error = from_line(line).unwrap_err().to_string();
    assert!(error.contains("schema 2"), "{error}");
}

/// Reports as they were written come back unchanged, and nothing in them is undocumented.
#[test]
fn reports_are_described_and_come_back() {
    let validator = published_report();
    for sample in ["database", "hostile", "nothing"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/report");
        let text = fs::read_to_string(folder.join(format!("{sample}.json"))).unwrap();
        assert_described(&validator, text.as_bytes());
        let report: Report = serde_json::from_str(&text).unwrap();
        let mut line = Vec::new();
        write_report(&report, &mut line).unwrap();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let again: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(again, serde_json::from_str::<Value>(&text).unwrap());
        let text = String::from_utf8(line).unwrap();
        assert!(
            !text
                .trim_end()
                .chars()
                .any(msync_trace::schema::is_unprintable)
        );
    }
}

#[test]
fn the_schema_of_the_report_refuses_what_is_wrong() {
    let validator = published_report();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/report/database.json");
    let good: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    for (pointer, wrong) in [
        ("/schema", Value::from(2)),
        ("/surprise", Value::from(1)),
        ("/summary/surprise", Value::from(1)),
        ("/files/0/ranges/0/state", Value::from("saved")),
        ("/files/0/timeline/0/what", Value::from("bad luck")),
        ("/incidents/0/error", Value::from(5)),
    ] {
        let mut bad = good.clone();
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        bad.pointer_mut(parent).unwrap()[member] = wrong;
        assert!(!validator.is_valid(&bad), "{pointer}");
    }
}

#[test]
fn every_word_of_the_report_is_described() {
    let schema = strict("report-v1.json").to_string();
    let words = TimelineKind::ALL.iter().map(|kind| kind.word());
    for word in words.chain(LossState::ALL.iter().map(|state| state.word())) {
        assert!(schema.contains(&format!("\"{word}\"")), "{word}");
    }
}
