//! Licences and notices of the crates that are compiled in: they ask to go with every copy.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{cargo, sorted};

const HEAD: &str = "\
msync-trace is made with the crates below. Each has the licence that stands beside its name; the texts
follow. The static program also holds parts of the GNU C library (LGPL-2.1-or-later) and of GCC's
support library (GPL-3.0-or-later WITH GCC-exception-3.1); their source is that of Debian's packages
glibc and gcc-12, and this project's source and `cargo xtask dist` link it anew with another version.
SQLite is in the public domain.

";

/// One text with all of them.
pub fn all() -> Result<String> {
    let metadata = metadata()?;
    let used = used(&metadata).context("cargo metadata has another form than expected")?;
    let mut text = HEAD.to_owned();
    let packages = metadata["packages"].as_array().context("no packages")?;
    let packages: Vec<&Value> = packages
        .iter()
        .filter(|package| package["id"].as_str().is_some_and(|id| used.contains(id)))
        .collect();
    for package in &packages {
        writeln!(text, "{}: {}", name(package), word(package, "license"))?;
    }
    let mut said = BTreeSet::new();
    for package in &packages {
        for notice in notices(package)? {
            if said.insert(notice.clone()) {
                write!(text, "\n=== {} ===\n\n{notice}\n", name(package))?;
            } else {
                writeln!(text, "\n=== {}: a text from above", name(package))?;
            }
        }
    }
    Ok(text)
}

fn metadata() -> Result<Value> {
    let mut cargo: Command = cargo(&["metadata", "--format-version", "1"]);
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = cargo.args(["--filter-platform", &target]).output()?;
    ensure!(
        output.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What the program is linked from, by id: neither tests nor build scripts, nor what is ours.
fn used(metadata: &Value) -> Option<BTreeSet<&str>> {
    let nodes = metadata["resolve"]["nodes"].as_array()?;
    let ours = |id: &str| id.starts_with("path+");
    let node = |id: &str| nodes.iter().find(|node| node["id"] == id);
    let start = nodes.iter().find(|node| {
        let id = node["id"].as_str().unwrap_or_default();
        ours(id) && id.contains("/msync-trace#")
    })?;
    let mut used = BTreeSet::new();
    let mut waiting = vec![start];
    while let Some(at) = waiting.pop() {
        for dependency in at["deps"].as_array()? {
            let kinds = dependency["dep_kinds"].as_array()?;
            let id = dependency["pkg"].as_str()?;
            if kinds.iter().any(|kind| kind["kind"].is_null()) && used.insert(id) {
                waiting.extend(node(id));
            }
        }
    }
    used.retain(|id| !ours(id));
    Some(used)
}

fn word<'a>(package: &'a Value, key: &str) -> &'a str {
    package[key].as_str().unwrap_or("see its text")
}

fn name(package: &Value) -> String {
    format!("{} {}", word(package, "name"), word(package, "version"))
}

/// Its files that are named as licences are.
fn notices(package: &Value) -> Result<Vec<String>> {
    let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
    let folder = manifest.parent().context("a package without a folder")?;
    let mut texts = Vec::new();
    for path in sorted(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.to_uppercase();
        let is_notice = ["LICENSE", "LICENCE", "COPYING", "NOTICE"]
            .iter()
            .any(|begin| name.starts_with(begin));
        if is_notice && path.is_file() {
            texts.push(String::from_utf8_lossy(&fs::read(&path)?).trim().to_owned());
        }
    }
    Ok(texts)
}
