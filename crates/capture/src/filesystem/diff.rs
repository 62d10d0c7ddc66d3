//! What changed between two scans.

mod rename;

use super::bounds::Problems;
use super::content::Content;
use super::layers::Failed;
use super::secrets::Findings;
use super::tree::{Delta, Difference, Entry, Node, PathBytes, shown};
use sandtrace_event::{FileKind, FileOp, HashScope};

/// What a path is where neither index holds it, and content that was left unread.
pub(crate) trait Base {
    /// What `path` is as far as no index says otherwise.
    fn lookup(&mut self, path: &[u8]) -> Result<Option<Entry>, Failed>;
    /// Reads content that [`Content::Lower`] or [`Content::InBase`] only point at.
    fn content(&mut self, of: &Content) -> Content;
    /// What a write leaves in both indexes.
    fn traces(&self) -> Traces;
    /// What looks like secrets in the content that was read, where that is
    /// looked for.
    fn secrets(&self) -> Option<&Findings>;
}

/// What of an entry cannot be as it was if its file was written to, or another
/// file is in its place. Each tells what those before it tell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Traces {
    /// The time of modification, unless it was set back: the indexes are of
    /// two trees that have nothing in common.
    Times,
    /// The file's identity, of another file: a file may be moved on its disk,
    /// and its blocks tell what was written.
    Inodes,
    /// The mark: the indexes are of the same layers.
    Marks,
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

/// Whoever is told of each change, with what of its content looks like secrets
/// and what could not be seen so far.
pub(crate) type Report<'a> = dyn FnMut(&Change, Option<&Findings>, &mut Problems) + 'a;

/// Paths that are compared with each other for renames: of a scan with more
/// that came or went, the others are told as created and deleted.
const MOST_MOVED: usize = 32 << 10;

/// Reports the changes that a scan found, in the order of paths, every one with
/// its content read. Paths that the scan could not look at are taken over from
/// the index before, up to `max_paths` in all; those that the index before could
/// not look at are no change.
///
/// It goes through the differences twice, so that few of them are in memory.
pub(crate) fn diff(
    scan: &mut Delta<'_>,
    max_paths: usize,
    base: &mut dyn Base,
    problems: &mut Problems,
    report: &mut Report<'_>,
) {
    let mut differ = Differ {
        base,
        problems,
        ops: Vec::new(),
        moved: Vec::new(),
        last_moved: 0,
    };
    let mut kept = Vec::new();
    for Difference { path, was, is } in scan.differences() {
        match (was, is) {
            (Some((place, _)), None) if scan.skips(&path) => {
                if scan.has_room_beside(kept.len(), &path, max_paths) {
                    kept.push(place);
                } else {
                    let problem = || format!("{}: too many paths", shown(&path));
                    differ.problems.bounded(problem);
                    differ.ops.push(None);
                }
            }
            (None, Some(_)) if scan.before().skips(&path) => differ.ops.push(None),
            (was, is) => differ.note(path, was.map(|(_, was)| was), is),
        }
    }
    for place in kept {
        scan.keep(place);
    }
    rename::pair(&mut differ.moved, differ.base);
    differ.report(scan, report);
}

struct Differ<'a> {
    base: &'a mut dyn Base,
    problems: &'a mut Problems,
    /// What became of each path that differs; `None`: nothing.
    ops: Vec<Option<FileOp>>,
    /// The first of those that came or went.
    moved: Vec<Change>,
    /// Place of the last of them among all that differ, and one more.
    last_moved: usize,
}

