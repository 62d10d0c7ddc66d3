//! Processes that are a sandbox, told by their arguments or by Docker.

use crate::claims::Claims;
use crate::ids::is_valid_id;
use crate::{
    DiscoverConfig, FindError, Found, ProviderKind, Target, cloud_hypervisor, daytona, e2b,
    firecracker, kata, libkrun, qemu,
};
use sandtrace_event::{Count, VmmIdentity};
use sandtrace_sys::process::{DescriptorKind, ProcRoot, Process};
use std::io;
use std::time::Instant;

/// A process that is a sandbox, of which nothing else is known yet.
#[derive(Debug)]
pub struct Sighting {
    pub(crate) process: Process,
    /// Base name of argv\[0\].
    name: String,
    pub(crate) form: Form,
    pub(crate) id: String,
    /// What the process calls itself, where that cannot be an id.
    pub(crate) unusable_id: Option<String>,
    /// A second name that is its alone, where its id may be used again.
    alias: Option<String>,
}

/// What its provider says of it without being asked.
#[derive(Debug)]
pub(crate) enum Form {
    Firecracker(firecracker::Arguments),
    E2b(e2b::Instance, firecracker::Arguments),
    Daytona(daytona::Container),
    CloudHypervisor(cloud_hypervisor::Arguments),
    Qemu(qemu::Arguments),
    Libkrun(libkrun::Arguments),
}

impl Sighting {
    /// Looks at one process. `None` where it is no VMM, or none of those that
    /// are looked for.
    ///
    /// # Errors
    /// When the process is gone or may not be looked at.
    pub fn of_process(
        proc: &ProcRoot,
        pid: u32,
        config: &DiscoverConfig,
    ) -> io::Result<Option<Self>> {
        let sighting = Self::of(proc.process(pid)?)?;
        Ok(sighting.filter(|it| config.wants(it.provider())))
    }

    /// `None` for any other process. Fails only where it is gone.
    pub(crate) fn of(process: Process) -> io::Result<Option<Self>> {
        let arguments = process.arguments()?;
        let Some((first, rest)) = arguments.split_first() else {
            return Ok(None);
        };
        let name = base_name(first);
        let Some((form, claimed)) = recognise(&process, &name, rest) else {
            return Ok(None);
        };
        let of_kata = || claimed.as_deref().and_then(kata::sandbox);
        let alias = match &form {
            Form::E2b(instance, _) => Some(instance.alias()),
            Form::Firecracker(arguments) => arguments.alias().or_else(of_kata),
            _ => of_kata(),
        };
        Ok(Some(Self::new(process, name, form, claimed, alias)))
    }

    pub(crate) fn of_container(process: Process, container: daytona::Container) -> Self {
        let arguments = process.arguments().unwrap_or_default();
        let name = base_name(arguments.first().map(Vec::as_slice).unwrap_or_default());
        let (id, alias) = (container.name.clone(), container.id.clone());
        Self::new(
            process,
            name,
            Form::Daytona(container),
            Some(id),
            Some(alias),
        )
    }

    fn new(
        process: Process,
        name: String,
        form: Form,
        claimed: Option<String>,
        alias: Option<String>,
    ) -> Self {
        let usable = claimed.as_deref().is_some_and(is_valid_id);
        let fallback = || format!("{}-{}", form.kind(), process.pid());
        let (id, unusable_id) = match claimed {
            Some(id) if usable => (id, None),
            unusable => (fallback(), unusable),
        };
        Self {
            process,
            name,
            form,
            id,
            unusable_id,
            alias,
        }
    }

    /// Its id.
    #[must_use]
    pub fn sandbox_id(&self) -> &str {
        &self.id
    }

    /// What kind it is.
    #[must_use]
    pub fn provider(&self) -> ProviderKind {
        self.form.kind()
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// When that started, in clock ticks since boot.
    #[must_use]
    pub fn start_ticks(&self) -> u64 {
        self.process.start_ticks()
    }

    /// Whether its process still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.process.is_alive()
    }

    /// Whether its network can be looked for yet: a VMM has a tap open, a
    /// container always has what it will have, and libkrun never has any.
    #[must_use]
    pub fn has_network(&self) -> bool {
        let is_tap = |kind: &DescriptorKind| matches!(kind, DescriptorKind::Tap { .. });
        let tap = || {
            let open = self.process.descriptors().unwrap_or_default().open;
            open.iter().any(|descriptor| is_tap(&descriptor.kind))
        };
        matches!(self.form, Form::Daytona(_) | Form::Libkrun(_)) || tap()
    }

