//! In which way a VMM's system calls are watched: what is chosen, and why, is in
//! the trail's first record and what the doctor says.

use crate::support::{Dir, Ran, events, eventually, finish, privileged, run, sandtrace, state_dir};
use sandtrace_event::{Layer, Payload};
use serde_json::Value;
use std::fs;
use std::process::{Child, Command, Stdio};

/// What stands for a VMM, until it is dropped.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Self {
        let mut sleep = Command::new("sleep");
        Self(sleep.arg("600").stdin(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // Harmless where it ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where the program runs, beside a network namespace with nothing but `lo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Host,
    /// In a PID namespace of its own, with that one's `/proc`.
    Namespace,
    /// In one with the host's `/proc`.
    ForeignProc,
    /// Without what programs in the kernel need.
    WithoutBpf,
}

impl Place {
    /// Runs the program to its end. Where it could not watch a process of the
    /// host's, one is made for it, and `pid` is not used.
    #[track_caller]
    fn run(self, args: &[&str], pid: Option<&str>) -> Ran {
        let unshare: &[&str] = match self {
            Self::Host | Self::WithoutBpf => &["--net"],
            Self::Namespace => &["--net", "--pid", "--fork", "--mount-proc"],
            Self::ForeignProc => &["--net", "--pid", "--fork"],
        };
        let script = match (self, pid) {
            (_, None) => "ip link set lo up; exec \"$@\"",
            (Self::Namespace | Self::WithoutBpf, _) => {
                "ip link set lo up; sleep 60 >&- 2>&- & \
                 \"$@\" --pid $!; code=$?; kill $!; exit $code"
            }
            _ => "ip link set lo up; exec \"$@\" --pid \"$PID\"",
        };
        let mut command = Command::new("unshare");
        command.args(unshare).args(["sh", "-c", script, "sh"]);
        if self == Self::WithoutBpf {
            // Root is given back what it may be given at each exec.
            command.args(["setpriv", "--bounding-set", "-bpf,-perfmon,-sys_admin"]);
        }
        command.arg(sandtrace::<&str>(&[]).get_program()).args(args);
        command.env("SANDTRACE_STATE_DIR", state_dir());
        command.env("PID", pid.unwrap_or_default());
        finish(command)
    }

    /// Backend and reason of a watch of a process with these arguments.
    #[track_caller]
    fn chosen(self, args: &[&str]) -> (String, String) {
        let (dir, vmm) = (Dir::new(), Sleeper::new());
        let trail = dir.text("trace.jsonl");
        let watch = ["watch", "--sandbox-id", "box", "--tap", "lo"];
        let more = ["--duration", "100ms", "--trail", &trail];
        self.run(&[&watch[..], &more, args].concat(), Some(&vmm.pid()))
            .expect(0);
        in_force(&trail)
    }

    /// A watch of a process that is not begun, and leaves nothing behind.
    #[track_caller]
    fn refuses(self, args: &[&str], pid: &str, code: i32, parts: &[&str]) {
        let dir = Dir::new();
        let trail = dir.text("trace.jsonl");
        let watch = ["watch", "--sandbox-id", "box", "--trail", &trail];
        let ran = self.run(&[&watch[..], args].concat(), Some(pid));
        ran.expect(code).one_line(parts);
        assert!(dir.names().is_empty(), "{:?}", dir.names());
    }
}

/// What a trail's first record says of system calls.
#[track_caller]
fn in_force(trail: &str) -> (String, String) {
    let Payload::TrailStart(start) = events(trail).remove(0).payload else {
        panic!("the first record is no trail_start")
    };
    let own = start.capture.into_iter();
    let mut own = own.filter(|own| own.layer == Layer::Syscall);
    let first = own.next().unwrap();
    assert!(own.next().is_none());
    (first.backend, first.reason)
}

#[test]
fn what_was_asked_for_is_in_force() {
    if !privileged("what was asked for is in force") {
        return;
    }
    let chosen = |mode| Place::Host.chosen(&["--syscalls", mode]);
    for (backend, reason) in [chosen("auto"), Place::Host.chosen(&[])] {
        assert_eq!(backend, "ebpf", "{reason}");
        assert!(
            reason.starts_with("the kernel allows it; KVM exits are "),
            "{reason}"
        );
    }
    let (backend, reason) = chosen("ebpf");
    assert_eq!(backend, "ebpf", "{reason}");
    assert!(reason.starts_with("asked for; KVM exits are "), "{reason}");
    let pair = |backend: &str, reason: &str| (backend.to_owned(), reason.to_owned());
    assert_eq!(chosen("ptrace"), pair("ptrace", "asked for"));
    assert_eq!(chosen("off"), pair("off", "not asked for"));
}

const NAMESPACE: &str = "this is not the host's PID namespace";
const CAPABILITIES: &str = "not permitted (needs CAP_BPF and CAP_PERFMON, or root";

#[test]
fn auto_never_traces_and_says_why_it_does_not_count() {
    if !privileged("auto never traces and says why it does not count") {
        return;
    }
    for (place, why) in [
        (Place::Namespace, NAMESPACE),
        (Place::WithoutBpf, CAPABILITIES),
    ] {
        let (backend, reason) = place.chosen(&["--syscalls", "auto"]);
        assert_eq!(backend, "off", "{place:?}: {reason}");
        assert!(reason.contains(why), "{place:?}: {reason}");
        let other = "; `--syscalls ptrace` needs no BPF but slows the VMM";
        assert!(reason.ends_with(other), "{place:?}: {reason}");
    }
}

#[test]
fn auto_watches_no_process_that_is_no_vmm() {
    if !privileged("auto watches no process that is no VMM") {
        return;
    }
    let dir = Dir::new();
    let upper = dir.dir("upper");
    let trail = dir.text("trace.jsonl");
    let watch = ["watch", "--sandbox-id", "box", "--tap", "lo"];
    let more = [
        "--syscalls",
        "auto",
        "--duration",
        "100ms",
        "--trail",
        &trail,
    ];
    let args = [&watch[..], &more].concat();
    Place::Host.run(&args, None).expect(0);
    let (backend, reason) = in_force(&trail);
    assert_eq!(backend, "off");
    assert_eq!(reason, "no VMM process was found or given (--pid)");
    let (backend, reason) = Place::Host.chosen(&["--syscalls", "auto", "--overlay", &upper]);
    assert_eq!(backend, "off");
    assert!(reason.starts_with("the sandbox is no VM"), "{reason}");
}

#[test]
fn what_was_asked_for_and_cannot_be_is_an_error() {
    if !privileged("what was asked for and cannot be is an error") {
        return;
    }
    let (dir, vmm) = (Dir::new(), Sleeper::new());
    let upper = dir.dir("upper");
    let pid = vmm.pid();
    let ebpf = ["--tap", "lo", "--syscalls", "ebpf"];
    Place::Namespace.refuses(&ebpf, &pid, 69, &[NAMESPACE]);
    Place::WithoutBpf.refuses(&ebpf, &pid, 77, &[CAPABILITIES]);
    let no_vm = [&ebpf[..], &["--overlay", &upper]].concat();
    let why = "system calls cannot be watched: the sandbox is no VM";
    Place::Host.refuses(&no_vm, &pid, 69, &[why]);

    let mut strace = Command::new("strace");
    strace.args(["-qq", "-o", "/dev/null", "-p", &pid]);
    let strace = Sleeper(strace.stdin(Stdio::null()).spawn().unwrap());
    eventually("strace is attached", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let tracer = format!("TracerPid:\t{}\n", strace.pid());
        status.contains(&tracer).then_some(())
    });
    let why = format!(
        "trace thread {pid}: thread {} traces it already (a debugger, strace?)",
        strace.pid()
    );
    let traced = ["--tap", "lo", "--syscalls", "ptrace"];
    Place::Host.refuses(&traced, &pid, 69, &[&why]);

    let all = ["watch", "--all", "--syscalls", "ptrace"];
    let why = "--syscalls ptrace traces one sandbox at a time: name it, or use auto";
    Place::Host.run(&all, None).expect(64).one_line(&[why]);
}

