//! Frames out of a capture file: pcap and pcapng.

use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError, TsResolution};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, BufRead, ErrorKind, Read};

/// Why a capture file cannot be read, or cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It does not begin as a capture does.
    #[error("it is neither pcap nor pcapng")]
    NotACapture,
    /// The end of the file comes before the end of a packet.
    #[error("it is cut short after {frames} frames")]
    Cut {
        /// Frames before that.
        frames: u64,
    },
    /// A header or block is not what its format says.
    #[error("it is damaged after {frames} frames: {detail}")]
    Damaged {
        /// Frames before that.
        frames: u64,
        /// What is wrong.
        detail: String,
    },
    /// Its frames begin with a header that nothing here reads.
    #[error("its link type is {0}; only Ethernet, raw IP, loopback and Linux cooked are read")]
    LinkType(u32),
    /// The system could not read it.
    #[error(transparent)]
    Read(io::Error),
}

/// One frame of a file.
pub(super) struct FileFrame<'a> {
    /// Nanoseconds since 1970-01-01T00:00:00Z.
    pub(super) wall_ns: u64,
    /// From the Ethernet header on, which is made up where the file has none.
    pub(super) bytes: &'a [u8],
    pub(super) wire_len: u32,
}

/// Reads the frames of one file in their order, in bounded memory.
pub(super) struct FrameReader<R: BufRead> {
    format: Format<R>,
    frames: u64,
    /// A frame whose Ethernet header is made up.
    made: Vec<u8>,
    last_ns: u64,
    drops: Drops,
}

/// Frames that whoever wrote the file dropped, as its statistics say: the
/// latest of each interface of the section, and those of sections before.
#[derive(Default)]
struct Drops {
    past: u64,
    current: BTreeMap<u32, u64>,
}

impl Drops {
    fn section_ends(&mut self) {
        self.past = self.sum();
        self.current.clear();
    }

    fn sum(&self) -> u64 {
        let drops = self.current.values();
        drops.fold(self.past, |sum, drops| sum.saturating_add(*drops))
    }
}

enum Format<R: BufRead> {
    Pcap {
        reader: PcapReader<Short<R>>,
        link: Link,
        nanoseconds: bool,
    },
    PcapNg {
        reader: PcapNgReader<Short<R>>,
        interfaces: Vec<Interface>,
    },
}

/// Reads a little at a time. The readers of both formats fill buffers of 8 MB as far
/// as they can, which no cache holds: the kernel's copying took 30 % of a replay's
/// time, and takes 6 % so.
struct Short<R>(R);

/// Bytes read at once.
const AT_ONCE: usize = 64 * 1024;

impl<R: Read> Read for Short<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let some = buffer.len().min(AT_ONCE);
        self.0.read(buffer.get_mut(..some).unwrap_or_default())
    }
}

/// What stands before the network header, as far as it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Ethernet,
    /// Four bytes of address family.
    Loopback,
    RawIp,
    /// LINKTYPE_LINUX_SLL: 16 bytes, the EtherType last.
    Cooked,
    /// LINKTYPE_LINUX_SLL2: 20 bytes, the EtherType first.
    Cooked2,
}

/// How to understand the packets of one interface of a pcapng section.
#[derive(Clone, Copy)]
struct Interface {
    link: Link,
    units_per_second: u128,
    offset_s: u64,
}

/// Bytes at the start of every pcapng file (section header block).
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// Interfaces of one section; a file with more is no capture of ours.
const MAX_INTERFACES: usize = 4096;
const NS: u128 = 1_000_000_000;

