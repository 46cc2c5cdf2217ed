//! Prometheus, Alertmanager and node_exporter as Debian packages them, with the files of packaging/:
//! only addresses are replaced, and the time for which alerts wait.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    daemon::Daemon,
    http::{self, free_port},
    paths,
};

/// All of them, running.
pub struct Engines {
    prometheus: Daemon,
    alertmanager: Daemon,
    node_exporter: Daemon,
    /// Where Prometheus answers.
    pub prometheus_port: u16,
    /// Where Alertmanager answers.
    pub alertmanager_port: u16,
    /// Where node_exporter answers.
    pub node_exporter_port: u16,
    /// Alertmanager's configuration.
    pub alertmanager_config: PathBuf,
}

impl Engines {
    /// Starts them in `folder`, to watch the daemon at `serve` and the text files in `textfiles`, and
    /// to call the pager at `pager`.
    pub fn start(folder: &Path, serve: u16, textfiles: &Path, pager: u16) -> Result<Self> {
        let (prometheus_port, alertmanager_port) = (free_port()?, free_port()?);
        let node_exporter_port = free_port()?;
        let alertmanager_config = folder.join("alertmanager.yml");
        let config = packaged("fleet/alertmanager.yaml")?;
        let config = replaced(&config, "pager.example", &format!("127.0.0.1:{pager}"))?;
        fs::write(&alertmanager_config, config)?;
        let log = |name: &str| folder.join(format!("{name}.log"));
        let alertmanager = alertmanager(folder, &alertmanager_config, alertmanager_port);
        let alertmanager = Daemon::start(alertmanager, &log("alertmanager"))?;
        let prometheus = prometheus(folder, prometheus_port, serve, alertmanager_port)?;
        let prometheus = Daemon::start(prometheus, &log("prometheus"))?;
        let mut node_exporter = Command::new(program("prometheus-node-exporter")?);
        node_exporter
            .args(["--collector.disable-defaults", "--collector.textfile"])
            .arg(format!(
                "--collector.textfile.directory={}",
                textfiles.display()
            ))
            .arg(format!(
                "--web.listen-address=127.0.0.1:{node_exporter_port}"
            ));
        Ok(Self {
            prometheus,
            alertmanager,
            node_exporter: Daemon::start(node_exporter, &log("node_exporter"))?,
            prometheus_port,
            alertmanager_port,
            node_exporter_port,
            alertmanager_config,
        })
    }

    /// An error if one of them does not run any more, or not answer yet.
    pub fn must_answer(&mut self) -> Result<()> {
        for (daemon, port, path) in [
            (&mut self.prometheus, self.prometheus_port, "/-/ready"),
            (&mut self.alertmanager, self.alertmanager_port, "/-/ready"),
            (&mut self.node_exporter, self.node_exporter_port, "/metrics"),
        ] {
            daemon.must_run()?;
            http::get(port, path).with_context(|| daemon.last_words())?;
        }
        Ok(())
    }
}

fn prometheus(folder: &Path, port: u16, serve: u16, alertmanager: u16) -> Result<Command> {
    let config = packaged("fleet/prometheus.yml")?;
    let config = replaced(&config, "_interval: 15s", "_interval: 500ms")?;
    let ours = format!("127.0.0.1:{alertmanager}");
    let config = replaced(&config, "alertmanager.example:9093", &ours)?;
    let targets = folder.join("targets");
    let ours = targets.display().to_string();
    let config = replaced(&config, "/etc/prometheus/msync-trace", &ours)?;
    fs::create_dir(&targets)?;
    let host = serde_json::json!([{"targets": [format!("127.0.0.1:{serve}")]}]);
    fs::write(targets.join("hosts.json"), host.to_string())?;
    let path = folder.join("prometheus.yml");
    fs::write(&path, config)?;
    let rules = in_seconds(&packaged("prometheus/msync-trace.rules.yml")?)?;
    fs::write(folder.join("msync-trace.rules.yml"), rules)?;
    let mut prometheus = Command::new(program("prometheus")?);
    prometheus
        .arg(format!("--config.file={}", path.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            folder.join("tsdb").display()
        ))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    Ok(prometheus)
}

fn alertmanager(folder: &Path, config: &Path, port: u16) -> Command {
    let mut alertmanager = Command::new("prometheus-alertmanager");
    alertmanager
        .arg(format!("--config.file={}", config.display()))
        .arg(format!(
            "--storage.path={}",
            folder.join("alertmanager").display()
        ))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        // No others.
        .arg("--cluster.listen-address=");
    alertmanager
}

fn program(name: &str) -> Result<PathBuf> {
    paths::find_program(name).with_context(|| format!("there is no {name}"))
}

fn packaged(path: &str) -> Result<String> {
    let path = paths::root().join("packaging").join(path);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn replaced(text: &str, from: &str, to: &str) -> Result<String> {
    ensure!(text.contains(from), "there is no {from} to be replaced");
    Ok(text.replace(from, to))
}

/// Rules whose alerts wait for two seconds where they waited for a minute.
fn in_seconds(rules: &str) -> Result<String> {
    let mut text = String::new();
    let mut waits = 0;
    for line in rules.lines() {
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        let minutes = rest.strip_prefix("for: ");
        let minutes = minutes.and_then(|it| it.strip_suffix('m')?.parse::<u32>().ok());
        text += &match minutes {
            Some(minutes) => {
                waits += 1;
                format!("{indent}for: {}s\n", 2 * minutes)
            }
            None => format!("{line}\n"),
        };
    }
    ensure!(waits > 0, "no rule waits");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_become_seconds_where_an_alert_waits() {
        let rules = "expr: increase(x[15m])\n  for: 2m\n  for: 1m\n";
        let quick = "expr: increase(x[15m])\n  for: 4s\n  for: 2s\n";
        assert_eq!(in_seconds(rules).unwrap(), quick);
        assert!(in_seconds("expr: x").is_err());
    }
}
