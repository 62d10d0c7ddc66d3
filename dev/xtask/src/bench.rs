//! `cargo xtask bench`: builds what is measured and the program that measures.

use crate::repo::{Repo, as_root};
use crate::step::{quiet, step, streamed};
use anyhow::Result;

/// Builds in release and hands the arguments on.
pub(crate) fn run(repo: &Repo, arguments: &[&str]) -> Result<()> {
    step("building sandtrace and its benchmarks", || {
        let mut build = repo.cargo(["build", "--release", "--locked"]);
        quiet(build.args(["--package", "sandtrace", "--package", "sandtrace-bench"]))
    })?;
    let release = repo.target.join("release");
    let mut command = as_root(release.join("sandtrace-bench"))?;
    command.arg("--sandtrace").arg(release.join("sandtrace"));
    streamed(command.args(arguments))
}
