//! pcapng (draft-ietf-opsawg-pcapng): sections of blocks, of which those are read that
//! hold frames, and those that say how to.

use super::fields::{Fields, Order};
use super::link::Link;
use super::window::Window;
use super::{Found, MAX_LEN, Stop};
use sandtrace_wire::Direction;
use std::collections::BTreeMap;
use std::io::Read;

/// Bytes at the start of every file, the same in both orders: a section's header.
pub(super) const SECTION: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
/// What came before the enhanced one, and is obsolete.
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

const MAGIC: u32 = 0x1a2b_3c4d;
const SHB_USER_APPLICATION: u16 = 4;
const IF_TSRESOL: u16 = 9;
const IF_TSOFFSET: u16 = 14;
const EPB_FLAGS: u16 = 2;
const ISB_IF_DROP: u16 = 5;
const ISB_OS_DROP: u16 = 7;

/// Type, two lengths, and what tells the byte order of a section's header.
const LEAST: usize = 12;
/// Interfaces of one section; a file with more is no capture of ours.
const MAX_INTERFACES: usize = 4096;
const NS: u64 = 1_000_000_000;

/// What is known of the section so far.
pub(super) struct PcapNg {
    order: Order,
    interfaces: Vec<Interface>,
    /// The section is of our own writing, whose directions are those of the host's side.
    ours: bool,
    last_ns: u64,
    pub(super) drops: Drops,
    pub(super) unread: Unread,
}

/// Frames that whoever wrote the file dropped, as its statistics say: the
/// latest of each interface of the section, and those of sections before.
#[derive(Default)]
pub(super) struct Drops {
    past: u64,
    current: BTreeMap<u32, u64>,
}

impl Drops {
    fn section_ends(&mut self) {
        self.past = self.sum();
        self.current.clear();
    }

    pub(super) fn sum(&self) -> u64 {
        let drops = self.current.values();
        drops.fold(self.past, |sum, drops| sum.saturating_add(*drops))
    }
}

/// Frames that were passed over.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unread {
    pub(super) frames: u64,
    /// The first link type that is not read.
    pub(super) link_type: Option<u16>,
}

/// How to understand the packets of one interface.
#[derive(Clone, Copy)]
struct Interface {
    number: u16,
    link: Option<Link>,
    snap_len: u32,
    units_per_second: u128,
    offset_s: i64,
}

/// A packet's block.
struct Block<'a> {
    interface: u32,
    ticks: Option<u64>,
    captured: u32,
    wire_len: u32,
    /// From the packet's data on.
    rest: Fields<'a>,
}

impl PcapNg {
    /// Looks at the first section's header, if it is one.
    pub(super) fn open(window: &mut Window<impl Read>) -> Result<Option<Self>, Stop> {
        if !window.holds(LEAST)? {
            return Ok(None);
        }
        Ok(order_of(window.front(LEAST)).map(|order| Self {
            order,
            interfaces: Vec::new(),
            ours: false,
            last_ns: 0,
            drops: Drops::default(),
            unread: Unread::default(),
        }))
    }

    /// The next frame; `None` at the end of the file.
    pub(super) fn next(&mut self, window: &mut Window<impl Read>) -> Result<Option<Found>, Stop> {
        loop {
            if !window.holds(LEAST)? {
                return if window.is_empty() {
                    Ok(None)
                } else {
                    Err(Stop::Cut)
                };
            }
            let (kind, total) = self.head(window.front(LEAST))?;
            if total > MAX_LEN {
                self.pass_over(kind)?;
                if !window.skip(total)? {
                    return Err(Stop::Cut);
                }
                continue;
            }
            if !window.holds(total)? {
                return Err(Stop::Cut);
            }
            let start = window.take(total).start;
            let block = window.get(start..start + total);
            if let Some(found) = self.block(kind, block, start)? {
                return Ok(Some(found));
            }
        }
    }

    /// Type and length of the block that begins so.
    fn head(&mut self, bytes: &[u8]) -> Result<(u32, usize), Stop> {
        if bytes.starts_with(&SECTION) {
            self.order = order_of(bytes).ok_or(Stop::Damaged("a section in no byte order"))?;
        }
        let mut fields = Fields::new(bytes, self.order);
        let (Some(kind), Some(total)) = (fields.u32(), fields.u32()) else {
            return Err(Stop::Cut);
        };
        let total = usize::try_from(total).ok();
        let total = total.filter(|total| *total >= LEAST && total.is_multiple_of(4));
        Ok((kind, total.ok_or(Stop::Damaged("a block of no length"))?))
    }

