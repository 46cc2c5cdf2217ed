//! Which Rust toolchain builds the eBPF programs, and what to say when none can.
//!
//! Knows nothing of cargo's build scripts: `build.rs` and `cargo xtask setup` both include this
//! file, so that what one installs is what the other takes. `cargo xtask` runs its tests.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// Names a toolchain of one's own choice; the rule below is then not used.
pub const OVERRIDE: &str = "MSYNC_TRACE_EBPF_TOOLCHAIN";

/// The name under which set-up links the compiler of Debian's rustc-web into rustup.
pub const DEBIAN: &str = "debian-web";

/// What a compiler says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    /// Takes `-Z` flags without `RUSTC_BOOTSTRAP=1`.
    pub nightly: bool,
    /// The major version of its LLVM, whose bitcode the linker must be able to read.
    pub llvm: u32,
    /// The source of `core` is there, to be compiled for a target that ships none.
    pub core_source: bool,
}

/// The toolchain that builds the eBPF programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Its name in rustup; nothing where there is no rustup and the compiler in PATH is used.
    pub name: Option<String>,
    /// What its compiler says.
    pub compiler: Compiler,
}

/// What keeps the eBPF programs from being built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No toolchain has the source of `core`; those that were asked.
    CoreSource(Vec<String>),
    /// No `bpf-linker` in PATH or cargo's bin folder.
    BpfLinker,
}

impl Missing {
    /// One sentence: what is missing and what to do about it.
    pub fn sentence(&self) -> String {
        let what = match self {
            Self::CoreSource(asked) => {
                format!(
                    "rust-src (the source of `core`) is in none of these Rust toolchains: {}",
                    asked.join(", ")
                )
            }
            Self::BpfLinker => "`bpf-linker` is not installed".to_owned(),
        };
        format!("cannot build the eBPF programs: {what}; `cargo xtask setup` installs it")
    }
}

/// Reads `rustc -vV`.
pub fn parse_verbose_version(text: &str, core_source: bool) -> Option<Compiler> {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let release = field("release:")?;
    let llvm = field("LLVM version:")?.split('.').next()?.parse().ok()?;
    let nightly = release.ends_with("-nightly") || release.ends_with("-dev");
    Some(Compiler {
        nightly,
        llvm,
        core_source,
    })
}

/// Chooses among toolchains in order of preference: the first that has the source of `core` and
/// whose LLVM is not newer than the linker's; failing the latter, the first with the source.
pub fn choose(
    candidates: &[Option<String>],
    linker_llvm: Option<u32>,
    ask: impl Fn(Option<&str>) -> Option<Compiler>,
) -> Result<Chosen, Missing> {
    let usable: Vec<Chosen> = candidates
        .iter()
        .filter_map(|name| {
            let compiler = ask(name.as_deref())?;
            compiler.core_source.then(|| Chosen {
                name: name.clone(),
                compiler,
            })
        })
        .collect();
    let linkable = |chosen: &&Chosen| linker_llvm.is_none_or(|llvm| chosen.compiler.llvm <= llvm);
    usable
        .iter()
        .find(linkable)
        .or(usable.first())
        .cloned()
        .ok_or_else(|| {
            let label =
                |name: &Option<String>| name.clone().unwrap_or("the one in PATH".to_owned());
            Missing::CoreSource(candidates.iter().map(label).collect())
        })
}

/// The toolchains worth asking on this machine, best first.
pub fn candidates(override_name: Option<String>, rustup: bool) -> Vec<Option<String>> {
    match (override_name, rustup) {
        (_, false) => vec![None],
        (Some(name), true) => vec![Some(name)],
        (None, true) => vec![Some("nightly".to_owned()), Some(DEBIAN.to_owned())],
    }
}

/// The LLVM that `bpf-linker` was built with, from cargo's record of installed programs.
pub fn linker_llvm_from_record(crates2_json: &str) -> Option<u32> {
    let record = &crates2_json[crates2_json.find("\"bpf-linker ")?..];
    let features = &record[record.find("\"features\"")?..];
    let features = &features[..features.find(']')?];
    let version = &features[features.find("\"llvm-")? + "\"llvm-".len()..];
    version.split('"').next()?.parse().ok()
}

/// Asks the machine: which toolchain, given what is installed.
pub fn find() -> Result<Chosen, Missing> {
    find_for(linker_llvm())
}

/// Asks the machine: which toolchain, for a linker with this LLVM.
pub fn find_for(linker_llvm: Option<u32>) -> Result<Chosen, Missing> {
    let rustup = find_program("rustup").is_some();
    choose(
        &candidates(env::var(OVERRIDE).ok(), rustup),
        linker_llvm,
        ask_rustc,
    )
}

/// Where `bpf-linker` is.
pub fn find_bpf_linker() -> Result<PathBuf, Missing> {
    find_program("bpf-linker").ok_or(Missing::BpfLinker)
}

