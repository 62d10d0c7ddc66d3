//! How much of each frame the kernel keeps: a classic BPF program
//! (Documentation/networking/filter.rst), which remembers nothing between frames.
//!
//! A frame that fits is kept whole. Longer ones are many segments in one, as offloads
//! hand them over, and copying those is most of what a ring costs their sender. Of one
//! that may begin something that is read, as much as fits is kept, and of one amid a
//! stream little more than its headers. Bytes are counted by the length on the wire
//! either way, and that a start could not be read is told by whoever reads. frames.bpf.c
//! decides the same (`begins_nothing`).

use libc::sock_filter;

/// What is kept of a long frame that begins nothing, in bytes: the longest headers
/// (Ethernet, IPv4 and TCP with all their options) take 134.
pub(super) const HEADERS: u32 = 256;

const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86dd;
const TCP: u32 = 6;
const UDP: u32 = 17;
/// Ports at which whatever passes is read: DNS and tunnels, as frames.bpf.c has them.
const READ_PORTS: [u32; 7] = [53, 2152, 3544, 4754, 4789, 5072, 6081];
/// The first byte of a TLS record of application data (RFC 8446 section 5.1); of those
/// with handshakes it is 22.
const APPLICATION_DATA: u32 = 23;
/// Set in the first byte of QUIC's long headers (RFC 9000 section 17.2).
const LONG_HEADER: u32 = 0x80;

/// Where the program goes on.
#[derive(Clone, Copy)]
enum To {
    Next,
    /// Past so many instructions more.
    Past(u8),
    /// To the end: what fits is kept.
    Fitting,
    /// To the end: the headers are.
    Headers,
}
use To::{Fitting, Headers, Next, Past};

#[derive(Clone, Copy)]
enum Step {
    /// An instruction that goes on to the next: its code, and its operand.
    Do(u32, u32),
    /// A comparison of the accumulator: its code, its operand, where to if so and if not.
    If(u32, u32, To, To),
}
use Step::{Do, If};

const LENGTH: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_LEN;
const BYTE_AT: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const HALF_AT: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
/// The same behind the index register.
const BYTE_BEHIND: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_IND;
const HALF_BEHIND: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
/// The index register is four times the low half of the byte there.
const INDEX_BY_WORDS: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
const NUMBER: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_IMM;
const TO_INDEX: u32 = libc::BPF_MISC | libc::BPF_TAX;
const OF_INDEX: u32 = libc::BPF_MISC | libc::BPF_TXA;
const ADD: u32 = libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K;
const ADD_INDEX: u32 = libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const RIGHT: u32 = libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K;
const STORE: u32 = libc::BPF_ST;
const STORED: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_MEM;
const IS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IS_OVER: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
const REACHES: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const HAS_BITS: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// Nothing is kept of any frame.
pub(super) fn nothing() -> Vec<sock_filter> {
    vec![instruction(RETURN, 0, 0, 0)]
}

/// Frames of up to `whole` bytes are kept whole; of longer ones that many bytes are, or
/// [`HEADERS`] where they begin nothing. The kernel strips a VLAN tag before it asks.
pub(super) fn starts(whole: u32) -> Vec<sock_filter> {
    // A load from behind the frame's end would throw the frame away: all of them are
    // within the longest headers, and whoever comes here is longer than those.
    let whole = whole.max(HEADERS);
    let mut steps = vec![
        Do(LENGTH, 0),
        If(IS_OVER, whole, Next, Fitting),
        Do(HALF_AT, 12),
        If(IS, IPV4, Next, Past(8)),
        // More fragments, or one behind others.
        Do(HALF_AT, 20),
        If(HAS_BITS, 0x3fff, Fitting, Next),
        Do(BYTE_AT, 23),
        Do(STORE, 0),
        Do(INDEX_BY_WORDS, 14),
        Do(OF_INDEX, 0),
        Do(ADD, 14),
        // Always so: on where both meet.
        If(REACHES, 0, Past(4), Next),
        If(IS, IPV6, Next, Fitting),
        Do(BYTE_AT, 20),
        Do(STORE, 0),
        Do(NUMBER, 54),
        // The index is where the transport's header is.
        Do(TO_INDEX, 0),
    ];
    for side in [0, 2] {
        steps.push(Do(HALF_BEHIND, side));
        steps.extend(READ_PORTS.map(|port| If(IS, port, Fitting, Next)));
    }
    steps.extend([
        Do(STORED, 0),
        If(IS, TCP, Past(3), Next),
        If(IS, UDP, Next, Fitting),
        Do(BYTE_BEHIND, 8),
        If(REACHES, LONG_HEADER, Fitting, Headers),
        // The payload's place: 4 bytes for each of the words that the high half says.
        Do(BYTE_BEHIND, 12),
        Do(RIGHT, 2),
        Do(AND, 0x3c),
        Do(ADD_INDEX, 0),
        Do(TO_INDEX, 0),
        Do(BYTE_BEHIND, 0),
        // Words in capitals, as requests and commands begin, or small numbers, as
        // records of TLS, SOCKS and the lengths of DNS messages.
        If(IS_OVER, b'Z'.into(), Headers, Next),
        If(REACHES, b'A'.into(), Fitting, Next),
        If(IS, APPLICATION_DATA, Headers, Next),
        If(REACHES, b' '.into(), Headers, Fitting),
    ]);
    let count = steps.len();
    let mut program: Vec<sock_filter> = (0..count)
        .zip(steps)
        .map(|(at, step)| {
            let jump = |to: To| match to {
                Next => 0,
                Past(count) => count,
                Fitting => distance(count - at - 1),
                Headers => distance(count - at),
            };
            match step {
                Do(code, operand) => instruction(code, operand, 0, 0),
                If(code, operand, yes, no) => instruction(code, operand, jump(yes), jump(no)),
            }
        })
        .collect();
    program.push(instruction(RETURN, whole, 0, 0));
    program.push(instruction(RETURN, HEADERS, 0, 0));
    program
}

