//! Files of a small writer, of which each byte is known, and those that others published.

use super::fields::Order;
use super::*;
use crate::network::{EvidenceFrame, PcapNgWriter};
use crate::published::{corpus, files};
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};
use proptest::prelude::*;
use std::path::PathBuf;

/// Nanoseconds, bytes, length on the wire.
type Plain = (u64, Vec<u8>, u32);

/// All frames of a file, and how it ended.
fn read(bytes: &[u8]) -> (Vec<Plain>, String) {
    let mut found = Vec::new();
    let mut reader = match FrameReader::new(bytes) {
        Ok(reader) => reader,
        Err(error) => return (found, error.to_string()),
    };
    let end = loop {
        match reader.next() {
            Ok(Some(frame)) => found.push((frame.wall_ns, frame.bytes.to_vec(), frame.wire_len)),
            Ok(None) => break String::new(),
            Err(error) => break error.to_string(),
        }
    };
    assert_eq!(reader.count(), u64::try_from(found.len()).unwrap());
    (found, end)
}

/// Writes numbers in one byte order.
struct Out(Order, Vec<u8>);

impl Out {
    fn u16(&mut self, value: u16) -> &mut Self {
        let little = self.0 == Order::Little;
        self.bytes(&if little {
            value.to_le_bytes()
        } else {
            value.to_be_bytes()
        })
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        let little = self.0 == Order::Little;
        self.bytes(&if little {
            value.to_le_bytes()
        } else {
            value.to_be_bytes()
        })
    }

    fn halves(&mut self, value: u64) -> &mut Self {
        let half = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap();
        self.u32(half(value >> 32)).u32(half(value))
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.1.extend_from_slice(bytes);
        self
    }

    fn padded(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes(bytes);
        let padding = self.1.len().next_multiple_of(4) - self.1.len();
        self.bytes(&vec![0; padding])
    }

    fn option(&mut self, code: u16, value: &[u8]) -> &mut Self {
        self.u16(code).u16(value.len().try_into().unwrap());
        self.padded(value)
    }

    fn block(&mut self, kind: u32, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let mut body = Self(self.0, Vec::new());
        fill(&mut body);
        let total = u32::try_from(body.1.len() + 12).unwrap();
        self.u32(kind).u32(total).bytes(&body.1).u32(total)
    }

    fn section(&mut self, options: impl FnOnce(&mut Self)) -> &mut Self {
        self.block(0x0a0d_0d0a, |out| {
            out.u32(0x1a2b_3c4d).u16(1).u16(0).bytes(&[0xff; 8]);
            options(out);
        })
    }

    fn interface(&mut self, link: u16, options: impl FnOnce(&mut Self)) -> &mut Self {
        self.block(1, |out| {
            out.u16(link).u16(0).u32(0);
            options(out);
        })
    }

    fn enhanced(&mut self, interface: u32, ticks: u64, data: &[u8], wire_len: u32) -> &mut Self {
        let captured = u32::try_from(data.len()).unwrap();
        self.block(6, |out| {
            out.u32(interface).halves(ticks);
            out.u32(captured).u32(wire_len).padded(data);
        })
    }

    fn pcap(&mut self, magic: u32, network: u32) -> &mut Self {
        self.u32(magic).u16(2).u16(4).bytes(&[0; 8]);
        self.u32(65_535).u32(network)
    }
}

const ORDERS: [Order; 2] = [Order::Little, Order::Big];

/// What `fill` writes after a section's header, in both orders.
#[track_caller]
fn check(fill: impl Fn(&mut Out), expected: &[(u64, &[u8], u32)], end: &str) {
    for order in ORDERS {
        let mut out = Out(order, Vec::new());
        out.section(|_| {});
        fill(&mut out);
        let (found, ended) = read(&out.1);
        let found: Vec<_> = found.iter().map(|it| (it.0, &it.1[..], it.2)).collect();
        assert_eq!(found, expected, "{order:?}");
        assert_eq!(ended, end, "{order:?}");
    }
}

