//! Kata Containers: a VMM of one of the kinds, started by its runtime, which
//! keeps the state of each sandbox below `/run/vc/sbs`.

use crate::claims::Claims;
use crate::ids::is_valid_id;
use sandtrace_event::Layer;
use std::path::Path;

/// Where the runtime keeps sandboxes (virtcontainers/persist/fs of Kata).
const SANDBOXES: &str = "/run/vc/sbs";

/// What the runtime puts before the id in QEMU's `-name`
/// (virtcontainers/qemu.go).
const PREFIX: &str = "sandbox-";

/// The id by which Kata knows a VMM that calls itself this, if it is one of
/// Kata's.
pub(crate) fn sandbox(claimed: &str) -> Option<String> {
    sandbox_in(Path::new(SANDBOXES), claimed)
}

fn sandbox_in(sandboxes: &Path, claimed: &str) -> Option<String> {
    let short = claimed.strip_prefix(PREFIX);
    let mut ids = [Some(claimed), short].into_iter().flatten();
    let is_known = |id: &&str| is_valid_id(id) && sandboxes.join(id).is_dir();
    ids.find(is_known).map(str::to_owned)
}

/// What is said of each of them.
pub(crate) fn add(claims: &mut Claims, sandbox: String) {
    claims.missing(
        Layer::Filesystem,
        format!(
            "Kata shares the containers' root file systems with the guest as a directory of the \
             host, which is not read: /run/kata-containers/shared/sandboxes/{sandbox}"
        ),
    );
    claims.labels.insert("kata.sandbox".to_owned(), sandbox);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_the_runtime_keeps() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("5f3a")).unwrap();
        let sandbox = |claimed| sandbox_in(dir.path(), claimed);
        assert_eq!(sandbox("sandbox-5f3a").as_deref(), Some("5f3a"));
        assert_eq!(sandbox("5f3a").as_deref(), Some("5f3a"));
        for other in ["sandbox-77", "vm-1", "sandbox-", "sandbox-..", "..", ""] {
            assert_eq!(sandbox(other), None, "{other}");
        }
    }
}
