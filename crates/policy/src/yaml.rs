//! YAML text to a tree that knows where each of its parts stands.
//!
//! A subset of YAML 1.2: one document, mappings with plain keys, sequences,
//! scalars. Anchors, aliases and tags are refused, so that what stands in
//! the file is what counts; so are keys given twice.

use crate::error::Problem;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

/// Mappings and sequences within each other.
const MAX_DEPTH: usize = 16;

/// Keys of one mapping; no mapping of a manifest has nearly as many.
const MAX_KEYS: usize = 64;

/// A place in the manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    /// From 1.
    pub(crate) line: usize,
    /// In characters, from 1.
    pub(crate) column: usize,
}

impl From<Marker> for Mark {
    fn from(marker: Marker) -> Self {
        Self {
            line: marker.line().max(1),
            column: marker.col() + 1,
        }
    }
}

/// A part of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) at: Mark,
    pub(crate) value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// `quoted`: in quotes or a block, so that `"443"` is not a number.
    Scalar {
        text: String,
        quoted: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: Mark,
    pub(crate) value: Node,
}

impl Node {
    /// What this is, for "must be a list, not …".
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar { text, quoted } if !quoted && is_null(text) => "nothing",
            Value::Scalar { quoted: true, .. } => "a string",
            Value::Scalar { text, .. } if is_bool(text) => "a boolean",
            Value::Scalar { text, .. } if is_number(text) => "a number",
            Value::Scalar { .. } => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn is_bool(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "true" | "false")
}

/// Whether another reader of YAML would take a plain scalar for a number
/// (YAML 1.2.2 §10.3.2).
fn is_number(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    let radix = digits.starts_with("0x") || digits.starts_with("0o");
    let plain = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    let one_dot = digits.bytes().filter(|&byte| byte == b'.').count() <= 1;
    radix || (plain && one_dot && digits.parse::<f64>().is_ok())
}

/// Reads one document.
pub(crate) fn parse(text: &[u8]) -> Result<Node, Problem> {
    let text = decode(text)?;
    let mut builder = Builder::default();
    for event in Events(Parser::new_from_str(text)) {
        let (event, span) = event?;
        builder.take(event, span)?;
    }
    builder
        .root
        .ok_or_else(|| Problem::new(Mark { line: 1, column: 1 }, "the manifest is empty"))
}

/// UTF-8 without a byte order mark and without characters that YAML forbids.
fn decode(bytes: &[u8]) -> Result<&str, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
        Problem::new(mark_after(&String::from_utf8_lossy(valid)), "not UTF-8")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let allowed = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t' | '\u{85}');
    match text.char_indices().find(|&(_, c)| !allowed(c)) {
        None => Ok(text),
        Some((index, c)) => {
            let before = text.get(..index).unwrap_or_default();
            let message = format!("control character U+{:04X}", u32::from(c));
            Err(Problem::new(mark_after(before), message))
        }
    }
}

fn mark_after(text: &str) -> Mark {
    let last = text.rsplit('\n').next().unwrap_or_default();
    Mark {
        line: text.matches('\n').count() + 1,
        column: last.chars().count() + 1,
    }
}

struct Events<'a>(Parser<'a, saphyr_parser::StrInput<'a>>);

impl<'a> Iterator for Events<'a> {
    type Item = Result<(Event<'a>, Span), Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        let event = self.0.next_event()?;
        Some(event.map_err(|error| Problem::new((*error.marker()).into(), error.info())))
    }
}

/// A mapping or sequence that is not closed yet.
enum Open {
    List(Mark, Vec<Node>),
    Map(Mark, Vec<Entry>, Option<(String, Mark)>),
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let at = Mark::from(span.start);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(Problem::new(at, "a second document")
                    .suggest("a manifest is one document; remove the `---`"))
            }
            Event::DocumentStart(_) => Ok(()),
            Event::Alias(_) => Err(no_reuse(at)),
            Event::Scalar(text, style, anchor, tag) => {
                plain(at, anchor, tag.is_some())?;
                let quoted = style != ScalarStyle::Plain;
                let text = text.into_owned();
                self.add(Node {
                    at,
                    value: Value::Scalar { text, quoted },
                })
            }
            Event::SequenceStart(anchor, tag) => {
                plain(at, anchor, tag.is_some())?;
                self.push(Open::List(at, Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                plain(at, anchor, tag.is_some())?;
                self.push(Open::Map(at, Vec::new(), None))
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
        }
    }

    fn push(&mut self, open: Open) -> Result<(), Problem> {
        let (Open::List(at, _) | Open::Map(at, ..)) = &open;
        if self.open.len() >= MAX_DEPTH {
            return Err(Problem::new(*at, format!("nested deeper than {MAX_DEPTH}")));
        }
        if let Some(Open::Map(_, _, None)) = self.open.last() {
            return Err(Problem::new(*at, "a key must be a word"));
        }
        self.open.push(open);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Problem> {
        let node = match self.open.pop() {
            Some(Open::List(at, items)) => Node {
                at,
                value: Value::List(items),
            },
            Some(Open::Map(at, entries, _)) => Node {
                at,
                value: Value::Map(entries),
            },
            None => return Ok(()),
        };
        self.add(node)
    }

    fn add(&mut self, node: Node) -> Result<(), Problem> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(_, entries, key @ None)) => *key = Some(new_key(entries, node)?),
            Some(Open::Map(_, entries, key)) => {
                let (key, key_at) = key.take().unwrap_or_default();
                entries.push(Entry {
                    key,
                    key_at,
                    value: node,
                });
            }
        }
        Ok(())
    }
}

