//! One sandbox, watched: collectors, policy and trail tied together.

use super::files::FilesThread;
use super::judge::Judge;
use super::law::Law;
use super::moment::{control, now};
use super::outlet::Outlet;
use super::settings::Settings;
use super::start;
use super::syscalls::{Chosen, SyscallsThread};
use super::trail::{Appender, End, Entry, Finished, Sinks, TrailThread};
use crate::exit::{Exit, Failure, OrExit as _};
use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sandtrace_capture::Observer as _;
use sandtrace_capture::network::{Attached, NetworkCollector};
use sandtrace_event::{DetachReason, EndReason, QuiesceMethod, Reconciliation, SandboxDetached};
use sandtrace_output::Fanout;
use sandtrace_sys::clock;
use sandtrace_sys::priority::prefer_this_thread;
use sandtrace_sys::process::Pidfd;
use std::io::{PipeReader, pipe};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

/// How long to wait for the VMM's end after its interface vanished: one causes the other.
const EXIT_GRACE: Duration = Duration::from_millis(500);

/// A session that captures from here on; nothing is lost while it is not run yet.
pub(crate) struct Session {
    network: Vec<NetworkCollector>,
    files: Vec<FilesThread>,
    syscalls: Option<SyscallsThread>,
    /// Becomes readable when every baseline is taken: all writers are gone.
    baselines: PipeReader,
    law: Arc<Law>,
    judge: Judge,
    trail: TrailThread,
    /// Becomes readable when the trail's thread ended.
    trail_ended: PipeReader,
    vmm: Option<Pidfd>,
    deadline_us: Option<u64>,
}

/// What woke the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wake {
    Frames,
    Ready,
    Stop(Stop),
}

/// Why a session stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Interrupted,
    Duration,
    VmmExited,
    InterfaceGone,
    TrailFailed,
}

impl Session {
    /// Creates the trail, opens the rings and begins to take the baselines.
    pub(crate) fn start(settings: &Settings, sinks: Fanout) -> Result<Self, Failure> {
        let vmm = match &settings.target.vmm {
            Some(vmm) => Some(
                Pidfd::open(vmm.pid, vmm.start_ticks.0)
                    .with_context(|| format!("hold on to process {}", vmm.pid))
                    .or_exit(Exit::Unavailable)?,
            ),
            None => None,
        };
        let network = start::attach_networks(settings)?;
        let syscalls = Chosen::attach(settings)?;
        let (trail_ended, failed) = pipe().or_exit(Exit::Internal)?;
        let opened = settings.trail_plan().open()?;
        let opening = opened.opening;
        let witnesses = settings.signing.witnesses.as_deref();
        let appender = Appender::new(opened.writer, Sinks::Own(sinks)).cosigned(witnesses);
        let trail = TrailThread::over(appender, failed);
        let law = settings.law();
        let judge = |_: ()| Judge::new(&law, trail.queue.clone());
        let mut first = judge(());
        let started = now();
        let mut start = start::trail_start(settings, &network);
        syscalls.declare(&mut start);
        let is_first = opening.is_first();
        first.observe(control(started, opening.record(start)));
        let mut target = settings.target.clone();
        target.passed_before = start::passed_before(&network);
        first.observe(control(started, target.attached().into()));
        start::report_passed(&network, is_first, &mut first);
        start::report_left_open(settings, is_first, &mut first);
        let syscalls = syscalls.start(settings, judge(()));
        let (baselines, taken) = pipe().or_exit(Exit::Internal)?;
        let files = start::file_sources(settings)
            .into_iter()
            .map(|source| {
                let taken = taken.try_clone().or_exit(Exit::Internal)?;
                Ok(FilesThread::start(
                    source,
                    settings.scan_interval,
                    judge(()),
                    taken,
                ))
            })
            .collect::<Result<_, Failure>>()?;
        let deadline_us = settings.duration.map(|duration| {
            let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
            started.mono_us.saturating_add(micros)
        });
        Ok(Self {
            network,
            files,
            syscalls,
            baselines,
            law,
            judge: first,
            trail,
            trail_ended,
            vmm,
            deadline_us,
        })
    }

    /// What it is judged by, and where a change of that is recorded.
    pub(crate) fn law(&self) -> (Arc<Law>, Outlet) {
        (Arc::clone(&self.law), self.trail.queue.clone())
    }

    /// Watches until the sandbox ends, the time is over, or `stop` becomes
    /// readable. `ready` is called once, when every baseline is taken.
    pub(crate) fn run(
        mut self,
        stop: BorrowedFd<'_>,
        ready: impl FnOnce(),
    ) -> Result<Finished, Failure> {
        // Without the right to it packets are read all the same.
        let _not_permitted = prefer_this_thread();
        let mut ready = Some(ready);
        let reason = loop {
            let next_us = match self.tick() {
                Ok(next_us) => next_us,
                Err(stop) => break stop,
            };
            match self
                .wait(stop, next_us, ready.is_some())
                .or_exit(Exit::Internal)?
            {
                Some(Wake::Stop(stop)) => break stop,
                Some(Wake::Ready) => {
                    if let Some(ready) = ready.take() {
                        ready();
                    }
                }
                Some(Wake::Frames) | None => {}
            }
            for network in &mut self.network {
                network.read(&mut self.judge);
            }
        };
        self.finish(reason)
    }

