//! Filters on one's own system calls, as VMMs put them on their threads
//! (seccomp(2), `SECCOMP_SET_MODE_FILTER`).

use std::io;

/// `struct seccomp_data` (linux/seccomp.h) begins with the call's number.
const NUMBER: u32 = 0;

/// From now on the calling thread, and those that it starts, may do anything
/// but ask for a process group: getpgid(2) is not made, and the thread gets
/// SIGSYS. The process can never gain privileges by execve any more.
///
/// # Errors
/// When the kernel has no filters.
pub fn forbid_getpgid() -> io::Result<()> {
    install(0)
}

/// The same for every thread of this process.
///
/// # Errors
/// When the kernel has no filters, or a thread has one that this one lacks.
pub fn forbid_getpgid_everywhere() -> io::Result<()> {
    install(libc::SECCOMP_FILTER_FLAG_TSYNC)
}

fn install(flags: libc::c_ulong) -> io::Result<()> {
    let number = u32::try_from(libc::SYS_getpgid).unwrap_or(u32::MAX);
    let load = statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, NUMBER);
    let mut same = statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number);
    same.jf = 1;
    let answer = |value| statement(libc::BPF_RET | libc::BPF_K, value);
    let mut code = [
        load,
        same,
        answer(libc::SECCOMP_RET_TRAP),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: u16::try_from(code.len()).unwrap_or_default(),
        filter: code.as_mut_ptr(),
    };
    rustix::thread::set_no_new_privs(true)?;
    // SAFETY: the kernel copies the program, whose length is that of `code`,
    // and both outlive the call; a filter takes nothing from memory safety.
    let status = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    match status {
        0 => Ok(()),
        status if status > 0 => Err(io::Error::other(format!("thread {status} has another"))),
        _ => Err(io::Error::last_os_error()),
    }
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt: 0,
        jf: 0,
        k,
    }
}

/// Ends this process with status 148 when a filter meets a call of any of its
/// threads, as Firecracker does (`FcExitCode::BadSyscall`).
///
/// # Errors
/// When the kernel refuses the handler.
pub fn exit_like_firecracker() -> io::Result<()> {
    let handler = bad_syscall as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler only calls _exit(2), which is safe in a handler.
    let former = unsafe { libc::signal(libc::SIGSYS, handler) };
    if former == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

extern "C" fn bad_syscall(_signal: libc::c_int) {
    // SAFETY: ends the process, and nothing of it runs afterwards.
    unsafe { libc::_exit(148) }
}
