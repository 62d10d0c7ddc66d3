//! What the agent says it did, beside what Sandtrace saw of it.

use crate::exit::{Exit, Failure, OrExit as _};
use crate::show;
use crate::watch::trail::Finished;
use anstyle::{AnsiColor, Style};
use sandtrace_event::EventType;
use sandtrace_lab::{Report, Scenario, scenario};
use sandtrace_output::{Config, Fanout, Filter, Form, Target, WhenBusy, terminal};
use std::io::Write as _;
use std::path::{Path, PathBuf};

const HEADING: Style = Style::new().bold();
const AGENT: Style = AnsiColor::Cyan.on_default();

/// Tells the story on standard output.
pub(super) struct Narrator;

impl Narrator {
    /// Before a run: what is about to happen.
    pub(super) fn introduce(&self, scenario: Scenario) -> Result<(), Failure> {
        self.heading(scenario::title(scenario))?;
        say(&wrapped(scenario::story(scenario)))
    }

    /// A headline.
    pub(super) fn heading(&self, text: &str) -> Result<(), Failure> {
        say(&format!("\n{HEADING}{text}{HEADING:#}"))
    }

    /// The sandbox is there and stands still.
    pub(super) fn attached(&self, sandbox: &str) -> Result<(), Failure> {
        say(&format!("\nsandbox: {sandbox}"))?;
        say(&format!(
            "{AGENT}agent ▸{AGENT:#} what the agent says it does, inside; all other lines: what Sandtrace sees, outside\n"
        ))
    }

    /// The agent says that it did something.
    pub(super) fn step(&self, report: &Report) -> Result<(), Failure> {
        let detail = show::escaped(&report.detail);
        say(&format!("{AGENT}agent ▸ {detail}{AGENT:#}"))
    }

    /// Readable lines of what Sandtrace sees, while it happens.
    pub(super) fn sinks(&self) -> Result<Fanout, Failure> {
        let shown = [
            EventType::NetworkEgress,
            EventType::NetworkIngress,
            EventType::DnsQuery,
            EventType::FilesystemChange,
            EventType::CaptureGap,
        ];
        let mut fanout = Fanout::new(Filter {
            types: shown.to_vec(),
            ..Filter::default()
        });
        let form = Form::Readable(show::look());
        let config = Config {
            form,
            when_busy: WhenBusy::Wait,
        };
        fanout.open(&Target::Stdout, config).or_exit(Exit::Io)?;
        Ok(fanout)
    }

    /// After a run: what it came to.
    pub(super) fn sum_up(&self, finished: &Finished, trail: &Path) -> Result<(), Failure> {
        say(&format!("\n{}", terminal::summary(&finished.end)))?;
        let head = finished
            .head
            .map_or_else(String::new, |head| head.record_hash.to_string());
        say(&format!("trail     {}, head {head}", trail.display()))
    }

    /// Commands to try next.
    pub(super) fn suggest(&self, trails: &[PathBuf], policy: &Path) -> Result<(), Failure> {
        self.heading("Try next")?;
        for trail in trails {
            let trail = trail.display();
            say(&format!(
                "  sandtrace stream {trail} --filter-verdict deny,anomaly"
            ))?;
            say(&format!(
                "  sandtrace verify {trail} --against {}",
                policy.display()
            ))?;
            say(&format!(
                "  sed 's/anomaly/allow/' {trail} | sandtrace verify -"
            ))?;
        }
        Ok(())
    }
}

pub(super) fn say(text: &str) -> Result<(), Failure> {
    writeln!(anstream::stdout().lock(), "{text}").or_exit(Exit::Io)
}

/// Breaks a paragraph into lines of at most 78 characters.
fn wrapped(text: &str) -> String {
    const WIDTH: usize = 78;
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}
