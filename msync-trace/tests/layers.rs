//! Imports go one way: model ← correlate, schema ← source, enrich, output, store ← check, rescue ← cmd ←
//! main. A room may use the rooms of earlier layers, never its own layer or a later one.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Rooms by layer. `cli` is what is typed for `cmd`.
const LAYERS: [&[&str]; 6] = [
    &["model"],
    &["correlate", "schema"],
    &["source", "enrich", "output", "store"],
    &["check", "rescue"],
    &["cli"],
    &["cmd"],
];

fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.contains(&room))
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Rooms that a file names as `crate::room`, or as `crate::{room::..., room::{...}}`.
fn rooms_used(text: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => used.extend(word(rest)),
            Some(group) => used.extend(heads(group)),
        }
    }
    used
}

fn word(text: &str) -> Option<String> {
    let end = text
        .find(|c: char| !c.is_ascii_lowercase() && c != '_')
        .unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

/// First words of the members of a `use` group, which ends at its closing brace.
fn heads(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut member = String::new();
    let mut found = Vec::new();
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => found.push(std::mem::take(&mut member)),
            _ => {}
        }
        if depth == 0 && c != ',' {
            member.push(c);
        }
    }
    found.push(member);
    found
        .iter()
        .filter_map(|member| word(member.trim()))
        .collect()
}

#[test]
fn imports_go_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for file in sources(&src) {
        let path = file.strip_prefix(&src).unwrap();
        let room = path.iter().next().unwrap().to_str().unwrap();
        let room = room.strip_suffix(".rs").unwrap_or(room);
        if matches!(room, "lib" | "main") {
            continue;
        }
        let Some(own) = layer(room) else {
            panic!("{} is in no room of the design", path.display());
        };
        for used in rooms_used(&fs::read_to_string(&file).unwrap()) {
            if used != room && layer(&used).is_none_or(|layer| layer >= own) {
                wrong.push(format!("{} uses {used}", path.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports against the order:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_reader_of_imports_reads_them() {
    let text = "use crate::{\n    model::{A, B},\n    schema::{self, C as D},\n};\nlet x = crate::output::y();";
    let expected: BTreeSet<_> = ["model", "schema", "output"].map(String::from).into();
    assert_eq!(rooms_used(text), expected);
}
