//! Which sandboxes to look for, and how long.

use crate::ProviderKind;
use std::path::PathBuf;
use std::time::Duration;

/// Where the orchestrators' sockets and cgroups are by default.
const WATCH_DIRS: [&str; 6] = [
    "/run",
    "/run/netns",
    "/srv/jailer/firecracker",
    "/var/lib/firecracker-containerd/shim-base",
    "/run/vc/sbs",
    "/sys/fs/cgroup/e2b",
];

/// Settings of discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoverConfig {
    /// The kinds to look for; empty: all.
    pub providers: Vec<ProviderKind>,
    /// Docker's API, where there is one.
    pub docker_socket: PathBuf,
    /// Directories in which something appears when a sandbox starts, such as
    /// sockets or cgroups. Those of orchestrators that are not there are
    /// waited for.
    pub watch_dirs: Vec<PathBuf>,
    /// Time for all questions to all APIs together. What is not answered by
    /// then is stated as not known.
    pub patience: Duration,
}

impl Default for DiscoverConfig {
    fn default() -> Self {
        Self {
            providers: Vec::new(),
            docker_socket: PathBuf::from("/var/run/docker.sock"),
            watch_dirs: WATCH_DIRS.map(PathBuf::from).to_vec(),
            patience: Duration::from_secs(5),
        }
    }
}

impl DiscoverConfig {
    pub(crate) fn wants(&self, kind: ProviderKind) -> bool {
        self.providers.is_empty() || self.providers.contains(&kind)
    }
}
