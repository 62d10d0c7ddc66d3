//! What a sandbox says: a bounded memory of its console and the guest's messages in it.

use std::collections::VecDeque;
use std::io::Read;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use sandtrace_guest::{MAX_LINE, Message, Report};

/// How much of the console is kept, in bytes.
const KEPT: usize = 64 * 1024;
/// How many reports are kept; a guest that says more is not telling a story.
const MAX_REPORTS: usize = 1000;

/// Reads a console to its end on a thread of its own.
#[derive(Debug)]
pub(crate) struct Console {
    heard: Arc<Mutex<Heard>>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Heard {
    line: Vec<u8>,
    tail: VecDeque<u8>,
    reports: Vec<Report>,
    told: usize,
    end: Ending,
}

/// How the guest said its run ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Ending {
    /// It said nothing: killed, crashed, or still running.
    #[default]
    Silent,
    /// The script was played to its end.
    Done,
    /// The guest gave up, for this reason.
    Failed(String),
}

impl Console {
    pub(crate) fn read_from(source: impl Read + Send + 'static) -> Self {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let shared = Arc::clone(&heard);
        let reader = thread::Builder::new()
            .name("lab-console".to_owned())
            .spawn(move || listen(source, &shared))
            .ok();
        Self { heard, reader }
    }

    /// The reports since the last call.
    pub(crate) fn fresh_reports(&self) -> Vec<Report> {
        let mut heard = lock(&self.heard);
        let fresh = heard.reports.get(heard.told..).unwrap_or_default().to_vec();
        heard.told = heard.reports.len();
        fresh
    }

    /// Waits for the end of the console, which the end of the sandbox brings.
    pub(crate) fn finish(&mut self) -> (Vec<Report>, Ending) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        let heard = lock(&self.heard);
        (heard.reports.clone(), heard.end.clone())
    }

    /// The last part of what was said, printable.
    pub(crate) fn text(&self) -> String {
        let bytes: Vec<u8> = lock(&self.heard).tail.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        text.chars()
            .filter(|&c| c == '\n' || !c.is_control())
            .collect()
    }

    /// The last lines, for an error message.
    pub(crate) fn last_lines(&self) -> String {
        const LINES: usize = 8;
        let text = self.text();
        let mut lines: Vec<&str> = text.trim_end().lines().rev().take(LINES).collect();
        lines.reverse();
        if lines.is_empty() {
            "(nothing)".to_owned()
        } else {
            lines.join("\n")
        }
    }
}

fn listen(mut source: impl Read, heard: &Mutex<Heard>) {
    let mut buffer = [0; 4096];
    // An error ends the console just as its end does.
    while let Ok(length @ 1..) = source.read(&mut buffer) {
        lock(heard).take(buffer.get(..length).unwrap_or_default());
    }
    lock(heard).end_line();
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Heard {
    fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.tail.len() == KEPT {
                self.tail.pop_front();
            }
            self.tail.push_back(byte);
            if byte == b'\n' {
                self.end_line();
            } else if self.line.len() <= MAX_LINE {
                // One byte too many stays, so that a line which was cut is no message.
                self.line.push(byte);
            }
        }
    }

    fn end_line(&mut self) {
        let line = mem::take(&mut self.line);
        match Message::parse(&String::from_utf8_lossy(&line)) {
            Some(Message::Step(report)) if self.reports.len() < MAX_REPORTS => {
                self.reports.push(report);
            }
            Some(Message::Done { done: true }) if self.end == Ending::Silent => {
                self.end = Ending::Done;
            }
            Some(Message::Failed { failed }) => self.end = Ending::Failed(failed),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(said: &[u8], reports: usize, end: &Ending) {
        let mut console = Console::read_from(std::io::Cursor::new(said.to_vec()));
        let (found, ending) = console.finish();
        assert_eq!((found.len(), &ending), (reports, end));
        assert!(console.text().len() <= 3 * KEPT);
    }

    #[test]
    fn hears_messages_among_noise() {
        let step = "@lab {\"step\":\"a\",\"detail\":\"b\"}\r\n";
        check(b"", 0, &Ending::Silent);
        check(
            format!("[ 0.1] noise\n{step}@lab {{\"done\":true}}").as_bytes(),
            1,
            &Ending::Done,
        );
        check(
            b"@lab {\"failed\":\"x\"}\n@lab {\"done\":true}\n",
            0,
            &Ending::Failed("x".into()),
        );
        check(b"@lab {\"done\":false}\n\xff\xfe\n", 0, &Ending::Silent);
        check(step.repeat(5000).as_bytes(), MAX_REPORTS, &Ending::Silent);
        check(&vec![b'x'; 10 << 20], 0, &Ending::Silent);
    }

    #[test]
    fn tells_each_report_once() {
        let said = "@lab {\"step\":\"a\",\"detail\":\"b\"}\n";
        let mut console = Console::read_from(said.as_bytes());
        console.finish();
        assert_eq!(console.fresh_reports().len(), 1);
        assert_eq!(console.fresh_reports().len(), 0);
        assert_eq!(console.text(), said);
    }
}
