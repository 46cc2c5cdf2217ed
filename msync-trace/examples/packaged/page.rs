//! Man pages: what clap knows of a command, and the examples, notes and exit statuses below its
//! `--help`, each in the section where readers of man pages look for it.

use std::{fmt::Write as _, io};

use clap::Command;
use clap_mangen::Man;

/// What FILES says: a path of the package, and what it is.
const FILES: [(&str, &str); 4] = [
    (
        "/etc/msync-trace/msync-trace.toml",
        "Options of msync-trace serve as a service.",
    ),
    (
        "/var/lib/msync-trace/store.db",
        "What the service keeps, for msync-trace report and rescue.",
    ),
    (
        "/sys/fs/bpf/msync-trace",
        "Hooks and maps that go on collecting while the service is restarted.",
    ),
    (
        "/usr/share/doc/msync-trace",
        "All of the documentation; operations.md says how to install, verify and upgrade, and what \
         each alert means.",
    ),
];

/// All pages: name of the file, and its text.
pub fn all(command: &Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    // Of the subcommands too: clap fills in their full names and `--help` when it is built.
    let mut command = command.clone().disable_help_subcommand(true);
    command.build();
    let mut pages = vec![one(&command, &command)?];
    for subcommand in visible(&command) {
        pages.push(one(&command, subcommand)?);
    }
    Ok(pages)
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|it| !it.is_hide_set())
}

/// `msync-trace-check`.
fn page_name(main: &Command, command: &Command) -> String {
    match main.get_name() == command.get_name() {
        true => main.get_name().to_owned(),
        false => format!("{}-{}", main.get_name(), command.get_name()),
    }
}

fn one(main: &Command, command: &Command) -> io::Result<(String, Vec<u8>)> {
    let name = page_name(main, command);
    let shown = command.clone().display_name(name.clone());
    let page = Man::new(shown)
        .title(name.to_uppercase())
        .section("8")
        .source(format!("msync-trace {}", env!("CARGO_PKG_VERSION")))
        .manual("msync-trace");
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    text.extend(name_section(&name, command).into_bytes());
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    if command.has_subcommands() {
        text.extend(subcommands(main, command).into_bytes());
    }
    page.render_options_section(&mut text)?;
    let help = command.get_after_help().map(ToString::to_string);
    text.extend(below_help(&help.unwrap_or_default()).into_bytes());
    text.extend(files().into_bytes());
    text.extend(see_also(main, command).into_bytes());
    Ok((format!("{name}.8"), text))
}

/// As `apropos` wants it: one line, one space on each side of the dash.
fn name_section(name: &str, command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string);
    let about = escaped(&about.unwrap_or_default());
    format!(".SH NAME\n{} \\- {about}\n", escaped(name))
}

fn subcommands(main: &Command, command: &Command) -> String {
    let mut section = ".SH COMMANDS\n".to_owned();
    for subcommand in visible(command) {
        let name = page_name(main, subcommand);
        let about = subcommand.get_about().map(ToString::to_string);
        let about = text_line(&about.unwrap_or_default());
        // Writing to a String cannot fail.
        let _ = writeln!(section, ".TP\n\\fB{}\\fR(8)\n{about}", escaped(&name));
    }
    section
}

/// The text below `--help`: blocks with empty lines between them.
fn below_help(help: &str) -> String {
    let (mut examples, mut notes, mut exit) = (String::new(), String::new(), String::new());
    for block in help.split("\n\n") {
        if let Some(rest) = block.strip_prefix("Examples:\n") {
            examples = format!(".SH EXAMPLES\n{}", tagged(rest));
        } else if let Some(rest) = block.strip_prefix("Exit status:\n") {
            exit = format!(".SH EXIT STATUS\n{}", tagged(rest));
        } else if !block.trim().is_empty() {
            notes += &note(block);
        }
    }
    let heading = if notes.is_empty() { "" } else { ".SH NOTES\n" };
    format!("{heading}{notes}{exit}{examples}")
}

/// A paragraph; its indented lines are a list and stay lines.
fn note(block: &str) -> String {
    let mut text = ".PP\n".to_owned();
    for line in block.lines() {
        text += &match line.strip_prefix("  ") {
            Some(item) => format!(".br\n\\ \\ {}\n.br\n", escaped(item)),
            None => text_line(line) + "\n",
        };
    }
    text
}

/// Lines `  tag` with `      text` below them, or with the text after two spaces or more.
fn tagged(block: &str) -> String {
    let mut text = String::new();
    for line in block.lines() {
        match (line.strip_prefix("      "), line.trim()) {
            (Some(more), _) => text += &(text_line(more.trim()) + "\n"),
            (None, line) => {
                let (tag, said) = line.split_once("  ").unwrap_or((line, ""));
                let _ = writeln!(text, ".TP\n\\fB{}\\fR", escaped(tag));
                if !said.is_empty() {
                    text += &(text_line(said.trim()) + "\n");
                }
            }
        }
    }
    text
}

fn files() -> String {
    let mut section = ".SH FILES\n".to_owned();
    for (path, said) in FILES {
        let _ = writeln!(
            section,
            ".TP\n\\fI{}\\fR\n{}",
            escaped(path),
            text_line(said)
        );
    }
    section
}

fn see_also(main: &Command, command: &Command) -> String {
    let others = std::iter::once(main).chain(visible(main));
    let others = others.filter(|it| it.get_name() != command.get_name());
    let ours = others.map(|it| page_name(main, it) + "(8)");
    let kernels = ["msync(2)", "fsync(2)"].map(str::to_owned);
    let list: Vec<String> = ours
        .chain(kernels)
        .map(|page| {
            let (name, section) = page.split_once('(').unwrap_or((&page, ""));
            format!(".BR {} ({section}", escaped(name))
        })
        .collect();
    format!(".SH SEE ALSO\n{}\n", list.join(" ,\n"))
}

/// A line of text, which must not begin as a request does.
fn text_line(line: &str) -> String {
    let line = escaped(line);
    match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}"),
        false => line,
    }
}

/// What roff reads as it stands. `-` would become a hyphen, which no shell reads.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('\'', "\\(aq")
        .replace('`', "\\(ga")
}
