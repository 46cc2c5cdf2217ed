//! docs/metrics.md and docs/serve.md list what the program has.

use std::{fs, path::PathBuf};

use msync_trace::{cli, output::metrics};

fn docs(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name)
}

/// `UPDATE_DOCS=1` writes the page.
fn is_current(name: &str, expected: &str) {
    let path = docs(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, expected).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap();
    assert!(
        there == expected,
        "docs/{name} is out of date: UPDATE_DOCS=1 cargo test -p msync-trace --test metrics"
    );
}

#[test]
fn the_page_of_metrics_is_current() {
    is_current("metrics.md", &metrics::document());
}

/// The table of keys stands between two marks in a page that is written by hand.
#[test]
fn the_table_of_keys_is_current() {
    const BEGIN: &str = "<!-- keys: made from msync-trace/src/cli/serve.rs -->\n";
    const END: &str = "<!-- end of keys -->\n";
    let page = fs::read_to_string(docs("serve.md")).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let table = cli::serve::document();
    is_current("serve.md", &format!("{before}{BEGIN}{table}{END}{after}"));
}
