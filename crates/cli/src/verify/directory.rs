//! Every trail of a directory.

use super::judge::rank;
use super::place::Place;
use super::settings::Settings;
use super::{Checked, answer, heard, printing};
use crate::exit::{Exit, Failure, OrExit as _};
use crate::show::escaped;
use anyhow::Context as _;
use sandtrace_audit_chain::segments;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Verifies one after the other, in the order of their names; the worst code
/// is that of the directory.
pub(super) fn run(directory: &Path, settings: &Settings) -> Result<Exit, Failure> {
    let trails = trails(directory)
        .with_context(|| format!("look for trails in {}", directory.display()))
        .or_exit(Exit::Malformed)?;
    if trails.is_empty() {
        let message = format!(
            "{}: there is no trail in this directory (*.jsonl, or with a .checkpoint beside it)",
            directory.display()
        );
        return Err(Failure::new(Exit::Malformed, message));
    }
    let mut worst = Exit::Success;
    for trail in &trails {
        let exit = one(trail, settings)?;
        if rank(exit) > rank(worst) {
            worst = exit;
        }
    }
    Ok(worst)
}

fn one(trail: &Path, settings: &Settings) -> Result<Exit, Failure> {
    if !trail.exists() {
        let message = format!(
            "{}: GONE · only its checkpoint is left",
            escaped(&trail.display().to_string())
        );
        crate::show::tell(&format!("sandtrace: {message}"));
        return Ok(Exit::Incomplete);
    }
    let looked = Place::find(trail).and_then(|place| {
        let checked = Checked::file(trail, &place, settings)?;
        Ok((place, checked))
    });
    let (place, checked) = match looked {
        Ok(looked) => looked,
        // The others are looked at all the same.
        Err(failure) if failure.exit == Exit::Malformed => {
            let text = crate::one_line(&failure.error);
            crate::show::tell(&format!("sandtrace: {text}"));
            return Ok(Exit::Malformed);
        }
        Err(failure) => return Err(failure),
    };
    if settings.json {
        return checked.tell(settings, Some(&place));
    }
    heard(line(&checked).map_err(printing))?;
    Ok(checked.judgement.exit)
}

fn line(checked: &Checked) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    let name = escaped(&checked.name);
    write!(out, "{name}: {}", answer::first_line(checked))?;
    match checked.judgement.problems.first() {
        Some(problem) => writeln!(out, " · {}", escaped(&problem.message)),
        None => writeln!(out),
    }
}

/// First files of trails; also of those of which only a checkpoint is left.
fn trails(directory: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            continue;
        }
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension {
            Some("checkpoint") => {
                found.insert(path.with_extension(""));
            }
            Some("jsonl") => {
                // A later segment stands for its trail, also where that has
                // lost its beginning.
                let first = segments::first_of(&path).map(|(first, _)| first);
                let first = first.filter(|first| first.exists());
                found.insert(first.unwrap_or(path));
            }
            _ => {}
        }
    }
    Ok(found)
}
