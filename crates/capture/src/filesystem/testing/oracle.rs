//! Random operations on a real file system, and two full walks of it: their
//! difference must be the collector's answer.

use super::{Dice, Report};
use rustix::fs::{FallocateFlags, XattrFlags};
use sandtrace_event::{FileChange, FileOp, HashScope};
use sha2::Digest as _;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What a path is to somebody in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Seen {
    /// Kind, content or target or device number: what `modified` is about.
    content: (&'static str, Vec<u8>),
    /// What `metadata` is about.
    attributes: (u32, u32, u32),
    xattrs: BTreeMap<String, Vec<u8>>,
    size: u64,
}

pub(in super::super) type View = BTreeMap<String, Seen>;

/// Everything below `root`.
pub(in super::super) fn view(root: &Path) -> View {
    let mut view = View::new();
    let mut visits = vec![root.to_owned()];
    while let Some(path) = visits.pop() {
        let metadata = path.symlink_metadata().unwrap();
        let kind = metadata.file_type();
        let content = if kind.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            visits.extend(entries.map(|entry| entry.unwrap().path()));
            ("dir", Vec::new())
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            ("link", target.as_os_str().as_bytes().to_vec())
        } else if kind.is_file() {
            ("file", fs::read(&path).unwrap())
        } else if kind.is_fifo() {
            ("fifo", Vec::new())
        } else {
            ("device", metadata.rdev().to_le_bytes().to_vec())
        };
        let name = path.strip_prefix(root).unwrap().to_str().unwrap();
        let seen = Seen {
            size: content.1.len() as u64,
            content,
            xattrs: xattrs(&path),
            attributes: (metadata.mode() & 0o7777, metadata.uid(), metadata.gid()),
        };
        view.insert(format!("/{name}"), seen);
    }
    view
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 4096];
    let len = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap();
    let names = names[..len].split(|byte| *byte == 0);
    let read = |name: &[u8]| {
        let mut value = vec![0; 4096];
        let len = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap();
        value.truncate(len);
        (String::from_utf8(name.to_vec()).unwrap(), value)
    };
    names.filter(|name| !name.is_empty()).map(read).collect()
}

/// Compares what a scan said with the difference of two walks. Of files beyond
/// `bound` only head and tail are hashed.
#[track_caller]
pub(in super::super) fn check(
    report: &Report,
    (before, after): (&View, &View),
    bound: u64,
    story: &[String],
) {
    assert!(report.gaps.is_empty(), "{:?}", report.gaps);
    let truth = difference(before, after);
    let mut said = reported(report, (before, after), bound);
    // Of a large file nobody can tell a change of its mode, or a link that was
    // made to it, from a write between head and tail.
    let may_be_written = |path: &String| {
        let is_large = |view: &View| view.get(path).is_some_and(|seen| seen.is_large(bound));
        is_large(before) && is_large(after)
    };
    said.retain(|path, op| {
        let is_more = *op == FileOp::Modified && may_be_written(path);
        match truth.get(path) {
            None => !is_more,
            Some(FileOp::Metadata) if is_more => {
                *op = FileOp::Metadata;
                true
            }
            Some(_) => true,
        }
    });
    assert_eq!(said, truth, "{}", story.join("\n"));
}

impl Seen {
    fn is_large(&self, bound: u64) -> bool {
        self.content.0 == "file" && self.size > bound
    }

    /// What is hashed of it.
    fn hashed(&self, bound: u64) -> Vec<u8> {
        let bytes = &self.content.1;
        if !self.is_large(bound) {
            return bytes.clone();
        }
        let half = usize::try_from(bound / 2).unwrap();
        [&bytes[..half], &bytes[bytes.len() - half..]].concat()
    }
}

/// The difference of two walks, without any notion of renaming.
fn difference(before: &View, after: &View) -> BTreeMap<String, FileOp> {
    let mut changes = BTreeMap::new();
    for (path, is) in after {
        let op = match before.get(path) {
            None => FileOp::Created,
            Some(was) if was.content != is.content => FileOp::Modified,
            Some(was) if was.attributes != is.attributes || was.xattrs != is.xattrs => {
                FileOp::Metadata
            }
            Some(_) => continue,
        };
        changes.insert(path.clone(), op);
    }
    for path in before.keys().filter(|path| !after.contains_key(*path)) {
        changes.insert(path.clone(), FileOp::Deleted);
    }
    changes
}

/// The reported changes, each renaming taken apart and checked.
fn reported(
    report: &Report,
    (before, after): (&View, &View),
    bound: u64,
) -> BTreeMap<String, FileOp> {
    let mut changes = BTreeMap::new();
    for change in &report.changes {
        let mut op = change.op;
        if op == FileOp::Renamed {
            let from = change.renamed_from.as_ref().unwrap();
            let content = |view: &View, path| {
                let seen: Option<&Seen> = view.get(path);
                seen.map(|seen| (seen.content.0, seen.size, seen.hashed(bound)))
            };
            let was = content(before, from);
            assert_eq!(was, content(after, &change.path), "{change:?}");
            assert_eq!(changes.insert(from.clone(), FileOp::Deleted), None);
            op = FileOp::Created;
        }
        check_fields(change, (before, after), bound);
        let twice = changes.insert(change.path.clone(), op);
        assert_eq!(twice, None, "{change:?}");
    }
    changes
}

