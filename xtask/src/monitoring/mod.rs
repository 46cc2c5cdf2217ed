//! `cargo xtask monitoring`: a loss on a disk that fails, from the daemon through Prometheus and
//! Alertmanager to who is woken.

mod engines;
mod pager;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::{
    daemon::Daemon,
    faults::{self, BLOCK},
    http,
    step::is_root,
    stress::{
        disk::{Disk, spoil},
        sync_loops::Mapping,
    },
};
use engines::Engines;
use pager::Pager;

/// Lose data beside real Prometheus, Alertmanager and node_exporter, and see who is told
///
/// Takes the programs of Debian's packages prometheus, prometheus-alertmanager and
/// prometheus-node-exporter (`cargo xtask test --only monitoring` installs them). Rules and
/// configurations are those of packaging/, with a minute made two seconds; all ports are of this machine.
#[derive(Args)]
pub struct MonitoringArgs {
    /// The tool to test
    #[arg(
        long,
        default_value = "target/release/msync-trace",
        value_name = "PATH"
    )]
    msync_trace: PathBuf,
}

/// For the whole.
const PATIENCE: Duration = Duration::from_secs(40);
/// Of the file that loses them.
const PAGES: usize = 16;
const LOSS: &str = "MsyncTraceSilentLoss";
const FAILURES: &str = "MsyncTraceWriteFailures";
const ABSENT: &str = "MsyncTraceAbsent";

/// Looks at something; what was seen, for people.
type Look = fn(&mut Place) -> Result<String>;

/// What is looked at, in this order.
const STEPS: &[(&str, Look)] = &[
    ("prometheus scrapes, all is quiet", quiet),
    ("a silent loss fires in Alertmanager", loss),
    ("amtool shows it", amtool),
    ("somebody is woken", woken),
    ("failing writes wake nobody besides", inhibited),
    ("no other alert", no_other),
    ("node_exporter shows the text file", textfile),
    ("stopped: absent", absent),
];

/// Runs them; the exit status of this process.
pub fn run(args: &MonitoringArgs) -> Result<u8> {
    ensure!(is_root(), "a file system is mounted: run as root");
    let program = &args.msync_trace;
    ensure!(
        program.exists(),
        "{} is missing: cargo build --release makes it",
        program.display()
    );
    faults::load_modules();
    faults::private_mounts()?;
    let mut place = Place::new(program)?;
    let (mut passed, mut failed) = (0, 0);
    for (name, look) in STEPS {
        let began = Instant::now();
        match look(&mut place) {
            Ok(said) => {
                passed += 1;
                println!("PASS {name} ({} ms): {said}", began.elapsed().as_millis());
            }
            Err(error) => {
                failed += 1;
                println!("FAIL {name}: {error:#}");
            }
        }
    }
    println!("{passed} passed, {failed} failed, 0 skipped");
    Ok(u8::from(failed > 0))
}

/// All that runs. What is dropped first stands first: the disk is unmounted when nobody uses it.
struct Place {
    serve: Option<Daemon>,
    engines: Engines,
    pager: Pager,
    mapping: Mapping,
    file: File,
    disk: Disk,
    serve_port: u16,
    /// Everything that is written.
    folder: tempfile::TempDir,
    deadline: Instant,
}

