//! qcow2 images (QEMU, docs/interop/qcow2.txt), versions 2 and 3.
//!
//! The image file belongs to the host: the guest chooses what is in it, not
//! how it is laid out. All the same every table is bounded, and what is not
//! read (encryption, external data, subclusters, zstd) is refused by name.

use super::super::config::{FsError, ImageFormat};
use super::{Blocks, Place, Raw, Stamp};
use flate2::{Decompress, FlushDecompress};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// A qcow2 image and the images below it.
#[derive(Debug)]
pub(crate) struct Qcow2 {
    file: Arc<dyn Blocks>,
    cluster_bits: u32,
    size: u64,
    /// Offsets of the tables of clusters.
    l1: Vec<u64>,
    backing: Option<Arc<dyn Blocks>>,
    cache: Mutex<Cache>,
}

/// Tables of clusters, and the last cluster that was decompressed.
#[derive(Debug, Default)]
struct Cache {
    tables: VecDeque<(u64, Arc<[u64]>)>,
    cluster: Option<(u64, Arc<[u8]>)>,
}

/// What is behind a cluster of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cluster {
    /// As the image below has it.
    Absent,
    Zeros,
    At(u64),
    Compressed(u64),
}

const MAGIC: u32 = u32::from_be_bytes(*b"QFI\xfb");
/// As QEMU bounds it: 32 MiB.
const MAX_L1: u64 = 4 << 20;
/// Images below images.
const MAX_DEPTH: u32 = 16;
const MAX_EXTENSIONS: usize = 32;
const CACHED_TABLES: usize = 32;
/// Bits 9 to 55 of an entry.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const ALL_ZEROS: u64 = 1;

/// Incompatible features that need nothing of a reader: dirty (counts of
/// references may be stale), corrupt (said by QEMU, which refuses to write),
/// the type of compression (which is looked at by itself).
const READABLE: u64 = 0x1 | 0x2 | 0x8;
const REFUSED: [(u64, &str); 2] = [(0x4, "external data file"), (0x10, "extended L2 entries")];

impl Qcow2 {
    /// `path`: where the image is, for the image below it is named relative
    /// to that. `depth`: how many images are above it.
    pub(crate) fn open(file: Arc<dyn Blocks>, path: &Path, depth: u32) -> io::Result<Self> {
        let header = Header::read(&*file)?;
        let backing = header.backing.as_ref().map(|backing| {
            if depth >= MAX_DEPTH {
                return Err(refused("more than 16 images below each other"));
            }
            open_backing(path, backing, depth + 1)
        });
        Self::with_backing(file, &header, backing.transpose()?)
    }

