//! Where a witness listens or is asked.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// `unix:///PATH`, or a host and port with the prefix of an URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp { host: String, prefix: String },
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://") {
            let is_absolute = path.starts_with('/');
            let path = is_absolute.then(|| Self::Unix(path.into()));
            return path.ok_or_else(|| "write unix:///PATH with an absolute path".to_owned());
        }
        if text.starts_with("https://") {
            return Err("https is not spoken here: put a proxy that does in front".to_owned());
        }
        let rest = text.strip_prefix("http://").unwrap_or(text);
        let (host, prefix) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let port = host.rsplit_once(':').filter(|(name, _)| !name.is_empty());
        let port = port.and_then(|(_, port)| port.parse::<u16>().ok());
        let has_strange = rest.bytes().any(|byte| !byte.is_ascii_graphic());
        if port.is_none() || has_strange || text.contains("://") && !text.starts_with("http://") {
            return Err("write http://HOST:PORT or unix:///PATH".to_owned());
        }
        Ok(Self::Tcp {
            host: host.to_owned(),
            prefix: prefix.trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, prefix } => write!(f, "http://{host}{prefix}"),
        }
    }
}

impl Address {
    /// Connects, within this time.
    pub(super) fn connect(&self, patience: Duration) -> io::Result<Timed> {
        let deadline = Instant::now() + patience;
        let stream = match self {
            Self::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
            Self::Tcp { host, .. } => {
                let mut failed = io::ErrorKind::AddrNotAvailable.into();
                let mut connected = None;
                for address in host.to_socket_addrs()? {
                    let left = time_left(deadline)?;
                    match TcpStream::connect_timeout(&address, left) {
                        Ok(stream) => {
                            connected = Some(Stream::Tcp(stream));
                            break;
                        }
                        Err(error) => failed = error,
                    }
                }
                connected.ok_or(failed)?
            }
        };
        Ok(Timed { stream, deadline })
    }
}

/// A connection.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection on which all reads and writes together get one span of time.
pub(super) struct Timed {
    stream: Stream,
    deadline: Instant,
}

impl Timed {
    pub(super) fn new(stream: Stream, patience: Duration) -> Self {
        let deadline = Instant::now() + patience;
        Self { stream, deadline }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = Some(time_left(self.deadline)?);
        match &mut self.stream {
            Stream::Tcp(stream) => {
                stream.set_read_timeout(left)?;
                stream.read(buffer)
            }
            Stream::Unix(stream) => {
                stream.set_read_timeout(left)?;
                stream.read(buffer)
            }
        }
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let left = Some(time_left(self.deadline)?);
        match &mut self.stream {
            Stream::Tcp(stream) => {
                stream.set_write_timeout(left)?;
                stream.write(buffer)
            }
            Stream::Unix(stream) => {
                stream.set_write_timeout(left)?;
                stream.write(buffer)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let read: Result<Address, _> = text.parse();
        assert_eq!(read.ok().map(|read| read.to_string()).as_deref(), expected);
    }

    #[test]
    fn addresses() {
        check("unix:///run/w.sock", Some("unix:///run/w.sock"));
        check("127.0.0.1:7380", Some("http://127.0.0.1:7380"));
        check("http://[::1]:80/a/b/", Some("http://[::1]:80/a/b"));
        check("http://w.example:80/", Some("http://w.example:80"));
        for bad in [
            "",
            ":80",
            "w.example",
            "w.example:x",
            "w.example:70000",
            "unix://run",
            "ftp://a:1",
            "https://w.example:443",
            "http://a:1/b c",
            "http://a:1/\r\nx",
        ] {
            check(bad, None);
        }
    }
}
