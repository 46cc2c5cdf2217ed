//! The packages in a Debian that systemd boots, in a virtual machine: the service starts at boot, survives
//! kills, upgrades and its watchdog, and is taken away again (`inside.sh`, which runs in the guest).
//!
//! Unlike the other guests this one has a disk and a root of its own, as a machine has.

mod disk;

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};
use clap::Args;

use super::{root, script::ScriptOutput};
use crate::{
    dist::{self, Made},
    paths,
    setup::{self, Group},
    step::{Ending, Step, progress},
    tally::Tally,
    vm::kernels::{self, BOOTED, Guest},
};

/// What the package may take, page cache of the guest included.
const MEMORY: &str = "1G";
/// Without hardware virtualisation 20 to 40 s are usual.
const BOOT: Duration = Duration::from_secs(180);
/// From the start of QEMU to the end of the test.
const DEADLINE: Duration = Duration::from_secs(400);

/// Boot a Debian with our package in a virtual machine, and try the service there
///
/// The step `packaging` of `cargo xtask test` does so with the release that this machine has.
#[derive(Args)]
#[command(after_help = "Example:\n  cargo xtask boot-package --release trixie")]
pub struct BootPackageArgs {
    /// The code name of the release [default: this machine's]
    #[arg(long, value_name = "NAME")]
    release: Option<String>,
}

/// Makes the packages and boots one; the exit status of this process.
pub fn run_alone(args: &BootPackageArgs) -> Result<u8> {
    setup::ensure(&[Group::Dist, Group::Packaging])?;
    let tally = run(&dist::make()?, args.release.as_deref())?;
    for failure in &tally.failed {
        progress(&format!("FAIL {failure}"));
    }
    println!("{}", tally.line());
    Ok(u8::from(!tally.failed.is_empty()))
}

/// All tests that the guest makes, with a Debian of this release or the one that this machine has.
pub fn run(made: &Made, release: Option<&str>) -> Result<Tally> {
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        return Ok(Tally::one_skipped("packaging: booted: not root"));
    }
    if let Err(error) = setup::ensure_vm() {
        let reason = format!("packaging: booted: no virtual machines: {error:#}");
        return Ok(Tally::one_skipped(reason));
    }
    let guests = kernels::cached();
    let guest = kernels::find(&guests, BOOTED);
    let guest = guest.with_context(|| format!("no guest kernel {BOOTED}"))?;
    let release = release.map_or_else(root::codename, |name| Ok(name.to_owned()))?;
    let folder = tempfile::tempdir_in(paths::target())?;
    let machine = disk::Machine::make(guest, &release, made, folder.path())?;
    boot(guest, &machine)
}

fn boot(guest: &Guest, machine: &disk::Machine) -> Result<Tally> {
    let console = paths::log("booted-console");
    let mut step = Step::new(
        "booted",
        qemu(guest, machine, &console),
        paths::log("booted"),
    );
    step.deadline = DEADLINE;
    step.must_say = Some(("BEGIN".to_owned(), BOOT));
    let mut output = ScriptOutput::new("packaging: booted");
    let outcome = step.run(|line| {
        if let Some(said) = line.strip_prefix("INFO ") {
            progress(&format!("    {said}"));
        }
        output.read(line);
    })?;
    let log = paths::log("booted");
    let logs = format!("{}, {}", log.display(), console.display());
    let mut tally = output.finish(&logs);
    if outcome.ending == Ending::TimedOut {
        let what = format!("packaging: booted: killed at its time limit: {logs}");
        tally.failed.push(what);
    }
    Ok(tally)
}

/// The kernel and systemd talk on the first serial line, which goes into `console`, the test on the
/// second one, which is QEMU's standard output.
fn qemu(guest: &Guest, machine: &disk::Machine, console: &Path) -> Command {
    let program = paths::find_program("qemu-system-x86_64").unwrap_or("qemu-system-x86_64".into());
    let mut qemu = Command::new(program);
    qemu.args(["-machine", "q35", "-accel", "tcg,thread=multi"])
        .args(["-cpu", "max", "-smp", "2", "-m", MEMORY])
        .args(["-nodefaults", "-no-reboot", "-display", "none"])
        .arg("-kernel")
        .arg(guest.image())
        .arg("-initrd")
        .arg(&machine.initramfs)
        // Serial lines get no login, for which there is no udev.
        .args(["-append", "console=ttyS0 panic=-1 systemd.getty_auto=no"])
        .arg("-drive")
        .arg(format!(
            "file={},format=raw,if=virtio,cache=unsafe",
            machine.disk.display()
        ))
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args(["-chardev", "stdio,id=test,signal=off"])
        .args(["-serial", "chardev:test"]);
    qemu
}
