//! One place that takes events.

use crate::Target;
use crate::carrier::{Carrier, Trouble};
use crate::queue::Queued;
use crate::terminal::{self, Look};
use sandtrace_event::AuditEvent;
use std::io;
use std::time::Duration;

/// One event of a trail.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The event.
    pub event: &'a AuditEvent,
    /// Its line, byte for byte as the trail has it; with or without the final LF.
    pub line: &'a [u8],
}

/// A place that takes events.
pub trait Sink: Send {
    /// Takes one event. A sink that was opened with [`WhenBusy::Drop`] never
    /// waits here: it queues the line, or drops and counts it.
    ///
    /// # Errors
    /// When the sink can take no more events at all, now or later.
    fn write(&mut self, record: &Record<'_>) -> Result<(), SinkError>;

    /// Hands on what was taken so far; a queue does so by itself and does
    /// not wait.
    ///
    /// # Errors
    /// As for [`Sink::write`].
    fn flush(&mut self) -> Result<(), SinkError>;

    /// A trouble that the sink means to overcome by itself, told once.
    fn take_warning(&mut self) -> Option<SinkError> {
        None
    }

    /// Takes no more events and waits, bounded, for those that are queued.
    /// What is still queued then counts as dropped.
    ///
    /// # Errors
    /// When the sink failed.
    fn finish(&mut self) -> Result<(), SinkError>;

    /// How many events it was given and did not deliver.
    fn dropped(&self) -> u64;
}

/// What went wrong with a sink.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// It cannot be used at all.
    #[error("open output {target}: {source}")]
    Open {
        /// The sink.
        target: Target,
        /// The cause.
        source: io::Error,
    },
    /// Events are never written into a file that may hold something else.
    #[error(
        "open output {target}: the file exists, and an output never writes into an existing file"
    )]
    Exists {
        /// The sink.
        target: Target,
    },
    /// It failed in use and takes no more.
    #[error("write to output {target}: {source}")]
    Write {
        /// The sink.
        target: Target,
        /// The cause.
        source: io::Error,
    },
    /// It cannot be reached for now; lines wait in its queue.
    #[error("output {target} cannot be reached and is tried again: {source}")]
    Unreachable {
        /// The sink.
        target: Target,
        /// The cause.
        source: io::Error,
    },
    /// Whoever read standard output has what it wanted. Not a failure: the
    /// program should end quietly.
    #[error("the reader of standard output is gone")]
    ReaderGone,
}

impl SinkError {
    pub(crate) fn from_trouble(target: &Target, trouble: Trouble) -> Self {
        match trouble {
            Trouble::Fatal(source) | Trouble::Transient(source) => Self::Write {
                target: target.clone(),
                source,
            },
            Trouble::ReaderGone => Self::ReaderGone,
        }
    }
}

/// What an event looks like in a sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// The trail's own line.
    #[default]
    Line,
    /// The trail's own line, safe on a terminal: what is not printable ASCII is
    /// escaped as JSON escapes it, which leaves every value as it is.
    AsciiLine,
    /// One readable line.
    Readable(Look),
}

/// What a sink does when it is given events faster than it can pass them on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenBusy {
    /// The caller waits: right for reading a finished trail.
    Wait,
    /// A thread delivers from a bounded queue, and what does not fit is
    /// dropped and counted: right beside a capture that must not stand still.
    Drop {
        /// Bytes that may be queued.
        queue_bytes: usize,
        /// How long [`Sink::finish`] waits for the queue.
        patience: Duration,
    },
}

impl WhenBusy {
    /// A queue of 8 MiB, and two seconds to empty it at the end.
    pub const DROP: Self = Self::Drop {
        queue_bytes: 8 << 20,
        patience: Duration::from_secs(2),
    };
}

/// How a sink behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// What an event looks like.
    pub form: Form,
    /// What to do when it is slow.
    pub when_busy: WhenBusy,
}

/// Opens a sink.
///
/// A file is created with mode 0600 and must not exist; an existing pipe or
/// device is written to as it is. A socket must be listening now, and is
/// connected to again if it goes away later.
///
/// # Errors
/// When the target cannot be opened.
pub fn open(target: &Target, config: Config) -> Result<Box<dyn Sink>, SinkError> {
    let carrier = crate::carrier::open(target)?;
    match config.when_busy {
        WhenBusy::Wait => Ok(Box::new(Direct {
            carrier,
            dropped: 0,
            form: config.form,
            line: Vec::new(),
            target: target.clone(),
        })),
        WhenBusy::Drop {
            queue_bytes,
            patience,
        } => Queued::start(target, carrier, config.form, queue_bytes, patience)
            .map(|sink| Box::new(sink) as Box<dyn Sink>)
            .map_err(|source| SinkError::Open {
                target: target.clone(),
                source,
            }),
    }
}

impl Form {
    /// Appends what a sink of this form writes for `record`, LF included.
    pub(crate) fn render(self, record: &Record<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Line => out.extend(without_feed(record.line)),
            Self::AsciiLine => {
                let line = String::from_utf8_lossy(without_feed(record.line));
                out.extend(terminal::ascii_json(&line).bytes());
            }
            Self::Readable(look) => out.extend(terminal::line(record.event, look).bytes()),
        }
        out.push(b'\n');
    }
}

fn without_feed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

/// A sink on the caller's own thread.
struct Direct {
    carrier: Box<dyn Carrier>,
    dropped: u64,
    form: Form,
    line: Vec<u8>,
    target: Target,
}

impl Direct {
    fn failed(&self, trouble: Trouble) -> SinkError {
        SinkError::from_trouble(&self.target, trouble)
    }
}

impl Sink for Direct {
    fn write(&mut self, record: &Record<'_>) -> Result<(), SinkError> {
        self.line.clear();
        self.form.render(record, &mut self.line);
        self.carrier.send(&self.line).map_err(|trouble| {
            self.dropped += 1;
            self.failed(trouble)
        })
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.carrier.flush().map_err(|trouble| self.failed(trouble))
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.flush()
    }

    fn dropped(&self) -> u64 {
        self.dropped
    }
}
