//! What `serve` is to do: flags over environment over file over defaults.

use std::{
    collections::BTreeMap, env, ffi::OsString, fs, path::Path, path::PathBuf, time::Duration,
};

use anyhow::{Context, bail};
use clap::ValueEnum;
use toml::{Table, Value};

use crate::{
    cli::{
        CallName, TierName, parse_age, parse_duration, parse_record_size, parse_ring_size,
        parse_size,
        serve::{Form, OPTIONS, Opt, PREFIX, ServeArgs},
    },
    model::Call,
    output::{Bounds, Rotation, escape},
    source::Tier,
    store::Limits,
};

/// Everything that `serve` does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub json: Option<(PathBuf, Rotation)>,
    pub journal: bool,
    pub store: Option<(PathBuf, Limits)>,
    pub listen: Option<String>,
    pub metrics_textfile: Option<(PathBuf, Duration)>,
    pub on_incident: Option<(Vec<OsString>, Bounds)>,
    pub calls: Vec<Call>,
    pub include_async: bool,
    pub tier: Option<Tier>,
    pub ring_bytes: u32,
    pub pin: bool,
    pub queue: usize,
}

impl Config {
    /// Whether incidents go nowhere but into counts that nobody reads.
    pub(super) fn has_no_output(&self) -> bool {
        self.json.is_none()
            && !self.journal
            && self.store.is_none()
            && self.on_incident.is_none()
            && self.listen.is_none()
            && self.metrics_textfile.is_none()
    }
}

/// The values in effect, each checked, by key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Values(BTreeMap<&'static str, Value>);

/// Keys that are variables of other parts of the project, not options of `serve`.
const NOT_OPTIONS: &str = "VM_CACHE";

impl Values {
    /// From everywhere.
    ///
    /// # Errors
    /// A sentence that names the value and where it stands.
    pub(super) fn new(args: &ServeArgs) -> anyhow::Result<Self> {
        let mut this = Self::defaults();
        if let Some(path) = &args.config {
            let text =
                fs::read_to_string(path).with_context(|| format!("cannot read {}", spell(path)))?;
            this.take_file(&spell(path), &text)?;
        }
        for option in OPTIONS {
            if let Some(text) = env::var_os(option.variable()) {
                this.take_text(option, &option.variable(), &text)?;
            }
        }
        for (option, text) in OPTIONS.iter().zip(&args.values.0) {
            if let Some(text) = text {
                this.take_text(option, &format!("--{}", option.flag()), text)?;
            }
        }
        Ok(this)
    }

    fn defaults() -> Self {
        let default = |option: &Opt| Some((option.key, parse_value(option.default?)?));
        Self(OPTIONS.iter().filter_map(default).collect())
    }

    fn take_file(&mut self, path: &str, text: &str) -> anyhow::Result<()> {
        let table: Table = text
            .parse()
            .map_err(|error: toml::de::Error| anyhow::anyhow!("{path}: {error}"))?;
        for (key, value) in table {
            let place = format!("{path}: {}", escape(key.as_bytes()));
            let Some(option) = OPTIONS.iter().find(|option| option.key == key) else {
                bail!("{place}: there is no such key{}", suggestion(&key));
            };
            checked(option.form, &value).map_err(|why| anyhow::anyhow!("{place}: {why}"))?;
            self.0.insert(option.key, value);
        }
        Ok(())
    }

    /// Of a flag or a variable.
    fn take_text(
        &mut self,
        option: &'static Opt,
        place: &str,
        text: &OsString,
    ) -> anyhow::Result<()> {
        let Some(text) = text.to_str() else {
            bail!("{place}: not UTF-8; give such a name in another way");
        };
        if text.is_empty() && option.default.is_none() {
            // Switches off what a file has switched on.
            self.0.remove(option.key);
            return Ok(());
        }
        let value = value_of(option.form, text);
        checked(option.form, &value).map_err(|why| anyhow::anyhow!("{place}: {why}"))?;
        self.0.insert(option.key, value);
        Ok(())
    }

