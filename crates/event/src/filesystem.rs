//! Payload of `filesystem_change`.

use crate::{Bytes64, Count, Digest};
use serde::{Deserialize, Serialize};

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileOp {
    /// The path is new.
    Created,
    /// Its content changed.
    Modified,
    /// It is gone.
    Deleted,
    /// It was moved here from [`FileChange::renamed_from`].
    Renamed,
    /// Only mode, owner, times or extended attributes changed.
    Metadata,
}

/// What kind of file a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
    /// Could not be told.
    Unknown,
}

/// Where the change was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeSource {
    /// An OverlayFS upper dir.
    Overlay,
    /// A block device or disk image that nobody mounted.
    Block,
    /// A directory tree, compared offline.
    Directory,
}

/// How the reader knew (or did not) that nothing moved while it read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuiesceMethod {
    /// The sandbox was running: its page cache may hide what it has not flushed.
    Live,
    /// The sandbox was running and wrote while its disk was read, each time it
    /// was tried: the records of this scan may mix several moments, so that
    /// what was moved meanwhile may be told as deleted. The next scan compares
    /// with what this one saw.
    Moving,
    /// A snapshot of the running sandbox's disk was read: nothing moved, but
    /// the sandbox's page cache may hide what it had not flushed.
    Snapshot,
    /// The sandbox was paused before the disk was read and still after it: nothing
    /// moved, but its page cache may hide what it had not flushed.
    Paused,
    /// The sandbox had ended: nobody held the disk open.
    Detached,
}

/// How much of the content a digest covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashScope {
    /// All of it.
    Whole,
    /// The file is over the bound: its first and last part, see docs/events.md.
    HeadTail,
}

/// One path that changed since the baseline or the last scan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileChange {
    /// Which disk, for block sources: the path by which it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// Owning group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Owning group before, where it was another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid_before: Option<u32>,
    /// Kind of file after the change, or before it for a deletion.
    pub kind: FileKind,
    /// Kind of file before, where it was another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind_before: Option<FileKind>,
    /// Permission bits (octal 07777).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Permission bits before, where they were others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode_before: Option<u32>,
    /// What happened.
    pub op: FileOp,
    /// Absolute path as the sandbox sees it; lossy where it is not UTF-8.
    pub path: String,
    /// The exact path, where `path` is lossy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<Bytes64>,
    /// How the state was read.
    pub quiesce_method: QuiesceMethod,
    /// Whether the file system was at rest while it was read.
    pub quiesced: bool,
    /// Former path, for `renamed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_from: Option<String>,
    /// The exact former path, where `renamed_from` is lossy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_from_b64: Option<Bytes64>,
    /// What of the new content looks like secrets, where that was looked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretsFound>,
    /// Digest of the new content of a regular file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// What that digest covers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256_scope: Option<HashScope>,
    /// Size in bytes after the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_after: Option<Count>,
    /// Size in bytes before the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_before: Option<Count>,
    /// Overlay or block.
    pub source: ChangeSource,
    /// Target of a symbolic link; lossy where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symlink_target: Option<String>,
    /// The exact target, where `symlink_target` is lossy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symlink_target_b64: Option<Bytes64>,
    /// Owning user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Owning user before, where it was another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid_before: Option<u32>,
    /// Why the content could not be read, where it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    /// Names of extended attributes that were set, changed or removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs_changed: Vec<String>,
}

/// How often something in a file looks like a secret. The secret itself is
/// never kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretsFound {
    /// Times.
    pub count: Count,
    /// Which rule: see docs/events.md.
    pub rule: String,
}
