//! Where a trail is: its files, and the checkpoint beside them.

use crate::exit::{Exit, Failure, OrExit as _};
use anyhow::Context as _;
use sandtrace_audit_chain::checkpoint::Checkpoint;
use sandtrace_audit_chain::note::{MAX_NOTE, Note};
use sandtrace_audit_chain::segments::{self, SegmentReader};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A trail on disk.
pub(crate) struct Place {
    /// Its files, the first one first.
    pub(crate) files: Vec<PathBuf>,
    /// What is known from the file beside the first of them.
    pub(crate) beside: Option<Beside>,
    /// Numbers of later segments that are there although one before is not.
    pub(crate) stray: Option<u64>,
}

/// The newest checkpoint as `T.checkpoint` has it.
pub(crate) enum Beside {
    Checkpoint {
        note: Note,
        checkpoint: Checkpoint,
    },
    /// It is there, but it is no checkpoint.
    Unreadable(String),
}

impl Beside {
    /// Size that it speaks of.
    pub(crate) fn size(&self) -> Option<u64> {
        match self {
            Self::Checkpoint { checkpoint, .. } => Some(checkpoint.size()),
            Self::Unreadable(_) => None,
        }
    }
}

impl Place {
    /// Looks for what belongs to the trail whose first file is `first`.
    pub(crate) fn find(first: &Path) -> Result<Self, Failure> {
        if let Some((begin, number)) = segments::first_of(first)
            && begin.is_file()
        {
            let message = format!(
                "{} is segment {number} of a trail: name its first file, {}",
                first.display(),
                begin.display()
            );
            return Err(Failure::new(Exit::Usage, message));
        }
        // Before the trail is read: while it grows this must be the older one.
        let beside = beside(first)
            .with_context(|| format!("read the checkpoint beside {}", first.display()))
            .or_exit(Exit::Malformed)?;
        let files = segments::existing(first)
            .with_context(|| format!("look for the segments of {}", first.display()))
            .or_exit(Exit::Malformed)?;
        let stray = stray(first, u64::try_from(files.len()).unwrap_or(u64::MAX));
        Ok(Self {
            files,
            beside,
            stray,
        })
    }

    pub(crate) fn open(&self) -> Result<SegmentReader, Failure> {
        let first = self.files.first().map_or(Path::new(""), PathBuf::as_path);
        SegmentReader::open(&self.files)
            .with_context(|| format!("open trail {}", first.display()))
            .or_exit(Exit::Malformed)
    }

    /// The file and the offset in it of a byte of the trail.
    pub(crate) fn locate(&self, sizes: &[u64], mut offset: u64) -> Option<(&Path, u64)> {
        let mut files = self.files.iter().zip(sizes).peekable();
        while let Some((file, size)) = files.next() {
            if offset < *size || files.peek().is_none() {
                return Some((file, offset));
            }
            offset -= size;
        }
        None
    }
}

fn beside(first: &Path) -> io::Result<Option<Beside>> {
    let file = match File::open(segments::checkpoint_path(first)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    let bound = u64::try_from(MAX_NOTE)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    file.take(bound).read_to_end(&mut text)?;
    Ok(Some(match parse(&text) {
        Ok((note, checkpoint)) => Beside::Checkpoint { note, checkpoint },
        Err(error) => Beside::Unreadable(error),
    }))
}

fn parse(text: &[u8]) -> Result<(Note, Checkpoint), String> {
    let note = Note::parse(text).map_err(|error| error.to_string())?;
    let checkpoint = note.text().parse::<Checkpoint>();
    let checkpoint = checkpoint.map_err(|error| error.to_string())?;
    Ok((note, checkpoint))
}

/// The first segment behind a gap.
fn stray(first: &Path, count: u64) -> Option<u64> {
    let parent = match first.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let entries = fs::read_dir(parent).ok()?;
    let name = first.file_name()?;
    let numbers = entries.flatten().filter_map(|entry| {
        let (begin, number) = segments::first_of(Path::new(&entry.file_name()))?;
        (begin.as_os_str() == name && number > count).then_some(number)
    });
    numbers.min()
}
