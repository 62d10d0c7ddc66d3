//! What these tests share.

mod link;
mod program;
mod sandbox;
mod story;
mod trail;

pub(crate) use link::Link;
pub(crate) use program::{
    PATIENCE, Ran, Running, await_text, eventually, finish, run, sandtrace, state_dir,
};
pub(crate) use sandbox::{Kind, Stage};
pub(crate) use story::{assert_story, assert_truth};
pub(crate) use trail::{assert_sealed, events, flows, judged, lines, trail_end};

use std::path::{Path, PathBuf};

/// The seed's policy.
pub(crate) const POLICY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../policies/stripe-exfil.yaml"
);

/// A plain user hears what was skipped; in CI nothing is.
pub(crate) fn privileged(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(
            std::env::var_os("CI").is_none(),
            "{test} must run as root in CI"
        );
        println!("skipped: {test}: needs root");
    }
    root
}

/// A directory that goes with the test.
pub(crate) struct Dir(tempfile::TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn at(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A path as an argument.
    pub(crate) fn text(&self, name: &str) -> String {
        text(&self.path(name))
    }

    /// Writes a file and hands back its path as an argument.
    pub(crate) fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), contents).unwrap();
        self.text(name)
    }

    /// Makes a directory and hands back its path as an argument.
    pub(crate) fn dir(&self, name: &str) -> String {
        std::fs::create_dir(self.path(name)).unwrap();
        self.text(name)
    }

    /// What is in it.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.at()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
