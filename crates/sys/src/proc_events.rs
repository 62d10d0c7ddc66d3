//! Processes as they begin and end, told by the kernel's process connector
//! (linux/cn_proc.h). Needs `CAP_NET_ADMIN`, and works only in the first PID
//! namespace.

use crate::netlink::{self, messages, u32_at};
use crate::netns::within;
use crate::pidns;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::CONNECTOR;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What happened to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcEvent {
    /// It runs another program.
    Exec(u32),
    /// It ended.
    Exit(u32),
    /// The kernel had no room: events are missing.
    Lost,
}

/// A subscription.
#[derive(Debug)]
pub struct ProcEvents(OwnedFd);

/// `CN_IDX_PROC`, which is also its group, and `CN_VAL_PROC`.
const PROC: u32 = 1;
/// `PROC_CN_MCAST_LISTEN`.
const LISTEN: u32 = 1;
/// Types of events.
const ACKNOWLEDGED: u32 = 0;
const EXEC: u32 = 2;
const EXIT: u32 = 0x8000_0000;
/// `NLMSG_DONE` is what the connector uses for its messages.
const CONNECTOR_MESSAGE: u16 = netlink::DONE;
/// Size of a `struct cn_msg`, and where the data of an event begins after it.
const HEAD: usize = 20;
const DATA: usize = HEAD + 16;
/// Room for events that wait, in bytes.
const BUFFER: usize = 4 << 20;

/// The first network namespace, the only one with a connector. It is that of
/// kthreadd, which is process 2 of the first PID namespace and stays where the
/// kernel began; process 1 may have moved.
const FIRST: &str = "/proc/2/ns/net";

impl ProcEvents {
    /// Begins to listen.
    ///
    /// # Errors
    /// Without `CAP_NET_ADMIN`, outside of the first PID namespace, or where
    /// the kernel was built without `CONFIG_PROC_EVENTS`.
    pub fn open() -> io::Result<Self> {
        // Where somebody else listens they come in any namespace, with the
        // first one's numbers, which here are those of other processes.
        if !pidns::is_initial() {
            let why = "they have the ids of the first PID namespace, and this is another";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        match Self::open_here() {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                let first = within(Some(Path::new(FIRST)), Self::open_here);
                // Why it cannot be entered says less.
                first.unwrap_or(Err(error))
            }
            opened => opened,
        }
    }

    fn open_here() -> io::Result<Self> {
        let socket = netlink::open(Some(CONNECTOR), PROC)?;
        let forced = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER);
        if forced.is_err() {
            rustix::net::sockopt::set_socket_recv_buffer_size(&socket, BUFFER)?;
        }
        let mut body = Vec::with_capacity(HEAD + 4);
        for number in [PROC, PROC, 0, 0] {
            body.extend(u32::to_ne_bytes(number));
        }
        body.extend(4_u16.to_ne_bytes());
        body.extend(0_u16.to_ne_bytes());
        body.extend(LISTEN.to_ne_bytes());
        netlink::request(&socket, CONNECTOR_MESSAGE, 0, &body)?;
        // Where it does not work the kernel says nothing at all.
        let events = Self(socket);
        let patience = Timespec {
            tv_sec: 0,
            tv_nsec: 200_000_000,
        };
        if poll(
            &mut [PollFd::new(&events.0, PollFlags::IN)],
            Some(&patience),
        )? == 0
        {
            let why = "the kernel's process connector does not answer";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        Ok(events)
    }

    /// Hands over what has happened since the last call; does not wait.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn read(&mut self, mut event: impl FnMut(ProcEvent)) -> io::Result<()> {
        loop {
            match netlink::receive(&self.0) {
                Ok(datagram) => parse(&datagram, &mut event),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => event(ProcEvent::Lost),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Only the first thread of a process counts: of any other the end is no
/// end, and its exec makes it the first.
fn parse(datagram: &[u8], event: &mut impl FnMut(ProcEvent)) {
    for (_, body) in messages(datagram) {
        let fields = (
            u32_at(body, HEAD),
            u32_at(body, DATA),
            u32_at(body, DATA + 4),
        );
        match fields {
            (Some(EXEC), Some(_), Some(process)) => event(ProcEvent::Exec(process)),
            (Some(EXIT), Some(thread), Some(process)) if thread == process => {
                event(ProcEvent::Exit(process));
            }
            (Some(ACKNOWLEDGED), _, _) => {}
            _ => {}
        }
    }
}

impl AsFd for ProcEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::{Duration, Instant};

    #[test]
    fn a_program_is_seen_to_start_and_to_end() {
        let mut events = match ProcEvents::open() {
            Ok(events) => events,
            Err(error) => {
                println!("skipped: a_program_is_seen_to_start_and_to_end: {error}");
                return;
            }
        };
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let mut wanted = vec![ProcEvent::Exec(child.id()), ProcEvent::Exit(child.id())];
        let deadline = Instant::now() + Duration::from_secs(5);
        while !wanted.is_empty() {
            assert!(Instant::now() < deadline, "{wanted:?}");
            events
                .read(|seen| wanted.retain(|event| *event != seen))
                .unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
