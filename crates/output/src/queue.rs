//! A sink with a thread and a bounded queue, which its caller never waits for.

use crate::Target;
use crate::carrier::{Carrier, Trouble};
use crate::sink::{Form, Record, Sink, SinkError};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Pause before a sink that cannot be reached is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

pub(crate) struct Queued {
    form: Form,
    limit: usize,
    patience: Duration,
    shared: Arc<Shared>,
    target: Target,
}

struct Shared {
    /// Tells the thread: a line, or the end.
    work: Condvar,
    /// Tells `finish`: nothing is left, or nothing will move any more.
    idle: Condvar,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    /// Bytes in `lines`.
    bytes: usize,
    /// Lines that the thread holds.
    in_flight: usize,
    dropped: u64,
    /// No more lines come.
    closing: bool,
    /// Nobody waits any more: what is left is counted already.
    abandoned: bool,
    failed: Option<Trouble>,
    unreachable: Option<io::Error>,
}

impl Queued {
    pub(crate) fn start(
        target: &Target,
        carrier: Box<dyn Carrier>,
        form: Form,
        limit: usize,
        patience: Duration,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            work: Condvar::new(),
            idle: Condvar::new(),
            state: Mutex::default(),
        });
        let worker = Worker {
            carrier,
            shared: Arc::clone(&shared),
        };
        // Not joined: a thread that hangs in a write must not keep anybody.
        std::thread::Builder::new()
            .name("sink".to_owned())
            .spawn(move || worker.run())?;
        Ok(Self {
            form,
            limit,
            patience,
            shared,
            target: target.clone(),
        })
    }

    /// The error of a sink that failed; the first caller gets the cause.
    fn check(&self, state: &mut State) -> Result<(), SinkError> {
        let Some(trouble) = &mut state.failed else {
            return Ok(());
        };
        let told = match trouble {
            Trouble::ReaderGone => Trouble::ReaderGone,
            Trouble::Fatal(error) | Trouble::Transient(error) => {
                let kind = error.kind();
                Trouble::Fatal(std::mem::replace(error, kind.into()))
            }
        };
        Err(SinkError::from_trouble(&self.target, told))
    }
}

impl Sink for Queued {
    fn write(&mut self, record: &Record<'_>) -> Result<(), SinkError> {
        let mut line = Vec::new();
        self.form.render(record, &mut line);
        let mut state = self.shared.lock();
        self.check(&mut state)?;
        if state.bytes.saturating_add(line.len()) > self.limit {
            state.dropped += 1;
            return Ok(());
        }
        state.bytes += line.len();
        state.lines.push_back(line);
        self.shared.work.notify_one();
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.check(&mut self.shared.lock())
    }

    fn take_warning(&mut self) -> Option<SinkError> {
        let source = self.shared.lock().unreachable.take()?;
        Some(SinkError::Unreachable {
            target: self.target.clone(),
            source,
        })
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        let mut state = self.shared.lock();
        state.closing = true;
        self.shared.work.notify_one();
        let (mut state, _) = self
            .shared
            .idle
            .wait_timeout_while(state, self.patience, |state| state.is_busy())
            .unwrap_or_else(PoisonError::into_inner);
        state.abandon();
        self.shared.work.notify_one();
        self.check(&mut state)
    }

    fn dropped(&self) -> u64 {
        self.shared.lock().dropped
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.shared.lock().abandon();
        self.shared.work.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is complete when its guard is dropped.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_busy(&self) -> bool {
        self.failed.is_none() && (self.in_flight > 0 || !self.lines.is_empty())
    }

    /// Counts what is left as dropped, once.
    fn abandon(&mut self) {
        if !self.abandoned {
            self.dropped += count(self.lines.len().saturating_add(self.in_flight));
        }
        self.lines.clear();
        self.bytes = 0;
        self.in_flight = 0;
        self.closing = true;
        self.abandoned = true;
    }

    fn take_batch(&mut self, most: usize) -> Vec<Vec<u8>> {
        let n = self.lines.len().min(most);
        let batch: Vec<_> = self.lines.drain(..n).collect();
        self.bytes -= batch.iter().map(Vec::len).sum::<usize>();
        self.in_flight = n;
        batch
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// The thread's side.
struct Worker {
    carrier: Box<dyn Carrier>,
    shared: Arc<Shared>,
}

impl Worker {
    fn run(mut self) {
        while let Some(batch) = self.next_batch() {
            match self.deliver(&batch) {
                Ok(()) => {}
                Err(None) => return,
                Err(Some(trouble)) => return self.give_up(trouble),
            }
        }
    }

    /// The next lines, or `None` at the end.
    fn next_batch(&self) -> Option<Vec<Vec<u8>>> {
        let state = self.shared.lock();
        let mut state = self
            .shared
            .work
            .wait_while(state, |state| state.lines.is_empty() && !state.closing)
            .unwrap_or_else(PoisonError::into_inner);
        (!state.lines.is_empty()).then(|| state.take_batch(self.carrier.batch()))
    }

    /// `Err(None)`: nobody waits any more.
    fn deliver(&mut self, batch: &[Vec<u8>]) -> Result<(), Option<Trouble>> {
        for line in batch {
            self.deliver_line(line)?;
        }
        self.carrier.flush()?;
        let mut state = self.shared.lock();
        if state.abandoned {
            return Err(None);
        }
        state.in_flight = 0;
        self.shared.idle.notify_all();
        Ok(())
    }

    fn deliver_line(&mut self, line: &[u8]) -> Result<(), Option<Trouble>> {
        loop {
            match self.carrier.send(line) {
                Ok(()) => return Ok(()),
                Err(Trouble::Transient(error)) => self.pause(error)?,
                Err(trouble) => return Err(Some(trouble)),
            }
        }
    }

    /// Waits before the next try.
    fn pause(&self, error: io::Error) -> Result<(), Option<Trouble>> {
        let mut state = self.shared.lock();
        state.unreachable.get_or_insert(error);
        let (state, _) = self
            .shared
            .work
            .wait_timeout_while(state, RETRY_AFTER, |state| !state.abandoned)
            .unwrap_or_else(PoisonError::into_inner);
        if state.abandoned { Err(None) } else { Ok(()) }
    }

    fn give_up(&self, trouble: Trouble) {
        let mut state = self.shared.lock();
        let wanted = !matches!(trouble, Trouble::ReaderGone);
        if wanted && !state.abandoned {
            state.dropped += count(state.lines.len().saturating_add(state.in_flight));
        }
        state.lines.clear();
        state.bytes = 0;
        state.in_flight = 0;
        state.failed = Some(trouble);
        self.shared.idle.notify_all();
    }
}
