//! Alert rules and dashboard: Prometheus' own opinion, and that both speak of metrics that there are.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Tests, finds_nothing, yaml};
use crate::paths;

const PREFIX: &str = "msync_trace_";
const RULES: &str = "packaging/prometheus/msync-trace.rules.yml";
const FLEET: &str = "packaging/fleet";
const DASHBOARD: &str = "packaging/grafana/msync-trace.json";

pub fn run(tests: &mut Tests) {
    tests.test("promtool check rules", || {
        promtool("check", "msync-trace.rules.yml")
    });
    tests.test("promtool test rules", || {
        promtool("test", "msync-trace.test.yml")
    });
    tests.test("promtool check config", configuration);
    tests.test("the examples for fleets are YAML", || {
        for name in ["vector", "otel-collector", "alertmanager"] {
            let documents = yaml::read(&read(&format!("{FLEET}/{name}.yaml"))?)?;
            ensure!(
                documents.len() == 1,
                "{name}: {} documents",
                documents.len()
            );
        }
        Ok(())
    });
    tests.test("alerts ask for metrics that there are", || {
        let missing = unknown(&read(RULES)?, &documented()?);
        ensure!(missing.is_empty(), "not in docs/metrics.md: {missing:?}");
        Ok(())
    });
    tests.test("each alert has its section in docs/operations.md", sections);
    tests.test("the dashboard shows all metrics and no others", dashboard);
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(paths::root().join(path)).with_context(|| format!("cannot read {path}"))
}

fn promtool(what: &str, file: &str) -> Result<()> {
    let folder: PathBuf = paths::root().join("packaging/prometheus");
    let mut promtool = Command::new("promtool");
    finds_nothing(promtool.current_dir(folder).args([what, "rules", file]))
}

/// The example beside the rules, as they are installed.
fn configuration() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("prometheus.yml");
    fs::write(&config, read(&format!("{FLEET}/prometheus.yml"))?)?;
    fs::write(folder.path().join("msync-trace.rules.yml"), read(RULES)?)?;
    let output = Command::new("promtool")
        .args(["check", "config"])
        .arg(&config)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    Ok(())
}

/// Names of metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let word = |rest: &str| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        rest[..end.unwrap_or(rest.len())].to_owned()
    };
    let places = text.match_indices(PREFIX);
    places.map(|(at, _)| word(&text[at..])).collect()
}

fn documented() -> Result<BTreeSet<String>> {
    let page = read("docs/metrics.md")?;
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let known: BTreeSet<String> = rows.flat_map(names).collect();
    ensure!(!known.is_empty(), "docs/metrics.md has no table of metrics");
    Ok(known)
}

fn unknown(text: &str, known: &BTreeSet<String>) -> Vec<String> {
    names(text).difference(known).cloned().collect()
}

fn sections() -> Result<()> {
    let documents = yaml::read(&read(RULES)?)?;
    let groups = documents[0]["groups"].as_array().context("no groups")?;
    let rules = groups.iter().flat_map(|group| group["rules"].as_array());
    let page = read("docs/operations.md")?;
    let mut seen = 0;
    for rule in rules.flatten() {
        let alert = rule["alert"].as_str().context("a rule without an alert")?;
        ensure!(
            page.contains(&format!("\n### {alert}\n")),
            "no section {alert}"
        );
        let wanted = format!("operations.md#{}", alert.to_lowercase());
        let runbook = rule["annotations"]["runbook"].as_str();
        ensure!(
            runbook == Some(&*wanted),
            "{alert}: runbook is not {wanted}"
        );
        seen += 1;
    }
    ensure!(seen >= 6, "only {seen} alerts");
    Ok(())
}

fn dashboard() -> Result<()> {
    let document: Value = serde_json::from_str(&read(DASHBOARD)?)?;
    ensure!(document["schemaVersion"].is_u64(), "no schemaVersion");
    let variables = document["templating"]["list"].as_array();
    let variables = variables.context("no variables")?;
    let source = variables.iter().any(|it| it["type"] == "datasource");
    ensure!(source, "no variable for the data source");
    let panels = document["panels"].as_array().context("no panels")?;
    let asked: String = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array())
        .flatten()
        .filter_map(|target| target["expr"].as_str())
        .flat_map(|expression| [expression, "\n"])
        .collect();
    let known = documented()?;
    let missing = unknown(&asked, &known);
    ensure!(missing.is_empty(), "not in docs/metrics.md: {missing:?}");
    let shown = names(&asked);
    let unseen: Vec<_> = known.difference(&shown).collect();
    ensure!(unseen.is_empty(), "in no panel: {unseen:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_metrics_are_found_and_unknown_ones_named() {
        let known = names("| `msync_trace_ready` |");
        assert_eq!(names("a msync_trace_ready{x=\"1\"} == 0").len(), 1);
        assert_eq!(
            unknown("msync_trace_ready or msync_trace_redy", &known),
            ["msync_trace_redy"]
        );
    }
}
