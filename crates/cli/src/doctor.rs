//! `sandtrace doctor`: what this host can and cannot capture, and why.

use crate::args::DoctorArgs;
use crate::exit::{Exit, Failure, OrExit as _};
use anyhow::Context as _;
use sandtrace_sys::bpf::{BpfConfig, BpfFrames, BpfFramesConfig, BpfSyscalls};
use sandtrace_sys::proc_events::ProcEvents;
use sandtrace_sys::ring::{PacketRing, RingConfig, RingError};
use serde_json::json;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

/// One thing that was tried.
struct Finding {
    what: &'static str,
    works: bool,
    /// What was found, and how to mend it where it does not work.
    why: String,
}

/// Tries each mechanism; nothing is left behind.
pub(crate) fn run(args: &DoctorArgs) -> Result<Exit, Failure> {
    let findings = [
        kernel(),
        packet_ring(),
        packet_programs(),
        namespaces(),
        processes(),
        process_events(),
        overlay(),
        ebpf(),
        ptrace(),
        kvm(),
    ];
    let print = if args.json { print_json } else { print_text };
    print(&findings)
        .context("write to standard output")
        .or_exit(Exit::Io)?;
    Ok(Exit::Success)
}

fn print_text(findings: &[Finding]) -> std::io::Result<()> {
    let mut out = anstream::stdout().lock();
    for finding in findings {
        let mark = if finding.works { "yes" } else { "no " };
        writeln!(out, "{mark}  {:<26} {}", finding.what, finding.why)?;
    }
    Ok(())
}

fn print_json(findings: &[Finding]) -> std::io::Result<()> {
    let findings: Vec<_> = findings
        .iter()
        .map(|f| json!({"what": f.what, "works": f.works, "why": f.why}))
        .collect();
    writeln!(
        std::io::stdout().lock(),
        "{}",
        json!({ "findings": findings })
    )
}

fn kernel() -> Finding {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let numbers: Vec<u32> = release
        .split(['.', '-'])
        .map_while(|part| part.parse().ok())
        .take(2)
        .collect();
    Finding {
        what: "Linux 5.6 or later",
        works: numbers >= vec![5, 6],
        why: format!("this is {release}; openat2 and pidfd need 5.6"),
    }
}

fn packet_ring() -> Finding {
    let config = RingConfig {
        block_size: 1 << 17,
        blocks: 2,
        ..RingConfig::default()
    };
    let (works, why) = match PacketRing::open("lo", None, config) {
        Ok(_) => (
            true,
            "AF_PACKET with TPACKET_V3 works (tried on lo)".to_owned(),
        ),
        Err(error @ RingError::NotPermitted { .. }) => (false, error.to_string()),
        Err(error) => (
            false,
            format!("{error}; is the kernel built with CONFIG_PACKET?"),
        ),
    };
    Finding {
        what: "network: packet ring",
        works,
        why,
    }
}

fn packet_programs() -> Finding {
    let config = BpfFramesConfig {
        flows: 16,
        ring: 1 << 16,
        ..BpfFramesConfig::default()
    };
    let (works, why) =
        match BpfFrames::load(config).and_then(|(programs, _)| programs.attach("lo", None)) {
            Ok(_) => (
                true,
                "the programs load and attach (tried on lo): `--capture ebpf` can be used, and \
             `auto` does with `--all`"
                    .to_owned(),
            ),
            Err(error) => (
                false,
                format!("{error}; `--capture auto` uses a packet ring"),
            ),
        };
    Finding {
        what: "network: eBPF",
        works,
        why,
    }
}

fn namespaces() -> Finding {
    let own = Path::new("/proc/self/ns/net");
    let (works, why) = match sandtrace_sys::netns::within(Some(own), || ()) {
        Ok(()) => (
            true,
            "interfaces inside network namespaces can be watched".to_owned(),
        ),
        Err(error) => (false, format!("{error} (needs CAP_SYS_ADMIN: run as root)")),
    };
    Finding {
        what: "network: namespaces",
        works,
        why,
    }
}

fn processes() -> Finding {
    let (works, why) = match std::fs::read_dir("/proc/1/fd") {
        Ok(_) => (
            true,
            "descriptors of other users' VMMs can be read".to_owned(),
        ),
        Err(error) => (
            false,
            format!("read /proc/1/fd: {error} (needs CAP_SYS_PTRACE: run as root)"),
        ),
    };
    Finding {
        what: "discovery: VMM processes",
        works,
        why,
    }
}

