//! Guest kernels from Debian's archive, unpacked into a folder each that virtme-ng can boot.
//!
//! The archive's address comes from the machine's own apt; the other suites have an apt state of
//! their own below the cache folder, so the machine's package lists stay as they are.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    paths,
    step::{Step, progress},
};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A line of kernels of which the newest is tested.
pub struct Series {
    /// Its name on our command line.
    pub name: &'static str,
    /// The suites it is in, of the main archive and of the security archive.
    suites: &'static [Suite],
    /// How its packages are cut.
    packages: Packages,
}

enum Suite {
    Main(&'static str),
    Security(&'static str),
}

enum Packages {
    /// One package; what stands in its name before and after the number that grows.
    Image {
        prefix: &'static str,
        suffix: &'static str,
    },
    /// Since 7.x the image and its modules are packages of their own.
    BinaryAndModules { preferred: &'static str },
}

/// Oldest first.
pub const SERIES: [Series; 4] = [
    Series {
        name: "5.10",
        suites: &[Suite::Security("bullseye-security")],
        packages: Packages::Image {
            prefix: "linux-image-5.10.0-",
            suffix: "-amd64",
        },
    },
    Series {
        name: "6.1",
        suites: &[
            Suite::Main("bookworm"),
            Suite::Security("bookworm-security"),
        ],
        packages: Packages::Image {
            prefix: "linux-image-6.1.0-",
            suffix: "-amd64",
        },
    },
    Series {
        name: "6.12",
        suites: &[Suite::Main("trixie")],
        packages: Packages::Image {
            prefix: "linux-image-6.12.",
            suffix: "+deb13-amd64",
        },
    },
    Series {
        name: "7.2",
        suites: &[Suite::Main("sid")],
        packages: Packages::BinaryAndModules { preferred: "7.2." },
    },
];

/// The series of which a guest has a disk and a systemd of its own (`packaging/booted`): it has most of
/// what that takes built in.
pub const BOOTED: &str = "6.12";

/// A kernel ready to boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// The name of its series.
    pub series: &'static str,
    /// Its `uname -r`.
    pub release: String,
    /// Where it is unpacked.
    pub folder: PathBuf,
}

impl Guest {
    /// The image to boot.
    pub fn image(&self) -> PathBuf {
        self.folder
            .join("boot")
            .join(format!("vmlinuz-{}", self.release))
    }
}

impl Series {
    /// The kernel of this series in the cache.
    pub fn cached(&self, cache: &Path) -> Option<Guest> {
        let folder = cache.join("kernels").join(self.name);
        let release = fs::read_to_string(folder.join("release"))
            .ok()?
            .trim()
            .to_owned();
        let guest = Guest {
            series: self.name,
            release,
            folder,
        };
        guest.image().is_file().then_some(guest)
    }

    /// Chooses the packages to unpack among those of the archive: the release and the names.
    fn choose(&self, available: &[String]) -> Option<(String, Vec<String>)> {
        match self.packages {
            Packages::Image { prefix, suffix } => {
                let newest = newest(available, prefix, suffix)?;
                let release = newest.strip_prefix("linux-image-")?.to_owned();
                Some((release, vec![newest.clone()]))
            }
            Packages::BinaryAndModules { preferred } => {
                let of =
                    |version: &str| newest(available, &format!("linux-binary-{version}"), "-amd64");
                let binary = of(preferred).or_else(|| of(""))?;
                let release = binary.strip_prefix("linux-binary-")?.to_owned();
                let modules = format!("linux-modules-{release}");
                available
                    .contains(&modules)
                    .then(|| (release, vec![binary.clone(), modules]))
            }
        }
    }
}

/// The package PREFIX + version + SUFFIX with the highest version. The version is made of numbers;
/// where the suffix has no `+debN`, a version may end in one.
fn newest<'a>(available: &'a [String], prefix: &str, suffix: &str) -> Option<&'a String> {
    let version = |name: &str| -> Option<Vec<u64>> {
        let middle = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
        let number = middle
            .split_once("+deb")
            .map_or(middle, |(number, _)| number);
        let rest = &middle[number.len()..];
        let plain = rest
            .trim_start_matches("+deb")
            .bytes()
            .all(|byte| byte.is_ascii_digit());
        plain.then_some(())?;
        number.split('.').map(|part| part.parse().ok()).collect()
    };
    available
        .iter()
        .filter_map(|name| Some((version(name)?, name)))
        .max()
        .map(|(_, name)| name)
}

