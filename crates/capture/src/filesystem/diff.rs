//! What changed between two scans.

mod rename;

use super::bounds::Problems;
use super::content::Content;
use super::layers::{Failed, Located};
use super::tree::{Entry, PathBytes, Tree, shown};
use sandtrace_event::{FileKind, FileOp, HashScope};
use std::cmp::Ordering;

/// What a path is where neither index holds it, and content that was left unread.
pub(crate) trait Base {
    /// What `path` is as far as no index says otherwise.
    fn lookup(&mut self, path: &[u8]) -> Result<Option<Entry>, Failed>;
    /// Reads content that [`Content::Lower`] only points at.
    fn content(&mut self, at: &Located) -> Content;
}

/// The base of an index that holds every path.
pub(crate) struct Nothing;

impl Base for Nothing {
    fn lookup(&mut self, _path: &[u8]) -> Result<Option<Entry>, Failed> {
        Ok(None)
    }

    fn content(&mut self, _at: &Located) -> Content {
        Content::Unreadable("there is no lower layer".into())
    }
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

/// The changes from `before` to `after`, in the order of paths, every one with
/// its content read. Paths that `after` could not look at are taken over from
/// `before`, up to `max_paths` in all; those that `before` could not look at are no change.
pub(crate) fn diff(
    before: &Tree,
    after: &mut Tree,
    max_paths: usize,
    base: &mut dyn Base,
    problems: &mut Problems,
) -> Vec<Change> {
    take_over(before, after, max_paths, problems);
    let mut differ = Differ {
        base,
        problems,
        changes: Vec::new(),
    };
    for (path, was, is) in union(before, after) {
        let is_unknown = was.is_none() && before.skips(path) || is.is_none() && after.skips(path);
        if !is_unknown {
            differ.compare(path, was, is);
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

fn take_over(before: &Tree, after: &mut Tree, max_paths: usize, problems: &mut Problems) {
    if after.skipped.is_empty() {
        return;
    }
    let unseen = before
        .nodes
        .iter()
        .filter(|(path, _)| !after.nodes.contains_key(*path) && after.skips(path));
    let unseen: Vec<_> = unseen
        .map(|(path, node)| (path.clone(), node.clone()))
        .collect();
    for (path, node) in unseen {
        if after.has_room(&path, max_paths) {
            after.insert(path, node);
        } else {
            problems.bounded(|| format!("{}: too many paths", shown(&path)));
        }
    }
}

type Node<'a> = Option<&'a Option<Entry>>;

/// Every path of either index, in order, with what each says of it.
fn union<'a>(
    before: &'a Tree,
    after: &'a Tree,
) -> impl Iterator<Item = (&'a PathBytes, Node<'a>, Node<'a>)> {
    let mut before = before.nodes.iter().peekable();
    let mut after = after.nodes.iter().peekable();
    std::iter::from_fn(move || {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((was, _)), Some((is, _))) => was.cmp(is),
        };
        let was = if order.is_le() { before.next() } else { None };
        let is = if order.is_ge() { after.next() } else { None };
        let path = was.or(is)?.0;
        Some((path, was.map(|(_, node)| node), is.map(|(_, node)| node)))
    })
}

struct Differ<'a> {
    base: &'a mut dyn Base,
    problems: &'a mut Problems,
    changes: Vec<Change>,
}

impl Differ<'_> {
    fn compare(&mut self, path: &PathBytes, was: Node<'_>, is: Node<'_>) {
        let mut side = |node: Node<'_>| match node {
            Some(node) => Ok(node.clone()),
            None => self.base.lookup(path),
        };
        let (before, after) = match (side(was), side(is)) {
            (Ok(before), Ok(after)) => (before, after),
            (Err(reason), _) | (_, Err(reason)) => {
                self.problems
                    .unreadable(|| format!("{}: {reason}", shown(path)));
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
            path: path.clone(),
            before,
            after,
            from: None,
        });
    }

    fn compare_entries(&mut self, before: &Entry, after: &Entry) -> Option<FileOp> {
        if !same_content(before, after, self.base) {
            Some(FileOp::Modified)
        } else if before.attributes == after.attributes {
            None
        } else {
            Some(FileOp::Metadata)
        }
    }
}

/// Whether two entries hold the same, as far as can be told: where content was
/// not read for lack of budget, its size and time of modification decide.
fn same_content(before: &Entry, after: &Entry, base: &mut dyn Base) -> bool {
    if (before.kind, before.size) != (after.kind, after.size) {
        return false;
    }
    if before.content == after.content && !is_partial(&before.content) {
        return true;
    }
    let same_time = before.modified == after.modified;
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
    if let Content::Lower(at) = &entry.content {
        entry.content = base.content(at);
    }
}

#[cfg(test)]
mod tests;
