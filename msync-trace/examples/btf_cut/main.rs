//! Cuts a kernel's BTF down to the types that the tests ask for: see `cut.rs`. Only on Linux, where
//! msync-trace reads BTF.

#[cfg(target_os = "linux")]
mod cut;

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    cut::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("btf_cut: BTF is cut on Linux only");
    std::process::ExitCode::from(2)
}
