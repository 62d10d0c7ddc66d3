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
    "/dev/shm/",
    "/proc/self/task/",
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
    among(WRITTEN) || disks.iter().any(|disk| disk == path) || (!write && among(READ))
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
        check("shadow", READ, false);
    }
}
