//! Which witnesses are enough, in the form of C2SP trust policies
//! (c2sp.org/tlog-policy).
//!
//! A policy is lines of words set apart by spaces and tabs; `#` begins a line
//! of comment:
//!
//! ```text
//! log <vkey> [<url>]
//! witness <name> <vkey> [<url>]
//! group <name> all|any|<k> <member>…
//! quorum <name>|none
//! ```
//!
//! A group has seen a checkpoint if at least `k` of its members have; members
//! are witnesses and groups of earlier lines, each of them in one group at
//! most. There is exactly one quorum. A file that says anything else is
//! refused as a whole: half a policy is none.

use crate::note::{Algorithm, KeyError, VerifierKey};
use std::collections::BTreeMap;

/// Longest policy in bytes.
pub const MAX_POLICY: usize = 256 * 1024;

/// Most logs, and most witnesses and groups together.
pub const MAX_ENTRIES: usize = 1024;

/// Why a file is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {flaw}")]
pub struct PolicyError {
    /// Number of the line, from 1; the last one where something is missing.
    pub line: usize,
    /// What is wrong there.
    pub flaw: PolicyFlaw,
}

/// A way in which a line is no part of a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFlaw {
    /// The file is longer than [`MAX_POLICY`].
    #[error("a policy has at most {MAX_POLICY} bytes")]
    TooLong,
    /// More than [`MAX_ENTRIES`] logs, or witnesses and groups.
    #[error("a policy has at most {MAX_ENTRIES} logs, and as many witnesses and groups")]
    TooMany,
    /// A byte that is not allowed.
    #[error("control characters but tab and line feed are not allowed")]
    Control,
    /// The first word is none of the known ones.
    #[error("a line begins with log, witness, group or quorum, not with `{0}`")]
    Keyword(String),
    /// Too few or too many words.
    #[error("the form is `{0}`")]
    Form(&'static str),
    /// A key that cannot be used.
    #[error("key `{key}`")]
    Key {
        /// The word.
        key: String,
        /// What is wrong with it.
        source: KeyError,
    },
    /// A log's key signs no checkpoints, or a witness's no cosignatures.
    #[error("`{key}` is no key of a {what}: the type must be {expected:#04x}")]
    KeyType {
        /// The key's name.
        key: String,
        /// `log` or `witness`.
        what: &'static str,
        /// The type that it must have.
        expected: u8,
    },
    /// The same public key twice, under whatever names.
    #[error("the public key of `{0}` is there already")]
    DuplicateKey(String),
    /// A second witness or group of a name.
    #[error("`{0}` is defined already")]
    DuplicateName(String),
    /// `none` is not for use here.
    #[error("`none` is no name: only a quorum can be none")]
    ReservedName,
    /// No earlier line defines this name.
    #[error("no line before this one defines `{0}`")]
    Undefined(String),
    /// A witness or group in two groups, or twice in one.
    #[error("`{0}` is a member already: nobody counts twice")]
    SecondMembership(String),
    /// The threshold is no number from 1 to the number of members.
    #[error("`{0}` is not all, any, or a number from 1 to {1}, the number of members")]
    Threshold(String, usize),
    /// A second quorum.
    #[error("there is a quorum already")]
    SecondQuorum,
    /// No quorum at all.
    #[error("no line says which quorum is needed")]
    NoQuorum,
}

/// A log that the policy accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyLog {
    /// Its key; the key's name is the log's origin.
    pub key: VerifierKey,
    /// Where it can be reached.
    pub url: Option<String>,
}

/// A witness that the policy knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyWitness {
    /// Its name within the policy.
    pub name: String,
    /// Its key.
    pub key: VerifierKey,
    /// Where it can be asked.
    pub url: Option<String>,
}

/// Whose cosignatures make a checkpoint good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessPolicy {
    logs: Vec<PolicyLog>,
    witnesses: Vec<PolicyWitness>,
    /// In the order of the file: members come before their group.
    entries: Vec<Entry>,
    /// Place of an entry; `None` where no cosignature is needed.
    quorum: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// Place of a witness.
    Witness(usize),
    Group {
        threshold: usize,
        /// Places of entries.
        members: Vec<usize>,
    },
}

