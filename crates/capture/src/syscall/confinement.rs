//! How a VMM is confined, as `/proc/PID/task/*/status` says (proc(5)).
//!
//! Firecracker and Cloud Hypervisor put filters on their threads when the guest is
//! started, not when they start themselves, and whoever watches a VMM from its
//! beginning sees it without. So what is missing is a finding only when it was
//! missing at two looks at which the vCPUs were there.

use super::groups::{self, VmmKind};
use sandtrace_event::{SyscallFinding, SyscallFindingKind};
use std::fs;
use std::path::Path;

/// Threads that are looked at.
const MAX_THREADS: usize = 4096;

/// Microseconds between two looks at a VMM whose guest was not started yet.
const LOOK_EVERY_US: u64 = 1_000_000;

/// Microseconds after which what was missing is looked at again: a thread that
/// has just begun puts its filter on within some of them.
const LOOK_AGAIN_US: u64 = 500_000;

/// Looks at one VMM until it is certain how it is confined.
#[derive(Default)]
pub(crate) struct Confinement {
    /// What the last look found missing while vCPUs ran.
    missing: Vec<SyscallFindingKind>,
    due_us: u64,
    settled: bool,
}

impl Confinement {
    /// Looks at a process where a look is due; what is certain now is answered once.
    pub(crate) fn look(
        &mut self,
        pid: u32,
        vmm: Option<VmmKind>,
        now_us: u64,
    ) -> Vec<SyscallFinding> {
        if self.settled || now_us < self.due_us {
            return Vec::new();
        }
        let tasks = Path::new("/proc").join(pid.to_string()).join("task");
        self.judge(&Look::at(&tasks, vmm), now_us)
    }

    fn judge(&mut self, look: &Look, now_us: u64) -> Vec<SyscallFinding> {
        if !look.runs {
            self.missing.clear();
            self.due_us = now_us.saturating_add(LOOK_EVERY_US);
            return Vec::new();
        }
        let mut found = look.findings();
        let missing = found.iter().map(|finding| finding.kind).collect();
        let before = std::mem::replace(&mut self.missing, missing);
        found.retain(|finding| before.contains(&finding.kind));
        self.due_us = now_us.saturating_add(LOOK_AGAIN_US);
        // Filters cannot be taken off, and new threads have those of old ones.
        self.settled = self.missing.is_empty() || !found.is_empty();
        found
    }
}

/// What one look found.
#[derive(Debug, Default)]
struct Look {
    threads: usize,
    /// Whether the guest was started. Of a VMM whose vCPUs cannot be told by
    /// their names it is taken to be.
    runs: bool,
    without_filter: Vec<String>,
    may_gain: Vec<String>,
}

impl Look {
    fn at(tasks: &Path, vmm: Option<VmmKind>) -> Self {
        let mut look = Self::default();
        let entries = fs::read_dir(tasks).into_iter().flatten().flatten();
        for entry in entries.take(MAX_THREADS) {
            if let Ok(status) = fs::read_to_string(entry.path().join("status")) {
                look.thread(&status, vmm);
            }
        }
        look
    }

    fn thread(&mut self, status: &str, vmm: Option<VmmKind>) {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim)
        };
        let name = field("Name:").unwrap_or("?").to_owned();
        self.threads += 1;
        self.runs |= match vmm {
            Some(VmmKind::Firecracker | VmmKind::CloudHypervisor) => {
                groups::group(vmm, name.as_bytes(), false) == "vcpu"
            }
            Some(VmmKind::Qemu) | None => true,
        };
        // 2 is a filter; 1, strict mode, allows four calls.
        if field("Seccomp:") == Some("0") {
            self.without_filter.push(name.clone());
        }
        if field("NoNewPrivs:") == Some("0") {
            self.may_gain.push(name);
        }
    }

    fn findings(&self) -> Vec<SyscallFinding> {
        let kinds = [
            (
                SyscallFindingKind::NoSeccomp,
                "have no seccomp filter",
                &self.without_filter,
            ),
            (
                SyscallFindingKind::NewPrivsPossible,
                "may gain privileges by execve",
                &self.may_gain,
            ),
        ];
        let missing = kinds.into_iter().filter(|(.., names)| !names.is_empty());
        let findings = missing.map(|(kind, what, names)| SyscallFinding {
            detail: format!(
                "{} of {} threads {what}: {}",
                names.len(),
                self.threads,
                some(names)
            ),
            kind,
            tid: None,
        });
        findings.collect()
    }
}

