//! Disks of E2B's snapshots: `<build>/rootfs.ext4.header` says of each piece
//! of the disk in which build's `rootfs.ext4` it is kept (E2B's infrastructure,
//! packages/shared/pkg/storage/header, versions 1 to 3).
//!
//! A header is little-endian: version, block size, size and generation in
//! eight bytes each, the build's id and its base's in 16 bytes each; then one
//! mapping after the other: offset, length, the id of a build, and an offset
//! in that build's file. A piece of the build with the id of zeros is zeros.
//! Orchestrators write headers, no guest does; all the same nothing that one
//! says is believed before it is checked.

use super::super::config::FsError;
use super::{Blocks, Place, Raw, Stamp};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Sizes of the head and of one mapping, in bytes.
const HEAD: usize = 64;
const MAPPING: usize = 40;
/// More mappings are refused: a disk of 128 GiB in which every other block of
/// 64 KiB is from another build has as many.
const MAX_MAPPINGS: usize = 2 << 20;
/// Builds whose files are open at once.
const MAX_BUILDS: usize = 1024;
/// Versions that are known.
const VERSIONS: std::ops::RangeInclusive<u64> = 1..=3;

/// 16 bytes that name a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BuildId([u8; 16]);

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    size: u64,
    mappings: Vec<Mapping>,
}

/// One piece of a disk, in order and without gaps or overlaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapping {
    offset: u64,
    len: u64,
    build: BuildId,
    at: u64,
}

/// Why a header is not read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("the header has {0} bytes, which is no head of 64 and mappings of 40 bytes")]
    Length(usize),
    #[error("version {0} of E2B's headers is not known, only 1 to 3")]
    Version(u64),
    #[error("the size of blocks is {0}, no power of two from 512 to 16 MiB")]
    BlockSize(u64),
    #[error("the header has more than {MAX_MAPPINGS} mappings")]
    TooMany,
    #[error("mapping {0} does not begin where the one before ends, or is empty")]
    Order(usize),
    #[error("mapping {0} does not fit a disk or a file")]
    Bounds(usize),
    #[error("the mappings end at {mapped} of {size} bytes")]
    Incomplete { mapped: u64, size: u64 },
}

impl Header {
    /// Reads a whole header.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let wrong_length = HeaderError::Length(bytes.len());
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else {
            return Err(wrong_length);
        };
        let (rows, odd) = rest.as_chunks::<MAPPING>();
        if !odd.is_empty() {
            return Err(wrong_length);
        }
        if rows.len() > MAX_MAPPINGS {
            return Err(HeaderError::TooMany);
        }
        let (version, block, size) = (le64(head, 0), le64(head, 8), le64(head, 16));
        if !VERSIONS.contains(&version) {
            return Err(HeaderError::Version(version));
        }
        if !block.is_power_of_two() || !(512..=16 << 20).contains(&block) {
            return Err(HeaderError::BlockSize(block));
        }
        let mut mappings: Vec<_> = rows.iter().map(Mapping::parse).collect();
        // A template's first build has none: all of it is its own.
        if mappings.is_empty() && size > 0 {
            mappings.push(Mapping {
                offset: 0,
                len: size,
                build: BuildId::parse(head, 32),
                at: 0,
            });
        }
        check(&mappings, size)?;
        Ok(Self { size, mappings })
    }

    /// The piece that an offset is in.
    fn at(&self, offset: u64) -> Option<&Mapping> {
        let next = self.mappings.partition_point(|it| it.offset <= offset);
        self.mappings.get(next.checked_sub(1)?)
    }
}

fn check(mappings: &[Mapping], size: u64) -> Result<(), HeaderError> {
    let mut mapped: u64 = 0;
    for (number, mapping) in mappings.iter().enumerate() {
        if mapping.offset != mapped || mapping.len == 0 {
            return Err(HeaderError::Order(number));
        }
        let end = mapped.checked_add(mapping.len);
        let end = end.filter(|end| *end <= size);
        mapped = end.ok_or(HeaderError::Bounds(number))?;
        if mapping.at.checked_add(mapping.len).is_none() {
            return Err(HeaderError::Bounds(number));
        }
    }
    if mapped != size {
        return Err(HeaderError::Incomplete { mapped, size });
    }
    Ok(())
}

impl Mapping {
    fn parse(row: &[u8; MAPPING]) -> Self {
        Self {
            offset: le64(row, 0),
            len: le64(row, 8),
            build: BuildId::parse(row, 16),
            at: le64(row, 32),
        }
    }
}

