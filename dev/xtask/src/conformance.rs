//! `cargo xtask conformance`: our replay beside Zeek's published logs.

use crate::repo::Repo;
use crate::step::streamed;
use anyhow::Result;

/// Runs the comparison and shows the agreement per log and per field.
pub(crate) fn run(repo: &Repo) -> Result<()> {
    let mut test = repo.cargo([
        "test",
        "--quiet",
        "--locked",
        "--package",
        "sandtrace-capture",
    ]);
    test.args(["--test", "corpora", "--", "--nocapture"]);
    test.args(["conformance::", "ja4::", "community_id::"]);
    // One after the other, so that their tables do not mix.
    streamed(test.arg("--test-threads=1").env("CI", "true"))
}