    /// The image without those below it: what these hold reads as zeros.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn alone(file: Arc<dyn Blocks>) -> io::Result<Self> {
        let header = Header::read(&*file)?;
        Self::with_backing(file, &header, None)
    }

    fn with_backing(
        file: Arc<dyn Blocks>,
        header: &Header,
        backing: Option<Arc<dyn Blocks>>,
    ) -> io::Result<Self> {
        let mut bytes = vec![0; usize::try_from(header.l1_entries * 8).unwrap_or(0)];
        file.read_exact_at(&mut bytes, header.l1_offset)?;
        Ok(Self {
            l1: bytes.chunks_exact(8).map(be64).collect(),
            file,
            cluster_bits: header.cluster_bits,
            size: header.size,
            backing,
            cache: Mutex::default(),
        })
    }

    /// Another state of the same image.
    fn over(&self, file: Arc<dyn Blocks>) -> io::Result<Self> {
        let header = Header::read(&*file)?;
        Self::with_backing(file, &header, self.backing.clone())
    }

    fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// The table that an offset on the disk is in, and its place in there.
    fn table(&self, offset: u64) -> io::Result<(Option<Arc<[u64]>>, usize)> {
        let entry_bits = self.cluster_bits - 3;
        let cluster = offset >> self.cluster_bits;
        let index = usize::try_from(cluster & ((1 << entry_bits) - 1)).unwrap_or(usize::MAX);
        let table = usize::try_from(cluster >> entry_bits).unwrap_or(usize::MAX);
        let at = self.l1.get(table).map_or(0, |entry| entry & OFFSET);
        if at == 0 {
            return Ok((None, index));
        }
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, table)) = cache.tables.iter().find(|(known, _)| *known == at) {
            return Ok((Some(Arc::clone(table)), index));
        }
        let mut bytes = vec![0; usize::try_from(self.cluster_size()).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, at)?;
        let table: Arc<[u64]> = bytes.chunks_exact(8).map(be64).collect();
        cache.tables.truncate(CACHED_TABLES - 1);
        cache.tables.push_front((at, Arc::clone(&table)));
        Ok((Some(table), index))
    }

    fn cluster(entry: u64) -> Cluster {
        if entry & COMPRESSED != 0 {
            Cluster::Compressed(entry)
        } else if entry & ALL_ZEROS != 0 {
            Cluster::Zeros
        } else if entry & OFFSET == 0 {
            Cluster::Absent
        } else {
            Cluster::At(entry & OFFSET)
        }
    }

    fn cluster_at(&self, offset: u64) -> io::Result<Cluster> {
        let (table, index) = self.table(offset)?;
        let entry = table.and_then(|table| table.get(index).copied());
        Ok(Self::cluster(entry.unwrap_or(0)))
    }

    fn read_part(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let skip = offset % self.cluster_size();
        match self.cluster_at(offset)? {
            Cluster::Zeros => buffer.fill(0),
            Cluster::At(at) => self.file.read_exact_at(buffer, at.saturating_add(skip))?,
            Cluster::Compressed(entry) => {
                let cluster = self.decompressed(entry)?;
                let skip = usize::try_from(skip).unwrap_or(usize::MAX);
                let part = cluster
                    .get(skip..)
                    .and_then(|rest| rest.get(..buffer.len()));
                buffer.copy_from_slice(part.ok_or_else(|| refused("a cluster that is short"))?);
            }
            Cluster::Absent => self.read_below(buffer, offset)?,
        }
        Ok(())
    }

    /// The image below may be shorter; beyond its end there are zeros.
    fn read_below(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let size = self.backing.as_ref().map_or(0, |below| below.size());
        let len = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (held, beyond) = buffer.split_at_mut(len.min(buffer.len()));
        beyond.fill(0);
        match &self.backing {
            Some(below) if !held.is_empty() => below.read_exact_at(held, offset),
            _ => Ok(()),
        }
    }

    fn decompressed(&self, entry: u64) -> io::Result<Arc<[u8]>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, cluster)) = &cache.cluster
            && *known == entry
        {
            return Ok(Arc::clone(cluster));
        }
        let offset_bits = 62 - (self.cluster_bits - 8);
        let at = entry & ((1 << offset_bits) - 1);
        let sectors = (entry & (COMPRESSED - 1)) >> offset_bits;
        let len = ((sectors + 1) * 512 - at % 512).min(self.file.size().saturating_sub(at));
        let mut packed = vec![0; usize::try_from(len).unwrap_or(0)];
        self.file.read_exact_at(&mut packed, at)?;
        let mut cluster = vec![0; usize::try_from(self.cluster_size()).unwrap_or(0)];
        let mut inflate = Decompress::new(false);
        // What follows the stream in its last sector is not its own.
        let inflated = inflate.decompress(&packed, &mut cluster, FlushDecompress::Finish);
        if inflated.is_err() || inflate.total_out() != self.cluster_size() {
            return Err(refused("a compressed cluster that does not inflate"));
        }
        let cluster: Arc<[u8]> = cluster.into();
        cache.cluster = Some((entry, Arc::clone(&cluster)));
        Ok(cluster)
    }

    fn place_below(&self, offset: u64, most: u64) -> io::Result<(Place, u64)> {
        match &self.backing {
            Some(below) if offset < below.size() => {
                let (place, len) = below.place(offset)?;
                Ok((place, len.min(most)))
            }
            _ => Ok((Place::Zeros, most)),
        }
    }
}

