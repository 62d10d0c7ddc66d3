//! `sandtrace stream`: the events of a trail, filtered and forwarded.
//!
//! It shows what the file says and proves nothing; `verify` proves.

use crate::args::StreamArgs;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::show;
use anyhow::Context as _;
use sandtrace_audit_chain::{Line, ReadError, TrailReader};
use sandtrace_event::Payload;
use sandtrace_output::{Fanout, Record, SinkError, State, WhenBusy};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// How often a growing trail is looked at again.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(50);

/// Lines that are no records and are told one by one; more are counted.
const TOLD: u64 = 3;

pub(crate) fn run(args: &StreamArgs) -> Result<Exit, Failure> {
    let file = File::open(&args.trail)
        .with_context(|| format!("open trail {}", args.trail.display()))
        .or_exit(Exit::Malformed)?;
    let mut streamer = Streamer {
        sinks: show::sinks(&args.show, WhenBusy::Wait)?,
        exit: Exit::Success,
        no_records: 0,
        is_signed: false,
        has_ended: false,
    };
    let mut reader = TrailReader::new(file);
    loop {
        let line = reader
            .next_line()
            .with_context(|| format!("read trail {}", args.trail.display()))
            .or_exit(Exit::Malformed)?;
        match line {
            Some(line) => {
                let last = streamer.forward(&line);
                if streamer.sinks.state() != State::Open || (last && args.follow) {
                    break;
                }
            }
            None if args.follow => {
                streamer.sinks.flush();
                std::thread::sleep(FOLLOW_INTERVAL);
            }
            None => {
                streamer.leave_out(&args.trail, &reader);
                break;
            }
        }
    }
    streamer.finish()
}

struct Streamer {
    sinks: Fanout,
    exit: Exit,
    /// Lines that are no records.
    no_records: u64,
    /// The trail's first record names a key: a checkpoint seals it.
    is_signed: bool,
    has_ended: bool,
}

impl Streamer {
    /// Sends one line on; says whether it is the trail's last.
    fn forward(&mut self, line: &Line<'_>) -> bool {
        match line.event() {
            Ok(event) => {
                let mut bytes = line.bytes.to_vec();
                bytes.push(b'\n');
                self.sinks.write(&Record {
                    event: &event,
                    line: &bytes,
                });
                self.is_last(&event.payload)
            }
            Err(error) => {
                self.report(&error);
                false
            }
        }
    }

    /// Cosignatures may come later; nobody knows how many.
    fn is_last(&mut self, payload: &Payload) -> bool {
        match payload {
            Payload::TrailStart(start) => self.is_signed = start.key.is_some(),
            Payload::TrailEnd(_) => self.has_ended = true,
            Payload::Checkpoint(_) => return self.has_ended,
            _ => {}
        }
        self.has_ended && !self.is_signed
    }

    /// A line that is no record: the ones after it can still be read.
    fn report(&mut self, error: &ReadError) {
        self.exit = Exit::Malformed;
        self.no_records += 1;
        if self.no_records <= TOLD {
            show::tell(&format!("sandtrace: {error}"));
        }
    }

    /// Bytes after the last line feed are no line yet.
    fn leave_out(&mut self, trail: &Path, reader: &TrailReader<File>) {
        if reader.partial_bytes() == 0 {
            return;
        }
        show::tell(&format!(
            "sandtrace: {}: {} bytes of an unfinished line at byte {} were left out",
            trail.display(),
            reader.partial_bytes(),
            reader.byte_offset()
        ));
        if self.exit == Exit::Success {
            self.exit = Exit::Incomplete;
        }
    }

    fn finish(mut self) -> Result<Exit, Failure> {
        if let more @ 1.. = self.no_records.saturating_sub(TOLD) {
            show::tell(&format!("sandtrace: {more} more lines are not records"));
        }
        let reports = self.sinks.finish();
        let problems = self.sinks.take_problems();
        for problem in &problems {
            show::tell(&format!("sandtrace: {problem}"));
        }
        let overcome = |problem: &SinkError| matches!(problem, SinkError::Unreachable { .. });
        if reports.iter().any(|report| report.dropped > 0) || !problems.iter().all(overcome) {
            return Ok(Exit::Io);
        }
        Ok(self.exit)
    }
}
