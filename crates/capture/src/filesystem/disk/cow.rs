//! A disk of a sandbox of E2B that is gone: the blocks that it wrote are in
//! `…/rootfs-<id>-<random>.cow`, a sparse file of the disk's size, above its
//! template (E2B's infrastructure, packages/orchestrator, block cache).
//!
//! Blocks of 4 KiB that were written are data, by SEEK_DATA. A hole is a block
//! of the template, or one that the guest zeroed or trimmed: nothing tells
//! these apart, so all holes are taken for the template's.

use super::super::config::FsError;
use super::{Blocks, Place, Raw, Stamp};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Size of its blocks: a file system that keeps larger pieces cannot tell
/// which of them were written.
const BLOCK: u64 = 4096;

/// What was written, above what was there before.
#[derive(Debug)]
pub(crate) struct Cow {
    written: Raw,
    template: Arc<dyn Blocks>,
}

/// Why a file is not read as one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum CowError {
    #[error("it has {own} bytes and the template {template}: it is of another disk")]
    Size { own: u64, template: u64 },
    #[error("its file system tells only pieces of {0} bytes apart, and it has blocks of {BLOCK}")]
    Pieces(u64),
    #[error("its file system does not tell what of it was written (SEEK_DATA)")]
    Untold,
}

impl Cow {
    pub(super) fn over(
        path: &Path,
        written: Raw,
        template: Arc<dyn Blocks>,
    ) -> Result<Self, FsError> {
        let check = || {
            if written.size() != template.size() {
                return Err(CowError::Size {
                    own: written.size(),
                    template: template.size(),
                });
            }
            let (piece, is_sparse) = written.pieces().ok_or(CowError::Untold)?;
            if piece > BLOCK {
                return Err(CowError::Pieces(piece));
            }
            // One that is sparse has a hole, where holes are told.
            let first = written.written(0).map_err(|_| CowError::Untold)?;
            if is_sparse && first == (true, written.size()) {
                return Err(CowError::Untold);
            }
            Ok(())
        };
        check().map_err(|why| FsError::Image {
            path: path.to_owned(),
            source: io::Error::other(why.to_string()),
        })?;
        Ok(Self { written, template })
    }
}

impl Blocks for Cow {
    fn size(&self) -> u64 {
        self.template.size()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let (mut rest, mut at) = (buffer, offset);
        while !rest.is_empty() {
            if at >= self.size() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (is_data, len) = self.written.written(at)?;
            let len = usize::try_from(len).unwrap_or(usize::MAX).max(1);
            let (piece, more) = rest.split_at_mut(len.min(rest.len()));
            if is_data {
                self.written.read_exact_at(piece, at)?;
            } else {
                self.template.read_exact_at(piece, at)?;
            }
            at += piece.len() as u64;
            rest = more;
        }
        Ok(())
    }

    fn place(&self, offset: u64) -> io::Result<(Place, u64)> {
        if offset >= self.size() {
            return Ok((Place::Zeros, 0));
        }
        let (is_data, len) = self.written.written(offset)?;
        if is_data {
            return Ok((self.written.in_file(offset), len));
        }
        let (place, below) = self.template.place(offset)?;
        Ok((place, below.clamp(1, len.max(1))))
    }

    fn stamp(&self) -> Option<Stamp> {
        Stamp::of_all([&self.written, &*self.template])
    }

    fn drop_cached(&self) {
        self.written.drop_cached();
        self.template.drop_cached();
    }

    fn below(&self) -> Option<&dyn Blocks> {
        Some(&*self.template)
    }

    fn again(&self) -> io::Result<Arc<dyn Blocks>> {
        Ok(Arc::new(Self {
            written: self.written.fresh()?,
            template: self.template.again()?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::config::ImageFormat;
    use super::super::{open, open_cow};
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    const BLOCKS: usize = 64;
    const LEN: usize = 4096;

    fn written(dir: &Path, blocks: &[usize]) -> std::path::PathBuf {
        let path = dir.join("rootfs-ibox-x1.cow");
        let file = File::create(&path).unwrap();
        file.set_len((BLOCKS * LEN) as u64).unwrap();
        for &block in blocks {
            let bytes = vec![0xc0 + u8::try_from(block).unwrap(); LEN];
            file.write_all_at(&bytes, (block * LEN) as u64).unwrap();
        }
        path
    }

    fn template(dir: &Path) -> (std::path::PathBuf, Vec<u8>) {
        let path = dir.join("rootfs.ext4");
        let block = |number: usize| vec![u8::try_from(number).unwrap(); LEN];
        let bytes: Vec<u8> = (0..BLOCKS).flat_map(block).collect();
        std::fs::write(&path, &bytes).unwrap();
        (path, bytes)
    }

    #[test]
    fn written_blocks_are_its_own_and_holes_are_the_templates() {
        let dir = tempfile::tempdir().unwrap();
        let (template, mut expected) = template(dir.path());
        let blocks = [0, 1, 7, 40, BLOCKS - 1];
        let cow = written(dir.path(), &blocks);
        let disk = open_cow(&cow, &template).unwrap();
        for block in blocks {
            expected[block * LEN..][..LEN].fill(0xc0 + u8::try_from(block).unwrap());
        }
        assert_eq!(disk.size(), expected.len() as u64);
        // Across the ends of pieces, from and to places amid blocks.
        for (at, len) in [(0, expected.len()), (4000, 9000), (7 * LEN - 1, LEN + 2)] {
            let mut read = vec![0xff; len];
            disk.read_exact_at(&mut read, at as u64).unwrap();
            assert!(read == expected[at..at + len], "{len} bytes from {at}");
        }
        assert!(disk.read_exact_at(&mut [0; 2], disk.size() - 1).is_err());
        let below = open(&template, ImageFormat::Raw, None).unwrap();
        for block in 0..BLOCKS {
            let at = (block * LEN) as u64;
            let same = disk
                .place(at)
                .unwrap()
                .0
                .is_same(below.place(at).unwrap().0);
            assert!(!(same && blocks.contains(&block)), "block {block}");
        }
    }

    #[test]
    fn one_of_another_disk_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (template, _) = template(dir.path());
        let cow = written(dir.path(), &[3]);
        File::options()
            .write(true)
            .open(&cow)
            .unwrap()
            .set_len(LEN as u64)
            .unwrap();
        let error = open_cow(&cow, &template).unwrap_err();
        let why = std::error::Error::source(&error).unwrap().to_string();
        assert!(why.contains("another disk"), "{why}");
    }
}
