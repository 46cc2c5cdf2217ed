//! Runs of D scripts through the built command: what is said about each is compared in full with
//! what stands beside it. See tests/data/dtrace/README.md.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use msync_trace::{
    correlate::{Config, Correlator},
    model::{Fact, Incident, Verdict},
    source::dtrace::{Reader, Refusal},
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dtrace")
}

fn streams() -> Vec<(String, Vec<u8>)> {
    let mut names: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".txt").map(ToOwned::to_owned)
        })
        .collect();
    names.sort();
    let read = |name: String| {
        let stream = fs::read(folder().join(format!("{name}.txt"))).unwrap();
        (name, stream)
    };
    names.into_iter().map(read).collect()
}

fn ingest(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_msync-trace"));
    command.arg("ingest").args(arguments).env("TZ", "UTC");
    command.current_dir(folder());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn all_of(output: &Output) -> String {
    format!(
        "{}---- standard error\n{}---- exit status {}\n",
        text(&output.stdout),
        text(&output.stderr),
        output.status.code().unwrap()
    )
}

fn compare(expected: &Path, came: &str) {
    if env::var_os("BLESS").is_some() {
        fs::write(expected, came).unwrap();
    }
    let wanted = fs::read_to_string(expected).unwrap();
    assert!(
        wanted == came,
        "{} differs (BLESS=1 writes what came; read it):\n{came}",
        expected.display()
    );
}

/// Without what differs from run to run: our version and our process id.
fn steady(json: &str) -> String {
    let mut lines: Vec<String> = json.lines().map(ToOwned::to_owned).collect();
    if let Some(start) = lines.first_mut() {
        let version = format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION"));
        *start = start.replace(&version, "\"version\":\"\"");
        let at = start.find("\"pid\":").unwrap() + "\"pid\":".len();
        let digits = start[at..].bytes().take_while(u8::is_ascii_digit).count();
        start.replace_range(at..at + digits, "0");
    }
    lines.join("\n") + "\n"
}

#[test]
fn every_run_gives_what_stands_beside_it() {
    let streams = streams();
    assert!(streams.len() >= 12, "{}", folder().display());
    for (name, _) in streams {
        let file = format!("{name}.txt");
        let output = ingest(&["-v", &file]).output().unwrap();
        compare(&folder().join(format!("{name}.expected")), &all_of(&output));
        let output = ingest(&["-q", "-o", "json", &file]).output().unwrap();
        let json = steady(&text(&output.stdout));
        compare(&folder().join(format!("{name}.json")), &json);
    }
}

#[test]
fn json_fits_the_published_schema() {
    let schema = include_str!("../../docs/schema/v1.json");
    let validator = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    for (name, _) in streams() {
        let json = fs::read_to_string(folder().join(format!("{name}.json"))).unwrap();
        for line in json.lines() {
            let value = serde_json::from_str(line).unwrap();
            let errors: Vec<_> = validator
                .iter_errors(&value)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{name}: {line}\n{errors:#?}");
        }
    }
}

/// A pipe that gives a byte now and a byte then is the same as a file.
#[test]
fn a_pipe_gives_the_same_as_a_file() {
    for (name, stream) in streams() {
        let from_file = ingest(&["-q", "-o", "json", &format!("{name}.txt")]).output();
        let mut child = ingest(&["-q", "-o", "json", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        for piece in stream.chunks(701) {
            pipe.write_all(piece).unwrap();
        }
        drop(pipe);
        let from_pipe = child.wait_with_output().unwrap();
        let incidents = |output: &Output| {
            let json = text(&output.stdout);
            let is_finding = |line: &&str| line.contains("\"type\":\"incident\"");
            json.lines()
                .filter(is_finding)
                .map(ToOwned::to_owned)
                .collect::<Vec<_>>()
        };
        let from_file = from_file.unwrap();
        assert_eq!(incidents(&from_pipe), incidents(&from_file), "{name}");
        assert_eq!(from_pipe.status, from_file.status, "{name}");
    }
}

/// JSON lines of these types, in an order of their own.
fn lines_of(json: &str, types: &[&str]) -> Vec<String> {
    let is_one = |line: &&str| {
        let mut words = types.iter().map(|word| format!("\"type\":\"{word}\""));
        words.any(|word| line.contains(&word))
    };
    let mut lines: Vec<_> = json.lines().filter(is_one).map(ToOwned::to_owned).collect();
    lines.sort();
    lines
}

/// What was found, and what became of it.
const FINDINGS: [&str; 6] = [
    "incident",
    "repeated",
    "recovered",
    "discarded",
    "evicted",
    "lost",
];

/// Recorded, the same is shown, the same stands in the record, and the same follows from its facts.
#[test]
fn a_run_is_recorded_as_it_is_shown_and_judged_again_it_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut incidents = 0;
    for (name, stream) in streams() {
        let (file, record) = (
            format!("{name}.txt"),
            folder.path().join(format!("{name}.db")),
        );
        let record = record.to_str().unwrap();
        let shown = ingest(&["-o", "json", &file]).output().unwrap();
        let recorded = ingest(&["-o", "json", "--record", record, &file]).output();
        let recorded = recorded.unwrap();
        assert_eq!(recorded.status, shown.status, "{name}");
        let (live, also_live) = (text(&shown.stdout), text(&recorded.stdout));
        assert_eq!(steady_if_any(&also_live), steady_if_any(&live), "{name}");
        let said = text(&recorded.stderr);
        if shown.status.code() == Some(2) && live.is_empty() {
            assert!(!Path::new(record).exists(), "{name}: {said}");
            continue;
        }
        let (rest, last) = said.trim_end().rsplit_once('\n').unwrap();
        assert_eq!(rest, text(&shown.stderr).trim_end(), "{name}");
        let facts = facts(&stream, usize::MAX).unwrap().len();
        assert!(last.contains(&format!(" has {facts} fact")), "{last}");

        let kept = run(&["export", "--format", "jsonl", record]);
        // Evictions that are facts have no incident.
        let changes: Vec<_> = lines_of(&text(&kept.stdout), &FINDINGS)
            .into_iter()
            .filter(|line| line.contains("\"incident\":") || line.contains("\"type\":\"lost\""))
            .map(|line| without_the_run(&line))
            .collect();
        assert_eq!(changes, lines_of(&live, &FINDINGS), "{name}");

        let report = run(&["report", "--recompute", "--format", "json", record]);
        let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
        let again = &report["recomputed"][0];
        let found = lines_of(&live, &["incident"]).len();
        assert_eq!(again["same"], found, "{name}: {again}");
        assert_eq!(again["differences"], serde_json::json!([]), "{name}");
        assert_eq!(report["summary"]["incidents"], found, "{name}");
        assert_eq!(report["runs"][0]["host"], serde_json::Value::Null);
        incidents += found;
    }
    assert!(incidents >= 8, "{incidents}");
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_msync-trace"));
    command.args(arguments).env("TZ", "UTC").output().unwrap()
}

fn steady_if_any(json: &str) -> String {
    match json.is_empty() {
        true => String::new(),
        false => steady(json),
    }
}

/// An exported line says at its end which run it is of.
fn without_the_run(line: &str) -> String {
    let (line, _) = line.rsplit_once(",\"host\":").unwrap();
    format!("{line}}}")
}

fn facts(stream: &[u8], piece: usize) -> Result<Vec<Fact>, Refusal> {
    let mut reader = Reader::default();
    let mut facts = Vec::new();
    for piece in stream.chunks(piece) {
        let mut rest = piece;
        while !rest.is_empty() {
            let taken = reader.take(rest, &mut facts)?;
            rest = &rest[taken.bytes..];
        }
    }
    reader.end(&mut facts)?;
    Ok(facts)
}

fn incidents(stream: &[u8]) -> Vec<Incident> {
    let mut correlator = Correlator::new(Config::default());
    let mut verdicts = Vec::new();
    for fact in facts(stream, usize::MAX).unwrap_or_default() {
        correlator.apply(&fact, &mut verdicts);
    }
    let incident = |verdict| match verdict {
        Verdict::Incident(incident) => Some(*incident),
        _ => None,
    };
    verdicts.into_iter().filter_map(incident).collect()
}

/// What a broken input gives, the whole one gives too: nobody is accused because the end is missing.
#[test]
fn a_cut_at_any_byte_invents_no_incident() {
    for (name, stream) in streams() {
        let whole = incidents(&stream);
        // Each cut reads all before it: of a long run not every one.
        let step = if stream.len() < 10_000 { 1 } else { 37 };
        for cut in (0..stream.len()).step_by(step) {
            let part = incidents(&stream[..cut]);
            assert!(
                whole.starts_with(&part),
                "{name}, {cut} bytes: {part:#?}\nthe whole: {whole:#?}"
            );
        }
    }
}

/// Mutated runs, the same ones every time (DAMAGE_ROUNDS for more of them): reading never breaks off,
/// does not depend on how the input comes in pieces, and a missing end invents no incident.
#[test]
fn damaged_runs_are_read_or_refused() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        // xorshift64*: the same every time.
        seed ^= seed >> 12;
        seed ^= seed << 25;
        seed ^= seed >> 27;
        let number = seed.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap() % below
    };
    let streams = streams();
    let rounds = env::var("DAMAGE_ROUNDS").map_or(2_000, |n| n.parse().unwrap());
    for _ in 0..rounds {
        let (_, stream) = &streams[random(streams.len())];
        let mut damaged = stream.clone();
        for _ in 0..=random(3) {
            damage(&mut damaged, &mut random);
        }
        let whole = facts(&damaged, usize::MAX);
        assert_eq!(whole, facts(&damaged, 1 + random(300)));
        // Behind a whole line: one that is broken can be a good one up to somewhere in its middle.
        let at = random(damaged.len() + 1);
        let end = damaged[..at].iter().rposition(|b| *b == b'\n');
        let part = &damaged[..end.map_or(0, |newline| newline + 1)];
        let (whole, part) = (incidents(&damaged), incidents(part));
        assert!(
            whole.starts_with(&part),
            "{}",
            String::from_utf8_lossy(&damaged)
        );
    }
}

fn damage(stream: &mut Vec<u8>, random: &mut impl FnMut(usize) -> usize) {
    if stream.is_empty() {
        return;
    }
    let at = random(stream.len());
    let end = (at + 1 + random(80)).min(stream.len());
    match random(6) {
        0 => stream[at] ^= 1 << random(8),
        1 => stream[at] = b"\t\n=\\.0129\0\xff-"[random(12)],
        2 => drop(stream.drain(at..end)),
        3 => {
            let again = stream[at..end].to_vec();
            stream.splice(at..at, again);
        }
        4 => stream.truncate(at),
        _ => {
            let mut lines: Vec<&[u8]> = stream.split_inclusive(|b| *b == b'\n').collect();
            let (one, other) = (random(lines.len()), random(lines.len()));
            lines.swap(one, other);
            *stream = lines.concat();
        }
    }
}

#[test]
fn filters_are_about_the_machine_that_the_facts_are_of() {
    let count = |arguments: &[&str], name: &str| {
        let all = [&["-q", "-o", "json"], arguments, &[name]].concat();
        let output = ingest(&all).output().unwrap();
        text(&output.stdout)
            .lines()
            .filter(|line| line.contains("\"type\":\"incident\""))
            .count()
    };
    for (arguments, incidents) in [
        (&["--pid", "700"][..], 1),
        (&["--comm", "postgres"], 1),
        (&["--uid", "770"], 2),
        (&["--path", "/var/db"], 3),
        (&["--path", "/var/db/ledger/base.dat"], 3),
        (&["--path", "/var/db/led"], 0),
        (&["--dev", "da0p2"], 3),
        (&["--dev", "/dev/da0p2"], 3),
        (&["--dev", "da0p3"], 0),
        (&["--stop-after", "2"], 2),
        (&["--calls", "fsync"], 0),
    ] {
        assert_eq!(count(arguments, "lost.txt"), incidents, "{arguments:?}");
    }
    // Where a relative path leads is not known: it cannot exclude a loss.
    assert_eq!(count(&["--path", "/srv"], "hostile-names.txt"), 2);
}

#[test]
fn what_cannot_be_read_is_status_2_with_the_remedy() {
    let scratch = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = scratch.path().join(name);
        fs::write(&path, text).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let newer = String::from_utf8(streams().remove(0).1)
        .unwrap()
        .replace("mst1", "mst2");
    for (path, parts) in [
        (file("empty", ""), ["is empty", "argument `facts`"]),
        (
            file("foreign", "CPU     ID\n  0  1\n"),
            ["no start line in 2 lines", "facts"],
        ),
        (
            file("newer", &newer),
            ["is of version mst2", "from the same version"],
        ),
        (
            "/nonexistent/run.mst".to_owned(),
            ["cannot read /nonexistent/run.mst", "or - for"],
        ),
        ("/".to_owned(), ["cannot read /", "directory"]),
    ] {
        let output = ingest(&[&path]).output().unwrap();
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(output.stdout.is_empty());
        for part in parts {
            assert!(message.contains(part), "{path} lacks {part}: {message}");
        }
    }
}

/// Ctrl-C ends both sides of a pipe: what the other one says on its way out is waited for.
#[test]
fn a_signal_waits_for_the_last_lines_and_prints_the_summary() {
    let (_, stream) = streams()
        .into_iter()
        .find(|(name, _)| name == "lost")
        .unwrap();
    let last_lines = stream.len() - 400;
    let mut child = ingest(&["-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(&stream[..last_lines]).unwrap();
    // The first line of output says that the signals are watched for.
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut header = String::new();
    std::io::BufRead::read_line(&mut stdout, &mut header).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    pipe.write_all(&stream[last_lines..]).unwrap();
    drop(pipe);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    let messages = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{messages}");
    assert!(messages.contains("3 incidents"), "{messages}");
    assert!(
        messages.contains("complete: no event was dropped"),
        "{messages}"
    );
    assert!(rest.contains("caller"), "{rest}");
}
