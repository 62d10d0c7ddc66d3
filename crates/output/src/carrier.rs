//! Getting whole lines out: files, standard output, unix sockets.

use crate::{SinkError, Target};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Bytes that may wait for a flush.
const BUFFER: usize = 64 << 10;

/// Passes lines on and may block while it does.
pub(crate) trait Carrier: Send {
    /// Passes on one line, which ends in LF. After [`Trouble::Transient`]
    /// the same line may be sent again.
    fn send(&mut self, line: &[u8]) -> Result<(), Trouble>;

    /// Passes on what is buffered.
    fn flush(&mut self) -> Result<(), Trouble>;

    /// How many lines to send between two flushes. If the carrier fails or
    /// hangs, all lines since the last flush count as not delivered.
    fn batch(&self) -> usize;
}

/// Why a line was not passed on.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Worth another try.
    Transient(io::Error),
    /// There is no sense in going on.
    Fatal(io::Error),
    /// The reader of standard output closed it.
    ReaderGone,
}

pub(crate) fn open(target: &Target) -> Result<Box<dyn Carrier>, SinkError> {
    let opened: io::Result<Box<dyn Carrier>> = match target {
        Target::Stdout => stdout(),
        Target::File(path) if is_regular(path) => {
            return Err(SinkError::Exists {
                target: target.clone(),
            });
        }
        Target::File(path) => file(path),
        Target::Unix(path) => unix(path),
    };
    opened.map_err(|source| SinkError::Open {
        target: target.clone(),
        source,
    })
}

fn stdout() -> io::Result<Box<dyn Carrier>> {
    // A handle of our own: std's would flush at every line.
    let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    Ok(Box::new(Stream {
        file: BufWriter::with_capacity(BUFFER, file),
        is_stdout: true,
    }))
}

fn is_regular(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file())
}

fn file(path: &Path) -> io::Result<Box<dyn Carrier>> {
    let special = std::fs::metadata(path).is_ok_and(|meta| {
        let kind = meta.file_type();
        kind.is_fifo() || kind.is_char_device()
    });
    let mut options = OpenOptions::new();
    // `create_new` also refuses a file that appeared since `is_regular`.
    options.write(true).create_new(!special).mode(0o600);
    let file = BufWriter::with_capacity(BUFFER, options.open(path)?);
    Ok(Box::new(Stream {
        file,
        is_stdout: false,
    }))
}

/// A file, a pipe, a terminal.
struct Stream {
    file: BufWriter<File>,
    is_stdout: bool,
}

impl Stream {
    fn trouble(&self, error: io::Error) -> Trouble {
        if self.is_stdout && error.kind() == io::ErrorKind::BrokenPipe {
            Trouble::ReaderGone
        } else {
            Trouble::Fatal(error)
        }
    }
}

impl Carrier for Stream {
    fn send(&mut self, line: &[u8]) -> Result<(), Trouble> {
        self.file
            .write_all(line)
            .map_err(|error| self.trouble(error))
    }

    fn flush(&mut self) -> Result<(), Trouble> {
        self.file.flush().map_err(|error| self.trouble(error))
    }

    fn batch(&self) -> usize {
        256
    }
}

fn unix(path: &Path) -> io::Result<Box<dyn Carrier>> {
    Ok(Box::new(Socket {
        path: path.to_owned(),
        stream: Some(dial(path)?),
    }))
}

/// A stream socket. A peer that goes away may have got part of a line; its
/// successor gets that line whole.
struct Socket {
    path: PathBuf,
    stream: Option<UnixStream>,
}

impl Carrier for Socket {
    fn send(&mut self, line: &[u8]) -> Result<(), Trouble> {
        if let Some(stream) = &mut self.stream
            && stream.write_all(line).is_ok()
        {
            return Ok(());
        }
        self.stream = None;
        let mut stream = dial(&self.path).map_err(Trouble::Transient)?;
        stream.write_all(line).map_err(Trouble::Transient)?;
        self.stream = Some(stream);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Trouble> {
        Ok(())
    }

    fn batch(&self) -> usize {
        1
    }
}

/// Connects without waiting for a listener whose backlog is full.
fn dial(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}
