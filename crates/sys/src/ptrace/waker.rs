//! Waking a tracer out of its wait.
//!
//! waitpid(2) cannot wait for a descriptor too; a signal that does nothing
//! makes it return.

use std::io;
use std::sync::OnceLock;

/// Wakes the thread that made it out of [`super::Tracer::wait`].
#[derive(Clone, Copy, Debug)]
pub struct Waker {
    tid: libc::pid_t,
}

impl Waker {
    /// For the calling thread.
    ///
    /// # Errors
    /// When the signal cannot be handled.
    pub fn for_this_thread() -> io::Result<Self> {
        static HANDLED: OnceLock<Result<(), i32>> = OnceLock::new();
        HANDLED
            .get_or_init(|| handle().map_err(|error| error.raw_os_error().unwrap_or_default()))
            .map_err(io::Error::from_raw_os_error)?;
        // SAFETY: gettid(2) takes nothing and cannot fail.
        let tid = unsafe { libc::gettid() };
        Ok(Self { tid })
    }

    /// Makes a wait return that is under way now. One that begins a moment
    /// later is not woken: wake again until the thread has answered.
    pub fn wake(self) {
        let process = libc::pid_t::try_from(std::process::id()).unwrap_or_default();
        // SAFETY: tgkill(2) takes three numbers; the signal has a handler, and
        // a thread of this process is the only one that can be hit.
        let _thread_ended = unsafe { libc::syscall(libc::SYS_tgkill, process, self.tid, signal()) };
    }
}

fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 7
}

extern "C" fn nothing(_signal: libc::c_int) {}

fn handle() -> io::Result<()> {
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: a sigaction is numbers and an optional function; all zeros are
    // one with an empty mask and without SA_RESTART.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    // SAFETY: the handler does nothing, so that it may interrupt anything.
    let status = unsafe { libc::sigaction(signal(), &raw const action, std::ptr::null_mut()) };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
