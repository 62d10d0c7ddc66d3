//! From the words of the programs in the kernel to ours.

use crate::syscall::{Fact, FactKind, Fetched, RawCall, ThreadInfo, forbidden, names, rare};
use sandtrace_event::SyscallAbi;
use sandtrace_sys::bpf::{BpfEvent, BpfEventKind, BpfShape};
use sandtrace_sys::syscall::CallTable;

pub(super) fn abi(abi: u32) -> SyscallAbi {
    match abi {
        1 => SyscallAbi::I386,
        2 => SyscallAbi::X32,
        _ => SyscallAbi::Native,
    }
}

pub(super) fn fact(event: BpfEvent) -> Fact {
    let what = match event.kind {
        BpfEventKind::Sigsys(call) => FactKind::Sigsys(call.map(forbidden)),
        BpfEventKind::Call {
            number,
            abi: table,
            arguments,
            path,
            address,
            argv,
            texts,
        } => {
            let call = RawCall {
                abi: abi(table),
                number,
                arguments,
                path: path.map(|path| Some(fetched(path))),
                address: address.map(|bytes| Some(Fetched { bytes, cut: false })),
                argv: argv.into_iter().map(fetched).collect(),
                texts: texts.map(|text| text.map(|text| Some(fetched(text)))),
            };
            shaped(call)
        }
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

fn fetched((bytes, cut): (Vec<u8>, bool)) -> Fetched {
    Fetched { bytes, cut }
}

/// Only what the call has; what was not read of that is said.
fn shaped(call: RawCall) -> FactKind {
    if names::number(call.abi, "exit_group") == Some(call.number) {
        let status = i32::try_from(call.arguments[0] & 0xff).unwrap_or_default();
        return FactKind::Ends(status);
    }
    let shape = rare::shape(call.abi, call.number);
    let arguments = call.arguments;
    // One may be left out.
    let given = |at: u8, text: Option<Option<Fetched>>| {
        let pointer = arguments.get(usize::from(at)).copied();
        (pointer != Some(0)).then(|| text.flatten())
    };
    let has_texts = shape.texts.iter().any(Option::is_some);
    let [first, second] = call.texts;
    let [has_first, has_second] = shape.texts;
    FactKind::Call(RawCall {
        path: shape.path.map(|_| call.path.flatten()),
        address: shape.address.map(|_| call.address.flatten()),
        argv: if has_texts { Vec::new() } else { call.argv },
        texts: [
            has_first.and_then(|at| given(at, first)),
            has_second.and_then(|at| given(at, second)),
        ],
        ..call
    })
}

pub(super) fn shapes() -> Vec<BpfShape> {
    let tables = [
        (SyscallAbi::Native, CallTable::Native),
        (SyscallAbi::I386, CallTable::I386),
        (SyscallAbi::X32, CallTable::X32),
    ];
    let shapes = tables.into_iter().flat_map(|(abi, table)| {
        rare::table(abi)
            .into_iter()
            .filter_map(move |(number, shape)| {
                Some(BpfShape {
                    number: u16::try_from(number).ok()?,
                    table,
                    path: shape.path,
                    address: shape.address,
                    argv: shape.argv,
                    texts: shape.texts,
                    alarm: rare::is_alarm(&names::name(abi, number)),
                })
            })
    });
    shapes.collect()
}
