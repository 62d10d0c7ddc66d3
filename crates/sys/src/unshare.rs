//! Giving a thread namespaces of its own.

use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::io;

/// Gives the calling thread its own mount namespace, and whatever it starts
/// from now on a new PID namespace, of which the first child is process 1.
/// The thread also stops sharing its working directory and root with the
/// other threads of the process.
///
/// # Errors
/// Without `CAP_SYS_ADMIN`, or where the kernel's limit on namespaces is met.
pub fn mounts_and_children() -> io::Result<()> {
    let flags = UnshareFlags::NEWNS | UnshareFlags::NEWPID;
    // SAFETY: unshare(2) endangers memory safety only by CLONE_FILES, which
    // would part this thread's descriptors from those that other threads own
    // by `OwnedFd`; the flags hold neither it nor anything that implies it.
    unsafe { unshare_unsafe(flags) }?;
    Ok(())
}
