//! The thread that scans one disk: on an interval, and once more at the end.

use super::judge::Judge;
use super::session::now;
use sandtrace_capture::Observer as _;
use sandtrace_capture::filesystem::{FsCollector, FsConfig, FsError, Source};
use sandtrace_event::{
    CaptureGap, Count, EvidenceTier, GapCause, GapUnit, Layer, Observation, QuiesceMethod,
    Timestamp,
};
use std::error::Error as _;
use std::io::PipeWriter;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// A source of file changes, and what its facts are worth.
pub(crate) struct FileSource {
    pub(crate) source: Source,
    pub(crate) config: FsConfig,
    /// Name in gap records.
    pub(crate) name: String,
    pub(crate) tier: EvidenceTier,
}

/// Handle of a scanning thread.
pub(crate) struct FilesThread {
    last: Sender<QuiesceMethod>,
    thread: JoinHandle<()>,
}

impl FilesThread {
    /// Starts the thread; `taken` is closed when its baseline is taken (or could not be).
    pub(crate) fn start(
        source: FileSource,
        interval: Duration,
        judge: Judge,
        taken: PipeWriter,
    ) -> Self {
        let (last, commands) = channel();
        let thread = std::thread::spawn(move || {
            let began = now();
            let attached = FsCollector::attach(source.source, source.config);
            drop(taken);
            let mut scanner = Scanner {
                judge,
                tier: source.tier,
                name: source.name,
                began,
            };
            match attached {
                Ok(collector) => scanner.run(collector, interval, &commands),
                Err(error) => scanner.report_unreadable(&error),
            }
        });
        Self { last, thread }
    }

    /// Asks for the last scan; join the answer to wait for it.
    pub(crate) fn finish(self, quiesce: QuiesceMethod) -> JoinHandle<()> {
        // A thread that could not take its baseline is gone already.
        let _gone = self.last.send(quiesce);
        self.thread
    }
}

struct Scanner {
    judge: Judge,
    tier: EvidenceTier,
    name: String,
    /// Since when something can have been missed.
    began: Timestamp,
}

impl Scanner {
    fn run(
        &mut self,
        mut collector: FsCollector,
        interval: Duration,
        commands: &Receiver<QuiesceMethod>,
    ) {
        loop {
            let (quiesce, last) = match commands.recv_timeout(interval) {
                Ok(quiesce) => (quiesce, true),
                Err(RecvTimeoutError::Timeout) => (QuiesceMethod::Live, false),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let at = now();
            let judge = &mut self.judge;
            let mut sink = |observation| {
                judge.observe(observation);
            };
            match collector.scan(at, quiesce, &mut sink) {
                Ok(_) => self.began = at,
                Err(error) => self.report_unreadable(&error),
            }
            if last {
                return;
            }
        }
    }

    fn report_unreadable(&mut self, error: &FsError) {
        let at = now();
        let gap = CaptureGap {
            cause: GapCause::DiskUnreadable,
            count: Count(1),
            detail: error
                .source()
                .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")),
            first_at: self.began.wall,
            last_at: at.wall,
            layer: Layer::Filesystem,
            source: self.name.clone(),
            unit: GapUnit::Scans,
        };
        self.judge.observe(Observation {
            at,
            payload: gap.into(),
            tier: self.tier,
        });
    }
}
