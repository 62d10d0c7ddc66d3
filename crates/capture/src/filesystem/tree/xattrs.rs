//! Extended attributes as an index keeps them.

use sha2::{Digest as _, Sha256};

/// Half a SHA-256.
type Sum = [u8; 16];

/// More attributes of one file than these are not told apart, nor are those
/// whose names are longer in all: nobody who has no design on us sets as many.
const MOST_LISTED: usize = 32;
const MOST_NAMES: usize = 2048;
/// Bytes that an attribute takes in an index beside its name.
const OVERHEAD: u64 = 32;

/// An extended attribute: its name, and half a SHA-256 of its value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Xattr {
    pub(crate) name: Box<[u8]>,
    pub(crate) sum: Sum,
}

impl Xattr {
    pub(crate) fn new(name: &[u8], value: &[u8]) -> Self {
        Self {
            name: name.into(),
            sum: half(Sha256::digest(value).into()),
        }
    }
}

/// The extended attributes of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Xattrs {
    /// In the order of names.
    Listed(Box<[Xattr]>),
    /// Too many to be kept one by one: a sum of what the list would say.
    Summed(Sum),
    /// Nobody could read them, of which there is a gap.
    NotRead,
}

impl Default for Xattrs {
    fn default() -> Self {
        Self::Listed(Box::default())
    }
}

impl Xattrs {
    /// Keeps `list`, or a sum of it where it is long or `room`, in bytes, is
    /// used up by those of other files.
    pub(crate) fn of(mut list: Vec<Xattr>, room: &mut u64) -> Self {
        list.sort_unstable();
        let names: usize = list.iter().map(|xattr| xattr.name.len()).sum();
        let needed = names as u64 + OVERHEAD * list.len() as u64;
        let fits = list.len() <= MOST_LISTED && names <= MOST_NAMES;
        match room.checked_sub(needed).filter(|_| fits) {
            Some(left) => {
                *room = left;
                Self::Listed(list.into())
            }
            None => Self::Summed(sum_of(&list)),
        }
    }

    /// Whether nothing is known to differ: what was not read tells nothing.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::NotRead, _) | (_, Self::NotRead) => true,
            (Self::Listed(one), Self::Listed(two)) => one == two,
            _ => self.sum() == other.sum(),
        }
    }

    fn sum(&self) -> Option<Sum> {
        match self {
            Self::Listed(list) => Some(sum_of(list)),
            Self::Summed(sum) => Some(*sum),
            Self::NotRead => None,
        }
    }
}

fn sum_of(list: &[Xattr]) -> Sum {
    let mut hash = Sha256::new();
    for Xattr { name, sum } in list {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update(sum);
    }
    half(hash.finalize().into())
}

fn half(digest: [u8; 32]) -> Sum {
    digest.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(count: usize) -> Vec<Xattr> {
        let name = |number| format!("user.{number:03}").into_bytes();
        (0..count)
            .map(|number| Xattr::new(&name(number), b"x"))
            .collect()
    }

    #[test]
    fn a_sum_stands_for_a_list_that_is_long_or_has_no_room() {
        let mut room = u64::MAX;
        let listed = Xattrs::of(list(MOST_LISTED), &mut room);
        assert!(matches!(listed, Xattrs::Listed(_)));
        let summed = Xattrs::of(list(MOST_LISTED + 1), &mut room);
        assert!(matches!(summed, Xattrs::Summed(_)));
        assert!(!listed.is_same(&summed));
        let mut room = 100;
        let without_room = Xattrs::of(list(MOST_LISTED), &mut room);
        assert!(matches!(without_room, Xattrs::Summed(_)));
        assert!(listed.is_same(&without_room) && without_room.is_same(&listed));
        assert_eq!(room, 100);
        assert_eq!(Xattrs::of(Vec::new(), &mut 0), Xattrs::default());
        assert!(Xattrs::NotRead.is_same(&listed) && summed.is_same(&Xattrs::NotRead));
    }
}
