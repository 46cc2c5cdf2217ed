//! `msync-trace detach`: takes away what `--pin` left in the kernel.

use super::{Exit, complain};

/// The whole command, to the exit status.
#[must_use]
pub fn main() -> Exit {
    match detach() {
        Ok(said) => {
            println!("{said}");
            Exit::Nothing
        }
        Err(error) => {
            complain(&error);
            Exit::Error
        }
    }
}

#[cfg(target_os = "linux")]
fn detach() -> anyhow::Result<String> {
    use crate::source::ebpf::pins;

    let Some(removed) = pins::detach()? else {
        return Ok(format!("nothing is pinned in {}", pins::FOLDER));
    };
    let mut said = format!("removed: {}, and their maps", count(removed.hooks, "hook"));
    if removed.inodes + removed.records > 0 {
        said += &format!(
            "; forgotten: {} with failures, {} that nobody had read",
            count(removed.inodes, "file"),
            count(removed.records, "record")
        );
    }
    Ok(said)
}

#[cfg(target_os = "linux")]
fn count(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

#[cfg(not(target_os = "linux"))]
fn detach() -> anyhow::Result<String> {
    Ok("nothing is pinned: only Linux keeps hooks without their process".to_owned())
}
