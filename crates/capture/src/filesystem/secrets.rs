//! What in a file looks like a secret: which rules match and how often. The
//! matching bytes are forgotten at once.

use memchr::memmem;
use sandtrace_event::{Count, Digest, SecretsFound};
use std::collections::HashMap;

/// A secret begins with one of these words and goes on with `least` or more
/// bytes of an alphabet.
struct Rule {
    name: &'static str,
    begins: &'static [&'static str],
    least: usize,
    goes_on: fn(u8) -> bool,
}

/// The shapes that their issuers document; docs/events.md lists the names.
const RULES: [Rule; 10] = [
    Rule {
        name: "aws_access_key_id",
        begins: &["AKIA", "ASIA"],
        least: 16,
        goes_on: |byte| byte.is_ascii_uppercase() || byte.is_ascii_digit(),
    },
    Rule {
        name: "github_token",
        begins: &["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"],
        least: 22,
        goes_on: is_word,
    },
    Rule {
        name: "gitlab_token",
        begins: &["glpat-"],
        least: 20,
        goes_on: is_url_safe,
    },
    Rule {
        name: "slack_token",
        begins: &["xoxb-", "xoxp-", "xoxa-", "xoxs-", "xoxr-"],
        least: 10,
        goes_on: is_url_safe,
    },
    Rule {
        name: "stripe_key",
        begins: &["sk_live_", "rk_live_", "sk_test_"],
        least: 16,
        goes_on: is_word,
    },
    Rule {
        name: "google_api_key",
        begins: &["AIza"],
        least: 35,
        goes_on: is_url_safe,
    },
    Rule {
        name: "npm_token",
        begins: &["npm_"],
        least: 36,
        goes_on: is_word,
    },
    Rule {
        name: "openai_key",
        begins: &["sk-proj-", "sk-svcacct-"],
        least: 20,
        goes_on: is_url_safe,
    },
    Rule {
        name: "anthropic_key",
        begins: &["sk-ant-"],
        least: 20,
        goes_on: is_url_safe,
    },
    Rule {
        name: "private_key",
        begins: &[
            "-----BEGIN PRIVATE KEY-----",
            "-----BEGIN RSA PRIVATE KEY-----",
            "-----BEGIN EC PRIVATE KEY-----",
            "-----BEGIN DSA PRIVATE KEY-----",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----",
            "-----BEGIN PGP PRIVATE KEY BLOCK-----",
        ],
        least: 0,
        goes_on: |_| true,
    },
];

/// Longer than any beginning and what must follow it.
const LONGEST: usize = 64;
/// Contents of one scan whose findings are kept.
const MOST: usize = 10_000;

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_url_safe(byte: u8) -> bool {
    is_word(byte) || byte == b'-'
}

/// Whether there is one in these bytes.
pub(crate) fn are_in(bytes: &[u8]) -> bool {
    let mut scanner = Scanner::default();
    scanner.feed(bytes);
    scanner.end_part();
    scanner.counts.iter().any(|count| *count > 0)
}

/// Looks through bytes that come in pieces.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    /// The end of what was fed, in which a secret may have begun, after the
    /// byte before it.
    kept: Vec<u8>,
    /// Whether the first of the kept bytes was looked at, and is only there
    /// to tell what a word begins after.
    has_past: bool,
    counts: [u64; RULES.len()],
}

impl Scanner {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        let end = self.kept.len().saturating_sub(LONGEST);
        self.look(end);
        if let Some(drop) = end.checked_sub(1) {
            self.kept.drain(..drop);
            self.has_past = true;
        }
    }

    /// What comes next does not follow what was fed.
    pub(crate) fn end_part(&mut self) {
        self.look(self.kept.len());
        self.kept.clear();
        self.has_past = false;
    }

    /// Counts what begins before `end`.
    fn look(&mut self, end: usize) {
        let begin = usize::from(self.has_past);
        for (rule, count) in RULES.iter().zip(&mut self.counts) {
            for word in rule.begins {
                let found = memmem::find_iter(&self.kept, word.as_bytes());
                let found = found.take_while(|at| *at < end).filter(|at| *at >= begin);
                let matching = found.filter(|at| rule.matches(&self.kept, *at, word.len()));
                *count += matching.count() as u64;
            }
        }
    }
}

impl Rule {
    fn matches(&self, bytes: &[u8], at: usize, len: usize) -> bool {
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        let rest = bytes.get(at + len..).unwrap_or_default();
        let rest = rest.iter().take(self.least);
        let goes_on = rest.take_while(|byte| (self.goes_on)(**byte)).count();
        goes_on == self.least && !before.is_some_and(|byte| is_word(*byte))
    }
}

/// What was found in the contents of one scan.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings(HashMap<Digest, Vec<SecretsFound>>);

impl Findings {
    pub(crate) fn add(&mut self, content: Digest, scanner: &Scanner) {
        let counts = RULES.iter().zip(scanner.counts);
        let found: Vec<_> = counts
            .filter(|(_, count)| *count > 0)
            .map(|(rule, count)| SecretsFound {
                count: Count(count),
                rule: rule.name.to_owned(),
            })
            .collect();
        if !found.is_empty() && self.0.len() < MOST {
            self.0.insert(content, found);
        }
    }

    pub(crate) fn of(&self, content: &Digest) -> Vec<SecretsFound> {
        self.0.get(content).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the bytes are cut into pieces.
    #[track_caller]
    fn check(text: &str, expected: &[(&str, u64)]) {
        for piece in [1, 7, 64, 65, 1 << 20] {
            let mut scanner = Scanner::default();
            for bytes in text.as_bytes().chunks(piece) {
                scanner.feed(bytes);
            }
            scanner.end_part();
            let counts = RULES.iter().map(|rule| rule.name).zip(scanner.counts);
            let found: Vec<_> = counts.filter(|(_, count)| *count > 0).collect();
            assert_eq!(found, expected, "{text:?} in pieces of {piece}");
        }
    }

    #[test]
    fn shapes_are_counted() {
        // Made up; put together here so that no scanner of sources trips.
        let aws = format!("AKIA{}", "ABCDEFGH12345678");
        let github = format!("ghp_{}", "a1".repeat(18));
        let key = format!("-----BEGIN {}-----\nMIIE\n", "OPENSSH PRIVATE KEY");
        check("", &[]);
        check("nothing AKIA here, ghp_short either", &[]);
        check(&aws, &[("aws_access_key_id", 1)]);
        check(&format!("x{aws}"), &[]);
        check(
            &format!("id={aws}\nid={aws}\n{github}"),
            &[("aws_access_key_id", 2), ("github_token", 1)],
        );
        let long = format!("{}\n{key}{}", "l".repeat(5000), "m".repeat(500));
        check(&long, &[("private_key", 1)]);
        check(&aws.to_lowercase(), &[]);
    }
}
