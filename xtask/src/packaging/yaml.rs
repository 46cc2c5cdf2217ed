//! YAML as JSON, by way of Python: no YAML crate is kept well enough to depend on.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::setup;

const CONVERT: &str = "import json, sys, yaml
json.dump([document for document in yaml.safe_load_all(sys.stdin) if document], sys.stdout)";

/// All documents of a text.
pub fn read(text: &str) -> Result<Vec<Value>> {
    let mut python = Command::new(setup::YAML_PYTHON)
        .args(["-c", CONVERT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run Python")?;
    // Dropped at once: the end of its input. Our texts are short enough for the pipe.
    let mut input = python
        .stdin
        .take()
        .context("Python has no standard input")?;
    input.write_all(text.as_bytes())?;
    drop(input);
    let output = python.wait_with_output()?;
    ensure!(output.status.success(), "Python cannot read it as YAML");
    Ok(serde_json::from_slice(&output.stdout)?)
}
