//! The thread that owns the trail: it alone appends, commits, and then tells the sinks.

use super::moment::{control, now};
use super::outlet::{Load, Outlet};
use crate::show;
use crate::witness::{TrailHandle, Witnesses};
use sandtrace_audit_chain::{Batch, Head, TrailWriter, WriteError};
use sandtrace_event::{
    Cosignature, EndReason, EvidenceTier, Judged, Observation, Reconciliation, Timestamp, TrailEnd,
};
use sandtrace_output::{Fanout, Record};
use sandtrace_sys::clock;
use std::io::PipeWriter;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Judged events that may wait for the disk; then capture waits, its ring
/// fills, and the kernel counts what it drops.
const QUEUE: usize = 8192;

/// How long more events may come while some wait for their commit anyway. Who
/// finds the receiver of a queue asleep has to wake it, and on a busy processor
/// that costs as much as a record does.
const GATHER_US: u64 = 1_000;

/// Records in a commit from which on the next is likely to be as large. What
/// follows a burst is smaller and gives the memory back.
const MANY: usize = 64;

/// Time between two looks whether a witness has answered, in microseconds.
const WITNESS_LOOK_US: u64 = 100_000;

/// Longest wait for witnesses to cosign the seal of a trail.
const LAST_ANSWER: Duration = Duration::from_secs(2);

/// What reaches the trail.
pub(crate) enum Entry {
    /// One event.
    Event(Box<Judged>),
    /// The last record; nothing may follow.
    End(End),
}

/// How the trail ends.
pub(crate) struct End {
    pub(crate) at: Timestamp,
    pub(crate) reason: EndReason,
    pub(crate) reconciliation: Vec<Reconciliation>,
}

/// What became of a trail.
pub(crate) struct Finished {
    pub(crate) end: TrailEnd,
    /// The last record; `None` only where nothing could be written.
    pub(crate) head: Option<Head>,
    /// Path of the trail, of its first file where it has many.
    pub(crate) path: PathBuf,
    /// What became of each output.
    pub(crate) outputs: Vec<sandtrace_output::Report>,
}

/// Handle of the trail's thread.
pub(crate) struct TrailThread {
    pub(crate) queue: Outlet,
    thread: JoinHandle<Result<Finished, WriteError>>,
}

impl TrailThread {
    /// Starts the trail's thread. `failed` is closed when the thread ends, so
    /// that a poll on its other end wakes up.
    pub(crate) fn start(writer: TrailWriter, sinks: Fanout, failed: PipeWriter) -> Self {
        Self::over(Appender::new(writer, Sinks::Own(sinks)), failed)
    }

    /// The same with an appender that is set up already.
    pub(crate) fn over(appender: Appender, failed: PipeWriter) -> Self {
        let (queue, entries) = sync_channel(QUEUE);
        let load = Arc::new(Load::default());
        let queue = Outlet::Own(queue, Arc::clone(&load));
        let thread = std::thread::spawn(move || {
            let _wakes_the_supervisor_when_dropped = failed;
            appender.run(&entries, &load)
        });
        Self { queue, thread }
    }

    /// Waits for the last record to be durable.
    pub(crate) fn join(self) -> Option<Result<Finished, WriteError>> {
        drop(self.queue);
        self.thread.join().ok()
    }
}

/// One trail and who hears of it.
pub(crate) struct Appender {
    writer: TrailWriter,
    sinks: Sinks,
    witnesses: Option<TrailHandle>,
}

/// Who hears of a trail's records.
pub(crate) enum Sinks {
    /// Sinks of this trail alone.
    Own(Fanout),
    /// Sinks that the trails of many sandboxes share; somebody else ends them.
    Shared(Arc<Mutex<Fanout>>),
}