/// The kernel that somebody means by `6.12`, or by its full release.
pub fn find<'a>(guests: &'a [Guest], wanted: &str) -> Option<&'a Guest> {
    guests
        .iter()
        .find(|guest| guest.series == wanted || guest.release == wanted)
}

/// Every kernel in the cache.
pub fn cached() -> Vec<Guest> {
    let cache = paths::vm_cache();
    SERIES
        .iter()
        .filter_map(|series| series.cached(&cache))
        .collect()
}

/// The VM cache, ours alone until the file is closed.
pub fn lock_cache(cache: &Path) -> Result<File> {
    fs::create_dir_all(cache)
        .with_context(|| format!("cannot create the VM cache {}", cache.display()))?;
    let lock = File::create(cache.join("lock"))?;
    if lock.try_lock().is_err() {
        progress("    waiting for another set-up that fills the VM cache");
        lock.lock()?;
    }
    Ok(lock)
}

/// Fetches the kernels that the cache lacks; with `refresh`, the newest of every series.
pub fn fetch_missing(refresh: bool) -> Result<()> {
    let cache = paths::vm_cache();
    let _lock = lock_cache(&cache)?;
    let wanted: Vec<&Series> = SERIES
        .iter()
        .filter(|series| refresh || series.cached(&cache).is_none())
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let archive = Archive::open(&cache)?;
    let available = archive.kernel_packages()?;
    for series in wanted {
        let Some((release, packages)) = series.choose(&available) else {
            bail!("Debian's archive has no kernel {} any more", series.name)
        };
        if series
            .cached(&cache)
            .is_some_and(|guest| guest.release == release)
        {
            continue;
        }
        if let Packages::BinaryAndModules { preferred } = series.packages
            && !release.starts_with(preferred)
        {
            progress(&format!(
                "    sid has no {preferred}* any more; {release} takes its place"
            ));
        }
        archive.unpack(series, &release, &packages)?;
    }
    Ok(())
}

/// Debian's archive through an apt state of our own.
pub struct Archive {
    cache: PathBuf,
}

impl Archive {
    /// Brings its package lists up to date.
    pub fn open(cache: &Path) -> Result<Self> {
        let mirrors = Mirrors::find()?;
        let apt = cache.join("apt");
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(apt.join(folder))?;
        }
        fs::write(apt.join("status"), "")?;
        fs::write(apt.join("sources.list"), sources_list(&mirrors))?;
        fs::write(apt.join("apt.conf"), apt_conf(&apt))?;
        let archive = Self {
            cache: cache.to_owned(),
        };
        let mut update = archive.apt("apt-get");
        update.arg("update");
        archive.step(
            "apt-get update (Debian's other suites)",
            "kernels-update",
            update,
        )?;
        Ok(archive)
    }

    /// One of apt's programs, in that state.
    pub fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.cache.join("apt/apt.conf"));
        command
    }

    /// Runs a step of the set-up, which must succeed.
    pub fn step(&self, name: &str, log: &str, command: Command) -> Result<()> {
        let log = paths::log(&format!("setup-{log}"));
        Step::new(name, command, log).must()?;
        Ok(())
    }

    fn kernel_packages(&self) -> Result<Vec<String>> {
        let output = self
            .apt("apt-cache")
            .args([
                "search",
                "--names-only",
                "^linux-(image|binary|modules)-[0-9].*-amd64$",
            ])
            .output()
            .context("cannot run apt-cache")?;
        let names = String::from_utf8_lossy(&output.stdout);
        Ok(names
            .lines()
            .filter_map(|line| line.split(' ').next())
            .map(str::to_owned)
            .collect())
    }

    /// The file `release` comes last: a folder without it is no guest yet.
    fn unpack(&self, series: &Series, release: &str, packages: &[String]) -> Result<()> {
        progress(&format!("    fetching {}", packages.join(", ")));
        let downloads = self.cache.join("download");
        remove_folder(&downloads)?;
        fs::create_dir_all(&downloads)?;
        let mut download = self.apt("apt-get");
        download
            .current_dir(&downloads)
            .arg("download")
            .args(packages);
        let log = format!("kernel-{}", series.name);
        self.step(&format!("download of {release}"), &log, download)?;

        let folder = self.cache.join("kernels").join(series.name);
        remove_folder(&folder)?;
        fs::create_dir_all(&folder)?;
        for package in fs::read_dir(&downloads)? {
            let mut unpack = Command::new("dpkg");
            unpack.arg("-x").arg(package?.path()).arg(&folder);
            self.step(&format!("unpacking {release}"), &log, unpack)?;
        }
        make_bootable(&folder, release)?;
        let mut depmod = Command::new(paths::find_program("depmod").unwrap_or("depmod".into()));
        depmod.arg("-b").arg(&folder).arg(release);
        self.step(&format!("depmod for {release}"), &log, depmod)?;
        fs::write(folder.join("release"), release)?;
        remove_folder(&downloads)
    }
}