fn check_fields(change: &FileChange, (before, after): (&View, &View), bound: u64) {
    let path = change.renamed_from.as_ref().unwrap_or(&change.path);
    let size = |seen: &Seen| (seen.content.0 == "file").then_some(seen.size);
    let was = before.get(path).and_then(size);
    assert_eq!(change.size_before.map(|count| count.0), was, "{change:?}");
    let is = after.get(&change.path);
    assert_eq!(
        change.size_after.map(|count| count.0),
        is.and_then(size),
        "{change:?}"
    );
    let attributes = is.map(|seen| seen.attributes);
    assert_eq!(
        change.mode,
        attributes.map(|attributes| attributes.0),
        "{change:?}"
    );
    assert_eq!(
        change.uid,
        attributes.map(|attributes| attributes.1),
        "{change:?}"
    );
    let was_attributes = before.get(path).map(|seen| seen.attributes);
    let former = |of: fn((u32, u32, u32)) -> u32| {
        let (was, is) = (of(was_attributes?), of(attributes?));
        Some(was).filter(|was| *was != is)
    };
    assert_eq!(change.mode_before, former(|it| it.0), "{change:?}");
    assert_eq!(change.uid_before, former(|it| it.1), "{change:?}");
    assert_eq!(change.gid_before, former(|it| it.2), "{change:?}");
    let names = |seen: Option<&Seen>| seen.map(|seen| seen.xattrs.clone()).unwrap_or_default();
    let (had, has) = (names(before.get(path)), names(is));
    let mut names: Vec<_> = had.keys().chain(has.keys()).cloned().collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| is.is_some() && had.get(name) != has.get(name));
    assert_eq!(change.xattrs_changed, names, "{change:?}");
    assert_eq!(change.unreadable, None, "{change:?}");
    let is_file = is.filter(|seen| seen.content.0 == "file");
    match change.op {
        FileOp::Metadata | FileOp::Deleted => assert_eq!(change.sha256, None),
        _ => {
            let digest = is_file.map(|seen| sha2::Sha256::digest(seen.hashed(bound)).into());
            let scope = is_file.map(|seen| match seen.is_large(bound) {
                true => HashScope::HeadTail,
                false => HashScope::Whole,
            });
            assert_eq!(change.sha256_scope, scope, "{change:?}");
            assert_eq!(change.sha256.map(|digest| digest.0), digest, "{change:?}");
        }
    }
}

const DONE: &str = "done";

/// How many operations of a story were done.
pub(in super::super) fn done(story: &[String]) -> usize {
    story.iter().filter(|line| line.ends_with(DONE)).count()
}

/// A random operation: the first that succeeds, after those that did not.
pub(in super::super) fn operate(root: &Path, dice: &mut Dice) -> String {
    const MOST_TRIES: usize = 30;
    let mut tried = Vec::new();
    while tried.len() < MOST_TRIES && done(&tried) == 0 {
        tried.push(attempt(root, dice));
    }
    tried.join("\n")
}

