//! The reference verifier: parse each line, take the hash out, write the rest
//! again, hash that. What anybody would write first, and correct for trails
//! whose names are ASCII.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

/// The argument with which this program becomes that verifier.
pub(crate) const COMMAND: &str = "naive-verify";

/// Verifies the chain of one file.
pub(crate) fn run(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut before: Option<String> = None;
    let mut records = 0_u64;
    for line in BufReader::new(file).lines() {
        let line = line.with_context(|| format!("reading {}", path.display()))?;
        records += 1;
        let hash = verify(&line, before.as_deref(), records)
            .with_context(|| format!("record {records}"))?;
        before = Some(hash);
    }
    println!("{records} records");
    Ok(())
}

fn verify(line: &str, before: Option<&str>, seq: u64) -> Result<String> {
    let mut event: Value = serde_json::from_str(line).context("not JSON")?;
    let members = event.as_object_mut().context("not an object")?;
    let Some(Value::String(claimed)) = members.remove("record_hash") else {
        bail!("no record_hash");
    };
    let previous = members.get("prev_hash").and_then(Value::as_str);
    if previous != before || members.get("seq").and_then(Value::as_u64) != Some(seq) {
        bail!("not the successor of the record before");
    }
    let mut hasher = Sha256::new();
    hasher.update(serde_json::to_string(&event).context("writing it again")?);
    hasher.update(before.unwrap_or_default());
    let mut computed = "sha256:".to_owned();
    for byte in hasher.finalize() {
        write!(computed, "{byte:02x}").context("writing a hash")?;
    }
    if computed != claimed {
        bail!("record_hash is wrong");
    }
    Ok(claimed)
}
