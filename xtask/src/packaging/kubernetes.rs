//! The DaemonSet asks for what the unit asks for, and says why.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Tests, yaml};
use crate::paths;

pub fn run(tests: &mut Tests) {
    tests.test("the DaemonSet has the capabilities of the unit", || {
        let (pod, _) = manifest()?;
        let context = &pod["containers"][0]["securityContext"];
        let wanted = list(&context["capabilities"]["add"]);
        let unit = unit()?;
        ensure!(wanted == unit, "DaemonSet {wanted:?}, unit {unit:?}");
        ensure!(
            list(&context["capabilities"]["drop"]).contains("ALL"),
            "capabilities that are not named are kept"
        );
        ensure!(context["privileged"] == false, "it is privileged");
        Ok(())
    });
    tests.test(
        "each capability and host path of the DaemonSet has its comment",
        || {
            let (pod, text) = manifest()?;
            let added = &pod["containers"][0]["securityContext"]["capabilities"]["add"];
            let capabilities = list(added).into_iter().map(|name| format!("- {name}"));
            let volumes = pod["volumes"].as_array().context("no volumes")?;
            let names = volumes.iter().filter_map(|volume| volume["name"].as_str());
            let volumes = names.map(|name| format!("- name: {name}"));
            for entry in capabilities.chain(volumes) {
                ensure!(
                    has_comment(&text, &entry),
                    "{entry} has no comment above it"
                );
            }
            Ok(())
        },
    );
    tests.test("what the DaemonSet mounts is there", || {
        let (pod, _) = manifest()?;
        let names = |of: &Value| -> BTreeSet<String> {
            let entries = of.as_array().into_iter().flatten();
            entries
                .filter_map(|it| Some(it["name"].as_str()?.to_owned()))
                .collect()
        };
        let mounted = names(&pod["containers"][0]["volumeMounts"]);
        ensure!(
            mounted == names(&pod["volumes"]),
            "mounts and volumes differ"
        );
        Ok(())
    });
}

/// What the DaemonSet runs, and the text.
fn manifest() -> Result<(Value, String)> {
    let text = fs::read_to_string(paths::root().join("packaging/kubernetes/daemonset.yaml"))?;
    let documents = yaml::read(&text)?;
    let set = documents.into_iter().find(|it| it["kind"] == "DaemonSet");
    let set = set.context("no DaemonSet")?;
    Ok((set["spec"]["template"]["spec"].clone(), text))
}

fn list(of: &Value) -> BTreeSet<String> {
    let words = of.as_array().into_iter().flatten();
    words
        .filter_map(|word| Some(word.as_str()?.to_owned()))
        .collect()
}

/// Of the unit, as Kubernetes names them.
fn unit() -> Result<BTreeSet<String>> {
    let unit = fs::read_to_string(paths::root().join("packaging/systemd/msync-trace.service"))?;
    let line = unit
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .context("the unit has no CapabilityBoundingSet")?;
    Ok(line
        .split_whitespace()
        .map(|name| name.replacen("CAP_", "", 1))
        .collect())
}

fn has_comment(text: &str, entry: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines
        .windows(2)
        .any(|pair| pair[1] == entry && pair[0].starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_without_a_comment_is_found() {
        assert!(has_comment("add:\n  # Why.\n  - BPF", "- BPF"));
        assert!(!has_comment("  # Why.\n  - BPF\n  - PERFMON", "- PERFMON"));
    }
}
