//! Exits of a real guest on KVM.

use crate::program::{Running, compiled, lacks, skipped, until};
use crate::records::{Records, now};
use rustix::process::Signal;
use sandtrace_capture::syscall::ebpf::EbpfHub;
use sandtrace_capture::syscall::{SyscallCollector, SyscallConfig, VmmKind};
use sandtrace_sys::bpf::{BpfConfig, BpfQuota};

/// Times that each of the guest's vCPUs writes to a port.
const TIMES: [u64; 2] = [1000, 400];

#[test]
fn exits_of_a_guest_are_counted_beside_the_calls() {
    const TEST: &str = "exits_of_a_guest_are_counted_beside_the_calls";
    if skipped(TEST) {
        return;
    }
    // Exits that reach the VMM instead of all of them: which there are is known.
    let config = BpfConfig {
        kvm_tracepoint: "kvm_userspace_exit",
        ..BpfConfig::default()
    };
    let hub = EbpfHub::load(config, BpfQuota::EVERYTHING).unwrap();
    if !hub.sees_kvm() {
        lacks(TEST, "tracepoints of KVM in the kernel");
        return;
    }
    let times = TIMES.map(|times| times.to_string());
    let program = Running::start(&compiled("kvm.c"), &[&times[0], &times[1]]);
    let proc = format!("/proc/{}", program.pid());
    until("its guest is ready, or KVM does not do", || {
        let name = std::fs::read_to_string(format!("{proc}/comm")).unwrap_or_default();
        name == "fc_vcpu 0\n" || name.is_empty()
    });
    let Ok(source) = hub.watch(program.pid()) else {
        lacks(TEST, "KVM that runs a guest");
        return;
    };
    let config = SyscallConfig {
        pid: program.pid(),
        vmm: Some(VmmKind::Firecracker),
        disks: Vec::new(),
        name: TEST.to_owned(),
    };
    let mut collector = SyscallCollector::new(config, Box::new(source), now());
    let mut records = Records::default();
    if !std::path::Path::new(&proc).exists() {
        lacks(TEST, "KVM that runs a guest");
        return;
    }
    program.signal(Signal::USR1);
    until("it ends", || {
        collector.poll(now(), &mut records);
        collector.has_ended()
    });
    collector.finish(now(), &mut records);
    let summaries: Vec<_> = records
        .0
        .iter()
        .filter_map(|it| it.summary.as_ref())
        .collect();
    let ioctls: u64 = summaries
        .iter()
        .flat_map(|it| &it.calls)
        .filter(|call| call.name == "ioctl")
        .map(|call| call.count.0)
        .sum();
    let exits: u64 = summaries.iter().map(|it| it.kvm_exits.0).sum();
    // One for each write to the port and one for the halt.
    let made = TIMES.map(|times| times + 1);
    let all: u64 = made.iter().sum();
    assert_eq!((ioctls, exits), (all, all));
    let vcpus = summaries.iter().flat_map(|it| &it.vcpu_exits);
    let mut vcpus: Vec<_> = vcpus.collect();
    vcpus.sort_by_key(|it| &it.name);
    let told: Vec<_> = vcpus.iter().map(|it| (&*it.name, it.exits.0)).collect();
    assert_eq!(told, [("fc_vcpu 0", made[0]), ("fc_vcpu 1", made[1])]);
    // The first thread has the process' id, the second its own.
    assert_eq!(vcpus[0].tid, program.pid());
    assert_ne!(vcpus[1].tid, program.pid());
}
