//! libkrun inside of microsandbox's `msbrun microvm` and of `krunvm start`.
//! Its network ends in the VMM's own process, so there is no tap.

use crate::Disk;
use crate::claims::{Claims, quoted};
use crate::inspect::disk_identity;
use sandtrace_event::Layer;
use sandtrace_sys::process::{FileId, Process};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Why there is no network of it to see.
const NO_NETWORK: &str = "libkrun's network ends in the VMM's own process (TSI, passt or gvproxy) \
                          and never reaches an interface that can be captured";

/// Most descriptors that are looked at.
const MAX_DESCRIPTORS: usize = 4096;

/// What the command line says. Other options (`--env=NAME=VALUE`) may hold
/// secrets and are not looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) id: Option<String>,
    /// The directory that the guest writes to.
    root: Option<PathBuf>,
    /// It is the top of several layers, which the VMM itself puts together.
    has_layers: bool,
}

impl Arguments {
    /// What follows argv\[0\]; `None` for those of its processes that run no VM.
    pub(crate) fn parse(name: &str, arguments: &[Vec<u8>]) -> Option<Self> {
        let (command, rest) = arguments.split_first()?;
        match (name, command.as_slice()) {
            ("msbrun", b"microvm") => Some(Self::msbrun(rest)),
            ("krunvm", b"start") => {
                let mut words = rest.iter().filter(|word| !word.starts_with(b"-"));
                let id = words
                    .next()
                    .map(|id| String::from_utf8_lossy(id).into_owned());
                Some(Self {
                    id,
                    ..Self::default()
                })
            }
            _ => None,
        }
    }

    /// `--native-rootfs=DIR`, or `--overlayfs-layer=DIR` for each layer, the
    /// writable one last (microsandbox-core, bin/msbrun.rs). It is called as
    /// the sandbox is.
    fn msbrun(arguments: &[Vec<u8>]) -> Self {
        let mut parsed = Self::default();
        let own = arguments.iter().take_while(|word| *word != b"--");
        for word in own {
            let value = |name: &[u8]| word.strip_prefix(name)?.strip_prefix(b"=");
            let layer = value(b"--overlayfs-layer");
            if let Some(dir) = layer.or_else(|| value(b"--native-rootfs")) {
                parsed.has_layers |= layer.is_some();
                parsed.root = Some(OsString::from_vec(dir.to_vec()).into());
            }
        }
        let name = parsed.root.as_ref().and_then(|root| root.file_name());
        parsed.id = name.map(|name| name.to_string_lossy().into_owned());
        parsed
    }

    pub(crate) fn claims(&self) -> Claims {
        let mut claims = Claims::default();
        claims.missing(Layer::Network, NO_NETWORK);
        if self.has_layers {
            claims.missing(
                Layer::Filesystem,
                "the VMM puts the layers of the root together itself: what was deleted shows as a file .wh.NAME",
            );
        }
        claims
    }

    /// The directory that the guest writes to, as an upper dir.
    pub(crate) fn overlay(&self, process: &Process) -> Result<Disk, String> {
        let root = self.root.as_deref();
        let root = root.ok_or("the command line names no directory for the root")?;
        let shown = quoted(&root.to_string_lossy());
        let failed = |error| format!("the root {shown}: {error}");
        let id = process.file_id(root).map_err(failed)?;
        // The name is the VMM's word; what counts is that it has it open.
        let open = held(&process.path("fd"), id).map_err(failed)?;
        let open =
            open.ok_or_else(|| format!("the process does not have the root {shown} open"))?;
        Ok(Disk {
            identity: disk_identity(&root.to_string_lossy(), id, "overlay"),
            format: None,
            open_path: open,
        })
    }
}

/// The descriptor of this directory among those of a process.
fn held(descriptors: &Path, id: FileId) -> io::Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(descriptors)?.take(MAX_DESCRIPTORS) {
        let path = entry?.path();
        let is_dir = std::fs::metadata(&path).is_ok_and(|it| it.is_dir());
        if is_dir && FileId::of(&path).is_ok_and(|other| other == id) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Whether a program of this name may run libkrun.
pub(crate) fn is_called(name: &str) -> bool {
    matches!(name, "msbrun" | "krunvm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, line: &str, expected: Option<(Option<&str>, Option<&str>, bool)>) {
        let words = line.split_whitespace().map(|word| word.as_bytes().to_vec());
        let parsed = Arguments::parse(name, &words.collect::<Vec<_>>());
        let expected = expected.map(|(id, root, has_layers)| Arguments {
            id: id.map(str::to_owned),
            root: root.map(PathBuf::from),
            has_layers,
        });
        assert_eq!(parsed, expected, "{name} {line}");
    }

    #[test]
    fn only_a_directory_that_is_open_counts() {
        let dir = tempfile::tempdir().unwrap();
        let [root, other, fd] = ["root", "other", "fd"].map(|name| dir.path().join(name));
        for dir in [&root, &other, &fd] {
            std::fs::create_dir(dir).unwrap();
        }
        std::os::unix::fs::symlink(&root, fd.join("7")).unwrap();
        std::os::unix::fs::symlink("/dev/null", fd.join("1")).unwrap();
        let held = |path: &Path| held(&fd, FileId::of(path).unwrap()).unwrap();
        assert_eq!(held(&root), Some(fd.join("7")));
        assert_eq!(held(&other), None);
    }

    #[test]
    fn command_lines() {
        check(
            "msbrun",
            "microvm --log-level=3 --overlayfs-layer=/l/1 --overlayfs-layer=/m/rw/box --num-vcpus=2 --env=A=B --exec-path=/bin/sh -- --native-rootfs=/x",
            Some((Some("box"), Some("/m/rw/box"), true)),
        );
        check(
            "msbrun",
            "microvm --native-rootfs=/srv/plain --exec-path=/a",
            Some((Some("plain"), Some("/srv/plain"), false)),
        );
        check("msbrun", "microvm", Some((None, None, false)));
        check("msbrun", "supervisor --child-name=box", None);
        check("msbrun", "", None);
        check(
            "krunvm",
            "start box /bin/sh",
            Some((Some("box"), None, false)),
        );
        check("krunvm", "list", None);
    }
}
