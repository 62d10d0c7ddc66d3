//! Files that a VMM opens in its work.

use super::RawCall;
use super::decode::may_write;
use super::names;

/// Directories of programs and libraries, and what the kernel shows of
/// itself and of the process.
const READ: &[&str] = &[
    "/lib/",
    "/lib64/",
    "/usr/lib/",
    "/usr/lib64/",
    "/usr/share/",
    "/usr/local/lib/",
    "/usr/local/share/",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/proc/self/",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/",
    "/sys/devices/",
    "/sys/fs/cgroup/",
    "/sys/kernel/mm/",
    "/sys/module/",
];

/// Devices of every VMM.
const WRITTEN: &[&str] = &[
    "/dev/kvm",
    "/dev/net/tun",
    "/dev/null",
    "/dev/zero",
    "/dev/ptmx",
    "/dev/random",
    "/dev/urandom",
    "/dev/userfaultfd",
    "/dev/vhost-net",
    "/dev/vhost-vsock",
];

/// Below `/proc/self/` and `/proc/self/task/TID/`: what leads out of the
/// process' own description, to its root, its directory, its memory or the
/// files that it holds open.
const LEADS_OUT: &[&[u8]] = &[
    b"root",
    b"cwd",
    b"exe",
    b"fd",
    b"map_files",
    b"mem",
    b"ns",
    b"task",
];

/// Whether a call opens a file that is known: `disks` are the sandbox's own.
/// A path with `..` never is.
pub(crate) fn opens_known(call: &RawCall, disks: &[Vec<u8>]) -> bool {
    let name = names::name(call.abi, call.number);
    if !matches!(name.as_str(), "open" | "openat" | "openat2" | "creat") {
        return false;
    }
    let Some(Some(path)) = &call.path else {
        return false;
    };
    let path = path.bytes.as_slice();
    if path.split(|&byte| byte == b'/').any(|part| part == b"..") {
        return false;
    }
    let among = |known: &[&str]| known.iter().any(|known| covers(known.as_bytes(), path));
    let write = may_write(&name, call.arguments);
    if let Some(below) = path.strip_prefix(b"/proc/self/") {
        return !leads_out(below) && (!write || is_comm(below));
    }
    among(WRITTEN) || disks.iter().any(|disk| disk == path) || (!write && among(READ))
}

/// Of a thread all the same holds as of the process.
fn leads_out(below: &[u8]) -> bool {
    let below = of_thread(below).unwrap_or(below);
    let first = below
        .split(|&byte| byte == b'/')
        .find(|part| !part.is_empty());
    // A list of threads leads nowhere else.
    first.is_some_and(|first| LEADS_OUT.contains(&first) && below != b"task")
}

/// A thread's name, which a VMM gives its threads.
fn is_comm(below: &[u8]) -> bool {
    below == b"comm" || of_thread(below) == Some(b"comm")
}

/// What is below `task/TID/`.
fn of_thread(below: &[u8]) -> Option<&[u8]> {
    let rest = below.strip_prefix(b"task/")?;
    let end = rest.iter().position(|&byte| byte == b'/')?;
    let (tid, rest) = rest.split_at(end);
    let is_tid = !tid.is_empty() && tid.iter().all(u8::is_ascii_digit);
    is_tid.then(|| rest.get(1..).unwrap_or_default())
}

/// A directory ends with a slash; anything else is one file.
fn covers(known: &[u8], path: &[u8]) -> bool {
    if known.ends_with(b"/") {
        path.starts_with(known)
    } else {
        path == known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syscall::Fetched;
    use sandtrace_event::SyscallAbi;

    #[track_caller]
    fn check(path: &str, flags: u64, expected: bool) {
        let call = RawCall {
            abi: SyscallAbi::Native,
            number: 257,
            arguments: [0, 0, flags, 0, 0, 0],
            path: Some(Some(Fetched {
                bytes: path.as_bytes().to_vec(),
                cut: false,
            })),
            address: None,
            argv: Vec::new(),
            texts: [None, None],
        };
        let disks = [b"/srv/disk.img".to_vec()];
        assert_eq!(opens_known(&call, &disks), expected, "{path}");
    }

    #[test]
    fn known_files() {
        const READ: u64 = 0;
        const WRITE: u64 = 2;
        check("/usr/lib/libc.so.6", READ, true);
        check("/usr/lib/libc.so.6", WRITE, false);
        check("/usr/lib/../../etc/shadow", READ, false);
        check("/dev/kvm", WRITE, true);
        check("/dev/kvm2", WRITE, false);
        check("/srv/disk.img", WRITE, true);
        check("/etc/shadow", READ, false);
        check("/proc/self/maps", READ, true);
        check("/proc/self/task", READ, true);
        check("/proc/self/task/7/comm", WRITE, true);
        check("/proc/self/task/7/status", READ, true);
        check("/proc/self/mem", WRITE, false);
        check("/proc/self//root/etc/shadow", READ, false);
        check("/proc/self/root/etc/shadow", READ, false);
        check("/proc/self/task/7/root/etc/shadow", READ, false);
        check("/proc/self/task//7/mem", READ, false);
        check("/proc/self/task/7/mem", WRITE, false);
        check("/proc/self/cwd/x", READ, false);
        check("/dev/shm/link", WRITE, false);
        check("shadow", READ, false);
    }
}
