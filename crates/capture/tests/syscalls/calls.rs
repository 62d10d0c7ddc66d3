//! Rare calls of real programs, with their arguments, by both backends.

use crate::full::{All, collector};
use crate::program::{Running, compiled, lacks, skipped, until};
use crate::records::{Records, now};
use rustix::process::Signal;
use sandtrace_capture::Observer;
use sandtrace_capture::syscall::ebpf::EbpfSource;
use sandtrace_capture::syscall::ptrace::PtraceSource;
use sandtrace_capture::syscall::{SyscallCollector, SyscallConfig, SyscallSource, VmmKind};
use sandtrace_event::{
    GapCause, GapUnit, Limits, Observation, Payload, RareCall, SyscallAbi, SyscallActivity,
};
use sandtrace_sys::bpf::BpfConfig;
use std::path::Path;

pub(crate) type Attach = fn(u32) -> Box<dyn SyscallSource>;

pub(crate) const BACKENDS: [(&str, Attach); 2] = [
    ("ebpf", |pid| {
        Box::new(EbpfSource::attach(pid, BpfConfig::default()).unwrap())
    }),
    ("ptrace", |pid| Box::new(PtraceSource::attach(pid).unwrap())),
];

/// All records of a program that waits for SIGUSR1 under the name `ready`.
pub(crate) fn records(program: &Path, arguments: &[&str], attach: Attach) -> Vec<SyscallActivity> {
    let program = Running::start(program, arguments);
    wait_for(&program);
    let mut records = Records::default();
    watch(&program, attach, &mut records);
    records.0
}

fn wait_for(program: &Running) {
    let comm = format!("/proc/{}/comm", program.pid());
    until("it waits", || {
        std::fs::read_to_string(&comm).is_ok_and(|name| name == "ready\n")
    });
}

/// Lets it go, and watches it to its end.
fn watch(program: &Running, attach: Attach, observer: &mut impl Observer) {
    let config = SyscallConfig {
        pid: program.pid(),
        vmm: Some(VmmKind::Firecracker),
        disks: Vec::new(),
        name: "a test".to_owned(),
    };
    let mut collector = SyscallCollector::new(config, attach(program.pid()), now());
    program.signal(Signal::USR1);
    until("it ends", || {
        collector.poll(now(), observer);
        collector.has_ended()
    });
    collector.finish(now(), observer);
}

fn rare(records: Vec<SyscallActivity>) -> Vec<RareCall> {
    records.into_iter().filter_map(|it| it.call).collect()
}

/// Count and errors of a call over all records.
fn counted(records: &[SyscallActivity], name: &str) -> (u64, u64) {
    let summaries = records.iter().filter_map(|it| it.summary.as_ref());
    let calls = summaries.flat_map(|it| &it.calls);
    let own = calls.filter(|call| call.name == name);
    own.fold((0, 0), |(count, errors), call| {
        (count + call.count.0, errors + call.errors.0)
    })
}

#[test]
fn a_call_that_a_filter_answers_with_an_error_is_seen() {
    if skipped("a_call_that_a_filter_answers_with_an_error_is_seen") {
        return;
    }
    for (backend, attach) in BACKENDS {
        // Its first call after it was attached to is the one that is refused.
        let records = records(&compiled("confined.c"), &["errno"], attach);
        assert_eq!(counted(&records, "execve"), (1, 1), "{backend}");
        assert_eq!(counted(&records, "getpgid"), (1, 1), "{backend}");
        let calls = rare(records);
        let executes: Vec<_> = calls.iter().filter(|it| it.name == "execve").collect();
        assert_eq!(executes.len(), 1, "{backend}: {calls:?}");
        assert_eq!(executes[0].path.as_deref(), Some("/bin/true"), "{backend}");
        assert_eq!(executes[0].argv, ["/bin/true", "now"], "{backend}");
    }
}

/// Who has a kernel with these numbers is no less watched by them.
#[test]
fn a_call_by_a_number_for_short_pointers_is_recorded_as_one() {
    if skipped("a_call_by_a_number_for_short_pointers_is_recorded_as_one") {
        return;
    }
    for (backend, attach) in BACKENDS {
        let records = records(&compiled("x32.c"), &[], attach);
        let summaries = records.iter().filter_map(|it| it.summary.as_ref());
        let calls = summaries.flat_map(|it| &it.calls);
        let short: Vec<_> = calls
            .filter(|call| call.abi == SyscallAbi::X32)
            .map(|call| (call.name.as_str(), call.count.0))
            .collect();
        assert_eq!(short, [("execve", 1), ("getpid", 1)], "{backend}");
        let calls = rare(records);
        let executes: Vec<_> = calls.iter().filter(|it| it.name == "execve").collect();
        assert_eq!(executes.len(), 1, "{backend}: {calls:?}");
        assert_eq!(executes[0].abi, SyscallAbi::X32, "{backend}");
        let path = executes[0].path.as_deref();
        assert_eq!(path, Some("/nowhere/program"), "{backend}");
    }
}

