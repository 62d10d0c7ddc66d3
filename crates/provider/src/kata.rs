//! Kata Containers: a VMM of one of the kinds, started by its runtime, which
//! keeps the state of each sandbox below `/run/vc/sbs`.

use crate::Disk;
use crate::ids::is_valid_id;
use crate::inspect::disk_identity;
use sandtrace_sys::process::FileId;
use std::fs;
use std::path::{Path, PathBuf};

/// The label with the id of the sandbox.
pub(crate) const LABEL: &str = "kata.sandbox";

/// Where the runtime keeps sandboxes (virtcontainers/persist/fs of Kata).
const SANDBOXES: &str = "/run/vc/sbs";

/// Where it shares files with guests.
const SHARED: &str = "/run/kata-containers/shared/sandboxes";

/// The directories in that with one for each container.
const KINDS: [&str; 2] = ["mounts", "shared"];

/// Most containers of a pod whose roots are read.
const MAX_OVERLAYS: usize = 64;

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

/// Upper dirs of the roots of its containers, which the runtime mounts where it
/// shares them with the guest: `mounts/<container>/rootfs` and, with other
/// rights, `shared/<container>/rootfs` (virtcontainers/fs_share_linux.go).
pub(crate) fn overlays(sandbox: &str) -> Vec<Disk> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut overlays: Vec<Disk> = Vec::new();
    for upper in uppers(&mounts, &shared(sandbox)) {
        let is_dir = fs::symlink_metadata(&upper).is_ok_and(|it| it.is_dir());
        let id = FileId::of(&upper).ok().filter(|_| is_dir);
        let Some(id) = id else { continue };
        let identity = disk_identity(&upper.to_string_lossy(), id, "overlay");
        if overlays.len() < MAX_OVERLAYS && overlays.iter().all(|it| it.identity != identity) {
            overlays.push(Disk {
                identity,
                open_path: upper,
                format: None,
            });
        }
    }
    overlays
}

/// What is at the places of those roots: cheaper to look at than all mounts are.
pub(crate) fn roots(sandbox: &str) -> impl Iterator<Item = FileId> {
    let shared = shared(sandbox);
    let dirs = KINDS.map(|kind| fs::read_dir(shared.join(kind)));
    let entries = dirs
        .into_iter()
        .flatten()
        .flat_map(|dir| dir.flatten().take(MAX_OVERLAYS));
    entries.filter_map(|entry| FileId::of(&entry.path().join("rootfs")).ok())
}

/// `upperdir=` of each overlay that is a container's root below `shared`. What
/// is escaped in it is none of containerd's.
fn uppers<'a>(mountinfo: &'a str, shared: &'a Path) -> impl Iterator<Item = PathBuf> + 'a {
    mountinfo.lines().filter_map(move |line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mount_point = Path::new(mount.split(' ').nth(4)?);
        let below: Vec<_> = mount_point.strip_prefix(shared).ok()?.iter().collect();
        let [kind, _container, root] = below.as_slice() else {
            return None;
        };
        let is_root = KINDS.iter().any(|it| kind == it) && *root == "rootfs";
        let options = file_system.strip_prefix("overlay ")?.split(' ').nth(1)?;
        let mut options = options.split(',');
        let upper = options.find_map(|option| option.strip_prefix("upperdir="))?;
        let is_plain = upper.starts_with('/') && !upper.contains('\\');
        (is_root && is_plain).then(|| PathBuf::from(upper))
    })
}

/// What is not seen of its files.
pub(crate) fn missing(sandbox: &str, overlays: usize) -> String {
    let shared = shared(sandbox);
    let shared = shared.display();
    match overlays {
        0 => format!(
            "Kata shares the containers' root file systems with the guest as a directory of the \
             host, in which no overlay is mounted that could be read: {shared}"
        ),
        count => format!(
            "Kata shares a directory of the host with the guest: the overlays of {count} \
             containers in it are read, volumes are not: {shared}"
        ),
    }
}

fn shared(sandbox: &str) -> PathBuf {
    Path::new(SHARED).join(sandbox)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_the_runtime_keeps() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("5f3a")).unwrap();
        let sandbox = |claimed| sandbox_in(dir.path(), claimed);
        assert_eq!(sandbox("sandbox-5f3a").as_deref(), Some("5f3a"));
        assert_eq!(sandbox("5f3a").as_deref(), Some("5f3a"));
        for other in ["sandbox-77", "vm-1", "sandbox-", "sandbox-..", "..", ""] {
            assert_eq!(sandbox(other), None, "{other}");
        }
    }

    #[test]
    fn roots_of_containers() {
        let mounts = "\
            31 1 0:9 / /run/kata-containers/shared/sandboxes/5f3a/mounts/c1/rootfs rw - overlay overlay rw,lowerdir=/l,upperdir=/s/7/fs,workdir=/s/7/work\n\
            32 1 0:9 / /run/kata-containers/shared/sandboxes/5f3a/shared/c1/rootfs rw - overlay overlay rw,lowerdir=/l,upperdir=/s/7/fs,workdir=/s/7/work\n\
            33 1 0:9 / /run/kata-containers/shared/sandboxes/5f3a/mounts/c2/rootfs ro - ext4 /dev/sda rw\n\
            34 1 0:9 / /run/kata-containers/shared/sandboxes/5f3a/mounts/c3-volume rw - overlay overlay rw,upperdir=/v\n\
            35 1 0:9 / /run/kata-containers/shared/sandboxes/77/mounts/c1/rootfs rw - overlay overlay rw,upperdir=/s/8/fs\n\
            36 1 0:9 / /run/kata-containers/shared/sandboxes/5f3a/mounts/c4/rootfs rw - overlay overlay rw,lowerdir=/l\n\
            37 1 0:9 / /run/kata-containers/shared/sandboxes/5f3a/mounts/c5/rootfs rw - overlay overlay rw,upperdir=up\n";
        let found: Vec<_> = uppers(mounts, &shared("5f3a")).collect();
        assert_eq!(found, [Path::new("/s/7/fs"), Path::new("/s/7/fs")]);
    }
}
