//! What a provider hands on.

use sandtrace_event::{Coverage, DiskIdentity, SandboxAttached, TapIdentity, VmmIdentity};
use std::fmt;
use std::path::PathBuf;

/// The adapter that found a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProviderKind {
    /// A Firecracker process, jailed or not.
    Firecracker,
    /// A QEMU system emulator.
    Qemu,
    /// Named by the operator.
    Manual,
}

impl ProviderKind {
    /// The word that the trail uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Firecracker => "firecracker",
            Self::Qemu => "qemu",
            Self::Manual => "manual",
        }
    }
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One sandbox, as far as its host can see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its id: `[A-Za-z0-9._-]`, at most 128 characters, safe in a file name.
    pub sandbox_id: String,
    /// The agent, where metadata from outside of the guest names one.
    pub agent_id: Option<String>,
    /// Who found it.
    pub provider: ProviderKind,
    /// Its process. Pid and start time name it for good; see
    /// [`sandtrace_sys::process::Pidfd`].
    pub vmm: Option<VmmIdentity>,
    /// Its interfaces on the host, all of them in the namespace `netns_path`.
    pub taps: Vec<TapIdentity>,
    /// Its writable disks.
    pub disks: Vec<Disk>,
    /// Upper dir of its overlay; only ever named by the operator.
    pub overlay: Option<Disk>,
    /// What cannot be seen of it, and why.
    pub coverage: Vec<Coverage>,
    /// Where to enter its network namespace; `None` where that is our own.
    pub netns_path: Option<PathBuf>,
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
}

impl Target {
    /// The record that says that this sandbox is being watched.
    #[must_use]
    pub fn attached(&self) -> SandboxAttached {
        let disks = self.disks.iter().chain(&self.overlay);
        SandboxAttached {
            coverage: self.coverage.clone(),
            disks: disks.map(|disk| disk.identity.clone()).collect(),
            provider: self.provider.as_str().to_owned(),
            taps: self.taps.clone(),
            vmm: self.vmm.clone(),
        }
    }
}
