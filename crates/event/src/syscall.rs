//! Payload of `syscall_activity`: what the VMM process asked of the host's kernel.
//!
//! System calls of the guest run in the guest's own kernel and never reach
//! the host. What is recorded here are the calls of the process that runs the
//! guest, and of whatever that process starts.

use crate::{Bytes64, Count};
use serde::{Deserialize, Serialize};

/// Whose calls a record is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyscallSubject {
    /// The VMM process and its descendants on the host. Never the guest.
    #[default]
    Vmm,
}

/// How the calls were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyscallBackend {
    /// Programs on the kernel's system call tracepoints.
    Ebpf,
    /// Every thread is traced.
    Ptrace,
    /// Read from `/proc` alone; for findings about the process' state.
    Proc,
}

/// Which table of numbers a call was made through.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum SyscallAbi {
    /// The machine's own.
    #[default]
    Native,
    /// 32-bit calls on a 64-bit kernel (`int 0x80`).
    I386,
    /// 32-bit pointers with 64-bit registers: numbers with bit 30 set.
    X32,
}

impl SyscallAbi {
    fn is_native(&self) -> bool {
        *self == Self::Native
    }
}

/// The process that made the calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallingProcess {
    /// Its name as the kernel has it (`comm` of its first known thread), lossy where it is not UTF-8.
    pub name: String,
    /// Its process id on the host.
    pub pid: u32,
    /// Whether it is a descendant of the VMM and not the VMM itself.
    pub started_by_vmm: bool,
}

/// Calls of one kind within one interval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallCount {
    /// Table of numbers; absent for the machine's own.
    #[serde(default, skip_serializing_if = "SyscallAbi::is_native")]
    pub abi: SyscallAbi,
    /// Calls that returned.
    pub count: Count,
    /// Of those, how many returned an error, interrupted ones included.
    pub errors: Count,
    /// Of those, how many were interrupted and left to be restarted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interrupted: Count,
    /// Name of the call, or its number in decimal where it has no known name.
    pub name: String,
    /// Nanoseconds between entry and return, waiting included; estimated where
    /// a thread makes very many calls (docs/syscalls.md).
    pub time_ns: Count,
}

fn is_zero(count: &Count) -> bool {
    count.0 == 0
}

/// What all calls of one thread group of one process added up to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallSummary {
    /// In the order of their names; at most 128, more make further records.
    pub calls: Vec<CallCount>,
    /// Length of the interval in microseconds; it ends with the record's time.
    pub interval_us: Count,
    /// How often KVM left the guest on all of these threads: the one number here that
    /// tells of the guest's own activity. Absent where it is 0 or not counted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub kvm_exits: Count,
    /// Threads that made them.
    pub threads: Count,
    /// The same for each of these threads, which are one for each vCPU, by id; at most
    /// 128, those with the most. `kvm_exits` has the others' too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vcpu_exits: Vec<VcpuExits>,
}

/// How often KVM left the guest on one thread within an interval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VcpuExits {
    /// How often.
    pub exits: Count,
    /// Name of the thread, which VMMs give their vCPU's number; lossy where it is not UTF-8.
    pub name: String,
    /// The thread.
    pub tid: u32,
}

/// One security-relevant call, as it was asked for: whether it succeeded is
/// in the interval's counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RareCall {
    /// Table of numbers; absent for the machine's own.
    #[serde(default, skip_serializing_if = "SyscallAbi::is_native")]
    pub abi: SyscallAbi,
    /// `connect` and `bind`: the address, as `192.0.2.1:443`, `[2001:db8::1]:443` or `unix:/path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The six argument registers in hexadecimal.
    pub arguments: Vec<String>,
    /// `execve`: the first arguments, lossy where they are not UTF-8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// Arguments in words: flags, operations and targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Name of the call, or its number in decimal where it has no known name.
    pub name: String,
    /// The path it names; lossy where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The exact path, where `path` is lossy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<Bytes64>,
    /// How often the same thread asked for exactly this within the interval.
    pub repeats: Count,
    /// The thread.
    pub tid: u32,
    /// What of the arguments could not be read, or was longer than what is kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

/// Something about the VMM's confinement that is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyscallFindingKind {
    /// Threads run without a seccomp filter.
    NoSeccomp,
    /// Threads can gain privileges by executing a file: `NoNewPrivs` is 0.
    NewPrivsPossible,
    /// A seccomp filter met a forbidden call: SIGSYS was delivered.
    SeccompViolation,
    /// The process ended with exit status 148, Firecracker's word for a forbidden call.
    SeccompExit,
}

impl SyscallFindingKind {
    /// The word that the trail uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSeccomp => "no_seccomp",
            Self::NewPrivsPossible => "new_privs_possible",
            Self::SeccompViolation => "seccomp_violation",
            Self::SeccompExit => "seccomp_exit",
        }
    }
}

/// A finding, with what it was seen by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyscallFinding {
    /// In a sentence.
    pub detail: String,
    /// Which.
    pub kind: SyscallFindingKind,
    /// The thread, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tid: Option<u32>,
}

/// What one thread group of the VMM asked of the host's kernel. Exactly one
/// of `call`, `finding` and `summary` is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyscallActivity {
    /// How it was seen.
    pub backend: SyscallBackend,
    /// One rare call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<RareCall>,
    /// A finding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<SyscallFinding>,
    /// Thread group: `main`, `api`, `vcpu`, `worker`, …; `child` for another process.
    pub group: String,
    /// The process.
    pub process: CallingProcess,
    /// Whose calls these are.
    pub subject: SyscallSubject,
    /// Counts of an interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<CallSummary>,
    /// Which VMM it is, where that is known: `firecracker`, `qemu`, `cloud-hypervisor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmm: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_reads_back() {
        let activity = SyscallActivity {
            backend: SyscallBackend::Ebpf,
            call: None,
            finding: None,
            group: "vcpu".to_owned(),
            process: CallingProcess {
                name: "firecracker".to_owned(),
                pid: 7,
                started_by_vmm: false,
            },
            subject: SyscallSubject::Vmm,
            summary: Some(CallSummary {
                calls: vec![CallCount {
                    abi: SyscallAbi::Native,
                    count: Count(3),
                    errors: Count(1),
                    interrupted: Count(0),
                    name: "ioctl".to_owned(),
                    time_ns: Count(900),
                }],
                interval_us: Count(1_000_000),
                kvm_exits: Count(12),
                threads: Count(1),
                vcpu_exits: vec![VcpuExits {
                    exits: Count(12),
                    name: "fc_vcpu 0".to_owned(),
                    tid: 9,
                }],
            }),
            vmm: Some("firecracker".to_owned()),
        };
        let json = serde_json::to_string(&activity).unwrap();
        let expected = r#"{"backend":"ebpf","group":"vcpu","process":{"name":"firecracker","pid":7,"started_by_vmm":false},"subject":"vmm","summary":{"calls":[{"count":3,"errors":1,"name":"ioctl","time_ns":900}],"interval_us":1000000,"kvm_exits":12,"threads":1,"vcpu_exits":[{"exits":12,"name":"fc_vcpu 0","tid":9}]},"vmm":"firecracker"}"#;
        assert_eq!(json, expected);
        assert_eq!(
            serde_json::from_str::<SyscallActivity>(&json).unwrap(),
            activity
        );
    }
}
