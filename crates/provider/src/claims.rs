//! What a VMM's own configuration says. Compared with what it has open,
//! never believed.

use crate::DiskFormat;
use sandtrace_event::{Coverage, Layer};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The configuration, as far as it matters.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) agent_id: Option<String>,
    /// What it was made from.
    pub(crate) template: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) drives: Vec<Drive>,
    /// The only format that the VMM has, where it has one.
    pub(crate) only_format: Option<DiskFormat>,
    pub(crate) interfaces: Vec<String>,
    /// What the configuration itself shows to be out of sight.
    pub(crate) coverage: Vec<Coverage>,
    /// An API did not answer, or not in a way that can be used: asked another
    /// time it may tell more.
    pub(crate) unanswered: bool,
}

/// A drive that the configuration names by a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Drive {
    pub(crate) path: PathBuf,
    pub(crate) writable: bool,
    pub(crate) format: Format,
}

/// What the configuration says of how a drive's bytes are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// Nothing: the VMM itself guesses.
    #[default]
    Untold,
    Known(DiskFormat),
    /// One that is not read, in a word or two.
    Other(String),
}

impl Format {
    pub(crate) const RAW: Self = Self::Known(DiskFormat::Raw);
}

impl Claims {
    pub(crate) fn missing(&mut self, layer: Layer, missing: impl Into<String>) {
        self.coverage.push(coverage(layer, missing));
    }
}

pub(crate) fn coverage(layer: Layer, missing: impl Into<String>) -> Coverage {
    let missing = missing.into();
    Coverage { layer, missing }
}

/// Text from outside for a sentence: quoted, escaped, and short.
pub(crate) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(256).collect();
    format!("{short:?}")
}

/// A name from outside that may be recorded: 1 to 256 printable ASCII
/// characters.
pub(crate) fn nameable(text: &str) -> bool {
    (1..=256).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}
