//! Writes the man pages and completions that packages hold, from the command line as it is:
//! `packaged FOLDER` makes FOLDER/man and FOLDER/completions. `cargo xtask dist` runs it.

mod page;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate_to};
use msync_trace::cli::Cli;

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .context("name the folder: packaged FOLDER")?;
    let command = Cli::command();
    let write = |folder: &Path| {
        man_pages(&command, &folder.join("man"))?;
        completions(&command, &folder.join("completions"))
    };
    write(&folder).with_context(|| format!("cannot write below {}", folder.display()))
}

fn man_pages(command: &Command, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (name, text) in page::all(command)? {
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}

fn completions(command: &Command, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command.clone(), "msync-trace", folder)?;
    }
    Ok(())
}
