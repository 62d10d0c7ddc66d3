//! A few dozen paths and what they were, packed.

use super::super::content::Content;
use super::super::layers::Located;
use super::{Attributes, Entry, Identity, Node, PathBytes, Xattr, Xattrs};
use sandtrace_event::{Digest, FileKind, HashScope};
use std::sync::Arc;

/// Most paths of a leaf.
const MOST: usize = 32;

/// Consecutive paths of an index.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) first: PathBytes,
    /// How many packed paths are before the first.
    pub(super) rank: usize,
    pub(super) count: usize,
    /// When the first that is there was written to last. Files of one place often
    /// were at much the same time.
    written: i64,
    /// Each path as the number of bytes that it shares with the one before
    /// and the rest of it, then its node.
    bytes: Box<[u8]>,
}

impl Leaf {
    pub(super) fn iter(&self) -> impl Iterator<Item = (PathBytes, Node)> {
        let mut reader = Reader(&self.bytes);
        let mut path = Vec::new();
        std::iter::from_fn(move || {
            reader.path(&mut path)?;
            Some((path.as_slice().into(), reader.node(self.written)?))
        })
    }

    /// The place of `path` among the leaf's, and what it is.
    pub(super) fn find(&self, wanted: &[u8]) -> Option<(usize, Node)> {
        let mut reader = Reader(&self.bytes);
        let mut path = Vec::new();
        let mut place = 0;
        loop {
            reader.path(&mut path)?;
            match path.as_slice().cmp(wanted) {
                std::cmp::Ordering::Less => reader.skip_node()?,
                std::cmp::Ordering::Equal => return Some((place, reader.node(self.written)?)),
                std::cmp::Ordering::Greater => return None,
            }
            place += 1;
        }
    }
}

/// Makes leaves of paths that come in order.
#[derive(Default)]
pub(super) struct Packer {
    leaves: Vec<Leaf>,
    packed: usize,
    first: Option<PathBytes>,
    last: PathBytes,
    count: usize,
    written: Option<i64>,
    bytes: Vec<u8>,
    scratch: Vec<u8>,
}

impl Packer {
    pub(super) fn add(&mut self, path: PathBytes, node: &Node) {
        if self.count >= MOST {
            self.close();
        }
        let pairs = path.iter().zip(self.last.iter());
        let shared = pairs.take_while(|(one, two)| one == two).count();
        put(&mut self.bytes, shared as u64);
        put_bytes(&mut self.bytes, path.get(shared..).unwrap_or_default());
        self.scratch.clear();
        if let Some(entry) = node {
            let written = *self.written.get_or_insert(entry.modified);
            put_entry(&mut self.scratch, entry, written);
        } else {
            self.scratch.push(HIDDEN);
        }
        put_bytes(&mut self.bytes, &self.scratch);
        self.count += 1;
        self.first.get_or_insert_with(|| path.clone());
        self.last = path;
    }

    /// Takes a leaf as it is, whose paths come next.
    pub(super) fn take(&mut self, leaf: Leaf) {
        // Small leaves are joined, so that they do not become many.
        if leaf.count + self.count <= MOST {
            for (path, node) in leaf.iter() {
                self.add(path, &node);
            }
            return;
        }
        self.close();
        let rank = self.packed;
        self.packed += leaf.count;
        self.leaves.push(Leaf { rank, ..leaf });
    }

    fn close(&mut self) {
        let Some(first) = self.first.take() else {
            return;
        };
        self.leaves.push(Leaf {
            first,
            rank: self.packed,
            count: self.count,
            written: self.written.take().unwrap_or(0),
            bytes: self.bytes.as_slice().into(),
        });
        self.packed += self.count;
        self.count = 0;
        self.bytes.clear();
        self.last = PathBytes::default();
    }

    /// The leaves, and how many paths they hold.
    pub(super) fn finish(mut self) -> (Vec<Leaf>, usize) {
        self.close();
        (self.leaves, self.packed)
    }
}