/// The LLVM of the installed `bpf-linker`, if cargo installed it.
pub fn linker_llvm() -> Option<u32> {
    let record = std::fs::read_to_string(cargo_home()?.join(".crates2.json")).ok()?;
    linker_llvm_from_record(&record)
}

/// A program in PATH, or in cargo's own bin folder, which a distribution's PATH may lack.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(cargo_home().map(|home| home.join("bin")))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// Cargo's folder in the user's home.
pub fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
}

fn ask_rustc(toolchain: Option<&str>) -> Option<Compiler> {
    let rustc = |argument: &[&str]| {
        let mut command = match toolchain {
            Some(name) => {
                let mut rustup = Command::new(find_program("rustup")?);
                rustup.args(["run", name, "rustc"]);
                rustup
            }
            None => Command::new("rustc"),
        };
        // Cargo sets it to the toolchain that runs the build script.
        command.env_remove("RUSTC").args(argument);
        let output = command.output().ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let version = rustc(&["-vV"])?;
    let sysroot = rustc(&["--print", "sysroot"])?;
    let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core");
    parse_verbose_version(&version, core.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIGHTLY: &str = "rustc 1.97.0-nightly (abc 2026-05-20)\nbinary: rustc\n\
        host: x86_64-unknown-linux-gnu\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n";
    const DISTRIBUTION: &str = "rustc 1.96.0 (ac6 2026-05-25) (built from a source tarball)\n\
        release: 1.96.0\nLLVM version: 22.1.8\n";

    fn compiler(nightly: bool, llvm: u32, core_source: bool) -> Compiler {
        Compiler {
            nightly,
            llvm,
            core_source,
        }
    }

    #[test]
    fn reads_what_rustc_says_of_itself() {
        assert_eq!(
            parse_verbose_version(NIGHTLY, true),
            Some(compiler(true, 22, true))
        );
        assert_eq!(
            parse_verbose_version(DISTRIBUTION, false),
            Some(compiler(false, 22, false))
        );
        assert_eq!(
            parse_verbose_version("rustc: command not found", true),
            None
        );
    }

    #[test]
    fn nightly_comes_first_if_it_has_the_source_of_core() {
        let both = candidates(None, true);
        let complete = |_: Option<&str>| Some(compiler(true, 22, true));
        assert_eq!(
            choose(&both, Some(22), complete).unwrap().name.as_deref(),
            Some("nightly")
        );

        let nightly_bare =
            |name: Option<&str>| Some(compiler(name == Some("nightly"), 22, name == Some(DEBIAN)));
        assert_eq!(
            choose(&both, Some(22), nightly_bare)
                .unwrap()
                .name
                .as_deref(),
            Some(DEBIAN)
        );
    }

    #[test]
    fn a_compiler_newer_than_the_linker_gives_way_to_one_that_links() {
        let both = candidates(None, true);
        let nightly_newer = |name: Option<&str>| {
            let llvm = if name == Some("nightly") { 23 } else { 22 };
            Some(compiler(true, llvm, true))
        };
        let name = |llvm| choose(&both, llvm, nightly_newer).unwrap().name;
        assert_eq!(name(Some(22)).as_deref(), Some(DEBIAN));
        assert_eq!(name(None).as_deref(), Some("nightly"));
        assert_eq!(
            name(Some(21)).as_deref(),
            Some("nightly"),
            "setup then builds a new linker"
        );
    }

    #[test]
    fn the_override_is_the_only_candidate_and_no_rustup_means_the_compiler_in_path() {
        let own = Some("nightly-2026-05-20".to_owned());
        assert_eq!(candidates(own.clone(), false), [None]);
        assert_eq!(candidates(own.clone(), true), [own]);
    }

    #[test]
    fn the_sentence_names_what_is_missing_and_the_remedy() {
        let nothing = |_: Option<&str>| None;
        let missing = choose(&candidates(None, true), None, nothing).unwrap_err();
        assert_eq!(
            missing.sentence(),
            "cannot build the eBPF programs: rust-src (the source of `core`) is in none of these \
             Rust toolchains: nightly, debian-web; `cargo xtask setup` installs it"
        );
        assert!(
            Missing::BpfLinker
                .sentence()
                .contains("`bpf-linker` is not installed")
        );
        assert!(Missing::BpfLinker.sentence().contains("cargo xtask setup"));
    }

    #[test]
    fn cargo_remembers_which_llvm_the_linker_was_built_with() {
        let record = r#"{"installs":{"other 1.0.0 (r)":{"features":["llvm-19"]},
            "bpf-linker 0.13.0 (registry)":{"bins":["bpf-linker"],"features":["llvm-22"]}}}"#;
        assert_eq!(linker_llvm_from_record(record), Some(22));
        let by_default = r#"{"installs":{"bpf-linker 0.13.0 (r)":{"features":[]}}}"#;
        assert_eq!(linker_llvm_from_record(by_default), None);
        assert_eq!(linker_llvm_from_record("{}"), None);
    }
}
