//! `cargo xtask test`: every check, in order, with a summary at the end.

use crate::nextest::{self, Counts};
use crate::repo::{Repo, find_program, in_ci, is_root};
use crate::setup::{self, Purpose};
use crate::step::{collected, on_terminal, quiet, streamed, teed};
use crate::{bpf, step, tidy};
use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// How much is checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Everything that continuous integration asks for.
    Everything,
    /// What is worth running before every commit.
    Quick,
}

/// How a gate ended.
enum Outcome {
    Passed,
    Failed(String),
    /// Not run, and why.
    Left(String),
}

/// All gates of one run so far.
struct Gates {
    done: Vec<(&'static str, Outcome, Duration)>,
    tests: Counts,
}

/// Sets the machine up, then runs every gate even after one failed.
pub(crate) fn run(repo: &Repo, extent: Extent) -> Result<()> {
    let begun = Instant::now();
    match extent {
        Extent::Everything => setup::run(repo, &[Purpose::Test])?,
        // The tests run this program in their sandboxes: it must be as new as they are.
        Extent::Quick => setup::build_guest(repo, &[Purpose::Test])?,
    }
    if !is_root() {
        println!(
            "note: not root, so tests that need namespaces, taps or a microVM skip themselves"
        );
    }
    let mut gates = Gates {
        done: Vec::new(),
        tests: Counts::default(),
    };
    gates.check("format", || {
        streamed(&mut repo.cargo(["fmt", "--all", "--check"]))
    });
    gates.check("clippy", || clippy(repo));
    if extent == Extent::Everything {
        gates.check("documentation", || documentation(repo));
    }
    gates.check("tidy", || tidy::run(repo));
    if extent == Extent::Everything {
        gates.cargo_deny(repo);
    }
    gates.bpf(repo);
    gates.corpora(repo);
    gates.nextest(repo);
    if extent == Extent::Everything {
        gates.doctests(repo);
    }
    gates.finish(begun.elapsed())
}

fn clippy(repo: &Repo) -> Result<()> {
    let mut command = repo.cargo(["clippy", "--workspace", "--all-targets", "--locked"]);
    quiet(command.args(["--", "-D", "warnings"]))
}

fn documentation(repo: &Repo) -> Result<()> {
    let mut command = repo.cargo(["doc", "--no-deps", "--workspace", "--locked"]);
    command.arg("--document-private-items");
    quiet(command.env("RUSTDOCFLAGS", "-D warnings"))
}

impl Gates {
    /// Runs a gate that either holds or not.
    fn check(&mut self, name: &'static str, gate: impl FnOnce() -> Result<()>) {
        let begun = Instant::now();
        let outcome = match step::step(name, gate) {
            Ok(()) => Outcome::Passed,
            Err(error) => {
                println!("    {error:#}");
                Outcome::Failed(format!("{error:#}"))
            }
        };
        self.done.push((name, outcome, begun.elapsed()));
    }

    fn leave(&mut self, name: &'static str, why: &str) {
        println!("==> {name}: not run: {why}");
        let outcome = Outcome::Left(why.to_owned());
        self.done.push((name, outcome, Duration::ZERO));
    }

    fn cargo_deny(&mut self, repo: &Repo) {
        if find_program("cargo-deny").is_none() {
            self.leave(
                "cargo-deny",
                "not installed; tidy checks licences and sources itself",
            );
            return;
        }
        self.check("cargo-deny", || {
            quiet(&mut repo.cargo(["deny", "check", "licenses", "bans", "sources"]))
        });
    }

    /// The committed object is what its source makes.
    fn bpf(&mut self, repo: &Repo) {
        if find_program(bpf::CLANG).is_some() || in_ci() {
            self.check("eBPF object", || bpf::check(repo));
        } else {
            self.leave("eBPF object", "no clang-14 to build its source with");
        }
    }

    /// Conformance tests skip themselves without the corpora, but not in CI.
    fn corpora(&mut self, repo: &Repo) {
        let path = repo.corpora();
        if path.is_dir() {
            self.check("corpora", || {
                println!("    {}", path.display());
                Ok(())
            });
        } else if in_ci() {
            self.check("corpora", || {
                bail!("no corpora at {} (set SANDTRACE_CORPORA)", path.display())
            });
        } else {
            self.leave(
                "corpora",
                "not found (set SANDTRACE_CORPORA); conformance tests skip themselves",
            );
        }
    }

    fn nextest(&mut self, repo: &Repo) {
        let mut counts = Counts::default();
        self.check("tests", || {
            let mut command = repo.cargo(["nextest", "run", "--workspace", "--locked"]);
            command.args(["--profile", "ci", "--no-fail-fast"]);
            command.args(["--color", if on_terminal() { "always" } else { "never" }]);
            command.env("SANDTRACE_GUEST", repo.guest());
            let report = nextest::Report::forget_earlier(&repo.root)?;
            let (output, succeeded) = teed(&mut command)?;
            let Some(ran) = nextest::summary(&output) else {
                bail!("nextest ran no test");
            };
            counts = ran;
            let skipped = report.skipped_by_themselves()?;
            for line in &skipped {
                println!("    {line}");
            }
            counts = ran.with_skipped(skipped.len());
            if !succeeded || counts.failed > 0 {
                bail!("{} of the tests failed", counts.failed);
            }
            Ok(())
        });
        self.tests.add(counts);
    }

    fn doctests(&mut self, repo: &Repo) {
        let mut counts = Counts::default();
        self.check("doctests", || {
            let mut command = repo.cargo(["test", "--doc", "--workspace", "--locked", "--quiet"]);
            let (output, succeeded) = collected(&mut command)?;
            counts = nextest::doctest_summary(&output);
            if !succeeded {
                bail!("{} of the doctests failed", counts.failed);
            }
            Ok(())
        });
        self.tests.add(counts);
    }

    /// Prints the summary, of which the last line is the count of tests.
    fn finish(&self, elapsed: Duration) -> Result<()> {
        println!("\n==> summary after {:.0} s", elapsed.as_secs_f64());
        let mut failed = Vec::new();
        for (name, outcome, took) in &self.done {
            let took = took.as_secs_f64();
            match outcome {
                Outcome::Passed => println!("    ok      {name} ({took:.1} s)"),
                Outcome::Left(why) => println!("    -       {name}: {why}"),
                Outcome::Failed(why) => {
                    println!("    FAILED  {name} ({took:.1} s): {why}");
                    failed.push(*name);
                }
            }
        }
        let result = match failed.as_slice() {
            [] => Ok(()),
            failed => Err(anyhow::anyhow!("failed: {}", failed.join(", "))),
        };
        println!("{}", self.tests);
        result
    }
}
