//! A memory-mapped packet ring on one interface: AF_PACKET with TPACKET_V3
//! (Documentation/networking/packet_mmap.rst).

mod snap;

use crate::netns::{self, NetnsError};
use std::ffi::CString;
use std::io;
use std::marker::PhantomData;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Size and pace of a ring.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Bytes per block; a multiple of the page size, larger than a frame.
    pub block_size: u32,
    /// Number of blocks.
    pub blocks: u32,
    /// Milliseconds after which the kernel hands over a block that is not full.
    pub retire_ms: u32,
    /// Bytes kept of each frame, and only the headers of longer ones amid a stream;
    /// lengths are always those of the whole frame.
    pub snap_length: u32,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self {
            block_size: 1 << 20,
            blocks: 32,
            retire_ms: 5,
            snap_length: 4096,
        }
    }
}

/// Why a ring could not be set up or read.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// There is no such interface in that namespace.
    #[error("no interface {interface} in {namespace}")]
    NoInterface {
        /// Its name.
        interface: String,
        /// The namespace as it was given.
        namespace: String,
    },
    /// The process lacks CAP_NET_RAW.
    #[error(
        "open a packet socket on {interface}: not permitted (needs CAP_NET_RAW: run as root, or \
         grant it with `setcap cap_net_raw,cap_sys_admin,cap_sys_ptrace+ep` on the sandtrace binary)"
    )]
    NotPermitted {
        /// Its name.
        interface: String,
    },
    /// A step of the set-up failed.
    #[error("{step} for the packet ring on {interface}: {source}")]
    Setup {
        /// What was being done.
        step: &'static str,
        /// To which interface.
        interface: String,
        /// The cause.
        source: io::Error,
    },
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// Frames that the kernel counted since the last reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingStatistics {
    /// Frames that reached the socket, drops included.
    pub packets: u64,
    /// Frames that found no room in the ring.
    pub drops: u64,
}

/// One captured frame.
#[derive(Clone, Copy, Debug)]
pub struct RawPacket<'a> {
    /// Captured part, from the Ethernet header, without a VLAN tag that the kernel stripped.
    pub bytes: &'a [u8],
    /// True for host to sandbox (PACKET_OUTGOING on the host's end).
    pub outgoing: bool,
    /// VLAN tag control information that the kernel stripped, host byte order.
    pub vlan_tci: Option<u16>,
    /// EtherType of that tag: 0x8100, or 0x88a8 for a service tag (IEEE 802.1ad).
    pub vlan_tpid: u16,
    /// Nanoseconds since the Unix epoch, by the kernel.
    pub wall_ns: u64,
    /// Length of the whole frame in bytes.
    pub wire_len: u32,
}

/// A packet ring bound to one interface.
pub struct PacketRing {
    map: Mapping,
    socket: OwnedFd,
    config: RingConfig,
    next_block: u32,
    heard_until_ns: u64,
}

impl PacketRing {
    /// Opens a ring on `interface` inside `namespace` (`None`: the caller's).
    ///
    /// # Errors
    /// When the interface does not exist, the process lacks CAP_NET_RAW (or
    /// CAP_SYS_ADMIN to enter a namespace), or the kernel refuses a step.
    pub fn open(
        interface: &str,
        namespace: Option<&Path>,
        config: RingConfig,
    ) -> Result<Self, RingError> {
        netns::within(namespace, || {
            let index = interface_index(interface).ok_or_else(|| RingError::NoInterface {
                interface: interface.to_owned(),
                namespace: netns::describe(namespace),
            })?;
            Self::on_index(interface, index, config)
        })?
    }

    fn on_index(interface: &str, index: i32, config: RingConfig) -> Result<Self, RingError> {
        let failed = |step| {
            move |source: io::Error| match source.kind() {
                io::ErrorKind::PermissionDenied => RingError::NotPermitted {
                    interface: interface.to_owned(),
                },
                _ => RingError::Setup {
                    step,
                    interface: interface.to_owned(),
                    source,
                },
            }
        };
        let socket = packet_socket().map_err(failed("open a socket"))?;
        set_option(
            &socket,
            (libc::SOL_PACKET, libc::PACKET_VERSION),
            &libc::tpacket_versions::TPACKET_V3,
        )
        .map_err(failed("choose TPACKET_V3"))?;
        attach(&socket, &mut snap::starts(config.snap_length))
            .map_err(failed("attach the filter"))?;
        let request = libc::tpacket_req3 {
            tp_block_size: config.block_size,
            tp_block_nr: config.blocks,
            // Only bounds the number of frames; V3 packs them tightly.
            tp_frame_size: 2048,
            tp_frame_nr: config.block_size / 2048 * config.blocks,
            tp_retire_blk_tov: config.retire_ms,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        set_option(&socket, (libc::SOL_PACKET, libc::PACKET_RX_RING), &request)
            .map_err(failed("allocate memory"))?;
        let bytes = config.block_size as usize * config.blocks as usize;
        let map = Mapping::new(&socket, bytes).map_err(failed("map memory"))?;
        // The protocol comes with the bind: a socket that has one before it
        // is bound receives frames of every interface, other tenants' too.
        bind(&socket, index).map_err(failed("bind"))?;
        Ok(Self {
            map,
            socket,
            config,
            next_block: 0,
            heard_until_ns: 0,
        })
    }

    /// The next block of frames that the kernel has handed over, if any.
    /// Dropping it gives its memory back to the kernel.
    pub fn next_block(&mut self) -> Option<Block<'_>> {
        if !self.waits() {
            return None;
        }
        let start = self.block();
        self.next_block = (self.next_block + 1) % self.config.blocks;
        let block = Block {
            start,
            size: self.config.block_size as usize,
            ring: PhantomData,
        };
        self.heard_until_ns = block.ends_ns();
        Some(block)
    }

