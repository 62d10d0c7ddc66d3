//! Frames as a guest writes them.

use crate::tap::{GUEST, GUEST_MAC};
use etherparse::PacketBuilder;

pub(crate) const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A TCP connection of the guest whose peer need not exist: its frames are
/// written one by one, with sequence numbers from 1000.
pub(crate) fn segment(
    to: [u8; 4],
    ports: (u16, u16),
    seq: u32,
    flags: &str,
    payload: &[u8],
) -> Vec<u8> {
    let mut builder = PacketBuilder::ethernet2(GUEST_MAC, HOST_MAC)
        .ipv4(GUEST, to, 64)
        .tcp(ports.0, ports.1, seq, 65_000);
    for flag in flags.chars() {
        builder = match flag {
            'S' => builder.syn(),
            'A' => builder.ack(500),
            'F' => builder.fin(),
            _ => builder.psh(),
        };
    }
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

pub(crate) fn datagram(to: [u8; 4], ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(GUEST_MAC, HOST_MAC)
        .ipv4(GUEST, to, 64)
        .udp(ports.0, ports.1)
        .write(&mut frame, payload)
        .unwrap();
    frame
}

/// A DNS question for the address of `name`, or the answer to it.
pub(crate) fn dns(id: u16, name: &str, answer: Option<[u8; 4]>) -> Vec<u8> {
    let flags: u16 = if answer.is_some() { 0x8180 } else { 0x0100 };
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend([0, 1, 0, u8::from(answer.is_some()), 0, 0, 0, 0]);
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    if let Some(address) = answer {
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        bytes.extend(address);
    }
    bytes
}

/// An HTTPS question for `name` (RFC 9460), or the answer that `target` stands for it.
pub(crate) fn https(id: u16, name: &str, target: Option<&str>) -> Vec<u8> {
    let mut bytes = dns(id, name, None);
    // The type, before the class.
    let at = bytes.len() - 3;
    bytes[at] = 65;
    if let Some(target) = target {
        (bytes[2], bytes[3], bytes[7]) = (0x81, 0x80, 1);
        let labels = target.split('.');
        let labels = labels.flat_map(|it| [&[it.len() as u8], it.as_bytes()].concat());
        let data: Vec<u8> = [0, 0].into_iter().chain(labels).chain([0]).collect();
        bytes.extend([0xc0, 12, 0, 65, 0, 1, 0, 0, 0, 60]);
        bytes.extend(vec16(&data));
    }
    bytes
}

pub(crate) fn vec16(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u16).to_be_bytes(), body].concat()
}

/// A record with a ClientHello for `name` and `padding` bytes of an extension.
pub(crate) fn hello(name: &str, padding: usize) -> Vec<u8> {
    hello_with(name, padding, &[])
}

/// The same with more extensions.
pub(crate) fn hello_with(name: &str, padding: usize, more: &[(u16, &[u8])]) -> Vec<u8> {
    let more = more.iter().flat_map(|(kind, body)| {
        let kind = kind.to_be_bytes();
        [&kind[..], &vec16(body)].concat()
    });
    let more: Vec<u8> = more.collect();
    let server_name = vec16(&[&[0], &vec16(name.as_bytes())[..]].concat());
    let extensions = [
        &[0, 21][..],
        &vec16(&vec![0; padding]),
        &[0, 0],
        &vec16(&server_name),
        &[0, 43, 0, 3, 2, 3, 4],
        &more,
    ]
    .concat();
    let body = [
        &[3, 3][..],
        &[9; 32],
        &[0, 0, 2, 0x13, 1, 1, 0],
        &vec16(&extensions),
    ]
    .concat();
    let length = (body.len() as u32).to_be_bytes();
    let message = [&[1], &length[1..], &body].concat();
    [&[22, 3, 1], &vec16(&message)[..]].concat()
}

/// An Ethernet frame with IPv4 in fragments of `size` bytes, a multiple of 8.
pub(crate) fn fragments(frame: &[u8], size: usize, id: u16) -> Vec<Vec<u8>> {
    let (header, payload) = frame.split_at(34);
    let count = payload.len().div_ceil(size);
    let parts = payload.chunks(size).enumerate().map(|(number, part)| {
        let mut header = header.to_vec();
        header[16..18].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
        header[18..20].copy_from_slice(&id.to_be_bytes());
        let more = if number + 1 < count { 0x2000 } else { 0 };
        let field = more | (number * size / 8) as u16;
        header[20..22].copy_from_slice(&field.to_be_bytes());
        [&header[..], part].concat()
    });
    parts.collect()
}

/// Puts tags between the addresses and the EtherType.
pub(crate) fn tagged(frame: &[u8], tags: &[[u8; 4]]) -> Vec<u8> {
    [&frame[..12], &tags.concat(), &frame[12..]].concat()
}
