//! A program whose disk refuses four pages: it was told once, and asks again when it is told to. For
//! tests that have to do something between the failure and the false success.
//!
//!     cargo run --example fails_on_command
//!
//! Prints `failed PATH START END` once the disk has refused the bytes from START to END, and `told
//! success` for each line of its standard input, after an msync that returned 0. Needs root. What goes
//! wrong is said on standard error, with exit status 1.

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    match lose() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fails_on_command: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(target_os = "linux")]
fn lose() -> Result<(), Box<dyn std::error::Error>> {
    use std::io::{BufRead, Write};

    use msync_trace::check::scratch::{Scratch, ScratchFs};

    let mut scratch = Scratch::new(ScratchFs::Ext4)?;
    let failed = scratch.fail()?;
    let mut output = std::io::stdout();
    let (path, range) = (failed.path.display(), failed.range);
    writeln!(output, "failed {path} {} {}", range.start(), range.end())?;
    for line in std::io::stdin().lock().lines() {
        line?;
        failed.msync()?;
        writeln!(output, "told success")?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("fails_on_command: takes Linux");
}
