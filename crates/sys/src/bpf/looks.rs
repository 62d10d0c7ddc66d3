//! Running a program for each thread of the host (a BPF iterator).

use super::BpfError;
use super::load::{in_full, wrong};
use aya::programs::Iter;
use aya::{Btf, Ebpf};
use std::fs::File;
use std::io::{self, Read as _};

const PROGRAM: &str = "adopt";

/// A look that is not over gives up its processor now and then.
const PARTS: usize = 1024;

pub(super) fn load(programs: &mut Ebpf) -> Result<(), BpfError> {
    let types = Btf::from_sys_fs().map_err(|error| refused(&error))?;
    let program = program(programs)?;
    program
        .load("task", &types)
        .map_err(|error| refused(&error))
}

/// Runs it once for each thread.
pub(super) fn run(programs: &mut Ebpf) -> Result<(), BpfError> {
    let program = program(programs)?;
    let link = program.attach().map_err(|error| refused(&error))?;
    let link = program.take_link(link).map_err(|error| refused(&error))?;
    let mut look = link.into_file().map_err(|error| refused(&error))?;
    drain(&mut look).map_err(|source| BpfError::Table {
        doing: "look at the threads of the host",
        source,
    })
}

/// The program writes nothing; reading is what makes it run.
fn drain(look: &mut File) -> io::Result<()> {
    let mut nothing = [0; 64];
    for _ in 0..PARTS {
        match look.read(&mut nothing) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("there are too many"))
}

fn program(programs: &mut Ebpf) -> Result<&mut Iter, BpfError> {
    let program = programs
        .program_mut(PROGRAM)
        .ok_or_else(|| wrong(PROGRAM, &"missing"))?;
    program.try_into().map_err(|error| wrong(PROGRAM, &error))
}

fn refused(error: &dyn std::error::Error) -> BpfError {
    BpfError::Load {
        detail: in_full(error),
    }
}