#[test]
fn options_need_no_end_and_texts_no_encoding() {
    let mut out = Out(Order::Little, Vec::new());
    out.section(|out| {
        out.option(1, b"\xff\xfe");
    })
    .interface(1, |out| {
        out.option(2, b"\xff\xff\xff");
    })
    .block(4, |out| {
        out.bytes(b"\xff\xff\xff\xff");
    })
    .enhanced(0, 7, b"frame", 5);
    assert_eq!(
        read(&out.1),
        (vec![(7000, b"frame".to_vec(), 5)], String::new())
    );
    let over = "it is damaged after 0 frames: an option that is longer than its block";
    check(
        |out| {
            out.interface(1, |out| {
                out.u16(2).u16(9);
            });
        },
        &[],
        over,
    );
}

#[test]
fn times_have_units_and_offsets() {
    let offset = |seconds: i64| {
        move |out: &mut Out| {
            let bytes = match out.0 {
                Order::Little => seconds.to_le_bytes(),
                Order::Big => seconds.to_be_bytes(),
            };
            out.interface(1, |out| {
                out.option(9, &[9]).option(14, &bytes);
            })
            .enhanced(0, 5_000_000_001, b"f", 1);
        }
    };
    check(offset(-3), &[(2_000_000_001, b"f", 1)], "");
    check(offset(3), &[(8_000_000_001, b"f", 1)], "");
    check(offset(i64::MIN), &[(0, b"f", 1)], "");
    check(offset(i64::MAX), &[(u64::MAX, b"f", 1)], "");
    let unit = |value: u8| {
        move |out: &mut Out| {
            out.interface(1, |out| {
                out.option(9, &[value]);
            })
            .enhanced(0, 3, b"f", 1);
        }
    };
    check(unit(0), &[(3_000_000_000, b"f", 1)], "");
    check(unit(0x81), &[(1_500_000_000, b"f", 1)], "");
    check(unit(0x7f), &[(0, b"f", 1)], "");
    check(unit(0xff), &[(0, b"f", 1)], "");
}

#[test]
fn obsolete_and_simple_packets_are_read() {
    let packets = |out: &mut Out| {
        out.interface(1, |_| {});
        out.block(2, |out| {
            out.u16(0).u16(0xffff).halves(1 << 33);
            out.u32(5).u32(60).padded(b"older");
        });
        out.block(3, |out| {
            out.u32(6).padded(b"simple");
        });
    };
    let at = (1 << 33) * 1000;
    check(packets, &[(at, b"older", 60), (at, b"simple", 6)], "");
    // Cut at the length that the interface captures.
    let cut = |out: &mut Out| {
        out.block(1, |out| {
            out.u16(1).u16(0).u32(4);
        });
        out.block(3, |out| {
            out.u32(60).padded(b"simp");
        });
    };
    check(cut, &[(0, b"simp", 60)], "");
}

#[test]
fn an_interface_of_an_unknown_link_type_is_passed_over() {
    for order in ORDERS {
        let mut out = Out(order, Vec::new());
        out.section(|_| {})
            .interface(274, |_| {})
            .interface(1, |_| {});
        out.enhanced(0, 1, b"unknown", 7)
            .enhanced(1, 2, b"known", 5);
        let mut reader = FrameReader::new(&out.1[..]).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().bytes, b"known");
        assert!(reader.next().unwrap().is_none());
        let why = "of interfaces whose link type is not read, as 274";
        assert_eq!(reader.unread(), (1, why.to_owned()));
    }
}

#[test]
fn a_block_of_any_length_is_passed_over() {
    let mut out = Out(Order::Little, Vec::new());
    out.section(|_| {}).interface(1, |_| {});
    let long = vec![0; MAX_LEN];
    out.enhanced(0, 1, &long, 1 << 24).block(99, |out| {
        out.bytes(&long);
    });
    out.enhanced(0, 2, b"next", 4);
    let mut reader = FrameReader::new(&out.1[..]).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().bytes, b"next");
    assert!(reader.next().unwrap().is_none());
    assert_eq!(reader.unread().0, 1);
    // A length that the file does not have takes no memory.
    let mut out = Out(Order::Little, Vec::new());
    out.section(|_| {}).u32(6).u32(0xffff_fff0).u32(0);
    assert_eq!(read(&out.1).1, "it is cut short after 0 frames");
}

