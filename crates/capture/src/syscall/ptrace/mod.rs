//! Seeing system calls by tracing every thread of the VMM (ptrace(2)).
//!
//! Every ptrace call is made on one thread, which the kernel takes for the
//! tracer. Whatever ends that thread detaches every tracee.

mod fetch;
mod reader;
mod session;
mod state;

use super::{Counts, Fact, SyscallSource};
use crate::syscall::comm;
use sandtrace_event::SyscallBackend;
use sandtrace_sys::ptrace::{AttachError, Waker};
use session::Session;
use state::Shared;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between two attempts to wake the tracing thread.
const WAKE_EVERY: Duration = Duration::from_millis(5);

/// Processes that are traced at most when tracing begins, unless it is said.
const MOST_PROCESSES: usize = 512;

/// Why a process cannot be traced.
#[derive(Debug, thiserror::Error)]
pub enum PtraceError {
    /// A thread refuses.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Its threads cannot be listed.
    #[error("list the threads of process {pid}: {source}")]
    Threads {
        /// The process.
        pid: u32,
        /// The cause.
        source: io::Error,
    },
    /// The tracing thread cannot be made.
    #[error("start the tracing thread: {source}")]
    Start {
        /// The cause.
        source: io::Error,
    },
}

/// A process under trace, with everything that it starts.
pub struct PtraceSource {
    shared: Arc<Shared>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl PtraceSource {
    /// Attaches to every thread of a process, and of those that it started before:
    /// 512 processes with itself. How many are beyond that is among its losses.
    ///
    /// # Errors
    /// When it has ended, is traced by somebody else, or may not be traced.
    /// Nothing stays attached then.
    pub fn attach(pid: u32) -> Result<Self, PtraceError> {
        Self::attach_up_to(pid, MOST_PROCESSES)
    }

    /// As [`Self::attach`], with another bound.
    ///
    /// # Errors
    /// As there.
    pub fn attach_up_to(pid: u32, processes: usize) -> Result<Self, PtraceError> {
        let shared = Arc::new(Shared::default());
        let (tell, told) = sync_channel(1);
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("ptrace".to_owned())
            .spawn(move || {
                let attached = Waker::for_this_thread()
                    .map_err(|source| PtraceError::Start { source })
                    .and_then(|waker| Ok((waker, Session::attach(pid, processes, &of_thread)?)));
                match attached {
                    Ok((waker, session)) => {
                        // Nobody waits any more: then nothing is to be traced.
                        if tell.send(Ok(waker)).is_ok() {
                            session.run();
                        }
                        of_thread.ended.store(true, Ordering::Release);
                    }
                    Err(error) => {
                        let _nobody_waits = tell.send(Err(error));
                    }
                }
            })
            .map_err(|source| PtraceError::Start { source })?;
        let waker = told.recv().unwrap_or_else(|_| {
            let source = io::Error::other("it ended at once");
            Err(PtraceError::Start { source })
        })?;
        Ok(Self {
            shared,
            waker,
            thread: Some(thread),
        })
    }
}

impl SyscallSource for PtraceSource {
    fn backend(&self) -> SyscallBackend {
        SyscallBackend::Ptrace
    }

    fn facts(&mut self) -> Vec<Fact> {
        let mut seen = self
            .shared
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        seen.facts.take()
    }

    fn counts(&mut self) -> Counts {
        let mut counts = {
            let seen = self.shared.seen.lock();
            seen.unwrap_or_else(PoisonError::into_inner).take_counts()
        };
        // A thread gets its name after its start; one that ended keeps its last.
        let mut names: HashMap<u32, Vec<u8>> = HashMap::new();
        for (key, thread, _) in &mut counts.calls {
            let name = names.entry(key.tid).or_insert_with(|| comm(key.tid));
            if !name.is_empty() {
                thread.name.clone_from(name);
            }
        }
        counts
    }

    fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire)
    }

    fn detach(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.shared.stop.store(true, Ordering::Release);
        // The session gives up after its own deadline, and with its thread's
        // end the kernel detaches what is left; this is a guard beyond it.
        let deadline = Instant::now() + session::DETACH_WITHIN * 2;
        while !thread.is_finished() && Instant::now() < deadline {
            self.waker.wake();
            std::thread::sleep(WAKE_EVERY);
        }
        if thread.is_finished() {
            let _panicked = thread.join();
        }
    }
}

impl Drop for PtraceSource {
    fn drop(&mut self) {
        self.detach();
    }
}