impl WitnessPolicy {
    /// Reads a policy.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: impl AsRef<[u8]>) -> Result<Self, PolicyError> {
        let text = text.as_ref();
        let mut parser = Parser::default();
        let mut last = 1;
        if text.len() > MAX_POLICY {
            return Err(PolicyFlaw::TooLong.at(last));
        }
        for (line, number) in text.split(|&byte| byte == b'\n').zip(1..) {
            parser.line(line).map_err(|flaw| flaw.at(number))?;
            last = number;
        }
        parser.finish().map_err(|flaw| flaw.at(last))
    }

    /// The logs that are accepted; where there are none, somebody else says
    /// which are.
    #[must_use]
    pub fn logs(&self) -> &[PolicyLog] {
        &self.logs
    }

    /// The witnesses in the order of the file.
    #[must_use]
    pub fn witnesses(&self) -> &[PolicyWitness] {
        &self.witnesses
    }

    /// The witnesses' keys, as [`crate::note::Note::verify`] takes them.
    #[must_use]
    pub fn witness_keys(&self) -> Vec<VerifierKey> {
        let keys = self.witnesses.iter().map(|witness| witness.key.clone());
        keys.collect()
    }

    /// Whether these keys, whose cosignatures of one checkpoint were found
    /// right, are enough. Keys of nobody in the policy count for nothing.
    pub fn satisfied_by<'a>(&self, cosigners: impl IntoIterator<Item = &'a VerifierKey>) -> bool {
        let Some(quorum) = self.quorum else {
            return true;
        };
        let mut seen = vec![false; self.witnesses.len()];
        for key in cosigners {
            for (witness, seen) in self.witnesses.iter().zip(&mut seen) {
                *seen |= witness.key == *key;
            }
        }
        let mut holds: Vec<bool> = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let is_true = |list: &[bool], place: &usize| list.get(*place) == Some(&true);
            holds.push(match entry {
                Entry::Witness(place) => is_true(&seen, place),
                Entry::Group { threshold, members } => {
                    let count = members.iter().filter(|member| is_true(&holds, member));
                    count.count() >= *threshold
                }
            });
        }
        holds.get(quorum) == Some(&true)
    }
}

impl PolicyFlaw {
    fn at(self, line: usize) -> PolicyError {
        PolicyError { line, flaw: self }
    }
}

#[derive(Default)]
struct Parser {
    logs: Vec<PolicyLog>,
    witnesses: Vec<PolicyWitness>,
    entries: Vec<Entry>,
    /// Names are bytes: their case and their encoding mean nothing.
    names: BTreeMap<Vec<u8>, Name>,
    quorum: Option<Option<usize>>,
}

struct Name {
    /// Place of its entry.
    entry: usize,
    is_member: bool,
}

impl Parser {
    fn line(&mut self, line: &[u8]) -> Result<(), PolicyFlaw> {
        let is_control = |byte: &u8| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f;
        if line.iter().any(is_control) {
            return Err(PolicyFlaw::Control);
        }
        let words = line.split(|byte| matches!(byte, b' ' | b'\t'));
        let words: Vec<&[u8]> = words.filter(|word| !word.is_empty()).collect();
        match words.as_slice() {
            [] => Ok(()),
            [first, ..] if first.starts_with(b"#") => Ok(()),
            [b"log", rest @ ..] => self.log(rest),
            [b"witness", rest @ ..] => self.witness(rest),
            [b"group", rest @ ..] => self.group(rest),
            [b"quorum", rest @ ..] => self.quorum(rest),
            [other, ..] => Err(PolicyFlaw::Keyword(shown(other))),
        }
    }

    fn log(&mut self, words: &[&[u8]]) -> Result<(), PolicyFlaw> {
        let (key, url) = match words {
            [key] => (key, None),
            [key, url] => (key, Some(shown(url))),
            _ => return Err(PolicyFlaw::Form("log <vkey> [<url>]")),
        };
        let key = parse_key(key, Algorithm::Ed25519, "log")?;
        unique(&key, self.logs.iter().map(|log| &log.key))?;
        if self.logs.len() == MAX_ENTRIES {
            return Err(PolicyFlaw::TooMany);
        }
        self.logs.push(PolicyLog { key, url });
        Ok(())
    }

