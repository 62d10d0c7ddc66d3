//! Where the kernel's events of files tell of sandboxes.

use crate::Sighting;
use crate::sighting::Form;
use crate::state::{EVENTS, cgroup_of};
use sandtrace_sys::process::FileId;
use std::path::{Path, PathBuf};

/// Where orchestrators put sockets, or a directory for each VM, unless told
/// otherwise: Firecracker itself, its jailer, firecracker-containerd, Kata.
pub const USUAL_FOLDERS: [&str; 5] = [
    "/run",
    "/srv/jailer/firecracker",
    "/var/lib/firecracker-containerd/shim-base",
    "/run/vc/vm",
    "/run/vc/sbs",
];

impl Sighting {
    /// The file of its own cgroup that changes when that is frozen or thawed.
    #[must_use]
    pub fn cgroup_events(&self) -> Option<PathBuf> {
        Some(cgroup_of(&self.process)?.join(EVENTS))
    }

    /// Directories in which the next sandbox of the same orchestrator shows
    /// before it sends anything: those of its socket, or of the directory that
    /// the socket has to itself, and of its cgroup.
    #[must_use]
    pub fn folders(&self) -> Vec<PathBuf> {
        let socket = match &self.form {
            Form::Firecracker(arguments) | Form::E2b(_, arguments) => &arguments.api_socket,
            Form::CloudHypervisor(arguments) => &arguments.api_socket,
            Form::Qemu(_) | Form::Libkrun(_) | Form::Daytona(_) => &None,
        };
        let mut folders = Vec::new();
        if let Some(socket) = socket.as_deref().filter(|_| self.is_in_our_root()) {
            let place = self.process.working_directory().unwrap_or_default();
            folders.extend(above(&place.join(socket)).map(Path::to_owned));
        }
        let cgroup = cgroup_of(&self.process);
        folders.extend(cgroup.iter().filter_map(|it| Some(it.parent()?.to_owned())));
        folders
    }

    /// Names of files mean the same to it as to us.
    fn is_in_our_root(&self) -> bool {
        let root = FileId::of(&self.process.path("root"));
        root.is_ok_and(|root| FileId::of(Path::new("/")).is_ok_and(|own| own == root))
    }
}

/// The two directories above a file, without the root of all.
fn above(path: &Path) -> impl Iterator<Item = &Path> {
    let all = path.ancestors().skip(1).take(2);
    all.filter(|path| path.parent().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_above() {
        let above = |path: &str| -> Vec<_> {
            let path = Path::new(path);
            above(path).map(|it| it.display().to_string()).collect()
        };
        assert_eq!(
            above("/run/vc/vm/5f/a.sock"),
            ["/run/vc/vm/5f", "/run/vc/vm"]
        );
        assert_eq!(above("/run/a.sock"), ["/run"]);
        assert!(above("/a.sock").is_empty());
    }
}
