//! One stream of events to many sinks.

use crate::{Config, Filter, Record, Sink, SinkError, Target, open};

/// Gives each event that the filter admits to every sink.
///
/// A sink that fails is left alone from then on and counts what it misses;
/// the others go on.
#[derive(Default)]
pub struct Fanout {
    filter: Filter,
    outlets: Vec<Outlet>,
    problems: Vec<SinkError>,
}

struct Outlet {
    name: String,
    sink: Box<dyn Sink>,
    health: Health,
    missed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Health {
    Good,
    Failed,
    ReaderGone,
}

/// Whether there is still somebody to write for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A sink takes events, or there never was one.
    Open,
    /// No sink takes events any more, because the reader of standard output
    /// has what it wanted: end quietly.
    ReaderGone,
    /// No sink takes events any more, and one of them failed.
    Failed,
}

/// What became of one sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The sink.
    pub name: String,
    /// Events that it was given and did not deliver.
    pub dropped: u64,
}

impl Fanout {
    /// A fanout without sinks.
    #[must_use]
    pub fn new(filter: Filter) -> Self {
        Self {
            filter,
            ..Self::default()
        }
    }

    /// Opens a sink and adds it.
    ///
    /// # Errors
    /// When the target cannot be opened.
    pub fn open(&mut self, target: &Target, config: Config) -> Result<(), SinkError> {
        self.push(target.to_string(), open(target, config)?);
        Ok(())
    }

    /// Adds a sink under the name that its reports bear.
    pub fn push(&mut self, name: String, sink: Box<dyn Sink>) {
        self.outlets.push(Outlet {
            name,
            sink,
            health: Health::Good,
            missed: 0,
        });
    }

    /// Gives one event to every sink, if the filter admits it. Errors wait
    /// in [`Fanout::take_problems`].
    pub fn write(&mut self, record: &Record<'_>) -> State {
        if self.outlets.is_empty() || !self.filter.admits(record.event) {
            return self.state();
        }
        for outlet in &mut self.outlets {
            outlet.write(record, &mut self.problems);
        }
        self.state()
    }

    /// Hands on what the sinks took so far.
    pub fn flush(&mut self) -> State {
        self.each(|sink| sink.flush())
    }

    /// Takes no more events and gives every sink its bounded time to deliver
    /// what is queued.
    pub fn finish(&mut self) -> Vec<Report> {
        self.each(|sink| sink.finish());
        self.outlets.iter().map(Outlet::report).collect()
    }

    /// Whether there is still somebody to write for.
    #[must_use]
    pub fn state(&self) -> State {
        let any = |health| self.outlets.iter().any(|outlet| outlet.health == health);
        if self.outlets.is_empty() || any(Health::Good) {
            State::Open
        } else if any(Health::Failed) {
            State::Failed
        } else {
            State::ReaderGone
        }
    }

    /// How many deliveries failed so far, over all sinks.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        let dropped = self.outlets.iter().map(|outlet| outlet.report().dropped);
        dropped.fold(0, u64::saturating_add)
    }

    /// What went wrong since the last call: a few errors, each told once.
    pub fn take_problems(&mut self) -> Vec<SinkError> {
        let warnings = self
            .outlets
            .iter_mut()
            .filter_map(|outlet| outlet.sink.take_warning());
        self.problems.extend(warnings);
        std::mem::take(&mut self.problems)
    }

    fn each(&mut self, act: impl Fn(&mut dyn Sink) -> Result<(), SinkError>) -> State {
        for outlet in &mut self.outlets {
            if outlet.health == Health::Good
                && let Err(error) = act(outlet.sink.as_mut())
            {
                outlet.fail(error, &mut self.problems);
            }
        }
        self.state()
    }
}

impl Outlet {
    fn write(&mut self, record: &Record<'_>, problems: &mut Vec<SinkError>) {
        match self.health {
            Health::ReaderGone => {}
            Health::Failed => self.missed += 1,
            Health::Good => {
                let before = self.sink.dropped();
                let Err(error) = self.sink.write(record) else {
                    return;
                };
                self.fail(error, problems);
                // Some sinks count the event that made them fail, some do not.
                if self.health == Health::Failed && self.sink.dropped() == before {
                    self.missed += 1;
                }
            }
        }
    }

    fn fail(&mut self, error: SinkError, problems: &mut Vec<SinkError>) {
        if matches!(error, SinkError::ReaderGone) {
            self.health = Health::ReaderGone;
        } else {
            self.health = Health::Failed;
            problems.push(error);
        }
    }

    fn report(&self) -> Report {
        let unwanted = self.health == Health::ReaderGone;
        let dropped = self.sink.dropped().saturating_add(self.missed);
        Report {
            name: self.name.clone(),
            dropped: if unwanted { 0 } else { dropped },
        }
    }
}