    fn witness(&mut self, words: &[&[u8]]) -> Result<(), PolicyFlaw> {
        let (name, key, url) = match words {
            [name, key] => (name, key, None),
            [name, key, url] => (name, key, Some(shown(url))),
            _ => return Err(PolicyFlaw::Form("witness <name> <vkey> [<url>]")),
        };
        let key = parse_key(key, Algorithm::CosignatureV1, "witness")?;
        unique(&key, self.witnesses.iter().map(|witness| &witness.key))?;
        self.define(name, Entry::Witness(self.witnesses.len()))?;
        let name = shown(name);
        self.witnesses.push(PolicyWitness { name, key, url });
        Ok(())
    }

    fn group(&mut self, words: &[&[u8]]) -> Result<(), PolicyFlaw> {
        let [name, threshold, members @ ..] = words else {
            return Err(PolicyFlaw::Form("group <name> all|any|<k> <member>…"));
        };
        if members.is_empty() {
            return Err(PolicyFlaw::Form("group <name> all|any|<k> <member>…"));
        }
        let threshold = match *threshold {
            b"all" => members.len(),
            b"any" => 1,
            number => decimal(number)
                .filter(|k| (1..=members.len()).contains(k))
                .ok_or_else(|| PolicyFlaw::Threshold(shown(number), members.len()))?,
        };
        let members = members.iter().map(|member| self.join(member));
        let members = members.collect::<Result<_, _>>()?;
        self.define(name, Entry::Group { threshold, members })
    }

    fn quorum(&mut self, words: &[&[u8]]) -> Result<(), PolicyFlaw> {
        let [name] = words else {
            return Err(PolicyFlaw::Form("quorum <name>|none"));
        };
        if self.quorum.is_some() {
            return Err(PolicyFlaw::SecondQuorum);
        }
        self.quorum = Some(match *name {
            b"none" => None,
            name => match self.names.get(name) {
                Some(found) => Some(found.entry),
                None => return Err(PolicyFlaw::Undefined(shown(name))),
            },
        });
        Ok(())
    }

    /// The entry of this name, which becomes a group's member.
    fn join(&mut self, member: &[u8]) -> Result<usize, PolicyFlaw> {
        if member == b"none" {
            return Err(PolicyFlaw::ReservedName);
        }
        let Some(name) = self.names.get_mut(member) else {
            return Err(PolicyFlaw::Undefined(shown(member)));
        };
        if std::mem::replace(&mut name.is_member, true) {
            return Err(PolicyFlaw::SecondMembership(shown(member)));
        }
        Ok(name.entry)
    }

    fn define(&mut self, name: &[u8], entry: Entry) -> Result<(), PolicyFlaw> {
        if name == b"none" {
            return Err(PolicyFlaw::ReservedName);
        }
        if self.entries.len() == MAX_ENTRIES {
            return Err(PolicyFlaw::TooMany);
        }
        let place = Name {
            entry: self.entries.len(),
            is_member: false,
        };
        if self.names.insert(name.to_vec(), place).is_some() {
            return Err(PolicyFlaw::DuplicateName(shown(name)));
        }
        self.entries.push(entry);
        Ok(())
    }

    fn finish(self) -> Result<WitnessPolicy, PolicyFlaw> {
        Ok(WitnessPolicy {
            logs: self.logs,
            witnesses: self.witnesses,
            entries: self.entries,
            quorum: self.quorum.ok_or(PolicyFlaw::NoQuorum)?,
        })
    }
}

fn parse_key(
    word: &[u8],
    algorithm: Algorithm,
    what: &'static str,
) -> Result<VerifierKey, PolicyFlaw> {
    let key: VerifierKey = shown(word).parse().map_err(|source| PolicyFlaw::Key {
        key: shown(word),
        source,
    })?;
    if key.algorithm() == algorithm {
        return Ok(key);
    }
    Err(PolicyFlaw::KeyType {
        key: key.name().to_owned(),
        what,
        expected: algorithm.byte(),
    })
}

fn unique<'a>(
    key: &VerifierKey,
    mut others: impl Iterator<Item = &'a VerifierKey>,
) -> Result<(), PolicyFlaw> {
    if others.any(|other| other.public_key() == key.public_key()) {
        return Err(PolicyFlaw::DuplicateKey(key.name().to_owned()));
    }
    Ok(())
}

/// Digits only, without zeros in front.
fn decimal(text: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(text).ok()?;
    let value: usize = text.parse().ok()?;
    (value.to_string() == text).then_some(value)
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
