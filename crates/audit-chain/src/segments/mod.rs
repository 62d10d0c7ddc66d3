//! The files of one trail: their names, and all of them read as one.

mod reader;

pub use reader::SegmentReader;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The files of a trail, of which `first` is the first, as far as they follow
/// each other without a gap.
///
/// # Errors
/// A path cannot be looked at.
pub fn existing(first: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![first.to_owned()];
    for number in 2.. {
        let path = path_of(first, number);
        match fs::symlink_metadata(&path) {
            Ok(_) => found.push(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Path of segment `number` (from 1) of the trail whose first file is `first`:
/// `trace.jsonl`, `trace.0002.jsonl`, `trace.0003.jsonl`.
#[must_use]
pub fn path_of(first: &Path, number: u64) -> PathBuf {
    if number <= 1 {
        return first.to_owned();
    }
    let mut name = first.file_stem().unwrap_or_default().to_owned();
    name.push(format!(".{number:04}"));
    if let Some(extension) = first.extension() {
        name.push(".");
        name.push(extension);
    }
    first.with_file_name(name)
}

/// The first file and the number, where this is the name of a later segment.
#[must_use]
pub fn first_of(path: &Path) -> Option<(PathBuf, u64)> {
    let name = path.file_name()?.to_str()?;
    let (rest, extension) = match name.rsplit_once('.') {
        Some((rest, last)) if !is_number(last) => (rest, Some(last)),
        _ => (name, None),
    };
    let (stem, number) = rest.rsplit_once('.')?;
    if !is_number(number) || stem.is_empty() {
        return None;
    }
    let first = match extension {
        Some(extension) => format!("{stem}.{extension}"),
        None => stem.to_owned(),
    };
    let number = number.parse().ok().filter(|number| *number > 1)?;
    let first = path.with_file_name(first);
    (path_of(&first, number) == path).then_some((first, number))
}

/// Longer ones are times in the names of trails.
fn is_number(text: &str) -> bool {
    (4..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Where the newest checkpoint of a trail is kept.
#[must_use]
pub fn checkpoint_path(first: &Path) -> PathBuf {
    beside(first, ".checkpoint")
}

/// Where the torn ends of a trail are set aside.
#[must_use]
pub fn torn_path(first: &Path) -> PathBuf {
    beside(first, ".torn")
}

pub(crate) fn beside(first: &Path, suffix: &str) -> PathBuf {
    let mut name = first.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(first: &str, number: u64, expected: &str) {
        let path = path_of(Path::new(first), number);
        assert_eq!(path, Path::new(expected));
        if number > 1 {
            assert_eq!(first_of(&path), Some((first.into(), number)));
        }
    }

    #[test]
    fn segments_have_their_number_in_front_of_the_extension() {
        check("a/trace.jsonl", 1, "a/trace.jsonl");
        check("a/trace.jsonl", 2, "a/trace.0002.jsonl");
        check("trace.jsonl", 12_345, "trace.12345.jsonl");
        check("vm.7-1.2.jsonl", 3, "vm.7-1.2.0003.jsonl");
        check("trace", 2, "trace.0002");
    }

    #[test]
    fn other_names_are_no_later_segments() {
        for name in [
            "trace.jsonl",
            "trace.2.jsonl",
            "trace.0001.jsonl",
            ".0002",
            "trace.00002.jsonl",
        ] {
            assert_eq!(first_of(Path::new(name)), None, "{name}");
        }
    }
}
