//! What can be told of a sandbox at a glance, without asking its VMM.

use crate::Sighting;
use crate::kata;
use crate::sighting::Form;
use sandtrace_sys::process::{Access, DescriptorKind, FileId, Process};
use std::collections::BTreeSet;
use std::io;

/// Cheap to take and to compare: two that are equal give no reason to
/// describe the sandbox anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// Its interfaces: taps that a VMM has open, what a container is in.
    pub interfaces: BTreeSet<String>,
    /// What it can write to: files and block devices, and directories of Kata's.
    pub files: BTreeSet<FileId>,
    /// Whether its vCPUs run, or it is a container: its configuration is done.
    pub runs: bool,
    /// Whether it is a pod, which gets its containers while its guest runs.
    pub is_pod: bool,
}

impl Sighting {
    /// Looks at its process.
    ///
    /// # Errors
    /// When that is gone, or may not be looked into.
    pub fn outline(&self) -> io::Result<Outline> {
        let process = &self.process;
        if matches!(self.form, Form::Daytona(_)) {
            return Ok(Outline {
                interfaces: process.interfaces()?.into_iter().collect(),
                runs: true,
                ..Outline::default()
            });
        }
        let mut outline = Outline::default();
        for descriptor in process.descriptors()?.open {
            match descriptor.kind {
                DescriptorKind::Tap { interface } => _ = outline.interfaces.insert(interface),
                DescriptorKind::File { id, access } | DescriptorKind::Block { id, access } => {
                    if access == Access::ReadWrite {
                        outline.files.insert(id);
                    }
                }
            }
        }
        if let Some(sandbox) = kata::sandbox(&self.id) {
            if kata::is_vmm_of(&sandbox, process.pid()) {
                outline.files.extend(kata::roots(&sandbox));
            }
            outline.is_pod = true;
        }
        outline.runs = self.has_vcpus(process)?;
        Ok(outline)
    }

    /// vCPUs have threads of their own from the start of the guest on:
    /// Firecracker names them `fc_vcpu N` (src/vmm/src/vstate/vcpu.rs), Cloud
    /// Hypervisor `vcpuN` (vmm/src/cpu.rs), libkrun as Firecracker, QEMU `CPU N/KVM` where it was
    /// told to name any (`-name debug-threads=on`), and starts them at once.
    fn has_vcpus(&self, process: &Process) -> io::Result<bool> {
        let prefix = match &self.form {
            Form::Firecracker(_) | Form::E2b(..) | Form::Libkrun(_) => "fc_vcpu",
            Form::CloudHypervisor(_) => "vcpu",
            Form::Qemu(_) | Form::Daytona(_) => return Ok(true),
        };
        let names = process.thread_names()?;
        Ok(names.iter().any(|name| name.starts_with(prefix)))
    }
}
