//! SHA-256 of whole files.

use sandtrace_event::Digest;
use sha2::{Digest as _, Sha256};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read};

/// Bytes read at once: few enough that they are still in the processor's cache
/// when they are hashed.
const AT_ONCE: usize = 64 * 1024;

/// Digest of all that is left to read.
///
/// # Errors
/// When it cannot be read to its end.
pub(crate) fn digest_of(source: impl Read) -> io::Result<Digest> {
    let mut source = BufReader::with_capacity(AT_ONCE, source);
    let mut hasher = Sha256::new();
    loop {
        let taken = match source.fill_buf() {
            Ok([]) => return Ok(Digest(hasher.finalize().into())),
            Ok(bytes) => {
                hasher.update(bytes);
                bytes.len()
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        source.consume(taken);
    }
}
