//! `cargo xtask setup`: finds or installs what building, testing and virtual machines take.

mod duckdb;
mod ebpf;
mod packages;
mod python;
mod virtme;
mod yaml;
mod zig;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::{
    paths,
    step::progress,
    vm::{
        dtrace,
        kernels::{self, SERIES},
    },
};

/// Find or install what this project needs, and say for each thing why
///
/// Without a flag: the eBPF toolchain (a Rust compiler with the source of `core` and `std`, LLVM,
/// bpf-linker), which `cargo xtask check-freebsd` takes too, and the tools that selftest and the tests
/// use. Safe to repeat; quick when there is nothing to do. Packages come through apt-get, which needs
/// root.
#[derive(Args)]
pub struct SetupArgs {
    /// Only say what is missing; the exit status is 1 if something is
    #[arg(long)]
    check: bool,
    /// Also QEMU, virtme-ng, Debian's 5.10, 6.1, 6.12 and 7.2 kernels, and DTrace (2 GB below ~/.cache,
    /// or $MSYNC_TRACE_VM_CACHE)
    #[arg(long)]
    vm: bool,
    /// Also zig, which links programs for FreeBSD (`cargo xtask check-freebsd --build`)
    #[arg(long)]
    freebsd: bool,
    /// Also bpftrace, which `cargo xtask bench` compares with
    #[arg(long)]
    bench: bool,
    /// With --vm: fetch newer releases of the guest kernels
    #[arg(long, requires = "vm")]
    refresh: bool,
}

#[cfg(target_os = "linux")]
pub use yaml::PYTHON as YAML_PYTHON;

/// What a thing is needed for; chosen on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Building the programs.
    Build,
    /// selftest and the scenarios on this machine.
    Scenarios,
    /// Guests.
    Vm,
    /// Programs for FreeBSD.
    Freebsd,
    /// Benchmarks.
    Bench,
    /// Asking exported evidence.
    Fleet,
    /// Packages.
    Dist,
    /// Trying packages, units and alert rules.
    Packaging,
    /// A loss beside the programs that are to tell people of it.
    Monitoring,
}

/// What became of a thing.
pub enum Finding {
    /// It is here: where, or which version.
    Found(String),
    /// It is not.
    Missing,
}

/// Something the project needs.
trait Thing {
    /// Its name.
    fn name(&self) -> String;
    /// Why it is needed, in a few words.
    fn why(&self) -> &str;
    /// Looks for it.
    fn find(&self) -> Finding;
    /// The distribution packages that bring it; may be none.
    fn packages(&self) -> Vec<String> {
        Vec::new()
    }
    /// What remains to be done when its packages are there.
    fn install(&self) -> Result<()> {
        Ok(())
    }
}

/// Runs set-up; the exit status of this process.
pub fn run(args: &SetupArgs) -> Result<u8> {
    let mut groups = vec![Group::Build, Group::Scenarios];
    groups.extend(args.vm.then_some(Group::Vm));
    groups.extend(args.freebsd.then_some(Group::Freebsd));
    groups.extend(args.bench.then_some(Group::Bench));
    if args.check {
        return Ok(u8::from(!check(&groups)));
    }
    ensure(&groups)?;
    if args.refresh {
        kernels::fetch_missing(true)?;
    }
    Ok(0)
}

/// Makes sure that guests can be booted; where `vng` is.
pub fn ensure_vm() -> Result<PathBuf> {
    let ready = things(Group::Vm)
        .iter()
        .all(|thing| matches!(thing.find(), Finding::Found(_)));
    if !ready {
        ensure(&[Group::Vm])?;
    }
    virtme::program().ok_or_else(|| anyhow::anyhow!("virtme-ng is not where set-up put it"))
}

/// Makes sure that programs for FreeBSD can be linked; where `zig` is.
pub fn ensure_zig() -> Result<PathBuf> {
    ensure(&[Group::Freebsd])?;
    zig::program().ok_or_else(|| anyhow::anyhow!("zig is not where set-up put it"))
}

/// Makes sure that exported evidence can be asked; a Python that has DuckDB.
pub fn ensure_duckdb() -> Result<PathBuf> {
    ensure(&[Group::Fleet])?;
    duckdb::python().ok_or_else(|| anyhow::anyhow!("DuckDB is not where set-up put it"))
}

