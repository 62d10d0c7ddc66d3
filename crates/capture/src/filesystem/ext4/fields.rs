//! Integers inside on-disk structures.

use super::Ext4Error;

/// A structure's bytes; reading beyond them is an error, not a panic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

const SHORT: Ext4Error = Ext4Error::Corrupt("a structure is cut short");

impl<'a> Fields<'a> {
    pub(super) fn bytes(self, at: usize, len: usize) -> Result<&'a [u8], Ext4Error> {
        let end = at.checked_add(len).ok_or(SHORT)?;
        self.0.get(at..end).ok_or(SHORT)
    }

    pub(super) fn from(self, at: usize) -> Result<Self, Ext4Error> {
        self.0.get(at..).map(Self).ok_or(SHORT)
    }

    pub(super) fn array<const N: usize>(self, at: usize) -> Result<[u8; N], Ext4Error> {
        self.bytes(at, N)?.try_into().map_err(|_| SHORT)
    }

    pub(super) fn byte(self, at: usize) -> Result<u8, Ext4Error> {
        self.array::<1>(at).map(u8::from_le_bytes)
    }

    pub(super) fn le16(self, at: usize) -> Result<u16, Ext4Error> {
        self.array(at).map(u16::from_le_bytes)
    }

    pub(super) fn le32(self, at: usize) -> Result<u32, Ext4Error> {
        self.array(at).map(u32::from_le_bytes)
    }

    pub(super) fn be16(self, at: usize) -> Result<u16, Ext4Error> {
        self.array(at).map(u16::from_be_bytes)
    }

    pub(super) fn be32(self, at: usize) -> Result<u32, Ext4Error> {
        self.array(at).map(u32::from_be_bytes)
    }

    pub(super) fn be64(self, at: usize) -> Result<u64, Ext4Error> {
        self.array(at).map(u64::from_be_bytes)
    }
}

/// A number that is stored in two halves.
pub(super) fn wide(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}
