//! The thread that scans one disk: on an interval, and once more at the end.

use super::judge::Judge;
use super::moment::now;
use super::pause::{Held, Pause};
use sandtrace_capture::Observer as _;
use sandtrace_capture::filesystem::{FsCollector, FsConfig, FsError, Source, Wakeups};
use sandtrace_event::{
    CaptureGap, Count, EvidenceTier, GapCause, GapUnit, Layer, Observation, QuiesceMethod,
    Timestamp,
};
use std::error::Error as _;
use std::io::PipeWriter;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A source of file changes, and what its facts are worth.
pub(crate) struct FileSource {
    pub(crate) source: Source,
    pub(crate) config: FsConfig,
    /// Name in gap records.
    pub(crate) name: String,
    pub(crate) tier: EvidenceTier,
    pub(crate) pause: Pause,
}

/// A disk whose baseline nobody has taken yet.
pub(crate) struct NewDisk {
    source: FileSource,
    judge: Judge,
    since: Timestamp,
}

impl NewDisk {
    pub(crate) fn new(source: FileSource, judge: Judge) -> Self {
        let since = now();
        Self {
            source,
            judge,
            since,
        }
    }

    /// Whether its baseline may take long, for all that is there to be read.
    pub(crate) fn is_large(&self) -> bool {
        self.source.source.allocated() >= LARGE
    }

    /// Takes the baseline.
    pub(crate) fn attach(self) -> DiskWatch {
        DiskWatch::attach(self.source, self.judge)
    }

    /// It never will be taken: whatever was written is not seen.
    pub(crate) fn report_unseen(self) {
        let mut judge = self.judge;
        let detail = "the watch of the sandbox ended before the state of its disk was taken that \
                      changes are told from; none of them is recorded";
        let gap = Gap {
            cause: GapCause::DiskUnreadable,
            detail: detail.to_owned(),
            first: self.since,
            name: &self.source.name,
            tier: self.source.tier,
        };
        gap.observe(&mut judge);
    }
}

/// What is read in about half a second.
const LARGE: u64 = 512 << 20;

/// What was not seen of one disk, up to now.
struct Gap<'a> {
    cause: GapCause,
    detail: String,
    first: Timestamp,
    name: &'a str,
    tier: EvidenceTier,
}

impl Gap<'_> {
    fn observe(self, judge: &mut Judge) {
        let at = now();
        let gap = CaptureGap {
            cause: self.cause,
            count: Count(1),
            detail: self.detail,
            first_at: self.first.wall,
            last_at: at.wall,
            layer: Layer::Filesystem,
            source: self.name.to_owned(),
            unit: GapUnit::Scans,
        };
        judge.observe(Observation {
            at,
            payload: gap.into(),
            tier: self.tier,
        });
    }
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
            let mut disk = DiskWatch::attach(source, judge);
            drop(taken);
            disk.run(interval, &commands);
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

/// One disk under watch, whoever's turn it is to scan it.
pub(crate) struct DiskWatch {
    judge: Judge,
    tier: EvidenceTier,
    pause: Pause,
    name: String,
    /// Since when something can have been missed.
    began: Timestamp,
    /// `None`: the disk cannot be read, which was reported.
    collector: Option<FsCollector>,
    /// What brings a scan forward, where the kernel tells.
    wakeups: Option<Wakeups>,
    /// Nobody was told yet that they may come of some directories only.
    is_whole: bool,
    /// Why it does not.
    pub(crate) unheard: Option<std::io::Error>,
}

/// How often events are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Events bring a scan no closer than this to the one before.
pub(crate) const REST: Duration = Duration::from_millis(500);