    /// Takes note of a block that is too long to be read.
    fn pass_over(&mut self, kind: u32) -> Result<(), Stop> {
        match kind {
            SECTION_HEADER | INTERFACE_DESCRIPTION => {
                return Err(Stop::Damaged("a description that is longer than any"));
            }
            PACKET | SIMPLE_PACKET | ENHANCED_PACKET => self.unread.frames += 1,
            _ => {}
        }
        Ok(())
    }

    /// The frame in a block that begins at `start`, if there is one that is read.
    fn block(&mut self, kind: u32, bytes: &[u8], start: usize) -> Result<Option<Found>, Stop> {
        let Some((front, last)) = bytes.split_last_chunk::<4>() else {
            return Err(Stop::Cut);
        };
        if bytes.get(4..8) != Some(&last[..]) {
            return Err(Stop::Damaged("a block with two lengths"));
        }
        let mut fields = Fields::new(front.get(8..).unwrap_or_default(), self.order);
        let packet = match kind {
            SECTION_HEADER => self.section(fields),
            INTERFACE_DESCRIPTION => self.interface(fields),
            INTERFACE_STATISTICS => self.statistics(fields),
            ENHANCED_PACKET => enhanced(&mut fields),
            PACKET => obsolete(&mut fields),
            SIMPLE_PACKET => simple(&mut fields, self.interfaces.first()),
            _ => return Ok(None),
        };
        match packet.ok_or(Stop::Damaged("a block that is shorter than its fields"))?? {
            Some(packet) => self.packet(kind, packet, front.len(), start),
            None => Ok(None),
        }
    }

    /// A section begins: nothing of those before describes it.
    fn section(&mut self, mut fields: Fields<'_>) -> Parsed<'static> {
        self.interfaces.clear();
        self.drops.section_ends();
        self.ours = false;
        // The magic; after the version the section's length.
        fields.take(4)?;
        let (major, _minor) = (fields.u16()?, fields.u16()?);
        if major != 1 {
            return Some(Err(Stop::Damaged("a section of an unknown version")));
        }
        fields.take(8)?;
        Some(each_option(fields, |code, value| {
            self.ours |= code == SHB_USER_APPLICATION && value == b"sandtrace";
        }))
    }

    fn interface(&mut self, mut fields: Fields<'_>) -> Parsed<'static> {
        if self.interfaces.len() >= MAX_INTERFACES {
            return Some(Err(Stop::Damaged("more interfaces than a capture has")));
        }
        let (number, _reserved, snap_len) = (fields.u16()?, fields.u16()?, fields.u32()?);
        let mut interface = Interface {
            number,
            link: Link::of(number.into()),
            snap_len,
            units_per_second: 1_000_000,
            offset_s: 0,
        };
        let order = self.order;
        let read = each_option(fields, |code, value| match (code, value) {
            // The top bit chooses between powers of 2 and of 10.
            (IF_TSRESOL, [value]) => {
                let (base, power) = (if value & 0x80 == 0 { 10_u128 } else { 2 }, value & 0x7f);
                interface.units_per_second = base.checked_pow(power.into()).unwrap_or(u128::MAX);
            }
            (IF_TSOFFSET, value) => {
                let seconds = Fields::new(value, order).u64().unwrap_or_default();
                interface.offset_s = seconds.cast_signed();
            }
            _ => {}
        });
        self.interfaces.push(interface);
        Some(read)
    }

    fn statistics(&mut self, mut fields: Fields<'_>) -> Parsed<'static> {
        let (interface, _ticks) = (fields.u32()?, fields.halves()?);
        let mut lost = 0_u64;
        let order = self.order;
        // Dropped for lack of room, by the interface or by the system.
        let read = each_option(fields, |code, value| {
            if matches!(code, ISB_IF_DROP | ISB_OS_DROP) {
                let dropped = Fields::new(value, order).u64().unwrap_or_default();
                lost = lost.saturating_add(dropped);
            }
        });
        if self.interface_of(interface).is_some() {
            self.drops.current.insert(interface, lost);
        }
        Some(read)
    }

    fn interface_of(&self, number: u32) -> Option<&Interface> {
        self.interfaces.get(usize::try_from(number).ok()?)
    }

    /// A packet of a block that begins at `start` and is so long without its end.
    fn packet(
        &mut self,
        kind: u32,
        mut packet: Block<'_>,
        front: usize,
        start: usize,
    ) -> Result<Option<Found>, Stop> {
        let interface = *self.interface_of(packet.interface).ok_or(Stop::Damaged(
            "a packet of an interface that is not described",
        ))?;
        let at = start + (front - packet.rest.rest().len());
        let captured = usize::try_from(packet.captured).ok();
        let captured = captured.and_then(|len| Some(packet.rest.take(len)?.len()));
        let captured = captured.ok_or(Stop::Damaged("a packet that is longer than its block"))?;
        let Some(link) = interface.link else {
            self.unread.frames += 1;
            self.unread.link_type.get_or_insert(interface.number);
            return Ok(None);
        };
        // Without a time of its own that of the packet before it is the nearest.
        if let Some(ticks) = packet.ticks {
            self.last_ns = interface.wall_ns(ticks);
        }
        let direction = if self.ours && kind == ENHANCED_PACKET {
            packet.rest.pad(captured);
            direction(packet.rest, self.order)?
        } else {
            None
        };
        Ok(Some(Found {
            at: at..at + captured,
            link,
            wall_ns: self.last_ns,
            wire_len: packet.wire_len,
            direction,
        }))
    }
}

/// What was read of a block: perhaps a packet. Nothing, where it ends before its fields.
type Parsed<'a> = Option<Result<Option<Block<'a>>, Stop>>;

fn order_of(bytes: &[u8]) -> Option<Order> {
    let magic = *bytes.get(8..)?.first_chunk()?;
    [Order::Little, Order::Big]
        .into_iter()
        .find(|order| order.u32(magic) == MAGIC)
}

fn enhanced<'a>(fields: &mut Fields<'a>) -> Parsed<'a> {
    Some(Ok(Some(Block {
        interface: fields.u32()?,
        ticks: Some(fields.halves()?),
        captured: fields.u32()?,
        wire_len: fields.u32()?,
        rest: *fields,
    })))
}

fn obsolete<'a>(fields: &mut Fields<'a>) -> Parsed<'a> {
    let (interface, _drops) = (fields.u16()?, fields.u16()?);
    Some(Ok(Some(Block {
        interface: interface.into(),
        ticks: Some(fields.halves()?),
        captured: fields.u32()?,
        wire_len: fields.u32()?,
        rest: *fields,
    })))
}

