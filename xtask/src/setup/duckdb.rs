//! DuckDB, an engine that asks the exported evidence of many hosts.

use std::path::PathBuf;

use anyhow::Result;

use super::{Finding, Thing, python};

const PACKAGE: &str = "duckdb";
const VERSION: &str = "1.4.5";

/// DuckDB as a thing to install.
pub fn thing() -> Box<dyn Thing> {
    Box::new(DuckDb)
}

/// A Python that has the module `duckdb`.
pub fn python() -> Option<PathBuf> {
    let environment = python::environment(PACKAGE, VERSION);
    let mut versions = std::fs::read_dir(environment.join("lib")).ok()?;
    let installed = versions.any(|version| {
        version.is_ok_and(|version| version.path().join("site-packages/duckdb").is_dir())
    });
    installed.then(|| environment.join("bin/python"))
}

struct DuckDb;

impl Thing for DuckDb {
    fn name(&self) -> String {
        "duckdb".to_owned()
    }

    fn why(&self) -> &str {
        "asks exported evidence of many hosts"
    }

    fn find(&self) -> Finding {
        match python() {
            Some(python) => Finding::Found(format!("({})", python.display())),
            None => Finding::Missing,
        }
    }

    fn install(&self) -> Result<()> {
        python::install(PACKAGE, VERSION)
    }
}
