//! Tracing another process' system calls (ptrace(2)).
//!
//! The kernel ties tracees to the one thread that seized them, so a
//! [`Tracer`] cannot leave its thread. `PTRACE_O_EXITKILL` is never set: when
//! the tracing thread ends, in whatever way, the kernel detaches every tracee
//! and lets it run on.

mod attach;
mod memory;
mod stop;
mod waker;

pub use attach::AttachError;
pub use memory::read_memory;
pub use stop::{Stop, SyscallStop};
pub use waker::Waker;

use crate::syscall::ForbiddenCall;
use rustix::process::Pid;
use std::io;
use std::marker::PhantomData;

/// `PTRACE_GET_SYSCALL_INFO` (linux/ptrace.h), since Linux 5.3.
const GET_SYSCALL_INFO: libc::c_uint = 0x420e;

/// `SIGSYS`, and its code where a seccomp filter sent it.
const SIGSYS: u32 = 31;
const SYS_SECCOMP: u32 = 1;

const OPTIONS: libc::c_int = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACEEXIT;

/// This thread as a tracer. Neither `Send` nor `Sync`: only the thread that
/// seized a tracee can do anything with it.
#[derive(Debug)]
pub struct Tracer {
    only_here: PhantomData<*const ()>,
}

impl Tracer {
    /// Makes the calling thread a tracer.
    #[must_use]
    pub fn here() -> Self {
        Self {
            only_here: PhantomData,
        }
    }

    /// Attaches to a thread without stopping it; threads and processes that
    /// it starts are traced too.
    ///
    /// # Errors
    /// Why it cannot be traced.
    pub fn seize(&self, tid: u32) -> Result<(), AttachError> {
        attach::check_parent(tid)?;
        let options = usize::try_from(OPTIONS).unwrap_or_default();
        request(libc::PTRACE_SEIZE, tid, 0, options)
            .map_err(|error| attach::explain(tid, error))
            .map(|_| ())
    }

    /// Makes a thread stop soon; the stop is [`Stop::Interrupted`], or
    /// another that comes first.
    ///
    /// # Errors
    /// When there is no such tracee.
    pub fn interrupt(&self, tid: u32) -> io::Result<()> {
        request(libc::PTRACE_INTERRUPT, tid, 0, 0).map(|_| ())
    }

    /// Waits for the next stop or end of any tracee of this thread, and of no
    /// other child. `None`: there is no tracee any more.
    ///
    /// # Errors
    /// `Interrupted` when a [`Waker`] woke this thread.
    pub fn wait(&self) -> io::Result<Option<(u32, Stop)>> {
        let mut status = 0;
        let flags = libc::__WALL | libc::__WNOTHREAD;
        // SAFETY: the kernel writes one int through the pointer, which is
        // that of a local that outlives the call.
        let tid = unsafe { libc::waitpid(-1, &raw mut status, flags) };
        if tid < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ECHILD) => Ok(None),
                _ => Err(error),
            };
        }
        let tid = u32::try_from(tid).unwrap_or_default();
        Ok(Some((tid, self.stop(tid, status))))
    }

    fn stop(&self, tid: u32, status: libc::c_int) -> Stop {
        let message = || self.message(tid);
        stop::parse(status, message)
    }

    /// What a thread in [`Stop::Syscall`] is entering or leaving.
    ///
    /// # Errors
    /// When the thread was killed meanwhile.
    pub fn syscall(&self, tid: u32) -> io::Result<SyscallStop> {
        let mut info = [0_u8; stop::INFO_BYTES];
        // SAFETY: the kernel writes at most as many bytes as the third
        // argument says, which is the length of the buffer behind the fourth.
        let read = unsafe {
            libc::ptrace(
                GET_SYSCALL_INFO,
                pid(tid)?.as_raw_pid(),
                info.len(),
                info.as_mut_ptr(),
            )
        };
        if read < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stop::parse_info(&info))
    }

    /// Lets a stopped thread go on to its next system call or stop,
    /// delivering `signal` if it is not 0.
    ///
    /// # Errors
    /// When the thread was killed meanwhile.
    pub fn resume(&self, tid: u32, signal: i32) -> io::Result<()> {
        request(
            libc::PTRACE_SYSCALL,
            tid,
            0,
            usize::try_from(signal).unwrap_or_default(),
        )
        .map(|_| ())
    }

    /// Leaves a thread in its group-stop, and reports when that ends.
    ///
    /// # Errors
    /// When the thread was killed meanwhile.
    pub fn listen(&self, tid: u32) -> io::Result<()> {
        request(libc::PTRACE_LISTEN, tid, 0, 0).map(|_| ())
    }

    /// Lets a stopped thread go for good, delivering `signal` if it is not 0.
    ///
    /// # Errors
    /// When the thread is not stopped, or was killed meanwhile.
    pub fn detach(&self, tid: u32, signal: i32) -> io::Result<()> {
        request(
            libc::PTRACE_DETACH,
            tid,
            0,
            usize::try_from(signal).unwrap_or_default(),
        )
        .map(|_| ())
    }

    /// The call that a seccomp filter met, for a thread that is about to get
    /// SIGSYS for it; none where somebody else sent the signal.
    #[must_use]
    pub fn forbidden_call(&self, tid: u32) -> Option<ForbiddenCall> {
        // `si_signo`, `si_code`, and from byte 24 `si_syscall` and `si_arch`
        // (asm-generic/siginfo.h); the whole is 128 bytes.
        let mut info = [0_u32; 32];
        let pid = pid(tid).ok()?;
        // SAFETY: the kernel writes one siginfo_t, 128 bytes, through the
        // fourth argument, which points to a local of that size.
        let status = unsafe {
            libc::ptrace(
                libc::PTRACE_GETSIGINFO,
                pid.as_raw_pid(),
                0_usize,
                info.as_mut_ptr(),
            )
        };
        let from_filter = info[0] == SIGSYS && info[2] == SYS_SECCOMP;
        (status == 0 && from_filter).then(|| ForbiddenCall::of(info[7], info[6]))
    }

    /// `PTRACE_GETEVENTMSG`; 0 where the thread was killed meanwhile.
    fn message(&self, tid: u32) -> u64 {
        let mut message: libc::c_ulong = 0;
        let Ok(pid) = pid(tid) else { return 0 };
        // SAFETY: the kernel writes one unsigned long through the fourth
        // argument, which points to a local that outlives the call.
        let status = unsafe {
            libc::ptrace(
                libc::PTRACE_GETEVENTMSG,
                pid.as_raw_pid(),
                0_usize,
                &raw mut message,
            )
        };
        if status < 0 { 0 } else { message }
    }
}

/// A request whose address and data are plain numbers.
fn request(request: libc::c_uint, tid: u32, address: usize, data: usize) -> io::Result<i64> {
    // SAFETY: none of the requests that come here lets the kernel read or
    // write this process' memory: address and data are numbers to them.
    let result = unsafe { libc::ptrace(request, pid(tid)?.as_raw_pid(), address, data) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn pid(tid: u32) -> io::Result<Pid> {
    i32::try_from(tid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}
