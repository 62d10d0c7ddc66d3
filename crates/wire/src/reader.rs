//! A bounded reader: the only way this crate looks at hostile bytes.

/// What is left of a byte string. Every read either has all its bytes or is `None`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `n` bytes.
    pub(crate) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(taken)
    }

    /// The next `n` bytes, or as many as there are.
    pub(crate) fn up_to(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at_checked(n).unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }

    /// A reader over the next `n` bytes, and over nothing else.
    pub(crate) fn sub(&mut self, n: usize) -> Option<Self> {
        self.take(n).map(Self::new)
    }

    /// A reader over a vector whose length stands before it in one byte.
    pub(crate) fn vec8(&mut self) -> Option<Self> {
        let len = self.u8()?;
        self.sub(usize::from(len))
    }

    /// A reader over a vector whose length stands before it in two bytes.
    pub(crate) fn vec16(&mut self) -> Option<Self> {
        let len = self.u16()?;
        self.sub(usize::from(len))
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// A 24-bit length, as TLS handshake messages have.
    pub(crate) fn u24(&mut self) -> Option<u32> {
        let [a, b, c] = self.array()?;
        Some(u32::from_be_bytes([0, a, b, c]))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    /// Everything that is left.
    pub(crate) const fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_all_or_nothing() {
        let mut reader = Reader::new(&[1, 0, 2, 0xaa, 0xbb, 9]);
        assert_eq!(reader.u8(), Some(1));
        let mut vector = reader.vec16().unwrap();
        assert_eq!(vector.u24(), None, "a short read takes nothing");
        assert_eq!(vector.u16(), Some(0xaabb));
        assert!(vector.is_empty());
        assert_eq!(reader.u32(), None);
        assert_eq!(reader.rest(), &[9]);
    }
}