impl Sinks {
    fn with<T>(&mut self, act: impl FnOnce(&mut Fanout) -> T) -> T {
        match self {
            Self::Own(fanout) => act(fanout),
            Self::Shared(fanout) => act(&mut fanout.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

impl Appender {
    pub(crate) fn new(writer: TrailWriter, sinks: Sinks) -> Self {
        Self {
            writer,
            sinks,
            witnesses: None,
        }
    }

    /// Has these witnesses asked to cosign its checkpoints.
    pub(crate) fn cosigned(mut self, witnesses: Option<&Witnesses>) -> Self {
        self.witnesses = witnesses.map(|witnesses| witnesses.trail(self.writer.path()));
        self
    }

    fn run(mut self, entries: &Receiver<Entry>, load: &Load) -> Result<Finished, WriteError> {
        loop {
            match entries.recv_timeout(self.patience()) {
                Ok(entry) => {
                    if let Some(end) = self.take(entry, entries, load)? {
                        return self.end(end);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                // Every sender is gone without an end: the supervisor
                // failed. Keep what there is; the trail stays unsealed.
                Err(RecvTimeoutError::Disconnected) => {
                    self.commit()?;
                    let end = self.trail_end(EndReason::CaptureFailed, Vec::new());
                    return Ok(self.finished(end));
                }
            }
            self.tend()?;
            self.gather();
        }
    }

    /// Leaves events in the queue for a moment, but none beyond its commit.
    fn gather(&self) {
        let Some(commit_us) = self.writer.commit_deadline_us() else {
            return;
        };
        let left_us = commit_us.saturating_sub(clock::boot_us());
        std::thread::sleep(Duration::from_micros(left_us.min(GATHER_US)));
    }

    /// Appends an entry, and those that are there behind it as long as they
    /// may share its commit.
    fn take(
        &mut self,
        first: Entry,
        more: &Receiver<Entry>,
        load: &Load,
    ) -> Result<Option<End>, WriteError> {
        let mut next = Some(first);
        while let Some(entry) = next {
            load.taken();
            match entry {
                Entry::Event(judged) => self.append(*judged)?,
                Entry::End(end) => return Ok(Some(end)),
            }
            if self.writer.commit_overdue(clock::boot_us()) {
                return Ok(None);
            }
            next = more.try_recv().ok();
        }
        Ok(None)
    }

    /// Does what is due now.
    pub(crate) fn tend(&mut self) -> Result<(), WriteError> {
        let now_us = clock::boot_us();
        self.append_cosignatures()?;
        if self.writer.commit_due(now_us) {
            self.commit()?;
        } else if self.writer.next_due_us().is_some_and(|due| due <= now_us) {
            self.upkeep()?;
        }
        Ok(())
    }

    /// When [`Self::tend`] is needed at the latest, in microseconds of the
    /// boot clock.
    pub(crate) fn next_due_us(&self) -> Option<u64> {
        let is_asked = |witnesses: &TrailHandle| witnesses.is_waiting();
        let waiting = self.witnesses.as_ref().is_some_and(is_asked);
        let look = waiting.then(|| clock::boot_us().saturating_add(WITNESS_LOOK_US));
        self.writer.next_due_us().into_iter().chain(look).min()
    }

    /// Puts what witnesses have signed meanwhile into the trail.
    fn append_cosignatures(&mut self) -> Result<(), WriteError> {
        let taken = self.witnesses.as_ref().map(TrailHandle::take_cosignatures);
        self.append_all(taken.unwrap_or_default())
    }

    fn append_all(&mut self, cosignatures: Vec<Cosignature>) -> Result<(), WriteError> {
        for cosignature in cosignatures {
            self.append(Judged {
                observation: control(now(), cosignature.into()),
                verdict: None,
            })?;
        }
        Ok(())
    }

    fn patience(&self) -> Duration {
        let now = clock::boot_us();
        self.next_due_us().map_or(Duration::from_secs(3600), |due| {
            Duration::from_micros(due.saturating_sub(now))
        })
    }

    pub(crate) fn append(&mut self, judged: Judged) -> Result<(), WriteError> {
        self.writer.append(judged, clock::boot_us()).map(drop)
    }

    fn commit(&mut self) -> Result<(), WriteError> {
        let acknowledged = self.writer.commit()?;
        self.deliver(&acknowledged);
        if acknowledged.len() >= MANY {
            self.writer.reuse(acknowledged);
        }
        self.upkeep()
    }

    fn upkeep(&mut self) -> Result<(), WriteError> {
        let acknowledged = self.writer.upkeep(now(), clock::boot_us())?;
        self.deliver(&acknowledged);
        Ok(())
    }

    /// Sinks see a record once it is durable.
    fn deliver(&mut self, acknowledged: &Batch) {
        if let Some(witnesses) = &mut self.witnesses {
            for sealed in acknowledged.iter() {
                witnesses.observe(sealed.event);
            }
        }
        let problems = self.sinks.with(|sinks| {
            for sealed in acknowledged.iter() {
                sinks.write(&Record {
                    event: sealed.event,
                    line: sealed.line,
                });
            }
            sinks.flush();
            sinks.take_problems()
        });
        for problem in problems {
            show::tell(&format!("sandtrace: {problem}"));
        }
    }

    pub(crate) fn end(mut self, end: End) -> Result<Finished, WriteError> {
        let payload = self.trail_end(end.reason, end.reconciliation);
        let observation = Observation {
            at: end.at,
            payload: payload.clone().into(),
            tier: EvidenceTier::Hypervisor,
        };
        self.append(Judged {
            observation,
            verdict: None,
        })?;
        let acknowledged = self.writer.seal(now(), clock::boot_us())?;
        self.deliver(&acknowledged);
        if let Some(witnesses) = self.witnesses.take() {
            self.append_all(witnesses.finish(LAST_ANSWER))?;
            let acknowledged = self.writer.commit()?;
            self.deliver(&acknowledged);
        }
        Ok(self.finished(payload))
    }

    fn trail_end(&self, reason: EndReason, reconciliation: Vec<Reconciliation>) -> TrailEnd {
        let counts = self.writer.counts();
        TrailEnd {
            events: counts.events(),
            reason,
            reconciliation,
            verdicts: counts.verdicts(),
        }
    }

    fn finished(mut self, end: TrailEnd) -> Finished {
        Finished {
            end,
            head: self.writer.head(),
            path: self.writer.path().to_owned(),
            outputs: match &mut self.sinks {
                Sinks::Own(sinks) => sinks.finish(),
                Sinks::Shared(_) => Vec::new(),
            },
        }
    }
}
