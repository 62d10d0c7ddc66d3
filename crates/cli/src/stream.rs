//! `sandtrace stream`: the events of a trail, filtered and forwarded.
//!
//! It shows what the file says and proves nothing; `verify` proves.

use crate::args::StreamArgs;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::show;
use anyhow::Context as _;
use sandtrace_audit_chain::{Line, ReadError, TrailReader};
use sandtrace_event::EventType;
use sandtrace_output::{Fanout, Record, State, WhenBusy};
use std::fs::File;
use std::time::Duration;

/// How often a growing trail is looked at again.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(50);

pub(crate) fn run(args: &StreamArgs) -> Result<Exit, Failure> {
    let file = File::open(&args.trail)
        .with_context(|| format!("open trail {}", args.trail.display()))
        .or_exit(Exit::Malformed)?;
    let mut streamer = Streamer {
        sinks: show::sinks(&args.show, WhenBusy::Wait)?,
        exit: Exit::Success,
    };
    let mut reader = TrailReader::new(file);
    loop {
        match reader.next_line().or_exit(Exit::Malformed)? {
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
            None => break,
        }
    }
    if !args.follow && reader.partial_bytes() > 0 {
        anstream::eprintln!(
            "sandtrace: {}: {} bytes of an unfinished line at byte {} were left out",
            args.trail.display(),
            reader.partial_bytes(),
            reader.byte_offset()
        );
        streamer.exit = Exit::Incomplete;
    }
    streamer.finish()
}

struct Streamer {
    sinks: Fanout,
    exit: Exit,
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
                event.event_type == EventType::TrailEnd
            }
            Err(error) => {
                self.report(&error);
                false
            }
        }
    }

    /// A line that is no record: the ones after it can still be read.
    fn report(&mut self, error: &ReadError) {
        anstream::eprintln!("sandtrace: {}", show::escaped(&error.to_string()));
        self.exit = Exit::Malformed;
    }

    fn finish(mut self) -> Result<Exit, Failure> {
        let reports = self.sinks.finish();
        for problem in self.sinks.take_problems() {
            anstream::eprintln!("sandtrace: {problem}");
        }
        if reports.iter().any(|report| report.dropped > 0) {
            return Ok(Exit::Io);
        }
        Ok(self.exit)
    }
}
