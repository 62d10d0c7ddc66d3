//! From the words of the programs in the kernel to ours.

use crate::syscall::{Fact, FactKind, Fetched, RawCall, ThreadInfo, names, rare};
use sandtrace_event::SyscallAbi;
use sandtrace_sys::bpf::{BpfEvent, BpfEventKind, BpfShape};

pub(super) fn abi(abi: u32) -> SyscallAbi {
    match abi {
        1 => SyscallAbi::I386,
        2 => SyscallAbi::X32,
        _ => SyscallAbi::Native,
    }
}

pub(super) fn fact(event: BpfEvent) -> Fact {
    let what = match event.kind {
        BpfEventKind::Sigsys(number) => FactKind::Sigsys(number),
        BpfEventKind::Call {
            number,
            abi: table,
            arguments,
            path,
            address,
            argv,
        } => call(abi(table), number, arguments, (path, address, argv)),
    };
    Fact {
        at_us: event.at_ns / 1000,
        tid: event.tid,
        thread: ThreadInfo {
            pid: event.pid,
            name: event.name,
        },
        what,
    }
}

type Texts = (
    Option<(Vec<u8>, bool)>,
    Option<Vec<u8>>,
    Vec<(Vec<u8>, bool)>,
);

fn call(
    abi: SyscallAbi,
    number: u32,
    arguments: [u64; 6],
    (path, address, argv): Texts,
) -> FactKind {
    if names::number(abi, "exit_group") == Some(number) {
        let status = i32::try_from(arguments[0] & 0xff).unwrap_or_default();
        return FactKind::Ends(status);
    }
    let shape = rare::shape(abi, number);
    let fetched = |(bytes, cut)| Fetched { bytes, cut };
    let address = address.map(|bytes| Fetched { bytes, cut: false });
    FactKind::Call(RawCall {
        abi,
        number,
        arguments,
        path: shape.path.map(|_| path.map(fetched)),
        address: shape.address.map(|_| address),
        argv: argv.into_iter().map(fetched).collect(),
    })
}

pub(super) fn shapes() -> Vec<BpfShape> {
    let tables = [(SyscallAbi::Native, false), (SyscallAbi::I386, true)];
    let shapes = tables.into_iter().flat_map(|(abi, compat)| {
        rare::table(abi)
            .into_iter()
            .filter_map(move |(number, shape)| {
                Some(BpfShape {
                    number: u16::try_from(number).ok()?,
                    compat,
                    path: shape.path,
                    address: shape.address,
                    argv: shape.argv,
                })
            })
    });
    shapes.collect()
}
