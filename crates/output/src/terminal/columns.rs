//! Laying out one line.

use super::{Charset, Look, Text, size};
use anstyle::{AnsiColor, Style};
use sandtrace_event::{AuditEvent, Verdict, VerdictResult};

/// Characters of the subject, which is padded to the first and cut at the second.
const SUBJECT: (usize, usize) = (44, 72);

/// Characters of any other piece of text from outside.
const REMARK: usize = 160;

/// Longest line where nobody gave a width.
const LINE: usize = 400;

/// The pieces of a line. All text in here is safe to print.
pub(super) struct Columns {
    kind: &'static str,
    action: String,
    subject: String,
    size: String,
    remarks: Vec<String>,
}

impl Columns {
    pub(super) fn new(kind: &'static str, action: &str) -> Self {
        Self {
            kind,
            action: Text::new(action.as_bytes(), Charset::Ascii).start(8),
            subject: String::new(),
            size: String::new(),
            remarks: Vec::new(),
        }
    }

    /// What it happened to: paths, with the middle cut where they are long.
    pub(super) fn path(mut self, bytes: &[u8]) -> Self {
        self.subject = Text::new(bytes, Charset::Printable).middle(SUBJECT.1);
        self
    }

    /// Between whom it happened: `before` and `after` are ours, `host` is cut
    /// where the three are too long together.
    pub(super) fn peer(mut self, before: &str, host: &str, after: &str) -> Self {
        let ours = before.chars().count() + after.chars().count();
        let room = SUBJECT.1.saturating_sub(ours).max(8);
        let host = Text::new(host.as_bytes(), Charset::Ascii).middle(room);
        self.subject = format!("{before}{host}{after}");
        self
    }

    pub(super) fn bytes(mut self, bytes: Option<u64>) -> Self {
        self.size = bytes.map(size).unwrap_or_default();
        self
    }

    /// Adds a remark of any origin; an empty one adds nothing.
    pub(super) fn remark(mut self, text: &str) -> Self {
        if !text.is_empty() {
            let text = Text::new(text.as_bytes(), Charset::Printable);
            self.remarks.push(text.start(REMARK));
        }
        self
    }

    pub(super) fn line(self, event: &AuditEvent, look: Look) -> String {
        let time = event.wall_time.to_string();
        let time = time.get(11..23).unwrap_or_default();
        let verdict = event.verdict.as_ref();
        let head = format!("{time} {:<4} ", self.kind);
        let word = verdict.map_or("-", |verdict| verdict.result.as_str());
        let tail = self.remark_verdict(verdict).tail();
        let used = head.chars().count() + 8;
        let room = look.width.unwrap_or(LINE).saturating_sub(used);
        let tail = cut(tail.trim_end(), room);
        let style = style(look, verdict);
        // The padding stands outside of the colour.
        let pad = " ".repeat(8_usize.saturating_sub(word.len()));
        format!("{head}{style}{word}{style:#}{pad}{tail}")
    }

    fn remark_verdict(self, verdict: Option<&Verdict>) -> Self {
        let Some(verdict) = verdict else { return self };
        match &verdict.policy_rule {
            Some(rule) => self.remark(&format!("{} [{rule}]", verdict.reason)),
            None => self.remark(&verdict.reason),
        }
    }

    fn tail(&self) -> String {
        let Self {
            action,
            subject,
            size,
            remarks,
            ..
        } = self;
        let remarks = remarks.join("  ");
        format!("{action:<8} {subject:<0$} {size:>8}  {remarks}", SUBJECT.0)
    }
}

fn style(look: Look, verdict: Option<&Verdict>) -> Style {
    let plain = Style::new();
    match verdict.map(|verdict| verdict.result) {
        _ if !look.colour => plain,
        Some(VerdictResult::Allow) => plain.fg_color(Some(AnsiColor::Green.into())),
        Some(VerdictResult::Anomaly) => plain.fg_color(Some(AnsiColor::Yellow.into())).bold(),
        Some(VerdictResult::Deny) => plain.fg_color(Some(AnsiColor::Red.into())).bold(),
        None => plain.dimmed(),
    }
}

/// Cuts text that is safe already.
fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let kept = text.chars().take(room.saturating_sub(1));
    kept.chain(std::iter::once('…')).collect()
}
