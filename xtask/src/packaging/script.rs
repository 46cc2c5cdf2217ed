//! What the shell scripts of these tests print: `PASS name`, `FAIL name: why`, and `END` at the end.

use crate::tally::Tally;

/// Takes their lines.
pub struct ScriptOutput {
    section: &'static str,
    tally: Tally,
    ended: bool,
}

impl ScriptOutput {
    /// `section` stands before what failed.
    pub fn new(section: &'static str) -> Self {
        Self {
            section,
            tally: Tally::default(),
            ended: false,
        }
    }

    /// Takes a line.
    pub fn read(&mut self, line: &str) {
        if line.starts_with("PASS ") {
            self.tally.passed += 1;
        } else if let Some(what) = line.strip_prefix("FAIL ") {
            self.tally.failed.push(format!("{}: {what}", self.section));
        } else if line == "END" {
            self.ended = true;
        }
    }

    /// The tests. A script that did not come to its end is a failure; `log` has more.
    pub fn finish(mut self, log: &str) -> Tally {
        if !self.ended {
            let what = format!("{}: not gone through to the end: {log}", self.section);
            self.tally.failed.push(what);
        }
        self.tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_stops_half_way_fails() {
        let run = |lines: &[&str]| {
            let mut output = ScriptOutput::new("root");
            lines.iter().for_each(|line| output.read(line));
            output.finish("log").line()
        };
        assert_eq!(run(&["PASS a", "END"]), "1 passed, 0 failed, 0 skipped");
        assert_eq!(run(&["PASS a"]), "1 passed, 1 failed, 0 skipped");
        assert_eq!(run(&["FAIL a: b", "END"]), "0 passed, 1 failed, 0 skipped");
    }
}
