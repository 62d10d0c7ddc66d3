//! The format of libpcap: a header, and frames with a header each.

use super::fields::{Fields, Order};
use super::link::Link;
use super::window::Window;
use super::{Found, MAX_LEN, Stop};
use std::io::Read;

/// How to read one file.
pub(super) struct Pcap {
    order: Order,
    link: Link,
    /// Nanoseconds of the unit of fractions of a second.
    unit_ns: u32,
    /// Length of a frame's header.
    header: usize,
}

const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;
/// Eight bytes more before each frame, of a kernel patch that was once common.
const MODIFIED: u32 = 0xa1b2_cd34;
const FILE_HEADER: usize = 24;
const NS: u64 = 1_000_000_000;

impl Pcap {
    /// Reads the file's header, if it is one.
    pub(super) fn open(window: &mut Window<impl Read>) -> Result<Option<Self>, Stop> {
        if !window.holds(FILE_HEADER)? {
            return Ok(None);
        }
        let header = window.take(FILE_HEADER);
        let header = window.get(header);
        let orders = [Order::Little, Order::Big];
        let mut read = orders.iter().map(|order| Self::of(header, *order));
        read.find_map(Result::transpose).transpose()
    }

    fn of(header: &[u8], order: Order) -> Result<Option<Self>, Stop> {
        let mut fields = Fields::new(header, order);
        let (unit_ns, header) = match fields.u32() {
            Some(MICROSECONDS) => (1000, 16),
            Some(NANOSECONDS) => (1, 16),
            Some(MODIFIED) => (1000, 24),
            _ => return Ok(None),
        };
        // Version, zone, accuracy and snap length.
        let Some(number) = fields.take(16).and_then(|_| fields.u32()) else {
            return Ok(None);
        };
        // Above it stands how long the checksum after each frame is.
        let number = number & 0x03ff_ffff;
        Ok(Some(Self {
            order,
            link: Link::of(number).ok_or(Stop::LinkType(number))?,
            unit_ns,
            header,
        }))
    }

    /// The next frame; `None` at the end of the file.
    pub(super) fn next(&self, window: &mut Window<impl Read>) -> Result<Option<Found>, Stop> {
        if !window.holds(self.header)? {
            return if window.is_empty() {
                Ok(None)
            } else {
                Err(Stop::Cut)
            };
        }
        let mut fields = Fields::new(window.front(self.header), self.order);
        let mut field = || fields.u32().ok_or(Stop::Cut);
        let (seconds, fraction, captured, wire_len) = (field()?, field()?, field()?, field()?);
        let fraction_ns = u64::from(fraction) * u64::from(self.unit_ns);
        if fraction_ns >= NS {
            return Err(Stop::Damaged("a fraction of a second that is a whole one"));
        }
        let captured = usize::try_from(captured)
            .ok()
            .filter(|len| *len <= MAX_LEN)
            .ok_or(Stop::Damaged("a frame that is longer than any"))?;
        if !window.holds(self.header + captured)? {
            return Err(Stop::Cut);
        }
        window.take(self.header);
        Ok(Some(Found {
            at: window.take(captured),
            link: self.link,
            wall_ns: u64::from(seconds) * NS + fraction_ns,
            wire_len,
            direction: None,
        }))
    }
}
