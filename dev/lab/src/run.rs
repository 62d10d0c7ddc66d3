//! What a microVM and a namespace sandbox have in common: a process, its console, its end.

use std::io::PipeReader;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandtrace_guest::Report;

use crate::console::{Console, Ending};
use crate::error::{LabError, doing};
use crate::lab::Inner;
use crate::process;

/// How a sandbox's run went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How the process ended: QEMU, or the agent itself.
    pub status: ExitStatus,
    /// What the guest said about its end.
    pub ending: Ending,
    /// Everything the agent reported, in order.
    pub reports: Vec<Report>,
    /// Since the sandbox was started.
    pub elapsed: Duration,
}

/// A child process that is killed when dropped.
#[derive(Debug)]
pub(crate) struct Run {
    lab: Arc<Inner>,
    id: String,
    child: Child,
    console: Console,
    started: Instant,
}

impl Run {
    /// Takes over a child that says on `output` what it does.
    pub(crate) fn adopt(
        lab: &Arc<Inner>,
        id: &str,
        child: Child,
        output: PipeReader,
    ) -> Result<Self, LabError> {
        let run = Self {
            lab: Arc::clone(lab),
            id: id.to_owned(),
            child,
            console: Console::read_from(output),
            started: Instant::now(),
        };
        run.lab.adopt(run.pid())?;
        Ok(run)
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn console(&self) -> &Console {
        &self.console
    }

    /// Whether the process, which has hung up, is about to end.
    pub(crate) fn is_ending(&mut self) -> bool {
        const SOON: Duration = Duration::from_secs(2);
        let _ = process::ends_within(self.pid(), SOON);
        self.has_ended()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<Outcome, LabError> {
        if !self.has_ended()
            && !process::ends_within(self.pid(), timeout)
                .map_err(doing(format!("wait for {}", self.id)))?
        {
            return Err(LabError::Timeout {
                sandbox: self.id.clone(),
                seconds: timeout.as_secs(),
                console: self.console.last_lines(),
            });
        }
        let status = self
            .child
            .wait()
            .map_err(doing(format!("wait for {}", self.id)))?;
        let (reports, ending) = self.console.finish();
        Ok(Outcome {
            status,
            ending,
            reports,
            elapsed: self.started.elapsed(),
        })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.console.finish();
        self.lab.disown(self.child.id());
    }
}

/// An id ends up on command lines and in file names.
pub(crate) fn check_id(id: &str) -> Result<(), LabError> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let first = id.starts_with(|c: char| c.is_ascii_alphanumeric());
    if first && id.len() <= 64 && id.chars().all(good) {
        Ok(())
    } else {
        Err(LabError::BadId(id.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for good in ["demo-1", "a", "0.A_z"] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", "-S", "a,b", "a b", "a/b", &"x".repeat(65)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }
}