    /// When the last frame of the latest block was seen, in nanoseconds since the
    /// Unix epoch; 0 before the first.
    #[must_use]
    pub const fn heard_until_ns(&self) -> u64 {
        self.heard_until_ns
    }

    /// How long a block takes frames in at most, in microseconds.
    #[must_use]
    pub fn retires_after_us(&self) -> u64 {
        u64::from(self.config.retire_ms) * 1000
    }

    /// Whether a block of frames waits to be read.
    #[must_use]
    pub fn waits(&self) -> bool {
        status_of(self.block()).load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// Where the next block is.
    fn block(&self) -> NonNull<u8> {
        let offset = self.next_block as usize * self.config.block_size as usize;
        // SAFETY: next_block < blocks, so the offset lies inside the mapping, whose length is
        // blocks × block_size; blocks are page-aligned.
        unsafe { self.map.start.add(offset) }
    }

    /// Hears nothing any more. What was heard before stays to be read.
    ///
    /// # Errors
    /// When the kernel refuses, which it does for lack of memory alone.
    pub fn stop(&self) -> io::Result<()> {
        attach(&self.socket, &mut snap::nothing())
    }

    /// The error that the socket holds, if any, which is thereby forgotten:
    /// until then its descriptor polls as in error. ENETDOWN says that the
    /// interface went down or away.
    pub fn take_error(&self) -> Option<io::Error> {
        take_error(&self.socket)
    }

    /// Frames seen and dropped since this was last called.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn statistics(&self) -> io::Result<RingStatistics> {
        let mut stats = libc::tpacket_stats_v3 {
            tp_packets: 0,
            tp_drops: 0,
            tp_freeze_q_cnt: 0,
        };
        let mut length = socklen::<libc::tpacket_stats_v3>();
        // SAFETY: the pointer and length describe `stats`, which outlives the call.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut length,
            )
        };
        check(result)?;
        Ok(RingStatistics {
            packets: u64::from(stats.tp_packets),
            drops: u64::from(stats.tp_drops),
        })
    }
}

impl AsFd for PacketRing {
    /// Readable when a block is ready; in error when the interface went down.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Frames that the kernel handed over together.
pub struct Block<'ring> {
    start: NonNull<u8>,
    size: usize,
    ring: PhantomData<&'ring mut PacketRing>,
}

impl Block<'_> {
    /// When its last frame was seen.
    fn ends_ns(&self) -> u64 {
        // SAFETY: the kernel released this block to us, so nobody writes to its header; it is
        // plain old data.
        let last = unsafe { header_of(self.start).read() }.ts_last_pkt;
        // TPACKET_V3 writes nanoseconds there (`union` in linux/if_packet.h).
        u64::from(last.ts_sec) * 1_000_000_000 + u64::from(last.ts_usec)
    }

    /// The frames in the order in which the interface saw them.
    #[must_use]
    pub fn packets(&self) -> Packets<'_> {
        // SAFETY: the kernel released this block to us, so nobody writes to its header; it is
        // plain old data.
        let header = unsafe { header_of(self.start).read() };
        Packets {
            block: self,
            left: header.num_pkts,
            offset: header.offset_to_first_pkt as usize,
        }
    }
}

impl Drop for Block<'_> {
    fn drop(&mut self) {
        status_of(self.start).store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }
}

fn header_of(block: NonNull<u8>) -> *mut libc::tpacket_hdr_v1 {
    // SAFETY: a block begins with tpacket_block_desc, which fits into it.
    unsafe {
        block
            .as_ptr()
            .add(offset_of!(libc::tpacket_block_desc, hdr))
    }
    .cast()
}

fn status_of<'ring>(block: NonNull<u8>) -> &'ring AtomicU32 {
    let status = header_of(block).cast::<u32>();
    // SAFETY: block_status is the first u32 of the header, aligned because blocks are
    // page-aligned, mapped as long as the ring lives, and only ever accessed as an atomic here;
    // the kernel is the other writer.
    unsafe { AtomicU32::from_ptr(status) }
}

/// EtherType of a tag by IEEE 802.1Q.
const CUSTOMER_TAG: u16 = 0x8100;

/// Iterator over the frames of a [`Block`].
pub struct Packets<'block> {
    block: &'block Block<'block>,
    left: u32,
    offset: usize,
}

/// `sockaddr_ll` follows the frame header at the next multiple of 16 (TPACKET_ALIGN).
const ADDRESS_OFFSET: usize = size_of::<libc::tpacket3_hdr>().next_multiple_of(16);