/// Gives an unpacked kernel the layout of a root file system: /boot/vmlinuz-RELEASE and
/// /lib/modules.
fn make_bootable(folder: &Path, release: &str) -> Result<()> {
    if !folder.join("lib").exists() {
        symlink("usr/lib", folder.join("lib"))?;
    }
    let image = folder.join("boot").join(format!("vmlinuz-{release}"));
    if !image.exists() {
        let beside_modules = folder.join("lib/modules").join(release).join("vmlinuz");
        fs::create_dir_all(folder.join("boot"))?;
        fs::copy(&beside_modules, &image)
            .with_context(|| format!("{release} has no kernel image where it should be"))?;
    }
    Ok(())
}

/// Removes a folder, if it is there.
pub fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Where the machine's own apt finds Debian.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    main: String,
    security: String,
}

impl Mirrors {
    fn find() -> Result<Self> {
        let targets = Command::new("apt-get")
            .args(["indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)"])
            .output()
            .context("guest kernels come from Debian's archive, and here is no apt-get")?;
        let targets = String::from_utf8_lossy(&targets.stdout);
        let named = |label, variable| {
            std::env::var(variable)
                .ok()
                .or_else(|| repository(&targets, label))
                .with_context(|| {
                    format!(
                        "guest kernels come from Debian's archive, and this machine's apt knows no \
                     repository \"{label}\" (is there a package list? apt-get update); name one \
                     with {variable}=URI"
                    )
                })
        };
        Ok(Self {
            main: named("Debian", "MSYNC_TRACE_DEBIAN_MIRROR")?,
            security: named("Debian-Security", "MSYNC_TRACE_DEBIAN_SECURITY_MIRROR")?,
        })
    }
}

/// The address of Debian's repository with this label among apt's index targets.
fn repository(targets: &str, label: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let mut fields = line.split('|');
        let ours = fields.next() == Some("Debian") && fields.next() == Some(label);
        ours.then(|| fields.next()).flatten().map(str::to_owned)
    })
}

/// Where the machine's own apt finds Debian's main archive.
pub fn main_mirror() -> Result<String> {
    Mirrors::find().map(|mirrors| mirrors.main)
}

/// A line of sources.list for a suite of Debian.
pub fn source_line(uri: &str, suite: &str) -> String {
    format!("deb [arch=amd64 signed-by={KEYRING}] {uri} {suite} main\n")
}

fn sources_list(mirrors: &Mirrors) -> String {
    let line = |suite: &Suite| {
        let (uri, name) = match suite {
            Suite::Main(name) => (&mirrors.main, name),
            Suite::Security(name) => (&mirrors.security, name),
        };
        source_line(uri, name)
    };
    SERIES
        .iter()
        .flat_map(|series| series.suites)
        .map(line)
        .collect()
}