impl Blocks for Qcow2 {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the disk ends before that",
            ));
        }
        let mut at = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let left = self.cluster_size() - at % self.cluster_size();
            let len = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
            let (part, after) = rest.split_at_mut(len);
            self.read_part(part, at)?;
            at += len as u64;
            rest = after;
        }
        Ok(())
    }

    fn place(&self, offset: u64) -> io::Result<(Place, u64)> {
        let left = self.size.saturating_sub(offset);
        if left == 0 {
            return Ok((Place::Zeros, 0));
        }
        let size = self.cluster_size();
        let (table, index) = self.table(offset)?;
        let Some(table) = table else {
            // A whole table is absent.
            let span = size << (self.cluster_bits - 3);
            return self.place_below(offset, left.min(span - offset % span));
        };
        let first = Self::cluster(table.get(index).copied().unwrap_or(0));
        let in_cluster = left.min(size - offset % size);
        match first {
            Cluster::At(at) => {
                let (place, len) = self.file.place(at.saturating_add(offset % size))?;
                Ok((place, len.clamp(1, in_cluster)))
            }
            Cluster::Compressed(_) => Ok((Place::Unknown, in_cluster)),
            Cluster::Absent | Cluster::Zeros => {
                let rest = table.get(index..).unwrap_or_default().iter();
                let same = rest.take_while(|entry| Self::cluster(**entry) == first);
                let span = (same.count() as u64 * size).saturating_sub(offset % size);
                let span = span.max(in_cluster).min(left);
                match first {
                    Cluster::Zeros => Ok((Place::Zeros, span)),
                    _ => self.place_below(offset, span),
                }
            }
        }
    }

    fn stamp(&self) -> Option<Stamp> {
        let disks = std::iter::once(&self.file).chain(&self.backing);
        Stamp::of_all(disks.map(|disk| &**disk))
    }

    fn drop_cached(&self) {
        self.file.drop_cached();
        if let Some(backing) = &self.backing {
            backing.drop_cached();
        }
    }

    fn below(&self) -> Option<&dyn Blocks> {
        self.backing.as_deref()
    }

    fn copy(&self) -> Option<Arc<dyn Blocks>> {
        let copy = self.over(self.file.copy()?).ok()?;
        Some(Arc::new(copy))
    }

    fn again(&self) -> io::Result<Arc<dyn Blocks>> {
        Ok(Arc::new(self.over(self.file.again()?)?))
    }
}

/// What the header says, checked.
#[derive(Debug)]
struct Header {
    cluster_bits: u32,
    size: u64,
    l1_entries: u64,
    l1_offset: u64,
    backing: Option<Backing>,
}

/// The image below, as the header names it.
#[derive(Debug)]
struct Backing {
    name: Vec<u8>,
    format: Option<Vec<u8>>,
}

impl Header {
    fn read(file: &dyn Blocks) -> io::Result<Self> {
        let mut bytes = [0; 112];
        let len = usize::try_from(file.size()).map_or(bytes.len(), |size| size.min(bytes.len()));
        let (held, _) = bytes.split_at_mut(len);
        file.read_exact_at(held, 0)?;
        let be32 = |at: usize| be32(bytes.get(at..).unwrap_or_default());
        let be64 = |at: usize| be64(bytes.get(at..).unwrap_or_default());
        let version = be32(4);
        if be32(0) != MAGIC {
            return Err(refused("this is no qcow2 image"));
        }
        if version != 2 && version != 3 {
            return Err(refused(&format!("qcow2 version {version} is not read")));
        }
        let features = if version == 3 { be64(72) } else { 0 };
        check_features(features, be32(32), bytes.get(104).copied().unwrap_or(0))?;
        let header = Self {
            cluster_bits: be32(20),
            size: be64(24),
            l1_entries: be32(36).into(),
            l1_offset: be64(40),
            backing: None,
        };
        header.check()?;
        let length = if version == 3 { be32(100) } else { 72 };
        let backing = header.backing(file, (be64(8), be32(16)), length)?;
        Ok(Self { backing, ..header })
    }