#[test]
fn what_no_block_can_be_is_damage() {
    let two = "it is damaged after 0 frames: a block with two lengths";
    check(
        |out| {
            out.u32(9).u32(12).u32(16);
        },
        &[],
        two,
    );
    let none = "it is damaged after 0 frames: a block of no length";
    check(
        |out| {
            out.u32(9).u32(13).u32(13).u32(0);
        },
        &[],
        none,
    );
    check(
        |out| {
            out.u32(9).u32(8).u32(8);
        },
        &[],
        none,
    );
    let nobody = "it is damaged after 0 frames: a packet of an interface that is not described";
    check(
        |out| {
            out.enhanced(0, 1, b"f", 1);
        },
        &[],
        nobody,
    );
    let beyond = |out: &mut Out| {
        out.interface(1, |_| {});
        out.block(6, |out| {
            out.u32(0).halves(1).u32(5).u32(5).bytes(b"four");
        });
    };
    let longer = "it is damaged after 0 frames: a packet that is longer than its block";
    check(beyond, &[], longer);
}

#[test]
fn every_magic_of_pcap_is_read() {
    for order in ORDERS {
        let file = |magic, network, fraction| {
            let mut out = Out(order, Vec::new());
            out.pcap(magic, network).u32(3).u32(fraction).u32(5).u32(9);
            if magic == 0xa1b2_cd34 {
                out.bytes(&[0; 8]);
            }
            read(&out.bytes(b"frame").1)
        };
        let at = |ns| (vec![(ns, b"frame".to_vec(), 9)], String::new());
        assert_eq!(file(0xa1b2_c3d4, 1, 7), at(3_000_007_000));
        assert_eq!(file(0xa1b2_3c4d, 1, 7), at(3_000_000_007));
        assert_eq!(file(0xa1b2_cd34, 1, 7), at(3_000_007_000));
        // With a checksum of two bytes after each frame.
        assert_eq!(file(0xa1b2_c3d4, 0x1400_0001, 7), at(3_000_007_000));
        assert!(file(0xa1b2_c3d4, 105, 7).1.contains("link type is 105"));
        assert!(file(0xa1b2_c3d4, 1, 1_000_000).1.contains("fraction"));
    }
}

#[test]
fn links_become_ethernet() {
    #[track_caller]
    fn check(number: u32, data: &[u8], ether_type: [u8; 2], packet: &[u8]) {
        let mut made = Vec::new();
        let len = u32::try_from(data.len()).unwrap();
        let link = Link::of(number).unwrap();
        let (frame, wire_len) = link.make_ethernet(data, len, &mut made);
        assert_eq!(frame[12..], [&ether_type, packet].concat());
        assert_eq!(usize::try_from(wire_len).unwrap(), frame.len());
    }
    const V4: [u8; 2] = [8, 0];
    const V6: [u8; 2] = [0x86, 0xdd];
    check(101, b"\x60ip", V6, b"\x60ip");
    check(0, b"\x02\0\0\0\x45ip", V4, b"\x45ip");
    for number in [9, 50] {
        check(number, b"\xff\x03\0\x21\x45ip", V4, b"\x45ip");
        check(number, b"\0\x57\x60ip", V6, b"\x60ip");
        check(number, b"\x21\x45ip", V4, b"\x45ip");
        check(number, b"\xff\x03\xc0\x21lcp", [0x88, 0x0b], b"\xc0\x21lcp");
    }
}

#[test]
fn our_own_files_say_which_way_frames_went() {
    let ways = [
        Some(Direction::FromSandbox),
        Some(Direction::ToSandbox),
        None,
    ];
    let mut writer = PcapNgWriter::new(Vec::new(), "tap0").unwrap();
    for direction in ways {
        let frame = EvidenceFrame {
            wall_ns: 1,
            direction,
            bytes: b"fifteen bytes..",
            wire_len: 15,
            vlan: None,
        };
        writer.frame(&frame).unwrap();
    }
    let mut file = writer.finish(2, 3).unwrap();
    let directions = |file: &[u8]| {
        let mut reader = FrameReader::new(file).unwrap();
        let found: Vec<_> = ways
            .iter()
            .map(|_| reader.next().unwrap().unwrap().direction)
            .collect();
        assert!(reader.next().unwrap().is_none());
        assert_eq!(reader.drops(), 3);
        found
    };
    assert_eq!(directions(&file), ways);
    // What another program calls inbound may be what came to the sandbox.
    let at = file.windows(9).position(|it| it == b"sandtrace").unwrap();
    file[at..at + 9].copy_from_slice(b"otherwise");
    assert_eq!(directions(&file), [None; 3]);
}