/// What the doctor says of one way.
#[track_caller]
fn doctor(place: Place, what: &str) -> (bool, String) {
    let said = place.run(&["doctor", "--json"], None).expect(0).quiet();
    let said: Value = serde_json::from_str(&said.stdout).unwrap();
    let findings = said["findings"].as_array().unwrap();
    let own = findings.iter().find(|own| own["what"] == what).unwrap();
    let why = own["why"].as_str().unwrap();
    (own["works"].as_bool().unwrap(), why.to_owned())
}

#[test]
fn the_doctor_says_which_way_can_be_used() {
    if !privileged("the doctor says which way can be used") {
        return;
    }
    let (works, why) = doctor(Place::Host, "VMM calls: eBPF");
    assert!(works, "{why}");
    let uses = "the programs load and attach: `--syscalls auto` uses them; exits from guests are ";
    assert!(why.starts_with(uses), "{why}");
    for (place, cause) in [
        (Place::Namespace, NAMESPACE),
        (Place::WithoutBpf, CAPABILITIES),
    ] {
        let (works, why) = doctor(place, "VMM calls: eBPF");
        assert!(!works && why.contains(cause), "{place:?}: {why}");
        let then = "; `--syscalls auto` then watches no system calls";
        assert!(why.ends_with(then), "{place:?}: {why}");
        let (works, why) = doctor(place, "VMM calls: ptrace");
        assert!(works, "{place:?}: {why}");
        assert!(
            why.starts_with("possible with `--syscalls ptrace`"),
            "{why}"
        );
    }
    let (works, why) = doctor(Place::ForeignProc, "VMM calls: ptrace");
    assert!(!works, "{why}");
    assert_eq!(why, "/proc is that of another PID namespace");
}

#[test]
fn profiles_are_listed_with_what_they_were_made_from() {
    let listed = run(&["profile", "list"]).expect(0).quiet();
    let lines: Vec<_> = listed.stdout.lines().collect();
    let of = ["firecracker ", "qemu ", "cloud-hypervisor "];
    assert_eq!(lines.len(), of.len(), "{lines:?}");
    for (line, name) in lines.iter().zip(of) {
        assert!(line.starts_with(name) && line.contains(": "), "{line}");
        assert!(line.contains("https://"), "{line}");
    }
}
