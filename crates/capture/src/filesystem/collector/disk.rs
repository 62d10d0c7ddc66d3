//! What a source is once it is open.

use super::super::config::{FsConfig, FsError, OverlayXattrs, Source};
use super::super::disk::{Blocks, open_cow};
use super::super::image::Image;
use super::super::overlay::Overlay;
use sandtrace_event::{Count, DiskIdentity};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug)]
pub(super) enum Disk {
    Overlay(Overlay),
    Directory(Overlay),
    Image(Image),
}

impl Disk {
    pub(super) fn open(source: Source, config: &FsConfig) -> Result<(Self, DiskIdentity), FsError> {
        let named = |path: PathBuf, role, kind| {
            let identity = identity(&path, kind);
            identity.map_err(|source| FsError::Layer { role, path, source })
        };
        Ok(match source {
            Source::Overlay { upper, lowers } => {
                let expected = config.expected.as_ref();
                let (data, xattrs) = (&config.data_layers, config.overlay_xattrs);
                let overlay = Overlay::open(&upper, &lowers, data, xattrs, expected)?;
                (Self::Overlay(overlay), named(upper, "upper", "overlay")?)
            }
            Source::Directory { path } => {
                let none: [&Path; 0] = [];
                let directory = Overlay::open(&path, &none, &none, OverlayXattrs::Ignored, None)?;
                (
                    Self::Directory(directory),
                    named(path, "root", "directory")?,
                )
            }
            Source::E2bCow { cow, template } => {
                let image = Image::of(open_cow(&cow, &template)?);
                let identity = identity(&cow, "ext4");
                let identity = identity.map_err(|source| FsError::Image { path: cow, source })?;
                (Self::Image(image), identity)
            }
            Source::Image { path, format } => {
                let image = Image::open(&path, format, config.expected.as_ref())?;
                let identity =
                    identity(&path, "ext4").map_err(|source| FsError::Image { path, source })?;
                (Self::Image(image), identity)
            }
        })
    }

    /// Takes another image for the state of the last scan.
    pub(super) fn compare_with(&mut self, base: Arc<dyn Blocks>) {
        if let Self::Image(image) = self {
            image.compare_with(base);
        }
    }
}

/// Names a disk by what cannot be renamed: its device and inode, or the device
/// that holds it.
fn identity(path: &Path, kind: &str) -> std::io::Result<DiskIdentity> {
    let metadata = path.metadata()?;
    let device = match metadata.file_type().is_block_device() {
        true => metadata.rdev(),
        false => metadata.dev(),
    };
    Ok(DiskIdentity {
        device: format!(
            "{}:{}",
            rustix::fs::major(device),
            rustix::fs::minor(device)
        ),
        inode: Count(metadata.ino()),
        path: path.display().to_string(),
        kind: kind.to_owned(),
    })
}
