//! The man pages that packages hold: one for each subcommand, with all that readers look for.

#[path = "../examples/packaged/page.rs"]
mod page;

use clap::CommandFactory;
use msync_trace::cli::Cli;

fn pages() -> Vec<(String, String)> {
    let pages = page::all(&Cli::command()).unwrap();
    let text = |(name, text)| (name, String::from_utf8(text).unwrap());
    pages.into_iter().map(text).collect()
}

#[test]
fn each_subcommand_has_its_page_and_hidden_ones_have_none() {
    let names: Vec<String> = pages().into_iter().map(|(name, _)| name).collect();
    let command = Cli::command();
    let visible = command.get_subcommands().filter(|it| !it.is_hide_set());
    let wanted = visible.map(|it| format!("msync-trace-{}.8", it.get_name()));
    let wanted: Vec<String> = std::iter::once("msync-trace.8".to_owned())
        .chain(wanted)
        .collect();
    assert_eq!(names, wanted);
    assert!(!names.iter().any(|name| name.contains("worker")));
}

#[test]
fn each_page_has_examples_exit_statuses_files_and_what_to_read_on() {
    for (name, text) in pages() {
        for section in [
            "NAME",
            "SYNOPSIS",
            "OPTIONS",
            "EXIT STATUS",
            "EXAMPLES",
            "FILES",
            "SEE ALSO",
        ] {
            let (one, quoted) = (
                format!("\n.SH {section}\n"),
                format!("\n.SH \"{section}\"\n"),
            );
            assert!(
                text.contains(&one) || text.contains(&quoted),
                "{name} has no {section}"
            );
        }
    }
}

#[test]
fn an_option_in_an_example_can_be_copied_into_a_shell() {
    let (_, text) = pages().into_iter().next().unwrap();
    // A bare - is a hyphen to roff, which is another character than a shell reads.
    assert!(
        text.contains("\\fBsudo msync\\-trace \\-o json | jq"),
        "{text}"
    );
}
