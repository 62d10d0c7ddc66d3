//! A capture file in place of an interface: the same flows, the file's clock.

use super::convert::{Reporter, timestamp};
use super::file::{FileError, FrameReader};
use super::file_clock::FileClock;
use crate::Observer;
use sandtrace_event::{
    CaptureGap, Count, EvidenceTier, GapCause, GapUnit, Layer, Observation, Timestamp,
};
use sandtrace_wire::{Direction, FlowConfig, FlowTable, Moment, Orientation, Packet, Totals};
use std::io::Read;

/// What a replay is to make of a file.
#[derive(Clone, Debug)]
pub struct ReplayConfig {
    /// What records call the file.
    pub name: String,
    /// Flow table settings. Its sandbox addresses, where given, tell the
    /// directions of frames; else who sends first is the sandbox.
    pub flows: FlowConfig,
    /// How far the records are to be trusted.
    pub tier: EvidenceTier,
}

/// Feeds the frames of a file through a flow table.
pub struct Replay<R> {
    config: ReplayConfig,
    frames: FrameReader<R>,
    flows: FlowTable,
    orientation: Orientation,
    clock: FileClock,
}

/// Frames that are looked at before the replay: whoever gets an address uses it soon.
const AHEAD: u64 = 10_000;

/// Whether there is more to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is.
    More,
    /// The file is at its end.
    End,
}

/// The moment of a file's first frame; 1970 where it has none.
///
/// # Errors
/// When it is no capture, or one of an unknown kind.
pub fn first_moment(source: impl Read) -> Result<Timestamp, FileError> {
    // That the file ends within its first frame is for the replay to tell.
    let wall_ns = match FrameReader::new(source)?.next() {
        Ok(frame) => frame.map_or(0, |frame| frame.wall_ns),
        Err(_) => 0,
    };
    Ok(timestamp(FileClock::default().at(wall_ns)))
}

impl<R: Read> Replay<R> {
    /// Reads the file's header.
    ///
    /// # Errors
    /// When it is no capture, or one of an unknown kind.
    pub fn open(source: R, config: ReplayConfig) -> Result<Self, FileError> {
        Ok(Self {
            frames: FrameReader::new(source)?,
            flows: FlowTable::new(config.flows.clone()),
            orientation: Orientation::new(config.flows.sandbox_addresses.clone()),
            clock: FileClock::default(),
            config,
        })
    }

    /// Learns from the first frames of the same file from which MAC the sandbox sends,
    /// so that what it sent before it had its address is known for its own.
    pub fn look_ahead(&mut self, source: impl Read) {
        let Ok(mut frames) = FrameReader::new(source) else {
            return;
        };
        // That it cannot be read further is for the replay to tell.
        while frames.count() < AHEAD
            && let Ok(Some(frame)) = frames.next()
        {
            self.orientation.learn(&Packet {
                at: Moment::default(),
                direction: Direction::FromSandbox,
                bytes: frame.bytes,
                wire_len: frame.wire_len,
                vlan: None,
            });
        }
    }

    /// The latest moment in the file so far. Its monotonic part counts from
    /// the first frame and stands still where the file's time goes back.
    pub fn now(&self) -> Timestamp {
        timestamp(self.clock.now())
    }

    /// Frames read so far.
    pub fn frames(&self) -> u64 {
        self.frames.count()
    }

    /// Reads up to `count` frames.
    ///
    /// # Errors
    /// When the file ends within a frame or is damaged. What was read until
    /// then is good; [`finish`](Self::finish) remains to be called.
    pub fn read(
        &mut self,
        count: usize,
        observer: &mut dyn Observer,
    ) -> Result<Progress, FileError> {
        let tier = self.config.tier;
        let mut reporter = Reporter::unbounded(observer, tier, None);
        for _ in 0..count {
            let Some(frame) = self.frames.next()? else {
                return Ok(Progress::End);
            };
            let at = self.clock.at(frame.wall_ns);
            if self.flows.due_us().is_some_and(|due| due <= at.mono_us) {
                self.flows.tick(at, &mut reporter);
            }
            let packet = Packet {
                at,
                direction: frame.direction.unwrap_or(Direction::FromSandbox),
                bytes: frame.bytes,
                wire_len: frame.wire_len,
                vlan: None,
            };
            if frame.direction.is_some() {
                self.flows.packet(&packet, &mut reporter);
            } else {
                self.flows
                    .oriented(&packet, &mut self.orientation, &mut reporter);
            }
        }
        Ok(Progress::More)
    }

    /// Closes every flow, and records that the file could not be read to its
    /// end where that is so.
    pub fn finish(mut self, failed: Option<&FileError>, observer: &mut dyn Observer) -> Totals {
        let tier = self.config.tier;
        if let Some(error) = failed {
            let gap = (GapCause::FileDamaged, 1, GapUnit::Files);
            self.report_gap(gap, error.to_string(), observer);
        }
        let (unread, why) = self.frames.unread();
        if unread > 0 {
            let gap = (GapCause::FileDamaged, unread, GapUnit::Packets);
            self.report_gap(gap, format!("frames were passed over: {why}"), observer);
        }
        if let Some((steps, detail)) = self.clock.steps() {
            let gap = (GapCause::ClockStep, steps, GapUnit::Packets);
            self.report_gap(gap, detail, observer);
        }
        let drops = self.frames.drops();
        if drops > 0 {
            let gap = (GapCause::FileDrops, drops, GapUnit::Packets);
            let detail = "whoever wrote the file dropped frames, as its statistics say";
            self.report_gap(gap, detail.to_owned(), observer);
        }
        let now = self.clock.now();
        self.flows
            .finish(now, &mut Reporter::unbounded(observer, tier, None));
        self.flows.totals()
    }

    fn report_gap(
        &self,
        (cause, count, unit): (GapCause, u64, GapUnit),
        detail: String,
        observer: &mut dyn Observer,
    ) {
        let at = self.now();
        let gap = CaptureGap {
            cause,
            count: Count(count),
            detail,
            first_at: at.wall,
            last_at: at.wall,
            layer: Layer::Network,
            source: self.config.name.clone(),
            unit,
        };
        observer.observe(Observation {
            at,
            payload: gap.into(),
            tier: self.config.tier,
        });
    }
}