/// Installs what is missing in these groups, saying what and why.
pub fn ensure(groups: &[Group]) -> Result<()> {
    for group in groups {
        for thing in things(*group) {
            if let Finding::Found(what) = thing.find() {
                say("found", thing.as_ref(), &what);
                continue;
            }
            say("installing", thing.as_ref(), "");
            packages::install(&thing.packages())?;
            thing.install()?;
            match thing.find() {
                Finding::Found(what) => say("installed", thing.as_ref(), &what),
                Finding::Missing => {
                    bail!("{} was installed and is still not found", thing.name())
                }
            }
        }
    }
    Ok(())
}

/// Says what is there and what is missing; true if all is there.
fn check(groups: &[Group]) -> bool {
    let mut complete = true;
    for thing in groups.iter().flat_map(|group| things(*group)) {
        match thing.find() {
            Finding::Found(what) => say("found", thing.as_ref(), &what),
            Finding::Missing => {
                complete = false;
                let packages = thing.packages().join(" ");
                let by = if packages.is_empty() {
                    "cargo xtask setup"
                } else {
                    &packages
                };
                say("missing", thing.as_ref(), &format!("brought by: {by}"));
            }
        }
    }
    if let Some(sentence) = ebpf::obstacle() {
        progress(&sentence);
    }
    complete
}

fn say(state: &str, thing: &dyn Thing, detail: &str) {
    progress(&format!(
        "{state:>10}  {:16}  {} {detail}",
        thing.name(),
        thing.why()
    ));
}

/// What a group consists of, in the order in which it must be installed.
fn things(group: Group) -> Vec<Box<dyn Thing>> {
    let tools = TOOLS.iter().filter(|tool| tool.group == group);
    let tools = tools.map(|tool| Box::new(tool) as Box<dyn Thing>);
    match group {
        Group::Build => tools.chain(ebpf::things()).collect(),
        Group::Vm => {
            let kernels = GuestKernels;
            tools
                .chain([
                    virtme::thing(),
                    Box::new(kernels) as Box<dyn Thing>,
                    Box::new(GuestDtrace),
                ])
                .collect()
        }
        Group::Freebsd => tools.chain([zig::thing()]).collect(),
        Group::Fleet => tools.chain([duckdb::thing()]).collect(),
        Group::Packaging => tools.chain([yaml::thing()]).collect(),
        Group::Scenarios | Group::Bench | Group::Dist | Group::Monitoring => tools.collect(),
    }
}

/// A program that one package brings.
struct Tool {
    group: Group,
    program: &'static str,
    package: &'static str,
    why: &'static str,
}

const fn tool(
    group: Group,
    program: &'static str,
    package: &'static str,
    why: &'static str,
) -> Tool {
    Tool {
        group,
        program,
        package,
        why,
    }
}

