//! Counting tests: what the scenario runner and `cargo test` print, read back.

/// How many tests did what, and which ones did not pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: usize,
    /// `name: why` of each test that failed.
    pub failed: Vec<String>,
    /// `name: reason` of each test that was not run.
    pub skipped: Vec<String>,
}

impl Tally {
    /// One test, passed.
    pub fn one_passed() -> Self {
        Self {
            passed: 1,
            ..Self::default()
        }
    }

    /// One test, failed.
    pub fn one_failed(why: impl Into<String>) -> Self {
        Self {
            failed: vec![why.into()],
            ..Self::default()
        }
    }

    /// One test, not run.
    pub fn one_skipped(reason: impl Into<String>) -> Self {
        Self {
            skipped: vec![reason.into()],
            ..Self::default()
        }
    }

    /// Adds another's tests to these.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
    }

    /// `N passed, N failed, N skipped`.
    pub fn line(&self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed,
            self.failed.len(),
            self.skipped.len()
        )
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Reads the scenario runner: `PASS name`, `FAIL name: why`, `SKIPPED name: reason`, and at the end
/// `N passed, N failed, N skipped`.
pub struct ScenarioOutput {
    section: String,
    tally: Tally,
    totals: Option<String>,
}

impl ScenarioOutput {
    /// `section` stands before the names of tests.
    pub fn new(section: &str) -> Self {
        Self {
            section: section.to_owned(),
            tally: Tally::default(),
            totals: None,
        }
    }

    /// Takes a line.
    pub fn read(&mut self, line: &str) {
        let named = |what: &str| format!("{}: {what}", self.section);
        if line.starts_with("PASS ") {
            self.tally.passed += 1;
        } else if let Some(what) = line.strip_prefix("FAIL ") {
            self.tally.failed.push(named(what));
        } else if let Some(what) = line.strip_prefix("SKIPPED ") {
            self.tally.skipped.push(named(what));
        } else if is_totals_line(line) {
            self.totals = Some(line.trim().to_owned());
        }
    }

    /// The tests, once the runner ended with `status` (nothing if it never ended). A runner that
    /// stopped half-way, or ran nothing, is a failure of its own.
    pub fn finish(mut self, status: Option<i32>) -> Tally {
        let problem = match (&self.totals, status) {
            (_, None) => Some("the runner never ended".to_owned()),
            _ if self.tally.is_empty() => Some("no scenario was run".to_owned()),
            (None, Some(status)) => Some(format!("no totals at the end (exit status {status})")),
            (Some(totals), _) if *totals != self.tally.line() => Some(format!(
                "its totals say \"{totals}\", its lines \"{}\"",
                self.tally.line()
            )),
            (_, Some(status)) if status != 0 && self.tally.failed.is_empty() => {
                Some(format!("exit status {status} without a failed scenario"))
            }
            _ => None,
        };
        self.tally
            .failed
            .extend(problem.map(|problem| format!("{}: {problem}", self.section)));
        self.tally
    }
}

fn is_totals_line(line: &str) -> bool {
    let mut words = line.split_whitespace();
    ["passed,", "failed,", "skipped"].iter().all(|word| {
        words
            .next()
            .is_some_and(|number| number.parse::<u32>().is_ok())
            && words.next() == Some(word)
    }) && words.next().is_none()
}

/// Reads `cargo test -- --show-output`. A test that cannot run here (no root, no BTF) prints
/// `SKIPPED name: reason` and returns; an ignored test counts as skipped too.
#[derive(Default)]
pub struct CargoTestOutput {
    tally: Tally,
}

