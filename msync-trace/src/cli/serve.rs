//! The one table of the options of `serve`: flags, environment variables, keys of the file, `--help`,
//! `--print-config` and the list in docs/serve.md are made from it.

use std::{ffi::OsString, os::fd::RawFd, path::PathBuf};

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches, builder::OsStringValueParser,
};

/// Of `serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Read options from this TOML file (docs/serve.md). Variables MSYNC_TRACE_… override it, and flags
    /// override both
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print the options in effect as such a file, and end
    #[arg(long)]
    pub print_config: bool,

    /// Write a line to this descriptor and close it, once everything is attached and checked
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub ready_fd: Option<RawFd>,

    /// Warnings and errors only
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// More about what is done; twice: also what the kernel side says
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,

    /// Of each of [`OPTIONS`], what was typed.
    #[command(flatten)]
    pub values: Typed,
}

/// Of each of [`OPTIONS`], what was typed.
#[derive(Clone, Debug, Default)]
pub struct Typed(pub Vec<Option<OsString>>);

impl FromArgMatches for Typed {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let typed = |option: &Opt| matches.get_one::<OsString>(option.key).cloned();
        Ok(Self(OPTIONS.iter().map(typed).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Typed {
    fn augment_args(command: Command) -> Command {
        OPTIONS.iter().fold(command, |command, option| {
            let arg = Arg::new(option.key)
                .long(option.flag())
                .value_name(option.value)
                .value_parser(OsStringValueParser::new())
                .help_heading(option.heading)
                .help(match option.default {
                    Some(default) => format!("{} [default: {default}]", option.help),
                    None => option.help.to_owned(),
                });
            command.arg(match option.form {
                Form::Switch => arg
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true"),
                _ => arg,
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `true`, `false`.
    Switch,
    /// Text: a path, an address.
    Text,
    /// `64M`.
    Size,
    /// `10s`.
    Time,
    /// `30d`.
    Age,
    /// A number from 1 on.
    Count,
    /// A number from 0 on.
    Number,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// Some of these.
    SomeOf(&'static [&'static str]),
    /// A program and its arguments.
    Command,
}

/// An option.
#[derive(Debug)]
pub struct Opt {
    /// Key in the file. The flag has dashes for underscores; the variable is in capitals, after
    /// `MSYNC_TRACE_`.
    pub key: &'static str,
    /// What its value looks like.
    pub form: Form,
    /// As in the file; `None`: off.
    pub default: Option<&'static str>,
    /// What stands for the value in `--help`.
    pub value: &'static str,
    /// Where it stands in `--help`.
    pub heading: &'static str,
    /// What it does.
    pub help: &'static str,
}

const JSON: &str = "JSON lines";
const JOURNAL: &str = "Journal";
const STORE: &str = "Store";
const METRICS: &str = "Metrics";
const COMMAND: &str = "Command";
const TRACING: &str = "Tracing";

macro_rules! options {
    ($($heading:ident $key:literal $form:expr, $default:expr, $value:literal, $help:literal;)*) => {
        /// All of them.
        pub const OPTIONS: &[Opt] = &[$(Opt {
            key: $key,
            form: $form,
            default: $default,
            value: $value,
            heading: $heading,
            help: $help,
        }),*];
    };
}

options! {
    JSON "json" Form::Text, None, "FILE",
        "Append records to this file as JSON lines, those of `trace -o json` (docs/output.md)";
    JSON "json_max_size" Form::Size, Some("\"64M\""), "SIZE",
        "Begin a new file before this one is larger; the old one becomes FILE.1. 0: never, logrotate does it";
    JSON "json_keep" Form::Number, Some("4"), "N",
        "Keep so many old files; 0 keeps none";
    JOURNAL "journal" Form::Switch, Some("false"), "BOOL",
        "Send records to systemd's journal, with fields and a MESSAGE_ID for each kind";
    STORE "store" Form::Text, None, "FILE",
        "Keep every fact and incident in this SQLite database, as `record` does (docs/record.md)";
    STORE "store_keep" Form::Age, Some("\"90d\""), "TIME",
        "Delete what is older than this from the store";
    STORE "store_max_size" Form::Size, Some("\"1G\""), "SIZE",
        "Delete the oldest when the store is larger than this";
    METRICS "listen" Form::Text, None, "ADDRESS",
        "Serve /metrics, /healthz and /readyz over HTTP at this address: 127.0.0.1:9599. Sockets that systemd hands over are used as well";
    METRICS "metrics_textfile" Form::Text, None, "FILE",
        "Write the metrics to this file, for the textfile collector of node_exporter: its name has to end in .prom";
    METRICS "metrics_interval" Form::Time, Some("\"15s\""), "TIME",
        "How often the text file is written";
    COMMAND "on_incident" Form::Command, None, "COMMAND",
        "Run this command for each incident, with its JSON on standard input. No shell: a list of program and arguments, [\"/usr/local/bin/page\", \"dba\"]; as a flag or variable a program alone may be given";
    COMMAND "on_incident_at_once" Form::Count, Some("2"), "N",
        "Run at most so many at the same time; further incidents wait";
    COMMAND "on_incident_per_minute" Form::Count, Some("30"), "N",
        "Start at most so many in a minute; further incidents are left out and counted";
    COMMAND "on_incident_timeout" Form::Time, Some("\"30s\""), "TIME",
        "Kill a command that takes longer, and all that it started";
    TRACING "calls" Form::SomeOf(&["msync", "fsync", "fdatasync", "io_uring", "nfsd", "all"]), Some("[\"msync\"]"), "CALLS",
        "The calls that make incidents";
    TRACING "include_async" Form::Switch, Some("false"), "BOOL",
        "Report msync without MS_SYNC as well, which promises nothing";
    TRACING "tier" Form::OneOf(&["auto", "fentry", "kprobe", "tracepoint"]), Some("\"auto\""), "TIER",
        "The hooks to use: the best that the kernel allows, or only these";
    TRACING "ring_size" Form::Size, Some("\"1M\""), "SIZE",
        "Size of each of the three buffers between kernel and msync-trace, a power of two";
    TRACING "pin" Form::Switch, Some("true"), "BOOL",
        "Leave the hooks attached at the end, and begin with what those of the last run saw meanwhile (docs/restart.md); `msync-trace detach` takes them away";
    TRACING "queue" Form::Count, Some("4096"), "N",
        "Records that may wait for a slow output; what comes then is missing there and counted, incidents last";
}

impl Opt {
    /// `--json-max-size`, without the dashes before it.
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }

    /// `MSYNC_TRACE_JSON_MAX_SIZE`.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.key.to_uppercase())
    }
}

/// Of the environment variables.
pub const PREFIX: &str = "MSYNC_TRACE_";

/// The options as a table, for docs/serve.md.
#[must_use]
pub fn document() -> String {
    let mut page = String::from("| key | default | meaning |\n|---|---|---|\n");
    for option in OPTIONS {
        let default = option
            .default
            .map_or_else(|| "off".to_owned(), |it| format!("`{it}`"));
        let help = option.help.replace('|', "\\|");
        page += &format!("| `{}` | {default} | {help} |\n", option.key);
    }
    page
}