const TOOLS: &[Tool] = &[
    tool(Group::Build, "cc", "build-essential", "links Rust programs"),
    tool(Group::Build, "c++", "g++", "links bpf-linker with LLVM"),
    tool(
        Group::Scenarios,
        "mount",
        "mount",
        "mounts scratch filesystems",
    ),
    tool(
        Group::Scenarios,
        "losetup",
        "mount",
        "makes loop devices that fail on purpose",
    ),
    tool(
        Group::Build,
        "sqlite3",
        "sqlite3",
        "asks the questions of docs/record.md",
    ),
    tool(
        Group::Build,
        "promtool",
        "prometheus",
        "reads the metrics of serve",
    ),
    tool(
        Group::Scenarios,
        "mkfs.ext4",
        "e2fsprogs",
        "makes ext4 scratch filesystems",
    ),
    tool(
        Group::Scenarios,
        "mkfs.xfs",
        "xfsprogs",
        "makes XFS scratch filesystems",
    ),
    tool(
        Group::Scenarios,
        "mkfs.btrfs",
        "btrfs-progs",
        "makes btrfs scratch filesystems",
    ),
    tool(
        Group::Scenarios,
        "mkfs.vfat",
        "dosfstools",
        "makes FAT scratch filesystems",
    ),
    tool(
        Group::Scenarios,
        "mkfs.f2fs",
        "f2fs-tools",
        "makes f2fs scratch filesystems",
    ),
    tool(
        Group::Scenarios,
        "dmsetup",
        "dmsetup",
        "makes chosen sectors of a device fail",
    ),
    tool(
        Group::Scenarios,
        "modprobe",
        "kmod",
        "loads filesystems that are modules",
    ),
    tool(
        Group::Scenarios,
        "chromium",
        "chromium",
        "opens the pages of reports",
    ),
    tool(
        Group::Vm,
        "qemu-system-x86_64",
        "qemu-system-x86",
        "runs other kernels",
    ),
    tool(
        Group::Vm,
        "depmod",
        "kmod",
        "indexes a guest kernel's modules",
    ),
    tool(
        Group::Vm,
        "busybox",
        "busybox-static",
        "is the guest's first program",
    ),
    tool(Group::Vm, "cpio", "cpio", "packs the guest's initramfs"),
    tool(Group::Vm, "python3", "python3", "runs virtme-ng"),
    tool(Group::Freebsd, "python3", "python3", "unpacks zig"),
    tool(Group::Dist, "dpkg-deb", "dpkg", "makes a Debian package"),
    tool(
        Group::Dist,
        "dpkg-shlibdeps",
        "dpkg-dev",
        "finds out which libraries a package needs",
    ),
    tool(Group::Dist, "strip", "binutils", "makes programs smaller"),
    tool(
        Group::Dist,
        "rpmbuild",
        "rpm",
        "makes a package for Fedora and others",
    ),
    tool(
        Group::Packaging,
        "lintian",
        "lintian",
        "checks a Debian package",
    ),
    tool(
        Group::Packaging,
        "rpmlint",
        "rpmlint",
        "checks a package for Fedora and others",
    ),
    tool(
        Group::Packaging,
        "systemd-analyze",
        "systemd",
        "checks and rates units",
    ),
    tool(
        Group::Packaging,
        "promtool",
        "prometheus",
        "checks and tries alert rules",
    ),
    tool(
        Group::Packaging,
        "mmdebstrap",
        "mmdebstrap",
        "makes a clean Debian to install the package in",
    ),
    tool(
        Group::Monitoring,
        "prometheus",
        "prometheus",
        "scrapes serve",
    ),
    tool(
        Group::Monitoring,
        "prometheus-alertmanager",
        "prometheus-alertmanager",
        "takes its alerts",
    ),
    tool(
        Group::Monitoring,
        "amtool",
        "prometheus-alertmanager",
        "shows them",
    ),
    tool(
        Group::Monitoring,
        "prometheus-node-exporter",
        "prometheus-node-exporter",
        "reads the text file of serve",
    ),
    tool(
        Group::Bench,
        "bpftrace",
        "bpftrace",
        "does the naive job, for comparison",
    ),
];

impl Thing for &Tool {
    fn name(&self) -> String {
        self.program.to_owned()
    }

    fn why(&self) -> &str {
        self.why
    }

    fn find(&self) -> Finding {
        match paths::find_program(self.program) {
            Some(program) => Finding::Found(format!("({})", program.display())),
            None => Finding::Missing,
        }
    }

    fn packages(&self) -> Vec<String> {
        vec![self.package.to_owned()]
    }
}

/// Debian's kernels, unpacked in the cache.
struct GuestKernels;

impl Thing for GuestKernels {
    fn name(&self) -> String {
        "guest kernels".to_owned()
    }

    fn why(&self) -> &str {
        "the kernels that are tested:"
    }

    fn find(&self) -> Finding {
        let guests = kernels::cached();
        if guests.len() < SERIES.len() {
            return Finding::Missing;
        }
        let releases: Vec<String> = guests.into_iter().map(|guest| guest.release).collect();
        Finding::Found(releases.join(", "))
    }

    fn install(&self) -> Result<()> {
        packages::refresh_lists_if_empty()?;
        kernels::fetch_missing(false)
    }
}

/// DTrace from Debian's sid, unpacked in the cache.
struct GuestDtrace;

impl Thing for GuestDtrace {
    fn name(&self) -> String {
        "dtrace".to_owned()
    }

    fn why(&self) -> &str {
        "runs the D script in guests"
    }

    fn find(&self) -> Finding {
        match dtrace::unpacked() {
            Some(program) => Finding::Found(format!("({})", program.display())),
            None => Finding::Missing,
        }
    }

    fn install(&self) -> Result<()> {
        packages::refresh_lists_if_empty()?;
        dtrace::fetch()
    }
}
