//! The files a sandbox starts with, written below a directory of the host.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path};

/// One regular file; the directories above it are made as needed, mode 755.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// Absolute path inside the sandbox, without `..`.
    pub path: String,
    /// The file's bytes.
    pub contents: Vec<u8>,
    /// Permission bits, such as 0o644.
    pub mode: u32,
}

impl TreeEntry {
    /// A file of text.
    #[must_use]
    pub fn text(path: &str, contents: &str, mode: u32) -> Self {
        Self {
            path: path.to_owned(),
            contents: contents.as_bytes().to_vec(),
            mode,
        }
    }
}

/// What a root file system has besides its files, with modes.
const MOUNT_POINTS: [(&str, u32); 7] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("proc", 0o555),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/tmp", 0o1777),
];

/// Writes mount points and files below `root`, which must exist.
pub(crate) fn write(root: &Path, entries: &[TreeEntry]) -> io::Result<()> {
    fs::set_permissions(root, Permissions::from_mode(0o755))?;
    for (name, mode) in MOUNT_POINTS {
        let path = root.join(name);
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
    }
    entries.iter().try_for_each(|entry| write_file(root, entry))
}

fn write_file(root: &Path, entry: &TreeEntry) -> io::Result<()> {
    let relative = Path::new(&entry.path)
        .strip_prefix("/")
        .map_err(|_| outside(entry))?;
    if relative
        .components()
        .any(|part| !matches!(part, Component::Normal(_)))
    {
        return Err(outside(entry));
    }
    let path = root.join(relative);
    if let Some(parent) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)?;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(entry.mode)
        .open(&path)?;
    file.write_all(&entry.contents)?;
    // The mode at creation is cut by the umask.
    fs::set_permissions(&path, Permissions::from_mode(entry.mode))
}

fn outside(entry: &TreeEntry) -> io::Error {
    let text = format!("{} is not an absolute path without `..`", entry.path);
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_files_with_modes() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            &[TreeEntry::text(
                "/home/agent/.aws/credentials",
                "fake",
                0o600,
            )],
        )
        .unwrap();
        let file = dir.path().join("home/agent/.aws/credentials");
        assert_eq!(fs::read(&file).unwrap(), b"fake");
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o7777,
            0o600
        );
        assert_eq!(
            fs::metadata(dir.path().join("tmp"))
                .unwrap()
                .permissions()
                .mode()
                & 0o7777,
            0o1777
        );
    }

    #[test]
    fn stays_below_the_root() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["relative", "/a/../../b", "/"] {
            assert!(
                write(dir.path(), &[TreeEntry::text(path, "", 0o644)]).is_err(),
                "{path}"
            );
        }
    }
}
