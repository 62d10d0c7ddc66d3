//! Sockets that take what was meant for others.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Makes a socket one that hears and sends by an interface alone
/// (`SO_BINDTODEVICE`, socket(7)) and may answer in the place of any address
/// (`IP_TRANSPARENT`, ip(7)); so do the connections that it accepts.
///
/// # Errors
/// Without `CAP_NET_ADMIN`, or without such an interface in the calling thread's
/// network namespace.
pub fn intercept(socket: impl AsFd, interface: &str) -> io::Result<()> {
    let socket = socket.as_fd();
    let device = interface.as_bytes();
    set(socket, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, device)?;
    let on: libc::c_int = 1;
    let transparent = on.to_ne_bytes();
    set(socket, libc::SOL_IP, libc::IP_TRANSPARENT, &transparent)
}

fn set(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &[u8],
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len());
    let length = length.map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the option's value is the `length` bytes of `value`, which the
    // kernel copies during the call; `socket` keeps its descriptor open.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
