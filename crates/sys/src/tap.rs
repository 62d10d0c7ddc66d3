//! The far end of a tap: what a VMM holds (Documentation/networking/tuntap.rst).

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

/// Interface names are at most 15 bytes and a NUL.
const NAME_SIZE: usize = libc::IFNAMSIZ;

/// An open tap without packet information headers: each write is one Ethernet
/// frame from the sandbox, each read one frame to it.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    name: String,
}

impl Tap {
    /// Attaches to the tap of this name in the calling thread's network
    /// namespace, or makes one that lasts as long as the value. Reads do not
    /// block.
    ///
    /// # Errors
    /// When the name is empty, too long, holds a NUL, `/` or a pattern for the
    /// kernel to fill in, when CAP_NET_ADMIN is missing, or when the tap is
    /// already held.
    pub fn open(name: &str) -> io::Result<Self> {
        Self::open_as(name, 0)
    }

    fn open_as(name: &str, more: libc::c_int) -> io::Result<Self> {
        let mut request = request(name, more)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")?;
        // SAFETY: `file` keeps the descriptor open during the call; TUNSETIFF
        // reads and writes exactly one `ifreq`, and `request` is one that
        // lives until after the call.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            fd: OwnedFd::from(file),
            name: name.to_owned(),
        })
    }

    /// Like [`open`](Self::open), with a `virtio_net_hdr` of ten bytes before each
    /// frame (linux/virtio_net.h), as VMMs have it whose guests negotiated
    /// offloads: sums that are not made yet, and frames of many segments, both ways.
    ///
    /// # Errors
    /// As for [`open`](Self::open), or where the kernel refuses the offloads.
    pub fn open_with_offloads(name: &str) -> io::Result<Self> {
        /// `TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6` of linux/if_tun.h.
        const OFFLOADS: libc::c_ulong = 1 | 2 | 4;
        let tap = Self::open_as(name, libc::IFF_VNET_HDR)?;
        // SAFETY: the descriptor is open, and TUNSETOFFLOAD takes its argument by value.
        let result = unsafe { libc::ioctl(tap.fd.as_raw_fd(), libc::TUNSETOFFLOAD, OFFLOADS) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(tap)
    }

    /// The interface's name on the host.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn request(name: &str, more: libc::c_int) -> io::Result<libc::ifreq> {
    let fits = (1..NAME_SIZE).contains(&name.len());
    if !fits
        || !name
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"/%:".contains(&b))
    {
        let why = format!("{name:?} is not an interface name");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut ifr_name = [0; NAME_SIZE];
    for (slot, byte) in ifr_name.iter_mut().zip(name.bytes()) {
        *slot = libc::c_char::try_from(byte).unwrap_or_default();
    }
    let flags = libc::c_short::try_from(libc::IFF_TAP | libc::IFF_NO_PI | more).unwrap_or_default();
    Ok(libc::ifreq {
        ifr_name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netdev::NetDev;
    use rustix::thread::{UnshareFlags, unshare_unsafe};

    #[test]
    fn odd_names_are_refused() {
        for name in ["", "sixteen-bytes-xx", "a/b", "tap%d", "a b", "a\0b", "tüp"] {
            let error = Tap::open(name).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
    }

    #[test]
    fn a_tap_lasts_as_long_as_its_value() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: a_tap_lasts_as_long_as_its_value: not root");
            return;
        }
        // On a thread of its own: the namespace ends with it.
        std::thread::spawn(|| {
            // SAFETY: this thread shares no file descriptor table with code
            // that would miss it; only its network namespace changes.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            let present = || {
                let counters = NetDev::open().unwrap().read("st-tap-test").unwrap();
                counters.is_some()
            };
            let tap = Tap::open("st-tap-test").unwrap();
            assert_eq!(tap.name(), "st-tap-test");
            assert!(present());
            assert!(Tap::open("st-tap-test").is_err(), "held twice");
            drop(tap);
            assert!(!present());
        })
        .join()
        .unwrap();
    }
}
