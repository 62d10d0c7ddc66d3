//! Reading what a stopped thread's arguments point to.

use crate::syscall::rare::Shape;
use crate::syscall::{Fetched, RawCall};
use sandtrace_event::SyscallAbi;
use sandtrace_sys::ptrace::read_memory;

/// Longest path or argument in bytes; longer ones are cut.
const MAX_TEXT: usize = 512;

/// Size of the largest socket address (`struct sockaddr_storage`).
const MAX_ADDRESS: u64 = 128;

/// Arguments of `execve` that are kept.
const MAX_ARGV: usize = 8;

pub(super) fn fetch(
    tid: u32,
    abi: SyscallAbi,
    number: u32,
    arguments: [u64; 6],
    shape: Shape,
) -> RawCall {
    let argument = |at: u8| arguments.get(usize::from(at)).copied().unwrap_or_default();
    RawCall {
        abi,
        number,
        arguments,
        path: shape.path.map(|at| text(tid, argument(at))),
        address: shape.address.map(|at| {
            let length = argument(at + 1).min(MAX_ADDRESS);
            let length = usize::try_from(length).unwrap_or_default();
            let bytes = read_memory(tid, argument(at), length);
            (!bytes.is_empty()).then_some(Fetched { bytes, cut: false })
        }),
        argv: shape
            .argv
            .map(|at| list(tid, argument(at), pointer_bytes(abi)))
            .unwrap_or_default(),
        texts: shape.texts.map(|at| {
            // One may be left out.
            let address = argument(at?);
            (address != 0).then(|| text(tid, address))
        }),
    }
}

fn pointer_bytes(abi: SyscallAbi) -> usize {
    match abi {
        SyscallAbi::Native => 8,
        SyscallAbi::I386 | SyscallAbi::X32 => 4,
    }
}

/// A string that ends in NUL.
fn text(tid: u32, address: u64) -> Option<Fetched> {
    let mut bytes = read_memory(tid, address, MAX_TEXT);
    let end = bytes.iter().position(|&byte| byte == 0);
    let cut = end.is_none();
    if let Some(end) = end {
        bytes.truncate(end);
    } else if bytes.is_empty() {
        return None;
    }
    Some(Fetched { bytes, cut })
}

/// A list of strings that ends in a null pointer.
fn list(tid: u32, address: u64, pointer: usize) -> Vec<Fetched> {
    let bytes = read_memory(tid, address, MAX_ARGV * pointer);
    let pointers = bytes.chunks_exact(pointer).map(|bytes| {
        let mut wide = [0_u8; 8];
        for (to, from) in wide.iter_mut().zip(bytes) {
            *to = *from;
        }
        u64::from_le_bytes(wide)
    });
    pointers
        .take_while(|pointer| *pointer != 0)
        .filter_map(|pointer| text(tid, pointer))
        .collect()
}
