//! The upper dir of a container's root.

use super::Container;
use crate::Disk;
use crate::claims::quoted;
use crate::inspect::disk_identity;
use sandtrace_sys::process::{FileId, Process};
use std::path::{Component, Path, PathBuf};

/// The upper dir: as Docker names it (overlay2), or, with containerd's image
/// store, of which Docker names none, as the container's own mounts do.
pub(crate) fn overlay(process: &Process, container: &Container) -> Result<Disk, String> {
    let upper = match &container.upper {
        Some(upper) => upper.clone(),
        None => {
            let mounts = process
                .mountinfo()
                .map_err(|error| format!("the mounts of the container cannot be read: {error}"))?;
            let upper = root_upper(&mounts);
            upper.ok_or("neither Docker nor the container's mounts name an upper dir")?
        }
    };
    let shown = quoted(&upper.to_string_lossy());
    let is_dir = std::fs::symlink_metadata(&upper).is_ok_and(|it| it.is_dir());
    if !is_dir {
        return Err(format!("the upper dir {shown} is not there"));
    }
    let id = FileId::of(&upper).map_err(|error| format!("the upper dir {shown}: {error}"))?;
    Ok(Disk {
        identity: disk_identity(&upper.to_string_lossy(), id, "overlay"),
        open_path: upper,
        format: None,
    })
}

/// `upperdir=` of the mount at `/` (proc_pid_mountinfo(5)). A privileged
/// container can mount what it likes there, with any path: only a snapshot of
/// containerd's is taken.
fn root_upper(mountinfo: &str) -> Option<PathBuf> {
    let root = mountinfo.lines().find(|line| {
        let mount_point = line.split(' ').nth(4);
        mount_point == Some("/")
    })?;
    let (_, file_system) = root.split_once(" - ")?;
    let options = file_system.strip_prefix("overlay ")?.split(' ').nth(1)?;
    let upper = options
        .split(',')
        .find_map(|option| option.strip_prefix("upperdir="))?;
    let upper = Path::new(upper);
    is_snapshot(upper).then(|| upper.to_owned())
}

/// `…/io.containerd.snapshotter.v1.<name>/snapshots/<number>/fs`.
fn is_snapshot(path: &Path) -> bool {
    let plain = |part: &Component| matches!(part, Component::RootDir | Component::Normal(_));
    let parts: Vec<_> = path.iter().rev().map(|part| part.to_str()).collect();
    let [
        Some("fs"),
        Some(number),
        Some("snapshots"),
        Some(snapshotter),
        ..,
    ] = parts.as_slice()
    else {
        return false;
    };
    path.is_absolute()
        && path.components().all(|part| plain(&part))
        && !path.to_string_lossy().contains('\\')
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && snapshotter.starts_with("io.containerd.snapshotter.v1.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(options: &str, expected: Option<&str>) {
        let text = format!(
            "25 20 0:21 / /proc rw - proc proc rw\n30 20 0:50 / / rw,relatime - overlay overlay {options}\n"
        );
        assert_eq!(root_upper(&text), expected.map(PathBuf::from), "{options}");
    }

    #[test]
    fn upper_dirs_of_snapshots() {
        let store = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots";
        let upper = format!("{store}/12/fs");
        check(
            &format!("rw,lowerdir={store}/3/fs,upperdir={upper},workdir={store}/12/work"),
            Some(&upper),
        );
        check("rw,lowerdir=/l,upperdir=/etc,workdir=/w", None);
        check(&format!("rw,upperdir={store}/../snapshots/12/fs"), None);
        check(&format!("rw,upperdir={store}/x/fs"), None);
        check("ro,lowerdir=/l", None);
        assert_eq!(root_upper(""), None);
        assert_eq!(root_upper("1 2 0:1 / / rw - ext4 /dev/vda rw"), None);
    }
}