fn apt_conf(apt: &Path) -> String {
    let apt = apt.display();
    // The sandbox user could not enter a cache folder below root's home.
    format!(
        "Dir::State \"{apt}/state\";\nDir::State::status \"{apt}/status\";\n\
         Dir::Cache \"{apt}/cache\";\nDir::Etc::sourcelist \"{apt}/sources.list\";\n\
         Dir::Etc::sourceparts \"/dev/null\";\nDir::Etc::preferencesparts \"/dev/null\";\n\
         APT::Architecture \"amd64\";\nAPT::Architectures \"amd64\";\n\
         APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\nAcquire::Retries \"3\";\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn series(name: &str) -> &'static Series {
        SERIES.iter().find(|series| series.name == name).unwrap()
    }

    #[test]
    fn the_newest_is_the_highest_number_not_the_last_word() {
        let available = names(&[
            "linux-image-6.1.0-9-amd64",
            "linux-image-6.1.0-56-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-57-amd64-unsigned",
            "linux-image-6.1.0-57-rt-amd64",
            "linux-image-6.10.0-99-amd64",
        ]);
        let (release, packages) = series("6.1").choose(&available).unwrap();
        assert_eq!(release, "6.1.0-56-amd64");
        assert_eq!(packages, ["linux-image-6.1.0-56-amd64"]);
        assert_eq!(series("5.10").choose(&available), None);
    }

    #[test]
    fn trixie_counts_upstream_releases() {
        let available = names(&[
            "linux-image-6.12.41+deb13-amd64",
            "linux-image-6.12.107+deb13-amd64",
            "linux-image-6.12.107+deb13-cloud-amd64",
            "linux-image-6.12.94+deb12-amd64",
        ]);
        assert_eq!(
            series("6.12").choose(&available).unwrap().0,
            "6.12.107+deb13-amd64"
        );
    }

    #[test]
    fn since_7_2_image_and_modules_are_two_packages_of_one_version() {
        let available = names(&[
            "linux-binary-7.2.9+deb14-amd64",
            "linux-modules-7.2.9+deb14-amd64",
            "linux-binary-7.2.13+deb14-amd64",
            "linux-modules-7.2.13+deb14-amd64",
            "linux-binary-7.3.1+deb14-amd64",
            "linux-modules-7.3.1+deb14-amd64",
            "linux-binary-7.2.13+deb14-cloud-amd64",
        ]);
        let (release, packages) = series("7.2").choose(&available).unwrap();
        assert_eq!(release, "7.2.13+deb14-amd64");
        assert_eq!(
            packages,
            [
                "linux-binary-7.2.13+deb14-amd64",
                "linux-modules-7.2.13+deb14-amd64"
            ]
        );
    }

    #[test]
    fn when_7_2_has_left_sid_its_newest_kernel_takes_the_place() {
        let available = names(&[
            "linux-binary-7.4.2+deb14-amd64",
            "linux-modules-7.4.2+deb14-amd64",
            "linux-binary-7.10.1+deb14-amd64",
            "linux-modules-7.10.1+deb14-amd64",
        ]);
        assert_eq!(
            series("7.2").choose(&available).unwrap().0,
            "7.10.1+deb14-amd64"
        );
        let without_modules = names(&["linux-binary-7.2.13+deb14-amd64"]);
        assert_eq!(series("7.2").choose(&without_modules), None);
    }

    #[test]
    fn mirrors_are_those_of_the_machine() {
        let targets = "Other|Thing|http://vendor.example/apt/\n\
            Debian|Debian|http://mirror.example/debian/\n\
            Debian|Debian-Security|http://mirror.example/security/\n";
        assert_eq!(
            repository(targets, "Debian").unwrap(),
            "http://mirror.example/debian/"
        );
        assert_eq!(
            repository(targets, "Debian-Security").unwrap(),
            "http://mirror.example/security/"
        );
        assert_eq!(
            repository("Ubuntu|Ubuntu|http://u.example/\n", "Debian"),
            None
        );
    }

    #[test]
    fn a_folder_counts_only_when_it_is_complete() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("kernels/6.12");
        fs::create_dir_all(folder.join("boot")).unwrap();
        assert_eq!(series("6.12").cached(cache.path()), None);
        fs::write(folder.join("release"), "6.12.1+deb13-amd64\n").unwrap();
        assert_eq!(series("6.12").cached(cache.path()), None);
        fs::write(folder.join("boot/vmlinuz-6.12.1+deb13-amd64"), "").unwrap();
        let guest = series("6.12").cached(cache.path()).unwrap();
        assert_eq!(guest.release, "6.12.1+deb13-amd64");
        let guests = [guest];
        assert!(find(&guests, "6.12").is_some());
        assert!(find(&guests, "6.12.1+deb13-amd64").is_some());
        assert!(find(&guests, "6.1").is_none());
    }
}
