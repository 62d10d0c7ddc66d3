//! The kernel's own counters of a network interface.

use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::fs::File;
use std::io::{self, Read, Seek};

/// Counters of one interface as the host sees them: `rx` is what came out of
/// the sandbox, `tx` what went to it. Bytes are whole Ethernet frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes received by the host.
    pub rx_bytes: u64,
    /// Frames received by the host.
    pub rx_packets: u64,
    /// Bytes sent by the host.
    pub tx_bytes: u64,
    /// Frames that the host meant to send but the interface did not take.
    pub tx_dropped: u64,
    /// Frames sent by the host.
    pub tx_packets: u64,
}

/// The index of an interface of the calling thread's network namespace, or
/// `None` where there is none of that name.
///
/// # Errors
/// When the kernel gives no socket to ask with.
pub fn index(interface: &str) -> io::Result<Option<u32>> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    match name_to_index(&socket, interface) {
        Ok(index) => Ok(Some(index)),
        Err(Errno::NODEV) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// `/proc/net/dev` of the namespace in which it was opened.
#[derive(Debug)]
pub struct NetDev(File);

impl NetDev {
    /// Opens the counters of the calling thread's network namespace.
    ///
    /// # Errors
    /// When `/proc` is not mounted or not readable.
    pub fn open() -> io::Result<Self> {
        // `/proc/net` is that of the process' first thread; a thread that
        // entered another namespace must name itself.
        File::open("/proc/thread-self/net/dev").map(Self)
    }

    /// The counters of `interface`, or `None` where it does not exist (any more).
    ///
    /// # Errors
    /// When the kernel's file cannot be read.
    pub fn read(&mut self, interface: &str) -> io::Result<Option<Counters>> {
        let mut text = String::new();
        self.0.rewind()?;
        self.0.read_to_string(&mut text)?;
        Ok(find(&text, interface))
    }
}

/// Finds an interface in the text of `/proc/net/dev` (`net/core/net-procfs.c`):
/// `name:` and sixteen numbers, of which the first two and the ninth and
/// tenth are bytes and packets received and sent, the twelfth frames not sent.
fn find(text: &str, interface: &str) -> Option<Counters> {
    let numbers = text.lines().find_map(|line| {
        let (name, numbers) = line.rsplit_once(':')?;
        (name.trim() == interface).then_some(numbers)
    })?;
    let mut numbers = numbers
        .split_ascii_whitespace()
        .map(|number| number.parse().ok());
    let rx_bytes = numbers.next()??;
    let rx_packets = numbers.next()??;
    let tx_bytes = numbers.nth(6)??;
    let tx_packets = numbers.next()??;
    let tx_dropped = numbers.nth(1)??;
    Some(Counters {
        rx_bytes,
        rx_packets,
        tx_bytes,
        tx_dropped,
        tx_packets,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop
    lo:     100       2    0    0    0     0          0         0      300       4    0    5    0     0       0          0
 tap0:7 8 0 0 0 0 0 0 9 10 0 0 0 0 0 0
";

    #[test]
    fn counters_are_found_by_whole_name() {
        let lo = Counters {
            rx_bytes: 100,
            rx_packets: 2,
            tx_bytes: 300,
            tx_dropped: 5,
            tx_packets: 4,
        };
        let tap = Counters {
            rx_bytes: 7,
            rx_packets: 8,
            tx_bytes: 9,
            tx_dropped: 0,
            tx_packets: 10,
        };
        assert_eq!(find(TEXT, "lo"), Some(lo));
        assert_eq!(find(TEXT, "tap0"), Some(tap));
        assert_eq!(find(TEXT, "tap"), None);
    }

    #[test]
    fn loopback_has_counters() {
        assert!(NetDev::open().unwrap().read("lo").unwrap().is_some());
    }
    #[test]
    fn interfaces_have_indices() {
        assert_eq!(index("lo").unwrap(), Some(1));
        assert_eq!(index("none-such").unwrap(), None);
        assert_eq!(index("a name that is far too long").unwrap(), None);
    }
}
