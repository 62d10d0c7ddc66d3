//! What the policy said of an event.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// One of the three verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerdictResult {
    /// A rule matched and all its constraints hold.
    Allow,
    /// A rule matched but a constraint is exceeded, or the evidence contradicts itself.
    Anomaly,
    /// No rule matched, or a deny rule did.
    Deny,
}

impl VerdictResult {
    /// Every verdict.
    pub const ALL: [Self; 3] = [Self::Allow, Self::Anomaly, Self::Deny];

    /// The word that the trail and the filters use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Anomaly => "anomaly",
            Self::Deny => "deny",
        }
    }
}

impl fmt::Display for VerdictResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is none of the three verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a verdict: use allow, deny or anomaly")]
pub struct ParseVerdictError;

impl FromStr for VerdictResult {
    type Err = ParseVerdictError;

    fn from_str(word: &str) -> Result<Self, ParseVerdictError> {
        Self::ALL
            .into_iter()
            .find(|verdict| verdict.as_str() == word)
            .ok_or(ParseVerdictError)
    }
}

/// The policy's answer, with the rule that decided and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Id of the rule that decided; absent where no rule matched.
    pub policy_rule: Option<String>,
    /// A sentence that a person can act on.
    pub reason: String,
    /// The verdict itself.
    pub result: VerdictResult,
}

/// Bounds that the policy puts on an event's subject, so that a collector
/// can report at the moment one is crossed and not only at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Largest allowed client payload of one call, in bytes.
    pub max_bytes_per_call: Option<u64>,
    /// Largest allowed client payload of the whole conversation, in bytes.
    pub max_bytes_total: Option<u64>,
}
