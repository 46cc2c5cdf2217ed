//! Which file goes where, of a package and of the archive alike.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::sorted;
use crate::paths;

/// A file to be installed.
pub struct Installed {
    from: PathBuf,
    /// Below `/`.
    pub to: PathBuf,
    mode: u32,
    /// With `.gz` at the end.
    packed: bool,
}

/// Where Debian and others look for units of packages.
const UNITS: &str = "usr/lib/systemd/system";
pub const DOC: &str = "usr/share/doc/msync-trace";

/// All of them but for the licence, which each packaging has in a place of its own; `made` has what
/// `dist` generated.
pub fn files(made: &Path, program: &Path) -> Result<Vec<Installed>> {
    let packaging = paths::root().join("packaging");
    let plain = |from: PathBuf, to: String| Installed {
        from,
        to: to.into(),
        mode: 0o644,
        packed: false,
    };
    let mut files = vec![
        Installed {
            from: program.to_owned(),
            to: "usr/bin/msync-trace".into(),
            mode: 0o755,
            packed: false,
        },
        plain(
            packaging.join("msync-trace.toml"),
            "etc/msync-trace/msync-trace.toml".to_owned(),
        ),
    ];
    for unit in ["msync-trace.service", "msync-trace.socket"] {
        let from = packaging.join("systemd").join(unit);
        files.push(plain(from, format!("{UNITS}/{unit}")));
    }
    for (from, to) in [
        (
            "msync-trace.bash",
            "bash-completion/completions/msync-trace",
        ),
        ("_msync-trace", "zsh/vendor-completions/_msync-trace"),
        (
            "msync-trace.fish",
            "fish/vendor_completions.d/msync-trace.fish",
        ),
    ] {
        let from = made.join("completions").join(from);
        files.push(plain(from, format!("usr/share/{to}")));
    }
    for page in sorted(&made.join("man"))? {
        files.push(packed(page, "usr/share/man/man8")?);
    }
    files.push(packed(made.join("third-party-licences.txt"), DOC)?);
    files.push(Installed {
        // The name by which Debian's tools find it.
        to: Path::new(DOC).join("changelog"),
        ..packed(paths::root().join("CHANGELOG.md"), DOC)?
    });
    files.extend(documents()?);
    files.extend(examples(&packaging)?);
    Ok(files)
}

/// The texts of the licence.
pub fn licences(folder: &str) -> impl Iterator<Item = Installed> {
    ["LICENSE-APACHE", "LICENSE-MIT"]
        .map(|name| Installed {
            from: paths::root().join(name),
            to: Path::new(folder).join(name),
            mode: 0o644,
            packed: false,
        })
        .into_iter()
}

fn packed(from: PathBuf, folder: &str) -> Result<Installed> {
    let name = from.file_name().context("a file without a name")?;
    Ok(Installed {
        to: Path::new(folder).join(name),
        from,
        mode: 0o644,
        packed: true,
    })
}

/// The pages that are of use to who runs it, with what they show.
fn documents() -> Result<Vec<Installed>> {
    let root = paths::root();
    let mut found = vec![root.join("README.md")];
    found.extend(sorted(&root.join("docs"))?);
    found.extend(sorted(&root.join("docs/schema"))?);
    let files = found.into_iter().filter(|path| path.is_file());
    files
        .map(|from| {
            let name = from
                .strip_prefix(root.join("docs"))
                .or(from.strip_prefix(&root));
            Ok(Installed {
                to: Path::new(DOC).join(name?),
                from,
                mode: 0o644,
                packed: false,
            })
        })
        .collect()
}

/// Alert rules, dashboard and the like: for other machines than the traced one.
fn examples(packaging: &Path) -> Result<Vec<Installed>> {
    let mut files = Vec::new();
    for folder in ["prometheus", "grafana", "kubernetes", "fleet"] {
        let folder = packaging.join(folder);
        if folder.is_dir() {
            files.extend(sorted(&folder)?.into_iter().filter(|path| path.is_file()));
        }
    }
    files.push(packaging.join("systemd/network.conf"));
    let place = Path::new(DOC).join("examples");
    files
        .into_iter()
        .map(|from| {
            let name = from.file_name().context("a file without a name")?;
            Ok(Installed {
                to: place.join(name),
                from,
                mode: 0o644,
                packed: false,
            })
        })
        .collect()
}

impl Installed {
    /// Puts it where it belongs below `root`.
    pub fn put_below(&self, root: &Path) -> Result<()> {
        let mut to = root.join(&self.to);
        let bytes =
            fs::read(&self.from).with_context(|| format!("cannot read {}", self.from.display()))?;
        let bytes = if self.packed {
            to.as_mut_os_string().push(".gz");
            gzip(&bytes)?
        } else {
            bytes
        };
        write(&to, &bytes, self.mode)
    }
}

/// Writes a file and makes the folders on its way, for all to read whatever the umask.
pub fn write(to: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let folder = to.parent().context("a file without a folder")?;
    fs::create_dir_all(folder)?;
    fs::write(to, bytes).with_context(|| format!("cannot write {}", to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// As Debian wants it: best, and without a time in it.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = Command::new("gzip")
        .arg("-9n")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run gzip")?;
    let mut input = gzip.stdin.take().context("gzip has no standard input")?;
    let output = std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(bytes));
        gzip.wait_with_output()
    })?;
    ensure!(output.status.success(), "gzip failed");
    Ok(output.stdout)
}
