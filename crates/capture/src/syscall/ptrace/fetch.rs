//! Reading what a stopped thread's arguments point to.

use super::reader::Reader;
use crate::syscall::rare::Shape;
use crate::syscall::{Fetched, RawCall};
use sandtrace_event::SyscallAbi;

/// Longest path or argument in bytes; longer ones are cut.
const MAX_TEXT: usize = 512;

/// Size of the largest socket address (`struct sockaddr_storage`).
const MAX_ADDRESS: u64 = 128;

/// Arguments of `execve` that are kept.
const MAX_ARGV: usize = 8;

/// Whose memory it is, and by whom it is read.
#[derive(Clone, Copy)]
pub(super) struct Memory<'a> {
    pub(super) reader: &'a Reader,
    pub(super) pid: u32,
    pub(super) tid: u32,
}

impl Memory<'_> {
    fn read(self, address: u64, most: usize) -> Vec<u8> {
        self.reader.read(self.pid, self.tid, address, most)
    }
}

pub(super) fn fetch(
    memory: Memory<'_>,
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
        path: shape.path.map(|at| text(memory, argument(at))),
        address: shape.address.map(|at| {
            let length = argument(at + 1).min(MAX_ADDRESS);
            let length = usize::try_from(length).unwrap_or_default();
            let bytes = memory.read(argument(at), length);
            (!bytes.is_empty()).then_some(Fetched { bytes, cut: false })
        }),
        argv: shape
            .argv
            .map(|at| list(memory, argument(at), pointer_bytes(abi)))
            .unwrap_or_default(),
        texts: shape.texts.map(|at| {
            // One may be left out.
            let address = argument(at?);
            (address != 0).then(|| text(memory, address))
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
fn text(memory: Memory<'_>, address: u64) -> Option<Fetched> {
    let mut bytes = memory.read(address, MAX_TEXT);
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
fn list(memory: Memory<'_>, address: u64, pointer: usize) -> Vec<Fetched> {
    let bytes = memory.read(address, MAX_ARGV * pointer);
    let pointers = bytes.chunks_exact(pointer).map(|bytes| {
        let mut wide = [0_u8; 8];
        for (to, from) in wide.iter_mut().zip(bytes) {
            *to = *from;
        }
        u64::from_le_bytes(wide)
    });
    pointers
        .take_while(|pointer| *pointer != 0)
        .filter_map(|pointer| text(memory, pointer))
        .collect()
}