fn process_events() -> Finding {
    let opened = ProcEvents::open();
    let why = match &opened {
        Ok(_) => "the kernel tells of programs that start, so of sandboxes at once".to_owned(),
        Err(error) => format!(
            "{error}: `watch --all` looks for new processes each 100 ms instead, and at once when \
             inotify tells of a socket"
        ),
    };
    Finding {
        what: "discovery: process events",
        works: opened.is_ok(),
        why,
    }
}

fn overlay() -> Finding {
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let works = filesystems
        .lines()
        .any(|line| line.trim_end().ends_with("overlay"));
    let why = if works {
        "the kernel has OverlayFS; upper dirs are read without mounting anything"
    } else {
        "the kernel has no OverlayFS loaded: no overlay sandbox can run here (disk images can)"
    };
    Finding {
        what: "files: overlay upper dirs",
        works,
        why: why.to_owned(),
    }
}

fn ebpf() -> Finding {
    let (works, why) = match BpfSyscalls::load(BpfConfig::default(), &[]) {
        Ok(programs) => {
            let kvm = if programs.sees_kvm() {
                "exits from guests are counted too, where this host's KVM passes its tracepoint"
            } else {
                "exits from guests are not counted: no tracepoint kvm:kvm_exit (is KVM loaded?)"
            };
            let why = format!("the programs load and attach: `--syscalls auto` uses them; {kvm}");
            (true, why)
        }
        Err(error) => {
            let why = format!("{error}; `--syscalls auto` then watches no system calls");
            (false, why)
        }
    };
    Finding {
        what: "VMM calls: eBPF",
        works,
        why,
    }
}

fn ptrace() -> Finding {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (works, why) = tracing(
        &read("/proc/sys/kernel/yama/ptrace_scope"),
        &read("/proc/self/status"),
        sandtrace_sys::pidns::proc_is_ours(),
    );
    Finding {
        what: "VMM calls: ptrace",
        works,
        why: why.to_owned(),
    }
}

/// Whether others can be traced, by Yama's setting (empty without Yama), this
/// process' status and whether `/proc` is that of its PID namespace.
fn tracing(scope: &str, status: &str, proc_is_ours: bool) -> (bool, &'static str) {
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = capabilities.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // CAP_SYS_PTRACE of linux/capability.h.
    let capable = capabilities.is_some_and(|mask| mask & (1 << 19) != 0);
    match (scope.trim(), capable) {
        _ if !proc_is_ours => (false, "/proc is that of another PID namespace"),
        ("3", _) => (
            false,
            "kernel.yama.ptrace_scope is 3: forbidden until the next boot",
        ),
        (_, false) => (false, "needs CAP_SYS_PTRACE: run as root"),
        (_, true) => (
            true,
            "possible with `--syscalls ptrace`; slows each call by tens of µs",
        ),
    }
}

fn kvm() -> Finding {
    let (works, why) = match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => (
            true,
            "/dev/kvm opens; the demo tries it and falls back to emulation".to_owned(),
        ),
        Err(error) => (
            false,
            format!("/dev/kvm: {error}; the demo emulates, which is slower"),
        ),
    };
    Finding {
        what: "demo: KVM",
        works,
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(scope: &str, status: &str, proc_is_ours: bool, expected: (bool, &str)) {
        let (works, why) = tracing(scope, status, proc_is_ours);
        assert_eq!(works, expected.0, "{why}");
        assert!(why.contains(expected.1), "{why}");
    }

    #[test]
    fn what_keeps_from_tracing_is_said() {
        let root = "Name:\tx\nCapEff:\t000001ffffffffff\n";
        let nobody = "Name:\tx\nCapEff:\t0000000000000000\n";
        for scope in ["", "0\n", "1\n", "2\n"] {
            check(scope, root, true, (true, "possible"));
            check(scope, nobody, true, (false, "CAP_SYS_PTRACE"));
            check(scope, "", true, (false, "CAP_SYS_PTRACE"));
        }
        check("3\n", root, true, (false, "ptrace_scope is 3"));
        check("3\n", nobody, true, (false, "ptrace_scope is 3"));
        check("3\n", root, false, (false, "another PID namespace"));
        check("0\n", root, false, (false, "another PID namespace"));
    }
}
