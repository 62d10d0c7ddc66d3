//! The guest's lines on its console: `@lab {json}`, everything else there is noise.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest line that is looked at, in bytes; longer ones are not messages.
pub const MAX_LINE: usize = 4096;

const PREFIX: &str = "@lab ";

/// One line from the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Message {
    /// The agent did something.
    Step(Report),
    /// The run ended as the script wanted it.
    Done {
        /// Always true.
        done: bool,
    },
    /// The run ended early.
    Failed {
        /// What went wrong.
        failed: String,
    },
}

/// What the agent did in one step, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// A short name that tests can look for, such as `charge`.
    pub step: String,
    /// One sentence for people.
    pub detail: String,
}

impl Message {
    /// The message in a console line, or nothing where the line is something else.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        if line.len() > MAX_LINE {
            return None;
        }
        serde_json::from_str(line.trim().strip_prefix(PREFIX)?).ok()
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        write!(f, "{PREFIX}{json}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Option<&Message>) {
        assert_eq!(Message::parse(line).as_ref(), expected, "{line}");
    }

    #[test]
    fn reads_lines() {
        let step = Message::Step(Report {
            step: "read".into(),
            detail: "task.md".into(),
        });
        check(r#"@lab {"step":"read","detail":"task.md"}"#, Some(&step));
        check(
            "@lab {\"done\":true}\r",
            Some(&Message::Done { done: true }),
        );
        check(
            r#"@lab {"failed":"no route"}"#,
            Some(&Message::Failed {
                failed: "no route".into(),
            }),
        );
        check("[    0.1] Linux version", None);
        check("@lab {", None);
        check(
            &format!("@lab {{\"failed\":\"{}\"}}", "x".repeat(MAX_LINE)),
            None,
        );
        check(&step.to_string(), Some(&step));
    }
}
