//! Which sandboxes to look for, and how long.

use crate::ProviderKind;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoverConfig {
    /// The kinds to look for; empty: all.
    pub providers: Vec<ProviderKind>,
    /// Docker's API, where there is one.
    pub docker_socket: PathBuf,
    /// Time for all questions to all APIs together. What is not answered by
    /// then is stated as not known.
    pub patience: Duration,
}

impl Default for DiscoverConfig {
    fn default() -> Self {
        Self {
            providers: Vec::new(),
            docker_socket: PathBuf::from("/var/run/docker.sock"),
            patience: Duration::from_secs(5),
        }
    }
}

impl DiscoverConfig {
    /// Whether this kind is looked for.
    #[must_use]
    pub fn wants(&self, kind: ProviderKind) -> bool {
        self.providers.is_empty() || self.providers.contains(&kind)
    }
}
