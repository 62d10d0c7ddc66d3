//! Where tests find what others published: in the folder that `SANDTRACE_CORPORA` names,
//! or in the one beside the repository. Unit tests and those in tests/ share this file.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// A folder of the corpora, or nothing where it is absent and need not be there.
pub(crate) fn corpus(test: &str, folder: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora");
    let root = env::var_os("SANDTRACE_CORPORA").map_or_else(beside, PathBuf::from);
    let path = root.join(folder);
    if path.is_dir() {
        return Some(path);
    }
    assert!(
        env::var_os("CI").is_none(),
        "no corpora at {}",
        path.display()
    );
    println!("skipped: {test}: no corpora");
    None
}

/// Every file below a folder, in order.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}
