//! Paths that a process names, resolved as it would resolve them and never
//! outside of what it can reach.

use super::{Process, open_dir};
use crate::process::FileId;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

impl Process {
    /// Which file a path names for the process.
    ///
    /// # Errors
    /// When it names none, or may not be looked up.
    pub fn file_id(&self, path: &Path) -> io::Result<FileId> {
        Ok(FileId::from_stat(&fstat(self.resolve(path)?)?))
    }

    /// Reads a regular file that the process can reach, at most `limit` bytes of it.
    ///
    /// # Errors
    /// When it is no regular file, is longer, or cannot be read.
    pub fn read_file(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let handle = self.resolve(path)?;
        expect(&handle, FileType::RegularFile, "not a regular file")?;
        let file = File::from(reopen(&handle)?);
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()).is_ok_and(|len| len <= limit) {
            Ok(bytes)
        } else {
            Err(invalid("the file is too long"))
        }
    }

    /// Reads the first bytes behind one of the process' descriptors, which
    /// must still be the file `id`.
    ///
    /// # Errors
    /// When the descriptor is another file by now, or cannot be read.
    pub fn read_descriptor(&self, number: u32, id: FileId, bytes: &mut [u8]) -> io::Result<()> {
        let name = format!("fd/{number}");
        let handle = rustix::fs::openat(
            &self.dir,
            name,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        if FileId::from_stat(&fstat(&handle)?) != id {
            return Err(invalid("the descriptor is another file by now"));
        }
        File::from(reopen(&handle)?).read_exact_at(bytes, 0)
    }

    /// Connects to a stream socket by its path as the process names it, and
    /// says who listens there (0: a process of a namespace that this one
    /// cannot see). Does not wait where the listener is busy.
    ///
    /// # Errors
    /// When there is no such socket, nobody listens, or its backlog is full.
    pub fn connect(&self, path: &Path) -> io::Result<(UnixStream, u32)> {
        let handle = self.resolve(path)?;
        expect(&handle, FileType::Socket, "not a socket")?;
        let stream = connect_at_once(Path::new(&own_link(&handle)))?;
        let listener = listener(&stream)?;
        Ok((stream, listener))
    }

    fn resolve(&self, path: &Path) -> io::Result<OwnedFd> {
        // Neither a link nor `..` leads out of the process' root, or out of
        // its working directory where the path is relative.
        let (base, how) = if path.is_absolute() {
            ("root", ResolveFlags::IN_ROOT)
        } else {
            ("cwd", ResolveFlags::BENEATH)
        };
        let how = how | ResolveFlags::NO_MAGICLINKS;
        let base = open_dir(&self.dir, Path::new(base))?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        Ok(openat2(base, path, flags, Mode::empty(), how)?)
    }
}

/// Connects to a stream socket of this host. Does not wait where the listener
/// is busy.
///
/// # Errors
/// When there is no such socket, nobody listens, or its backlog is full.
pub fn connect_at_once(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn expect(handle: impl AsFd, kind: FileType, otherwise: &'static str) -> io::Result<()> {
    if FileType::from_raw_mode(fstat(handle)?.st_mode) == kind {
        Ok(())
    } else {
        Err(invalid(otherwise))
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// Opens for reading what an `O_PATH` handle refers to, without looking its
/// path up a second time. A pipe that took its place would not block this.
fn reopen(handle: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(open(own_link(handle), flags, Mode::empty())?)
}

fn own_link(handle: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", handle.as_raw_fd())
}

/// `SO_PEERCRED`: for a client, who called listen(2).
fn listener(stream: &UnixStream) -> io::Result<u32> {
    let mut credentials = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>())
        .map_err(|_| invalid("size of the peer's credentials"))?;
    // SAFETY: the descriptor is open as long as `stream` lives; the kernel
    // writes at most `length` bytes, which is the size of `credentials`, and
    // any bytes are a valid `ucred`, which is three integers.
    let status = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    u32::try_from(credentials.pid).map_err(|_| invalid("pid of the peer"))
}
