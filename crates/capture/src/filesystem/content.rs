//! What a path holds, and digests of it that read a bounded amount.

use super::bounds::Budget;
use super::layers::Located;
use super::secrets::Scanner;
use sandtrace_event::{Digest, HashScope};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

/// What a path holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing of its own: a directory, pipe or socket.
    None,
    /// A regular file's bytes. `writes`: at how many scans of an image
    /// something else than what is hashed may have been written.
    Hashed {
        digest: Digest,
        scope: HashScope,
        writes: u32,
    },
    /// A regular file's bytes in a lower layer, which nothing changes; hashed on demand.
    Lower(Arc<Located>),
    /// A symbolic link's target.
    Link(Box<[u8]>),
    /// A device's number.
    Device { major: u32, minor: u32 },
    /// Encrypted by the sandbox: a digest of its blocks as they are on the disk.
    /// `writes`: as above.
    Sealed { digest: Digest, writes: u32 },
    /// It could not be read.
    Unreadable(Box<str>),
    /// A regular file of an image: as the same inode has it in the copy of the
    /// disk that was kept; read on demand.
    InBase(u32),
    /// The scan's bound on hashing was reached.
    Skipped,
}

impl Content {
    /// What is known of it where these bytes are not in the clear.
    pub(crate) fn sealed(self) -> Self {
        match self {
            Self::Hashed { digest, writes, .. } => Self::Sealed { digest, writes },
            other => other,
        }
    }
}

/// Bytes that can be read from any place.
pub(crate) trait ReadAt {
    /// Reads up to `buffer.len()` bytes; 0 at the end.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, String>;
}

const CHUNK: usize = 128 << 10;

/// Hashes `size` bytes of `source`: all of them up to the bound, beyond it the
/// first and the last half of the bound, one after the other.
pub(crate) fn digest(source: &mut dyn ReadAt, size: u64, budget: &mut Budget) -> Content {
    let half = budget.hash_bound / 2;
    let (scope, parts) = if size <= budget.hash_bound {
        (HashScope::Whole, [(0, size), (0, 0)])
    } else {
        (HashScope::HeadTail, [(0, half), (size - half, half)])
    };
    if !budget.spend(parts.iter().map(|(_, len)| len).sum()) {
        return Content::Skipped;
    }
    let mut hash = Sha256::new();
    let mut scanner = budget.secrets.is_some().then(Scanner::default);
    let largest = usize::try_from(size).unwrap_or(CHUNK);
    let mut buffer = vec![0; largest.min(CHUNK)];
    for (offset, len) in parts {
        let mut each = |bytes: &[u8]| {
            hash.update(bytes);
            if let Some(scanner) = &mut scanner {
                scanner.feed(bytes);
            }
        };
        if let Err(reason) = feed(&mut each, source, offset, len, &mut buffer) {
            return Content::Unreadable(reason.into());
        }
        if let Some(scanner) = &mut scanner {
            scanner.end_part();
        }
    }
    let digest = Digest(hash.finalize().into());
    if let (Some(scanner), Some(findings)) = (scanner, &mut budget.secrets) {
        findings.add(digest, &scanner);
    }
    Content::Hashed {
        digest,
        scope,
        writes: 0,
    }
}

fn feed(
    each: &mut dyn FnMut(&[u8]),
    source: &mut dyn ReadAt,
    mut offset: u64,
    len: u64,
    buffer: &mut [u8],
) -> Result<(), String> {
    let mut left = len;
    while left > 0 {
        let want = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let got = source.read_at(offset, buffer.get_mut(..want).unwrap_or_default())?;
        let bytes = buffer.get(..got).unwrap_or_default();
        if bytes.is_empty() {
            return Err("it became shorter while it was read".to_owned());
        }
        each(bytes);
        offset += got as u64;
        left -= got as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::FsConfig;
    use super::*;

    impl ReadAt for &[u8] {
        fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, String> {
            let rest = &self[usize::try_from(offset).unwrap().min(self.len())..];
            let len = rest.len().min(buffer.len());
            buffer[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        }
    }

    fn budget(hash_bound: u64, hash_bytes: u64) -> Budget {
        Budget::new(&FsConfig {
            hash_bound,
            hash_budget: hash_bytes,
            ..FsConfig::default()
        })
    }

    #[track_caller]
    fn check(bytes: &[u8], bound: u64, scope: HashScope, covered: &[u8]) {
        let mut source = bytes;
        let size = bytes.len() as u64;
        let content = digest(&mut source, size, &mut budget(bound, 1 << 20));
        let digest = Digest(Sha256::digest(covered).into());
        let expected = Content::Hashed {
            digest,
            scope,
            writes: 0,
        };
        assert_eq!(content, expected);
    }

    #[test]
    fn beyond_the_bound_head_and_tail_are_hashed() {
        check(b"", 8, HashScope::Whole, b"");
        check(b"12345678", 8, HashScope::Whole, b"12345678");
        check(b"1234-5678", 8, HashScope::HeadTail, b"12345678");
        let large = vec![7; 3 * CHUNK + 1];
        check(&large, 1 << 20, HashScope::Whole, &large);
    }

    #[test]
    fn an_empty_budget_and_a_short_file_are_said() {
        let mut source = &b"1234"[..];
        assert_eq!(digest(&mut source, 4, &mut budget(8, 3)), Content::Skipped);
        let short = digest(&mut source, 5, &mut budget(8, 8));
        assert!(matches!(short, Content::Unreadable(_)), "{short:?}");
    }
}