impl<R: BufRead> FrameReader<R> {
    pub(super) fn new(mut source: R) -> Result<Self, FileError> {
        let is_pcapng = source.fill_buf().map_err(FileError::Read)?.get(..4) == Some(&PCAPNG);
        let failed = |error| match error {
            PcapError::IoError(error) if error.kind() != ErrorKind::UnexpectedEof => {
                FileError::Read(error)
            }
            _ => FileError::NotACapture,
        };
        let format = if is_pcapng {
            Format::PcapNg {
                reader: PcapNgReader::new(Short(source)).map_err(failed)?,
                interfaces: Vec::new(),
            }
        } else {
            let reader = PcapReader::new(Short(source)).map_err(failed)?;
            let header = reader.header();
            Format::Pcap {
                reader,
                link: Link::of(header.datalink)?,
                nanoseconds: header.ts_resolution == TsResolution::NanoSecond,
            }
        };
        Ok(Self {
            format,
            frames: 0,
            made: Vec::new(),
            last_ns: 0,
            drops: Drops::default(),
        })
    }

    /// Frames that are not in the file, as it says itself.
    pub(super) fn drops(&self) -> u64 {
        self.drops.sum()
    }

    /// Frames read so far.
    pub(super) fn count(&self) -> u64 {
        self.frames
    }

    /// The next frame; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<FileFrame<'_>>, FileError> {
        let Self {
            format,
            frames,
            made,
            last_ns,
            drops,
        } = self;
        let (bytes, wire_len) = match format {
            Format::Pcap {
                reader,
                link,
                nanoseconds,
            } => {
                // Raw, as the checked form refuses frames that were cut at the snap length.
                let Some(packet) = reader.next_raw_packet() else {
                    return Ok(None);
                };
                let packet = packet.map_err(|error| stopped(error, *frames))?;
                let unit_ns = if *nanoseconds { 1 } else { 1000 };
                *last_ns = (u64::from(packet.ts_sec) * 1_000_000_000)
                    .saturating_add(u64::from(packet.ts_frac) * unit_ns);
                match (*link, packet.data) {
                    (Link::Ethernet, Cow::Borrowed(data)) => (data, packet.orig_len),
                    (link, data) => link.make_ethernet(&data, packet.orig_len, made),
                }
            }
            Format::PcapNg { reader, interfaces } => loop {
                let Some(block) = reader.next_block() else {
                    return Ok(None);
                };
                let block = block.map_err(|error| stopped(error, *frames))?;
                if let Some(packet) = take_block(block, interfaces, last_ns, drops, *frames)? {
                    let (link, data, wire_len) = packet;
                    break link.make_ethernet(&data, wire_len, made);
                }
            },
        };
        *frames += 1;
        Ok(Some(FileFrame {
            wall_ns: *last_ns,
            bytes,
            wire_len,
        }))
    }
}

type LinkedPacket<'a> = (Link, Cow<'a, [u8]>, u32);

/// The packet in a block, if there is one; sets the time.
fn take_block<'a>(
    block: Block<'a>,
    interfaces: &mut Vec<Interface>,
    last_ns: &mut u64,
    drops: &mut Drops,
    frames: u64,
) -> Result<Option<LinkedPacket<'a>>, FileError> {
    let damaged = |detail: &str| FileError::Damaged {
        frames,
        detail: detail.to_owned(),
    };
    let (interface, ticks, data, wire_len) = match block {
        Block::SectionHeader(_) => {
            interfaces.clear();
            drops.section_ends();
            return Ok(None);
        }
        Block::InterfaceDescription(block) => {
            if interfaces.len() >= MAX_INTERFACES {
                return Err(damaged("more interfaces than a capture has"));
            }
            interfaces.push(Interface::of(&block)?);
            return Ok(None);
        }
        Block::InterfaceStatistics(statistics) => {
            // Dropped for lack of room, by the interface or by the system.
            let lost = statistics.options.iter().map(|option| match option {
                InterfaceStatisticsOption::IsbIfDrop(count)
                | InterfaceStatisticsOption::IsbOsDrop(count) => *count,
                _ => 0,
            });
            let lost = lost.fold(0, u64::saturating_add);
            if usize::try_from(statistics.interface_id).is_ok_and(|id| id < interfaces.len()) {
                drops.current.insert(statistics.interface_id, lost);
            }
            return Ok(None);
        }
        // The reader takes all ticks for nanoseconds: what it calls a time is their number.
        Block::EnhancedPacket(packet) => (
            packet.interface_id,
            Some(packet.timestamp.as_nanos()),
            packet.data,
            packet.original_len,
        ),
        Block::Packet(packet) => (
            u32::from(packet.interface_id),
            Some(u128::from(packet.timestamp)),
            packet.data,
            packet.original_len,
        ),
        // It has no time: that of the packet before it is the nearest.
        Block::SimplePacket(packet) => (0, None, packet.data, packet.original_len),
        _ => return Ok(None),
    };
    let interface = usize::try_from(interface)
        .ok()
        .and_then(|number| interfaces.get(number))
        .ok_or_else(|| damaged("a packet of an interface that is not described"))?;
    if let Some(ticks) = ticks {
        *last_ns = interface.wall_ns(ticks);
    }
    Ok(Some((interface.link, data, wire_len)))
}

