//! One TCP conversation as a guest's kernel would have it (RFC 9293), on a wire
//! that loses nothing.

use super::machine::checksum;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The guest's address in every sandbox.
const GUEST: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 21);

/// What it asks.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n";

/// Longest wait for the other side.
const PATIENCE: Duration = Duration::from_secs(5);

const FIN: u8 = 1;
const SYN: u8 = 2;
const PSH: u8 = 8;
const ACK: u8 = 16;

/// A segment of the other side's.
struct Segment {
    sequence: u32,
    flags: u8,
    length: u32,
}

/// One end of a conversation.
struct Client<'a> {
    tap: &'a File,
    to: SocketAddrV4,
    port: u16,
    /// What it sends next.
    sequence: u32,
    /// What it expects next.
    expected: u32,
}

/// Connects, asks, reads to the end and closes.
pub(super) fn converse(tap: &File, to: SocketAddrV4) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_micros());
    let mut client = Client {
        tap,
        to,
        // Another one than the guest's before, whose connection may linger.
        port: 32_768 + u16::try_from(now % 28_000).unwrap_or(0),
        sequence: 1000,
        expected: 0,
    };
    client.send(SYN, &[])?;
    client.sequence += 1;
    let answer = client.receive(|segment| segment.flags & SYN != 0)?;
    client.expected = answer.sequence.wrapping_add(1);
    client.send(ACK, &[])?;
    client.send(PSH | ACK, REQUEST)?;
    client.sequence += u32::try_from(REQUEST.len()).unwrap_or(0);
    loop {
        let next = client.expected;
        let segment = client
            .receive(|it| it.sequence == next && it.length + u32::from(it.flags & FIN) > 0)?;
        let end = u32::from(segment.flags & FIN);
        client.expected = next.wrapping_add(segment.length).wrapping_add(end);
        client.send(if end == 1 { FIN | ACK } else { ACK }, &[])?;
        if end == 1 {
            return Ok(());
        }
    }
}

impl Client<'_> {
    fn send(&self, flags: u8, data: &[u8]) -> io::Result<()> {
        let mut tcp = [self.port.to_be_bytes(), self.to.port().to_be_bytes()].concat();
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.expected.to_be_bytes());
        // Five words of header, a window, no sum yet, nothing urgent.
        tcp.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(data);
        let length = u16::try_from(tcp.len()).unwrap_or(0);
        let mut summed = [GUEST.octets(), self.to.ip().octets()].concat();
        summed.extend([0, 6]);
        summed.extend(length.to_be_bytes());
        summed.extend(&tcp);
        tcp.splice(16..18, checksum(&summed).to_be_bytes());
        let mut ip = vec![0x45, 0];
        ip.extend((20 + length).to_be_bytes());
        ip.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        ip.extend(GUEST.octets());
        ip.extend(self.to.ip().octets());
        let sum = checksum(&ip);
        ip.splice(10..12, sum.to_be_bytes());
        let ethernet = [2, 0xfc, 0, 0, 0, 1, 2, 0xfc, 0, 0, 0, 5, 8, 0];
        let frame = [&ethernet[..], &ip, &tcp].concat();
        let mut tap = self.tap;
        tap.write_all(&frame)
    }

    fn receive(&self, wanted: impl Fn(&Segment) -> bool) -> io::Result<Segment> {
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = [0; 2048];
        let mut tap = self.tap;
        while Instant::now() < deadline {
            match tap.read(&mut buffer) {
                Ok(read) => {
                    let segment = buffer.get(..read).and_then(|frame| self.parse(frame));
                    if let Some(segment) = segment.filter(&wanted) {
                        return Ok(segment);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// `None` for whatever else is on the wire.
    fn parse(&self, frame: &[u8]) -> Option<Segment> {
        let ip = frame.get(14..)?;
        let is_ours = frame.get(12..14)? == [8, 0]
            && *ip.get(9)? == 6
            && ip.get(12..16)? == self.to.ip().octets();
        let head = usize::from(*ip.first()? & 15) * 4;
        let total = usize::from(u16::from_be_bytes(*ip.get(2..)?.first_chunk()?));
        let tcp = ip.get(head..total)?;
        let ports = [self.to.port().to_be_bytes(), self.port.to_be_bytes()].concat();
        if !is_ours || tcp.get(..4)? != ports {
            return None;
        }
        let data = usize::from(*tcp.get(12)? >> 4) * 4;
        Some(Segment {
            sequence: u32::from_be_bytes(*tcp.get(4..)?.first_chunk()?),
            flags: *tcp.get(13)?,
            length: u32::try_from(tcp.len().checked_sub(data)?).ok()?,
        })
    }
}
