//! Judgements on machines that we do not have.

use super::*;
use crate::model::Errno;

/// An item, and what makes it complain.
type Case = (&'static str, fn(&mut Observed));

fn good() -> Observed {
    Observed {
        system: "Linux".to_owned(),
        release: "6.1.0-49-amd64".to_owned(),
        machine: "x86_64".to_owned(),
        root: true,
        dtrace: false,
        dtrace_device: false,
        capabilities: Some(Capabilities(u64::MAX)),
        user_namespace: false,
        memlock: Some(64 << 10),
        btf: Ok(5 << 20),
        lockdown: Some(Lockdown::None),
        kprobe_events: true,
        perf_paranoid: 2,
        jit: true,
        tracefs: true,
        function_tracing_refused: false,
        bpf: BpfAnswer::Works,
        fentry_attached: None,
        symbols: Some([true; 3]),
    }
}

/// Ids with their status, of everything that is not as it should be.
fn complaints(seen: &Observed) -> Vec<(&'static str, Status)> {
    judge(seen)
        .into_iter()
        .filter(|item| item.status != Status::Ok)
        .map(|item| (item.id, item.status))
        .collect()
}

fn detail(seen: &Observed, id: &str) -> String {
    let item = judge(seen).into_iter().find(|item| item.id == id).unwrap();
    assert!(
        item.status != Status::Fail || item.remedy.is_some(),
        "a failure without a remedy: {item:?}"
    );
    item.detail
}

#[test]
fn an_ordinary_machine_is_ready() {
    assert_eq!(complaints(&good()), []);
}

#[test]
fn each_thing_that_stops_us_is_one_failure() {
    let cases: [Case; 8] = [
        ("system", |seen| seen.system = "OpenBSD".to_owned()),
        ("kernel", |seen| {
            seen.release = "5.4.0-150-generic".to_owned();
        }),
        ("lockdown", |seen| {
            seen.lockdown = Some(Lockdown::Confidentiality);
        }),
        ("bpf", |seen| seen.bpf = BpfAnswer::NoSuchCall),
        ("bpf", |seen| {
            seen.bpf = BpfAnswer::Refused(Errno::new(1).unwrap());
        }),
        ("bpf", |seen| {
            seen.bpf = BpfAnswer::Refused(Errno::new(1).unwrap());
            seen.user_namespace = true;
        }),
        ("btf", |seen| {
            seen.btf = Err("No such file or directory".to_owned());
        }),
        ("memlock", |seen| {
            seen.release = "5.10.0-30-amd64".to_owned();
            // CAP_SYS_ADMIN and what names need, but not CAP_SYS_RESOURCE.
            seen.capabilities = Some(Capabilities(1 << 21 | 1 << 19 | 1 << 2));
        }),
    ];
    for (id, change) in cases {
        let mut seen = good();
        change(&mut seen);
        assert_eq!(complaints(&seen), [(id, Status::Fail)]);
        detail(&seen, id);
    }
}

/// What `Observed::look` sees there: nothing of Linux.
fn freebsd() -> Observed {
    Observed {
        system: "FreeBSD".to_owned(),
        release: "15.1-RELEASE-p1".to_owned(),
        machine: "amd64".to_owned(),
        root: true,
        dtrace: true,
        dtrace_device: true,
        capabilities: None,
        user_namespace: false,
        memlock: Some(64 << 10),
        btf: Err("No such file or directory".to_owned()),
        lockdown: None,
        kprobe_events: false,
        perf_paranoid: 2,
        jit: true,
        tracefs: false,
        function_tracing_refused: false,
        bpf: BpfAnswer::NoSuchCall,
        fentry_attached: None,
        symbols: None,
    }
}

#[test]
fn freebsd_is_judged_by_its_dtrace_and_not_by_what_linux_has() {
    assert_eq!(complaints(&freebsd()), []);
    let cases: [(Case, Status); 6] = [
        (("privileges", |seen| seen.root = false), Status::Fail),
        (("dtrace", |seen| seen.dtrace = false), Status::Fail),
        (
            ("kernel", |seen| seen.release = "12.4-RELEASE".to_owned()),
            Status::Warn,
        ),
        (
            ("kernel", |seen| seen.release = "16.0-CURRENT".to_owned()),
            Status::Warn,
        ),
        (
            ("kernel", |seen| seen.release = "unheard of".to_owned()),
            Status::Warn,
        ),
        (
            ("architecture", |seen| seen.machine = "arm64".to_owned()),
            Status::Warn,
        ),
    ];
    for ((id, change), status) in cases {
        let mut seen = freebsd();
        change(&mut seen);
        assert_eq!(complaints(&seen), [(id, status)]);
        detail(&seen, id);
    }
}

/// dtrace loads them itself, so they stop nothing.
#[test]
fn modules_of_dtrace_that_are_not_loaded_yet_are_said() {
    let mut seen = freebsd();
    seen.dtrace_device = false;
    assert_eq!(complaints(&seen), []);
    assert!(detail(&seen, "modules").contains("kldload dtraceall"));
}

#[test]
fn missing_capabilities_are_named() {
    let mut seen = good();
    seen.capabilities = Some(Capabilities(1 << 38));
    assert_eq!(
        detail(&seen, "privileges"),
        "not permitted: CAP_BPF is missing"
    );
    seen.capabilities = Some(Capabilities(0));
    assert_eq!(
        detail(&seen, "privileges"),
        "not permitted: CAP_BPF and CAP_PERFMON are missing"
    );
    // Before 5.8 there was only one for all of it; 5.10 is the oldest that we take anyway.
    seen.release = "5.4.0".to_owned();
    assert_eq!(
        detail(&seen, "privileges"),
        "not permitted: CAP_SYS_ADMIN is missing"
    );
    // The two new ones suffice, for the tracing itself.
    let mut seen = good();
    seen.capabilities = Some(Capabilities(1 << 38 | 1 << 39));
    assert_eq!(complaints(&seen), [("names", Status::Warn)]);
    // But for kprobes, where a distribution wants more for them.
    seen.perf_paranoid = 3;
    let limits = [("names", Status::Warn), ("kprobes", Status::Warn)];
    assert_eq!(complaints(&seen), limits);
    let mut seen = good();
    seen.perf_paranoid = 3;
    assert_eq!(complaints(&seen), []);
}

#[test]
fn what_only_limits_us_is_a_warning() {
    let cases: [Case; 6] = [
        ("kprobes", |seen| seen.kprobe_events = false),
        ("fentry", |seen| seen.jit = false),
        ("fentry", |seen| seen.symbols = Some([true, false, true])),
        ("fentry", |seen| seen.fentry_attached = Some(false)),
        ("fentry", |seen| seen.function_tracing_refused = true),
        ("architecture", |seen| seen.machine = "riscv64".to_owned()),
    ];
    for (id, change) in cases {
        let mut seen = good();
        change(&mut seen);
        assert_eq!(complaints(&seen), [(id, Status::Warn)]);
    }
    let mut seen = good();
    seen.lockdown = Some(Lockdown::Integrity);
    seen.tracefs = false;
    assert_eq!(complaints(&seen), []);
}

#[test]
fn a_report_says_it_in_text_and_in_json() {
    let mut seen = good();
    seen.btf = Err("No such file or directory".to_owned());
    let report = Report::new(judge(&seen), None);
    assert_eq!(report.readiness(), Readiness::No);
    let text = report.text(crate::output::Tone::Plain);
    assert!(text.contains("FAIL btf "), "{text}");
    assert!(
        text.ends_with("this machine cannot be traced as it is\n"),
        "{text}"
    );
    let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!(json["readiness"], "no");
    assert_eq!(json["hooks"], serde_json::Value::Null);

    let report = Report::new(judge(&good()), Some(Err("bpf() is refused".to_owned())));
    assert_eq!(report.readiness(), Readiness::No);
    let report = Report::new(judge(&good()), Some(Ok(Vec::new())));
    assert_eq!(report.readiness(), Readiness::Ready);
}