/// It is of the first interface, and as long as that captures; what is beyond pads.
fn simple<'a>(fields: &mut Fields<'a>, interface: Option<&Interface>) -> Parsed<'a> {
    let wire_len = fields.u32()?;
    let snap_len = interface.map_or(0, |interface| interface.snap_len);
    let limit = if snap_len == 0 { u32::MAX } else { snap_len };
    let room = u32::try_from(fields.rest().len()).unwrap_or(u32::MAX);
    Some(Ok(Some(Block {
        interface: 0,
        ticks: None,
        captured: wire_len.min(limit).min(room),
        wire_len,
        rest: *fields,
    })))
}

/// Calls for each option. The one that ends them may be missing.
fn each_option<'a>(
    mut fields: Fields<'_>,
    mut call: impl FnMut(u16, &[u8]),
) -> Result<Option<Block<'a>>, Stop> {
    const OVER: Stop = Stop::Damaged("an option that is longer than its block");
    while !fields.rest().is_empty() {
        let (Some(code), Some(len)) = (fields.u16(), fields.u16()) else {
            return Err(OVER);
        };
        if code == 0 {
            break;
        }
        let Some(value) = fields.take(len.into()) else {
            return Err(OVER);
        };
        fields.pad(len.into());
        call(code, value);
    }
    Ok(None)
}

/// As the host's interface saw it: what the sandbox sent came in.
fn direction(options: Fields<'_>, order: Order) -> Result<Option<Direction>, Stop> {
    let mut found = None;
    each_option(options, |code, value| {
        if code == EPB_FLAGS {
            found = match Fields::new(value, order).u32().unwrap_or_default() & 3 {
                1 => Some(Direction::FromSandbox),
                2 => Some(Direction::ToSandbox),
                _ => None,
            };
        }
    })?;
    Ok(found)
}

impl Interface {
    fn wall_ns(&self, ticks: u64) -> u64 {
        let ns = match self.units_per_second {
            1_000_000_000 => u128::from(ticks),
            1_000_000 => u128::from(ticks) * 1000,
            units => u128::from(ticks) * u128::from(NS) / units.max(1),
        };
        let ns = i128::try_from(ns).unwrap_or(i128::MAX);
        let ns = ns.saturating_add(i128::from(self.offset_s) * i128::from(NS));
        u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
    }
}
