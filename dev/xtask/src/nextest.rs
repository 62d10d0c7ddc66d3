//! What the test runners say at their end.

use anyhow::{Context as _, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Ran and passed.
    pub(crate) passed: usize,
    /// Failed, timed out or could not be run.
    pub(crate) failed: usize,
    /// Did not run, or said that they checked nothing.
    pub(crate) skipped: usize,
}

impl Counts {
    /// Adds the counts of another run.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Moves tests that said they were skipped from the passed ones.
    pub(crate) fn with_skipped(self, skipped: usize) -> Self {
        let skipped = skipped.min(self.passed);
        Self {
            passed: self.passed - skipped,
            skipped: self.skipped + skipped,
            ..self
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// Reads nextest's last `Summary [ 1.2s] 5 tests run: 4 passed (1 slow), 1
/// failed, 1 timed out, 0 skipped` line.
pub(crate) fn summary(output: &str) -> Option<Counts> {
    let output = without_colour(output);
    let line = output
        .lines()
        .rfind(|line| line.trim_start().starts_with("Summary ["))?;
    let (_, figures) = line.split_once("run:")?;
    Some(figures.split(',').fold(Counts::default(), tally))
}

/// Adds up the `test result: ok. 3 passed; 0 failed; 1 ignored; …` lines.
pub(crate) fn doctest_summary(output: &str) -> Counts {
    output
        .lines()
        .filter_map(|line| line.strip_prefix("test result: "))
        .filter_map(|line| line.split_once(". "))
        .flat_map(|(_, figures)| figures.split(';'))
        .fold(Counts::default(), tally)
}

/// Adds one figure such as ` 4 passed (1 slow)`.
fn tally(mut counts: Counts, figure: &str) -> Counts {
    let mut words = figure.split_whitespace();
    let (Some(Ok(number)), Some(kind)) = (words.next().map(str::parse::<usize>), words.next())
    else {
        return counts;
    };
    match kind {
        "passed" => counts.passed += number,
        "skipped" | "ignored" => counts.skipped += number,
        "failed" | "timed" | "exec" => counts.failed += number,
        _ => {}
    }
    counts
}

fn without_colour(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut pieces = text.split("\u{1b}[");
    plain.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        // A control sequence ends with its first letter.
        let end = piece.find(|c: char| c.is_ascii_alphabetic());
        plain.push_str(end.and_then(|end| piece.get(end + 1..)).unwrap_or_default());
    }
    plain
}

/// The JUnit file in which nextest's `ci` profile keeps the output of every test.
pub(crate) struct Report {
    path: PathBuf,
}

impl Report {
    /// Removes the file of an earlier run. Its place is below the workspace's
    /// own `target`, wherever cargo builds.
    pub(crate) fn forget_earlier(root: &Path) -> Result<Self> {
        let path = root.join("target/nextest/ci/junit.xml");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", path.display()))
            }
            _ => Ok(Self { path }),
        }
    }

    /// One line per test that said `skipped: NAME: WHY` and passed.
    pub(crate) fn skipped_by_themselves(&self) -> Result<BTreeSet<String>> {
        let text = fs::read_to_string(&self.path)
            .with_context(|| format!("reading {}", self.path.display()))?;
        Ok(skipped_by_themselves(&text))
    }
}

fn skipped_by_themselves(junit: &str) -> BTreeSet<String> {
    junit
        .split("<testcase")
        .skip(1)
        .filter(|case| !case.contains("<failure") && !case.contains("<error"))
        .filter_map(|case| {
            let name = attribute(case, "name")?;
            let said = case
                .split(['\n', '>'])
                .find_map(|line| line.trim().strip_prefix("skipped: "))?;
            let said = said.split('<').next().unwrap_or(said);
            let binary = attribute(case, "classname").unwrap_or_default();
            Some(format!("skipped: {binary} {name}: {said}"))
        })
        .collect()
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &str) {
        assert_eq!(summary(line).unwrap().to_string(), expected);
    }

    #[test]
    fn summaries_of_nextest() {
        check(
            "     Summary [   0.012s] 5 tests run: 5 passed, 0 skipped",
            "5 passed, 0 failed, 0 skipped",
        );
        check(
            "     Summary [  33.1s] 9/12 tests run: 5 passed (1 slow, 1 leaky), 2 failed, \
             1 exec failed, 1 timed out, 3 skipped",
            "5 passed, 4 failed, 3 skipped",
        );
        check(
            "\u{1b}[32;1m     Summary\u{1b}[0m [   0.012s] \u{1b}[1m1\u{1b}[0m test run: \
             \u{1b}[1m1\u{1b}[0m \u{1b}[32;1mpassed\u{1b}[0m, \u{1b}[1m0\u{1b}[0m skipped",
            "1 passed, 0 failed, 0 skipped",
        );
        assert_eq!(summary("error: no tests to run"), None);
    }

    #[test]
    fn doctest_results_add_up() {
        let output = "\nrunning 3 tests\n...\ntest result: ok. 3 passed; 0 failed; 1 ignored; \
                      0 measured; 0 filtered out; finished in 0.5s\n\ntest result: FAILED. \
                      1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let counts = doctest_summary(output);
        assert_eq!(counts.to_string(), "4 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn a_test_that_checked_nothing_is_not_passed() {
        let junit = r#"<testsuite name="a"><testcase name="jcs" classname="a::it" time="0.1">
            <system-out>running 1 test
skipped: jcs: no corpora
test jcs ... ok</system-out></testcase><testcase name="other" classname="a">
            <system-out>skipped: other: no root</system-out></testcase>
            <testcase name="real" classname="a"><system-out>ok</system-out></testcase>
            <testcase name="bad" classname="a"><failure/><system-out>skipped: x
            </system-out></testcase>"#;
        let found: Vec<_> = skipped_by_themselves(junit).into_iter().collect();
        let expected = [
            "skipped: a other: other: no root",
            "skipped: a::it jcs: jcs: no corpora",
        ];
        assert_eq!(found, expected);
        let counts = Counts {
            passed: 4,
            failed: 1,
            skipped: 0,
        };
        assert_eq!(
            counts.with_skipped(found.len()).to_string(),
            "2 passed, 1 failed, 2 skipped"
        );
    }
}