fn distance(instructions: usize) -> u8 {
    u8::try_from(instructions).unwrap_or(u8::MAX)
}

fn instruction(code: u32, operand: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter {
        // All codes are a few bits (linux/bpf_common.h).
        code: u16::try_from(code).unwrap_or(u16::MAX),
        jt,
        jf,
        k: operand,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
    use rustix::net::{recv, send, socketpair};

    const WHOLE: u32 = 4096;

    /// Bytes that the kernel keeps of a frame, by the program on a socket that hands
    /// over what it keeps.
    #[track_caller]
    fn kept(frame: &[u8]) -> usize {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None).unwrap();
        super::super::attach(&theirs, &mut starts(WHOLE)).unwrap();
        send(&ours, frame, SendFlags::empty()).unwrap();
        let mut buffer = vec![0; 70_000];
        let (kept, _) = recv(&theirs, &mut buffer[..], RecvFlags::empty()).unwrap();
        assert_eq!(buffer[..kept], frame[..kept]);
        kept
    }

    /// Headers and what they carry, which goes on with ones for `len` bytes.
    fn frame(
        version: u8,
        protocol: u8,
        words: u8,
        ports: [u16; 2],
        payload: &[u8],
        len: usize,
    ) -> Vec<u8> {
        let mut frame = vec![2; 12];
        if version == 4 {
            frame.extend([
                0x08,
                0x00,
                0x40 | words,
                0,
                0,
                0,
                0,
                0,
                0x40,
                0,
                64,
                protocol,
            ]);
            frame.resize(14 + usize::from(words) * 4, 0);
        } else {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, protocol, 64]);
            frame.resize(54, 0);
        }
        frame.extend(ports.map(u16::to_be_bytes).as_flattened());
        if protocol == 6 {
            frame.extend([0, 0, 0, 1, 0, 0, 0, 1, words << 4, 0x18]);
            frame.resize(frame.len() - 14 + usize::from(words) * 4, 0);
        } else {
            frame.extend([0; 4]);
        }
        frame.extend(payload);
        frame.resize(len, 0xff);
        frame
    }

    #[test]
    fn what_fits_is_whole_and_of_longer_ones_what_begins_something() {
        let (fits, cut) = (4096, HEADERS as usize);
        for version in [4, 6] {
            for words in 5..=15 {
                let tcp = |payload: &[u8], len| {
                    kept(&frame(version, 6, words, [4000, 443], payload, len))
                };
                assert_eq!(tcp(b"\x17\x03\x03", 4096), fits, "{version} {words}");
                for start in [
                    &b"GET /"[..],
                    b"\x16\x03\x01",
                    b"\x05\x01\0",
                    b"CONNECT",
                    b"\x01\x10",
                ] {
                    assert_eq!(tcp(start, 65_000), fits, "{version} {words} {start:?}");
                }
                for amid in [&b"\x17\x03\x03"[..], b"amid", b"\xff", b" x", b"[", b"@"] {
                    assert_eq!(tcp(amid, 65_000), cut, "{version} {words} {amid:?}");
                }
            }
            let udp = |ports, payload: &[u8]| kept(&frame(version, 17, 5, ports, payload, 65_000));
            assert_eq!(udp([4000, 443], b"\xc3\0\0\0\x01"), fits);
            assert_eq!(udp([4000, 443], b"\x43"), cut);
            for port in [53, 4789, 6081] {
                assert_eq!(udp([4000, port], b"\x08"), fits);
                assert_eq!(udp([port, 4000], b"\x08"), fits);
            }
        }
    }

    #[test]
    fn of_what_is_neither_plain_tcp_nor_udp_all_that_fits_is_kept() {
        let fits = 4096;
        assert_eq!(kept(&frame(4, 47, 5, [0, 0], &[], 65_000)), fits);
        assert_eq!(kept(&frame(6, 44, 5, [0, 0], &[], 65_000)), fits);
        let mut arp = frame(4, 6, 5, [0, 0], b"amid", 65_000);
        arp[13] = 6;
        assert_eq!(kept(&arp), fits);
        for fragment in [[0x20, 0], [0, 185]] {
            let mut frame = frame(4, 6, 5, [4000, 443], b"amid", 65_000);
            frame[20..22].copy_from_slice(&fragment);
            assert_eq!(kept(&frame), fits);
        }
        // Lengths that headers lie about lead nowhere else than into the frame.
        for words in 0..=15 {
            let mut frame = frame(4, 6, 5, [4000, 443], b"amid", 65_000);
            frame[14] = 0x40 | words;
            assert!(kept(&frame) >= HEADERS as usize);
        }
    }
}
