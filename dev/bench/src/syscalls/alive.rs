//! Processes that make some calls whenever they are told to, and live on.

use anyhow::{Context as _, Result};
use rustix::{process, thread};
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// This program's own argument to be one.
pub(crate) const ALIVE: &str = "live-and-make-system-calls";

/// Calls of each kind whenever it is told.
const CALLS: usize = 20;

/// One of them. Dropped, it ends.
pub(super) struct Alive {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
}

impl Alive {
    pub(super) fn start() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ALIVE).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("its output")?;
        let mut one = Self {
            child,
            input,
            output,
        };
        // It has begun.
        one.works()?;
        Ok(one)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it make its calls.
    pub(super) fn works(&mut self) -> Result<()> {
        let input = self.input.as_mut().context("it was told to end")?;
        input.write_all(b"x")?;
        self.output.read_exact(&mut [0])?;
        Ok(())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.input.take());
        let _reaped = self.child.wait();
    }
}

/// Twelve kinds of calls for each byte that comes in, until no more do.
pub(crate) fn live() -> Result<()> {
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut byte = [0];
    while input.read(&mut byte)? > 0 {
        for _ in 0..CALLS {
            black_box((process::getpid(), process::getppid(), thread::gettid()));
            black_box((process::getuid(), process::geteuid()));
            black_box((process::getgid(), process::getegid()));
            black_box((process::getpgid(None)?, process::getsid(None)?));
            thread::sched_yield();
        }
        output.write_all(&byte)?;
        output.flush()?;
    }
    Ok(())
}
