//! The program on each interface: it notes down which interface it is and goes
//! on in the program that all share.
//!
//! It is put together here: what is compiled has no place for a number that differs
//! by interface, and a copy of the shared program for each would cost a thousand
//! interfaces some 50 MiB.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// Commands, types and flags of linux/bpf.h.
const PROG_LOAD: libc::c_int = 5;
const SOCKET_FILTER: u32 = 1;
const TAIL_CALL: i32 = 12;
/// The source register that has an instruction's number be a map's descriptor.
const MAP_FD: u8 = 1;

/// Where `cb[0]` and `cb[1]` stand in `struct __sk_buff`.
const CB: [i16; 2] = [48, 52];

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

/// A program that writes `slot` and `owner` down and goes on in the first program
/// of `shared`, a table of programs.
pub(super) fn load(shared: BorrowedFd<'_>, slot: u32, owner: u32) -> io::Result<OwnedFd> {
    let instructions = instructions(shared, slot, owner);
    let license = c"GPL";
    let mut name = [0; 16];
    for (to, from) in name.iter_mut().zip(b"sandtrace") {
        *to = *from;
    }
    let load = Load {
        kind: SOCKET_FILTER,
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

fn instructions(shared: BorrowedFd<'_>, slot: u32, owner: u32) -> [Instruction; 10] {
    // Registers: r1 is the frame, r2 and r3 the tail call's table and index.
    let set = |register: u8, number: i32| code(0xb7, register, 0, 0, number);
    let note = |offset: i16| code(0x63, 1, 2, offset, 0);
    [
        set(2, slot.cast_signed()),
        note(CB[0]),
        set(2, owner.cast_signed()),
        note(CB[1]),
        code(0x18, 2, MAP_FD, 0, number(shared)),
        code(0, 0, 0, 0, 0),
        set(3, 0),
        code(0x85, 0, 0, 0, TAIL_CALL),
        // There is no such program: the socket gets nothing either.
        set(0, 0),
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
