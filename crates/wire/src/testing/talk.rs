//! Conversations as frames.

use crate::Direction::{self, FromSandbox, ToSandbox};
use etherparse::PacketBuilder;

pub(crate) type Frames = Vec<(Direction, Vec<u8>)>;

pub(crate) const SANDBOX: [u8; 4] = [10, 0, 0, 2];
pub(crate) const SERVER: [u8; 4] = [192, 0, 2, 10];
pub(crate) const RESOLVER: [u8; 4] = [192, 0, 2, 53];

/// A TCP connection that the sandbox opens.
#[derive(Debug)]
pub(crate) struct Talk {
    client_port: u16,
    server: [u8; 4],
    server_port: u16,
    /// Next sequence numbers.
    pub(crate) client_seq: u32,
    pub(crate) server_seq: u32,
    pub(crate) frames: Frames,
}

impl Talk {
    /// A connection with its handshake done.
    pub(crate) fn open(client_port: u16, server_port: u16) -> Self {
        Self::open_from(0, client_port, server_port)
    }

    /// The same with sequence numbers that are so much higher.
    pub(crate) fn open_from(more: u32, client_port: u16, server_port: u16) -> Self {
        let mut talk = Self::mid_stream(client_port, server_port);
        talk.client_seq = talk.client_seq.wrapping_add(more);
        talk.server_seq = talk.server_seq.wrapping_add(more);
        talk.client_seq = talk.client_seq.wrapping_sub(1);
        talk.server_seq = talk.server_seq.wrapping_sub(1);
        talk.push(FromSandbox, "S", &[]);
        talk.client_seq = talk.client_seq.wrapping_add(1);
        talk.push(ToSandbox, "SA", &[]);
        talk.server_seq = talk.server_seq.wrapping_add(1);
        talk.push(FromSandbox, "A", &[]);
        talk
    }

    /// A connection whose handshake was not seen.
    pub(crate) fn mid_stream(client_port: u16, server_port: u16) -> Self {
        Self {
            client_port,
            server: SERVER,
            server_port,
            // So that both wrap within a short talk.
            client_seq: u32::MAX - 2000,
            server_seq: u32::MAX - 700,
            frames: Vec::new(),
        }
    }

    /// The client sends one segment.
    pub(crate) fn client(mut self, payload: &[u8]) -> Self {
        self.push(FromSandbox, "PA", payload);
        self.client_seq = self.client_seq.wrapping_add(payload.len() as u32);
        self
    }

    /// The client sends segments of at most `size` bytes.
    pub(crate) fn client_in(self, size: usize, payload: &[u8]) -> Self {
        payload.chunks(size).fold(self, Self::client)
    }

    /// The server sends one segment.
    pub(crate) fn server(mut self, payload: &[u8]) -> Self {
        self.push(ToSandbox, "PA", payload);
        self.server_seq = self.server_seq.wrapping_add(payload.len() as u32);
        self
    }

    /// The server sends a segment before it has the client's last `less` bytes.
    pub(crate) fn server_acking_less(mut self, less: u32, payload: &[u8]) -> Self {
        let next = self.client_seq;
        self.client_seq = next.wrapping_sub(less);
        let mut talk = self.server(payload);
        talk.client_seq = next;
        talk
    }

    /// Both sides end the connection, the client first.
    pub(crate) fn fin(mut self) -> Self {
        self.push(FromSandbox, "FA", &[]);
        self.client_seq = self.client_seq.wrapping_add(1);
        self.push(ToSandbox, "FA", &[]);
        self.server_seq = self.server_seq.wrapping_add(1);
        self.push(FromSandbox, "A", &[]);
        self
    }

    /// The server aborts the connection.
    pub(crate) fn reset(mut self) -> Self {
        self.push(ToSandbox, "RA", &[]);
        self
    }

    /// The client aborts the connection.
    pub(crate) fn client_resets(mut self) -> Self {
        self.push(FromSandbox, "R", &[]);
        self
    }

    /// A client segment at an offset from the next sequence number, which stays.
    pub(crate) fn client_at(mut self, offset: i32, payload: &[u8]) -> Self {
        let next = self.client_seq;
        self.client_seq = next.wrapping_add_signed(offset);
        self.push(FromSandbox, "PA", payload);
        self.client_seq = next;
        self
    }

    fn push(&mut self, direction: Direction, flags: &str, payload: &[u8]) {
        let (from, to, ports, seq, ack) = match direction {
            FromSandbox => (
                SANDBOX,
                self.server,
                (self.client_port, self.server_port),
                self.client_seq,
                self.server_seq,
            ),
            ToSandbox => (
                self.server,
                SANDBOX,
                (self.server_port, self.client_port),
                self.server_seq,
                self.client_seq,
            ),
        };
        let mut builder = PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4(from, to, 64)
            .tcp(ports.0, ports.1, seq, 65_535);
        for flag in flags.chars() {
            builder = match flag {
                'S' => builder.syn(),
                'A' => builder.ack(ack),
                'F' => builder.fin(),
                'R' => builder.rst(),
                _ => builder.psh(),
            };
        }
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).unwrap();
        self.frames.push((direction, frame));
    }
}

/// A UDP datagram between the sandbox's port and a peer's.
pub(crate) fn datagram(
    direction: Direction,
    port: u16,
    peer: [u8; 4],
    peer_port: u16,
    payload: &[u8],
) -> (Direction, Vec<u8>) {
    let (from, to, ports) = match direction {
        FromSandbox => (SANDBOX, peer, (port, peer_port)),
        ToSandbox => (peer, SANDBOX, (peer_port, port)),
    };
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(from, to, 64)
        .udp(ports.0, ports.1)
        .write(&mut frame, payload)
        .unwrap();
    (direction, frame)
}

/// A DNS question for an address of `name`, or its answer.
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