impl Differ<'_> {
    /// Notes what became of a path.
    fn note(&mut self, path: PathBytes, was: Option<Node>, is: Option<Node>) {
        let change = self.compare(path, was, is).unwrap_or_else(|reason| {
            self.problems.unreadable(|| reason);
            None
        });
        self.ops.push(change.as_ref().map(|change| change.op));
        let is_moved = |change: &Change| matches!(change.op, FileOp::Created | FileOp::Deleted);
        if let Some(change) = change.filter(is_moved)
            && self.moved.len() < MOST_MOVED
        {
            self.moved.push(change);
            self.last_moved = self.ops.len();
        }
    }

    /// Tells of each change.
    fn report(self, scan: &Delta<'_>, report: &mut Report<'_>) {
        let Self {
            base,
            problems,
            ops,
            moved,
            last_moved,
        } = self;
        let mut moved = moved.into_iter().peekable();
        for (place, (difference, op)) in scan.differences().zip(ops).enumerate() {
            let Some(op) = op else { continue };
            let Difference { path, was, is } = difference;
            let is_moved = matches!(op, FileOp::Created | FileOp::Deleted);
            let mut change = if is_moved && place < last_moved {
                // What is not there any more was renamed to another path.
                let Some(change) = moved.next_if(|change| change.path == path) else {
                    continue;
                };
                change
            } else {
                let was = was.map(|(_, was)| was);
                // What could be looked up a moment ago can be again.
                let Ok((before, after)) = sides(&path, was, is, base) else {
                    continue;
                };
                Change {
                    op,
                    path,
                    before,
                    after,
                    from: None,
                }
            };
            let is_new = matches!(
                change.op,
                FileOp::Created | FileOp::Modified | FileOp::Renamed
            );
            if let Some(entry) = change.after.as_mut().filter(|_| is_new) {
                resolve(entry, base);
            }
            report(&change, base.secrets(), problems);
        }
    }

    /// `None`: the index does not hold the path.
    fn compare(
        &mut self,
        path: PathBytes,
        was: Option<Node>,
        is: Option<Node>,
    ) -> Result<Option<Change>, Failed> {
        let sides = sides(&path, was, is, self.base);
        let (before, after) = sides.map_err(|reason| format!("{}: {reason}", shown(&path)))?;
        let op = match (&before, &after) {
            (None, None) => None,
            (None, Some(_)) => Some(FileOp::Created),
            (Some(_), None) => Some(FileOp::Deleted),
            (Some(before), Some(after)) => self.compare_entries(before, after),
        };
        Ok(op.map(|op| Change {
            op,
            path,
            before,
            after,
            from: None,
        }))
    }

    fn compare_entries(&mut self, before: &Entry, after: &Entry) -> Option<FileOp> {
        let traces = self.base.traces();
        if !same_content(before, after, traces, self.base) {
            Some(FileOp::Modified)
        } else if before.attributes == after.attributes && before.xattrs.is_same(&after.xattrs) {
            None
        } else {
            Some(FileOp::Metadata)
        }
    }
}

/// What a path was and is; `None`: the index does not hold it.
fn sides(
    path: &[u8],
    was: Option<Node>,
    is: Option<Node>,
    base: &mut dyn Base,
) -> Result<(Node, Node), Failed> {
    let mut side = |node: Option<Node>| node.map_or_else(|| base.lookup(path), Ok);
    Ok((side(was)?, side(is)?))
}

/// Whether two entries hold the same, as far as can be told: where not all
/// content was read, its size, its time of modification and `traces` decide.
/// The sandbox can set the first two.
fn same_content(before: &Entry, after: &Entry, traces: Traces, base: &mut dyn Base) -> bool {
    if (before.kind, before.size) != (after.kind, after.size) {
        return false;
    }
    if before.content == after.content && !is_partial(&before.content) {
        return true;
    }
    let is_untouched = before.modified == after.modified
        && (traces < Traces::Inodes || before.identity == after.identity)
        && (traces < Traces::Marks || before.mark == after.mark);
    if after.kind != FileKind::File {
        return matches!(before.content, Content::Unreadable(_)) && before.content == after.content;
    }
    let (mut before, mut after) = (before.clone(), after.clone());
    resolve(&mut before, base);
    resolve(&mut after, base);
    match (&before.content, &after.content) {
        (Content::Skipped, Content::Unreadable(_)) => false,
        (Content::Skipped, _) | (_, Content::Skipped) => is_untouched,
        (Content::Unreadable(_), Content::Unreadable(_)) => is_untouched,
        (before, after) => before == after && (!is_partial(after) || is_untouched),
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