    /// Everything about it. Its API is asked at most until `deadline`.
    ///
    /// # Errors
    /// When it ended.
    pub fn describe(
        &self,
        proc: &ProcRoot,
        config: &DiscoverConfig,
        deadline: Instant,
    ) -> Result<Target, FindError> {
        let namespaces = crate::inspect::Namespaces::of(proc);
        let wanted = crate::inspect::Wanted::ALL;
        crate::describe::describe(self, &namespaces, wanted, config, deadline)
    }

    pub(crate) fn answers_to(&self, id: &str) -> bool {
        let other = [self.unusable_id.as_deref(), self.alias.as_deref()];
        self.id == id || other.contains(&Some(id))
    }

    pub(crate) fn found(&self) -> Found {
        Found {
            sandbox_id: self.id.clone(),
            provider: self.provider(),
            pid: self.process.pid(),
        }
    }

    pub(crate) fn identity(&self) -> VmmIdentity {
        identity(&self.process, self.name.clone())
    }

    /// What its configuration says; takes until `deadline` at most.
    pub(crate) fn claims(&self, deadline: Instant) -> Claims {
        let mut claims = match &self.form {
            Form::Firecracker(arguments) => {
                firecracker::claims(&self.process, arguments, deadline).0
            }
            Form::E2b(instance, arguments) => instance.claims(&self.process, arguments, deadline),
            Form::Daytona(container) => container.claims(),
            Form::CloudHypervisor(arguments) => arguments.claims(&self.process, deadline),
            Form::Qemu(arguments) => arguments.claims(),
            Form::Libkrun(arguments) => arguments.claims(),
        };
        if let Some(sandbox) = kata::sandbox(&self.id) {
            claims.labels.insert(kata::LABEL.to_owned(), sandbox);
        }
        claims
    }
}

impl Form {
    fn kind(&self) -> ProviderKind {
        match self {
            Self::Firecracker(_) => ProviderKind::Firecracker,
            Self::E2b(..) => ProviderKind::E2b,
            Self::Daytona(_) => ProviderKind::Daytona,
            Self::CloudHypervisor(_) => ProviderKind::CloudHypervisor,
            Self::Qemu(_) => ProviderKind::Qemu,
            Self::Libkrun(_) => ProviderKind::Libkrun,
        }
    }
}

/// The VMM and the id that it claims.
fn recognise(process: &Process, name: &str, rest: &[Vec<u8>]) -> Option<(Form, Option<String>)> {
    if name == "firecracker" {
        let mut arguments = firecracker::Arguments::parse(rest);
        if let Some(instance) = e2b::Instance::of(&arguments) {
            let id = instance.sandbox_id.clone();
            return Some((Form::E2b(instance, arguments), Some(id)));
        }
        arguments.name_by(|| process.working_directory().ok());
        let id = arguments.id().to_owned();
        Some((Form::Firecracker(arguments), Some(id)))
    } else if name == "cloud-hypervisor" {
        let arguments = cloud_hypervisor::Arguments::parse(rest);
        let id = arguments.id();
        Some((Form::CloudHypervisor(arguments), id))
    } else if is_qemu(name) || (QEMU_TOO.contains(&name) && runs_qemu(process)) {
        let arguments = qemu::Arguments::parse(rest);
        let id = arguments.id.clone();
        Some((Form::Qemu(arguments), id))
    } else if libkrun::is_called(name) {
        let arguments = libkrun::Arguments::parse(name, rest)?;
        let id = arguments.id.clone();
        Some((Form::Libkrun(arguments), id))
    } else {
        None
    }
}

/// What QEMU is called too: by RHEL (`/usr/libexec/qemu-kvm`) and by Debian and
/// Proxmox. Anything else may bear these names, so its program counts as well.
const QEMU_TOO: [&str; 2] = ["qemu-kvm", "kvm"];

fn is_qemu(name: &str) -> bool {
    let machine = name.strip_prefix("qemu-system-");
    machine.is_some_and(|machine| !machine.is_empty())
}

fn runs_qemu(process: &Process) -> bool {
    let program = process.program();
    program.is_ok_and(|program| is_qemu(&program) || program == "qemu-kvm")
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
