//! The two programs on each interface: they note down which interface it is
//! and go on in the programs that all share.
//!
//! They are seven instructions each, put together here: what is compiled has
//! no place for a number that differs by interface, and a copy of the shared
//! programs for each would cost a thousand interfaces some 100 MiB.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// Commands, types and flags of linux/bpf.h.
const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const SCHED_CLS: u32 = 3;
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
const BEFORE: u32 = 1 << 3;
const AFTER: u32 = 1 << 4;
const TAIL_CALL: i32 = 12;
/// The source register that has an instruction's number be a map's descriptor.
const MAP_FD: u8 = 1;

/// Where `cb[0]` and `cb[1]` stand in `struct __sk_buff`.
const CB: [i16; 2] = [48, 52];

/// Which way frames go that a program sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The interface's ingress.
    FromSandbox,
    /// Its egress.
    ToSandbox,
}

impl Way {
    /// Its index in `ways` of frames.bpf.c.
    pub(super) const fn index(self) -> u32 {
        match self {
            Self::FromSandbox => 0,
            Self::ToSandbox => 1,
        }
    }
}

/// `struct bpf_insn`.
#[repr(C)]
struct Instruction {
    code: u8,
    /// The destination in the lower half, the source in the upper.
    registers: u8,
    offset: i16,
    number: i32,
}

/// `union bpf_attr` for `BPF_PROG_LOAD`, as far as it is used.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
    name: [u8; 16],
}

/// `union bpf_attr` for `BPF_LINK_CREATE` of tcx.
#[repr(C)]
#[derive(Default)]
struct Link {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    unused: u32,
    revision: u64,
}

/// A program that writes `slot` and `owner` down and goes on in the program
/// for `way` of `ways`, the table of programs.
pub(super) fn load(ways: BorrowedFd<'_>, way: Way, slot: u32, owner: u32) -> io::Result<OwnedFd> {
    let instructions = instructions(ways, way, slot, owner);
    let license = c"GPL";
    let mut name = [0; 16];
    for (to, from) in name.iter_mut().zip(b"sandtrace") {
        *to = *from;
    }
    let load = Load {
        kind: SCHED_CLS,
        count: u32::try_from(instructions.len()).unwrap_or_default(),
        instructions: address(instructions.as_ptr()),
        license: address(license.as_ptr()),
        name,
        ..Load::default()
    };
    // SAFETY: `instructions` and `license` outlive the call, which reads them
    // alone; their addresses and lengths are those in `load`.
    unsafe { command(PROG_LOAD, &load) }
}

/// Puts a program on an interface of the caller's network namespace, in front
/// of all others at its ingress, behind all others at its egress. It stays as
/// long as the link that is answered.
pub(super) fn attach(program: &OwnedFd, interface: u32, way: Way) -> io::Result<OwnedFd> {
    let (attach_type, flags) = match way {
        Way::FromSandbox => (TCX_INGRESS, BEFORE),
        Way::ToSandbox => (TCX_EGRESS, AFTER),
    };
    let link = Link {
        program: number(program.as_fd()).cast_unsigned(),
        interface,
        attach_type,
        flags,
        ..Link::default()
    };
    // SAFETY: the attribute holds no address.
    unsafe { command(LINK_CREATE, &link) }
}

fn instructions(ways: BorrowedFd<'_>, way: Way, slot: u32, owner: u32) -> [Instruction; 10] {
    // Registers: r1 is the frame, r2 and r3 the tail call's table and index.
    let set = |register: u8, number: i32| code(0xb7, register, 0, 0, number);
    let note = |offset: i16| code(0x63, 1, 2, offset, 0);
    [
        set(2, slot.cast_signed()),
        note(CB[0]),
        set(2, owner.cast_signed()),
        note(CB[1]),
        code(0x18, 2, MAP_FD, 0, number(ways)),
        code(0, 0, 0, 0, 0),
        set(3, way.index().cast_signed()),
        code(0x85, 0, 0, 0, TAIL_CALL),
        // There is no such program: the next one, if any, decides.
        set(0, -1),
        code(0x95, 0, 0, 0, 0),
    ]
}

const fn code(code: u8, to: u8, from: u8, offset: i16, number: i32) -> Instruction {
    Instruction {
        code,
        registers: to | from << 4,
        offset,
        number,
    }
}

/// Calls bpf(2) for a descriptor.
///
/// # Safety
/// What addresses in `attribute` point to must be as the command wants it.
unsafe fn command<T>(command: libc::c_int, attribute: &T) -> io::Result<OwnedFd> {
    let attribute: *const T = attribute;
    // SAFETY: the size is that of the attribute, which outlives the call; for
    // what it points to the caller vouches.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attribute, size_of::<T>()) };
    let fd = i32::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: BorrowedFd<'_>) -> i32 {
    fd.as_raw_fd()
}

fn address<T>(pointer: *const T) -> u64 {
    u64::try_from(pointer.expose_provenance()).unwrap_or_default()
}