impl CargoTestOutput {
    /// Takes a line.
    pub fn read(&mut self, line: &str) {
        if let Some(what) = line.trim_start().strip_prefix("SKIPPED ") {
            self.tally.skipped.push(what.to_owned());
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            self.tally.passed += count_before(counts, " passed;");
        } else if let Some((name, verdict)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... "))
        {
            if verdict == "FAILED" {
                self.tally.failed.push(name.to_owned());
            } else if verdict.starts_with("ignored") {
                self.tally.skipped.push(format!("{name}: {verdict}"));
            }
        }
    }

    /// The tests, once cargo ended.
    pub fn finish(mut self, success: bool) -> Tally {
        // libtest has counted a test that skipped itself as passed; an ignored one it has not.
        let itself = self
            .tally
            .skipped
            .iter()
            .filter(|what| !what.contains(": ignored"))
            .count();
        self.tally.passed = self.tally.passed.saturating_sub(itself);
        if self.tally.is_empty() {
            return Tally::one_failed("cargo test ran no test");
        }
        if !success && self.tally.failed.is_empty() {
            self.tally
                .failed
                .push("cargo test failed before or after its tests".to_owned());
        }
        self.tally
    }
}

fn count_before(text: &str, what: &str) -> usize {
    let number = text
        .split_once(what)
        .and_then(|(before, _)| before.rsplit(' ').next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenarios(lines: &[&str], status: Option<i32>) -> Tally {
        let mut output = ScenarioOutput::new("fentry");
        for line in lines {
            output.read(line);
        }
        output.finish(status)
    }

    #[test]
    fn scenario_lines_are_counted_and_named() {
        let tally = scenarios(
            &[
                "making a scratch device",
                "PASS ext4/same-descriptor",
                "FAIL xfs/fork: told nobody, expected other",
                "SKIPPED btrfs/fork: no mkfs.btrfs",
                "1 passed, 1 failed, 1 skipped",
            ],
            Some(1),
        );
        assert_eq!(tally.passed, 1);
        assert_eq!(
            tally.failed,
            ["fentry: xfs/fork: told nobody, expected other"]
        );
        assert_eq!(tally.skipped, ["fentry: btrfs/fork: no mkfs.btrfs"]);
        assert_eq!(tally.line(), "1 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn a_run_without_scenarios_fails() {
        let tally = scenarios(&["0 passed, 0 failed, 0 skipped"], Some(0));
        assert_eq!(tally.failed, ["fentry: no scenario was run"]);
    }

    #[test]
    fn a_runner_that_stops_half_way_fails() {
        let cut = scenarios(&["PASS a"], Some(0));
        assert_eq!(cut.failed, ["fentry: no totals at the end (exit status 0)"]);
        let gone = scenarios(&["PASS a"], None);
        assert_eq!(gone.failed, ["fentry: the runner never ended"]);
    }

    #[test]
    fn lines_and_totals_must_agree_and_a_bad_status_needs_a_failure() {
        let lost_a_line = scenarios(&["PASS a", "2 passed, 0 failed, 0 skipped"], Some(0));
        assert_eq!(lost_a_line.failed.len(), 1);
        let bad_status = scenarios(&["PASS a", "1 passed, 0 failed, 0 skipped"], Some(101));
        assert_eq!(
            bad_status.failed,
            ["fentry: exit status 101 without a failed scenario"]
        );
        let fine = scenarios(&["PASS a", "1 passed, 0 failed, 0 skipped"], Some(0));
        assert_eq!(fine.failed, [""; 0]);
    }

    #[test]
    fn cargo_tests_are_counted_over_all_binaries() {
        let mut output = CargoTestOutput::default();
        for line in [
            "test a ... ok",
            "test b ... FAILED",
            "test slow ... ignored, takes an hour",
            "SKIPPED attach: not root",
            "test result: FAILED. 5 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            output.read(line);
        }
        let tally = output.finish(false);
        assert_eq!(tally.passed, 7);
        assert_eq!(tally.failed, ["b"]);
        assert_eq!(
            tally.skipped,
            ["slow: ignored, takes an hour", "attach: not root"]
        );
    }

    #[test]
    fn cargo_test_that_does_not_compile_or_runs_nothing_fails() {
        assert_eq!(CargoTestOutput::default().finish(true).failed.len(), 1);
        let mut output = CargoTestOutput::default();
        output.read("test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured");
        assert_eq!(output.finish(false).failed.len(), 1);
    }
}