/// One that fails does no harm.
fn attempt(root: &Path, dice: &mut Dice) -> String {
    const NAMES: [&str; 7] = ["a", "b", "c", "home", "etc", "file", "x y"];
    let mut path = || {
        let mut path = PathBuf::new();
        // Short ones more often: these exist.
        for _ in 0..=dice.below(3).min(dice.below(3)) {
            path.push(dice.pick(&NAMES));
        }
        path
    };
    let (from, to) = (path(), path());
    let (one, two) = (root.join(&from), root.join(&to));
    let sizes = [0, 1, 100, 5000, 40_000];
    let bytes = vec![b'a' + u8::try_from(dice.below(4)).unwrap(); *dice.pick(&sizes)];
    let (name, result) = match dice.below(26) {
        0..=2 => ("write", fs::write(&one, bytes)),
        3 => ("mkdir", fs::create_dir_all(&one)),
        4 => ("unlink", fs::remove_file(&one)),
        5 => ("rmdir", fs::remove_dir(&one)),
        6 => ("remove tree", fs::remove_dir_all(&one)),
        7..=9 => ("rename", fs::rename(&one, &two)),
        10 => ("link", fs::hard_link(&one, &two)),
        11 => ("symlink", symlink(&to, &one)),
        12 => {
            let mode = [0o600, 0o644, 0o755, 0o1777][dice.below(4)];
            let mode = fs::Permissions::from_mode(mode);
            // Not through a link, which could lead out.
            let is_link = one.is_symlink();
            let result = if is_link {
                Err(std::io::ErrorKind::InvalidInput.into())
            } else {
                fs::set_permissions(&one, mode)
            };
            ("chmod", result)
        }
        13 => {
            let owner = u32::try_from(dice.below(3)).unwrap();
            (
                "chown",
                std::os::unix::fs::lchown(&one, Some(owner), Some(owner)),
            )
        }
        14 => ("patch", patch(&one, dice.below(6000) as u64)),
        15 | 22 => (
            "secret patch",
            patch_secretly(&one, dice.below(40_000) as u64),
        ),
        24 => ("secret replace", replace_secretly(&one, &root.join("new"))),
        23 => ("truncate", truncate(&one, dice.below(6000) as u64)),
        16 | 17 => ("set attribute", set_attribute(&one, dice)),
        18 => ("remove attribute", remove_attribute(&one, dice)),
        19 => ("touch", touch(&one)),
        20 => {
            let mode = *dice.pick(&[
                FallocateFlags::empty(),
                FallocateFlags::KEEP_SIZE,
                FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE),
                FallocateFlags::ZERO_RANGE,
            ]);
            let at = dice.below(6000) as u64;
            ("fallocate", allocate(&one, mode, at))
        }
        21 if dice.below(4) == 0 => ("write to a mapping", write_mapped(&one)),
        _ => {
            let copied = if one.is_file() {
                fs::copy(&one, &two).map(drop)
            } else {
                Err(std::io::ErrorKind::InvalidInput.into())
            };
            ("copy", copied)
        }
    };
    let outcome = result.map_or_else(|error| error.to_string(), |()| DONE.to_owned());
    format!("{name} {} {}: {outcome}", from.display(), to.display())
}

fn patch(path: &Path, at: u64) -> std::io::Result<()> {
    let mut file = fs::File::options().write(true).open(path)?;
    file.seek(SeekFrom::Start(at))?;
    file.write_all(b"patch")
}

/// Puts in a file's place a copy with its times and a few other bytes.
fn replace_secretly(path: &Path, by: &Path) -> std::io::Result<()> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    let modified = fs::metadata(path)?.modified()?;
    fs::copy(path, by)?;
    fs::File::options()
        .write(true)
        .open(by)?
        .set_modified(modified)?;
    patch_secretly(by, 5000)?;
    fs::rename(by, path)
}

/// Writes amid a file, whose size and time of modification stay as they were.
fn patch_secretly(path: &Path, at: u64) -> std::io::Result<()> {
    let modified = fs::metadata(path)?.modified()?;
    let file = fs::File::options().write(true).open(path)?;
    let at = at.min(file.metadata()?.len().saturating_sub(6));
    if file.metadata()?.len() >= 6 {
        file.write_all_at(&[b'0' + u8::try_from(at % 7).unwrap(); 6], at)?;
    }
    file.set_modified(modified)
}

fn truncate(path: &Path, len: u64) -> std::io::Result<()> {
    fs::File::options().write(true).open(path)?.set_len(len)
}

const ATTRIBUTES: [&str; 4] = ["user.note", "user.x", "security.test", "trusted.test"];

fn set_attribute(path: &Path, dice: &mut Dice) -> std::io::Result<()> {
    let value = vec![b'v'; [0, 1, 30, 600][dice.below(4)]];
    let flags = XattrFlags::empty();
    Ok(rustix::fs::lsetxattr(
        path,
        *dice.pick(&ATTRIBUTES),
        &value,
        flags,
    )?)
}

fn remove_attribute(path: &Path, dice: &mut Dice) -> std::io::Result<()> {
    Ok(rustix::fs::lremovexattr(path, *dice.pick(&ATTRIBUTES))?)
}

/// Sets the time of the last change back, as who hides one does.
fn touch(path: &Path) -> std::io::Result<()> {
    let file = fs::File::options().write(true).open(path)?;
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000))
}

fn allocate(path: &Path, mode: FallocateFlags, at: u64) -> std::io::Result<()> {
    let file = fs::File::options().write(true).open(path)?;
    Ok(rustix::fs::fallocate(file, mode, at, 5000)?)
}

fn write_mapped(path: &Path) -> std::io::Result<()> {
    let file = fs::File::options().read(true).write(true).open(path)?;
    sandtrace_sys::mapped::write(&file, b"mapped")
}

/// What is there before the first operation.
pub(in super::super) fn fill(root: &Path) {
    for dir in ["home/a/b", "home/etc", "etc/a", "c"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for (number, file) in [
        "file",
        "home/file",
        "home/a/file",
        "home/a/b/c",
        "etc/file",
        "etc/a/b",
        "c/a",
    ]
    .iter()
    .enumerate()
    {
        fs::write(
            root.join(file),
            vec![b'0' + u8::try_from(number).unwrap(); 1000 * number],
        )
        .unwrap();
    }
    symlink("../file", root.join("home/c")).unwrap();
}
