//! Which VMM it is, and which of its threads does what.

/// A VMM whose threads are known by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmmKind {
    /// Firecracker: `firecracker`, `fc_api`, `fc_vcpu N`.
    Firecracker,
    /// QEMU: `CPU N/KVM` and others, where `-name debug-threads=on` is given.
    Qemu,
    /// Cloud Hypervisor: `vmm`, `vcpuN`, `http-server`, …
    CloudHypervisor,
}

impl VmmKind {
    /// By the base name of its executable.
    #[must_use]
    pub fn of(executable: &str) -> Option<Self> {
        if executable.starts_with("firecracker") {
            Some(Self::Firecracker)
        } else if executable.starts_with("qemu-system") || executable == "qemu-kvm" {
            Some(Self::Qemu)
        } else if executable.starts_with("cloud-hyperviso") {
            Some(Self::CloudHypervisor)
        } else {
            None
        }
    }

    /// The word that records use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Firecracker => "firecracker",
            Self::Qemu => "qemu",
            Self::CloudHypervisor => "cloud-hypervisor",
        }
    }
}

/// Group of a thread of the VMM's own process.
pub(crate) fn group(vmm: Option<VmmKind>, name: &[u8], is_leader: bool) -> &'static str {
    match vmm {
        Some(VmmKind::Firecracker) if name == b"fc_api" => "api",
        Some(VmmKind::Firecracker) if name.starts_with(b"fc_vcpu") => "vcpu",
        Some(VmmKind::Qemu) if name.starts_with(b"CPU ") => "vcpu",
        Some(VmmKind::CloudHypervisor) if name.starts_with(b"vcpu") => "vcpu",
        Some(VmmKind::CloudHypervisor) if name == b"http-server" => "api",
        Some(VmmKind::CloudHypervisor) if name == b"vmm" => "vmm",
        _ if is_leader => "main",
        _ => "worker",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(executable: &str, thread: &str, leader: bool, expected: &str) {
        let vmm = VmmKind::of(executable);
        assert_eq!(group(vmm, thread.as_bytes(), leader), expected);
    }

    #[test]
    fn threads_by_name() {
        check("firecracker", "firecracker", true, "main");
        check("firecracker-v1.12.0", "fc_api", false, "api");
        check("firecracker", "fc_vcpu 0", false, "vcpu");
        check("firecracker", "evil", false, "worker");
        check("qemu-system-x86_64", "CPU 0/KVM", false, "vcpu");
        check("qemu-system-x86_64", "qemu-system-x86", false, "worker");
        check("cloud-hypervisor", "vcpu12", false, "vcpu");
        check("cloud-hypervisor", "_disk0_q0", false, "worker");
        check("other", "CPU 0", true, "main");
    }
}
