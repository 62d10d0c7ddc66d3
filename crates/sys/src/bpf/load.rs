//! Getting the programs into the kernel, and saying why that failed.

use super::{BpfError, BpfShape};
use crate::syscall::CallTable;
use aya::Ebpf;
use aya::maps::Array;
use aya::programs::RawTracePoint;
use std::io;

pub(super) fn set_shapes(programs: &mut Ebpf, shapes: &[BpfShape]) -> Result<(), BpfError> {
    let mut table_: Array<_, [u8; 8]> = programs
        .map_mut("shapes")
        .ok_or_else(|| wrong("shapes", &"missing"))?
        .try_into()
        .map_err(|error| wrong("shapes", &error))?;
    for shape in shapes {
        let at = |argument: Option<u8>| argument.unwrap_or(u8::MAX);
        let [first, second] = shape.texts.map(at);
        let rare = if shape.alarm { 2 } else { 1 };
        let list = [rare, at(shape.path), at(shape.address), at(shape.argv)];
        let [a, b, c, d] = list;
        let value = [a, b, c, d, first, second, 0, 0];
        let number = u32::from(shape.number);
        // As `rare` in syscalls.bpf.c.
        let index = match shape.table {
            CallTable::I386 => number + 512,
            CallTable::X32 if number >= 512 => number + 512,
            CallTable::Native | CallTable::X32 => number,
        };
        table_
            .set(index, value, 0)
            .map_err(|error| table("note down rare calls", error))?;
    }
    Ok(())
}

pub(super) fn attach(
    programs: &mut Ebpf,
    name: &'static str,
    tracepoint: &'static str,
) -> Result<(), BpfError> {
    let program: &mut RawTracePoint = programs
        .program_mut(name)
        .ok_or_else(|| wrong(name, &"missing"))?
        .try_into()
        .map_err(|error| wrong(name, &error))?;
    program.load().map_err(|error| match &error {
        aya::programs::ProgramError::LoadError { io_error, .. }
            if io_error.kind() == io::ErrorKind::PermissionDenied
                && io_error.raw_os_error() == Some(libc::EPERM) =>
        {
            BpfError::NotPermitted
        }
        _ => BpfError::Load {
            detail: in_full(&error),
        },
    })?;
    program
        .attach(tracepoint)
        .map(|_| ())
        .map_err(|error| BpfError::Attach {
            tracepoint,
            detail: in_full(&error),
        })
}

pub(super) fn take(programs: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, BpfError> {
    programs
        .take_map(name)
        .ok_or_else(|| wrong(name, &"missing"))
}

pub(super) fn map<T>(programs: &mut Ebpf, name: &'static str) -> Result<T, BpfError>
where
    T: TryFrom<aya::maps::Map, Error = aya::maps::MapError>,
{
    T::try_from(take(programs, name)?).map_err(|error| wrong(name, &error))
}

pub(super) fn wrong(map: &'static str, detail: &dyn std::fmt::Display) -> BpfError {
    BpfError::Map {
        map,
        detail: detail.to_string(),
    }
}

pub(super) fn table(
    doing: &'static str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> BpfError {
    BpfError::Table {
        doing,
        source: io::Error::other(error),
    }
}

pub(super) fn load_failed(error: &aya::EbpfError) -> BpfError {
    let detail = in_full(error);
    if detail.contains("os error 1)") {
        BpfError::NotPermitted
    } else {
        BpfError::Load { detail }
    }
}

/// An error with its causes, on one line that is not too long: the verifier's
/// log may be in it.
pub(super) fn in_full(error: &dyn std::error::Error) -> String {
    const MAX: usize = 600;
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(MAX).collect()
}
