//! Python's YAML: manifests are checked after it has read them.

use std::process::Command;

use super::{Finding, Thing};

/// The system's Python, for which distributions package modules.
pub const PYTHON: &str = "/usr/bin/python3";

/// It as a thing to install.
pub fn thing() -> Box<dyn Thing> {
    Box::new(Yaml)
}

struct Yaml;

impl Thing for Yaml {
    fn name(&self) -> String {
        "yaml".to_owned()
    }

    fn why(&self) -> &str {
        "reads manifests and alert rules"
    }

    fn find(&self) -> Finding {
        let import = Command::new(PYTHON).args(["-c", "import yaml"]).output();
        match import.is_ok_and(|output| output.status.success()) {
            true => Finding::Found(format!("({PYTHON})")),
            false => Finding::Missing,
        }
    }

    fn packages(&self) -> Vec<String> {
        vec!["python3-yaml".to_owned()]
    }
}