/// Every capture of the corpora.
fn captures(test: &str) -> Vec<PathBuf> {
    let folders = ["zeek/traces", "ja4/pcap", "community-id/pcaps"];
    let folders = folders.iter().filter_map(|folder| corpus(test, folder));
    folders.flat_map(|folder| files(&folder)).collect()
}

/// What the library for both formats reads of a file's Ethernet frames.
fn by_library(bytes: &[u8]) -> Option<Vec<(Vec<u8>, u32)>> {
    let mut found = Vec::new();
    if bytes.starts_with(&pcapng::SECTION) {
        let mut reader = PcapNgReader::new(bytes).ok()?;
        while let Some(block) = reader.next_block() {
            match block.ok()? {
                Block::InterfaceDescription(it) if u32::from(it.linktype) != 1 => return None,
                Block::EnhancedPacket(it) => found.push((it.data.into_owned(), it.original_len)),
                _ => {}
            }
        }
    } else {
        let mut reader = PcapReader::new(bytes).ok()?;
        if u32::from(reader.header().datalink) != 1 {
            return None;
        }
        while let Some(packet) = reader.next_raw_packet() {
            let packet = packet.ok()?;
            found.push((packet.data.into_owned(), packet.orig_len));
        }
    }
    Some(found)
}

#[test]
fn published_captures_are_read_as_by_the_library() {
    let captures = captures("published_captures_are_read_as_by_the_library");
    let mut compared = 0;
    for path in &captures {
        let bytes = std::fs::read(path).unwrap();
        let Some(expected) = by_library(&bytes) else {
            continue;
        };
        let (found, end) = read(&bytes);
        let found: Vec<_> = found.into_iter().map(|it| (it.1, it.2)).collect();
        assert!(
            found == expected && end.is_empty(),
            "{}: {end}",
            path.display()
        );
        compared += 1;
    }
    assert!(captures.is_empty() || compared > 250, "{compared}");
}

fn frames() -> impl Strategy<Value = Vec<(u32, Vec<u8>, u16)>> {
    let len = prop_oneof![0_usize..200, Just(70_000)];
    let frame = (any::<u32>(), len.prop_map(|len| vec![7; len]), any::<u16>());
    prop::collection::vec(frame, 0..12)
}

proptest! {
    #[test]
    fn what_is_written_comes_back(frames in frames(), big: bool, modified: bool, unit in 0..4_u32) {
        let order = if big { Order::Big } else { Order::Little };
        let (mut classic, mut next) = (Out(order, Vec::new()), Out(order, Vec::new()));
        classic.pcap(if modified { 0xa1b2_cd34 } else { 0xa1b2_c3d4 }, 1);
        next.section(|_| {}).interface(1, |_| {});
        let mut expected = Vec::new();
        for (at, (seconds, data, wire_len)) in (0_u32..).zip(&frames) {
            let (len, wire_len) = (u32::try_from(data.len()).unwrap(), u32::from(*wire_len));
            classic.u32(*seconds).u32(at).u32(len).u32(wire_len);
            classic.bytes(if modified { &[0; 8] } else { &[] }).bytes(data);
            if at % 4 == unit {
                // Another section, in the other order, with what nobody reads in it.
                next.0 = if next.0 == Order::Big { Order::Little } else { Order::Big };
                next.section(|_| {}).block(0x0bad, |_| {}).interface(1, |_| {});
            }
            let micros = u64::from(*seconds) * 1_000_000 + u64::from(at);
            next.enhanced(0, micros, data, wire_len);
            expected.push((micros * 1000, data.clone(), wire_len));
        }
        prop_assert!(read(&classic.1) == (expected.clone(), String::new()));
        prop_assert!(read(&next.1) == (expected, String::new()));
        // A file that is cut has the frames before that.
        for file in [&classic.1, &next.1] {
            let (found, _) = read(&file[..file.len() / 2]);
            prop_assert!(found.len() <= frames.len());
        }
    }
}
