//! From a change to the records of the trail.

use super::bounds::{Problems, Tally};
use super::content::Content;
use super::diff::Change;
use super::secrets::Findings;
use super::tree::{Attributes, Entry, Xattr, Xattrs};
use sandtrace_event::{
    Bytes64, CaptureGap, ChangeSource, Count, EvidenceTier, FileChange, FileKind, FileOp, GapCause,
    GapUnit, Layer, Observation, Payload, QuiesceMethod, Timestamp,
};
use std::collections::BTreeSet;

/// What all records of one scan share.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// Path of the image, for block sources.
    pub(super) disk: Option<String>,
    pub(super) source: ChangeSource,
    /// The disk, as gap records name it.
    pub(super) name: String,
    pub(super) quiesce: QuiesceMethod,
    /// When the last scan was.
    pub(super) since: Timestamp,
    pub(super) at: Timestamp,
}

impl Frame {
    pub(super) fn observe(&self, payload: impl Into<Payload>) -> Observation {
        Observation {
            at: self.at,
            payload: payload.into(),
            tier: EvidenceTier::Hypervisor,
        }
    }

    /// The record of one change.
    pub(super) fn change(&self, change: &Change, secrets: &Findings) -> FileChange {
        let (path, path_b64) = Bytes64::readable_and_exact(&change.path);
        let (renamed_from, renamed_from_b64) = exact(change.from.as_deref());
        let after = change.after.as_ref();
        let attributes = after.and_then(|entry| entry.attributes);
        let before = change.before.as_ref();
        // What it was, where there is a before and an after that differ.
        let was = before.and_then(|entry| entry.attributes).zip(attributes);
        let former = |of: fn(&Attributes) -> u32| {
            let (was, is) = was.as_ref()?;
            Some(of(was)).filter(|was| *was != of(is))
        };
        let content = after.map(|entry| &entry.content);
        let is_new = matches!(change.op, FileOp::Created | FileOp::Modified);
        let content = content.filter(|_| is_new || change.op == FileOp::Renamed);
        let target = match content {
            // A renamed link's target is that of the old path; a third long
            // text might not fit into one record.
            Some(Content::Link(target)) if is_new => Some(&**target),
            _ => None,
        };
        let (symlink_target, symlink_target_b64) = exact(target);
        let (sha256, sha256_scope) = match content {
            Some(Content::Hashed { digest, scope, .. }) => (Some(*digest), Some(*scope)),
            _ => (None, None),
        };
        FileChange {
            disk: self.disk.clone(),
            gid: attributes.map(|attributes| attributes.gid),
            gid_before: former(|attributes| attributes.gid),
            kind: after
                .or(change.before.as_ref())
                .map_or(FileKind::Unknown, |entry| entry.kind),
            kind_before: before.zip(after).and_then(|(was, is)| {
                let was = was.kind;
                Some(was).filter(|was| *was != is.kind)
            }),
            mode: attributes.map(|attributes| attributes.mode),
            mode_before: former(|attributes| attributes.mode),
            op: change.op,
            path,
            path_b64,
            quiesce_method: self.quiesce,
            quiesced: self.quiesce == QuiesceMethod::Detached,
            renamed_from,
            renamed_from_b64,
            secrets: sha256.map_or_else(Vec::new, |digest| secrets.of(&digest)),
            sha256,
            sha256_scope,
            size_after: after.and_then(size),
            size_before: change.before.as_ref().and_then(size),
            source: self.source,
            symlink_target,
            symlink_target_b64,
            uid: attributes.map(|attributes| attributes.uid),
            uid_before: former(|attributes| attributes.uid),
            unreadable: content.and_then(unreadable),
            xattrs_changed: xattrs_changed(change),
        }
    }

    /// At most one gap for each kind of thing that went unseen.
    pub(super) fn gaps(&self, problems: &Problems) -> Vec<CaptureGap> {
        let gap = |cause: GapCause, tally: &Tally| {
            (tally.count > 0).then(|| CaptureGap {
                cause,
                count: Count(tally.count),
                detail: tally.first.clone(),
                first_at: self.since.wall,
                last_at: self.at.wall,
                layer: Layer::Filesystem,
                source: self.name.clone(),
                unit: GapUnit::Paths,
            })
        };
        [
            gap(GapCause::DiskUnreadable, &problems.unreadable),
            gap(GapCause::ScanBound, &problems.bounded),
            gap(GapCause::ScanBound, &problems.unreported),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Names of attributes that are not what they were; no more than fit well
/// into a record.
fn xattrs_changed(change: &Change) -> Vec<String> {
    const MOST_BYTES: usize = 2048;
    if change.op == FileOp::Deleted {
        return Vec::new();
    }
    let nothing = Xattrs::default();
    let of = |entry: &'_ Option<Entry>| entry.as_ref().map(|entry| entry.xattrs.clone());
    let was = of(&change.before).unwrap_or_else(|| nothing.clone());
    let is = of(&change.after).unwrap_or(nothing);
    if was.is_same(&is) {
        return Vec::new();
    }
    let (Xattrs::Listed(was), Xattrs::Listed(is)) = (was, is) else {
        return vec!["too many to be told apart".to_owned()];
    };
    let [was, is] = [was, is].map(BTreeSet::from_iter);
    let names: BTreeSet<_> = was
        .symmetric_difference(&is)
        .map(|xattr: &Xattr| &xattr.name)
        .collect();
    let mut room = MOST_BYTES;
    let count = names.len();
    let mut shown: Vec<String> = Vec::new();
    for name in names {
        match room.checked_sub(name.len() + 8) {
            Some(left) => room = left,
            None => break,
        }
        shown.push(String::from_utf8_lossy(name).into_owned());
    }
    if shown.len() < count {
        shown.push(format!("and {} more", count - shown.len()));
    }
    shown
}

fn exact(bytes: Option<&[u8]>) -> (Option<String>, Option<Bytes64>) {
    match bytes.map(Bytes64::readable_and_exact) {
        Some((text, exact)) => (Some(text), exact),
        None => (None, None),
    }
}

fn size(entry: &Entry) -> Option<Count> {
    (entry.kind == FileKind::File && entry.attributes.is_some()).then_some(Count(entry.size))
}

fn unreadable(content: &Content) -> Option<String> {
    match content {
        Content::Unreadable(reason) => Some(reason.to_string()),
        Content::Sealed { digest, .. } => Some(format!(
            "ext4 feature not supported: encrypt; its blocks on the disk have the SHA-256 {digest}"
        )),
        Content::Skipped => Some("this scan's bound on hashing was reached".to_owned()),
        _ => None,
    }
}
