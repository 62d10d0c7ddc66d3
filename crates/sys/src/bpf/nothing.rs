//! Programs that do nothing: what any program at all would cost.

use super::load::{attach, load_failed};
use super::{BpfError, OBJECT};
use aya::{Ebpf, EbpfLoader};

/// Two programs that do nothing, on the tracepoints that every system call
/// passes. For benchmarks: nothing that counts calls can cost less.
pub struct BpfNothing {
    // Holds the programs' links.
    _programs: Ebpf,
}

impl BpfNothing {
    /// Loads and attaches them.
    ///
    /// # Errors
    /// As [`super::BpfSyscalls::load`].
    pub fn attach() -> Result<Self, BpfError> {
        let loaded = EbpfLoader::new().load(OBJECT);
        let mut programs = loaded.map_err(|error| load_failed(&error))?;
        attach(&mut programs, "nothing_on_exit", "sys_exit")?;
        attach(&mut programs, "nothing_on_enter", "sys_enter")?;
        Ok(Self {
            _programs: programs,
        })
    }
}