impl Place {
    fn new(program: &Path) -> Result<Self> {
        // It forks, so it comes before everything that has threads.
        let disk = Disk::new(1, PAGES)?;
        let file = disk.file(0, PAGES)?;
        disk.sync()?;
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("textfiles"))?;
        let (pager, serve_port) = (Pager::start()?, http::free_port()?);
        let engines = Engines::start(folder.path(), serve_port, &at("textfiles"), pager.port)?;
        let options = [
            "--pin=false".to_owned(),
            format!("--listen=127.0.0.1:{serve_port}"),
            format!("--json={}", at("records.jsonl").display()),
            format!(
                "--metrics-textfile={}",
                at("textfiles/msync-trace.prom").display()
            ),
            "--metrics-interval=1s".to_owned(),
        ];
        let serve = Daemon::serve(program, &options, &at("serve.log"))?;
        Ok(Self {
            serve: Some(serve),
            engines,
            pager,
            mapping: Mapping::new(&file, PAGES * BLOCK)?,
            file,
            disk,
            serve_port,
            folder,
            deadline: Instant::now() + PATIENCE,
        })
    }

    /// Asks again and again until there is an answer. The last refusal is the error.
    fn wait<T>(&mut self, mut look: impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        loop {
            match look(self) {
                Err(error) if Instant::now() > self.deadline => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(100)),
                found => return found,
            }
        }
    }

    fn device(&self) -> Result<&str> {
        let name = self.disk.device().file_name().and_then(|it| it.to_str());
        name.context("a device without a name")
    }

    /// Whether an alert is about our disk, or about none. Other disks may fail at the same time.
    fn is_ours(&self, alert: &Value) -> Result<bool> {
        let device = alert["labels"]["device"].as_str();
        Ok(device.is_none() || device == Some(self.device()?))
    }

    /// Of these.
    fn ours(&self, alerts: &Value) -> Result<Vec<Value>> {
        let mut ours = Vec::new();
        for alert in alerts.as_array().context("no list of alerts")? {
            if self.is_ours(alert)? {
                ours.push(alert.clone());
            }
        }
        Ok(ours)
    }

    /// What Prometheus says there is to worry about: name and state.
    fn alerts(&self) -> Result<Vec<(String, String)>> {
        let answer = http::get_json(self.engines.prometheus_port, "/api/v1/alerts")?;
        let alerts = self.ours(&answer["data"]["alerts"])?;
        let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        Ok(alerts
            .iter()
            .map(|it| (text(&it["labels"]["alertname"]), text(&it["state"])))
            .collect())
    }

    /// What Alertmanager has of an alert about our daemon.
    fn alert(&self, name: &str) -> Result<Value> {
        let answer = http::get_json(self.engines.alertmanager_port, "/api/v2/alerts")?;
        let alerts = self.ours(&answer)?;
        let instance = format!("127.0.0.1:{}", self.serve_port);
        let found = alerts
            .iter()
            .find(|it| it["labels"]["alertname"] == name && it["labels"]["instance"] == *instance);
        found
            .cloned()
            .with_context(|| format!("Alertmanager has no {name}: {answer}"))
    }

    /// Who was called, and about which alerts.
    fn calls(&self) -> Result<Vec<(String, Vec<String>)>> {
        let mut calls = Vec::new();
        for (path, call) in self.pager.received() {
            let alerts = self.ours(&call["alerts"])?;
            if !alerts.is_empty() {
                let names = alerts
                    .iter()
                    .map(|it| it["labels"]["alertname"].to_string());
                calls.push((path, names.collect()));
            }
        }
        Ok(calls)
    }

    /// The labels that an alert about our disk has to have: all of them.
    fn labels(&self, pairs: &[(&str, &str)]) -> Result<BTreeMap<String, String>> {
        let (instance, device) = (format!("127.0.0.1:{}", self.serve_port), self.device()?);
        let common = [
            ("job", "msync-trace"),
            ("instance", &*instance),
            ("fstype", "ext4"),
            ("device", device),
            ("errno", "EIO"),
        ];
        let all = common.iter().chain(pairs);
        Ok(all
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect())
    }
}

fn quiet(place: &mut Place) -> Result<String> {
    place.wait(|place| place.engines.must_answer())?;
    let (port, device) = (place.engines.prometheus_port, place.device()?.to_owned());
    let query = format!("msync_trace_losses_total{{device=\"{device}\"}}");
    let path = format!("/api/v1/query?query={}", http::quoted(&query));
    let series = place.wait(|_| {
        let answer = http::get_json(port, &path)?;
        let series = answer["data"]["result"].as_array().cloned();
        let series = series.filter(|it| !it.is_empty());
        series.with_context(|| format!("Prometheus has nothing of {query}"))
    })?;
    for one in &series {
        ensure!(one["value"][1] == "0", "not 0 before a loss: {one}");
    }
    let rules = place.wait(|_| {
        let answer = http::get_json(port, "/api/v1/rules?type=alert")?;
        let rules = answer["data"]["groups"][0]["rules"].as_array().cloned();
        let rules = rules.context("no rules")?;
        for rule in &rules {
            ensure!(rule["health"] == "ok", "a rule cannot be evaluated: {rule}");
        }
        Ok(rules.len())
    })?;
    place.wait(|place| {
        let alerts = place.alerts()?;
        ensure!(
            alerts.is_empty(),
            "alerts though nothing happened: {alerts:?}"
        );
        Ok(())
    })?;
    Ok(format!(
        "{rules} rules, {} series with 0 for {device}",
        series.len()
    ))
}

fn loss(place: &mut Place) -> Result<String> {
    spoil(&place.file, PAGES)?;
    place.disk.fail()?;
    ensure!(!place.mapping.sync(), "the disk took the bytes");
    ensure!(
        (0..3).any(|_| place.mapping.sync()),
        "msync goes on failing"
    );
    let lost = Instant::now();
    let records = place.folder.path().join("records.jsonl");
    let path = place.disk.path_of(0);
    place.wait(|_| {
        let lines = fs::read_to_string(&records)?;
        let incident = lines
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|it| it["type"] == "incident" && it["file"]["path"].as_str() == path.to_str());
        incident.context("no line of JSON").map(drop)
    })?;
    let written = lost.elapsed();
    let alert = place.wait(|place| place.alert(LOSS))?;
    let took = lost.elapsed();
    let own = [
        ("alertname", LOSS),
        ("severity", "critical"),
        ("told", "caller"),
    ];
    let labels: BTreeMap<String, String> = serde_json::from_value(alert["labels"].clone())?;
    let wanted = place.labels(&own)?;
    ensure!(labels == wanted, "labels {labels:?}, expected {wanted:?}");
    let summary = alert["annotations"]["summary"].as_str().unwrap_or("");
    let device = place.device()?;
    ensure!(summary.contains(device), "the summary is {summary:?}");
    ensure!(alert["status"]["state"] == "active", "{alert}");
    Ok(format!(
        "a line of JSON after {} ms, the alert after {} ms",
        written.as_millis(),
        took.as_millis()
    ))
}