const KINDS: [FileKind; 8] = [
    FileKind::File,
    FileKind::Dir,
    FileKind::Symlink,
    FileKind::Char,
    FileKind::Block,
    FileKind::Fifo,
    FileKind::Socket,
    FileKind::Unknown,
];
const HIDDEN: u8 = 0xff;
/// Beside the kind, in the first byte of a node.
const HAS_ATTRIBUTES: u8 = 0x8;
const SETTLED: u8 = 0x10;
const HAS_XATTRS: u8 = 0x20;
/// Before attributes; from the last on, the number of those that follow.
const NOT_READ: u64 = 0;
const SUMMED: u64 = 1;
const LISTED: u64 = 2;

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            bytes.push(low & 0x7f);
            return;
        }
        bytes.push(low | 0x80);
    }
}

fn put_bytes(bytes: &mut Vec<u8>, text: &[u8]) {
    put(bytes, text.len() as u64);
    bytes.extend_from_slice(text);
}

/// A difference, small where both are close.
fn put_difference(bytes: &mut Vec<u8>, from: i64, to: i64) {
    let more = to.wrapping_sub(from);
    put(bytes, ((more << 1) ^ (more >> 63)).cast_unsigned());
}

/// `written`: a time that is close to its own.
fn put_entry(bytes: &mut Vec<u8>, entry: &Entry, written: i64) {
    let kind = KINDS.iter().position(|kind| *kind == entry.kind);
    let mut first = u8::try_from(kind.unwrap_or(7)).unwrap_or(7);
    for (bit, is_set) in [
        (HAS_ATTRIBUTES, entry.attributes.is_some()),
        (SETTLED, entry.settled),
        (HAS_XATTRS, entry.xattrs != Xattrs::default()),
    ] {
        first |= if is_set { bit } else { 0 };
    }
    bytes.push(first);
    if let Some(attributes) = entry.attributes {
        for number in [attributes.mode, attributes.uid, attributes.gid] {
            put(bytes, number.into());
        }
    }
    put(bytes, entry.size);
    put_difference(bytes, written, entry.modified);
    bytes.extend_from_slice(&entry.mark.to_le_bytes());
    match &entry.identity {
        Identity::Unknown => put(bytes, 0),
        Identity::Inode(number, birth) => {
            put(bytes, 1);
            put(bytes, *number);
            put(bytes, *birth);
        }
        Identity::Lower(at) => {
            put(bytes, 2);
            put_located(bytes, at);
        }
    }
    put_content(bytes, &entry.content);
    put_xattrs(bytes, &entry.xattrs);
}

/// Nothing where there are none, which the first byte of the node says.
fn put_xattrs(bytes: &mut Vec<u8>, xattrs: &Xattrs) {
    match xattrs {
        Xattrs::Listed(list) if list.is_empty() => {}
        Xattrs::NotRead => put(bytes, NOT_READ),
        Xattrs::Summed(sum) => {
            put(bytes, SUMMED);
            bytes.extend_from_slice(sum);
        }
        Xattrs::Listed(list) => {
            put(bytes, LISTED + list.len() as u64);
            for xattr in list {
                put_bytes(bytes, &xattr.name);
                bytes.extend_from_slice(&xattr.sum);
            }
        }
    }
}

fn put_located(bytes: &mut Vec<u8>, at: &Located) {
    put(bytes, at.layer as u64);
    put_bytes(bytes, &at.path);
}

fn put_content(bytes: &mut Vec<u8>, content: &Content) {
    match content {
        Content::None => put(bytes, 0),
        Content::Hashed {
            digest,
            scope,
            writes,
        } => {
            put(bytes, if *scope == HashScope::Whole { 1 } else { 2 });
            bytes.extend_from_slice(&digest.0);
            put(bytes, u64::from(*writes));
        }
        Content::Lower(at) => {
            put(bytes, 3);
            put_located(bytes, at);
        }
        Content::Link(target) => {
            put(bytes, 4);
            put_bytes(bytes, target);
        }
        Content::Device { major, minor } => {
            put(bytes, 5);
            put(bytes, u64::from(*major));
            put(bytes, u64::from(*minor));
        }
        Content::Unreadable(reason) => {
            put(bytes, 6);
            put_bytes(bytes, reason.as_bytes());
        }
        Content::Skipped => put(bytes, 7),
        Content::Sealed { digest, writes } => {
            put(bytes, 9);
            bytes.extend_from_slice(&digest.0);
            put(bytes, u64::from(*writes));
        }
        Content::InBase(inode) => {
            put(bytes, 8);
            put(bytes, u64::from(*inode));
        }
    }
}

