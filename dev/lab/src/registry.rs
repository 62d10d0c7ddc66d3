//! What running labs own, in files below `/run`, so that a sweep can remove what a killed
//! process could not.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::places;
use crate::process::Process;

/// Everything one lab has made; written before each thing is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Belongings {
    pub(crate) owner: Process,
    pub(crate) dir: PathBuf,
    pub(crate) namespaces: Vec<String>,
    pub(crate) children: Vec<Process>,
}

/// The file of one lab.
#[derive(Debug)]
pub(crate) struct Entry {
    path: PathBuf,
    pub(crate) belongings: Belongings,
}

impl Entry {
    pub(crate) fn create(id: &str, belongings: Belongings) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(places::RUN)?;
        let path = Path::new(places::RUN).join(format!("{id}.json"));
        let entry = Self { path, belongings };
        entry.write()?;
        Ok(entry)
    }

    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Belongings)) -> io::Result<()> {
        change(&mut self.belongings);
        self.write()
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }

    /// By way of a second file, so that a reader never sees half of it.
    fn write(&self) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(&self.belongings)?)?;
        fs::rename(fresh, &self.path)
    }
}

/// The entries whose owner is gone.
pub(crate) fn orphans() -> io::Result<Vec<Entry>> {
    let files = match fs::read_dir(places::RUN) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut orphans = Vec::new();
    for file in files {
        let path = file?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            orphans.extend(read(path).filter(|entry| !entry.belongings.owner.is_alive()));
        }
    }
    Ok(orphans)
}

/// A file that has just gone, or that another version wrote, is left alone.
fn read(path: PathBuf) -> Option<Entry> {
    let bytes = fs::read(&path).ok()?;
    let belongings = serde_json::from_slice(&bytes).ok()?;
    Some(Entry { path, belongings })
}

/// Held while namespaces are made or swept: two first users of `ip netns` at once would both
/// try to turn `/run/netns` into a mount point.
pub(crate) fn lock() -> io::Result<File> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(places::RUN)?;
    let file = File::create(Path::new(places::RUN).join("lock"))?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}
