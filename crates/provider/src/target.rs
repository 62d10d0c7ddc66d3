//! What a provider hands on.

use crate::fit::fit;
use sandtrace_event::{
    Coverage, DiskIdentity, EvidenceTier, Passed, SandboxAttached, TapIdentity, VmmIdentity,
};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The adapter that found a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProviderKind {
    /// A Firecracker process, jailed or not.
    Firecracker,
    /// A Firecracker process of E2B's orchestrator.
    E2b,
    /// A container of Daytona's runner.
    Daytona,
    /// A Cloud Hypervisor process.
    CloudHypervisor,
    /// A QEMU system emulator.
    Qemu,
    /// A process of microsandbox or krunvm with libkrun in it.
    Libkrun,
    /// Named by the operator.
    Manual,
}

impl ProviderKind {
    /// Every kind that can be looked for.
    pub const DISCOVERED: [Self; 6] = [
        Self::Firecracker,
        Self::E2b,
        Self::Daytona,
        Self::CloudHypervisor,
        Self::Qemu,
        Self::Libkrun,
    ];

    /// The word that the trail uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Firecracker => "firecracker",
            Self::E2b => "e2b",
            Self::Daytona => "daytona",
            Self::CloudHypervisor => "cloud-hypervisor",
            Self::Qemu => "qemu",
            Self::Libkrun => "libkrun",
            Self::Manual => "manual",
        }
    }
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ProviderKind {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let known = Self::DISCOVERED.into_iter();
        known
            .clone()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| {
                let known: Vec<_> = known.map(Self::as_str).collect();
                format!("not a provider: use one of {}", known.join(", "))
            })
    }
}

/// One sandbox, as far as its host can see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its id: `[A-Za-z0-9._-]`, at most 128 characters, safe in a file name.
    pub sandbox_id: String,
    /// The agent, where metadata from outside of the guest names one.
    pub agent_id: Option<String>,
    /// What it was made from, where its provider says so.
    pub template: Option<String>,
    /// What its provider calls it beside its id. Never taken from where
    /// secrets are kept.
    pub labels: BTreeMap<String, String>,
    /// Who found it.
    pub provider: ProviderKind,
    /// Its process. Pid and start time name it for good; see
    /// [`sandtrace_sys::process::Pidfd`].
    pub vmm: Option<VmmIdentity>,
    /// Its interfaces on the host, all of them in the namespace `netns_path`.
    pub taps: Vec<TapIdentity>,
    /// Its writable disks.
    pub disks: Vec<Disk>,
    /// What had crossed its interfaces when their capture began: for whoever
    /// captures to fill in.
    pub passed_before: Vec<Passed>,
    /// Upper dirs of its overlays: a pod of Kata's has one for each container.
    pub overlays: Vec<Disk>,
    /// What cannot be seen of it, and why.
    pub coverage: Vec<Coverage>,
    /// Where to enter its network namespace; `None` where that is our own.
    pub netns_path: Option<PathBuf>,
    /// Its API did not answer in time, or not in a way that can be used:
    /// asked another time it may tell more.
    pub unanswered: bool,
}

/// How the bytes of a disk are kept in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFormat {
    /// Byte for byte.
    Raw,
    /// QEMU's format.
    Qcow2,
}

/// A disk image, block device, or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What the trail says of it. `path` is the name by which the sandbox'
    /// process has it, which may mean nothing here; `kind` is what its first
    /// bytes say: `ext4`, `qcow2`, `gpt`, `mbr`, `xfs`, `squashfs`,
    /// `unknown`, or `overlay` for a directory.
    pub identity: DiskIdentity,
    /// Where to open it: `/proc/PID/fd/N` or the path that the operator gave.
    /// Whoever opens it compares device and inode with `identity`.
    pub open_path: PathBuf,
    /// How its VMM keeps the disk in it, or what the operator says; `None`
    /// where neither tells. Its bytes, which the guest writes, never decide.
    pub format: Option<DiskFormat>,
}

impl Target {
    /// Whether its process is a VMM, not the agent's own. The overlay of a
    /// process that nobody knows is the kernel's, which host and sandbox share.
    #[must_use]
    pub fn is_vm(&self) -> bool {
        match self.provider {
            ProviderKind::Daytona => false,
            ProviderKind::Manual => self.overlays.is_empty(),
            _ => true,
        }
    }

    /// From where what is captured of it is seen: a VM from outside of its
    /// guest, a container by the kernel that it shares.
    #[must_use]
    pub fn tier(&self) -> EvidenceTier {
        if self.is_vm() {
            EvidenceTier::Hypervisor
        } else {
            EvidenceTier::Kernel
        }
    }

    /// The record that says that this sandbox is being watched. What does not
    /// fit into a record is counted in its coverage.
    #[must_use]
    pub fn attached(&self) -> SandboxAttached {
        let disks = self.disks.iter().chain(&self.overlays);
        let mut attached = SandboxAttached {
            agent_id: self.agent_id.clone(),
            coverage: self.coverage.clone(),
            disks: disks.map(|disk| disk.identity.clone()).collect(),
            labels: self.labels.clone(),
            passed_before: self.passed_before.clone(),
            provider: self.provider.as_str().to_owned(),
            taps: self.taps.clone(),
            template: self.template.clone(),
            vmm: self.vmm.clone(),
        };
        fit(&mut attached);
        attached
    }
}
