//! Which PID namespace this is (pid_namespaces(7)).

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Inode of the host's own namespace (`PROC_PID_INIT_INO`, linux/proc_ns.h).
const INITIAL: u64 = 0xeffffffc;

/// Whether this process is in the host's own namespace, where ids of
/// processes are those that the kernel itself uses.
#[must_use]
pub fn is_initial() -> bool {
    fs::metadata("/proc/self/ns/pid").is_ok_and(|namespace| namespace.ino() == INITIAL)
}

/// Whether `/proc` shows the processes of this process' namespace, by the ids
/// that they have there.
#[must_use]
pub fn proc_is_ours() -> bool {
    let own = fs::read_link("/proc/self");
    own.is_ok_and(|own| own == Path::new(&std::process::id().to_string()))
}
