//! The microVM's kernel: Debian's cloud kernel, unpacked beside the system and never installed.
//!
//! Kept as `<state>/kernel/<version>/vmlinuz` and `.../modules/<name>.ko`.

mod fetch;
mod unpack;

use std::fs;
use std::path::{Path, PathBuf};

use crate::places;

pub use fetch::{FetchError, fetch};

/// The modules that a microVM with a tap and a disk needs, each after those it depends on.
/// The cloud kernel has ext4 and the serial console built in.
pub const MODULES: [&str; 7] = [
    "virtio_ring",
    "virtio",
    "virtio_mmio",
    "failover",
    "net_failover",
    "virtio_net",
    "virtio_blk",
];

/// A kernel that is ready to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Such as `6.1.0-56-cloud-amd64`.
    pub version: String,
    /// The compressed image.
    pub vmlinuz: PathBuf,
    /// The directory with one `.ko` for each of [`MODULES`].
    pub modules_dir: PathBuf,
}

/// No kernel has been fetched yet.
#[derive(Debug, thiserror::Error)]
#[error("no kernel for the lab's microVM below {}; fetch it with: cargo xtask setup", .0.display())]
pub struct KernelMissing(pub PathBuf);

/// The newest kernel that was fetched.
///
/// # Errors
/// When there is none that is complete.
pub fn locate() -> Result<Kernel, KernelMissing> {
    locate_in(&home())
}

fn home() -> PathBuf {
    places::state().join("kernel")
}

fn locate_in(home: &Path) -> Result<Kernel, KernelMissing> {
    let entries = fs::read_dir(home).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Kernel::complete_in(home, entry.file_name().to_str()?))
        .max_by_key(|kernel| numbers(&kernel.version))
        .ok_or_else(|| KernelMissing(home.to_owned()))
}

impl Kernel {
    fn complete_in(home: &Path, version: &str) -> Option<Self> {
        let dir = home.join(version);
        let kernel = Self {
            version: version.to_owned(),
            vmlinuz: dir.join("vmlinuz"),
            modules_dir: dir.join("modules"),
        };
        // A fetch under way has a name that starts with a dot.
        let complete = !version.starts_with('.')
            && kernel.vmlinuz.is_file()
            && kernel.modules().all(|module| module.is_file());
        complete.then_some(kernel)
    }

    /// The modules' files in the order in which they are inserted.
    pub(crate) fn modules(&self) -> impl Iterator<Item = PathBuf> + '_ {
        MODULES
            .iter()
            .map(|name| self.modules_dir.join(format!("{name}.ko")))
    }
}

/// `6.1.0-56-cloud` is newer than `6.1.0-9-cloud`.
fn numbers(version: &str) -> Vec<u64> {
    let parts = version.split(|c: char| !c.is_ascii_digit());
    parts.filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(home: &Path, version: &str, modules: &[&str]) {
        let dir = home.join(version);
        fs::create_dir_all(dir.join("modules")).unwrap();
        fs::write(dir.join("vmlinuz"), "").unwrap();
        for name in modules {
            fs::write(dir.join(format!("modules/{name}.ko")), "").unwrap();
        }
    }

    #[test]
    fn takes_the_newest_complete_one() {
        let home = tempfile::tempdir().unwrap();
        let missing = locate_in(home.path()).unwrap_err().to_string();
        assert!(missing.ends_with("cargo xtask setup"), "{missing}");
        put(home.path(), "6.1.0-9-cloud-amd64", &MODULES);
        put(home.path(), "6.1.0-56-cloud-amd64", &MODULES);
        put(home.path(), "6.1.0-57-cloud-amd64", &MODULES[1..]);
        put(home.path(), ".6.1.0-58-cloud-amd64.x", &MODULES);
        assert_eq!(
            locate_in(home.path()).unwrap().version,
            "6.1.0-56-cloud-amd64"
        );
    }
}
