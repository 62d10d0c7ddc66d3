//! Sandboxes that share the programs: what one does is neither seen with the
//! others nor lost at their expense.

use crate::program::{Running, compiled, skipped, until};
use sandtrace_capture::syscall::ebpf::EbpfHub;
use sandtrace_capture::syscall::{FactKind, LossKind, SyscallSource, names};
use sandtrace_event::SyscallAbi;
use sandtrace_sys::bpf::{BpfConfig, BpfQuota};
use std::path::Path;
use std::time::Duration;

const QUOTA: BpfQuota = BpfQuota {
    events: 200,
    processes: 8,
};

/// How often a call was counted of a source's processes, of which nothing was lost.
#[track_caller]
fn count(source: &mut impl SyscallSource, name: &str) -> u64 {
    let counts = source.counts();
    assert_eq!(counts.losses, []);
    let number = names::number(SyscallAbi::Native, name);
    let calls = counts.calls.iter();
    let own = calls.filter(|(key, ..)| Some(key.number) == number);
    own.map(|(.., tally)| tally.count).sum()
}

#[test]
fn each_has_its_own_counts_and_letting_go_of_one_leaves_the_other() {
    if skipped("each_has_its_own_counts_and_letting_go_of_one_leaves_the_other") {
        return;
    }
    let hub = EbpfHub::load(BpfConfig::default(), QUOTA).unwrap();
    let script = "while :; do kill -0 $$; sleep 0.01; done";
    let busy = Running::start(Path::new("sh"), &["-c", script]);
    let idle = Running::start(Path::new("sleep"), &["600"]);
    // Both have started, and one does nothing any more.
    std::thread::sleep(Duration::from_millis(300));
    let mut of_busy = hub.watch(busy.pid()).unwrap();
    let mut of_idle = hub.watch(idle.pid()).unwrap();
    assert!(hub.watch(busy.pid()).is_err(), "it is watched already");
    // Nobody takes the facts, of which the ring has room for 600: whoever asks for
    // counts alone must not let it fill up.
    let mut kills = 0;
    until("the busy one makes calls", || {
        kills += count(&mut of_busy, "kill");
        kills > 300
    });
    assert_eq!(of_idle.counts().calls, []);
    assert!(of_idle.facts().is_empty());
    of_idle.detach();
    assert!(of_idle.has_ended() && !of_busy.has_ended());
    until("it is still counted", || count(&mut of_busy, "kill") > 0);
    of_busy.detach();
    count(&mut of_busy, "kill");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(of_busy.counts().calls, [], "nothing is counted any more");
    drop(of_busy);
    drop(hub.watch(busy.pid()).unwrap());
}

#[test]
fn who_floods_the_ring_does_so_at_its_own_expense() {
    if skipped("who_floods_the_ring_does_so_at_its_own_expense") {
        return;
    }
    let hub = EbpfHub::load(BpfConfig::default(), QUOTA).unwrap();
    let flood = "sleep 0.5; while :; do : </etc/shadow; done";
    let quiet = "sleep 1; : </etc/shadow; exec sleep 600";
    let loud = Running::start(Path::new("sh"), &["-c", flood]);
    let calm = Running::start(Path::new("sh"), &["-c", quiet]);
    let mut of_loud = hub.watch(loud.pid()).unwrap();
    let mut of_calm = hub.watch(calm.pid()).unwrap();
    let opens = |source: &mut dyn SyscallSource| {
        let facts = source.facts();
        let opens = facts.iter().filter(|fact| {
            matches!(&fact.what, FactKind::Call(call)
                if call.path.as_ref().is_some_and(|path| path.as_ref()
                    .is_some_and(|path| path.bytes == b"/etc/shadow")))
        });
        opens.count()
    };
    let mut loudly = 0;
    until("the quiet one's call is seen", || {
        loudly += opens(&mut of_loud);
        opens(&mut of_calm) > 0
    });
    assert!(loudly > 0);
    let lost = of_loud.counts().losses;
    assert!(
        lost.iter()
            .any(|loss| loss.kind == LossKind::Facts && loss.count > 0)
    );
    assert_eq!(of_calm.counts().losses, []);
}

#[test]
fn who_starts_too_many_processes_is_told_of() {
    if skipped("who_starts_too_many_processes_is_told_of") {
        return;
    }
    let hub = EbpfHub::load(BpfConfig::default(), QUOTA).unwrap();
    let script = "trap go=1 USR1; while [ -z \"$go\" ]; do sleep 0.05; done; \
        i=0; while [ $i -lt 20 ]; do sleep 5 >&- 2>&- & i=$((i+1)); done; printf all >/proc/$$/comm; wait";
    let many = Running::start(Path::new("sh"), &["-c", script]);
    std::thread::sleep(Duration::from_millis(200));
    let mut source = hub.watch(many.pid()).unwrap();
    many.signal(rustix::process::Signal::USR1);
    let comm = format!("/proc/{}/comm", many.pid());
    until("all were started", || {
        std::fs::read_to_string(&comm).is_ok_and(|name| name == "all\n")
    });
    // It is one of the eight itself.
    let lost = source.counts().losses;
    let lost = lost.iter().filter(|loss| loss.kind == LossKind::Threads);
    assert_eq!(lost.map(|loss| loss.count).sum::<u64>(), 20 - 7);
}

#[test]
fn names_of_threads_are_those_that_they_have() {
    if skipped("names_of_threads_are_those_that_they_have") {
        return;
    }
    let program = Running::start(&compiled("confined.c"), &["idle"]);
    let hub = EbpfHub::load(BpfConfig::default(), QUOTA).unwrap();
    let comm = format!("/proc/{}/comm", program.pid());
    until("it has its name", || {
        std::fs::read_to_string(&comm).is_ok_and(|name| name == "ready\n")
    });
    let mut source = hub.watch(program.pid()).unwrap();
    program.signal(rustix::process::Signal::USR1);
    until("it has another name", || {
        std::fs::read_to_string(&comm).is_ok_and(|name| name == "fc_vcpu 0\n")
    });
    program.signal(rustix::process::Signal::USR1);
    until("it ends", || source.has_ended());
    let counts = source.counts();
    assert!(!counts.calls.is_empty());
    assert!(
        counts
            .calls
            .iter()
            .all(|(_, thread, _)| thread.name == b"fc_vcpu 0")
    );
}
