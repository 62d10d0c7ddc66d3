//! Disk images with an ext4 file system.

use std::fs::File;
use std::path::Path;

use crate::error::{LabError, doing};
use crate::programs::{self, MKFS};
use crate::tree::{self, TreeEntry};

/// Makes a sparse image of `size` bytes at `path` with the files of `tree` in it, all owned by
/// root, without mounting anything.
///
/// # Errors
/// When the file exists, the files do not fit, or e2fsprogs is missing.
pub fn make_image(path: &Path, size: u64, tree: &[TreeEntry]) -> Result<(), LabError> {
    let files = tempfile::tempdir().map_err(doing("create a temporary directory"))?;
    tree::write(files.path(), tree).map_err(doing("write the files of the image"))?;
    let image = File::create_new(path).map_err(doing(format!("create {}", path.display())))?;
    image
        .set_len(size)
        .map_err(doing(format!("make {} {size} bytes long", path.display())))?;
    let mut command = MKFS.command()?;
    // The tables at once, so that the guest's kernel does not write them behind its back.
    command.args([
        "-q",
        "-F",
        "-E",
        "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0",
        "-d",
    ]);
    command.args([files.path(), path]);
    programs::finish(&mut command).map(drop)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn holds_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        let tree = [TreeEntry::text("/home/agent/task.md", "charge", 0o644)];
        make_image(&path, 16 << 20, &tree).unwrap();
        let output = Command::new("/sbin/debugfs")
            .args(["-R", "cat /home/agent/task.md"])
            .arg(&path)
            .output()
            .unwrap();
        assert_eq!(output.stdout, b"charge");
        let again = make_image(&path, 16 << 20, &tree).unwrap_err().to_string();
        assert!(again.contains("disk.img"), "{again}");
    }
}