    /// Does what is due; answers when the next thing is.
    fn tick(&mut self) -> Result<u64, Stop> {
        let now_us = clock::boot_us();
        let mut next_us = now_us.saturating_add(1_000_000);
        for network in &mut self.network {
            let (due, attached) = network.tick(&mut self.judge);
            next_us = next_us.min(due);
            if attached == Attached::Gone {
                return Err(self.why_gone());
            }
        }
        match self.deadline_us {
            Some(deadline) if deadline <= now_us => Err(Stop::Duration),
            Some(deadline) => Ok(next_us.min(deadline)),
            None => Ok(next_us),
        }
    }

    /// Sleeps until frames, a signal, an exit or `next_us`.
    fn wait(
        &mut self,
        stop: BorrowedFd<'_>,
        next_us: u64,
        unready: bool,
    ) -> rustix::io::Result<Option<Wake>> {
        let timeout = Duration::from_micros(next_us.saturating_sub(clock::boot_us()));
        let timeout = Timespec::try_from(timeout).unwrap_or_default();
        let mut waits = vec![
            (stop, Wake::Stop(Stop::Interrupted)),
            (self.trail_ended.as_fd(), Wake::Stop(Stop::TrailFailed)),
        ];
        waits.extend(
            self.vmm
                .iter()
                .map(|vmm| (vmm.as_fd(), Wake::Stop(Stop::VmmExited))),
        );
        waits.extend(unready.then_some((self.baselines.as_fd(), Wake::Ready)));
        let networks = self.network.iter();
        waits.extend(
            networks
                .flat_map(NetworkCollector::descriptors)
                .map(|fd| (fd, Wake::Frames)),
        );
        let mut fds: Vec<_> = waits
            .iter()
            .map(|(fd, _)| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
            .collect();
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let woken = fds
            .iter()
            .zip(&waits)
            .find(|(fd, _)| !fd.revents().is_empty());
        let wake = woken.map(|(_, (_, wake))| *wake);
        let interface_down = fds
            .iter()
            .zip(&waits)
            .any(|(fd, (_, wake))| *wake == Wake::Frames && fd.revents().contains(PollFlags::ERR));
        if interface_down && wake == Some(Wake::Frames) {
            return Ok(Some(self.interface_down()));
        }
        Ok(wake)
    }

    /// A descriptor is in error: the interface is gone, or only set down.
    fn interface_down(&mut self) -> Wake {
        let gone = self
            .network
            .iter_mut()
            .any(|n| n.look_at_interface() == Attached::Gone);
        if gone {
            return Wake::Stop(self.why_gone());
        }
        Wake::Frames
    }

    /// An interface is gone: because its VMM ended, or for another reason.
    fn why_gone(&self) -> Stop {
        let grace = Timespec::try_from(EXIT_GRACE).unwrap_or_default();
        let exited = self.vmm.as_ref().is_some_and(|vmm| {
            let mut fds = [PollFd::new(vmm, PollFlags::IN)];
            poll(&mut fds, Some(&grace)).is_ok_and(|ready| ready > 0)
        });
        if exited {
            Stop::VmmExited
        } else {
            Stop::InterfaceGone
        }
    }

    /// Last frames, last scan, last records.
    fn finish(mut self, stop: Stop) -> Result<Finished, Failure> {
        if stop != Stop::TrailFailed {
            let quiesce = match stop {
                Stop::VmmExited => QuiesceMethod::Detached,
                _ => QuiesceMethod::Live,
            };
            if let Some(syscalls) = self.syscalls.take() {
                syscalls.finish();
            }
            let files = std::mem::take(&mut self.files);
            let scans: Vec<_> = files
                .into_iter()
                .map(|files| files.finish(quiesce))
                .collect();
            let networks = std::mem::take(&mut self.network);
            let reconciliation: Vec<Reconciliation> = networks
                .into_iter()
                .filter_map(|n| n.finish(&mut self.judge))
                .collect();
            for scan in scans {
                // A scan that panicked is a bug of ours; the trail must still end.
                let _panicked = scan.join();
            }
            self.end(stop, reconciliation);
        }
        drop(self.judge);
        match self.trail.join() {
            Some(result) => result.or_exit(Exit::Io),
            None => Err(Failure::new(Exit::Internal, "the trail's thread panicked")),
        }
    }

    fn end(&mut self, stop: Stop, reconciliation: Vec<Reconciliation>) {
        let at = now();
        let (detach, reason) = match stop {
            Stop::VmmExited => (DetachReason::VmmExited, EndReason::SandboxEnded),
            Stop::InterfaceGone => (DetachReason::InterfaceGone, EndReason::CaptureFailed),
            Stop::Duration => (DetachReason::Duration, EndReason::Duration),
            Stop::Interrupted | Stop::TrailFailed => {
                (DetachReason::Interrupted, EndReason::Interrupted)
            }
        };
        self.judge
            .observe(control(at, SandboxDetached { reason: detach }.into()));
        // A trail that can take no more tells so when it is joined.
        let _trail_failed = self.judge.queue.send(Entry::End(End {
            at,
            reason,
            reconciliation,
        }));
    }
}