/// Reads what was put; `None` at the end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        let mut shift = 0;
        loop {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(first & 0x7f).checked_shl(shift)?;
            if first & 0x80 == 0 {
                return Some(number);
            }
            shift += 7;
        }
    }

    fn small(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        self.take(len)
    }

    fn path(&mut self, path: &mut Vec<u8>) -> Option<()> {
        let shared = usize::try_from(self.number()?).ok()?;
        path.truncate(shared);
        path.extend_from_slice(self.bytes()?);
        Some(())
    }

    fn skip_node(&mut self) -> Option<()> {
        self.bytes().map(drop)
    }

    fn difference(&mut self, from: i64) -> Option<i64> {
        let folded = self.number()?;
        let more = (folded >> 1).cast_signed() ^ -(folded & 1).cast_signed();
        Some(from.wrapping_add(more))
    }

    fn node(&mut self, written: i64) -> Option<Node> {
        Reader(self.bytes()?).entry(written)
    }

    fn entry(&mut self, written: i64) -> Option<Node> {
        let [first] = self.array()?;
        if first == HIDDEN {
            return Some(None);
        }
        let kind = *KINDS.get(usize::from(first & 7))?;
        let attributes = match first & HAS_ATTRIBUTES {
            0 => None,
            _ => Some(Attributes {
                mode: self.small()?,
                uid: self.small()?,
                gid: self.small()?,
            }),
        };
        Some(Some(Entry {
            kind,
            attributes,
            size: self.number()?,
            modified: self.difference(written)?,
            mark: i64::from_le_bytes(self.array()?),
            settled: first & SETTLED != 0,
            identity: self.identity()?,
            content: self.content()?,
            xattrs: match first & HAS_XATTRS {
                0 => Xattrs::default(),
                _ => self.xattrs()?,
            },
        }))
    }

    fn identity(&mut self) -> Option<Identity> {
        Some(match self.number()? {
            0 => Identity::Unknown,
            1 => Identity::Inode(self.number()?, self.number()?),
            _ => Identity::Lower(self.located()?),
        })
    }

    fn located(&mut self) -> Option<Arc<Located>> {
        Some(Arc::new(Located {
            layer: usize::try_from(self.number()?).ok()?,
            path: self.bytes()?.into(),
        }))
    }

    fn content(&mut self) -> Option<Content> {
        Some(match self.number()? {
            0 => Content::None,
            1 => self.hashed(HashScope::Whole)?,
            2 => self.hashed(HashScope::HeadTail)?,
            3 => Content::Lower(self.located()?),
            4 => Content::Link(self.bytes()?.into()),
            5 => Content::Device {
                major: self.small()?,
                minor: self.small()?,
            },
            6 => Content::Unreadable(String::from_utf8_lossy(self.bytes()?).into()),
            7 => Content::Skipped,
            9 => self.hashed(HashScope::Whole)?.sealed(),
            _ => Content::InBase(self.small()?),
        })
    }

    fn hashed(&mut self, scope: HashScope) -> Option<Content> {
        Some(Content::Hashed {
            digest: Digest(self.array()?),
            scope,
            writes: self.small()?,
        })
    }

    fn xattrs(&mut self) -> Option<Xattrs> {
        let count = match self.number()? {
            NOT_READ => return Some(Xattrs::NotRead),
            SUMMED => return Some(Xattrs::Summed(self.array()?)),
            more => more - LISTED,
        };
        let xattr = |_| {
            Some(Xattr {
                name: self.bytes()?.into(),
                sum: self.array()?,
            })
        };
        let list: Option<_> = (0..count).map(xattr).collect();
        list.map(Xattrs::Listed)
    }
}