    /// As a file that says the same.
    pub(super) fn print(&self) -> String {
        let mut text = String::new();
        for option in OPTIONS {
            match self.0.get(option.key) {
                Some(value) => text += &format!("{} = {value}\n", option.key),
                None => text += &format!("# {} = (off)\n", option.key),
            }
        }
        text
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Value::as_str)
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    fn is_on(&self, key: &str) -> bool {
        self.0.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    fn number(&self, key: &str) -> anyhow::Result<u32> {
        let number = self.0.get(key).and_then(Value::as_integer);
        let number = number.and_then(|number| u32::try_from(number).ok());
        number.with_context(|| format!("{key}: no number"))
    }

    fn parsed<T>(&self, key: &str, parse: fn(&str) -> Result<T, String>) -> anyhow::Result<T> {
        let text = self.text(key).with_context(|| format!("{key}: no value"))?;
        parse(text).map_err(|why| anyhow::anyhow!("{key}: {why}"))
    }

    fn words(&self, key: &str) -> Vec<&str> {
        let list = self.0.get(key).and_then(Value::as_array);
        let words = list.map(|list| list.iter().filter_map(Value::as_str).collect());
        words.unwrap_or_default()
    }

    /// What they mean.
    ///
    /// # Errors
    /// As of [`Self::new`].
    pub(super) fn config(&self) -> anyhow::Result<Config> {
        let rotation = Rotation {
            max_size: match self.parsed("json_max_size", parse_size)? {
                0 => u64::MAX,
                size => size,
            },
            keep: self.number("json_keep")?,
        };
        let limits = Limits {
            keep: Some(self.parsed("store_keep", parse_age)?),
            max_size: Some(self.parsed("store_max_size", parse_record_size)?),
        };
        let bounds = Bounds {
            at_once: self.number("on_incident_at_once")?,
            per_minute: self.number("on_incident_per_minute")?,
            timeout: self.parsed("on_incident_timeout", parse_duration)?,
        };
        let interval = self.parsed("metrics_interval", parse_duration)?;
        let command: Vec<_> = self
            .words("on_incident")
            .into_iter()
            .map(OsString::from)
            .collect();
        let tier = self.text("tier").unwrap_or_default();
        let tier = TierName::from_str(tier, false).map_err(|why| anyhow::anyhow!("tier: {why}"))?;
        let calls = self
            .words("calls")
            .into_iter()
            .map(|name| CallName::from_str(name, false));
        let calls: Result<Vec<_>, _> = calls.collect();
        let calls = calls.map_err(|why| anyhow::anyhow!("calls: {why}"))?;
        let include_async = self.is_on("include_async");
        let textfile = self.path("metrics_textfile");
        if let Some(path) = &textfile
            && path.extension().is_none_or(|extension| extension != "prom")
        {
            bail!(
                "metrics_textfile: {}: node_exporter reads only names that end in .prom",
                spell(path)
            );
        }
        Ok(Config {
            json: self.path("json").map(|path| (path, rotation)),
            journal: self.is_on("journal"),
            store: self.path("store").map(|path| (path, limits)),
            listen: self.text("listen").map(str::to_owned),
            metrics_textfile: textfile.map(|path| (path, interval)),
            on_incident: (!command.is_empty()).then_some((command, bounds)),
            calls: crate::cmd::trace::plan::calls(&calls, include_async),
            include_async,
            tier: tier.tier(),
            ring_bytes: self.parsed("ring_size", parse_ring_size)?,
            pin: self.is_on("pin"),
            queue: self.number("queue")? as usize,
        })
    }
}

fn spell(path: &Path) -> String {
    escape(path.as_os_str().as_encoded_bytes())
}

fn parse_value(text: &str) -> Option<Value> {
    let mut table: Table = format!("value = {text}").parse().ok()?;
    table.remove("value")
}

/// What a word on the command line or in the environment stands for.
fn value_of(form: Form, text: &str) -> Value {
    let as_text = || Value::String(text.to_owned());
    match form {
        Form::Switch | Form::Count | Form::Number => parse_value(text).unwrap_or_else(as_text),
        Form::Command if !text.trim_start().starts_with('[') => Value::Array(vec![as_text()]),
        Form::SomeOf(_) if !text.trim_start().starts_with('[') => {
            let word = |word: &str| Value::String(word.trim().to_owned());
            Value::Array(text.split(',').map(word).collect())
        }
        Form::Command | Form::SomeOf(_) => parse_value(text).unwrap_or_else(as_text),
        Form::Text | Form::Size | Form::Time | Form::Age | Form::OneOf(_) => as_text(),
    }
}

/// Whether a value has the form that its key wants.
fn checked(form: Form, value: &Value) -> Result<(), String> {
    let text = || {
        value
            .as_str()
            .ok_or_else(|| format!("{value} is no text in quotes"))
    };
    match form {
        Form::Switch => match value {
            Value::Boolean(_) => Ok(()),
            _ => Err(format!("{value} is neither true nor false")),
        },
        Form::Text => match text()? {
            "" => Err("nothing is named; leave the key out to switch it off".to_owned()),
            _ => Ok(()),
        },
        Form::Size => parse_size(text()?).map(drop),
        Form::Time => parse_duration(text()?).map(drop),
        Form::Age => parse_age(text()?).map(drop),
        Form::Count => in_range(value, 1),
        Form::Number => in_range(value, 0),
        Form::OneOf(words) => one_of(words, text()?),
        Form::SomeOf(words) => listed(value)?
            .into_iter()
            .try_for_each(|it| one_of(words, it)),
        Form::Command => match &listed(value)?[..] {
            [] | ["", ..] => Err("no program is named".to_owned()),
            [..] => Ok(()),
        },
    }
}

fn in_range(value: &Value, least: i64) -> Result<(), String> {
    match value.as_integer() {
        Some(number) if (least..=1_000_000).contains(&number) => Ok(()),
        _ => Err(format!("{value} is no number from {least} to 1000000")),
    }
}

fn listed(value: &Value) -> Result<Vec<&str>, String> {
    let list = value
        .as_array()
        .and_then(|list| list.iter().map(Value::as_str).collect());
    list.ok_or_else(|| format!("{value} is no list of texts: [\"…\", \"…\"]"))
}

fn one_of(words: &[&str], word: &str) -> Result<(), String> {
    match words.contains(&word) {
        true => Ok(()),
        false => Err(format!(
            "{} is none of {}",
            escape(word.as_bytes()),
            words.join(", ")
        )),
    }
}

/// What may have been meant.
fn suggestion(key: &str) -> String {
    let dashed = key.replace('-', "_");
    let alike = |option: &&Opt| strsim::jaro_winkler(option.key, &dashed);
    let best = OPTIONS.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    match best.filter(|option| alike(option) > 0.7) {
        Some(option) => format!("; did you mean {}?", option.key),
        None => " (msync-trace serve --print-config shows all)".to_owned(),
    }
}

/// Variables that look like options and are none.
pub(super) fn unknown_variables() -> Vec<String> {
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let is_unknown = |name: &String| {
        name.strip_prefix(PREFIX).is_some_and(|rest| {
            rest != NOT_OPTIONS && OPTIONS.iter().all(|option| option.variable() != *name)
        })
    };
    names
        .filter(is_unknown)
        .map(|name| {
            let key = name[PREFIX.len()..].to_lowercase();
            format!("{name} is no option{}", suggestion(&key))
        })
        .collect()
}
