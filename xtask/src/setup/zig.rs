//! zig, as a C compiler and linker that knows FreeBSD's C library.

use std::path::PathBuf;

use anyhow::Result;

use super::{Finding, Thing, python};

const PACKAGE: &str = "ziglang";
const VERSION: &str = "0.17.1";

/// zig as a thing to install.
pub fn thing() -> Box<dyn Thing> {
    Box::new(Zig)
}

/// Where `zig` is. Only our own: another version may describe another FreeBSD.
pub fn program() -> Option<PathBuf> {
    let libraries = python::environment(PACKAGE, VERSION).join("lib");
    let versions = std::fs::read_dir(libraries).ok()?;
    versions
        .filter_map(|version| Some(version.ok()?.path().join("site-packages/ziglang/zig")))
        .find(|zig| zig.is_file())
}

struct Zig;

impl Thing for Zig {
    fn name(&self) -> String {
        "zig".to_owned()
    }

    fn why(&self) -> &str {
        "links programs for FreeBSD"
    }

    fn find(&self) -> Finding {
        match program() {
            Some(zig) => Finding::Found(format!("({})", zig.display())),
            None => Finding::Missing,
        }
    }

    fn install(&self) -> Result<()> {
        python::install(PACKAGE, VERSION)
    }
}
