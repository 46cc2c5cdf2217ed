//! What `rescue` prints.

use std::{
    fmt::Write as _,
    io::{self, Write},
    path::Path,
};

use crate::{
    model::Verified,
    output::escape,
    rescue::{InCache, Manifest, OnDisk, Pages},
};

/// So many lines of pages are shown; all are in the JSON form.
const LINES: usize = 40;

/// For programs: the manifest.
pub(super) fn json(manifest: &Manifest) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(manifest)?;
    text.push(b'\n');
    io::stdout().write_all(&text)
}

/// For people.
pub(super) fn text(manifest: &Manifest, directory: Option<&Path>) -> io::Result<()> {
    io::stdout().write_all(render(manifest, directory).as_bytes())
}

fn render(manifest: &Manifest, directory: Option<&Path>) -> String {
    let mut out = String::new();
    let file = &manifest.file;
    let path = file.path.as_ref();
    let path = path.map_or_else(|| "? (no name)".to_owned(), |path| escape(path.as_bytes()));
    let _ = writeln!(
        out,
        "{path}: {} bytes, inode {} on {}",
        file.size, file.inode, file.dev
    );
    let _ = writeln!(out, "{:>12} {:<8} {:<8} RANGE", "BYTES", "MEMORY", "DISK");
    for pages in manifest.pages.iter().take(LINES) {
        let _ = writeln!(out, "{}", line(pages));
    }
    if manifest.pages.len() > LINES {
        let more = manifest.pages.len() - LINES;
        let _ = writeln!(out, "{more:>12} more lines: see them with -o json");
    }
    let _ = writeln!(out, "{}", verdict(manifest));
    if let Some(directory) = directory {
        let bytes: u64 = manifest.saved.iter().map(|saved| saved.range.len()).sum();
        let place = escape(directory.as_os_str().as_encoded_bytes());
        let _ = writeln!(out, "saved: {bytes} bytes as memory has them, in {place}");
        if let Some(why) = &manifest.not_saved {
            let _ = writeln!(out, "not everything was saved: {why}");
        }
    }
    out
}

fn line(pages: &Pages) -> String {
    let memory = match pages.in_cache {
        InCache::Clean => "yes",
        InCache::Dirty => "dirty",
        InCache::No => "no",
        InCache::Unknown => "unknown",
    };
    let disk = match pages.on_disk {
        OnDisk::Same => "same",
        OnDisk::Differs => "differs",
        OnDisk::Unknown => "unknown",
    };
    let why = pages.reason.as_ref();
    let why = why.map_or_else(String::new, |why| format!(" ({})", escape(why.as_bytes())));
    let bytes = pages.range.len();
    format!("{bytes:>12} {memory:<8} {disk:<8} {}{why}", pages.range)
}

fn verdict(manifest: &Manifest) -> String {
    let comparison = &manifest.comparison;
    match manifest.verified {
        Verified::Differs => format!(
            "differs: {} bytes are in pages that the disk has otherwise",
            comparison.differing_bytes
        ),
        Verified::Same => "same: memory and the disk have the same bytes. They were written after \
                           all, or evicted and read back since"
            .to_owned(),
        Verified::Unknown => match &comparison.reason {
            Some(why) => format!("unknown: {}", escape(why.as_bytes())),
            None => "unknown: nothing to compare in these bytes".to_owned(),
        },
    }
}
