//! Kata Containers: a VMM of one of the kinds, started by its runtime, which
//! keeps the state of each sandbox below `/run/vc/sbs`.

use crate::Disk;
use crate::ids::is_valid_id;
use crate::inspect::disk_identity;
use sandtrace_sys::process::FileId;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// The label with the id of the sandbox.
pub(crate) const LABEL: &str = "kata.sandbox";

/// Where the runtime keeps sandboxes (virtcontainers/persist/fs of Kata).
const SANDBOXES: &str = "/run/vc/sbs";

/// Where it shares files with guests.
const SHARED: &str = "/run/kata-containers/shared/sandboxes";

/// The directories in that with one for each container.
const KINDS: [&str; 2] = ["mounts", "shared"];

/// Longest file that the runtime keeps of a sandbox.
const MAX_KEPT: u64 = 1 << 20;

/// Most containers of a pod whose roots are read.
const MAX_OVERLAYS: usize = 64;

/// Most that are looked at: that there are more than are read is said, too.
const MAX_ROOTS: usize = 1024;

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

/// What the runtime keeps of a sandbox (virtcontainers/persist/api).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kept {
    hypervisor_state: HypervisorState,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HypervisorState {
    pid: u32,
}

/// Whether this process is the sandbox's VMM by the runtime's own word. Anybody can
/// call a process by the id of another's.
pub(crate) fn is_vmm_of(sandbox: &str, pid: u32) -> bool {
    is_vmm_in(Path::new(SANDBOXES), sandbox, pid)
}

fn is_vmm_in(sandboxes: &Path, sandbox: &str, pid: u32) -> bool {
    let file = fs::File::open(sandboxes.join(sandbox).join("persist.json"));
    let mut kept = Vec::new();
    let read = file.and_then(|file| file.take(MAX_KEPT).read_to_end(&mut kept));
    let kept = read
        .ok()
        .and_then(|_| serde_json::from_slice::<Kept>(&kept).ok());
    kept.is_some_and(|kept| kept.hypervisor_state.pid == pid)
}

/// Roots of a pod's containers that are read, and how many there are.
pub(crate) struct Overlays {
    pub(crate) read: Vec<Disk>,
    count: usize,
}

/// Upper dirs of the roots of its containers, which the runtime mounts where it
/// shares them with the guest: `mounts/<container>/rootfs` and, with other
/// rights, `shared/<container>/rootfs` (virtcontainers/fs_share_linux.go).
pub(crate) fn overlays(sandbox: &str) -> Overlays {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    overlays_in(&mounts, &shared(sandbox))
}

fn overlays_in(mounts: &str, shared: &Path) -> Overlays {
    let (mut overlays, mut known) = (Vec::new(), BTreeSet::new());
    for upper in uppers(mounts, shared) {
        let is_dir = fs::symlink_metadata(&upper).is_ok_and(|it| it.is_dir());
        let id = FileId::of(&upper).ok().filter(|_| is_dir);
        let Some(id) = id else { continue };
        if known.insert(id) && overlays.len() < MAX_OVERLAYS {
            overlays.push(Disk {
                identity: disk_identity(&upper.to_string_lossy(), id, "overlay"),
                open_path: upper,
                format: None,
            });
        }
    }
    Overlays {
        read: overlays,
        count: known.len(),
    }
}

/// What is at the places of those roots: cheaper to look at than all mounts are.
pub(crate) fn roots(sandbox: &str) -> impl Iterator<Item = FileId> {
    let shared = shared(sandbox);
    let dirs = KINDS.map(|kind| fs::read_dir(shared.join(kind)));
    let entries = dirs
        .into_iter()
        .flatten()
        .flat_map(|dir| dir.flatten().take(MAX_ROOTS));
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

/// What is not seen of its files; `None` where the process is not the runtime's
/// VMM of it.
pub(crate) fn missing(sandbox: &str, overlays: Option<&Overlays>) -> String {
    let shared = shared(sandbox);
    let shared = shared.display();
    let Some(overlays) = overlays else {
        return format!(
            "Kata's runtime does not name this process as the VMM of sandbox {sandbox}, so the \
             containers' root file systems are not read: {shared}"
        );
    };
    match overlays.count {
        0 => format!(
            "Kata shares the containers' root file systems with the guest as a directory of the \
             host, in which no overlay is mounted that could be read: {shared}"
        ),
        count if count > MAX_OVERLAYS => format!(
            "Kata shares a directory of the host with the guest: of the overlays of {count} \
             containers in it only {MAX_OVERLAYS} are read, volumes are not: {shared}"
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
    fn only_the_runtimes_own_vmm_is_that_of_a_sandbox() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("5f3a")).unwrap();
        let is_vmm = |pid| is_vmm_in(dir.path(), "5f3a", pid);
        assert!(!is_vmm(77), "nothing is kept yet");
        let kept = dir.path().join("5f3a/persist.json");
        let state = r#"{"State":"running","HypervisorState":{"Pid":77,"Type":"qemu"},"Config":{}}"#;
        fs::write(&kept, state).unwrap();
        assert!(is_vmm(77) && !is_vmm(78));
        fs::write(&kept, &state[..40]).unwrap();
        assert!(!is_vmm(77), "half written");
    }

    #[test]
    fn roots_beyond_the_bound_are_said() {
        let dir = tempfile::tempdir().unwrap();
        let mounts = (0..MAX_OVERLAYS + 2).map(|number| {
            let upper = dir.path().join(number.to_string());
            fs::create_dir(&upper).unwrap();
            let shared = shared("5f3a");
            format!(
                "31 1 0:9 / {}/mounts/c{number}/rootfs rw - overlay overlay rw,upperdir={}\n",
                shared.display(),
                upper.display()
            )
        });
        let overlays = overlays_in(&mounts.collect::<String>(), &shared("5f3a"));
        assert_eq!(overlays.read.len(), MAX_OVERLAYS);
        let said = missing("5f3a", Some(&overlays));
        assert!(
            said.contains("of the overlays of 66 containers in it only 64 are read"),
            "{said}"
        );
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
