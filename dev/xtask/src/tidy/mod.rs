//! Rules of this repository that neither the compiler nor clippy knows.

mod graph;
mod lexer;
mod licence;
mod rust_version;
mod source;
mod text;

use crate::deny_toml;
use crate::repo::Repo;
use anyhow::{Context as _, Result, bail};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// Directories that hold nothing of ours.
const NOT_OURS: &[&str] = &["target", ".git", "corpus", "artifacts"];
/// Files with these endings are read as text.
const TEXT: &[&str] = &[
    "rs", "toml", "md", "sh", "yaml", "yml", "json", "c", "h", "txt",
];

/// One place where a rule is broken.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// File or package.
    pub(crate) place: String,
    /// Line, from 1; 0 where the whole place is meant.
    pub(crate) line: usize,
    /// Which rule, and what to do.
    pub(crate) what: String,
}

impl Finding {
    fn of(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            line: 0,
            what: what.into(),
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { place, line, what } = self;
        match line {
            0 => write!(f, "{place}: {what}"),
            line => write!(f, "{place}:{line}: {what}"),
        }
    }
}

/// Checks every rule and prints every finding.
pub(crate) fn run(repo: &Repo) -> Result<()> {
    let mut findings = Vec::new();
    findings.extend(graph::check(&repo.metadata));
    findings.extend(rust_version::check(&repo.metadata)?);
    findings.extend(licence::check(
        &repo.metadata,
        &deny_toml::allowed_licences(&repo.root)?,
    ));
    findings.extend(graph::check_sources(&repo.metadata));
    let strangers = text::Strangers::of(&repo.root, std::env::home_dir().as_deref());
    let files = files(&repo.root)?;
    for file in &files {
        findings.extend(check_file(&repo.root, file, &strangers)?);
    }
    findings.sort();
    for finding in &findings {
        println!("    {finding}");
    }
    match findings.len() {
        0 => {
            println!(
                "    {} files, {} packages",
                files.len(),
                graph::count(&repo.metadata)
            );
            Ok(())
        }
        1 => bail!("tidy: one finding"),
        many => bail!("tidy: {many} findings"),
    }
}

fn check_file(root: &Path, file: &Path, strangers: &text::Strangers) -> Result<Vec<Finding>> {
    let content =
        fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let place = file.strip_prefix(root).unwrap_or(file);
    let mut findings = text::check(place, &content, strangers);
    if place.extension().is_some_and(|extension| extension == "rs") {
        findings.extend(source::check(place, &content));
    }
    Ok(findings)
}

/// Every text file of the repository, in a stable order.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        let entries =
            fs::read_dir(&directory).with_context(|| format!("listing {}", directory.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("listing {}", directory.display()))?;
            let kind = entry.file_type().context("looking at a file's type")?;
            let path = entry.path();
            if kind.is_dir() && !NOT_OURS.iter().any(|name| entry.file_name() == *name) {
                pending.push(path);
            } else if kind.is_file() && is_text(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn is_text(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.map_or_else(
        || path.parent().and_then(Path::file_name) == Some(OsStr::new(".ci")),
        |extension| TEXT.contains(&extension),
    )
}
