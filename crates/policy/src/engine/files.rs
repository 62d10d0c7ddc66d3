//! Judging changes to files.

use super::reason::{Shown, grouped};
use super::{Engine, anomaly, deny, fallback, unless};
use crate::manifest::{Access, Action, Body, Fallback, Files, Rule};
use crate::path::is_normal;
use sandtrace_event::{
    Bytes64, CaptureGap, FileChange, FileKind, FileOp, GapCause, Layer, Verdict,
};
use std::sync::Arc;

const UNREADABLE: &str = "builtin:unreadable";

/// A path of a change: as it is shown, and the exact bytes.
struct Touched<'a> {
    shown: &'a str,
    bytes: &'a [u8],
}

impl<'a> Touched<'a> {
    fn new(shown: &'a str, exact: Option<&'a Bytes64>) -> Self {
        let bytes = exact.map_or(shown.as_bytes(), |exact| &exact.0);
        Self { shown, bytes }
    }
}

impl Engine {
    /// Every path that the change touches must be covered; of a rename these
    /// are both.
    pub(super) fn file(&mut self, change: &FileChange) -> Verdict {
        let policy = Arc::clone(&self.policy);
        let mut objections = Vec::new();
        let mut deciding: Option<&Rule> = None;
        for touched in touched(change) {
            if !is_normal(touched.bytes) {
                let path = Shown(touched.shown);
                return deny(
                    None,
                    format!("no rule can cover {path}: it is not a plain absolute path"),
                );
            }
            let own_metadata = change.op == FileOp::Metadata && change.kind == FileKind::Dir;
            let rule = policy
                .index
                .paths
                .first(touched.bytes, own_metadata, &mut self.hits)
                .and_then(|index| policy.manifest.rules.get(index));
            let Some((rule, files)) = rule.and_then(with_files) else {
                return self.uncovered(touched.shown);
            };
            if rule.action == Action::Deny {
                return deny(
                    Some(&rule.id),
                    format!("the rule denies {}", Shown(touched.shown)),
                );
            }
            check(change, rule, files, touched.shown, &mut objections);
            deciding = deciding.or(Some(rule));
        }
        if change.op == FileOp::Renamed && change.renamed_from.is_none() {
            objections.push("the former path is not known".to_owned());
        }
        if let Some(why) = &change.unreadable {
            objections.push(format!(
                "{} could not be read: {}",
                Shown(&change.path),
                Shown(why)
            ));
        }
        for found in &change.secrets {
            objections.push(format!(
                "{} holds what looks like a secret ({}, {} times)",
                Shown(&change.path),
                Shown(&found.rule),
                found.count.0
            ));
        }
        match deciding {
            Some(rule) => unless(&rule.id, &objections, || {
                format!("{} is covered", Shown(&change.path))
            }),
            None => self.uncovered(&change.path),
        }
    }

    /// What of a disk nobody could look at, no rule covers. Where the policy
    /// asks nothing of files there is nothing to say either.
    pub(super) fn unseen(&self, gap: &CaptureGap) -> Option<Verdict> {
        let is_unseen = gap.layer == Layer::Filesystem
            && matches!(gap.cause, GapCause::DiskUnreadable | GapCause::ScanBound);
        let asks_nothing = self.policy.index.paths.is_empty()
            && self.policy.manifest.defaults.filesystem == Fallback::Allow;
        (is_unseen && !asks_nothing).then(|| {
            let (what, why) = (Shown(&gap.source), Shown(&gap.detail));
            anomaly(UNREADABLE, format!("{what} could not be read: {why}"))
        })
    }

    fn uncovered(&self, path: &str) -> Verdict {
        let path = Shown(path);
        if self.policy.index.paths.is_empty() {
            let value = self.policy.manifest.defaults.filesystem;
            return fallback("filesystem", value, &format!("changes to files ({path})"));
        }
        deny(None, format!("no rule covers path {path}"))
    }
}

fn touched(change: &FileChange) -> impl Iterator<Item = Touched<'_>> {
    let from = change.renamed_from.as_deref();
    let from = from.map(|from| Touched::new(from, change.renamed_from_b64.as_ref()));
    std::iter::once(Touched::new(&change.path, change.path_b64.as_ref())).chain(from)
}

fn with_files(rule: &Rule) -> Option<(&Rule, &Files)> {
    match &rule.body {
        Body::Files(files) => Some((rule, files)),
        Body::Egress(_) | Body::Ingress(_) | Body::Dns(_) | Body::Syscalls(_) => None,
    }
}

fn check(
    change: &FileChange,
    rule: &Rule,
    files: &Files,
    path: &str,
    objections: &mut Vec<String>,
) {
    let (done, needed) = match change.op {
        FileOp::Created => ("created", Access::ReadWrite),
        FileOp::Modified => ("modified", Access::ReadWrite),
        FileOp::Metadata => ("changed in its metadata", Access::ReadWrite),
        FileOp::Deleted => ("deleted", Access::Full),
        FileOp::Renamed => ("renamed", Access::Full),
    };
    if !permits(files.access, needed) {
        let access = crate::manifest::word(files.access);
        objections.push(format!(
            "{} was {done}; {} is {access} there",
            Shown(path),
            rule.id
        ));
    }
    // Sizes of directories and links are the file system's own business.
    let has_content = matches!(change.kind, FileKind::File | FileKind::Unknown);
    let Some(limit) = files.max_file_bytes.filter(|_| has_content) else {
        return;
    };
    match change.size_after {
        Some(size) if size.0 > limit => {
            let [size, limit] = [size.0, limit].map(grouped);
            objections.push(format!("{size} B exceeds {limit} B for {}", Shown(path)));
        }
        None if change.op != FileOp::Deleted => {
            objections.push(format!("the size of {} is not known", Shown(path)));
        }
        _ => {}
    }
}

fn permits(access: Access, needed: Access) -> bool {
    match access {
        Access::Full => true,
        Access::ReadWrite => needed == Access::ReadWrite,
        Access::ReadOnly => false,
    }
}
