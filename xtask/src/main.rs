//! Development tasks of msync-trace. `cargo xtask help` lists them.

#[cfg(target_os = "linux")]
mod bench;
#[cfg(target_os = "linux")]
mod daemon;
mod demo;
#[cfg(target_os = "linux")]
mod dist;
#[cfg(target_os = "linux")]
mod durability;
#[path = "../../msync-trace/build/ebpf_toolchain.rs"]
mod ebpf_toolchain;
#[cfg(target_os = "linux")]
mod faults;
mod fleet;
mod freebsd;
#[cfg(target_os = "linux")]
mod http;
#[cfg(target_os = "linux")]
mod lab;
mod lint_d;
#[cfg(target_os = "linux")]
mod monitoring;
#[cfg(target_os = "linux")]
mod packaging;
mod paths;
mod readme;
#[cfg(target_os = "linux")]
mod scenarios;
mod setup;
#[cfg(target_os = "linux")]
mod shielded;
mod step;
#[cfg(target_os = "linux")]
mod stress;
mod tally;
mod test;
mod vm;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

/// Development tasks of msync-trace
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_version_flag = true
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Setup(setup::SetupArgs),
    Demo(demo::DemoArgs),
    Test(test::TestArgs),
    CheckFreebsd(freebsd::CheckFreebsdArgs),
    Vm(vm::VmArgs),
    LintD(lint_d::LintArgs),
    #[cfg(target_os = "linux")]
    Scenarios(scenarios::ScenariosArgs),
    #[cfg(target_os = "linux")]
    Bench(bench::BenchArgs),
    #[cfg(target_os = "linux")]
    Stress(stress::StressArgs),
    #[cfg(target_os = "linux")]
    Lab(lab::LabArgs),
    #[cfg(target_os = "linux")]
    Durability(durability::DurabilityArgs),
    #[cfg(target_os = "linux")]
    Monitoring(monitoring::MonitoringArgs),
    #[cfg(target_os = "linux")]
    Dist(dist::DistArgs),
    #[cfg(target_os = "linux")]
    BootPackage(packaging::BootPackageArgs),
}

fn main() -> ExitCode {
    step::take_children_along_when_interrupted();
    match run(&Arguments::parse().task) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(task: &Task) -> Result<u8> {
    // The others install Debian's packages, boot Linux kernels, make loop devices fail, load eBPF
    // programs.
    ensure!(
        cfg!(target_os = "linux") || matches!(task, Task::LintD(_)),
        "this task takes Linux; elsewhere `cargo build` and `cargo test -p msync-trace` need no \
         set-up (docs/development.md)"
    );
    match task {
        Task::Setup(args) => setup::run(args),
        Task::Demo(args) => demo::run(args),
        Task::Test(args) => test::run(args),
        Task::CheckFreebsd(args) => freebsd::run(args),
        Task::Vm(args) => vm::run(args),
        Task::LintD(args) => lint_d::run(args),
        #[cfg(target_os = "linux")]
        Task::Scenarios(args) => scenarios::run(args),
        #[cfg(target_os = "linux")]
        Task::Bench(args) => bench::run(args),
        #[cfg(target_os = "linux")]
        Task::Stress(args) => stress::run(args),
        #[cfg(target_os = "linux")]
        Task::Lab(args) => lab::run(args),
        #[cfg(target_os = "linux")]
        Task::Durability(args) => durability::run(args),
        #[cfg(target_os = "linux")]
        Task::Monitoring(args) => monitoring::run(args),
        #[cfg(target_os = "linux")]
        Task::Dist(args) => dist::run(args),
        #[cfg(target_os = "linux")]
        Task::BootPackage(args) => packaging::boot_package(args),
    }
}
