//! How a VMM is confined, as `/proc/PID/task/*/status` says (proc(5)).

use sandtrace_event::{SyscallFinding, SyscallFindingKind};
use std::fs;
use std::path::Path;

/// Threads that are looked at.
const MAX_THREADS: usize = 4096;

/// What is missing of a process' confinement; nothing where it has ended.
pub(crate) fn findings(pid: u32) -> Vec<SyscallFinding> {
    read(&Path::new("/proc").join(pid.to_string()).join("task"))
}

fn read(tasks: &Path) -> Vec<SyscallFinding> {
    let mut without_filter = Vec::new();
    let mut may_gain = Vec::new();
    let mut threads = 0_usize;
    let entries = fs::read_dir(tasks).into_iter().flatten().flatten();
    for entry in entries.take(MAX_THREADS) {
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else {
            continue;
        };
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim)
        };
        let name = field("Name:").unwrap_or("?").to_owned();
        threads += 1;
        // 2 is a filter; 1, strict mode, allows four calls.
        if field("Seccomp:") == Some("0") {
            without_filter.push(name.clone());
        }
        if field("NoNewPrivs:") == Some("0") {
            may_gain.push(name);
        }
    }
    let finding = |kind, what: &str, names: &[String]| {
        let detail = format!(
            "{} of {threads} threads {what}: {}",
            names.len(),
            some(names)
        );
        SyscallFinding {
            detail,
            kind,
            tid: None,
        }
    };
    let mut findings = Vec::new();
    if !without_filter.is_empty() {
        let kind = SyscallFindingKind::NoSeccomp;
        findings.push(finding(kind, "have no seccomp filter", &without_filter));
    }
    if !may_gain.is_empty() {
        let kind = SyscallFindingKind::NewPrivsPossible;
        findings.push(finding(kind, "may gain privileges by execve", &may_gain));
    }
    findings
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

    #[track_caller]
    fn check(threads: &[(&str, u8, u8)], expected: &[&str]) {
        let dir = tempfile::tempdir().unwrap();
        for (tid, (name, seccomp, no_new_privs)) in threads.iter().enumerate() {
            let task = dir.path().join(tid.to_string());
            fs::create_dir(&task).unwrap();
            let status =
                format!("Name:\t{name}\nNoNewPrivs:\t{no_new_privs}\nSeccomp:\t{seccomp}\n");
            fs::write(task.join("status"), status).unwrap();
        }
        let found: Vec<_> = read(dir.path()).into_iter().map(|f| f.detail).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn threads_without_a_filter_are_found() {
        check(&[("firecracker", 2, 1), ("fc_api", 2, 1)], &[]);
        check(
            &[("firecracker", 2, 1), ("fc_vcpu 0", 0, 1)],
            &["1 of 2 threads have no seccomp filter: fc_vcpu 0"],
        );
        check(
            &[("qemu", 0, 0), ("qemu", 0, 0)],
            &[
                "2 of 2 threads have no seccomp filter: qemu",
                "2 of 2 threads may gain privileges by execve: qemu",
            ],
        );
        check(&[], &[]);
    }
}
