//! What to read, and how much of it.

use super::disk::allocated;
use sandtrace_event::DiskIdentity;
use std::io;
use std::path::{Path, PathBuf};

/// A disk of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An OverlayFS.
    Overlay {
        /// The writable layer.
        upper: PathBuf,
        /// The layers below it, topmost first, as `lowerdir=` lists them.
        lowers: Vec<PathBuf>,
    },
    /// An image or block device that holds ext2, ext3 or ext4, as a whole or
    /// in partitions.
    Image {
        /// The image.
        path: PathBuf,
        /// How the disk's bytes are kept in it.
        format: ImageFormat,
    },
    /// The disk of a sandbox of E2B: the blocks that it wrote, above its template.
    E2bCow {
        /// `rootfs-<id>-<random>.cow`.
        cow: PathBuf,
        /// An image, or the header of a snapshot, by its name.
        template: PathBuf,
    },
    /// A directory tree as it is, of one file system.
    Directory {
        /// Its root.
        path: PathBuf,
    },
}

impl Source {
    /// What somebody names by its path alone: a directory as it is, anything
    /// else as an image of the format that its name says.
    #[must_use]
    pub fn by_path(path: &Path) -> Self {
        let (format, path) = (ImageFormat::by_name(path), path.to_owned());
        if path.is_dir() {
            Self::Directory { path }
        } else {
            Self::Image { path, format }
        }
    }

    /// Bytes that its baseline may have to read, at a glance; of directories, of
    /// which a glance tells nothing, 0.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        match self {
            Self::Image { path, .. } | Self::E2bCow { cow: path, .. } => allocated(path),
            Self::Overlay { .. } | Self::Directory { .. } => 0,
        }
    }
}

/// How a disk's bytes are kept in a file.
///
/// The file's own bytes never decide it: a guest that writes the header of
/// another format to its raw disk would make the host open what that names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    /// Byte for byte; also a block device.
    Raw,
    /// QEMU's format, version 2 or 3.
    Qcow2,
    /// The header of an E2B snapshot, whose bytes are in the files of builds
    /// beside it.
    E2b,
}

impl ImageFormat {
    /// qcow2 where the file's name ends in `.qcow2`, E2B's header where it
    /// ends in `.ext4.header`.
    #[must_use]
    pub fn by_name(path: &Path) -> Self {
        let is_qcow2 = |name: &std::ffi::OsStr| name.eq_ignore_ascii_case("qcow2");
        if path.extension().is_some_and(is_qcow2) {
            Self::Qcow2
        } else if name(path).ends_with(".ext4.header") {
            Self::E2b
        } else {
            Self::Raw
        }
    }
}

fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// Which extended attributes OverlayFS takes for its own.
///
/// The mount option `userxattr` decides. The other prefix must be ignored:
/// the sandbox can write it, and a forged `user.overlay.metacopy` would hide
/// a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayXattrs {
    /// `trusted.overlay.*`; reading them takes CAP_SYS_ADMIN. What has a mark that
    /// the overlay does not follow, the sandbox cannot look up.
    Trusted {
        /// Whether redirects are followed (not under `redirect_dir=nofollow`).
        redirects: bool,
        /// Whether a file's content may be in a lower layer (`metacopy=on`).
        metacopy: bool,
    },
    /// `user.overlay.*` (mount option `userxattr`). OverlayFS then follows neither.
    User,
    /// None: a plain directory, in which nothing is a whiteout.
    Ignored,
}

impl OverlayXattrs {
    /// `trusted.overlay.*`, all of them followed.
    pub const FOLLOWED: Self = Self::Trusted {
        redirects: true,
        metacopy: true,
    };
}

impl Default for OverlayXattrs {
    fn default() -> Self {
        Self::FOLLOWED
    }
}

/// What the first scan is compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Baseline {
    /// The state at [`attach`](super::FsCollector::attach).
    #[default]
    AtAttach,
    /// The lower layers alone, so that the first scan reports everything the
    /// upper dir holds. For an image the same as `AtAttach`.
    Lowers,
    /// The state of something else, which nobody writes to meanwhile.
    Of(Source),
}

/// Bounds of a scan, and how an overlay is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FsConfig {
    /// What the first scan is compared with.
    pub baseline: Baseline,
    /// Data-only layers of an overlay, topmost first (`lowerdir=…::DATA`).
    pub data_layers: Vec<PathBuf>,
    /// Device and inode that an image or an upper dir must have, where somebody
    /// saw it before: a path such as `/proc/PID/fd/N` may name another file by now.
    pub expected: Option<DiskIdentity>,
    /// Bytes of one file that are hashed; of a larger file the first and the
    /// last half of the bound.
    pub hash_bound: u64,
    /// Bytes that one scan may hash in all.
    pub hash_budget: u64,
    /// Paths in the index, and records of one scan.
    pub max_paths: usize,
    /// Attribute prefix of an overlay.
    pub overlay_xattrs: OverlayXattrs,
    /// Whether to say what of new content looks like secrets: which rules
    /// match and how often, never what.
    pub scan_secrets: bool,
}

impl Default for FsConfig {
    fn default() -> Self {
        Self {
            baseline: Baseline::AtAttach,
            data_layers: Vec::new(),
            expected: None,
            hash_bound: 64 << 20,
            hash_budget: 64 << 30,
            max_paths: 4_000_000,
            overlay_xattrs: OverlayXattrs::default(),
            scan_secrets: false,
        }
    }
}

/// A disk that cannot be watched at all.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// A layer of an overlay.
    #[error("cannot open the {role} dir {}", path.display())]
    Layer {
        /// `upper` or `lower`.
        role: &'static str,
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// An image.
    #[error("cannot open the disk {}", path.display())]
    Image {
        /// The image.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another file than the one that was seen before.
    #[error("{} is not the disk that was found: device {device} and inode {inode}", path.display())]
    Replaced {
        /// Where it was opened.
        path: PathBuf,
        /// `major:minor` of what was found.
        device: String,
        /// And its inode.
        inode: u64,
    },
    /// An image that is a directory, a socket, or the like.
    #[error("{} is neither a regular file nor a block device", path.display())]
    NotADisk {
        /// What was given.
        path: PathBuf,
    },
}