#[track_caller]
fn check_exec(test: &str, thread: &[&str]) {
    if skipped(test) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("arguments");
    for (backend, attach) in BACKENDS {
        let arguments = [&[file.to_str().unwrap()], thread].concat();
        let calls = rare(records(&compiled("exec.c"), &arguments, attach));
        let executes: Vec<_> = calls.iter().filter(|it| it.name == "execve").collect();
        assert_eq!(executes.len(), 1, "{backend}: {calls:?}");
        assert_eq!(executes[0].path.as_deref(), Some("/bin/true"), "{backend}");
        assert_eq!(executes[0].argv, ["/bin/true", "quietly"], "{backend}");
        assert!(executes[0].unread.is_empty(), "{backend}");
    }
}

#[test]
fn a_program_whose_name_was_not_in_memory_is_named() {
    check_exec("a_program_whose_name_was_not_in_memory_is_named", &[]);
}

#[test]
fn a_program_that_another_thread_executes_is_named() {
    check_exec(
        "a_program_that_another_thread_executes_is_named",
        &["thread"],
    );
}

/// Name, path or address, list, and what else is said.
const EXPECTED: &[(&str, &str, &[&str], &str)] = &[
    (
        "execve",
        "/nowhere/program",
        &["/nowhere/program", "-x", "word"],
        "",
    ),
    (
        "execveat",
        "nowhere",
        &["/nowhere/program", "-x", "word"],
        "",
    ),
    ("connect", "127.0.0.9:9", &[], ""),
    ("bind", "127.0.0.9:9", &[], ""),
    ("openat", "/nowhere/file", &[], "for writing"),
    (
        "mount",
        "/nowhere/mnt",
        &[],
        "source /nowhere/disk, type ext4, flags 0x1001",
    ),
    ("umount2", "/nowhere/mnt", &[], "flags 0x2"),
    (
        "pivot_root",
        "/nowhere/new",
        &[],
        "old root at /nowhere/old",
    ),
    ("chroot", "/nowhere/root", &[], ""),
    ("fsopen", "nowherefs", &[], "flags 0x1"),
    (
        "fsconfig",
        "",
        &[],
        "descriptor -1, command 1, source, /nowhere/disk",
    ),
    (
        "fsmount",
        "",
        &[],
        "descriptor -1, flags 0x1, attributes 0x4",
    ),
    (
        "move_mount",
        "to",
        &[],
        "from descriptor -1, from, flags 0x4",
    ),
    ("open_tree", "nowhere", &[], "flags 0x1"),
    ("setns", "", &[], "descriptor -1, kinds net"),
    ("unshare", "", &[], "new 0x1"),
    (
        "ptrace",
        "",
        &[],
        "request PTRACE_ATTACH on process 2147483632",
    ),
    ("bpf", "", &[], "command BPF_PROG_LOAD"),
    ("prctl", "", &[], "operation 22881, 0x7, 0x8, 0x9, 0xa"),
    (
        "kexec_load",
        "",
        &[],
        "loads another kernel: entry 0x1000, 17 segments, flags 0x30000",
    ),
    (
        "kexec_file_load",
        "",
        &[],
        "loads another kernel: descriptor -1, initrd -1, command line panic=1, flags 0x80",
    ),
    (
        "init_module",
        "",
        &[],
        "loads a kernel module of 0 bytes, parameters debug=1",
    ),
    (
        "finit_module",
        "",
        &[],
        "loads a kernel module: descriptor -1, parameters debug=2, flags 0x3",
    ),
    ("delete_module", "nowhere", &[], "flags 0x800"),
    ("process_vm_readv", "", &[], "memory of process 2147483632"),
];

#[test]
fn each_rare_call_is_recorded_with_its_arguments() {
    if skipped("each_rare_call_is_recorded_with_its_arguments") {
        return;
    }
    for (backend, attach) in BACKENDS {
        let calls = rare(records(&compiled("calls.c"), &[], attach));
        let said: Vec<_> = calls
            .iter()
            .map(|call| {
                let subject = call.path.as_deref().or(call.address.as_deref());
                let argv: Vec<_> = call.argv.iter().map(String::as_str).collect();
                let detail = call.detail.as_deref().unwrap_or_default();
                (
                    call.name.as_str(),
                    subject.unwrap_or_default(),
                    argv,
                    detail,
                )
            })
            .collect();
        for ((name, subject, argv, detail), said) in EXPECTED.iter().zip(&said) {
            let expected = (*name, *subject, argv.to_vec(), *detail);
            assert_eq!(*said, expected, "{backend}");
        }
        assert_eq!(said.len(), EXPECTED.len(), "{backend}: {said:?}");
        assert!(calls.iter().all(|call| call.unread.is_empty()), "{backend}");
    }
}

