//! Processes that are a sandbox's VMM, told by their arguments alone.

use crate::claims::Claims;
use crate::ids::is_valid_id;
use crate::{Found, ProviderKind, firecracker, qemu};
use sandtrace_event::{Count, VmmIdentity};
use sandtrace_sys::process::{ProcRoot, Process};
use std::io;

/// A VMM process.
pub(crate) struct Candidate {
    pub(crate) process: Process,
    /// Base name of argv\[0\].
    name: String,
    vmm: Vmm,
    pub(crate) id: String,
    /// What the process calls itself, where that cannot be an id.
    pub(crate) unusable_id: Option<String>,
}

enum Vmm {
    Firecracker(firecracker::Arguments),
    Qemu(qemu::Arguments),
}

impl Candidate {
    /// `None` for any other process. Fails only where it is gone.
    pub(crate) fn of(process: Process) -> io::Result<Option<Self>> {
        let arguments = process.arguments()?;
        let Some((first, rest)) = arguments.split_first() else {
            return Ok(None);
        };
        let name = base_name(first);
        let Some((vmm, claimed)) = recognise(&name, rest) else {
            return Ok(None);
        };
        let usable = claimed.as_deref().is_some_and(is_valid_id);
        let fallback = || format!("{}-{}", vmm.kind(), process.pid());
        let (id, unusable_id) = match claimed {
            Some(id) if usable => (id, None),
            unusable => (fallback(), unusable),
        };
        Ok(Some(Self {
            process,
            name,
            vmm,
            id,
            unusable_id,
        }))
    }

    pub(crate) fn kind(&self) -> ProviderKind {
        self.vmm.kind()
    }

    pub(crate) fn answers_to(&self, id: &str) -> bool {
        self.id == id || self.unusable_id.as_deref() == Some(id)
    }

    pub(crate) fn found(&self) -> Found {
        Found {
            sandbox_id: self.id.clone(),
            provider: self.kind(),
            pid: self.process.pid(),
        }
    }

    pub(crate) fn identity(&self) -> VmmIdentity {
        identity(&self.process, self.name.clone())
    }

    /// What its configuration says; may take a second.
    pub(crate) fn claims(&self) -> Claims {
        match &self.vmm {
            Vmm::Firecracker(arguments) => firecracker::claims(&self.process, arguments),
            Vmm::Qemu(arguments) => arguments.claims(),
        }
    }
}

impl Vmm {
    fn kind(&self) -> ProviderKind {
        match self {
            Self::Firecracker(_) => ProviderKind::Firecracker,
            Self::Qemu(_) => ProviderKind::Qemu,
        }
    }
}

/// The VMM and the id that it claims.
fn recognise(name: &str, rest: &[Vec<u8>]) -> Option<(Vmm, Option<String>)> {
    if name == "firecracker" {
        let arguments = firecracker::Arguments::parse(rest);
        let id = arguments.id.clone();
        Some((Vmm::Firecracker(arguments), Some(id)))
    } else if name
        .strip_prefix("qemu-system-")
        .is_some_and(|rest| !rest.is_empty())
    {
        let arguments = qemu::Arguments::parse(rest);
        let id = arguments.id.clone();
        Some((Vmm::Qemu(arguments), id))
    } else {
        None
    }
}

pub(crate) fn base_name(argument: &[u8]) -> String {
    let base = argument.rsplit(|&byte| byte == b'/').next();
    let base = base.unwrap_or_default();
    String::from_utf8_lossy(base.get(..256).unwrap_or(base)).into_owned()
}

pub(crate) fn identity(process: &Process, name: String) -> VmmIdentity {
    VmmIdentity {
        name,
        pid: process.pid(),
        start_ticks: Count(process.start_ticks()),
    }
}

/// Every VMM on the host, in ascending order of pids. Processes that end
/// meanwhile, or that may not be looked at at all, are none.
pub(crate) fn scan(proc: &ProcRoot) -> io::Result<Vec<Candidate>> {
    let candidate = |pid| Candidate::of(proc.process(pid).ok()?).ok()?;
    Ok(proc.pids()?.into_iter().filter_map(candidate).collect())
}
