//! The cgroup that an orchestrator puts its VMM into, where the unified
//! hierarchy can be written to.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::StandInForm;

/// Where the unified hierarchy is mounted: alone, or beside the older ones.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// A cgroup of a VMM's own. Dropped, it goes, and so does its parent where
/// nothing else is in that.
#[derive(Debug)]
pub(super) struct Cgroup(PathBuf);

impl Cgroup {
    /// `e2b/sbx-<sandbox id>-<random>` as E2B's orchestrator does (its socket
    /// is named so too), `<parent>/<id>` as the jailer does with `--cgroup`.
    /// `None` for other forms, and where the host has no such hierarchy: both
    /// do without it then.
    pub(super) fn of(form: StandInForm, id: &str, socket: &Path) -> Option<Self> {
        let below = match form {
            StandInForm::E2b => {
                let run = socket.file_stem()?.to_str()?.strip_prefix("fc-")?;
                format!("e2b/sbx-{run}")
            }
            StandInForm::Jailed => format!("firecracker/{id}"),
            _ => return None,
        };
        let mut mounts = MOUNTS.iter().map(Path::new);
        let mount = mounts.find(|mount| mount.join("cgroup.controllers").exists())?;
        let dir = mount.join(below);
        fs::create_dir_all(&dir).ok()?;
        Some(Self(dir))
    }

    pub(super) fn add(&self, pid: u32) -> std::io::Result<()> {
        fs::write(self.0.join("cgroup.procs"), pid.to_string())
    }

    pub(super) fn freeze(&self, frozen: bool) -> std::io::Result<()> {
        fs::write(self.0.join("cgroup.freeze"), u8::from(frozen).to_string())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel takes a moment to see the last process gone.
        let deadline = Instant::now() + Duration::from_secs(2);
        while fs::remove_dir(&self.0).is_err() && self.0.exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        if let Some(parent) = self.0.parent() {
            // Another's may still be in it.
            let _ = fs::remove_dir(parent);
        }
    }
}