#[test]
fn a_process_that_was_started_before_the_watch_is_watched_too() {
    if skipped("a_process_that_was_started_before_the_watch_is_watched_too") {
        return;
    }
    // The grandchild is what opens the file, when its parents wait for it.
    let script = "trap 'kill -USR1 $child; wait $child; exit 0' USR1; \
        sh -c 'sh -c \"trap \\\"/bin/true </etc/shadow; exit 0\\\" USR1; \
        printf x >$0; while :; do sleep 0.02; done\" $0 & c=$!; \
        trap \"kill -USR1 \\$c; wait \\$c; exit 0\" USR1; wait $c; exit 0' $0 & child=$!; \
        until [ -s $0 ]; do sleep 0.02; done; printf ready >/proc/$$/comm; wait $child";
    for (backend, attach) in BACKENDS {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("started");
        let arguments = ["-c", script, file.to_str().unwrap()];
        let records = records(Path::new("sh"), &arguments, attach);
        let opens = records
            .iter()
            .filter_map(|it| Some((it, it.call.as_ref()?)));
        let mut opens = opens.filter(|(_, call)| call.path.as_deref() == Some("/etc/shadow"));
        let (record, _) = opens
            .next()
            .unwrap_or_else(|| panic!("{backend}: {records:#?}"));
        assert!(record.process.started_by_vmm, "{backend}");
    }
}

#[test]
fn who_opens_many_files_hides_no_program() {
    if skipped("who_opens_many_files_hides_no_program") {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/syscalls/flood.sh");
    for (backend, attach) in BACKENDS {
        let records = records_and_gaps(&script, attach);
        let calls = rare(records);
        let last = calls.iter().rfind(|call| call.name == "execve").unwrap();
        assert_eq!(
            last.argv,
            ["/bin/true", "after", "the", "flood"],
            "{backend}"
        );
    }
}

/// As [`records`] of a shell's script, where calls beyond a bound may be lost.
fn records_and_gaps(script: &Path, attach: Attach) -> Vec<SyscallActivity> {
    struct Both(Vec<SyscallActivity>, u64);
    impl Observer for Both {
        fn observe(&mut self, observation: Observation) -> Limits {
            match observation.payload {
                Payload::SyscallActivity(activity) => self.0.push(activity),
                Payload::CaptureGap(gap)
                    if matches!(gap.cause, GapCause::CallBound | GapCause::RingDrop) =>
                {
                    self.1 += gap.count.0;
                }
                other => panic!("{other:?}"),
            }
            Limits::default()
        }
    }
    let program = Running::start(Path::new("bash"), &[script.to_str().unwrap()]);
    wait_for(&program);
    let mut both = Both(Vec::new(), 0);
    watch(&program, attach, &mut both);
    assert!(both.1 > 0, "the bound was met");
    both.0
}

#[test]
fn memory_that_nobody_brings_in_holds_nothing_up() {
    const TEST: &str = "memory_that_nobody_brings_in_holds_nothing_up";
    if skipped(TEST) {
        return;
    }
    let Some(program) = faults(TEST) else { return };
    let began = std::time::Instant::now();
    let (_, attach) = BACKENDS[1];
    // A tracer that waits for the page holds up the thread that brings it in.
    let calls = rare(records(&program, &[], attach));
    let opens: Vec<_> = calls.iter().filter(|it| it.name == "openat").collect();
    assert_eq!(opens.len(), 2, "{calls:?}");
    assert_eq!(
        (&opens[0].path, opens[0].unread.as_slice()),
        (&None, &["path".to_owned()][..])
    );
    // Nothing is read of that process any more.
    assert_eq!(opens[1].path, None);
    assert!(began.elapsed() < std::time::Duration::from_secs(30));
}

/// The program, unless the kernel refuses it what it needs.
fn faults(test: &str) -> Option<std::path::PathBuf> {
    let program = compiled("fault.c");
    let mut probe = std::process::Command::new("timeout");
    let ended = probe.arg("1").arg(&program).status().unwrap();
    if ended.code() == Some(77) {
        lacks(test, "userfaultfd for root");
        return None;
    }
    Some(program)
}

#[test]
fn a_thread_that_cannot_be_stopped_is_said_and_goes_on() {
    const TEST: &str = "a_thread_that_cannot_be_stopped_is_said_and_goes_on";
    if skipped(TEST) {
        return;
    }
    let Some(program) = faults(TEST) else { return };
    let mut program = Running::start(&program, &["8"]);
    wait_for(&program);
    let source = PtraceSource::attach(program.pid()).unwrap();
    let mut collector = collector(program.pid(), Box::new(source));
    let mut all = All::default();
    program.signal(Signal::USR1);
    until("it waits for its memory", || {
        collector.poll(now(), &mut all);
        all.rare("openat")
            .iter()
            .any(|call| call.unread == ["path"])
    });
    collector.finish(now(), &mut all);
    let lost: Vec<_> = all
        .gaps
        .iter()
        .map(|gap| (gap.cause, gap.unit, gap.count.0))
        .collect();
    // The thread that waits for its memory; the one that brings it stopped.
    assert_eq!(lost, [(GapCause::TraceLost, GapUnit::Threads, 1)]);
    program.wait();
}