/// Names without repeats, the first few.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 6;
    let mut names = names.to_vec();
    names.sort();
    names.dedup();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    names.truncate(SHOWN);
    format!("{}{more}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, `Seccomp:` and `NoNewPrivs:` of a thread.
    type Threads<'a> = &'a [(&'a str, u8, u8)];

    fn look(vmm: Option<VmmKind>, threads: Threads<'_>) -> Look {
        let dir = tempfile::tempdir().unwrap();
        for (tid, (name, seccomp, no_new_privs)) in threads.iter().enumerate() {
            let task = dir.path().join(tid.to_string());
            fs::create_dir(&task).unwrap();
            let status =
                format!("Name:\t{name}\nNoNewPrivs:\t{no_new_privs}\nSeccomp:\t{seccomp}\n");
            fs::write(task.join("status"), status).unwrap();
        }
        Look::at(dir.path(), vmm)
    }

    /// What each look at a VMM, one after the other, tells for certain.
    #[track_caller]
    fn check(vmm: Option<VmmKind>, looks: &[(Threads<'_>, &[&str])]) {
        let mut confinement = Confinement::default();
        for (at, (threads, expected)) in looks.iter().enumerate() {
            let found = if confinement.settled {
                Vec::new()
            } else {
                confinement.judge(&look(vmm, threads), 0)
            };
            let found: Vec<_> = found.into_iter().map(|found| found.detail).collect();
            assert_eq!(found, *expected, "look {at}");
        }
    }

    const FIRECRACKER: Option<VmmKind> = Some(VmmKind::Firecracker);
    const WAITS: Threads<'_> = &[("firecracker", 0, 0), ("fc_api", 2, 1)];
    const NAKED: Threads<'_> = &[("firecracker", 0, 0), ("fc_vcpu 0", 0, 0)];
    const CONFINED: Threads<'_> = &[("firecracker", 2, 1), ("fc_vcpu 0", 2, 1)];
    const FOUND: &[&str] = &[
        "2 of 2 threads have no seccomp filter: fc_vcpu 0, firecracker",
        "2 of 2 threads may gain privileges by execve: fc_vcpu 0, firecracker",
    ];

    #[test]
    fn a_vmm_whose_guest_was_not_started_is_not_judged() {
        check(FIRECRACKER, &[(WAITS, &[]), (WAITS, &[]), (WAITS, &[])]);
        let ready = [(WAITS, &[][..]), (NAKED, &[]), (CONFINED, &[])];
        check(FIRECRACKER, &ready);
        let cloud: Threads<'_> = &[("cloud-hyperviso", 0, 0), ("vmm", 2, 1)];
        let vmm = Some(VmmKind::CloudHypervisor);
        check(vmm, &[(cloud, &[]), (cloud, &[])]);
    }

    #[test]
    fn what_is_missing_twice_while_vcpus_run_is_found_once() {
        check(
            FIRECRACKER,
            &[(NAKED, &[]), (NAKED, FOUND), (NAKED, &[]), (NAKED, &[])],
        );
        check(
            FIRECRACKER,
            &[(WAITS, &[]), (NAKED, &[]), (NAKED, FOUND), (NAKED, &[])],
        );
        let partly: Threads<'_> = &[("firecracker", 2, 1), ("fc_vcpu 0", 0, 1)];
        let found = ["1 of 2 threads have no seccomp filter: fc_vcpu 0"];
        check(FIRECRACKER, &[(NAKED, &[]), (partly, &found)]);
        // New privileges, once given up, do not come back: that is not asked again.
        check(FIRECRACKER, &[(partly, &[]), (NAKED, &FOUND[..1])]);
    }

    #[test]
    fn a_vmm_whose_vcpus_have_no_name_is_taken_to_run() {
        let qemu: Threads<'_> = &[("qemu", 0, 1), ("qemu", 0, 1)];
        let found = ["2 of 2 threads have no seccomp filter: qemu"];
        check(Some(VmmKind::Qemu), &[(qemu, &[]), (qemu, &found)]);
        check(None, &[(qemu, &[]), (qemu, &found)]);
        check(None, &[(&[], &[]), (&[], &[])]);
    }

    #[test]
    fn a_look_is_made_when_it_is_due() {
        let mut confinement = Confinement::default();
        let own = std::process::id();
        // Whoever runs the tests has threads without filters, or settles at once.
        let mut look = |at_us| confinement.look(own, None, at_us).len();
        let (first, early) = (look(0), look(LOOK_AGAIN_US - 1));
        assert_eq!((first, early), (0, 0));
        let expected = Look::at(Path::new("/proc/self/task"), None)
            .findings()
            .len();
        assert_eq!(look(LOOK_AGAIN_US), expected);
        assert_eq!(look(LOOK_AGAIN_US * 9), 0);
    }
}