fn amtool(place: &mut Place) -> Result<String> {
    let url = format!("http://127.0.0.1:{}", place.engines.alertmanager_port);
    let alerts = run_amtool(&[
        &format!("--alertmanager.url={url}"),
        "--output=json",
        "alert",
        "query",
        LOSS,
        &format!("device={}", place.device()?),
    ])?;
    let alerts: Value = serde_json::from_str(&alerts)?;
    let name = alerts[0]["labels"]["alertname"].as_str();
    ensure!(name == Some(LOSS), "amtool shows {alerts}");
    let config = place.engines.alertmanager_config.to_string_lossy();
    run_amtool(&["check-config", &config])?;
    Ok("and takes the configuration".to_owned())
}

fn run_amtool(arguments: &[&str]) -> Result<String> {
    let output = Command::new("amtool").args(arguments).output();
    let output = output.context("cannot run amtool")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{arguments:?}: {said}{complained}");
    Ok(said)
}

fn woken(place: &mut Place) -> Result<String> {
    let (path, alerts) = place.wait(|place| {
        let first = place.calls()?.into_iter().next();
        first.context("nobody was called")
    })?;
    ensure!(path == "/now", "{path} was called because of {alerts:?}");
    ensure!(
        alerts == [format!("{LOSS:?}")],
        "called because of {alerts:?}"
    );
    Ok(format!("by {path}, because of {LOSS}"))
}

fn inhibited(place: &mut Place) -> Result<String> {
    let alert = place.wait(|place| {
        let alert = place.alert(FAILURES)?;
        let state = &alert["status"]["state"];
        ensure!(
            state == "suppressed",
            "{FAILURES} is {state} beside the loss"
        );
        Ok(alert)
    })?;
    let labels: BTreeMap<String, String> = serde_json::from_value(alert["labels"].clone())?;
    let wanted = place.labels(&[("alertname", FAILURES), ("severity", "warning")])?;
    ensure!(labels == wanted, "labels {labels:?}, expected {wanted:?}");
    Ok(format!("{FAILURES} is suppressed"))
}

fn no_other(place: &mut Place) -> Result<String> {
    let alerts = place.alerts()?;
    let other = alerts
        .iter()
        .find(|(name, _)| name != LOSS && name != FAILURES);
    ensure!(other.is_none(), "{other:?} though all is seen");
    let calls = place.calls()?;
    let other = calls.iter().find(|(path, _)| path != "/now");
    ensure!(other.is_none(), "called besides: {other:?}");
    Ok(format!("{} alerts, {} call", alerts.len(), calls.len()))
}

/// Names of metrics and their types, as they stand in a text.
fn families(text: &str) -> Vec<&str> {
    let lines = text.lines();
    lines
        .filter(|line| line.starts_with("# TYPE msync_trace_"))
        .collect()
}

fn textfile(place: &mut Place) -> Result<String> {
    let ours = http::get(place.serve_port, "/metrics")?;
    let ours = families(&ours);
    ensure!(ours.len() > 20, "only {} metrics", ours.len());
    let sample = format!(
        "msync_trace_losses_total{{device=\"{}\",errno=\"EIO\",fstype=\"ext4\",told=\"caller\"}} 1",
        place.device()?
    );
    place.wait(|place| {
        let shown = http::get(place.engines.node_exporter_port, "/metrics")?;
        let there = families(&shown);
        let missing: Vec<_> = ours.iter().filter(|it| !there.contains(it)).collect();
        ensure!(
            missing.is_empty(),
            "node_exporter does not show {missing:?}"
        );
        let has = |wanted: &str| shown.lines().any(|line| line == wanted);
        ensure!(has("node_textfile_scrape_error 0"), "it complains");
        ensure!(has(&sample), "node_exporter does not show {sample}");
        Ok(())
    })?;
    Ok(format!("{} metrics, and the loss", ours.len()))
}

fn absent(place: &mut Place) -> Result<String> {
    let serve = place.serve.take().context("it ended before")?;
    let status = serve.end()?;
    ensure!(status.success(), "serve ended with {status}");
    let stopped = Instant::now();
    place.wait(|place| {
        let alerts = place.alerts()?;
        let found = alerts.iter().any(|(name, _)| name == ABSENT);
        ensure!(found, "{ABSENT} is not even pending: {alerts:?}");
        Ok(())
    })?;
    let pending = stopped.elapsed();
    place.wait(|place| place.alert(ABSENT))?;
    Ok(format!(
        "pending after {} ms, in Alertmanager after {} ms",
        pending.as_millis(),
        stopped.elapsed().as_millis()
    ))
}
