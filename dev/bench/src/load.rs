//! Frames that a sandbox would send, and a writer that sends them.

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use sandtrace_sys::tap::Tap;
use std::time::Duration;

/// Bytes of the smallest frame on the tap, without the frame check sequence.
pub(crate) const FRAME_BYTES: usize = 64;
/// Bytes of the largest, as a guest's network card hands them over unsegmented.
pub(crate) const MOST_BYTES: usize = 65_000;
/// The tap's address on the host, where that routes.
pub(crate) const HOST: &str = "10.9.0.1/24";
/// The MAC that frames go to.
pub(crate) const HOST_MAC: &str = "02:00:00:00:00:01";
/// Where the frames pretend to go (RFC 5737).
pub(crate) const PEER: [u8; 4] = [198, 51, 100, 9];
/// From where.
const SOURCE: [u8; 4] = [10, 9, 0, 2];
/// The discard service.
const PEER_PORT: u16 = 9;

/// An Ethernet frame of so many bytes with one UDP datagram from `port`.
pub(crate) fn frame(port: u16, bytes: usize) -> Vec<u8> {
    let bytes = bytes.clamp(FRAME_BYTES, MOST_BYTES);
    let udp_length = be16(bytes - 34);
    let ip_length = be16(bytes - 14);
    let ethernet = [0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x08, 0x00];
    let mut ip = [
        0x45,
        0,
        ip_length[0],
        ip_length[1],
        0,
        0,
        0x40,
        0,
        64,
        17,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    ip[12..16].copy_from_slice(&SOURCE);
    ip[16..20].copy_from_slice(&PEER);
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    let [from, to] = [port, PEER_PORT].map(u16::to_be_bytes);
    let udp = [
        from[0],
        from[1],
        to[0],
        to[1],
        udp_length[0],
        udp_length[1],
        0,
        0,
    ];
    let mut frame = vec![0; bytes];
    let header = ethernet.iter().chain(&ip).chain(&udp);
    for (slot, byte) in frame.iter_mut().zip(header) {
        *slot = *byte;
    }
    frame
}

fn be16(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

/// The internet checksum (RFC 1071).
fn checksum(header: &[u8]) -> [u8; 2] {
    let sum = header.chunks(2).fold(0_u32, |sum, pair| {
        let word = pair
            .iter()
            .fold(0, |word, byte| word << 8 | u32::from(*byte));
        sum + word
    });
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    u16::try_from(!folded & 0xffff).unwrap_or(0).to_be_bytes()
}

/// Sends one frame; waits where the tap has no room.
pub(crate) fn send(tap: &Tap, frame: &[u8]) -> Result<()> {
    loop {
        match rustix::io::write(tap, frame) {
            Ok(_) => return Ok(()),
            Err(Errno::AGAIN | Errno::INTR) => std::hint::spin_loop(),
            Err(error) => return Err(error).context("writing into the tap"),
        }
    }
}

/// Sends `count` frames as fast as it can, in turn over all of `frames`. Answers the
/// processor's time that it took: that of others who share the machine is not in it.
pub(crate) fn flood(tap: &Tap, frames: &[Vec<u8>], count: u64) -> Result<Duration> {
    let begun = spent();
    let mut turn = frames.iter().cycle();
    for _ in 0..count {
        if let Some(frame) = turn.next() {
            send(tap, frame)?;
        }
    }
    Ok(spent().saturating_sub(begun))
}

/// Time that this thread has had of a processor.
fn spent() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_whole() {
        let frame = frame(0x1234, FRAME_BYTES);
        assert_eq!(frame[14..18], [0x45, 0, 0, 50]);
        assert_eq!(frame[34..42], [0x12, 0x34, 0, 9, 0, 30, 0, 0]);
        // A correct header sums to zero.
        assert_eq!(checksum(&frame[14..34]), [0, 0]);
    }
}
