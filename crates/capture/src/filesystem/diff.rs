//! What changed between two scans.

mod rename;

use super::bounds::Problems;
use super::content::Content;
use super::layers::Failed;
use super::tree::{Delta, Difference, Entry, Node, PathBytes, shown};
use sandtrace_event::{FileKind, FileOp, HashScope};

/// What a path is where neither index holds it, and content that was left unread.
pub(crate) trait Base {
    /// What `path` is as far as no index says otherwise.
    fn lookup(&mut self, path: &[u8]) -> Result<Option<Entry>, Failed>;
    /// Reads content that [`Content::Lower`] or [`Content::InBase`] only point at.
    fn content(&mut self, of: &Content) -> Content;
    /// Whether a file whose mark is not what it was may have been written to:
    /// both indexes are of the same layers.
    fn marks_tell(&self) -> bool;
}

/// One path that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) op: FileOp,
    pub(crate) path: PathBytes,
    pub(crate) before: Option<Entry>,
    pub(crate) after: Option<Entry>,
    /// Former path of a renamed one.
    pub(crate) from: Option<PathBytes>,
}

/// The changes that a scan found, in the order of paths, every one with its
/// content read. Paths that the scan could not look at are taken over from the
/// index before, up to `max_paths` in all; those that the index before could
/// not look at are no change.
pub(crate) fn diff(
    scan: &mut Delta<'_>,
    max_paths: usize,
    base: &mut dyn Base,
    problems: &mut Problems,
) -> Vec<Change> {
    let mut differ = Differ {
        base,
        problems,
        changes: Vec::new(),
    };
    for Difference { path, was, is } in scan.differences() {
        match (was, is) {
            (Some((place, _)), None) if scan.skips(&path) => {
                if scan.has_room(&path, max_paths) {
                    scan.keep(place);
                } else {
                    let problem = || format!("{}: too many paths", shown(&path));
                    differ.problems.bounded(problem);
                }
            }
            (None, Some(_)) if scan.before().skips(&path) => {}
            (was, is) => differ.compare(path, was.map(|(_, was)| was), is),
        }
    }
    let Differ {
        base, mut changes, ..
    } = differ;
    rename::pair(&mut changes, base);
    for change in &mut changes {
        let is_new = matches!(
            change.op,
            FileOp::Created | FileOp::Modified | FileOp::Renamed
        );
        if let Some(entry) = change.after.as_mut().filter(|_| is_new) {
            resolve(entry, base);
        }
    }
    changes
}

struct Differ<'a> {
    base: &'a mut dyn Base,
    problems: &'a mut Problems,
    changes: Vec<Change>,
}

impl Differ<'_> {
    /// `None`: the index does not hold the path.
    fn compare(&mut self, path: PathBytes, was: Option<Node>, is: Option<Node>) {
        let mut side = |node: Option<Node>| match node {
            Some(node) => Ok(node),
            None => self.base.lookup(&path),
        };
        let (before, after) = match (side(was), side(is)) {
            (Ok(before), Ok(after)) => (before, after),
            (Err(reason), _) | (_, Err(reason)) => {
                self.problems
                    .unreadable(|| format!("{}: {reason}", shown(&path)));
                return;
            }
        };
        let op = match (&before, &after) {
            (None, None) => return,
            (None, Some(_)) => FileOp::Created,
            (Some(_), None) => FileOp::Deleted,
            (Some(before), Some(after)) => match self.compare_entries(before, after) {
                Some(op) => op,
                None => return,
            },
        };
        self.changes.push(Change {
            op,
            path,
            before,
            after,
            from: None,
        });
    }

    fn compare_entries(&mut self, before: &Entry, after: &Entry) -> Option<FileOp> {
        if !same_content(before, after, self.base.marks_tell(), self.base) {
            Some(FileOp::Modified)
        } else if before.attributes == after.attributes && before.xattrs.is_same(&after.xattrs) {
            None
        } else {
            Some(FileOp::Metadata)
        }
    }
}

/// Whether two entries hold the same, as far as can be told: where not all
/// content was read, its size and time of modification decide, and its mark if
/// `marks_tell`. The sandbox can set the former, not the time of change.
fn same_content(before: &Entry, after: &Entry, marks_tell: bool, base: &mut dyn Base) -> bool {
    if (before.kind, before.size) != (after.kind, after.size) {
        return false;
    }
    if before.content == after.content && !is_partial(&before.content) {
        return true;
    }
    let same_time = before.modified == after.modified && (!marks_tell || before.mark == after.mark);
    if after.kind != FileKind::File {
        return matches!(before.content, Content::Unreadable(_)) && before.content == after.content;
    }
    let (mut before, mut after) = (before.clone(), after.clone());
    resolve(&mut before, base);
    resolve(&mut after, base);
    match (&before.content, &after.content) {
        (Content::Skipped, Content::Unreadable(_)) => false,
        (Content::Skipped, _) | (_, Content::Skipped) => same_time,
        (Content::Unreadable(_), Content::Unreadable(_)) => same_time,
        (before, after) => before == after && (!is_partial(after) || same_time),
    }
}

/// Whether equal content may still differ where nobody looked.
fn is_partial(content: &Content) -> bool {
    let head_tail = HashScope::HeadTail;
    match content {
        Content::Hashed { scope, .. } => *scope == head_tail,
        Content::Unreadable(_) | Content::Skipped => true,
        _ => false,
    }
}

/// Reads content that was left unread.
fn resolve(entry: &mut Entry, base: &mut dyn Base) {
    if let Content::Lower(_) | Content::InBase(_) = &entry.content {
        entry.content = base.content(&entry.content);
    }
}

#[cfg(test)]
mod tests;