impl BuildId {
    const NIL: Self = Self([0; 16]);

    fn parse(bytes: &[u8], at: usize) -> Self {
        let id = bytes.get(at..).and_then(|rest| rest.first_chunk());
        Self(id.copied().unwrap_or_default())
    }
}

/// As a UUID, which is what its directory is called.
impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, byte) in self.0.iter().enumerate() {
            let dash = if [4, 6, 8, 10].contains(&number) {
                "-"
            } else {
                ""
            };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

/// A snapshot's disk.
#[derive(Debug)]
pub(crate) struct E2b {
    header: Header,
    builds: BTreeMap<BuildId, Raw>,
}

impl E2b {
    /// Reads `<builds>/<build>/rootfs.ext4.header` and opens the files of the
    /// builds that it names, in the same `<builds>`.
    pub(crate) fn open(header: &Raw, path: &Path) -> Result<Self, FsError> {
        let failed = |path: &Path, source| FsError::Image {
            path: path.to_owned(),
            source,
        };
        let header = read(header).map_err(|source| failed(path, source))?;
        let beside = path.canonicalize();
        let beside = beside.map_err(|source| failed(path, source))?;
        let root = beside.parent().and_then(Path::parent);
        let root = root.unwrap_or(Path::new("/"));
        let name = beside.file_stem().unwrap_or_default();
        let mut builds = BTreeMap::new();
        for mapping in &header.mappings {
            let id = mapping.build;
            if id == BuildId::NIL || builds.contains_key(&id) {
                continue;
            }
            if builds.len() == MAX_BUILDS {
                let why = io::Error::other(format!("it is made of more than {MAX_BUILDS} builds"));
                return Err(failed(path, why));
            }
            let file: PathBuf = root.join(id.to_string()).join(name);
            builds.insert(id, Raw::open(&file)?);
        }
        Ok(Self { header, builds })
    }

    /// The file and the offset in it; `None` where all is zeros.
    fn kept(&self, offset: u64) -> Option<(&Raw, u64, u64)> {
        let mapping = self.header.at(offset)?;
        let skip = offset - mapping.offset;
        let file = self.builds.get(&mapping.build)?;
        Some((file, mapping.at + skip, mapping.len - skip))
    }

    /// Bytes from here to the end of the piece.
    fn left(&self, offset: u64) -> u64 {
        let mapping = self.header.at(offset);
        mapping.map_or(0, |it| (it.offset + it.len).saturating_sub(offset))
    }
}

fn read(file: &Raw) -> io::Result<Header> {
    let most = (HEAD + MAX_MAPPINGS * MAPPING) as u64;
    if file.size() > most {
        return Err(invalid(&HeaderError::TooMany));
    }
    let mut bytes = vec![0; usize::try_from(file.size()).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    Header::parse(&bytes).map_err(|error| invalid(&error))
}

fn invalid(error: &HeaderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

impl Blocks for E2b {
    fn size(&self) -> u64 {
        self.header.size
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let (mut rest, mut at) = (buffer, offset);
        while !rest.is_empty() {
            let left = usize::try_from(self.left(at)).unwrap_or(usize::MAX);
            if left == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (piece, more) = rest.split_at_mut(left.min(rest.len()));
            match self.kept(at) {
                Some((file, place, _)) => file.read_exact_at(piece, place)?,
                None => piece.fill(0),
            }
            at += piece.len() as u64;
            rest = more;
        }
        Ok(())
    }

    fn place(&self, offset: u64) -> io::Result<(Place, u64)> {
        let Some((file, at, len)) = self.kept(offset) else {
            return Ok((Place::Zeros, self.left(offset)));
        };
        let (place, whole) = file.place(at)?;
        // A file that is too short is found out when it is read.
        Ok((place, whole.clamp(1, len)))
    }

    fn stamp(&self) -> Option<Stamp> {
        Stamp::of_all(self.builds.values().map(|file| file as &dyn Blocks))
    }

    fn again(&self) -> io::Result<Arc<dyn Blocks>> {
        let fresh = |(id, file): (&BuildId, &Raw)| Ok((*id, file.fresh()?));
        let builds = self.builds.iter().map(fresh);
        let mappings = self.header.mappings.clone();
        Ok(Arc::new(Self {
            header: Header {
                size: self.header.size,
                mappings,
            },
            builds: builds.collect::<io::Result<_>>()?,
        }))
    }
}

/// The number at `at`; 0 where the bytes are too few.
fn le64(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests;