fn stopped(error: PcapError, frames: u64) -> FileError {
    match error {
        PcapError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            FileError::Cut { frames }
        }
        PcapError::IncompleteBuffer => FileError::Cut { frames },
        PcapError::IoError(error) => FileError::Read(error),
        other => FileError::Damaged {
            frames,
            detail: other.to_string(),
        },
    }
}

impl Interface {
    fn of(block: &InterfaceDescriptionBlock<'_>) -> Result<Self, FileError> {
        let mut interface = Self {
            link: Link::of(block.linktype)?,
            units_per_second: 1_000_000,
            offset_s: 0,
        };
        for option in &block.options {
            match option {
                // The top bit chooses between powers of 2 and of 10.
                InterfaceDescriptionOption::IfTsResol(value) => {
                    let (base, power) = (if value & 0x80 == 0 { 10_u128 } else { 2 }, value & 0x7f);
                    interface.units_per_second =
                        base.checked_pow(power.into()).unwrap_or(u128::MAX);
                }
                InterfaceDescriptionOption::IfTsOffset(seconds) => interface.offset_s = *seconds,
                _ => {}
            }
        }
        Ok(interface)
    }

    fn wall_ns(self, ticks: u128) -> u64 {
        let ns = ticks.saturating_mul(NS) / self.units_per_second.max(1);
        let ns = ns.saturating_add(u128::from(self.offset_s) * NS);
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

impl Link {
    fn of(link: DataLink) -> Result<Self, FileError> {
        Ok(match link {
            DataLink::ETHERNET => Self::Ethernet,
            DataLink::NULL | DataLink::LOOP => Self::Loopback,
            DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 => Self::RawIp,
            DataLink::LINUX_SLL => Self::Cooked,
            other => match u32::from(other) {
                // What some systems write for raw IP, and LINKTYPE_LINUX_SLL2.
                12 | 14 => Self::RawIp,
                276 => Self::Cooked2,
                unknown => return Err(FileError::LinkType(unknown)),
            },
        })
    }

    /// The frame with an Ethernet header, and its length on the wire with that.
    fn make_ethernet<'a>(
        self,
        data: &[u8],
        wire_len: u32,
        made: &'a mut Vec<u8>,
    ) -> (&'a [u8], u32) {
        made.clear();
        let (header, ether_type_at) = match self {
            Self::Ethernet => {
                made.extend_from_slice(data);
                return (made, wire_len);
            }
            Self::Loopback => (4, None),
            Self::RawIp => (0, None),
            Self::Cooked => (16, Some(14)),
            Self::Cooked2 => (20, Some(0)),
        };
        let packet = usize::try_from(header)
            .ok()
            .and_then(|header| data.get(header..))
            .unwrap_or_default();
        let stated = ether_type_at
            .and_then(|at: usize| data.get(at..)?.first_chunk::<2>())
            .copied();
        let is_v6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
        let guessed = if is_v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
        made.extend_from_slice(&[0; 12]);
        made.extend_from_slice(&stated.unwrap_or(guessed));
        made.extend_from_slice(packet);
        (made, wire_len.saturating_sub(header).saturating_add(14))
    }
}