impl DiskWatch {
    /// Takes the baseline.
    pub(crate) fn attach(source: FileSource, judge: Judge) -> Self {
        let began = now();
        // Listening first: nothing is written unheard after the baseline.
        let wakeups = Wakeups::of(&source.source);
        let attached = FsCollector::attach(source.source, source.config);
        let mut disk = Self {
            judge,
            tier: source.tier,
            pause: source.pause,
            name: source.name,
            began,
            collector: None,
            wakeups: None,
            is_whole: true,
            unheard: None,
        };
        match attached {
            Ok(collector) => {
                disk.collector = Some(collector);
                match wakeups {
                    Ok(wakeups) => disk.wakeups = Some(wakeups),
                    Err(why) => disk.unheard = Some(why),
                }
            }
            Err(error) => disk.report_unreadable(&error),
        }
        disk
    }

    fn run(&mut self, interval: Duration, commands: &Receiver<QuiesceMethod>) {
        while self.collector.is_some() {
            let (quiesce, last) = match self.wait(interval, commands) {
                Ok(quiesce) => (quiesce, true),
                Err(RecvTimeoutError::Timeout) => (QuiesceMethod::Live, false),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.scan(quiesce);
            if last {
                return;
            }
        }
    }

    /// Waits for the order to scan a last time, until the interval is over or
    /// an event says that something was written.
    fn wait(
        &mut self,
        interval: Duration,
        commands: &Receiver<QuiesceMethod>,
    ) -> Result<QuiesceMethod, RecvTimeoutError> {
        let begun = Instant::now();
        loop {
            let left = interval.saturating_sub(begun.elapsed());
            let step = match self.wakeups {
                Some(_) => left.min(LOOK),
                None => left,
            };
            match commands.recv_timeout(step) {
                Err(RecvTimeoutError::Timeout) => {}
                other => return other,
            }
            let is_rested = begun.elapsed() >= REST.min(interval);
            if left <= step || is_rested && self.was_woken() {
                return Err(RecvTimeoutError::Timeout);
            }
        }
    }

    /// Readable when something was written, where the kernel tells.
    pub(crate) fn wakeups(&self) -> Option<BorrowedFd<'_>> {
        self.wakeups.as_ref().map(|wakeups| wakeups.as_fd())
    }

    /// Takes the events there are.
    fn was_woken(&mut self) -> bool {
        let wake = self.wakeups.as_mut().map(Wakeups::take);
        let wake = wake.unwrap_or_default();
        if wake.overflowed {
            let detail = "the kernel's queue of events was full; everything is scanned";
            self.report(GapCause::EventsLost, detail.to_owned());
        }
        let is_partial = self.wakeups.as_ref().is_some_and(Wakeups::is_partial);
        if is_partial && std::mem::take(&mut self.is_whole) {
            let detail = "there are more directories than the kernel's events are asked for; what \
                          is written in the others is told when the interval of scans is over";
            self.report(GapCause::EventsLost, detail.to_owned());
        }
        wake.changed || wake.overflowed
    }

    /// Reports what changed since the last scan.
    pub(crate) fn scan(&mut self, quiesce: QuiesceMethod) {
        // What the events told of is seen by this scan, the last one too.
        self.was_woken();
        let Some(collector) = &mut self.collector else {
            return;
        };
        let judge = &mut self.judge;
        let paused = match quiesce {
            QuiesceMethod::Live => self.pause.holds(),
            _ => None,
        };
        let mut held = Held::new(paused);
        let at = now();
        let mut sink = |observation| held.add(observation, judge);
        let scanned = collector.scan(at, quiesce, &mut sink);
        held.end(|| self.pause.holds(), judge);
        match scanned {
            Ok(_) => self.began = at,
            Err(error) => self.report_unreadable(&error),
        }
    }

    fn report_unreadable(&mut self, error: &FsError) {
        let cause = error.source();
        let detail = cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
        self.report(GapCause::DiskUnreadable, detail);
    }

    fn report(&mut self, cause: GapCause, detail: String) {
        let gap = Gap {
            cause,
            detail,
            first: self.began,
            name: &self.name,
            tier: self.tier,
        };
        gap.observe(&mut self.judge);
    }
}
