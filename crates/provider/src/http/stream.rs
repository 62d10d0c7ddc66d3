//! An answer that never ends, chunk by chunk.

use super::{Body, Client, HttpError, MAX_LINE, chunk_size, find};
use std::time::Duration;

impl Client {
    /// Asks for an answer that goes on; returns its status. Only where that is
    /// 200 there are pieces.
    pub(crate) fn open_stream(&mut self, path: &str) -> Result<u16, HttpError> {
        let head = self.ask(path)?;
        if head.status == 200 && head.body != Body::Chunked {
            return Err(HttpError::Malformed);
        }
        Ok(head.status)
    }

    /// The next whole chunk; `None` where none came within `patience`.
    pub(crate) fn next_piece(&mut self, patience: Duration) -> Result<Option<Vec<u8>>, HttpError> {
        self.give(patience);
        loop {
            if let Some(piece) = self.take_piece()? {
                return Ok(Some(piece));
            }
            match self.read_more() {
                Err(HttpError::Timeout(_)) => return Ok(None),
                read => read?,
            }
        }
    }

    /// Takes nothing where the chunk is not there in whole.
    fn take_piece(&mut self) -> Result<Option<Vec<u8>>, HttpError> {
        let Some(end) = find(&self.buffer, b"\r\n") else {
            let is_long = self.buffer.len() > MAX_LINE;
            return if is_long {
                Err(HttpError::Malformed)
            } else {
                Ok(None)
            };
        };
        let size = chunk_size(self.buffer.get(..end).unwrap_or_default())?;
        if size == 0 {
            return Err(HttpError::Closed);
        }
        if size > self.max_body {
            return Err(HttpError::LongBody(self.max_body));
        }
        let rest = self.buffer.get(end + 2..).unwrap_or_default();
        let Some((piece, after)) = rest.split_at_checked(size) else {
            return Ok(None);
        };
        let piece = match after {
            [b'\r', b'\n', ..] => piece.to_vec(),
            [] | [b'\r'] => return Ok(None),
            _ => return Err(HttpError::Malformed),
        };
        self.buffer.drain(..end + 2 + size + 2);
        Ok(Some(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    const SOON: Duration = Duration::from_millis(10);

    fn stream() -> (Client, UnixStream) {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(HEAD).unwrap();
        let mut client = Client::new(near, Duration::from_secs(10), 100);
        assert_eq!(client.open_stream("/").unwrap(), 200);
        (client, far)
    }

    #[test]
    fn pieces_come_in_pieces() {
        let (mut client, mut far) = stream();
        for part in ["5\r", "\nhel", "lo", "\r", "\n3;x\r\nabc\r\n"] {
            assert_eq!(client.next_piece(SOON).unwrap(), None);
            far.write_all(part.as_bytes()).unwrap();
        }
        assert_eq!(client.next_piece(SOON).unwrap().unwrap(), b"hello");
        assert_eq!(client.next_piece(SOON).unwrap().unwrap(), b"abc");
        assert_eq!(client.next_piece(SOON).unwrap(), None);
        far.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(matches!(client.next_piece(SOON), Err(HttpError::Closed)));
    }

    #[test]
    fn what_is_no_piece_ends_it() {
        for bad in [
            "0\r\n\r\n",
            "x\r\n",
            "65\r\n",
            "1\r\nabc",
            &"1".repeat(2000),
        ] {
            let (mut client, mut far) = stream();
            far.write_all(bad.as_bytes()).unwrap();
            assert!(client.next_piece(SOON).is_err(), "{bad:?}");
        }
    }
}
