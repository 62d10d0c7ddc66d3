//! A manifest that loaded whole, with its tables.

use crate::error::{Problem, Problems};
use crate::index::Index;
use crate::manifest::Manifest;
use crate::yaml::Mark;
use crate::{PolicyErrors, RuleSummary, load, reach};
use std::fmt;
use std::net::IpAddr;

/// Largest manifest in bytes.
pub const MAX_MANIFEST_BYTES: usize = 1 << 20;

/// A compiled manifest. Displayed as a manifest that reads back as the same
/// policy.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(crate) manifest: Manifest,
    pub(crate) index: Index,
}

impl Policy {
    /// Reads and compiles a manifest; `file_name` stands in its errors.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with line and column. A policy
    /// loads whole or not at all.
    pub fn parse(file_name: &str, text: &[u8]) -> Result<Self, PolicyErrors> {
        let mut problems = Problems::default();
        let policy = compile(text, &mut problems);
        policy.ok_or_else(|| problems.in_file(file_name))
    }

    /// Resolvers that the manifest accepts, in its order.
    #[must_use]
    pub fn resolvers(&self) -> &[IpAddr] {
        &self.manifest.resolvers
    }

    /// The rules in order.
    pub fn rules(&self) -> impl Iterator<Item = RuleSummary> {
        self.manifest.rules.iter().map(RuleSummary::of)
    }
}

impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.manifest == other.manifest
    }
}

impl Eq for Policy {}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.manifest.fmt(f)
    }
}

/// `None` where anything is wrong; what, is in `problems`, which then is not
/// empty.
fn compile(text: &[u8], problems: &mut Problems) -> Option<Policy> {
    let top = Mark { line: 1, column: 1 };
    if text.len() > MAX_MANIFEST_BYTES {
        problems.push(Problem::new(top, "a manifest is at most 1 MiB"));
        return None;
    }
    let load::Loaded { manifest, marks } = load::load(text, problems)?;
    reach::check(&manifest.rules, &marks, problems);
    if !problems.is_empty() {
        return None;
    }
    let index = problems.keep(Index::new(&manifest).map_err(|error| {
        Problem::new(
            top,
            format!("the path patterns cannot be compiled: {error}"),
        )
    }))?;
    Some(Policy { manifest, index })
}