fn new_key(entries: &[Entry], node: Node) -> Result<(String, Mark), Problem> {
    let Value::Scalar { text, .. } = node.value else {
        return Err(Problem::new(node.at, "a key must be a word"));
    };
    match entries.iter().find(|entry| entry.key == text) {
        None if entries.len() >= MAX_KEYS => {
            Err(Problem::new(node.at, format!("more than {MAX_KEYS} keys")))
        }
        None => Ok((text, node.at)),
        Some(first) => {
            let message = format!("key {text:?} is given twice");
            let first = format!("first in line {}", first.key_at.line);
            Err(Problem::new(node.at, message).suggest(first))
        }
    }
}

fn plain(at: Mark, anchor: usize, tagged: bool) -> Result<(), Problem> {
    if anchor != 0 {
        return Err(no_reuse(at));
    }
    if tagged {
        return Err(Problem::new(at, "YAML tags are not supported").suggest("remove the `!…`"));
    }
    Ok(())
}

fn no_reuse(at: Mark) -> Problem {
    Problem::new(at, "YAML anchors and aliases are not supported").suggest("write the value out")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn refuses(text: &str, line: usize, column: usize, message: &str) {
        let problem = parse(text.as_bytes()).unwrap_err();
        assert_eq!(problem.at, Mark { line, column }, "{problem:?}");
        assert!(problem.message.contains(message), "{problem:?}");
    }

    #[test]
    fn parts_know_their_places() {
        let root = parse(b"# c\na: 1\nlist:\n  - {k: \"v\"}\n").unwrap();
        let Value::Map(entries) = &root.value else {
            panic!("{root:?}")
        };
        assert_eq!(entries[1].key_at, Mark { line: 3, column: 1 });
        let Value::List(items) = &entries[1].value.value else {
            panic!("{root:?}")
        };
        assert_eq!(items[0].at, Mark { line: 4, column: 5 });
    }

    #[test]
    fn what_hides_meaning_is_refused() {
        refuses("", 1, 1, "empty");
        refuses("a: &x 1\nb: *x\n", 1, 4, "anchors");
        refuses("a: !!str 1\n", 1, 4, "tags");
        refuses("a: 1\nb: 2\na: 3\n", 3, 1, "twice");
        refuses("a: 1\n---\nb: 2\n", 2, 1, "second document");
        refuses("? [a]\n: 1\n", 1, 3, "a key must be a word");
        refuses("a: \u{1b}[31m", 1, 4, "control character U+001B");
        refuses("a: [1\n", 2, 1, "");
        let deep = format!("a: {}1{}", "[".repeat(40), "]".repeat(40));
        refuses(&deep, 1, 19, "deeper");
        assert_eq!(
            parse(b"a: b\nc: \xff").unwrap_err().at,
            Mark { line: 2, column: 4 }
        );
    }

    #[test]
    fn scalars_are_told_apart() {
        let table = [
            ("1.0", "a number"),
            ("443", "a number"),
            ("0x1F", "a number"),
            ("\"443\"", "a string"),
            ("1.2.3.4", "a string"),
            ("tool:x", "a string"),
            ("-", "a list"),
            ("true", "a boolean"),
            ("~", "nothing"),
        ];
        for (text, kind) in table {
            let root = parse(format!("a: x\nk:\n  {text}\n").as_bytes()).unwrap();
            let Value::Map(entries) = root.value else {
                panic!()
            };
            assert_eq!(entries[1].value.kind(), kind, "{text}");
        }
    }

    #[test]
    fn nesting_without_end_is_cut_short() {
        for bad in ["[", "{", "- ", "? ", "a: {", "[{"] {
            assert!(parse(bad.repeat(100_000).as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-c:\\-\\[\\]{}?,&*!|>'\"#%@` \\n\\t0-2~.é]{0,200}") {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