impl<'block> Iterator for Packets<'block> {
    type Item = RawPacket<'block>;

    fn next(&mut self) -> Option<RawPacket<'block>> {
        let end_of_headers = self
            .offset
            .checked_add(ADDRESS_OFFSET + size_of::<libc::sockaddr_ll>())?;
        if self.left == 0 || end_of_headers > self.block.size {
            return None;
        }
        // SAFETY: checked above: the frame's header and address lie inside the block.
        let at = unsafe { self.block.start.as_ptr().add(self.offset) };
        // SAFETY: the kernel has filled in the header and no longer writes to this block; plain
        // old data, read without an alignment assumption.
        let header = unsafe { at.cast::<libc::tpacket3_hdr>().read_unaligned() };
        // SAFETY: as above, inside the block.
        let address = unsafe { at.add(ADDRESS_OFFSET) };
        // SAFETY: as above, plain old data filled in by the kernel.
        let address = unsafe { address.cast::<libc::sockaddr_ll>().read_unaligned() };
        let start = self.offset.checked_add(usize::from(header.tp_mac))?;
        let length = header.tp_snaplen as usize;
        if start.checked_add(length)? > self.block.size {
            return None;
        }
        // SAFETY: start + length was checked to lie inside the block.
        let bytes = unsafe { self.block.start.as_ptr().add(start) };
        // SAFETY: `length` initialised bytes inside the block, which stays ours and unwritten
        // while `'block` borrows it.
        let bytes = unsafe { std::slice::from_raw_parts(bytes, length) };
        self.left -= 1;
        self.offset += header.tp_next_offset as usize;
        let tagged = header.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
        Some(RawPacket {
            bytes,
            outgoing: address.sll_pkttype == libc::PACKET_OUTGOING,
            // Only the low 16 bits are the tag (include/uapi/linux/if_packet.h).
            vlan_tci: tagged.then_some((header.hv1.tp_vlan_tci & 0xffff) as u16),
            vlan_tpid: match header.tp_status & libc::TP_STATUS_VLAN_TPID_VALID {
                0 => CUSTOMER_TAG,
                _ => header.hv1.tp_vlan_tpid,
            },
            wall_ns: u64::from(header.tp_sec) * 1_000_000_000 + u64::from(header.tp_nsec),
            wire_len: header.tp_len,
        })
    }
}

/// Shared memory with the kernel, unmapped on drop.
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is owned by one PacketRing and reached only through `&mut` of it (or blocks
// that borrow it mutably); memory itself has no thread affinity.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(socket: &OwnedFd, length: usize) -> io::Result<Self> {
        // SAFETY: a new shared mapping of the socket's ring at an address that the kernel
        // chooses; nothing existing is touched.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { start, length }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `new` made; no block outlives the ring that owns it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

fn interface_index(name: &str) -> Option<i32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a NUL-terminated string that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    i32::try_from(index).ok().filter(|index| *index != 0)
}

fn packet_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers; protocol 0 means that no frame arrives before the bind.
    let socket = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    check(socket)?;
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

/// `AF_PACKET` and `ETH_P_ALL` in the types of `sockaddr_ll`.
const FAMILY: u16 = 17;
const EVERY_PROTOCOL: u16 = 0x0003;
const _: () = assert!(libc::AF_PACKET == FAMILY as i32 && libc::ETH_P_ALL == EVERY_PROTOCOL as i32);

fn bind(socket: &OwnedFd, index: i32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: FAMILY,
        sll_protocol: EVERY_PROTOCOL.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = socklen::<libc::sockaddr_ll>();
    // SAFETY: the pointer and length describe `address`, which outlives the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })
}

pub(crate) fn take_error(socket: &OwnedFd) -> Option<io::Error> {
    match rustix::net::sockopt::socket_error(socket) {
        Ok(Ok(())) => None,
        Ok(Err(errno)) | Err(errno) => Some(errno.into()),
    }
}

/// A packet socket on an interface of the caller's network namespace, with a program
/// that decides what it gets of each frame.
pub(crate) fn filtered(program: &OwnedFd, interface: u32) -> io::Result<OwnedFd> {
    let index = i32::try_from(interface).map_err(io::Error::other)?;
    let socket = packet_socket()?;
    let option = (libc::SOL_SOCKET, libc::SO_ATTACH_BPF);
    set_option(&socket, option, &program.as_raw_fd())?;
    bind(&socket, index)?;
    Ok(socket)
}

/// Makes a classic BPF program say how much of each frame the socket gets.
fn attach(socket: &OwnedFd, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_mut_ptr(),
    };
    let length = socklen::<libc::sock_fprog>();
    // SAFETY: pointer and length describe `filter`, which points to a program of `len`
    // instructions; both outlive the call, and the kernel copies them.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            length,
        )
    })
}

fn set_option<T>(socket: &OwnedFd, (level, name): (i32, i32), value: &T) -> io::Result<()> {
    // SAFETY: pointer and length describe `value`, which outlives the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            socklen::<T>(),
        )
    })
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "kernel structures are a few bytes long"
)]
const fn socklen<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