    fn check(&self) -> io::Result<()> {
        if !(9..=21).contains(&self.cluster_bits) {
            return Err(refused("the size of clusters is out of bounds"));
        }
        let per_table = 1u64 << (2 * self.cluster_bits - 3);
        if self.l1_entries > MAX_L1 || self.l1_entries < self.size.div_ceil(per_table) {
            return Err(refused("the table of tables does not fit the disk"));
        }
        Ok(())
    }

    fn backing(
        &self,
        file: &dyn Blocks,
        (offset, len): (u64, u32),
        header_length: u32,
    ) -> io::Result<Option<Backing>> {
        if offset == 0 || len == 0 {
            return Ok(None);
        }
        if len > 1023 {
            return Err(refused("the name of the image below is too long"));
        }
        let mut name = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_exact_at(&mut name, offset)?;
        let format = format_below(file, header_length.into(), offset)?;
        Ok(Some(Backing { name, format }))
    }
}

fn check_features(features: u64, encryption: u32, compression: u8) -> io::Result<()> {
    let unknown = features & !READABLE;
    if let Some((_, name)) = REFUSED.iter().find(|(bit, _)| unknown & bit != 0) {
        return Err(refused(&format!("qcow2 feature not supported: {name}")));
    }
    if unknown != 0 {
        return Err(refused(&format!(
            "qcow2 feature not supported: {unknown:#x}"
        )));
    }
    if encryption != 0 {
        return Err(refused("qcow2 feature not supported: encryption"));
    }
    if features & 0x8 != 0 && compression != 0 {
        return Err(refused("qcow2 feature not supported: zstd compression"));
    }
    Ok(())
}

/// The extension that names the format of the image below.
fn format_below(file: &dyn Blocks, mut at: u64, end: u64) -> io::Result<Option<Vec<u8>>> {
    const FORMAT: u32 = 0xe279_2aca;
    for _ in 0..MAX_EXTENSIONS {
        if at.saturating_add(8) > end {
            break;
        }
        let mut head = [0; 8];
        file.read_exact_at(&mut head, at)?;
        let (kind, len) = (
            be32(&head),
            u64::from(be32(head.get(4..).unwrap_or_default())),
        );
        if kind == 0 {
            break;
        }
        if kind == FORMAT && len <= 64 {
            let mut format = vec![0; usize::try_from(len).unwrap_or(0)];
            file.read_exact_at(&mut format, at + 8)?;
            return Ok(Some(format));
        }
        at = at.saturating_add(8).saturating_add(len.next_multiple_of(8));
    }
    Ok(None)
}

/// Opens the image below. Where the header does not say what it is, its name
/// does: its bytes were a guest's once.
fn open_backing(above: &Path, backing: &Backing, depth: u32) -> io::Result<Arc<dyn Blocks>> {
    let name = Path::new(OsStr::from_bytes(&backing.name));
    let beside = above.canonicalize()?;
    let path = beside.parent().unwrap_or(Path::new("/")).join(name);
    let format = match backing.format.as_deref() {
        Some(b"raw") => ImageFormat::Raw,
        Some(b"qcow2") => ImageFormat::Qcow2,
        Some(other) => {
            let other = String::from_utf8_lossy(other);
            return Err(refused(&format!("the image below is in format {other:?}")));
        }
        None => ImageFormat::by_name(&path),
    };
    if format == ImageFormat::E2b {
        return Err(refused("the image below is a header of E2B's"));
    }
    let failed = |error: io::Error| {
        let message = format!("the image below, {}: {error}", path.display());
        io::Error::new(error.kind(), message)
    };
    let raw = Raw::open(&path).map_err(|error| match error {
        FsError::Image { source, .. } | FsError::Layer { source, .. } => failed(source),
        other => failed(io::Error::other(other.to_string())),
    })?;
    match format {
        ImageFormat::Raw | ImageFormat::E2b => Ok(Arc::new(raw)),
        ImageFormat::Qcow2 => Ok(Arc::new(
            Qcow2::open(Arc::new(raw), &path, depth).map_err(failed)?,
        )),
    }
}

fn refused(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// The number at the start of `bytes`; 0 where they are too few.
fn be64(bytes: &[u8]) -> u64 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn be32(bytes: &[u8]) -> u32 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u32::from_be_bytes(*bytes))
}
