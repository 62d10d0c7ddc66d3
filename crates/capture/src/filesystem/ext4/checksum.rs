//! CRC-32C as ext4 and jbd2 use it: running, without the final inversion.

/// Continues `crc` over `bytes`; a fresh one begins with `!0`.
pub(super) fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        let row = TABLE.get(usize::from(low ^ byte)).copied();
        crc >> 8 ^ row.unwrap_or(0)
    })
}

/// Bits of the Castagnoli polynomial, lowest power first (RFC 3720 §12.1).
const POLYNOMIAL: u32 = 0x82f6_3b78;

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        #[expect(
            clippy::indexing_slicing,
            reason = "evaluated by the compiler, in bounds"
        )]
        {
            table[index as usize] = crc;
        }
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720 appendix B.4.
    #[test]
    fn published_vectors() {
        for (bytes, expected) in [([0; 32], 0x8a91_36aa_u32), ([0xff; 32], 0x62a8_ab43)] {
            assert_eq!(!crc32c(!0, &bytes), expected);
        }
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
    }
}
